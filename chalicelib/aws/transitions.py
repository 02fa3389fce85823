"""The one writer of a notebook's state (DynamoDB): record, its owner's quota and line of the ledger, all or nothing."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any

from chalicelib.aws import writes
from chalicelib.aws.items import from_item
from chalicelib.aws.ledger import Event, said
from chalicelib.model import Notebook

if TYPE_CHECKING:
    from chalicelib.notebook.moves import Move

MOVED = "moved_by"
"""Who wrote the state last: a write of ours by its id, a workflow by the name of its execution. By it either knows a
try of its own whose answer was lost."""
WITH_LINE = "ledger_lines = list_append(if_not_exists(ledger_lines, :no_lines), :lines)"
"""Keeps lines in the record until they are in the ledger."""


class NotMoved(Enum):
    """Why a notebook is as it was."""

    CHANGED = "the record changed since it was read"
    QUOTA = "its owner has as many as they may have, or is gone"
    CONFLICT = "another transaction had the rows; try again"


class Transitions:
    """Takes a low-level DynamoDB client and the tables' names.

    `events_table`: lines of the ledger go there in the same transaction. Without it they wait in the record.
    `expects`: attributes that must be as they were read, beside the state and its counter.
    """

    def __init__(
        self,
        client: Any,
        table: str,
        users_table: str,
        *,
        events_table: str | None = None,
        expects: Sequence[str] = (),
    ) -> None:
        self._client = client
        self._table = table
        self._users_table = users_table
        self._events_table = events_table
        self._expects = expects

    def move(self, move: Move) -> Notebook | NotMoved:
        """Makes the transition; the record as it is then. A state that it does not begin from is a change, too.

        Raises TypeError for what the table does not have.
        """
        move.check()
        if not move.possible:
            return NotMoved.CHANGED
        write_id = writes.new_id()
        line = line_of(move)
        update = self._update(move, write_id, None if self._events_table else line)
        actions: list[dict[str, Any]] = [{"Update": update}]
        if self._events_table:
            actions.append({"Put": {"TableName": self._events_table, "Item": line.to_item()}})
        row = move.transition
        owed = row.owes and bool(move.notebook.notify)
        if row.joins:
            return self._transact(
                [*actions, join(self._users_table, move.notebook, row.joins, owed=owed)], move, write_id
            )
        if row.leaves or owed:
            left = self._transact(
                [*actions, leave(self._users_table, move.notebook, row.leaves, owed=owed)], move, write_id
            )
            # Without its owner's row there is no quota to free and nobody to tell.
            return self._transact(actions, move, write_id) if left is NotMoved.QUOTA else left
        if len(actions) > 1:
            return self._transact(actions, move, write_id)
        try:
            answer = self._client.update_item(**update, ReturnValues="ALL_NEW")
        except self._client.exceptions.ConditionalCheckFailedException as error:
            row_ = writes.own_row(error, MOVED, write_id)
            return Notebook.from_record(from_item(row_)) if row_ else NotMoved.CHANGED
        return Notebook.from_record(from_item(answer["Attributes"]))

    def _transact(self, actions: Sequence[dict[str, Any]], move: Move, write_id: str) -> Notebook | NotMoved:
        try:
            self._client.transact_write_items(TransactItems=list(actions))
        except self._client.exceptions.TransactionCanceledException as error:
            reasons = writes.reasons(error)
            if writes.done_before(error, MOVED, write_id):
                return move.after
            if reasons[:1] == [writes.FAILED]:
                return NotMoved.CHANGED
            if writes.FAILED in reasons:
                return NotMoved.QUOTA
            if writes.CONFLICTS & set(reasons):
                return NotMoved.CONFLICT
            raise
        return move.after

    def _update(self, move: Move, write_id: str, line: Event | None) -> dict[str, Any]:
        notebook = move.notebook
        terms: list[str] = []
        sets: list[str] = []
        values: dict[str, object] = {}
        if move.counter is not None:
            known = int(getattr(notebook, move.counter))
            terms.append(counted(move.counter, known))
            values[":known"] = known
        if line is not None:
            sets.append(WITH_LINE)
            values |= {":no_lines": [], ":lines": [line.to_record()]}
        expected = {name: getattr(notebook, name) for name in ("state", *self._expects)}
        changes = {**move.changes, MOVED: write_id}
        return writes.update(self._table, notebook.id, expected, changes, terms=terms, sets=sets, values=values)


def counted(counter: str, known: int) -> str:
    """The condition that a counter stands at `:known`; one that was never counted is not in the record."""
    return f"{counter} = :known" if known else f"(attribute_not_exists({counter}) OR {counter} = :known)"


def join(users_table: str, notebook: Notebook, sets: Sequence[str], *, owed: bool) -> dict[str, Any]:
    """The part of a transaction by which a notebook counts against its owner's quota; refused where that is full."""
    room = {
        "active": "(attribute_not_exists(active) OR size(active) < #quota OR contains(active, :id))",
        "owned": "(attribute_not_exists(owned) OR attribute_not_exists(keeps) OR size(owned) < keeps)",
    }
    return {
        "Update": {
            "TableName": users_table,
            "Key": {"id": {"S": notebook.owner}},
            "ConditionExpression": " AND ".join(
                ("attribute_exists(id)", "#quota > :none", *(room[name] for name in sets))
            ),
            "UpdateExpression": _adds((*sets, *(("untold",) if owed else ()))),
            "ExpressionAttributeNames": {"#quota": "quota"},
            "ExpressionAttributeValues": {
                ":none": {"N": "0"},
                ":id": {"S": notebook.id},
                ":notebook": {"SS": [notebook.id]},
            },
        }
    }


def leave(users_table: str, notebook: Notebook, sets: Sequence[str], *, owed: bool) -> dict[str, Any]:
    """The part of a transaction by which a notebook counts no more; refused where its owner is gone."""
    parts = [f"DELETE {', '.join(f'{name} :notebook' for name in sets)}"] if sets else []
    parts += [_adds(("untold",))] if owed else []
    return {
        "Update": {
            "TableName": users_table,
            "Key": {"id": {"S": notebook.owner}},
            "ConditionExpression": "attribute_exists(id)",
            "UpdateExpression": " ".join(parts),
            "ExpressionAttributeValues": {":notebook": {"SS": [notebook.id]}},
        }
    }


def _adds(sets: Sequence[str]) -> str:
    return f"ADD {', '.join(f'{name} :notebook' for name in sets)}"


def line_of(move: Move) -> Event:
    """The line of the ledger that tells of it."""
    return said(move.notebook.id, move.said_at or move.now, move.transition.action, move.why)
