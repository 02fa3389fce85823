"""A user is who their id says: whoever is added under the name of one who was removed sees nothing of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from admin import __main__ as command
from admin import users
from admin.users import add_user, change_user, new_token, remove_user
from chalicelib import times
from chalicelib.aws.topic import Topic
from chalicelib.aws.users import UsersTable
from chalicelib.errors import AdminError
from chalicelib.messages import Message
from chalicelib.model import Notebook, User
from tests.unit.stage import ENV, STAGE, Stage, person, stage, user
from tests.unit.sweep_world import MINUTE, World, world

INSTANCE = "i-0123456789abcdef0"
KEY = {"Idempotency_Key": "the-same"}
EMAIL = "ada@example.org"
ID = r"us-[0-9a-f]{20}"


@pytest.fixture
def deployed() -> Iterator[Stage]:
    with stage() as found:
        yield found


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[Message]:
    """What is published, and still goes to the topic."""
    messages: list[Message] = []
    publish = Topic.publish

    def keep(self: Topic, message: Message) -> None:
        messages.append(message)
        publish(self, message)

    monkeypatch.setattr(Topic, "publish", keep)
    return messages


class Before:
    """The earlier ada: her token, her last notebook, and what leads to it."""

    def __init__(self, deployed: Stage, state: str) -> None:
        self.token = user(deployed, email=EMAIL)
        self.row = person(deployed)
        self.notebook = deployed.http("POST", "/notebooks", self.token, {"name": "hers"}, **KEY).json_body
        self.id = str(self.notebook["id"])
        deployed.change(self.id, state="stopped", instance_id=INSTANCE)
        seen = deployed.http("GET", f"/notebooks/{self.id}", self.token).json_body
        self.link = "/n/" + seen["link"].partition("/n/")[2]
        html = deployed.http("GET", self.link).body.decode()
        self.forms = dict(re.findall(r'action="([^"]+)".*?name="f" value="([^"]+)"', html, re.DOTALL))
        assert self.forms
        deployed.change(self.id, state=state)
        drop(deployed, self.row)
        remove_user(deployed.admin, "ada")


def drop(deployed: Stage, row: User) -> None:
    """Takes all notebooks off the row, as the workflows do when they end."""
    deployed.dynamodb.update_item(
        TableName=ENV["NOD_USERS_TABLE"], Key={"id": {"S": row.id}}, UpdateExpression="REMOVE active, owned, untold"
    )


def rows(deployed: Stage) -> dict[str, dict[str, Any]]:
    return {item["id"]["S"]: item for item in deployed.dynamodb.scan(TableName=ENV["NOD_USERS_TABLE"])["Items"]}


class TestTheSameNameAgain:
    @pytest.mark.parametrize("state", ["ready", "stopped", "failed", "terminated"])
    def test_they_see_nothing_of_the_earlier_one(self, deployed: Stage, state: str) -> None:
        before = Before(deployed, state)
        now = user(deployed, email=EMAIL)
        assert person(deployed).id != before.row.id
        assert deployed.http("GET", "/notebooks", now).json_body == {"notebooks": [], "next": None}
        for method, path, body in (
            ("GET", "", None),
            ("GET", "/events", None),
            ("POST", "/stop", {}),
            ("POST", "/start", {}),
            ("POST", "/extend", {"hours": 1}),
            ("POST", "/password", {}),
            ("POST", "/link", {}),
            ("DELETE", "?confirm=hers", None),
        ):
            answer = deployed.http(method, f"/notebooks/{before.id}{path}", now, body)
            assert (answer.status_code, answer.json_body["code"]) == (404, "not_found"), path
        assert deployed.record(before.id)["state"]["S"] == state
        row = person(deployed)
        assert (row.active, row.owned, row.untold, row.owed) == (frozenset(),) * 4

    def test_the_token_of_the_earlier_one_opens_nothing(self, deployed: Stage) -> None:
        before = Before(deployed, "stopped")
        now = user(deployed)
        for token in (before.token, re.sub(ID, person(deployed).id, before.token), re.sub(ID, before.row.id, now)):
            assert deployed.http("GET", "/notebooks", token).status_code == 401
        assert re.fullmatch(rf"nod\.{ID}\.[A-Za-z0-9_-]{{43}}", now)
        assert deployed.http("GET", "/notebooks", now).status_code == 200

    def test_the_idempotency_key_of_the_earlier_one_is_free(self, deployed: Stage) -> None:
        before = Before(deployed, "terminated")
        answer = deployed.http("POST", "/notebooks", user(deployed), {"name": "new"}, **KEY)
        assert (answer.status_code, answer.json_body["name"]) == (202, "new")
        assert answer.json_body["id"] != before.id
        assert deployed.record(before.id)["owner"]["S"] == before.row.id

    def test_the_links_of_the_earlier_one_are_dead(self, deployed: Stage) -> None:
        before = Before(deployed, "stopped")
        user(deployed)
        assert deployed.http("GET", before.link).status_code == 404
        for target, form in before.forms.items():
            answer = deployed.http(
                "POST", target, None, f"f={form}".encode(), Content_Type="application/x-www-form-urlencoded"
            )
            assert answer.status_code == 403
        assert deployed.record(before.id)["state"]["S"] == "stopped"

    def test_their_mail_is_filtered_by_the_id_and_the_earlier_ones_message_is_not_theirs(
        self, deployed: Stage, sent: list[Message]
    ) -> None:
        before = Before(deployed, "ready")
        user(deployed, email=EMAIL)
        row = person(deployed)
        subscriptions = deployed.sns.list_subscriptions()["Subscriptions"]
        (policy,) = (
            json.loads(
                deployed.sns.get_subscription_attributes(SubscriptionArn=one["SubscriptionArn"])["Attributes"][
                    "FilterPolicy"
                ]
            )
            for one in subscriptions
        )
        assert policy["owner"] == [row.id]
        deployed.app.tell_owner({"id": before.id, "run": "x", "kind": "ready"}, None)
        assert [message.owner_id for message in sent] == [before.row.id]
        assert "k=" not in sent[0].text, "there is no link without the owner's secret"
        assert row == person(deployed), "nothing is owed to them, and nothing is untold"

    def test_what_the_earlier_ones_workflow_still_writes_is_not_counted_for_them(self, deployed: Stage) -> None:
        """A stop that ends late: it frees the quota of the row that its input names, which is gone."""
        before = Before(deployed, "stopping")
        now = user(deployed, quota=1)
        mine = deployed.http("POST", "/notebooks", now, {}).json_body["id"]
        notebook = deployed.app.notebooks().get(before.id)
        assert notebook.owner == before.row.id
        assert not deployed.app.users().mark(notebook.owner, "untold", before.id)
        assert person(deployed).active == {mine}

    def test_a_start_of_the_earlier_ones_notebook_finds_no_quota(self, deployed: Stage) -> None:
        from chalicelib.aws.transitions import NotMoved  # noqa: PLC0415
        from chalicelib.notebook import moves  # noqa: PLC0415
        from chalicelib.times import from_text  # noqa: PLC0415

        before = Before(deployed, "stopped")
        user(deployed)
        now = from_text("2026-11-22T12:00:00.000Z")
        notebooks = deployed.app.notebooks()
        start = moves.start(notebooks.get(before.id), "ada", "started", now, now)
        assert notebooks.move(start) is NotMoved.QUOTA
        assert person(deployed).active == frozenset()


class TestEveryRecordNamesTheId:
    def test_record_plan_tags_and_inputs(self, deployed: Stage) -> None:
        token = user(deployed, email=EMAIL)
        ada = person(deployed)
        assert re.fullmatch(ID, ada.id)
        notebook = deployed.http("POST", "/notebooks", token, {"name": "thesis"}).json_body
        assert (notebook["owner"], notebook["owner_id"]) == ("ada", ada.id)
        record = deployed.record(notebook["id"])
        assert (record["owner"]["S"], record["owner_name"]["S"]) == (ada.id, "ada")
        (launch,) = deployed.executions("launch")
        plan = json.loads(deployed.stepfunctions.describe_execution(executionArn=launch["executionArn"])["input"])
        assert plan["owner"] == ada.id
        for specification in plan["fleet"]["TagSpecifications"]:
            assert {"Key": "nod:owner", "Value": ada.id} in specification["Tags"]
        deployed.change(notebook["id"], state="ready", instance_id=INSTANCE)
        stopped = deployed.http("POST", f"/notebooks/{notebook['id']}/stop", token, {}).json_body
        assert stopped["stop"] == {"code": "asked", "reason": "ada stopped it", "by": "ada"}
        assert deployed.record(notebook["id"])["stop"]["M"]["by"]["S"] == ada.id
        lines = deployed.dynamodb.scan(TableName=ENV["NOD_EVENTS_TABLE"])["Items"]
        kept = deployed.record(notebook["id"])["ledger_lines"]["L"]
        assert [line["by"]["S"] for line in (*lines, *(one["M"] for one in kept))] == [ada.id] * 2
        events = deployed.http("GET", f"/notebooks/{notebook['id']}/events", token).json_body["events"]
        assert [(event["action"], event["by"]) for event in events] == [("stop", "ada"), ("launch", "ada")]

    def test_the_topic_gets_the_id_and_people_read_the_name(self, deployed: Stage, sent: list[Message]) -> None:
        token = user(deployed, email=EMAIL)
        notebook = deployed.http("POST", "/notebooks", token, {"name": "thesis"}).json_body
        published: list[dict[str, Any]] = []
        client = deployed.app.clients.get("sns")
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(client, "publish", lambda **arguments: published.append(arguments))
            deployed.app.tell_owner({"id": notebook["id"], "run": None, "kind": "ready"}, None)
        ((message,), (call,)) = sent, published
        assert call["MessageAttributes"]["owner"]["StringValue"] == person(deployed).id
        assert message.text.startswith("Hello ada,")
        assert (message.for_lambda()["owner"], message.for_lambda()["owner_id"]) == ("ada", person(deployed).id)

    def test_a_record_without_the_name_shows_the_id(self, deployed: Stage) -> None:
        token = user(deployed)
        notebook = deployed.http("POST", "/notebooks", token, {}).json_body
        record = {**Notebook.to_record(deployed.app.notebooks().get(notebook["id"]))}
        del record["owner_name"]
        assert Notebook.from_record(record).owner_called == person(deployed).id


class TestNames:
    def test_a_name_is_taken_with_the_user_and_freed_with_the_user(self, deployed: Stage) -> None:
        user(deployed)
        ada = person(deployed)
        assert set(rows(deployed)) == {ada.id, "name#ada"}
        with pytest.raises(AdminError, match="already"):
            user(deployed)
        assert set(rows(deployed)) == {ada.id, "name#ada"}
        remove_user(deployed.admin, "ada")
        assert rows(deployed) == {}

    def test_a_remove_that_is_late_removes_nobody_who_has_the_name_now(self, deployed: Stage) -> None:
        user(deployed)
        earlier = person(deployed)
        remove_user(deployed.admin, "ada")
        token = user(deployed)
        assert deployed.admin.users.remove(earlier), "it is gone, as it was to be"
        assert not deployed.admin.users.update(earlier.id, {"quota": 9})
        assert not deployed.admin.users.mark(earlier.id, "owed", "nb-" + "0" * 20)
        assert deployed.http("GET", "/notebooks", token).status_code == 200
        assert set(rows(deployed)) == {person(deployed).id, "name#ada"}

    def test_a_notebook_that_is_requested_while_its_user_is_removed_keeps_the_user(
        self, deployed: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        token = user(deployed, email=EMAIL)
        remove = UsersTable.remove

        def late(self: UsersTable, removed: User) -> bool:
            assert deployed.http("POST", "/notebooks", token, {}).status_code == 202
            return remove(self, removed)

        monkeypatch.setattr(UsersTable, "remove", late)
        with pytest.raises(AdminError, match="nb-"):
            remove_user(deployed.admin, "ada")
        assert len(person(deployed).owned) == 1
        arn = person(deployed).email_subscription
        assert arn in [one["SubscriptionArn"] for one in deployed.sns.list_subscriptions()["Subscriptions"]]

    def test_a_request_of_one_who_is_just_removed_leaves_no_notebook(
        self, deployed: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        token = user(deployed)
        notebooks = type(deployed.app.notebooks())
        create = notebooks.create

        def late(self: Any, notebook: Notebook) -> Any:
            remove_user(deployed.admin, "ada")
            user(deployed)
            return create(self, notebook)

        monkeypatch.setattr(notebooks, "create", late)
        assert deployed.http("POST", "/notebooks", token, {}).status_code == 409
        assert deployed.count() == 0
        assert person(deployed).owned == frozenset()

    @pytest.mark.parametrize("name", ["us-0123456789abcdef0123", "name#ada", "", "a" * 33, "ädä", "ada\n"])
    def test_what_is_no_name_is_refused(self, deployed: Stage, name: str) -> None:
        with pytest.raises(AdminError):
            add_user(deployed.admin, name)
        assert rows(deployed) == {}

    def test_an_id_names_a_user_too(self, deployed: Stage) -> None:
        user(deployed)
        ada = person(deployed)
        change_user(deployed.admin, ada.id, quota=7)
        assert person(deployed).quota == 7
        assert deployed.http("GET", "/notebooks", new_token(deployed.admin, ada.id)).status_code == 200
        remove_user(deployed.admin, ada.id)
        with pytest.raises(AdminError, match=ada.id):
            new_token(deployed.admin, ada.id)

    def test_rows_of_names_are_no_users(self, deployed: Stage) -> None:
        user(deployed, "ada", email=EMAIL)
        user(deployed, "bob")
        assert [found.name for found in users.list_users(deployed.admin)] == ["ada", "bob"]
        assert [found.name for found in deployed.admin.users.to_look_at()] == ["ada"]

    def test_show_says_who_an_id_is(
        self, deployed: Stage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(command, "Deployment", lambda _stage, **_: deployed.admin)
        token = user(deployed, email=EMAIL)
        notebook = deployed.http("POST", "/notebooks", token, {}).json_body["id"]
        ada = person(deployed)
        for who in ("ada", ada.id):
            assert command.main(["--stage", STAGE, "user", "show", who]) == 0
            shown = capsys.readouterr().out
            for part in ("ada", ada.id, f"{EMAIL} (pending)", notebook, "1 of 3"):
                assert part in shown, part
            assert ada.secret not in shown
            assert token.split(".")[2] not in shown
            assert ada.token_sha256 not in shown
        assert command.main(["--stage", STAGE, "user", "show", "eve"]) == 1


@pytest.fixture
def made() -> Iterator[World]:
    with world() as found:
        yield found


def again(made: World) -> str:
    """Removes ada, and adds somebody of that name. The id of the second."""
    drop(made.deployed, person(made.deployed))
    remove_user(made.deployed.admin, "ada")
    user(made.deployed, "ada", email="ada@example.com", quota=5)
    return person(made.deployed).id


class TestTheSchedules:
    def test_disk_costs_of_the_earlier_one_are_not_theirs(self, made: World) -> None:
        from chalicelib.actions.parts import Parts  # noqa: PLC0415

        made.notebook(state="stopped")
        second = again(made)
        mine = made.notebook(state="stopped", owner=second)
        parts = Parts()
        assert made.scheduled().tell_disk_costs(parts) == ["ada"]
        assert made.told.messages == [("ada", f"disks of {mine.name}")]
        parts.end()

    def test_a_machine_of_the_earlier_one_is_told_to_the_operators_alone(self, made: World) -> None:
        from tests.unit.stage import logged  # noqa: PLC0415

        earlier = made.ada
        lost = made.instance("nb-" + "f" * 20)
        second = again(made)
        with logged() as lines:
            for _ in range(8):
                made.pass_minutes(60)
                made.reconcile()
        assert made.told.messages == []
        line = [one for one in lines.getvalue().splitlines() if lost in one and "without owner" in one][-1]
        assert earlier in line
        assert second not in line

    def test_the_sweep_ends_the_earlier_ones_notebook_and_counts_nothing_for_them(self, made: World) -> None:
        one = made.notebook(idle=0, max_hours=24)
        again(made)
        mine = person(made.deployed)
        made.sweep()
        made.now += 15 * MINUTE
        made.sweep()
        assert made.state(one) in ("stopping", "stopped")
        assert made.record(one)["owner"] == made.ada
        assert person(made.deployed) == mine
        assert times.from_text(made.record(one)["updated_at"]) is not None
