"""Before anything is created: each thing that stands against a deployment is said, and no call has changed anything."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from deploy import deployment, package
from deploy.account import Network
from deploy.errors import AccountError, DeployError, InputError, PackageError, StackError
from deploy.inputs import Wishes
from tests.aws.fake_aws import ACCOUNT, REGION, Answer, FakeAws, refusal, routes, subnet
from tests.aws.fake_aws import account as bare_account
from tests.aws.test_deploy_stack import role

WHEN = datetime(2026, 1, 1, tzinfo=UTC)
CIDRS = ("198.51.100.0/24",)
THEIRS = f"arn:aws:iam::{ACCOUNT}:role/logs/theirs"


def account(**changed: Answer) -> dict[str, Answer]:
    """With the role of EC2 Fleet."""
    return bare_account(**{"iam__GetRole": roles(), **changed})


def roles(**answers: Any) -> Answer:
    """The role of EC2 Fleet, and what IAM says of those by other names."""
    there = {deployment.FLEET_ROLE: role(deployment.FLEET_ROLE), **answers}
    return lambda asked: there.get(asked["RoleName"], refusal("NoSuchEntity"))


def wishes(**changed: Any) -> Wishes:
    return Wishes(**{"stage": "prod", "cidrs": CIDRS, "subnets": None, "parameters": {}, **changed})


def looked(aws: FakeAws, asked: Wishes | None = None, region: str = "") -> tuple[deployment.Plan, list[str]]:
    said: list[str] = []
    return deployment.look(aws, region, asked or wishes(), said.append), said


def refused(aws: FakeAws, kind: type[DeployError], words: str, asked: Wishes | None = None, region: str = "") -> None:
    """The whole of `make deploy` is refused, in these words, and AWS was only looked at."""
    with pytest.raises(kind, match=words):
        deployment.deploy(aws, region, asked or wishes(), Path("/nowhere"), sleep=lambda _: None, say=lambda _: None)
    assert aws.changes() == []


def test_an_account_with_a_default_vpc_will_do() -> None:
    aws = FakeAws(account())
    plan, said = looked(aws)
    assert plan.network == Network("vpc-1", ("subnet-aaaaaaaa", "subnet-bbbbbbbb"), (f"{REGION}a", f"{REGION}b"))
    assert plan.parameters == {
        "VpcId": "vpc-1",
        "SubnetIds": "subnet-aaaaaaaa,subnet-bbbbbbbb",
        "GatewayLogs": "create",
    }
    assert aws.changes() == []
    assert f"account {ACCOUNT}" in said[0] and "user/ada" in said[0]


def test_an_update_keeps_what_is_not_said() -> None:
    stack = {
        "StackName": "nod-prod",
        "CreationTime": WHEN,
        "StackStatus": "UPDATE_ROLLBACK_COMPLETE",
        "Parameters": [
            {"ParameterKey": name, "ParameterValue": value}
            for name, value in {
                "VpcId": "vpc-1",
                "SubnetIds": "subnet-bbbbbbbb",
                "OperatorsEmail": "a@b.cd",
                "InstanceTypes": "m5.*",
            }.items()
        ],
        "Outputs": [{"OutputKey": "AllowedCidrs", "OutputValue": "203.0.113.0/24,198.51.100.7/32"}],
    }
    resources = [
        {
            "LogicalResourceId": "GatewayLogsRole",
            "ResourceType": "AWS::IAM::Role",
            "LastUpdatedTimestamp": WHEN,
            "ResourceStatus": "CREATE_COMPLETE",
        }
    ]
    aws = FakeAws(
        account(
            cloudformation__DescribeStacks={"Stacks": [stack]},
            cloudformation__ListStackResources={"StackResourceSummaries": resources},
            apigateway__GetAccount={"cloudwatchRoleArn": f"arn:aws:iam::{ACCOUNT}:role/nod-prod-gateway-logs"},
        )
    )
    plan, said = looked(aws, wishes(cidrs=None))
    assert plan.cidrs == ("203.0.113.0/24", "198.51.100.7/32")
    assert plan.parameters == {
        "VpcId": "vpc-1",
        "SubnetIds": "subnet-bbbbbbbb",
        "OperatorsEmail": None,
        "InstanceTypes": None,
        # The stack made it: told otherwise, CloudFormation would take it away.
        "GatewayLogs": "create",
    }
    assert any("t3.medium" in line and "such a launch will fail" in line for line in said), "what is kept is judged too"
    plan, said = looked(aws, wishes(parameters={"InstanceTypes": "t3.*,t3a.*,t4g.*,m5.*,c5.*,r5.*"}))
    assert plan.parameters["InstanceTypes"] == "t3.*,t3a.*,t4g.*,m5.*,c5.*,r5.*"


@pytest.mark.parametrize(
    ("answer", "logs", "words"),
    [
        (role("theirs"), "exists", None),
        # As a deployment that failed leaves it: CloudFormation takes the role back, and not the setting.
        (refusal("NoSuchEntity"), "create", "which is gone: a role is made in its place"),
        (refusal("AccessDenied"), "exists", r"iam:GetRole.*access log stays empty"),
    ],
)
def test_the_role_of_gateway_logs_of_somebody_else_is_left_alone_if_it_is_there(
    answer: Any, logs: str, words: str | None
) -> None:
    named = {"cloudwatchRoleArn": THEIRS}
    plan, said = looked(FakeAws(account(apigateway__GetAccount=named, iam__GetRole=roles(theirs=answer))))
    assert plan.parameters["GatewayLogs"] == logs
    notes = [line for line in said if "API Gateway's logs" in line]
    assert len(notes) == (words is not None)
    assert words is None or (THEIRS in notes[0] and re.search(words, notes[0]))


def test_iam_that_does_not_answer_is_no_role_that_is_gone() -> None:
    aws = FakeAws(
        account(
            apigateway__GetAccount={"cloudwatchRoleArn": THEIRS},
            iam__GetRole=roles(theirs=refusal("ServiceFailure")),
        )
    )
    with pytest.raises(ClientError, match="ServiceFailure"):
        looked(aws)


def test_whether_fleets_have_their_role_is_known_before_anything_is_made() -> None:
    assert looked(FakeAws(account()))[0].fleet_role
    plan, said = looked(FakeAws(account(iam__GetRole=refusal("NoSuchEntity"))))
    assert not plan.fleet_role
    assert any(deployment.FLEET_ROLE in line and "will be made" in line for line in said)


def test_who_may_not_look_at_the_role_of_fleets_is_told_what_to_do() -> None:
    words = f"{deployment.FLEET_ROLE}.*iam:GetRole.*make policy STAGE=prod REGION={REGION} ACCOUNT={ACCOUNT}"
    refused(FakeAws(account(iam__GetRole=refusal("AccessDenied"))), AccountError, words)


def test_no_region() -> None:
    aws = FakeAws(account(), region=None)
    refused(aws, InputError, "Which region")
    assert aws.calls == []


@pytest.mark.parametrize("name", ["eu-central-9", "frankfurt", "eu-central-1a"])
def test_a_region_that_is_none(name: str) -> None:
    aws = FakeAws(account())
    refused(aws, InputError, "no such region", region=name)
    assert aws.calls == []


@pytest.mark.parametrize("name", ["us-gov-west-1", "cn-north-1", "eusc-de-east-1", "us-iso-east-1"])
def test_a_region_of_another_partition(name: str) -> None:
    aws = FakeAws(account())
    refused(aws, InputError, f"REGION={name} is not supported.*commercial regions.*REGION=", region=name)
    assert aws.calls == []


@pytest.mark.parametrize("name", ["us-gov-west-9", "eu-central-9"])
def test_only_regions_that_can_be_deployed_to_are_offered(name: str) -> None:
    with pytest.raises(InputError, match="no such region") as caught:
        looked(FakeAws(account()), region=name)
    offered = set(re.findall(r"[a-z]{2,4}(?:-[a-z]+)+-\d", str(caught.value).partition("It has")[2]))
    assert len(offered) > 3
    assert not {one for one in offered if re.match(r"us-gov|us-iso|eu-iso|eusc|cn-", one)}


def test_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    aws = FakeAws(account())
    monkeypatch.setattr(aws, "get_credentials", lambda: None)
    refused(aws, AccountError, "No AWS credentials")
    assert aws.calls == []


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (refusal("ExpiredToken"), "expired"),
        (refusal("InvalidClientTokenId"), "does not know them"),
        (refusal("SignatureDoesNotMatch"), "secret key"),
        (refusal("AccessDenied", "explicit deny"), "explicit deny"),
        (EndpointConnectionError(endpoint_url="https://sts"), "cannot be asked"),
    ],
)
def test_credentials_that_aws_does_not_take(error: Exception, words: str) -> None:
    refused(FakeAws(account(sts__GetCallerIdentity=error)), AccountError, words)


def test_nobody_said_whose_browsers() -> None:
    refused(FakeAws(account()), InputError, "CIDR=", wishes(cidrs=None))


def test_no_default_vpc() -> None:
    refused(FakeAws(account(ec2__DescribeVpcs={"Vpcs": []})), AccountError, "no default VPC.*create-default-vpc")


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        ([routes("nat-1", main=True)], "no route"),
        ([routes("igw-1", main=True, state="blackhole")], "no route"),
        ([routes("igw-1", subnet_id="subnet-cccccccc")], "no route"),
        ([], "no route"),
    ],
)
def test_a_default_vpc_without_a_public_subnet(tables: list[Any], words: str) -> None:
    refused(
        FakeAws(account(ec2__DescribeRouteTables={"RouteTables": tables})), AccountError, f"no public subnet.*{words}"
    )


def test_a_default_vpc_whose_subnets_give_no_addresses() -> None:
    found = {"Subnets": [subnet("subnet-aaaaaaaa", "a", public=False)]}
    refused(FakeAws(account(ec2__DescribeSubnets=found)), AccountError, "no public address.*map-public-ip-on-launch")


def test_a_default_vpc_without_subnets() -> None:
    refused(FakeAws(account(ec2__DescribeSubnets={"Subnets": []})), AccountError, "no subnet at all")


def test_only_public_subnets_of_usual_zones_are_taken() -> None:
    zones = [
        {"ZoneName": f"{REGION}a", "ZoneType": "availability-zone"},
        {"ZoneName": f"{REGION}b", "ZoneType": "local-zone"},
        {"ZoneName": f"{REGION}c", "ZoneType": "availability-zone"},
    ]
    found = [subnet("subnet-cccccccc", "c"), subnet("subnet-bbbbbbbb", "b"), subnet("subnet-aaaaaaaa", "a")]
    tables = [
        routes("nat-1", main=True),
        routes("igw-1", subnet_id="subnet-aaaaaaaa"),
        routes("igw-1", subnet_id="subnet-bbbbbbbb"),
    ]
    aws = FakeAws(
        account(
            ec2__DescribeSubnets={"Subnets": found},
            ec2__DescribeRouteTables={"RouteTables": tables},
            ec2__DescribeAvailabilityZones={"AvailabilityZones": zones},
        )
    )
    assert looked(aws)[0].network.subnets == ("subnet-aaaaaaaa",)


def test_given_subnets_keep_their_order() -> None:
    plan, _ = looked(FakeAws(account()), wishes(subnets=("subnet-bbbbbbbb", "subnet-aaaaaaaa")))
    assert plan.network.subnets == ("subnet-bbbbbbbb", "subnet-aaaaaaaa")


def test_a_given_subnet_that_is_not_there() -> None:
    error = refusal("InvalidSubnetID.NotFound", "The subnet ID 'subnet-cccccccc' does not exist")
    asked = wishes(subnets=("subnet-cccccccc",))
    refused(FakeAws(account(ec2__DescribeSubnets=error)), AccountError, "subnet-cccccccc.*does not exist", asked)


def test_given_subnets_of_two_vpcs() -> None:
    found = {"Subnets": [subnet("subnet-aaaaaaaa", "a"), subnet("subnet-bbbbbbbb", "b", vpc="vpc-2")]}
    asked = wishes(subnets=("subnet-aaaaaaaa", "subnet-bbbbbbbb"))
    refused(FakeAws(account(ec2__DescribeSubnets=found)), AccountError, "several VPCs", asked)


@pytest.mark.parametrize(
    ("public", "gateway", "words"), [(True, "nat-1", "is not public"), (False, "igw-1", "no public address")]
)
def test_a_given_subnet_that_is_private(public: bool, gateway: str, words: str) -> None:
    aws = FakeAws(
        account(
            ec2__DescribeSubnets={"Subnets": [subnet("subnet-aaaaaaaa", "a", public=public)]},
            ec2__DescribeRouteTables={"RouteTables": [routes(gateway, main=True)]},
        )
    )
    refused(aws, AccountError, f"subnet-aaaaaaaa .*{words}", wishes(subnets=("subnet-aaaaaaaa",)))


def test_a_region_with_none_of_our_types() -> None:
    refused(
        FakeAws(account(ec2__DescribeInstanceTypeOfferings={"InstanceTypeOfferings": []})), AccountError, "None of the"
    )


def test_a_type_that_is_not_offered_is_noted() -> None:
    one = {"InstanceTypeOfferings": [{"InstanceType": "t3.medium", "Location": f"{REGION}a"}]}
    _, said = looked(FakeAws(account(ec2__DescribeInstanceTypeOfferings=one)))
    assert any("t3.large" in line and "not offered" in line for line in said)


def test_a_key_pair_that_is_not_there() -> None:
    aws = FakeAws(account(ec2__DescribeKeyPairs=refusal("InvalidKeyPair.NotFound")))
    refused(aws, AccountError, "KEY_NAME=mine", wishes(parameters={"KeyName": "mine"}))


def test_tables_of_an_earlier_deployment() -> None:
    aws = FakeAws(account(dynamodb__DescribeTable={"Table": {"TableName": "nod-prod-users"}}))
    words = f"nod-prod-notebooks and nod-prod-users of an earlier one.*make destroy STAGE=prod REGION={REGION}"
    refused(aws, AccountError, words)


NOTEBOOK_ROLE = {"nod-prod-notebook": role("nod-prod-notebook")}


def test_a_stage_that_the_account_has_elsewhere() -> None:
    """Role and instance profile have one name in all regions: CloudFormation would fail in the middle."""
    aws = FakeAws(account(iam__GetRole=roles(**NOTEBOOK_ROLE)))
    words = (
        rf"(?s)no stack nod-prod in {REGION}.*role nod-prod-notebook.*another region.*another STAGE.*"
        r"aws iam delete-instance-profile --instance-profile-name nod-prod-notebook\n.*"
        r"aws iam delete-role --role-name nod-prod-notebook$"
    )
    refused(aws, AccountError, words)


@pytest.mark.parametrize("status", ["CREATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE"])
def test_the_role_of_a_stack_that_is_there_does_not_stand_against_its_update(status: str) -> None:
    stack = {"StackName": "nod-prod", "CreationTime": WHEN, "StackStatus": status}
    aws = FakeAws(
        account(
            cloudformation__DescribeStacks={"Stacks": [stack]},
            cloudformation__ListStackResources={"StackResourceSummaries": []},
            iam__GetRole=roles(**NOTEBOOK_ROLE),
        )
    )
    assert looked(aws)[0].network.vpc == "vpc-1"


def test_after_a_first_deployment_that_failed_destroying_leads_on_and_no_word_of_another_region() -> None:
    """Its role may be there as long as the stack is."""
    stack = {"StackName": "nod-prod", "CreationTime": WHEN, "StackStatus": "ROLLBACK_FAILED"}
    aws = FakeAws(
        account(cloudformation__DescribeStacks={"Stacks": [stack]}, iam__GetRole=roles(**NOTEBOOK_ROLE)),
    )
    refused(aws, StackError, rf"never was up.*make destroy STAGE=prod REGION={REGION}")


def test_the_role_of_another_stage_does_not_stand_against_a_deployment() -> None:
    aws = FakeAws(account(iam__GetRole=roles(**{"nod-prod-eu-notebook": role("nod-prod-eu-notebook")})))
    assert looked(aws)[0].network.vpc == "vpc-1"


def test_a_deployment_cannot_move_to_another_vpc() -> None:
    stack = {
        "StackName": "nod-prod",
        "CreationTime": WHEN,
        "StackStatus": "CREATE_COMPLETE",
        "Parameters": [{"ParameterKey": "VpcId", "ParameterValue": "vpc-9"}],
    }
    aws = FakeAws(account(cloudformation__DescribeStacks={"Stacks": [stack]}))
    refused(aws, AccountError, "vpc-9.*vpc-1", wishes(subnets=("subnet-aaaaaaaa",)))


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ("ROLLBACK_COMPLETE", f"never was up.*make destroy STAGE=prod REGION={REGION}"),
        ("ROLLBACK_FAILED", f"never was up.*make destroy STAGE=prod REGION={REGION}"),
        ("CREATE_FAILED", "never was up"),
        ("DELETE_FAILED", f"make destroy STAGE=prod REGION={REGION}"),
        ("UPDATE_ROLLBACK_FAILED", f"continue-update-rollback --stack-name nod-prod --region {REGION}"),
        ("UPDATE_IN_PROGRESS", "wait until that is over"),
        ("DELETE_IN_PROGRESS", "wait until that is over"),
    ],
)
def test_a_stack_that_cannot_be_deployed_to(status: str, words: str) -> None:
    stack = {"StackName": "nod-prod", "CreationTime": WHEN, "StackStatus": status}
    refused(FakeAws(account(cloudformation__DescribeStacks={"Stacks": [stack]})), StackError, words)


def test_a_python_that_lambda_does_not_have(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PackageError, match=r"no runtime python3\.99.*PYTHON=python3\.11"):
        package.runtime((3, 99))
    assert package.runtime((3, 11)) == "python3.11"

    def old() -> str:
        return package.runtime((3, 99))

    monkeypatch.setattr(deployment, "runtime", old)
    aws = FakeAws(account())
    refused(aws, PackageError, "no runtime")
    assert aws.calls == []


def test_what_aws_does_not_let_us_look_at_is_said() -> None:
    aws = FakeAws(account(ec2__DescribeVpcs=refusal("UnauthorizedOperation")))
    with pytest.raises(Exception, match="UnauthorizedOperation"):
        looked(aws)
    assert aws.changes() == []
