"""EC2 as AWS has it, where moto has not: time, idempotency, the ladder of CreateFleet, machines, events."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from local.aws import addresses
from local.cloud import UBUNTU, Cloud
from tests.local.clouds import Events, client, cloud, no_faults, until  # noqa: F401

IMAGE = "resolve:ssm:" + UBUNTU.format("amd64")


@pytest.fixture
def ec2(cloud: Cloud) -> Any:  # noqa: F811
    return client(cloud, "ec2")


@pytest.fixture
def template(cloud: Cloud) -> str:  # noqa: F811
    return str(cloud.stack.resource("NotebookLaunchTemplate"))


def fleet(template: str, *overrides: dict[str, Any], token: str | None = None) -> dict[str, Any]:
    return {
        "ClientToken": token or str(uuid.uuid4()),
        "Type": "instant",
        "LaunchTemplateConfigs": [
            {
                "LaunchTemplateSpecification": {"LaunchTemplateId": template, "Version": "$Default"},
                "Overrides": [
                    {"ImageId": IMAGE, "Priority": float(n), **override} for n, override in enumerate(overrides)
                ],
            }
        ],
        "TargetCapacitySpecification": {
            "TotalTargetCapacity": 1,
            "OnDemandTargetCapacity": 1,
            "SpotTargetCapacity": 0,
            "DefaultTargetCapacityType": "on-demand",
        },
        "OnDemandOptions": {"AllocationStrategy": "prioritized"},
        "TagSpecifications": [{"ResourceType": "instance", "Tags": [{"Key": "nod:notebook", "Value": "nb-1"}]}],
    }


def state(ec2: Any, instance_id: str) -> str:
    try:
        found = ec2.describe_instances(InstanceIds=[instance_id])
    except ClientError as error:
        return str(error.response["Error"]["Code"])
    return str(found["Reservations"][0]["Instances"][0]["State"]["Name"])


def describe(ec2: Any, instance_id: str) -> dict[str, Any]:
    return dict(ec2.describe_instances(InstanceIds=[instance_id])["Reservations"][0]["Instances"][0])


def disks_of(ec2: Any, instance_id: str) -> list[str]:
    found = ec2.describe_volumes(Filters=[{"Name": "attachment.instance-id", "Values": [instance_id]}])
    return [volume["VolumeId"] for volume in found["Volumes"]]


def is_there(ec2: Any, volume_id: str) -> bool:
    return bool(ec2.describe_volumes(Filters=[{"Name": "volume-id", "Values": [volume_id]}])["Volumes"])


@pytest.fixture
def instance(cloud: Cloud, ec2: Any, template: str) -> Iterator[str]:  # noqa: F811
    asked = fleet(template, {"InstanceType": "t3.medium", "SubnetId": cloud.subnet_ids[0]})
    instance_id = ec2.create_fleet(**asked)["Instances"][0]["InstanceIds"][0]
    until(lambda: state(ec2, instance_id) == "running")
    yield instance_id
    ec2.terminate_instances(InstanceIds=[instance_id])


def test_an_instance_is_unknown_then_pending_then_running_with_an_address(
    cloud: Cloud,  # noqa: F811
    ec2: Any,
    template: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = fleet(template, {"InstanceType": "t3.medium", "SubnetId": cloud.subnet_ids[0]})
    with monkeypatch.context() as patched:
        patched.setattr(cloud.ec2, "_delays", replace(cloud.ec2._delays, visible=3600))
        instance_id = ec2.create_fleet(**asked)["Instances"][0]["InstanceIds"][0]
        assert state(ec2, instance_id) == "InvalidInstanceID.NotFound"
        by_tag = ec2.describe_instances(Filters=[{"Name": "tag:nod:notebook", "Values": ["nb-1"]}])
        assert instance_id not in json.dumps(by_tag, default=str)
    until(lambda: state(ec2, instance_id) in {"pending", "running"})
    until(lambda: state(ec2, instance_id) == "running")
    seen = describe(ec2, instance_id)
    assert seen["PublicIpAddress"].startswith("127.0.0.")
    assert seen["PublicDnsName"] == ""
    assert seen["Placement"]["AvailabilityZone"] == "us-east-1a"
    ec2.terminate_instances(InstanceIds=[instance_id])


def test_what_the_launch_template_and_the_request_say_is_on_the_instance(ec2: Any, instance: str) -> None:
    seen = describe(ec2, instance)
    tags = {tag["Key"]: tag["Value"] for tag in seen["Tags"]}
    assert tags["nod:notebook"] == "nb-1"
    assert tags["nod:deployment"] == "local"
    assert seen["MetadataOptions"]["HttpTokens"] == "required"
    assert seen["IamInstanceProfile"]["Arn"].endswith("instance-profile/nod-local-notebook")
    assert len(seen["SecurityGroups"]) == 1


def test_an_override_sets_the_root_volume(cloud: Cloud, ec2: Any, template: str) -> None:  # noqa: F811
    disk = {"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": 30, "VolumeType": "gp3", "Encrypted": True}}
    asked = fleet(
        template,
        {"InstanceType": "t3.medium", "SubnetId": cloud.subnet_ids[0], "BlockDeviceMappings": [disk]},
    )
    instance_id = ec2.create_fleet(**asked)["Instances"][0]["InstanceIds"][0]
    volumes = ec2.describe_volumes(Filters=[{"Name": "attachment.instance-id", "Values": [instance_id]}])["Volumes"]
    assert [volume["Size"] for volume in volumes] == [30]
    ec2.terminate_instances(InstanceIds=[instance_id])


def test_without_a_free_address_nothing_is_launched_and_ec2_says_so(
    cloud: Cloud,  # noqa: F811
    ec2: Any,
    template: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # As when somebody listens on port 8888 of all addresses while the local cloud runs.
    monkeypatch.setattr(addresses, "_usable", lambda _: False)
    made = ec2.create_fleet(**fleet(template, {"InstanceType": "t3.medium", "SubnetId": cloud.subnet_ids[0]}))
    assert [error["ErrorCode"] for error in made["Errors"]] == ["InsufficientFreeAddressesInSubnet"]
    assert made["Instances"] == []
    with pytest.raises(ClientError, match="InsufficientFreeAddressesInSubnet"):
        ec2.run_instances(LaunchTemplate={"LaunchTemplateId": template}, ImageId=IMAGE, MinCount=1, MaxCount=1)


def test_the_ladder_is_walked_in_order_and_refusals_are_data(
    cloud: Cloud,  # noqa: F811
    ec2: Any,
    template: str,
) -> None:
    cloud.faults.on("no_capacity:t3.medium")
    asked = fleet(
        template,
        {"InstanceType": "t3.medium", "SubnetId": cloud.subnet_ids[0]},
        {"InstanceType": "t3.medium", "SubnetId": cloud.subnet_ids[1]},
        {"InstanceType": "t3a.medium", "SubnetId": cloud.subnet_ids[1]},
    )
    made = ec2.create_fleet(**asked)
    assert [error["ErrorCode"] for error in made["Errors"]] == ["InsufficientInstanceCapacity"] * 2
    assert made["Instances"][0]["InstanceType"] == "t3a.medium"
    assert made["Instances"][0]["LaunchTemplateAndOverrides"]["Overrides"]["SubnetId"] == cloud.subnet_ids[1]
    ec2.terminate_instances(InstanceIds=made["Instances"][0]["InstanceIds"])


def test_priority_counts_before_position(cloud: Cloud, ec2: Any, template: str) -> None:  # noqa: F811
    asked = fleet(
        template,
        {"InstanceType": "t3.medium", "SubnetId": cloud.subnet_ids[0], "Priority": 5.0},
        {"InstanceType": "t3.large", "SubnetId": cloud.subnet_ids[0], "Priority": 1.0},
    )
    made = ec2.create_fleet(**asked)
    assert made["Instances"][0]["InstanceType"] == "t3.large"
    ec2.terminate_instances(InstanceIds=made["Instances"][0]["InstanceIds"])


def test_without_any_capacity_nothing_is_created_and_nothing_raised(
    cloud: Cloud,  # noqa: F811
    ec2: Any,
    template: str,
) -> None:
    cloud.faults.on("vcpu_limit")
    made = ec2.create_fleet(**fleet(template, {"InstanceType": "t3.medium", "SubnetId": cloud.subnet_ids[0]}))
    assert made["Instances"] == []
    assert made["Errors"][0]["ErrorCode"] == "VcpuLimitExceeded"


@pytest.mark.parametrize(
    ("override", "code"),
    [
        ({"InstanceType": "t9.mega"}, "InvalidParameterValue"),
        ({"InstanceType": "t3.medium", "SubnetId": "subnet-00000000"}, "InvalidSubnetID.NotFound"),
        ({"InstanceType": "t3.medium", "ImageId": "ami-00000000"}, "InvalidAMIID.NotFound"),
        ({"InstanceType": "t3.medium", "ImageId": "resolve:ssm:/no/such"}, "InvalidParameterValue"),
    ],
)
def test_an_override_that_cannot_be_is_an_error_of_that_override(
    ec2: Any, template: str, override: dict[str, Any], code: str
) -> None:
    made = ec2.create_fleet(**fleet(template, override))
    assert [error["ErrorCode"] for error in made["Errors"]] == [code]


def test_equal_tokens_in_parallel_make_one_instance(cloud: Cloud, ec2: Any, template: str) -> None:  # noqa: F811
    asked = fleet(template, {"InstanceType": "t3.medium", "SubnetId": cloud.subnet_ids[0]}, token="same")
    ids: list[str] = []
    threads = [
        threading.Thread(target=lambda: ids.append(ec2.create_fleet(**asked)["Instances"][0]["InstanceIds"][0]))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids) == 8
    assert len(set(ids)) == 1
    with pytest.raises(ClientError) as raised:
        ec2.create_fleet(**fleet(template, {"InstanceType": "t3.large"}, token="same"))
    assert raised.value.response["Error"]["Code"] == "IdempotentParameterMismatch"
    ec2.terminate_instances(InstanceIds=ids[:1])


def test_run_instances_honours_its_token_and_its_length(ec2: Any) -> None:
    image = ec2.describe_images(Owners=["099720109477"])["Images"][0]["ImageId"]
    asked = {"ImageId": image, "MinCount": 1, "MaxCount": 1, "InstanceType": "t3.medium", "ClientToken": "run-once"}
    ids = {ec2.run_instances(**asked)["Instances"][0]["InstanceId"] for _ in range(2)}
    assert len(ids) == 1
    with pytest.raises(ClientError) as raised:
        ec2.run_instances(**{**asked, "InstanceType": "t3.large"})
    assert raised.value.response["Error"]["Code"] == "IdempotentParameterMismatch"
    with pytest.raises(ClientError) as raised:
        ec2.run_instances(**{**asked, "ClientToken": "x" * 65})
    assert raised.value.response["Error"]["Code"] == "InvalidParameterValue"
    ec2.terminate_instances(InstanceIds=list(ids))


def test_run_instances_takes_what_the_launch_template_says_unless_the_request_says_else(
    cloud: Cloud,  # noqa: F811
    ec2: Any,
    template: str,
) -> None:
    image = ec2.describe_images(Owners=["099720109477"])["Images"][0]["ImageId"]
    asked = {
        "ImageId": image,
        "MinCount": 1,
        "MaxCount": 1,
        "InstanceType": "t3.medium",
        "LaunchTemplate": {"LaunchTemplateId": template, "Version": "$Default"},
    }
    (made,) = ec2.run_instances(**asked)["Instances"]
    until(lambda: state(ec2, made["InstanceId"]) == "running")
    seen = describe(ec2, made["InstanceId"])
    assert seen["MetadataOptions"]["HttpTokens"] == "required"
    assert seen["IamInstanceProfile"]["Arn"].endswith("instance-profile/nod-local-notebook")
    assert {"Key": "nod:deployment", "Value": "local"} in seen["Tags"]
    machine = until(lambda: cloud.fake_machines.machines.get(made["InstanceId"]))  # type: ignore[attr-defined]
    assert machine.metadata("latest/meta-data/iam/security-credentials/") == "nod-local-notebook"

    own = ec2.create_launch_template(
        LaunchTemplateName="own",
        LaunchTemplateData={"InstanceInitiatedShutdownBehavior": "terminate", "InstanceType": "t3.large"},
    )["LaunchTemplate"]["LaunchTemplateId"]
    by_own = {**asked, "LaunchTemplate": {"LaunchTemplateId": own}}
    ends, stays = (
        ec2.run_instances(**{**by_own, **more})["Instances"][0]["InstanceId"]
        for more in ({}, {"InstanceInitiatedShutdownBehavior": "stop"})
    )
    machines = cloud.fake_machines.machines  # type: ignore[attr-defined]
    for instance_id, end in ((ends, "terminated"), (stays, "stopped")):
        until(lambda one=instance_id: one in machines and machines[one].running)
        (disk,) = disks_of(ec2, instance_id)
        machines[instance_id].power_off_from_inside()
        until(lambda one=instance_id, last=end: state(ec2, one) == last)
        assert describe(ec2, instance_id)["StateReason"]["Code"] == "Client.InstanceInitiatedShutdown"
        assert is_there(ec2, disk) is (end == "stopped")
    cloud.faults.on("no_capacity:t3.large")
    with pytest.raises(ClientError) as raised:
        ec2.run_instances(**{key: value for key, value in by_own.items() if key != "InstanceType"})
    assert raised.value.response["Error"]["Code"] == "InsufficientInstanceCapacity"
    ec2.terminate_instances(InstanceIds=[made["InstanceId"], stays])


def test_an_instance_that_cannot_start_again_is_stopped_and_keeps_its_machine(
    cloud: Cloud,  # noqa: F811
    ec2: Any,
    instance: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine = cloud.fake_machines.machines[instance]  # type: ignore[attr-defined]
    until(lambda: machine.running)
    ec2.stop_instances(InstanceIds=[instance])
    until(lambda: state(ec2, instance) == "stopped")

    def refuse(_address: str) -> None:
        raise OSError("the address is taken")

    with monkeypatch.context() as patched:
        patched.setattr(machine, "move_to", refuse)
        ec2.start_instances(InstanceIds=[instance])
        until(lambda: state(ec2, instance) in {"stopping", "stopped"})
        until(lambda: state(ec2, instance) == "stopped")
    assert describe(ec2, instance)["StateReason"]["Code"] == "Server.InternalError"
    assert "destroy" not in machine.done
    ec2.start_instances(InstanceIds=[instance])
    until(lambda: state(ec2, instance) == "running")
    assert describe(ec2, instance)["PublicIpAddress"] == machine.address


def test_stop_start_reboot_and_terminate_reach_the_machine(
    cloud: Cloud,  # noqa: F811
    ec2: Any,
    instance: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine = cloud.fake_machines.machines[instance]  # type: ignore[attr-defined]
    until(lambda: machine.running)
    first = describe(ec2, instance)["PublicIpAddress"]
    ec2.reboot_instances(InstanceIds=[instance])
    until(lambda: "reboot" in machine.done)
    assert state(ec2, instance) == "running"
    stopped = ec2.stop_instances(InstanceIds=[instance])["StoppingInstances"][0]
    assert (stopped["PreviousState"]["Name"], stopped["CurrentState"]["Name"]) == ("running", "stopping")
    until(lambda: state(ec2, instance) == "stopped")
    assert "PublicIpAddress" not in describe(ec2, instance)
    assert not machine.running
    seen, gone = threading.Event(), threading.Event()
    run, destroy = cloud.ec2._run, machine.destroy
    monkeypatch.setattr(cloud.ec2, "_run", lambda *life: seen.wait(60) and run(*life))
    monkeypatch.setattr(machine, "destroy", lambda: gone.wait(60) and destroy())
    ec2.start_instances(InstanceIds=[instance])
    assert state(ec2, instance) == "pending"
    seen.set()
    until(lambda: state(ec2, instance) == "running")
    assert describe(ec2, instance)["PublicIpAddress"] != first
    ec2.terminate_instances(InstanceIds=[instance])
    assert state(ec2, instance) == "shutting-down"
    gone.set()
    until(lambda: state(ec2, instance) == "terminated")
    assert machine.done[-1] == "destroy"
    ec2.terminate_instances(InstanceIds=[instance])
    with pytest.raises(ClientError) as raised:
        ec2.start_instances(InstanceIds=[instance])
    assert raised.value.response["Error"]["Code"] == "IncorrectInstanceState"


def test_termination_while_pending_leaves_no_machine(
    cloud: Cloud,  # noqa: F811
    ec2: Any,
    template: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended = threading.Event()
    run = cloud.ec2._run
    monkeypatch.setattr(cloud.ec2, "_run", lambda *life: ended.wait(60) and run(*life))
    asked = fleet(template, {"InstanceType": "t3.medium", "SubnetId": cloud.subnet_ids[0]})
    instance_id = ec2.create_fleet(**asked)["Instances"][0]["InstanceIds"][0]
    ec2.terminate_instances(InstanceIds=[instance_id])
    ended.set()
    until(lambda: state(ec2, instance_id) == "terminated")
    machine = cloud.fake_machines.machines.get(instance_id)  # type: ignore[attr-defined]
    assert machine is None or (machine.done[-1] == "destroy" and "boot" not in machine.done)


def test_a_machine_that_powers_itself_off_stops_its_instance(
    cloud: Cloud,  # noqa: F811
    ec2: Any,
    instance: str,
) -> None:
    machine = cloud.fake_machines.machines[instance]  # type: ignore[attr-defined]
    until(lambda: machine.running)
    machine.power_off_from_inside()
    until(lambda: state(ec2, instance) == "stopped")
    assert describe(ec2, instance)["StateReason"]["Code"] == "Client.InstanceInitiatedShutdown"


def test_every_change_of_state_is_an_event(cloud: Cloud, ec2: Any, template: str) -> None:  # noqa: F811
    pattern = {"source": ["aws.ec2"], "detail-type": ["EC2 Instance State-change Notification"]}
    events = Events(cloud, "ec2-events", pattern)
    asked = fleet(template, {"InstanceType": "t3.medium", "SubnetId": cloud.subnet_ids[0]})
    instance_id = ec2.create_fleet(**asked)["Instances"][0]["InstanceIds"][0]
    until(lambda: state(ec2, instance_id) == "running")
    ec2.terminate_instances(InstanceIds=[instance_id])

    def states() -> set[str]:
        return {e["detail"]["state"] for e in events.take() if e["detail"]["instance-id"] == instance_id}

    until(lambda: states() == {"pending", "running", "shutting-down", "terminated"})
    event = next(e for e in events.seen if e["detail"]["instance-id"] == instance_id)
    assert event["resources"] == [f"arn:aws:ec2:us-east-1:123456789012:instance/{instance_id}"]
    assert event["account"] == "123456789012"


def test_an_instance_is_lost_by_the_fault(cloud: Cloud, ec2: Any, template: str) -> None:  # noqa: F811
    cloud.faults.on("instance_lost")
    asked = fleet(template, {"InstanceType": "t3.medium", "SubnetId": cloud.subnet_ids[0]})
    instance_id = ec2.create_fleet(**asked)["Instances"][0]["InstanceIds"][0]
    (disk,) = disks_of(ec2, instance_id)
    until(lambda: state(ec2, instance_id) == "terminated", 6)
    assert describe(ec2, instance_id)["StateReason"]["Code"] == "Server.InternalError"
    assert not is_there(ec2, disk), "EC2 deletes with an instance what it would delete with one that was terminated"


def test_the_metadata_names_the_instance(cloud: Cloud, ec2: Any, instance: str) -> None:  # noqa: F811
    machine = cloud.fake_machines.machines[instance]  # type: ignore[attr-defined]
    ask = machine.metadata
    assert ask("latest/meta-data/instance-id") == instance
    assert ask("latest/meta-data/public-ipv4") == describe(ec2, instance)["PublicIpAddress"]
    assert ask("latest/meta-data/public-hostname") is None
    assert ask("latest/meta-data/placement/availability-zone") == "us-east-1a"
    assert ask("latest/meta-data/placement/region") == "us-east-1"
    assert ask("latest/meta-data/tags/instance") is None
    role = ask("latest/meta-data/iam/security-credentials/")
    assert role == "nod-local-notebook"
    credentials = json.loads(ask(f"latest/meta-data/iam/security-credentials/{role}"))
    assert credentials["Code"] == "Success"
    assert credentials["Expiration"].endswith("Z")
    assert json.loads(ask("latest/dynamic/instance-identity/document"))["instanceId"] == instance
    assert "instance-id" in ask("latest/meta-data/").split("\n")


def test_a_full_disk_by_the_fault(cloud: Cloud, ec2: Any, template: str) -> None:  # noqa: F811
    cloud.faults.on("disk_full")
    asked = fleet(template, {"InstanceType": "t3.medium", "SubnetId": cloud.subnet_ids[0]})
    instance_id = ec2.create_fleet(**asked)["Instances"][0]["InstanceIds"][0]
    disks = cloud.fake_machines.disks  # type: ignore[attr-defined]
    assert until(lambda: disks.get(instance_id)) is not None
    ec2.terminate_instances(InstanceIds=[instance_id])
