"""What bears the deployment's tag and belongs to no notebook, and notebooks whose machine is no more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import datetime
from typing import assert_never

from chalicelib import figures, orphans, times
from chalicelib.actions.mending import Mending
from chalicelib.actions.settling import settle
from chalicelib.actions.telling import Telling
from chalicelib.aws.due import Due, DueNotebooks
from chalicelib.aws.instances import Instance, Instances
from chalicelib.aws.ledger import Ledger, event
from chalicelib.aws.notebooks import NotebooksTable
from chalicelib.aws.sweeps import SweepsTable
from chalicelib.aws.users import UsersTable
from chalicelib.errors import NodError
from chalicelib.log import about, logger
from chalicelib.model import Notebook, User
from chalicelib.notebook import life
from chalicelib.notebook.life import State
from chalicelib.orphans import Known, Resource, Rules
from chalicelib.prices import Catalogue

Part = Callable[[], AbstractContextManager[None]]


class Reconciling:
    """Takes the gateways it acts on."""

    def __init__(
        self,
        *,
        instances: Instances,
        due: DueNotebooks,
        notebooks: NotebooksTable,
        users: UsersTable,
        sweeps: SweepsTable,
        ledger: Ledger,
        mending: Mending,
        telling: Telling,
        rules: Rules,
        prices: Catalogue,
        region: str,
    ) -> None:
        self._instances = instances
        self._due = due
        self._notebooks = notebooks
        self._users = users
        self._sweeps = sweeps
        self._ledger = ledger
        self._mending = mending
        self._telling = telling
        self._rules = rules
        self._prices = prices
        self._region = region

    def reconcile(self, now: datetime, part: Part) -> Counter[str]:
        """Compares what EC2 has with the records, both ways. How many of what.

        `part` keeps the trouble of one resource from the others. What cannot be read raises, and nothing is done.
        """
        counts: Counter[str] = Counter()
        resources = [*self._instances.tagged(), *self._instances.loose()]
        users = {user.id: user for user in self._users.all()}
        owned = {notebook_id for user in users.values() for notebook_id in user.owned | user.active}
        found, damaged = self._due.read(sorted(orphans.notebooks_of(resources) | owned))
        records = {record.notebook.id: record for record in found}
        by_instance = {record.notebook.instance_id or "": record for record in found if record.notebook.instance_id}
        without = [
            replace(resource, kept=orphans.is_kept(resource, notebook))
            for resource in resources
            # A record that cannot be read is one all the same.
            if resource.notebook not in damaged
            and orphans.is_orphan(resource, notebook := _notebook(resource, records, by_instance))
        ]
        counts["resources"], counts["without owner"] = len(resources), len(without)
        # What is kept for good must not keep the others for good.
        removable = sum(1 for resource in without if not resource.kept and not _stays(resource, users))
        if orphans.too_many(removable, len(resources), self._rules):
            logger.error(
                "too many resources without a record: nothing is touched, the records may be lost",
                resources=len(resources),
                without=[resource.id for resource in without[:50]],
            )
            counts["too many"] = 1
        else:
            self._look_after(without, users, now, part, counts)
        self._compare(resources, records, now, part, counts)
        # The dashboard and the alarm on late notebooks read this line.
        running = figures.fleet([record.notebook for record in found], self._prices, self._region, now)
        logger.info("running", extra=running)
        for notebook in figures.late((record.notebook for record in found), now):
            logger.error("overdue", notebook=notebook.id, state=notebook.state, due_at=notebook.due_at)
        return counts

    def _look_after(
        self,
        without: Sequence[Resource],
        users: Mapping[str, User],
        now: datetime,
        part: Part,
        counts: Counter[str],
    ) -> None:
        rows = self._sweeps.orphans([resource.key for resource in without])
        for resource in without:
            with about(resource.notebook), part():
                known = orphans.seen(Known.from_record(rows.get(resource.key, {})), now, self._rules)
                action = orphans.decide(resource, known, self._rules, now)
                counts[f"orphan {action}"] += 1
                logger.error(
                    "resource without owner",
                    kind=resource.kind,
                    resource=resource.id,
                    notebook=resource.notebook,
                    owner=resource.owner,
                    since=times.to_text(known.first_seen_at),
                    action=action,
                )
                known = self._act(resource, known, action, users, now)
                self._sweeps.note_orphan(resource.key, known.to_record(), now)

    def _act(
        self, resource: Resource, known: Known, action: orphans.Action, users: Mapping[str, User], now: datetime
    ) -> Known:
        match action:
            case orphans.Action.TELL | orphans.Action.KEEP:
                return self._tell(resource, known, users, now)
            case orphans.Action.NOTE | orphans.Action.WAIT:
                return known
            case orphans.Action.STOP | orphans.Action.REMOVE:
                return known if self._has_owner_after_all(resource) else self._end(resource, known, action, now)
            case _:
                assert_never(action)

    def _end(self, resource: Resource, known: Known, action: orphans.Action, now: datetime) -> Known:
        """Stops it or removes it."""
        stop = action == orphans.STOP
        code = self._instances.stop([resource.id]) if stop else self._instances.remove(resource)
        if code is not None:
            raise NodError(f"EC2 did not {action} the {resource.kind} {resource.id}: {code}.")
        logger.error("resource without owner: done", kind=resource.kind, resource=resource.id, action=action)
        if resource.notebook:
            reason = f"The {resource.kind} {resource.id} belonged to no notebook."
            self._ledger.write([event(resource.notebook, now, action, "orphan", reason)])
        return replace(known, stopped_at=now) if stop else known

    def _tell(self, resource: Resource, known: Known, users: Mapping[str, User], now: datetime) -> Known:
        """Who runs the deployment reads it in the log: that is told too. The owner may become known, or get an address,
        later: each look tries again."""
        owner = _reachable(resource, users)
        plan = orphans.plan(resource, self._rules, now)
        if owner is not None and self._telling.tell_orphan(owner, resource, plan):
            return replace(known, told_at=known.told_at or now, owner_told_at=now)
        if known.told_at is None and resource.notebook and resource.holds_data:
            reason = (
                f"No notebook uses the {resource.kind} {resource.id} any more, and nobody could be told. It may "
                "hold data and is kept, which costs, until your administrator removes it."
            )
            self._ledger.write([event(resource.notebook, now, "note", "orphan_kept", reason)])
        return replace(known, told_at=known.told_at or now)

    def _has_owner_after_all(self, resource: Resource) -> bool:
        """Looks once more, right before it acts."""
        ids = [resource.notebook] if resource.notebook else []
        if resource.kind == orphans.INSTANCE and (waiting := self._notebooks.of_instance(resource.id)) is not None:
            ids.append(waiting.id)
        found, damaged = self._due.read(ids)
        return bool(damaged) or any(not orphans.is_orphan(resource, record.notebook) for record in found)

    def _compare(
        self,
        resources: Sequence[Resource],
        records: Mapping[str, Due],
        now: datetime,
        part: Part,
        counts: Counter[str],
    ) -> None:
        """The other way: whether each notebook has the instance that its record names, and in a state that fits."""
        ours = {resource.id: resource for resource in resources if resource.kind == orphans.INSTANCE}
        unseen: list[Due] = []
        for record in records.values():
            with about(record.notebook.id), part():
                settle(record.notebook, self._due, self._ledger)
                counts["made due"] += self._mending.make_due(record, now)
            notebook = record.notebook
            if notebook.instance_id is None or notebook.state not in life.AT_REST:
                continue
            resource = ours.get(notebook.instance_id)
            if resource is None:
                unseen.append(record)
                continue
            with about(record.notebook.id), part():
                if record.missing_at is not None:
                    self._mending.found(record)
                if notebook.state == State.STOPPED and resource.running:
                    counts[self._runs_unasked(record, resource.id, now)] += 1
        known = self._instances.describe([record.notebook.instance_id or "" for record in unseen])
        for record in unseen:
            with about(record.notebook.id), part():
                counts[self._unseen(record, known.get(record.notebook.instance_id or ""), now)] += 1

    def _unseen(self, record: Due, instance: Instance | None, now: datetime) -> str:
        if instance is None or instance.gone:
            return self._mending.missing(record, instance, now)
        # It is known by its id, and every stop goes by the id. Costs by tag, and the deployment's own removal, miss it.
        logger.error("tag removed from an instance", notebook=record.notebook.id, instance=instance.id)
        if self._first_time(f"untagged#{instance.id}", now):
            reason = f"The tag nod:deployment was removed from its machine {instance.id}. It is looked after still."
            self._ledger.write([event(record.notebook.id, now, "note", "tag_removed", reason)])
        if record.missing_at is not None:
            self._mending.found(record)
        if record.notebook.state == State.STOPPED and instance.running:
            return self._runs_unasked(record, instance.id, now, tagged=False)
        return "tag removed"

    def _runs_unasked(self, record: Due, instance_id: str, now: datetime, *, tagged: bool = True) -> str:
        """A stopped notebook whose machine runs, which nobody watches and everybody pays for."""
        key = f"running#{instance_id}"
        known = orphans.seen(Known.from_record(self._sweeps.orphans([key]).get(key, {})), now, self._rules)
        self._sweeps.note_orphan(key, known.to_record(), now)
        if now - known.first_seen_at < self._rules.minutes(self._rules.grace):
            return "runs unasked"
        # EC2 is asked once more: what it listed may be of before the notebook's own stop came to its end.
        instance = self._instances.describe([instance_id]).get(instance_id)
        if instance is None or not instance.running:
            return "stopped meanwhile"
        logger.error("stopped notebook runs", notebook=record.notebook.id, instance=instance_id)
        if (code := self._mending.stop_unasked(record, now, tagged=tagged)) is not None:
            raise NodError(f"EC2 did not stop the instance {instance_id}: {code}.")
        return "stopped again"

    def _first_time(self, key: str, now: datetime) -> bool:
        before = Known.from_record(self._sweeps.orphans([key]).get(key, {}))
        known = orphans.seen(before, now, self._rules)
        self._sweeps.note_orphan(key, known.to_record(), now)
        return known.first_seen_at == now


def _reachable(resource: Resource, users: Mapping[str, User]) -> User | None:
    """The owner that its tag names, if there is a way to tell them."""
    owner = users.get(resource.owner or "")
    return owner if owner is not None and owner.channels else None


def _stays(resource: Resource, users: Mapping[str, User]) -> bool:
    """Whether nothing more is done to it: it holds data, costs no hours, and nobody can be told."""
    return resource.holds_data and not resource.running and _reachable(resource, users) is None


def _notebook(resource: Resource, records: Mapping[str, Due], by_instance: Mapping[str, Due]) -> Notebook | None:
    """The record that a resource belongs to: the one its tag names, or, whatever its tags say by now, the one that
    names it."""
    record = by_instance.get(resource.id) or records.get(resource.notebook or "")
    return record.notebook if record else None
