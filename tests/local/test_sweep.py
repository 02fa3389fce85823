"""The sweep on the local cloud: its own Lambda, the workflows it starts, the messages that arrive. Minutes last a fifth
of a second, machines say what they are told to, and no schedule runs but by hand."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import boto3
import pytest

from chalicelib import times
from local.cloud import Cloud
from tests.local.person import wait_until
from tests.local.scripted import ScriptedMachines
from tests.local.town import DELAYS, QUICK, Town, as_before, told

MINUTE = 0.2
SIGNALS = ("input", "kernel", "terminal", "cpu", "disk", "network", "gpu")


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    machines = ScriptedMachines()
    with Cloud(
        state=tmp_path_factory.mktemp("cloud"),
        api_port=0,
        aws_port=0,
        delays=DELAYS,
        machines=machines,
        substitutions=QUICK,
        schedules=False,
        minute_seconds=MINUTE,
    ) as cloud:
        yield Town(cloud, machines)


@pytest.fixture(autouse=True)
def clean(town: Town) -> Iterator[None]:
    yield
    as_before(town)


@pytest.fixture
def notebook(town: Town) -> str:
    """Ready, with the shortest limit: five minutes, which are a second here."""
    made = town.launch(name="thesis", idle_minutes=5)
    town.person.wait(made, "ready", seconds=180)
    return made


def run(town: Town, function: str = "sweep") -> str | None:
    """One invocation, as the schedule makes it. The function's error."""
    event = {
        "source": "aws.events",
        "detail-type": "Scheduled Event",
        "detail": {},
        "resources": [],
        "time": "",
        "id": "",
    }
    return town.cloud.lambdas.invoke(
        f"nod-local-{function}", {**event, "version": "0", "account": "", "region": ""}
    ).error


def beat(town: Town, notebook: str, number: int, idle: float) -> None:
    """What the monitor says; nobody has used anything for `idle` seconds."""
    town.beat(
        town.machine(notebook),
        boot_id={"S": "boot-1"},
        beat={"N": str(number)},
        uptime={"N": "86400"},
        ages={"M": {name: {"N": str(idle)} for name in SIGNALS}},
        unknown={"L": []},
    )


def sweep_until(town: Town, notebook: str, condition: Callable[[], Any], idle: float, seconds: float = 120) -> None:
    """Heartbeats and sweeps, one after the other."""
    end, number = time.monotonic() + seconds, int(time.time() * 1000)
    while not condition():
        assert time.monotonic() < end, town.record(notebook)
        number += 1
        if town.record(notebook)["state"]["S"] == "ready":
            beat(town, notebook, number, idle)
        run(town)
        time.sleep(0.1)


def state(town: Town, notebook: str) -> str:
    return str(town.record(notebook)["state"]["S"])


def kinds(town: Town, notebook: str) -> list[str]:
    return [message["kind"] for message in told(town.cloud) if message["id"] == notebook]


def events(town: Town, notebook: str) -> list[dict[str, Any]]:
    """The ledger over HTTP, oldest first."""
    answer = town.person.http.get(f"/notebooks/{notebook}/events", params={"limit": 100})
    assert answer.status_code == 200, answer.text
    return list(reversed(answer.json()["events"]))


def decisions(town: Town, notebook: str) -> list[dict[str, Any]]:
    """The lines of the ledger that are the sweep's own, oldest first."""
    return [line for line in events(town, notebook) if line["by"] == "sweep"]


def test_what_is_idle_is_warned_stopped_told_and_its_disk_stays(town: Town, notebook: str) -> None:
    sweep_until(town, notebook, lambda: state(town, notebook) == "stopped", idle=600)
    wait_until(lambda: kinds(town, notebook)[-2:] == ["warned", "stopped"], 60, "not told")
    (instance,) = town.instances(notebook)
    assert instance["State"]["Name"] == "stopped"
    acted = [line for line in decisions(town, notebook) if line["action"] in ("warn", "stop")]
    *warned, stopped = acted
    assert stopped["action"] == "stop"
    assert {line["action"] for line in warned} == {"warn"}
    assert stopped["reason"].startswith("idle since")
    assert stopped["signals"]["ages"]["kernel"] == 600
    assert warned[-1]["stops_at"] <= stopped["at"]
    ended = events(town, notebook)[-1]
    assert (ended["action"], ended["code"], ended["by"]) == ("stop", "stopped", "stop")
    assert notebook not in town.user().get("active", {}).get("SS", [])


def test_what_is_used_is_kept_and_its_monitor_confirmed(town: Town, notebook: str) -> None:
    sweep_until(town, notebook, lambda: len(decisions(town, notebook)) >= 3, idle=0)
    assert state(town, notebook) == "ready"
    assert {line["code"] for line in decisions(town, notebook)} <= {"active", "grace", "recently_active"}
    arn = f"arn:aws:ec2:us-east-1:123456789012:instance/{town.machine(notebook).instance_id}"
    row = town.tables.get_item(TableName="nod-local-heartbeats", Key={"id": {"S": arn}})["Item"]
    assert row["limit_seconds"] == {"N": "1"}
    assert "confirmed" in row


def test_four_sweeps_at_once_warn_once_and_stop_once(town: Town, notebook: str) -> None:
    number = int(time.time() * 1000)
    end = time.monotonic() + 120
    with ThreadPoolExecutor(4) as threads:
        while state(town, notebook) == "ready":
            assert time.monotonic() < end
            number += 1
            beat(town, notebook, number, 600)
            list(threads.map(lambda _: run(town), range(4)))
    town.person.wait(notebook, "stopped", seconds=180)
    town.settle()
    warned = [datetime.fromisoformat(line["at"]) for line in events(town, notebook) if line["action"] == "warn"]
    assert kinds(town, notebook).count("warned") == len(warned) > 0
    # What is not yet known as sent after a minute is sent again, and a minute is short here.
    assert all(later - earlier >= timedelta(seconds=MINUTE) for earlier, later in pairwise(warned))
    assert kinds(town, notebook).count("stopped") == 1
    assert [line["action"] for line in decisions(town, notebook)].count("stop") == 1
    assert [line["code"] for line in events(town, notebook)].count("stopped") == 1
    assert len([arn for arn in town.executions("stop") if f":{notebook}-stop-" in arn]) == 1


@pytest.mark.parametrize("table", ["nod-local-notebooks", "nod-local-heartbeats"])
def test_while_a_table_is_unavailable_nothing_stops(town: Town, notebook: str, table: str) -> None:
    sweep_until(town, notebook, lambda: "warned" in kinds(town, notebook), idle=600)

    def would_stop() -> bool:
        record, now = town.record(notebook), times.to_text(datetime.now(UTC))
        return bool(max(record["due_at"]["S"], record["warned"]["M"]["stops_at"]["S"]) <= now)

    wait_until(would_stop, 60, "not due")
    beat(town, notebook, int(time.time() * 1000), 600)
    town.cloud.faults.on(f"table_unavailable:{table}")
    assert run(town) is not None
    town.cloud.faults.clear()
    assert state(town, notebook) == "ready"
    assert town.instances(notebook)[0]["State"]["Name"] == "running"
    sweep_until(town, notebook, lambda: state(town, notebook) == "stopped", idle=600)


def test_an_instance_stopped_by_hand_whose_event_is_lost_is_stopped_in_the_record(town: Town, notebook: str) -> None:
    sweep_until(town, notebook, lambda: decisions(town, notebook), idle=0)
    town.cloud.faults.on("event_lost")
    town.ec2.stop_instances(InstanceIds=[town.instances(notebook)[0]["InstanceId"]])
    end = time.monotonic() + 120
    while state(town, notebook) != "stopped":
        assert time.monotonic() < end, town.record(notebook)
        run(town)
        time.sleep(0.3)
    assert town.record(notebook)["stop"]["M"]["by"] == {"S": "outside"}
    wait_until(lambda: kinds(town, notebook)[-1] == "stopped", 60, "not told")


def test_an_instance_terminated_by_hand_ends_its_notebook(town: Town, notebook: str) -> None:
    sweep_until(town, notebook, lambda: decisions(town, notebook), idle=0)
    town.cloud.faults.on("event_lost")
    town.ec2.terminate_instances(InstanceIds=[town.instances(notebook)[0]["InstanceId"]])
    end = time.monotonic() + 120
    while state(town, notebook) != "failed":
        assert time.monotonic() < end, town.record(notebook)
        run(town)
        time.sleep(0.3)
    assert town.record(notebook)["error"]["M"]["code"] == {"S": "instance_gone"}
    user = town.user()
    assert notebook not in user.get("active", {}).get("SS", []) + user.get("owned", {}).get("SS", [])
    wait_until(lambda: kinds(town, notebook)[-1:] == ["failed"], 60, "no message")


def test_a_stop_whose_execution_was_aborted_comes_to_its_end(town: Town, notebook: str) -> None:
    """The API's: written, begun, and stopped by hand before anything happened."""
    town.cloud.faults.on("event_lost")
    assert town.person.http.post(f"/notebooks/{notebook}/stop").status_code == 202
    arn = town.arn("stop").replace(":stateMachine:", ":execution:") + f":{notebook}-stop-1"
    town.sfn.stop_execution(executionArn=arn, error="Mine", cause="by hand")
    town.cloud.faults.clear()
    town.ended(arn)
    if state(town, notebook) == "stopping":
        past = {":past": {"S": "2026-01-01T00:00:00.000Z"}}
        town.tables.update_item(
            TableName="nod-local-notebooks",
            Key={"id": {"S": notebook}},
            UpdateExpression="SET due_at = :past",
            ExpressionAttributeValues=past,
        )
        assert run(town) is None
    town.person.wait(notebook, "stopped", seconds=180)


def test_reconcile_compares_and_finds_nothing_wrong(town: Town, notebook: str) -> None:
    assert run(town, "reconcile") is None
    assert state(town, notebook) == "ready"
    assert town.instances(notebook)[0]["State"]["Name"] == "running"


def test_an_instance_without_a_record_is_noted_and_told_and_stopped(town: Town, notebook: str) -> None:
    tags = {"nod:deployment": "local", "nod:notebook": "nb-" + "f" * 20, "nod:owner": town.cloud.user_id}
    image = town.instances(notebook)[0]["ImageId"]
    lost = town.ec2.run_instances(
        ImageId=image,
        MinCount=1,
        MaxCount=1,
        InstanceType="t3.medium",
        TagSpecifications=[
            {"ResourceType": "instance", "Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}
        ],
    )["Instances"][0]["InstanceId"]
    try:
        end = time.monotonic() + 120

        def power() -> str:
            # By a filter: EC2 does not know at once what it has just made.
            found = town.ec2.describe_instances(Filters=[{"Name": "instance-id", "Values": [lost]}])["Reservations"]
            return str(found[0]["Instances"][0]["State"]["Name"]) if found else "unknown"

        while power() not in ("stopping", "stopped"):
            assert time.monotonic() < end
            assert run(town, "reconcile") is None
            time.sleep(2)
        orphans = [message for message in told(town.cloud) if message["kind"] == "orphan"]
        assert len(orphans) == 1
        assert lost in json.dumps(orphans[0])
    finally:
        town.ec2.terminate_instances(InstanceIds=[lost])


def test_disks_of_what_is_stopped_are_told_once(town: Town, notebook: str) -> None:
    assert town.person.http.post(f"/notebooks/{notebook}/stop").status_code == 202
    town.person.wait(notebook, "stopped", seconds=180)
    before = len([message for message in told(town.cloud) if message["kind"] == "disks"])
    assert run(town, "tell_disk_costs") is None
    after = [message for message in told(town.cloud) if message["kind"] == "disks"]
    assert len(after) == before + 1
    assert "thesis" in after[-1]["text"]


def test_functions_of_the_schedules_are_deployed_with_theirs(town: Town) -> None:
    rules = boto3.client("events", endpoint_url=town.cloud.aws_url).list_rules()["Rules"]
    found = {rule["Name"]: rule.get("ScheduleExpression") for rule in rules}
    assert found["nod-local-sweep-event"] == "rate(5 minutes)"
    assert found["nod-local-reconcile-event"] == "rate(1 hour)"
    assert found["nod-local-tell_disk_costs-event"] == "cron(0 9 1 * ? *)"
