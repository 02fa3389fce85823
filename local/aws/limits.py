"""What AWS's models of its services say of values: required members, enumerations, lengths, ranges, patterns.

botocore's models state them; botocore itself looks at a part, and moto at little. The words are those with which AWS
refuses such a call (`… failed to satisfy constraint: …`).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from typing import Any

from botocore.model import ListShape, MapShape, Shape, StructureShape

OPEN = {"InstanceType"}
"""Enumerations that AWS adds to every few weeks: a model of last month does not know all."""

_UNICODE = (
    ("\\p{L}", "\\w"),
    ("\\p{N}", "\\w"),
    ("\\p{M}", "\\w"),
    ("\\p{Z}", " \u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"),
)


def violations(shape: Shape | None, value: Any, where: str = "") -> Iterator[str]:
    """What AWS would say against a value with the API's names, a member at a time."""
    if shape is None or value is None:
        return
    if isinstance(shape, StructureShape):
        yield from _structure(shape, value, where)
    elif isinstance(shape, ListShape):
        if not isinstance(value, list):
            yield _said(value, where, "Member must be a list")
            return
        yield from _length(shape, value, where)
        for index, one in enumerate(value):
            yield from violations(shape.member, one, f"{where}.{index + 1}.member")
    elif isinstance(shape, MapShape):
        if not isinstance(value, dict):
            yield _said(value, where, "Member must be a map")
            return
        yield from _length(shape, value, where)
        for key, one in value.items():
            yield from violations(shape.key, key, where)
            yield from violations(shape.value, one, f"{where}.{key}.member")
    else:
        yield from _scalar(shape, value, where)


def _structure(shape: StructureShape, value: Any, where: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield _said(value, where, "Member must be a structure")
        return
    prefix = f"{where}." if where else ""
    for name in shape.required_members:
        if value.get(name) is None:
            yield _said(None, prefix + _small(name), "Member must not be null")
    for name, one in value.items():
        yield from violations(shape.members.get(name), one, prefix + _small(name))


def _scalar(shape: Shape, value: Any, where: str) -> Iterator[str]:
    kind = shape.type_name
    if kind == "string":
        if not isinstance(value, str):
            yield _said(value, where, "Member must be a string")
            return
        enum = getattr(shape, "enum", None)
        if enum and shape.name not in OPEN and value not in enum:
            yield _said(value, where, f"Member must satisfy enum value set: [{', '.join(enum)}]")
        yield from _length(shape, value, where)
        pattern = _pattern(shape.metadata.get("pattern"))
        if pattern is not None and not pattern.fullmatch(value):
            yield _said(value, where, f"Member must satisfy regular expression pattern: {shape.metadata['pattern']}")
    elif kind in {"integer", "long", "float", "double"}:
        if isinstance(value, bool) or not isinstance(value, int | float):
            yield _said(value, where, "Member must be a number")
            return
        least, most = shape.metadata.get("min"), shape.metadata.get("max")
        if least is not None and value < least:
            yield _said(value, where, f"Member must have value greater than or equal to {least}")
        if most is not None and value > most:
            yield _said(value, where, f"Member must have value less than or equal to {most}")
    elif kind == "boolean" and not isinstance(value, bool):
        yield _said(value, where, "Member must be a boolean")


def _length(shape: Shape, value: Any, where: str) -> Iterator[str]:
    least, most = shape.metadata.get("min"), shape.metadata.get("max")
    if least is not None and len(value) < least:
        yield _said(value, where, f"Member must have length greater than or equal to {least}")
    if most is not None and len(value) > most:
        yield _said(value, where, f"Member must have length less than or equal to {most}")


@functools.cache
def _pattern(text: str | None) -> re.Pattern[str] | None:
    # Java's; what Python cannot read is not looked at.
    if text is None:
        return None
    for java, python in _UNICODE:
        text = text.replace(java, python)
    try:
        return re.compile(text)
    except re.error:
        return None


def _small(name: str) -> str:
    return name[:1].lower() + name[1:]


def _said(value: Any, where: str, rule: str) -> str:
    text = "null" if value is None else f"'{value}'"
    return f"Value {text if len(text) <= 200 else f'{text[:200]}…'} at '{where}' failed to satisfy constraint: {rule}"
