"""Answers that are lost after AWS took the call: what comes of each request, event, task and sweep is what comes of it
when every answer arrives, whichever of its calls the SDK has to repeat."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest import mock

import pytest

from admin.slack import add_channel
from admin.users import add_user, change_user, new_token, remove_user
from chalicelib import idleness
from chalicelib.aws.items import from_item
from chalicelib.aws.topic import Topic
from chalicelib.tokens import fingerprint
from tests.unit.cuts import Cuts, cutting
from tests.unit.stage import ENV, MACHINES, Stage, stage, user
from tests.unit.sweep_world import World
from tests.unit.test_functions import SCHEDULED, instance_event
from tests.unit.test_life import INSTANCE, T0, a_notebook

# Made anew in each run, or what a write knows itself by.
OTHER_EACH_TIME = {
    "id",
    "body_hmac",
    "password_hash",
    "moved_by",
    "decided_by",
    "told",
    "due",
    "secret",
    "token_sha256",
}


@dataclass
class Case:
    """One run of something: what it was prepared with, and what it answered."""

    deployed: Stage
    token: str
    world: World
    notebook: str = ""
    answers: list[object] = field(default_factory=list)

    def http(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        found = self.deployed.http(method, path, self.token, body, **headers)
        document = found.json_body
        shown = {name: document.get(name) for name in ("state", "code", "stop", "hold_until", "message", "detail")}
        self.answers.append((found.status_code, shown, bool(document.get("password"))))
        return found

    def post(self, verb: str, body: Any = None) -> Any:
        return self.http("POST", f"/notebooks/{self.notebook}/{verb}", body)

    def end(self) -> object:
        """Everything that anybody can see of it."""
        tables = {}
        for name in ("NOTEBOOKS", "USERS", "EVENTS", "SWEEPS"):
            rows = self.deployed.dynamodb.scan(TableName=ENV[f"NOD_{name}_TABLE"])["Items"]
            plain = [from_item(row) for row in rows]
            tables[name] = [{k: v for k, v in row.items() if k not in OTHER_EACH_TIME} for row in plain]
        started = {machine: [e["name"] for e in self.deployed.executions(machine)] for machine in MACHINES}
        text = json.dumps(
            [self.answers, tables, started, [kind for _, _, kind in self.world.published]],
            default=lambda value: sorted(value) if isinstance(value, set) else str(value),
            sort_keys=True,
        )
        text = text.replace(self.notebook, "ID") if self.notebook else text
        return json.loads(re.sub(r"i-[0-9a-f]{17}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "ANY", text))


@contextmanager
def a_case(state: str | None = "ready", **values: Any) -> Iterator[Case]:
    with stage() as deployed:
        token = user(deployed, email="ada@example.com")
        world = World(deployed)
        world.now = T0
        case = Case(deployed, token, world)
        with mock.patch.object(deployed.app, "now", lambda: world.now), published(world):
            if state is not None:
                case.notebook = a_notebook(deployed, token, state, **values)
            yield case


@contextmanager
def published(world: World) -> Iterator[None]:
    publish = Topic.publish

    def noted(topic: Topic, message: Any) -> None:
        publish(topic, message)
        world.published.append((world.now, message.id if hasattr(message, "id") else "", message.kind))

    with mock.patch.object(Topic, "publish", noted):
        yield


def launch(case: Case) -> None:
    found = case.http("POST", "/notebooks", {"name": "thesis", "notify": ["email"]}, Idempotency_Key="k1")
    case.notebook = found.json_body.get("id", "")


def stop(case: Case) -> None:
    case.post("stop")


def start(case: Case) -> None:
    case.post("start")


def extend(case: Case) -> None:
    case.post("extend", {"hours": 2})


def password(case: Case) -> None:
    case.post("password", {})


def delete(case: Case) -> None:
    case.http("DELETE", f"/notebooks/{case.notebook}?confirm=thesis")


def instance_stopped(case: Case) -> None:
    """The machine switched itself off."""
    instance = case.world.instance(case.notebook)
    case.deployed.change(case.notebook, instance_id=instance)
    case.world.ec2.stop_instances(InstanceIds=[instance])
    case.deployed.app.on_instance_event(instance_event("stopped", instance), None)


def tell(kind: str) -> Callable[[Case], None]:
    def told(case: Case) -> None:
        event = {"id": case.notebook, "kind": kind, "run": f"{case.notebook}-stop-1"}
        case.answers.append(case.deployed.app.tell_owner(event, None))

    return told


def confirm(case: Case) -> None:
    case.deployed.app.check_confirmations(SCHEDULED, None)


def sweep(**notebook: Any) -> Callable[[Case], None]:
    def swept(case: Case) -> None:
        case.world.tell_for_real()
        case.world.notebook(**notebook)
        found = case.world.sweep()
        case.answers.append(dict(found.counts))
        assert not found.trouble

    return swept


def reconcile(case: Case) -> None:
    case.world.tell_for_real()
    case.world.notebook(instance=False, instance_id=INSTANCE, missing_at="2026-11-20T00:00:00.000Z")
    counts, parts = case.world.reconcile()
    case.answers.append(counts)
    assert not parts.trouble


def add(case: Case) -> None:
    token = add_user(case.deployed.admin, "grace", email="grace@example.com")
    key = {"name": {"S": "grace"}}
    row = case.deployed.dynamodb.get_item(TableName=ENV["NOD_USERS_TABLE"], Key=key)["Item"]
    assert row["token_sha256"]["S"] == fingerprint(token.rpartition(".")[2])


def change(case: Case) -> None:
    change_user(case.deployed.admin, "ada", quota=7, email="other@example.com")


def renew(case: Case) -> None:
    new_token(case.deployed.admin, "ada")


def remove(case: Case) -> None:
    remove_user(case.deployed.admin, "ada")


def channel(case: Case) -> None:
    add_channel(case.deployed.admin, "team", "https://hooks.slack.com/services/x")


@dataclass(frozen=True)
class Deed:
    """Something that calls AWS, and what it begins from."""

    act: Callable[[Case], None]
    state: str | None = "ready"
    values: dict[str, Any] = field(default_factory=dict)


DEEDS = {
    "launch": Deed(launch, None),
    "stop": Deed(stop),
    "start": Deed(start, "stopped"),
    "start again": Deed(start, "stopped", {"starts": 3}),
    "extend": Deed(extend),
    "password": Deed(password),
    "delete": Deed(delete),
    "delete of a failed one": Deed(delete, "failed", {"deletes": 1}),
    "instance stopped": Deed(instance_stopped),
    "tell stopped": Deed(tell("stopped"), "stopped"),
    "tell ready": Deed(tell("ready")),
    "confirmations": Deed(confirm),
    "sweep keeps": Deed(sweep(idle=1), None),
    "sweep warns": Deed(sweep(idle=55), None),
    "sweep stops": Deed(
        sweep(
            idle=70,
            warned={
                "at": "2026-11-22T13:40:00.000Z",
                "stops_at": "2026-11-22T14:00:00.000Z",
                "code": idleness.IDLE,
                "boot_id": "boot-1",
                "reason": "idle",
                "told": True,
            },
        ),
        None,
    ),
    "sweep mends a stop": Deed(sweep(state="stopping", stops=1), None),
    "sweep mends a start": Deed(sweep(state="starting", starts=1), None),
    "sweep mends a launch": Deed(sweep(state="launching"), None),
    "sweep mends a delete": Deed(sweep(state="terminating", deletes=1), None),
    "reconcile": Deed(reconcile, None),
    "add a user": Deed(add, None),
    "change a user": Deed(change, None),
    "new token": Deed(renew, None),
    "remove a user": Deed(remove, None),
    "Slack channel": Deed(channel, None),
}


def run(deed: Deed, loses: Callable[[int, str], bool]) -> tuple[object, Cuts]:
    with a_case(deed.state, **deed.values) as case:
        with cutting(loses) as cuts:
            deed.act(case)
        return case.end(), cuts


@pytest.mark.parametrize("name", DEEDS)
def test_end_is_the_same_whichever_answer_is_lost(name: str) -> None:
    deed = DEEDS[name]
    wanted, whole = run(deed, lambda index, operation: False)
    for number, operation in enumerate(whole.calls):
        found, cuts = run(deed, lambda index, _, number=number: index == number)
        assert cuts.lost == [operation]
        assert found == wanted, f"the answer to call {number}, {operation}, was lost"
