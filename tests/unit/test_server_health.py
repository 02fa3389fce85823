"""How a notebook's own server is: what a heartbeat tells of it, what is news, and in which words."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib import server_causes, times
from chalicelib.failures import explain_start
from chalicelib.heartbeats import Heartbeat, ServerStatus
from chalicelib.idleness import Policy
from chalicelib.model import Notebook, ServerTrouble
from chalicelib.server_health import health, news
from instance.files import server_causes as on_the_machine

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
POLICY = Policy()
NOTEBOOK = Notebook(
    id="nb-" + "0" * 20,
    owner="ada",
    name="thesis",
    state="ready",
    created_at=times.to_text(NOON - 60 * MINUTE),
    updated_at=times.to_text(NOON - 60 * MINUTE),
    instance_type="t3.medium",
    volume_gib=30,
    idle_minutes=60,
    environment="anaconda",
    steps={},
    notify=("email",),
    notifications={},
    ready_at=times.to_text(NOON - 50 * MINUTE),
    run_started_at=times.to_text(NOON - 55 * MINUTE),
    instance_id="i-1",
)


def beat(answers: bool | None, **server: Any) -> Heartbeat:
    """A heartbeat of just now."""
    row = {"boot_id": "b", "beat": 7, "at": times.to_text(NOON), "uptime": 3000, "answers": answers, "server": server}
    found = Heartbeat.from_record(row)
    assert found is not None
    return found


def kept(notebook: Notebook, heartbeat: Heartbeat | None, now: datetime = NOON) -> Notebook:
    """The record after a sweep that told its owner."""
    changes = news(notebook, health(notebook, heartbeat, POLICY, now), POLICY, now).changes
    told = {name: ServerTrouble(**{**value, "told": True}) if value else None for name, value in changes.items()}  # type: ignore[dict-item]
    return replace(notebook, **told)  # type: ignore[arg-type]


def test_a_server_that_is_well_is_no_news() -> None:
    for heartbeat in (beat(True), beat(True, mode="normal", left_out=["my_ext"]), None):
        found = news(NOTEBOOK, health(NOTEBOOK, heartbeat, POLICY, NOON), POLICY, NOON)
        assert (found.changes, found.lines, found.tell, found.due_at) == ({}, (), (), None)
    assert health(NOTEBOOK, beat(True, left_out=["my_ext"]), POLICY, NOON).left_out == ("my_ext",)


def test_a_server_that_has_not_answered_for_minutes_is_told_once_and_looked_at_again() -> None:
    heartbeat = beat(False, code="port_taken", down_seconds=200, words="last words")
    found = news(NOTEBOOK, health(NOTEBOOK, heartbeat, POLICY, NOON), POLICY, NOON)
    since = times.to_text(NOON - timedelta(seconds=200))
    message = server_causes.not_answering("port_taken")
    assert found.changes == {"not_answering": {"since": since, "code": "port_taken", "message": message, "told": False}}
    assert found.lines == (("not_answering", message),)
    assert found.tell == (("not_answering", since),)
    assert found.due_at == NOON + 5 * MINUTE
    after = kept(NOTEBOOK, heartbeat)
    again = news(after, health(after, heartbeat, POLICY, NOON + MINUTE), POLICY, NOON + MINUTE)
    assert (again.changes, again.lines, again.tell) == ({}, (), ())
    assert again.due_at == NOON + 6 * MINUTE


def test_what_was_written_and_not_told_is_told_at_the_next_look() -> None:
    untold = replace(NOTEBOOK, not_answering=ServerTrouble(times.to_text(NOON), "silent", "…", told=False))
    found = news(untold, health(untold, beat(False), POLICY, NOON), POLICY, NOON)
    assert found.tell == (("not_answering", times.to_text(NOON)),)


def test_a_server_that_is_just_started_again_is_no_news_yet() -> None:
    found = news(NOTEBOOK, health(NOTEBOOK, beat(False, down_seconds=20), POLICY, NOON), POLICY, NOON)
    assert (found.changes, found.lines, found.tell) == ({}, (), ())
    assert found.due_at == NOON + timedelta(seconds=160)


def test_an_answer_ends_it_with_a_line_and_a_second_time_is_told_again() -> None:
    down = kept(NOTEBOOK, beat(False, down_seconds=600))
    assert down.not_answering is not None
    found = news(down, health(down, beat(True), POLICY, NOON), POLICY, NOON)
    assert found.changes == {"not_answering": None}
    assert [code for code, _ in found.lines] == ["answers_again"]
    up = kept(down, beat(True))
    assert news(up, health(up, beat(False, down_seconds=600), POLICY, NOON), POLICY, NOON).tell


@pytest.mark.parametrize("down", [False, True])
def test_silence_and_what_cannot_be_told_change_nothing(down: bool) -> None:
    notebook = kept(NOTEBOOK, beat(False, down_seconds=600)) if down else NOTEBOOK
    old = replace(beat(not down), at=NOON - 60 * MINUTE)
    seen = replace(notebook, seen=None)
    for heartbeat, now in ((None, NOON), (beat(None), NOON), (old, NOON)):
        if heartbeat is old:
            # Seen an hour ago, and nothing new since.
            from chalicelib.model import SeenBeat  # noqa: PLC0415

            seen = replace(notebook, seen=SeenBeat("b", 7, times.to_text(NOON - 30 * MINUTE)))
        assert not news(seen, health(seen, heartbeat, POLICY, now), POLICY, now).changes


def test_what_was_written_before_the_notebook_was_ready_is_not_believed() -> None:
    """The document saw it answer; the heartbeat of the moment before is still in the row."""
    ready = replace(NOTEBOOK, ready_at=times.to_text(NOON + timedelta(seconds=1)))
    assert health(ready, beat(False, down_seconds=500), POLICY, NOON + 2 * MINUTE).not_answering is None


def test_safe_mode_is_written_told_once_and_over_when_the_configuration_works() -> None:
    heartbeat = beat(True, mode="safe", code="configuration", safe_seconds=120, words="Traceback")
    seen = health(NOTEBOOK, heartbeat, POLICY, NOON)
    found = news(NOTEBOOK, seen, POLICY, NOON)
    since = times.to_text(NOON - 2 * MINUTE)
    assert found.tell == (("safe_mode", since),)
    assert seen.last_words == "Traceback"
    safe = kept(NOTEBOOK, heartbeat)
    assert safe.safe_mode == ServerTrouble(since, "configuration", server_causes.without_configuration("configuration"))
    assert not news(safe, health(safe, heartbeat, POLICY, NOON), POLICY, NOON).tell
    # Not while it is down: then nobody knows.
    assert health(safe, beat(False), POLICY, NOON).safe_mode == safe.safe_mode
    over = news(safe, health(safe, beat(True), POLICY, NOON), POLICY, NOON)
    assert (over.changes, [code for code, _ in over.lines]) == ({"safe_mode": None}, ["safe_mode_over"])


@pytest.mark.parametrize("code", [None, "nonsense", "<script>", "x" * 400, 7])
def test_nothing_that_the_machine_wrote_is_in_our_words(code: object) -> None:
    safe = health(NOTEBOOK, beat(True, mode="safe", code=code), POLICY, NOON).safe_mode
    down = health(NOTEBOOK, beat(False, mode="safe", code=code), POLICY, NOON).not_answering
    assert safe is not None
    assert down is not None
    assert safe.message == server_causes.without_configuration("ended")
    assert down.code in server_causes.CAUSES


@pytest.mark.parametrize("seconds", [-1, 10**18, Decimal("1e400"), float("inf"), "5", True, None])
def test_a_time_that_cannot_be_is_not_believed(seconds: object) -> None:
    heartbeat = beat(True, mode="safe", code="hangs", safe_seconds=seconds)
    found = health(NOTEBOOK, heartbeat, POLICY, NOON).safe_mode
    assert found is not None
    began = NOTEBOOK.run_started_at or ""
    assert began <= found.since <= times.to_text(NOON)


KEYS = st.sampled_from(["mode", "code", "left_out", "words", "down_seconds"])
VALUES = st.none() | st.booleans() | st.integers() | st.text()


@given(st.recursive(VALUES, lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner)))
def test_any_value_can_be_read(value: object) -> None:
    found = ServerStatus.from_record(value)
    assert len(found.left_out) <= 20
    assert len(found.words or "") <= 2000
    assert all(letter == "\n" or letter.isprintable() for letter in found.words or "")


def test_the_machine_and_the_api_say_the_same() -> None:
    assert {code: (cause.reason, cause.advice) for code, cause in on_the_machine.CAUSES.items()} == server_causes.CAUSES
    assert on_the_machine.RETRY == server_causes.RETRY


@pytest.mark.parametrize("code", sorted(server_causes.CAUSES))
def test_a_start_that_is_given_up_says_why(code: str) -> None:
    failure = explain_start({"error": "NotebookSilent", "cause": "No heartbeat"}, (), code)
    assert failure.code == "start_failed"
    assert server_causes.CAUSES[code].reason in failure.message


def test_a_start_whose_server_says_nothing_says_as_much_as_is_known() -> None:
    for code in (None, "nonsense"):
        assert "did not answer in time" in explain_start({"error": "NotebookSilent", "cause": ""}, (), code).message
