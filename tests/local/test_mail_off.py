"""A person's mail on the local cloud: ended by the link in a mail, noticed, and switched on so that no link ends it."""

from __future__ import annotations

import io
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import boto3
import pytest

from admin import __main__ as command
from admin.deployment import Deployment
from local.cloud import DEMO_MAIL, Cloud
from tests.local.clouds import client, opened


@pytest.fixture
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    with opened(tmp_path_factory.mktemp("mail")) as found:
        yield found


def visit(address: str) -> int:
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(address) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def user(cloud: Cloud) -> dict[str, Any]:
    key = {"id": {"S": cloud.user_id}}
    return dict(client(cloud, "dynamodb").get_item(TableName="nod-local-users", Key=key)["Item"])


def state(cloud: Cloud) -> str:
    """What the schedule finds."""
    client(cloud, "lambda").invoke(
        FunctionName="nod-local-check_confirmations",
        Payload=b'{"source": "aws.events", "detail-type": "Scheduled Event", "detail": {}, "version": "0", '
        b'"account": "1", "region": "r", "time": "2026-11-22T14:05:00Z", "id": "1", "resources": []}',
    )
    return str(user(cloud)["email_state"]["S"])


def mail(cloud: Cloud, subject: str, number: int = 0) -> Any:
    """The mail of that subject, the first or a later one."""
    cloud.inbox.wait(lambda one: len([m for m in cloud.inbox.messages() if subject in m.subject]) > number, 30)
    return [one for one in cloud.inbox.messages() if subject in one.subject][number]


def news(cloud: Cloud, subject: str) -> Any:
    topic = Deployment("local").topic.arn
    client(cloud, "sns").publish(
        TopicArn=topic,
        Subject=subject,
        Message="news",
        MessageAttributes={
            "owner": {"DataType": "String", "StringValue": cloud.user_id},
            "channels": {"DataType": "String.Array", "StringValue": '["email"]'},
        },
    )
    return mail(cloud, subject)


def test_mail_is_ended_noticed_and_switched_on_for_good(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    session = boto3.Session()
    monkeypatch.setattr(command, "Deployment", lambda stage, **_: Deployment(stage, session))
    asked = mail(cloud, "Subscription Confirmation")
    assert asked.recipients == (DEMO_MAIL,)
    assert state(cloud) == "pending"
    assert visit(asked.links[0]) == 200
    assert state(cloud) == "confirmed"

    assert visit(news(cloud, "first").links[0]) == 200, "as a mail scanner does"
    assert state(cloud) == "unsubscribed"
    assert command.main(["--stage", "local", "user", "list"]) == 0
    assert f"{DEMO_MAIL} (unsubscribed)" in capsys.readouterr().out

    assert visit(mail(cloud, "Unsubscribe Confirmation").links[0]) == 200
    assert state(cloud) == "confirmed", "AWS's last mail has a way back of its own"
    visit(news(cloud, "second").links[0])
    assert state(cloud) == "unsubscribed"

    assert command.main(["--stage", "local", "user", "subscribe", "demo"]) == 0
    assert state(cloud) == "pending"
    link = mail(cloud, "Subscription Confirmation", 1).links[0]
    monkeypatch.setattr("sys.stdin", io.StringIO(link + "\n"))
    assert command.main(["--stage", "local", "user", "confirm", "demo"]) == 0
    assert state(cloud) == "confirmed"
    assert visit(news(cloud, "third").links[0]) == 400, "AWS asks for credentials"
    assert state(cloud) == "confirmed"
    news(cloud, "fourth")
