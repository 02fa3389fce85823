"""Who may be meant by a request on the loopback interface.

A page of a stranger can have its name resolve to 127.0.0.1 once it is open in a browser on this machine (DNS rebinding),
and then reads what it likes here, as a page of the same origin. What it cannot change is the Host header, which keeps
that name. So the ports answer to 127.0.0.1 and localhost alone.
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
