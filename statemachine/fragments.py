"""The fragments of workflows: what each tag in `statemachine/*.asl.yaml` expands to.

A fragment is a function of its keyword parameters, which `docs/workflows.md` describes. One that stands for a state
takes the state's name and returns one or more states. `own` holds the fields of the Amazon States Language that the
state sets itself (`Next`, `Catch` …); they replace those that the fragment would set.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from chalicelib.notebook.life import State
from statemachine.parameters import Number, ParameterError, apply

ASL = frozenset({"Comment", "TimeoutSeconds", "ResultSelector", "ResultPath", "Retry", "Catch", "Next", "End"})
"""The fields that a state made by a fragment may set itself, beside the fragment's parameters."""

States = dict[str, dict[str, Any]]

_SDK = "arn:aws:states:::aws-sdk"
_TABLES = {"notebooks": "${NotebooksTable}", "users": "${UsersTable}", "heartbeats": "${HeartbeatsTable}"}
_EC2 = ("Ec2.Ec2Exception", "Ec2.SdkClientException")
_DYNAMODB = (
    "DynamoDb.DynamoDbException",
    "DynamoDb.ProvisionedThroughputExceededException",
    "DynamoDb.TransactionConflictException",
    "DynamoDb.RequestLimitExceededException",
    "DynamoDb.ThrottlingException",
    "DynamoDb.InternalServerErrorException",
)
_IN_PROGRESS = "DynamoDb.TransactionInProgressException"
_LOST = "DynamoDb.SdkClientException"
# Optimized integrations use the second spelling. Which of them SDK integrations use shows only in an account.
_CONDITION = ("DynamoDb.ConditionalCheckFailedException", "DynamoDB.ConditionalCheckFailedException")
_LEDGER = "SET ledger_lines = list_append(if_not_exists(ledger_lines, :no_lines), :lines), "
_NOW = {"S.$": "$$.State.EnteredTime"}
_KNOWN = {
    "now": _NOW,
    "run": {"S.$": "$$.Execution.Name"},
    **{state.value: {"S": state.value} for state in State},
}


# Parts of a state


def condition_failed(*, then: str) -> dict[str, Any]:
    """A catcher for a write whose condition was not met."""
    return {"ErrorEquals": list(_CONDITION), "ResultPath": None, "Next": then}


def retry_dynamodb(*, attempts: Number) -> dict[str, Any]:
    """A retrier for DynamoDB's transient errors and lost answers, after which a call must be safe to repeat."""
    return _retrier((*_DYNAMODB, _LOST, "States.Timeout"), 1, attempts)


def retry_ec2(*, attempts: Number = "${Ec2Attempts}", interval: int = 2) -> dict[str, Any]:
    """A retrier for EC2, which has one name for all its errors, transient or not."""
    return _retrier(_EC2, interval, attempts)


def _retrier(errors: tuple[str, ...], interval: int, attempts: Number, backoff: float = 2) -> dict[str, Any]:
    return {
        "ErrorEquals": list(errors),
        "IntervalSeconds": interval,
        "MaxAttempts": attempts,
        "BackoffRate": backoff,
        "JitterStrategy": "FULL",
    }


def _never(*errors: str) -> dict[str, Any]:
    return {"ErrorEquals": list(errors), "IntervalSeconds": 1, "MaxAttempts": 0}


# DynamoDB


def read(
    name: str,
    own: dict[str, Any],
    *,
    attributes: str,
    attempts: Number,
    table: str = "notebooks",
    key: str = "$.id",
) -> States:
    """Reads one row, consistently."""
    parameters = {
        **_row(table, key),
        "ConsistentRead": True,
        "ProjectionExpression": attributes,
        **_names(attributes, {}),
    }
    retry = [retry_dynamodb(attempts=attempts)]
    return {name: _task(f"{_SDK}:dynamodb:getItem", 30, parameters, retry, own)}


def write(
    name: str,
    own: dict[str, Any],
    *,
    condition: str,
    update: str,
    attempts: Number,
    table: str = "notebooks",
    key: str = "$.id",
    names: dict[str, Any] | None = None,
    values: dict[str, Any] | None = None,
    ledger: dict[str, Any] | None = None,
    returns: str | None = None,
) -> States:
    """Writes one row if a condition is met."""
    parameters = _update(
        table=table, key=key, condition=condition, update=update, names=names, values=values, ledger=ledger
    )
    if returns is not None:
        parameters["ReturnValues"] = returns
    retry = [retry_dynamodb(attempts=attempts)]
    return {name: _task(f"{_SDK}:dynamodb:updateItem", 30, parameters, retry, own)}


def wait_for_event(
    name: str,
    own: dict[str, Any],
    *,
    seconds: Number,
    condition: str,
    update: str,
    attempts: Number,
    values: dict[str, Any] | None = None,
    ledger: dict[str, Any] | None = None,
) -> States:
    """Writes the task token into the notebook's record and waits until a function answers it."""
    token = {"S.$": "States.Format('{} {}', $$.Execution.Name, $$.Task.Token)"}
    parameters = _update(
        table="notebooks",
        key="$.id",
        condition=condition,
        update=update,
        values=values,
        ledger=ledger,
        known={"token": token},
    )
    # Its timeout is the end of the wait.
    retry = [_retrier((*_DYNAMODB, _LOST), 1, attempts)]
    resource = f"{_SDK}:dynamodb:updateItem.waitForTaskToken"
    return {name: _task(resource, seconds, parameters, retry, own)}


def transact(
    name: str, own: dict[str, Any], *, items: list[Any], attempts: Number, canceled_attempts: Number = 0
) -> States:
    """Writes several rows, or none of them."""
    parameters = {
        # A try after one whose answer was lost does nothing more, and is no failure.
        "ClientRequestToken.$": "States.Hash(States.Format('{} {}', $$.Execution.Name, $$.State.EnteredTime), 'MD5')",
        "TransactItems": [_item(one) for one in items],
    }
    retry = [_retrier((*_DYNAMODB, _IN_PROGRESS, _LOST, "States.Timeout"), 1, attempts)]
    if canceled_attempts:
        # Another transaction had one of the rows; a condition that fails is tried again too, and stays what it is.
        retry.insert(0, _retrier(("DynamoDb.TransactionCanceledException",), 1, canceled_attempts, 1.5))
    return {name: _task(f"{_SDK}:dynamodb:transactWriteItems", 30, parameters, retry, own)}


def item(
    *,
    condition: str,
    update: str | None = None,
    table: str = "notebooks",
    key: str = "$.id",
    values: dict[str, Any] | None = None,
    ledger: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """One row of a transaction. Without an update, only its condition is checked."""
    kind = "ConditionCheck" if update is None else "Update"
    return {kind: _update(table=table, key=key, condition=condition, update=update, values=values, ledger=ledger)}


def ledger_line(*, action: str, code: str, by: str, reason: str) -> dict[str, Any]:
    """The line that a write adds to the ledger."""
    texts = {"action": action, "code": code, "by": by, "reason": reason}
    return {"at": _NOW, **{key: _attribute(key, text) for key, text in texts.items()}}


def record_step(
    name: str,
    own: dict[str, Any],
    *,
    finished: str = "",
    started: list[Any] | None = None,
    failed: str = "",
    on_failure: str = "",
) -> States:
    """Records when steps of a launch started, finished or failed."""
    notes = [("finished_at", finished), *(("started_at", one) for one in started or []), ("failed_at", failed)]
    update = ", ".join(["SET updated_at = :now", *(f"steps.{step}.{field} = :now" for field, step in notes if step)])
    if on_failure:
        own = {"Catch": [_caught(on_failure)], **own}
    elif failed:
        # The launch is failing already, and should not wait for this.
        own = {"Catch": [{**_caught(own.get("Next")), "ResultPath": None}], **own}
    return write(name, own, condition="#state = :launching", update=update, attempts=3 if failed else 5)


# Commands, functions, EC2, other workflows


def run_document(
    name: str,
    own: dict[str, Any],
    *,
    document: str,
    instance: str,
    seconds: Number,
    looks: Number,
    on_failure: str,
    parameters: dict[str, Any] | None = None,
    agent_attempts: Number = 20,
) -> States:
    """Runs a document on the instance and waits for its answer. If none comes, looks for the command's result."""
    look = f"Look for {name}"
    sent = {
        "DocumentName": f"${{DocumentPrefix}}{document}",
        # The function on_command_event has only this to tell whose command ended.
        "Comment.$": "$$.Execution.Name",
        "InstanceIds.$": f"States.Array({instance})",
        "TimeoutSeconds": 120,
        "Parameters": {"TaskToken.$": "States.Array($$.Task.Token)"}
        | dict(_argument(key, value) for key, value in (parameters or {}).items()),
    }
    # Until the agent has registered, SSM refuses the instance, or does not know its tags and denies access.
    agent = _retrier(("Ssm.InvalidInstanceIdException", "Ssm.AccessDeniedException"), 3, agent_attempts, 1.1)
    del agent["JitterStrategy"]
    passing = (
        "Ssm.SsmException",
        "Ssm.InternalServerErrorException",
        "Ssm.SdkClientException",
        "Ssm.ThrottlingException",
    )
    caught = _caught(on_failure)
    timeout = {"ErrorEquals": ["States.Timeout"], "ResultPath": None, "Next": look}
    asked = {
        "id.$": "$.id",
        "run.$": "$$.Execution.Name",
        "instance_id.$": instance,
        "document": f"${{DocumentPrefix}}{document}",
        "since.$": "$$.Execution.StartTime",
    }
    pending = {
        "ErrorEquals": ["CommandPending"],
        "IntervalSeconds": "${CommandLookSeconds}",
        "MaxAttempts": looks,
        "BackoffRate": 1,
    }
    return {
        name: _task(
            f"{_SDK}:ssm:sendCommand.waitForTaskToken",
            seconds,
            sent,
            [agent, _retrier(passing, 2, 5)],
            {"Catch": [timeout, caught], **own},
        ),
        look: _task(
            "${LookForCommand}",
            60,
            asked,
            # A failed command is an answer. Anything else that ends the function, such as throttling, may pass.
            [pending, _never("CommandFailed", "NodError"), _any_error()],
            {"Catch": [caught], **{key: own[key] for key in ("ResultPath", "Next", "End") if key in own}},
        ),
    }


def tell_owner(
    name: str,
    own: dict[str, Any],
    *,
    kind: str,
    untold: str = "",
    id: str = "$.id",  # noqa: A002 - the record's name
) -> States:
    """Sends the owner a message, and goes on even if it cannot be sent."""
    then = untold or own.get("Next")
    if not then:
        raise ParameterError("needs `untold` when it has no `Next`")
    parameters = {"id.$": id, "run.$": "$$.Execution.Name", "kind": kind}
    catch = [{**_caught(then), "ResultPath": None}]
    own = {"Catch": catch, **own}
    return {name: _task("${TellOwner}", "${TellSeconds}", parameters, [_any_error()], own)}


def explain_failure(
    name: str,
    own: dict[str, Any],
    *,
    code: str,
    message: str,
    workflow: str = "",
    id: str = "$.id",  # noqa: A002
) -> States:
    """Turns $.failure into $.explained, which falls back to the code and message given here."""
    # The undo's own input says how the launch ended.
    failure: dict[str, Any] = {"execution.$": "$"}
    if workflow:
        execution = {"status": "FAILED", "error.$": "$.failure.Error", "cause.$": "$.failure.Cause"}
        failure = {"workflow": workflow, "execution": execution}
    catch = [{**_caught("Explain Nothing"), "ResultPath": None}]
    own = {"ResultPath": "$.explained", "Catch": catch, **own}
    nothing = {"Type": "Pass", "Result": {"code": code, "message": message}, "ResultPath": own["ResultPath"]}
    parameters = {"id.$": id, "run.$": "$$.Execution.Name", **failure}
    return {
        name: _task("${ExplainFailure}", 60, parameters, [_any_error()], own),
        "Explain Nothing": nothing | {"Next": own.get("Next")},
    }


def call_ec2(name: str, own: dict[str, Any], *, action: str, parameters: dict[str, Any]) -> States:
    """Calls EC2."""
    return {name: _task(f"{_SDK}:ec2:{action}", 60, parameters, [retry_ec2()], own)}


def start_workflow(
    name: str,
    own: dict[str, Any],
    *,
    arn: str,
    execution: str,
    input: dict[str, Any],  # noqa: A002 - AWS's name
) -> States:
    """Starts an execution, unless one of that name exists."""
    parameters = {"StateMachineArn": arn, "Name.$": execution, "Input": input}
    retry = [
        _never("StepFunctions.ExecutionAlreadyExistsException"),
        _retrier(("StepFunctions.SdkClientException", "StepFunctions.ThrottlingException", "States.TaskFailed"), 2, 5),
    ]
    resource = "arn:aws:states:::states:startExecution"
    return {name: _task(resource, 60, parameters, retry, own)}


# What they are made of


def _caught(then: Any) -> dict[str, Any]:
    return {"ErrorEquals": ["States.ALL"], "ResultPath": "$.failure", "Next": then}


def _any_error() -> dict[str, Any]:
    return _retrier(("States.ALL",), 2, "${LambdaAttempts}")


def _task(
    resource: str, seconds: Number, parameters: dict[str, Any], retry: list[dict[str, Any]], own: dict[str, Any]
) -> dict[str, Any]:
    made = {"Type": "Task", "Resource": resource, "TimeoutSeconds": seconds, "Parameters": parameters, "Retry": retry}
    # Without a ResultPath the result would replace the workflow's input.
    return {**made, "ResultPath": None, **own}


def _row(table: str, key: str) -> dict[str, Any]:
    if table not in _TABLES:
        raise ParameterError(f"`table` must be one of {', '.join(_TABLES)}, not {table}")
    return {"TableName": _TABLES[table], "Key": {"id": {"S.$": key}}}


def _update(
    *,
    table: str,
    key: str,
    condition: str,
    update: str | None,
    values: Mapping[str, Any] | None,
    ledger: dict[str, Any] | None,
    names: Mapping[str, Any] | None = None,
    known: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Any]:
    made = {**_row(table, key), "ConditionExpression": condition}
    if update is not None:
        made["UpdateExpression"] = update
    known = {**_KNOWN, **known}
    given = {name: _attribute(name, value) for name, value in (values or {}).items()}
    if ledger is not None:
        if update is None or not update.startswith("SET "):
            raise ParameterError("has a `ledger`, so its `update` must begin with SET")
        made["UpdateExpression"] = _LEDGER + update.removeprefix("SET ")
        line = apply(ledger_line, ledger, "a `ledger`")
        lines = {"no_lines": {"L": []}, "lines": {"L": [{"M": line}]}}
        known |= {**lines, "error": {"M": {"code": line["code"], "message": line["reason"]}}}
    text = f"{condition} {made.get('UpdateExpression', '')}"
    made |= _names(text, names or {})
    used = dict.fromkeys(re.findall(r":(\w+)", text))
    if missing := [name for name in used if name not in given and name not in known]:
        raise ParameterError(f"has no value for {', '.join(f':{name}' for name in missing)}")
    if unused := [name for name in given if name not in used]:
        raise ParameterError(f"does not use {', '.join(f':{name}' for name in unused)}")
    if used:
        made["ExpressionAttributeValues"] = {f":{name}": given.get(name, known.get(name)) for name in used}
    return made


def _names(text: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """ExpressionAttributeNames: `#name` stands for the attribute `name`, unless another is given."""
    used = dict.fromkeys(re.findall(r"#(\w+)", text))
    if unused := [name for name in given if name not in used]:
        raise ParameterError(f"does not use {', '.join(f'#{name}' for name in unused)}")
    names = dict(_argument(f"#{name}", given.get(name, name), plain=True) for name in used)
    return {"ExpressionAttributeNames": names} if names else {}


def _attribute(name: str, value: Any) -> dict[str, Any]:
    """An attribute value. A text is a string or the path to one; anything else is written as DynamoDB has it."""
    if isinstance(value, str):
        return {"S.$" if _is_path(value) else "S": value}
    if isinstance(value, dict):
        return dict(value)
    raise ParameterError(f"`{name}` must be a text or an attribute value such as {{N: '1'}}, not {value}")


def _argument(name: str, value: str, *, plain: bool = False) -> tuple[str, Any]:
    """A parameter of a document, which is a list of one text, or a plain text. A path is read at run time."""
    if _is_path(value):
        return f"{name}.$", value if plain else f"States.Array({value})"
    return name, value if plain else [value]


def _is_path(text: str) -> bool:
    return text.startswith(("$.", "$$.", "States."))


def _item(given: Any) -> dict[str, Any]:
    return dict(apply(item, given, "an entry of `items`"))


FOR_STATES: dict[str, Callable[..., States]] = {
    "!read": read,
    "!write": write,
    "!transact": transact,
    "!wait-for-event": wait_for_event,
    "!record-step": record_step,
    "!run-document": run_document,
    "!call-ec2": call_ec2,
    "!tell-owner": tell_owner,
    "!explain-failure": explain_failure,
    "!start-workflow": start_workflow,
}
"""Fragments that stand for a state."""

FOR_PARTS: dict[str, Callable[..., dict[str, Any]]] = {
    "!condition-failed": condition_failed,
    "!retry-dynamodb": retry_dynamodb,
    "!retry-ec2": retry_ec2,
}
"""Fragments that stand for an entry of a Retry or a Catch."""
