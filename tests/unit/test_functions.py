"""Events, tasks of the workflows, messages: what each function does, over services in moto."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from botocore.exceptions import ClientError
from chalice.test import Client

from admin.slack import add_channel
from chalicelib.aws.commands import Commands
from chalicelib.aws.slack import post
from chalicelib.aws.topic import Topic
from chalicelib.aws.users import UsersTable
from chalicelib.aws.workflows import Workflows
from chalicelib.commands import Command, Invocation, newest
from chalicelib.errors import CommandFailed, CommandPending, DeliveryFailed, NodError, Unavailable
from chalicelib.messages import Message, orphan
from chalicelib.notebook import life, moves
from chalicelib.orphans import Resource
from tests.unit.stage import ENV, STAGE, Stage, person, stage, user

DOCUMENT = f"nod-{STAGE}-install-anaconda"
INSTANCE = "i-0123456789abcdef0"
SCHEDULED = {
    "version": "0",
    "account": "1",
    "region": "r",
    "detail": {},
    "detail-type": "Scheduled Event",
    "source": "aws.events",
    "time": "2026-11-22T14:05:00Z",
    "id": "1",
    "resources": [],
}


class Calls(dict[str, list[dict[str, Any]]]):
    """Calls of a client, by the method's name; what it answers or raises is set in `answers`."""

    def __init__(self, client: Any, monkeypatch: pytest.MonkeyPatch, **answers: Any) -> None:
        super().__init__()
        for name, answer in answers.items():
            self[name] = []
            monkeypatch.setattr(client, name, self._recorder(name, answer))

    def _recorder(self, name: str, answer: Any) -> Any:
        def call(**arguments: Any) -> Any:
            self[name].append(arguments)
            found = answer.pop(0) if isinstance(answer, list) and len(answer) > 1 else answer
            found = found[0] if isinstance(found, list) else found
            if isinstance(found, Exception):
                raise found
            return found

        return call


@pytest.fixture
def deployed() -> Iterator[Stage]:
    with stage() as found:
        yield found


def client_error(client: Any, name: str) -> Exception:
    kind = getattr(client.exceptions, name)
    return kind({"Error": {"Code": name, "Message": "no"}}, "Operation")  # type: ignore[no-any-return]


def command_event(**detail: str) -> dict[str, Any]:
    return Client(None).events.generate_cw_event(
        source="aws.ssm",
        detail_type="EC2 Command Status-change Notification",
        detail={"command-id": "c-1", "document-name": DOCUMENT, "status": "Success", **detail},
        resources=[],
    )


def instance_event(state: str, instance: str = INSTANCE) -> dict[str, Any]:
    return Client(None).events.generate_cw_event(
        source="aws.ec2",
        detail_type="EC2 Instance State-change Notification",
        detail={"instance-id": instance, "state": state},
        resources=[],
    )


class TestEndOfACommand:
    def sent(
        self, deployed: Stage, monkeypatch: pytest.MonkeyPatch, status: str = "Success", stdout: str = '{"ok": true}'
    ) -> tuple[Calls, Calls]:
        ssm, states = deployed.app.clients.get("ssm"), deployed.app.clients.get("stepfunctions")
        entry = {
            "CommandId": "c-1",
            "DocumentName": DOCUMENT,
            "InstanceIds": [INSTANCE],
            "Parameters": {"TaskToken": ["token-1"]},
        }
        invocation = {"Status": status, "StatusDetails": status, "StandardOutputContent": stdout}
        unknown = client_error(ssm, "InvocationDoesNotExist")
        return (
            Calls(
                ssm,
                monkeypatch,
                list_commands={"Commands": [entry]},
                get_command_invocation=[unknown, unknown, invocation],
            ),
            Calls(states, monkeypatch, send_task_success={}, send_task_failure={}),
        )

    @pytest.fixture(autouse=True)
    def no_sleep(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("time.sleep", lambda _: None)

    def test_a_result_answers_the_token_of_its_parameters(
        self, deployed: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ssm, states = self.sent(deployed, monkeypatch, stdout='noise\n{"ok": true, "names": ["a"]}\n')
        deployed.app.on_command_event(command_event(), None)
        assert states["send_task_success"] == [
            {"taskToken": "token-1", "output": json.dumps({"ok": True, "names": ["a"]})}
        ]
        assert len(ssm["get_command_invocation"]) == 3, "looked again until the invocation was there"
        assert states["send_task_failure"] == []

    def test_a_failure_answers_with_its_code(self, deployed: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
        line = '{"ok": false, "code": "disk_full", "message": "Take a larger disk."}'
        _, states = self.sent(deployed, monkeypatch, "Failed", line)
        deployed.app.on_command_event(command_event(status="Failed"), None)
        (answer,) = states["send_task_failure"]
        assert answer["error"] == "CommandFailed"
        assert json.loads(answer["cause"]) == {"code": "disk_full", "message": "Take a larger disk."}

    @pytest.mark.parametrize("late", ["TaskTimedOut", "TaskDoesNotExist", "InvalidToken"])
    def test_a_late_or_second_event_is_success(
        self, deployed: Stage, monkeypatch: pytest.MonkeyPatch, late: str
    ) -> None:
        self.sent(deployed, monkeypatch)
        states = deployed.app.clients.get("stepfunctions")
        calls = Calls(states, monkeypatch, send_task_success=client_error(states, late))
        deployed.app.on_command_event(command_event(), None)
        assert len(calls["send_task_success"]) == 1

    @pytest.mark.parametrize(
        "detail",
        [{"document-name": "AWS-RunShellScript"}, {"document-name": "nod-other-x"}, {"status": "InProgress"}]
        # Of a stage `test-eu`, of the sweep, and one of ours of which no workflow knows.
        + [{"document-name": f"nod-{STAGE}-{name}"} for name in ("eu-configure-tls", "probe-monitor", "other")],
    )
    def test_events_of_others_are_ignored(
        self, deployed: Stage, monkeypatch: pytest.MonkeyPatch, detail: dict[str, str]
    ) -> None:
        ssm, states = self.sent(deployed, monkeypatch)
        deployed.app.on_command_event(command_event(**detail), None)
        assert ssm["list_commands"] == []
        assert states["send_task_success"] == states["send_task_failure"] == []

    def test_a_command_that_nobody_waits_for_is_ignored(self, deployed: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
        _, states = self.sent(deployed, monkeypatch)
        entry = {"CommandId": "c-1", "DocumentName": DOCUMENT, "InstanceIds": [INSTANCE], "Parameters": {}}
        Calls(deployed.app.clients.get("ssm"), monkeypatch, list_commands={"Commands": [entry]})
        deployed.app.on_command_event(command_event(), None)
        assert states["send_task_success"] == []

    def test_a_command_with_another_document_is_ignored_whatever_the_event_says(
        self, deployed: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ssm, states = self.sent(deployed, monkeypatch)
        entry = {
            "CommandId": "c-1",
            "DocumentName": "AWS-RunShellScript",
            "InstanceIds": [INSTANCE],
            "Parameters": {"TaskToken": ["token-1"]},
        }
        Calls(deployed.app.clients.get("ssm"), monkeypatch, list_commands={"Commands": [entry]})
        deployed.app.on_command_event(command_event(), None)
        assert ssm["get_command_invocation"] == []
        assert states["send_task_success"] == []

    def test_an_error_of_aws_comes_out_for_lambda_to_retry(
        self, deployed: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.sent(deployed, monkeypatch)
        states = deployed.app.clients.get("stepfunctions")
        throttled = ClientError({"Error": {"Code": "ThrottlingException"}}, "SendTaskSuccess")
        Calls(states, monkeypatch, send_task_success=throttled)
        with pytest.raises(ClientError):
            deployed.app.on_command_event(command_event(), None)

    def test_an_invocation_that_never_shows_comes_out_too(
        self, deployed: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.sent(deployed, monkeypatch)
        ssm = deployed.app.clients.get("ssm")
        calls = Calls(ssm, monkeypatch, get_command_invocation=client_error(ssm, "InvocationDoesNotExist"))
        with pytest.raises(ssm.exceptions.InvocationDoesNotExist):
            deployed.app.on_command_event(command_event(), None)
        assert 2 < len(calls["get_command_invocation"]) < 30


class TestLookForCommand:
    def look(self, deployed: Stage, monkeypatch: pytest.MonkeyPatch, *found: Command, **invocation: str) -> Any:
        monkeypatch.setattr(Commands, "sent_to", lambda *_: list(found))
        values = {"status": "Success", "status_details": "", "stdout": "", "stderr": "", **invocation}
        monkeypatch.setattr(Commands, "invocation", lambda *_: Invocation(**values))
        event = {"instance_id": INSTANCE, "document": DOCUMENT, "since": "2026-11-22T14:05:00.123Z"}
        return deployed.app.look_for_command(event, None)

    def command(self) -> Command:
        return Command("c-1", DOCUMENT, INSTANCE, "token", None)

    def test_the_result_is_returned(self, deployed: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.look(deployed, monkeypatch, self.command(), stdout='{"ok": true}') == {"ok": True}

    def test_a_failure_is_raised_with_its_cause(self, deployed: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(CommandFailed) as caught:
            self.look(deployed, monkeypatch, self.command(), status="TimedOut", status_details="TimedOut")
        assert json.loads(str(caught.value))["code"] == "command_timed_out"

    def test_it_is_pending_while_it_runs_and_before_it_is_seen(
        self, deployed: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with pytest.raises(CommandPending):
            self.look(deployed, monkeypatch, self.command(), status="InProgress")
        with pytest.raises(CommandPending):
            self.look(deployed, monkeypatch)

    def test_the_newest_command_of_the_document_counts(self) -> None:
        def command(number: int, document: str, minute: int | None) -> Command:
            at = None if minute is None else datetime(2026, 11, 22, 14, minute, tzinfo=UTC)
            return Command(f"c-{number}", document, INSTANCE, "token", at)

        sent = [
            command(1, DOCUMENT, 5),
            command(2, DOCUMENT, 7),
            command(3, "nod-test-x", 9),
            command(4, DOCUMENT, None),
        ]
        found = newest(sent, DOCUMENT)
        assert found is not None
        assert found.id == "c-2"
        assert newest(sent, "nod-test-y") is None

    def test_a_command_of_another_execution_on_the_same_machine_is_not_taken_for_its_own(self) -> None:
        """Two changes of the password, one right after the other."""

        def command(execution: str, minute: int) -> Command:
            return Command(
                execution, DOCUMENT, INSTANCE, "token", datetime(2026, 11, 22, 14, minute, tzinfo=UTC), execution
            )

        sent = [command("nb-1-password-1", 5), command("nb-1-password-2", 6)]
        first, second = (newest(sent, DOCUMENT, f"nb-1-password-{number}") for number in (1, 2))
        assert first is not None
        assert second is not None
        assert (first.id, second.id) == ("nb-1-password-1", "nb-1-password-2")

    def test_commands_are_read_as_the_api_answers_them(self, deployed: Stage) -> None:
        deployed.ssm.send_command(InstanceIds=[INSTANCE], DocumentName=DOCUMENT, Parameters={"TaskToken": ["token"]})
        sent = Commands(deployed.ssm, lambda _: None)
        (command,) = sent.sent_to(INSTANCE, datetime(2026, 1, 1, tzinfo=UTC))
        assert sent.find(command.id) == command
        assert (command.document, command.instance_id, command.task_token) == (DOCUMENT, INSTANCE, "token")
        assert command.requested_at is not None

    @pytest.mark.parametrize("event", [{}, {"instance_id": 1}, {"instance_id": "i", "document": "d", "since": "x"}])
    def test_other_input_is_an_error(self, deployed: Stage, event: dict[str, Any]) -> None:
        with pytest.raises(NodError, match="since"):
            deployed.app.look_for_command(event, None)


class TestStateOfAnInstance:
    def waiting(self, deployed: Stage, token: str | None = "token-1") -> str:
        notebook = deployed.http("POST", "/notebooks", user(deployed), {}).json_body
        deployed.change(notebook["id"], instance_id=INSTANCE, state="launching")
        if token is not None:
            deployed.change(notebook["id"], wait_token=token)
        return str(notebook["id"])

    def answered(
        self, deployed: Stage, monkeypatch: pytest.MonkeyPatch, event: dict[str, Any]
    ) -> list[tuple[str, Any]]:
        states = deployed.app.clients.get("stepfunctions")
        calls = Calls(states, monkeypatch, send_task_success={}, send_task_failure={})
        deployed.app.on_instance_event(event, None)
        return [(name, arguments) for name, made in calls.items() for arguments in made]

    def test_running_answers_the_token_in_the_record(self, deployed: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
        self.waiting(deployed)
        assert self.answered(deployed, monkeypatch, instance_event("running")) == [
            ("send_task_success", {"taskToken": "token-1", "output": '{"state": "running"}'})
        ]

    @pytest.mark.parametrize("state", ["shutting-down", "terminated"])
    def test_an_instance_that_is_lost_ends_the_wait(
        self, deployed: Stage, monkeypatch: pytest.MonkeyPatch, state: str
    ) -> None:
        self.waiting(deployed)
        ((name, arguments),) = self.answered(deployed, monkeypatch, instance_event(state))
        assert (name, arguments["error"]) == ("send_task_failure", "InstanceLost")

    @pytest.mark.parametrize("state", ["launching", "terminating"])
    def test_an_instance_that_is_lost_later_ends_the_launch_also_when_it_is_being_deleted(
        self, deployed: Stage, monkeypatch: pytest.MonkeyPatch, state: str
    ) -> None:
        identifier = self.waiting(deployed, token=None)
        deployed.change(identifier, state=state)
        ended = Calls(deployed.app.clients.get("stepfunctions"), monkeypatch, stop_execution={})
        assert self.answered(deployed, monkeypatch, instance_event("shutting-down")) == []
        (stop,) = ended["stop_execution"]
        assert stop["executionArn"].endswith(f":{identifier}")
        assert stop["error"] == "InstanceLost"

    def test_an_instance_that_the_undo_of_its_launch_terminated_does_not_abort_the_launch(
        self, deployed: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The launch may still wait for the answer to its start of the undo."""
        identifier = self.waiting(deployed, token=None)
        states = deployed.app.clients.get("stepfunctions")
        states.start_execution(stateMachineArn=deployed.app.settings().undo_arn, name=identifier, input="{}")
        ended = Calls(states, monkeypatch, stop_execution={})
        assert self.answered(deployed, monkeypatch, instance_event("shutting-down")) == []
        assert ended["stop_execution"] == []

    def test_nobody_waits(self, deployed: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
        self.waiting(deployed, token=None)
        assert self.answered(deployed, monkeypatch, instance_event("running")) == []
        assert self.answered(deployed, monkeypatch, instance_event("running", "i-other")) == []
        assert self.answered(deployed, monkeypatch, instance_event("pending")) == []


class TestTellOwner:
    def publish(self, monkeypatch: pytest.MonkeyPatch) -> list[Message]:
        sent: list[Message] = []
        monkeypatch.setattr(Topic, "publish", lambda _self, message: sent.append(message))
        return sent

    def notebook(self, deployed: Stage, **options: Any) -> str:
        notebook = deployed.http("POST", "/notebooks", user(deployed, **options), {"name": "thesis"}).json_body
        deployed.change(notebook["id"], state="ready", address="198.51.100.7")
        return str(notebook["id"])

    def test_the_message_goes_out_and_its_state_is_noted(
        self, deployed: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sent = self.publish(monkeypatch)
        identifier = self.notebook(deployed, email="ada@example.org")
        assert deployed.app.tell_owner({"id": identifier, "kind": "ready"}, None) == {"published": True}
        assert f"/n/{identifier}?k=" in sent[0].text
        assert "198.51.100.7" not in sent[0].text, "another machine may have that address tomorrow"
        assert deployed.record(identifier)["notifications"]["M"]["email"] == {"S": "unconfirmed"}
        deployed.admin.users.update(person(deployed).id, {"email_state": "confirmed"})
        deployed.app.tell_owner({"id": identifier, "kind": "ready"}, None)
        assert deployed.record(identifier)["notifications"]["M"]["email"] == {"S": "sent"}

    def test_sns_takes_it(self, deployed: Stage) -> None:
        identifier = self.notebook(deployed, email="ada@example.org")
        assert deployed.app.tell_owner({"id": identifier, "kind": "ready"}, None) == {"published": True}

    def test_without_channels_or_record_nobody_is_told(self, deployed: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
        sent = self.publish(monkeypatch)
        assert deployed.app.tell_owner({"id": self.notebook(deployed), "kind": "ready"}, None) == {"published": False}
        assert deployed.app.tell_owner({"id": "nb-" + "0" * 20, "kind": "ready"}, None) == {"published": False}
        assert sent == []

    def test_a_confirmed_address_gets_the_links_it_missed_once(
        self, deployed: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sent = self.publish(monkeypatch)
        identifier = self.notebook(deployed, email="ada@example.org")
        deployed.app.tell_owner({"id": identifier, "kind": "ready"}, None)
        monkeypatch.setattr(Topic, "is_confirmed", lambda *_: False)
        deployed.app.check_confirmations(SCHEDULED, None)
        assert (len(sent), deployed.admin.users.named("ada").email_state) == (1, "pending")  # type: ignore[union-attr]
        monkeypatch.setattr(Topic, "is_confirmed", lambda *_: True)
        deployed.app.check_confirmations(SCHEDULED, None)
        deployed.app.check_confirmations(SCHEDULED, None)
        assert [message.channels for message in sent] == [("email",), ("email",)]
        assert sent[1].for_lambda()["channels"] == [], "Slack is not told a second time"
        assert deployed.record(identifier)["notifications"]["M"]["email"] == {"S": "sent"}
        assert deployed.admin.users.named("ada").email_state == "confirmed"  # type: ignore[union-attr]

    def at(self, deployed: Stage, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
        monkeypatch.setattr(deployed.app, "now", lambda: datetime.fromisoformat(moment))

    @pytest.mark.parametrize("seam", ["publish", "mark"])
    def test_an_address_that_is_confirmed_while_the_message_goes_out_gets_the_link(
        self, deployed: Stage, monkeypatch: pytest.MonkeyPatch, seam: str
    ) -> None:
        confirmed = False
        delivered: list[Message] = []

        def publish(_self: Topic, message: Message) -> None:
            if confirmed:
                delivered.append(message)

        def confirm() -> None:
            nonlocal confirmed
            if not confirmed:
                confirmed = True
                deployed.app.check_confirmations(SCHEDULED, None)

        def publish_late(self_: Topic, message: Message) -> None:
            publish(self_, message)
            confirm()

        mark = UsersTable.mark

        def mark_late(self_: UsersTable, user_id: str, marker: str, notebook_id: str) -> bool:
            if marker == "owed":
                confirm()
            return mark(self_, user_id, marker, notebook_id)

        monkeypatch.setattr(Topic, "is_confirmed", lambda *_: confirmed)
        monkeypatch.setattr(Topic, "publish", publish_late if seam == "publish" else publish)
        monkeypatch.setattr(UsersTable, "mark", mark_late if seam == "mark" else mark)
        identifier = self.notebook(deployed, email="ada@example.org")
        deployed.app.tell_owner({"id": identifier, "kind": "ready"}, None)
        for _ in range(2):
            deployed.app.check_confirmations(SCHEDULED, None)
        assert delivered, "the link never arrives"
        assert deployed.record(identifier)["notifications"]["M"]["email"] == {"S": "sent"}
        ada = deployed.admin.users.named("ada")
        assert ada is not None
        assert (ada.email_state, ada.owed, ada.untold) == ("confirmed", frozenset(), frozenset())

    def test_a_record_that_nobody_can_read_keeps_no_other_message(
        self, deployed: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        token = user(deployed, email="ada@example.org", quota=2)
        damaged, good = sorted(
            deployed.http("POST", "/notebooks", token, {"name": name}).json_body["id"] for name in ("one", "two")
        )
        for notebook_id in (damaged, good):
            deployed.change(notebook_id, state="ready", address="198.51.100.7", updated_at="2026-11-22T14:00:00.000Z")
        deployed.admin.users.update(person(deployed).id, {"email_state": "confirmed"})
        deployed.change(damaged, volume_gib="x")
        sent = self.publish(monkeypatch)
        self.at(deployed, monkeypatch, "2026-11-22T14:10:01Z")
        with pytest.raises(NodError):
            deployed.app.check_confirmations(SCHEDULED, None)
        assert [message.notebook.id for message in sent if message.notebook] == [good]
        ada = deployed.admin.users.named("ada")
        assert ada is not None
        assert ada.untold == {damaged}

    def test_a_message_that_its_workflow_gave_up_is_published_by_the_schedule_once(
        self, deployed: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        identifier = self.notebook(deployed, email="ada@example.org")
        deployed.admin.users.update(person(deployed).id, {"email_state": "confirmed"})
        deployed.change(identifier, updated_at="2026-11-22T14:00:00.000Z")

        def refuse(*_: object) -> None:
            raise ClientError({"Error": {"Code": "InternalError"}}, "Publish")

        with monkeypatch.context() as patched:
            patched.setattr(Topic, "publish", refuse)
            with pytest.raises(ClientError):
                deployed.app.tell_owner({"id": identifier, "kind": "ready"}, None)
        assert deployed.record(identifier)["notifications"]["M"]["email"] == {"S": "pending"}
        sent = self.publish(monkeypatch)
        self.at(deployed, monkeypatch, "2026-11-22T14:05:00Z")
        deployed.app.check_confirmations(SCHEDULED, None)
        assert sent == [], "the workflow may still be trying"
        self.at(deployed, monkeypatch, "2026-11-22T14:10:01Z")
        deployed.app.check_confirmations(SCHEDULED, None)
        deployed.app.check_confirmations(SCHEDULED, None)
        assert [message.kind for message in sent] == ["ready"]
        assert deployed.record(identifier)["notifications"]["M"]["email"] == {"S": "sent"}

    @pytest.mark.parametrize(
        ("values", "kind"),
        [
            ({"state": "stopped"}, "stopped"),
            ({"state": "stopped", "error": {"code": "no_capacity", "message": "None left."}}, "start_failed"),
            ({"state": "ready", "starts": 1}, "started"),
            ({"state": "starting"}, None),
        ],
    )
    def test_what_nobody_told_is_told_by_the_state_it_led_to(
        self, deployed: Stage, monkeypatch: pytest.MonkeyPatch, values: dict[str, Any], kind: str | None
    ) -> None:
        sent = self.publish(monkeypatch)
        identifier = self.notebook(deployed, email="ada@example.org")
        deployed.change(identifier, updated_at="2026-11-22T14:00:00.000Z", **values)
        self.at(deployed, monkeypatch, "2026-11-22T14:10:01Z")
        monkeypatch.setattr(Topic, "is_confirmed", lambda *_: False)
        deployed.app.check_confirmations(SCHEDULED, None)
        assert [message.kind for message in sent] == ([kind] if kind else [])
        untold = deployed.admin.users.named("ada").untold  # type: ignore[union-attr]
        assert untold == (frozenset() if kind else {identifier})

    @pytest.mark.parametrize("kind", ["warned", "silent", "limit_near"])
    def test_what_the_sweep_repeats_is_no_debt_of_the_schedule(
        self, deployed: Stage, monkeypatch: pytest.MonkeyPatch, kind: str
    ) -> None:
        identifier = self.notebook(deployed, email="ada@example.org")
        deployed.admin.users.unmark(person(deployed).id, "untold", identifier)

        def refuse(*_: object) -> None:
            raise ClientError({"Error": {"Code": "InternalError"}}, "Publish")

        with monkeypatch.context() as patched:
            patched.setattr(Topic, "publish", refuse)
            with pytest.raises(ClientError):
                deployed.app.messages().tell(identifier, kind, datetime.now(UTC))
        assert deployed.admin.users.named("ada").untold == frozenset()  # type: ignore[union-attr]
        sent = self.publish(monkeypatch)
        assert deployed.app.messages().tell(identifier, kind, datetime.now(UTC))
        assert sent[0].kind == kind

    def test_an_address_that_is_confirmed_after_a_stop_and_a_start_gets_the_new_link(
        self, deployed: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sent = self.publish(monkeypatch)
        identifier = self.notebook(deployed, email="ada@example.org")
        deployed.change(identifier, starts=1)
        deployed.app.tell_owner({"id": identifier, "kind": "started"}, None)
        monkeypatch.setattr(Topic, "is_confirmed", lambda *_: True)
        deployed.app.check_confirmations(SCHEDULED, None)
        assert [message.kind for message in sent] == ["started", "started"]

    def test_disks_and_orphans_go_to_all_channels_of_their_user(
        self, deployed: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sent = self.publish(monkeypatch)
        identifier = self.notebook(deployed, email="ada@example.org")
        telling, ada = deployed.app.messages(), deployed.admin.users.named("ada")
        notebook = deployed.app.notebooks().get(identifier)
        volume = Resource("volume", "vol-1", None, person(deployed).id, None)
        assert ada is not None
        assert telling.tell_disks(ada, [notebook], datetime.now(UTC))
        assert telling.tell_orphan(ada, volume, "It goes tomorrow.")
        assert [(message.kind, message.channels) for message in sent] == [("disks", ("email",)), ("orphan", ("email",))]
        assert not telling.tell_disks(ada, [], datetime.now(UTC))
        user(deployed, "bob")
        bob = deployed.admin.users.named("bob")
        assert bob is not None
        assert not telling.tell_disks(bob, [notebook], datetime.now(UTC))
        assert not telling.tell_orphan(bob, volume, "It goes tomorrow.")

    def test_the_schedule_reads_no_notebook_of_a_user_who_is_owed_nothing(
        self, deployed: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.publish(monkeypatch)
        identifier = self.notebook(deployed, email="ada@example.org")
        deployed.admin.users.update(person(deployed).id, {"email_state": "confirmed"})
        launching = deployed.http("POST", "/notebooks", user(deployed, "bob", email="bob@example.org"), {}).json_body
        deployed.app.tell_owner({"id": identifier, "kind": "ready"}, None)
        read = Calls(deployed.app.clients.get("dynamodb"), monkeypatch, get_item={}, query={})
        deployed.app.check_confirmations(SCHEDULED, None)
        assert [call["Key"]["id"]["S"] for call in read["get_item"]] == [launching["id"]]
        assert read["query"] == []

    def test_the_trouble_of_one_user_comes_out_and_keeps_no_other_waiting(
        self, deployed: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("ada", "bob", "eve"):
            user(deployed, name, email=f"{name}@example.org")
        arns = {name: deployed.admin.users.named(name).email_subscription for name in ("ada", "bob", "eve")}  # type: ignore[union-attr]

        def is_confirmed(_self: Topic, arn: str) -> bool:
            if arn == arns["bob"]:
                raise ClientError({"Error": {"Code": "Throttled"}}, "GetSubscriptionAttributes")
            return True

        monkeypatch.setattr(Topic, "is_confirmed", is_confirmed)
        with pytest.raises(Unavailable):
            deployed.app.check_confirmations(SCHEDULED, None)
        states = {name: deployed.admin.users.named(name).email_state for name in arns}  # type: ignore[union-attr]
        assert states == {"ada": "confirmed", "bob": "pending", "eve": "confirmed"}

    @pytest.mark.parametrize(
        ("values", "expires"),
        [
            ({"state": "ready"}, None),
            ({"state": "terminated", "terminated_at": "2026-11-01T00:00:00.000Z"}, "2026-12-01T00:00:00Z"),
            ({"state": "failed", "failed_at": "2026-11-02T00:00:00.000Z"}, "2026-12-02T00:00:00Z"),
            ({"state": "failed", "error": {"code": "terminate_failed", "message": "EC2 did not."}}, None),
        ],
    )
    def test_the_record_of_what_is_over_goes_30_days_later(
        self, deployed: Stage, monkeypatch: pytest.MonkeyPatch, values: dict[str, Any], expires: str | None
    ) -> None:
        self.publish(monkeypatch)
        identifier = self.notebook(deployed)
        deployed.change(identifier, **values)
        kind = "terminated" if values["state"] == "terminated" else "failed"
        deployed.app.tell_owner({"id": identifier, "kind": kind}, None)
        written = deployed.record(identifier).get("expires_at")
        at = None if expires is None else {"N": str(int(datetime.fromisoformat(expires).timestamp()))}
        assert written == at
        notebook = deployed.app.notebooks().get(identifier)
        now = datetime.now(UTC)
        if notebook.state in life.DELETE.before:
            deleted = deployed.app.notebooks().move(moves.delete(notebook, "ada", "deleted", now, now))
            assert "expires_at" not in deleted.to_record()

    def test_a_failure_that_left_a_machine_keeps_its_record(self, deployed: Stage) -> None:
        found = deployed.app.explain_failure({"id": "nb-1", "execution": {"found": {"ids": ["i-1"]}}}, None)
        identifier = self.notebook(deployed)
        deployed.change(identifier, state="failed", error=found)
        deployed.app.tell_owner({"id": identifier, "kind": "failed"}, None)
        assert "expires_at" not in deployed.record(identifier)


class Receiver:
    """A webhook on loopback that answers as it is told, and keeps what it got."""

    def __init__(self) -> None:
        self.answers = [(200, {}, b"ok")]
        self.got: list[dict[str, Any]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.got.append(json.loads(raw))
                answers = receiver.answers
                status, headers, body = answers.pop(0) if len(answers) > 1 else answers[0]
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.origin = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


class TestSlack:
    @pytest.fixture
    def receiver(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
        for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
            monkeypatch.delenv(name, raising=False)
        found = Receiver()
        monkeypatch.setenv("NOD_SLACK_ORIGIN", found.origin)
        yield found
        found.close()

    def event(self, deployed: Stage, receiver: Receiver, address: str | None = None) -> tuple[str, dict[str, Any]]:
        deployed.app.settings.cache_clear()
        add_channel(deployed.admin, "team", f"{receiver.origin}/services/T/B/secret", origin=receiver.origin)
        token = user(deployed, slack="team")
        if address is not None:
            deployed.admin.slack.put("team", address)
        identifier = deployed.http("POST", "/notebooks", token, {"name": "thesis"}).json_body["id"]
        deployed.change(identifier, state="ready", address="198.51.100.7")
        sent: list[Message] = []
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(Topic, "publish", lambda _self, message: sent.append(message))
            deployed.app.tell_owner({"id": identifier, "kind": "ready"}, None)
        message = json.dumps(sent[0].for_lambda())
        return identifier, Client(None).events.generate_sns_event(message=message, subject="x")

    def state(self, deployed: Stage, identifier: str) -> str:
        return str(deployed.record(identifier)["notifications"]["M"]["slack:team"]["S"])

    def test_the_link_reaches_the_channel(self, deployed: Stage, receiver: Receiver) -> None:
        identifier, event = self.event(deployed, receiver)
        assert self.state(deployed, identifier) == "pending"
        deployed.app.deliver_to_slack(event, None)
        (got,) = receiver.got
        assert f"/n/{identifier}?k=" in json.dumps(got["blocks"])
        assert "198.51.100.7" not in json.dumps(got["blocks"])
        assert "is ready" in got["text"]
        assert self.state(deployed, identifier) == "sent"

    def test_a_message_about_no_single_notebook_reaches_the_channel(self, deployed: Stage, receiver: Receiver) -> None:
        identifier, _ = self.event(deployed, receiver)
        ada = deployed.admin.users.named("ada")
        assert ada is not None
        message = orphan(ada, "volume", "vol-1", "It goes tomorrow.")
        event = Client(None).events.generate_sns_event(message=json.dumps(message.for_lambda()), subject="x")
        deployed.app.deliver_to_slack(event, None)
        assert "It goes tomorrow." in json.dumps(receiver.got[0]["blocks"])
        assert self.state(deployed, identifier) == "pending"

    def test_a_429_is_waited_out(self, deployed: Stage, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
        identifier, event = self.event(deployed, receiver)
        slept: list[float] = []
        monkeypatch.setattr("time.sleep", slept.append)
        receiver.answers = [(429, {"Retry-After": "7"}, b"slow down"), (200, {}, b"ok")]
        deployed.app.deliver_to_slack(event, None)
        assert len(receiver.got) == 2
        assert any(seconds >= 7 for seconds in slept)
        assert self.state(deployed, identifier) == "sent"

    def test_a_refusal_is_noted_and_comes_out_for_lambda_to_retry_and_keep(
        self, deployed: Stage, receiver: Receiver
    ) -> None:
        identifier, event = self.event(deployed, receiver)
        receiver.answers = [(404, {}, b"no_service")]
        with pytest.raises(DeliveryFailed, match="404: no_service") as caught:
            deployed.app.deliver_to_slack(event, None)
        assert "secret" not in str(caught.value)
        assert self.state(deployed, identifier) == "failed"

    @pytest.mark.parametrize(
        "address", ["http://localhost:{port}/x", "http://127.0.0.1:{port}@evil.example/x", "https://127.0.0.1:{port}/"]
    )
    def test_nothing_goes_to_another_host(self, deployed: Stage, receiver: Receiver, address: str) -> None:
        _, event = self.event(deployed, receiver, address.format(port=receiver.server.server_port))
        with pytest.raises(DeliveryFailed, match="not on"):
            deployed.app.deliver_to_slack(event, None)
        assert receiver.got == []

    def test_a_channel_that_is_gone_is_a_failure(self, deployed: Stage, receiver: Receiver) -> None:
        identifier, event = self.event(deployed, receiver)
        deployed.admin.slack.remove("team")
        with pytest.raises(DeliveryFailed, match="not registered"):
            deployed.app.deliver_to_slack(event, None)
        assert self.state(deployed, identifier) == "failed"

    def test_an_unreachable_address_is_not_told(self, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("time.sleep", lambda _: None)
        receiver.close()
        with pytest.raises(DeliveryFailed) as caught:
            post(f"{receiver.origin}/services/secret", "text", [])
        assert "secret" not in repr(caught.value)


def test_the_workflow_is_started_once_for_a_name(deployed: Stage) -> None:
    workflows = Workflows(deployed.stepfunctions)
    assert workflows.start(ENV["NOD_LAUNCH_ARN"], "nb-1", {"a": 1})
    workflows.start(ENV["NOD_LAUNCH_ARN"], "nb-1", {"a": 1})
    assert len(deployed.executions("launch")) == 1


def test_explain_failure_takes_the_undos_whole_state(deployed: Stage) -> None:
    event = {
        "id": "nb-1",
        "execution": {"status": "FAILED", "error": "InstanceLost", "cause": "", "looks": {"count": 1}},
    }
    assert deployed.app.explain_failure(event, None)["code"] == "instance_lost"
    assert deployed.app.explain_failure({}, None)["code"] == "launch_failed"
