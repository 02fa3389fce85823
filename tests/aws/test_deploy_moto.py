"""A second opinion on the fakes of the other tests: what looks, uploads and removes, on moto's AWS."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from moto import mock_aws
from moto.ec2 import utils as moto_ec2
from moto.ec2.models.instances import Instance

from deploy import account
from deploy.account import Identity
from deploy.bucket import PackageBucket
from deploy.destroy import FORCE, destroy
from deploy.errors import AccountError, LeftError

REGION = "eu-central-1"


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> Iterator[boto3.Session]:
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        yield boto3.Session(region_name=REGION, aws_access_key_id="testing", aws_secret_access_key="testing")


def client(session: boto3.Session, service: str) -> Any:
    return session.client(service)  # type: ignore[call-overload]


def test_a_default_vpc_is_public_once_a_route_leads_out(session: boto3.Session) -> None:
    ec2 = client(session, "ec2")
    with pytest.raises(AccountError, match="no public subnet"):
        account.network(ec2, None)
    (vpc,) = ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
    gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc["VpcId"])
    (table,) = ec2.describe_route_tables(Filters=[{"Name": "vpc-id", "Values": [vpc["VpcId"]]}])["RouteTables"]
    ec2.create_route(RouteTableId=table["RouteTableId"], DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway)
    network = account.network(ec2, None)
    assert network.vpc == vpc["VpcId"] and network.zones == tuple(sorted(network.zones))
    assert len(network.subnets) == 3
    assert account.network(ec2, network.subnets[::-1]).subnets == network.subnets[::-1]
    with pytest.raises(AccountError, match="does not exist"):
        account.network(ec2, ["subnet-0123456789abcdef0"])
    assert account.types_not_offered(ec2, ["t3.medium", "no.such"], network.zones) == ["no.such"]


def test_an_account_is_known_and_its_region_is_one(session: boto3.Session) -> None:
    identity = account.identity(session, account.region(session, ""))
    assert (identity.account, identity.region, identity.partition) == ("123456789012", REGION, "aws")
    with pytest.raises(AccountError, match="KEY_NAME"):
        account.check_key_pair(client(session, "ec2"), "mine")
    assert account.left_tables(client(session, "dynamodb"), ["nod-prod-users"]) == []


def test_a_bucket_is_made_closed_filled_thinned_and_removed(session: boto3.Session) -> None:
    s3 = client(session, "s3")
    bucket = PackageBucket(s3, "prod", Identity("123456789012", "arn:aws:iam::123456789012:root", REGION, "aws"))
    assert not bucket.exists() and not bucket.remove()
    bucket.ensure()
    bucket.ensure()
    # moto does not read the condition of the policy, and so lets nobody in.
    assert "aws:SecureTransport" in s3.get_bucket_policy(Bucket=bucket.name)["Policy"]
    s3.delete_bucket_policy(Bucket=bucket.name)
    first, second = bucket.upload(b"one", ".zip"), bucket.upload(b"two", ".zip")
    assert bucket.keep([second]) == 1
    assert [one["Key"] for one in s3.list_objects_v2(Bucket=bucket.name)["Contents"]] == [second] != [first]
    assert all(s3.get_public_access_block(Bucket=bucket.name)["PublicAccessBlockConfiguration"].values())
    assert bucket.remove() and not bucket.exists()


def filter_by_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Teach moto a filter that EC2 has."""

    def arn(instance: Any) -> str | None:
        found = instance.ec2_backend.iam_instance_profile_associations.get(instance.id)
        return found and found.iam_instance_profile.arn

    monkeypatch.setattr(Instance, "profile_arn", property(arn), raising=False)
    monkeypatch.setitem(moto_ec2.filter_dict_attribute_mapping, "iam-instance-profile.arn", "profile_arn")


def test_what_a_deployment_left_is_found_by_tag_profile_record_and_name_and_goes(
    session: boto3.Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    filter_by_profile(monkeypatch)
    ec2, dynamodb, ssm, iam = (client(session, name) for name in ("ec2", "dynamodb", "ssm", "iam"))
    for stage in ("prod", "prod-eu"):
        for name, key in (("notebooks", "id"), ("users", "name")):
            dynamodb.create_table(
                TableName=f"nod-{stage}-{name}",
                BillingMode="PAY_PER_REQUEST",
                AttributeDefinitions=[{"AttributeName": key, "AttributeType": "S"}],
                KeySchema=[{"AttributeName": key, "KeyType": "HASH"}],
                DeletionProtectionEnabled=name == "notebooks",
            )
        ssm.put_parameter(Name=f"/nod/{stage}/slack/team", Value="x", Type="SecureString")
        ec2.run_instances(
            ImageId="ami-12c6146b",
            MinCount=1,
            MaxCount=1,
            TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": "nod:deployment", "Value": stage}]}],
        )
        iam.create_instance_profile(InstanceProfileName=f"nod-{stage}-notebook")
        machine = {"ImageId": "ami-12c6146b", "MinCount": 1, "MaxCount": 1}
        ec2.run_instances(**machine, IamInstanceProfile={"Name": f"nod-{stage}-notebook"})
        bare = ec2.run_instances(**machine)["Instances"][0]["InstanceId"]
        item = {"id": "nb-1", "name": "thesis", "owner": "ada", "state": "ready", "instance_id": bare}
        row = {key: {"S": value} for key, value in item.items()}
        dynamodb.put_item(TableName=f"nod-{stage}-notebooks", Item=row)
    with pytest.raises(
        LeftError, match=r"nb-1 \(thesis of ada, ready\)(\s+machine i-\w+){3}(\s+disk vol-\w+){3}\s+Their"
    ):
        destroy(session, "", "prod", "", sleep=lambda _: None, say=lambda _: None)
    lines: list[str] = []
    destroy(session, "", "prod", FORCE, sleep=lambda _: None, say=lines.append)
    assert lines[-1].startswith("Nothing is left that bills")
    assert sorted(dynamodb.list_tables()["TableNames"]) == ["nod-prod-eu-notebooks", "nod-prod-eu-users"]
    assert [one["Name"] for one in ssm.describe_parameters()["Parameters"]] == ["/nod/prod-eu/slack/team"]
    found = [one for page in ec2.describe_instances()["Reservations"] for one in page["Instances"]]
    # Of each stage one by its tag, one by its profile, one by its record.
    assert [one["State"]["Name"] for one in found] == ["terminated"] * 3 + ["running"] * 3
