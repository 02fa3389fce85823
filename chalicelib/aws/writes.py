"""Conditional writes that know themselves again.

A connection can break after DynamoDB did what a call asks. The SDK then repeats the call, and the first try has made
its condition false: without more, that looks as if somebody else had been first. So a write leaves an id of its own
beside the change, and asks for the row where the condition fails: if the id is there, the change is its own.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from chalicelib.aws.items import to_attribute

FAILED = "ConditionalCheckFailed"
"""Reason of a transaction that was not done since a condition did not hold."""
CONFLICTS = frozenset(("TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"))
"""Reasons of a transaction that was not done since another had the rows."""
RETURN_ROW = {"ReturnValuesOnConditionCheckFailure": "ALL_OLD"}
"""What a request carries for that: DynamoDB's error holds the row then."""


def new_id() -> str:
    """An id for one write, which nobody can guess: 16 hex digits."""
    return os.urandom(8).hex()


def own_row(error: Any, attribute: str, write_id: str) -> Mapping[str, Any] | None:
    """The row of a condition that failed, if the write that bears this id made it so; else None.

    Args:
        error: botocore's ConditionalCheckFailedException, or one of a transaction's CancellationReasons.
        attribute: where the write left its id.
    """
    found = error if isinstance(error, Mapping) else error.response
    row: Mapping[str, Any] = found.get("Item") or {}
    return row if row.get(attribute) == {"S": write_id} else None


def update(
    table: str,
    row_id: str,
    expected: Mapping[str, object],
    changes: Mapping[str, object],
    *,
    terms: Sequence[str] = (),
    sets: Sequence[str] = (),
    values: Mapping[str, object] = MappingProxyType({}),
) -> dict[str, Any]:
    """What a request needs that changes a row if it is as it was read.

    Args:
        expected: attributes by their values; None: it is not there.
        changes: attributes by their values from then on; None removes one.
        terms, sets, values: what is to hold and to be set beyond that, as expressions, and the values in them.
    """
    terms = [
        *(
            f"attribute_not_exists(#{name})" if value is None else f"#{name} = :was_{name}"
            for name, value in expected.items()
        ),
        *terms,
    ]
    sets = [*(f"#{name} = :{name}" for name, value in changes.items() if value is not None), *sets]
    removes = [f"#{name}" for name, value in changes.items() if value is None]
    given = {f":was_{name}": value for name, value in expected.items()}
    given |= {f":{name}": value for name, value in changes.items()}
    given |= values
    parts = (f"{verb} {', '.join(names)}" for verb, names in (("SET", sets), ("REMOVE", removes)) if names)
    return {
        "TableName": table,
        "Key": {"id": {"S": row_id}},
        "ConditionExpression": " AND ".join(terms),
        "UpdateExpression": " ".join(parts),
        "ExpressionAttributeNames": {f"#{name}": name for name in {**expected, **changes}},
        "ExpressionAttributeValues": {name: to_attribute(value) for name, value in given.items() if value is not None},
        **RETURN_ROW,
    }


def reasons(error: Any) -> list[str]:
    """Why a transaction was not done, one code an action; `None` for one that was not at fault."""
    return [str(reason.get("Code", "None")) for reason in error.response.get("CancellationReasons", [])]


def done_before(error: Any, attribute: str, write_id: str) -> bool:
    """Whether a transaction was not done since an earlier try of it was: its first action left the id in its row."""
    found = error.response.get("CancellationReasons") or [{}]
    return own_row(found[0], attribute, write_id) is not None
