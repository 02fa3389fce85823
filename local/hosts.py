"""Who may be meant by a request on the loopback interface.

Once a stranger's page is open in a browser on this machine, its name can come to mean 127.0.0.1 (DNS rebinding), and it
reads what it likes here as a page of the same origin. What it cannot change is the Host header, which keeps that name.
So the port of the AWS APIs, whose pages `/_local/…` ask for no token, answers to 127.0.0.1 and localhost alone. The API
tells nothing without a token or a key.
"""

from __future__ import annotations

NAMES = ("127.0.0.1", "localhost")
REFUSED = "This port answers to 127.0.0.1 and localhost, with its own number, and to no other name."


def is_own(host: str | None, port: int) -> bool:
    """Whether a Host header names this port."""
    name, colon, number = (host or "").strip().lower().rpartition(":")
    if not colon:
        name, number = number, "80"
    return name in NAMES and number == str(port)


def is_own_origin(origin: str | None, port: int) -> bool:
    """Whether an Origin header is absent, as with all that is no browser, or that of a page of this port."""
    return origin is None or (origin.startswith("http://") and is_own(origin.removeprefix("http://"), port))
