"""The stack: created, updated, left as it is, and what is said when CloudFormation fails. And the packages' bucket."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from deploy import deployment
from deploy.account import Identity
from deploy.bucket import PackageBucket
from deploy.errors import AccountError, StackError
from deploy.inputs import Wishes
from deploy.stack import Stack
from tests.aws.fake_aws import ACCOUNT, REGION, Answer, FakeAws, account, in_turn, refusal

WHEN = datetime(2026, 1, 1, tzinfo=UTC)
BUCKET = f"nod-prod-packages-{ACCOUNT}-{REGION}"
GONE = refusal("ValidationError", "Stack with id nod-prod does not exist")
URL = "https://abc.execute-api.eu-central-1.amazonaws.com/api/"


def described(status: str) -> dict[str, Any]:
    return {
        "Stacks": [
            {
                "StackId": "arn:stack/1",
                "StackName": "nod-prod",
                "CreationTime": WHEN,
                "StackStatus": status,
                "Outputs": [{"OutputKey": "EndpointURL", "OutputValue": URL}],
            }
        ]
    }


def event(number: int, logical: str, status: str, reason: str | None = None) -> dict[str, Any]:
    return {
        "StackId": "arn:stack/1",
        "StackName": "nod-prod",
        "EventId": str(number),
        "Timestamp": WHEN,
        "LogicalResourceId": logical,
        "ResourceType": "AWS::SNS::Topic",
        "ResourceStatus": status,
        **({"ResourceStatusReason": reason} if reason else {}),
    }


def events(*listed: dict[str, Any]) -> dict[str, Any]:
    """As CloudFormation lists them: the newest first."""
    return {"StackEvents": list(reversed(listed))}


def cloud(**changed: Answer) -> dict[str, Answer]:
    usual: dict[str, Answer] = {
        "cloudformation:DescribeStacks": in_turn(GONE, described("CREATE_IN_PROGRESS"), described("CREATE_COMPLETE")),
        "cloudformation:CreateChangeSet": {"Id": "arn:changes"},
        "cloudformation:DescribeChangeSet": in_turn({"Status": "CREATE_IN_PROGRESS"}, {"Status": "CREATE_COMPLETE"}),
        "cloudformation:ExecuteChangeSet": {},
        "cloudformation:DescribeStackEvents": in_turn(
            GONE,
            events(event(1, "MessagesTopic", "CREATE_IN_PROGRESS")),
            events(event(1, "MessagesTopic", "CREATE_IN_PROGRESS"), event(2, "MessagesTopic", "CREATE_COMPLETE")),
        ),
    }
    return usual | {name.replace("__", ":"): answer for name, answer in changed.items()}


class Told:
    """A stack, with what it told and how long it waited."""

    def __init__(self, answers: dict[str, Answer]) -> None:
        self.aws = FakeAws(answers)
        self.lines: list[str] = []
        self.waited: list[float] = []
        self.stack = Stack(
            self.aws.client("cloudformation", region_name=REGION),
            "prod",
            sleep=self.waited.append,
            say=self.lines.append,
        )


def test_a_new_stack_is_created_by_a_change_set_and_each_event_is_told_once() -> None:
    told = Told(cloud())
    assert told.stack.deploy("https://template", {"VpcId": "vpc-1", "KeyName": None}) == {"EndpointURL": URL}
    (asked,) = told.aws.called("cloudformation:CreateChangeSet")
    assert asked["ChangeSetType"] == "CREATE" and asked["TemplateURL"] == "https://template"
    assert asked["Parameters"] == [
        {"ParameterKey": "KeyName", "UsePreviousValue": True},
        {"ParameterKey": "VpcId", "ParameterValue": "vpc-1"},
    ]
    assert [" ".join(line.split()[1:]) for line in told.lines] == [
        "create in progress MessagesTopic",
        "create complete MessagesTopic",
    ]
    assert told.waited == [2, 5]


def test_a_stack_that_is_there_is_updated_and_old_events_are_not_told() -> None:
    old = event(1, "MessagesTopic", "CREATE_COMPLETE")
    told = Told(
        cloud(
            cloudformation__DescribeStacks=described("UPDATE_COMPLETE"),
            cloudformation__DescribeStackEvents=in_turn(
                events(old), events(old, event(2, "UsersTable", "UPDATE_COMPLETE"))
            ),
        )
    )
    told.stack.deploy("https://template", {})
    assert told.aws.called("cloudformation:CreateChangeSet")[0]["ChangeSetType"] == "UPDATE"
    assert [line.split()[-1] for line in told.lines] == ["UsersTable"]


@pytest.mark.parametrize(
    "reason",
    [
        "The submitted information didn't contain changes. Submit different information.",
        "No updates are to be performed.",
    ],
)
def test_no_change_is_success_and_leaves_no_change_set(reason: str) -> None:
    told = Told(
        cloud(
            cloudformation__DescribeStacks=described("CREATE_COMPLETE"),
            cloudformation__DescribeChangeSet={"Status": "FAILED", "StatusReason": reason},
            cloudformation__DeleteChangeSet={},
        )
    )
    assert told.stack.deploy("https://template", {}) is None
    assert told.aws.changes() == ["cloudformation:CreateChangeSet", "cloudformation:DeleteChangeSet"]


def test_a_template_that_is_not_taken_is_said_with_the_reason() -> None:
    told = Told(
        cloud(
            cloudformation__DescribeChangeSet={
                "Status": "FAILED",
                "StatusReason": "Transform failed: [Sweep] is invalid",
            },
            cloudformation__DeleteChangeSet={},
        )
    )
    with pytest.raises(StackError, match=r"Transform failed: \[Sweep\] is invalid"):
        told.stack.deploy("https://template", {})
    assert "cloudformation:ExecuteChangeSet" not in told.aws.changes()


def test_what_failed_first_is_named_and_what_was_called_off_is_not() -> None:
    told = Told(
        cloud(
            cloudformation__DescribeStacks=in_turn(
                GONE, described("ROLLBACK_IN_PROGRESS"), described("ROLLBACK_COMPLETE")
            ),
            cloudformation__DescribeStackEvents=in_turn(
                GONE,
                events(
                    event(1, "FailedEvents", "CREATE_FAILED", "Queue exists"),
                    event(2, "MessagesTopic", "CREATE_FAILED", "Resource creation cancelled"),
                    event(3, "nod-prod", "ROLLBACK_COMPLETE"),
                ),
            ),
        )
    )
    with pytest.raises(StackError) as caught:
        told.stack.deploy("https://template", {})
    assert "FailedEvents (AWS::SNS::Topic): Queue exists" in str(caught.value)
    assert "MessagesTopic" not in str(caught.value)
    # With its region: where the AWS configuration says another one, nothing would be found, and that said.
    assert f"make destroy STAGE=prod REGION={REGION}" in str(caught.value)
    assert any("create failed" in line and line.endswith("FailedEvents: Queue exists") for line in told.lines)


def test_an_update_that_was_rolled_back_says_that_all_is_as_before() -> None:
    told = Told(
        cloud(
            cloudformation__DescribeStacks=in_turn(described("CREATE_COMPLETE"), described("UPDATE_ROLLBACK_COMPLETE")),
            cloudformation__DescribeStackEvents=in_turn(
                events(), events(event(1, "UsersTable", "UPDATE_FAILED", "Subscriber limit"))
            ),
        )
    )
    with pytest.raises(StackError, match=r"UsersTable.*Subscriber limit\s.*as it was before"):
        told.stack.deploy("https://template", {})


def test_a_stack_that_hangs_is_not_waited_for_for_ever() -> None:
    told = Told(cloud(cloudformation__DescribeStacks=in_turn(GONE, described("CREATE_IN_PROGRESS"))))
    with pytest.raises(StackError, match="more than an hour"):
        told.stack.deploy("https://template", {})
    assert 3600 <= sum(told.waited) < 3700


def test_a_stack_that_a_change_set_only_announced_is_created_anew_and_deleted_with_the_rest() -> None:
    told = Told(
        cloud(cloudformation__DescribeStacks=in_turn(described("REVIEW_IN_PROGRESS"), described("CREATE_COMPLETE")))
    )
    told.stack.deploy("https://template", {})
    assert told.aws.called("cloudformation:CreateChangeSet")[0]["ChangeSetType"] == "CREATE"
    told = Told(
        cloud(
            cloudformation__DescribeStacks=in_turn(described("REVIEW_IN_PROGRESS"), described("DELETE_COMPLETE")),
            cloudformation__DeleteStack={},
        )
    )
    told.stack.delete()
    assert told.aws.changes() == ["cloudformation:DeleteStack"]


# --- the bucket ---

MISSING = refusal("404", status=404)


def store(objects: dict[str, bytes], **changed: Answer) -> dict[str, Answer]:
    """S3 with one bucket."""

    def put(asked: dict[str, Any]) -> dict[str, Any]:
        objects[asked["Key"]] = asked["Body"]
        return {}

    def delete(asked: dict[str, Any]) -> dict[str, Any]:
        for one in asked["Delete"]["Objects"]:
            objects.pop(one["Key"], None)
        return {}

    answers: dict[str, Answer] = {
        "s3:HeadBucket": in_turn(MISSING, {}),
        "s3:HeadObject": lambda asked: {} if asked["Key"] in objects else MISSING,
        "s3:PutObject": put,
        "s3:DeleteObjects": delete,
        "s3:ListObjectsV2": lambda _: {"Contents": [{"Key": key} for key in sorted(objects)]},
        "s3:ListObjectVersions": lambda _: {"Versions": [{"Key": key, "VersionId": "null"} for key in sorted(objects)]},
    }
    for name in (
        "CreateBucket",
        "PutPublicAccessBlock",
        "PutBucketOwnershipControls",
        "PutBucketEncryption",
        "PutBucketPolicy",
        "PutBucketLifecycleConfiguration",
        "PutBucketTagging",
        "DeleteBucket",
    ):
        answers[f"s3:{name}"] = {}
    return answers | {name.replace("__", ":"): answer for name, answer in changed.items()}


def bucket(aws: FakeAws, region: str = REGION) -> PackageBucket:
    identity = Identity(ACCOUNT, f"arn:aws:iam::{ACCOUNT}:user/ada", region, "aws")
    return PackageBucket(aws.client("s3", region_name=region), "prod", identity)


def test_the_bucket_is_closed_encrypted_and_answers_over_tls_only() -> None:
    aws = FakeAws(store({}))
    bucket(aws).ensure()
    (made,) = aws.called("s3:CreateBucket")
    assert made == {"Bucket": BUCKET, "CreateBucketConfiguration": {"LocationConstraint": REGION}}
    (block,) = aws.called("s3:PutPublicAccessBlock")
    assert set(block["PublicAccessBlockConfiguration"].values()) == {True}
    assert len(block["PublicAccessBlockConfiguration"]) == 4
    (policy,) = aws.called("s3:PutBucketPolicy")
    (statement,) = json.loads(policy["Policy"])["Statement"]
    assert statement["Effect"] == "Deny" and statement["Principal"] == "*" and statement["Action"] == "s3:*"
    assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    assert statement["Resource"] == [f"arn:aws:s3:::{BUCKET}", f"arn:aws:s3:::{BUCKET}/*"]
    assert aws.called("s3:PutBucketEncryption")
    # The first that may hold anything comes after all that closes it.
    assert not aws.called("s3:PutObject")


def test_every_call_to_a_bucket_names_its_owner() -> None:
    aws = FakeAws(store({}))
    ours = bucket(aws)
    ours.ensure()
    ours.upload(b"code", ".zip")
    ours.keep([])
    ours.remove()
    for name, asked in aws.calls:
        assert name == "s3:CreateBucket" or asked["ExpectedBucketOwner"] == ACCOUNT, name


def test_the_oldest_region_takes_no_location() -> None:
    aws = FakeAws(store({}))
    bucket(aws, "us-east-1").ensure()
    assert "CreateBucketConfiguration" not in aws.called("s3:CreateBucket")[0]


def test_a_bucket_that_is_there_is_closed_again_and_not_made() -> None:
    aws = FakeAws(store({}, s3__HeadBucket={}))
    bucket(aws).ensure()
    assert not aws.called("s3:CreateBucket")
    assert aws.called("s3:PutPublicAccessBlock") and aws.called("s3:PutBucketPolicy")


def test_a_bucket_of_somebody_else_is_not_used() -> None:
    aws = FakeAws(store({}, s3__HeadBucket=refusal("403", status=403)))
    with pytest.raises(AccountError, match="may not be used"):
        bucket(aws).ensure()
    assert aws.changes() == []


def test_the_same_content_is_sent_once() -> None:
    aws, objects = FakeAws(), {}
    aws.answers = store(objects)
    ours = bucket(aws)
    assert ours.upload(b"code", ".zip") == ours.upload(b"code", ".zip") != ours.upload(b"more", ".zip")
    assert len(aws.called("s3:PutObject")) == 2 == len(objects)


def test_a_name_of_a_bucket_fits_even_the_longest_stage_and_region() -> None:
    identity = Identity(ACCOUNT, "arn:aws:iam::1:user/ada", "ap-southeast-7", "aws")
    assert len(PackageBucket(None, "a" * 20, identity).name) <= 63


# --- all of it ---


def role(name: str) -> dict[str, Any]:
    return {
        "Role": {
            "Path": "/aws-service-role/",
            "RoleName": name,
            "RoleId": "AROAEXAMPLEEXAMPLE00",
            "Arn": f"arn:aws:iam::{ACCOUNT}:role/{name}",
            "CreateDate": WHEN,
        }
    }


def fleet_role(asked: dict[str, Any]) -> Any:
    """The account has this one, and no other."""
    return role(asked["RoleName"]) if asked["RoleName"] == deployment.FLEET_ROLE else refusal("NoSuchEntity")


FLEET: dict[str, Answer] = {"iam:GetRole": fleet_role}


@pytest.fixture
def packaged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A small package in place of the app's."""
    template = {
        "Parameters": {"VpcId": {}, "SubnetIds": {}, "GatewayLogs": {}},
        "Resources": {
            "One": {"Type": "AWS::Serverless::Function", "Properties": {"CodeUri": "./deployment.zip"}},
            "Two": {"Type": "AWS::Serverless::Function", "Properties": {"CodeUri": "./deployment.zip"}},
            "Flow": {"Type": "AWS::Serverless::StateMachine", "Properties": {"DefinitionUri": "./flow.json"}},
        },
    }
    (tmp_path / "deployment.zip").write_bytes(b"zip")
    (tmp_path / "flow.json").write_bytes(b"{}")
    (tmp_path / "template.json").write_text(json.dumps(template))
    monkeypatch.setattr(deployment, "package", lambda *_: tmp_path / "template.json")
    return tmp_path


def test_a_deployment_uploads_by_hash_and_tells_the_address_and_what_comes_next(packaged: Path) -> None:
    objects: dict[str, bytes] = {"old.zip": b""}
    stacks = in_turn(GONE, GONE, described("CREATE_COMPLETE"))
    aws = FakeAws(account() | FLEET | cloud(cloudformation__DescribeStacks=stacks) | store(objects))
    lines: list[str] = []
    asked = Wishes("prod", ("198.51.100.0/24",), None, {"OperatorsEmail": "ops@example.org"})
    deployment.deploy(aws, "", asked, packaged, sleep=lambda _: None, say=lines.append)
    # Code once, definition, template; the one of an earlier deployment is gone.
    assert sorted(key.rsplit(".")[1] for key in objects) == ["json", "json", "zip"]
    (change,) = aws.called("cloudformation:CreateChangeSet")
    key = change["TemplateURL"].rsplit("/", 1)[1]
    assert change["TemplateURL"] == f"https://{BUCKET}.s3.{REGION}.amazonaws.com/{key}"
    resources = json.loads(objects[key])["Resources"]
    places = {
        name: one["Properties"].get("CodeUri") or one["Properties"]["DefinitionUri"] for name, one in resources.items()
    }
    assert {place["Bucket"] for place in places.values()} == {BUCKET}
    assert objects[places["One"]["Key"]] == b"zip" and places["One"] == places["Two"]
    assert objects[places["Flow"]["Key"]] == b"{}"
    # A parameter that this template has not is not sent.
    assert {one["ParameterKey"] for one in change["Parameters"]} == {"VpcId", "SubnetIds", "GatewayLogs"}
    assert URL.rstrip("/") in lines[-1] and f"admin --stage prod --region {REGION} user add" in lines[-1]


def first(packaged: Path, made: Answer) -> tuple[FakeAws, list[str]]:
    """A first deployment into an account that never had a fleet, and all that was told; also if it is refused."""
    aws = FakeAws(
        account()
        | {"iam:GetRole": refusal("NoSuchEntity"), "iam:CreateServiceLinkedRole": made}
        | cloud(cloudformation__DescribeStacks=in_turn(GONE, GONE, described("CREATE_COMPLETE")))
        | store({})
    )
    lines: list[str] = []
    asked = Wishes("prod", ("198.51.100.0/24",), None, {})
    try:
        deployment.deploy(aws, "", asked, packaged, sleep=lambda _: None, say=lines.append)
    except AccountError as error:
        lines.append(str(error))
    return aws, lines


def test_an_account_that_never_had_a_fleet_gets_the_role_that_fleets_need_before_all_else(packaged: Path) -> None:
    aws, lines = first(packaged, role(deployment.FLEET_ROLE))
    assert aws.called("iam:CreateServiceLinkedRole") == [{"AWSServiceName": "ec2fleet.amazonaws.com"}]
    assert aws.changes()[:2] == ["iam:CreateServiceLinkedRole", "s3:CreateBucket"]
    assert [line for line in lines if deployment.FLEET_ROLE in line] == [
        f"The account has no role {deployment.FLEET_ROLE} yet, which EC2 Fleet needs in every account: it will be "
        "made.",
        f"Made the role {deployment.FLEET_ROLE}.",
    ]


def test_who_may_not_make_that_role_is_told_who_can_and_nothing_is_made(packaged: Path) -> None:
    aws, lines = first(packaged, refusal("AccessDenied", "not authorized to perform: iam:CreateServiceLinkedRole"))
    assert aws.changes() == ["iam:CreateServiceLinkedRole"]
    assert f"make policy STAGE=prod REGION={REGION} ACCOUNT={ACCOUNT}" in lines[-1]
    assert lines[-1].endswith("aws iam create-service-linked-role --aws-service-name ec2fleet.amazonaws.com")


def test_another_refusal_of_iam_is_not_taken_for_it(packaged: Path) -> None:
    with pytest.raises(ClientError, match="ServiceFailure"):
        first(packaged, refusal("ServiceFailure"))


def test_an_account_that_has_the_role_keeps_it(packaged: Path) -> None:
    stacks = in_turn(GONE, GONE, described("CREATE_COMPLETE"))
    aws, lines = FakeAws(account() | FLEET | cloud(cloudformation__DescribeStacks=stacks) | store({})), list[str]()
    asked = Wishes("prod", ("198.51.100.0/24",), None, {})
    deployment.deploy(aws, "", asked, packaged, sleep=lambda _: None, say=lines.append)
    assert aws.changes()[0] == "s3:CreateBucket"
    assert not any(deployment.FLEET_ROLE in line for line in lines)


def test_a_deployment_that_failed_keeps_the_last_ones_package(packaged: Path) -> None:
    objects: dict[str, bytes] = {"old.zip": b""}
    aws = FakeAws(
        account()
        | FLEET
        | cloud(
            cloudformation__DescribeStacks=in_turn(GONE, GONE, described("ROLLBACK_COMPLETE")),
            cloudformation__DescribeStackEvents=in_turn(GONE, events(event(1, "One", "CREATE_FAILED", "no"))),
        )
        | store(objects)
    )
    asked = Wishes("prod", ("198.51.100.0/24",), None, {})
    with pytest.raises(StackError):
        deployment.deploy(aws, "", asked, packaged, sleep=lambda _: None, say=lambda _: None)
    assert "old.zip" in objects
