"""Answers that are lost after AWS took the call: what comes of each request, event, task and sweep is what comes of it
when every answer arrives, whichever of its calls the SDK has to repeat."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import pytest
from botocore.exceptions import EndpointConnectionError

from admin.slack import add_channel
from admin.users import add_user, change_user, new_token, remove_user
from chalicelib import idleness
from chalicelib.aws.items import from_item
from chalicelib.aws.notebooks import NotebooksTable
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
            kept = [{k: v for k, v in row.items() if k not in OTHER_EACH_TIME} for row in plain]
            # Ids of users are random, and a scan goes by them.
            tables[name] = sorted(kept, key=lambda row: str(row.get("name"))) if name == "USERS" else kept
        started = {machine: [e["name"] for e in self.deployed.executions(machine)] for machine in MACHINES}
        text = json.dumps(
            [self.answers, tables, started, [kind for _, _, kind in self.world.published]],
            default=lambda value: sorted(value) if isinstance(value, set) else str(value),
            sort_keys=True,
        )
        text = text.replace(self.notebook, "ID") if self.notebook else text
        # A line of the ledger has digits of its text in its key, and its text the user's id.
        text = re.sub(r"(?<=Z)#[0-9a-f]{4}", "", text)
        return json.loads(
            re.sub(r"us-[0-9a-f]{20}|i-[0-9a-f]{17}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "ANY", text)
        )


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


def link(case: Case) -> None:
    case.post("link")


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
    notebook = case.world.notebook(instance=False, instance_id=INSTANCE)
    case.deployed.change(notebook.id, missing_at="2026-11-20T00:00:00.000Z")
    counts, parts = case.world.reconcile()
    case.answers.append(counts)
    assert not parts.trouble


def add(case: Case) -> None:
    token = add_user(case.deployed.admin, "grace", email="grace@example.com")
    key = {"id": {"S": token.split(".")[1]}}
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
    "password again": Deed(password, "ready", {"passwords": 2}),
    "link": Deed(link),
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


READS = ("Get", "Describe", "Query", "Scan", "List", "BatchGet")


def is_number(number: int, index: int, _operation: str) -> bool:
    return index == number


def is_read(operation: str) -> bool:
    return operation.partition(":")[2].startswith(READS)


def same_whichever_is_lost(name: str, reads: bool) -> None:
    deed = DEEDS[name]
    wanted, whole = run(deed, lambda index, operation: False)
    for number, operation in enumerate(whole.calls):
        if is_read(operation) is not reads:
            continue
        found, cuts = run(deed, functools.partial(is_number, number))
        assert cuts.lost == [operation]
        assert found == wanted, f"the answer to call {number}, {operation}, was lost"


@pytest.mark.parametrize(
    "name",
    # Each of these sweeps takes seconds, and cuts the same writes as those that stop.
    [pytest.param(name, marks=pytest.mark.long) if name.startswith("sweep mends") else name for name in DEEDS],
)
def test_end_is_the_same_whichever_answer_to_a_write_is_lost(name: str) -> None:
    same_whichever_is_lost(name, reads=False)


@pytest.mark.long
@pytest.mark.parametrize("name", DEEDS)
def test_end_is_the_same_whichever_answer_to_a_read_is_lost(name: str) -> None:
    same_whichever_is_lost(name, reads=True)


def started(deployed: Stage, machine: str) -> list[str]:
    return [execution["name"] for execution in deployed.executions(machine)]


class TestPasswordWhoseStartGetsNoAnswer:
    """However often the SDK asks."""

    def test_it_is_shown_when_its_workflow_began(self) -> None:
        with a_case() as case, cutting(lambda _, operation: operation == "states:StartExecution"):
            found = case.post("password", {})
            assert (found.status_code, len(found.json_body["password"])) == (202, 34)
            assert started(case.deployed, "password") == [f"{case.notebook}-password-1"]

    def test_it_failed_for_sure_when_nothing_began(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with a_case() as case:
            monkeypatch.setattr(case.deployed.app.clients.get("stepfunctions"), "start_execution", no_connection)
            with cutting():
                found = case.post("password", {})
            assert (found.status_code, found.json_body["code"]) == (503, "unavailable")
            assert "the old one stays" in found.json_body["detail"]
            # By this the workflow knows, should it begin after all (password.asl.yaml).
            assert case.deployed.record(case.notebook)["hash_change_1"] == {"S": "withdrawn"}

    def test_it_is_shown_when_its_workflow_began_and_step_functions_does_not_show_it(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with a_case() as case:
            case.deployed.change(case.notebook, hash_change_1="begun")
            monkeypatch.setattr(case.deployed.app.clients.get("stepfunctions"), "start_execution", no_connection)
            with cutting():
                found = case.post("password", {})
            assert (found.status_code, len(found.json_body["password"])) == (202, 34)

    def test_it_is_shown_with_a_word_of_doubt_when_nobody_can_tell(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with a_case() as case:
            monkeypatch.setattr(case.deployed.app.clients.get("stepfunctions"), "start_execution", no_connection)

            def loses(index: int, operation: str) -> bool:
                # All after the count: the withdrawal and what shows executions.
                return index > 2 and operation in ("dynamodb:UpdateItem", "states:DescribeExecution")

            with cutting(loses):
                found = case.post("password", {})
            assert (found.status_code, len(found.json_body["password"])) == (202, 34)
            assert "not known" in found.json_body["message"]


def no_connection(*_: object, **__: object) -> None:
    raise EndpointConnectionError(endpoint_url="https://states.example")


def test_launch_that_ended_before_its_answer_came_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its start is repeated by the SDK, and Step Functions refuses the name of what is over."""
    with a_case(None) as case:
        states = case.deployed.app.clients.get("stepfunctions")
        start = states.start_execution

        def taken(**arguments: Any) -> None:
            start(**arguments)
            raise states.exceptions.ExecutionAlreadyExists(
                {"Error": {"Code": "ExecutionAlreadyExists"}}, "StartExecution"
            )

        monkeypatch.setattr(states, "start_execution", taken)
        found = case.http("POST", "/notebooks", {"name": "thesis"}, Idempotency_Key="k1")
        assert (found.status_code, len(found.json_body["password"])) == (202, 34)
        assert case.deployed.count() == 1


def test_workflow_that_asks_again_publishes_nothing_a_second_time() -> None:
    with a_case("stopped") as case:
        event = {"id": case.notebook, "kind": "stopped", "run": f"{case.notebook}-stop-1"}
        for _ in range(2):
            assert case.deployed.app.tell_owner(event, None) == {"published": True}
        assert len(case.world.published) == 1
        case.deployed.app.tell_owner({**event, "run": f"{case.notebook}-stop-2"}, None)
        assert len(case.world.published) == 2


def test_workflow_that_asks_again_notes_that_the_mail_went_out(monkeypatch: pytest.MonkeyPatch) -> None:
    with a_case(None) as case:
        token = user(case.deployed, "bob", email="bob@example.com")
        case.deployed.app.check_confirmations(SCHEDULED, None)
        made = case.deployed.http("POST", "/notebooks", token, {"name": "thesis"}).json_body["id"]
        case.deployed.change(made, state="stopped")
        event = {"id": made, "kind": "stopped", "run": f"{made}-stop-1"}
        note = NotebooksTable.set_notification
        monkeypatch.setattr(NotebooksTable, "set_notification", no_connection)
        with pytest.raises(EndpointConnectionError):
            case.deployed.app.tell_owner(event, None)
        monkeypatch.setattr(NotebooksTable, "set_notification", note)
        case.deployed.app.tell_owner(event, None)
        assert len(case.world.published) == 1
        assert case.deployed.record(made)["notifications"]["M"]["email"] == {"S": "sent"}


def test_start_that_is_written_begins_whatever_becomes_of_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    with a_case("stopped") as case:
        move = NotebooksTable.move

        def written(*arguments: Any) -> Any:
            found = move(*arguments)
            monkeypatch.setattr(NotebooksTable, "get", no_connection)
            return found

        monkeypatch.setattr(NotebooksTable, "move", written)
        assert case.http("POST", f"/notebooks/{case.notebook}/start").status_code == 503
        assert [one["name"] for one in case.deployed.executions("start")] == [f"{case.notebook}-start-1"]


def test_delete_whose_workflow_gets_no_answer_is_begun_and_due() -> None:
    with a_case() as case, cutting(lambda _, operation: operation == "states:StartExecution"):
        found = case.http("DELETE", f"/notebooks/{case.notebook}?confirm=thesis")
        assert (found.status_code, found.json_body["state"]) == (202, "terminating")
        assert case.deployed.record(case.notebook)["due_at"]["S"].startswith("2026-11-22T14:05")


def test_record_that_is_gone_is_taken_back_already() -> None:
    with a_case() as case:
        table = case.deployed.app.notebooks()
        notebook = table.get(case.notebook)
        assert not table.take_back(notebook)
        case.deployed.change(case.notebook, state="requested")
        with cutting(lambda index, _: index == 0):
            assert table.take_back(notebook)
        assert case.deployed.count() == 0
