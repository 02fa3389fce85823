"""What the heartbeat tells of the notebook's server: its mode, why it is in it, and why it does not answer.

Reads what safe_mode.py and the server wrote into /run, with bounds: of the second the notebook's user can write all.
"""

import json
import os
from pathlib import Path
from typing import Any

STATE = Path("/run/nod-server/state.json")
WORDS = Path("/run/nod-server/last_words.txt")
READY = Path("/run/nod-ready/ready.json")
MOST_BYTES = 65536
MOST_WORDS = 2000
MOST_NAMES, LONGEST_NAME = 20, 40
# A service that was not started again for so long was switched off; it comes back within seconds otherwise.
OFF_SECONDS = 60.0


class ServerStatus:
    """Remembers since when the notebook does not answer. Times: seconds of CLOCK_BOOTTIME."""

    def __init__(self, state: Path = STATE, words: Path = WORDS, ready: Path = READY) -> None:
        self._state = state
        self._words = words
        self._ready = ready
        self._down_since: float | None = None

    def look(self, now: float, *, answers: bool, foreign: bool) -> dict[str, Any]:
        """The heartbeat's `server`, of a look at the port just now; `foreign`: another program answered there. Empty
        where there is nothing to tell: it answers, with its owner's configuration and all extensions."""
        if answers:
            self._down_since = None
        elif self._down_since is None:
            self._down_since = now
        state = self._read(self._state)
        mode = "safe" if state.get("mode") == "safe" else "normal"
        told: dict[str, Any] = {"mode": mode}
        if answers:
            code = state.get("code") if mode == "safe" else None
            left_out = self._left_out()
            if left_out:
                told["left_out"] = left_out
            elif mode == "normal":
                return {}
        else:
            code = self._why(state, now, foreign=foreign)
            told["down_seconds"] = int(now - (self._down_since or now))
        if isinstance(code, str):
            told["code"] = code[:LONGEST_NAME]
        since = state.get("since")
        if mode == "safe" and isinstance(since, int | float):
            told["safe_seconds"] = max(0, int(now - since))
        words = self._text(self._words) if code is not None else ""
        if words:
            told["words"] = words[-MOST_WORDS:]
        return told

    def _why(self, state: dict[str, Any], now: float, *, foreign: bool) -> str:
        """Why it does not answer: another program is there, the last start failed, the service is off, or it hangs."""
        if foreign:
            return "port_taken"
        code, failures, changed = state.get("code"), state.get("failures"), state.get("changed")
        if isinstance(failures, int) and failures > 0 and isinstance(code, str) and state.get("mode") != "safe":
            return code
        if state.get("phase") == "ended" and isinstance(changed, int | float) and now - changed > OFF_SECONDS:
            return "stopped"
        if isinstance(failures, int) and failures > 0 and isinstance(code, str) and state.get("phase") == "ended":
            return code
        return "silent"

    def _left_out(self) -> list[str]:
        found = self._read(self._ready).get("left_out")
        names = found if isinstance(found, list) else []
        return [name[:LONGEST_NAME] for name in names if isinstance(name, str) and name.isprintable()][:MOST_NAMES]

    def _read(self, path: Path) -> dict[str, Any]:
        try:
            found = json.loads(self._text(path))
        except (ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}

    def _text(self, path: Path) -> str:
        """A file's text with bounds; nothing where there is none."""
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            with os.fdopen(descriptor, "rb") as file:
                return file.read(MOST_BYTES).decode("utf-8", "replace")
        except OSError:
            return ""
