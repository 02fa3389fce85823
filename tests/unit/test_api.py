"""The HTTP API as Chalice serves it, over tables in moto."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from threading import Lock
from typing import Any

import pytest
from chalice.test import HTTPResponse

from chalicelib.actions.launching import Launching
from chalicelib.aws.notebooks import NotebooksTable
from chalicelib.aws.workflows import Workflows
from chalicelib.errors import Unavailable
from chalicelib.notebook.moves import Move
from tests.unit.stage import ENV, Stage, logged, person, stage, user

CANARY = "canary-Pa55word-4711"


@pytest.fixture
def deployed() -> Iterator[Stage]:
    with stage() as found:
        yield found


@pytest.fixture
def token(deployed: Stage) -> str:
    return user(deployed)


def problem(response: HTTPResponse, status: int, code: str) -> Any:
    document = response.json_body
    assert response.status_code == status, response.body
    assert response.headers["Content-Type"] == "application/problem+json"
    assert (document["status"], document["code"]) == (status, code)
    assert document["title"]
    assert document["detail"]
    return document


def request(deployed: Stage, token: str, **body: Any) -> Any:
    response = deployed.http("POST", "/notebooks", token, body)
    assert response.status_code == 202, response.body
    return response.json_body


def owner(deployed: Stage) -> Any:
    return person(deployed)


def launching(deployed: Stage) -> Launching:
    """What the view calls: Chalice's test client has one current request for all."""
    app = deployed.app
    return Launching(app.notebooks(), app.workflows, app.showing(), lambda _seconds: None)


class TestRequesting:
    def test_one_post_writes_the_record_starts_the_launch_and_shows_the_password_once(
        self, deployed: Stage, token: str
    ) -> None:
        notebook = request(deployed, token, name="thesis")
        assert notebook["state"] == "requested"
        assert len(notebook["password"]) == 34
        (execution,) = deployed.executions("launch")
        assert execution["name"] == notebook["id"]
        shown = deployed.http("GET", f"/notebooks/{notebook['id']}", token).json_body
        assert "password" not in shown
        assert shown == {key: notebook[key] for key in shown}

    def test_the_plan_that_starts_is_complete(self, deployed: Stage, token: str) -> None:
        notebook = request(deployed, token)
        arn = deployed.executions("launch")[0]["executionArn"]
        plan = json.loads(deployed.stepfunctions.describe_execution(executionArn=arn)["input"])
        assert plan["id"] == notebook["id"]
        assert plan["password_hash"] == deployed.record(notebook["id"])["password_hash"]["S"]

    def test_a_chosen_password_is_kept_as_a_hash_only(self, deployed: Stage, token: str) -> None:
        with logged() as lines:
            notebook = request(deployed, token, password=CANARY)
        assert notebook["password"] is None
        arn = deployed.executions("launch")[0]["executionArn"]
        everything = [
            deployed.dynamodb.scan(TableName=ENV["NOD_NOTEBOOKS_TABLE"])["Items"],
            deployed.dynamodb.scan(TableName=ENV["NOD_USERS_TABLE"])["Items"],
            deployed.stepfunctions.describe_execution(executionArn=arn)["input"],
            lines.getvalue(),
        ]
        assert all(everything)
        assert CANARY not in repr(everything)
        assert token.split(".")[2] not in repr(everything)

    @pytest.mark.parametrize("headers", [{}, {"Content_Type": "application/x-www-form-urlencoded"}])
    def test_a_post_without_a_body_takes_the_defaults(
        self, deployed: Stage, token: str, headers: dict[str, str]
    ) -> None:
        response = deployed.http("POST", "/notebooks", token, **headers)
        assert response.status_code == 202, response.body
        default = request(deployed, token)
        for name in ("instance_type", "volume_gib", "idle_minutes", "max_hours", "environment", "notify"):
            assert response.json_body.get(name) == default.get(name)

    def test_the_same_key_without_a_body_is_the_same_request(self, deployed: Stage, token: str) -> None:
        first = deployed.http("POST", "/notebooks", token, Idempotency_Key="k")
        again = deployed.http("POST", "/notebooks", token, {}, Idempotency_Key="k")
        assert (first.status_code, again.status_code) == (202, 202)
        assert first.json_body["id"] == again.json_body["id"]

    def test_a_new_password_needs_no_body_either(self, deployed: Stage, token: str) -> None:
        notebook = request(deployed, token)
        deployed.change(notebook["id"], state="ready", instance_id="i-0123456789abcdef0")
        answer = deployed.http("POST", f"/notebooks/{notebook['id']}/password", token)
        assert answer.status_code == 202, answer.body
        assert len(answer.json_body["password"]) == 34

    def test_a_small_machine_gets_a_warning(self, deployed: Stage, token: str) -> None:
        assert request(deployed, token, instance_type="t3.micro")["warnings"]
        assert request(deployed, token)["warnings"] == []

    def test_the_quota_holds_and_is_free_again_after_the_end(self, deployed: Stage) -> None:
        token = user(deployed, "eve", quota=1)
        first = request(deployed, token)
        problem(deployed.http("POST", "/notebooks", token, {}), 409, "quota_exceeded")
        assert deployed.count() == 1
        deployed.dynamodb.update_item(
            TableName=ENV["NOD_USERS_TABLE"],
            Key={"id": {"S": person(deployed, "eve").id}},
            UpdateExpression="DELETE active :id",
            ExpressionAttributeValues={":id": {"SS": [first["id"]]}},
        )
        assert request(deployed, token)["id"] != first["id"]

    def test_a_quota_of_none_allows_none(self, deployed: Stage) -> None:
        token = user(deployed, "eve", quota=0)
        problem(deployed.http("POST", "/notebooks", token, {}), 409, "quota_exceeded")

    def test_a_forbidden_type_is_named_with_those_allowed(self, deployed: Stage) -> None:
        token = user(deployed, "eve", allowed_types=["t3.medium"])
        found = problem(deployed.http("POST", "/notebooks", token, {"instance_type": "g5.xlarge"}), 403, "not_allowed")
        assert found["errors"] == [
            {"field": "instance_type", "message": "Your user may not have this type.", "allowed": "t3.medium"}
        ]
        assert deployed.count() == 0

    def test_no_type_is_proposed_that_the_user_may_not_have(self, deployed: Stage) -> None:
        token = user(deployed, "eve", allowed_types=["t3.medium", "t3.large"])
        for wrong in ("t3.huge", "g5.xlarg", 7):
            response = deployed.http("POST", "/notebooks", token, {"instance_type": wrong})
            found = problem(response, 422, "invalid_fields")
            assert found["errors"][0]["allowed"] == "t3.medium, t3.large"
            assert found["detail"].endswith("Allowed: t3.medium, t3.large.")

    def test_a_launch_is_not_stopped_but_cancelled_and_the_refusal_says_how(self, deployed: Stage, token: str) -> None:
        notebook = request(deployed, token, name="thesis")
        for state in ("requested", "launching"):
            deployed.change(notebook["id"], state=state)
            response = deployed.http("POST", f"/notebooks/{notebook['id']}/stop", token)
            detail = problem(response, 409, "wrong_state")["detail"]
            assert f"`nod cancel {notebook['id']}`" in detail
            assert f"DELETE /notebooks/{notebook['id']}?confirm=thesis" in detail
        gone = deployed.http("DELETE", f"/notebooks/{notebook['id']}?confirm=thesis", token)
        assert gone.json_body["state"] == "terminating"

    def test_a_channel_of_someone_else_is_refused(self, deployed: Stage, token: str) -> None:
        response = deployed.http("POST", "/notebooks", token, {"notify": ["slack:team"]})
        problem(response, 409, "channel_not_registered")
        assert deployed.count() == 0

    @pytest.mark.parametrize(
        ("body", "headers", "status", "code"),
        [
            (b" ", {}, 400, "malformed_body"),
            (b"{", {}, 400, "malformed_body"),
            (b"[" * 30000, {}, 400, "malformed_body"),
            (b'{"name": "\xff"}', {}, 400, "malformed_body"),
            (b" " * 70000, {}, 413, "body_too_large"),
            (b"{}", {"Content_Type": "text/plain"}, 415, "unsupported_media_type"),
            (b"\x00\x01", {"Content_Type": "application/octet-stream"}, 415, "unsupported_media_type"),
            ({"color": "red"}, {}, 422, "invalid_fields"),
            ({"volume_gib": 1}, {}, 422, "invalid_fields"),
            ({"purchase": "spot"}, {}, 422, "invalid_fields"),
            ({}, {"Idempotency_Key": "with space"}, 422, "invalid_fields"),
            ({}, {"Idempotency_Key": "k" * 256}, 422, "invalid_fields"),
            ({}, {"Idempotency_Key": ""}, 422, "invalid_fields"),
        ],
    )
    def test_bad_input_is_refused_and_leaves_nothing(
        self, deployed: Stage, token: str, body: Any, headers: dict[str, str], status: int, code: str
    ) -> None:
        problem(deployed.http("POST", "/notebooks", token, body, **headers), status, code)
        assert deployed.count() == 0
        assert deployed.executions("launch") == []


class TestReplay:
    def test_the_same_key_answers_the_same_notebook_without_the_password(self, deployed: Stage, token: str) -> None:
        first = deployed.http("POST", "/notebooks", token, {"name": "a"}, Idempotency_Key="k").json_body
        again = deployed.http("POST", "/notebooks", token, {"name": "a"}, Idempotency_Key="k")
        assert again.status_code == 202
        assert again.json_body["id"] == first["id"]
        assert again.json_body["password"] is None
        assert "set a new one" in again.json_body["message"]
        assert (deployed.count(), len(deployed.executions("launch"))) == (1, 1)

    def test_the_same_key_with_another_body_is_refused(self, deployed: Stage, token: str) -> None:
        deployed.http("POST", "/notebooks", token, {"name": "a"}, Idempotency_Key="k")
        response = deployed.http("POST", "/notebooks", token, {"name": "b"}, Idempotency_Key="k")
        problem(response, 422, "idempotency_key_reused")
        assert deployed.count() == 1

    def test_the_same_key_of_someone_else_is_another_notebook(self, deployed: Stage, token: str) -> None:
        one = deployed.http("POST", "/notebooks", token, {}, Idempotency_Key="k").json_body
        other = deployed.http("POST", "/notebooks", user(deployed, "bob"), {}, Idempotency_Key="k").json_body
        assert one["id"] != other["id"]

    def test_a_replay_counts_once_even_when_the_quota_is_used_up(self, deployed: Stage) -> None:
        token = user(deployed, "eve", quota=1)
        for _ in range(3):
            assert deployed.http("POST", "/notebooks", token, {}, Idempotency_Key="k").status_code == 202
        assert deployed.count() == 1

    def test_a_replay_starts_a_launch_that_was_recorded_but_never_started(
        self, deployed: Stage, token: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patched:
            # The process dies between record and start.
            patched.setattr(Workflows, "start", lambda *_: True)
            first = deployed.http("POST", "/notebooks", token, {}, Idempotency_Key="k").json_body
        assert deployed.executions("launch") == []
        deployed.http("POST", "/notebooks", token, {}, Idempotency_Key="k")
        assert [execution["name"] for execution in deployed.executions("launch")] == [first["id"]]

    def test_many_equal_posts_side_by_side_make_one_notebook(self, deployed: Stage, token: str) -> None:
        ada = owner(deployed)

        def post(_: int) -> Any:
            return launching(deployed).request({"name": "a"}, "k", ada, api_url=None, now=datetime.now(UTC))

        # DynamoDB's writes are atomic; moto's are not, under threads: a transaction copies rows that others change.
        dynamodb, lock = deployed.app.clients.get("dynamodb"), Lock()

        def atomically(write: Callable[..., Any]) -> Callable[..., Any]:
            def written(**arguments: Any) -> Any:
                with lock:
                    return write(**arguments)

            return written

        for name in ("transact_write_items", "update_item", "put_item", "delete_item"):
            setattr(dynamodb, name, atomically(getattr(dynamodb, name)))
        with ThreadPoolExecutor(20) as pool:
            answers = list(pool.map(post, range(40)))
        assert len({answer.id for answer in answers}) == 1
        assert sum(answer.password is not None for answer in answers) == 1
        assert (deployed.count(), len(deployed.executions("launch"))) == (1, 1)


class TestTrouble:
    def test_when_the_launch_cannot_start_nothing_is_left(
        self, deployed: Stage, token: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: object) -> bool:
            raise Unavailable("Step Functions did not answer.")

        monkeypatch.setattr(Workflows, "start", refuse)
        response = deployed.http("POST", "/notebooks", token, {})
        problem(response, 503, "unavailable")
        assert int(response.headers["Retry-After"]) > 0
        assert deployed.count() == 0
        assert person(deployed).active == frozenset()

    def test_a_state_machine_that_is_gone_is_unavailable(self, deployed: Stage, token: str) -> None:
        deployed.stepfunctions.delete_state_machine(stateMachineArn=ENV["NOD_LAUNCH_ARN"])
        problem(deployed.http("POST", "/notebooks", token, {}), 503, "unavailable")
        assert deployed.count() == 0

    def test_a_launch_that_began_though_its_answer_was_lost_is_kept(
        self, deployed: Stage, token: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def start(_self: object, _arn: str, name: str, _document: object) -> bool:
            deployed.change(name, state="launching")
            raise Unavailable("The answer was lost.")

        monkeypatch.setattr(Workflows, "start", start)
        notebook = request(deployed, token)
        assert deployed.record(notebook["id"])["state"] == {"S": "launching"}

    @pytest.mark.parametrize("by", ["the request itself", "a replay"])
    def test_a_launch_that_was_started_though_the_start_failed_is_kept_with_its_password(
        self, deployed: Stage, token: str, monkeypatch: pytest.MonkeyPatch, by: str
    ) -> None:
        start = Workflows.start
        replayed: list[Any] = []

        def lose_the_answer(*arguments: Any) -> bool:
            monkeypatch.setattr(Workflows, "start", start)
            if by == "a replay":
                replayed.append(
                    launching(deployed).request({}, "k", owner(deployed), api_url=None, now=datetime.now(UTC))
                )
            else:
                start(*arguments)
            raise Unavailable("The answer was lost.")

        monkeypatch.setattr(Workflows, "start", lose_the_answer)
        notebook = launching(deployed).request({}, "k", owner(deployed), api_url=None, now=datetime.now(UTC))
        assert notebook.password is not None
        assert [again.password for again in replayed] == ([None] if by == "a replay" else [])
        assert deployed.record(notebook.id)["state"] == {"S": "requested"}
        assert [execution["name"] for execution in deployed.executions("launch")] == [notebook.id]
        assert owner(deployed).active == {notebook.id}

    def test_a_record_that_a_replay_has_in_hand_is_not_taken_back(
        self, deployed: Stage, token: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(_self: object, _arn: str, name: str, _document: object) -> bool:
            # A replay read the record before, and is about to start it.
            table = deployed.app.notebooks()
            table.take_over(table.get(name))
            raise Unavailable("Step Functions did not answer.")

        with monkeypatch.context() as patched:
            patched.setattr(Workflows, "start", refuse)
            problem(deployed.http("POST", "/notebooks", token, {}, Idempotency_Key="k"), 503, "unavailable")
        assert deployed.count() == 1
        again = deployed.http("POST", "/notebooks", token, {}, Idempotency_Key="k").json_body
        assert [execution["name"] for execution in deployed.executions("launch")] == [again["id"]]

    def test_a_replay_whose_record_is_taken_back_under_it_starts_nothing(
        self, deployed: Stage, token: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(Workflows, "start", lambda *_: True)
            identifier = deployed.http("POST", "/notebooks", token, {}, Idempotency_Key="k").json_body["id"]
        table = deployed.app.notebooks()
        known = table.get(identifier)
        assert table.take_back(known)
        monkeypatch.setattr(NotebooksTable, "get", lambda *_: known)
        problem(deployed.http("POST", "/notebooks", token, {}, Idempotency_Key="k"), 503, "unavailable")
        assert (deployed.count(), deployed.executions("launch")) == (0, [])

    def test_when_nobody_can_tell_whether_it_began_the_record_stays_and_the_answer_says_so(
        self, deployed: Stage, token: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: object) -> bool:
            raise Unavailable("Step Functions did not answer.")

        with monkeypatch.context() as patched:
            patched.setattr(Workflows, "start", refuse)
            patched.setattr(Workflows, "exists", refuse)
            response = deployed.http("POST", "/notebooks", token, {}, Idempotency_Key="k")
        detail = problem(response, 503, "unavailable")["detail"]
        (identifier,) = owner(deployed).active
        assert identifier in detail
        assert deployed.executions("launch") == []
        again = deployed.http("POST", "/notebooks", token, {}, Idempotency_Key="k").json_body
        assert [execution["name"] for execution in deployed.executions("launch")] == [again["id"]] == [identifier]

    def test_a_key_whose_record_expired_is_refused_and_leaves_nothing(
        self, deployed: Stage, token: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Records of what is over go after 30 days, names of executions are taken for 90.
        states = deployed.app.clients.get("stepfunctions")
        taken = states.exceptions.ExecutionAlreadyExists(
            {"Error": {"Code": "ExecutionAlreadyExists"}}, "StartExecution"
        )

        def refuse(**_: Any) -> None:
            raise taken

        monkeypatch.setattr(states, "start_execution", refuse)
        response = deployed.http("POST", "/notebooks", token, {}, Idempotency_Key="k")
        problem(response, 422, "idempotency_key_reused")
        assert deployed.count() == 0
        assert owner(deployed).active == owner(deployed).untold == frozenset()

    def test_a_table_that_does_not_answer_is_unavailable(self, deployed: Stage, token: str) -> None:
        deployed.dynamodb.delete_table(TableName=ENV["NOD_NOTEBOOKS_TABLE"])
        problem(deployed.http("GET", "/notebooks", token), 503, "unavailable")
        deployed.dynamodb.delete_table(TableName=ENV["NOD_USERS_TABLE"])
        problem(deployed.http("GET", "/notebooks", token), 503, "unavailable")

    def test_an_error_nobody_foresaw_is_a_problem_without_its_text(
        self, deployed: Stage, token: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object) -> None:
            raise ZeroDivisionError(CANARY)

        monkeypatch.setattr(NotebooksTable, "page_of", fail)
        response = deployed.http("GET", "/notebooks", token)
        problem(response, 500, "internal_server_error")
        assert CANARY.encode() not in response.body


class TestAuthentication:
    @pytest.mark.parametrize(
        "header",
        [None, "", "Bearer ", "Bearer x", "Bearer nod.ada." + "A" * 43, "Bearer nod.nobody." + "A" * 43, "Basic YTpi"],
    )
    @pytest.mark.parametrize(
        ("method", "path"), [("GET", "/notebooks"), ("POST", "/notebooks"), ("DELETE", "/notebooks/x")]
    )
    def test_without_a_valid_token_there_is_one_answer(
        self, deployed: Stage, token: str, header: str | None, method: str, path: str
    ) -> None:
        assert token
        headers = {} if header is None else {"Authorization": header}
        response = deployed.http(method, path, body={} if method == "POST" else None, **headers)
        document = problem(response, 401, "not_authenticated")
        assert document["detail"] == "Send a valid token as `Authorization: Bearer nod.USER.SECRET`."
        assert response.headers["WWW-Authenticate"] == 'Bearer realm="nod"'
        assert deployed.count() == 0

    def test_someone_elses_notebook_is_as_if_there_were_none(self, deployed: Stage, token: str) -> None:
        notebook = request(deployed, token)
        eve = user(deployed, "eve")
        path = f"/notebooks/{notebook['id']}"
        absent = "/notebooks/nb-" + "0" * 20
        for method, suffix in (("GET", ""), ("DELETE", ""), ("DELETE", f"?confirm={notebook['name']}")):
            mine = problem(deployed.http(method, path + suffix, eve), 404, "not_found")
            none = problem(deployed.http(method, absent + suffix, eve), 404, "not_found")
            assert mine["detail"].replace(notebook["id"], "ID") == none["detail"].replace(absent[11:], "ID")
        assert deployed.http("GET", "/notebooks", eve).json_body == {"notebooks": [], "next": None}
        assert deployed.record(notebook["id"])["state"] == {"S": "requested"}

    @pytest.mark.parametrize("identifier", ["x", "nb-", "nb-" + "g" * 20, "NB-" + "0" * 20, "%00", "..", "a" * 3000])
    def test_what_is_no_id_is_not_found(self, deployed: Stage, token: str, identifier: str) -> None:
        problem(deployed.http("GET", f"/notebooks/{identifier}", token), 404, "not_found")


class TestLists:
    def test_pages_go_from_new_to_old_and_hold_each_once(self, deployed: Stage) -> None:
        token = user(deployed, "eve", quota=10)
        ids = [request(deployed, token)["id"] for _ in range(5)]
        for number, identifier in enumerate(ids):
            deployed.change(identifier, created_at=f"2026-11-22T14:05:00.{number:03}Z")
        seen, cursor = [], ""
        while cursor is not None:
            page = deployed.http("GET", f"/notebooks?limit=2{cursor and '&next='}{cursor}", token).json_body
            seen += [notebook["id"] for notebook in page["notebooks"]]
            cursor = page["next"]
            assert len(seen) <= 5
        assert seen == ids[::-1]

    @pytest.mark.parametrize("query", ["limit=0", "limit=x", "limit=", "next=x", "limit=1&limit=2"])
    def test_bad_queries_are_named(self, deployed: Stage, token: str, query: str) -> None:
        found = problem(deployed.http("GET", f"/notebooks?{query}", token), 422, "invalid_fields")
        assert found["errors"][0]["field"] == query.split("=", maxsplit=1)[0]


class TestDeleting:
    def test_without_the_name_nothing_happens(self, deployed: Stage, token: str) -> None:
        notebook = request(deployed, token, name="thesis")
        deployed.change(notebook["id"], state="ready")
        for suffix in ("", "?confirm=", "?confirm=other"):
            found = problem(
                deployed.http("DELETE", f"/notebooks/{notebook['id']}{suffix}", token), 409, "confirmation_needed"
            )
            assert "30 GiB" in found["detail"]
            assert found["errors"][0]["allowed"] == "thesis"
        assert deployed.executions("terminate") == []
        assert deployed.record(notebook["id"])["state"] == {"S": "ready"}

    @pytest.mark.parametrize("state", ["requested", "launching", "ready", "failed", "stopping", "stopped", "starting"])
    def test_with_the_name_it_is_removed_once(self, deployed: Stage, token: str, state: str) -> None:
        notebook = request(deployed, token, name="thesis")
        deployed.change(notebook["id"], state=state)
        for _ in range(3):
            response = deployed.http("DELETE", f"/notebooks/{notebook['id']}?confirm=thesis", token)
            assert (response.status_code, response.json_body["state"]) == (202, "terminating")
        (execution,) = deployed.executions("terminate")
        assert execution["name"] == f"{notebook['id']}-delete"
        arn = execution["executionArn"]
        assert json.loads(deployed.stepfunctions.describe_execution(executionArn=arn)["input"]) == {
            "id": notebook["id"],
            "owner": person(deployed).id,
            "name": "thesis",
            "requested_by": person(deployed).id,
        }
        deployed.change(notebook["id"], state="terminated")
        assert deployed.http("DELETE", f"/notebooks/{notebook['id']}", token).status_code == 202

    def test_a_delete_that_failed_can_be_asked_for_again(self, deployed: Stage, token: str) -> None:
        path = f"/notebooks/{(notebook := request(deployed, token, name='thesis'))['id']}?confirm=thesis"
        deployed.http("DELETE", path, token)
        deployed.change(notebook["id"], state="failed")
        assert deployed.http("DELETE", path, token).status_code == 202
        names = {execution["name"] for execution in deployed.executions("terminate")}
        assert names == {f"{notebook['id']}-delete", f"{notebook['id']}-delete-2"}

    def test_a_state_that_moves_meanwhile_is_read_again(
        self, deployed: Stage, token: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        notebook = request(deployed, token, name="thesis")
        move = NotebooksTable.move
        seen = []

        def moved(self: NotebooksTable, wanted: Move) -> Any:
            seen.append(wanted.notebook.state)
            if len(seen) == 1:
                deployed.change(wanted.notebook.id, state="launching")
            return move(self, wanted)

        monkeypatch.setattr(NotebooksTable, "move", moved)
        assert deployed.http("DELETE", f"/notebooks/{notebook['id']}?confirm=thesis", token).status_code == 202
        assert seen == ["requested", "launching"]


class TestTheRest:
    def test_health_asks_no_token(self, deployed: Stage) -> None:
        response = deployed.http("GET", "/health")
        assert (response.status_code, response.json_body["status"]) == (200, "ok")

    @pytest.mark.parametrize("path", ["/notebooks", "/notebooks/nb-0", "/health", "/openapi.json"])
    def test_a_wrong_method_is_a_problem_that_names_the_right_ones(
        self, deployed: Stage, token: str, path: str
    ) -> None:
        response = deployed.http("PATCH", path, token)
        problem(response, 405, "method_not_allowed")
        assert "GET" in response.headers["Allow"]
        assert "PATCH" not in response.headers["Allow"]

    def test_a_get_may_name_any_content_type(self, deployed: Stage, token: str) -> None:
        assert deployed.http("GET", "/notebooks", token, Content_Type="text/plain").status_code == 200

    def test_answers_are_not_to_be_cached(self, deployed: Stage, token: str) -> None:
        assert deployed.http("GET", "/notebooks", token).headers["Cache-Control"] == "no-store"

    def test_what_is_put_in_the_place_of_an_id_is_not_logged(self, deployed: Stage, token: str) -> None:
        """A token by mistake, or a link whose question mark was encoded."""
        key = "nb-" + "0" * 20 + "?k=canary-link-key"
        with logged() as log:
            for path in (
                f"/notebooks/{token}",
                f"/notebooks/{key.replace('?', '%3F')}",
                f"/n/{key.replace('?', '%3F')}",
            ):
                assert deployed.http("GET", path, token).status_code == 404
        assert log.getvalue().count('"status":404') == 3
        assert token.split(".")[2] not in log.getvalue()
        assert "canary-link-key" not in log.getvalue()

    def test_log_lines_carry_the_id_and_no_secret(self, deployed: Stage, token: str) -> None:
        with logged() as log:
            notebook = request(deployed, token, password=CANARY)
            deployed.http("GET", f"/notebooks/{notebook['id']}", token)
        lines = [json.loads(line) for line in log.getvalue().splitlines()]
        assert [line["notebook"] for line in lines] == [notebook["id"]] * 3
        assert token.split(".")[2] not in repr(lines)
        assert CANARY not in repr(lines)
