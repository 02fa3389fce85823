"""The table `events` (DynamoDB): what was decided about each notebook, by which signals, and what was done."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from chalicelib import rows, times
from chalicelib.aws import batches
from chalicelib.aws.items import Attribute, from_item, to_item
from chalicelib.model import Notebook

if TYPE_CHECKING:
    from chalicelib.notebook.moves import Why

_KEPT, _KEEPS_KEPT = timedelta(days=90), timedelta(days=14)
# Far below the 400 KB of an item, and what a page of lines can be answered with. A line that is refused would keep the
# stop from happening that it is written with.
_MOST_BYTES = 16 * 1024
_SHORT = 1000


@dataclass(frozen=True)
class Event:
    """One line. `action`: `keep`, `probe`, `warn`, `stop`, or what was done; `by`: a user, `sweep` and so on."""

    notebook: str
    at: str
    action: str
    code: str
    by: str
    reason: str
    stops_at: str | None = None
    signals: Mapping[str, object] = field(default_factory=dict)

    def to_item(self) -> dict[str, Attribute]:
        """The row. Two lines of one millisecond differ by four digits, and the same line twice is one row.

        One that would be too large goes without its signals, and with the beginning of its reason.
        """
        digest = zlib.crc32("\n".join((self.action, self.code, self.by, self.reason)).encode()) & 0xFFFF
        at = times.from_text(self.at)
        kept = _KEEPS_KEPT if self.action == "keep" else _KEPT
        record: dict[str, object] = {
            "notebook": self.notebook,
            "at": f"{self.at}#{digest:04x}",
            "action": self.action,
            "code": self.code,
            "by": self.by,
            "reason": self.reason,
            "signals": self.signals,
        }
        if self.stops_at is not None:
            record["stops_at"] = self.stops_at
        if at is not None:
            record["expires_at"] = int((at + kept).timestamp())
        if rows.size(record) > _MOST_BYTES:
            record |= {"reason": self.reason[:_SHORT], "signals": {"left_out": "too large"}}
        return to_item(record)

    def to_record(self) -> dict[str, object]:
        """The line as it waits in its notebook's record: written there with the change that it tells of, by the same
        call, it is lost by nobody who dies after it."""
        return {name: getattr(self, name) for name in ("at", "action", "code", "by", "reason")}


def waiting(notebook: Notebook) -> list[Event]:
    """The lines that wait in the record. A line that was put there twice, by a call that was made again, is one."""
    found: dict[str, Event] = {}
    for row in notebook.ledger_lines:
        parts = {name: rows.text(row, name) or "" for name in ("at", "action", "code", "by", "reason")}
        line = Event(notebook.id, parts["at"], parts["action"], parts["code"], parts["by"], parts["reason"])
        found.setdefault("\n".join(parts.values()), line)
    return list(found.values())


def event(notebook_id: str, now: datetime, action: str, code: str, reason: str, *, by: str = "sweep") -> Event:
    """A line without signals."""
    return Event(notebook_id, times.to_text(now), action, code, by, reason)


def said(notebook_id: str, at: datetime, action: str, why: Why) -> Event:
    """A line that says why, with what it was decided by."""
    return Event(notebook_id, times.to_text(at), action, why.code, why.by, why.reason, why.stops_at, why.signals)


class Ledger:
    """Takes a low-level DynamoDB client, and `time.sleep` or a stand-in."""

    def __init__(self, client: Any, table: str, sleep: Callable[[float], None]) -> None:
        self._client = client
        self._table = table
        self._sleep = sleep

    def write(self, events: Sequence[Event]) -> None:
        """Adds lines. One that DynamoDB refuses keeps none of the others out, and comes out as its error at the end.
        Raises Unavailable."""
        batches.write(self._client, self._table, [entry.to_item() for entry in events], self._sleep)

    def page(self, notebook_id: str, limit: int, cursor: str | None) -> tuple[list[Event], str | None]:
        """Lines of one notebook, newest first, and where the next page begins. `cursor`: of the page before."""
        query: dict[str, Any] = {
            "TableName": self._table,
            "KeyConditionExpression": "notebook = :notebook",
            "ExpressionAttributeValues": {":notebook": {"S": notebook_id}},
            "ScanIndexForward": False,
            "ConsistentRead": True,
            "Limit": limit,
        }
        if cursor is not None:
            query["ExclusiveStartKey"] = {"notebook": {"S": notebook_id}, "at": {"S": cursor}}
        answer = self._client.query(**query)
        last = answer.get("LastEvaluatedKey")
        return [_event(from_item(item)) for item in answer["Items"]], last["at"]["S"] if last else None


def _event(row: Mapping[str, object]) -> Event:
    return Event(
        notebook=str(row["notebook"]),
        at=str(row["at"]).partition("#")[0],
        action=str(row.get("action", "")),
        code=str(row.get("code", "")),
        by=str(row.get("by", "")),
        reason=str(row.get("reason", "")),
        stops_at=rows.text(row, "stops_at"),
        signals=rows.mapping(row, "signals"),
    )
