"""Stops instances, as many at a time as EC2 takes without refusing a call, and goes on where the last run ended.

One sweep drains at a time: it has the lease, in whose row the buckets are. A notebook is read again, decided on again
and taken right before its call, however long it has waited for its turn: until then it is `ready`, and use keeps it.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from chalicelib import idleness, times
from chalicelib.actions.judging import Judged, Judging
from chalicelib.actions.stopping import finish_stop
from chalicelib.actions.telling import Telling
from chalicelib.aws.due import DueNotebooks
from chalicelib.aws.faults import as_unavailable
from chalicelib.aws.instances import Instances
from chalicelib.aws.ledger import Ledger, event
from chalicelib.aws.sweeps import SweepsTable
from chalicelib.aws.workflows import Workflows
from chalicelib.errors import NodError, Unavailable
from chalicelib.log import logger
from chalicelib.model import Notebook, Stop, due_shard
from chalicelib.pacing import THROTTLED, Limits, Pace

Part = Callable[[], AbstractContextManager[None]]

# Longer than a batch takes; after it another sweep may drain.
_LEASE = timedelta(minutes=2)
# When the sweep looks at what was taken and not finished, in minutes.
LOOK_AFTER = 5
# After a refusal that will not pass by itself, in minutes.
_AGAIN_AFTER = 60
# So many refused in one batch, and nothing else: it is no single instance that is at fault.
_MANY = 3


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

    def drain(
        self,
        holder: str,
        wanted: Sequence[str],
        again: Sequence[Notebook],
        remaining: Callable[[], float],
        part: Part,
    ) -> Counter[str]:
        """Stops these notebooks for as long as there is time and no other sweep drains. How many of what.

        Args:
            wanted: ids of notebooks to decide on again, and to stop if they are still to be stopped.
            again: notebooks that are `stopping`, whose instance nobody is stopping.
            part: keeps the trouble of one batch from the others.
        """
        counts: Counter[str] = Counter()
        if not wanted and not again:
            return counts
        pace = self._sweeps.take_lease(holder, _LEASE, self._limits, self._clock())
        if pace is None:
            logger.info("another sweep drains", left=len(wanted) + len(again))
            counts["left to another"] = len(wanted) + len(again)
            return counts
        run = _Run(self, holder, pace, counts, remaining)
        queue: deque[list[str] | list[Notebook]] = deque()
        most = self._limits.most
        queue.extend(list(again[first : first + most]) for first in range(0, len(again), most))
        queue.extend(list(wanted[first : first + most]) for first in range(0, len(wanted), most))
        try:
            while queue and run.may_go_on(len(queue[0])):
                with part():
                    run.batch(queue.popleft())
        finally:
            with part():
                self._sweeps.end_lease(holder, run.pace)
        if left := sum(len(batch) for batch in queue):
            counts["left for the next"] = left
        return counts

    def take(self, one: Judged, now: datetime) -> Notebook | NodError | None:
        """From `ready` to `stopping`, with the line of the ledger. None if the record changed since it was read."""
        notebook, decision = one.notebook, one.decision
        stop = Stop(decision.code, decision.reason, "sweep")
        try:
            with as_unavailable("DynamoDB"):
                return begin(self._due, notebook, stop, now, look_at=self._look_at(now), judged=one)
        except NodError as error:
            return error

    def call(self, notebooks: Sequence[Notebook], run: _Run) -> dict[str, str]:
        """StopInstances for all of them, made again in halves when it is refused. Codes of those it was refused for."""
        ids = [notebook.instance_id or "" for notebook in notebooks]
        while (code := run.paced(len(ids), lambda: self._instances.stop(ids))) is not None:
            if code in THROTTLED:
                run.throttled()
            elif len(ids) == 1:
                return {notebooks[0].id: code}
            else:
                half = len(notebooks) // 2
                return {**self.call(notebooks[:half], run), **self.call(notebooks[half:], run)}
        return {}

    def begin_workflow(self, notebook: Notebook) -> NodError | None:
        """Starts the workflow that sees the stop through."""
        try:
            finish_stop(notebook, workflows=self._workflows, stop_arn=self._stop_arn)
        except NodError as error:
            # It stays `stopping` and due: the next sweep finds that nothing runs for it.
            return error
        return None

    def refused(self, notebook: Notebook, code: str, now: datetime, *, tell: bool) -> None:
        """What becomes of a notebook whose instance EC2 does not stop."""
        logger.error("stop refused", notebook=notebook.id, instance=notebook.instance_id, code=code)
        if code.startswith("InvalidInstanceID") or code == "IncorrectInstanceState":
            # Gone, it seems. It stays `stopping` and due: two looks, some minutes apart, say that for sure.
            self._ledger.write([event(notebook.id, now, "stop", "refused", f"EC2 refused the stop: {code}.")])
            return
        reason = f"EC2 refused to stop the machine ({code}); it runs on and costs. It is tried again every hour."
        known = notebook.error is not None and notebook.error.code == "stop_failed"
        changes: dict[str, object] = {
            "state": "ready",
            "error": {"code": "stop_failed", "message": reason},
            "stop": None,
            "updated_at": times.to_text(now),
            "due_at": times.to_text(now + self._policy.minutes(_AGAIN_AFTER)),
        }
        line = event(notebook.id, now, "stop", "stop_failed", reason)
        if self._due.write(notebook, changes, line=line) and tell and not known:
            self._telling.tell(notebook.id, "stop_failed", now)

    def _look_at(self, now: datetime) -> datetime:
        return now + self._policy.minutes(LOOK_AFTER)


class _Run:
    """One run's draining: its pace, and what it came to."""

    def __init__(
        self, drain: Draining, holder: str, pace: Pace, counts: Counter[str], remaining: Callable[[], float]
    ) -> None:
        self._drain = drain
        self._holder = holder
        self.pace = pace
        self._counts = counts
        self._remaining = remaining
        self._ended = False

    def may_go_on(self, instances: int) -> bool:
        """Whether there is time for another batch."""
        wait = self.pace.wait(instances, self._drain._clock()).total_seconds()
        return not self._ended and wait < self._remaining()

    def batch(self, batch: Sequence[str] | Sequence[Notebook]) -> None:
        """Decides, takes, calls EC2 once, and starts the workflows."""
        drain = self._drain
        self._wait(len(batch))
        taken = self._taken(batch)
        if not taken:
            return
        refused = drain.call(taken, self)
        now = drain._clock()
        stopped = [notebook for notebook in taken if notebook.id not in refused]
        troubles = [error for error in drain._each(drain.begin_workflow, stopped) if error is not None]
        self._counts["stop"] += len(stopped)
        for notebook in stopped:
            reason = notebook.stop.reason if notebook.stop else None
            logger.info("stopped", notebook=notebook.id, instance=notebook.instance_id, reason=reason)
        # If EC2 refuses all of them, it is the deployment that lacks something: its owners cannot help that.
        everything = len(refused) == len(taken) > _MANY
        for notebook in taken:
            if notebook.id in refused:
                self._counts["refused"] += 1
                drain.refused(notebook, refused[notebook.id], now, tell=not everything)
        if everything:
            self._ended = True
            raise Unavailable(f"EC2 refuses every stop ({', '.join(sorted(set(refused.values())))}).")
        if troubles:
            raise troubles[0]

    def paced(self, instances: int, call: Callable[[], str | None]) -> str | None:
        """The code of a call that is made when the buckets allow it, noted before: a run that dies has made it."""
        drain = self._drain
        self._wait(instances)
        now = drain._clock()
        self.pace = self.pace.take(instances, now)
        if not drain._sweeps.keep_lease(self._holder, _LEASE, self.pace, now):
            self._ended = True
            raise Unavailable("Another sweep drains by now.")
        self._counts["stop calls"] += 1
        return call()

    def throttled(self) -> None:
        """EC2 refused a call as one too many."""
        self._counts["throttled"] += 1
        if self._remaining() <= 0:
            self._ended = True
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
            return again
        look = drain._judging.look([one for one in batch if isinstance(one, str)], now)
        to_stop = [one for one in look.judged if one.decision.action == idleness.STOP]
        self._counts["kept after all"] += len(look.judged) - len(to_stop)
        results = list(drain._each(lambda one: drain.take(one, now), to_stop))
        for one, result in zip(to_stop, results, strict=True):
            if isinstance(result, NodError):
                self._counts["trouble"] += 1
                logger.error("stop not begun", notebook=one.notebook.id, reason=result.detail)
        return [result for result in results if isinstance(result, Notebook)]


def begin(
    due: DueNotebooks, notebook: Notebook, stop: Stop, now: datetime, *, look_at: datetime, judged: Judged | None = None
) -> Notebook | None:
    """To `stopping`, with a line of the ledger; the record as it is then. None if it changed since it was read."""
    after = replace(
        notebook,
        state="stopping",
        stop=stop,
        stops=notebook.stops + 1,
        decided_at=times.to_text(now),
        due_at=times.to_text(look_at),
        updated_at=times.to_text(now),
        warned=None,
    )
    changes: dict[str, object] = {
        "state": after.state,
        "stop": {"code": stop.code, "reason": stop.reason, "by": stop.by},
        "stops": after.stops,
        "decided_at": after.decided_at,
        "due": due_shard(notebook.id),
        "due_at": after.due_at,
        "updated_at": after.updated_at,
        "warned": None,
    }
    line = judged.line(now) if judged else event(notebook.id, now, "stop", stop.code, stop.reason, by=stop.by)
    return after if due.write(notebook, changes, line=line) else None
