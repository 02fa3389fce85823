"""A transition leaves the same record behind, whoever begins it: what each of four ways once did in its own manner."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from chalicelib import links, times
from chalicelib.aws.notebooks import NotebooksTable
from chalicelib.model import Failure, Notebook, SeenBeat, ServerTrouble, Warned
from chalicelib.notebook import life, moves
from chalicelib.notebook.life import State, Transition, Writer
from chalicelib.notebook.moves import Move, Why
from tests.unit.stage import ENV, person, stage, user
from tests.unit.sweep_world import NOON, World
from tests.unit.test_functions import instance_event
from tests.unit.test_life import press
from tests.unit.test_sweep import end

PAST = "2026-11-22T11:00:00.000Z"
TROUBLE = ServerTrouble(PAST, "failed", "It did not start.")
STALE: dict[str, Any] = {
    "wait_token": "run token",
    "address": "198.51.100.7",
    "public_dns_name": "ec2-198-51-100-7.example.com",
    "warned": Warned(PAST, PAST, "idle", "boot-1", "idle"),
    "seen": SeenBeat("boot-1", 1, PAST),
    "hold_until": PAST,
    "error": Failure("stop_failed", "EC2 refused it before."),
    "stopped_at": PAST,
    "run_started_at": PAST,
    "safe_mode": TROUBLE,
    "not_answering": TROUBLE,
    "expires_at": 1,
    "link_version": 0,
}
"""What earlier changes may have left in a record."""


class Life(World):
    """A world whose owner can call the API."""

    token = ""

    def stale(self, state: State, **values: Any) -> Notebook:
        """A notebook with all of that in its record."""
        one = self.notebook(state=state, name="thesis", **{**STALE, **values})
        self.deployed.change(one.id, missing_at=PAST)
        return one


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Iterator[Life]:
    with stage() as deployed:
        token = user(deployed, email="ada@example.com", quota=9)
        world = Life(deployed)
        world.token = token
        monkeypatch.setattr(deployed.app, "now", lambda: world.now)
        yield world


def by_api(made: Life) -> Notebook:
    one = made.stale(State.READY)
    assert made.deployed.http("POST", f"/notebooks/{one.id}/stop", made.token).status_code == 202
    return one


def by_link(made: Life) -> Notebook:
    one = made.stale(State.READY)
    form = links.form_token(person(made.deployed, "ada").secret, "stop", one, made.now)
    assert press(made.deployed, one.id, "stop", {"f": form}).status_code == 303
    return one


def by_event(made: Life) -> Notebook:
    one = made.stale(State.READY, wait_token=None)
    made.ec2.stop_instances(InstanceIds=[one.instance_id])
    assert one.instance_id is not None
    made.deployed.app.on_instance_event(instance_event("stopped", one.instance_id), None)
    return one


def by_sweep(made: Life) -> Notebook:
    warned = Warned("2026-11-22T11:40:00.000Z", "2026-11-22T11:55:00.000Z", "idle", "boot-1", "idle")
    one = made.stale(State.READY, idle=90, run_started_at="2026-11-21T11:00:00.000Z", warned=warned)
    assert made.sweep().counts["stop"] == 1
    return one


def by_mending(made: Life) -> Notebook:
    """Its start has ended, and its machine runs."""
    one = made.stale(State.STARTING, starts=1)
    end(made, "start", f"{one.id}-start-1")
    made.sweep()
    return one


WAYS: list[Callable[[Life], Notebook]] = [by_api, by_link, by_event, by_sweep, by_mending]


@pytest.mark.parametrize("way", WAYS)
def test_a_stop_looks_the_same_whoever_began_it(made: Life, way: Callable[[Life], Notebook]) -> None:
    one = way(made)
    record = made.record(one)
    failed = way is by_mending
    assert record["state"] == "stopping"
    assert record["stops"] == 1
    assert {"stop", "decided_at", "due", "due_at", "moved_by"} <= set(record)
    assert record["decided_at"] == times.to_text(made.now)
    # A warning that outlived a stop which EC2 then refused let the next one come unwarned.
    assert set(record) & life.LACKS[State.STOPPING] == ({"error"} if failed else set())
    # What says how it was stays until it starts again.
    assert {"safe_mode", "not_answering", "address", "run_started_at"} <= set(record)
    made.deployed.http("GET", f"/notebooks/{one.id}/events", made.token)
    (line,) = [line for line in made.lines(one) if line.action in ("stop", "start")]
    assert line.action == ("start" if failed else "stop")
    assert (line.code, line.by, line.reason) == tuple(record["stop"][name] for name in ("code", "by", "reason"))


@pytest.mark.parametrize("verb", ["stop", "start", "delete"])
def test_what_a_person_did_is_in_the_ledger_even_if_that_did_not_answer(made: Life, verb: str) -> None:
    """It was written after the change, by a second call: who died between the two left no line."""
    one = made.stale(State.STOPPED if verb == "start" else State.READY)
    made.deployed.dynamodb.delete_table(TableName=ENV["NOD_EVENTS_TABLE"])
    method, path = ("DELETE", "?confirm=thesis") if verb == "delete" else ("POST", f"/{verb}")
    assert made.deployed.http(method, f"/notebooks/{one.id}{path}", made.token).status_code == 202
    (line,) = made.record(one)["ledger_lines"]
    assert (line["action"], line["code"], line["by"]) == (verb, "asked", made.ada)


def test_a_start_that_came_to_nothing_leaves_no_address_and_its_run_is_paid_for(made: Life) -> None:
    """The repair left the address of a machine that is off, and the run that it had was nowhere written down."""
    one = made.stale(State.STARTING, starts=1)
    made.ec2.stop_instances(InstanceIds=[one.instance_id])
    end(made, "start", f"{one.id}-start-1")
    made.sweep()
    record = made.record(one)
    assert record["state"] == "stopped"
    assert not set(record) & life.LACKS[State.STOPPED]
    assert record["runs"] == [{"type": "t3.medium", "started_at": PAST, "stopped_at": times.to_text(made.now)}]
    (line,) = made.lines(one, "start")
    assert (line.code, line.by) == ("start_failed", "sweep")


def test_a_start_without_a_run_pays_for_none(made: Life) -> None:
    one = made.stale(State.STARTING, starts=1, run_started_at=None)
    made.ec2.stop_instances(InstanceIds=[one.instance_id])
    end(made, "start", f"{one.id}-start-1")
    made.sweep()
    assert made.record(one)["stopped_at"] == PAST
    assert "runs" not in made.record(one)


@pytest.mark.parametrize("state", [State.READY, State.STOPPING, State.STARTING])
def test_a_machine_that_is_gone_leaves_nothing_of_its_run(made: Life, state: State) -> None:
    """The repair left the last heartbeat; the workflows left the hold."""
    one = made.stale(state, due_at=times.to_text(NOON))
    made.ec2.terminate_instances(InstanceIds=[one.instance_id])
    made.reconcile() if state == State.READY else made.sweep()
    record = made.record(one)
    assert (record["state"], record["error"]["code"]) == ("failed", "instance_gone")
    assert not set(record) & life.LACKS[State.FAILED]
    assert record["run_started_at"] == PAST, "what it cost is counted from there"
    assert not {one.id} & (made.user().get("active", set()) | made.user().get("owned", set()))


def test_a_deleted_one_is_held_no_longer(made: Life) -> None:
    one = made.stale(State.READY, hold_until="2026-11-23T12:00:00.000Z")
    answer = made.deployed.http("DELETE", f"/notebooks/{one.id}?confirm=thesis", made.token)
    assert answer.json_body["hold_until"] is None
    assert not set(made.record(one)) & life.LACKS[State.TERMINATING]


# The writer


def a_move(notebook: Notebook, row: Transition = life.TAKE_BACK_STOP, **changes: Any) -> Move:
    why = Why(row.code or "code", "reason", "sweep")
    (writer, *_) = sorted(row.who)
    sets = {"error": moves.failure(Failure("code", "message"))} if row.fails else {}
    return Move(notebook, row, writer, why, NOON, sets)._replace(**changes)


def test_who_is_not_in_the_table_makes_no_transition(made: Life) -> None:
    one = made.stale(State.STOPPING)
    notebooks = NotebooksTable(made.dynamodb, ENV["NOD_NOTEBOOKS_TABLE"], ENV["NOD_USERS_TABLE"])
    with pytest.raises(TypeError, match="does not bring"):
        notebooks.move(a_move(one, writer=Writer.API))
    with pytest.raises(TypeError, match="the code returned"):
        notebooks.move(a_move(one, why=Why("other", "reason", "sweep")))
    with pytest.raises(TypeError, match="leaves an error"):
        notebooks.move(a_move(one, life.STOP_FAILED, sets={}))


@pytest.mark.parametrize("name", sorted(name for name, row in life.TRANSITIONS.items() if row.before))
def test_every_transition_is_written_from_each_of_its_states_and_from_no_other(made: Life, name: str) -> None:
    row = life.TRANSITIONS[name]
    notebooks = NotebooksTable(made.dynamodb, ENV["NOD_NOTEBOOKS_TABLE"], ENV["NOD_USERS_TABLE"])
    for state in State:
        one = made.stale(state)
        move = a_move(one, row)
        before = made.record(one)
        moved = notebooks.move(move)
        if state not in row.before:
            assert not isinstance(moved, Notebook)
            assert made.record(one) == before
            continue
        assert isinstance(moved, Notebook)
        record = made.record(one)
        assert record["state"] == row.to
        assert not set(record) & row.clears
        assert Notebook.from_record(record) == replace(moved, ledger_lines=Notebook.from_record(record).ledger_lines)
        assert [line["action"] for line in record["ledger_lines"]] == [row.action]
        user_row = made.user()
        assert not any(one.id in user_row.get(name, set()) for name in row.leaves)
        assert all(one.id in user_row[name] for name in row.joins)
        assert not row.owes or one.id in user_row["untold"]


@pytest.mark.parametrize("change", [{"state": State.FAILED}, {"stops": 7}])
def test_a_record_that_changed_since_it_was_read_is_left_alone(made: Life, change: dict[str, Any]) -> None:
    one = made.stale(State.READY)
    made.deployed.change(one.id, **change)
    before = made.record(one)
    notebooks = NotebooksTable(made.dynamodb, ENV["NOD_NOTEBOOKS_TABLE"], ENV["NOD_USERS_TABLE"])
    assert not isinstance(notebooks.move(a_move(one, life.STOP)), Notebook)
    assert made.record(one) == before


def test_each_state_is_left_and_reached() -> None:
    rows = life.TRANSITIONS.values()
    assert {row.to for row in rows} == set(State)
    assert {state for row in rows for state in row.before} == set(State) - {State.TERMINATED}
    assert life.DELETE.before == set(State) - {State.TERMINATING, State.TERMINATED}
