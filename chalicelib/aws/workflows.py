"""Step Functions: executions started, and tasks answered by their token."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from chalicelib.aws.faults import as_unavailable
from chalicelib.log import note

# A late or second answer: the workflow has moved on, and there is nothing left to do.
_LATE = ("TaskTimedOut", "TaskDoesNotExist", "InvalidToken")


class Execution(NamedTuple):
    """An execution's `status` (`RUNNING`, `SUCCEEDED`, `FAILED` and so on), and why it failed."""

    name: str
    status: str
    error: str | None
    cause: str | None


class Workflows:
    """Takes a Step Functions client."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def start(self, arn: str, name: str, document: Mapping[str, object]) -> bool:
        """Starts an execution. False if one of that name runs or ran: starting twice is starting once.

        Raises:
            Unavailable: it could not be started.
        """
        note(execution=name)
        with as_unavailable("Step Functions"):
            try:
                self._client.start_execution(stateMachineArn=arn, name=name, input=_text(document))
            except self._client.exceptions.ExecutionAlreadyExists:
                return False
        return True

    def exists(self, arn: str, name: str) -> bool:
        """Whether an execution of that name runs or ran, as far as Step Functions shows it yet.

        Raises:
            Unavailable: it does not say.
        """
        return self._describe(arn, name) is not None

    def began(self, arn: str, name: str, document: Mapping[str, object], since: datetime) -> bool:
        """Whether the execution of that name is of this very input and began at `since` or later.

        A start whose answer was lost is repeated by the SDK. Step Functions answers as if it was the first, but once
        the execution has ended it refuses the name.

        Raises:
            Unavailable: Step Functions does not say.
        """
        found = self._describe(arn, name)
        return bool(found and found.get("input") == _text(document) and found["startDate"] >= since)

    def look(self, arn: str, name: str) -> Execution | None:
        """The execution of that name as it stands; None if there is none.

        Raises:
            Unavailable: Step Functions does not say.
        """
        found = self._describe(arn, name)
        return None if found is None else Execution(name, found["status"], found.get("error"), found.get("cause"))

    def abort(self, arn: str, name: str, error: str, cause: str) -> bool:
        """Aborts the execution `name` of a state machine. False if there is none; one that has ended stays as it is."""
        try:
            self._client.stop_execution(executionArn=_execution(arn, name), error=error, cause=cause)
        except self._client.exceptions.ExecutionDoesNotExist:
            return False
        note(execution=name)
        return True

    def succeed(self, token: str, output: Mapping[str, object]) -> bool:
        """Ends the waiting task well. False if it no longer waits."""
        return self._answer(self._client.send_task_success, taskToken=token, output=json.dumps(output))

    def fail(self, token: str, error: str, cause: str) -> bool:
        """Ends the waiting task with an error. False if it no longer waits."""
        return self._answer(self._client.send_task_failure, taskToken=token, error=error, cause=cause)

    def _describe(self, arn: str, name: str) -> Any:
        """Step Functions' own description of an execution; None if there is none."""
        with as_unavailable("Step Functions"):
            try:
                return self._client.describe_execution(executionArn=_execution(arn, name))
            except self._client.exceptions.ExecutionDoesNotExist:
                return None

    def _answer(self, call: Any, **arguments: str) -> bool:
        late = tuple(getattr(self._client.exceptions, name) for name in _LATE)
        try:
            call(**arguments)
        except late:
            return False
        return True


def _text(document: Mapping[str, object]) -> str:
    # Sorted, so that the same plan is the same text: Step Functions compares the input of equal names.
    return json.dumps(document, sort_keys=True, separators=(",", ":"))


def _execution(arn: str, name: str) -> str:
    return f"{arn.replace(':stateMachine:', ':execution:')}:{name}"
