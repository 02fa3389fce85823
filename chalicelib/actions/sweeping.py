"""The sweep: looks at what is due, keeps, warns or stops it, and mends what a workflow left.

Safe at any number at once, and killed at any point: each notebook is taken by one write that holds only if the record
is as it was read, and what was begun and not ended stays due.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar

from chalicelib import idleness, times
from chalicelib.actions.draining import Draining, ToStop
from chalicelib.actions.judging import Judged, Judging
from chalicelib.actions.mending import Mending
from chalicelib.actions.parts import Parts, as_trouble
from chalicelib.actions.settling import settle
from chalicelib.actions.telling import Telling
from chalicelib.aws.due import DueNotebooks
from chalicelib.aws.instances import Instance, Instances
from chalicelib.aws.ledger import Event, Ledger, event
from chalicelib.aws.probes import AT_ONCE, Probes
from chalicelib.errors import NodError
from chalicelib.log import about, logger
from chalicelib.model import DUE_SHARDS

Each = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]
"""`map`, or one that works on several at once."""

KIND_OF_WARNING = {idleness.IDLE: "warned", idleness.SILENT: "silent", idleness.LIMIT: "limit_near"}
# So often in a row somebody does not answer, and is not asked again in this sweep.
_MOST_IN_A_ROW = 5
_INDEX, _TABLES, _EC2, _LEASE = "index", "tables", "EC2", "lease"
# How a notebook counts that another sweep or a person was first with, and one that there was no time for.
_TAKEN, _LEFT = "taken by another", "not reached"
_SENT = "sent", "The monitor is looked after, and started if it hangs."
_UNREACHABLE = "unreachable", "Systems Manager cannot reach the machine."
# Of the time of a run, what is left for the stops; and what is left at its end, for what was begun, in seconds.
_SHARE_OF_STOPS = 1 / 3
_RESERVE = 45.0
_Answer = TypeVar("_Answer")


class Swept(Parts):
    """What a sweep did: how many of each decision, what is to stop, and what went wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self.to_stop = ToStop()
        self.complete = True
        """Whether all that was due was looked at."""
        self._unanswered: Counter[str] = Counter()

    def ask(self, whom: str, call: Callable[[], _Answer]) -> _Answer | None:
        """What a call answers that is for many notebooks. None if it fails, which is trouble."""
        with self.part():
            answer = call()
            self._unanswered[whom] = 0
            return answer
        self._unanswered[whom] += 1
        return None

    def answers(self, whom: str) -> bool:
        """Whether it is worth asking. What goes wrong with a single notebook says nothing of that: whoever is root on a
        machine can make much go wrong, and must not keep the others from being looked at and stopped."""
        return self._unanswered[whom] < _MOST_IN_A_ROW


@dataclass(frozen=True)
class _Kept:
    """What came of a notebook that is not to stop."""

    counts: str | None = None
    """As what; None where trouble came of it."""
    decided: bool = False
    """Whether the decision is in the record."""
    line: Event | None = None
    """Of the ledger, where it is not in it yet."""
    trouble: tuple[NodError, ...] = ()


class Sweeping:
    """Takes the gateways and actions it consists of, the clock, and how to do many things."""

    def __init__(
        self,
        *,
        due: DueNotebooks,
        judging: Judging,
        ledger: Ledger,
        instances: Instances,
        probes: Probes,
        telling: Telling,
        draining: Draining,
        mending: Mending,
        clock: Callable[[], datetime],
        each: Each,
    ) -> None:
        self._due = due
        self._judging = judging
        self._policy = judging.policy
        self._ledger = ledger
        self._instances = instances
        self._probes = probes
        self._telling = telling
        self._draining = draining
        self._mending = mending
        self._clock = clock
        self._each = each

    def sweep(self, holder: str, remaining: Callable[[], float]) -> Swept:
        """One sweep. What is not reached in time stays due for the next.

        Args:
            holder: names this sweep among those that run at the same time.
            remaining: seconds that are left.
        """
        swept = Swept()
        until = max(_RESERVE, remaining() * _SHARE_OF_STOPS)

        def may_go_on() -> bool:
            return remaining() > until

        def time_to_stop() -> float:
            return remaining() - _RESERVE

        def begin_to_stop() -> Counter[str]:
            return self._draining.begin_to_drain(holder, swept.to_stop, time_to_stop, swept.part)

        first = int(self._clock().timestamp() // 300) % DUE_SHARDS
        for shard in range(DUE_SHARDS):
            # Another first each time: what a sweep does not reach is not always the same.
            for ids in self._pages((first + shard) % DUE_SHARDS, swept, may_go_on):
                with swept.part():
                    self._page(ids, swept, may_go_on)
                if swept.answers(_LEASE):
                    swept.counts.update(swept.ask(_LEASE, begin_to_stop) or {})
        # Whatever went wrong so far: what was found is stopped.
        with swept.part():
            swept.counts.update(self._draining.drain(holder, swept.to_stop, time_to_stop, swept.part))
        return swept

    def _pages(self, shard: int, swept: Swept, may_go_on: Callable[[], bool]) -> Iterator[Sequence[str]]:
        pages = self._due.pages(shard, self._clock())
        while may_go_on() and swept.answers(_INDEX) and swept.answers(_TABLES):
            ids = swept.ask(_INDEX, lambda: next(pages, []))
            if ids is None:
                break
            if not ids:
                return
            yield ids
        swept.complete = False

    def _page(self, ids: Sequence[str], swept: Swept, may_go_on: Callable[[], bool]) -> None:
        now = self._clock()
        look = swept.ask(_TABLES, lambda: self._judging.look(ids, now))
        if look is None:
            swept.complete = False
            return
        for notebook in (*(judged.notebook for judged in look.judged), *(due.notebook for due in look.others)):
            if notebook.ledger_lines:
                with about(notebook.id), swept.part():
                    settle(notebook, self._due, self._ledger)
        silent = [judged for judged in look.judged if judged.decision.code == idleness.SILENT]
        others = [judged for judged in look.judged if judged.decision.code != idleness.SILENT]
        self._settle(others, swept, now, may_go_on)
        if silent:
            known = swept.ask(_EC2, lambda: self._describe(silent)) if swept.answers(_EC2) else None
            if known is None:
                swept.complete = False
            else:
                self._settle(self._still_running(silent, known, swept, now), swept, now, may_go_on)
        if look.others:
            again = swept.ask(_EC2, lambda: self._mending.mend(look.others, now, swept.part, swept.counts))
            swept.complete &= again is not None
            swept.to_stop.again += again or []

    def _settle(self, judged: Sequence[Judged], swept: Swept, now: datetime, may_go_on: Callable[[], bool]) -> None:
        swept.to_stop.wanted += [one.notebook.id for one in judged if one.decision.action == idleness.STOP]
        kept = [one for one in judged if one.decision.action != idleness.STOP]
        lines: list[Event] = []
        unprobed: list[Judged] = []
        for one, result in zip(kept, self._each(lambda one: self._keep(one, now, may_go_on), kept), strict=True):
            for error in result.trouble:
                with about(one.notebook.id), swept.part():
                    raise error
            if result.counts is not None:
                swept.counts[result.counts] += 1
            if result.counts == _LEFT:
                swept.complete = False
            if result.line is not None:
                lines.append(result.line)
            if result.decided and one.unprobed:
                unprobed.append(one)
        if lines:
            with swept.part():
                self._ledger.write(lines)
        for first in range(0, len(unprobed), AT_ONCE):
            with swept.part():
                self._probe(unprobed[first : first + AT_ONCE], swept, now, may_go_on)

    def _keep(self, one: Judged, now: datetime, may_go_on: Callable[[], bool]) -> _Kept:
        """Writes what was decided. What is not reached in time stays due."""
        if not may_go_on():
            return _Kept(_LEFT)
        with about(one.notebook.id):
            return self._warn(one, now) if one.decision.action == idleness.WARN else self._keep_on(one, now)

    def _keep_on(self, one: Judged, now: datetime) -> _Kept:
        # The monitor is told first, and that it was told is noted after; and what was decided holds without it.
        confirmed, trouble = self._confirm(one, now)
        try:
            with as_trouble():
                if not self._due.write(one.notebook, self._decided(one, now, confirmed=confirmed)):
                    return _Kept(_TAKEN, trouble=trouble)
        except NodError as error:
            return _Kept(trouble=(*trouble, error))
        logger.info("kept", notebook=one.notebook.id, code=one.decision.code, reason=one.decision.reason)
        trouble += self._tell_of_server(one, now)
        return _Kept(one.decision.action, decided=True, line=one.line(now), trouble=trouble)

    def _tell_of_server(self, one: Judged, now: datetime) -> tuple[NodError, ...]:
        """What is new about the notebook's own server: lines of the ledger, and its owner once. What could not be told
        is told at the next look; what goes wrong."""
        news = one.news
        try:
            with as_trouble():
                # After the line of the decision.
                at = now + timedelta(milliseconds=2)
                if news.lines:
                    self._ledger.write(
                        [event(one.notebook.id, at, "note", code, reason) for code, reason in news.lines]
                    )
                for kind, since in news.tell:
                    self._telling.tell(one.notebook.id, kind, now)
                    self._due.told(one.notebook.id, kind, since)
        except NodError as error:
            return (error,)
        return ()

    def _warn(self, one: Judged, now: datetime) -> _Kept:
        """Written before it is published, so that one sweep warns; given only once it is.

        The monitor is not confirmed by it: while no warning goes out, or no stop is taken by EC2 after it, nothing here
        ends the machine, and the monitor's own switch has to.
        """
        decided = False
        try:
            with as_trouble():
                given = one.decision.warned
                if given is None:
                    raise TypeError("A warning without what to store of it.")
                warned = {**given.to_record(), "reason": one.decision.reason, "told": False}
                soon = times.to_text(now + self._policy.minutes(self._policy.soonest))
                changes = {**self._decided(one, now), "due_at": soon, "warned": warned}
                decided = self._due.write(one.notebook, changes, line=one.line(now))
                if not decided:
                    return _Kept(_TAKEN)
                self._publish(one, now)
                self._due.given(one.notebook.id, times.to_text(given.at), one.decision.due_at)
        except NodError as error:
            return _Kept(decided=decided, trouble=(error,))
        logger.info("warned", notebook=one.notebook.id, code=one.decision.code, reason=one.decision.reason)
        return _Kept(one.decision.action, decided=True, trouble=self._tell_of_server(one, now))

    def _publish(self, one: Judged, now: datetime) -> None:
        try:
            with as_trouble():
                self._telling.tell(one.notebook.id, KIND_OF_WARNING[one.decision.code], now)
        except NodError as error:
            logger.error("warning not sent", notebook=one.notebook.id, reason=error.detail)
            reason = (
                "The warning could not be sent. It is tried again; before it was, no sweep stops it as idle or silent."
            )
            self._ledger.write([event(one.notebook.id, now + timedelta(milliseconds=1), "warn", "not_sent", reason)])
            raise

    def _decided(self, one: Judged, now: datetime, *, confirmed: bool = False) -> dict[str, object]:
        changes: dict[str, object] = {
            "decided_at": times.to_text(now),
            "due_at": times.to_text(one.decision.due_at),
        }
        if one.seen is not None:
            changes["seen"] = one.seen
        changes |= one.news.changes
        if one.news.due_at is not None:
            changes["due_at"] = times.to_text(min(one.decision.due_at, one.news.due_at))
        if one.due.missing_at is not None:
            changes["missing_at"] = None
        if confirmed:
            changes["confirmed_at"] = times.to_text(now)
        return changes

    def _confirm(self, one: Judged, now: datetime) -> tuple[bool, tuple[NodError, ...]]:
        """Whether the monitor was told that it was heard, and what went wrong."""
        try:
            with as_trouble():
                return self._judging.to_confirm(one, now) and self._judging.confirm(one, now), ()
        except NodError as error:
            return False, (error,)

    def _describe(self, judged: Sequence[Judged]) -> dict[str, Instance]:
        return self._instances.describe([one.notebook.instance_id for one in judged if one.notebook.instance_id])

    def _still_running(
        self, silent: Sequence[Judged], known: dict[str, Instance], swept: Swept, now: datetime
    ) -> list[Judged]:
        """Those whose instance runs. One that was stopped or terminated outside has its reason to say nothing."""
        running: list[Judged] = []
        for one in silent:
            instance = known.get(one.notebook.instance_id or "")
            if instance is not None and instance.running:
                running.append(one)
            else:
                with about(one.notebook.id), swept.part():
                    swept.counts[self._mending.stopped_outside(one.due, instance, now)] += 1
        self._note_tags(running, known)
        return running

    def _note_tags(self, running: Sequence[Judged], known: dict[str, Instance]) -> None:
        for one in running:
            instance = known.get(one.notebook.instance_id or "")
            if instance is not None and instance.deployment is None:
                logger.error("tag removed from an instance", notebook=one.notebook.id, instance=instance.id)

    def _probe(self, silent: Sequence[Judged], swept: Swept, now: datetime, may_go_on: Callable[[], bool]) -> None:
        """Sends the probe, and notes it then: what was not sent is sent at the next look, about 15 minutes later."""
        sent = len(silent) > 1 and self._probes.send([one.notebook.instance_id or "" for one in silent])
        # After the line of the decision.
        at = now + timedelta(milliseconds=1)
        lines: list[Event] = []
        for one in silent:
            if not may_go_on():
                swept.complete = False
                break
            with about(one.notebook.id), swept.part():
                # One that cannot be reached refuses the whole call.
                reached = sent or self._probes.send([one.notebook.instance_id or ""])
                if reached:
                    self._due.probed(one.notebook.id, one.silence)
                code, reason = _SENT if reached else _UNREACHABLE
                lines.append(event(one.notebook.id, at, "probe", code, reason))
                logger.info("probed", notebook=one.notebook.id, instance=one.notebook.instance_id, reachable=reached)
        if lines:
            self._ledger.write(lines)
