"""What a kernel is at work on, from messages as ipykernel 7.4.0 was seen to publish them, whatever the server says."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instance.files.cells import MOST, Cells, read

SUBSHELL = "44c8cccc-d458-4504-9fec-6cd845e27c83"
CELL, CONSOLE = "cell", "console"
ASKED: dict[str, dict[str, Any]] = {
    CELL: {"msg_type": "execute_request"},
    "next": {"msg_type": "execute_request"},
    CONSOLE: {"msg_type": "execute_request", "subshell_id": SUBSHELL},
    "slider": {"msg_type": "comm_msg", "subshell_id": SUBSHELL},
    "button": {"msg_type": "comm_msg"},
    "create": {"msg_type": "create_subshell_request"},
    "shutdown": {"msg_type": "shutdown_request"},
    "info": {"msg_type": "kernel_info_request"},
    "complete": {"msg_type": "complete_request"},
}


def frames(kind: str, asked: str | None = None, **content: Any) -> list[bytes]:
    """A message without its identities: signature, header, parent, metadata, content."""
    common = {"username": "username", "session": "eb71f59d", "date": "2026-11-24T17:14:33.238257Z", "version": "5.4"}
    header = {"msg_id": "eb71f59d_5076_9", "msg_type": kind, **common}
    parent = {"msg_id": f"eb71f59d_{asked}", **common, **ASKED[asked]} if asked else {}
    return [b"0fd3130ce684b3fe", *(json.dumps(part).encode() for part in (header, parent, {}, content))]


class World:
    """A kernel, what the server makes of it, and the time."""

    def __init__(self) -> None:
        self.cells = Cells()
        self.cells.watch("k")
        self.now = 100.0
        self.server = False

    def says(self, state: str, asked: str | None) -> None:
        self.take("status", asked, execution_state=state)
        # As Jupyter Server has it: whatever the status is of, except of some requests of the control channel.
        if asked is None or ASKED[asked]["msg_type"] not in ("shutdown_request", "kernel_info_request"):
            self.server = state == "busy"

    def takes(self, asked: str) -> None:
        """It handles a request that is short."""
        self.says("busy", asked)
        self.says("idle", asked)

    def take(self, kind: str, asked: str | None = None, **content: Any) -> None:
        news = read(frames(kind, asked, **content))
        assert news is not None
        self.cells.take("k", news, self.now)

    def after(self, seconds: float = 60.0) -> tuple[bool, bool]:
        self.now += seconds
        return self.cells.state("k", self.server, self.now)


@pytest.fixture
def world() -> World:
    return World()


WORKS, WAITS, IDLE = (True, False), (True, True), (False, False)


@pytest.mark.parametrize("aside", ["create", "slider", "button", CONSOLE])
def test_a_cell_works_until_its_own_end_whatever_is_asked_beside_it(world: World, aside: str) -> None:
    world.says("busy", CELL)
    world.takes(aside)
    assert not world.server, "the server has been misled"
    assert world.after() == WORKS
    world.says("idle", CELL)
    assert world.after() == IDLE


def test_what_runs_in_a_subshell_works_too(world: World) -> None:
    world.says("busy", CONSOLE)
    world.takes(CELL)
    assert world.after() == WORKS
    world.says("idle", CONSOLE)
    assert world.after() == IDLE


def test_a_button_that_starts_something_long_works_and_a_widget_that_plays_does_not(world: World) -> None:
    world.says("busy", "slider")
    assert world.after(1.0) == IDLE, "each look could meet one of many"
    world.says("idle", "slider")
    world.says("busy", "button")
    world.takes(CONSOLE)
    assert world.after(3.0) == WORKS
    world.says("idle", "button")
    assert world.after() == IDLE


@pytest.mark.parametrize("start", ["starting", "iopub_welcome", "told"])
def test_nothing_runs_on_in_a_kernel_that_starts_anew(world: World, start: str) -> None:
    world.says("busy", CELL)
    world.says("busy", CONSOLE)
    if start == "starting":
        world.take("status", execution_state="starting")
    elif start == "told":
        world.cells.started("k")
    else:
        world.take("iopub_welcome")
    world.takes("info")
    assert world.server, "it believes so until another cell has run"
    assert world.after() == IDLE
    world.says("busy", "next")
    assert world.after() == WORKS


def test_a_cell_whose_end_was_lost_has_ended_when_the_next_one_runs(world: World) -> None:
    world.says("busy", CELL)
    world.takes("next")
    assert world.after() == IDLE


def test_a_kernel_that_is_gone_is_forgotten_and_of_one_that_is_not_watched_the_servers_word_counts(
    world: World,
) -> None:
    world.says("busy", CELL)
    world.cells.keep(["other"])
    world.takes("slider")
    assert world.after() == IDLE
    world.says("busy", CELL)
    assert world.after() == WORKS
    world.take("input_request", CELL, prompt="")
    assert world.after() == WORKS


def test_what_is_not_remembered_works_by_the_servers_word(world: World) -> None:
    world.takes(CELL)
    world.says("busy", "complete")
    assert world.after() == WORKS


def test_more_than_can_be_remembered_is_work_until_the_kernel_starts_anew(world: World) -> None:
    for number in range(1000):
        ASKED[f"subshell {number}"] = {"msg_type": "execute_request", "subshell_id": str(number)}
        world.says("busy", f"subshell {number}")
    assert len(world.cells._kernels["k"].work) == MOST + 1
    for number in range(1000):
        world.says("idle", f"subshell {number}")
    assert world.after() == WORKS, "what became of those is unknown"
    world.take("iopub_welcome")
    assert world.after() == IDLE


def test_a_long_id_does_not_fill_the_memory(world: World) -> None:
    ASKED["long"] = {"msg_type": "execute_request", "subshell_id": "x" * 10**6}
    world.says("busy", "long")
    ((place, _),) = world.cells._kernels["k"].work
    assert len(place) <= 200
    world.says("idle", "long")
    assert world.after() == IDLE


# --- input() ---


@pytest.mark.parametrize("first", ["question", "status"])
def test_a_cell_waits_until_it_is_answered_or_ends(world: World, first: str) -> None:
    if first == "status":
        world.says("busy", CELL)
    world.take("input_request", CELL, prompt="")
    assert world.after(0.5) == WAITS
    world.says("busy", CELL)
    assert world.after() == WAITS
    world.cells.answered("k")
    assert world.after() == WORKS
    world.take("input_request", CELL, prompt="")
    assert world.after() == WAITS
    world.says("idle", CELL)
    assert world.after() == IDLE


@pytest.mark.parametrize("aside", ["create", "info", "slider", CONSOLE])
def test_a_cell_waits_on_when_something_is_asked_beside_it(world: World, aside: str) -> None:
    world.says("busy", CELL)
    world.take("input_request", CELL, prompt="")
    world.takes(aside)
    assert world.after() == WAITS
    world.says("busy", CONSOLE)
    assert world.after() == WORKS, "one of two works"


def test_a_question_that_comes_after_the_end_of_its_cell_says_nothing_of_the_next(world: World) -> None:
    """It lay in the server for a page that was gone."""
    world.takes(CELL)
    world.says("busy", "next")
    world.take("input_request", CELL, prompt="")
    assert world.after() == WORKS
    world.take("iopub_welcome")
    world.take("input_request", "next", prompt="")
    assert world.after(0.0) == IDLE


def test_the_next_cell_does_not_wait_when_the_end_of_one_that_did_was_lost(world: World) -> None:
    world.says("busy", CELL)
    world.take("input_request", CELL, prompt="")
    world.says("busy", "next")
    assert world.after() == WORKS


def test_a_question_whose_cell_was_never_seen_to_begin_or_end_is_forgotten_when_nothing_runs(world: World) -> None:
    world.take("input_request", CELL, prompt="")
    assert world.after(0.5) == WAITS
    assert world.after() == IDLE
    world.says("busy", "complete")
    world.cells.answered("k")
    assert world.after() == IDLE


# --- what is read ---


@pytest.mark.parametrize("kind", ["stream", "display_data", "execute_result", "execute_input", "error", "clear_output"])
def test_output_is_not_read(kind: str) -> None:
    message = frames(kind, CELL)
    message[2] = message[4] = b"no JSON"
    assert read(message) is None


@given(st.sampled_from(["status", "input_request", "comm_msg"]), st.binary(max_size=30), st.binary(max_size=30))
def test_no_message_does_more_than_fail_to_be_read(kind: str, parent: bytes, content: bytes) -> None:
    message = frames(kind)
    message[2], message[4] = parent, content
    try:
        read(message)
    except (ValueError, KeyError, TypeError, AttributeError):
        return


def debugged(world: World, event: str, **body: Any) -> None:
    world.take("debug_event", None, seq=1, type="event", event=event, body=body)


def test_a_cell_at_a_breakpoint_waits_until_somebody_continues(world: World) -> None:
    world.says("busy", CELL)
    debugged(world, "process")
    assert world.after() == (True, False)
    debugged(world, "stopped", reason="breakpoint", threadId=1, allThreadsStopped=True)
    assert world.after() == (True, True)
    debugged(world, "continued", threadId=1)
    assert world.after() == (True, False)
    debugged(world, "stopped", reason="step", threadId=1)
    assert world.after() == (True, True)
    world.cells.resumed("k")
    assert world.after() == (True, False)


def test_a_breakpoint_ends_with_its_cell_its_kernel_and_its_debugger(world: World) -> None:
    for end in (
        lambda: world.says("idle", CELL),
        lambda: world.cells.started("k"),
        lambda: debugged(world, "terminated"),
    ):
        world.says("busy", CELL)
        debugged(world, "stopped", reason="breakpoint")
        assert world.after() == (True, True)
        end()
        world.says("busy", "next")
        assert world.after() == (True, False)
        world.says("idle", "next")


def test_a_breakpoint_of_one_thread_alone_is_none(world: World) -> None:
    world.says("busy", CELL)
    debugged(world, "stopped", reason="breakpoint", threadId=7, allThreadsStopped=False)
    assert world.after() == (True, False)
