"""The longest names and inputs that the product lets in, held to AWS's quotas.

Sources: each service's guide, "Quotas" or the reference of the resource, as named beside each number.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from chalicelib import messages
from chalicelib.prices import catalogue
from chalicelib.settings import Settings
from deploy import inputs
from deploy.errors import InputError
from instance.build import documents
from local.aws import beans, limits
from tests.aws.iam.deployment import PARAMETERS, Deployment
from tests.aws.longest import ACCOUNT, HASH, ID, NAME, OWNER, REGION, STAGE, environment, notebook, user
from tests.aws.packaged import transformed

# Type of a resource, its property, the longest that AWS takes, and the characters.
NAMED: dict[str, tuple[str, int, str]] = {
    "AWS::Lambda::Function": ("FunctionName", 64, r"[A-Za-z0-9_-]+"),
    "AWS::IAM::Role": ("RoleName", 64, r"[\w+=,.@-]+"),
    "AWS::IAM::InstanceProfile": ("InstanceProfileName", 128, r"[\w+=,.@-]+"),
    "AWS::DynamoDB::Table": ("TableName", 255, r"[A-Za-z0-9_.-]{3,}"),
    "AWS::SNS::Topic": ("TopicName", 256, r"[A-Za-z0-9_-]+"),
    "AWS::SQS::Queue": ("QueueName", 80, r"[A-Za-z0-9_-]+"),
    "AWS::Events::Rule": ("Name", 64, r"[A-Za-z0-9_.-]+"),
    "AWS::StepFunctions::StateMachine": ("StateMachineName", 80, r"[A-Za-z0-9_-]+"),
    "AWS::SSM::Document": ("Name", 128, r"[A-Za-z0-9_.-]{3,}"),
    "AWS::CloudWatch::Alarm": ("AlarmName", 255, r"[ -~]+"),
    "AWS::CloudWatch::Dashboard": ("DashboardName", 255, r"[A-Za-z0-9_-]+"),
    "AWS::Logs::LogGroup": ("LogGroupName", 512, r"[A-Za-z0-9_/.#-]+"),
    "AWS::EC2::SecurityGroup": ("GroupName", 255, r"[A-Za-z0-9 ._\-:/()#,@\[\]+=&;{}!$*]+"),
    "AWS::EC2::LaunchTemplate": ("LaunchTemplateName", 128, r"[A-Za-z0-9().\-/_]{3,}"),
    "AWS::ApiGateway::RestApi": ("Name", 1024, r".+"),
}


class Longest(Deployment):
    """The packaged deployment with the longest stage, region and lists."""

    def __init__(self) -> None:
        text = json.dumps(transformed()).replace("nod-prod", f"nod-{STAGE}")
        super().__init__(json.loads(text))
        self._resolver._parameters.update(  # type: ignore[attr-defined]
            {
                "Stage": STAGE,
                "AWS::Region": REGION,
                "AWS::AccountId": ACCOUNT,
                "SubnetIds": [f"subnet-{number:017x}" for number in range(inputs.MOST_SUBNETS)],
                "InstanceTypes": inputs.parameters(instance_types="none")["InstanceTypes"].split(","),
                "InstallerUrl": f"https://{'x' * (inputs.MOST_URL - 9)}/",
                "InstallerSha256": "0" * 64,
                "SlackOrigin": f"https://{'x' * 255}",
            }
        )


@functools.cache
def longest() -> Longest:
    return Longest()


def test_names_of_resources_fit() -> None:
    made = longest()
    seen = set()
    for kind, (key, most, characters) in NAMED.items():
        for logical in made.of_type(kind):
            name = made.value(logical, key)
            if name is None:
                # CloudFormation makes one up that fits.
                continue
            seen.add(kind)
            assert len(name) <= most, f"{logical}: {len(name)} characters"
            assert re.fullmatch(characters, name), f"{logical}: {name}"
    assert seen >= NAMED.keys() - {"AWS::ApiGateway::RestApi"}


def test_the_environment_of_a_function_fits() -> None:
    """Lambda: 4 KB for all variables of a function together."""
    made = longest()
    for logical in made.of_type("AWS::Lambda::Function"):
        variables = made.value(logical, "Environment")["Variables"]
        assert variables["NOD_NOTEBOOKS_TABLE"] == f"nod-{STAGE}-notebooks"
        size = sum(len(name.encode()) + len(str(value).encode()) for name, value in variables.items())
        # Chalice's own and X-Ray's come to it.
        assert size <= 4096 - 100, f"{logical}: {size} bytes"


@pytest.mark.parametrize("count", [41, 160])
def test_more_subnets_or_a_longer_address_than_an_environment_holds_are_refused(count: int) -> None:
    with pytest.raises(InputError, match=f"names {count} subnets; at most 40"):
        inputs.subnets(",".join(f"subnet-{number:017x}" for number in range(count)))
    with pytest.raises(InputError, match="at most 1024"):
        inputs.parameters(installer_url=f"https://x.example/{'x' * 1024}", installer_sha256="0" * 64)


@pytest.mark.parametrize("address", ["https://x.example/a b", "https://x.example/a#b", "https://u:p@x.example/(a)"])
def test_an_installer_that_its_document_would_refuse_is_refused_before(address: str) -> None:
    pattern = documents()["install-anaconda"]["parameters"]["InstallerUrl"]
    assert not re.fullmatch(pattern["allowedPattern"].strip("^$"), address)
    with pytest.raises(InputError, match="INSTALLER_URL"):
        inputs.parameters(installer_url=address, installer_sha256="0" * 64)
    good = "https://repo.example.org:8443/a/B_c~1.0+x%20y.sh?d=e&f=g,h@i"
    assert re.fullmatch(pattern["allowedPattern"].strip("^$"), good)
    assert inputs.parameters(installer_url=good, installer_sha256="0" * 64)["InstallerUrl"] == good
    assert pattern["maxChars"] == inputs.MOST_URL


def test_the_policies_of_a_role_fit() -> None:
    """IAM: 10,240 characters for all inline policies of a role, white space not counted; 20 KB for its trust."""
    made = longest()
    for logical in made.of_type("AWS::IAM::Role"):
        policies = made.value(logical, "Policies") or []
        size = sum(len(re.sub(r"\s", "", json.dumps(one["PolicyDocument"]))) for one in policies)
        assert size <= 10_240, f"{logical}: {size} characters"
        assert len(json.dumps(made.value(logical, "AssumeRolePolicyDocument"))) <= 2_048


def test_rules_of_eventbridge_fit() -> None:
    """EventBridge: a pattern of 4,096 characters, 5 targets, an input of 8,192 characters."""
    made = longest()
    rules = made.of_type("AWS::Events::Rule")
    assert rules
    for logical in rules:
        properties = made.properties(logical)
        assert len(json.dumps(properties.get("EventPattern", {}))) <= 4_096
        assert len(properties["Targets"]) <= 5
        assert all(len(one["Id"]) <= 64 and len(one.get("Input", "")) <= 8_192 for one in properties["Targets"])


def test_texts_of_the_template_fit() -> None:
    """Descriptions: EC2 255, EventBridge 512, Lambda 256, SNS's display name 100 characters; parameters 4,000."""
    made = longest()
    most = {"AWS::EC2::SecurityGroup": ("GroupDescription", 255), "AWS::Events::Rule": ("Description", 512)}
    most |= {"AWS::Lambda::Function": ("Description", 256), "AWS::SNS::Topic": ("DisplayName", 100)}
    for kind, (key, length) in most.items():
        for logical in made.of_type(kind):
            assert len(made.value(logical, key) or "") <= length
    assert all(len(one.get("Description", "")) <= 4_000 for one in made.template["Parameters"].values())
    assert PARAMETERS.keys() <= made.template["Parameters"].keys()


def test_the_dashboard_fits() -> None:
    """CloudWatch: 500 widgets, 500 metrics a widget, 2,500 a dashboard, a body of 1 MB."""
    made = longest()
    (logical,) = made.of_type("AWS::CloudWatch::Dashboard")
    body = made.value(logical, "DashboardBody")
    widgets = json.loads(body)["widgets"]
    assert len(body) < 1_000_000 and len(widgets) <= 500
    metrics = [len(one["properties"].get("metrics", ())) for one in widgets]
    assert max(metrics) <= 500 and sum(metrics) <= 2_500


def sent() -> Iterator[tuple[str, dict[str, str]]]:
    """Each document with the longest of its parameters, as the workflows send it."""
    longest_of = {
        "TaskToken": "t" * 2048,
        "PasswordHash": HASH,
        "InstallerUrl": f"https://{'x' * 245}.example/{'y' * (inputs.MOST_URL - 262)}",
        "InstallerSha256": "0" * 64,
        "HeartbeatsTable": f"nod-{STAGE}-heartbeats",
        "Region": REGION,
    }
    for name, document in documents().items():
        yield name, {key: longest_of[key] for key in document.get("parameters", {}) if key in longest_of}


def test_commands_with_their_parameters_fit() -> None:
    """Systems Manager: 64 KB for a document with its parameters; each within its own pattern and length."""
    shape = beans.named("ssm", "sendCommand").input_shape
    for name, values in sent():
        document = documents()[name]
        assert len(json.dumps(document)) + len(json.dumps(values)) < 65_536, name
        for key, value in values.items():
            rule = document["parameters"][key]
            assert len(value) <= rule.get("maxChars", len(value)), f"{name}: {key}"
            assert re.fullmatch(rule["allowedPattern"].removeprefix("^").removesuffix("$"), value), f"{name}: {key}"
        call = {
            "DocumentName": f"nod-{STAGE}-{name}",
            "InstanceIds": ["i-0123456789abcdef0"],
            "Comment": f"{ID}-password-1000000",
            "TimeoutSeconds": 120,
            "Parameters": {key: [value] for key, value in values.items()},
        }
        assert list(limits.violations(shape, call)) == []


class Published:
    """An SNS client that keeps what it is given."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    def publish(self, **call: Any) -> None:
        self.calls.append(call)


@pytest.mark.parametrize("count", [1, 1000])
def test_a_message_about_many_notebooks_fits(count: int) -> None:
    """SNS: 256 KiB with its attributes, a subject of fewer than 100 ASCII characters."""
    from chalicelib.aws.topic import Topic  # noqa: PLC0415 - beside what it is for

    stopped = [
        replace(notebook(), state="stopped", stopped_at="2026-11-30T00:00:00.000Z", run_started_at=None)
        for _ in range(count)
    ]
    client = Published()
    made = messages.disks(user(), stopped, catalogue(), REGION, datetime(2026, 12, 1, tzinfo=UTC))
    Topic(client, Settings.from_env(environment()).topic_arn).publish(made)
    plan = f"It goes at {datetime(2026, 12, 2, tzinfo=UTC)}."
    Topic(client, Settings.from_env(environment()).topic_arn).publish(
        messages.orphan(user(), "volume", f"vol-{'0' * 17}", plan)
    )
    for call in client.calls:
        assert limits._beyond_the_model("sns", "Publish", call) is None
        shape = beans.named("sns", "publish").input_shape
        assert list(limits.violations(shape, call)) == []
    assert NAME in client.calls[0]["Message"] and OWNER in client.calls[0]["Message"]
    assert (f"{count - 100} more" in client.calls[0]["Message"]) is (count > 100)


def test_the_table_of_what_is_looked_at_names_services_of_ours() -> None:
    assert limits.refusal("ec2", "DescribeInstances", b"Action=DescribeInstances&InstanceId.1=i-1") is None
    assert limits.refusal("elsewhere", "DoIt", b"{}") is None
