"""In whose name this process acts just now: several of AWS's principals share it."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable, Iterator, Mapping
from typing import Any


class Listener:
    """Hears of calls that AWS itself makes in a principal's name, which no client here makes."""

    def __init__(self) -> None:
        self.note: Callable[[str, str, Mapping[str, Any]], None] | None = None

    def tell(self, service: str, operation: str, **parameters: Any) -> None:
        """A call in the current principal's name."""
        if self.note is not None:
            self.note(service, operation, parameters)


listener = Listener()
_principal: contextvars.ContextVar[str | None] = contextvars.ContextVar("principal", default=None)


def principal() -> str | None:
    """Who acts in this thread: `function/NAME`, `workflow/NAME`, `role/NAME`; None for the local cloud itself."""
    return _principal.get()


@contextlib.contextmanager
def acting(name: str) -> Iterator[None]:
    """What this thread calls until the end of the block, it calls in this principal's name."""
    token = _principal.set(name)
    try:
        yield
    finally:
        _principal.reset(token)
