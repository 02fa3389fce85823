"""Users, tokens and Slack channels, from the command line of who runs a deployment."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    NoRegionError,
    ProfileNotFound,
)

from admin import __main__ as command
from admin import refusals, slack, users
from admin.deployment import Deployment
from chalicelib.errors import AdminError
from tests.unit.stage import STAGE, Stage, stage, user


@pytest.fixture
def deployed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    with stage() as found:
        monkeypatch.setattr(command, "Deployment", lambda _stage, **_: found.admin)
        yield found


def run(*arguments: str) -> int:
    return command.main(["--stage", STAGE, *arguments])


def test_a_user_is_added_and_the_token_opens_the_api(deployed: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("user", "add", "ada", "--email", "ada@example.org", "--types", "t3.medium,t3.large") == 0
    token = capsys.readouterr().out.strip()
    assert deployed.http("GET", "/notebooks", token).status_code == 200
    found = deployed.admin.users.named("ada")
    assert found is not None
    assert (found.email_state, found.allowed_types, found.quota) == ("pending", ("t3.medium", "t3.large"), 3)
    assert token.split(".")[2] not in repr(deployed.dynamodb.scan(TableName=f"nod-{STAGE}-users"))
    attributes = deployed.sns.get_subscription_attributes(SubscriptionArn=found.email_subscription)["Attributes"]
    assert json.loads(attributes["FilterPolicy"]) == {"owner": [found.id], "channels": ["email"]}
    undelivered = json.loads(attributes["RedrivePolicy"])["deadLetterTargetArn"].split(":")
    assert undelivered[2] == "sqs"
    assert undelivered[3:5] == deployed.admin.topic.arn.split(":")[3:5]
    assert undelivered[5] == f"nod-{deployed.admin.stage}-undelivered-messages"


def test_a_new_token_makes_the_old_one_void(deployed: Stage) -> None:
    old = user(deployed)
    new = users.new_token(deployed.admin, "ada")
    assert deployed.http("GET", "/notebooks", old).status_code == 401
    assert deployed.http("GET", "/notebooks", new).status_code == 200


@pytest.mark.parametrize(
    "arguments",
    [
        ("user", "add", "Ada"),
        ("user", "add", "ada", "--email", "nobody"),
        ("user", "add", "ada", "--slack", "nowhere"),
        ("user", "add", "ada", "--quota", "-1"),
        ("user", "add", "ada", "--types", "t3.enormous"),
        ("user", "change", "ada", "--quota", "2"),
        ("user", "token", "ada"),
        ("user", "remove", "ada"),
        ("slack", "remove", "team"),
    ],
)
def test_what_cannot_be_done_is_said_and_changes_nothing(
    deployed: Stage, arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == 1
    said = capsys.readouterr()
    assert said.err.startswith("admin: ")
    assert said.out == ""
    assert list(deployed.admin.users.all()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("user", "list"),
        ("user", "add", "ada"),
        ("user", "change", "ada", "--quota", "2"),
        ("user", "token", "ada"),
        ("user", "remove", "ada"),
        ("slack", "list"),
        ("slack", "add", "team"),
        ("slack", "remove", "team"),
    ],
)
def test_a_wrong_stage_is_said_in_words_and_nothing_is_written(
    deployed: Stage, arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = Deployment("nope", deployed.admin._session)
    monkeypatch.setattr(command, "Deployment", lambda _stage, **_: elsewhere)
    monkeypatch.setattr("sys.stdin", io.StringIO("https://hooks.slack.com/services/x\n"))
    assert command.main(["--stage", "nope", *arguments]) == 1
    said = capsys.readouterr()
    assert said.err.startswith("admin: There is no deployment 'nope' in us-east-1")
    assert "--stage" in said.err
    assert "Exception" not in said.err + said.out
    assert "An error occurred" not in said.err + said.out
    assert deployed.ssm.describe_parameters()["Parameters"] == []


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("ExpiredTokenException", "aws sso login"),
        ("UnrecognizedClientException", "aws sso login"),
        ("AccessDeniedException", "nod-prod-admin"),
        ("ThrottlingException", "AWS refuses this"),
    ],
)
def test_what_aws_refuses_is_said_with_what_to_do(code: str, words: str) -> None:
    error = ClientError({"Error": {"Code": code, "Message": "no."}}, "Scan")
    assert words in refusals.in_words(error, "prod", "eu-central-1")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (NoRegionError(), "give --region"),
        (NoCredentialsError(), "aws sso login"),
        (ProfileNotFound(profile="work"), "AWS_PROFILE"),
        (EndpointConnectionError(endpoint_url="https://dynamodb.eu-cental-1.amazonaws.com/"), "Check --region"),
        (ConnectTimeoutError(endpoint_url="https://dynamodb.eu-central-1.amazonaws.com/"), "the network"),
    ],
)
def test_what_the_sdk_cannot_do_is_said_with_what_to_do(error: BotoCoreError, words: str) -> None:
    assert words in refusals.in_words(error, "prod", "eu-central-1")


def test_a_name_is_taken_once(deployed: Stage) -> None:
    token = user(deployed)
    with pytest.raises(AdminError, match="already"):
        user(deployed)
    assert deployed.http("GET", "/notebooks", token).status_code == 200


def test_an_address_that_sns_refuses_leaves_no_user(deployed: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    from botocore.exceptions import ClientError  # noqa: PLC0415

    def refuse(*_: Any) -> str:
        raise ClientError({"Error": {"Code": "InvalidParameter", "Message": "Subscription exists."}}, "Subscribe")

    monkeypatch.setattr(type(deployed.admin.topic), "subscribe_email", refuse)
    with pytest.raises(AdminError, match="one user only"):
        user(deployed, email="ada@example.org")
    assert deployed.admin.users.named("ada") is None


def test_changes_change_only_what_is_given(deployed: Stage) -> None:
    user(deployed, email="ada@example.org")
    assert run("user", "change", "ada", "--quota", "7", "--types", "t3.small") == 0
    found = deployed.admin.users.named("ada")
    assert found is not None
    assert (found.quota, found.allowed_types, found.email) == (7, ("t3.small",), "ada@example.org")
    assert run("user", "change", "ada", "--email", "") == 0
    found = deployed.admin.users.named("ada")
    assert found is not None
    assert (found.email, found.email_state, found.quota) == (None, None, 7)


def test_a_user_with_notebooks_stays(deployed: Stage) -> None:
    token = user(deployed)
    notebook = deployed.http("POST", "/notebooks", token, {}).json_body
    with pytest.raises(AdminError, match=notebook["id"]):
        users.remove_user(deployed.admin, "ada")
    user(deployed, "bob")
    assert run("user", "remove", "bob") == 0
    assert [found.name for found in users.list_users(deployed.admin)] == ["ada"]


def test_slack_channels_are_registered_on_slacks_host_only(
    deployed: Stage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("https://hooks.slack.com/services/T/B/secret\n"))
    assert run("slack", "add", "team") == 0
    assert run("slack", "list") == 0
    assert capsys.readouterr().out == "team\n"
    for address in (
        "https://hooks.slack.com.evil.example/x",
        "http://hooks.slack.com/x",
        "https://hooks.slack.com/",
        "",
    ):
        with pytest.raises(AdminError) as caught:
            slack.add_channel(deployed.admin, "team", address)
        assert "evil" not in caught.value.detail
    user(deployed, slack="team")
    with pytest.raises(AdminError, match="ada"):
        slack.remove_channel(deployed.admin, "team")
    assert run("user", "change", "ada", "--slack", "") == 0
    assert run("slack", "remove", "team") == 0
    assert deployed.admin.slack.names() == []


def test_the_list_shows_no_secret(deployed: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    token = user(deployed, email="ada@example.org")
    assert run("user", "list") == 0
    line = capsys.readouterr().out
    assert line == "ada\tuser\t0/3\tada@example.org (pending)\t-\n"
    assert token.split(".")[2] not in line
