"""The policies for the people of a deployment (deploy/permissions.yaml): all that they need, and nothing else.

What CloudFormation does in their name is what its registry says of each type of resource in the template (the schemas
that come with cfn-lint, section `handlers`); what the commands call themselves is recorded from them.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import cfnlint
import pytest
from botocore.client import BaseClient

from admin import slack, users
from chalicelib.errors import AdminError
from deploy import deployment as deploying
from deploy import permissions
from deploy.account import Identity
from deploy.destroy import FORCE
from deploy.errors import InputError, PackageError
from deploy.inputs import Wishes
from deploy.smoke.account import Account
from tests.aws.fake_aws import ACCOUNT as FAKE_ACCOUNT
from tests.aws.fake_aws import REGION as FAKE_REGION
from tests.aws.fake_aws import FakeAws, account, in_turn, refusal
from tests.aws.iam.authorization import Authorization
from tests.aws.iam.deployment import ACCOUNT, REGION, deployment, listed
from tests.aws.iam.simulator import Question, ask
from tests.aws.packaged import STAGE
from tests.aws.test_deploy_destroy import World
from tests.aws.test_deploy_stack import GONE, cloud, described, store
from tests.unit import stage as stages

SCHEMAS = Path(cfnlint.__file__).parent / "data" / "schemas"
BUCKET = f"arn:aws:s3:::nod-{STAGE}-packages-{ACCOUNT}-{REGION}"
TAGGED = {f"aws:ResourceTag/{'nod:deployment'}": STAGE}
PROFILE = f"arn:aws:iam::{ACCOUNT}:instance-profile/nod-{STAGE}-notebook"
# A machine whose tag was removed by hand.
UNTAGGED = "i-0untagged"
# What the registry lists for properties that no resource of ours has: patterns over type and action, and why.
NOT_USED = {
    r"\S+ kms:": "no resource of ours has a key of its own",
    r"\S+Table (kinesis:|dynamodb:(Enable|Disable|Update)Kinesis)": "no stream",
    r"\S+Table (logs:|s3:|dynamodb:(DescribeImport|ImportTable))": "no import",
    r"\S+Table (iam:CreateServiceLinkedRole|dynamodb:\w*(Replica|Scan|Query|Item)$)": "no replica",
    r"\S+Table dynamodb:(UpdateContributorInsights|(Put|Delete)ResourcePolicy)": "neither insights nor a policy",
    r"\S+Function (elasticfilesystem|s3files):": "no file system",
    r"\S+Function lambda:(Put|Delete)FunctionConcurrency": "no bound of concurrency",
    r"\S+Function lambda:((Put|Delete)Function|Get)CodeSigningConfig|\S+Function lambda:GetLayer": "unsigned, no layer",
    r"\S+Function lambda:Put(FunctionRecursion|FunctionScaling|RuntimeManagement)Config": "Lambda's own are kept",
    r"\S+Function lambda:(PublishVersion|PassCapacityProvider|AssociateRuntimeAlias)": "no version, no capacity",
    r"\S+LogGroup ((firehose|s3):|logs:(CreateLogDelivery|(Put|Delete)DataProtectionPolicy))": "no data protection",
    r"\S+LogGroup logs:((Put|Delete)(Index|Resource)Policy|(Dis)?[Aa]ssociateKmsKey)": "no index, policy or key",
    r"\S+LogGroup logs:Put(LogGroupDeletionProtection|BearerTokenAuthentication)": "neither is set",
    r"\S+Topic sns:PutDataProtectionPolicy": "no data protection",
    r"\S+RestApi (s3:|apigateway:UpdateRestApiPolicy)": "its body is in the template; no policy",
    r"\S+Document s3:": "its content is in the template",
    r"\S+Role iam:\w+PermissionsBoundary": "no boundary",
}
# What is allowed although neither the registry nor a command says so, and why.
ARGUED = {
    "cloudformation:TagResource": "the reference has it for who gives tags to a stack",
    "cloudformation:UntagResource": "as TagResource",
    "cloudformation:CreateChangeSet on Serverless-2016-10-31": "of a transform, which the reference does not have",
    "iam:TagInstanceProfile": "the stack's tags go to what can bear them; the registry's entry is behind",
    "iam:UntagInstanceProfile": "as TagInstanceProfile",
    "iam:CreateServiceLinkedRole on AWSServiceRoleForAPIGateway": "API Gateway makes it with an account's first API",
}
# The service that a role is handed to, by the type of the resource that names it.
PASSED_TO = {
    "AWS::Lambda::Function": "lambda",
    "AWS::StepFunctions::StateMachine": "states",
    "AWS::Events::Rule": "events",
    "AWS::IAM::InstanceProfile": "ec2",
    "AWS::ApiGateway::Account": "apigateway",
}
NOW = datetime(2026, 1, 2, tzinfo=UTC)
EC2_KINDS = {
    "LaunchTemplate": ["launch-template/lt-0ours"],
    "CreateSecurityGroup": ["security-group/sg-0ours", "vpc/vpc-0ours"],
    "SecurityGroup": ["security-group/sg-0ours"],
    "Tags": ["launch-template/lt-0ours", "security-group/sg-0ours", "security-group-rule/sgr-0ours"],
}
WITHOUT_RESOURCE = {
    "logs:DescribeIndexPolicies",
    "logs:DescribeLogGroups",
    "logs:DescribeResourcePolicies",
    "sns:GetSubscriptionAttributes",
    "sns:SetSubscriptionAttributes",
    "sns:Unsubscribe",
}
# Paths by type: of the collection, where POST makes one; of the resource; of its tags.
API_PATHS = {
    "AWS::ApiGateway::Account": ("", "/account", ""),
    "AWS::ApiGateway::RestApi": ("/restapis", "/restapis/abc", "/tags/arn"),
    # The evaluator knows no collection of these two; the policy has /restapis/* whole.
    "AWS::ApiGateway::Deployment": ("", "/restapis/abc/deployments/d", ""),
    "AWS::ApiGateway::Stage": ("", "/restapis/abc/stages/api", "/tags/arn"),
}


@functools.cache
def policies() -> dict[str, dict[str, Any]]:
    return permissions.policies(boto3.Session(), STAGE, REGION, ACCOUNT)


def deployer() -> list[dict[str, Any]]:
    return [policies()["deploy"], policies()["deploy-parts"]]


# --- what CloudFormation does ---


@functools.cache
def registry() -> dict[str, dict[str, list[str]]]:
    """Permissions by type and handler, of the region."""
    names = json.loads((SCHEMAS / "providers" / f"{REGION}.json").read_text(encoding="utf-8"))
    found = {}
    for kind in {one["Type"] for one in deployment().template["Resources"].values()}:
        schema = json.loads((SCHEMAS / "resources" / f"{names[kind]}.json").read_text(encoding="utf-8"))
        found[kind] = {name: one["permissions"] for name, one in schema["handlers"].items() if name != "list"}
    return found


def test_the_registry_says_something_of_every_type_of_the_template() -> None:
    assert len(registry()) > 20
    assert all(len(handlers) >= 3 for handlers in registry().values())


def unused(kind: str, action: str) -> str | None:
    return next((pattern for pattern in NOT_USED if re.match(pattern, f"{kind} {action}")), None)


def by_cloudformation() -> Iterator[Authorization]:
    for logical, resource in deployment().template["Resources"].items():
        kind = resource["Type"]
        for actions in registry()[kind].values():
            for action in actions:
                yield from asked_for(action, logical, kind)


def asked_for(action: str, logical: str, kind: str) -> Iterator[Authorization]:
    """What one permission of the registry comes to for one resource."""
    service, _, verb = action.partition(":")
    if action == "iam:PassRole":
        for role in roles_of(logical):
            passed = {"iam:PassedToService": f"{PASSED_TO[kind]}.amazonaws.com"}
            yield Authorization(action, deployment().arn(role), passed)
    elif action == "iam:GetRole" and kind != "AWS::IAM::Role":
        yield from (Authorization(action, deployment().arn(role)) for role in roles_of(logical))
    elif unused(kind, action):
        return
    elif action in ("iam:AttachRolePolicy", "iam:DetachRolePolicy"):
        for arn in deployment().value(logical, "ManagedPolicyArns") or ():
            yield Authorization(action, deployment().arn(logical), {"iam:PolicyARN": arn})
    elif service == "s3":
        yield Authorization("s3:GetObject", f"{BUCKET}/{'0' * 64}.zip")
    elif service == "apigateway":
        collection, one, tags = API_PATHS[kind]
        for path in (collection,) if verb == "POST" else (one, tags) if verb in ("PUT", "GET", "DELETE") else (one,):
            if path:
                yield Authorization(action, f"arn:aws:apigateway:{REGION}::{path}")
    elif service == "ec2":
        yield from of_ec2(action, verb)
    elif action in WITHOUT_RESOURCE:
        yield Authorization(action, "*")
    else:
        yield Authorization(action, arn_for(service, logical, kind))


def of_ec2(action: str, verb: str) -> Iterator[Authorization]:
    if verb.startswith("Describe"):
        yield Authorization(action, "*")
        return
    kinds = next(kinds for part, kinds in sorted(EC2_KINDS.items(), key=lambda one: -len(one[0])) if part in verb)
    yield from (Authorization(action, f"arn:aws:ec2:{REGION}:{ACCOUNT}:{kind}") for kind in kinds)


def arn_for(service: str, logical: str, kind: str) -> str:
    value = functools.partial(deployment().value, logical)
    if kind == "AWS::CloudWatch::Dashboard":
        return f"arn:aws:cloudwatch::{ACCOUNT}:dashboard/{value('DashboardName')}"
    if service == "logs":
        return f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:{value('LogGroupName')}"
    if service == "lambda" and kind != "AWS::Lambda::Function":
        name = value("FunctionName").rsplit(":", 1)[-1]
        return f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{name}"
    if kind in ("AWS::SNS::Subscription", "AWS::SNS::TopicPolicy"):
        return str(value("TopicArn") or value("Topics")[0])
    if kind == "AWS::SQS::QueuePolicy":
        (queue,) = deployment().template["Resources"][logical]["Properties"]["Queues"]
        return deployment().arn(queue["Ref"])
    return deployment().arn(logical)


def roles_of(logical: str) -> list[str]:
    """The roles of ours that a resource names."""
    text = json.dumps(deployment().template["Resources"][logical].get("Properties", {}))
    names = re.findall(r'"(?:Ref|Fn::GetAtt)": \[?"(\w+)"', text)
    resources = deployment().template["Resources"]
    return sorted({one for one in names if one in resources and resources[one]["Type"] == "AWS::IAM::Role"})


# --- what the commands call ---

DEPLOY_CALLS = {
    "s3:HeadBucket": "s3:ListBucket",
    "s3:HeadObject": "s3:GetObject",
    "s3:ListObjectsV2": "s3:ListBucket",
    "s3:ListObjectVersions": "s3:ListBucketVersions",
    "s3:PutBucketEncryption": "s3:PutEncryptionConfiguration",
    "s3:PutPublicAccessBlock": "s3:PutBucketPublicAccessBlock",
    "s3:PutBucketLifecycleConfiguration": "s3:PutLifecycleConfiguration",
    "apigateway:GetAccount": "apigateway:GET",
    "apigateway:GetRestApis": "apigateway:GET",
    "apigatewayv2:GetApis": "apigateway:GET",
    "apigateway:UpdateAccount": "apigateway:PATCH",
}
FREE = {"sts:GetCallerIdentity"}
OF_OBJECTS = {"s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:DeleteObjectVersion"}
OF_DISKS = {
    "ec2:DeleteVolume": "volume/vol-0ours",
    "ec2:ReleaseAddress": "elastic-ip/eipalloc-0ours",
}


def ours(text: str) -> str:
    return text.replace(FAKE_ACCOUNT, ACCOUNT)


def of_command(name: str, parameters: Mapping[str, Any]) -> Iterator[Authorization]:
    """What one recorded call of a command asks for. A call without a rule fails."""
    service, _, operation = name.partition(":")
    action = DEPLOY_CALLS.get(name, name)
    verb = action.partition(":")[2]
    if name in FREE:
        return
    if name == "s3:DeleteObjects":
        yield Authorization("s3:DeleteObject", f"{BUCKET}/key.zip")
        if any("VersionId" in one for one in parameters["Delete"]["Objects"]):
            yield Authorization("s3:DeleteObjectVersion", f"{BUCKET}/key.zip")
    elif service == "s3":
        assert ours(parameters["Bucket"]) == BUCKET.rpartition(":")[2]
        yield Authorization(action, f"{BUCKET}/key.zip" if action in OF_OBJECTS else BUCKET)
    elif service == "cloudformation":
        stack = f"arn:aws:cloudformation:{REGION}:{ACCOUNT}:stack/nod-{STAGE}/1"
        yield Authorization(action, stack)
    elif name == "iam:CreateServiceLinkedRole":
        host = parameters["AWSServiceName"]
        role = f"arn:aws:iam::{ACCOUNT}:role/aws-service-role/{host}/AWSServiceRoleForEC2Fleet"
        yield Authorization(action, role, {"iam:AWSServiceName": host})
    elif service == "iam":
        context = {"iam:PolicyARN": parameters["PolicyArn"]} if "PolicyArn" in parameters else {}
        yield Authorization(action, f"arn:aws:iam::{ACCOUNT}:role/{parameters['RoleName']}", context)
    elif action.startswith("apigateway:"):
        path = {"GetRestApis": "/restapis", "GetApis": "/apis"}.get(operation, "/account")
        yield Authorization(action, f"arn:aws:apigateway:{REGION}::{path}")
    elif name == "ec2:TerminateInstances":
        for one in parameters["InstanceIds"]:
            facts = {"ec2:InstanceProfile": PROFILE} | ({} if one == UNTAGGED else TAGGED)
            yield Authorization(action, f"arn:aws:ec2:{REGION}:{ACCOUNT}:instance/{one}", facts)
    elif action in OF_DISKS:
        yield Authorization(action, f"arn:aws:ec2:{REGION}:{ACCOUNT}:{OF_DISKS[action]}", TAGGED)
    elif action == "ec2:DeleteSnapshot":
        yield Authorization(action, f"arn:aws:ec2:{REGION}::snapshot/snap-0ours", TAGGED)
    elif service in ("ec2", "logs") and verb.startswith("Describe"):
        yield Authorization(action, "*")
    elif service == "dynamodb":
        yield Authorization(action, f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/{parameters['TableName']}")
    elif service == "ssm":
        names = parameters.get("Names") or [parameters.get("Path", "").rstrip("/") or parameters["Name"]]
        for one in names:
            yield Authorization(action, f"arn:aws:ssm:{REGION}:{ACCOUNT}:parameter{one}")
    elif service == "logs":
        yield Authorization(action, f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:{parameters['logGroupName']}")
    elif service == "stepfunctions":
        of_one = operation in ("StopExecution", "DescribeExecution", "GetExecutionHistory")
        kind, suffix = ("execution", ":nb-1") if of_one else ("stateMachine", "")
        arn = f"arn:aws:states:{REGION}:{ACCOUNT}:{kind}:nod-{STAGE}-launch{suffix}"
        yield Authorization(f"states:{operation}", arn)
    elif action in ("sns:ConfirmSubscription", "sns:Subscribe"):
        yield Authorization(action, f"arn:aws:sns:{REGION}:{ACCOUNT}:{parameters['TopicArn'].rpartition(':')[2]}")
    elif action in ("sns:GetSubscriptionAttributes", "sns:Unsubscribe"):
        yield Authorization(action, "*")
    else:
        raise AssertionError(f"no rule for {name}")


@pytest.fixture(scope="module")
def called(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, Mapping[str, Any]]]:
    """The calls of `make deploy` into an account without anything, and of `make destroy` of one with everything."""
    folder = tmp_path_factory.mktemp("package")
    (folder / "deployment.zip").write_bytes(b"zip")
    template = {
        "Parameters": {"VpcId": {}, "SubnetIds": {}, "GatewayLogs": {}},
        "Resources": {
            "One": {"Type": "AWS::Serverless::Function", "Properties": {"CodeUri": "./deployment.zip"}},
            "Role": {"Type": "AWS::IAM::Role"},
        },
    }
    (folder / "template.json").write_text(json.dumps(template))
    linked = refusal("NoSuchEntity")
    made = {
        "Role": {
            "Path": "/",
            "RoleName": deploying.FLEET_ROLE,
            "RoleId": "AROAEXAMPLEEXAMPLE00",
            "Arn": f"arn:aws:iam::{FAKE_ACCOUNT}:role/x",
            "CreateDate": "2026-01-01T00:00:00Z",
        }
    }
    fleet = {"iam:GetRole": linked, "iam:CreateServiceLinkedRole": made}
    # A setting of the account that may name any role.
    fleet["apigateway:GetAccount"] = {"cloudwatchRoleArn": f"arn:aws:iam::{FAKE_ACCOUNT}:role/logs/theirs"}
    change_sets = in_turn({"Status": "FAILED", "StatusReason": "The submitted information didn't contain changes."})
    keys = {"ec2:DescribeKeyPairs": {"KeyPairs": [{"KeyName": "mine"}]}}
    found: list[tuple[str, Mapping[str, Any]]] = []
    for changed in ({}, {"cloudformation__DescribeChangeSet": change_sets, "cloudformation__DeleteChangeSet": {}}):
        stack = in_turn(GONE, GONE, described("CREATE_COMPLETE"))
        answers = account() | fleet | keys | cloud(cloudformation__DescribeStacks=stack, **changed)
        aws = FakeAws(answers | store({"old.zip": b""}))
        asked = Wishes("prod", ("198.51.100.0/24",), None, {"KeyName": "mine"})
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(deploying, "package", lambda *_: folder / "template.json")
            deploying.deploy(aws, "", asked, folder, sleep=lambda _: None, say=lambda _: None)
        found += aws.calls
    world = World()
    world.instances, world.untagged, world.volumes = {"i-0ours"}, {UNTAGGED}, {"vol-1"}
    world.snapshots, world.addresses = {"snap-1"}, {"eipalloc-1"}
    world.groups.add("/aws/lambda/nod-prod-left")
    world.on_delete = lambda: world.groups.add("/aws/lambda/nod-prod-api")
    world.destroy(FORCE)
    return found + world.aws.calls


@pytest.fixture(scope="module")
def administered() -> list[tuple[str, Mapping[str, Any]]]:
    """The calls of `python -m admin`, every command once."""
    found: list[tuple[str, Mapping[str, Any]]] = []
    send: Any = BaseClient._make_api_call  # type: ignore[attr-defined]

    def record(client: Any, operation: str, parameters: dict[str, Any]) -> Any:
        if operation == "TransactWriteItems":
            # Of a transaction IAM is asked for each of its parts.
            parts = [part for item in parameters["TransactItems"] for part in item.items()]
            found.extend((f"dynamodb:{verb}Item", part) for verb, part in parts)
        else:
            found.append((f"{client.meta.service_model.service_name}:{operation}", parameters))
        return send(client, operation, parameters)

    with stages.stage() as deployed, pytest.MonkeyPatch.context() as patch:
        patch.setattr(BaseClient, "_make_api_call", record)
        admin = deployed.admin
        slack.add_channel(admin, "team", "https://hooks.slack.com/services/T/B/X")
        users.add_user(admin, "ada", email="ada@example.org", slack="team")
        users.change_user(admin, "ada", email="", slack="", quota=2)
        users.new_token(admin, "ada")
        users.list_users(admin)
        users.facts(users.one(admin, "ada"))
        users.add_user(admin, "bob", email="bob@example.org")
        users.subscribe_user(admin, "bob")
        with pytest.raises(AdminError):
            users.confirm_user(admin, "bob", "0" * 64)
        admin.slack.names()
        users.remove_user(admin, "ada")
        slack.remove_channel(admin, "team")
    names = {f"nod-{stages.STAGE}-": f"nod-{STAGE}-", f"/nod/{stages.STAGE}/": f"/nod/{STAGE}/"}
    text = json.dumps(found, default=str)
    for theirs, here in names.items():
        text = text.replace(theirs, here)
    return [(name, parameters) for name, parameters in json.loads(text)]


@pytest.fixture(scope="module")
def smoked() -> list[tuple[str, Mapping[str, Any]]]:
    """What `make smoke` asks AWS beside what `python -m admin` calls."""
    arn = f"arn:aws:states:{FAKE_REGION}:{FAKE_ACCOUNT}:execution:nod-{STAGE}-launch:nb-1"
    execution = {"executionArn": arn, "stateMachineArn": arn, "name": "nb-1", "status": "SUCCEEDED", "startDate": NOW}
    answers = {
        "cloudformation:DescribeStacks": {"Stacks": [described("CREATE_COMPLETE")["Stacks"][0]]},
        "ec2:DescribeInstances": {"Reservations": [{"Instances": [{"InstanceId": "i-1", "ImageId": "ami-1"}]}]},
        "ec2:DescribeVolumes": {"Volumes": []},
        "ec2:DescribeImages": {"Images": []},
        "stepfunctions:ListExecutions": {"executions": [execution]},
        "stepfunctions:DescribeExecution": execution,
        "stepfunctions:GetExecutionHistory": {"events": []},
        "logs:DescribeLogGroups": {"logGroups": [{"logGroupName": f"/aws/lambda/nod-{STAGE}-api"}]},
        "logs:FilterLogEvents": {"events": []},
    }
    aws = FakeAws(answers)
    whose = Identity(FAKE_ACCOUNT, "arn", FAKE_REGION, "aws")
    account_ = Account(lambda service: aws.client(service, region_name=FAKE_REGION), STAGE, whose)
    account_.stack()
    account_.machines("nb-1")
    account_.disks("nb-1")
    account_.image("i-1")
    account_.histories("nb-1")
    account_.refusals(0)
    return aws.calls


def refused(who: list[dict[str, Any]], asked: list[Authorization]) -> list[str]:
    unique = list({json.dumps([one.action, one.resource, dict(one.context)]): one for one in asked}.values())
    answers = ask([Question(who, one) for one in unique])
    return [
        f"{one.action} on {one.resource} {answer.error or ''}"
        for one, answer in zip(unique, answers, strict=True)
        if not answer.allowed
    ]


# --- the tests ---


def test_who_deploys_may_do_what_cloudformation_does_in_their_name() -> None:
    asked = list(by_cloudformation())
    assert len({(one.action, one.resource) for one in asked}) > 500
    assert refused(deployer(), asked) == []


def test_who_deploys_may_do_what_deploy_and_destroy_call(called: list[tuple[str, Mapping[str, Any]]]) -> None:
    assert {"cloudformation:ExecuteChangeSet", "ec2:TerminateInstances"} <= {name for name, _ in called}
    assert refused(deployer(), [one for call in called for one in of_command(*call)]) == []


def test_who_adds_users_may_do_what_admin_calls(administered: list[tuple[str, Mapping[str, Any]]]) -> None:
    assert {"sns:Subscribe", "ssm:PutParameter", "dynamodb:DeleteItem"} <= {name for name, _ in administered}
    assert refused([policies()["admin"]], [one for call in administered for one in of_command(*call)]) == []


def test_who_runs_smoke_may_look_at_what_it_looks_at(smoked: list[tuple[str, Mapping[str, Any]]]) -> None:
    assert {"stepfunctions:GetExecutionHistory", "logs:FilterLogEvents"} <= {name for name, _ in smoked}
    assert refused([policies()["smoke"]], [one for call in smoked for one in of_command(*call)]) == []


def test_who_runs_smoke_changes_nothing_by_its_policy() -> None:
    for _, action in actions_of(policies()["smoke"]):
        assert action.partition(":")[2].startswith(("Describe", "List", "Get", "Filter"))


def actions_of(policy: Mapping[str, Any]) -> Iterator[tuple[int, str]]:
    for number, statement in enumerate(policy["Statement"]):
        yield from ((number, action) for action in listed(statement["Action"]))


def without(policy: Mapping[str, Any], number: int, action: str) -> dict[str, Any]:
    statements = []
    for index, statement in enumerate(policy["Statement"]):
        rest = [one for one in listed(statement["Action"]) if index != number or one != action]
        if rest:
            statements.append({**statement, "Action": rest})
    return {**policy, "Statement": statements}


def is_argued(action: str, statement: Mapping[str, Any]) -> bool:
    return action in ARGUED or any(
        f"{action} on {resource.rpartition('/')[2]}" in ARGUED for resource in listed(statement["Resource"])
    )


@pytest.mark.parametrize("name", ["deploy", "deploy-parts", "admin", "smoke"])
def test_no_action_can_be_taken_out_of_a_policy_without_a_case_that_notices(
    name: str,
    called: list[tuple[str, Mapping[str, Any]]],
    administered: list[tuple[str, Mapping[str, Any]]],
    smoked: list[tuple[str, Mapping[str, Any]]],
) -> None:
    if name in ("admin", "smoke"):
        calls = administered if name == "admin" else smoked
        others, asked = [], [one for call in calls for one in of_command(*call)]
    else:
        others = [one for one in deployer() if one is not policies()[name]]
        asked = [*by_cloudformation(), *(one for call in called for one in of_command(*call))]
    unique = {(one.action, one.resource): one for one in asked}.values()
    questions, owners = [], []
    for number, action in actions_of(policies()[name]):
        less = [*others, without(policies()[name], number, action)]
        for one in unique:
            if one.action == action:
                questions.append(Question(less, one))
                owners.append((number, action))
    noticed = {owner for owner, answer in zip(owners, ask(questions), strict=True) if not answer.allowed}
    statements = policies()[name]["Statement"]
    unnoticed = [
        f"{action} of {statements[number]['Sid']}"
        for number, action in actions_of(policies()[name])
        if ((number, action) in noticed) == is_argued(action, statements[number])
    ]
    assert unnoticed == [], "nobody needs it, or it is argued and needed"


def test_each_pattern_of_what_is_not_used_is_of_something_in_the_registry() -> None:
    pairs = {(kind, action) for kind, handlers in registry().items() for found in handlers.values() for action in found}
    assert {unused(*pair) for pair in pairs} - {None} == set(NOT_USED)


def test_who_deploys_may_not_touch_what_is_not_of_the_deployment() -> None:
    arn = f"arn:aws:{{}}:{REGION}:{ACCOUNT}:{{}}"
    role = f"arn:aws:iam::{ACCOUNT}:role/nod-{STAGE}-APIHandlerRole"
    attacks = [
        Authorization("iam:CreateRole", f"arn:aws:iam::{ACCOUNT}:role/admin"),
        Authorization("iam:CreateUser", f"arn:aws:iam::{ACCOUNT}:user/eve"),
        Authorization("iam:AttachRolePolicy", role, {"iam:PolicyARN": "arn:aws:iam::aws:policy/AdministratorAccess"}),
        Authorization(
            "iam:PassRole", f"arn:aws:iam::{ACCOUNT}:role/admin", {"iam:PassedToService": "ec2.amazonaws.com"}
        ),
        Authorization("iam:PassRole", role, {"iam:PassedToService": "glue.amazonaws.com"}),
        Authorization(
            "iam:CreateServiceLinkedRole", f"arn:aws:iam::{ACCOUNT}:role/aws-service-role/spot.amazonaws.com/x"
        ),
        Authorization("ec2:TerminateInstances", arn.format("ec2", "instance/i-0theirs")),
        Authorization(
            "ec2:TerminateInstances", arn.format("ec2", "instance/i-0theirs"), {"aws:ResourceTag/nod:deployment": "dev"}
        ),
        *(
            Authorization("ec2:TerminateInstances", arn.format("ec2", "instance/i-0theirs"), facts)
            for facts in (
                {"ec2:InstanceProfile": PROFILE.replace(STAGE, f"{STAGE}-eu")},
                {"ec2:InstanceProfile": PROFILE.replace("-notebook", "-other")},
                {"ec2:InstanceProfile": PROFILE, "aws:ResourceTag/nod:deployment": "dev"},
                {"ec2:InstanceProfile": PROFILE, "aws:ResourceTag/nod:deployment": ""},
            )
        ),
        Authorization("ec2:StopInstances", arn.format("ec2", f"instance/{UNTAGGED}"), {"ec2:InstanceProfile": PROFILE}),
        Authorization("apigateway:POST", f"arn:aws:apigateway:{REGION}::/apis"),
        Authorization("ec2:DeleteVolume", arn.format("ec2", "volume/vol-0theirs")),
        Authorization("ec2:RunInstances", arn.format("ec2", "instance/i-0new")),
        Authorization("dynamodb:DeleteTable", arn.format("dynamodb", "table/payroll")),
        Authorization("dynamodb:Scan", arn.format("dynamodb", "table/nod-dev-users")),
        Authorization("dynamodb:DeleteTable", f"arn:aws:dynamodb:us-east-1:{ACCOUNT}:table/nod-{STAGE}-users"),
        Authorization("lambda:UpdateFunctionCode", arn.format("lambda", "function:nod-dev-api")),
        Authorization("lambda:InvokeFunction", arn.format("lambda", f"function:nod-{STAGE}-api")),
        Authorization("ssm:SendCommand", arn.format("ssm", f"document/nod-{STAGE}-install-anaconda")),
        Authorization("ssm:GetParameter", arn.format("ssm", f"parameter/nod/{STAGE}/slack/team")),
        Authorization("ssm:GetParametersByPath", arn.format("ssm", "parameter/other")),
        Authorization("s3:GetObject", "arn:aws:s3:::payroll/2026.csv"),
        Authorization("s3:DeleteBucket", f"arn:aws:s3:::nod-{STAGE}-packages-999999999999-{REGION}"),
        Authorization("cloudformation:DeleteStack", arn.format("cloudformation", "stack/nod-dev/1")),
        Authorization("logs:GetLogEvents", arn.format("logs", f"log-group:/aws/lambda/nod-{STAGE}-api:log-stream:x")),
        Authorization("sqs:ReceiveMessage", arn.format("sqs", f"nod-{STAGE}-failed-events")),
        Authorization("sns:Publish", arn.format("sns", f"nod-{STAGE}-messages")),
    ]
    answers = ask([Question(deployer(), one) for one in attacks])
    assert not [answer.error for answer in answers if answer.error]
    allowed = [one for one, answer in zip(attacks, answers, strict=True) if answer.allowed]
    assert allowed == []


def test_who_adds_users_may_not_touch_notebooks_machines_or_other_deployments() -> None:
    arn = f"arn:aws:{{}}:{REGION}:{ACCOUNT}:{{}}"
    attacks = [
        Authorization("dynamodb:UpdateItem", arn.format("dynamodb", f"table/nod-{STAGE}-notebooks")),
        Authorization("dynamodb:UpdateItem", arn.format("dynamodb", f"table/nod-{STAGE}-heartbeats")),
        Authorization("dynamodb:PutItem", arn.format("dynamodb", "table/nod-dev-users")),
        Authorization("dynamodb:PutItem", arn.format("dynamodb", f"table/nod-{STAGE}-eu-users")),
        Authorization("dynamodb:DeleteTable", arn.format("dynamodb", f"table/nod-{STAGE}-users")),
        Authorization("ssm:GetParameter", arn.format("ssm", "parameter/nod/dev/slack/team")),
        Authorization("ssm:PutParameter", arn.format("ssm", "parameter/other")),
        Authorization("ssm:SendCommand", arn.format("ssm", f"document/nod-{STAGE}-set-password")),
        Authorization("sns:Subscribe", arn.format("sns", f"nod-{STAGE}-operators")),
        Authorization("ec2:TerminateInstances", arn.format("ec2", "instance/i-0ours"), TAGGED),
    ]
    answers = ask([Question([policies()["admin"]], one) for one in attacks])
    assert not [answer.error for answer in answers if answer.error]
    assert not [one for one, answer in zip(attacks, answers, strict=True) if answer.allowed]


# --- the command ---


def test_they_fit_into_managed_policies_even_with_the_longest_names() -> None:
    found = permissions.policies(boto3.Session(), "a" * 20, "ap-southeast-1", ACCOUNT)
    sizes = [len(json.dumps(one, separators=(",", ":"))) for one in found.values()]
    assert 0 < max(sizes) <= 6144 == permissions.MOST_CHARACTERS


def test_a_policy_that_iam_would_not_take_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(permissions, "MOST_CHARACTERS", 800)
    with pytest.raises(PackageError, match="IAM takes 800"):
        permissions.policies(boto3.Session(), STAGE, REGION, ACCOUNT)


@pytest.mark.parametrize(
    ("region", "account_id", "words"),
    [
        (REGION, "", "12 digits"),
        (REGION, "12345678901", "12 digits"),
        (REGION, "12345678901x", "12 digits"),
        ("eu-central-9", ACCOUNT, "no such region"),
        ("us-gov-west-1", ACCOUNT, "us-gov-west-1 is not supported"),
        ("cn-north-1", ACCOUNT, "cn-north-1 is not supported"),
    ],
)
def test_a_wrong_account_or_region_is_said(region: str, account_id: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        permissions.policies(boto3.Session(), STAGE, region, account_id)


def test_they_are_of_the_stage_region_and_account_that_are_said() -> None:
    text = json.dumps(permissions.policies(boto3.Session(), STAGE, "us-east-2", ACCOUNT))
    assert "${" not in text and REGION not in text
    assert f"arn:aws:dynamodb:us-east-2:{ACCOUNT}:table/nod-{STAGE}-users" in text


def test_each_is_written_into_a_file_of_its_own(tmp_path: Path) -> None:
    paths = permissions.write(boto3.Session(), STAGE, REGION, ACCOUNT, tmp_path / "policy")
    assert [path.name for path in paths] == [f"nod-{STAGE}-{name}.json" for name in policies()]
    assert [json.loads(path.read_text()) for path in paths] == list(policies().values())
