"""Python values to and from DynamoDB's attribute values, for the low-level client.

boto3's resource has its own, but importing it costs 100 ms of a cold start.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

Attribute = dict[str, object]


def to_item(record: Mapping[str, object]) -> dict[str, Attribute]:
    """A whole row."""
    return {key: to_attribute(value) for key, value in record.items()}


def from_item(item: Mapping[str, Mapping[str, object]]) -> dict[str, object]:
    """A whole row."""
    return {key: from_attribute(value) for key, value in item.items()}


def to_attribute(value: object) -> Attribute:  # noqa: PLR0911 - one return a type
    """Raises TypeError for what has no attribute type here. A set has to hold strings and not be empty."""
    if value is None:
        return {"NULL": True}
    if isinstance(value, bool):
        return {"BOOL": value}
    if isinstance(value, str):
        return {"S": value}
    if isinstance(value, int | Decimal):
        return {"N": str(value)}
    if isinstance(value, Mapping):
        return {"M": to_item(value)}
    if isinstance(value, list | tuple):
        return {"L": [to_attribute(entry) for entry in value]}
    if isinstance(value, set | frozenset):
        return {"SS": sorted(str(entry) for entry in value)}
    raise TypeError(f"DynamoDB has no type here for {type(value).__name__}.")


def from_attribute(attribute: Mapping[str, object]) -> object:
    """Raises TypeError for a type that the product does not write."""
    ((kind, value),) = attribute.items()
    if kind in ("S", "BOOL"):
        return value
    if kind == "N":
        number = Decimal(str(value))
        return int(number) if number == number.to_integral_value() else number
    if kind == "NULL":
        return None
    if kind == "M" and isinstance(value, Mapping):
        return from_item(value)
    if kind == "L" and isinstance(value, list):
        return [from_attribute(entry) for entry in value]
    if kind == "SS" and isinstance(value, list | set | tuple):
        return set(value)
    raise TypeError(f"The product writes no attribute of the type {kind}.")
