"""`make deploy`: look, package, upload, change set, tell what is there now."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from admin.users import DEFAULT_TYPES
from chalicelib.prices import catalogue
from deploy import account, inputs
from deploy.account import Identity, Network
from deploy.bucket import PackageBucket
from deploy.errors import AccountError, InputError
from deploy.inputs import Wishes
from deploy.package import CODE, TEMPLATE, package, runtime
from deploy.stack import Stack, check_state, destroying, outputs, parameters

FLEET_ROLE, FLEET_SERVICE = "AWSServiceRoleForEC2Fleet", "ec2fleet.amazonaws.com"
RETAINED_TABLES = ("notebooks", "users")


@dataclass(frozen=True)
class Plan:
    """All that is known before anything is created."""

    identity: Identity
    network: Network
    cidrs: tuple[str, ...]
    parameters: dict[str, str | None]
    """Of the template; None keeps what the stack has."""
    fleet_role: bool
    """Whether the account has the role by which EC2 Fleet works."""


def look(session: Any, said_region: str, wishes: Wishes, say: Callable[[str], object]) -> Plan:
    """Check everything that can be checked. Reads only.

    Raises:
        DeployError: what stands against it.
    """
    region = account.region(session, said_region)
    runtime_name = runtime()
    identity = account.identity(session, region)
    say(f"AWS account {identity.account}, region {region}, as {identity.arn}")
    client = partial(session.client, region_name=region)
    stack = Stack(client("cloudformation"), wishes.stage, sleep=_never, say=say)
    there = stack.describe()
    check_state(there, wishes.stage, region)
    had, before = (parameters(there), outputs(there)) if there else ({}, {})
    cidrs = wishes.cidrs or _cidrs(before.get("AllowedCidrs", ""))
    if cidrs is None:
        raise InputError(
            "Whose browsers may open notebooks? Say CIDR=…, the addresses of your network, for example "
            "CIDR=198.51.100.7/32,203.0.113.0/24 (your own address: https://checkip.amazonaws.com)."
        )
    ec2 = client("ec2")
    kept = tuple(had["SubnetIds"].split(",")) if had.get("SubnetIds") else None
    network = account.network(ec2, wishes.subnets or kept)
    if had.get("VpcId") not in (None, network.vpc):
        raise AccountError(
            f"The deployment is in the VPC {had['VpcId']}, these subnets are in {network.vpc}. Its security group "
            "cannot move: deploy another STAGE there, or destroy this one first."
        )
    _say_network(ec2, network, region, say)
    _say_types(wishes.parameters.get("InstanceTypes") or had.get("InstanceTypes"), say)
    if key_name := wishes.parameters.get("KeyName"):
        account.check_key_pair(ec2, key_name)
    if there is None and (left := account.left_tables(client("dynamodb"), table_names(wishes.stage))):
        raise AccountError(
            f"There is no stack {stack.name}, but {' and '.join(left)} of an earlier one. If nobody needs the data: "
            + destroying(wishes.stage, region)
        )
    iam = client("iam")
    if there is None and account.has_role(iam, notebook_role(wishes.stage)):
        raise AccountError(_elsewhere(wishes.stage, region))
    say(f"Runtime {runtime_name}. Port 8888 for {', '.join(cidrs)}.")
    known: dict[str, str | None] = {**dict.fromkeys(had), **wishes.parameters}
    known |= {"VpcId": network.vpc, "SubnetIds": ",".join(network.subnets)}
    known["GatewayLogs"] = _gateway_logs(client("apigateway"), iam, stack if there else None, say)
    return Plan(identity, network, cidrs, known, _has_fleet_role(iam, identity, wishes.stage, say))


def _say_network(ec2: Any, network: Network, region: str, say: Callable[[str], object]) -> None:
    say(f"VPC {network.vpc}, subnets {', '.join(network.subnets)} in {', '.join(network.zones)}")
    if missing := account.types_not_offered(ec2, DEFAULT_TYPES, network.zones):
        say(f"Note: {', '.join(missing)} is not offered there; notebooks of other types are.")
    if catalogue().instance_hour(region, DEFAULT_TYPES[0]) is None:
        say(f"Note: chalicelib/prices.json has no prices of {region}, so notebooks will show no cost.")


def _say_types(patterns: str | None, say: Callable[[str], object]) -> None:
    if patterns is None:
        return
    may = inputs.allowed(DEFAULT_TYPES, patterns.split(","))
    if refused := [name for name in DEFAULT_TYPES if name not in may]:
        say(
            f"Note: INSTANCE_TYPES does not allow {', '.join(refused)}, which a user may ask for who has no list of "
            "their own: such a launch will fail. Give users a list: python -m admin user change NAME --types …"
        )


def _cidrs(had: str) -> tuple[str, ...] | None:
    return tuple(had.split(",")) if had and had != "none" else None


def _gateway_logs(apigateway: Any, iam: Any, stack: Stack | None, say: Callable[[str], object]) -> str:
    # What the stack made itself stays in it, though the account has it by now.
    ours = stack is not None and any(one["LogicalResourceId"] == "GatewayLogsRole" for one in stack.resources())
    role = account.gateway_logs(apigateway)
    if ours or role is None:
        return "create"
    # With a role that is gone, as a first deployment that failed leaves it, access logs would stay empty for good.
    there = account.has_role(iam, role.rpartition("/")[2])
    if there is False:
        say(f"Note: API Gateway's logs of this region went through {role}, which is gone: a role is made in its place.")
        return "create"
    if there is None:
        say(
            f"Note: API Gateway's logs of this region go through {role}, which you may not look at (iam:GetRole). If "
            "it is gone, the API's access log stays empty."
        )
    return "exists"


def _has_fleet_role(iam: Any, identity: Identity, stage: str, say: Callable[[str], object]) -> bool:
    there = account.has_role(iam, FLEET_ROLE)
    if there is None:
        raise AccountError(
            f"You may not look whether the account has the role {FLEET_ROLE} (iam:GetRole), without which no notebook "
            f"is launched: take the rights that this writes: {_policy(identity, stage)}"
        )
    if not there:
        say(f"The account has no role {FLEET_ROLE} yet, which EC2 Fleet needs in every account: it will be made.")
    return there


def _policy(identity: Identity, stage: str) -> str:
    return f"make policy STAGE={stage} REGION={identity.region} ACCOUNT={identity.account}"


def notebook_role(stage: str) -> str:
    """The role of the machines: one name in all regions of an account, and its instance profile's too."""
    return f"nod-{stage}-notebook"


def _elsewhere(stage: str, region: str) -> str:
    role = notebook_role(stage)
    return (
        f"There is no stack nod-{stage} in {region}, but the account has its role {role}, of which there can be one in "
        f"all its regions. Most likely {stage} is deployed in another region: name that one, REGION=…, or take another "
        "STAGE here. If it is deployed nowhere, the role was left behind when a stack was removed by hand. Then remove "
        "it, and deploy again (the first two may find nothing):\n"
        f"  aws iam remove-role-from-instance-profile --instance-profile-name {role} --role-name {role}\n"
        f"  aws iam delete-instance-profile --instance-profile-name {role}\n"
        f"  for policy in $(aws iam list-role-policies --role-name {role} --query PolicyNames --output text); do "
        f"aws iam delete-role-policy --role-name {role} --policy-name $policy; done\n"
        f"  aws iam delete-role --role-name {role}"
    )


def table_names(stage: str) -> list[str]:
    """The tables that outlive the stack."""
    return [f"nod-{stage}-{name}" for name in RETAINED_TABLES]


def deploy(
    session: Any,
    said_region: str,
    wishes: Wishes,
    folder: Path,
    *,
    sleep: Callable[[float], object],
    say: Callable[[str], object],
) -> None:
    """Create or update a deployment.

    Raises:
        DeployError: nothing was created, or CloudFormation has taken back what was.
    """
    plan = look(session, said_region, wishes, say)
    say("Packaging")
    template = json.loads(package(wishes.stage, plan.cidrs, folder).read_text(encoding="utf-8"))
    client = partial(session.client, region_name=plan.identity.region)
    # First what an account may refuse, so that nothing is there if it does.
    if not plan.fleet_role:
        make_fleet_role(client("iam"), plan.identity, wishes.stage, say)
    bucket = PackageBucket(client("s3"), wishes.stage, plan.identity)
    say(f"Uploading {(folder / CODE).stat().st_size / 1e6:.1f} MB to {bucket.name}")
    bucket.ensure()
    url, keys = upload(bucket, template, folder, plan.identity)
    # A parameter that the template has no more cannot keep its value.
    known = {name: value for name, value in plan.parameters.items() if name in template["Parameters"]}
    stack = Stack(client("cloudformation"), wishes.stage, sleep=sleep, say=say)
    changed = stack.deploy(url, known)
    say("Nothing to change." if changed is None else f"The stack {stack.name} is up.")
    # Only now: until here CloudFormation might have had to go back to the last ones.
    bucket.keep(keys)
    described = stack.describe()
    say(after(wishes.stage, plan.identity.region, changed or (outputs(described) if described else {})))


def make_fleet_role(iam: Any, identity: Identity, stage: str, say: Callable[[str], object]) -> None:
    """Make the role by which EC2 Fleet works.

    The console makes it at an account's first fleet, the API does not: the first launch would fail. One an account and
    free, so `make destroy` leaves it. Not in the template, where it would fail in an account that has it.

    Raises:
        AccountError: you may not.
    """
    try:
        iam.create_service_linked_role(AWSServiceName=FLEET_SERVICE)
    except ClientError as error:
        if error.response["Error"]["Code"] != "AccessDenied":
            raise
        raise AccountError(
            f"You may not make the role {FLEET_ROLE} (iam:CreateServiceLinkedRole), without which no notebook is "
            f"launched: take the rights that this writes: {_policy(identity, stage)}, or have an administrator run: "
            f"aws iam create-service-linked-role --aws-service-name {FLEET_SERVICE}"
        ) from error
    say(f"Made the role {FLEET_ROLE}.")


def upload(bucket: PackageBucket, template: dict[str, Any], folder: Path, identity: Identity) -> tuple[str, list[str]]:
    """Upload all that the template names, and the template. Gives its address, and the keys."""
    keys: dict[str, str] = {}
    for resource in template["Resources"].values():
        properties = resource.get("Properties", {})
        for name in ("CodeUri", "DefinitionUri"):
            if name in properties:
                path = properties[name]
                keys[path] = keys.get(path) or bucket.upload((folder / path).read_bytes(), Path(path).suffix)
                properties[name] = {"Bucket": bucket.name, "Key": keys[path]}
    key = bucket.upload(json.dumps(template, sort_keys=True).encode(), Path(TEMPLATE).suffix)
    return f"https://{bucket.name}.s3.{identity.region}.amazonaws.com/{key}", [*keys.values(), key]


def after(stage: str, region: str, found: Mapping[str, str]) -> str:
    """What to do next."""
    url = found.get("EndpointURL", "").rstrip("/")
    return (
        f"\nThe API: {url}\n"
        f"Alarms:  mailed to OPERATORS_EMAIL once that address has confirmed AWS's mail\n\n"
        f"Next, a first user (prints a token):\n"
        f"  .venv/bin/python -m admin --stage {stage} --region {region} user add NAME --email ADDRESS\n"
        f"and a first notebook, as that user:\n"
        f"  NOD_URL={url} NOD_TOKEN=TOKEN .venv/bin/nod request --name first --notify email"
    )


def _never(_seconds: float) -> None:
    raise AssertionError("nothing is waited for while looking")
