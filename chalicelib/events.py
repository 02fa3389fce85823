"""What GET /notebooks/{id}/events answers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Event:
    """One decision about a notebook, or what someone did to it. `by`: a user, `link` (someone with the link),
    `sweep`, `monitor` or `outside`.

    `signals` are what it was decided by: `ages` of what was last active (seconds), `facts`, limits.
    """

    at: str
    action: str
    code: str
    by: str | None
    reason: str | None
    stops_at: str | None
    signals: dict[str, object]


@dataclass(frozen=True)
class EventList:
    """One page, newest first. `next` goes into the next request; null at the end."""

    events: list[Event]
    next: str | None
