"""No workflow reads what may not be there: such a path is `States.Runtime`, which ends an execution past every Catch.

Walks each packaged definition over all of its ways, with the paths that are surely there at each state: of the input,
of what a state writes, of a Choice that asked for it. Each path that a state reads has to be among them.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from chalicelib import executions
from chalicelib.plan import launch_plan
from chalicelib.prices import catalogue
from chalicelib.settings import Settings
from local.aws import beans
from tests.aws.longest import environment, notebook, user
from tests.aws.test_sdk_integrations import NAMES, machine

Known = frozenset[str]

CONTEXT = {"$$.Execution.Id", "$$.Execution.Name", "$$.Execution.StartTime", "$$.State.EnteredTime"}
# What a service always says, though its model marks no member of an answer as required. Of EC2: EC2's reference, and
# answers of each kind that were seen; not a public address, and not a public name (a VPC without DNS hostnames).
ALWAYS = {
    "ec2:describeInstances": ("Reservations",),
    "ec2:createFleet": (),
    "dynamodb:getItem": (),
}
# Inside of what was found to be present.
ENTRIES = {
    "$.seen.instances[0]": ("InstanceId", "InstanceType", "ImageId", "State.Name", "Placement.AvailabilityZone"),
    "$.created.Instances[0]": ("InstanceType", "InstanceIds[0]"),
    # Only a Catch writes these, always with both.
    "$.refusal": ("Error", "Cause"),
    "$.unanswered": ("Error", "Cause"),
    "$.looks.refusal": ("Error", "Cause"),
}
# What our own functions and documents answer (docs/contracts.md).
ANSWERS = {
    "ExplainFailure": ("code", "message"),
    "explain_failure": ("code", "message"),
    "configure-tls": ("certificate_sha256",),
    "configure-notebook": ("certificate_sha256",),
}
# What a condition of the call itself makes sure of.
BY_CONDITION = {
    ("start", "Wait for Notebook"): ("Attributes.certificate_at_start.S",),
    ("start", "Give Up"): ("Attributes.stops.N",),
}


@functools.cache
def given(name: str) -> Known:
    """The paths of an execution's input."""
    settings = Settings.from_env(environment())
    one = notebook()
    inputs: dict[str, Any] = {
        "launch": launch_plan(one, user(), catalogue(), settings).to_json(),
        "stop": executions.stop(one, call=True).input,
        "start": executions.start(one, settings).input,
        "terminate": executions.delete(one, one.owner).input,
        "password": {k: v for k, v in executions.password(one, "x").input.items() if k != "number"},
        # EventBridge's detail: error and cause are null there where the execution ended without them.
        "undo": {"name": "x", "status": "FAILED"},
    }
    return frozenset(leaves(inputs[name], "$"))


def leaves(value: Any, where: str) -> Iterator[str]:
    """Every path of a value."""
    yield where
    if isinstance(value, dict):
        for key, one in value.items():
            yield from leaves(one, f"{where}.{key.removesuffix('.$')}")
    elif isinstance(value, list):
        for index, one in enumerate(value):
            yield from leaves(one, f"{where}[{index}]")


def with_parents(path: str) -> Iterator[str]:
    while path:
        yield path
        path = re.sub(r"(\.[^.\[\]]+|\[[^\]]*\])$", "", path) if path != "$" else ""
    yield "$"


def read(value: Any) -> Iterator[str]:
    """The paths that a template reads, in intrinsic functions too."""
    if isinstance(value, dict):
        for key, one in value.items():
            if key.endswith(".$"):
                yield from in_text(one)
            else:
                yield from read(one)
    elif isinstance(value, list):
        for one in value:
            yield from read(one)


def in_text(text: str) -> Iterator[str]:
    bare = re.sub(r"'(?:[^'\\]|\\.)*'", "''", text)
    yield from re.findall(r"\$\$?(?:\.\w+|\[[\d:*]*\])*", bare)


def definite(path: str) -> str:
    """The part of a path before its first wildcard or slice: of a list that is there, even an empty one, it is one."""
    return re.split(r"\[\*\]|\[\d*:\d*\]", path)[0]


class Walk:
    """One definition."""

    def __init__(self, name: str, definition: dict[str, Any], start: Known) -> None:
        self.name = name
        self.states = definition["States"]
        self.known: dict[str, Known] = {}
        self.wrong: set[str] = set()
        todo = [(definition["StartAt"], start)]
        while todo:
            state, known = todo.pop()
            before = self.known.get(state)
            merged = known if before is None else before & known
            if merged != before:
                self.known[state] = merged
                todo += self._after(state, merged)
        # Only what is so at the end counts: on the way more may have been known.
        self.wrong = set()
        for state, known in self.known.items():
            self._after(state, known)

    def _need(self, state: str, path: str, known: Known) -> None:
        if path.startswith("$$"):
            token = path == "$$.Task.Token" and "waitForTaskToken" in self.states[state].get("Resource", "")
            if path not in CONTEXT and not token:
                self.wrong.add(f"{self.name}: {state}: {path}")
        elif definite(path) not in known:
            self.wrong.add(f"{self.name}: {state}: {path}")

    def _after(self, name: str, known: Known) -> list[tuple[str, Known]]:
        state = self.states[name]
        kind = state["Type"]
        if kind == "Choice":
            return self._choose(name, state, known)
        for path in read(state.get("Parameters")):
            self._need(name, path, known)
        for key in ("InputPath", "CausePath", "ErrorPath", "SecondsPath"):
            for path in in_text(state[key]) if state.get(key) else ():
                self._need(name, path, known)
        for branch in state.get("Branches", ()):
            self.wrong |= Walk(self.name, branch, known).wrong
        after = self._written(name, state, known)
        found = [(state["Next"], after)] if "Next" in state else []
        for catch in state.get("Catch", ()):
            place = catch.get("ResultPath", "$")
            caught = known if place is None else put(known, place, ("Error", "Cause"))
            found.append((catch["Next"], caught))
        return found

    def _written(self, name: str, state: dict[str, Any], known: Known) -> Known:
        place = state.get("ResultPath", "$")
        if place is None or state["Type"] not in ("Pass", "Task", "Parallel"):
            return known
        if state["Type"] == "Pass":
            if "InputPath" in state:
                source = state["InputPath"]
                inside = {path.removeprefix(source).lstrip(".") for path in known if path.startswith(f"{source}.")}
                return put(known, place, sorted(inside))
            made = state.get("Result", state.get("Parameters"))
            return put(known, place, [path.removeprefix("$").lstrip(".") for path in leaves(made, "$")])
        return put(known, place, self._answer(name, state))

    def _answer(self, name: str, state: dict[str, Any]) -> list[str]:
        resource = state.get("Resource", "")
        members: list[str] = []
        if ":::aws-sdk:" in resource and "waitForTaskToken" not in resource:
            operation = beans.operation(resource)
            assert operation is not None
            output = operation.output_shape
            members += ALWAYS.get(resource.removeprefix(beans.PREFIX), ())
            members += [beans.bean(one) for one in (output.required_members if output else ())]
            members += BY_CONDITION.get((self.name, name), ())
        document = state.get("Parameters", {}).get("DocumentName") or state.get("Parameters", {}).get("document", "")
        for word, answer in ANSWERS.items():
            if resource.endswith(word) or document.endswith(f"-{word}"):
                members += answer
        if "ResultSelector" in state:
            there = frozenset(path for one in members for path in with_parents(f"$.{one}")) | {"$"}
            for path in read(state["ResultSelector"]):
                self._need(name, path, there)
            return [key.removesuffix(".$") for key in state["ResultSelector"]]
        return members

    def _choose(self, name: str, state: dict[str, Any], known: Known) -> list[tuple[str, Known]]:
        found = []
        self._implied: list[tuple[set[str], str]] = []
        for rule in state["Choices"]:
            yes, known = self._rule(name, rule, known)
            found.append((rule["Next"], yes))
            self._imply(rule)
        if "Default" in state:
            found.append((state["Default"], known))
        return found

    def _imply(self, rule: dict[str, Any]) -> None:
        """After a rule `A and not present X` that was not so: where A is so, X is present."""
        parts = {json.dumps(one) for one in rule.get("And", ())}
        for one in rule.get("And", ()):
            if one.get("IsPresent") is False:
                self._implied.append((parts - {json.dumps(one)}, one["Variable"]))

    def _rule(self, name: str, rule: dict[str, Any], known: Known) -> tuple[Known, Known]:
        """What is known if the rule is so, and if it is not."""
        if "And" in rule:
            yes, so = known, set()
            for one in rule["And"]:
                yes, _ = self._rule(name, one, yes)
                so.add(json.dumps(one))
                for if_so, variable in self._implied:
                    if if_so <= so:
                        yes |= set(with_parents(variable))
            return yes, known
        if "Or" in rule:
            no = known
            for one in rule["Or"]:
                _, no = self._rule(name, one, no)
            return known, no
        if "Not" in rule:
            no, yes = self._rule(name, rule["Not"], known)
            return yes, no
        variable = rule["Variable"]
        if "IsPresent" in rule:
            there = known | set(with_parents(variable))
            for entry, members in ENTRIES.items():
                if variable == entry or variable.startswith(f"{entry}."):
                    there |= {path for one in members for path in with_parents(f"{entry}.{one}")}
            return (there, known) if rule["IsPresent"] else (known, there)
        self._need(name, variable, known)
        for key, value in rule.items():
            if key.endswith("Path"):
                self._need(name, value, known)
        return known, known


def put(known: Known, place: str, members: Any) -> Known:
    """A result at its place: what was there before it is gone."""
    if place == "$":
        return frozenset(path for one in members if one for path in with_parents(f"$.{one}")) | {"$"}
    kept = {path for path in known if not re.match(rf"{re.escape(place)}(\.|\[|$)", path)}
    inside = {f"{place}{'' if one.startswith('[') else '.'}{one}" for one in members if one}
    return frozenset(kept | {path for one in inside for path in with_parents(one)} | set(with_parents(place)))


@pytest.mark.parametrize("name", NAMES)
def test_every_path_that_is_read_is_surely_there(name: str) -> None:
    walk = Walk(name, machine(name), given(name))
    assert walk.wrong == set()
    # Nothing was passed over.
    assert walk.known.keys() == machine(name)["States"].keys()


@pytest.mark.parametrize("name", NAMES)
def test_a_guard_that_is_taken_away_is_missed(name: str) -> None:
    """The test above can fail: without any of the rules that ask for a presence."""
    definition = machine(name)
    text = json.dumps(definition)
    guards = re.findall(r'"IsPresent": (true|false)', text)
    missed = Walk(name, json.loads(re.sub(r'"IsPresent": (true|false)', '"IsNull": false', text)), given(name)).wrong
    assert guards and missed
