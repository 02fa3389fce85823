"""`make destroy`: take a deployment away, with all that bills.

What is found is found by the tag `nod:deployment` and by whole names: `nod-prod-` begins the names of a stage
`prod-eu`, too. A machine whose tag was removed by hand is known by its instance profile or its record, as everywhere in
the product. A disk without the tag is never removed: taking the tag off is how a person keeps one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

from botocore.exceptions import ClientError, WaiterError

from deploy import account
from deploy.account import Identity
from deploy.bucket import PackageBucket
from deploy.deployment import notebook_role, table_names
from deploy.errors import LeftError, StackError
from deploy.stack import DEAD, Stack, destroying

FORCE = "yes-delete-notebooks"
OVER = {"terminated", "failed"}
_ALIVE = ["pending", "running", "shutting-down", "stopping", "stopped"]
# TerminateInstances takes 1,000; DeleteParameters 10; a filter of EC2 200 values.
_AT_ONCE, _PARAMETERS_AT_ONCE, _VALUES = 500, 10, 200
# A disk hangs on for some seconds after EC2 says that its machine is terminated; an address, too.
_HELD = {"VolumeInUse", "IncorrectState", "InvalidIPAddress.InUse"}
_TRIES, _TRY_SECONDS = 13, 5.0
# Of a snapshot that an image is made of; no waiting helps.
_USED = "InvalidSnapshot.InUse"
# A policy, and the machine's own protection against termination.
_MAY_NOT = {"UnauthorizedOperation", "OperationNotPermitted"}


class Remains:
    """What a deployment has outside its stack. Takes a maker of clients for its region."""

    def __init__(self, client: Callable[[str], Any], stage: str, identity: Identity) -> None:
        self._ec2 = client("ec2")
        self._dynamodb = client("dynamodb")
        self._ssm = client("ssm")
        self._logs = client("logs")
        self._iam = client("iam")
        self._apigateway = client("apigateway")
        self._apigatewayv2 = client("apigatewayv2")
        self._stepfunctions = client("stepfunctions")
        self.stage = stage
        self._identity = identity
        self.region = identity.region
        self._tagged = [{"Name": "tag:nod:deployment", "Values": [stage]}]
        profile = f"arn:{identity.partition}:iam::{identity.account}:instance-profile/{notebook_role(stage)}"
        self._by_profile = [{"Name": "iam-instance-profile.arn", "Values": [profile]}]
        # Records go with their table, disks come off their machine: what was seen once is looked for to the end.
        self._known: set[str] = set()
        self._attached: set[str] = set()
        self._reasons: dict[str, str] = {}

    def reason(self, name: str) -> str:
        """The name of what stays, and why AWS kept it if it said so."""
        return f"{name} ({self._reasons[name]})" if name in self._reasons else name

    def instances(self) -> list[str]:
        """Machines that are not terminated: by tag, by instance profile and by record."""
        found = self._machines()
        return sorted(name for name, deployment in found.items() if deployment in (None, self.stage))

    def mistagged(self) -> dict[str, str]:
        """The tags of machines that have our instance profile or a record of ours, but another deployment's tag."""
        return {name: tag for name, tag in self._machines().items() if tag not in (None, self.stage)}

    def _machines(self) -> dict[str, str | None]:
        """The deployment that its tag names, by the id of a machine."""
        self._known |= {one["instance_id"]["S"] for one in self._live() if "S" in one.get("instance_id", {})}
        # By a filter: a call that names ids fails for one that is gone.
        ids = [[{"Name": "instance-id", "Values": some}] for some in _batches(sorted(self._known), _VALUES)]
        found: dict[str, str | None] = {}
        for filters in (self._tagged, self._by_profile, *ids):
            pages = self._ec2.get_paginator("describe_instances").paginate(
                Filters=[*filters, {"Name": "instance-state-name", "Values": _ALIVE}]
            )
            for machine in (i for page in pages for one in page["Reservations"] for i in one["Instances"]):
                found[machine["InstanceId"]] = _deployment(machine)
                disks = (one.get("Ebs", {}).get("VolumeId") for one in machine.get("BlockDeviceMappings", []))
                self._attached |= {disk for disk in disks if disk}
        self._known |= found.keys()
        return found

    def volumes(self) -> list[str]:
        """Disks, by tag."""
        return [one["VolumeId"] for one in self._volumes(self._tagged)]

    def untagged(self) -> list[str]:
        """Disks without this deployment's tag that hang on a machine that `instances` has found, or did."""
        return [one["VolumeId"] for one in self._untagged()]

    def _untagged(self) -> list[dict[str, Any]]:
        batches = _batches(sorted(self._attached), _VALUES)
        found = (one for some in batches for one in self._volumes([{"Name": "volume-id", "Values": some}]))
        return [one for one in found if _deployment(one) != self.stage]

    def _volumes(self, filters: list[dict[str, Any]]) -> list[dict[str, Any]]:
        pages = self._ec2.get_paginator("describe_volumes").paginate(Filters=filters)
        # One that is being deleted bills no more, and cannot be deleted again.
        return [one for page in pages for one in page["Volumes"] if one.get("State") not in ("deleting", "deleted")]

    def snapshots(self) -> list[str]:
        """Snapshots of disks, by tag."""
        pages = self._ec2.get_paginator("describe_snapshots").paginate(OwnerIds=["self"], Filters=self._tagged)
        return [one["SnapshotId"] for page in pages for one in page["Snapshots"]]

    def addresses(self) -> list[str]:
        """Elastic IPs, by tag."""
        return [one["AllocationId"] for one in self._ec2.describe_addresses(Filters=self._tagged)["Addresses"]]

    def notebooks(self) -> list[str]:
        """Names of the notebooks that are not deleted or failed, by the records."""
        return sorted(
            f"{one['id']['S']} ({one['name']['S']} of {one['owner']['S']}, {one['state']['S']})" for one in self._live()
        )

    def _live(self) -> list[dict[str, Any]]:
        table = table_names(self.stage)[0]
        if not account.left_tables(self._dynamodb, [table]):
            return []
        pages = self._dynamodb.get_paginator("scan").paginate(
            TableName=table,
            ConsistentRead=True,
            ProjectionExpression="id, #name, #owner, #state, instance_id",
            ExpressionAttributeNames={"#name": "name", "#owner": "owner", "#state": "state"},
        )
        return [one for page in pages for one in page["Items"] if one["state"]["S"] not in OVER]

    def tables(self) -> list[str]:
        """Tables that outlive the stack."""
        return account.left_tables(self._dynamodb, table_names(self.stage))

    def parameters(self) -> list[str]:
        """Addresses of Slack channels."""
        pages = self._ssm.get_paginator("get_parameters_by_path").paginate(
            Path=f"/nod/{self.stage}/", Recursive=True, WithDecryption=False
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
            for execution in self._executions(machine):
                self._stepfunctions.stop_execution(executionArn=execution, error="Destroyed", cause="make destroy")
                stopped += 1
        return stopped

    def _executions(self, machine: str) -> list[str]:
        pages = self._stepfunctions.get_paginator("list_executions").paginate(
            stateMachineArn=machine, statusFilter="RUNNING"
        )
        try:
            return [one["executionArn"] for page in pages for one in page["executions"]]
        except ClientError as error:
            # A stack that could not be deleted as a whole still lists what of it is deleted.
            if _code(error) != "StateMachineDoesNotExist":
                raise
            return []

    def terminate(self, instances: list[str]) -> None:
        """Terminate machines and wait until they are gone. Raises LeftError."""
        for some in _batches(instances, _AT_ONCE):
            self._terminate(some)
        for some in _batches([one for one in instances if one not in self._reasons], 100):
            try:
                self._ec2.get_waiter("instance_terminated").wait(InstanceIds=some)
            except WaiterError as error:
                raise LeftError(
                    f"Machines are not terminated yet ({error}). Run this again in some minutes."
                ) from error
        if stay := [one for one in instances if one in self._reasons]:
            raise LeftError(
                "AWS does not let you terminate machines, and they bill:\n  "
                + "\n  ".join(map(self.reason, stay))
                + "\nPut that right, or have somebody who may terminate them: aws ec2 terminate-instances "
                f"--region {self.region} --instance-ids {' '.join(stay)}\nThen run this again."
            )

    def _terminate(self, instances: list[str]) -> None:
        try:
            self._ec2.terminate_instances(InstanceIds=instances)
        except ClientError as error:
            code = _code(error)
            if code not in {*_MAY_NOT, "InvalidInstanceID.NotFound"}:
                raise
            # A call that EC2 refuses for one machine terminates none of the others.
            if len(instances) > 1:
                for one in instances:
                    self._terminate([one])
            elif code in _MAY_NOT:
                self._reasons[instances[0]] = _said(error)

    def remove_disks(self, sleep: Callable[[float], object]) -> None:
        """Remove disks, snapshots and addresses. What AWS keeps, after some tries, stays with its reason."""
        for snapshot in self.snapshots():
            call = partial(self._ec2.delete_snapshot, SnapshotId=snapshot)
            self._removed(snapshot, call, "InvalidSnapshot.NotFound")
        for left in reversed(range(_TRIES)):
            held = [
                *(one for one in self.volumes() if not self._removed_volume(one)),
                *(one for one in self.addresses() if not self._released(one)),
                # Goes with its machine, or stays.
                *(one["VolumeId"] for one in self._untagged() if one.get("State") == "in-use"),
            ]
            if not held:
                break
            if left:
                sleep(_TRY_SECONDS)

    def _removed_volume(self, name: str) -> bool:
        return self._removed(name, partial(self._ec2.delete_volume, VolumeId=name), "InvalidVolume.NotFound")

    def _released(self, name: str) -> bool:
        call = partial(self._ec2.release_address, AllocationId=name)
        return self._removed(name, call, "InvalidAllocationID.NotFound")

    def _removed(self, name: str, call: Callable[[], object], gone: str) -> bool:
        """Whether it is removed; else AWS's reason is kept."""
        try:
            self._unless_gone(call, gone)
        except ClientError as error:
            if _code(error) not in {*_HELD, _USED}:
                raise
            self._reasons[name] = _said(error)
            return False
        return True

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

    def has_machines_role(self) -> bool:
        """Whether the account has the role of the machines, in whatever region they are."""
        return bool(account.has_role(self._iam, notebook_role(self.stage)))

    def remove_gateway_logs(self) -> str | None:
        """Take back the account's setting for API Gateway's logs if it is ours and no API is left that may use it.

        Gives the name of the role that stays, None if none does.
        """
        name = f"nod-{self.stage}-gateway-logs-{self.region}"
        arn = f"arn:{self._identity.partition}:iam::{self._identity.account}:role/{name}"
        there = account.has_role(self._iam, name)
        if account.gateway_logs(self._apigateway) == arn:
            # A role that is gone, as a first deployment that failed leaves it, writes no API's logs.
            if there is not False and self._has_apis():
                return name
            self._apigateway.update_account(
                patchOperations=[{"op": "replace", "path": "/cloudwatchRoleArn", "value": ""}]
            )
        if there is False:
            return None
        for policy in self._iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"]:
            self._iam.detach_role_policy(RoleName=name, PolicyArn=policy["PolicyArn"])
        self._iam.delete_role(RoleName=name)
        return None

    def _has_apis(self) -> bool:
        """Whether the region has an API that may log by the account's setting."""
        if self._apigateway.get_rest_apis(limit=1)["items"]:
            return True
        # WebSocket APIs log by it as REST APIs do; HTTP APIs need no role.
        pages = self._apigatewayv2.get_paginator("get_apis").paginate()
        return any(one["ProtocolType"] == "WEBSOCKET" for page in pages for one in page["Items"])

    @staticmethod
    def _unless_gone(call: Callable[[], object], gone: str) -> None:
        try:
            call()
        except ClientError as error:
            if _code(error) != gone:
                raise


class Destruction:
    """One run of `make destroy`."""

    def __init__(
        self,
        remains: Remains,
        stack: Stack,
        bucket: PackageBucket,
        command: str,
        forced: bool,
        *,
        sleep: Callable[[float], object],
        say: Callable[[str], object],
    ) -> None:
        self._remains = remains
        self._stack = stack
        self._bucket = bucket
        self._command = command
        self._forced = forced
        self._sleep = sleep
        self._say = say

    def run(self) -> None:
        """Raises LeftError or StackError."""
        self._check()
        left = self._left([])
        if not any(left.values()):
            self._nowhere(left)
            return
        there = self._stack.describe()
        resources = self._stack.resources() if there else []
        groups = _ids(resources, "AWS::Logs::LogGroup")
        if self._forced:
            self._delete_notebooks(_ids(resources, "AWS::StepFunctions::StateMachine"))
        if self._forced or (there and there["StackStatus"] in DEAD):
            # Of a stack that never was up CloudFormation may delete the tables, too. Of others it leaves them, and they
            # are protected until it is sure that nothing has come into them meanwhile.
            self._remains.unprotect()
        self._say(f"Deleting the stack {self._stack.name}")
        self._delete_stack()
        if self._forced:
            self._delete_notebooks([])
        elif found := self._found():
            raise LeftError(self._late(found))
        self._remains.unprotect()
        self._say(f"Deleted the tables {', '.join(self._remains.remove_tables()) or '(none)'}")
        self._say(f"Deleted {self._remains.remove_parameters()} Slack channels")
        self._remains.remove_log_groups(groups)
        self._say(f"Deleted the bucket {self._bucket.name}" if self._bucket.remove() else "No bucket")
        role = self._remains.remove_gateway_logs()
        self._account_for(groups)
        self._say_stays(role)

    def _say_stays(self, role: str | None) -> None:
        if role:
            self._say(f"The role {role} stays: API Gateway's logs of this region go through it. It costs nothing.")

    def _found(self) -> list[str]:
        """A line for each thing that is somebody's, or bills."""
        remains = self._remains
        kinds = (
            ("machine", remains.instances()),
            ("disk", [*remains.volumes(), *remains.untagged()]),
            ("snapshot", remains.snapshots()),
            ("Elastic IP", remains.addresses()),
        )
        return [*remains.notebooks(), *(f"{kind} {one}" for kind, names in kinds for one in names)]

    def _check(self) -> None:
        if mistagged := self._remains.mistagged():
            lines = "\n  ".join(f"{name}: nod:deployment is {tag!r}" for name, tag in sorted(mistagged.items()))
            raise LeftError(
                "Nothing is touched: machines have the instance profile or a record of this deployment, but another's "
                f"tag:\n  {lines}\nGive them the tag of the deployment that they belong to, then run this again."
            )
        if not self._forced and (found := self._found()):
            raise LeftError(
                f"Nothing is touched, for there are:\n  {_listed(found)}\nTheir owners' work would be lost. If that is "
                f"meant: {self._command} FORCE={FORCE}"
            )

    def _late(self, found: list[str]) -> str:
        return (
            "A launch began while the stack was being deleted, so the tables are kept. There are:\n  "
            f"{_listed(found)}\nNobody stops or deletes these any more. If nobody needs them: {self._command} "
            f"FORCE={FORCE}"
        )

    def _delete_stack(self) -> None:
        try:
            self._stack.delete()
        except StackError as error:
            # A machine of a launch that began meanwhile holds the security group, and so the stack.
            if not self._remains.instances():
                raise
            if not self._forced:
                raise LeftError(f"{error}\n{self._late(self._found())}") from error
            self._delete_notebooks([])
            self._stack.delete()

    def _delete_notebooks(self, workflows: list[str]) -> None:
        if stopped := self._remains.stop_workflows(workflows):
            self._say(f"Stopped {stopped} workflows")
        if instances := self._remains.instances():
            self._say(f"Terminating {len(instances)} machines")
            self._remains.terminate(instances)
        self._remains.remove_disks(self._sleep)

    def _nowhere(self, kinds: Iterable[str]) -> None:
        """Nothing is left of any of these `kinds`."""
        remains = self._remains
        nothing = f"There is no deployment {remains.stage} in {remains.region}"
        if remains.has_machines_role():
            # Said as a failure: whoever named the wrong region would take it for destroyed, and it bills on.
            raise LeftError(
                f"{nothing}, so nothing is removed. But the account has its role {notebook_role(remains.stage)}. Most "
                f"likely it is deployed in another region: name that one, make destroy STAGE={remains.stage} REGION=…. "
                "If it is deployed nowhere, the role was left behind when a stack was removed by hand: make deploy "
                "says how to remove it."
            )
        self._say(
            f"{nothing}. Looked for: {', '.join(kinds)}. If it is elsewhere, name its region, REGION=…, or "
            "sign in to its account."
        )
        # An earlier run has left it if another API logged through it then.
        self._say_stays(remains.remove_gateway_logs())

    def _left(self, groups: list[str]) -> dict[str, list[str]]:
        """What there is of the deployment, by kind."""
        remains = self._remains
        return {
            "stack": [self._stack.name] if self._stack.is_there() else [],
            "machines": remains.instances(),
            "disks": remains.volumes(),
            "snapshots": remains.snapshots(),
            "Elastic IPs": remains.addresses(),
            "tables": remains.tables(),
            "parameters": remains.parameters(),
            "log groups": remains.log_groups(groups),
            "bucket": [self._bucket.name] if self._bucket.exists() else [],
        }

    def _account_for(self, groups: list[str]) -> None:
        remains = self._remains
        checked = self._left(groups)
        said = []
        if left := {what: found for what, found in checked.items() if found}:
            lines = "\n  ".join(f"{what}: {', '.join(map(remains.reason, found))}" for what, found in left.items())
            again = f"{self._command} FORCE={FORCE}" if self._forced else self._command
            said.append(
                f"Still there, and it bills:\n  {lines}\nPut right what AWS names, or wait some minutes; then run "
                f"this again: {again}"
            )
        if untagged := remains.untagged():
            said.append(
                "Left alone, and it bills: disks that hung on machines of this deployment and do not bear its tag: "
                f"{', '.join(untagged)}\nDelete each that nobody needs: aws ec2 delete-volume --region "
                f"{remains.region} --volume-id {untagged[0]}"
            )
        if said:
            raise LeftError("\n".join(said))
        self._say(f"Nothing is left that bills. Looked for: {', '.join(checked)}.")


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
        StackError: CloudFormation could not delete the stack.
    """
    identity = account.identity(session, account.region(session, said_region))
    say(f"AWS account {identity.account}, region {identity.region}, as {identity.arn}")
    client = partial(session.client, region_name=identity.region)
    Destruction(
        Remains(client, stage, identity),
        Stack(client("cloudformation"), stage, sleep=sleep, say=say),
        PackageBucket(client("s3"), stage, identity),
        destroying(stage, identity.region),
        force == FORCE,
        sleep=sleep,
        say=say,
    ).run()


def _code(error: ClientError) -> str:
    return str(error.response["Error"]["Code"])


def _said(error: ClientError) -> str:
    """What AWS said, without the encoded half page that follows a refusal of IAM."""
    message = re.split(r"\.? ?Encoded authorization failure message", error.response["Error"].get("Message", ""))[0]
    return f"{_code(error)}: {message}"


def _deployment(resource: dict[str, Any]) -> str | None:
    """The value of its tag nod:deployment."""
    return next((str(tag["Value"]) for tag in resource.get("Tags", []) if tag["Key"] == "nod:deployment"), None)


def _listed(lines: list[str]) -> str:
    return "\n  ".join(lines[:20]) + (f"\n  and {len(lines) - 20} more" if len(lines) > 20 else "")


def _ids(resources: list[dict[str, Any]], kind: str) -> list[str]:
    return [
        one["PhysicalResourceId"] for one in resources if one["ResourceType"] == kind and "PhysicalResourceId" in one
    ]


def _batches(items: list[str], size: int) -> Iterator[list[str]]:
    return (items[start : start + size] for start in range(0, len(items), size))
