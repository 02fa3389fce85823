"""What the tests of the workflows share: their town, a notebook in it that is ready or stopped, and what they ask."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.local.person import wait_until
from tests.local.town import Town, told

HASH = "argon2:$argon2id$v=19$m=19456,t=2,p=1$" + "A" * 22 + "$" + "B" * 42 + "A"


OTHER = ":".join(["CD"] * 32)


def post(town: Town, notebook: str, what: str, **body: Any) -> int:
    answer = town.person.http.post(f"/notebooks/{notebook}/{what}", json=body or None)
    return int(answer.status_code)


def wait(town: Town, notebook: str, state: str, seconds: float = 120) -> dict[str, Any]:
    """Until it is so, and no workflow runs any more."""
    town.person.wait(notebook, state, seconds=seconds)
    town.settle()
    return dict(town.person.show(notebook))


LAUNCHED = [("launch", "requested"), ("launch", "launching"), ("launch", "ready")]


def ledger(town: Town, notebook: str) -> list[tuple[str, str]]:
    """Every change in the ledger, oldest first; not what the sweep decided without changing anything."""
    found = town.person.http.get(f"/notebooks/{notebook}/events?limit=100").json()["events"]
    return [(line["action"], line["code"]) for line in reversed(found) if line["action"] != "keep"]


def kinds(town: Town, notebook: str) -> list[str]:
    return [m["kind"] for m in told(town.cloud) if m["id"] == notebook]


def untold(town: Town, notebook: str) -> bool:
    return notebook in town.user().get("untold", {}).get("SS", [])


def active(town: Town) -> list[str]:
    return list(town.user().get("active", {}).get("SS", []))


def given(town: Town, notebook: str, **more: Any) -> dict[str, Any]:
    """The input of a workflow that is started by hand."""
    instance = town.record(notebook)["instance_id"]["S"]
    arn = f"arn:aws:ec2:us-east-1:123456789012:instance/{instance}"
    return {
        "id": notebook,
        "owner": town.cloud.user_id,
        "name": "mine",
        "instance_id": instance,
        "number": "1",
        "instance_arn": arn,
        **more,
    }


def put(town: Town, notebook: str, state: str, remove: str = "") -> None:
    """Writes a state, as whoever begins a workflow does."""
    town.tables.update_item(
        TableName="nod-local-notebooks",
        Key={"id": {"S": notebook}},
        UpdateExpression="SET #state = :state" + (f" REMOVE {remove}" if remove else ""),
        ExpressionAttributeNames={"#state": "state"},
        ExpressionAttributeValues={":state": {"S": state}},
    )


def ran_days_ago(town: Town, notebook: str) -> None:
    """Has its one run so far be long ago."""
    ready, off = ((datetime.now(UTC) - timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%S.000Z") for days in (20, 19))
    town.tables.update_item(
        TableName="nod-local-notebooks",
        Key={"id": {"S": notebook}},
        UpdateExpression="SET ready_at = :ready, runs[0].started_at = :ready, "
        "runs[0].stopped_at = :off, stopped_at = :off",
        ExpressionAttributeValues={":ready": {"S": ready}, ":off": {"S": off}},
    )


def assert_ran_since(town: Town, notebook: str, began: datetime, cost_before: float) -> None:
    """Its second run is of now, and costs no more than that."""
    _, run = town.record(notebook)["runs"]["L"]
    started, ended = (datetime.fromisoformat(run["M"][key]["S"]) for key in ("started_at", "stopped_at"))
    assert began - timedelta(seconds=1) <= started <= ended
    assert town.person.show(notebook)["cost"]["so_far"] == pytest.approx(cost_before, abs=0.01)


def state_of(town: Town, notebook: str) -> str:
    instance = town.record(notebook)["instance_id"]["S"]
    (found,) = town.ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"]
    return str(found["State"]["Name"])


def off(town: Town, notebook: str) -> None:
    wait_until(lambda: state_of(town, notebook) == "stopped", 60, "it is never off")


def of_state(seen: dict[str, Any], state: str) -> list[str]:
    return [step["name"] for step in seen["steps"] if step["state"] == state]
