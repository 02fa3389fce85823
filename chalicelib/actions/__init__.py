"""What a function does: rules decide, gateways act. Gateways, clock and sleep are handed in."""
