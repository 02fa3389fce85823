"""Mail that was switched off is noticed: AWS's unsubscribe link, too much mail at once, a confirmation too late."""

from __future__ import annotations

import io
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.exceptions import ClientError

from admin import __main__ as command
from admin.users import confirm_user, subscribe_user
from chalicelib.aws.topic import Subscriptions, Topic
from chalicelib.errors import AdminError, Unavailable
from chalicelib.messages import Message
from chalicelib.model import CONFIRMED, PENDING
from chalicelib.plan import shown_state
from tests.unit.stage import STAGE, Stage, logged, person, stage, user
from tests.unit.test_functions import SCHEDULED
from tests.unit.test_rules import a_user

EMAIL = "ada@example.org"
LINK = "https://sns.us-east-1.amazonaws.com/confirmation.html?TopicArn={}&Token={}&Endpoint=ada@example.org"


@pytest.fixture
def deployed() -> Iterator[Stage]:
    with stage() as found:
        yield found


class World:
    """ada, whose address is confirmed, and her notebook."""

    def __init__(self, deployed: Stage) -> None:
        self.deployed = deployed
        self.token = user(deployed, email=EMAIL)
        self.look()
        assert self.state == "confirmed"
        self.id = str(deployed.http("POST", "/notebooks", self.token, {"name": "thesis"}).json_body["id"])
        deployed.change(self.id, state="ready", address="198.51.100.7", notifications={"email": "sent"})

    def look(self) -> None:
        self.deployed.app.check_confirmations(SCHEDULED, None)

    def end(self) -> None:
        """As AWS's link in a mail does."""
        self.deployed.sns.unsubscribe(SubscriptionArn=person(self.deployed).email_subscription)

    @property
    def state(self) -> str | None:
        return person(self.deployed).email_state

    def told(self) -> str:
        (email,) = self.deployed.http("GET", f"/notebooks/{self.id}", self.token).json_body["notifications"]
        assert email["channel"] == "email"
        return str(email["state"])

    def page(self) -> str:
        link = self.deployed.http("GET", f"/notebooks/{self.id}", self.token).json_body["link"]
        return self.deployed.http("GET", "/n/" + link.partition("/n/")[2] + "&stay=1").body.decode()


@pytest.fixture
def made(deployed: Stage) -> World:
    return World(deployed)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[Message]:
    messages: list[Message] = []
    monkeypatch.setattr(Topic, "publish", lambda _self, message: messages.append(message))
    return messages


def test_a_subscription_that_was_ended_is_noted_and_shown(made: World) -> None:
    assert "Email is off" not in made.page()
    made.end()
    with logged() as lines:
        made.look()
    assert made.state == "unsubscribed"
    assert made.told() == "unsubscribed", "what was sent before is no promise that the next arrives"
    assert "Email is off" in made.page()
    assert EMAIL not in made.page()
    (line,) = (one for one in lines.getvalue().splitlines() if "address gets no mail" in one)
    assert '"user":"ada"' in line
    assert EMAIL not in lines.getvalue()
    made.look()
    assert made.state == "unsubscribed"


def test_a_new_notebook_and_the_next_message_say_so_too(made: World, sent: list[Message]) -> None:
    made.end()
    made.look()
    body = made.deployed.http("POST", "/notebooks", made.token, {"name": "next"}).json_body
    assert body["notifications"] == [{"channel": "email", "state": "unsubscribed"}]
    made.deployed.app.tell_owner({"id": made.id, "run": None, "kind": "ready"}, None)
    assert made.deployed.record(made.id)["notifications"]["M"]["email"]["S"] == "unsubscribed"
    assert made.told() == "unsubscribed"


def test_what_was_missed_is_sent_when_mail_is_on_again(
    made: World, sent: list[Message], monkeypatch: pytest.MonkeyPatch
) -> None:
    made.end()
    made.look()
    made.deployed.app.tell_owner({"id": made.id, "run": None, "kind": "ready"}, None)
    assert person(made.deployed).owed == {made.id}
    del sent[:]
    assert subscribe_user(made.deployed.admin, "ada") == CONFIRMED, "moto confirms at once"
    made.look()
    assert (made.state, person(made.deployed).owed) == ("confirmed", frozenset())
    assert [message.kind for message in sent] == ["ready"]
    assert (made.told(), "Email is off" in made.page()) == ("sent", False)


def test_the_link_in_awss_last_mail_switches_it_on_again(made: World, monkeypatch: pytest.MonkeyPatch) -> None:
    arn = str(person(made.deployed).email_subscription)
    with monkeypatch.context() as patched:
        patched.setattr(Topic, "subscriptions", lambda _: Subscriptions(frozenset(), frozenset({EMAIL})))
        made.look()
        assert made.state == "unsubscribed", "what the list calls ended is so, though its attributes are still there"
    made.look()
    assert made.state == "confirmed"
    assert arn == person(made.deployed).email_subscription
    assert made.told() == "sent"


def test_one_that_is_restored_without_its_filter_gets_nobodys_mail(
    made: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(Topic, "subscriptions", lambda _: Subscriptions(frozenset(), frozenset({EMAIL})))
        made.look()
    arn = person(made.deployed).email_subscription
    policy = '{"owner": ["us-00000000000000000000"], "channels": ["email"]}'
    made.deployed.sns.set_subscription_attributes(
        SubscriptionArn=arn, AttributeName="FilterPolicy", AttributeValue=policy
    )
    with logged() as lines:
        made.look()
    assert made.state == "unsubscribed"
    assert "subscription without its filter" in lines.getvalue()


def test_one_that_aws_switched_off_for_too_much_mail_is_pending_again_and_off(
    made: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Topic, "subscriptions", lambda _: Subscriptions(frozenset(), frozenset()))
    monkeypatch.setattr(Topic, "state", lambda *_: PENDING)
    made.look()
    assert made.state == "unsubscribed"


def test_a_list_that_lags_behind_a_confirmation_switches_nothing_off(
    made: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Topic, "subscriptions", lambda _: Subscriptions(frozenset(), frozenset()))
    made.look()
    assert made.state == "confirmed"


def test_a_list_that_cannot_be_read_switches_nothing_off_and_comes_out(
    made: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Topic) -> Subscriptions:
        raise ClientError({"Error": {"Code": "Throttled"}}, "ListSubscriptionsByTopic")

    monkeypatch.setattr(Topic, "subscriptions", refuse)
    made.end()
    with pytest.raises((ClientError, Unavailable, ExceptionGroup)):
        made.look()
    assert made.state == "confirmed"


def test_an_address_that_nobody_confirmed_in_time_is_off(deployed: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    token = user(deployed, email=EMAIL)
    with monkeypatch.context() as patched:
        patched.setattr(Topic, "is_confirmed", lambda *_: False)
        deployed.app.check_confirmations(SCHEDULED, None)
        assert person(deployed).email_state == "pending"
        deployed.sns.unsubscribe(SubscriptionArn=person(deployed).email_subscription)
        deployed.app.check_confirmations(SCHEDULED, None)
    assert person(deployed).email_state == "expired"
    body = deployed.http("POST", "/notebooks", token, {}).json_body
    assert body["notifications"] == [{"channel": "email", "state": "unsubscribed"}]
    subscribe_user(deployed.admin, "ada")
    deployed.app.check_confirmations(SCHEDULED, None)
    assert person(deployed).email_state == "confirmed"


def test_a_new_address_is_not_judged_by_the_old_one(made: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The address is changed between the schedule's read and its write."""
    made.end()
    state = Topic.state

    def late(self: Topic, arn: str) -> str | None:
        found = state(self, arn)
        made.deployed.admin.users.update(
            person(made.deployed).id, {"email_subscription": "arn:other", "email_state": "pending"}
        )
        return found

    monkeypatch.setattr(Topic, "state", late)
    made.look()
    assert made.state == "pending"


def test_the_list_is_read_to_its_end_in_one_call_for_a_hundred(deployed: Stage) -> None:
    for number in range(101):
        deployed.sns.subscribe(TopicArn=deployed.admin.topic.arn, Protocol="email", Endpoint=f"u{number}@example.org")
    assert len(deployed.admin.topic.subscriptions().arns) == 101


@pytest.mark.parametrize(
    ("noted", "owner", "shown"),
    [
        ("sent", "confirmed", "sent"),
        ("sent", "unsubscribed", "unsubscribed"),
        ("failed", "expired", "unsubscribed"),
        ("unconfirmed", "pending", "unconfirmed"),
        ("unsubscribed", "confirmed", "pending"),
        ("unsubscribed", "pending", "unconfirmed"),
    ],
)
def test_what_is_shown_of_email(noted: str, owner: str, shown: str) -> None:
    assert shown_state("email", noted, a_user(email_state=owner)) == shown
    assert shown_state("email", noted, None) == noted
    assert shown_state("slack:team", noted, a_user(email_state=owner)) == noted


class TestAdmin:
    @pytest.fixture(autouse=True)
    def here(self, deployed: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(command, "Deployment", lambda _stage, **_: deployed.admin)

    def run(self, *arguments: str) -> int:
        return command.main(["--stage", STAGE, "user", *arguments])

    def test_list_and_show_say_that_mail_is_off(self, made: World, capsys: pytest.CaptureFixture[str]) -> None:
        made.end()
        made.look()
        capsys.readouterr()
        assert (self.run("list"), self.run("show", "ada")) == (0, 0)
        assert capsys.readouterr().out.count(f"{EMAIL} (unsubscribed)") == 2

    def test_subscribe_leaves_one_that_gets_mail_as_it_is(self, made: World, monkeypatch: pytest.MonkeyPatch) -> None:
        def never(*_: Any) -> str:
            raise AssertionError

        monkeypatch.setattr(Topic, "subscribe_email", never)
        assert self.run("subscribe", "ada") == 0
        assert made.state == "confirmed"

    def test_subscribe_asks_the_address_again(self, made: World, monkeypatch: pytest.MonkeyPatch) -> None:
        made.end()
        made.look()
        monkeypatch.setattr(Topic, "is_confirmed", lambda *_: False)
        before = person(made.deployed).email_subscription
        assert self.run("subscribe", "ada") == 0
        assert made.state == "pending"
        assert person(made.deployed).email_subscription != before

    @pytest.mark.parametrize("whole", [True, False])
    def test_confirm_hands_the_token_to_aws_so_that_no_mail_ends_it(
        self, deployed: Stage, monkeypatch: pytest.MonkeyPatch, *, whole: bool
    ) -> None:
        user(deployed, email=EMAIL)
        token, called = "2336412f37fb687f5d51e6e2425e90cd" * 6, []
        topic = deployed.admin.topic

        def confirm(**arguments: str) -> dict[str, str]:
            called.append(arguments)
            return {"SubscriptionArn": str(person(deployed).email_subscription)}

        monkeypatch.setattr(topic._client, "confirm_subscription", confirm)
        monkeypatch.setattr("sys.stdin", io.StringIO(f"{LINK.format(topic.arn, token) if whole else token}\n"))
        assert self.run("confirm", "ada") == 0
        assert called == [{"TopicArn": topic.arn, "Token": token, "AuthenticateOnUnsubscribe": "true"}]
        assert person(deployed).email_state == "confirmed"

    @pytest.mark.parametrize(
        ("link", "words"),
        [
            ("", "no token"),
            ("https://example.org/", "no token"),
            ("Token=x", "no token"),
            (LINK.format("arn:aws:sns:us-east-1:1:other", "a" * 64), "for the topic"),
            ("b" * 64, "another address"),
        ],
    )
    def test_what_confirms_nothing_is_said(self, deployed: Stage, link: str, words: str) -> None:
        user(deployed, email=EMAIL)
        with pytest.raises(AdminError, match=words):
            confirm_user(deployed.admin, "ada", link)
        assert person(deployed).email_state == "pending"

    def test_a_token_that_is_too_old_is_said(self, deployed: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
        user(deployed, email=EMAIL)
        monkeypatch.setattr(Topic, "confirm", lambda *_: None)
        with pytest.raises(AdminError, match=r"two days.*user subscribe ada"):
            confirm_user(deployed.admin, "ada", "b" * 64)

    @pytest.mark.parametrize("act", [subscribe_user, lambda admin, name: confirm_user(admin, name, "b" * 64)])
    def test_who_has_no_address_is_told_how_to_get_one(self, deployed: Stage, act: Any) -> None:
        user(deployed)
        with pytest.raises(AdminError, match="--email"):
            act(deployed.admin, "ada")


def test_a_confirmation_is_told_once(made: World) -> None:
    assert list(made.deployed.app.messages().check_confirmations(datetime.now(UTC))) == []
