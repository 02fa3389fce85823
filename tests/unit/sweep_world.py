"""A deployment in moto with notebooks at any point of their life, for the tests of the sweep."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from chalicelib import times
from chalicelib.actions.parts import Parts
from chalicelib.actions.scheduled import Scheduled
from chalicelib.actions.showing import Showing
from chalicelib.actions.sweeping import Swept
from chalicelib.actions.telling import Telling
from chalicelib.aws.heartbeats import HeartbeatsTable
from chalicelib.aws.items import from_item, to_item
from chalicelib.aws.ledger import Event, Ledger
from chalicelib.aws.notebooks import NotebooksTable
from chalicelib.aws.topic import Topic
from chalicelib.aws.users import UsersTable
from chalicelib.errors import Unavailable
from chalicelib.model import STEPS, Notebook, User, due_shard
from chalicelib.prices import catalogue
from chalicelib.settings import Settings
from tests.unit.stage import ENV, SESSION, STAGE, Stage, person, stage

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


_ONE = threading.RLock()


class Killed(BaseException):
    """The function's container is gone, at this very call."""


class Refusing:
    """A client that calls another one; `before` sees each call first, and may raise in its place, `done` sees it when
    it was answered."""

    def __init__(
        self,
        client: Any,
        before: Callable[[str, dict[str, Any]], None],
        done: Callable[[str, dict[str, Any]], None] = lambda name, arguments: None,
    ) -> None:
        self._client = client
        self._before = before
        self._done = done

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._client, name)
        if name == "get_paginator":
            # Its pages are calls too: moto answers each listing here in one.
            return lambda operation: _Paginator(value(operation), lambda: self._before(operation, {}))
        if name in ("exceptions", "meta") or not callable(value):
            return value

        def call(**arguments: Any) -> Any:
            # One call at a time, as each of AWS's is: moto looks at a condition and writes in two steps.
            with _ONE:
                self._before(name, arguments)
                answer = value(**arguments)
                self._done(name, arguments)
                return answer

        return call


class _Paginator:
    def __init__(self, paginator: Any, before: Callable[[], None]) -> None:
        self._paginator = paginator
        self._before = before

    def paginate(self, **arguments: Any) -> Iterator[Any]:
        self._before()
        yield from self._paginator.paginate(**arguments)


class Told:
    """Stands in for Telling: keeps what was told; `refuses` while the topic does not take anything."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.messages: list[tuple[str, str]] = []
        self.refuses = False
        self.before: Callable[[], None] = lambda: None

    def tell(self, notebook_id: str, kind: str, now: datetime) -> bool:
        return self._tell(notebook_id, kind)

    def tell_disks(self, user: User, notebooks: list[Notebook], now: datetime) -> bool:
        return self._tell(user.name, f"disks of {', '.join(notebook.name for notebook in notebooks)}")

    def tell_orphan(self, user: User, resource: Any, plan: str) -> bool:
        return self._tell(user.name, f"orphan {resource.id}: {plan}")

    def _tell(self, who: str, what: str) -> bool:
        self.before()
        if self.refuses:
            raise Unavailable("SNS did not answer as it should.")
        self.messages.append((who, what))
        return True


class World:
    """What the tests do and see. Its time stands still unless it is moved, or somebody sleeps."""

    def __init__(self, deployed: Stage) -> None:
        self.deployed = deployed
        self.ada = person(deployed, "ada").id
        self.now = NOON
        self.told = Told(self)
        self.published: list[tuple[datetime, str, str]] = []
        """What the topic took, once `telling` is the product's own: when, about which notebook, of which kind."""
        self.telling: Telling | Told = self.told
        self.settings = Settings.from_env(ENV)
        self.before: Callable[[str, dict[str, Any]], None] = lambda name, arguments: None
        self.ec2 = SESSION.client("ec2")
        self.dynamodb = SESSION.client("dynamodb")
        self.commands: list[list[str]] = []
        self._ssm = _Ssm(self)
        self._sequence = 0

    # What happens

    def sweep(self, holder: str = "sweep-1", seconds: float = 900.0, each: Any = map) -> Swept:
        end = self.now + timedelta(seconds=seconds)

        def remaining() -> float:
            return (end - self.now).total_seconds()

        return self.scheduled().sweep(holder, remaining, each)

    def reconcile(self) -> tuple[dict[str, int], Parts]:
        parts = Parts()
        return dict(self.scheduled().reconcile(parts)), parts

    def scheduled(self) -> Scheduled:
        return Scheduled(self.client, self.settings, self.telling, lambda: self.now, self.sleep)  # type: ignore[arg-type]

    def tell_for_real(self) -> None:
        """The product's own messages from here on, published to a topic of moto's; ada's address is confirmed."""
        dynamodb = self.client("dynamodb")
        users = UsersTable(dynamodb, self.settings.users_table)
        users.update(self.ada, {"email_state": "confirmed"})
        heartbeats = HeartbeatsTable(dynamodb, self.settings.heartbeats_table, self.sleep)
        self.telling = Telling(
            NotebooksTable(dynamodb, self.settings.notebooks_table, self.settings.users_table),
            users,
            Topic(self.client("sns"), self.settings.topic_arn),
            Showing(lambda: heartbeats, catalogue(), self.settings),
        )

    def client(self, service: str) -> Any:
        client = self._ssm if service == "ssm" else SESSION.client(service)  # type: ignore[call-overload]

        def before(name: str, arguments: dict[str, Any]) -> None:
            # Looked up at each call: tests set it anew.
            self.before(name, arguments)

        return Refusing(client, before, self._done)

    def _done(self, name: str, arguments: dict[str, Any]) -> None:
        if name == "publish":
            message = json.loads(json.loads(arguments["Message"])["lambda"])
            self.published.append((self.now, message["id"], message["kind"]))

    def sleep(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def pass_minutes(self, minutes: float) -> None:
        self.now += minutes * MINUTE

    # What is there

    def notebook(self, *, state: str = "ready", idle: float = 0, instance: bool = True, **changes: Any) -> Notebook:
        """A notebook that began to run a day ago; `idle`: minutes since anybody used it, as its monitor says now."""
        self._sequence += 1
        identifier = f"nb-{self._sequence:020x}"
        began = times.to_text(self.now - timedelta(days=1))
        running = state in ("ready", "stopping")
        known = Notebook(
            id=identifier,
            owner=self.ada,
            owner_name="ada",
            name=f"thesis-{self._sequence}",
            state=state,
            created_at=began,
            updated_at=began,
            ready_at=began,
            instance_type="t3.medium",
            volume_gib=30,
            idle_minutes=60,
            environment="anaconda",
            steps={step: {} for step in STEPS},
            notify=("email",),
            notifications={"email": "sent"},
            instance_id=self.instance(identifier) if instance else None,
            run_started_at=began if running else None,
            due=due_shard(identifier) if state != "stopped" else None,
            due_at=times.to_text(self.now) if state != "stopped" else None,
        )
        known = replace(known, **changes)
        self.put(known)
        if state == "ready" and instance:
            self.beat(known, idle)
        return known

    def put(self, notebook: Notebook) -> None:
        self.dynamodb.put_item(TableName=ENV["NOD_NOTEBOOKS_TABLE"], Item=to_item(notebook.to_record()))
        leaves = notebook.state in ("failed", "terminated")
        if not leaves:
            sets = "ADD owned :one" + (", active :one" if notebook.state != "stopped" else "")
            self.dynamodb.update_item(
                TableName=ENV["NOD_USERS_TABLE"],
                Key={"id": {"S": notebook.owner}},
                UpdateExpression=sets,
                ExpressionAttributeValues={":one": {"SS": [notebook.id]}},
            )

    def instance(self, notebook_id: str | None, **tags: str) -> str:
        wanted = {
            "nod:deployment": STAGE,
            "nod:owner": self.ada,
            **({"nod:notebook": notebook_id} if notebook_id else {}),
        }
        specification = [
            {"ResourceType": "instance", "Tags": [{"Key": k, "Value": v} for k, v in {**wanted, **tags}.items()]}
        ]
        answer = self.ec2.run_instances(ImageId="ami-12c6146b", MinCount=1, MaxCount=1, TagSpecifications=specification)
        return str(answer["Instances"][0]["InstanceId"])

    def beat(
        self,
        notebook: Notebook,
        idle: float,
        beat: int | None = None,
        *,
        answers: bool = True,
        server: Mapping[str, Any] | None = None,
    ) -> None:
        """Its monitor's heartbeat of now: everything was last active `idle` minutes ago. `server`: what it says of the
        notebook's server, which `answers`."""
        ages = {name: int(idle * 60) for name in ("input", "kernel", "terminal", "cpu", "disk", "network", "gpu")}
        record = {
            "id": self.arn(notebook),
            "at": times.to_text(self.now),
            "boot_id": "boot-1",
            "beat": beat if beat is not None else int(self.now.timestamp()),
            "uptime": 86_400,
            "answers": answers,
            **({"server": server} if server else {}),
            "ages": ages,
            "unknown": [],
            "version": "2",
        }
        self.dynamodb.put_item(TableName=ENV["NOD_HEARTBEATS_TABLE"], Item=to_item(record))

    # What is seen

    def arn(self, notebook: Notebook) -> str:
        return self.settings.instance_arn(notebook.instance_id or "")

    def record(self, notebook: Notebook) -> dict[str, Any]:
        return from_item(self.deployed.record(notebook.id))

    def state(self, notebook: Notebook) -> str:
        return str(self.record(notebook)["state"])

    def forget(self, notebook: Notebook) -> None:
        """Its record is gone: no sweep comes across it any more."""
        self.dynamodb.delete_item(TableName=ENV["NOD_NOTEBOOKS_TABLE"], Key={"id": {"S": notebook.id}})

    def row(self, notebook: Notebook) -> dict[str, Any]:
        key = {"id": {"S": self.arn(notebook)}}
        return from_item(self.dynamodb.get_item(TableName=ENV["NOD_HEARTBEATS_TABLE"], Key=key).get("Item", {}))

    def lines(self, notebook: Notebook, action: str | None = None) -> list[Event]:
        """The ledger, oldest first."""
        found, _ = Ledger(self.dynamodb, ENV["NOD_EVENTS_TABLE"], self.sleep).page(notebook.id, 100, None)
        return [line for line in reversed(found) if action is None or line.action == action]

    def power(self, notebook: Notebook) -> str:
        found = self.ec2.describe_instances(InstanceIds=[notebook.instance_id])
        return str(found["Reservations"][0]["Instances"][0]["State"]["Name"])

    def user(self) -> dict[str, Any]:
        key = {"id": {"S": self.ada}}
        return from_item(self.dynamodb.get_item(TableName=ENV["NOD_USERS_TABLE"], Key=key)["Item"])

    def begun(self, machine: str) -> dict[str, dict[str, Any]]:
        """Inputs of the executions of a state machine, by name."""
        found = {}
        for execution in self.deployed.executions(machine):
            answer = self.deployed.stepfunctions.describe_execution(executionArn=execution["executionArn"])
            found[execution["name"]] = json.loads(answer["input"])
        return found


class _Ssm:
    """Keeps who was sent the probe; `offline`: instances that Systems Manager cannot reach."""

    class exceptions:  # noqa: N801 - as botocore's clients have it
        class InvalidInstanceId(Exception):  # noqa: N818
            pass

        ClientError = Exception

    def __init__(self, world: World) -> None:
        self._world = world
        self.offline: set[str] = set()

    def send_command(self, *, DocumentName: str, InstanceIds: list[str]) -> Mapping[str, Any]:  # noqa: N803
        assert DocumentName == f"nod-{STAGE}-probe-monitor"
        if self.offline & set(InstanceIds):
            raise self.exceptions.InvalidInstanceId
        self._world.commands.append(InstanceIds)
        return {}


@contextmanager
def world() -> Iterator[World]:
    from tests.unit.stage import user  # noqa: PLC0415

    with stage() as deployed:
        user(deployed, "ada", email="ada@example.com", quota=50)
        yield World(deployed)
