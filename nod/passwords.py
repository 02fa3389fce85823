"""A password made here, so that a request that has to be sent twice sets the same one twice."""

from __future__ import annotations

import secrets

# 32 characters that are not taken for one another (no 0 1 l o), 5 bits each.
_ALPHABET = "23456789abcdefghijkmnpqrstuvwxyz"


def generate() -> str:
    """140 random bits as seven groups of four characters, in the form of those that the API makes."""
    return "-".join("".join(secrets.choice(_ALPHABET) for _ in range(4)) for _ in range(7))
