"""`make destroy`: refuses while notebooks exist, leaves nothing that bills, touches nothing of another deployment."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.exceptions import ClientError

from deploy import deployment
from deploy.destroy import FORCE, destroy
from deploy.errors import InputError, LeftError, StackError
from deploy.inputs import Wishes
from deploy.stack import DEAD
from tests.aws.fake_aws import ACCOUNT, REGION, FakeAws, account, in_turn, refusal
from tests.aws.test_deploy_stack import GONE, Told, cloud, described, event, events

WHEN = datetime(2026, 1, 1, tzinfo=UTC)
LAUNCH = f"arn:aws:states:{REGION}:{ACCOUNT}:stateMachine:nod-prod-launch"
GATEWAY_ROLE = f"nod-prod-gateway-logs-{REGION}"
PROFILE = f"arn:aws:iam::{ACCOUNT}:instance-profile/nod-prod-notebook"
COMMAND = f"make destroy STAGE=prod REGION={REGION}"
GATEWAY_POLICY = "arn:aws:iam::aws:policy/service-role/AmazonAPIGatewayPushToCloudWatchLogs"


class World:
    """A deployment `prod` in an account, beside one called `prod-eu`: what is there, and AWS over it."""

    def __init__(self) -> None:
        self.stack: str | None = "CREATE_COMPLETE"
        self.tables = {"nod-prod-notebooks": True, "nod-prod-users": False, "nod-prod-eu-notebooks": True}
        self.notebooks: list[tuple[str, str]] = []
        self.machine_of: dict[str, str] = {}
        """By notebook."""
        self.instances: set[str] = set()
        """Of them those with the tag; then those with the instance profile alone, and those with neither."""
        self.untagged: set[str] = set()
        self.stripped: set[str] = set()
        self.mistagged: dict[str, str] = {}
        """The tag of machines with our instance profile."""
        self.hung: dict[str, str] = {}
        """The machine of disks without the tag; of those that stay when it is terminated, nothing."""
        self.stay: set[str] = set()
        self.refused: dict[str, ClientError] = {}
        """What EC2 says to who terminates a machine."""
        self.volumes: set[str] = set()
        self.snapshots: set[str] = set()
        self.addresses: set[str] = set()
        self.parameters = {"/nod/prod/slack/team", "/nod/prod-eu/slack/team"}
        self.groups = {"/aws/lambda/nod-prod-api", "/aws/lambda/nod-prod-eu-api", "/aws/lambda/nod-prod-eu-sweep"}
        self.executions = {"arn:execution:1"}
        self.bucket: set[str] | None = {"a.zip"}
        self.gateway_role: str | None = f"arn:aws:iam::{ACCOUNT}:role/{GATEWAY_ROLE}"
        self.roles = {GATEWAY_ROLE}
        self.apis: list[str] = []
        self.protocols: list[str] = []
        """Of the APIs that are no REST APIs."""
        self.on_delete: Any = lambda: None
        self.slept: list[float] = []
        self.aws = FakeAws(self._answers())

    def destroy(self, force: str = "") -> list[str]:
        lines: list[str] = []
        destroy(self.aws, "", "prod", force, sleep=self.slept.append, say=lines.append)
        return lines

    def machines(self) -> set[str]:
        return self.instances | self.untagged | self.stripped | self.mistagged.keys()

    def _answers(self) -> dict[str, Any]:
        def stacks(_: Any) -> Any:
            if self.stack is None:
                return refusal("ValidationError", "Stack with id nod-prod does not exist")
            status = self.stack
            if status == "DELETE_COMPLETE":
                self.stack = None
            return {
                "Stacks": [{"StackId": "arn:1", "StackName": "nod-prod", "CreationTime": WHEN, "StackStatus": status}]
            }

        def delete_stack(_: Any) -> Any:
            # The tables of a stack that was up are left. As DynamoDB: what is protected is not deleted.
            never_up, protected = self.stack in DEAD, self.tables.get("nod-prod-notebooks")
            self.stack = "DELETE_FAILED" if never_up and protected else "DELETE_COMPLETE"
            if never_up and not protected:
                self.tables = {name: value for name, value in self.tables.items() if "-eu-" in name}
            self.groups.discard("/aws/lambda/nod-prod-api") if self.stack == "DELETE_COMPLETE" else None
            self.on_delete()
            return {}

        def table(asked: dict[str, Any]) -> Any:
            name = asked["TableName"]
            if name not in self.tables:
                return refusal("ResourceNotFoundException")
            return {
                "Table": {"TableName": name, "TableStatus": "ACTIVE", "DeletionProtectionEnabled": self.tables[name]}
            }

        def update_table(asked: dict[str, Any]) -> Any:
            self.tables[asked["TableName"]] = asked["DeletionProtectionEnabled"]
            return {}

        def delete_table(asked: dict[str, Any]) -> Any:
            assert not self.tables.pop(asked["TableName"]), "it is protected"
            return {}

        def instances(asked: dict[str, Any]) -> Any:
            if "InstanceIds" in asked:
                gone = [{"InstanceId": one, "State": {"Name": "terminated"}} for one in asked["InstanceIds"]]
                return {"Reservations": [{"Instances": gone}]}
            by, states = asked["Filters"]
            assert states["Name"] == "instance-state-name"
            if by["Name"] == "tag:nod:deployment":
                assert by["Values"] == ["prod"]
                found = self.instances
            elif by["Name"] == "iam-instance-profile.arn":
                assert by["Values"] == [PROFILE]
                found = self.instances | self.untagged | self.mistagged.keys()
            else:
                assert by["Name"] == "instance-id"
                found = self.machines() & set(by["Values"])
            return {"Reservations": [{"Instances": [machine(one) for one in sorted(found)]}]}

        def machine(name: str) -> dict[str, Any]:
            tag = self.mistagged.get(name) or ("prod" if name in self.instances else None)
            return {
                "InstanceId": name,
                "Tags": [{"Key": "nod:deployment", "Value": tag}] if tag else [],
                "BlockDeviceMappings": [
                    {"DeviceName": "/dev/sda1", "Ebs": {"VolumeId": disk}}
                    for disk, holder in self.hung.items()
                    if holder == name
                ],
            }

        def terminate(asked: dict[str, Any]) -> Any:
            names = set(asked["InstanceIds"])
            if kept := sorted(names & self.refused.keys()):
                return self.refused[kept[0]]
            self.instances, self.untagged, self.stripped = (
                some - names for some in (self.instances, self.untagged, self.stripped)
            )
            goes = {disk for disk, holder in self.hung.items() if holder in names and disk not in self.stay}
            self.hung = {
                disk: "" if holder in names else holder for disk, holder in self.hung.items() if disk not in goes
            }
            return {}

        def volumes(asked: dict[str, Any]) -> Any:
            (by,) = asked["Filters"]
            if by["Name"] == "tag:nod:deployment":
                return listed("volumes", "VolumeId", "Volumes")(asked)
            assert by["Name"] == "volume-id"
            disks = [(disk, holder) for disk, holder in self.hung.items() if disk in by["Values"]]
            return {
                "Volumes": [{"VolumeId": disk, "State": "in-use" if holder else "available"} for disk, holder in disks]
            }

        def row(name: str, state: str) -> dict[str, Any]:
            text = {"id": name, "name": "thesis", "owner": "ada", "state": state}
            text |= {"instance_id": self.machine_of[name]} if name in self.machine_of else {}
            return {key: {"S": value} for key, value in text.items()}

        def listed(name: str, key: str, extra: str) -> Any:
            def answer(asked: dict[str, Any]) -> Any:
                assert asked["Filters"] == [{"Name": "tag:nod:deployment", "Values": ["prod"]}]
                return {extra: [{key: one} for one in sorted(getattr(self, name))]}

            return answer

        def removed(name: str, key: str) -> Any:
            def answer(asked: dict[str, Any]) -> Any:
                getattr(self, name).remove(asked[key])
                return {}

            return answer

        def parameters(asked: dict[str, Any]) -> Any:
            return {"Parameters": [{"Name": one} for one in sorted(self.parameters) if one.startswith(asked["Path"])]}

        def delete_parameters(asked: dict[str, Any]) -> Any:
            self.parameters -= set(asked["Names"])
            return {}

        def groups(asked: dict[str, Any]) -> Any:
            prefix = asked["logGroupNamePrefix"]
            return {"logGroups": [{"logGroupName": one} for one in sorted(self.groups) if one.startswith(prefix)]}

        def stop(asked: dict[str, Any]) -> Any:
            self.executions.remove(asked["executionArn"])
            return {"stopDate": WHEN}

        def head_bucket(_: Any) -> Any:
            return refusal("404") if self.bucket is None else {}

        def delete_objects(asked: dict[str, Any]) -> Any:
            assert self.bucket is not None
            self.bucket -= {one["Key"] for one in asked["Delete"]["Objects"]}
            return {}

        def delete_bucket(_: Any) -> Any:
            assert self.bucket == set(), "S3 does not delete a bucket with objects"
            self.bucket = None
            return {}

        def role(asked: dict[str, Any]) -> Any:
            name = asked["RoleName"]
            if name not in self.roles:
                return refusal("NoSuchEntity")
            return {
                "Role": {
                    "Path": "/",
                    "RoleName": name,
                    "RoleId": "AROAEXAMPLEEXAMPLE00",
                    "Arn": f"arn:aws:iam::{ACCOUNT}:role/{name}",
                    "CreateDate": WHEN,
                }
            }

        def update_account(_: Any) -> Any:
            self.gateway_role = None
            return {}

        def apis(asked: dict[str, Any]) -> Any:
            # One a page.
            at = int(asked.get("NextToken", 0))
            items = [
                {"ApiId": kind, "Name": kind, "ProtocolType": kind, "RouteSelectionExpression": "$request.body.action"}
                for kind in self.protocols[at : at + 1]
            ]
            return {"Items": items} | ({"NextToken": str(at + 1)} if at + 1 < len(self.protocols) else {})

        return {
            "sts:GetCallerIdentity": {"Account": ACCOUNT, "Arn": f"arn:aws:iam::{ACCOUNT}:user/ada"},
            "cloudformation:DescribeStacks": stacks,
            "cloudformation:DescribeStackEvents": {"StackEvents": []},
            "cloudformation:DeleteStack": delete_stack,
            "cloudformation:ListStackResources": {
                "StackResourceSummaries": [
                    {
                        "LogicalResourceId": kind.rsplit(":", 1)[-1],
                        "PhysicalResourceId": name,
                        "ResourceType": kind,
                        "LastUpdatedTimestamp": WHEN,
                        "ResourceStatus": "CREATE_COMPLETE",
                    }
                    for kind, name in (
                        ("AWS::Logs::LogGroup", "/aws/lambda/nod-prod-api"),
                        ("AWS::StepFunctions::StateMachine", LAUNCH),
                    )
                ]
            },
            "dynamodb:DescribeTable": table,
            "dynamodb:UpdateTable": update_table,
            "dynamodb:DeleteTable": delete_table,
            "dynamodb:Scan": lambda _: {"Items": [row(*one) for one in self.notebooks]},
            "ec2:DescribeInstances": instances,
            "ec2:TerminateInstances": terminate,
            "ec2:DescribeVolumes": volumes,
            "ec2:DescribeSnapshots": listed("snapshots", "SnapshotId", "Snapshots"),
            "ec2:DescribeAddresses": listed("addresses", "AllocationId", "Addresses"),
            "ec2:DeleteVolume": removed("volumes", "VolumeId"),
            "ec2:DeleteSnapshot": removed("snapshots", "SnapshotId"),
            "ec2:ReleaseAddress": removed("addresses", "AllocationId"),
            "ssm:GetParametersByPath": parameters,
            "ssm:DeleteParameters": delete_parameters,
            "logs:DescribeLogGroups": groups,
            "logs:DeleteLogGroup": removed("groups", "logGroupName"),
            "stepfunctions:ListExecutions": lambda asked: {
                "executions": [
                    {
                        "executionArn": one,
                        "stateMachineArn": asked["stateMachineArn"],
                        "name": "nb",
                        "status": "RUNNING",
                        "startDate": WHEN,
                    }
                    for one in sorted(self.executions)
                ]
            },
            "stepfunctions:StopExecution": stop,
            "s3:HeadBucket": head_bucket,
            "s3:ListObjectVersions": lambda _: {
                "Versions": [{"Key": key, "VersionId": "null"} for key in sorted(self.bucket or ())]
            },
            "s3:DeleteObjects": delete_objects,
            "s3:DeleteBucket": delete_bucket,
            "iam:GetRole": role,
            "iam:ListAttachedRolePolicies": {"AttachedPolicies": [{"PolicyName": "p", "PolicyArn": GATEWAY_POLICY}]},
            "iam:DetachRolePolicy": {},
            "iam:DeleteRole": removed("roles", "RoleName"),
            "apigateway:GetAccount": lambda _: {"cloudwatchRoleArn": self.gateway_role} if self.gateway_role else {},
            "apigateway:GetRestApis": lambda _: {"items": [{"id": one} for one in self.apis]},
            "apigateway:UpdateAccount": update_account,
            "apigatewayv2:GetApis": apis,
        }

    def is_gone(self) -> bool:
        """Nothing of prod is left, and all of prod-eu is there."""
        assert self.tables == {"nod-prod-eu-notebooks": True}
        assert self.parameters == {"/nod/prod-eu/slack/team"}
        assert self.groups == {"/aws/lambda/nod-prod-eu-api", "/aws/lambda/nod-prod-eu-sweep"}
        return self.stack is None and self.bucket is None and not self.machines() | self.volumes


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr("time.sleep", lambda _: None)  # of botocore's waiters
    return World()


def test_a_deployment_without_notebooks_goes_with_all_that_bills(world: World) -> None:
    world.notebooks = [("nb-1", "terminated"), ("nb-2", "failed")]
    lines = world.destroy()
    assert world.is_gone()
    assert lines[-1].startswith("Nothing is left that bills. Looked for: stack, machines, disks")
    assert ACCOUNT in lines[0]
    assert world.gateway_role is None and world.roles == set()


@pytest.mark.parametrize("state", ["requested", "launching", "ready", "stopping", "stopped", "starting", "terminating"])
def test_it_is_refused_while_a_notebook_exists(world: World, state: str) -> None:
    world.notebooks = [("nb-1", state)]
    with pytest.raises(LeftError, match=rf"nb-1 \(thesis of ada, {state}\)[^$]*FORCE={FORCE}"):
        world.destroy()
    assert world.aws.changes() == []


@pytest.mark.parametrize("what", ["instances", "untagged", "volumes", "snapshots", "addresses"])
def test_it_is_refused_while_something_exists_that_no_record_knows(world: World, what: str) -> None:
    getattr(world, what).add("x-1")
    with pytest.raises(LeftError, match="x-1"):
        world.destroy()
    assert world.aws.changes() == []


@pytest.mark.parametrize("word", ["yes", "1", "true", "YES-DELETE-NOTEBOOKS"])
def test_another_word_does_not_force_it(world: World, word: str) -> None:
    world.notebooks = [("nb-1", "ready")]
    with pytest.raises(LeftError):
        world.destroy(word)
    assert world.aws.changes() == []


def test_forced_it_takes_the_notebooks_too(world: World) -> None:
    world.notebooks = [("nb-1", "ready")]
    world.instances, world.volumes = {"i-1", "i-2"}, {"vol-1"}
    world.snapshots, world.addresses = {"snap-1"}, {"eipalloc-1"}
    world.destroy(FORCE)
    assert world.is_gone()
    assert world.executions == world.snapshots == world.addresses == set()
    changes = world.aws.changes()
    assert changes.index("stepfunctions:StopExecution") < changes.index("ec2:TerminateInstances")
    assert changes.index("ec2:TerminateInstances") < changes.index("cloudformation:DeleteStack")


def test_a_machine_that_a_launch_made_meanwhile_is_taken_too(world: World) -> None:
    world.on_delete = lambda: world.instances.add("i-late")
    world.destroy(FORCE)
    assert world.is_gone()


def test_what_is_left_is_named_and_the_command_fails(world: World) -> None:
    world.aws.answers["ssm:DeleteParameters"] = {}
    with pytest.raises(LeftError, match=rf"parameters: /nod/prod/slack/team\s[^$]*run this again: {COMMAND}$"):
        world.destroy()


# --- machines and disks without the tag ---


@pytest.mark.parametrize("what", ["untagged", "stripped"])
def test_a_machine_without_the_tag_stands_in_the_way_and_goes_when_forced(world: World, what: str) -> None:
    world.notebooks, world.machine_of = [("nb-1", "ready")], {"nb-1": "i-1"}
    getattr(world, what).add("i-1")
    world.hung = {"vol-1": "i-1"}
    with pytest.raises(LeftError, match=r"machine i-1\s+disk vol-1"):
        world.destroy()
    assert world.aws.changes() == []
    assert world.destroy(FORCE)[-1].startswith("Nothing is left that bills")
    assert world.is_gone()


@pytest.mark.parametrize("what", ["untagged", "stripped"])
def test_a_machine_without_the_tag_is_looked_for_to_the_end(world: World, what: str) -> None:
    world.notebooks, world.machine_of = [("nb-1", "ready")], {"nb-1": "i-1"}
    getattr(world, what).add("i-1")
    world.aws.answers["ec2:TerminateInstances"] = {}
    with pytest.raises(LeftError, match=rf"machines: i-1\s[^$]*{COMMAND} FORCE={FORCE}"):
        world.destroy(FORCE)
    assert world.tables == {"nod-prod-eu-notebooks": True}, "the record is gone by then"


def test_the_machine_of_a_notebook_that_is_deleted_is_not_asked_for(world: World) -> None:
    world.notebooks, world.machine_of = [("nb-1", "terminated"), ("nb-2", "failed")], {"nb-1": "i-1", "nb-2": "i-2"}
    world.destroy()
    assert not any(one["Name"] == "instance-id" for asked in filters(world) for one in asked)


def filters(world: World) -> list[Any]:
    return [asked.get("Filters", []) for asked in world.aws.called("ec2:DescribeInstances")]


def test_more_machines_than_a_filter_takes_are_asked_for_in_parts(world: World) -> None:
    names = [f"nb-{number}" for number in range(450)]
    world.notebooks = [(name, "stopped") for name in names]
    world.machine_of = {name: f"i-{name}" for name in names}
    world.stripped = set(world.machine_of.values())
    world.destroy(FORCE)
    assert world.is_gone()
    assert max(len(one["Values"]) for asked in filters(world) for one in asked) == 200


def test_a_machine_with_another_deployments_tag_is_not_guessed_at(world: World) -> None:
    world.mistagged = {"i-1": "prod-eu"}
    for force in ("", FORCE):
        with pytest.raises(LeftError, match=r"Nothing is touched[^$]*i-1: nod:deployment is 'prod-eu'[^$]*Give them"):
            world.destroy(force)
    assert world.aws.changes() == []


@pytest.mark.parametrize("code", ["UnauthorizedOperation", "OperationNotPermitted"])
def test_a_machine_that_may_not_be_terminated_holds_no_other_and_is_named(world: World, code: str) -> None:
    world.notebooks, world.machine_of = [("nb-1", "ready")], {"nb-1": "i-2"}
    world.instances, world.stripped = {"i-1", "i-3"}, {"i-2"}
    words = "You may not. Encoded authorization failure message: aGFsZiBhIHBhZ2U"
    world.refused = {"i-2": refusal(code, words)}
    with pytest.raises(LeftError) as caught:
        world.destroy(FORCE)
    assert f"i-2 ({code}: You may not)" in str(caught.value) and "aGFsZ" not in str(caught.value)
    assert f"aws ec2 terminate-instances --region {REGION} --instance-ids i-2" in str(caught.value)
    assert world.machines() == {"i-2"}
    assert "cloudformation:DeleteStack" not in world.aws.changes(), "the record says whose it is"


def test_another_refusal_of_ec2_is_not_taken_for_it(world: World) -> None:
    world.instances = {"i-1", "i-2"}
    world.refused = {"i-1": refusal("AuthFailure")}
    with pytest.raises(ClientError, match="AuthFailure"):
        world.destroy(FORCE)


def test_a_disk_without_the_tag_that_outlives_its_machine_is_left_and_named(world: World) -> None:
    world.untagged, world.hung, world.stay = {"i-1"}, {"vol-1": "i-1", "vol-2": "i-1"}, {"vol-2"}
    with pytest.raises(LeftError) as caught:
        world.destroy(FORCE)
    assert f"aws ec2 delete-volume --region {REGION} --volume-id vol-2" in str(caught.value)
    assert "vol-1" not in str(caught.value) and "Still there" not in str(caught.value)
    assert not world.aws.called("ec2:DeleteVolume")
    assert world.is_gone(), "all else is"


# --- what AWS does not delete at once ---


def times(refused: int, error: ClientError, then: Callable[[dict[str, Any]], Any]) -> Callable[[dict[str, Any]], Any]:
    left = [error] * refused
    return lambda asked: left.pop() if left else then(asked)


@pytest.mark.parametrize(
    ("operation", "what", "code"),
    [
        ("DeleteVolume", "volumes", "VolumeInUse"),
        ("DeleteVolume", "volumes", "IncorrectState"),
        ("ReleaseAddress", "addresses", "InvalidIPAddress.InUse"),
    ],
)
def test_what_hangs_on_for_a_while_is_tried_again(world: World, operation: str, what: str, code: str) -> None:
    getattr(world, what).add("x-1")
    answers = world.aws.answers
    then = answers[f"ec2:{operation}"]
    assert callable(then)
    answers[f"ec2:{operation}"] = times(3, refusal(code), then)
    world.destroy(FORCE)
    assert world.is_gone() and getattr(world, what) == set()
    assert world.slept == [5, 5, 5]
    getattr(world, what).add("x-2")
    answers[f"ec2:{operation}"] = refusal(code, "is attached to i-9")
    world.slept.clear()
    with pytest.raises(LeftError, match=rf"x-2 \({code}: is attached to i-9\)[^$]*run this again: {COMMAND} FORCE="):
        world.destroy(FORCE)
    assert sum(world.slept) == 2 * 60, "before and after the stack"
    assert world.tables == {"nod-prod-eu-notebooks": True}


def test_a_disk_that_goes_with_its_machine_is_waited_for(world: World) -> None:
    world.untagged, world.hung = {"i-1"}, {"vol-1": "i-1"}
    seen = iter([["in-use"], ["in-use"], ["in-use"], ["deleting"]])
    listed = world.aws.answers["ec2:DescribeVolumes"]
    assert callable(listed)

    def volumes(asked: dict[str, Any]) -> Any:
        if asked["Filters"][0]["Name"] != "volume-id":
            return listed(asked)
        return {"Volumes": [{"VolumeId": "vol-1", "State": state} for state in next(seen, [])]}

    world.aws.answers["ec2:DescribeVolumes"] = volumes
    assert world.destroy(FORCE)[-1].startswith("Nothing is left that bills")
    assert world.slept == [5, 5, 5]


def test_a_disk_that_is_being_deleted_is_not_deleted_and_does_not_bill(world: World) -> None:
    state = {"Volumes": [{"VolumeId": "vol-1", "State": "deleting"}]}
    world.aws.answers["ec2:DescribeVolumes"] = lambda _: state
    world.destroy()
    assert world.is_gone()


def test_a_snapshot_of_an_image_is_named(world: World) -> None:
    world.snapshots = {"snap-1", "snap-2"}
    then = world.aws.answers["ec2:DeleteSnapshot"]
    assert callable(then)
    error = refusal("InvalidSnapshot.InUse", "The snapshot snap-1 is currently in use by ami-1")
    world.aws.answers["ec2:DeleteSnapshot"] = lambda asked: error if asked["SnapshotId"] == "snap-1" else then(asked)
    with pytest.raises(LeftError, match=r"snapshots: snap-1 \(InvalidSnapshot.InUse: [^$]* in use by ami-1\)"):
        world.destroy(FORCE)
    assert world.snapshots == {"snap-1"} and world.slept == []


# --- a launch that begins meanwhile ---


def test_a_launch_that_began_meanwhile_keeps_its_record(world: World) -> None:
    def launch() -> None:
        world.notebooks.append(("nb-9", "launching"))
        world.instances.add("i-9")

    world.on_delete = launch
    with pytest.raises(
        LeftError, match=rf"began[^$]*nb-9 \(thesis of ada, launching\)\s+machine i-9[^$]*{COMMAND} FORCE="
    ):
        world.destroy()
    assert world.tables["nod-prod-notebooks"] is True and "nod-prod-users" in world.tables, "there, and protected"
    assert world.bucket is not None
    world.destroy(FORCE)
    assert world.is_gone()


def held(world: World) -> Callable[[dict[str, Any]], Any]:
    """As EC2: the security group of a machine that is there is not deleted, and so the stack is not."""
    delete = world.aws.answers["cloudformation:DeleteStack"]
    assert callable(delete)
    launched: list[str] = []

    def answer(asked: dict[str, Any]) -> Any:
        if not launched:
            launched.append("i-9")
            world.untagged.add("i-9")
        if world.machines():
            world.stack = "DELETE_FAILED"
            return {}
        return delete(asked)

    return answer


def test_a_launch_that_holds_the_stack_is_taken_too_when_forced(world: World) -> None:
    world.aws.answers["cloudformation:DeleteStack"] = held(world)
    world.destroy(FORCE)
    assert world.is_gone()


def test_a_launch_that_holds_the_stack_is_named(world: World) -> None:
    world.aws.answers["cloudformation:DeleteStack"] = held(world)
    with pytest.raises(LeftError, match=rf"DELETE_FAILED[^$]*machine i-9[^$]*{COMMAND} FORCE={FORCE}"):
        world.destroy()
    assert "nod-prod-notebooks" in world.tables


def test_workflows_that_are_deleted_already_do_not_stand_in_the_way(world: World) -> None:
    world.stack = "DELETE_FAILED"
    world.aws.answers["stepfunctions:ListExecutions"] = refusal("StateMachineDoesNotExist")
    world.destroy(FORCE)
    assert world.is_gone()


# --- a first deployment that failed ---


def test_what_is_said_of_a_first_deployment_that_failed_leads_to_the_next_one(world: World) -> None:
    protected = "Resource cannot be deleted as it is currently protected against deletion."
    told = Told(
        cloud(
            cloudformation__DescribeStacks=in_turn(
                GONE, described("ROLLBACK_IN_PROGRESS"), described("ROLLBACK_FAILED")
            ),
            cloudformation__DescribeStackEvents=in_turn(
                GONE,
                events(
                    event(1, "FailedEvents", "CREATE_FAILED", "Queue exists"),
                    event(2, "NotebooksTable", "DELETE_FAILED", protected),
                    event(3, "nod-prod", "ROLLBACK_FAILED"),
                ),
            ),
        )
    )
    with pytest.raises(StackError) as caught:
        told.stack.deploy("https://template", {})
    said = str(caught.value)
    # What is to be put right is what failed, not what could not be taken back.
    assert "FailedEvents (AWS::SNS::Topic): Queue exists" in said and protected not in said
    assert "could not take back NotebooksTable; make destroy does" in said
    # Whoever deploys again instead is told the same.
    world.stack, world.roles = "ROLLBACK_FAILED", set()
    asked = Wishes("prod", ("198.51.100.0/24",), None, {})
    with pytest.raises(StackError, match=COMMAND):
        deployment.look(world.aws, "", asked, lambda _: None)
    command = re.search(r"make destroy STAGE=(\S+) REGION=([a-z0-9-]+), put right", said)
    assert command
    assert world.tables["nod-prod-notebooks"] is True
    destroy(world.aws, command[2], command[1], "", sleep=lambda _: None, say=lambda _: None)
    assert world.is_gone() and world.gateway_role is None
    again = FakeAws(account() | world.aws.answers)
    assert deployment.look(again, "", asked, lambda _: None).parameters["GatewayLogs"] == "create"


def test_a_stack_that_never_was_up_goes(world: World) -> None:
    world.stack = "ROLLBACK_FAILED"
    world.destroy()
    assert world.is_gone()


def test_what_a_stack_left_that_was_deleted_by_hand_goes(world: World) -> None:
    world.stack, world.groups = None, world.groups - {"/aws/lambda/nod-prod-api"}
    world.destroy()
    assert world.is_gone()


def test_twice_is_once(world: World) -> None:
    world.destroy()
    before = world.aws.changes()
    lines = world.destroy()
    assert world.is_gone()
    assert world.aws.changes() == before
    assert lines[-1].startswith(f"There is no deployment prod in {REGION}. ") and "Nothing is left" not in lines[-1]


# --- where there is none ---


def nowhere(world: World) -> World:
    """As another region of the account is, or one in which the deployment was destroyed."""
    world.stack, world.bucket, world.gateway_role = None, None, None
    world.tables, world.parameters, world.roles = {"nod-prod-eu-notebooks": True}, {"/nod/prod-eu/slack/team"}, set()
    world.groups.discard("/aws/lambda/nod-prod-api")
    return world


@pytest.mark.parametrize("force", ["", FORCE])
def test_where_no_deployment_is_that_is_said_and_nothing_is_touched(world: World, force: str) -> None:
    lines = nowhere(world).destroy(force)
    assert re.search(rf"There is no deployment prod in {REGION}\. [^$]*bucket[^$]*REGION=", lines[-1])
    assert world.aws.changes() == []


@pytest.mark.parametrize("force", ["", FORCE])
def test_a_deployment_of_another_region_is_not_taken_for_destroyed(world: World, force: str) -> None:
    nowhere(world).roles = {deployment.notebook_role("prod")}
    words = (
        rf"no deployment prod in {REGION}, so nothing[^$]*nod-prod-notebook[^$]*another region[^$]*STAGE=prod REGION="
    )
    with pytest.raises(LeftError, match=words):
        world.destroy(force)
    assert world.aws.changes() == []


@pytest.mark.parametrize(
    ("what", "left"),
    [
        ("tables", {"nod-prod-users": False, "nod-prod-eu-notebooks": True}),
        ("parameters", {"/nod/prod/slack/team", "/nod/prod-eu/slack/team"}),
        ("bucket", {"a.zip"}),
        ("stack", "REVIEW_IN_PROGRESS"),
    ],
)
def test_one_thing_that_is_left_is_a_deployment_to_destroy(world: World, what: str, left: Any) -> None:
    setattr(nowhere(world), what, left)
    lines = world.destroy()
    assert lines[-1].startswith("Nothing is left that bills")
    assert world.is_gone()


def test_the_role_that_an_earlier_run_had_to_leave_goes_with_the_next(world: World) -> None:
    world.apis = ["other"]
    world.destroy()
    assert "stays" in world.destroy()[-1] and world.roles == {GATEWAY_ROLE}
    world.apis = []
    world.destroy()
    assert world.gateway_role is None and world.roles == set()


def test_a_stack_that_cannot_be_deleted_is_said(world: World) -> None:
    world.aws.answers["cloudformation:DeleteStack"] = lambda _: setattr(world, "stack", "DELETE_FAILED") or {}
    with pytest.raises(StackError, match="DELETE_FAILED"):
        world.destroy()
    # The data is there as long as the stack is.
    assert "nod-prod-notebooks" in world.tables


def test_gateway_logs_stay_while_another_api_may_write_them(world: World) -> None:
    world.apis = ["other"]
    lines = world.destroy()
    assert world.gateway_role is not None and world.roles == {GATEWAY_ROLE}
    assert "stays" in lines[-1]


@pytest.mark.parametrize(
    ("protocols", "stays"), [(["WEBSOCKET"], True), (["HTTP", "HTTP", "WEBSOCKET"], True), (["HTTP", "HTTP"], False)]
)
def test_gateway_logs_stay_while_a_websocket_api_may_write_them(
    world: World, protocols: list[str], stays: bool
) -> None:
    """They log by the same setting of the account; HTTP APIs do not."""
    world.protocols = protocols
    lines = world.destroy()
    assert (world.gateway_role is not None, world.roles == {GATEWAY_ROLE}, "stays" in lines[-1]) == (stays,) * 3


@pytest.mark.parametrize("apis", [[], ["other"]])
def test_gateway_logs_through_a_role_that_is_gone_are_taken_back(world: World, apis: list[str]) -> None:
    world.roles, world.apis = set(), apis
    lines = world.destroy()
    assert world.gateway_role is None
    assert "stays" not in lines[-1]


def test_gateway_logs_of_a_sibling_are_left_alone(world: World) -> None:
    world.gateway_role = f"arn:aws:iam::{ACCOUNT}:role/nod-prod-eu-gateway-logs-{REGION}"
    world.destroy()
    assert world.gateway_role is not None and world.roles == set()


def test_gateway_logs_of_somebody_else_are_left_alone(world: World) -> None:
    world.gateway_role = "arn:aws:iam::1:role/theirs"
    world.destroy()
    assert world.gateway_role == "arn:aws:iam::1:role/theirs"


def test_no_region_no_call() -> None:
    aws = FakeAws({}, region=None)
    with pytest.raises(InputError):
        destroy(aws, "", "prod", FORCE, sleep=lambda _: None, say=lambda _: None)
    assert aws.calls == []
