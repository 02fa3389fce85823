"""Standard output and standard error where they are closed, full, or their reader has left."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from typing import IO, Any

from nod.errors import OutputLostError


class Results:
    """A stream for results. It keeps what it is given, and notes when that cannot be written: a result of several
    lines then comes to its end, and is there as a whole."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._kept: list[str] = []
        self.error: OutputLostError | None = None

    def write(self, text: str) -> int:
        self._kept.append(text)
        self._try(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        self._try(self._stream.flush)

    def kept(self) -> str:
        """All that was written so far."""
        return "".join(self._kept)

    def _try(self, act: Callable[[], object]) -> None:
        if self.error is not None:
            return
        try:
            act()
        except BrokenPipeError:
            self.error = OutputLostError("The reader of standard output has left.", reader_left=True)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            self.error = OutputLostError(f"Standard output cannot be written: {reason}.")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class Remarks:
    """A stream for what is said beside the results. A command goes on where nobody can hear it."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):
            return self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def results() -> IO[str]:
    """Standard output; where it is closed, standard error, so that a password that is shown once is seen."""
    return sys.stdout or remarks()


def remarks() -> IO[str]:
    """Standard error, or nothing where it is closed."""
    return sys.stderr or _nothing()


def hold_descriptors() -> None:
    """Puts /dev/null where a standard descriptor is closed, or the next connection would get its number."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def flushed(stream: IO[str] | None) -> bool:
    """Writes out what is buffered; False if that cannot be done. Python's own try at its exit then does no harm."""
    try:
        if stream is not None:
            stream.flush()
    except (OSError, ValueError):
        abandon(stream)
        return False
    return True


def abandon(stream: IO[str] | None) -> None:
    """Sends what the stream still has, and all that follows, to nowhere."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())  # type: ignore[union-attr]  # None has no fileno
        os.close(nowhere)


def _nothing() -> IO[str]:
    return open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123 - it stays open as long as the process
