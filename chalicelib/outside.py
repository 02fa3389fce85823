"""Notebooks that nobody here stopped: what EC2's reason says of it."""

from __future__ import annotations

from chalicelib.model import Stop

INSTANCE_INITIATED = "Client.InstanceInitiatedShutdown"
"""EC2's code for a machine that switched itself off."""


def stop_of(reason: str | None) -> Stop:
    """Why a notebook is off that was `ready`.

    Args:
        reason: `StateReason.Code` of the instance; None where EC2 gives none.
    """
    if reason == INSTANCE_INITIATED:
        reason = "The machine switched itself off: it was idle, or someone shut it down from inside."
        return Stop("monitor", reason, "monitor")
    return Stop("outside", "Its machine was stopped in EC2, not by this deployment.", "outside")
