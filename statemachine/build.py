"""Builds the definitions that Step Functions takes from the files of this folder.

A workflow in `NAME.asl.yaml` is written in the Amazon States Language, except for its tags: a tag such as `!write`
stands for a state, or for an entry of a Retry or a Catch. `fragments.py` expands it. Placeholders (`${Name}`) are
replaced afterwards, since fragments contain some too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from statemachine import fragments
from statemachine.parameters import Located, ParameterError, apply

ROOT = Path(__file__).resolve().parent
_CUT = re.compile(r"\s+#\w")
_PLACEHOLDER = re.compile(r"\$\{(\w+)\}")


class DefinitionError(ValueError):
    """A workflow's file is wrong. The text starts with the file and, if there is one, the line."""


@dataclass(frozen=True)
class _Fragment:
    """A tag with its parameters, not yet expanded."""

    tag: str
    given: Located
    line: int


def definition(path: Path, values: Mapping[str, Any]) -> dict[str, Any]:
    """A workflow as Step Functions takes it.

    Args:
        path: The workflow's file.
        values: The values of placeholders. A placeholder whose value is a mapping (such as `{Ref: …}`) is kept, since
            only CloudFormation knows what it stands for.

    Raises:
        DefinitionError: The file cannot be expanded, or a placeholder has no value.
    """
    made = expanded(path)
    if missing := sorted(placeholders(made) - values.keys()):
        raise DefinitionError(f"{path.name}: DefinitionSubstitutions has no {', '.join(missing)}.")
    whole: dict[str, Any] = _substituted(made, values)
    return whole


def expanded(path: Path) -> dict[str, Any]:
    """A workflow with its fragments expanded and its placeholders kept.

    Raises:
        DefinitionError: A tag, a parameter or the YAML is wrong.
    """
    return _File(path).machine()


def placeholders(value: Any) -> set[str]:
    """The names in all `${Name}` of a definition."""
    return {name for text in _texts(value) for name in _PLACEHOLDER.findall(text)}


class _File:
    def __init__(self, path: Path) -> None:
        self._name = path.name
        self._text = path.read_text(encoding="utf-8")
        self._scalars = yaml.constructor.SafeConstructor()
        self._seen: set[int] = set()

    def machine(self) -> dict[str, Any]:
        try:
            node = yaml.compose(self._text, Loader=yaml.SafeLoader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = mark.line + 1 if mark else 1
            raise self._error(line, f"{error.problem or error.context}") from error
        if node is None:
            raise self._error(1, "is empty")
        return self._expanded(self._value(node), 1)

    def _error(self, line: int, message: str) -> DefinitionError:
        return DefinitionError(f"{self._name}:{line}: {message}.")

    # From YAML to values

    def _value(self, node: yaml.Node) -> Any:
        line = node.start_mark.line + 1
        if id(node) in self._seen:
            raise self._error(line, "has an alias; use a fragment for what is needed more than once")
        self._seen.add(id(node))
        if node.tag.startswith("!"):
            return self._tagged(node, line)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node)
        if isinstance(node, yaml.SequenceNode):
            return [self._value(one) for one in node.value]
        self._whole(node, line)
        return self._scalars.construct_object(node)

    def _whole(self, node: yaml.Node, line: int) -> None:
        """Refuses a text that YAML ends at ` #name`, which it takes for a comment."""
        rest = self._text[node.end_mark.index :].partition("\n")[0]
        if isinstance(node, yaml.ScalarNode) and node.style is None and _CUT.match(rest):
            raise self._error(
                line, f"`{node.value}` ends before `{rest.strip()}`, which YAML takes for a comment; quote it"
            )

    def _mapping(self, node: yaml.MappingNode) -> Located:
        made = Located()
        for key_node, value_node in node.value:
            key, line = key_node.value, key_node.start_mark.line + 1
            if key in made:
                raise self._error(line, f"has `{key}` twice")
            made.lines[key] = line
            made[key] = self._value(value_node)
        return made

    def _tagged(self, node: yaml.Node, line: int) -> Any:
        tag = node.tag
        if tag in fragments.FOR_STATES:
            if not isinstance(node, yaml.MappingNode):
                raise self._error(line, f"{tag} takes parameters: {tag} {{name: value}}")
            return _Fragment(tag, self._mapping(node), line)
        if tag not in fragments.FOR_PARTS:
            known = ", ".join((*fragments.FOR_STATES, *fragments.FOR_PARTS))
            raise self._error(line, f"there is no fragment {tag}; there are {known}")
        if isinstance(node, yaml.MappingNode):
            return self._applied(fragments.FOR_PARTS[tag], tag, self._mapping(node), line)
        # The short form for a fragment with one parameter: `!condition-failed Already Recorded`.
        return self._applied(fragments.FOR_PARTS[tag], tag, {"then": node.value}, line)

    # From fragments to states

    def _expanded(self, machine: Any, line: int) -> dict[str, Any]:
        states = machine.get("States") if isinstance(machine, Located) else None
        if not isinstance(states, Located):
            raise self._error(line, "a state machine needs `States`")
        made: dict[str, Any] = {}
        for name, body in states.items():
            line = states.lines[name]
            for of_one, state in self._states(name, body, line).items():
                if of_one in made:
                    raise self._error(line, f"makes the state `{of_one}`, which exists already")
                made[of_one] = state
        self._refuse_fragments({key: value for key, value in machine.items() if key != "States"})
        return {**machine, "States": made}

    def _states(self, name: str, body: Any, line: int) -> dict[str, Any]:
        if isinstance(body, _Fragment):
            self._refuse_fragments(body.given)
            own = {key: value for key, value in body.given.items() if key in fragments.ASL}
            if not own.keys() & {"Next", "End"}:
                raise self._error(line, f"{body.tag} needs `Next` or `End`")
            given = Located()
            given.lines = body.given.lines
            given.update({key: value for key, value in body.given.items() if key not in own})
            made: dict[str, Any] = self._applied(fragments.FOR_STATES[body.tag], body.tag, given, line, name, own)
            return made
        if not isinstance(body, Located):
            raise self._error(line, f"`{name}` is not a state")
        self._refuse_fragments({key: value for key, value in body.items() if key != "Branches"})
        if "Branches" not in body:
            return {name: body}
        where = body.lines["Branches"]
        if not isinstance(body["Branches"], list):
            raise self._error(where, "`Branches` is a list of state machines")
        return {name: {**body, "Branches": [self._expanded(one, where) for one in body["Branches"]]}}

    def _applied(self, function: Callable[..., Any], tag: str, given: Any, line: int, *before: Any) -> Any:
        try:
            return apply(function, given, tag, *before)
        except ParameterError as error:
            message = str(error) if str(error).startswith(tag) else f"{tag}: {error}"
            raise self._error(error.line or line, message) from error

    def _refuse_fragments(self, value: Any) -> None:
        """Raises for a fragment that stands for a state where no state can be."""
        if isinstance(value, _Fragment):
            raise self._error(value.line, f"{value.tag} stands for a state and cannot be used here")
        for one in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            self._refuse_fragments(one)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for one in [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _texts(one)


def _substituted(value: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(value, dict):
        return {_substituted(key, values): _substituted(one, values) for key, one in value.items()}
    if isinstance(value, list):
        return [_substituted(one, values) for one in value]
    if not isinstance(value, str):
        return value
    if (whole := _PLACEHOLDER.fullmatch(value)) and not isinstance(values[whole[1]], Mapping):
        # A number stays one.
        return values[whole[1]]

    def text(match: re.Match[str]) -> str:
        given = values[match[1]]
        return match[0] if isinstance(given, Mapping) else str(given)

    return _PLACEHOLDER.sub(text, value)
