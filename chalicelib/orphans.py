"""What becomes of a resource of the deployment that belongs to no notebook: it is noted, told, stopped, removed.

Nothing is done at first sight, and nothing at all when much seems to have no owner: then it is the records that are
missing, and removing machines would make a lost table the loss of everybody's work. What may hold somebody's work is
removed only if its owner was told in time: if nobody could be, it is kept, and named to who runs the deployment.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from chalicelib import rows, times
from chalicelib.model import Notebook
from chalicelib.notebook import life
from chalicelib.notebook.life import State

INSTANCE, VOLUME, ADDRESS, GROUP = "instance", "volume", "address", "security group"


class Action(StrEnum):
    """What to do now."""

    NOTE = "note"
    WAIT = "wait"
    TELL = "tell"
    STOP = "stop"
    REMOVE = "remove"
    KEEP = "keep"


NOTE, WAIT, TELL = Action.NOTE, Action.WAIT, Action.TELL
STOP, REMOVE, KEEP = Action.STOP, Action.REMOVE, Action.KEEP


@dataclass(frozen=True)
class Resource:
    """A resource that bears the deployment's tag. `notebook`, `owner`: its other tags. `running`: costs by the hour.
    `kept`: it is told of and not removed, whoever was told (see `is_kept`)."""

    kind: str
    id: str
    notebook: str | None
    owner: str | None
    created_at: datetime | None
    running: bool = False
    kept: bool = False

    @property
    def holds_data(self) -> bool:
        """Whether somebody's work goes with it: of an instance its disk does."""
        return self.kind in (INSTANCE, VOLUME)

    @property
    def key(self) -> str:
        """Of its row in the table `sweeps`: what was told of a disk while it was kept is no notice of its removal."""
        return f"{'kept' if self.kept else 'orphan'}#{self.id}"


@dataclass(frozen=True)
class Known:
    """What earlier looks left in the table `sweeps`."""

    first_seen_at: datetime
    seen_at: datetime
    told_at: datetime | None = None
    """When it was told first: in the log to who runs the deployment, and to its owner if there is one."""
    stopped_at: datetime | None = None
    owner_told_at: datetime | None = None

    @classmethod
    def from_record(cls, record: Mapping[str, object]) -> Known | None:
        """None where there is no such row, or one without its times."""
        first, seen, told, stopped, owner = (
            times.from_text(rows.text(record, key))
            for key in ("first_seen_at", "seen_at", "told_at", "stopped_at", "owner_told_at")
        )
        return cls(first, seen, told, stopped, owner) if first and seen else None

    def to_record(self) -> dict[str, object]:
        """The row without its key."""
        found = {
            "first_seen_at": self.first_seen_at,
            "seen_at": self.seen_at,
            "told_at": self.told_at,
            "stopped_at": self.stopped_at,
            "owner_told_at": self.owner_told_at,
        }
        return {key: times.to_text(moment) for key, moment in found.items() if moment is not None}


@dataclass(frozen=True)
class Rules:
    """In minutes that last `minute` each."""

    minute: timedelta = timedelta(minutes=1)
    grace: int = 60
    """From the first sight to the message, and from the message to the stop."""
    removal: int = 7 * 24 * 60
    """From the message to the removal."""
    forgotten: int = 180
    """Not seen without an owner for so long, it had one meanwhile: its time begins anew."""
    few: int = 3
    share: float = 0.1
    """More than both without an owner: the records are missing, not the owners."""

    def minutes(self, count: int) -> timedelta:
        """So many of its minutes."""
        return count * self.minute


def is_orphan(resource: Resource, notebook: Notebook | None) -> bool:
    """Whether nobody answers for it. `notebook`: the record that its tag names, None where there is none."""
    if notebook is None or notebook.state in life.OVER:
        return True
    if resource.kind != INSTANCE or notebook.instance_id is None or notebook.state in life.LAUNCHING:
        # What is being made is in the record only at its end.
        return False
    return notebook.instance_id != resource.id


def is_kept(resource: Resource, notebook: Notebook | None) -> bool:
    """Whether it is a disk that may be all that is left of a notebook which failed. One that was deleted had its owner
    say that the disk may go."""
    return resource.kind == VOLUME and notebook is not None and notebook.state == State.FAILED


def too_many(orphans: int, looked_at: int, rules: Rules) -> bool:
    """Whether so many have no owner that it must be the records that are missing."""
    return orphans > rules.few and orphans > rules.share * looked_at


def seen(known: Known | None, now: datetime, rules: Rules) -> Known:
    """What is known after a look at `now` that found it without an owner."""
    if known is None or now - known.seen_at > rules.minutes(rules.forgotten):
        return Known(now, now)
    return replace(known, seen_at=max(now, known.seen_at))


def decide(resource: Resource, known: Known, rules: Rules, now: datetime) -> Action:
    """What to do now: NOTE or WAIT (nothing), TELL, STOP, REMOVE, or KEEP: nobody knows of what may hold data."""
    grace = rules.minutes(rules.grace)
    if now - known.first_seen_at < grace or (resource.created_at is not None and now - resource.created_at < grace):
        return NOTE
    if known.told_at is None:
        return TELL
    told_at = known.owner_told_at if resource.holds_data else known.told_at
    if told_at is not None and not resource.kept and now - told_at >= rules.minutes(rules.removal):
        return REMOVE
    if resource.running and now - known.told_at >= grace:
        return STOP
    return KEEP if told_at is None else WAIT


def plan(resource: Resource, rules: Rules, now: datetime) -> str:
    """What will happen after it was told at `now`, in a sentence."""
    if resource.kept:
        return "It is what is left of a notebook that failed, and is kept for as long as that notebook is listed."
    words = {INSTANCE: "terminated, and its disk deleted", ADDRESS: "released"}.get(resource.kind, "deleted")
    removal = times.to_minute(now + rules.minutes(rules.removal))
    if resource.running:
        stop = times.to_minute(now + rules.minutes(rules.grace))
        return f"It will be stopped at {stop}, and {words} at {removal}."
    return f"It will be {words} at {removal}."


def notebooks_of(resources: Iterable[Resource]) -> set[str]:
    """The ids that their tags name."""
    return {resource.notebook for resource in resources if resource.notebook}
