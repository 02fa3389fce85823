"""AWS as the sweep's clients see it, in memory: tables, EC2 with its request limits, a clock that only calls and sleeps
move. Every call is counted by its name. No network, no thread of its own."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

Item = dict[str, Any]

# A part of a condition, and not what a function is called with.
_IN_PARENTHESES = re.compile(r"(?<!\w)\(((?:[^()]|\([^()]*\))*)\)")


class ClientError(Exception):
    """As botocore's: a code in `response`."""

    def __init__(self, code: str, **response: Any) -> None:
        super().__init__(code)
        self.response = {"Error": {"Code": code}, **response}


class ConditionalCheckFailedException(ClientError):  # noqa: N818 - botocore's name
    pass


class TransactionCanceledException(ClientError):  # noqa: N818 - botocore's name
    pass


class ExecutionAlreadyExists(ClientError):  # noqa: N818 - botocore's name
    pass


class ExecutionDoesNotExist(ClientError):  # noqa: N818 - botocore's name
    pass


class InvalidInstanceId(ClientError):  # noqa: N818 - botocore's name
    pass


class Exceptions:
    """What hangs on a client as `exceptions`."""

    ClientError = ClientError
    ConditionalCheckFailedException = ConditionalCheckFailedException
    TransactionCanceledException = TransactionCanceledException
    ExecutionAlreadyExists = ExecutionAlreadyExists
    ExecutionDoesNotExist = ExecutionDoesNotExist
    InvalidInstanceId = InvalidInstanceId


class Clock:
    """Moves by calls and sleeps. `at`: what happens when it passes a time, once, in order."""

    def __init__(self, start: datetime) -> None:
        self.now = start
        self.at: list[tuple[datetime, Callable[[], None]]] = []
        self._inside = False

    def __call__(self) -> datetime:
        return self.now

    def sleep(self, seconds: float) -> None:
        """Lets time pass. What is due meanwhile happens at its time; what it does takes its own time beside ours."""
        end = self.now + timedelta(seconds=seconds)
        while not self._inside and self.at and self.at[0][0] <= end:
            moment, happens = self.at.pop(0)
            self.now = max(self.now, moment)
            self._inside = True
            try:
                happens()
            finally:
                self._inside = False
                self.now = moment
        self.now = max(self.now, end)


class Calls:
    """Counts, and lets each call take its time."""

    def __init__(self, clock: Clock, seconds: Mapping[str, float]) -> None:
        self.counts: Counter[str] = Counter()
        self._clock = clock
        self._seconds = seconds

    def made(self, name: str) -> None:
        self.counts[name] += 1
        if seconds := self._seconds.get(name, 0.0):
            self._clock.sleep(seconds)


class Tables:
    """A DynamoDB client. Conditions and changes are those that the product writes; what it does not write is an error.

    `rows` by table and key; a table in `made` makes each row when it is read; one in `dropped` keeps none.
    """

    exceptions = Exceptions

    def __init__(self, calls: Calls, keys: Mapping[str, str]) -> None:
        self.rows: dict[str, dict[str, Item]] = defaultdict(dict)
        self.made: dict[str, Callable[[str], Item | None]] = {}
        self.dropped: set[str] = set()
        self._calls = calls
        self._keys = keys
        self._pages: dict[str, list[str]] = {}

    def get_item(self, *, TableName: str, Key: Item, **_: Any) -> Item:  # noqa: N803
        self._calls.made("GetItem")
        row = self._read(TableName, self._key(TableName, Key))
        return {"Item": row} if row else {}

    def batch_get_item(self, *, RequestItems: Item) -> Item:  # noqa: N803
        self._calls.made("BatchGetItem")
        found: dict[str, list[Item]] = {}
        for table, request in RequestItems.items():
            if len(request["Keys"]) > 100:
                raise ClientError("ValidationException")
            read = (self._read(table, self._key(table, key)) for key in request["Keys"])
            found[table] = [row for row in read if row]
        return {"Responses": found, "UnprocessedKeys": {}}

    def batch_write_item(self, *, RequestItems: Item) -> Item:  # noqa: N803
        self._calls.made("BatchWriteItem")
        for table, puts in RequestItems.items():
            if len(puts) > 25:
                raise ClientError("ValidationException")
            for put in puts:
                self._put(table, put["PutRequest"]["Item"])
        return {}

    def put_item(self, *, TableName: str, Item: Item, **_: Any) -> Item:  # noqa: N803
        self._calls.made("PutItem")
        self._put(TableName, Item)
        return {}

    def update_item(self, **update: Any) -> Item:
        self._calls.made("UpdateItem")
        if not self._holds(update):
            raise ConditionalCheckFailedException("ConditionalCheckFailedException")
        return {"Attributes": self._change(update)}

    def transact_write_items(self, *, TransactItems: list[Item]) -> Item:  # noqa: N803
        self._calls.made("TransactWriteItems")
        reasons = [
            {"Code": "None" if "Put" in action or self._holds(action["Update"]) else "ConditionalCheckFailed"}
            for action in TransactItems
        ]
        if any(reason["Code"] != "None" for reason in reasons):
            raise TransactionCanceledException("TransactionCanceledException", CancellationReasons=reasons)
        for action in TransactItems:
            if "Put" in action:
                self._put(action["Put"]["TableName"], action["Put"]["Item"])
            else:
                self._change(action["Update"])
        return {}

    def query(self, **query: Any) -> Item:
        """The index of what is due alone, as it was when its first page was read."""
        self._calls.made("Query")
        assert query["IndexName"] == "due-index"
        shard, now = (query["ExpressionAttributeValues"][name]["S"] for name in (":shard", ":now"))
        if "ExclusiveStartKey" not in query:
            due = [
                (row["due_at"]["S"], key)
                for key, row in self.rows[query["TableName"]].items()
                if row.get("due") == {"S": shard} and row["due_at"]["S"] <= now
            ]
            self._pages[f"{shard} {now}"] = [key for _, key in sorted(due)]
            first = 0
        else:
            first = query["ExclusiveStartKey"]["first"]
        ids = self._pages[f"{shard} {now}"]
        last = first + query["Limit"]
        answer: Item = {"Items": [{"id": {"S": one}} for one in ids[first:last]]}
        if last < len(ids):
            answer["LastEvaluatedKey"] = {"first": last}
        else:
            del self._pages[f"{shard} {now}"]
        return answer

    def _key(self, table: str, key: Item) -> str:
        return str(key[self._keys[table]]["S"])

    def _read(self, table: str, key: str) -> Item | None:
        return self.made[table](key) if table in self.made else self.rows[table].get(key)

    def _put(self, table: str, item: Item) -> None:
        if table not in self.dropped:
            self.rows[table][self._key(table, item)] = item

    def _row(self, update: Item) -> Item | None:
        return self._read(update["TableName"], self._key(update["TableName"], update["Key"]))

    def _holds(self, update: Item) -> bool:
        condition = update.get("ConditionExpression")
        return condition is None or self._is_true(condition, self._row(update) or {}, update)

    def _is_true(self, condition: str, row: Item, update: Item) -> bool:
        flat = _IN_PARENTHESES.sub(lambda match: str(self._is_true(match[1], row, update)), condition)
        return any(all(self._term(term, row, update) for term in part.split(" AND ")) for part in flat.split(" OR "))

    def _term(self, term: str, row: Item, update: Item) -> bool:
        if term in ("True", "False"):
            return term == "True"
        if match := re.fullmatch(r"(attribute_exists|attribute_not_exists)\((.+)\)", term):
            return (_get(row, self._path(match[2], update)) is not None) == (match[1] == "attribute_exists")
        match = re.fullmatch(r"(\S+) (=|<) (:\w+)", term)
        assert match, term
        value, wanted = _get(row, self._path(match[1], update)), update["ExpressionAttributeValues"][match[3]]
        return bool(value == wanted if match[2] == "=" else value is not None and value["S"] < wanted["S"])

    def _path(self, path: str, update: Item) -> list[str]:
        names = update.get("ExpressionAttributeNames", {})
        return [names[part] if part.startswith("#") else part for part in path.split(".")]

    def _change(self, update: Item) -> Item:
        table = update["TableName"]
        key = self._key(table, update["Key"])
        row = _copy(self._row(update) or update["Key"])
        for verb, terms in _clauses(update["UpdateExpression"]):
            for term in terms:
                if verb == "REMOVE":
                    _set(row, self._path(term, update), None)
                    continue
                name, value = re.split(r" = | ", term, maxsplit=1)
                path, new = self._path(name, update), update["ExpressionAttributeValues"][value]
                if verb == "SET":
                    _set(row, path, new)
                else:
                    known = set((_get(row, path) or {"SS": []})["SS"])
                    members = known | set(new["SS"]) if verb == "ADD" else known - set(new["SS"])
                    _set(row, path, {"SS": sorted(members)} if members else None)
        if table not in self.made and table not in self.dropped:
            self.rows[table][key] = row
        return row


def _clauses(expression: str) -> Iterator[tuple[str, list[str]]]:
    parts = re.split(r"\b(SET|REMOVE|ADD|DELETE)\b ", expression)[1:]
    for verb, terms in zip(parts[::2], parts[1::2], strict=True):
        yield verb, [term.strip() for term in terms.split(",")]


def _copy(value: Any) -> Any:
    return {key: _copy(part) for key, part in value.items()} if isinstance(value, dict) else value


def _get(row: Item, path: list[str]) -> Any:
    value: Any = row
    for index, name in enumerate(path):
        value = value.get(name) if index == 0 else value.get("M", {}).get(name)
        if value is None:
            return None
    return value


def _set(row: Item, path: list[str], value: Any) -> None:
    place = row
    for name in path[:-1]:
        place = place[name]["M"]
    if value is None:
        place.pop(path[-1], None)
    else:
        place[path[-1]] = value


class LimitedEc2:
    """An EC2 client that stops instances within EC2's two buckets, and refuses the call that is one too many.

    Written from AWS's table, not from chalicelib/pacing.py, which it is to hold to account.
    """

    exceptions = Exceptions

    def __init__(self, calls: Calls, clock: Clock) -> None:
        self.stopped: Counter[str] = Counter()
        self.throttled = 0
        self.refused: dict[str, str] = {}
        self._calls = calls
        self._clock = clock
        self._requests, self._instances = 50.0, 1000.0
        self._at = clock.now

    def stop_instances(self, *, InstanceIds: list[str]) -> Item:  # noqa: N803
        self._calls.made("StopInstances")
        passed = max(0.0, (self._clock.now - self._at).total_seconds())
        self._at = max(self._at, self._clock.now)
        self._requests = min(50.0, self._requests + 5 * passed)
        self._instances = min(1000.0, self._instances + 20 * passed)
        if self._requests < 1 or self._instances < len(InstanceIds):
            self.throttled += 1
            raise ClientError("RequestLimitExceeded")
        self._requests -= 1
        self._instances -= len(InstanceIds)
        for one in InstanceIds:
            if one in self.refused:
                raise ClientError(self.refused[one])
        self.stopped.update(InstanceIds)
        return {}

    def get_paginator(self, operation: str) -> LimitedEc2:
        assert operation == "describe_instances"
        return self

    def paginate(self, *, Filters: list[Item], **_: Any) -> Iterator[Item]:  # noqa: N803
        self._calls.made("DescribeInstances")
        ids = next(one["Values"] for one in Filters if one["Name"] == "instance-id")
        tags = [{"Key": "nod:deployment", "Value": "bench"}]
        yield {
            "Reservations": [
                {"Instances": [{"InstanceId": one, "State": {"Name": "running"}, "Tags": tags} for one in ids]}
            ]
        }


class Executions:
    """A Step Functions client: keeps the names of what was started. None ends."""

    exceptions = Exceptions

    def __init__(self, calls: Calls) -> None:
        self.names: Counter[str] = Counter()
        self._calls = calls

    def start_execution(self, *, stateMachineArn: str, name: str, input: str) -> Item:  # noqa: A002, ARG002, N803
        self._calls.made("StartExecution")
        self.names[f"{stateMachineArn.rsplit(':', 1)[1]}/{name}"] += 1
        return {}

    def describe_execution(self, *, executionArn: str) -> Item:  # noqa: N803
        self._calls.made("DescribeExecution")
        machine, name = executionArn.split(":")[-2:]
        if f"{machine}/{name}" not in self.names:
            raise ExecutionDoesNotExist("ExecutionDoesNotExist")
        return {"status": "RUNNING"}


class Ssm:
    """A Systems Manager client that takes every command."""

    exceptions = Exceptions

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def send_command(self, **_: Any) -> Item:
        self._calls.made("SendCommand")
        return {}


class Sns:
    """An SNS client that takes every message."""

    exceptions = Exceptions

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def publish(self, **_: Any) -> Item:
        self._calls.made("Publish")
        return {}
