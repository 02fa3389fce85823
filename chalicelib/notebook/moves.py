"""What one transition makes of one record: which attributes are set, which are removed, and the line of the ledger."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any, NamedTuple

from chalicelib import times
from chalicelib.model import Failure, Notebook, Stop, due_shard
from chalicelib.notebook import life
from chalicelib.notebook.life import State, Transition, Writer


class Why(NamedTuple):
    """Why a state changed, for the ledger: a code, a sentence, and who wanted it."""

    code: str
    reason: str
    by: str
    stops_at: str | None = None
    signals: Mapping[str, object] = MappingProxyType({})


class Move(NamedTuple):
    """A notebook on its way through a transition. `notebook` is the record as it was read."""

    notebook: Notebook
    transition: Transition
    writer: Writer
    why: Why
    now: datetime
    sets: Mapping[str, object]
    """What only this one knows, by attribute. What the transition clears and counts is not among it."""
    said_at: datetime | None = None
    """The time of its line; None: `now`."""

    def check(self) -> None:
        """Raises TypeError for what the table does not have."""
        row = self.transition
        if self.writer not in row.who:
            raise TypeError(f"{self.writer} does not bring a notebook to {row.to}.")
        if row.code is not None and row.code != self.why.code:
            raise TypeError(f"The line of this transition has the code {row.code}, not {self.why.code}.")
        if row.fails != ("error" in self.sets):
            raise TypeError("A transition that fails leaves an error, and no other does.")

    @property
    def possible(self) -> bool:
        """Whether the record as it was read is in a state that the transition begins from."""
        return self.notebook.state in self.transition.before

    @property
    def counter(self) -> str | None:
        """The attribute that it counts up."""
        return life.COUNTERS[self.transition.to] if self.transition.counts else None

    @property
    def changes(self) -> dict[str, object]:
        """Every attribute that it changes; None removes one. `runs` is the whole list."""
        row = self.transition
        changes: dict[str, object] = {
            **dict.fromkeys(sorted(row.clears)),
            **self.sets,
            "state": row.to.value,
            "updated_at": times.to_text(self.now),
        }
        if self.counter is not None:
            changes[self.counter] = int(getattr(self.notebook, self.counter)) + 1
        if row.ends_run and (run := self._run()) is not None:
            runs: Any = self.notebook.to_record().get("runs", [])
            changes |= {"runs": [*runs, run], "stopped_at": times.to_text(self.now)}
        return changes

    @property
    def after(self) -> Notebook:
        """The record as it is then."""
        known = {**self.notebook.to_record(), **self.changes}
        return Notebook.from_record({name: value for name, value in known.items() if value is not None})

    def _run(self) -> dict[str, object] | None:
        """The run that ends by it; None if none had begun."""
        began = self.notebook.run_started_at
        if began is None:
            return None
        return {"type": self.notebook.instance_type, "started_at": began, "stopped_at": times.to_text(self.now)}


def due(notebook: Notebook, at: datetime) -> dict[str, object]:
    """Has the sweep look at it then."""
    return {"due": due_shard(notebook.id), "due_at": times.to_text(at)}


def failure(error: Failure) -> dict[str, object]:
    """The map `error` of the record."""
    return {"code": error.code, "message": error.message}


def stop(
    notebook: Notebook,
    why: Stop,
    writer: Writer,
    now: datetime,
    look_at: datetime,
    *,
    error: Failure | None = None,
    line: Why | None = None,
) -> Move:
    """To `stopping`, from whatever state it can be stopped in.

    Args:
        look_at: when the sweep looks whether the stop came to its end.
        error: of a start that is given up by it.
        line: what the ledger says of it beyond `why`.
    """
    row = {State.STOPPED: life.STOP_UNASKED, State.STARTING: life.GIVE_UP_START}.get(notebook.state, life.STOP)
    sets: dict[str, object] = {
        "stop": {"code": why.code, "reason": why.reason, "by": why.by},
        "decided_at": times.to_text(now),
        **due(notebook, look_at),
    }
    if error is not None:
        sets["error"] = failure(error)
    return Move(notebook, row, writer, line or Why(why.code, why.reason, why.by), now, sets)


def start(notebook: Notebook, by: str, reason: str, now: datetime, look_at: datetime) -> Move:
    """From `stopped` to `starting`."""
    return Move(notebook, life.START, Writer.API, Why("asked", reason, by), now, due(notebook, look_at))


def delete(notebook: Notebook, by: str, reason: str, now: datetime, look_at: datetime) -> Move:
    """To `terminating`."""
    return Move(notebook, life.DELETE, Writer.API, Why("asked", reason, by), now, due(notebook, look_at))
