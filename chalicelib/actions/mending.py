"""Records that wait for a workflow which has ended, was aborted, or never began: each comes to a true end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import datetime
from typing import assert_never

from chalicelib import executions, mends, outside, times
from chalicelib.actions.draining import LOOK_AFTER
from chalicelib.actions.stopping import finish_stop
from chalicelib.actions.telling import Telling
from chalicelib.aws.due import Due, DueNotebooks
from chalicelib.aws.instances import Instance, Instances
from chalicelib.aws.ledger import Event, Ledger, event
from chalicelib.aws.workflows import Execution, Workflows
from chalicelib.errors import NodError
from chalicelib.idleness import Policy
from chalicelib.log import about, logger
from chalicelib.mends import Mend
from chalicelib.model import START_FAILED, Failure, Notebook, Stop
from chalicelib.notebook import life, moves
from chalicelib.notebook.life import State, Writer
from chalicelib.notebook.moves import Move, Why
from chalicelib.settings import Settings

Part = Callable[[], AbstractContextManager[None]]

# EC2 shows a terminated instance for about an hour. One that it does not show at all may be its own hiccup, and a
# record that is given up loses its owner sight of a disk: it has to be missing for so many minutes.
_MISSING = 60
_REASONS = {
    State.REQUESTED: "It was requested, and its launch never began or has ended.",
    State.LAUNCHING: "Its launch has ended without an end of its own.",
    State.STOPPING: "Its stop has ended without an end of its own.",
    State.STARTING: "Its start has ended without an end of its own.",
    State.TERMINATING: "Its delete has ended without an end of its own.",
}


class Mending:
    """Takes the gateways it acts on."""

    def __init__(
        self,
        *,
        due: DueNotebooks,
        instances: Instances,
        ledger: Ledger,
        workflows: Workflows,
        telling: Telling,
        settings: Settings,
        policy: Policy,
    ) -> None:
        self._due = due
        self._instances = instances
        self._ledger = ledger
        self._workflows = workflows
        self._telling = telling
        self._settings = settings
        self._policy = policy

    def mend(self, records: Sequence[Due], now: datetime, part: Part, counts: Counter[str]) -> list[Notebook]:
        """Looks after records that are due and not ready. Those whose instance has to be stopped, taken already.

        `part` keeps the trouble of one from the others; `counts` takes how many of what.
        """
        executions: dict[str, Execution | None] = {}
        for record in records:
            with about(record.notebook.id), part():
                executions[record.notebook.id] = self._execution(record.notebook)
        known = self._instances.describe(
            [
                record.notebook.instance_id
                for record in records
                if record.notebook.instance_id
                and record.notebook.state in life.MOVING & life.HAS_MACHINE
                and not _runs(executions.get(record.notebook.id))
            ]
        )
        to_stop: list[Notebook] = []
        for record in records:
            if record.notebook.id not in executions:
                continue
            execution = executions[record.notebook.id]
            with about(record.notebook.id, execution.name if execution else None), part():
                instance = known.get(record.notebook.instance_id or "")
                mend, taken = self._mend(record, execution, instance, now)
                counts[f"mend {mend}"] += 1
                to_stop += [taken] if taken else []
        return to_stop

    def stopped_outside(self, record: Due, instance: Instance | None, now: datetime) -> str:
        """A notebook that is ready, and whose instance EC2 says is off or gone. What was done, for the log."""
        notebook = record.notebook
        if instance is None or instance.gone:
            return self._gone(record, instance, now)
        stop = outside.stop_of(instance.reason)
        taken = self._due.move(moves.stop(notebook, stop, Writer.SWEEP, now, self._look_at(now)))
        if taken is None:
            return "taken by another"
        execution = executions.stop_name(taken)
        logger.info("stopped outside", notebook=notebook.id, execution=execution, instance=instance.id, by=stop.by)
        self._finish(taken)
        return f"stopped {stop.by}"

    def missing(self, record: Due, instance: Instance | None, now: datetime) -> str:
        """A notebook whose instance EC2 does not know, or says is terminated. What was done, for the log."""
        return self._gone(record, instance, now)

    def stop_unasked(self, record: Due, now: datetime, *, tagged: bool) -> str | None:
        """A stopped notebook whose machine was started in EC2. EC2's code if it does not stop it.

        Without the deployment's tag only the next sweep may stop it, which finds the stop due.
        """
        stop = Stop(
            "outside", "Its machine was started in EC2, not by this deployment, and was stopped again.", "sweep"
        )
        look_at = self._look_at(now) if tagged else now
        taken = self._due.move(moves.stop(record.notebook, stop, Writer.SWEEP, now, look_at))
        if taken is not None and tagged:
            code = self._instances.stop([taken.instance_id or ""])
            if code is not None:
                return code
            self._finish(taken)
        return None

    def make_due(self, record: Due, now: datetime) -> bool:
        """A notebook that no sweep would ever look at: written before there were any, or by a mistake."""
        notebook = record.notebook
        if notebook.due_at is not None or notebook.state not in life.WATCHED:
            return False
        reason = f"It is {notebook.state}, and no sweep would have looked at it."
        line = event(notebook.id, now, "mend", "made_due", reason)
        return self._due.write(notebook, moves.due(notebook, now), line=line)

    def found(self, record: Due) -> None:
        """It was missing, and EC2 shows it again."""
        self._due.write(record.notebook, {"missing_at": None})

    def _mend(
        self, record: Due, execution: Execution | None, instance: Instance | None, now: datetime
    ) -> tuple[Mend | str, Notebook | None]:
        notebook = record.notebook
        status = execution.status if execution else None
        mend = mends.decide(notebook.state, status, instance.state if instance else None)
        if mend is Mend.GONE:
            return self._gone(record, instance, now), None
        changes: dict[str, object] = {"due_at": times.to_text(self._next_look(notebook, now))}
        if record.missing_at is not None and instance is not None:
            changes["missing_at"] = None
        if mend is Mend.WAIT:
            self._due.write(notebook, changes)
            return mend, None
        logger.error("mended", notebook=notebook.id, state=notebook.state, mend=mend, status=status)
        if mend is Mend.SETTLE:
            self._settle(notebook, now)
            return mend, None
        if mend is Mend.STOP and notebook.state == State.STARTING:
            return mend, self._stop_the_start(notebook, now)
        return mend, self._go_on(notebook, mend, execution, now, changes)

    def _go_on(
        self, notebook: Notebook, mend: Mend, execution: Execution | None, now: datetime, changes: dict[str, object]
    ) -> Notebook | None:
        """Claims the record, and starts what is missing: the same execution if there is none, else the next one."""
        counters = {name: getattr(notebook, name) for name in life.COUNTERS.values()}
        counter = life.COUNTERS.get(notebook.state)
        if counter and (execution is not None or counters[counter] == 0):
            counters[counter] += 1
            changes[counter] = counters[counter]
        if mend is Mend.STOP:
            # Whether it comes to its turn in this sweep is open.
            changes["due_at"] = times.to_text(self._look_at(now))
        if not self._due.write(notebook, changes, line=_line(notebook, mend, now)):
            return None
        claimed = replace(notebook, due_at=str(changes["due_at"]), **counters)
        if mend is Mend.STOP:
            return claimed
        try:
            self._start(claimed, mend, execution, now)
        except NodError:
            # Nothing runs for it, so it is not to wait as long as one for which something does.
            self._due.write(claimed, {"due_at": times.to_text(self._look_at(now))})
            raise
        return None

    def _start(self, claimed: Notebook, mend: Mend, execution: Execution | None, now: datetime) -> None:
        match mend:
            case Mend.FINISH:
                self._finish(claimed)
            case Mend.START:
                begun = executions.start(claimed, self._settings)
                self._workflows.start(self._settings.start_arn, begun.name, begun.input)
            case Mend.TERMINATE:
                begun = executions.delete(claimed, "sweep")
                self._workflows.start(self._settings.terminate_arn, begun.name, begun.input)
            case Mend.UNDO:
                self._undo(claimed, execution, now)
            case Mend.WAIT | Mend.STOP | Mend.SETTLE | Mend.GONE:
                raise TypeError(f"To {mend}, no workflow is started.")
            case _:
                assert_never(mend)

    def _execution(self, notebook: Notebook) -> Execution | None:
        settings = self._settings
        arns = {
            Writer.LAUNCH: settings.launch_arn,
            Writer.STOP: settings.stop_arn,
            Writer.START: settings.start_arn,
            Writer.TERMINATE: settings.terminate_arn,
        }
        workflow, name = life.WORKFLOWS.get(notebook.state), executions.current_name(notebook)
        return self._workflows.look(arns[workflow], name) if workflow and name else None

    def _finish(self, notebook: Notebook) -> None:
        finish_stop(notebook, workflows=self._workflows, stop_arn=self._settings.stop_arn)

    def _undo(self, notebook: Notebook, execution: Execution | None, now: datetime) -> None:
        """What EventBridge would have sent at the launch's end. An undo is safe to repeat, and side by side."""
        status = execution.status if execution else "ABORTED"
        document = {
            "name": notebook.id,
            "status": status if status in ("FAILED", "TIMED_OUT") else "ABORTED",
            "error": execution.error if execution else None,
            "cause": execution.cause if execution else None,
        }
        self._workflows.start(self._settings.undo_arn, f"{notebook.id}-undo-{now:%Y%m%d%H%M}", document)

    def _settle(self, notebook: Notebook, now: datetime) -> None:
        """A start that came to nothing: the machine is off, so the notebook is stopped, and its quota free."""
        message = "The start did not come to its end. The machine is off and its disk as it was: start it again."
        error = {"error": moves.failure(Failure(START_FAILED, message))}
        why = Why(START_FAILED, message, "sweep")
        if self._due.move(Move(notebook, life.START_FAILED, Writer.SWEEP, why, now, error)) and notebook.notify:
            self._telling.tell(notebook.id, START_FAILED, now)

    def _stop_the_start(self, notebook: Notebook, now: datetime) -> Notebook | None:
        reason = "Its start did not come to its end, so nobody knows whether it answers. Start it again."
        stop, error = Stop(START_FAILED, reason, "sweep"), Failure(START_FAILED, reason)
        return self._due.move(moves.stop(notebook, stop, Writer.SWEEP, now, self._look_at(now), error=error))

    def _gone(self, record: Due, instance: Instance | None, now: datetime) -> str:
        """Its instance was terminated: there is no machine left, and nothing that costs."""
        notebook = record.notebook
        missing = times.from_text(record.missing_at)
        waited = missing is not None and now - missing >= self._policy.minutes(_MISSING)
        if instance is None and not waited and notebook.instance_id is not None:
            changes: dict[str, object] = {} if missing else {"missing_at": times.to_text(now)}
            if notebook.due_at is not None:
                changes["due_at"] = times.to_text(now + self._policy.minutes(self._policy.latest))
            reason = f"EC2 does not show its machine {notebook.instance_id}. It is given up if that lasts for an hour."
            line = None if missing else event(notebook.id, now, "note", "missing", reason)
            if changes and self._due.write(notebook, changes, line=line):
                logger.error("instance is missing", notebook=notebook.id, instance=notebook.instance_id)
            return "missing"
        message = (
            f"Its machine {notebook.instance_id or ''} was terminated in EC2, not by this deployment, and its disk "
            "with it, unless somebody had told EC2 to keep the disk; then a message says so within hours. Nothing else "
            "of it costs any more."
        )
        error = Failure("instance_gone", message)
        sets = {"error": moves.failure(error), "failed_at": times.to_text(now)}
        why = Why(error.code, message, "sweep")
        if self._due.move(Move(notebook, life.LOSE_MACHINE, Writer.SWEEP, why, now, sets)) is None:
            return "taken by another"
        logger.error("instance is gone", notebook=notebook.id, instance=notebook.instance_id)
        # Also where nobody is told: it sets the day on which the record goes.
        self._telling.tell(notebook.id, "failed", now)
        return "gone"

    def _next_look(self, notebook: Notebook, now: datetime) -> datetime:
        since = times.from_text(notebook.updated_at) or now
        return mends.next_look(since, now, self._policy.minute)

    def _look_at(self, now: datetime) -> datetime:
        return now + self._policy.minutes(LOOK_AFTER)


def _line(notebook: Notebook, mend: Mend, now: datetime) -> Event:
    return event(notebook.id, now, "mend", mend, _REASONS[notebook.state])


def _runs(execution: Execution | None) -> bool:
    return execution is not None and execution.status == mends.RUNNING
