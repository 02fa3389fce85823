"""Work that consists of many parts, of which one may fail without the others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from chalicelib.aws.faults import as_unavailable
from chalicelib.errors import NodError
from chalicelib.log import logger

# What reading and reckoning come to where a row holds what nobody writes.
_DAMAGE = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


class Parts:
    """Keeps the trouble of each part until the end, when it comes out."""

    def __init__(self) -> None:
        self.trouble: list[NodError] = []

    @contextmanager
    def part(self) -> Iterator[None]:
        """Inside, what goes wrong is logged and kept, as `as_trouble` makes it."""
        try:
            with as_trouble():
                yield
        except NodError as error:
            self.trouble.append(error)
            logger.error("a part failed", code=error.code, reason=error.detail)

    def end(self) -> None:
        """Raises the first trouble, if there was any."""
        if self.trouble:
            raise self.trouble[0]


@contextmanager
def as_trouble() -> Iterator[None]:
    """Inside, an error of AWS becomes one of ours, and so does what a damaged row comes to: of one record neither may
    end the work on the others."""
    try:
        with as_unavailable("AWS"):
            yield
    except _DAMAGE as error:
        # Or it is our own mistake, which the traceback is for.
        logger.exception("a row cannot be worked on")
        raise NodError(f"A row cannot be worked on ({type(error).__name__}).") from error
