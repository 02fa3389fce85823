"""Conditional writes that know themselves again.

A connection can break after DynamoDB did what a call asks. The SDK then repeats the call, and the first try has made
its condition false: without more, that looks as if somebody else had been first. So a write leaves an id of its own
beside the change, and asks for the row where the condition fails: if the id is there, the change is its own.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

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
