"""The table `notebooks` as the sweep sees it: what is due, and writes that hold only if nothing changed since."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from chalicelib import rows, times
from chalicelib.aws import batches, writes
from chalicelib.aws.items import from_item, to_attribute
from chalicelib.aws.ledger import Event
from chalicelib.aws.transitions import Transitions
from chalicelib.model import Notebook
from chalicelib.notebook.life import State

if TYPE_CHECKING:
    from chalicelib.notebook.moves import Move

_PAGE = 100
# What a write expects to find as it was read: the state, and every time that a decision or a person sets.
_EXPECTED = ("decided_at", "due_at", "hold_until")
# The id of the sweep's last write, by which it knows a try of its own whose answer was lost.
_DECIDED = "decided_by"


@dataclass(frozen=True)
class Due:
    """A record, and what only the sweep keeps in it."""

    notebook: Notebook
    probed: str | None = None
    """Which silence the monitor was probed in: written after the probe was sent."""
    missing_at: str | None = None
    """Since when EC2 does not know the instance."""


class DueNotebooks:
    """Takes a low-level DynamoDB client, the tables' names, and `time.sleep` or a stand-in."""

    def __init__(
        self, client: Any, table: str, users_table: str, events_table: str, sleep: Callable[[float], None]
    ) -> None:
        self._client = client
        self._table = table
        self._events_table = events_table
        self._sleep = sleep
        self._transitions = Transitions(client, table, users_table, events_table=events_table, expects=_EXPECTED)

    def pages(self, shard: int, now: datetime) -> Iterator[list[str]]:
        """Ids of what is due in a shard, longest due first. The index lags the table a little."""
        query: dict[str, Any] = {
            "TableName": self._table,
            "IndexName": "due-index",
            "KeyConditionExpression": "due = :shard AND due_at <= :now",
            "ExpressionAttributeValues": {":shard": {"S": str(shard)}, ":now": {"S": times.to_text(now)}},
            "Limit": _PAGE,
        }
        while True:
            answer = self._client.query(**query)
            if answer["Items"]:
                yield [item["id"]["S"] for item in answer["Items"]]
            if "LastEvaluatedKey" not in answer:
                return
            query["ExclusiveStartKey"] = answer["LastEvaluatedKey"]

    def read(self, ids: Sequence[str]) -> tuple[list[Due], list[str]]:
        """Records as they stand now, and the ids of those that cannot be read as one. Raises Unavailable."""
        found: list[Due] = []
        damaged: list[str] = []
        for item in batches.read(self._client, self._table, "id", ids, self._sleep):
            try:
                record = from_item(item)
                notebook = Notebook.from_record(record)
            except (KeyError, TypeError, ValueError):
                damaged.append(item["id"]["S"])
            else:
                found.append(Due(notebook, rows.text(record, "probed"), rows.text(record, "missing_at")))
        return found, damaged

    def write(
        self,
        notebook: Notebook,
        changes: Mapping[str, object],
        *,
        line: Event | None = None,
    ) -> bool:
        """Sets attributes (None removes one). False, with nothing written, if the record is not as `notebook` shows it.

        `line`: of the ledger, written with it or not at all. A state is changed by `move`.
        """
        if "state" in changes:
            raise TypeError("A change of the state that is no transition.")
        write_id = writes.new_id()
        expected = {name: getattr(notebook, name) for name in ("state", *_EXPECTED)}
        update = writes.update(self._table, notebook.id, expected, {**changes, _DECIDED: write_id})
        if line is None:
            try:
                self._client.update_item(**update)
            except self._client.exceptions.ConditionalCheckFailedException as error:
                return writes.own_row(error, _DECIDED, write_id) is not None
            return True
        return self._transact(
            [{"Update": update}, {"Put": {"TableName": self._events_table, "Item": line.to_item()}}], write_id
        )

    def move(self, move: Move) -> Notebook | None:
        """Makes a transition with its line of the ledger; the record as it is then. None, with nothing written, if the
        record is not as it was read."""
        moved = self._transitions.move(move)
        return moved if isinstance(moved, Notebook) else None

    def forget_lines(self, notebook: Notebook) -> bool:
        """Removes the lines that `notebook` shows, which are in the ledger. False if there are others by now."""
        try:
            self._client.update_item(
                TableName=self._table,
                Key={"id": {"S": notebook.id}},
                ConditionExpression="ledger_lines = :known",
                UpdateExpression="REMOVE ledger_lines",
                ExpressionAttributeValues={":known": to_attribute(list(notebook.ledger_lines))},
            )
        except self._client.exceptions.ConditionalCheckFailedException:
            return False
        return True

    def given(self, notebook_id: str, warned_at: str, due_at: datetime) -> bool:
        """Notes that the warning of that time was published. False if another stands by now, or the state changed."""
        try:
            self._client.update_item(
                TableName=self._table,
                Key={"id": {"S": notebook_id}},
                ConditionExpression="#state = :ready AND warned.#at = :at",
                UpdateExpression="SET due_at = :due REMOVE warned.told",
                ExpressionAttributeNames={"#state": "state", "#at": "at"},
                ExpressionAttributeValues={
                    ":ready": {"S": State.READY},
                    ":at": {"S": warned_at},
                    ":due": {"S": times.to_text(due_at)},
                },
            )
        except self._client.exceptions.ConditionalCheckFailedException:
            return False
        return True

    def probed(self, notebook_id: str, silence: str) -> bool:
        """Notes that the probe of that silence was sent. False if it is not ready by now."""
        try:
            self._client.update_item(
                TableName=self._table,
                Key={"id": {"S": notebook_id}},
                ConditionExpression="#state = :ready",
                UpdateExpression="SET probed = :silence",
                ExpressionAttributeNames={"#state": "state"},
                ExpressionAttributeValues={":ready": {"S": State.READY}, ":silence": {"S": silence}},
            )
        except self._client.exceptions.ConditionalCheckFailedException:
            return False
        return True

    def told(self, notebook_id: str, name: str, since: str) -> bool:
        """Notes that its owner was told of what is the matter with its server: `safe_mode` or `not_answering`, of that
        `since`. False if it is over by now."""
        try:
            self._client.update_item(
                TableName=self._table,
                Key={"id": {"S": notebook_id}},
                ConditionExpression="#name.since = :since",
                UpdateExpression="REMOVE #name.told",
                ExpressionAttributeNames={"#name": name},
                ExpressionAttributeValues={":since": {"S": since}},
            )
        except self._client.exceptions.ConditionalCheckFailedException:
            return False
        return True

    def _transact(self, actions: Sequence[Mapping[str, Any]], write_id: str) -> bool:
        """Whether it was done. The first action is the record's."""
        try:
            self._client.transact_write_items(TransactItems=actions)
        except self._client.exceptions.TransactionCanceledException as error:
            if writes.done_before(error, _DECIDED, write_id):
                return True
            # Another transaction has the rows: as good as another sweep that was first.
            if {writes.FAILED, *writes.CONFLICTS} & set(writes.reasons(error)):
                return False
            raise
        return True
