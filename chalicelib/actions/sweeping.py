"""The sweep: looks at what is due, keeps, warns or stops it, and mends what a workflow left.

Safe at any number at once, and killed at any point: each notebook is taken by one write that holds only if the record
is as it was read, and what was begun and not ended stays due.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from chalicelib import idleness, times
from chalicelib.actions.draining import Draining
from chalicelib.actions.judging import Judged, Judging
from chalicelib.actions.mending import Mending
from chalicelib.actions.parts import Parts
from chalicelib.actions.telling import Telling
from chalicelib.aws.due import DueNotebooks
from chalicelib.aws.faults import as_unavailable
from chalicelib.aws.instances import Instance, Instances
from chalicelib.aws.ledger import Event, Ledger, event
from chalicelib.aws.probes import Probes
from chalicelib.errors import NodError
from chalicelib.log import logger
from chalicelib.model import DUE_SHARDS, Notebook

Each = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]
"""`map`, or one that works on several at once."""

KIND_OF_WARNING = {idleness.IDLE: "warned", idleness.SILENT: "silent", idleness.LIMIT: "limit_near"}
# So many parts that fail one after the other, and it is no part that is at fault.
_MOST_TROUBLE = 5
# Of the time of a run, what is left for the stops; and what is left at its end, for what was begun, in seconds.
_SHARE_OF_STOPS = 1 / 3
_RESERVE = 45.0


class Swept(Parts):
    """What a sweep did: how many of each decision, what is to stop, and what went wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self.to_stop: list[str] = []
        self.to_stop_again: list[Notebook] = []
        self.complete = True
        """Whether all that was due was looked at."""


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
        first = int(self._clock().timestamp() // 300) % DUE_SHARDS
        for shard in range(DUE_SHARDS):
            # Another first each time: what a sweep does not reach is not always the same.
            with swept.part():
                self._shard((first + shard) % DUE_SHARDS, swept, lambda: remaining() > until)
            if not swept.complete or len(swept.trouble) >= _MOST_TROUBLE:
                break
        if len(swept.trouble) < _MOST_TROUBLE:
            with swept.part():
                swept.counts.update(
                    self._draining.drain(
                        holder, swept.to_stop, swept.to_stop_again, lambda: remaining() - _RESERVE, swept.part
                    )
                )
        return swept

    def _shard(self, shard: int, swept: Swept, may_go_on: Callable[[], bool]) -> None:
        for ids in self._due.pages(shard, self._clock()):
            if not may_go_on() or len(swept.trouble) >= _MOST_TROUBLE:
                swept.complete = False
                return
            with swept.part():
                self._page(ids, swept)

    def _page(self, ids: Sequence[str], swept: Swept) -> None:
        now = self._clock()
        look = self._judging.look(ids, now)
        silent = [judged for judged in look.judged if judged.decision.code == idleness.SILENT]
        others = [judged for judged in look.judged if judged.decision.code != idleness.SILENT]
        self._settle(others, swept, now)
        if silent:
            with swept.part():
                self._settle(self._still_running(silent, swept, now), swept, now)
        if look.others:
            swept.to_stop_again += self._mending.mend(look.others, now, swept.part, swept.counts)

    def _settle(self, judged: Sequence[Judged], swept: Swept, now: datetime) -> None:
        swept.to_stop += [one.notebook.id for one in judged if one.decision.action == idleness.STOP]
        kept = [one for one in judged if one.decision.action != idleness.STOP]
        lines: list[Event] = []
        probed: list[Judged] = []
        for one, result in zip(kept, self._each(lambda one: self._keep(one, now), kept), strict=True):
            if isinstance(result, NodError):
                with swept.part():
                    raise result
            elif result is None:
                swept.counts["taken by another"] += 1
            else:
                swept.counts[one.decision.action] += 1
                lines += result
                if one.decision.code == idleness.SILENT and one.due.probed != one.silence:
                    probed.append(one)
        if lines:
            self._ledger.write(lines)
        if probed:
            self._probe([one.notebook for one in probed], now)

    def _keep(self, one: Judged, now: datetime) -> list[Event] | NodError | None:
        """Writes what was decided; lines that are not in the ledger yet. None if the record has changed."""
        try:
            with as_unavailable("AWS"):
                if one.decision.action == idleness.WARN:
                    return self._warn(one, now)
                if not self._due.write(one.notebook, self._decided(one, now)):
                    return None
                self._confirm(one, now)
                logger.info("kept", notebook=one.notebook.id, code=one.decision.code, reason=one.decision.reason)
                return [one.line(now)]
        except NodError as error:
            return error

    def _warn(self, one: Judged, now: datetime) -> list[Event] | None:
        """Written before it is published, so that one sweep warns; given only once it is."""
        given = one.decision.warned
        if given is None:
            raise TypeError("A warning without what to store of it.")
        warned = {**given.to_record(), "reason": one.decision.reason, "told": False}
        soon = times.to_text(now + self._policy.minutes(self._policy.soonest))
        changes = {**self._decided(one, now), "due_at": soon, "warned": warned}
        if not self._due.write(one.notebook, changes, line=one.line(now)):
            return None
        self._confirm(one, now)
        logger.info("warned", notebook=one.notebook.id, code=one.decision.code, reason=one.decision.reason)
        try:
            with as_unavailable("AWS"):
                self._telling.tell(one.notebook.id, KIND_OF_WARNING[one.decision.code], now)
        except NodError as error:
            logger.error("warning not sent", notebook=one.notebook.id, reason=error.detail)
            reason = "The warning could not be sent. It is tried again, and nothing stops before it was."
            self._ledger.write([event(one.notebook.id, now + timedelta(milliseconds=1), "warn", "not_sent", reason)])
            raise
        self._due.given(one.notebook.id, times.to_text(given.at), one.decision.due_at)
        return []

    def _decided(self, one: Judged, now: datetime) -> dict[str, object]:
        changes: dict[str, object] = {
            "decided_at": times.to_text(now),
            "due_at": times.to_text(one.decision.due_at),
        }
        if one.seen is not None:
            changes["seen"] = one.seen
        if one.due.missing_at is not None:
            changes["missing_at"] = None
        if self._judging.to_confirm(one, now):
            changes["confirmed_at"] = times.to_text(now)
        if one.decision.code == idleness.SILENT and one.due.probed != one.silence:
            changes["probed"] = one.silence
        return changes

    def _confirm(self, one: Judged, now: datetime) -> None:
        if self._judging.to_confirm(one, now):
            self._judging.confirm(one, now)

    def _still_running(self, silent: Sequence[Judged], swept: Swept, now: datetime) -> list[Judged]:
        """Those whose instance runs. One that was stopped or terminated outside has its reason to say nothing."""
        known = self._instances.describe([one.notebook.instance_id for one in silent if one.notebook.instance_id])
        running: list[Judged] = []
        for one in silent:
            instance = known.get(one.notebook.instance_id or "")
            if instance is not None and instance.running:
                running.append(one)
            else:
                with swept.part():
                    swept.counts[self._mending.stopped_outside(one.due, instance, now)] += 1
        self._note_tags(running, known)
        return running

    def _note_tags(self, running: Sequence[Judged], known: dict[str, Instance]) -> None:
        for one in running:
            instance = known.get(one.notebook.instance_id or "")
            if instance is not None and instance.deployment is None:
                logger.error("tag removed from an instance", notebook=one.notebook.id, instance=instance.id)

    def _probe(self, notebooks: Sequence[Notebook], now: datetime) -> None:
        ids = {notebook.instance_id: notebook.id for notebook in notebooks if notebook.instance_id}
        unreachable = self._probes.send(list(ids))
        # After the line of the decision.
        at = now + timedelta(milliseconds=1)
        self._ledger.write(
            [
                event(notebook_id, at, "probe", "unreachable", "Systems Manager cannot reach the machine.")
                if instance_id in unreachable
                else event(notebook_id, at, "probe", "sent", "The monitor is looked after, and started if it hangs.")
                for instance_id, notebook_id in ids.items()
            ]
        )
        logger.info("probed", notebooks=sorted(ids.values()), unreachable=sorted(unreachable))
