"""Every first try of every AWS call of the workflows and functions loses its answer: what comes of each notebook, for
its owner, its quota and its messages, is what comes of it when every answer arrives."""

from __future__ import annotations

import pytest

from tests.local.lives import OTHER, active, kinds, post, untold, wait
from tests.local.person import wait_until
from tests.local.town import Town

pytestmark = pytest.mark.usefixtures("clean")
# Not SNS, which has no token by which it would publish once.
LOST = ("dynamodb", "ec2", "ssm", "states:StartExecution", "lambda")


@pytest.fixture
def lossy(town: Town) -> None:
    town.machines.on_boot = lambda machine: town.beat(machine, certificate_sha256={"S": OTHER})
    for service in LOST:
        town.cloud.faults.on(f"answer_lost:{service}")


def told(town: Town, identifier: str, *wanted: str) -> None:
    """These messages in this order, each once, and nothing left to tell."""
    wait_until(lambda: kinds(town, identifier) == list(wanted), 60, f"{kinds(town, identifier)}, not {wanted}")
    assert not untold(town, identifier)


def test_life_from_launch_to_delete(town: Town, lossy: None) -> None:
    identifier = town.launch(name="mine")
    seen = wait(town, identifier, "ready")
    assert [step["state"] for step in seen["steps"]] == ["done"] * 7
    assert town.sfn.describe_execution(executionArn=launch_of(town, identifier))["status"] == "SUCCEEDED"
    assert active(town) == [identifier]
    told(town, identifier, "ready")

    assert post(town, identifier, "password", password="chosen-by-its-owner") == 202
    town.settle()
    assert town.record(identifier)["passwords"] == {"N": "1"}
    assert town.person.show(identifier)["error"] is None

    assert post(town, identifier, "stop") == 202
    assert wait(town, identifier, "stopped")["error"] is None
    assert len(town.record(identifier)["runs"]["L"]) == 1
    assert active(town) == []
    told(town, identifier, "ready", "stopped")

    assert post(town, identifier, "start") == 202
    assert wait(town, identifier, "ready")["error"] is None
    assert active(town) == [identifier]
    told(town, identifier, "ready", "stopped", "started")

    assert town.person.delete(identifier, "mine").status_code == 202
    wait(town, identifier, "terminated")
    assert active(town) == []
    assert identifier not in town.user().get("owned", {}).get("SS", [])
    told(town, identifier, "ready", "stopped", "started", "terminated")
    assert town.instances(identifier) == []


def test_launch_that_fails(town: Town, lossy: None) -> None:
    town.machines.results["configure-tls"] = {
        "ok": False,
        "code": "disk_full",
        "message": "The disk is full: take more.",
    }
    identifier = town.launch()
    town.failed(identifier, "disk_full")
    told(town, identifier, "failed")
    # It tries again to start the undo, which has terminated the instance meanwhile: that is no end of the launch.
    assert town.sfn.describe_execution(executionArn=launch_of(town, identifier))["error"] == "LaunchFailed"


@pytest.mark.long
def test_stop_and_start_that_ec2_refuses(town: Town, lossy: None) -> None:
    identifier = town.launch(name="mine")
    wait(town, identifier, "ready")
    town.cloud.faults.on("stop_fails")
    assert post(town, identifier, "stop") == 202
    wait_until(lambda: "stop_failed" in kinds(town, identifier), 60, "nobody was told")
    assert wait(town, identifier, "ready")["error"]["code"] == "stop_failed"
    told(town, identifier, "ready", "stop_failed")
    town.cloud.faults.off("stop_fails")
    assert post(town, identifier, "stop") == 202
    wait(town, identifier, "stopped")
    town.cloud.faults.on("no_capacity")
    assert post(town, identifier, "start") == 202
    wait_until(lambda: "start_failed" in kinds(town, identifier), 60, "nobody was told")
    assert wait(town, identifier, "stopped")["error"]["code"] == "no_capacity"
    assert active(town) == []
    told(town, identifier, "ready", "stop_failed", "stopped", "start_failed")


@pytest.mark.long
def test_start_that_does_not_answer(town: Town, lossy: None) -> None:
    identifier = town.launch(name="mine")
    wait(town, identifier, "ready")
    assert post(town, identifier, "stop") == 202
    wait(town, identifier, "stopped")
    town.machines.on_boot = None
    assert post(town, identifier, "start") == 202
    wait_until(lambda: "start_failed" in kinds(town, identifier), 120, "nobody was told")
    wait(town, identifier, "stopped")
    assert active(town) == []
    told(town, identifier, "ready", "stopped", "start_failed")


def test_machine_that_is_gone_at_the_stop(town: Town, lossy: None) -> None:
    identifier = town.launch(name="mine")
    wait(town, identifier, "ready")
    town.ec2.terminate_instances(InstanceIds=[town.record(identifier)["instance_id"]["S"]])
    assert post(town, identifier, "stop") == 202
    assert wait(town, identifier, "failed")["error"]["code"] == "instance_gone"
    assert active(town) == []
    told(town, identifier, "ready", "failed")


def test_delete_that_ec2_refuses(town: Town, lossy: None) -> None:
    identifier = town.launch(name="mine")
    wait(town, identifier, "ready")
    instance = town.instances(identifier)[0]["InstanceId"]
    for value in (True, False):
        town.ec2.modify_instance_attribute(InstanceId=instance, DisableApiTermination={"Value": value})
        assert town.person.delete(identifier, "mine").status_code == 202
        wait(town, identifier, "failed" if value else "terminated")
    told(town, identifier, "ready", "failed", "terminated")


def launch_of(town: Town, identifier: str) -> str:
    (arn,) = [execution for execution in town.executions("launch") if execution.endswith(identifier)]
    return arn
