"""What there is in the AWS account, looked at before anything is created. Reads only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from deploy.errors import AccountError, InputError

# Of the commercial regions. Elsewhere the workflows' `arn:aws:states:::…` and the names of AWS's policies are none.
PARTITION = "aws"
_BAD_CREDENTIALS = {
    "ExpiredToken": "they have expired: sign in again",
    "ExpiredTokenException": "they have expired: sign in again",
    "InvalidClientTokenId": "AWS does not know them (in this region: is it switched on for the account?)",
    "UnrecognizedClientException": "AWS does not know them (in this region: is it switched on for the account?)",
    "SignatureDoesNotMatch": "the secret key is not the one of the key id",
    "AuthFailure": "AWS does not know them",
}


@dataclass(frozen=True)
class Identity:
    """Who calls, and where."""

    account: str
    arn: str
    region: str
    partition: str


@dataclass(frozen=True)
class Network:
    """Where notebooks run. Subnets in order of preference."""

    vpc: str
    subnets: tuple[str, ...]
    zones: tuple[str, ...]


def region(session: Any, said: str) -> str:
    """The region to deploy into: the one that is said, else that of the AWS configuration.

    Raises:
        InputError: none is said, none is called so, or it is not one of the commercial regions.
    """
    name: str | None = said or session.region_name
    if not name:
        raise InputError("Which region? Say REGION=…, for example REGION=eu-central-1, or set AWS_REGION.")
    known: list[str] = session.get_available_regions("stepfunctions", partition_name=PARTITION)
    if name in known:
        return name
    for partition in session.get_available_partitions():
        if name in session.get_available_regions("stepfunctions", partition_name=partition):
            raise InputError(
                f"REGION={name} is not supported: it is of {partition}, and only AWS's commercial regions are. Name "
                "one of those, with an account there, for example REGION=eu-central-1."
            )
    same = sorted(one for one in known if one.split("-")[0] == name.split("-")[0])
    raise InputError(f"REGION={name}: AWS has no such region. It has {', '.join(same or sorted(known))}.")


def identity(session: Any, region_name: str) -> Identity:
    """Raises AccountError: no credentials, or AWS does not take them."""
    if session.get_credentials() is None:
        raise AccountError(
            "No AWS credentials. Sign in (aws sso login, aws configure), or set AWS_PROFILE or AWS_ACCESS_KEY_ID."
        )
    try:
        answer = session.client("sts", region_name=region_name).get_caller_identity()
    except ClientError as error:
        code = error.response["Error"]["Code"]
        why = _BAD_CREDENTIALS.get(code, error.response["Error"].get("Message", code))
        raise AccountError(f"AWS refuses the credentials: {why}.") from error
    except BotoCoreError as error:
        raise AccountError(f"AWS cannot be asked who you are: {error}") from error
    return Identity(answer["Account"], answer["Arn"], region_name, answer["Arn"].split(":")[1])


def network(ec2: Any, wanted: Sequence[str] | None) -> Network:
    """The subnets that are wanted, or all public ones of the default VPC.

    Raises:
        AccountError: a notebook in them would have no address that a browser reaches.
    """
    return _given(ec2, wanted) if wanted else _default(ec2)


def _given(ec2: Any, wanted: Sequence[str]) -> Network:
    try:
        found = {one["SubnetId"]: one for one in ec2.describe_subnets(SubnetIds=list(wanted))["Subnets"]}
    except ClientError as error:
        if error.response["Error"]["Code"].startswith("InvalidSubnetID"):
            raise AccountError(
                f"SUBNETS: {error.response['Error']['Message']} (in this account and region)."
            ) from error
        raise
    subnets = [found[one] for one in wanted]
    vpcs = sorted({one["VpcId"] for one in subnets})
    if len(vpcs) > 1:
        raise AccountError(f"SUBNETS are of several VPCs ({', '.join(vpcs)}); a deployment has one.")
    is_public = _routes(ec2, vpcs[0])
    for one in subnets:
        if lacking := _lacking(one, is_public):
            raise AccountError(f"SUBNETS: {one['SubnetId']} {lacking}")
    return _network(vpcs[0], subnets)


def _default(ec2: Any) -> Network:
    vpcs = ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
    if not vpcs:
        raise AccountError(
            "This region has no default VPC. Name public subnets of yours, SUBNETS=subnet-…,subnet-…, or make a "
            "default VPC: aws ec2 create-default-vpc"
        )
    vpc = str(vpcs[0]["VpcId"])
    pages = ec2.get_paginator("describe_subnets").paginate(Filters=[{"Name": "vpc-id", "Values": [vpc]}])
    subnets = sorted((one for page in pages for one in page["Subnets"]), key=lambda one: str(one["AvailabilityZone"]))
    zones = ec2.describe_availability_zones()["AvailabilityZones"]
    # Local and Wavelength Zones have few types and other prices: only who asks for them gets them.
    usual = {one["ZoneName"] for one in zones if one.get("ZoneType", "availability-zone") == "availability-zone"}
    is_public = _routes(ec2, vpc)
    fit = [one for one in subnets if one["AvailabilityZone"] in usual and not _lacking(one, is_public)]
    if not fit:
        reasons = [f"{one['SubnetId']} {_lacking(one, is_public)}" for one in subnets] or ["it has no subnet at all."]
        raise AccountError(
            f"The default VPC {vpc} has no public subnet: {' '.join(reasons)} Name others: SUBNETS=subnet-…,subnet-…"
        )
    return _network(vpc, fit)


def _network(vpc: str, subnets: Iterable[dict[str, Any]]) -> Network:
    ordered = list(subnets)
    return Network(
        vpc,
        tuple(str(one["SubnetId"]) for one in ordered),
        tuple(dict.fromkeys(str(one["AvailabilityZone"]) for one in ordered)),
    )


def _routes(ec2: Any, vpc: str) -> Callable[[str], bool]:
    """Whether a subnet's routes lead to the internet, without a gateway that hides its machines."""
    pages = ec2.get_paginator("describe_route_tables").paginate(Filters=[{"Name": "vpc-id", "Values": [vpc]}])
    tables = [table for page in pages for table in page["RouteTables"]]
    own, main = {}, False
    for table in tables:
        public = any(
            route.get("DestinationCidrBlock") == "0.0.0.0/0"
            and route.get("GatewayId", "").startswith("igw-")
            and route.get("State") != "blackhole"
            for route in table.get("Routes", [])
        )
        for association in table.get("Associations", []):
            if association.get("Main"):
                main = public
            if "SubnetId" in association:
                own[association["SubnetId"]] = public
    return lambda subnet: own.get(subnet, main)


def _lacking(subnet: dict[str, Any], is_public: Callable[[str], bool]) -> str:
    if not is_public(subnet["SubnetId"]):
        return "is not public: its route table has no route 0.0.0.0/0 to an internet gateway."
    if not subnet.get("MapPublicIpOnLaunch"):
        return (
            "gives its instances no public address. Change it: aws ec2 modify-subnet-attribute --subnet-id "
            f"{subnet['SubnetId']} --map-public-ip-on-launch"
        )
    return ""


def types_not_offered(ec2: Any, types: Iterable[str], zones: Iterable[str]) -> list[str]:
    """Those of the types that none of the zones has.

    Raises:
        AccountError: no zone has any of them.
    """
    wanted = list(dict.fromkeys(types))
    pages = ec2.get_paginator("describe_instance_type_offerings").paginate(
        LocationType="availability-zone", Filters=[{"Name": "instance-type", "Values": wanted}]
    )
    there = set(zones)
    offered = {
        one["InstanceType"] for page in pages for one in page["InstanceTypeOfferings"] if one["Location"] in there
    }
    if not offered:
        raise AccountError(
            f"None of the default instance types ({', '.join(wanted)}) is offered in {', '.join(sorted(there))}."
        )
    return [one for one in wanted if one not in offered]


def check_key_pair(ec2: Any, name: str) -> None:
    """Raises AccountError if the region has no such key pair: every launch would fail."""
    try:
        ec2.describe_key_pairs(KeyNames=[name])
    except ClientError as error:
        if error.response["Error"]["Code"] != "InvalidKeyPair.NotFound":
            raise
        raise AccountError(f"KEY_NAME={name}: this region has no key pair of that name.") from error


def left_tables(dynamodb: Any, names: Iterable[str]) -> list[str]:
    """Those of the tables that are there."""
    found = []
    for name in names:
        try:
            dynamodb.describe_table(TableName=name)
        except ClientError as error:
            if error.response["Error"]["Code"] != "ResourceNotFoundException":
                raise
        else:
            found.append(name)
    return found


def gateway_logs(apigateway: Any) -> str | None:
    """The ARN of the role by which API Gateway writes logs in this account and region; None if none is set.

    The role may be gone: who deletes it, CloudFormation too, does not take the setting back (aws-cdk #6194, #12769).
    """
    role: str | None = apigateway.get_account().get("cloudwatchRoleArn")
    return role or None


def has_role(iam: Any, name: str) -> bool | None:
    """Whether the account has a role of this name; None if you may not look."""
    try:
        iam.get_role(RoleName=name)
    except ClientError as error:
        code = error.response["Error"]["Code"]
        if code == "AccessDenied":
            return None
        if code != "NoSuchEntity":
            raise
        return False
    return True
