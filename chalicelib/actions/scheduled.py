"""What the schedules start, put together: the sweep, the comparison with EC2, and the monthly message."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import datetime
from typing import Any

from chalicelib.actions import disks
from chalicelib.actions.draining import Draining
from chalicelib.actions.judging import Judging
from chalicelib.actions.mending import Mending
from chalicelib.actions.parts import Parts
from chalicelib.actions.reconciling import Reconciling
from chalicelib.actions.sweeping import Each, Sweeping, Swept
from chalicelib.actions.telling import Telling
from chalicelib.aws.due import DueNotebooks
from chalicelib.aws.heartbeats import HeartbeatsTable
from chalicelib.aws.instances import Instances
from chalicelib.aws.ledger import Ledger
from chalicelib.aws.notebooks import NotebooksTable
from chalicelib.aws.probes import Probes
from chalicelib.aws.sweeps import SweepsTable
from chalicelib.aws.users import UsersTable
from chalicelib.aws.workflows import Workflows
from chalicelib.idleness import Policy
from chalicelib.orphans import Rules
from chalicelib.prices import catalogue
from chalicelib.settings import Settings


class Scheduled:
    """Takes the clients by service, and what it cannot do itself: tell the time, sleep, tell owners."""

    def __init__(
        self,
        client: Callable[[str], Any],
        settings: Settings,
        telling: Telling,
        clock: Callable[[], datetime],
        sleep: Callable[[float], None],
    ) -> None:
        self._client = client
        self._settings = settings
        self._telling = telling
        self._clock = clock
        self._sleep = sleep
        self._policy = Policy(minute=settings.minute)

    def sweep(self, holder: str, remaining: Callable[[], float], each: Each = map) -> Swept:
        """One sweep. `holder` names it, `remaining` says the seconds that are left."""
        judging = Judging(self._due(), self._heartbeats(), self._settings, self._policy)
        draining = Draining(
            due=self._due(),
            judging=judging,
            instances=self._instances(),
            sweeps=self._sweeps(),
            ledger=self._ledger(),
            workflows=self._workflows(),
            telling=self._telling,
            stop_arn=self._settings.stop_arn,
            clock=self._clock,
            sleep=self._sleep,
            each=each,
        )
        return Sweeping(
            due=self._due(),
            judging=judging,
            ledger=self._ledger(),
            instances=self._instances(),
            probes=Probes(self._client("ssm"), self._settings.stage),
            telling=self._telling,
            draining=draining,
            mending=self._mending(),
            clock=self._clock,
            each=each,
        ).sweep(holder, remaining)

    def reconcile(self, parts: Parts) -> Counter[str]:
        """One comparison with EC2."""
        return Reconciling(
            instances=self._instances(),
            due=self._due(),
            notebooks=NotebooksTable(
                self._client("dynamodb"), self._settings.notebooks_table, self._settings.users_table
            ),
            users=UsersTable(self._client("dynamodb"), self._settings.users_table),
            sweeps=self._sweeps(),
            ledger=self._ledger(),
            mending=self._mending(),
            telling=self._telling,
            rules=Rules(minute=self._settings.minute),
            prices=catalogue(),
            region=self._settings.region,
        ).reconcile(self._clock(), parts.part)

    def tell_disk_costs(self, parts: Parts) -> list[str]:
        """The monthly message. The users who were told."""
        users = UsersTable(self._client("dynamodb"), self._settings.users_table)
        return disks.tell_costs(users, self._due(), self._telling, parts, self._clock())

    def _mending(self) -> Mending:
        return Mending(
            due=self._due(),
            instances=self._instances(),
            ledger=self._ledger(),
            workflows=self._workflows(),
            telling=self._telling,
            settings=self._settings,
            policy=self._policy,
        )

    def _due(self) -> DueNotebooks:
        settings = self._settings
        return DueNotebooks(
            self._client("dynamodb"),
            settings.notebooks_table,
            settings.users_table,
            settings.events_table,
            self._sleep,
        )

    def _heartbeats(self) -> HeartbeatsTable:
        return HeartbeatsTable(self._client("dynamodb"), self._settings.heartbeats_table, self._sleep)

    def _ledger(self) -> Ledger:
        return Ledger(self._client("dynamodb"), self._settings.events_table, self._sleep)

    def _sweeps(self) -> SweepsTable:
        return SweepsTable(self._client("dynamodb"), self._settings.sweeps_table, self._sleep)

    def _instances(self) -> Instances:
        return Instances(self._client("ec2"), self._settings.stage)

    def _workflows(self) -> Workflows:
        return Workflows(self._client("stepfunctions"))
