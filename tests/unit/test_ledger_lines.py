"""The ledger has a line for every change of a notebook, once: the rule over all writes, and the ways that lines go."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from chalicelib import times
from chalicelib.actions.settling import settle
from chalicelib.aws.due import DueNotebooks
from chalicelib.aws.instances import Instance, Instances
from chalicelib.aws.items import to_item
from chalicelib.aws.ledger import Ledger, event, waiting
from chalicelib.aws.notebooks import NotebooksTable
from chalicelib.model import Notebook
from tests.aws import workflows
from tests.unit.stage import ENV, Stage, stage, user
from tests.unit.sweep_world import NOON

ROOT = Path(__file__).resolve().parents[2]
INSTANCE = "i-0123456789abcdef0"


@pytest.fixture
def deployed() -> Iterator[Stage]:
    with stage() as found:
        yield found


@pytest.fixture
def token(deployed: Stage) -> str:
    return user(deployed, quota=9)


def lines(deployed: Stage, token: str, notebook_id: str) -> list[dict[str, Any]]:
    """As the owner sees them, oldest first."""
    found = deployed.http("GET", f"/notebooks/{notebook_id}/events", token).json_body["events"]
    return [{name: line[name] for name in ("action", "code", "by")} for line in reversed(found)]


def a_notebook(deployed: Stage, token: str, **changes: Any) -> str:
    made = deployed.http("POST", "/notebooks", token, {"name": "thesis"}).json_body
    deployed.change(made["id"], **{"state": "ready", "instance_id": INSTANCE, **changes})
    return str(made["id"])


# The rule


def tasks(states: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, state in states.items():
        yield name, state
        for branch in state.get("Branches", []):
            yield from tasks(branch["States"])


def updates(value: object) -> Iterator[dict[str, Any]]:
    """Every update within a state's parameters, of a transaction too."""
    if isinstance(value, dict):
        if "UpdateExpression" in value:
            yield value
        for part in value.values():
            yield from updates(part)
    if isinstance(value, list):
        for part in value:
            yield from updates(part)


def changes_the_notebook(update: dict[str, Any]) -> bool:
    """Whether it writes what the owner is told of: the state, why something failed, the password."""
    sets = update["UpdateExpression"].partition("REMOVE")[0]
    return re.search(r"(#state|#error|password_hash) = ", sets) is not None


def every_update() -> list[Any]:
    found = []
    for workflow in workflows.NAMES:
        for name, state in tasks(workflows.definition(workflow)["States"]):
            found += [
                pytest.param(update, id=f"{workflow}: {name}")
                for update in updates(state.get("Parameters", {}))
                if changes_the_notebook(update)
            ]
    return found


@pytest.mark.parametrize("update", every_update())
def test_each_change_by_a_workflow_leaves_its_line_in_the_same_write(update: dict[str, Any]) -> None:
    assert "ledger_lines = list_append(if_not_exists(ledger_lines, :no_lines), :lines)" in update["UpdateExpression"]
    values = update["ExpressionAttributeValues"]
    assert values[":no_lines"] == {"L": []}
    (line,) = values[":lines"]["L"]
    said = line["M"]
    # The time of the state, which stays the same however often it is tried: the same line is one row.
    assert said["at"] == {"S.$": "$$.State.EnteredTime"}
    assert set(said) == {"at", "action", "code", "by", "reason"}
    assert all(said[name] for name in said)


def test_the_rule_sees_the_changes_of_every_workflow() -> None:
    seen = {str(param.id).partition(":")[0] for param in every_update()}
    assert seen == set(workflows.NAMES)
    assert len(every_update()) >= 16


def test_the_rule_can_fail() -> None:
    assert changes_the_notebook({"UpdateExpression": "SET #state = :ready REMOVE #error"})
    assert not changes_the_notebook({"UpdateExpression": "SET updated_at = :now REMOVE #error"})


def sets_the_state(function: ast.FunctionDef) -> bool:
    """By an expression for DynamoDB, or by a map of attributes."""
    for node in ast.walk(function):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and re.search(r"SET .*#state = ", node.value):
            return True
        keys = node.keys if isinstance(node, ast.Dict) else []
        if any(isinstance(key, ast.Constant) and key.value == "state" for key in keys):
            return True
    return False


def test_one_writer_changes_the_state_and_it_writes_a_line_with_it() -> None:
    found: dict[str, set[str]] = {}
    for path in [ROOT / "app.py", *sorted((ROOT / "chalicelib").rglob("*.py"))]:
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, ast.FunctionDef) and sets_the_state(function):
                found.setdefault(path.name, set()).add(function.name)
    # EC2's states, in a filter of events and in an answer to a workflow.
    others = {"app.py": {"on_instance_event"}, "answering.py": {"answer"}}
    assert found == {"moves.py": {"changes"}} | others


def test_the_sweeps_gateway_changes_no_state_beside_the_writer(deployed: Stage) -> None:
    due = DueNotebooks(
        deployed.dynamodb, *(ENV[f"NOD_{name}_TABLE"] for name in ("NOTEBOOKS", "USERS", "EVENTS")), lambda _: None
    )
    known = Notebook.from_record(
        {
            "id": "nb-0", "owner": "ada", "name": "thesis", "state": "ready", "created_at": times.to_text(NOON),
            "instance_type": "t3.medium", "volume_gib": 30, "idle_minutes": 60, "environment": "anaconda",
        }
    )  # fmt: skip
    with pytest.raises(TypeError, match="no transition"):
        due.write(known, {"state": "stopped"})


# What people do


def test_each_thing_that_a_person_does_has_one_line(deployed: Stage, token: str) -> None:
    notebook = a_notebook(deployed, token)
    assert lines(deployed, token, notebook) == [{"action": "launch", "code": "requested", "by": "ada"}]
    assert lines(deployed, token, notebook) == [{"action": "launch", "code": "requested", "by": "ada"}], "once"
    assert "ledger_lines" not in deployed.record(notebook)
    done = [
        ("extend", {"hours": 1}),
        ("password", {}),
        ("link", {}),
        ("stop", None),
    ]
    for action, body in done:
        assert deployed.http("POST", f"/notebooks/{notebook}/{action}", token, body).status_code == 202
        assert lines(deployed, token, notebook)[-1] == {"action": action, "code": "asked", "by": "ada"}
    deployed.change(notebook, state="stopped")
    assert deployed.http("POST", f"/notebooks/{notebook}/start", token).status_code == 202
    assert deployed.http("DELETE", f"/notebooks/{notebook}?confirm=thesis", token).status_code == 202
    said = [line["action"] for line in lines(deployed, token, notebook)]
    assert said == ["launch", "extend", "password", "link", "stop", "start", "delete"]


def test_a_replay_of_a_request_adds_no_line(deployed: Stage, token: str) -> None:
    made = [
        deployed.http("POST", "/notebooks", token, {"name": "thesis"}, Idempotency_Key="k").json_body for _ in range(2)
    ]
    assert made[0]["id"] == made[1]["id"]
    assert len(lines(deployed, token, made[0]["id"])) == 1


# What EC2 says


@pytest.mark.parametrize(
    ("said", "by"), [("Client.InstanceInitiatedShutdown", "monitor"), ("Client.UserInitiatedShutdown", "outside")]
)
def test_a_stop_that_ec2_told_of_has_one_line_however_often_it_told_it(
    deployed: Stage, token: str, monkeypatch: pytest.MonkeyPatch, said: str, by: str
) -> None:
    notebook = a_notebook(deployed, token)
    instance = Instance(INSTANCE, "stopped", said, None, "test")
    monkeypatch.setattr(Instances, "describe", lambda _, ids: dict.fromkeys(ids, instance))
    told = {
        "version": "0",
        "account": "1",
        "region": "r",
        "detail": {"instance-id": INSTANCE, "state": "stopped"},
        "detail-type": "EC2 Instance State-change Notification",
        "source": "aws.ec2",
        "time": "2026-11-22T14:05:00Z",
        "id": "1",
        "resources": [],
    }
    for _ in range(3):
        deployed._client.lambda_.invoke("on_instance_event", told)
    found = lines(deployed, token, notebook)
    assert [line["action"] for line in found] == ["launch", "stop"]
    assert found[-1]["by"] == by
    record = deployed.record(notebook)
    assert record["state"] == {"S": "stopping"}
    (line,) = deployed.http("GET", f"/notebooks/{notebook}/events?limit=1", token).json_body["events"]
    assert line["reason"] == record["stop"]["M"]["reason"]["S"]


# What waits in the record


def waits(deployed: Stage, notebook: str, *said: tuple[str, str]) -> None:
    """As workflows write it, the last one twice."""
    rows = [event(notebook, NOON, action, code, "why", by="start").to_record() for action, code in said]
    deployed.change(notebook, ledger_lines=[*rows, rows[-1]])


def test_the_function_that_tells_writes_what_waits_and_a_second_time_nothing(deployed: Stage, token: str) -> None:
    notebook = a_notebook(deployed, token, state="stopped")
    lines(deployed, token, notebook)
    waits(deployed, notebook, ("start", "start_failed"))
    for _ in range(2):
        deployed._client.lambda_.invoke("tell_owner", {"id": notebook, "kind": "start_failed", "run": "x"})
        assert "ledger_lines" not in deployed.record(notebook)
    page, _ = Ledger(deployed.dynamodb, ENV["NOD_EVENTS_TABLE"], lambda _: None).page(notebook, 50, None)
    assert [(line.action, line.code, line.by) for line in page if line.action == "start"] == [
        ("start", "start_failed", "start")
    ]


def test_a_start_that_comes_up_in_safe_mode_has_its_line_once(deployed: Stage) -> None:
    token = user(deployed, "bob", email="bob@example.com")
    notebook = a_notebook(deployed, token)
    now = datetime.now(UTC)
    deployed.change(notebook, run_started_at=times.to_text(now - timedelta(minutes=1)))
    record = {
        "id": deployed.app.settings().instance_arn(INSTANCE),
        "at": times.to_text(now),
        "boot_id": "boot-1",
        "beat": 1,
        "uptime": 60,
        "answers": True,
        "server": {"mode": "safe", "code": "configuration"},
        "ages": {},
    }
    deployed.dynamodb.put_item(TableName=ENV["NOD_HEARTBEATS_TABLE"], Item=to_item(record))
    for run in ("first", "second"):
        deployed._client.lambda_.invoke("tell_owner", {"id": notebook, "kind": "started", "run": run})
    assert deployed.record(notebook)["safe_mode"]["M"]["code"] == {"S": "configuration"}
    assert [line["code"] for line in lines(deployed, token, notebook) if line["action"] == "note"] == ["safe_mode"]


def test_the_owner_sees_what_waits_and_was_told_by_nobody(deployed: Stage, token: str) -> None:
    notebook = a_notebook(deployed, token)
    waits(deployed, notebook, ("launch", "launching"), ("launch", "ready"))
    assert {(line["action"], line["code"]) for line in lines(deployed, token, notebook)} == {
        ("launch", "launching"),
        ("launch", "ready"),
    }


def test_a_line_that_comes_while_others_are_written_waits_on(deployed: Stage, token: str) -> None:
    notebook = a_notebook(deployed, token)
    waits(deployed, notebook, ("launch", "ready"))
    dynamodb = deployed.dynamodb
    notebooks = NotebooksTable(dynamodb, ENV["NOD_NOTEBOOKS_TABLE"], ENV["NOD_USERS_TABLE"])
    known = notebooks.get(notebook)
    assert known is not None
    assert len(waiting(known)) == 1
    waits(deployed, notebook, ("launch", "ready"), ("stop", "stopped"))
    assert settle(known, notebooks, Ledger(dynamodb, ENV["NOD_EVENTS_TABLE"], lambda _: None)) == 1
    assert "ledger_lines" in deployed.record(notebook)
    assert [line["action"] for line in lines(deployed, token, notebook)] in (["launch", "stop"], ["stop", "launch"])


def test_what_tells_of_a_line_is_the_plain_line() -> None:
    line = event("nb-0", NOON, "stop", "stopped", "Its machine is off.", by="stop")
    assert json.loads(json.dumps(line.to_record())) == {
        "at": times.to_text(NOON), "action": "stop", "code": "stopped", "by": "stop", "reason": "Its machine is off.",
    }  # fmt: skip
