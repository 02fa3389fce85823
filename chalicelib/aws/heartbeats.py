"""The table `heartbeats` (DynamoDB), whose rows the monitors write: read, and confirmed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from chalicelib import times
from chalicelib.aws import batches
from chalicelib.aws.faults import code_of
from chalicelib.heartbeats import Heartbeat

# Whoever is root on a machine may fill its row to DynamoDB's 400 KB, which take up to 70 MiB when they are read: no
# more rows at once than the sweep has memory for.
_AT_ONCE = 8
_REFUSED = "ValidationException"


@dataclass(frozen=True)
class Row:
    """A heartbeat, and what the control plane last wrote beside it, as far as the machine left it there."""

    heartbeat: Heartbeat
    limit_seconds: str | None
    hold_until: str | None
    boot_before_start: str | None = None
    """The boot before the last start."""


class HeartbeatsTable:
    """Takes a low-level DynamoDB client, and `time.sleep` or a stand-in."""

    def __init__(self, client: Any, table: str, sleep: Callable[[float], None]) -> None:
        self._client = client
        self._table = table
        self._sleep = sleep

    def read(self, arns: Sequence[str]) -> dict[str, Row]:
        """The rows of these instances (their ARNs), as they stand now. Raises Unavailable."""
        found: dict[str, Row] = {}
        for item in batches.read(self._client, self._table, "id", arns, self._sleep, at_once=_AT_ONCE):
            heartbeat = Heartbeat.from_item(item)
            if heartbeat is not None:
                row = Row(
                    heartbeat,
                    _said(item, "limit_seconds", "N"),
                    _said(item, "hold_until", "S"),
                    _said(item, "boot_before_start", "S"),
                )
                found[item["id"]["S"]] = row
        return found

    def confirm(self, arn: str, limit: timedelta, hold_until: str | None, now: datetime) -> bool:
        """Tells a monitor that it was heard, and what holds for it. False if it cannot be told: it has written no row,
        or one so large that DynamoDB lets nothing be added."""
        change = "SET confirmed = :now, limit_seconds = :limit"
        values = {":now": {"S": times.to_text(now)}, ":limit": {"N": limit_text(limit)}}
        if hold_until is not None:
            change += ", hold_until = :hold"
            values[":hold"] = {"S": hold_until}
        else:
            change += " REMOVE hold_until"
        try:
            self._client.update_item(
                TableName=self._table,
                Key={"id": {"S": arn}},
                ConditionExpression="attribute_exists(id)",
                UpdateExpression=change,
                ExpressionAttributeValues=values,
            )
        except self._client.exceptions.ConditionalCheckFailedException:
            return False
        except self._client.exceptions.ClientError as error:
            if code_of(error) == _REFUSED and "size" in str(error):
                return False
            raise
        return True


def limit_text(limit: timedelta) -> str:
    """Seconds as DynamoDB writes a number."""
    return f"{round(limit.total_seconds(), 3):f}".rstrip("0").rstrip(".")


def _said(item: Any, name: str, kind: str) -> str | None:
    value = item.get(name)
    text = value.get(kind) if isinstance(value, dict) else None
    return text if isinstance(text, str) else None
