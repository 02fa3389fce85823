"""What is left to do for a notebook whose workflow should have ended by now: a record never waits for nobody."""

from __future__ import annotations

from datetime import datetime, timedelta

WAIT, UNDO, TERMINATE, STOP, FINISH, START, SETTLE, GONE = (
    "wait",
    "undo",
    "terminate",
    "stop",
    "finish",
    "start",
    "settle",
    "gone",
)
STATES = ("requested", "launching", "stopping", "starting", "terminating")
NEEDS_INSTANCE = ("stopping", "starting")
RUNNING = "RUNNING"

_GONE = ("shutting-down", "terminated")
_UP = ("pending", "running")


def decide(state: str, execution: str | None, instance: str | None) -> str:  # noqa: PLR0911 - one return a case
    """What to do.

    Args:
        state: of the record.
        execution: status of the workflow's execution that the record counts last; None: there is none.
        instance: EC2's state of the instance; None: EC2 knows none.
    """
    if execution == RUNNING or state not in STATES:
        return WAIT
    if state in ("requested", "launching"):
        return UNDO
    if state == "terminating":
        return TERMINATE
    if instance is None or instance in _GONE:
        return GONE
    if state == "stopping":
        return STOP if instance in _UP else FINISH
    if execution is None:
        # Asked for, and nobody began.
        return START
    if instance == "stopping":
        return WAIT
    # A machine that runs without anybody's knowing whether it answers is stopped: asking again starts it.
    return STOP if instance in _UP else SETTLE


def next_look(since: datetime, now: datetime, minute: timedelta) -> datetime:
    """When to look again: the longer it takes, the more rarely, from 5 minutes to 4 hours."""
    return now + min(max((now - since) / 2, 5 * minute), 240 * minute)
