"""Stop, start, extend, password, link and events over HTTP, and the pages behind links, over tables in moto."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
from chalice.test import HTTPResponse

from chalicelib import links
from chalicelib.actions.stopping import LOOK_AFTER
from chalicelib.aws.ledger import Event
from chalicelib.aws.notebooks import NotebooksTable
from chalicelib.aws.topic import Topic
from chalicelib.aws.workflows import Workflows
from chalicelib.errors import Unavailable
from chalicelib.messages import Message
from chalicelib.model import DUE_SHARDS
from chalicelib.notebook.moves import Move
from tests.unit.stage import ACCOUNT, API_URL, ENV, REGION, Stage, logged, person, stage, user
from tests.unit.test_api import problem, request

INSTANCE = "i-0123456789abcdef0"
ARN = f"arn:aws:ec2:{REGION}:{ACCOUNT}:instance/{INSTANCE}"
CANARY = "canary-Pa55word-4711"
FORM = "application/x-www-form-urlencoded"
T0 = datetime(2026, 11, 22, 14, 5, tzinfo=UTC)


@pytest.fixture
def deployed() -> Iterator[Stage]:
    with stage() as found:
        yield found


@pytest.fixture
def token(deployed: Stage) -> str:
    return user(deployed)


@pytest.fixture
def clock(deployed: Stage, monkeypatch: pytest.MonkeyPatch) -> list[datetime]:
    """What `now()` answers; the first entry counts."""
    moments = [T0]
    monkeypatch.setattr(deployed.app, "now", lambda: moments[0])
    return moments


def a_notebook(deployed: Stage, token: str, state: str = "ready", **values: Any) -> str:
    """A notebook in a state, as its workflows would leave it."""
    identifier = str(request(deployed, token, name=values.pop("name", "thesis"))["id"])
    deployed.change(
        identifier,
        state=state,
        instance_id=INSTANCE,
        address="198.51.100.7",
        run_started_at="2026-11-22T14:00:00.000Z",
        ready_at="2026-11-22T14:03:00.000Z",
        **values,
    )
    if state == "stopped":
        deployed.dynamodb.update_item(
            TableName=ENV["NOD_USERS_TABLE"],
            Key={"id": {"S": person(deployed, "ada").id}},
            UpdateExpression="DELETE active :id",
            ExpressionAttributeValues={":id": {"SS": [identifier]}},
        )
    return identifier


def post(deployed: Stage, token: str, identifier: str, verb: str, body: Any = None) -> HTTPResponse:
    return deployed.http("POST", f"/notebooks/{identifier}/{verb}", token, body)


def input_of(deployed: Stage, machine: str) -> tuple[str, Any]:
    """Name and input of the one execution of a state machine."""
    (execution,) = deployed.executions(machine)
    answer = deployed.stepfunctions.describe_execution(executionArn=execution["executionArn"])
    return execution["name"], json.loads(answer["input"])


def refuse(*_: object) -> bool:
    raise Unavailable("Step Functions did not answer.")


def ledger(deployed: Stage, token: str, identifier: str) -> list[Any]:
    """What was done to it since it was requested, newest first."""
    lines = deployed.http("GET", f"/notebooks/{identifier}/events", token).json_body["events"]
    return [line for line in lines if line["action"] != "launch"]


class TestStopping:
    def test_a_ready_one_begins_to_stop(self, deployed: Stage, token: str, clock: list[datetime]) -> None:
        identifier = a_notebook(deployed, token, error={"code": "stop_failed", "message": "x"})
        answer = post(deployed, token, identifier, "stop")
        assert (answer.status_code, answer.json_body["state"]) == (202, "stopping")
        assert answer.json_body["stop"] == {"code": "asked", "reason": "ada stopped it", "by": "ada"}
        assert answer.json_body["error"] is None
        assert input_of(deployed, "stop") == (
            f"{identifier}-stop-1",
            {"id": identifier, "owner": person(deployed).id, "name": "thesis", "instance_id": INSTANCE, "call": True},
        )
        row = deployed.record(identifier)
        assert row["due_at"] == {"S": "2026-11-22T14:20:00.000Z"}
        assert int(row["due"]["S"]) in range(DUE_SHARDS)
        (event,) = ledger(deployed, token, identifier)
        assert (event["action"], event["code"], event["by"]) == ("stop", "asked", "ada")

    @pytest.mark.parametrize("state", ["requested", "launching", "stopping", "stopped", "starting", "failed"])
    def test_another_state_is_refused_and_nothing_changes(self, deployed: Stage, token: str, state: str) -> None:
        identifier = a_notebook(deployed, token, state)
        before = deployed.record(identifier)
        found = problem(post(deployed, token, identifier, "stop"), 409, "wrong_state")
        assert found["errors"] == [{"field": "state", "message": f"It is {state}.", "allowed": "ready"}]
        assert deployed.record(identifier) == before
        assert deployed.executions("stop") == []
        assert ledger(deployed, token, identifier) == []

    def test_the_second_stop_has_another_execution(self, deployed: Stage, token: str) -> None:
        identifier = a_notebook(deployed, token, stops=4)
        post(deployed, token, identifier, "stop")
        assert input_of(deployed, "stop")[0] == f"{identifier}-stop-5"

    def test_when_the_workflow_cannot_start_the_next_sweep_goes_on(
        self, deployed: Stage, token: str, clock: list[datetime], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        identifier = a_notebook(deployed, token)
        monkeypatch.setattr(Workflows, "start", refuse)
        assert post(deployed, token, identifier, "stop").status_code == 202
        row = deployed.record(identifier)
        assert (row["state"], row["due_at"]) == ({"S": "stopping"}, {"S": "2026-11-22T14:05:00.000Z"})

    def test_a_state_that_moves_between_reading_and_writing_is_read_again(
        self, deployed: Stage, token: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        identifier = a_notebook(deployed, token)
        move = NotebooksTable.move

        def moved(self: NotebooksTable, wanted: Move) -> Any:
            deployed.change(identifier, state="stopping")
            return move(self, wanted)

        monkeypatch.setattr(NotebooksTable, "move", moved)
        problem(post(deployed, token, identifier, "stop"), 409, "wrong_state")
        assert deployed.executions("stop") == []

    def test_a_ledger_that_does_not_answer_changes_nothing(self, deployed: Stage, token: str) -> None:
        identifier = a_notebook(deployed, token)
        deployed.dynamodb.delete_table(TableName=ENV["NOD_EVENTS_TABLE"])
        assert post(deployed, token, identifier, "stop").status_code == 202
        assert len(deployed.executions("stop")) == 1


class TestStarting:
    def test_a_stopped_one_begins_to_start_and_counts(self, deployed: Stage, token: str, clock: list[datetime]) -> None:
        stop = {"code": "idle", "reason": "idle since 13:05 UTC", "by": "sweep"}
        warned = {"at": "2026-11-22T13:55:00Z", "stops_at": "2026-11-22T14:05:00Z", "code": "idle"}
        identifier = a_notebook(
            deployed, token, "stopped", stop=stop, stopped_at="2026-11-22T14:04:00.000Z", warned=warned
        )
        answer = post(deployed, token, identifier, "start")
        assert (answer.status_code, answer.json_body["state"]) == (202, "starting")
        assert answer.json_body["stop"] == stop, "told until it runs again"
        assert input_of(deployed, "start") == (
            f"{identifier}-start-1",
            {
                "id": identifier,
                "owner": person(deployed).id,
                "name": "thesis",
                "instance_id": INSTANCE,
                "instance_arn": ARN,
            },
        )
        assert person(deployed).active == {identifier}
        row = deployed.record(identifier)
        assert row["due_at"] == {"S": (T0 + LOOK_AFTER).strftime("%Y-%m-%dT%H:%M:%S.000Z")}
        assert (row["starts"], "warned" in row) == ({"N": "1"}, False)

    def test_over_the_quota_it_stays_stopped_and_those_that_run_are_named(self, deployed: Stage) -> None:
        token = user(deployed, quota=1)
        identifier = a_notebook(deployed, token, "stopped")
        request(deployed, token, name="other")
        found = problem(post(deployed, token, identifier, "start"), 409, "quota_exceeded")
        assert "other (requested)" in found["detail"]
        assert deployed.record(identifier)["state"] == {"S": "stopped"}
        assert "starts" not in deployed.record(identifier)
        assert deployed.executions("start") == []

    @pytest.mark.parametrize("state", ["launching", "ready", "stopping", "starting", "failed", "terminating"])
    def test_another_state_is_refused_and_nothing_changes(self, deployed: Stage, token: str, state: str) -> None:
        identifier = a_notebook(deployed, token, state)
        before = deployed.record(identifier)
        problem(post(deployed, token, identifier, "start"), 409, "wrong_state")
        assert deployed.record(identifier) == before

    def test_two_starts_at_once_are_one(self, deployed: Stage, token: str, monkeypatch: pytest.MonkeyPatch) -> None:
        identifier = a_notebook(deployed, token, "stopped")
        move = NotebooksTable.move

        def twice(self: NotebooksTable, wanted: Move) -> Any:
            move(self, wanted)
            return move(self, wanted)

        monkeypatch.setattr(NotebooksTable, "move", twice)
        problem(post(deployed, token, identifier, "start"), 409, "wrong_state")
        assert deployed.record(identifier)["starts"] == {"N": "1"}

    def test_when_the_workflow_cannot_start_the_next_sweep_goes_on(
        self, deployed: Stage, token: str, clock: list[datetime], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        identifier = a_notebook(deployed, token, "stopped")
        monkeypatch.setattr(Workflows, "start", refuse)
        assert post(deployed, token, identifier, "start").status_code == 202
        row = deployed.record(identifier)
        assert (row["state"], row["due_at"]) == ({"S": "starting"}, {"S": "2026-11-22T14:05:00.000Z"})


class TestExtending:
    def test_it_is_held_until_then_and_the_warning_is_answered(
        self, deployed: Stage, token: str, clock: list[datetime]
    ) -> None:
        warned = {"at": "2026-11-22T13:55:00Z", "stops_at": "2026-11-22T14:05:00Z", "code": "idle"}
        identifier = a_notebook(deployed, token, warned=warned)
        answer = post(deployed, token, identifier, "extend", {"hours": 1.5})
        assert answer.status_code == 202
        assert answer.json_body["hold_until"] == "2026-11-22T15:35:00.000Z"
        row = deployed.record(identifier)
        assert ("warned" in row, row["due_at"]) == (False, {"S": "2026-11-22T14:05:00.000Z"})
        assert answer.json_body["stops_at"] >= "2026-11-22T15:35:00.000Z"

    def test_what_was_extended_further_stays(self, deployed: Stage, token: str, clock: list[datetime]) -> None:
        identifier = a_notebook(deployed, token)
        post(deployed, token, identifier, "extend", {"hours": 8})
        assert post(deployed, token, identifier, "extend", {"hours": 1}).json_body["hold_until"] == (
            "2026-11-22T22:05:00.000Z"
        )
        assert {line["reason"] for line in ledger(deployed, token, identifier)} == {
            "ada asked for 8 hours; it is kept until 2026-11-22 22:05 UTC",
            "ada asked for 1 hour; it is kept until 2026-11-22 22:05 UTC",
        }
        clock[0] = T0 + timedelta(hours=9)
        shown = deployed.http("GET", f"/notebooks/{identifier}", token).json_body
        assert shown["hold_until"] is None, "it is over"

    def test_who_stops_it_ends_the_hold(self, deployed: Stage, token: str, clock: list[datetime]) -> None:
        identifier = a_notebook(deployed, token)
        post(deployed, token, identifier, "extend", {"hours": 24})
        stopping = post(deployed, token, identifier, "stop")
        assert stopping.json_body["hold_until"] is None
        assert "hold_until" not in deployed.record(identifier)
        # EC2 did not stop it: it runs on, and may be idle.
        deployed.change(identifier, state="ready")
        shown = deployed.http("GET", f"/notebooks/{identifier}", token).json_body
        assert shown["hold_until"] is None

    def test_a_start_begins_without_the_hold_of_a_run_before(
        self, deployed: Stage, token: str, clock: list[datetime]
    ) -> None:
        held = "2026-11-23T14:00:00.000Z"
        identifier = a_notebook(deployed, token, "stopped", hold_until=held)
        assert post(deployed, token, identifier, "start").json_body["hold_until"] is None
        assert "hold_until" not in deployed.record(identifier)
        extended = post(deployed, token, identifier, "extend", {"hours": 1}).json_body
        assert extended["hold_until"] == "2026-11-22T15:05:00.000Z"

    @pytest.mark.parametrize(
        "hours", [0, -1, 0.24, 24.001, 25, 1e9, 10**30, True, "2", None, [], {}, "NaN", "Infinity"]
    )
    def test_other_hours_are_refused_and_nothing_changes(self, deployed: Stage, token: str, hours: Any) -> None:
        identifier = a_notebook(deployed, token)
        before = deployed.record(identifier)
        found = problem(post(deployed, token, identifier, "extend", {"hours": hours}), 422, "invalid_fields")
        assert found["errors"][0]["field"] == "hours"
        assert found["errors"][0]["allowed"] == "a number from 0.25 to 24 (hours)"
        assert deployed.record(identifier) == before

    @pytest.mark.parametrize("body", [b'{"hours": NaN}', b'{"hours": Infinity}', b'{"hours": 1e999}', b"", b"[]"])
    def test_what_is_no_json_is_refused(self, deployed: Stage, token: str, body: bytes) -> None:
        identifier = a_notebook(deployed, token)
        problem(post(deployed, token, identifier, "extend", body), 400, "malformed_body")

    def test_missing_and_unknown_fields_are_named(self, deployed: Stage, token: str) -> None:
        identifier = a_notebook(deployed, token)
        found = problem(post(deployed, token, identifier, "extend", {"minutes": 5}), 422, "invalid_fields")
        assert {error["field"] for error in found["errors"]} == {"minutes", "hours"}

    def test_the_bounds_are_allowed_and_are_the_users(self, deployed: Stage) -> None:
        token = user(deployed, max_extend_hours=48)
        identifier = a_notebook(deployed, token)
        for hours in (0.25, 48):
            assert post(deployed, token, identifier, "extend", {"hours": hours}).status_code == 202
        problem(post(deployed, token, identifier, "extend", {"hours": 48.5}), 422, "invalid_fields")

    @pytest.mark.parametrize(("state", "status"), [("starting", 202), ("stopped", 409), ("launching", 409)])
    def test_only_what_runs_or_is_about_to_is_extended(
        self, deployed: Stage, token: str, state: str, status: int
    ) -> None:
        identifier = a_notebook(deployed, token, state)
        assert post(deployed, token, identifier, "extend", {"hours": 1}).status_code == status

    def test_two_at_once_leave_the_later(
        self, deployed: Stage, token: str, clock: list[datetime], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        identifier = a_notebook(deployed, token)
        hold = NotebooksTable.hold

        def overtaken(self: NotebooksTable, *arguments: Any) -> Any:
            monkeypatch.setattr(NotebooksTable, "hold", hold)
            deployed.change(identifier, hold_until="2026-11-22T20:05:00.000Z")
            return hold(self, *arguments)

        monkeypatch.setattr(NotebooksTable, "hold", overtaken)
        answer = post(deployed, token, identifier, "extend", {"hours": 1})
        assert answer.json_body["hold_until"] == "2026-11-22T20:05:00.000Z"


class TestPassword:
    def test_one_is_made_and_shown_once(self, deployed: Stage, token: str) -> None:
        identifier = a_notebook(deployed, token)
        answer = post(deployed, token, identifier, "password", {}).json_body
        assert len(answer["password"]) == 34
        name, document = input_of(deployed, "password")
        assert name == f"{identifier}-password-1"
        assert document.pop("password_hash").startswith("argon2:$argon2id$")
        assert document == {
            "id": identifier,
            "owner": person(deployed).id,
            "name": "thesis",
            "instance_id": INSTANCE,
            "number": "1",
        }
        assert answer["password"] not in json.dumps(input_of(deployed, "password"))

    @pytest.mark.parametrize("table", ["NOD_EVENTS_TABLE", "NOD_HEARTBEATS_TABLE"])
    def test_it_is_shown_whatever_else_does_not_answer(self, deployed: Stage, token: str, table: str) -> None:
        """It is being set, and nobody can read it anywhere else."""
        identifier = a_notebook(deployed, token)
        deployed.dynamodb.delete_table(TableName=ENV[table])
        answer = post(deployed, token, identifier, "password", {})
        assert (answer.status_code, len(answer.json_body["password"])) == (202, 34)

    def test_a_chosen_one_is_kept_nowhere(self, deployed: Stage, token: str) -> None:
        identifier = a_notebook(deployed, token)
        with logged() as lines:
            answer = post(deployed, token, identifier, "password", {"password": CANARY})
        assert answer.status_code == 202
        assert answer.json_body["password"] is None
        everything = [deployed.record(identifier), input_of(deployed, "password"), lines.getvalue()]
        assert all(everything)
        assert CANARY not in repr(everything)

    @pytest.mark.parametrize("body", [{"password": "short"}, {"password_hash": "x"}, {"name": "x"}, {"password": None}])
    def test_bad_ones_are_refused(self, deployed: Stage, token: str, body: Any) -> None:
        identifier = a_notebook(deployed, token)
        problem(post(deployed, token, identifier, "password", body), 422, "invalid_fields")
        assert deployed.executions("password") == []

    def test_when_the_workflow_cannot_start_it_says_so(
        self, deployed: Stage, token: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        identifier = a_notebook(deployed, token)
        monkeypatch.setattr(Workflows, "start", refuse)
        problem(post(deployed, token, identifier, "password", {}), 503, "unavailable")

    @pytest.mark.parametrize("state", ["launching", "stopped", "stopping", "starting"])
    def test_only_what_runs_takes_one(self, deployed: Stage, token: str, state: str) -> None:
        problem(post(deployed, token, a_notebook(deployed, token, state), "password", {}), 409, "wrong_state")


class TestReading:
    def test_a_running_one_tells_of_its_use_and_when_it_stops(
        self, deployed: Stage, token: str, clock: list[datetime]
    ) -> None:
        identifier = a_notebook(deployed, token)
        clock[0] = T0 + timedelta(hours=1)
        deployed.dynamodb.put_item(
            TableName=ENV["NOD_HEARTBEATS_TABLE"],
            Item={
                "id": {"S": ARN},
                "boot_id": {"S": "b"},
                "beat": {"N": "70"},
                "at": {"S": "2026-11-22T15:04:50.000Z"},
                "uptime": {"N": "3900"},
                "ages": {"M": {"input": {"N": "1500"}, "cpu": {"N": "890"}}},
                "unknown": {"L": []},
                "facts": {"M": {"disk": {"M": {"free_mib": {"N": "1535"}, "size_mib": {"N": "29696"}}}}},
            },
        )
        shown = deployed.http("GET", f"/notebooks/{identifier}", token).json_body
        assert shown["last_active_at"] == "2026-11-22T14:50:00.000Z"
        assert shown["disk"] == {"free_gib": 1.49, "size_gib": 29.0}
        assert shown["last_activity"] == "a process of yours used CPU"
        assert shown["stops_at"] == "2026-11-22T15:50:00.000Z"
        listed = deployed.http("GET", "/notebooks", token).json_body["notebooks"]
        assert listed == [shown]

    def test_the_servers_last_words_are_for_the_owner_with_a_token_alone(
        self, deployed: Stage, token: str, clock: list[datetime]
    ) -> None:
        identifier = a_notebook(deployed, token)
        clock[0] = T0 + timedelta(hours=1)
        server = {
            "mode": {"S": "safe"},
            "code": {"S": "configuration"},
            "safe_seconds": {"N": "60"},
            "words": {"S": "Traceback\nRuntimeError: \x1b[2Jsecret"},
        }
        deployed.dynamodb.put_item(
            TableName=ENV["NOD_HEARTBEATS_TABLE"],
            Item={
                "id": {"S": ARN},
                "boot_id": {"S": "b"},
                "beat": {"N": "70"},
                "at": {"S": "2026-11-22T15:04:50.000Z"},
                "uptime": {"N": "3900"},
                "answers": {"BOOL": True},
                "server": {"M": server},
            },
        )
        shown = deployed.http("GET", f"/notebooks/{identifier}", token).json_body
        assert shown["last_words"] == "Traceback\nRuntimeError:  [2Jsecret"
        assert shown["safe_mode"]["code"] == "configuration"
        assert shown["not_answering"] is None
        listed = deployed.http("GET", "/notebooks", token).body.decode()
        page = deployed.http("GET", f"/n/{identifier}?{urlsplit(shown['link']).query}")
        assert "runs without your configuration" in listed
        assert "secret" not in listed + page.body.decode()

    def test_without_heartbeats_the_link_is_told_all_the_same(self, deployed: Stage, token: str) -> None:
        identifier = a_notebook(deployed, token)
        deployed.dynamodb.delete_table(TableName=ENV["NOD_HEARTBEATS_TABLE"])
        answer = deployed.http("GET", f"/notebooks/{identifier}", token)
        assert answer.status_code == 200
        assert answer.json_body["link"].startswith("https://")
        assert (answer.json_body["last_active_at"], answer.json_body["stops_at"]) == (None, None)
        assert answer.json_body["disk"] is None

    def test_a_forged_heartbeat_is_no_error(self, deployed: Stage, token: str) -> None:
        identifier = a_notebook(deployed, token)
        deployed.dynamodb.put_item(
            TableName=ENV["NOD_HEARTBEATS_TABLE"],
            Item={
                "id": {"S": ARN},
                "beat": {"B": b"x"},
                "ages": {"S": "<script>"},
                "boot_id": {"N": "1"},
                "facts": {"M": {"disk": {"M": {"free_mib": {"S": "all"}, "size_mib": {"BOOL": True}}}}},
            },
        )
        shown = deployed.http("GET", f"/notebooks/{identifier}", token).json_body
        assert (shown["last_activity"], shown["state"], shown["disk"]) == (None, "ready", None)

    def test_one_that_does_not_run_says_nothing_of_use(self, deployed: Stage, token: str) -> None:
        identifier = a_notebook(deployed, token, "stopped")
        shown = deployed.http("GET", f"/notebooks/{identifier}", token).json_body
        assert (shown["stops_at"], shown["last_activity"], shown["run_started_at"], shown["url"]) == (None,) * 4
        assert shown["disk"] is None
        assert shown["link"].startswith(f"{API_URL}/n/{identifier}?k=")

    def test_events_come_newest_first_in_pages(self, deployed: Stage, token: str) -> None:
        identifier = a_notebook(deployed, token)
        lines = [
            Event(
                identifier, f"2026-11-22T14:05:0{n}.000Z", "keep", "active", "sweep", "a kernel is busy", None, {"n": n}
            )
            for n in range(5)
        ]
        deployed.app.ledger().write(lines)
        seen: list[Any] = []
        path, cursor = f"/notebooks/{identifier}/events?limit=2", ""
        while cursor is not None:
            page = deployed.http("GET", path + (f"&{urlencode({'next': cursor})}" if cursor else ""), token).json_body
            seen += page["events"]
            cursor = page["next"]
            assert len(seen) <= 6
        requested = seen.pop(0)
        assert (requested["action"], requested["code"]) == ("launch", "requested")
        assert [event["signals"]["n"] for event in seen] == [4, 3, 2, 1, 0]
        assert seen[0] == {
            "at": "2026-11-22T14:05:04.000Z",
            "action": "keep",
            "code": "active",
            "by": "sweep",
            "reason": "a kernel is busy",
            "stops_at": None,
            "signals": {"n": 4},
        }

    @pytest.mark.parametrize("query", ["limit=0", "next=x", "next=2026", "limit=1&limit=1"])
    def test_bad_queries_are_named(self, deployed: Stage, token: str, query: str) -> None:
        identifier = a_notebook(deployed, token)
        found = problem(deployed.http("GET", f"/notebooks/{identifier}/events?{query}", token), 422, "invalid_fields")
        assert found["errors"][0]["field"] == query.split("=", maxsplit=1)[0]

    @pytest.mark.parametrize(
        ("method", "verb"),
        [
            ("POST", "stop"),
            ("POST", "start"),
            ("POST", "extend"),
            ("POST", "password"),
            ("POST", "link"),
            ("GET", "events"),
        ],
    )
    def test_someone_elses_notebook_is_as_if_there_were_none(
        self, deployed: Stage, token: str, method: str, verb: str
    ) -> None:
        identifier = a_notebook(deployed, token)
        before = deployed.record(identifier)
        eve = user(deployed, "eve")
        for path in (identifier, "nb-" + "0" * 20, "x"):
            problem(
                deployed.http(method, f"/notebooks/{path}/{verb}", eve, {} if method == "POST" else None),
                404,
                "not_found",
            )
        problem(deployed.http(method, f"/notebooks/{identifier}/{verb}"), 401, "not_authenticated")
        assert deployed.record(identifier) == before


# --- people who come by a link ---


def page(response: HTTPResponse, status: int = 200) -> str:
    """The HTML of a page that has all that a page has to have."""
    assert response.status_code == status, response.body
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["Referrer-Policy"] == "no-referrer"
    policy = response.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "form-action 'self'; base-uri 'none'; frame-ancestors 'none'" in policy
    return response.body.decode()


def life(deployed: Stage, token: str, identifier: str) -> str:
    """Path and query of the link for life."""
    link = deployed.http("GET", f"/notebooks/{identifier}", token).json_body["link"]
    assert link.startswith(API_URL)
    return str(link.removeprefix(API_URL))


def form_of(html: str, action: str) -> dict[str, str]:
    """The hidden fields of the form of one action."""
    found = re.search(rf'<form method="post" action="[^"]*/{action}">(.*?)</form>', html)
    assert found, html
    return dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]+)">', found[1]))


def buttons(html: str) -> list[str]:
    return re.findall(r'<form method="post" action="[^"]*/(\w+)">', html)


def press(deployed: Stage, identifier: str, action: str, fields: dict[str, str]) -> HTTPResponse:
    return deployed.http("POST", f"/n/{identifier}/{action}", None, urlencode(fields).encode(), Content_Type=FORM)


def location(response: HTTPResponse) -> str:
    assert response.status_code == 303, response.body
    return str(response.headers["Location"])


def mail_link(deployed: Stage, identifier: str, action: str, now: datetime) -> str:
    notebook = deployed.app.notebooks().get(identifier)
    link = links.action_link(person(deployed).secret, action, notebook, now)
    assert link is not None
    return link.removeprefix(API_URL)


class TestTheLinkForLife:
    def test_it_opens_the_notebooks_page_which_says_what_the_browser_will_warn_of(
        self, deployed: Stage, token: str
    ) -> None:
        identifier = a_notebook(deployed, token, certificate_sha256=":".join(["AB"] * 32))
        link = life(deployed, token, identifier)
        html = page(deployed.http("GET", link))
        assert '<a class="button first" href="https://198.51.100.7:8888" rel="noreferrer">Open thesis</a>' in html
        assert html.index("Open thesis") < html.index("will warn you") < html.index(":".join(["AB"] * 32))
        assert form_of(html, "extend")["k"] == link.partition("=")[2]
        assert form_of(html, "stop")
        assert f'href="{link}"' in html, "to look again"
        stayed = page(deployed.http("GET", link + "&stay=1"))
        assert buttons(stayed) == buttons(html) == ["extend", "stop"], "links of messages before this one"

    @pytest.mark.parametrize(
        "state", ["requested", "launching", "starting", "stopping", "stopped", "failed", "terminated"]
    )
    def test_else_it_shows_a_page_and_changes_nothing(self, deployed: Stage, token: str, state: str) -> None:
        identifier = a_notebook(deployed, token, state)
        secret = person(deployed).secret
        link = f"/n/{identifier}?k={links.key(secret, deployed.app.notebooks().get(identifier))}"
        before = deployed.record(identifier)
        assert "thesis" in page(deployed.http("GET", link))
        assert deployed.record(identifier) == before

    def test_a_wrong_key_and_an_unknown_notebook_get_the_same_page_after_the_same_reads(
        self, deployed: Stage, token: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        identifier = a_notebook(deployed, token)
        other = a_notebook(deployed, token, name="other")
        key = life(deployed, token, other).partition("=")[2]
        client = deployed.app.clients.get("dynamodb")
        reads: list[int] = []
        get = client.get_item
        monkeypatch.setattr(client, "get_item", lambda **arguments: reads.append(1) or get(**arguments))
        answers = []
        for path in (
            f"/n/{identifier}?k={'A' * 32}",
            f"/n/{identifier}?k={key}",
            f"/n/{identifier}?k=",
            f"/n/{identifier}",
            f"/n/{identifier}?k=%00%ff",
            f"/n/nb-{'0' * 20}?k={key}",
        ):
            reads.clear()
            answers.append((page(deployed.http("GET", path), 404), len(reads)))
        assert len(set(answers)) == 1
        assert page(deployed.http("GET", "/n/x?k=" + key), 404) == answers[0][0]

    def test_a_new_link_ends_the_old_one_and_what_hangs_on_it(
        self, deployed: Stage, token: str, clock: list[datetime]
    ) -> None:
        identifier = a_notebook(deployed, token, "stopped")
        old = life(deployed, token, identifier)
        form = form_of(page(deployed.http("GET", old)), "wake")
        mail = mail_link(deployed, identifier, "wake", T0)
        answer = post(deployed, token, identifier, "link")
        assert answer.status_code == 202
        page(deployed.http("GET", old), 404)
        page(deployed.http("GET", mail), 403)
        page(press(deployed, identifier, "wake", form), 403)
        assert answer.json_body["link"] == API_URL + life(deployed, token, identifier)
        page(deployed.http("GET", life(deployed, token, identifier)))
        assert deployed.record(identifier)["state"] == {"S": "stopped"}

    def test_its_key_is_logged_nowhere(self, deployed: Stage, token: str) -> None:
        link = life(deployed, token, a_notebook(deployed, token))
        with logged() as lines:
            deployed.http("GET", link)
            deployed.http("GET", link[:-1])
        assert "/n/{notebook_id}" in lines.getvalue()
        assert link.partition("=")[2][:16] not in lines.getvalue()


class TestButtons:
    def test_the_wake_button_starts_it_and_leads_back_to_its_page(self, deployed: Stage, token: str) -> None:
        identifier = a_notebook(deployed, token, "stopped")
        link = life(deployed, token, identifier)
        answer = press(deployed, identifier, "wake", form_of(page(deployed.http("GET", link)), "wake"))
        assert location(answer) == link
        assert "waking up" in page(deployed.http("GET", link))
        assert len(deployed.executions("start")) == 1
        event = ledger(deployed, token, identifier)[0]
        assert (event["action"], event["by"], event["reason"]) == ("start", "link", "someone with ada's link woke it")

    def test_over_the_quota_the_page_names_what_runs_and_the_button_is_refused(self, deployed: Stage) -> None:
        eve = user(deployed, "eve", quota=1)
        identifier = str(request(deployed, eve, name="sleeper")["id"])
        deployed.change(identifier, state="stopped", instance_id=INSTANCE)
        deployed.dynamodb.update_item(
            TableName=ENV["NOD_USERS_TABLE"],
            Key={"id": {"S": person(deployed, "eve").id}},
            UpdateExpression="DELETE active :id",
            ExpressionAttributeValues={":id": {"SS": [identifier]}},
        )
        link = life(deployed, eve, identifier)
        form = form_of(page(deployed.http("GET", link)), "wake")
        request(deployed, eve, name="runner")
        html = page(deployed.http("GET", link))
        assert "runner" in html
        assert "<form" not in html
        assert "runner" in page(deployed.http("GET", location(press(deployed, identifier, "wake", form))))
        assert deployed.executions("start") == []

    def test_stop_and_extend_lead_to_what_became_of_them(
        self, deployed: Stage, token: str, clock: list[datetime]
    ) -> None:
        identifier = a_notebook(deployed, token)
        link = life(deployed, token, identifier)
        html = page(deployed.http("GET", link + "&stay=1"))
        done = location(press(deployed, identifier, "extend", form_of(html, "extend")))
        result = page(deployed.http("GET", done))
        assert "kept until 16:05 UTC" in result
        assert f'href="{link}"' in result, "who came with the key may go on to the notebook"
        done = location(press(deployed, identifier, "stop", form_of(html, "stop")))
        assert "thesis is stopping" in page(deployed.http("GET", done))
        again = location(press(deployed, identifier, "stop", form_of(html, "stop")))
        assert "It is already stopping" in page(deployed.http("GET", again))
        assert len(deployed.executions("stop")) == 1

    def test_an_old_or_other_form_does_nothing(self, deployed: Stage, token: str, clock: list[datetime]) -> None:
        identifier = a_notebook(deployed, token)
        other = a_notebook(deployed, token, name="other")
        form = form_of(page(deployed.http("GET", life(deployed, token, identifier) + "&stay=1")), "extend")
        mail = urlsplit(mail_link(deployed, identifier, "stop", T0)).query.partition("=")[2]
        before = deployed.record(identifier), deployed.record(other)
        key = form["k"]
        back = f"/n/{identifier}?k={key}&note="
        assert location(press(deployed, identifier, "stop", form)) == back + "other"
        page(press(deployed, other, "extend", form), 403)
        page(press(deployed, identifier, "stop", {"f": mail}), 403)
        page(press(deployed, identifier, "stop", {}), 403)
        page(press(deployed, f"nb-{'0' * 20}", "stop", form), 403)
        page(press(deployed, identifier, "delete", {"f": form["f"]}), 404)
        clock[0] = T0 + timedelta(minutes=10)
        assert location(press(deployed, identifier, "extend", form)) == back + "old-page"
        assert (deployed.record(identifier), deployed.record(other)) == before
        assert deployed.executions("stop") == []

    @pytest.mark.parametrize(
        ("body", "content_type", "status"),
        [
            (b"f=1&f=2", FORM, 400),
            (b"f=%ff", FORM, 400),
            (b"\xff", FORM, 400),
            (b"f", FORM, 400),
            (b"&".join(b"a%d=1" % n for n in range(30)), FORM, 400),
            (b"f=1&x=2", FORM, 422),
            (b"f=" + b"x" * 70_000, FORM, 413),
            (b'{"f": "1"}', "application/json", 415),
            (b"f=1", "multipart/form-data; boundary=x", 415),
            (b"f=1", FORM + "; charset=utf-16", 415),
            (b"f=1", FORM + "; charset=UTF-8", 403),
        ],
    )
    def test_odd_bodies_are_refused_with_a_page(
        self, deployed: Stage, token: str, body: bytes, content_type: str, status: int
    ) -> None:
        identifier = a_notebook(deployed, token)
        page(deployed.http("POST", f"/n/{identifier}/stop", None, body, Content_Type=content_type), status)

    def test_a_form_without_a_media_type_is_refused(self, deployed: Stage, token: str) -> None:
        identifier = a_notebook(deployed, token)
        page(deployed.http("POST", f"/n/{identifier}/stop", None, b"f=1", Content_Type=""), 415)


class TestLinksOfMessages:
    def test_a_warning_leads_to_a_button_that_keeps_it(
        self, deployed: Stage, clock: list[datetime], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        token = user(deployed, email="ada@example.org")
        warned = {"at": "2026-11-22T14:04:00Z", "stops_at": "2026-11-22T14:15:00.000Z", "code": "idle"}
        identifier = a_notebook(deployed, token, warned=warned)
        sent: list[Message] = []
        monkeypatch.setattr(Topic, "publish", lambda _self, message: sent.append(message))
        assert deployed.app.tell_owner({"id": identifier, "kind": "warned"}, None) == {"published": True}
        keep, stop = (re.search(rf"{API_URL}(/n/\S+/{action}\?t=\S+)", sent[0].text) for action in ("extend", "stop"))
        assert keep
        assert stop
        before = deployed.record(identifier)
        html = page(deployed.http("GET", keep[1]))
        assert "Keep thesis 2 hours?" in html
        page(deployed.http("GET", stop[1]))
        assert deployed.record(identifier) == before, "a mail scanner may follow links"
        form = form_of(html, "extend")
        assert set(form) == {"f"}
        done = location(press(deployed, identifier, "extend", form))
        result = page(deployed.http("GET", done))
        assert "kept until 16:05 UTC" in result
        assert "198.51.100.7" not in result
        assert "?k=" not in result, "who came by a message gets no more than that"
        assert deployed.record(identifier)["hold_until"] == {"S": "2026-11-22T16:05:00.000Z"}
        clock[0] = T0 + timedelta(minutes=11)
        page(deployed.http("GET", done), 410)

    def test_an_expired_forged_or_foreign_link_shows_why_and_no_button(
        self, deployed: Stage, token: str, clock: list[datetime]
    ) -> None:
        identifier = a_notebook(deployed, token)
        other = a_notebook(deployed, token, name="other")
        link = mail_link(deployed, identifier, "stop", T0)
        for path in (
            link[:-1] + ("A" if link[-1] != "A" else "B"),
            link.replace(identifier, other),
            link.replace(identifier, f"nb-{'0' * 20}"),
            link.replace(identifier, "x"),
            link.replace("/stop?", "/extend?"),
            link.replace("?t=", "?d="),
            f"/n/{identifier}/stop",
        ):
            assert "<form" not in page(deployed.http("GET", path), 403)
        page(deployed.http("GET", link.replace("/stop?", "/explode?")), 404)
        clock[0] = T0 + timedelta(hours=2)
        assert "too old" in page(deployed.http("GET", link), 410)
        page(deployed.http("GET", link + "&t=1"), 422)

    def test_a_link_to_what_is_not_possible_any_more_says_so(self, deployed: Stage, token: str) -> None:
        identifier = a_notebook(deployed, token, "stopped")
        html = page(deployed.http("GET", mail_link(deployed, identifier, "stop", datetime.now(UTC))))
        assert "There is nothing to stop now." in html
        assert buttons(html) == ["wake"]

    def test_who_wakes_it_without_the_key_sees_how_far_it_is(self, deployed: Stage, token: str) -> None:
        identifier = a_notebook(deployed, token, "stopped")
        form = form_of(page(deployed.http("GET", mail_link(deployed, identifier, "wake", datetime.now(UTC)))), "wake")
        done = location(press(deployed, identifier, "wake", form))
        html = page(deployed.http("GET", done))
        assert 'http-equiv="refresh"' in html
        deployed.change(identifier, state="ready")
        html = page(deployed.http("GET", done))
        assert "is running" in html
        assert "198.51.100.7" not in html


class TestErrorsOfPages:
    @pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "OPTIONS"])
    @pytest.mark.parametrize("path", ["", "/stop"])
    def test_other_methods_are_refused_with_a_page(self, deployed: Stage, token: str, method: str, path: str) -> None:
        response = deployed.http(method, f"/n/{a_notebook(deployed, token)}{path}")
        page(response, 405)
        assert response.headers["Allow"] == ("GET, HEAD, POST" if path else "GET, HEAD")

    def test_a_table_that_does_not_answer_is_a_page_too(self, deployed: Stage, token: str) -> None:
        link = life(deployed, token, a_notebook(deployed, token))
        deployed.dynamodb.delete_table(TableName=ENV["NOD_NOTEBOOKS_TABLE"])
        response = deployed.http("GET", link)
        page(response, 503)
        assert int(response.headers["Retry-After"]) > 0

    def test_an_error_nobody_foresaw_is_a_page_without_its_text(
        self, deployed: Stage, token: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        link = life(deployed, token, a_notebook(deployed, token))

        def fail(*_: object) -> None:
            raise ZeroDivisionError(CANARY)

        monkeypatch.setattr(NotebooksTable, "get", fail)
        assert CANARY not in page(deployed.http("GET", link), 500)


class TestWhereTheApiIs:
    def test_api_gateways_own_context_counts_and_no_header(
        self, deployed: Stage, token: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("NOD_API_URL")
        deployed.app.settings.cache_clear()
        event = deployed._client.http._local_gateway.event_converter.create_lambda_event(
            method="POST",
            path="/notebooks",
            headers={"authorization": f"Bearer {token}", "content-type": "application/json", "host": "evil.example"},
            body=b"{}",
        )
        event["requestContext"] |= {"domainName": "abc.execute-api.us-east-1.amazonaws.com", "path": "/api/notebooks"}
        answer = json.loads(deployed.app.app(event, None)["body"])
        assert answer["link"].startswith(f"https://abc.execute-api.us-east-1.amazonaws.com/api/n/{answer['id']}?k=")
        assert "evil" not in json.dumps(answer)

    def test_without_any_there_is_no_link_until_one_is_asked_for(
        self, deployed: Stage, token: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("NOD_API_URL")
        deployed.app.settings.cache_clear()
        identifier = a_notebook(deployed, token)
        assert deployed.http("GET", f"/notebooks/{identifier}", token).json_body["link"] is None
        monkeypatch.setenv("NOD_API_URL", "https://nod.example/")
        deployed.app.settings.cache_clear()
        link = post(deployed, token, identifier, "link").json_body["link"]
        assert link.startswith(f"https://nod.example/n/{identifier}?k=")
