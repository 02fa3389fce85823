"""Questions to the policies, each with the answer that it must have."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from chalicelib.prices import catalogue
from tests.aws.iam import calls
from tests.aws.iam.authorization import Authorization
from tests.aws.iam.deployment import ACCOUNT, MANAGED, REGION, STAGE, deployment, filled, listed, principals

# Another stage of the same account, one whose name begins as ours does, and others' accounts and regions.
CATALOGUE = "the catalogue"
OTHER_STAGE, SIBLING, OTHER_ACCOUNT, OTHER_REGION = "staging", f"{STAGE}-eu", "999988887777", "us-west-2"


@dataclass(frozen=True)
class Case:
    """`why` says where the question comes from."""

    principal: str
    asked: Authorization
    allowed: bool
    why: str

    def __str__(self) -> str:
        verdict = "may" if self.allowed else "may not"
        context = ", ".join(f"{key}={value}" for key, value in self.asked.context.items())
        return f"{self.principal} {verdict} {self.asked.action} {self.asked.resource} [{context}] ({self.why})"


@functools.cache
def needed_cases() -> list[Case]:
    """What has to be allowed: what was recorded, what AWS does in a role's name, and what is there by option."""
    return [*_recorded(), *_by_option(), *_by_aws()]


def _fill(asked: Authorization) -> Authorization:
    context = {
        filled(key): filled(value) if isinstance(value, str) else [filled(one) for one in value]
        for key, value in asked.context.items()
    }
    return Authorization(asked.action, filled(asked.resource), context)


def _recorded() -> Iterator[Case]:
    for one in calls.load():
        name = filled(one.principal)
        if name.startswith("role/"):
            # The local cloud calls a role that has no name of its own after its logical id.
            name = f"role/{name.removeprefix('role/nod-')}"
        asked = _fill(one.authorization)
        if name == "machine":
            # EC2 vouches for the instance whose credentials sign the request.
            (row,) = listed(asked.context["dynamodb:LeadingKeys"])
            asked = _with(asked, {"ec2:SourceInstanceArn": row})
        if one.authorization.action == "ssm:SendCommand" and not _bears_tag(asked):
            # Systems Manager knows an instance by its tags alone, so the probe of one that lost its tag is refused.
            yield Case(name, asked, False, f"recorded: {one.call}, after the tag was removed")
        else:
            yield Case(name, asked, True, f"recorded: {one.call}")


def _bears_tag(asked: Authorization) -> bool:
    return ":document/" in asked.resource or f"ssm:resourceTag/{_TAG}" in asked.context


def _by_option() -> Iterator[Case]:
    """What a deployment or a user may choose: a key pair, any type of the catalogue; and China's name of EC2."""
    recorded = [case for case in _recorded() if case.principal == f"workflow/nod-{STAGE}-launch"]
    for case in recorded:
        asked = case.asked
        if asked.action == "iam:PassRole":
            china = _with(asked, {"iam:PassedToService": "ec2.amazonaws.com.cn"})
            yield dataclasses.replace(case, asked=china, why="China")
        if asked.action == "ec2:RunInstances" and ":launch-template/" in asked.resource:
            key = f"arn:aws:ec2:{REGION}:{ACCOUNT}:key-pair/operators"
            yield dataclasses.replace(case, asked=_at(asked, key), why="KeyName")
    families = {name.split(".")[0]: name for name in catalogue().types}
    yield from (case for case in types() if case.asked.context["ec2:InstanceType"] in families.values())


def types() -> Iterator[Case]:
    """A launch of each type that users can be allowed."""
    run = next(
        case for case in _recorded() if case.asked.action == "ec2:RunInstances" and ":instance/" in case.asked.resource
    )
    for name in catalogue().types:
        yield dataclasses.replace(run, asked=_with(run.asked, {"ec2:InstanceType": name}), why=CATALOGUE)


def _by_aws() -> Iterator[Case]:
    """What Lambda and Step Functions do in the name of a role, as the template tells them to."""
    made = deployment()
    configs = [made.template["Resources"][one]["Properties"] for one in made.of_type("AWS::Lambda::EventInvokeConfig")]
    destinations = {
        _logical(config["FunctionName"]): config["DestinationConfig"]["OnFailure"]["Destination"] for config in configs
    }
    for function in made.of_type("AWS::Lambda::Function"):
        properties = made.properties(function)
        principal = f"function/{made.name(function)}"
        group = properties["LoggingConfig"]["LogGroup"]
        stream = f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:{group}:log-stream:2026/01/01/[$LATEST]abc"
        for action in ("logs:CreateLogStream", "logs:PutLogEvents"):
            yield Case(principal, Authorization(action, stream), True, "Lambda writes its log")
        if properties.get("TracingConfig", {}).get("Mode") == "Active":
            for action in ("xray:PutTraceSegments", "xray:PutTelemetryRecords"):
                yield Case(principal, Authorization(action, "*"), True, "Lambda traces it")
        if function in destinations:
            queue = made.arn(_logical(destinations[function]))
            yield Case(principal, Authorization("sqs:SendMessage", queue), True, "its failures' destination")
    for machine in made.of_type("AWS::StepFunctions::StateMachine"):
        if made.properties(machine).get("LoggingConfiguration"):
            for action in LOG_DELIVERY:
                yield Case(f"workflow/{made.name(machine)}", Authorization(action, "*"), True, "Step Functions' log")
    for action in AGENT:
        asked = Authorization(action, INSTANCE if action.startswith("ssm:") else "*")
        yield Case("machine", asked, True, "the Systems Manager agent")


# "Configuring IAM policies for logging to CloudWatch Logs", Step Functions Developer Guide. None takes a resource.
LOG_DELIVERY = (
    "logs:CreateLogDelivery",
    "logs:GetLogDelivery",
    "logs:UpdateLogDelivery",
    "logs:DeleteLogDelivery",
    "logs:ListLogDeliveries",
    "logs:PutResourcePolicy",
    "logs:DescribeResourcePolicies",
    "logs:DescribeLogGroups",
)


# Of AWS's own policy AmazonSSMManagedEC2InstanceDefaultPolicy, what commands and Session Manager need.
AGENT = (
    "ssm:UpdateInstanceInformation",
    "ssm:ListInstanceAssociations",
    "ssmmessages:CreateControlChannel",
    "ssmmessages:CreateDataChannel",
    "ssmmessages:OpenControlChannel",
    "ssmmessages:OpenDataChannel",
    "ec2messages:AcknowledgeMessage",
    "ec2messages:DeleteMessage",
    "ec2messages:FailMessage",
    "ec2messages:GetEndpoint",
    "ec2messages:GetMessages",
    "ec2messages:SendReply",
)
INSTANCE = f"arn:aws:ec2:{REGION}:{ACCOUNT}:instance/i-0ours"


def _logical(reference: Mapping[str, Any]) -> str:
    if "Ref" in reference:
        return str(reference["Ref"])
    return str(reference["Fn::GetAtt"][0])


@functools.cache
def strangers() -> list[Case]:
    """Everyone asks for all that others need and they do not. (One type stands for the catalogue.)"""
    found: dict[tuple[str, str], Case] = {}
    own: dict[str, set[tuple[str, str]]] = {name: set() for name in principals()}
    for case in needed_cases():
        own[case.principal].add((case.asked.action, _kind(case.asked.resource)))
    for case in needed_cases():
        what = (case.asked.action, _kind(case.asked.resource))
        if case.why == CATALOGUE or not case.allowed:
            continue
        for name in principals():
            if what not in own[name] and not _by_managed_policy(name, case.asked.action):
                key = (name, repr(case.asked))
                found[key] = Case(name, case.asked, False, f"{case.principal} needs it")
    return list(found.values())


def _kind(resource: str) -> str:
    """Resources that differ by an id alone are one: who may read one notebook's record may read another's."""
    return re.sub(r"(execution:[^:]+):.*", r"\1", resource)


def _by_managed_policy(name: str, action: str) -> bool:
    """What AWS's own managed policies allow is AWS's to say."""
    statements: list[Any] = [one for arn in principals()[name].managed for one in MANAGED[arn]["Statement"]]
    return any(action in statement["Action"] for statement in statements)


@functools.cache
def variations() -> list[Case]:
    """Each thing that is needed, with one fact changed."""
    found: dict[tuple[str, str], Case] = {}
    needed = {(case.principal, repr(case.asked)) for case in needed_cases()}
    for case in needed_cases():
        if case.why == CATALOGUE or not case.allowed:
            continue
        for asked, why in _changed(case):
            key = (case.principal, repr(asked))
            if key not in needed:
                found[key] = Case(case.principal, asked, False, why)
    return list(found.values())


def _with(asked: Authorization, changes: Mapping[str, str | list[str] | None]) -> Authorization:
    context = {key: value for key, value in {**asked.context, **changes}.items() if value is not None}
    return Authorization(asked.action, asked.resource, context)


def _at(asked: Authorization, resource: str) -> Authorization:
    return Authorization(asked.action, resource, asked.context)


def _changed(case: Case) -> Iterator[tuple[Authorization, str]]:
    asked = case.asked
    yield from _elsewhere(asked)
    if asked.resource.startswith("arn:aws:ec2:") and any("ResourceTag" in key for key in asked.context):
        yield from _not_ours(asked)
    if asked.action in {"ec2:RunInstances", "ec2:CreateFleet", "ec2:CreateTags"}:
        yield from _other_launch(asked)
    if asked.action == "iam:PassRole":
        for service in ("lambda.amazonaws.com", "ssm.amazonaws.com", "ec2.example.com"):
            yield _with(asked, {"iam:PassedToService": service}), "to another service"
        yield _with(asked, {"iam:PassedToService": None}), "to nobody in particular"
        for role in ("admin", f"nod-{STAGE}", f"nod-{OTHER_STAGE}-notebook", f"nod-{SIBLING}-notebook"):
            yield _at(asked, f"arn:aws:iam::{ACCOUNT}:role/{role}"), "another role"
    if asked.action == "ssm:SendCommand" and ":document/" in asked.resource:
        for document in ("AWS-RunShellScript", "AWS-RunPythonScript", "AWS-RunRemoteScript"):
            yield _at(asked, f"arn:aws:ssm:{REGION}::document/{document}"), "a document that runs anything"
        for document in (f"nod-{SIBLING}-prepare-instance", f"nod-{OTHER_STAGE}-set-password", "mine"):
            yield _at(asked, f"arn:aws:ssm:{REGION}:{ACCOUNT}:document/{document}"), "another document"
    if asked.action.startswith("ssm:GetParameter"):
        for parameter in ("/aws/service/ami-amazon-linux-latest/x", "/other/secret", f"/nod/{SIBLING}/slack/demo"):
            owner = "" if parameter.startswith("/aws/") else ACCOUNT
            yield _at(asked, f"arn:aws:ssm:{REGION}:{owner}:parameter{parameter}"), "another parameter"
    if case.principal == "machine" and asked.action == "dynamodb:UpdateItem":
        yield from _other_row(asked)


def _elsewhere(asked: Authorization) -> Iterator[tuple[Authorization, str]]:
    """The same in another account, another region, another deployment."""
    if asked.resource == "*" or asked.action in AGENT:
        # AWS's own policy for the agent does not narrow these either.
        return
    for before, after, why in (
        (f":{ACCOUNT}:", f":{OTHER_ACCOUNT}:", "another account"),
        (f":{REGION}:", f":{OTHER_REGION}:", "another region"),
        (f"nod-{STAGE}", f"nod-{OTHER_STAGE}", "another deployment"),
        (f"nod-{STAGE}", f"nod-{SIBLING}", "a deployment whose name begins as ours does"),
        (f"/nod/{STAGE}/", f"/nod/{SIBLING}/", "a deployment whose name begins as ours does"),
        ("lt-0ours", "lt-0other", "another launch template"),
        ("sg-0ours", "sg-0open", "another security group"),
        ("key-pair/operators", "key-pair/mine", "another key pair"),
    ):
        if before in asked.resource:
            yield _at(asked, asked.resource.replace(before, after)), why


_TAG = "nod:deployment"


def _not_ours(asked: Authorization) -> Iterator[tuple[Authorization, str]]:
    profile = f"arn:aws:iam::{ACCOUNT}:instance-profile"
    keys = [key for key in asked.context if key.lower().endswith(f"resourcetag/{_TAG}")]
    has_profile = "ec2:InstanceProfile" in asked.context
    foreign: dict[str, str | list[str] | None] = {"ec2:InstanceProfile": f"{profile}/theirs"} if has_profile else {}
    for value, why in (
        (OTHER_STAGE, "another deployment's"),
        (SIBLING, "a sibling deployment's"),
        (None, "untagged"),
        ("", "tagged with nothing"),
    ):
        # With our profile and no tag it is ours all the same, to those who may stop, start and terminate it.
        yield _with(asked, {**dict.fromkeys(keys, value), **foreign}), why
    if has_profile:
        for other in ("theirs", f"nod-{SIBLING}-notebook", f"nod-{OTHER_STAGE}-notebook"):
            changes: dict[str, str | list[str] | None] = dict.fromkeys(keys)
            yield _with(asked, {**changes, "ec2:InstanceProfile": f"{profile}/{other}"}), "another role's instance"
        yield _with(asked, {**dict.fromkeys(keys), "ec2:InstanceProfile": None}), "without tag and profile"
    if has_profile and keys:
        yield _with(asked, dict.fromkeys(keys, SIBLING)), "our role's instance, tagged as a sibling's"
    if "aws:ResourceTag/nod:notebook" in asked.context and asked.action == "ec2:DeleteSecurityGroup":
        yield _with(asked, {"aws:ResourceTag/nod:notebook": None}), "the deployment's own group"


def _other_launch(asked: Authorization) -> Iterator[tuple[Authorization, str]]:
    """What each of the three actions is asked about; the fleet's own check says nothing of disks and metadata."""
    template = f"arn:aws:ec2:{REGION}:{ACCOUNT}:launch-template/lt-0other"
    tags: list[tuple[Mapping[str, str | list[str] | None], str]] = [
        ({f"aws:RequestTag/{_TAG}": OTHER_STAGE}, "tagged as another deployment's"),
        ({f"aws:RequestTag/{_TAG}": SIBLING}, "tagged as a sibling's"),
        ({f"aws:RequestTag/{_TAG}": None}, "without the deployment's tag"),
    ]
    machine: list[tuple[Mapping[str, str | list[str] | None], str]] = [
        ({"ec2:LaunchTemplate": template}, "another launch template"),
        ({"ec2:LaunchTemplate": None}, "without a launch template"),
        ({"ec2:MetadataHttpTokens": "optional"}, "IMDSv1"),
        ({"ec2:MetadataHttpTokens": None}, "IMDSv1"),
        ({"ec2:MetadataHttpPutResponseHopLimit": "2"}, "metadata for containers"),
        ({"ec2:Encrypted": "false"}, "a disk in the clear"),
        ({"ec2:Encrypted": None}, "a disk in the clear"),
        *(({"ec2:InstanceType": one}, "a type that is not allowed") for one in OTHER_TYPES),
    ]
    creation: list[tuple[Mapping[str, str | list[str] | None], str]] = [
        ({"ec2:CreateAction": "CreateVolume"}, "at the creation of something else"),
        ({"ec2:CreateAction": None}, "on what is there already"),
    ]
    of_instance = ":instance/" in asked.resource
    changes = {
        "ec2:CreateFleet": tags if of_instance else [],
        "ec2:RunInstances": [*machine, *(tags if of_instance else [])],
        "ec2:CreateTags": [*creation, *tags],
    }[asked.action]
    for change, why in changes:
        (first,) = change
        if first in asked.context:
            yield _with(asked, change), why
    if asked.action == "ec2:CreateTags":
        yield _at(asked, re.sub(r"(instance|volume)/.*", "launch-template/lt-0ours", asked.resource)), "another kind"


# None of them is in the catalogue of prices, so no user can have it.
OTHER_TYPES = ("p5.48xlarge", "u-24tb1.112xlarge", "t3xmedium", "x1e.32xlarge", "g5g.xlarge", "mac2.metal")


def _other_row(asked: Authorization) -> Iterator[tuple[Authorization, str]]:
    own = listed(asked.context["dynamodb:LeadingKeys"])[0]
    other = f"arn:aws:ec2:{REGION}:{ACCOUNT}:instance/i-0neighbour"
    for keys, why in (
        ([other], "another row"),
        ([own, other], "two rows"),
        (None, "no row"),
        ([""], "a row without a key"),
        ([own + "0"], "another row"),
        (["*"], "every row"),
    ):
        yield _with(asked, {"dynamodb:LeadingKeys": keys}), why
    yield _with(asked, {"ec2:SourceInstanceArn": None}), "from elsewhere with stolen credentials"
    yield _with(asked, {"ec2:SourceInstanceArn": other}), "from another machine"
    yield (
        _with(asked, {"ec2:SourceInstanceArn": None, "dynamodb:LeadingKeys": ["${ec2:SourceInstanceARN}"]}),
        "a literal variable",
    )


@functools.cache
def attacks() -> list[Case]:
    """What whoever has a role's credentials would try, whether anything of ours does the like or not."""
    return [
        Case(name, asked, False, why)
        for name in principals()
        for asked, why in _tried(name)
        if not _by_managed_policy(name, asked.action)
    ]


def _tried(name: str) -> Iterator[tuple[Authorization, str]]:
    for action, resource, why in ANYONE:
        yield Authorization(action, resource), why
    if name == "machine":
        for action, resource, why in machine_attacks():
            yield Authorization(action, resource, {"ec2:SourceInstanceArn": INSTANCE}), why
        for table in ("notebooks", "users", "events", "sweeps", "heartbeats"):
            arn = _table(table)
            for action in DYNAMODB:
                if (table, action) != ("heartbeats", "UpdateItem"):
                    context = {"ec2:SourceInstanceArn": INSTANCE}
                    if action not in {
                        "Scan",
                        "DescribeTable",
                        "DeleteTable",
                        "UpdateTable",
                        "PartiQLSelect",
                        "ExportTableToPointInTime",
                    }:
                        yield (
                            Authorization(f"dynamodb:{action}", arn, {**context, "dynamodb:LeadingKeys": [INSTANCE]}),
                            "the tables",
                        )
                    else:
                        yield Authorization(f"dynamodb:{action}", arn, context), "the tables"


DYNAMODB = (
    "GetItem",
    "PutItem",
    "DeleteItem",
    "UpdateItem",
    "Query",
    "Scan",
    "BatchGetItem",
    "BatchWriteItem",
    "ConditionCheckItem",
    "PartiQLSelect",
    "DescribeTable",
    "DeleteTable",
    "UpdateTable",
    "ExportTableToPointInTime",
)


def _table(name: str) -> str:
    return f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/nod-{STAGE}-{name}"


# (action, resource, what it would give)
ANYONE = (
    ("iam:CreateUser", f"arn:aws:iam::{ACCOUNT}:user/eve", "a user of their own"),
    ("iam:CreateAccessKey", f"arn:aws:iam::{ACCOUNT}:user/admin", "an admin's key"),
    ("iam:AttachRolePolicy", f"arn:aws:iam::{ACCOUNT}:role/nod-{STAGE}-notebook", "more rights for a role"),
    ("iam:PutRolePolicy", f"arn:aws:iam::{ACCOUNT}:role/nod-{STAGE}-notebook", "more rights for a role"),
    ("iam:UpdateAssumeRolePolicy", f"arn:aws:iam::{ACCOUNT}:role/nod-{STAGE}-notebook", "a role for oneself"),
    (
        "iam:CreateServiceLinkedRole",
        f"arn:aws:iam::{ACCOUNT}:role/aws-service-role/ec2fleet.amazonaws.com/AWSServiceRoleForEC2Fleet",
        "a role",
    ),
    ("iam:PassRole", f"arn:aws:iam::{ACCOUNT}:role/admin", "an admin's machine"),
    ("sts:AssumeRole", f"arn:aws:iam::{ACCOUNT}:role/admin", "another role"),
    ("s3:GetObject", "arn:aws:s3:::anything/secret", "files"),
    ("s3:PutObject", "arn:aws:s3:::anything/code.zip", "code of the next deployment"),
    ("s3:ListAllMyBuckets", "*", "all buckets"),
    ("secretsmanager:GetSecretValue", f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:db-AbCdEf", "a secret"),
    ("kms:Decrypt", f"arn:aws:kms:{REGION}:{ACCOUNT}:key/0", "what is encrypted"),
    ("ssm:GetParameter", f"arn:aws:ssm:{REGION}:{ACCOUNT}:parameter/db/password", "a parameter of the account"),
    ("ssm:GetParameters", f"arn:aws:ssm:{REGION}:{ACCOUNT}:parameter/db/password", "a parameter of the account"),
    ("ssm:GetParametersByPath", f"arn:aws:ssm:{REGION}:{ACCOUNT}:parameter/db", "parameters of the account"),
    ("ssm:GetParameterHistory", f"arn:aws:ssm:{REGION}:{ACCOUNT}:parameter/db/password", "a parameter as it was"),
    (
        "ssm:PutParameter",
        f"arn:aws:ssm:{REGION}:{ACCOUNT}:parameter/nod/{STAGE}/slack/demo",
        "somebody's Slack channel",
    ),
    ("ssm:DescribeParameters", "*", "the names of parameters"),
    ("ssm:StartSession", INSTANCE, "a shell"),
    (
        "ssm:CreateDocument",
        f"arn:aws:ssm:{REGION}:{ACCOUNT}:document/nod-{STAGE}-prepare-instance",
        "a document of their own",
    ),
    (
        "ssm:UpdateDocument",
        f"arn:aws:ssm:{REGION}:{ACCOUNT}:document/nod-{STAGE}-prepare-instance",
        "a document of their own",
    ),
    ("ssm:SendCommand", f"arn:aws:ssm:{REGION}::document/AWS-RunShellScript", "a shell on every machine"),
    (
        "ssm:SendCommand",
        f"arn:aws:ssm:{REGION}:{ACCOUNT}:managed-instance/mi-0123456789abcdef0",
        "machines of the office",
    ),
    ("lambda:UpdateFunctionCode", f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:nod-{STAGE}-api", "the API's code"),
    (
        "lambda:InvokeFunction",
        f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:nod-{STAGE}-api",
        "the API, past its authentication",
    ),
    ("lambda:InvokeFunction", f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:payroll", "others' functions"),
    (
        "states:UpdateStateMachine",
        f"arn:aws:states:{REGION}:{ACCOUNT}:stateMachine:nod-{STAGE}-launch",
        "a workflow of their own",
    ),
    ("states:StartExecution", f"arn:aws:states:{REGION}:{ACCOUNT}:stateMachine:payroll", "others' workflows"),
    (
        "ec2:CreateLaunchTemplateVersion",
        f"arn:aws:ec2:{REGION}:{ACCOUNT}:launch-template/lt-0ours",
        "user data of their own",
    ),
    ("ec2:ModifyInstanceAttribute", INSTANCE, "user data of their own"),
    ("ec2:ModifyInstanceMetadataOptions", INSTANCE, "IMDSv1"),
    ("ec2:AssociateIamInstanceProfile", INSTANCE, "another role on a machine"),
    ("ec2:AuthorizeSecurityGroupIngress", f"arn:aws:ec2:{REGION}:{ACCOUNT}:security-group/sg-0ours", "an open port"),
    ("ec2:CreateSnapshot", f"arn:aws:ec2:{REGION}:{ACCOUNT}:volume/vol-0ours", "a copy of somebody's disk"),
    ("ec2:AttachVolume", f"arn:aws:ec2:{REGION}:{ACCOUNT}:volume/vol-0ours", "somebody's disk"),
    ("ec2:CreateImage", INSTANCE, "a copy of somebody's machine"),
    ("ec2:GetPasswordData", INSTANCE, "a password"),
    ("ec2:CreateTags", INSTANCE, "another's machine made ours"),
    ("ec2:DeleteTags", INSTANCE, "a machine that is not found"),
    ("ec2:RunInstances", f"arn:aws:ec2:{REGION}::snapshot/snap-0theirs", "somebody's disk, as it was"),
    ("ec2:RunInstances", f"arn:aws:ec2:{REGION}:{ACCOUNT}:instance/i-0new", "a machine without a template"),
    ("dynamodb:DeleteTable", _table("notebooks"), "the records"),
    ("dynamodb:Scan", _table("notebooks"), "all records"),
    ("dynamodb:DeleteItem", _table("users"), "a user"),
    ("dynamodb:PutItem", _table("users"), "a user of their own"),
    ("dynamodb:GetItem", f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/payroll", "others' tables"),
    ("sns:Subscribe", f"arn:aws:sns:{REGION}:{ACCOUNT}:nod-{STAGE}-messages", "everybody's links"),
    ("sns:Publish", f"arn:aws:sns:{REGION}:{ACCOUNT}:payroll", "others' topics"),
    (
        "sqs:ReceiveMessage",
        f"arn:aws:sqs:{REGION}:{ACCOUNT}:nod-{STAGE}-undelivered-messages",
        "links that were not delivered",
    ),
    (
        "logs:GetLogEvents",
        f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:/aws/lambda/nod-{STAGE}-api:log-stream:x",
        "the log",
    ),
    ("logs:DeleteLogGroup", f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:/aws/lambda/nod-{STAGE}-api", "no log"),
    ("events:PutRule", f"arn:aws:events:{REGION}:{ACCOUNT}:rule/nod-{STAGE}-undo", "a rule of their own"),
    ("cloudformation:UpdateStack", f"arn:aws:cloudformation:{REGION}:{ACCOUNT}:stack/nod-{STAGE}/0", "the deployment"),
)


def machine_attacks() -> Iterable[tuple[str, str, str]]:
    """What root on a notebook's machine would try beyond that."""
    yield "ec2:StopInstances", f"arn:aws:ec2:{REGION}:{ACCOUNT}:instance/i-0neighbour", "the neighbours' machines"
    yield "ec2:StartInstances", f"arn:aws:ec2:{REGION}:{ACCOUNT}:instance/i-0ours", "itself"
    yield "ec2:TerminateInstances", f"arn:aws:ec2:{REGION}:{ACCOUNT}:instance/i-0neighbour", "the neighbours' machines"
    yield "ec2:DescribeInstances", "*", "who is there"
    yield "ssm:SendCommand", f"arn:aws:ec2:{REGION}:{ACCOUNT}:instance/i-0neighbour", "a neighbour's shell"
    yield (
        "ssm:SendCommand",
        f"arn:aws:ssm:{REGION}:{ACCOUNT}:document/nod-{STAGE}-set-password",
        "a neighbour's password",
    )
    yield "ssm:ListCommands", "*", "task tokens and password hashes of commands"
    yield "ssm:GetCommandInvocation", "*", "others' output"
    yield "ssm:GetDocument", f"arn:aws:ssm:{REGION}:{ACCOUNT}:document/nod-{STAGE}-set-password", "documents"
    yield "ssm:GetParameter", f"arn:aws:ssm:{REGION}:{ACCOUNT}:parameter/nod/{STAGE}/slack/demo", "a Slack webhook"
    yield "ssm:DescribeInstanceInformation", "*", "who is there"
    yield "sns:Publish", f"arn:aws:sns:{REGION}:{ACCOUNT}:nod-{STAGE}-messages", "messages in our name"
    yield "sqs:SendMessage", f"arn:aws:sqs:{REGION}:{ACCOUNT}:nod-{STAGE}-failed-events", "a full queue"
    for machine in ("launch", "stop", "start", "terminate", "undo", "password"):
        arn = f"arn:aws:states:{REGION}:{ACCOUNT}:stateMachine:nod-{STAGE}-{machine}"
        yield "states:StartExecution", arn, "somebody's machine"
        yield "states:SendTaskSuccess", arn, "a task that is not done"
        yield "states:SendTaskFailure", arn, "a task that has failed"
    for function in ("-api", "-tell_owner", "-explain_failure", "-sweep"):
        yield (
            "lambda:InvokeFunction",
            f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:nod-{STAGE}{function}",
            "our functions",
        )
    yield (
        "logs:PutLogEvents",
        f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:/aws/lambda/nod-{STAGE}-api:log-stream:x",
        "a forged log",
    )
    yield "xray:PutTraceSegments", "*", "forged traces"
    yield "iam:GetRole", f"arn:aws:iam::{ACCOUNT}:role/nod-{STAGE}-notebook", "what it may do"
    yield "ec2:RunInstances", f"arn:aws:ec2:{REGION}:{ACCOUNT}:launch-template/lt-0ours", "machines for itself"
    yield "ec2:CreateFleet", f"arn:aws:ec2:{REGION}:{ACCOUNT}:launch-template/lt-0ours", "machines for itself"
    yield "iam:PassRole", f"arn:aws:iam::{ACCOUNT}:role/nod-{STAGE}-notebook", "machines for itself"
