"""What AWS says when an instance cannot be started or stopped, and when a table does not answer."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError

from instance.files.monitor import Credentials, HeartbeatError, HeartbeatTable, Instance
from local.aws.metadata import ACCESS_KEY
from local.cloud import UBUNTU, Cloud
from tests.local.clouds import Events, client, cloud, no_faults, opened, until  # noqa: F401

HEARTBEATS = "nod-local-heartbeats"


@pytest.fixture
def ec2(cloud: Cloud) -> Any:  # noqa: F811
    return client(cloud, "ec2")


@pytest.fixture
def tables(cloud: Cloud) -> Any:  # noqa: F811
    return client(cloud, "dynamodb")


@pytest.fixture
def monitor(cloud: Cloud) -> Any:  # noqa: F811
    """Asks as a machine does, with the key of its role."""
    return boto3.client(
        "dynamodb",
        endpoint_url=cloud.aws_url,
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key="local",
        config=Config(retries={"total_max_attempts": 1}),
    )


@pytest.fixture
def instances(cloud: Cloud, ec2: Any) -> Iterator[list[str]]:  # noqa: F811
    """Two that run: a t3.medium and a t3.large."""
    image = boto3.client("ssm", endpoint_url=cloud.aws_url).get_parameter(Name=UBUNTU.format("amd64"))
    made = [
        ec2.run_instances(
            ImageId=image["Parameter"]["Value"],
            MinCount=1,
            MaxCount=1,
            InstanceType=type_,
            SubnetId=cloud.subnet_ids[0],
        )["Instances"][0]["InstanceId"]
        for type_ in ("t3.medium", "t3.large")
    ]
    until(lambda: states(cloud, made) == ["running"] * 2)
    yield made
    cloud.faults.clear()
    ec2.terminate_instances(InstanceIds=made)


def states(cloud: Cloud, ids: list[str]) -> list[str]:  # noqa: F811
    lives = [cloud.ec2.life(instance_id) for instance_id in ids]
    return [life.state.name if life else "" for life in lives]


def refused(call: Any, **arguments: Any) -> tuple[str, str, int]:
    with pytest.raises(ClientError) as raised:
        call(**arguments)
    answer: Any = raised.value.response
    return answer["Error"]["Code"], answer["Error"]["Message"], answer["ResponseMetadata"]["HTTPStatusCode"]


def test_start_without_capacity_is_ec2s_500_and_starts_none_of_them(
    cloud: Cloud,  # noqa: F811
    ec2: Any,
    instances: list[str],
) -> None:
    ec2.stop_instances(InstanceIds=instances)
    until(lambda: states(cloud, instances) == ["stopped"] * 2)
    zone = ec2.describe_instances(InstanceIds=instances[:1])["Reservations"][0]["Instances"][0]["Placement"]
    for fault in ("no_capacity", "no_capacity:t3.medium", f"no_capacity:{zone['AvailabilityZone']}"):
        cloud.faults.on(fault)
        said = refused(ec2.start_instances, InstanceIds=instances)
        assert said == ("InsufficientInstanceCapacity", "Insufficient capacity.", 500)
        cloud.faults.clear()
    assert states(cloud, instances) == ["stopped"] * 2
    cloud.faults.on("no_capacity:t3.medium")
    ec2.start_instances(InstanceIds=instances[1:])
    until(lambda: states(cloud, instances) == ["stopped", "running"])


def test_stop_that_is_refused_stops_none_of_them(cloud: Cloud, ec2: Any, instances: list[str]) -> None:  # noqa: F811
    cloud.faults.on(f"stop_fails:{instances[0]}")
    code, _, status = refused(ec2.stop_instances, InstanceIds=instances)
    assert (code, status) == ("UnauthorizedOperation", 403)
    assert states(cloud, instances) == ["running"] * 2
    ec2.stop_instances(InstanceIds=instances[1:])
    until(lambda: states(cloud, instances) == ["running", "stopped"])


@pytest.mark.parametrize("by", ["user", "machine"])
def test_stopped_is_an_event_and_ec2_says_who_wanted_it(
    cloud: Cloud,  # noqa: F811
    ec2: Any,
    instances: list[str],
    by: str,
) -> None:
    pattern = {"source": ["aws.ec2"], "detail": {"state": ["stopped"], "instance-id": instances[:1]}}
    events = Events(cloud, f"stopped-by-{by}", pattern)
    if by == "user":
        ec2.stop_instances(InstanceIds=instances[:1])
    else:
        machine = cloud.fake_machines.machines[instances[0]]  # type: ignore[attr-defined]
        until(lambda: machine.running)
        machine.power_off_from_inside()
    assert events.wait(lambda event: True)["detail"] == {"instance-id": instances[0], "state": "stopped"}
    (seen,) = ec2.describe_instances(InstanceIds=instances[:1])["Reservations"][0]["Instances"]
    reason = {"user": "Client.UserInitiatedShutdown", "machine": "Client.InstanceInitiatedShutdown"}[by]
    assert seen["StateReason"]["Code"] == reason
    assert seen["StateReason"]["Message"].startswith(f"{reason}: ")
    if by == "user":
        assert seen["StateTransitionReason"].startswith("User initiated (")
    ec2.start_instances(InstanceIds=instances[:1])
    until(lambda: states(cloud, instances)[0] == "running")
    (seen,) = ec2.describe_instances(InstanceIds=instances[:1])["Reservations"][0]["Instances"]
    assert not seen.get("StateReason", {}).get("Code"), "what was before is over"


def test_table_that_is_unavailable_fails_every_call_that_names_it(cloud: Cloud, tables: Any) -> None:  # noqa: F811
    cloud.faults.on(f"table_unavailable:{HEARTBEATS}")
    key = {"id": {"S": "a"}}
    calls: list[tuple[Any, dict[str, Any]]] = [
        (tables.get_item, {"TableName": HEARTBEATS, "Key": key}),
        (tables.batch_get_item, {"RequestItems": {HEARTBEATS: {"Keys": [key]}}}),
        (tables.batch_write_item, {"RequestItems": {HEARTBEATS: [{"PutRequest": {"Item": key}}]}}),
        (tables.transact_write_items, {"TransactItems": [{"Put": {"TableName": HEARTBEATS, "Item": key}}]}),
        (tables.scan, {"TableName": HEARTBEATS}),
    ]
    for call, arguments in calls:
        assert refused(call, **arguments) == ("InternalServerError", "Internal server error", 500)
    assert "Item" in tables.get_item(TableName="nod-local-users", Key={"id": {"S": cloud.user_id}})
    cloud.faults.on("table_unavailable")
    assert refused(tables.get_item, TableName="nod-local-users", Key={"id": {"S": cloud.user_id}})[2] == 500
    cloud.faults.clear()
    assert tables.scan(TableName=HEARTBEATS)["Items"] == []


def beat(monitor: Any, instance_id: str) -> dict[str, Any]:
    row = monitor.update_item(
        TableName=HEARTBEATS,
        Key={"id": {"S": f"arn:aws:ec2:us-east-1:123456789012:instance/{instance_id}"}},
        UpdateExpression="SET boot_id = :boot ADD beat :one",
        ExpressionAttributeValues={":boot": {"S": "b"}, ":one": {"N": "1"}},
        ReturnValues="ALL_NEW",
    )
    return dict(row["Attributes"])


def test_heartbeat_of_a_machine_is_lost_and_nobody_elses_write(
    cloud: Cloud,  # noqa: F811
    monitor: Any,
    tables: Any,
) -> None:
    arn = "arn:aws:ec2:us-east-1:123456789012:instance/i-1"
    tables.put_item(TableName=HEARTBEATS, Item={"id": {"S": arn}, "confirmed": {"S": "c"}})
    assert beat(monitor, "i-1") == {
        "id": {"S": arn},
        "confirmed": {"S": "c"},
        "boot_id": {"S": "b"},
        "beat": {"N": "1"},
    }, "ALL_NEW tells the machine what the control plane wrote"
    cloud.faults.on("heartbeat_lost:i-1")
    with pytest.raises(ClientError) as raised:
        beat(monitor, "i-1")
    assert raised.value.response["Error"]["Code"] == "InternalServerError"
    assert beat(monitor, "i-2")["beat"] == {"N": "1"}
    assert beat(tables, "i-1")["beat"] == {"N": "2"}, "who is no machine writes as before"
    cloud.faults.on("heartbeat_lost")
    with pytest.raises(ClientError):
        beat(monitor, "i-2")
    for name in ("i-1", "i-2"):
        tables.delete_item(TableName=HEARTBEATS, Key={"id": {"S": arn.replace("i-1", name)}})


@pytest.mark.parametrize(
    ("minutes", "words"),
    [(-6, "Signature expired"), (-4, None), (4, None), (6, "Signature not yet current"), (-1e6, "Signature expired")],
)
def test_what_a_machine_signs_for_another_time_is_refused(
    cloud: Cloud,  # noqa: F811
    tables: Any,
    minutes: float,
    words: str | None,
) -> None:
    arn = "arn:aws:ec2:us-east-1:123456789012:instance/i-late"
    instance = Instance(arn, None, Credentials(ACCESS_KEY, "local", "local"))
    table = HeartbeatTable(HEARTBEATS, "us-east-1", cloud.aws_url)
    at = datetime.now(UTC) + timedelta(minutes=minutes)
    if words is None:
        assert table.write(instance, {"boot_id": "b"}, at).row["boot_id"] == {"S": "b"}
    else:
        with pytest.raises(HeartbeatError, match=f"400.*InvalidSignatureException.*{words}") as raised:
            table.write(instance, {"boot_id": "b"}, at)
        assert raised.value.date is not None
        assert abs((raised.value.date - datetime.now(UTC)).total_seconds()) < 60, "it says what time it is"
    assert ("Item" in tables.get_item(TableName=HEARTBEATS, Key={"id": {"S": arn}})) is (words is None)
    tables.delete_item(TableName=HEARTBEATS, Key={"id": {"S": arn}})


def test_sweep_that_is_dead_is_not_run_and_the_other_schedules_are(cloud: Cloud) -> None:  # noqa: F811
    def ran(name: str) -> int:
        return cloud.lambdas.counts.get(f"nod-local-{name}", 0)

    before = ran("sweep"), ran("reconcile"), ran("check_confirmations")
    cloud.faults.on("sweep_dead")
    cloud.run_schedules()
    assert (ran("sweep"), ran("reconcile")) == before[:2]
    assert ran("check_confirmations") == before[2] + 1
    cloud.faults.clear()
    cloud.faults.on("sweep_dead:sweep")
    cloud.run_schedules()
    assert (ran("sweep"), ran("reconcile")) == (before[0], before[1] + 1)
    cloud.faults.clear()
    cloud.run_schedules()
    assert ran("sweep") == before[0] + 1


def test_minute_is_as_long_as_it_was_told_for_functions_and_schedules(tmp_path: Path) -> None:
    # In a process of its own: a second cloud beside that of this module would take its environment.
    code = (
        "import sys, time; from pathlib import Path; from tests.local.clouds import opened\n"
        "with opened(Path(sys.argv[1]), minute_seconds=0.5, schedules=True) as cloud:\n"
        "    name = 'nod-local-check_confirmations'; end = time.monotonic() + 20\n"
        "    while cloud.lambdas.counts.get(name, 0) < 2 and time.monotonic() < end: time.sleep(0.1)\n"
        "    print(cloud.environment()['NOD_MINUTE_SECONDS'], cloud.lambdas.counts.get(name, 0) >= 2)\n"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=root, capture_output=True, text=True, check=False
    )
    # Between what the functions log, which may be called once more while the cloud closes.
    assert "0.5 True" in done.stdout.splitlines(), done.stdout + done.stderr


def test_indexes_of_the_template_are_on_the_table(tables: Any) -> None:
    indexes = tables.describe_table(TableName="nod-local-notebooks")["Table"]["GlobalSecondaryIndexes"]
    assert {index["IndexName"]: index["Projection"]["ProjectionType"] for index in indexes} == {
        "owner-index": "ALL",
        "instance_id-index": "INCLUDE",
        "due-index": "KEYS_ONLY",
    }


def put(tables: Any, identifier: str, token: str, **more: Any) -> None:
    """A row that must not be there yet, by a transaction."""
    item = {"id": {"S": identifier}, **more}
    put = {"TableName": HEARTBEATS, "Item": item, "ConditionExpression": "attribute_not_exists(id)"}
    tables.transact_write_items(TransactItems=[{"Put": put}], ClientRequestToken=token)


def test_transaction_that_is_asked_for_again_by_its_token_does_nothing_more(tables: Any) -> None:
    put(tables, "tx-1", "token-1")
    put(tables, "tx-1", "token-1")
    with pytest.raises(tables.exceptions.IdempotentParameterMismatchException):
        put(tables, "tx-2", "token-1")
    with pytest.raises(tables.exceptions.TransactionCanceledException):
        put(tables, "tx-1", "token-2")
    # Of one that was cancelled nothing is remembered.
    tables.delete_item(TableName=HEARTBEATS, Key={"id": {"S": "tx-1"}})
    put(tables, "tx-1", "token-2", again={"BOOL": True})


def test_answer_that_is_lost_is_of_a_call_that_was_done(cloud: Cloud, tables: Any, ec2: Any) -> None:  # noqa: F811
    cloud.faults.on("answer_lost:dynamodb:PutItem")
    key = {"id": {"S": "lost"}}
    with pytest.raises(ConnectionClosedError):
        tables.put_item(TableName=HEARTBEATS, Item={**key, "round": {"N": "1"}})
    assert tables.get_item(TableName=HEARTBEATS, Key=key)["Item"]["round"] == {"N": "1"}
    tables.put_item(TableName=HEARTBEATS, Item={**key, "round": {"N": "2"}})
    assert ec2.describe_vpcs()["Vpcs"]
    cloud.faults.on("answer_lost:ec2")
    with pytest.raises(ConnectionClosedError):
        ec2.describe_vpcs()
    assert ec2.describe_vpcs()["Vpcs"]
    # An SDK that tries again gets its answer.
    boto3.client("dynamodb", endpoint_url=cloud.aws_url).put_item(TableName=HEARTBEATS, Item=key)


@pytest.mark.parametrize(("fault", "error"), [("answer_lost", ConnectionClosedError), ("throttling", ClientError)])
def test_call_that_an_sdk_repeats_is_answered_whoever_calls_in_between(
    cloud: Cloud,  # noqa: F811
    tables: Any,
    fault: str,
    error: type[Exception],
) -> None:
    cloud.faults.on(f"{fault}:dynamodb")
    retries = Config(retries={"mode": "standard", "total_max_attempts": 3})
    patient = boto3.client("dynamodb", endpoint_url=cloud.aws_url, config=retries)
    tries: list[int] = []

    def between(attempts: int, **_: Any) -> None:
        tries.append(attempts)
        if attempts < 3:
            with contextlib.suppress(error):
                tables.list_tables()

    patient.meta.events.register_first("needs-retry.dynamodb", between)
    for _ in range(2):
        assert patient.list_tables()["TableNames"]
    # The first try of each was hit, and nothing else of it.
    assert tries == [1, 2] * 2
