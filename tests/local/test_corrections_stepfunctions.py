"""Step Functions as AWS has it, where moto has not."""

from __future__ import annotations

import json
import re
import time
import uuid
from typing import Any

import pytest
from botocore.exceptions import ClientError

from local.cloud import Cloud
from tests.local.clouds import Events, client, cloud, no_faults, until  # noqa: F401

Z_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


@pytest.fixture(scope="module")
def sfn(cloud: Cloud) -> Any:  # noqa: F811
    return client(cloud, "stepfunctions")


def machine(sfn: Any, states: dict[str, Any], **top: Any) -> str:
    definition = {"StartAt": next(iter(states)), "States": states, **top}
    made = sfn.create_state_machine(
        name=f"m-{uuid.uuid4()}", definition=json.dumps(definition), roleArn="arn:aws:iam::123456789012:role/any"
    )
    return str(made["stateMachineArn"])


def start(sfn: Any, arn: str, given: Any = None, name: str | None = None) -> str:
    options = {"name": name} if name else {}
    return str(sfn.start_execution(stateMachineArn=arn, input=json.dumps(given or {}), **options)["executionArn"])


def ended(sfn: Any, execution: str, seconds: float = 120) -> dict[str, Any]:
    def over() -> Any:
        seen = sfn.describe_execution(executionArn=execution)
        return seen if seen["status"] != "RUNNING" else None

    return dict(until(over, seconds))


def run(sfn: Any, states: dict[str, Any], given: Any = None, **top: Any) -> dict[str, Any]:
    return ended(sfn, start(sfn, machine(sfn, states, **top), given))


def output(seen: dict[str, Any]) -> Any:
    assert seen["status"] == "SUCCEEDED", seen
    return json.loads(seen["output"])


def token_task(queue_url: str, **more: Any) -> dict[str, Any]:
    """A task that waits for a token, which it sends to a queue."""
    return {
        "Type": "Task",
        "Resource": "arn:aws:states:::aws-sdk:sqs:sendMessage.waitForTaskToken",
        "Parameters": {"QueueUrl": queue_url, "MessageBody.$": "$$.Task.Token"},
        **more,
    }


class Tokens:
    def __init__(self, cloud: Cloud) -> None:  # noqa: F811
        self.sqs = client(cloud, "sqs")
        self.url = self.sqs.create_queue(QueueName=f"tokens-{uuid.uuid4()}")["QueueUrl"]

    def next(self) -> str:
        def received() -> Any:
            messages = self.sqs.receive_message(QueueUrl=self.url).get("Messages")
            if messages:
                self.sqs.delete_message(QueueUrl=self.url, ReceiptHandle=messages[0]["ReceiptHandle"])
                return messages[0]["Body"]
            return None

        return str(until(received))


@pytest.fixture
def tokens(cloud: Cloud) -> Tokens:  # noqa: F811
    return Tokens(cloud)


def sdk(service_action: str, parameters: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "Type": "Task",
        "Resource": f"arn:aws:states:::aws-sdk:{service_action}",
        "Parameters": parameters,
        "End": True,
        **more,
    }


@pytest.mark.parametrize(
    ("task", "error"),
    [
        (sdk("ec2:describeInstances", {"InstanceIds": ["i-00000000000000000"]}), "Ec2.Ec2Exception"),
        (
            sdk("ssm:sendCommand", {"DocumentName": "nod-local-prepare-instance", "InstanceIds": ["i-1"]}),
            "Ssm.InvalidInstanceIdException",
        ),
        (
            sdk(
                "dynamodb:putItem",
                {
                    "TableName": "nod-local-users",
                    "Item": {"id": {"S": "name#demo"}},
                    "ConditionExpression": "attribute_not_exists(id)",
                },
            ),
            "DynamoDb.ConditionalCheckFailedException",
        ),
    ],
)
def test_errors_of_integrations_have_the_names_of_aws(sfn: Any, task: dict[str, Any], error: str) -> None:
    assert run(sfn, {"Do": task})["error"] == error


def test_a_path_through_an_index_is_the_value_and_a_wildcard_is_a_list(sfn: Any) -> None:
    given = {"list": [{"field": 1, "deep": {"er": 2}}], "none": []}
    state = {
        "Type": "Pass",
        "Parameters": {
            "one.$": "$.list[0].field",
            "deep.$": "$.list[0].deep.er",
            "all.$": "$.list[*].field",
            "deeper.$": "$.list[*].deep.er",
            "none.$": "$.none[*].field",
        },
        "End": True,
    }
    assert output(run(sfn, {"P": state}, given)) == {"one": 1, "deep": 2, "all": [1], "deeper": [2], "none": []}


def test_a_path_that_leads_nowhere_is_an_error(sfn: Any) -> None:
    seen = run(sfn, {"P": {"Type": "Pass", "Parameters": {"x.$": "$.list[3].field"}, "End": True}}, {"list": []})
    assert (seen["status"], seen["error"]) == ("FAILED", "States.Runtime")


def test_times_are_iso_with_z(cloud: Cloud, sfn: Any) -> None:  # noqa: F811
    state = {
        "Type": "Pass",
        "Parameters": {"entered.$": "$$.State.EnteredTime", "started.$": "$$.Execution.StartTime"},
        "End": True,
    }
    for value in output(run(sfn, {"P": state})).values():
        assert Z_TIME.fullmatch(value)
    arn = machine(sfn, {"P": {"Type": "Succeed"}})
    found = output(run(sfn, {"Do": sdk("sfn:describeStateMachine", {"StateMachineArn": arn})}))
    assert found["StateMachineArn"] == arn
    assert Z_TIME.fullmatch(found["CreationDate"])


def test_an_execution_without_a_name_has_one(sfn: Any) -> None:
    state = {"Type": "Pass", "Parameters": {"name.$": "$$.Execution.Name"}, "End": True}
    assert len(output(run(sfn, {"P": state}))["name"]) == 36


def test_start_is_idempotent_while_it_runs_and_only_then(sfn: Any) -> None:
    arn = machine(sfn, {"W": {"Type": "Wait", "Seconds": 30, "End": True}})
    first = start(sfn, arn, {"a": 1}, "same")
    assert start(sfn, arn, {"a": 1}, "same") == first
    with pytest.raises(ClientError) as raised:
        start(sfn, arn, {"a": 2}, "same")
    assert raised.value.response["Error"]["Code"] == "ExecutionAlreadyExists"
    sfn.stop_execution(executionArn=first)
    with pytest.raises(ClientError) as raised:
        start(sfn, arn, {"a": 1}, "same")
    assert raised.value.response["Error"]["Code"] == "ExecutionAlreadyExists"
    with pytest.raises(ClientError) as raised:
        start(sfn, arn, {}, "bad name")
    assert raised.value.response["Error"]["Code"] == "InvalidName"


@pytest.mark.parametrize("kind", ["wait", "token", "retry", "parallel"])
def test_stop_ends_an_execution_at_once_with_its_reason(sfn: Any, tokens: Tokens, kind: str) -> None:
    waits = {"Type": "Wait", "Seconds": 300, "End": True}
    retry = [{"ErrorEquals": ["States.ALL"], "IntervalSeconds": 300, "MaxAttempts": 2}]
    state = {
        "wait": waits,
        "token": token_task(tokens.url, End=True),
        "retry": sdk("ec2:describeInstances", {"InstanceIds": ["i-00000000000000000"]}, Retry=retry),
        "parallel": {
            "Type": "Parallel",
            "Branches": [{"StartAt": "W", "States": {"W": waits}}, {"StartAt": "V", "States": {"V": waits}}],
            "End": True,
        },
    }[kind]
    execution = start(sfn, machine(sfn, {"S": state}))
    time.sleep(0.3)
    began = time.monotonic()
    sfn.stop_execution(executionArn=execution, error="Tired", cause="of waiting")
    seen = sfn.describe_execution(executionArn=execution)
    assert time.monotonic() - began < 20
    assert (seen["status"], seen["error"], seen["cause"]) == ("ABORTED", "Tired", "of waiting")
    history = sfn.get_execution_history(executionArn=execution)["events"]
    assert history[-1]["type"] == "ExecutionAborted"


def test_a_state_machine_has_its_own_timeout(sfn: Any) -> None:
    states = {"W": {"Type": "Wait", "Seconds": 60, "End": True}}
    began = time.monotonic()
    seen = run(sfn, states, TimeoutSeconds=1)
    assert seen["status"] == "TIMED_OUT"
    assert time.monotonic() - began < 20
    assert "stopDate" in seen


def test_a_token_is_answered_once(sfn: Any, tokens: Tokens) -> None:
    execution = start(sfn, machine(sfn, {"T": token_task(tokens.url, End=True)}))
    token = tokens.next()
    assert len(token) > 500
    sfn.send_task_success(taskToken=token, output='{"x": 1}')
    with pytest.raises(ClientError) as raised:
        sfn.send_task_success(taskToken=token, output='{"x": 2}')
    assert raised.value.response["Error"]["Code"] == "TaskTimedOut"
    assert output(ended(sfn, execution)) == {"x": 1}
    with pytest.raises(ClientError) as raised:
        sfn.send_task_failure(taskToken=token, error="late")
    assert raised.value.response["Error"]["Code"] == "TaskTimedOut"
    with pytest.raises(ClientError) as raised:
        sfn.send_task_success(taskToken="never-was", output="{}")
    assert raised.value.response["Error"]["Code"] == "InvalidToken"
    for none in ("no json", '{"x": Infinity}', "[NaN]"):
        with pytest.raises(ClientError) as raised:
            sfn.send_task_success(taskToken=token, output=none)
        assert raised.value.response["Error"]["Code"] == "InvalidOutput"


def test_a_failure_by_token_keeps_its_cause(sfn: Any, tokens: Tokens) -> None:
    execution = start(sfn, machine(sfn, {"T": token_task(tokens.url, End=True)}))
    sfn.send_task_failure(taskToken=tokens.next(), error="CommandFailed", cause='{"code": "disk_full"}')
    seen = ended(sfn, execution)
    assert (seen["error"], seen["cause"]) == ("CommandFailed", '{"code": "disk_full"}')


def test_a_token_that_times_out_is_caught_and_void(sfn: Any, tokens: Tokens) -> None:
    catch = [{"ErrorEquals": ["States.Timeout"], "Next": "Late"}]
    states = {"T": token_task(tokens.url, TimeoutSeconds=1, Catch=catch, End=True), "Late": {"Type": "Succeed"}}
    execution = start(sfn, machine(sfn, states))
    token = tokens.next()
    assert output(ended(sfn, execution))["Error"] == "States.Timeout"
    with pytest.raises(ClientError) as raised:
        sfn.send_task_success(taskToken=token, output="{}")
    assert raised.value.response["Error"]["Code"] == "TaskTimedOut"


def test_a_further_try_has_a_new_token_and_waits_for_it(sfn: Any, tokens: Tokens) -> None:
    retry = [{"ErrorEquals": ["Again"], "IntervalSeconds": 1, "MaxAttempts": 2}]
    execution = start(sfn, machine(sfn, {"T": token_task(tokens.url, Retry=retry, End=True)}))
    first = tokens.next()
    sfn.send_task_failure(taskToken=first, error="Again")
    second = tokens.next()
    assert second != first
    sfn.send_task_success(taskToken=second, output='"second"')
    assert output(ended(sfn, execution)) == "second"


def test_a_branch_that_fails_ends_the_others(sfn: Any, tokens: Tokens) -> None:
    states = {
        "P": {
            "Type": "Parallel",
            "Branches": [
                {"StartAt": "T", "States": {"T": token_task(tokens.url, End=True)}},
                {"StartAt": "F", "States": {"F": {"Type": "Fail", "Error": "Broken", "Cause": "for a test"}}},
            ],
            "Catch": [{"ErrorEquals": ["Broken"], "Next": "Caught"}],
            "End": True,
        },
        "Caught": {"Type": "Succeed"},
    }
    began = time.monotonic()
    assert output(run(sfn, states))["Cause"] == "for a test"
    assert time.monotonic() - began < 20


def test_functions_are_called_and_their_errors_are_named(cloud: Cloud, sfn: Any) -> None:  # noqa: F811
    class UnhappyError(Exception):
        pass

    def handler(event: Any, context: Any) -> Any:
        if event.get("fail"):
            raise UnhappyError("no luck")
        return {"got": event, "name": context.function_name, "left": context.get_remaining_time_in_millis() > 0}

    cloud.lambdas._handlers["nod-local-test"] = handler
    arn = cloud.lambdas.arn("nod-local-test")
    direct = {"Type": "Task", "Resource": arn, "End": True}
    assert output(run(sfn, {"L": direct}, {"a": 1})) == {"got": {"a": 1}, "name": "nod-local-test", "left": True}
    optimised = {
        "Type": "Task",
        "Resource": "arn:aws:states:::lambda:invoke",
        "Parameters": {"FunctionName": arn, "Payload.$": "$"},
        "End": True,
    }
    assert output(run(sfn, {"L": optimised}, {"a": 2}))["Payload"]["got"] == {"a": 2}
    for state in (direct, optimised):
        seen = run(sfn, {"L": state}, {"fail": True})
        assert seen["error"] == "UnhappyError"
        cause = json.loads(seen["cause"])
        assert (cause["errorMessage"], cause["errorType"]) == ("no luck", "UnhappyError")
        assert any("no luck" in line for line in cause["stackTrace"])
    missing = run(sfn, {"L": {**direct, "Resource": cloud.lambdas.arn("nod-local-nobody")}})
    assert missing["error"] == "Lambda.ResourceNotFoundException"


def test_a_change_of_status_is_an_event(cloud: Cloud, sfn: Any) -> None:  # noqa: F811
    arn = machine(sfn, {"F": {"Type": "Fail", "Error": "Why", "Cause": "because"}})
    pattern = {
        "source": ["aws.states"],
        "detail-type": ["Step Functions Execution Status Change"],
        "detail": {"stateMachineArn": [arn], "status": ["FAILED", "RUNNING"]},
    }
    events = Events(cloud, f"status-{uuid.uuid4()}", pattern, InputPath="$.detail")
    start(sfn, arn, {"a": 1}, "named")
    failed = events.wait(lambda detail: detail["status"] == "FAILED")
    assert events.wait(lambda detail: detail["status"] == "RUNNING")["stopDate"] is None
    assert failed["name"] == "named"
    assert json.loads(failed["input"]) == {"a": 1}
    assert (failed["error"], failed["cause"], failed["output"]) == ("Why", "because", None)
    assert failed["stopDate"] >= failed["startDate"] > 10**12


def test_a_definition_from_the_template_can_be_started_by_another(sfn: Any) -> None:
    arn = machine(sfn, {"P": {"Type": "Succeed"}})
    task = {
        "Type": "Task",
        "Resource": "arn:aws:states:::states:startExecution",
        "Parameters": {"StateMachineArn": arn, "Name": "child", "Input": {"a": 1}},
        "End": True,
    }
    assert output(run(sfn, {"S": task}))["ExecutionArn"].endswith(":child")
    again = run(sfn, {"S": {**task, "Parameters": {**task["Parameters"], "Input": {"a": 2}}}})
    assert again["error"] == "StepFunctions.ExecutionAlreadyExistsException"
