"""Text for people: what the server sent made safe for a terminal, and durations."""

from __future__ import annotations

import contextlib
import unicodedata
from datetime import datetime

MOST_CHARACTERS = 2000
"""Longer texts are cut: an error message is for reading."""

_UNSAFE = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def clean(value: str, most: int = MOST_CHARACTERS) -> str:
    """`value` in one line, without what can steer a terminal.

    Dropped are control characters (escape sequences lose their ESC and show as plain text), format characters
    (they can turn the direction of text, so that it reads as something else) and lone surrogates (no encoding
    can write them). White space of any kind becomes a blank.
    """
    cut = value[:most] + ("…" if len(value) > most else "")
    blanks = "".join(" " if c.isspace() else c for c in cut)
    return "".join(c for c in blanks if unicodedata.category(c) not in _UNSAFE)


def seconds(value: float) -> str:
    """`2.1 s`, `34 s`: a tenth only where it says something."""
    return f"{value:.1f} s" if value < 9.95 else f"{value:.0f} s"


def clock(value: float) -> str:
    """`1:05`, `1:02:05`: a running clock."""
    whole = int(value)
    hours, rest = divmod(whole, 3600)
    minutes, secs = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{secs:02}" if hours else f"{minutes}:{secs:02}"


def span(value: float, units: int = 2) -> str:
    """A long duration in its largest units: `3 d 4 h`, `2 h 5 min`, `12 min`, `40 s`. Whole minutes from one on."""
    whole = int(value)
    if whole >= 60:
        whole -= whole % 60
    parts: list[str] = []
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, whole = divmod(whole, size)
        if count or parts:
            parts.append(f"{count} {unit}" if count else "")
        if len(parts) == units:
            break
    return " ".join(part for part in parts if part) or "0 s"


def local(moment: datetime) -> str:
    """`2026-01-02 15:04`, in the reader's time zone."""
    # The ends of years 1 and 9999 do not fit every time zone.
    with contextlib.suppress(OverflowError, ValueError):
        moment = moment.astimezone()
    return moment.replace(tzinfo=None).isoformat(" ", "minutes")


def distance(moment: datetime, now: datetime) -> str:
    """`in 23 min`, `12 min ago`, `now`."""
    left = (moment - now).total_seconds()
    if abs(left) < 1:
        return "now"
    return f"in {span(left)}" if left > 0 else f"{span(-left)} ago"


def since(moment: datetime, now: datetime) -> str:
    """`3 h ago`: for a table."""
    return f"{span(max(0.0, (now - moment).total_seconds()), 1)} ago"
