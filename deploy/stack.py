"""The CloudFormation stack of a deployment: change sets, progress, and why something failed."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from typing import Any

from botocore.exceptions import ClientError

from deploy.errors import StackError

CAPABILITIES = ["CAPABILITY_NAMED_IAM", "CAPABILITY_AUTO_EXPAND"]
CHANGE_SET_SECONDS, EVENTS_SECONDS = 2, 5
# The longest step is deleting an instance profile's role or a table: minutes. An hour is a stack that hangs.
MOST_SECONDS = 3600
_NOTHING = ("didn't contain changes", "No updates are to be performed")
# Of these only a delete leads on.
DEAD = {"ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "CREATE_FAILED", "DELETE_FAILED"}
_FAILED = ("CREATE_FAILED", "UPDATE_FAILED", "DELETE_FAILED")


class Stack:
    """Takes a client for CloudFormation, a way to wait, and where progress is told."""

    def __init__(
        self, cloudformation: Any, stage: str, *, sleep: Callable[[float], object], say: Callable[[str], object]
    ) -> None:
        self._client = cloudformation
        self._stage = stage
        self._region = str(cloudformation.meta.region_name)
        self._sleep = sleep
        self._say = say
        self.name = f"nod-{stage}"

    def describe(self) -> dict[str, Any] | None:
        """As CloudFormation describes it; None if it is not there. One that a change set only announced is not."""
        found = self._found()
        return None if found is None or found["StackStatus"] == "REVIEW_IN_PROGRESS" else found

    def is_there(self) -> bool:
        """Also one that a change set only announced: it has a name, and can be deleted."""
        return self._found() is not None

    def _found(self) -> dict[str, Any] | None:
        try:
            (found,) = self._client.describe_stacks(StackName=self.name)["Stacks"]
        except ClientError as error:
            if "does not exist" in error.response["Error"].get("Message", ""):
                return None
            raise
        return dict(found)

    def resources(self) -> list[dict[str, Any]]:
        """Every resource of it: type, logical and physical id."""
        pages = self._client.get_paginator("list_stack_resources").paginate(StackName=self.name)
        return [one for page in pages for one in page["StackResourceSummaries"]]

    def deploy(self, template_url: str, parameters: Mapping[str, str | None]) -> dict[str, str] | None:
        """Create or update it. Gives its outputs, None if there was nothing to change.

        Args:
            parameters: None keeps the value that the stack has.

        Raises:
            StackError: which resource failed and why; what to do about the stack.
        """
        there = self.describe()
        check_state(there, self._stage, self._region)
        change_set = self._change_set("UPDATE" if there else "CREATE", template_url, parameters)
        if change_set is None:
            return None
        before = self._seen()
        self._client.execute_change_set(StackName=self.name, ChangeSetName=change_set)
        status = self._follow(self.name, before)
        found = self.describe()
        if status not in ("CREATE_COMPLETE", "UPDATE_COMPLETE") or found is None:
            raise StackError(self._why(self.name, before, status))
        return outputs(found)

    def delete(self) -> None:
        """Delete it and wait. Raises StackError."""
        there = self._found()
        if there is None:
            return
        # By its id: a stack that is gone is not known by its name any more.
        stack_id, before = str(there["StackId"]), self._seen()
        self._client.delete_stack(StackName=self.name)
        status = self._follow(stack_id, before)
        if status != "DELETE_COMPLETE":
            raise StackError(self._why(stack_id, before, status))

    def _change_set(self, kind: str, template_url: str, parameters: Mapping[str, str | None]) -> str | None:
        made = self._client.create_change_set(
            StackName=self.name,
            # One of an earlier run that was broken off may still be there.
            ChangeSetName=f"nod-{uuid.uuid4().hex}",
            ChangeSetType=kind,
            TemplateURL=template_url,
            Parameters=[
                {"ParameterKey": name, "UsePreviousValue": True}
                if value is None
                else {"ParameterKey": name, "ParameterValue": value}
                for name, value in sorted(parameters.items())
            ],
            Capabilities=CAPABILITIES,
            Tags=[{"Key": "nod:deployment", "Value": self._stage}],
        )["Id"]
        waited = 0.0
        while True:
            answer = self._client.describe_change_set(StackName=self.name, ChangeSetName=made)
            if answer["Status"] == "CREATE_COMPLETE":
                return str(made)
            if answer["Status"] == "FAILED":
                self._client.delete_change_set(StackName=self.name, ChangeSetName=made)
                reason = answer.get("StatusReason", "")
                if any(words in reason for words in _NOTHING):
                    return None
                raise StackError(f"CloudFormation does not take the template: {reason}")
            waited = self._wait(CHANGE_SET_SECONDS, waited)

    def _follow(self, stack: str, before: set[str]) -> str:
        """Tell what happens until it is over; the last status."""
        told, waited = set(before), 0.0
        while True:
            # The status first: what happened before it is in the events that are read after it.
            (found,) = self._client.describe_stacks(StackName=stack)["Stacks"]
            for event in self._events(stack, told):
                told.add(event["EventId"])
                reason = f": {event['ResourceStatusReason']}" if event["ResourceStatus"] in _FAILED else ""
                self._say(
                    f"  {event['Timestamp']:%H:%M:%S} {event['ResourceStatus'].lower().replace('_', ' '):<22} "
                    f"{event['LogicalResourceId']}{reason}"
                )
            status = str(found["StackStatus"])
            if not status.endswith("_IN_PROGRESS"):
                return status
            waited = self._wait(EVENTS_SECONDS, waited)

    def _wait(self, seconds: float, waited: float) -> float:
        if waited >= MOST_SECONDS:
            raise StackError(f"The stack {self.name} takes more than an hour. It goes on; look at it in the console.")
        self._sleep(seconds)
        return waited + seconds

    def _seen(self) -> set[str]:
        return {event["EventId"] for event in self._events(self.name, set())}

    def _events(self, stack: str, told: set[str]) -> list[dict[str, Any]]:
        """Those not told yet, oldest first."""
        found: list[dict[str, Any]] = []
        try:
            for page in self._client.get_paginator("describe_stack_events").paginate(StackName=stack):
                new = [event for event in page["StackEvents"] if event["EventId"] not in told]
                found += new
                if len(new) < len(page["StackEvents"]):
                    break
        except ClientError as error:
            if "does not exist" not in error.response["Error"].get("Message", ""):
                raise
        return found[::-1]

    def _why(self, stack: str, before: set[str], status: str) -> str:
        failed = [
            event
            for event in self._events(stack, before)
            if event["ResourceStatus"] in _FAILED
            # Others that were under way are called off when one has failed: the first ones are the reason.
            and "cancelled" not in event.get("ResourceStatusReason", "").lower()
        ]
        left = []
        if status == "ROLLBACK_FAILED":
            # What could not be taken back, such as the table that is protected, is no reason and nobody's to put right.
            left = [event for event in failed if event["ResourceStatus"] == "DELETE_FAILED"]
            failed = [event for event in failed if event not in left] or failed
        reasons = "\n  ".join(
            f"{event['LogicalResourceId']} ({event['ResourceType']}): {event.get('ResourceStatusReason', 'no reason')}"
            for event in failed
        )
        names = ", ".join(dict.fromkeys(str(event["LogicalResourceId"]) for event in left))
        return (
            f"The stack {self.name} ended as {status}:\n  {reasons or 'CloudFormation names no resource'}\n"
            + (f"CloudFormation could not take back {names}; make destroy does.\n" if names else "")
            + advice(status, self._stage, self._region)
        ).rstrip()


def outputs(stack: Mapping[str, Any]) -> dict[str, str]:
    """The outputs of a described stack by name."""
    return {one["OutputKey"]: one["OutputValue"] for one in stack.get("Outputs", [])}


def parameters(stack: Mapping[str, Any]) -> dict[str, str]:
    """The parameters of a described stack by name."""
    return {one["ParameterKey"]: one.get("ParameterValue", "") for one in stack.get("Parameters", [])}


def check_state(stack: Mapping[str, Any] | None, stage: str, region: str) -> None:
    """Raises StackError, with what to do, if the stack is in a state that cannot be deployed to."""
    status = str(stack["StackStatus"]) if stack else ""
    if status.endswith("_IN_PROGRESS") or status in DEAD or status == "UPDATE_ROLLBACK_FAILED":
        raise StackError(f"The stack nod-{stage} is {status}. {advice(status, stage, region)}")


def destroying(stage: str, region: str) -> str:
    """The command that takes a deployment away. With its region: in another it would find nothing, and say so."""
    return f"make destroy STAGE={stage} REGION={region}"


def advice(status: str, stage: str, region: str) -> str:
    """What to do about a stack in this state."""
    destroy = destroying(stage, region)
    if status.endswith("_IN_PROGRESS"):
        return "Something is being done to it: wait until that is over, then run this again."
    if status in ("ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "CREATE_FAILED"):
        return f"It never was up, so nothing is lost: {destroy}, put right what failed, and deploy again."
    if status == "UPDATE_ROLLBACK_COMPLETE":
        return "The deployment is as it was before. Put right what failed, and deploy again."
    if status == "UPDATE_ROLLBACK_FAILED":
        return (
            f"Put right what failed, then: aws cloudformation continue-update-rollback --stack-name nod-{stage} "
            f"--region {region}; after that deploy again."
        )
    if status == "DELETE_FAILED":
        return f"Put right what failed, then: {destroy}"
    return ""
