"""`make destroy`: refuses while notebooks exist, leaves nothing that bills, touches nothing of another deployment."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from deploy.destroy import FORCE, destroy
from deploy.errors import InputError, LeftError, StackError
from tests.aws.fake_aws import ACCOUNT, REGION, FakeAws, refusal

WHEN = datetime(2026, 1, 1, tzinfo=UTC)
LAUNCH = f"arn:aws:states:{REGION}:{ACCOUNT}:stateMachine:nod-prod-launch"
GATEWAY_ROLE = f"nod-prod-gateway-logs-{REGION}"
GATEWAY_POLICY = "arn:aws:iam::aws:policy/service-role/AmazonAPIGatewayPushToCloudWatchLogs"


class World:
    """A deployment `prod` in an account, beside one called `prod-eu`: what is there, and AWS over it."""

    def __init__(self) -> None:
        self.stack: str | None = "CREATE_COMPLETE"
        self.tables = {"nod-prod-notebooks": True, "nod-prod-users": False, "nod-prod-eu-notebooks": True}
        self.notebooks: list[tuple[str, str]] = []
        self.instances: set[str] = set()
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
        self.on_delete: Any = lambda: None
        self.aws = FakeAws(self._answers())

    def destroy(self, force: str = "") -> list[str]:
        lines: list[str] = []
        destroy(self.aws, "", "prod", force, sleep=lambda _: None, say=lines.append)
        return lines

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
            # As DynamoDB: what is protected is not deleted.
            self.stack = "DELETE_FAILED" if self.tables.get("nod-prod-notebooks") else "DELETE_COMPLETE"
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
                found = [{"InstanceId": one, "State": {"Name": "terminated"}} for one in asked["InstanceIds"]]
            else:
                assert {"Name": "tag:nod:deployment", "Values": ["prod"]} in asked["Filters"]
                found = [{"InstanceId": one} for one in sorted(self.instances)]
            return {"Reservations": [{"Instances": found}]}

        def terminate(asked: dict[str, Any]) -> Any:
            self.instances -= set(asked["InstanceIds"])
            return {}

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
            "dynamodb:Scan": lambda _: {
                "Items": [
                    {"id": {"S": name}, "name": {"S": "thesis"}, "owner": {"S": "ada"}, "state": {"S": state}}
                    for name, state in self.notebooks
                ]
            },
            "ec2:DescribeInstances": instances,
            "ec2:TerminateInstances": terminate,
            "ec2:DescribeVolumes": listed("volumes", "VolumeId", "Volumes"),
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
        }

    def is_gone(self) -> bool:
        """Nothing of prod is left, and all of prod-eu is there."""
        assert self.tables == {"nod-prod-eu-notebooks": True}
        assert self.parameters == {"/nod/prod-eu/slack/team"}
        assert self.groups == {"/aws/lambda/nod-prod-eu-api", "/aws/lambda/nod-prod-eu-sweep"}
        return self.stack is None and self.bucket is None and not self.instances | self.volumes


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


@pytest.mark.parametrize("what", ["instances", "volumes"])
def test_it_is_refused_while_a_machine_or_disk_exists_that_no_record_knows(world: World, what: str) -> None:
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
    world.on_delete = lambda: world.instances.add("i-late")
    with pytest.raises(LeftError, match="machines: i-late"):
        world.destroy()


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
    world.destroy()
    assert world.is_gone()


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


def test_gateway_logs_of_somebody_else_are_left_alone(world: World) -> None:
    world.gateway_role = "arn:aws:iam::1:role/theirs"
    world.destroy()
    assert world.gateway_role == "arn:aws:iam::1:role/theirs"


def test_no_region_no_call() -> None:
    aws = FakeAws({}, region=None)
    with pytest.raises(InputError):
        destroy(aws, "", "prod", FORCE, sleep=lambda _: None, say=lambda _: None)
    assert aws.calls == []
