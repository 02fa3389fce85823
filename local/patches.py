"""Changes to other people's classes that can be taken back, so that several clouds in one process do not add up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_MISSING = object()


class Patches:
    """Attributes replaced for as long as a cloud runs."""

    def __init__(self) -> None:
        self._undo: list[Callable[[], Any]] = []

    def set(self, owner: Any, name: str, value: Any) -> Any:
        """Replace `owner.name`; the value that was there before (as stored, so a static method stays one)."""
        before = owner.__dict__.get(name, _MISSING)
        self._undo.append(lambda: delattr(owner, name) if before is _MISSING else setattr(owner, name, before))
        setattr(owner, name, value)
        return None if before is _MISSING else before

    def after(self, undo: Callable[[], Any]) -> None:
        """Something else to be taken back."""
        self._undo.append(undo)

    def undo(self) -> None:
        """Put everything back, last change first."""
        while self._undo:
            self._undo.pop()()
