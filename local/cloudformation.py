"""The part of CloudFormation's template language that `.chalice/resources.yaml` uses."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import yaml


class TemplateError(ValueError):
    """A template that this reader cannot resolve."""


class _Loader(yaml.CSafeLoader):
    """YAML with CloudFormation's short tags: `!Ref X` is `{"Ref": "X"}`, `!Name Y` is `{"Fn::Name": Y}`."""


def _tagged(loader: Any, suffix: str, node: Any) -> dict[str, Any]:
    value: Any
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
        if suffix == "GetAtt":
            value = value.split(".", 1)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        value = loader.construct_mapping(node, deep=True)
    return {suffix if suffix in {"Ref", "Condition"} else f"Fn::{suffix}": value}


_ABSENT = object()


_Loader.add_multi_constructor("!", _tagged)


def load(text: str) -> dict[str, Any]:
    """A template from its YAML text."""
    loaded: dict[str, Any] = yaml.load(text, _Loader)  # noqa: S506 - a safe loader with tags that build dictionaries
    return loaded


class Resolver:
    """Replaces intrinsic functions by values. `ref` and `attribute` say what a resource is once it exists."""

    def __init__(
        self,
        parameters: Mapping[str, Any],
        ref: Callable[[str], Any],
        attribute: Callable[[str, str], Any],
        conditions: Mapping[str, Any] | None = None,
    ) -> None:
        """`conditions`: those of the template, by name."""
        self._conditions = conditions or {}
        self._parameters = parameters
        self._ref = ref
        self._attribute = attribute

    def resolve(self, value: Any) -> Any:  # noqa: PLR0911 - one return an intrinsic function
        """The value without intrinsic functions. Raises TemplateError for one that is not known here."""
        if isinstance(value, list):
            return [found for item in value if (found := self.resolve(item)) is not _ABSENT]
        if not isinstance(value, dict):
            return value
        if len(value) == 1:
            (name, argument), *_ = value.items()
            if name == "Ref":
                return self._named(argument)
            if name == "Fn::GetAtt":
                return self._attribute(*(argument if isinstance(argument, list) else argument.split(".", 1)))
            if name == "Fn::Sub":
                return self._sub(argument)
            if name == "Fn::Join":
                return argument[0].join(str(item) for item in self.resolve(argument[1]))
            if name == "Fn::Select":
                return self.resolve(argument[1])[int(self.resolve(argument[0]))]
            if name == "Fn::If":
                return self.resolve(argument[1 if self.holds({"Condition": argument[0]}) else 2])
            if name.startswith("Fn::"):
                raise TemplateError(f"{name} is not known to the local cloud")
        return {key: found for key, item in value.items() if (found := self.resolve(item)) is not _ABSENT}

    def holds(self, condition: Mapping[str, Any]) -> bool:
        """Whether a condition is so. Raises TemplateError for one that is not known here."""
        ((name, argument),) = condition.items()
        if name == "Condition" and argument in self._conditions:
            return self.holds(self._conditions[argument])
        if name == "Fn::Equals":
            first, second = self.resolve(argument)
            return bool(first == second)
        if name == "Fn::Not":
            return not self.holds(argument[0])
        raise TemplateError(f"the condition {name} {argument} is not known to the local cloud")

    def _named(self, name: str) -> Any:
        if name == "AWS::NoValue":
            return _ABSENT
        return self._parameters[name] if name in self._parameters else self._ref(name)

    def _sub(self, argument: Any) -> str:
        text, own = (argument, {}) if isinstance(argument, str) else (argument[0], self.resolve(argument[1]))

        def value(match: re.Match[str]) -> str:
            name = match.group(1)
            if name.startswith("!"):
                return f"${{{name[1:]}}}"
            if name in own:
                return str(own[name])
            if "." in name:
                return str(self._attribute(*name.split(".", 1)))
            return str(self._named(name))

        return re.sub(r"\$\{([^}]+)\}", value, text)
