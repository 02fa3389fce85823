"""The AWS APIs of the local cloud: moto's, and one module for each place where moto is not AWS."""
