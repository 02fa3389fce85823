"""What the workflows write into the table `notebooks`, compared with the table of transitions."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import yaml

from chalicelib.notebook import life
from chalicelib.notebook.life import State, Transition, Writer
from tests.aws import packaged

PROMISED = frozenset((State.REQUESTED, State.LAUNCHING, State.STARTING))
"""States whose message is owed since a request or a start was written."""


@functools.cache
def machines() -> dict[str, dict[str, Any]]:
    """By the name of their file."""
    found = {}
    for resource in packaged.resources("AWS::Serverless::StateMachine").values():
        name = re.search(r"(\w+)\.asl\.", resource["Properties"]["DefinitionUri"])
        assert name is not None
        text = (packaged.folder() / resource["Properties"]["DefinitionUri"]).read_text(encoding="utf-8")
        text = re.sub(r"\$\{(Notebooks|Users)Table\}", r"\1", text)
        found[name[1]] = yaml.safe_load(re.sub(r"\$\{\w+\}", "1", text))
    return found


@dataclass(frozen=True)
class Write:
    """One update of a notebook's record that sets its state."""

    machine: str
    name: str
    task: dict[str, Any]
    update: dict[str, Any]
    users: list[dict[str, Any]] = field(default_factory=list)
    """Updates of the owner's row: of the same transaction, and of the state before and after."""

    @property
    def values(self) -> dict[str, Any]:
        found: dict[str, Any] = self.update["ExpressionAttributeValues"]
        return found

    def clause(self, verb: str) -> str:
        found = re.search(rf"\b{verb} (.*?)(?= SET | REMOVE | ADD | DELETE |$)", self.update["UpdateExpression"])
        return found[1] if found else ""

    @property
    def sets(self) -> dict[str, str]:
        pairs = re.findall(r"([#\w.]+) = ((?:[\w:]+\(.*?\)(?:, :\w+\))?)|[:\w]+)", self.clause("SET"))
        return {self._plain(name): value for name, value in pairs}

    @property
    def removes(self) -> set[str]:
        return {self._plain(name) for name in re.findall(r"[#\w]+", self.clause("REMOVE"))}

    @property
    def to(self) -> State:
        return State(self.values[self.sets["state"]]["S"])

    @property
    def before(self) -> set[State]:
        """The states that its condition names, without what it wrote itself at an earlier try."""
        first = re.sub(r"\(#state = :\w+ AND moved_by = :run\)", "", self.update["ConditionExpression"])
        names = re.findall(r"#state = (:\w+)", first)
        for group in re.findall(r"#state IN \((.*?)\)", first):
            names += group.split(", ")
        return {State(self.values[name]["S"]) for name in names}

    @property
    def row(self) -> Transition:
        """The transition that it makes."""
        rows = [
            row
            for row in life.TRANSITIONS.values()
            if row.to is self.to and Writer(self.machine) in row.who and self.before <= row.before
        ]
        assert len(rows) == 1, f"{self.machine} | {self.name}: from {self.before} to {self.to} is no transition of its"
        return rows[0]

    def of_owner(self, verb: str) -> set[str]:
        return {
            name
            for update in self.users
            for clause in re.findall(rf"\b{verb} (.*?)(?= ADD | DELETE |$)", update["UpdateExpression"])
            for name in re.findall(r"(\w+) :notebook", clause)
        }

    def _plain(self, name: str) -> str:
        return str(self.update["ExpressionAttributeNames"].get(name, name))


def tasks(machine: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, state in machine["States"].items():
        yield name, state
        for branch in state.get("Branches", ()):
            yield from tasks(branch)


def updates(task: dict[str, Any], table: str) -> list[dict[str, Any]]:
    parameters = task.get("Parameters", {})
    if not isinstance(parameters, dict):
        return []
    many = [item["Update"] for item in parameters.get("TransactItems", ()) if "Update" in item]
    return [one for one in (many or [parameters]) if one.get("TableName") == table and "UpdateExpression" in one]


def neighbours(machine: dict[str, Any], name: str) -> Iterator[dict[str, Any]]:
    """The states right before and after one, where all goes well, and the one after that."""
    named = dict(tasks(machine))
    after = named.get(named[name].get("Next", ""))
    yield from (state for state in named.values() if state.get("Next") == name)
    if after is not None:
        yield after


@functools.cache
def every_write() -> list[Write]:
    found = []
    for machine, loaded in machines().items():
        for name, task in tasks(loaded):
            for update in updates(task, "Notebooks"):
                if not re.search(r"#state = ", update["UpdateExpression"]):
                    continue
                users = updates(task, "Users")
                for other in [] if users else neighbours(loaded, name):
                    users += updates(other, "Users")
                found.append(Write(machine, name, task, update, users))
    return found


# The package takes seconds to make, so tests are one a rule and not one a write.


def wrong(check: Any) -> dict[str, object]:
    """What a check finds, by state."""
    return {f"{write.machine} | {write.name}": said for write in every_write() if (said := check(write))}


def test_the_workflows_make_every_transition_that_the_table_gives_them_and_no_other() -> None:
    made = {
        (write.machine, name) for write in every_write() for name, row in life.TRANSITIONS.items() if row == write.row
    }
    workflows = set(life.WORKFLOWS.values()) | {Writer.UNDO}
    expected = {(who.value, name) for name, row in life.TRANSITIONS.items() for who in row.who & workflows}
    assert made == expected


def test_each_begins_from_every_state_of_its_row_that_its_workflow_can_meet() -> None:
    begins = {
        Writer.LAUNCH: life.LAUNCHING,
        Writer.UNDO: life.LAUNCHING,
        Writer.STOP: {State.STOPPING},
        Writer.START: {State.STARTING},
        Writer.TERMINATE: {State.TERMINATING},
    }
    assert not wrong(lambda write: (write.row.before & begins[Writer(write.machine)]) ^ write.before)


def test_each_removes_what_the_state_lacks_and_nothing_else() -> None:
    assert not wrong(lambda write: (write.row.clears - set(write.sets)) ^ write.removes)


def test_each_counts_what_the_table_counts() -> None:
    def counted(write: Write) -> object:
        added = set(re.findall(r"(\w+) :one", write.clause("ADD")))
        return added ^ ({life.COUNTERS[write.to]} if write.row.counts else set())

    assert not wrong(counted)


def test_each_leaves_an_error_where_the_table_says_so() -> None:
    assert not wrong(lambda write: ("error" in write.sets) is not write.row.fails)


def test_each_run_that_ends_is_written_down() -> None:
    def lost(write: Write) -> bool:
        began = "attribute_not_exists(run_started_at)" not in write.update["ConditionExpression"]
        return write.row.ends_run and began and not {"runs", "stopped_at"} <= set(write.sets)

    assert not wrong(lost)


def test_each_says_in_the_ledger_what_the_table_says() -> None:
    def differs(write: Write) -> object:
        if not write.clause("SET").startswith("ledger_lines = list_append("):
            return "no line"
        (line,) = write.values[":lines"]["L"]
        said = {name: next(iter(value.values())) for name, value in line["M"].items()}
        expected = {"action": write.row.action, "by": write.machine, "code": write.row.code or "$.explained.code"}
        return {name: said[name] for name in expected if said[name] != expected[name]}

    assert not wrong(differs)


def test_each_frees_the_quota_that_the_table_frees() -> None:
    def differs(write: Write) -> object:
        # A record whose owner is gone has no quota to free: the other half of that transaction looks at that.
        if any("ConditionCheck" in item for item in write.task["Parameters"].get("TransactItems", ())):
            return set()
        return write.of_owner("DELETE") ^ set(write.row.leaves)

    assert not wrong(differs)


def test_each_message_that_is_owed_is_noted() -> None:
    def forgotten(write: Write) -> bool:
        if any("ConditionCheck" in item for item in write.task["Parameters"].get("TransactItems", ())):
            return False
        return write.row.owes and not write.before <= PROMISED and "untold" not in write.of_owner("ADD")

    assert not wrong(forgotten)


def test_each_knows_its_own_first_try() -> None:
    """By its mark, by a token of its transaction, or since it may be made again: decision 16."""

    def blind(write: Write) -> bool:
        if "ClientRequestToken.$" in write.task["Parameters"]:
            return False
        own = f"#state = :{write.to} AND moved_by = :run" in write.update["ConditionExpression"]
        return not (own and write.sets.get("moved_by") == ":run") and write.to not in write.before

    assert not wrong(blind)


def test_the_rules_see_every_write() -> None:
    assert len(every_write()) == 13
    assert {write.machine for write in every_write()} == {"launch", "undo", "stop", "start", "terminate"}


@pytest.mark.parametrize("name", sorted(life.TRANSITIONS))
def test_a_transition_lets_nothing_stay_that_its_state_lacks(name: str) -> None:
    row = life.TRANSITIONS[name]
    assert row.clears >= life.LACKS[row.to] - {"error"}
    assert not row.counts or row.to in life.COUNTERS
    assert not (row.joins and row.leaves)
