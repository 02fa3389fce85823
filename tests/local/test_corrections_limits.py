"""What AWS's models refuse, and moto takes: required members, enumerations, lengths, ranges and patterns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from local.cloud import Cloud
from tests.local.clouds import cloud, no_faults  # noqa: F401


def asked(cloud: Cloud, service: str, call: Callable[[Any], Any]) -> dict[str, Any]:  # noqa: F811
    """The error of a call that botocore does not look through first."""
    client = boto3.client(
        service,  # type: ignore[call-overload]
        endpoint_url=cloud.aws_url,
        config=Config(parameter_validation=False, retries={"total_max_attempts": 1}),
    )
    with pytest.raises(ClientError) as raised:
        call(client)
    return dict(raised.value.response["Error"])


TOPIC = "arn:aws:sns:us-east-1:123456789012:nod-local-messages"
RULE = {"Name": "r" * 65, "ScheduleExpression": "rate(5 minutes)"}


@pytest.mark.parametrize(
    ("service", "call", "code", "words"),
    [
        (
            "ssm",
            lambda c: c.send_command(DocumentName="nod-local-prepare-instance", InstanceIds=["i-1"], Comment="x" * 101),
            "ValidationException",
            "at 'comment' failed to satisfy constraint: Member must have length less than or equal to 100",
        ),
        (
            "ssm",
            lambda c: c.send_command(DocumentName="nod-local-prepare-instance", InstanceIds=["i-1"], TimeoutSeconds=29),
            "ValidationException",
            "at 'timeoutSeconds' failed to satisfy constraint: Member must have value greater than or equal to 30",
        ),
        ("ssm", lambda c: c.send_command(InstanceIds=["i-1"]), "ValidationException", "at 'documentName'"),
        (
            "ssm",
            lambda c: c.put_parameter(Name="/nod/x", Value="x", Type="Secret"),
            "ValidationException",
            "enum value set: [String, StringList, SecureString]",
        ),
        (
            "dynamodb",
            lambda c: c.get_item(TableName="n" * 1025, Key={"id": {"S": "x"}}),
            "ValidationException",
            "at 'tableName'",
        ),
        (
            "dynamodb",
            lambda c: c.update_item(TableName="nod-local-users", Key={"name": {"S": "x"}}, ReturnValues="ALL"),
            "ValidationException",
            "at 'returnValues' failed to satisfy constraint: Member must satisfy enum value set",
        ),
        (
            "stepfunctions",
            lambda c: c.start_execution(stateMachineArn="arn:aws:states:us-east-1:1:stateMachine:x", name="n" * 81),
            "ValidationException",
            "at 'name' failed to satisfy constraint: Member must have length less than or equal to 80",
        ),
        (
            "stepfunctions",
            lambda c: c.send_task_failure(taskToken="t" * 2049, error="e"),
            "ValidationException",
            "at 'taskToken'",
        ),
        ("events", lambda c: c.put_rule(**RULE), "ValidationException", "at 'name'"),
        (
            "ec2",
            lambda c: c.create_fleet(
                LaunchTemplateConfigs=[],
                TargetCapacitySpecification={"TotalTargetCapacity": 1, "DefaultTargetCapacityType": "cheap"},
            ),
            "InvalidParameterValue",
            "enum value set: [spot, on-demand",
        ),
        (
            "ec2",
            lambda c: c.run_instances(MinCount=1, MaxCount=1, InstanceInitiatedShutdownBehavior="halt"),
            "InvalidParameterValue",
            "enum value set: [stop, terminate]",
        ),
    ],
)
def test_a_call_beyond_the_services_model_is_refused(
    cloud: Cloud,  # noqa: F811
    service: str,
    call: Callable[[Any], Any],
    code: str,
    words: str,
) -> None:
    error = asked(cloud, service, call)
    assert error["Code"] == code
    assert words in error["Message"]


@pytest.mark.parametrize(
    ("subject", "words"),
    [
        ("", "Subject"),
        ("x" * 101, "Subject"),
        ("two\nlines", "Subject"),
        ("Grüße", "Subject"),
        (" begins with a space", "Subject"),
    ],
)
def test_a_subject_is_one_line_of_ascii(cloud: Cloud, subject: str, words: str) -> None:  # noqa: F811
    error = asked(cloud, "sns", lambda c: c.publish(TopicArn=TOPIC, Message="m", Subject=subject))
    assert error["Code"] == "InvalidParameter"
    assert words in error["Message"]


def test_a_message_with_its_attributes_is_at_most_256_kib(cloud: Cloud) -> None:  # noqa: F811
    attributes = {"owner": {"DataType": "String", "StringValue": "o" * 1000}}
    error = asked(
        cloud,
        "sns",
        lambda c: c.publish(TopicArn=TOPIC, Message="m" * 261_500, MessageAttributes=attributes),
    )
    assert (error["Code"], "Message too long" in error["Message"]) == ("InvalidParameter", True)


def test_an_item_is_at_most_400_kib(cloud: Cloud) -> None:  # noqa: F811
    item = {"id": {"S": "large"}, "name": {"S": "large"}, "more": {"M": {"in": {"L": [{"S": "x" * 420_000}]}}}}
    error = asked(cloud, "dynamodb", lambda c: c.put_item(TableName="nod-local-users", Item=item))
    assert error["Code"] == "ValidationException"
    assert "Item size" in error["Message"]


@pytest.mark.parametrize(
    "tag",
    [
        {"Key": "k" * 129, "Value": "v"},
        {"Key": "nod:owner", "Value": "v" * 257},
        {"Key": "aws:mine", "Value": "v"},
    ],
)
def test_a_tag_of_ec2_has_limits(cloud: Cloud, tag: dict[str, str]) -> None:  # noqa: F811
    ec2 = boto3.client("ec2", endpoint_url=cloud.aws_url)
    volume = ec2.create_volume(AvailabilityZone="us-east-1a", Size=1)["VolumeId"]
    try:
        error = asked(cloud, "ec2", lambda c: c.create_tags(Resources=[volume], Tags=[tag]))
        assert error["Code"] in {"InvalidParameterValue", "TagLimitExceeded"}
    finally:
        ec2.delete_volume(VolumeId=volume)
