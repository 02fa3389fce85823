"""Each line of the log names its notebook and execution, whichever function writes it, and names no other's."""

from __future__ import annotations

import ast
import json
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from chalice.app import EventSourceHandler
from chalice.test import Client

from chalicelib.actions import explaining
from chalicelib.aws.slack import post
from chalicelib.aws.topic import Topic
from chalicelib.errors import CommandPending, DeliveryFailed
from chalicelib.executions import notebook_of
from chalicelib.log import KEYS, about, carried, invocation, logger, note
from tests.lines import Line, Lines, captured, wrong
from tests.unit.stage import ROOT, STAGE, Stage, person, stage, user
from tests.unit.sweep_world import World, world
from tests.unit.test_functions import SCHEDULED, command_event, instance_event
from tests.unit.test_sweep import after, end, refuse, to_the_stop

INSTANCE = "i-0123456789abcdef0"
ONE, OTHER = "nb-" + "1" * 20, "nb-" + "2" * 20


class Context:
    """Lambda's, with an id of its own."""

    def __init__(self, name: str = "1") -> None:
        self.aws_request_id = f"request-{name}"

    def get_remaining_time_in_millis(self) -> int:
        return 900_000


@pytest.fixture
def deployed() -> Iterator[Stage]:
    with stage() as found:
        yield found


@pytest.fixture
def lines() -> Iterator[Lines]:
    with captured() as found:
        yield found


@pytest.fixture
def token(deployed: Stage) -> str:
    return user(deployed, "ada", email="ada@example.com", quota=9)


@pytest.fixture
def notebook(deployed: Stage, token: str) -> str:
    made = str(deployed.http("POST", "/notebooks", token, {"name": "thesis"}).json_body["id"])
    deployed.change(made, state="ready", instance_id=INSTANCE, address="198.51.100.7")
    return made


def named(found: list[Line]) -> set[tuple[str | None, str | None]]:
    assert found
    return {(line["notebook"], line["execution"]) for line in found}


# --- every function ---


def functions(deployed: Stage) -> dict[str, EventSourceHandler]:
    """All but the API's."""
    return {name: one for name, one in deployed.app.app.handler_map.items() if isinstance(one, EventSourceHandler)}


# Of what runs by a schedule, the lines that are about no single notebook.
SUMMARIES = {
    "check_confirmations": {"address confirmed"},
    "sweep": {"swept"},
    "reconcile": {"running", "reconciled"},
    "tell_disk_costs": {"disk costs told"},
}


def events(notebook: str) -> dict[str, Any]:
    """An event of each function, as who calls it makes it."""
    message = {"id": notebook, "execution": f"{notebook}-stop-3", "channels": []}
    return {
        "look_for_command": {
            "id": notebook,
            "run": notebook,
            "instance_id": INSTANCE,
            "document": f"nod-{STAGE}-configure-tls",
            "since": "2026-01-01T00:00:00.000Z",
        },
        "explain_failure": {"id": notebook, "run": "undo-1", "execution": {"status": "FAILED"}},
        "tell_owner": {"id": notebook, "run": f"{notebook}-start-1", "kind": "started"},
        "on_command_event": command_event(),
        "on_instance_event": instance_event("running"),
        "deliver_to_slack": Client(None).events.generate_sns_event(message=json.dumps(message), subject="x"),
        **dict.fromkeys(SUMMARIES, SCHEDULED),
    }


# Whom the lines of a function name whose event is about one notebook; the schedules' are about all of them.
NAMES = {
    "look_for_command": (ONE, ONE),
    "explain_failure": (ONE, "undo-1"),
    "tell_owner": (ONE, f"{ONE}-start-1"),
    "on_command_event": (ONE, f"{ONE}-password-2"),
    "on_instance_event": (ONE, f"{ONE}-stop-7"),
    "deliver_to_slack": (ONE, f"{ONE}-stop-3"),
}


def test_every_function_has_its_event_here(deployed: Stage) -> None:
    assert functions(deployed).keys() == events(ONE).keys()


@pytest.mark.parametrize("name", events(ONE))
def test_each_function_logs_whose_work_it_does_and_in_which_invocation(
    deployed: Stage, notebook: str, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    waits(deployed, notebook)
    command(deployed, f"{notebook}-password-2")
    monkeypatch.setattr(deployed.app.clients.get("stepfunctions"), "send_task_success", lambda **_: None)
    # Confirmed just now, so that there is somebody to tell of.
    monkeypatch.setattr(Topic, "is_confirmed", lambda *_: True)
    deployed.app.users().mark(person(deployed).id, "owed", notebook)
    with captured() as lines:
        try:
            functions(deployed)[name](events(notebook)[name], Context(name))
        except CommandPending:
            assert name == "look_for_command"
    found = lines.all()
    assert {line["function_request_id"] for line in found} == {f"request-{name}"}
    if name in NAMES:
        assert named(found) == {tuple(text.replace(ONE, notebook) for text in NAMES[name])}
        return
    assert {line["message"] for line in found if named([line]) == {(None, None)}} == SUMMARIES[name]
    others = [line for line in found if line["message"] not in SUMMARIES[name]]
    assert named(others) == {(notebook, None)} if name in ("sweep", "reconcile") else not others


def waits(deployed: Stage, notebook: str) -> None:
    """Some workflow for its instance, and the sweep is due."""
    now = "2026-11-22T14:05:00.000Z"
    deployed.change(
        notebook,
        state="ready",
        wait_token=f"{notebook}-stop-7 token",
        instance_id=INSTANCE,
        due_at=now,
        run_started_at="2099-11-22T14:05:00.000Z",
    )


def command(deployed: Stage, execution: str | None) -> None:
    """The command that the event is about, as ListCommands has it."""
    entry = {
        "CommandId": "c-1",
        "DocumentName": f"nod-{STAGE}-install-anaconda",
        "InstanceIds": [INSTANCE],
        "Parameters": {"TaskToken": ["token"]},
        **({} if execution is None else {"Comment": execution}),
    }
    client = deployed.app.clients.get("ssm")
    client.list_commands = lambda **_: {"Commands": [entry]}
    client.get_command_invocation = lambda **_: {"Status": "Success", "StandardOutputContent": '{"ok": true}'}


def test_a_message_carries_the_execution_that_tells_to_who_delivers_it(
    deployed: Stage, notebook: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[dict[str, object]] = []
    monkeypatch.setattr(Topic, "publish", lambda _self, message: sent.append(message.for_lambda()))
    deployed.app.tell_owner({"id": notebook, "run": f"{notebook}-stop-1", "kind": "stopped"}, None)
    deployed.app.messages().tell(notebook, "warned", deployed.app.now())
    assert [message["execution"] for message in sent] == [f"{notebook}-stop-1", None]


def test_a_command_of_before_names_were_written_is_answered_all_the_same(
    deployed: Stage, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    command(deployed, None)
    answered: list[dict[str, Any]] = []
    monkeypatch.setattr(
        deployed.app.clients.get("stepfunctions"), "send_task_success", lambda **given: answered.append(given)
    )
    deployed.app.on_command_event(command_event(), None)
    assert [one["taskToken"] for one in answered] == ["token"]
    assert named(lines.all()) == {(None, None)}


@pytest.mark.parametrize(
    ("written", "answered", "execution"),
    [("token", "token", None), ("nb-1-start-2 to+k/en=", "to+k/en=", "nb-1-start-2"), ("", None, None)],
)
def test_who_waits_for_an_instance_is_read_with_its_name(
    deployed: Stage, notebook: str, written: str, answered: str | None, execution: str | None
) -> None:
    deployed.change(notebook, wait_token=written)
    waiting = deployed.app.notebooks().of_instance(INSTANCE)
    assert (waiting.wait_token, waiting.execution) == (answered, execution)


@pytest.mark.parametrize(
    ("name", "notebook"),
    [
        (ONE, ONE),
        (f"{ONE}-stop-12", ONE),
        (f"{ONE}-delete", ONE),
        (f"{ONE}0", None),
        ("nb-12-stop-1", None),
        ("hand", None),
        ("5f0b", None),
        ("", None),
    ],
)
def test_the_name_of_an_execution_says_whose_it_is(name: str, notebook: str | None) -> None:
    assert notebook_of(name) == notebook


# --- the API ---


def test_a_request_names_the_notebook_it_made_and_the_launch_it_began(
    deployed: Stage, token: str, lines: Lines
) -> None:
    made = deployed.http("POST", "/notebooks", token, {}).json_body["id"]
    assert [line["message"] for line in lines.all()] == ["launch requested", "request"]
    assert named(lines.all()) == {(made, made)}


def test_a_replay_that_begins_nothing_names_no_execution(deployed: Stage, token: str) -> None:
    headers = {"Idempotency_Key": "k"}
    made = deployed.http("POST", "/notebooks", token, {}, **headers).json_body["id"]
    deployed.change(made, state="ready")
    with captured() as lines:
        assert deployed.http("POST", "/notebooks", token, {}, **headers).status_code == 202
    assert named(lines.all()) == {(made, None)}


@pytest.mark.parametrize("what", ["stop", "password"])
def test_what_is_asked_of_a_notebook_names_the_execution_that_does_it(
    deployed: Stage, token: str, notebook: str, lines: Lines, what: str
) -> None:
    assert deployed.http("POST", f"/notebooks/{notebook}/{what}", token, {}).status_code == 202
    assert named(lines.all()) == {(notebook, f"{notebook}-{what}-1")}


def test_every_route_names_the_notebook_of_its_path_or_none(deployed: Stage, token: str, lines: Lines) -> None:
    asked = 0
    for path, methods in deployed.app.ALLOWED.items():
        for method in methods:
            # Without a body, POST /notebooks would make one.
            body = b"{" if method == "POST" else None
            deployed.http(method, path.format(notebook_id=ONE, action="stop"), token, body)
            line = lines.all()[-1]
            assert line["message"] == "request" and line["function_request_id"]
            asked += 1
            assert (line["notebook"], line["execution"]) == (ONE if "notebook_id" in path else None, None), path
    assert asked > 12


def test_a_refusal_is_logged_with_the_notebook_that_was_being_made(
    deployed: Stage, token: str, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = deployed.app.clients.get("stepfunctions")

    def down(**_: object) -> None:
        raise client.exceptions.ClientError({"Error": {"Code": "ServiceUnavailable"}}, "StartExecution")

    monkeypatch.setattr(client, "start_execution", down)
    assert deployed.http("POST", "/notebooks", token, {}).status_code == 503
    (line,) = lines.of("refused")
    assert re.fullmatch(r"nb-[0-9a-f]{20}", line["notebook"]) and line["execution"] == line["notebook"]


# --- what a function raises ---


@pytest.mark.parametrize("name", sorted(events(ONE)))
def test_what_a_function_raises_is_one_line_that_says_where_and_goes_on(
    deployed: Stage, lines: Lines, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("broken for this test")

    for shared in ("commands", "notebooks", "settings", "catalogue", "clients"):
        monkeypatch.setattr(deployed.app, shared, broken)
    with pytest.raises((RuntimeError, AttributeError)):
        functions(deployed)[name](events(ONE)[name], Context())
    (line,) = lines.all()
    assert (line["message"], line["level"], line["function_request_id"]) == ("function failed", "ERROR", "request-1")
    assert "Traceback" in line["exception"]
    if name in ("look_for_command", "explain_failure", "tell_owner"):
        assert (line["notebook"], line["execution"]) == NAMES[name]


def test_an_error_of_ours_is_found_by_its_code(lines: Lines) -> None:
    with pytest.raises(DeliveryFailed), invocation(Context(), ONE):
        raise DeliveryFailed("Slack answered 404.")
    (line,) = lines.all()
    assert (line["level"], line["code"], line["notebook"]) == ("ERROR", "delivery_failed", ONE)


def test_what_the_workflow_is_answered_by_an_error_is_no_error_of_the_function(lines: Lines) -> None:
    with pytest.raises(CommandPending), invocation(Context(), ONE, ONE):
        raise CommandPending("It still runs.")
    (line,) = lines.all()
    assert (line["level"], line["code"], line["reason"]) == ("INFO", "command_pending", "It still runs.")
    assert (line["notebook"], line["execution"]) == (ONE, ONE)


def api_event(notebook: str) -> dict[str, Any]:
    resource = "/notebooks/{notebook_id}"
    return {
        "headers": {},
        "multiValueQueryStringParameters": None,
        "pathParameters": {"notebook_id": notebook},
        "stageVariables": None,
        "requestContext": {"resourcePath": resource, "httpMethod": "GET", "path": f"/api/notebooks/{notebook}"},
        "body": None,
        "isBase64Encoded": False,
    }


def test_the_apis_own_error_is_one_line_with_its_notebook_wherever_it_comes_from(
    deployed: Stage, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("broken for this test")

    # In a view, where Chalice sees it; before any view; in an answer that cannot be written.
    monkeypatch.setattr(deployed.app.reading, "authenticate", broken)
    assert deployed.app.app(api_event(ONE), Context())["statusCode"] == 500
    monkeypatch.setattr(deployed.app.reading, "authenticate", lambda *_: None)
    monkeypatch.setattr(deployed.app.reading, "owned", broken)
    assert deployed.app.app(api_event(ONE), Context())["statusCode"] == 500
    monkeypatch.setattr(deployed.app.reading, "owned", lambda *_: None)
    monkeypatch.setattr(deployed.app, "showing", mock.Mock())
    monkeypatch.setattr(deployed.app, "asdict", lambda _: {"last_words": object()})
    with pytest.raises(TypeError):
        deployed.app.app(api_event(ONE), Context())
    errors = [line for line in lines.all() if line["level"] == "ERROR"]
    assert len(errors) == 3
    assert named(errors) == {(ONE, None)}
    assert {line["function_request_id"] for line in errors} == {"request-1"}


def test_an_address_that_is_a_secret_is_in_no_line_of_the_error(lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    address = "http://127.0.0.1:9/services/" + "secret"
    with pytest.raises(DeliveryFailed), invocation(None):
        post(address, "text", [])
    (line,) = lines.all()
    assert address not in json.dumps(line)


# --- the sweep, notebook by notebook ---


@pytest.fixture
def made() -> Iterator[World]:
    with world() as one:
        yield one


def test_a_stop_by_the_sweep_names_the_execution_that_sees_it_through(made: World, lines: Lines) -> None:
    one, other = to_the_stop(made), made.notebook(idle=0)
    made.sweep()
    assert named(lines.of("warned")) == {(one.id, None)}
    assert named(lines.of("stopped")) == {(one.id, f"{one.id}-stop-1")}
    assert named(lines.of("kept")) == {(other.id, None)}


def test_many_at_once_are_each_named_once(made: World, lines: Lines) -> None:
    ones = [made.notebook(idle=55) for _ in range(12)]
    with ThreadPoolExecutor(4) as threads, invocation(Context()):
        made.sweep(each=lambda work, many: threads.map(carried(work), many))
        after(made, 11, *ones, idle=66)
        made.sweep(each=lambda work, many: threads.map(carried(work), many))
    for message, execution in (("warned", ""), ("stopped", "-stop-1")):
        found = lines.of(message)
        assert len(found) == len(ones)
        assert named(found) == {(one.id, f"{one.id}{execution}" if execution else None) for one in ones}
    assert {line["function_request_id"] for line in lines.all()} == {"request-1"}


def test_what_is_mended_names_the_execution_that_ended_and_then_the_next(made: World, lines: Lines) -> None:
    one = made.notebook(state="stopping", stops=1)
    end(made, "stop", f"{one.id}-stop-1")
    made.sweep()
    (mended,) = lines.of("mended")
    assert (mended["notebook"], mended["execution"], mended["status"]) == (one.id, f"{one.id}-stop-1", "ABORTED")
    assert named(lines.of("stopped")) == {(one.id, f"{one.id}-stop-2")}


def test_what_never_began_is_mended_and_names_no_execution(made: World, lines: Lines) -> None:
    one = made.notebook(state="launching", instance=False)
    made.sweep()
    assert named(lines.of("mended")) == {(one.id, None)}


@pytest.mark.parametrize(("state", "kind"), [("terminating", "delete"), ("stopping", "stop-1")])
def test_a_workflow_that_does_not_begin_is_named_where_that_is_said(
    made: World, lines: Lines, state: str, kind: str
) -> None:
    one = made.notebook(state=state, deletes=1, stops=1)
    made.before = refuse("ThrottlingException", "start_execution")
    assert made.sweep().trouble
    found = [line for line in lines.all() if line["level"] == "ERROR" and line["message"] != "mended"]
    assert (one.id, f"{one.id}-{kind}") in named(found)


def test_each_machine_that_is_probed_is_named_with_its_notebook(made: World, lines: Lines) -> None:
    ones = [made.notebook(idle=0) for _ in range(2)]
    made.sweep()
    made.pass_minutes(16)
    made._ssm.offline.add(str(ones[1].instance_id))
    made.sweep()
    found = {line["notebook"]: (line["instance"], line["reachable"]) for line in lines.of("probed")}
    assert found == {ones[0].id: (ones[0].instance_id, True), ones[1].id: (ones[1].instance_id, False)}


def test_what_has_no_owner_names_the_notebook_of_its_tag(made: World, lines: Lines) -> None:
    made.instance(ONE)
    made.reconcile()
    assert named(lines.of("resource without owner")) == {(ONE, None)}
    assert named(lines.of("running")) == {(None, None)}


def test_each_notebook_that_is_late_to_stop_is_named(made: World, lines: Lines) -> None:
    one, _ = made.notebook(), made.notebook(state="stopped")
    made.reconcile()
    assert lines.of("overdue") == []
    made.pass_minutes(120)
    made.reconcile()
    (line,) = lines.of("overdue")
    assert (line["notebook"], line["state"]) == (one.id, "ready")
    (*_, last) = lines.of("running")
    assert last["overdue"] == 1


# --- one invocation and the others ---


def test_what_an_invocation_names_ends_with_it_also_when_it_fails(deployed: Stage, lines: Lines) -> None:
    with pytest.raises(RuntimeError), invocation(Context("first"), ONE, ONE):
        note(execution=f"{ONE}-stop-1")
        raise RuntimeError("broken for this test")
    logger.info("between")
    deployed.http("GET", "/health")
    _, between, health = lines.all()
    assert "function_request_id" not in between
    assert named([between, health]) == {(None, None)}
    assert health["function_request_id"] != "request-first"


def test_what_is_about_one_notebook_ends_before_the_next_and_leaves_the_invocation(lines: Lines) -> None:
    with invocation(Context()):
        for notebook in (ONE, OTHER):
            with about(notebook):
                logger.info("looked at")
                note(execution=f"{notebook}-stop-1")
                logger.info("stopped")
        logger.info("swept")
    found = [(line["notebook"], line["execution"], line["function_request_id"]) for line in lines.all()]
    assert found == [
        (ONE, None, "request-1"),
        (ONE, f"{ONE}-stop-1", "request-1"),
        (OTHER, None, "request-1"),
        (OTHER, f"{OTHER}-stop-1", "request-1"),
        (None, None, "request-1"),
    ]


def test_a_line_that_names_another_notebook_itself_is_about_that(lines: Lines) -> None:
    with invocation(None, ONE):
        logger.info("kept", notebook=OTHER)
    assert named(lines.all()) == {(OTHER, None)}


def test_functions_side_by_side_do_not_name_each_others(
    deployed: Stage, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on the local cloud: threads of one process."""
    many = [f"nb-{number:020x}" for number in range(8)]
    together = threading.Barrier(len(many), timeout=30)
    explain = explaining.explain

    def explained(event: dict[str, Any], *rest: Any) -> Any:
        for step in range(5):
            together.wait()
            logger.info("step", mine=event["id"], number=step)
        return explain(event, *rest)

    monkeypatch.setattr(explaining, "explain", explained)

    def invoke(notebook: str) -> None:
        event = {"id": notebook, "run": f"{notebook}-start-1", "execution": {}}
        deployed.app.explain_failure(event, Context(notebook))

    with ThreadPoolExecutor(len(many)) as threads:
        list(threads.map(invoke, many))
    found = lines.all()
    assert len(found) == 6 * len(many)
    for line in found:
        notebook = line.get("mine", line["notebook"])
        assert (line["notebook"], line["execution"]) == (notebook, f"{notebook}-start-1")
        assert line["function_request_id"] == f"request-{notebook}"
    assert named(found) == {(notebook, f"{notebook}-start-1") for notebook in many}
    assert not wrong(found)


def test_work_in_other_threads_is_of_its_invocation_and_names_nothing_beyond_itself(lines: Lines) -> None:
    def work(notebook: str) -> None:
        logger.info("taken", mine=notebook)
        note(notebook=notebook)
        logger.info("begun", mine=notebook)

    with invocation(Context()), ThreadPoolExecutor(2) as threads:
        list(threads.map(carried(work), [ONE, OTHER] * 20))
        logger.info("swept")
    found = lines.all()
    assert {line["function_request_id"] for line in found} == {"request-1"}
    assert named(lines.of("taken")) == {(None, None)} == named(lines.of("swept"))
    assert all(line["notebook"] == line["mine"] for line in lines.of("begun"))
    assert len(found) == 81


# --- nobody goes past it ---

PRODUCT = [ROOT / "app.py", *sorted((ROOT / "chalicelib").rglob("*.py"))]


def calls(tree: ast.AST) -> Iterator[str]:
    return (ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call))


def imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


@pytest.mark.parametrize("path", PRODUCT, ids=lambda path: str(path.relative_to(ROOT)))
def test_nobody_logs_past_the_one_logger(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    roots = {name.split(".")[0] for name in imports(tree)}
    assert not roots & {"logging", "warnings", "traceback"}
    if path.name != "log.py":
        assert "aws_lambda_powertools" not in roots
        # Keys for all lines are set by `about` and `note` alone, which take them back.
        assert not [
            call for call in calls(tree) if re.search(r"\blogger\.(?!debug|info|warning|error|exception)", call)
        ]
    assert not [call for call in calls(tree) if call == "print" or re.match(r"sys\.(stdout|stderr)\.", call)]


def test_every_line_has_both_keys_whatever_else_it_has(lines: Lines) -> None:
    logger.info("text")
    logger.info("a %s", "text")
    logger.error("text", extra={"code": 1}, exc_info=ValueError("text"))
    assert all(line.keys() >= set(KEYS) for line in lines.all())
    assert named(lines.all()) == {(None, None)}
