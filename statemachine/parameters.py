"""Calls a fragment with the parameters that a workflow gives it, and says which of them is wrong and where."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

Number = int | str
"""A whole number, or a placeholder for one."""

T = TypeVar("T")
_WORDS = {str: "a text", int: "a whole number", bool: "true or false", dict: "a mapping", list: "a list"}


class ParameterError(ValueError):
    """A fragment cannot be expanded. `line` is that of the wrong parameter, if it is a single one."""

    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(message)
        self.line = line


class Located(dict[str, Any]):
    """A mapping from a YAML file, with the line of each key."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: dict[str, int] = {}


def apply(function: Callable[..., T], given: Any, what: str, *before: Any) -> T:
    """Call a function with a mapping as its keyword arguments.

    Raises:
        ParameterError: A parameter is unknown, missing or of the wrong type.
    """
    if not isinstance(given, Mapping):
        raise ParameterError(f"{what} must be a mapping, not {given!r}")
    lines = given.lines if isinstance(given, Located) else {}
    known = {name: one for name, one in inspect.signature(function).parameters.items() if one.kind is one.KEYWORD_ONLY}
    for name in given:
        if name not in known:
            raise ParameterError(f"{what} takes no `{name}`; it takes {', '.join(known)}", lines.get(name))
    for name, one in known.items():
        if one.default is one.empty and name not in given:
            raise ParameterError(f"{what} needs `{name}`")
    hints = typing.get_type_hints(function)
    for name, value in given.items():
        if not _fits(value, hints[name]):
            raise ParameterError(f"{what}: `{name}` must be {_words(hints[name])}, not {value!r}", lines.get(name))
    return function(*before, **given)


def _types(hint: Any) -> list[type]:
    parts = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    return [typing.get_origin(part) or part for part in parts]


def _fits(value: Any, hint: Any) -> bool:
    expected = _types(hint)
    return (bool in expected) if isinstance(value, bool) else isinstance(value, tuple(expected))


def _words(hint: Any) -> str:
    if hint == Number:
        return "a whole number or a placeholder for one"
    return " or ".join(_WORDS[one] for one in _types(hint) if one in _WORDS)
