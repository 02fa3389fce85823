"""Logs of the local cloud: one JSON object a line under `.local/log/`. Never headers, bodies or parameter values."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from pathlib import Path

_FILES = {"nod.local.aws": "aws.log", "nod.local.gateway": "api.log", "nod.local": "cloud.log", "moto": "moto.log"}
_LEVELS = {"moto": logging.WARNING}


class _Lines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, object] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        entry.update(getattr(record, "fields", {}))
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


class Logs:
    """The log files of one cloud, until closed."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._handlers: list[tuple[logging.Logger, logging.Handler, bool, int]] = []
        for name, file in _FILES.items():
            handler = logging.FileHandler(folder / file, encoding="utf-8")
            handler.setFormatter(_Lines())
            logger = logging.getLogger(name)
            self._handlers.append((logger, handler, logger.propagate, logger.level))
            logger.addHandler(handler)
            logger.propagate = False
            logger.setLevel(_LEVELS.get(name, logging.INFO))

    def close(self) -> None:
        for logger, handler, propagate, level in self._handlers:
            logger.removeHandler(handler)
            logger.propagate = propagate
            logger.setLevel(level)
            handler.close()
