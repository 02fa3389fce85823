"""States of a notebook, as the API names them (`chalicelib/notebook/life.py`; tests/unit/test_nod_rules.py compares).

A newer deployment may know more of them, so a notebook keeps its state as a text.
"""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """What a notebook does."""

    REQUESTED = "requested"
    LAUNCHING = "launching"
    READY = "ready"
    STOPPING = "stopping"
    STOPPED = "stopped"
    STARTING = "starting"
    TERMINATING = "terminating"
    TERMINATED = "terminated"
    FAILED = "failed"


LAUNCHING = frozenset({State.REQUESTED, State.LAUNCHING})
"""While it is set up for the first time."""
MOVING = LAUNCHING | {State.STARTING, State.STOPPING, State.TERMINATING}
"""States that pass by themselves. In every other one there is nothing to wait for."""
OVER = frozenset({State.FAILED, State.TERMINATED})
"""When there is nothing of it that anybody uses."""
ENDED = OVER | {State.TERMINATING}
"""Such a notebook does not run again."""
NOBODY_ANSWERS = ENDED | {State.STOPPING, State.STOPPED}
"""When no machine of its answers, nor is about to."""


class StepState(StrEnum):
    """How a step of a launch stands. `cancelled`: something else cut it off."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
