"""What `make smoke` asks AWS itself, beside the deployment's own API."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from deploy.account import Identity
from deploy.errors import SmokeError

WORKFLOWS = ("launch", "stop", "start", "terminate")
_ALIVE = ["pending", "running", "shutting-down", "stopping", "stopped"]


@dataclass
class Histories:
    """What the executions of one notebook met."""

    executions: dict[str, str] = field(default_factory=dict)
    """Name → status."""
    transitions: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    """Names of errors that a task ended with; what was retried among them."""
    told: dict[str, str] = field(default_factory=dict)
    """An example of each error's cause."""
    waits: int = 0
    """Tasks that waited for a token."""
    timed_out: int = 0
    """Of those, the ones that no event ended."""


class Account:
    """Takes a maker of clients for the deployment's region, and whose account it is."""

    def __init__(self, client: Callable[[str], Any], stage: str, identity: Identity) -> None:
        self._client = client
        self._stage = stage
        where = f"{identity.partition}:states:{identity.region}:{identity.account}"
        self._workflows = [f"arn:{where}:stateMachine:nod-{stage}-{name}" for name in WORKFLOWS]

    def stack(self) -> tuple[str, dict[str, str]]:
        """The stack's status, and its outputs by name.

        Raises:
            SmokeError: there is no such stack, or it may not be read.
        """
        try:
            (found,) = self._client("cloudformation").describe_stacks(StackName=f"nod-{self._stage}")["Stacks"]
        except (BotoCoreError, ClientError) as error:
            raise SmokeError(f"the stack nod-{self._stage} cannot be read: {said(error)}") from error
        return str(found["StackStatus"]), {one["OutputKey"]: one["OutputValue"] for one in found.get("Outputs", [])}

    def machines(self, notebook_id: str) -> list[str]:
        """Ids of machines with the notebook's tag that are not terminated."""
        pages = (
            self._client("ec2")
            .get_paginator("describe_instances")
            .paginate(
                Filters=[
                    {"Name": "tag:nod:notebook", "Values": [notebook_id]},
                    {"Name": "instance-state-name", "Values": _ALIVE},
                ]
            )
        )
        return [i["InstanceId"] for page in pages for one in page["Reservations"] for i in one["Instances"]]

    def disks(self, notebook_id: str) -> list[str]:
        """Ids of disks with the notebook's tag."""
        pages = (
            self._client("ec2")
            .get_paginator("describe_volumes")
            .paginate(Filters=[{"Name": "tag:nod:notebook", "Values": [notebook_id]}])
        )
        return [
            one["VolumeId"] for page in pages for one in page["Volumes"] if one["State"] not in ("deleting", "deleted")
        ]

    def image(self, instance_id: str) -> str:
        """The image of a machine: its id, and its name where it is shown."""
        ec2 = self._client("ec2")
        (found,) = ec2.describe_instances(InstanceIds=[instance_id])["Reservations"]
        image_id = str(found["Instances"][0]["ImageId"])
        images = ec2.describe_images(ImageIds=[image_id])["Images"]
        return f"{image_id} ({images[0].get('Name', 'without a name')})" if images else image_id

    def histories(self, notebook_id: str) -> Histories:
        """Every execution of the notebook's workflows, by name, with its history.

        Raises:
            SmokeError: Step Functions may not be asked.
        """
        found = Histories()
        try:
            for arn in self._executions(notebook_id):
                self._add(arn, found)
        except (BotoCoreError, ClientError) as error:
            raise SmokeError(f"Step Functions does not show them: {said(error)}") from error
        return found

    def _executions(self, notebook_id: str) -> Iterator[str]:
        sfn = self._client("stepfunctions")
        for workflow in self._workflows:
            pages = sfn.get_paginator("list_executions").paginate(stateMachineArn=workflow)
            for one in (each for page in pages for each in page["executions"]):
                if one["name"] == notebook_id or one["name"].startswith(f"{notebook_id}-"):
                    yield one["executionArn"]

    def _add(self, arn: str, found: Histories) -> None:
        sfn = self._client("stepfunctions")
        found.executions[arn.rpartition(":")[2]] = str(sfn.describe_execution(executionArn=arn)["status"])
        pages = sfn.get_paginator("get_execution_history").paginate(executionArn=arn)
        for event in (one for page in pages for one in page["events"]):
            kind = event["type"]
            found.transitions += kind.endswith("StateEntered")
            details: dict[str, Any] = next((value for key, value in event.items() if key.endswith("EventDetails")), {})
            if kind == "TaskScheduled":
                found.waits += str(details.get("resource", "")).endswith("waitForTaskToken")
            if kind.endswith(("Failed", "TimedOut")) and kind.startswith(("Task", "LambdaFunction")):
                name = str(details.get("error", "States.Timeout" if kind.endswith("TimedOut") else "unknown"))
                found.errors[name] += 1
                found.told.setdefault(name, " ".join(str(details.get("cause", "")).split())[:200])
                found.timed_out += kind == "TaskTimedOut"
                # A call that was refused waited for nothing.
                found.waits -= kind == "TaskFailed" and str(details.get("resource", "")).endswith("waitForTaskToken")

    def refusals(self, since: float) -> list[str]:
        """What the functions logged of refusals by AWS since then (epoch seconds), at most ten lines.

        Raises:
            SmokeError: the logs may not be read.
        """
        logs = self._client("logs")
        found: list[str] = []
        try:
            groups = [
                group["logGroupName"]
                for page in logs.get_paginator("describe_log_groups").paginate(
                    logGroupNamePrefix=f"/aws/lambda/nod-{self._stage}-"
                )
                for group in page["logGroups"]
            ]
            if not groups:
                raise SmokeError("there are no log groups of the functions")
            for group in groups:
                pages = logs.get_paginator("filter_log_events").paginate(
                    logGroupName=group, startTime=int(since * 1000), filterPattern='?AccessDenied ?"not authorized"'
                )
                found += [f"{group}: {one['message'][:300]}" for page in pages for one in page["events"]]
        except (BotoCoreError, ClientError) as error:
            raise SmokeError(f"the logs cannot be read: {said(error)}") from error
        return found[:10]


def said(error: BotoCoreError | ClientError) -> str:
    """What AWS said, in one line."""
    return " ".join(str(error).split())
