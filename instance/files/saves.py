"""Whether a save was a person's: did what people write change, or only what programs put beside it?

A page saves by itself, each two minutes, what has changed since. A text file has changed because somebody typed. A
notebook changes also when a cell or a thread prints, so of a notebook the cells' kinds, sources and order count, and
not their outputs. They are compared with those of the save before, of which a hash is kept; when there is none, with
those of the file. What cannot be compared counts as written by a person: once, since from then on it can.
"""

import hashlib
import json
import os
import stat
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

MOST_PATHS = 256
# Reading more would hold up the server for longer than anybody's typing is worth.
MOST_BYTES = 8 * 1024 * 1024


class Saves:
    """What is remembered of saves. `path` is Jupyter's, `model` what it is asked to save."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, bytes | None] = OrderedDict()
        self._written: dict[str, bool] = {}

    def coming(self, path: str, model: Any, before: Callable[[], Any]) -> None:
        """A save is about to take place. `before` tells what notebook the file holds; asked only when not known."""
        path = path.strip("/")
        if model.get("type") != "notebook":
            self._known.pop(path, None)
            self._written[path] = True
        else:
            known = self._known.pop(path) if path in self._known else digest(before())
            self._known[path] = digest(model.get("content"))
            self._written[path] = known is None or known != self._known[path]
        while len(self._known) > MOST_PATHS:
            self._known.popitem(last=False)
        while len(self._written) > MOST_PATHS:
            del self._written[next(iter(self._written))]

    def happened(self, path: str) -> bool | None:
        """Whether a person wrote what was just saved. None: it was not seen coming."""
        return self._written.pop(path.strip("/"), None)


def digest(notebook: Any) -> bytes | None:
    """Of what a person writes in a notebook. None: it is none that we know."""
    cells = notebook.get("cells") if isinstance(notebook, dict) else None
    if not isinstance(cells, list):
        return None
    found = hashlib.blake2b(digest_size=16)
    for cell in cells:
        if not isinstance(cell, dict):
            return None
        source = cell.get("source", "")
        # In a file it is a list of lines.
        text = "".join(map(str, source)) if isinstance(source, list) else str(source)
        found.update(f"{cell.get('cell_type')} {len(text)} {text}".encode("utf-8", "surrogatepass"))
    return found.digest()


def on_disk(root: str, path: str) -> Any:
    """What a file holds as JSON; None for what is no such file, or too long."""
    try:
        file = os.open(Path(root, path.strip("/")), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):
        return None
    try:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode) or found.st_size > MOST_BYTES:
            return None
        with open(file, "rb", closefd=False) as opened:
            return json.loads(opened.read(MOST_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
    finally:
        os.close(file)
