"""How a signal reaches the code that runs."""

from __future__ import annotations


class Stopped(BaseException):
    """Ctrl-C or SIGTERM; raised in the main thread."""
