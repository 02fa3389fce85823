"""What the functions log, as it would stand in CloudWatch, and what holds for every line of it."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from chalicelib.executions import notebook_of
from chalicelib.log import KEYS, logger

Line = dict[str, Any]


class Lines(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self._texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        # The loggers of the local cloud itself are below the product's.
        if record.name == "nod":
            # At once, and in this thread: later its keys are others.
            self._texts.append(logger.registered_formatter.format(record))

    def all(self) -> list[Line]:
        """Oldest first."""
        return [json.loads(text) for text in list(self._texts)]

    def of(self, message: str) -> list[Line]:
        """Those with this text."""
        return [line for line in self.all() if line["message"] == message]


@contextmanager
def captured() -> Iterator[Lines]:
    """What is logged meanwhile; wherever else it goes, it goes there too."""
    lines = Lines()
    logging.getLogger("nod").addHandler(lines)
    try:
        yield lines
    finally:
        logging.getLogger("nod").removeHandler(lines)


def wrong(lines: Iterable[Line]) -> list[Line]:
    """Lines without the keys that each has, or with the execution of another notebook than theirs."""
    return [line for line in lines if not (line.keys() >= set(KEYS) and _fit(line["notebook"], line["execution"]))]


def _fit(notebook: str | None, execution: str | None) -> bool:
    whose = notebook_of(execution) if execution else None
    return whose is None or whose == notebook
