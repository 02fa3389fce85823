"""DynamoDB: attribute values are answered as they are stored.

moto looks for each of an attribute value's ten members by up to six names, which takes most of the time of a read. What
it stores has the API's names already. Binary values, which it stores otherwise than it answers them, go its own way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from moto.core.serialize import BaseJSONSerializer

from local.patches import Patches


def install(patches: Patches) -> None:
    """Let moto answer attribute values at once."""
    serialize: Any = BaseJSONSerializer._serialize_type_structure

    def structure(serializer: Any, serialized: dict[str, Any], value: Any, shape: Any, key: str) -> None:
        if shape.name == "AttributeValue" and type(value) is dict:
            try:
                serialized[key] = answered(value)
            except KeyError:
                serialize(serializer, serialized, value, shape, key)
        else:
            serialize(serializer, serialized, value, shape, key)

    patches.set(BaseJSONSerializer, "_serialize_type_structure", structure)


def answered(value: dict[str, Any]) -> dict[str, Any]:
    """An attribute value as the API answers it. Raises KeyError for one that is, or has in it, another kind."""
    ((kind, content),) = value.items()
    return {kind: _CONTENTS[kind](content)}


def _as_it_is(content: Any) -> Any:
    return content


def _texts(content: Any) -> list[str]:
    return [str(one) for one in content]


def _list(content: Any) -> list[Any]:
    return [answered(one) for one in content]


def _map(content: Any) -> dict[str, Any]:
    return {name: answered(one) for name, one in content.items()}


_CONTENTS: dict[str, Callable[[Any], Any]] = {
    "S": str,
    "N": str,
    "SS": _texts,
    "NS": _texts,
    "BOOL": _as_it_is,
    "NULL": _as_it_is,
    "L": _list,
    "M": _map,
}
