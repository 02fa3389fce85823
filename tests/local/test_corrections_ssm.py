"""Systems Manager as AWS has it: commands really run, agents come late, every change is an event."""

from __future__ import annotations

import json
import os
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.exceptions import ClientError

from local.cloud import Cloud
from tests.local.clouds import Events, client, cloud, no_faults, until  # noqa: F401
from tests.local.test_corrections_ec2 import describe, fleet, state


@pytest.fixture(scope="module")
def ssm(cloud: Cloud) -> Any:  # noqa: F811
    return client(cloud, "ssm")


@pytest.fixture(scope="module")
def ec2(cloud: Cloud) -> Any:  # noqa: F811
    return client(cloud, "ec2")


@pytest.fixture(scope="module")
def instance(cloud: Cloud, ec2: Any, ssm: Any) -> Iterator[str]:  # noqa: F811
    template = cloud.stack.resource("NotebookLaunchTemplate")
    asked = fleet(template, {"InstanceType": "t3.medium", "SubnetId": cloud.subnet_ids[0]})
    instance_id = ec2.create_fleet(**asked)["Instances"][0]["InstanceIds"][0]
    with pytest.raises(ClientError) as raised:
        ssm.send_command(DocumentName="nod-local-configure-tls", InstanceIds=[instance_id], Parameters={})
    assert raised.value.response["Error"]["Code"] in {"InvalidInstanceId", "InvalidParameters"}
    until(lambda: online(ssm, instance_id))
    yield instance_id
    ec2.terminate_instances(InstanceIds=[instance_id])


def online(ssm: Any, instance_id: str) -> bool:
    return ping(ssm, instance_id) == "Online"


def ping(ssm: Any, instance_id: str) -> str | None:
    filters = [{"Key": "InstanceIds", "Values": [instance_id]}]
    found = ssm.describe_instance_information(Filters=filters)["InstanceInformationList"]
    return found[0]["PingStatus"] if found else None


def document(ssm: Any, script: str | list[str], parameters: dict[str, Any] | None = None, **inputs: Any) -> str:
    name = f"doc-{uuid.uuid4()}"
    content = {
        "schemaVersion": "2.2",
        "description": "A test",
        "parameters": parameters or {},
        "mainSteps": [
            {
                "action": "aws:runShellScript",
                "name": "work",
                "inputs": {"runCommand": [script] if isinstance(script, str) else script, **inputs},
            }
        ],
    }
    ssm.create_document(Name=name, Content=json.dumps(content), DocumentType="Command", DocumentFormat="JSON")
    return name


def send(ssm: Any, name: str, instance: str, **parameters: str) -> str:
    given = {key: [value] for key, value in parameters.items()}
    return str(ssm.send_command(DocumentName=name, InstanceIds=[instance], Parameters=given)["Command"]["CommandId"])


def done(ssm: Any, command: str, instance: str) -> dict[str, Any]:
    def over() -> Any:
        try:
            seen = ssm.get_command_invocation(CommandId=command, InstanceId=instance)
        except ClientError as error:
            assert error.response["Error"]["Code"] == "InvocationDoesNotExist"
            return None
        return seen if seen["Status"] not in {"Pending", "InProgress"} else None

    return dict(until(over))


def test_a_command_reports_its_real_exit_code_and_output(ssm: Any, instance: str) -> None:
    name = document(ssm, ["echo out $((40+2))", "echo err >&2", "exit 3"])
    seen = done(ssm, send(ssm, name, instance), instance)
    assert (seen["Status"], seen["StatusDetails"], seen["ResponseCode"]) == ("Failed", "Failed", 3)
    assert (seen["StandardOutputContent"], seen["StandardErrorContent"]) == ("out 42\n", "err\n")
    assert seen["PluginName"] == "work"
    assert done(ssm, send(ssm, document(ssm, "true"), instance), instance)["Status"] == "Success"


def test_right_after_it_was_sent_an_invocation_does_not_exist(
    cloud: Cloud,  # noqa: F811
    ssm: Any,
    instance: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cloud.front.commands, "_delays", replace(cloud.front.commands._delays, invocation=3600))
    command = send(ssm, document(ssm, "true"), instance)
    with pytest.raises(ClientError) as raised:
        ssm.get_command_invocation(CommandId=command, InstanceId=instance)
    assert raised.value.response["Error"]["Code"] == "InvocationDoesNotExist"


def test_the_script_is_a_file_of_its_own_whose_shebang_counts_and_that_is_gone_afterwards(
    cloud: Cloud,  # noqa: F811
    ssm: Any,
    instance: str,
) -> None:
    name = document(ssm, ["#!/bin/bash", 'echo "$0 ${BASH_VERSION:+bash}"'])
    seen = done(ssm, send(ssm, name, instance), instance)
    path, shell = seen["StandardOutputContent"].split()
    assert shell == "bash"
    assert "/var/lib/amazon/ssm/" in path
    until(lambda: not os.path.exists(path))  # noqa: PTH110


def test_env_var_parameters_are_data_and_others_are_pasted(ssm: Any, instance: str, tmp_path: Any) -> None:
    bait = tmp_path / "bait"
    hostile = f"$(touch {bait}); `touch {bait}` \" ' \n end"
    parameters = {
        "Safe": {"type": "String", "interpolationType": "ENV_VAR"},
        "Pasted": {"type": "String", "default": "none"},
    }
    name = document(ssm, 'printf %s "$SSM_Safe"; echo "|{{ Pasted }}|{{Pasted}}|{{ Other }}"', parameters)
    seen = done(ssm, send(ssm, name, instance, Safe=hostile, Pasted="$((1+1))"), instance)
    assert seen["StandardOutputContent"] == hostile + "|2|2|{{ Other }}\n"
    assert not bait.exists()


def test_output_has_the_limits_of_aws(ssm: Any, instance: str) -> None:
    name = document(ssm, "head -c 30000 /dev/zero | tr '\\0' a; head -c 9000 /dev/zero | tr '\\0' b >&2")
    seen = done(ssm, send(ssm, name, instance), instance)
    assert len(seen["StandardOutputContent"]) == 24_000
    assert seen["StandardOutputContent"].endswith("Output truncated---")
    assert len(seen["StandardErrorContent"]) == 8_000


def test_a_step_that_takes_too_long_is_timed_out(ssm: Any, instance: str) -> None:
    seen = done(ssm, send(ssm, document(ssm, "exec sleep 30", timeoutSeconds="1"), instance), instance)
    assert (seen["Status"], seen["StatusDetails"]) == ("TimedOut", "ExecutionTimedOut")


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"DocumentName": "no-such-document"}, "InvalidDocument"),
        ({"InstanceIds": ["i-00000000000000000"]}, "InvalidInstanceId"),
        ({"InstanceIds": [f"i-{n:017x}" for n in range(51)]}, "ValidationException"),
        ({"Parameters": {}}, "InvalidParameters"),
        ({"Parameters": {"Word": ["ok"], "Unknown": ["x"]}}, "InvalidParameters"),
        ({"Parameters": {"Word": ["NOT OK"]}}, "InvalidParameters"),
        ({"Parameters": {"Word": ["a", "b"]}}, "InvalidParameters"),
        ({"Parameters": {"Word": ["a" * 70_000]}}, "ValidationException"),
        ({"TimeoutSeconds": 2_592_001}, "ValidationException"),
    ],
)
def test_what_send_command_refuses(ssm: Any, instance: str, given: dict[str, Any], code: str) -> None:
    name = document(ssm, "true", {"Word": {"type": "String", "allowedPattern": "^[a-z]+$"}})
    asked = {"DocumentName": name, "InstanceIds": [instance], "Parameters": {"Word": ["fine"]}, **given}
    with pytest.raises(ClientError) as raised:
        ssm.send_command(**asked)
    assert raised.value.response["Error"]["Code"] == code


def test_commands_are_listed_with_their_parameters_and_filtered(ssm: Any, instance: str) -> None:
    before = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    name = document(ssm, "true", {"Word": {"type": "String"}})
    command = send(ssm, name, instance, Word="hello")
    done(ssm, command, instance)
    listed = ssm.list_commands(CommandId=command)["Commands"]
    assert listed[0]["Parameters"] == {"Word": ["hello"]}
    assert listed[0]["Status"] == "Success"
    filters = [{"key": "InvokedAfter", "value": before}, {"key": "DocumentName", "value": name}]
    found = ssm.list_commands(InstanceId=instance, Filters=filters)["Commands"]
    assert [entry["CommandId"] for entry in found] == [command]
    filters[0]["key"] = "InvokedBefore"
    assert ssm.list_commands(InstanceId=instance, Filters=filters)["Commands"] == []
    entries = ssm.list_command_invocations(CommandId=command, Details=True)["CommandInvocations"]
    assert entries[0]["CommandPlugins"][0]["ResponseCode"] == 0


def test_a_cancelled_command_ends(ssm: Any, instance: str) -> None:
    command = send(ssm, document(ssm, "sleep 30"), instance)
    until(lambda: ssm.list_commands(CommandId=command)["Commands"][0]["Status"] == "InProgress")
    ssm.cancel_command(CommandId=command)
    assert done(ssm, command, instance)["Status"] == "Cancelled"


def test_every_change_of_a_command_is_an_event(cloud: Cloud, ssm: Any, instance: str) -> None:  # noqa: F811
    kinds = ["EC2 Command Status-change Notification", "EC2 Command Invocation Status-change Notification"]
    events = Events(cloud, f"commands-{uuid.uuid4()}", {"source": ["aws.ssm"], "detail-type": kinds})
    name = document(ssm, "true")
    command = send(ssm, name, instance)

    def statuses(kind: str) -> set[str]:
        return {
            e["detail"]["status"]
            for e in events.take()
            if e["detail-type"] == kind and e["detail"]["command-id"] == command
        }

    for kind in kinds:
        until(lambda kind=kind: statuses(kind) == {"InProgress", "Success"})
    whole = next(e for e in events.seen if e["detail-type"] == kinds[0])
    assert whole["detail"]["document-name"] == name
    assert whole["detail"]["requested-date-time"].endswith("Z")
    assert whole["resources"] == [f"arn:aws:ec2:us-east-1:123456789012:instance/{instance}"]
    one = next(e for e in events.seen if e["detail-type"] == kinds[1])
    assert one["detail"]["instance-id"] == instance


@pytest.mark.parametrize(("fault", "status"), [("command_fails", "Failed"), ("command_times_out", "TimedOut")])
def test_faults_of_commands(cloud: Cloud, ssm: Any, instance: str, fault: str, status: str) -> None:  # noqa: F811
    name = document(ssm, "true")
    cloud.faults.on(f"{fault}:{name}")
    assert done(ssm, send(ssm, name, instance), instance)["Status"] == status
    assert done(ssm, send(ssm, document(ssm, "true"), instance), instance)["Status"] == "Success"


def test_a_command_delivered_twice_runs_twice(
    cloud: Cloud,  # noqa: F811
    ssm: Any,
    instance: str,
    tmp_path: Any,
) -> None:
    name = document(ssm, f"echo ran >> {tmp_path}/ran")
    cloud.faults.on(f"command_twice:{name}")
    assert done(ssm, send(ssm, name, instance), instance)["Status"] == "Success"
    assert (tmp_path / "ran").read_text() == "ran\nran\n"


def test_lost_events_are_lost(cloud: Cloud, ssm: Any, instance: str) -> None:  # noqa: F811
    events = Events(cloud, f"lost-{uuid.uuid4()}", {"source": ["aws.ssm"]})
    cloud.faults.on("event_lost")
    done(ssm, send(ssm, document(ssm, "true"), instance), instance)
    cloud.faults.clear()
    second = send(ssm, document(ssm, "true"), instance)
    events.wait(lambda event: event["detail"]["command-id"] == second)
    assert {event["detail"]["command-id"] for event in events.take()} == {second}


def test_the_agent_is_gone_while_the_instance_is_stopped_and_late_after_it_started(
    cloud: Cloud,  # noqa: F811
    ec2: Any,
    ssm: Any,
    instance: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ec2.stop_instances(InstanceIds=[instance])
    until(lambda: ping(ssm, instance) == "ConnectionLost")
    with pytest.raises(ClientError) as raised:
        send(ssm, document(ssm, "true"), instance)
    assert raised.value.response["Error"]["Code"] == "InvalidInstanceId"
    until(lambda: state(ec2, instance) == "stopped")
    seen = threading.Event()
    register = cloud.ec2.agents._register
    monkeypatch.setattr(cloud.ec2.agents, "_register", lambda *boot: seen.wait(60) and register(*boot))
    ec2.start_instances(InstanceIds=[instance])
    until(lambda: state(ec2, instance) == "running")
    assert not online(ssm, instance)
    seen.set()
    until(lambda: online(ssm, instance))
    assert describe(ec2, instance)["State"]["Name"] == "running"


def test_an_agent_that_never_comes(cloud: Cloud, ec2: Any, ssm: Any) -> None:  # noqa: F811
    cloud.faults.on("agent_never_online")
    template = cloud.stack.resource("NotebookLaunchTemplate")
    asked = fleet(template, {"InstanceType": "t3.medium", "SubnetId": cloud.subnet_ids[0]})
    instance_id = ec2.create_fleet(**asked)["Instances"][0]["InstanceIds"][0]
    until(lambda: state(ec2, instance_id) == "running")
    time.sleep(0.6)
    assert ping(ssm, instance_id) is None
    ec2.terminate_instances(InstanceIds=[instance_id])
