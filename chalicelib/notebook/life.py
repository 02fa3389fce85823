"""The life of a notebook: its states, and one table of the transitions between them.

Whoever changes a state goes by this table. The API, the function on EC2's events and the sweep do so through one writer
(chalicelib/aws/transitions.py), the workflows by a test over their packaged definitions (tests/aws/test_life_table.py).
So a stop leaves the same record behind whoever began it.

This module is imported in every cold start, and so it imports nothing of ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple


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


class Writer(StrEnum):
    """Who changes a state: a function, or a workflow by its name. People ask through the API, by a link too."""

    API = "api"
    EVENT = "event"
    SWEEP = "sweep"
    LAUNCH = "launch"
    UNDO = "undo"
    STOP = "stop"
    START = "start"
    TERMINATE = "terminate"


WORKFLOWS: Mapping[State, Writer] = {
    State.REQUESTED: Writer.LAUNCH,
    State.LAUNCHING: Writer.LAUNCH,
    State.STOPPING: Writer.STOP,
    State.STARTING: Writer.START,
    State.TERMINATING: Writer.TERMINATE,
}
"""The workflow that is at work in a state. In the others a notebook rests."""

COUNTERS: Mapping[State, str] = {
    State.STOPPING: "stops",
    State.STARTING: "starts",
    State.TERMINATING: "deletes",
}
"""The attribute that counts how often a state was entered: it numbers the executions of the state's workflow."""

_OF_A_RUN = ("wait_token", "address", "public_dns_name", "due", "due_at", "warned", "seen", "hold_until")
_OF_THE_END = frozenset((*_OF_A_RUN, "missing_at"))

LACKS: Mapping[State, frozenset[str]] = {
    State.REQUESTED: frozenset(),
    State.LAUNCHING: frozenset(),
    State.READY: frozenset(("wait_token", "error", "stop", "stopped_at", "warned")),
    State.STOPPING: frozenset(("wait_token", "error", "warned", "hold_until")),
    State.STOPPED: frozenset((*_OF_A_RUN, "run_started_at")),
    State.STARTING: frozenset(("wait_token", "error", "warned", "hold_until", "safe_mode", "not_answering")),
    State.TERMINATING: frozenset(("expires_at", "warned", "hold_until")),
    State.TERMINATED: _OF_THE_END,
    State.FAILED: _OF_THE_END,
}
"""What the record does not have in a state, unless the transition sets it: whoever enters the state removes it."""


class Transition(NamedTuple):
    """One row of the table."""

    before: frozenset[State]
    """The states it begins from. Empty: there was no record."""
    to: State
    who: frozenset[Writer]
    action: str
    """Of its line in the ledger."""
    code: str | None = None
    """Of its line in the ledger. None: why it happened says that, in a code of its own."""
    counts: bool = False
    """Whether it counts the state it enters (COUNTERS). Who does not begins no execution."""
    fails: bool = False
    """Whether it leaves an error."""
    ends_run: bool = False
    """Whether it adds the run that is over to `runs`."""
    joins: tuple[str, ...] = ()
    """Sets of its owner that it joins, within the owner's quota."""
    leaves: tuple[str, ...] = ()
    """Sets of its owner that it leaves."""
    owes: bool = False
    """Whether a message about what comes of it is owed from then on (`untold` of its owner)."""

    @property
    def clears(self) -> frozenset[str]:
        """What it removes from the record, unless it sets it."""
        cleared = LACKS[self.to]
        return cleared - {"error"} if self.fails else cleared


def _these(*names: State) -> frozenset[State]:
    return frozenset(names)


def _by(*names: Writer) -> frozenset[Writer]:
    return frozenset(names)


_BOTH = ("active", "owned")

LAUNCHING = _these(State.REQUESTED, State.LAUNCHING)
"""While it is set up for the first time."""

REQUEST = Transition(
    _these(), State.REQUESTED, _by(Writer.API), "launch", "requested", joins=_BOTH, owes=True
)  # fmt: skip
GIVE_MACHINE = Transition(LAUNCHING, State.LAUNCHING, _by(Writer.LAUNCH), "launch", "launching")
LAUNCHED = Transition(_these(State.LAUNCHING), State.READY, _by(Writer.LAUNCH), "launch", "ready")
UNDO_LAUNCH = Transition(
    LAUNCHING, State.FAILED, _by(Writer.UNDO), "launch", fails=True, leaves=_BOTH, owes=True
)  # fmt: skip
STOP = Transition(
    _these(State.READY), State.STOPPING, _by(Writer.API, Writer.EVENT, Writer.SWEEP), "stop", counts=True
)  # fmt: skip
# A quota is about what its owner asks for, and nobody asked for this run: it joins nothing.
STOP_UNASKED = Transition(_these(State.STOPPED), State.STOPPING, _by(Writer.SWEEP), "stop", counts=True)
GIVE_UP_START = Transition(
    _these(State.STARTING), State.STOPPING, _by(Writer.SWEEP, Writer.START), "start", counts=True, fails=True
)  # fmt: skip
TAKE_BACK_STOP = Transition(_these(State.STOPPING), State.READY, _by(Writer.SWEEP), "stop", "returned")
STOP_FAILED = Transition(
    _these(State.STOPPING), State.READY, _by(Writer.SWEEP, Writer.STOP), "stop", fails=True
)  # fmt: skip
# A stop that a failed start made necessary leaves the start's error.
STOPPED = Transition(
    _these(State.STOPPING),
    State.STOPPED,
    _by(Writer.STOP),
    "stop",
    "stopped",
    ends_run=True,
    leaves=("active",),
    owes=True,
)
START = Transition(
    _these(State.STOPPED), State.STARTING, _by(Writer.API), "start", "asked", counts=True, joins=("active",), owes=True
)
STARTED = Transition(_these(State.STARTING), State.READY, _by(Writer.START), "start", "ready")
START_FAILED = Transition(
    _these(State.STARTING),
    State.STOPPED,
    _by(Writer.SWEEP, Writer.START),
    "start",
    fails=True,
    ends_run=True,
    leaves=("active",),
    owes=True,
)
LOSE_MACHINE = Transition(
    _these(State.READY, State.STOPPING, State.STOPPED, State.STARTING),
    State.FAILED,
    _by(Writer.SWEEP, Writer.STOP, Writer.START),
    "fail",
    "instance_gone",
    fails=True,
    leaves=_BOTH,
    owes=True,
)
# While it launches, stops or starts too: that ends by itself when it finds the state changed, so who wants it gone need
# not wait.
DELETE = Transition(
    frozenset(State) - {State.TERMINATING, State.TERMINATED},
    State.TERMINATING,
    _by(Writer.API),
    "delete",
    "asked",
    counts=True,
)
DELETED = Transition(
    _these(State.TERMINATING),
    State.TERMINATED,
    _by(Writer.TERMINATE),
    "delete",
    "terminated",
    leaves=_BOTH,
    owes=True,
)
# Its machine may still be there and cost: it counts against its owner's quota until it is deleted.
DELETE_FAILED = Transition(
    _these(State.TERMINATING), State.FAILED, _by(Writer.TERMINATE), "delete", "terminate_failed", fails=True
)  # fmt: skip

TRANSITIONS: Mapping[str, Transition] = {
    name: value for name, value in globals().items() if isinstance(value, Transition)
}
"""All of them, by name."""

MOVING = frozenset(WORKFLOWS)
"""While a workflow brings it on."""
WATCHED = frozenset(state for state in State if "due_at" not in LACKS[state])
"""While the sweep looks at it."""
OVER = _these(State.TERMINATED, State.FAILED)
"""When there is nothing of it that anybody uses."""
ENDED = OVER | {State.TERMINATING}
"""When it does not come back."""
ON = _these(State.LAUNCHING, State.READY, State.STOPPING, State.STARTING)
"""While a machine of its own may run."""
RUN_SHOWN = ON - {State.STARTING}
"""While it has a run that goes on. A start has one only when its machine runs."""
DOWN = _these(State.STOPPED, State.STARTING)
"""From the end of a stop until it answers again."""
HAS_MACHINE = LOSE_MACHINE.before
"""While it has a machine that EC2 has to know, on or off."""
AT_REST = HAS_MACHINE - MOVING
"""While it has a machine that nobody here makes, changes or removes."""
EXTENDABLE = _these(State.READY, State.STARTING)
"""While a stop can be put off."""
MAY_HAVE_LAUNCH = _these(State.LAUNCHING, State.TERMINATING)
"""While its launch may be at work on a machine."""
