"""`make destroy`: take a deployment away, with all that bills.

What is found is found by the tag `nod:deployment` and by whole names: `nod-prod-` begins the names of a stage
`prod-eu`, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from botocore.exceptions import ClientError, WaiterError

from deploy import account
from deploy.account import Identity
from deploy.bucket import PackageBucket
from deploy.deployment import table_names
from deploy.errors import LeftError
from deploy.stack import Stack

FORCE = "yes-delete-notebooks"
OVER = {"terminated", "failed"}
_ALIVE = ["pending", "running", "shutting-down", "stopping", "stopped"]
# TerminateInstances takes 1,000; DeleteParameters 10.
_AT_ONCE, _PARAMETERS_AT_ONCE = 500, 10


class Remains:
    """What a deployment has outside its stack. Takes a maker of clients for its region."""

    def __init__(self, client: Callable[[str], Any], stage: str, identity: Identity) -> None:
        self._ec2 = client("ec2")
        self._dynamodb = client("dynamodb")
        self._ssm = client("ssm")
        self._logs = client("logs")
        self._iam = client("iam")
        self._apigateway = client("apigateway")
        self._stepfunctions = client("stepfunctions")
        self._stage = stage
        self._identity = identity
        self._tagged = [{"Name": "tag:nod:deployment", "Values": [stage]}]

    def instances(self) -> list[str]:
        """Machines that are not terminated, by tag."""
        filters = [*self._tagged, {"Name": "instance-state-name", "Values": _ALIVE}]
        pages = self._ec2.get_paginator("describe_instances").paginate(Filters=filters)
        return [i["InstanceId"] for page in pages for one in page["Reservations"] for i in one["Instances"]]

    def volumes(self) -> list[str]:
        """Disks, by tag."""
        pages = self._ec2.get_paginator("describe_volumes").paginate(Filters=self._tagged)
        return [one["VolumeId"] for page in pages for one in page["Volumes"]]

    def snapshots(self) -> list[str]:
        """Snapshots of disks, by tag."""
        pages = self._ec2.get_paginator("describe_snapshots").paginate(OwnerIds=["self"], Filters=self._tagged)
        return [one["SnapshotId"] for page in pages for one in page["Snapshots"]]

    def addresses(self) -> list[str]:
        """Elastic IPs, by tag."""
        return [one["AllocationId"] for one in self._ec2.describe_addresses(Filters=self._tagged)["Addresses"]]

    def notebooks(self) -> list[str]:
        """Names of the notebooks that are not deleted or failed, by the records."""
        table = table_names(self._stage)[0]
        if not account.left_tables(self._dynamodb, [table]):
            return []
        pages = self._dynamodb.get_paginator("scan").paginate(
            TableName=table,
            ConsistentRead=True,
            ProjectionExpression="id, #name, #owner, #state",
            ExpressionAttributeNames={"#name": "name", "#owner": "owner", "#state": "state"},
        )
        return sorted(
            f"{one['id']['S']} ({one['name']['S']} of {one['owner']['S']}, {one['state']['S']})"
            for page in pages
            for one in page["Items"]
            if one["state"]["S"] not in OVER
        )

    def tables(self) -> list[str]:
        """Tables that outlive the stack."""
        return account.left_tables(self._dynamodb, table_names(self._stage))

    def parameters(self) -> list[str]:
        """Addresses of Slack channels."""
        pages = self._ssm.get_paginator("get_parameters_by_path").paginate(
            Path=f"/nod/{self._stage}/", Recursive=True, WithDecryption=False
        )
        return [one["Name"] for page in pages for one in page["Parameters"]]

    def log_groups(self, names: list[str]) -> list[str]:
        """Those of the groups that are there."""
        return [name for name in names if self._has_group(name)]

    def _has_group(self, name: str) -> bool:
        pages = self._logs.get_paginator("describe_log_groups").paginate(logGroupNamePrefix=name)
        return any(one["logGroupName"] == name for page in pages for one in page["logGroups"])

    def stop_workflows(self, machines: list[str]) -> int:
        """Stop what runs, so that no launch makes a machine meanwhile; how many."""
        stopped = 0
        for machine in machines:
            pages = self._stepfunctions.get_paginator("list_executions").paginate(
                stateMachineArn=machine, statusFilter="RUNNING"
            )
            for execution in [one["executionArn"] for page in pages for one in page["executions"]]:
                self._stepfunctions.stop_execution(executionArn=execution, error="Destroyed", cause="make destroy")
                stopped += 1
        return stopped

    def terminate(self, instances: list[str]) -> None:
        """Terminate machines and wait until they are gone. Raises LeftError."""
        for some in _batches(instances, _AT_ONCE):
            self._ec2.terminate_instances(InstanceIds=some)
        for some in _batches(instances, 100):
            try:
                self._ec2.get_waiter("instance_terminated").wait(InstanceIds=some)
            except WaiterError as error:
                raise LeftError(
                    f"Machines are not terminated yet ({error}). Run this again in some minutes."
                ) from error

    def remove_disks(self) -> None:
        """Remove disks, snapshots and addresses."""
        for volume in self.volumes():
            self._unless_gone(partial(self._ec2.delete_volume, VolumeId=volume), "InvalidVolume.NotFound")
        for snapshot in self.snapshots():
            self._unless_gone(partial(self._ec2.delete_snapshot, SnapshotId=snapshot), "InvalidSnapshot.NotFound")
        for address in self.addresses():
            self._unless_gone(partial(self._ec2.release_address, AllocationId=address), "InvalidAllocationID.NotFound")

    def unprotect(self) -> None:
        """Let the tables be deleted: by the roll-back of a stack that never was up, or here."""
        for name in self.tables():
            if self._dynamodb.describe_table(TableName=name)["Table"].get("DeletionProtectionEnabled"):
                self._dynamodb.update_table(TableName=name, DeletionProtectionEnabled=False)
                self._dynamodb.get_waiter("table_exists").wait(TableName=name)

    def remove_tables(self) -> list[str]:
        """Remove the tables that the stack left; their names."""
        names = self.tables()
        for name in names:
            self._dynamodb.delete_table(TableName=name)
        for name in names:
            self._dynamodb.get_waiter("table_not_exists").wait(TableName=name)
        return names

    def remove_parameters(self) -> int:
        """Remove addresses of Slack channels; how many."""
        names = self.parameters()
        for some in _batches(names, _PARAMETERS_AT_ONCE):
            self._ssm.delete_parameters(Names=some)
        return len(names)

    def remove_log_groups(self, names: list[str]) -> None:
        """Remove groups that outlived the stack."""
        for name in self.log_groups(names):
            self._unless_gone(partial(self._logs.delete_log_group, logGroupName=name), "ResourceNotFoundException")

    def remove_gateway_logs(self) -> str | None:
        """Take back the account's setting for API Gateway's logs if it is ours and no API is left that may use it.

        Gives the name of the role that stays, None if none does.
        """
        name = f"nod-{self._stage}-gateway-logs-{self._identity.region}"
        try:
            arn = self._iam.get_role(RoleName=name)["Role"]["Arn"]
        except ClientError as error:
            if error.response["Error"]["Code"] != "NoSuchEntity":
                raise
            return None
        if account.gateway_logs(self._apigateway) == arn:
            if self._apigateway.get_rest_apis(limit=1)["items"]:
                return name
            self._apigateway.update_account(
                patchOperations=[{"op": "replace", "path": "/cloudwatchRoleArn", "value": ""}]
            )
        for policy in self._iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"]:
            self._iam.detach_role_policy(RoleName=name, PolicyArn=policy["PolicyArn"])
        self._iam.delete_role(RoleName=name)
        return None

    @staticmethod
    def _unless_gone(call: Callable[[], object], gone: str) -> None:
        try:
            call()
        except ClientError as error:
            if error.response["Error"]["Code"] != gone:
                raise


def destroy(
    session: Any,
    said_region: str,
    stage: str,
    force: str,
    *,
    sleep: Callable[[float], object],
    say: Callable[[str], object],
) -> None:
    """Take a deployment away.

    Args:
        force: FORCE deletes notebooks too, with all that is on their disks.

    Raises:
        LeftError: notebooks exist and nothing was touched, or something is left that bills.
    """
    identity = account.identity(session, account.region(session, said_region))
    say(f"AWS account {identity.account}, region {identity.region}, as {identity.arn}")
    client = partial(session.client, region_name=identity.region)
    remains = Remains(client, stage, identity)
    stack = Stack(client("cloudformation"), stage, sleep=sleep, say=say)
    _refuse(remains, force, stage)
    resources = stack.resources() if stack.describe() else []
    groups = _ids(resources, "AWS::Logs::LogGroup")
    machines = _ids(resources, "AWS::StepFunctions::StateMachine")
    if force == FORCE:
        _delete_notebooks(remains, machines, say)
    remains.unprotect()
    say(f"Deleting the stack {stack.name}")
    stack.delete()
    # What the API took before it was gone: a launch may have made a machine since.
    if force == FORCE:
        _delete_notebooks(remains, [], say)
    say(f"Deleted the tables {', '.join(remains.remove_tables()) or '(none)'}")
    say(f"Deleted {remains.remove_parameters()} Slack channels")
    remains.remove_log_groups(groups)
    bucket = PackageBucket(client("s3"), stage, identity)
    say(f"Deleted the bucket {bucket.name}" if bucket.remove() else "No bucket")
    role = remains.remove_gateway_logs()
    _account_for(remains, stack, bucket, groups, say)
    if role:
        say(f"The role {role} stays: API Gateway's logs of this region go through it. It costs nothing.")


def _refuse(remains: Remains, force: str, stage: str) -> None:
    notebooks, instances, volumes = remains.notebooks(), remains.instances(), remains.volumes()
    if force != FORCE and (notebooks or instances or volumes):
        lines = [*notebooks, *(f"machine {one}" for one in instances), *(f"disk {one}" for one in volumes)]
        raise LeftError(
            f"Nothing is touched: {len(notebooks)} notebooks, {len(instances)} machines, {len(volumes)} disks.\n  "
            + "\n  ".join(lines[:20])
            + ("\n  …" if len(lines) > 20 else "")
            + f"\nTheir owners' work would be lost. If that is meant: make destroy STAGE={stage} FORCE={FORCE}"
        )


def _delete_notebooks(remains: Remains, machines: list[str], say: Callable[[str], object]) -> None:
    if stopped := remains.stop_workflows(machines):
        say(f"Stopped {stopped} workflows")
    if instances := remains.instances():
        say(f"Terminating {len(instances)} machines")
        remains.terminate(instances)
    remains.remove_disks()


def _account_for(
    remains: Remains, stack: Stack, bucket: PackageBucket, groups: list[str], say: Callable[[str], object]
) -> None:
    checked: dict[str, list[str]] = {
        "stack": [stack.name] if stack.describe() else [],
        "machines": remains.instances(),
        "disks": remains.volumes(),
        "snapshots": remains.snapshots(),
        "Elastic IPs": remains.addresses(),
        "tables": remains.tables(),
        "parameters": remains.parameters(),
        "log groups": remains.log_groups(groups),
        "bucket": [bucket.name] if bucket.exists() else [],
    }
    if left := {what: found for what, found in checked.items() if found}:
        lines = "\n  ".join(f"{what}: {', '.join(found)}" for what, found in left.items())
        raise LeftError(f"Still there, and it bills:\n  {lines}\nRun this again in some minutes.")
    say(f"Nothing is left that bills. Looked for: {', '.join(checked)}.")


def _ids(resources: list[dict[str, Any]], kind: str) -> list[str]:
    return [
        one["PhysicalResourceId"] for one in resources if one["ResourceType"] == kind and "PhysicalResourceId" in one
    ]


def _batches(items: list[str], size: int) -> Iterator[list[str]]:
    return (items[start : start + size] for start in range(0, len(items), size))
