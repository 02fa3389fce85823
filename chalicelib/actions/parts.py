"""Work that consists of many parts, of which one may fail without the others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from chalicelib.aws.faults import as_unavailable
from chalicelib.errors import NodError
from chalicelib.log import logger


class Parts:
    """Keeps the trouble of each part until the end, when it comes out."""

    def __init__(self) -> None:
        self.trouble: list[NodError] = []

    @contextmanager
    def part(self) -> Iterator[None]:
        """Inside, an error of ours or of AWS is logged and kept."""
        try:
            with as_unavailable("AWS"):
                yield
        except NodError as error:
            self.trouble.append(error)
            logger.error("a part failed", code=error.code, reason=error.detail)

    def end(self) -> None:
        """Raises the first trouble, if there was any."""
        if self.trouble:
            raise self.trouble[0]
