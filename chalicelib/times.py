"""Times are UTC, ISO 8601 with milliseconds and `Z`. Nothing here asks the clock."""

from __future__ import annotations

from datetime import UTC, datetime


def to_text(moment: datetime) -> str:
    """`2026-11-22T20:08:10.123Z`. The time has to know its zone."""
    if moment.tzinfo is None:
        raise ValueError("A time without a zone.")
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def to_minute(moment: datetime) -> str:
    """`2026-11-22 20:08 UTC`, for people; of a time in UTC."""
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def from_text(text: str | None) -> datetime | None:
    """The time, or None for None and for what is no time with a zone."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment.astimezone(UTC) if moment.tzinfo is not None else None
