"""The table `sweeps` (DynamoDB): who drains, how full the buckets are, and what has no owner since when."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from chalicelib import times
from chalicelib.aws import batches
from chalicelib.aws.items import from_item, to_attribute, to_item
from chalicelib.pacing import Limits, Pace

_DRAIN = {"id": {"S": "drain"}}
# Long after anything was last known of a resource.
_KEPT = timedelta(days=30)


class SweepsTable:
    """Takes a low-level DynamoDB client, and `time.sleep` or a stand-in."""

    def __init__(self, client: Any, table: str, sleep: Callable[[float], None]) -> None:
        self._client = client
        self._table = table
        self._sleep = sleep

    def take_lease(self, holder: str, lasts: timedelta, limits: Limits, now: datetime) -> Pace | None:
        """Makes `holder` the one who drains, and says how full the buckets are. None: another one has it."""
        try:
            answer = self._client.update_item(
                TableName=self._table,
                Key=_DRAIN,
                ConditionExpression="attribute_not_exists(holder) OR holder = :me OR #until < :now",
                UpdateExpression="SET holder = :me, #until = :until",
                ExpressionAttributeNames={"#until": "until"},
                ExpressionAttributeValues={
                    ":me": {"S": holder},
                    ":now": {"S": times.to_text(now)},
                    ":until": {"S": times.to_text(now + lasts)},
                },
                ReturnValues="ALL_NEW",
            )
        except self._client.exceptions.ConditionalCheckFailedException:
            return None
        return Pace.from_record(from_item(answer["Attributes"]), limits, now)

    def keep_lease(self, holder: str, lasts: timedelta, pace: Pace, now: datetime) -> bool:
        """Notes the buckets, and goes on draining. False if another one drains by now."""
        return self._note(holder, {**pace.to_record(), "until": times.to_text(now + lasts)}, "SET {}")

    def end_lease(self, holder: str, pace: Pace) -> bool:
        """Notes the buckets, and lets another one drain. False if another one did already."""
        return self._note(holder, pace.to_record(), "SET {} REMOVE holder")

    def orphans(self, keys: Sequence[str]) -> dict[str, Mapping[str, object]]:
        """What is known of resources, by their rows' keys. Raises Unavailable."""
        found = batches.read(self._client, self._table, "id", keys, self._sleep)
        return {item["id"]["S"]: from_item(item) for item in found}

    def note_orphan(self, key: str, record: Mapping[str, object], now: datetime) -> None:
        """Writes what is known of a resource."""
        expires_at = int((now + _KEPT).timestamp())
        self._client.put_item(TableName=self._table, Item=to_item({**record, "id": key, "expires_at": expires_at}))

    def _note(self, holder: str, values: Mapping[str, object], change: str) -> bool:
        terms = ", ".join(f"#{name} = :{name}" for name in values)
        try:
            self._client.update_item(
                TableName=self._table,
                Key=_DRAIN,
                ConditionExpression="holder = :me",
                UpdateExpression=change.format(terms),
                ExpressionAttributeNames={f"#{name}": name for name in values},
                ExpressionAttributeValues={
                    ":me": {"S": holder},
                    **{f":{name}": to_attribute(value) for name, value in values.items()},
                },
            )
        except self._client.exceptions.ConditionalCheckFailedException:
            return False
        return True
