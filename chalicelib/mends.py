"""What is left to do for a notebook whose workflow should have ended by now: a record never waits for nobody."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum

from chalicelib.notebook import life, machine
from chalicelib.notebook.life import State
from chalicelib.notebook.machine import InstanceState

RUNNING = "RUNNING"


class Mend(StrEnum):
    """What to do."""

    WAIT = "wait"
    UNDO = "undo"
    TERMINATE = "terminate"
    STOP = "stop"
    FINISH = "finish"
    START = "start"
    SETTLE = "settle"
    GONE = "gone"


def decide(state: str, execution: str | None, instance: str | None) -> Mend:  # noqa: PLR0911 - one return a case
    """What to do.

    Args:
        state: of the record.
        execution: status of the workflow's execution that the record counts last; None: there is none.
        instance: EC2's state of the instance; None: EC2 knows none.
    """
    if execution == RUNNING or state not in life.MOVING:
        return Mend.WAIT
    if state in life.LAUNCHING:
        return Mend.UNDO
    if state == State.TERMINATING:
        return Mend.TERMINATE
    if instance is None or instance in machine.GONE:
        return Mend.GONE
    if state == State.STOPPING:
        return Mend.STOP if instance in machine.UP else Mend.FINISH
    if execution is None:
        # Asked for, and nobody began.
        return Mend.START
    if instance == InstanceState.STOPPING:
        return Mend.WAIT
    # A machine that runs without anybody's knowing whether it answers is stopped: asking again starts it.
    return Mend.STOP if instance in machine.UP else Mend.SETTLE


def next_look(since: datetime, now: datetime, minute: timedelta) -> datetime:
    """When to look again: the longer it takes, the more rarely, from 5 minutes to 4 hours."""
    return now + min(max((now - since) / 2, 5 * minute), 240 * minute)
