"""Reads records and heartbeats as they stand, and decides on each notebook that is ready."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from chalicelib import server_health, times
from chalicelib.aws.due import Due, DueNotebooks
from chalicelib.aws.heartbeats import HeartbeatsTable, Row, limit_text
from chalicelib.aws.ledger import Event, said
from chalicelib.idleness import IDLE, SILENT, Decision, Policy, Run, came_back, decide, observed
from chalicelib.log import logger
from chalicelib.model import Notebook
from chalicelib.notebook.life import State
from chalicelib.notebook.moves import Why
from chalicelib.settings import Settings

# A monitor bears to be unconfirmed for hours (docs/contracts.md), and a write for each look would double the writes.
_CONFIRM = 30


@dataclass(frozen=True)
class Judged:
    """A record with its heartbeat's row, and what was decided."""

    due: Due
    row: Row | None
    decision: Decision
    seen: dict[str, object] | None
    """The record's `seen` after this look; None: it is as it was."""
    news: server_health.News = field(default_factory=server_health.News)
    """Of the notebook's own server."""

    @property
    def notebook(self) -> Notebook:
        """The record."""
        return self.due.notebook

    @property
    def silence(self) -> str:
        """Names the silence: one that began with the same heartbeat of the same run is the same."""
        seen = self.notebook.seen
        beat = f"{seen.boot_id}#{seen.beat}" if seen else "none"
        return f"{self.notebook.run_started_at}#{beat}"

    @property
    def unprobed(self) -> bool:
        """Whether it is silent, and the monitor still to be looked after."""
        return self.decision.code == SILENT and self.due.probed != self.silence

    @property
    def why(self) -> Why:
        """What was decided, for the ledger."""
        decision = self.decision
        stops_at = times.to_text(decision.stops_at) if decision.stops_at else None
        return Why(decision.code, decision.reason, "sweep", stops_at, decision.signals)

    def line(self, now: datetime) -> Event:
        """For the ledger."""
        return said(self.notebook.id, now, self.decision.action, self.why)


@dataclass(frozen=True)
class Look:
    """What a look at some notebooks found: those that are ready, and those in any other state."""

    judged: list[Judged]
    others: list[Due]


class Judging:
    """Takes the gateways that it reads through."""

    def __init__(self, due: DueNotebooks, heartbeats: HeartbeatsTable, settings: Settings, policy: Policy) -> None:
        self._due = due
        self._heartbeats = heartbeats
        self._settings = settings
        self.policy = policy

    def look(self, ids: Sequence[str], now: datetime) -> Look:
        """Decides on these notebooks as they stand at `now`; what is not due any more is left out.

        Raises:
            Unavailable: a table cannot be read, and nothing is decided.
        """
        found, damaged = self._due.read(ids)
        for notebook_id in damaged:
            logger.error("record cannot be read", notebook=notebook_id)
        # The index lags: another sweep, or a person, may have been here since.
        text = times.to_text(now)
        found = [due for due in found if due.notebook.due_at is not None and due.notebook.due_at <= text]
        ready = [due for due in found if due.notebook.state == State.READY]
        rows = self._heartbeats.read([self._arn(due.notebook) for due in ready if due.notebook.instance_id])
        judged = [one for due in ready if (one := self._judge(due, rows, now)) is not None]
        return Look(judged, [due for due in found if due.notebook.state != State.READY])

    def returned(self, stopping: Sequence[Notebook], now: datetime) -> dict[str, Decision]:
        """Of notebooks that stop for want of use and run still, those that are used again, and how that is known.

        Raises:
            Unavailable: the heartbeats cannot be read.
        """
        unused = [one for one in stopping if one.stop and one.stop.by == "sweep" and one.stop.code in (IDLE, SILENT)]
        rows = self._heartbeats.read([self._arn(one) for one in unused if one.instance_id])
        found: dict[str, Decision] = {}
        for one in unused:
            row = rows.get(self._arn(one))
            try:
                run = Run.from_notebook(replace(one, state=State.READY))
                back = came_back(
                    run, one.stop.code if one.stop else "", row.heartbeat if row else None, self.policy, now
                )
            except (ArithmeticError, ValueError) as error:
                logger.error("record cannot be judged", notebook=one.id, reason=str(error))
                continue
            if back is not None:
                found[one.id] = back
        return found

    def confirm(self, judged: Judged, now: datetime) -> bool:
        """Tells the monitor that it was heard, and by which limits it is judged."""
        return self._heartbeats.confirm(
            self._arn(judged.notebook), self._limit(judged.notebook), judged.notebook.hold_until, now
        )

    def to_confirm(self, judged: Judged, now: datetime) -> bool:
        """Whether that is due: now and then, and at once when a limit is another."""
        row, notebook = judged.row, judged.notebook
        if row is None:
            return False
        confirmed = times.from_text(notebook.confirmed_at)
        if confirmed is None or now - confirmed >= self.policy.minutes(_CONFIRM):
            return True
        return (row.limit_seconds, row.hold_until) != (limit_text(self._limit(notebook)), notebook.hold_until)

    def _judge(self, due: Due, rows: dict[str, Row], now: datetime) -> Judged | None:
        notebook = due.notebook
        if notebook.warned is not None and not notebook.warned.told:
            # Whom no message reached was not warned.
            notebook = replace(notebook, warned=None)
        row = rows.get(self._arn(notebook)) if notebook.instance_id else None
        heartbeat = row.heartbeat if row else None
        try:
            run = Run.from_notebook(notebook)
            seen = observed(run, heartbeat, now)
            decision = decide(run, heartbeat, self.policy, now)
        except (ArithmeticError, ValueError) as error:
            # No time that can be read, or one that no reckoning can take: it keeps nobody else.
            logger.error("record cannot be judged", notebook=notebook.id, reason=str(error))
            return None
        changed = seen.to_record() if seen is not None and seen != run.seen else None
        found = server_health.health(notebook, heartbeat, self.policy, now)
        return Judged(due, row, decision, changed, server_health.news(notebook, found, self.policy, now))

    def _limit(self, notebook: Notebook) -> timedelta:
        return self.policy.minutes(notebook.idle_minutes)

    def _arn(self, notebook: Notebook) -> str:
        return self._settings.instance_arn(notebook.instance_id or "")
