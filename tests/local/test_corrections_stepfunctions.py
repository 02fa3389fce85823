"""Step Functions as AWS has it, where moto has not."""

from __future__ import annotations

import json
import re
import time
import uuid
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from moto.stepfunctions.parser.asl.component.state.exec.state_task.service import state_task_service_aws_sdk

from local.aws import beans, definitions
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


# Names inside SDK integrations: the Java SDK's, where moto takes the API's

SET_TYPES = "SET tags = :tags, sizes = :sizes, done = :done, nothing = :nothing, deep = :deep"


@pytest.fixture(scope="module")
def table(cloud: Cloud) -> str:  # noqa: F811
    client(cloud, "dynamodb").create_table(
        TableName="names",
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        BillingMode="PAY_PER_REQUEST",
    )
    return "names"


def update(table: str, values: dict[str, Any]) -> dict[str, Any]:
    return {
        "TableName": table,
        "Key": {"id": {"S": "x"}},
        "UpdateExpression": SET_TYPES,
        "ExpressionAttributeValues": values,
    }


BEANS = {
    ":tags": {"Ss": ["a", "b"]},
    ":sizes": {"Ns": ["1"]},
    ":done": {"Bool": True},
    ":nothing": {"Nul": True},
    ":deep": {"M": {"all": {"L": [{"Bool": False}, {"M": {"in": {"Ss": ["c"]}}}]}}},
}


@pytest.mark.parametrize(
    ("api", "java"),
    [
        ("SS", "Ss"),
        ("BOOL", "Bool"),
        ("S", "S"),
        ("DBInstanceIdentifier", "DbInstanceIdentifier"),
        ("KMSMasterKeyArn", "KmsMasterKeyArn"),
        ("AWSKMSKeyARN", "AwskmsKeyARN"),
        ("VCpuInfo", "VCpuInfo"),
        ("S3Bucket", "S3Bucket"),
        ("TableName", "TableName"),
        ("stateMachineArn", "StateMachineArn"),
        # Capitals further on stay: Java's method is createOpenIDConnectProvider.
        ("OpenIDConnectProviderArn", "OpenIDConnectProviderArn"),
    ],
)
def test_names_of_java_beans(api: str, java: str) -> None:
    assert beans.bean(api) == java


def test_an_sdk_integration_takes_and_gives_the_names_of_the_java_sdk(cloud: Cloud, sfn: Any, table: str) -> None:  # noqa: F811
    states = {
        "Write": {**sdk("dynamodb:updateItem", update(table, BEANS)), "ResultPath": None, "Next": "Read"},
        "Read": sdk("dynamodb:getItem", {"TableName": table, "Key": {"id": {"S": "x"}}}),
    }
    del states["Write"]["End"]
    item = output(run(sfn, states))["Item"]
    assert {f":{name}": value for name, value in item.items() if name != "id"} == BEANS
    stored = client(cloud, "dynamodb").get_item(TableName=table, Key={"id": {"S": "x"}})["Item"]
    assert stored["tags"] == {"SS": ["a", "b"]} and stored["nothing"] == {"NULL": True}
    assert stored["deep"]["M"]["all"]["L"][1]["M"]["in"] == {"SS": ["c"]}


def test_the_optimized_integration_takes_the_names_of_the_api(sfn: Any, table: str) -> None:
    values = {":tags": {"SS": ["a"]}, ":sizes": {"NS": ["1"]}, ":done": {"BOOL": True}, ":nothing": {"NULL": True}}
    task = {
        "Type": "Task",
        "Resource": "arn:aws:states:::dynamodb:updateItem",
        "Parameters": update(table, {**values, ":deep": {"L": [{"BOOL": True}]}}),
        "End": True,
    }
    assert run(sfn, {"Do": task})["status"] == "SUCCEEDED"


@pytest.mark.parametrize("name", ["SS", "NS", "BS", "BOOL", "NULL", "Null", "ss"])
def test_the_apis_names_are_refused_in_a_definition(sfn: Any, table: str, name: str) -> None:
    deep = {":tags": {"M": {"in": {"L": [{name: True}]}}}}
    for values in ({":tags": {name: ["a"]}}, {":tags": {f"{name}.$": "$.tags"}}, deep):
        with pytest.raises(ClientError) as raised:
            machine(sfn, {"Do": sdk("dynamodb:updateItem", update(table, values))})
        error = raised.value.response["Error"]
        assert error["Code"] == "InvalidDefinition"
        assert "SCHEMA_VALIDATION_FAILED" in error["Message"]
        assert f'The field "{name}" is not supported by Step Functions at /States/Do/Parameters' in error["Message"]


@pytest.mark.parametrize("given", [{"SS": ["a"]}, {"M": {"x": {"BOOL": True}}}, {"L": [{"NULL": True}]}, "a"])
def test_the_apis_names_are_refused_in_what_arrives_by_a_path_and_nothing_catches_it(
    sfn: Any, table: str, given: Any
) -> None:
    parameters = update(table, {})
    del parameters["ExpressionAttributeValues"]
    states = {
        "Do": sdk(
            "dynamodb:updateItem",
            {**parameters, "ExpressionAttributeValues.$": "$.values"},
            Retry=[{"ErrorEquals": ["States.ALL"], "IntervalSeconds": 1, "MaxAttempts": 3}],
            Catch=[{"ErrorEquals": ["States.ALL"], "Next": "Caught"}],
        ),
        "Caught": {"Type": "Succeed"},
    }
    seen = run(sfn, states, {"values": {":tags": given}})
    assert (seen["status"], seen["error"]) == ("FAILED", "States.Runtime")
    assert "could not be used to start the Task" in seen["cause"]


def test_results_of_other_services_have_the_same_rule(sfn: Any) -> None:
    """EC2's `VCpuInfo` keeps both capitals, for the second begins a word."""
    types = output(run(sfn, {"Do": sdk("ec2:describeInstanceTypes", {"InstanceTypes": ["t3.medium"]})}))
    assert types["InstanceTypes"][0]["VCpuInfo"]["DefaultVCpus"] == 2
    assert "ResponseMetadata" not in types


def test_a_call_that_does_not_exist_and_one_without_what_is_required_are_refused(sfn: Any) -> None:
    for task, word in (
        (sdk("ec2:describeMachines", {}), "describeMachines is not recognized"),
        (sdk("nothing:doIt", {}), "nothing:doIt is not recognized"),
        (sdk("ssm:sendCommand", {"InstanceIds": ["i-1"]}), 'The field "DocumentName" is required but was missing'),
        (sdk("ssm:sendCommand", {"DocumentName": "x", "InstanceIds": "i-1"}), "must be an ARRAY"),
        (sdk("ssm:sendCommand", {"DocumentName": "x", "Parameters": {"A": "b"}}), "must be an ARRAY"),
    ):
        with pytest.raises(ClientError) as raised:
            machine(sfn, {"Do": task})
        assert word in raised.value.response["Error"]["Message"]


# What nothing catches, and paths


def test_a_runtime_error_ends_an_execution_past_every_catch(sfn: Any) -> None:
    caught: dict[str, Any] = {"Catch": [{"ErrorEquals": ["States.ALL"], "Next": "Caught"}]}
    task = sdk("ec2:describeInstances", {"InstanceIds.$": "$.none"})
    for state in (
        {**task, **caught},
        {"Type": "Parallel", "Branches": [{"StartAt": "T", "States": {"T": task}}], "End": True, **caught},
    ):
        seen = run(sfn, {"Do": state, "Caught": {"Type": "Succeed"}})
        assert (seen["status"], seen["error"]) == ("FAILED", "States.Runtime")


def test_a_wildcard_behind_what_is_not_there_is_an_error(sfn: Any) -> None:
    state = {"Type": "Pass", "Parameters": {"x.$": "$.none[*].field"}, "End": True}
    assert run(sfn, {"P": state})["error"] == "States.Runtime"
    assert output(run(sfn, {"P": state}, {"none": [{}, {"field": 1}]})) == {"x": [1]}


def test_a_call_that_does_not_reach_the_service_is_the_sdks_own_error(
    sfn: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: Any, **__: Any) -> Any:
        raise EndpointConnectionError(endpoint_url="http://ec2")

    arn = machine(sfn, {"Do": sdk("ec2:describeInstances", {})})
    monkeypatch.setattr(state_task_service_aws_sdk, "boto_client_for", unreachable)
    assert ended(sfn, start(sfn, arn))["error"] == "Ec2.SdkClientException"


# Definitions

PASS = {"Type": "Pass", "End": True}


@pytest.mark.parametrize(
    ("states", "word"),
    [
        ({"S" * 81: PASS}, "at most 80 characters"),
        ({"A": PASS, "B": PASS}, "is not reachable"),
        ({"A": {"Type": "Pass", "Next": "B"}}, "Missing 'Next' target: B"),
        ({"A": {"Type": "Pass"}}, "[Next, End]"),
        ({"A": {**PASS, "TimeoutSeconds": 5}}, "Field is not supported"),
        ({"A": {"Type": "Wait", "Seconds": 1.5, "End": True}}, "whole number"),
        ({"A": {"Type": "Wait", "Seconds": 100_000_000, "End": True}}, "whole number"),
        ({"A": {**PASS, "ResultPath": "$.x[*]"}}, "Reference Path"),
        ({"A": {**PASS, "Parameters": {"x.$": "x"}}}, "JSONPath"),
        ({"A": {**PASS, "Parameters": {"x.$": "States.Upper($.x)"}}}, "no intrinsic function"),
        ({"A": {**PASS, "Parameters": {"x.$": "States.MathAdd($.x)"}}}, "does not take 1 arguments"),
        ({"A": {**PASS, "Parameters": {"x.$": "States.Format('{} {}', $.x)"}}}, "2 places for 1 arguments"),
        ({"A": {**PASS, "Parameters": {"x.$": "States.Format('{a}', $.x)"}}}, "A brace"),
        ({"A": {"Type": "Fail", "Error": "E", "Cause": "c", "CausePath": "$.c"}}, "Only one of these fields"),
        (
            {"A": sdk("ec2:describeInstances", {}, Retry=[{"ErrorEquals": ["States.ALL", "X"]}])},
            "States.ALL stands alone",
        ),
        (
            {"A": sdk("ec2:describeInstances", {}, Retry=[{"ErrorEquals": ["X"], "IntervalSeconds": 0}])},
            "whole number from 1",
        ),
    ],
)
def test_a_definition_that_aws_refuses_is_refused(sfn: Any, states: dict[str, Any], word: str) -> None:
    with pytest.raises(ClientError) as raised:
        machine(sfn, states)
    assert raised.value.response["Error"]["Code"] == "InvalidDefinition"
    assert word in raised.value.response["Error"]["Message"]


@pytest.mark.parametrize(
    "function",
    [
        "States.Format('a \\'quote\\' and \\{braces\\} {}', $.x[0].y)",
        "States.JsonToString($)",
        "States.Array(1, 'two', $.three, null, States.UUID())",
        "States.ArrayGetItem(States.StringSplit($$.Execution.Name, '-'), 0)",
    ],
)
def test_what_aws_takes_is_taken(function: str) -> None:
    definitions.check_intrinsic(function)


def test_a_definition_has_a_limit(sfn: Any) -> None:
    with pytest.raises(ClientError) as raised:
        machine(sfn, {"A": {**PASS, "Result": "x" * 1_048_576}})
    assert "length less than or equal to 1048576" in raised.value.response["Error"]["Message"]
    assert definitions.problems(" " * 1_048_577)[0].startswith("DEFINITION_TOO_LARGE")


@pytest.mark.parametrize("fault", ["answer_lost", "throttling"])
def test_of_executions_side_by_side_each_try_again_comes_through(
    cloud: Cloud,  # noqa: F811
    sfn: Any,
    fault: str,
) -> None:
    read = {
        "Type": "Task",
        "Resource": "arn:aws:states:::aws-sdk:dynamodb:getItem",
        "Parameters": {"TableName": "nod-local-heartbeats", "Key": {"id": {"S": "any"}}},
        "Retry": [{"ErrorEquals": ["States.ALL"], "IntervalSeconds": 1, "MaxAttempts": 1, "BackoffRate": 1}],
        "End": True,
    }
    arn = machine(sfn, {"Read": read})
    cloud.faults.on(f"{fault}:dynamodb")
    executions = [start(sfn, arn) for _ in range(5)]
    for execution in executions:
        assert ended(sfn, execution)["status"] == "SUCCEEDED"
        history = sfn.get_execution_history(executionArn=execution, maxResults=1000)["events"]
        assert [event["type"] for event in history].count("TaskFailed") == 1
