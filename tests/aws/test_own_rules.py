"""What scanners let pass (checkov likes a template with port 8888 open to the world), over the template as deployed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from ipaddress import ip_network
from typing import Any

import pytest

from tests.aws.iam.deployment import Principal, deployment, listed, principals
from tests.aws.packaged import CIDRS

# Of actions that read, list or describe, and of what takes no resource by AWS's word.
READS = re.compile(r":(Get|List|Describe)\w+$")
TAKES_NO_RESOURCE = {
    "xray:PutTraceSegments",
    "xray:PutTelemetryRecords",
    # Step Functions sets up the delivery of its logs itself, in the name of the role.
    "logs:CreateLogDelivery",
    "logs:UpdateLogDelivery",
    "logs:DeleteLogDelivery",
    "logs:PutResourcePolicy",
}
AGENT = re.compile(r"^(ssmmessages|ec2messages):\w+$|^ssm:UpdateInstanceInformation$")


def resources(kind: str) -> dict[str, dict[str, Any]]:
    made = deployment()
    return {name: made.properties(name) for name in made.of_type(kind)}


def ids(principal: Principal) -> str:
    return principal.name


ALL = [principal for principal in principals().values() if principal.policies]


@pytest.mark.parametrize("principal", ALL, ids=ids)
def test_policies_allow_named_actions_on_named_resources(principal: Principal) -> None:
    for statement in principal.statements():
        body = statement.body
        assert body["Effect"] == "Allow"
        assert not {"NotAction", "NotResource", "Principal"} & body.keys()
        for action in statement.actions:
            assert "*" not in action
            if "*" in listed(body["Resource"]):
                allowed = READS.search(action) or action in TAKES_NO_RESOURCE
                assert allowed or (principal.name == "machine" and AGENT.match(action)), f"{action} on everything"


@pytest.mark.parametrize("principal", ALL, ids=ids)
def test_policies_name_this_account_and_region_and_this_deployment(principal: Principal) -> None:
    made = deployment()
    for statement in principal.statements():
        for resource in listed(statement.body["Resource"]):
            if resource == "*":
                continue
            _, partition, service, region, account, rest = str(resource).split(":", 5)
            assert partition == "aws"
            assert region == made.region or service == "iam"
            assert account == made.account or rest.startswith(("image/", "parameter/aws/service/canonical/"))
            if rest.endswith("*") and service != "ec2":
                # A stage `prod` and a stage `prod-eu`: a name that ends open takes in the other's.
                assert not re.search(r"nod-[^/:]*\*$", rest), f"{resource} takes in other deployments"


@pytest.mark.parametrize("principal", ALL, ids=ids)
def test_what_changes_machines_of_ec2_has_a_condition(principal: Principal) -> None:
    for statement in principal.statements():
        ec2 = [action for action in statement.actions if action.startswith("ec2:") and not READS.search(action)]
        for resource in listed(statement.body["Resource"]) if ec2 else ():
            if re.search(r":(instance|volume|elastic-ip|security-group)/\*$", str(resource)) and ec2 != [
                "ec2:CreateFleet"
            ]:
                assert statement.body.get("Condition"), f"{ec2} on {resource}"


def test_every_role_is_for_one_service_and_every_policy_stands_in_its_role() -> None:
    made = deployment()
    for name, role in resources("AWS::IAM::Role").items():
        (trust,) = role["AssumeRolePolicyDocument"]["Statement"]
        assert trust["Effect"] == "Allow"
        assert trust["Principal"].keys() == {"Service"}, name
        assert len(listed(trust["Principal"]["Service"])) == 1
        assert listed(trust["Action"]) == ["sts:AssumeRole"]
    for kind in (
        "AWS::IAM::Policy",
        "AWS::IAM::ManagedPolicy",
        "AWS::IAM::User",
        "AWS::IAM::Group",
        "AWS::IAM::AccessKey",
    ):
        assert not made.of_type(kind)


def test_only_port_8888_is_open_and_only_to_the_networks_that_were_named() -> None:
    groups, rules = resources("AWS::EC2::SecurityGroup"), resources("AWS::EC2::SecurityGroupIngress")
    assert groups and not any(group.get("SecurityGroupIngress") for group in groups.values())
    assert {rule.get("CidrIp") or rule.get("CidrIpv6") for rule in rules.values()} == set(CIDRS)
    for rule in rules.values():
        assert (rule["IpProtocol"], rule["FromPort"], rule["ToPort"]) == ("tcp", 8888, 8888)
        assert "SourceSecurityGroupId" not in rule
        assert ip_network(rule.get("CidrIp") or rule["CidrIpv6"]).prefixlen >= 8


def test_descriptions_are_of_characters_that_ec2_takes() -> None:
    """Others are `Invalid rule description` at deployment; cfn-lint and moto let them pass."""
    found = [
        text
        for kind in ("AWS::EC2::SecurityGroup", "AWS::EC2::SecurityGroupIngress")
        for group in resources(kind).values()
        for key, text in described(group)
        if key in ("Description", "GroupDescription")
    ]
    assert len(found) >= 4
    assert not [text for text in found if not re.fullmatch(r"[a-zA-Z0-9. _\-:/()#,@\[\]+=&;{}!$*]{1,255}", text)]


def described(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key with its value, however deep."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield key, item
            yield from described(item)
    elif isinstance(value, list):
        for item in value:
            yield from described(item)


def test_machines_have_imdsv2_an_encrypted_disk_and_no_shell_over_the_network() -> None:
    (template,) = resources("AWS::EC2::LaunchTemplate").values()
    data = template["LaunchTemplateData"]
    assert data["MetadataOptions"]["HttpTokens"] == "required"
    assert data["MetadataOptions"]["HttpPutResponseHopLimit"] == 1
    assert [disk["Ebs"]["Encrypted"] for disk in data["BlockDeviceMappings"]] == [True]
    assert {"UserData", "NetworkInterfaces"} & data.keys() == set()
    assert data["SecurityGroupIds"] == [deployment().ref("NotebookSecurityGroup")]


def statements(document: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield from listed(document["Statement"])


@pytest.mark.parametrize("kind", ["AWS::SQS::QueuePolicy", "AWS::SNS::TopicPolicy"])
def test_who_may_send_to_a_queue_or_topic_is_named_by_its_source(kind: str) -> None:
    found = resources(kind)
    assert found
    for policy in found.values():
        for statement in statements(policy["PolicyDocument"]):
            assert statement["Effect"] == "Allow"
            assert statement["Principal"].keys() == {"Service"}
            assert "*" not in json.dumps(statement["Action"])
            conditions = [key for keys in statement["Condition"].values() for key in keys]
            assert "aws:SourceArn" in conditions, "another account's topic or alarm could send"
            sources = [one for keys in statement["Condition"].values() for one in listed(keys.get("aws:SourceArn", []))]
            assert not any("*" in str(one) for one in sources), "another deployment's could send"


def test_functions_may_be_invoked_by_our_sources_only() -> None:
    permissions = resources("AWS::Lambda::Permission")
    assert permissions
    for name, one in permissions.items():
        assert one["Action"] == "lambda:InvokeFunction"
        assert str(one["Principal"]).endswith(".amazonaws.com")
        assert "SourceArn" in one, f"{name}: any rule of any account could invoke it"
    assert not resources("AWS::Lambda::Url")


def test_every_log_group_ends_and_every_function_and_workflow_has_one() -> None:
    groups = {group["LogGroupName"]: group for group in resources("AWS::Logs::LogGroup").values()}
    assert all(1 <= group["RetentionInDays"] <= 90 for group in groups.values())
    for function in resources("AWS::Lambda::Function").values():
        assert function["LoggingConfig"]["LogGroup"] in groups
    for machine in resources("AWS::StepFunctions::StateMachine").values():
        logging = machine["LoggingConfiguration"]
        assert logging["IncludeExecutionData"] is False, "the input of a launch holds the hash of a password"
        (destination,) = logging["Destinations"]
        group = destination["CloudWatchLogsLogGroup"]["LogGroupArn"].split(":log-group:")[1].removesuffix(":*")
        assert group in groups


def test_no_role_of_a_function_can_make_a_log_group_that_stays_for_ever() -> None:
    for principal in ALL:
        assert not any("logs:CreateLogGroup" in statement.actions for statement in principal.statements())


def test_what_is_kept_is_encrypted() -> None:
    for queue in resources("AWS::SQS::Queue").values():
        assert queue.get("SqsManagedSseEnabled") is True or queue.get("KmsMasterKeyId")
    for table in resources("AWS::DynamoDB::Table").values():
        # Without a word DynamoDB encrypts with a key of its own.
        assert table.get("SSESpecification", {}).get("SSEEnabled", True)
    assert not resources("AWS::S3::Bucket"), "a new kind of store: write the rule for it"


def test_no_secret_stands_in_the_template() -> None:
    text = json.dumps(deployment().template)
    assert not re.search(r"AKIA[0-9A-Z]{16}|xox[baprs]-|hooks\.slack\.com/services|-----BEGIN|\$argon2", text)
    for function in resources("AWS::Lambda::Function").values():
        for name in function["Environment"]["Variables"]:
            assert name.endswith("_ARN") or not re.search("SECRET|TOKEN|PASSWORD|API_KEY", name), name
