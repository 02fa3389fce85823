"""Reads attributes of rows defensively: what is missing or of another type is unknown."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal


def text(record: Mapping[str, object], key: str) -> str | None:
    """A text that is not empty."""
    value = record.get(key)
    return value if isinstance(value, str) and value else None


def whole(record: Mapping[str, object], key: str) -> int | None:
    """A number, as a whole one."""
    value = record.get(key)
    if isinstance(value, Decimal) and not value.is_finite():
        return None
    return int(value) if isinstance(value, int | Decimal) and not isinstance(value, bool) else None


def needed(record: Mapping[str, object], key: str) -> int:
    """A number that every row has. A default in its place would be a guess, and a wrong price."""
    value = whole(record, key)
    if value is None:
        raise KeyError(key)
    return value


def strings(value: object) -> list[str]:
    """The texts of a list or set."""
    if isinstance(value, list | tuple | set | frozenset):
        return [entry for entry in value if isinstance(entry, str)]
    return []


def size(value: object) -> int:
    """Bytes as DynamoDB counts them, rather too many than too few: a number as its longest."""
    if isinstance(value, str):
        return len(value.encode(errors="replace"))
    if isinstance(value, Mapping):
        return 3 + sum(1 + size(key) + size(part) for key, part in value.items())
    if isinstance(value, list | tuple | set | frozenset):
        return 3 + sum(1 + size(part) for part in value)
    return 1 if value is None or isinstance(value, bool) else 21


def mapping(record: Mapping[str, object], key: str) -> Mapping[str, object]:
    """A map; an empty one where there is none."""
    value = record.get(key)
    return value if isinstance(value, Mapping) else {}
