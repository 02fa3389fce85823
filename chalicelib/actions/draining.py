"""Stops instances, as many at a time as EC2 takes without refusing a call, and goes on where the last run ended.

One sweep drains at a time: it has the lease, in whose row the buckets are. A notebook is read again, decided on again
and taken right before its call, however long it has waited for its turn: until then it is `ready`, and use keeps it.
Its heartbeat is read once more when EC2's limits let the call go out: whoever came back meanwhile keeps it too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from chalicelib import executions, idleness, times
from chalicelib.actions.judging import Judged, Judging
from chalicelib.actions.parts import as_trouble
from chalicelib.actions.stopping import finish_stop
from chalicelib.actions.telling import Telling
from chalicelib.aws.due import DueNotebooks
from chalicelib.aws.instances import Instances
from chalicelib.aws.ledger import Ledger, event
from chalicelib.aws.sweeps import SweepsTable
from chalicelib.aws.workflows import Workflows
from chalicelib.errors import NodError, Unavailable
from chalicelib.log import about, logger
from chalicelib.model import STOP_FAILED, Failure, Notebook, Stop
from chalicelib.notebook import life, machine, moves
from chalicelib.notebook.life import State, Writer
from chalicelib.notebook.moves import Move, Why
from chalicelib.pacing import THROTTLED, Limits, Pace

Part = Callable[[], AbstractContextManager[None]]

# Longer than a batch takes; after it another sweep may drain.
_LEASE = timedelta(minutes=2)
# When the sweep looks at what was taken and not finished, in minutes.
LOOK_AFTER = 5
# After a refusal that will not pass by itself, in minutes.
_AGAIN_AFTER = 60
# The code where EC2 refuses the deployment every stop: not STOP_FAILED, which an owner was told of.
_STOPS_REFUSED = "stops_refused"
# So many refused in one batch, and nothing else: it is no single instance that is at fault.
_MANY = 3


@dataclass
class ToStop:
    """What waits for its stop."""

    wanted: list[str] = field(default_factory=list)
    """Ids of notebooks to decide on again, and to stop if they are still to be stopped."""
    again: list[Notebook] = field(default_factory=list)
    """Notebooks that are `stopping`, whose instance nobody is stopping."""
    refused: bool = False
    """Whether EC2 takes no stop at all, or the lease was lost midway: then nothing more is begun in this sweep."""

    def __len__(self) -> int:
        return len(self.wanted) + len(self.again)

    def first(self, most: int) -> list[str] | list[Notebook]:
        """The next for one call."""
        return self.again[:most] or self.wanted[:most]

    def take_out(self, batch: Sequence[str] | Sequence[Notebook]) -> None:
        """Of what `first` gave: it does not wait any more."""
        del (self.again or self.wanted)[: len(batch)]


class Draining:
    """Takes the gateways it acts on, the clock and `time.sleep` or stand-ins, and how to do many things."""

    def __init__(
        self,
        *,
        due: DueNotebooks,
        judging: Judging,
        instances: Instances,
        sweeps: SweepsTable,
        ledger: Ledger,
        workflows: Workflows,
        telling: Telling,
        stop_arn: str,
        clock: Callable[[], datetime],
        sleep: Callable[[float], None],
        each: Callable[[Callable[[Any], Any], Sequence[Any]], Any],
        limits: Limits | None = None,
    ) -> None:
        self._due = due
        self._judging = judging
        self._policy = judging.policy
        self._instances = instances
        self._sweeps = sweeps
        self._ledger = ledger
        self._workflows = workflows
        self._telling = telling
        self._stop_arn = stop_arn
        self._clock = clock
        self._sleep = sleep
        self._each = each
        self._limits = limits or Limits()

    def drain(self, holder: str, waiting: ToStop, remaining: Callable[[], float], part: Part) -> Counter[str]:
        """Stops these notebooks for as long as there is time and no other sweep drains. How many of what.

        `part` keeps the trouble of one notebook, or of one batch, from the others.
        """
        counts = self._drain(holder, waiting, remaining, part, waits=True)
        if waiting and "left to another" not in counts:
            counts["left for the next"] = len(waiting)
        return counts

    def begin_to_drain(self, holder: str, waiting: ToStop, remaining: Callable[[], float], part: Part) -> Counter[str]:
        """The same while others are still looked at, from a whole call on, and only what EC2 takes without a wait: the
        sooner its buckets are drawn on, the sooner they fill again."""
        if len(waiting) < self._limits.most:
            return Counter()
        counts = self._drain(holder, waiting, remaining, part, waits=False)
        # It is tried again.
        del counts["left to another"]
        return counts

    def _drain(
        self, holder: str, waiting: ToStop, remaining: Callable[[], float], part: Part, *, waits: bool
    ) -> Counter[str]:
        counts: Counter[str] = Counter()
        if not waiting or waiting.refused:
            return counts
        pace = self._sweeps.take_lease(holder, _LEASE, self._limits, self._clock())
        if pace is None:
            logger.info("another sweep drains", left=len(waiting))
            counts["left to another"] = len(waiting)
            return counts
        run = _Run(self, holder, pace, counts, remaining=remaining, part=part)
        try:
            while waiting and run.may_go_on(batch := waiting.first(self._limits.most), waits=waits):
                waiting.take_out(batch)
                with part():
                    run.batch(batch)
        finally:
            waiting.refused = run.ended
            with part():
                self._sweeps.end_lease(holder, run.pace)
        return counts

    def take(self, one: Judged, now: datetime) -> Notebook | NodError | None:
        """From `ready` to `stopping`, with the line of the ledger. None if the record changed since it was read."""
        notebook, decision = one.notebook, one.decision
        stop = Stop(decision.code, decision.reason, "sweep")
        try:
            with about(one.notebook.id), as_trouble():
                return self._due.move(moves.stop(notebook, stop, Writer.SWEEP, now, self._look_at(now), line=one.why))
        except NodError as error:
            return error

    def call(self, notebooks: Sequence[Notebook], run: _Run) -> dict[str, str]:
        """StopInstances for all of them, made again in halves when it is refused. Codes of those it was refused for."""
        unused = list(notebooks)

        def stop() -> str | None:
            unused[:] = run.still_unused(unused)
            return self._instances.stop([notebook.instance_id or "" for notebook in unused]) if unused else None

        while unused and (code := run.paced(len(unused), stop)) is not None:
            if code in THROTTLED:
                run.throttled()
            elif len(unused) == 1:
                return {unused[0].id: code}
            else:
                half = len(unused) // 2
                return {**self.call(unused[:half], run), **self.call(unused[half:], run)}
        return {}

    def off_all_the_same(self, refused: Mapping[str, str], taken: Sequence[Notebook]) -> set[str]:
        """Of those that EC2 refused to stop, those that it stops, or has stopped: it took a try before that one, whose
        answer was lost or told of a failure of its own."""
        return self._off([one for one in taken if one.id in refused and not seems_gone(refused[one.id])])

    def returned(self, stopping: Sequence[Notebook], now: datetime) -> dict[str, idleness.Decision]:
        """Those that are used again, and how that is known. Not one whose machine goes off all the same: somebody shut
        it down on the machine, or EC2 took a call whose answer was lost."""
        found = self._judging.returned(stopping, now)
        off = self._off([one for one in stopping if one.id in found])
        return {notebook_id: decision for notebook_id, decision in found.items() if notebook_id not in off}

    def _off(self, notebooks: Sequence[Notebook]) -> set[str]:
        """Ids of those whose instance EC2 shows as stopping or stopped; of none where it does not say."""
        if not notebooks:
            return set()
        try:
            with as_trouble():
                known = self._instances.describe([one.instance_id or "" for one in notebooks])
        except NodError:
            return set()
        off = {found.id for found in known.values() if found.state in machine.OFF}
        return {one.id for one in notebooks if one.instance_id in off}

    def give_back(self, notebook: Notebook, decision: idleness.Decision, now: datetime) -> None:
        """From `stopping` to `ready` again, before EC2 was called."""
        reason = f"it was about to stop, and is used again: {decision.reason}"
        logger.info("stop taken back", notebook=notebook.id, reason=decision.reason)
        sets = {"decided_at": times.to_text(now), "due_at": times.to_text(decision.due_at)}
        why = Why("returned", reason, "sweep")
        # After the line of the stop.
        at = now + timedelta(milliseconds=1)
        self._due.move(Move(notebook, life.TAKE_BACK_STOP, Writer.SWEEP, why, now, sets, said_at=at))

    def begin_workflow(self, notebook: Notebook) -> NodError | None:
        """Starts the workflow that sees a stop through which EC2 has taken."""
        with about(notebook.id, executions.stop_name(notebook)):
            reason = notebook.stop.reason if notebook.stop else None
            logger.info("stopped", instance=notebook.instance_id, reason=reason)
            try:
                with as_trouble():
                    finish_stop(notebook, workflows=self._workflows, stop_arn=self._stop_arn)
            except NodError as error:
                # It stays `stopping` and due: the next sweep finds that nothing runs for it.
                return error
        return None

    def refused(self, notebook: Notebook, code: str, now: datetime, *, of_all: bool, told: bool) -> None:
        """What becomes of a notebook whose instance EC2 does not stop.

        `of_all`: it stops none, which this owner cannot help and is not told; `told`: they were told of this one.
        """
        logger.error("stop refused", notebook=notebook.id, instance=notebook.instance_id, code=code)
        if seems_gone(code):
            # It stays `stopping` and due: two looks, some minutes apart, say that for sure.
            self._ledger.write([event(notebook.id, now, "stop", "refused", f"EC2 refused the stop: {code}.")])
            return
        reason = f"EC2 refused to stop the machine ({code}); it runs on and costs. It is tried again every hour."
        failed = _STOPS_REFUSED if of_all else STOP_FAILED
        again = times.to_text(now + self._policy.minutes(_AGAIN_AFTER))
        sets = {"error": moves.failure(Failure(failed, reason)), "due_at": again}
        move = Move(notebook, life.STOP_FAILED, Writer.SWEEP, Why(failed, reason, "sweep"), now, sets)
        if self._due.move(move) is not None and not (of_all or told):
            self._telling.tell(notebook.id, STOP_FAILED, now)

    def _look_at(self, now: datetime) -> datetime:
        return now + self._policy.minutes(LOOK_AFTER)


class _Run:
    """One run's draining: its pace, and what it came to."""

    def __init__(
        self,
        drain: Draining,
        holder: str,
        pace: Pace,
        counts: Counter[str],
        *,
        remaining: Callable[[], float],
        part: Part,
    ) -> None:
        self._drain = drain
        self._holder = holder
        self.pace = pace
        self._counts = counts
        self._remaining = remaining
        self._part = part
        self.ended = False
        """Whether nothing more is to be begun."""
        self._returned: set[str] = set()
        """Notebooks that are used again, and were not stopped."""
        self._told: set[str] = set()
        """Notebooks whose owners know that EC2 refuses to stop them."""

    def may_go_on(self, batch: Sequence[str] | Sequence[Notebook], *, waits: bool) -> bool:
        """Whether there is time for another batch; without `waits`, none that EC2's buckets have to fill for."""
        wait = self.pace.wait(len(batch), self._drain._clock()).total_seconds()
        return not self.ended and wait < self._remaining() and (waits or wait == 0)

    def batch(self, batch: Sequence[str] | Sequence[Notebook]) -> None:
        """Decides, takes, calls EC2 once, and starts the workflows."""
        drain = self._drain
        self._wait(len(batch))
        taken = self._taken(batch)
        if not taken:
            return
        try:
            refused = drain.call(taken, self)
        except BaseException:
            # No answer of EC2's: what else was taken now would be `stopping` for nothing. These are mended.
            self.ended = True
            raise
        off = drain.off_all_the_same(refused, taken)
        refused = {notebook_id: code for notebook_id, code in refused.items() if notebook_id not in off}
        now = drain._clock()
        taken = [notebook for notebook in taken if notebook.id not in self._returned]
        stopped = [notebook for notebook in taken if notebook.id not in refused]
        for notebook, error in zip(stopped, drain._each(drain.begin_workflow, stopped), strict=True):
            if error is not None:
                with about(notebook.id, executions.stop_name(notebook)), self._part():
                    raise error
        self._counts["stop"] += len(stopped)
        # If EC2 refuses all of them, it is the deployment that lacks something: its owners cannot help that.
        codes = [code for code in refused.values() if not seems_gone(code)]
        everything = len(codes) == len(taken) > _MANY
        for notebook in taken:
            if notebook.id in refused:
                self._counts["refused"] += 1
                with about(notebook.id), self._part():
                    told = notebook.id in self._told
                    drain.refused(notebook, refused[notebook.id], now, of_all=everything, told=told)
        if everything:
            self.ended = True
            raise Unavailable(f"EC2 refuses every stop ({', '.join(sorted(set(refused.values())))}).")

    def paced(self, instances: int, call: Callable[[], str | None]) -> str | None:
        """The code of a call that is made when the buckets allow it, noted before: a run that dies has made it."""
        drain = self._drain
        self._wait(instances)
        now = drain._clock()
        self.pace = self.pace.take(instances, now)
        if not drain._sweeps.keep_lease(self._holder, _LEASE, self.pace, now):
            self.ended = True
            raise Unavailable("Another sweep drains by now.")
        self._counts["stop calls"] += 1
        return call()

    def still_unused(self, taken: Sequence[Notebook]) -> list[Notebook]:
        """Of those whose call goes out now, all but those that are used again by now, which are `ready` again."""
        drain = self._drain
        now = drain._clock()
        back = drain.returned(taken, now)
        for notebook in taken:
            if notebook.id in back:
                self._returned.add(notebook.id)
                self._counts["used again"] += 1
                with about(notebook.id), self._part():
                    drain.give_back(notebook, back[notebook.id], now)
        return [notebook for notebook in taken if notebook.id not in back]

    def throttled(self) -> None:
        """EC2 refused a call as one too many."""
        self._counts["throttled"] += 1
        if self._remaining() <= 0:
            self.ended = True
            raise Unavailable("EC2 takes no more requests just now.")
        self.pace = self.pace.emptied(self._drain._clock())

    def _wait(self, instances: int) -> None:
        while (wait := self.pace.wait(instances, self._drain._clock())) > timedelta(0):
            self._drain._sleep(wait.total_seconds())

    def _taken(self, batch: Sequence[str] | Sequence[Notebook]) -> list[Notebook]:
        drain = self._drain
        now = drain._clock()
        again = [one for one in batch if isinstance(one, Notebook)]
        if again:
            return self._still_to_stop(again)
        look = drain._judging.look([one for one in batch if isinstance(one, str)], now)
        to_stop = [one for one in look.judged if one.decision.action == idleness.STOP]
        self._counts["kept after all"] += len(look.judged) - len(to_stop)
        results = list(drain._each(lambda one: drain.take(one, now), to_stop))
        for one, result in zip(to_stop, results, strict=True):
            if isinstance(result, NodError):
                self._counts["trouble"] += 1
                logger.error("stop not begun", notebook=one.notebook.id, reason=result.detail)
                with about(one.notebook.id), self._part():
                    raise result
        self._note_told(one.notebook for one in to_stop)
        return [result for result in results if isinstance(result, Notebook)]

    def _still_to_stop(self, again: Sequence[Notebook]) -> list[Notebook]:
        """Of those that were found `stopping`, those that still are, by the same stop, as they are now: what came to
        its end meanwhile may have been woken since."""
        found, _ = self._drain._due.read([notebook.id for notebook in again])
        now = {record.notebook.id: record.notebook for record in found}
        same = [
            known
            for one in again
            if (known := now.get(one.id)) is not None
            and (known.state, known.stops, known.instance_id) == (State.STOPPING, one.stops, one.instance_id)
        ]
        self._counts["stopped meanwhile"] += len(again) - len(same)
        self._note_told(same)
        return same

    def _note_told(self, notebooks: Iterable[Notebook]) -> None:
        self._told |= {one.id for one in notebooks if one.error is not None and one.error.code == STOP_FAILED}


def seems_gone(code: str) -> bool:
    """Whether EC2's code of a refused stop says that there is no such instance, or none that could be stopped."""
    return code.startswith("InvalidInstanceID") or code == "IncorrectInstanceState"
