"""The state machines as AWS would read them: substituted, parsed, with their states in one flat view."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from statemachine import build

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("launch", "undo", "terminate", "stop", "start", "password")
LOGICAL_IDS = {
    "launch": "LaunchStateMachine",
    "undo": "UndoStateMachine",
    "terminate": "TerminateStateMachine",
    "stop": "StopStateMachine",
    "start": "StartStateMachine",
    "password": "PasswordStateMachine",
}


class _Template(yaml.CSafeLoader):
    """CloudFormation's short tags, kept as {"Fn::…": value}."""


def _tag(loader: yaml.CSafeLoader, suffix: str, node: yaml.Node) -> dict[str, Any]:
    if isinstance(node, yaml.ScalarNode):
        return {suffix: loader.construct_scalar(node)}
    if isinstance(node, yaml.SequenceNode):
        return {suffix: loader.construct_sequence(node, deep=True)}
    assert isinstance(node, yaml.MappingNode)
    return {suffix: loader.construct_mapping(node, deep=True)}


_Template.add_multi_constructor("!", _tag)


def template() -> dict[str, Any]:
    return yaml.load((ROOT / ".chalice/resources.yaml").read_text(), Loader=_Template)


def substitutions(name: str) -> dict[str, Any]:
    return template()["Resources"][LOGICAL_IDS[name]]["Properties"]["DefinitionSubstitutions"]


def path(name: str) -> Path:
    return ROOT / f"statemachine/{name}.asl.yaml"


def placeholders(name: str) -> set[str]:
    return build.placeholders(build.expanded(path(name)))


def definition(name: str) -> dict[str, Any]:
    values = {
        key: value if isinstance(value, int) else f"arn:aws:lambda:us-east-1:123456789012:function:{key}"
        for key, value in substitutions(name).items()
    }
    return build.definition(path(name), values)


@dataclass(frozen=True)
class State:
    machine: str
    name: str
    body: dict[str, Any]
    caught: bool  # by its own Catch or by that of a Parallel or Map around it


def states(name: str) -> list[State]:
    def walk(machine: dict[str, Any], caught: bool) -> Iterator[State]:
        for state_name, body in machine["States"].items():
            own = any("States.ALL" in c["ErrorEquals"] for c in body.get("Catch", ()))
            yield State(name, state_name, body, caught or own)
            for branch in body.get("Branches", ()):
                yield from walk(branch, caught or own)

    return list(walk(definition(name), False))
