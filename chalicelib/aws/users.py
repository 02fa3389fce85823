"""The table `users` (DynamoDB)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from chalicelib.aws import writes
from chalicelib.aws.items import from_item, to_attribute, to_item
from chalicelib.log import logger
from chalicelib.model import User


class UsersTable:
    """Takes a low-level DynamoDB client."""

    def __init__(self, client: Any, table: str) -> None:
        self._client = client
        self._table = table

    def get(self, name: str) -> User | None:
        """One user; None if there is none of that name."""
        answer = self._client.get_item(TableName=self._table, Key={"name": {"S": name}}, ConsistentRead=True)
        item = answer.get("Item")
        return User.from_record(from_item(item)) if item else None

    def all(self) -> Iterator[User]:
        """Every user. Reads the whole table, which is small."""
        yield from self._scan({})

    def to_look_at(self) -> Iterator[User]:
        """Users whose e-mail address is not confirmed yet, or with messages that did not go out yet."""
        yield from self._scan(
            {
                "FilterExpression": "email_state = :pending OR attribute_exists(untold) OR attribute_exists(owed)",
                "ExpressionAttributeValues": {":pending": {"S": "pending"}},
                "ConsistentRead": True,
            }
        )

    def mark(self, name: str, marker: str, notebook_id: str) -> bool:
        """Puts a notebook into `untold` or `owed`. False if there is no such user."""
        return self._change_marker("ADD", name, marker, notebook_id)

    def unmark(self, name: str, marker: str, notebook_id: str) -> bool:
        """Takes a notebook out of `untold` or `owed`. False if there is no such user."""
        return self._change_marker("DELETE", name, marker, notebook_id)

    def confirm_email(self, user: User) -> bool:
        """Notes that the address of `user` was confirmed. False if it has another subscription by now."""
        return self._update_if(
            user.name,
            "email_subscription = :subscription",
            "SET email_state = :confirmed",
            {},
            {":subscription": {"S": user.email_subscription}, ":confirmed": {"S": "confirmed"}},
        )

    def add(self, record: Mapping[str, object]) -> bool:
        """Writes a new user. False if the name is taken."""
        try:
            self._client.put_item(
                TableName=self._table,
                Item=to_item(record),
                ConditionExpression="attribute_not_exists(#name)",
                ExpressionAttributeNames={"#name": "name"},
                **writes.RETURN_ROW,
            )
        except self._client.exceptions.ConditionalCheckFailedException as error:
            # Made of random bits, so a row that holds it is of a try of this call whose answer was lost.
            return writes.own_row(error, "token_sha256", str(record["token_sha256"])) is not None
        return True

    def update(self, name: str, changes: Mapping[str, object | None]) -> bool:
        """Sets attributes; None removes one. False if there is no such user."""
        keys = {f"#k{index}": key for index, key in enumerate(changes)}
        values = {
            f":v{index}": to_attribute(value) for index, value in enumerate(changes.values()) if value is not None
        }
        parts = [
            ("SET", [f"#k{index} = :v{index}" for index, value in enumerate(changes.values()) if value is not None]),
            ("REMOVE", [f"#k{index}" for index, value in enumerate(changes.values()) if value is None]),
        ]
        change = " ".join(f"{verb} {', '.join(terms)}" for verb, terms in parts if terms)
        return self._update_if(name, "attribute_exists(#name)", change, {**keys, "#name": "name"}, values)

    def remove(self, name: str) -> None:
        """Removes the row, whether it was there or not."""
        self._client.delete_item(TableName=self._table, Key={"name": {"S": name}})

    def _change_marker(self, verb: str, name: str, marker: str, notebook_id: str) -> bool:
        return self._update_if(
            name,
            "attribute_exists(#name)",
            f"{verb} #marker :notebook",
            {"#name": "name", "#marker": marker},
            {":notebook": {"SS": [notebook_id]}},
        )

    def _update_if(
        self, name: str, condition: str, change: str, names: Mapping[str, str], values: Mapping[str, object]
    ) -> bool:
        request: dict[str, Any] = {
            "TableName": self._table,
            "Key": {"name": {"S": name}},
            "ConditionExpression": condition,
            "UpdateExpression": change,
        }
        if names:
            request["ExpressionAttributeNames"] = names
        if values:
            request["ExpressionAttributeValues"] = values
        try:
            self._client.update_item(**request)
        except self._client.exceptions.ConditionalCheckFailedException:
            return False
        return True

    def _scan(self, arguments: Mapping[str, Any]) -> Iterator[User]:
        for page in self._client.get_paginator("scan").paginate(TableName=self._table, **arguments):
            for item in page["Items"]:
                try:
                    user = User.from_record(from_item(item))
                except (KeyError, TypeError, ValueError) as error:
                    # One row that nobody can read keeps the schedules from no other user.
                    logger.error("user cannot be read", user=item["name"].get("S"), reason=repr(error))
                else:
                    yield user
