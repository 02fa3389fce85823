"""The table `users` (DynamoDB): a row for each user by their id, and one for each name that is taken.

A name belongs to one user at a time and may go to another later, so nothing but `named` looks anybody up by it: that is
for the command line of whoever runs the deployment.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from chalicelib.aws import writes
from chalicelib.aws.items import from_item, to_attribute, to_item
from chalicelib.log import logger
from chalicelib.model import CONFIRMED, User

_ATTEMPTS = 8
_NAME_ROW = "name#"
"""Before a name, the key of the row that says who has it. No id of a user begins so."""


class UsersTable:
    """Takes a low-level DynamoDB client."""

    def __init__(self, client: Any, table: str) -> None:
        self._client = client
        self._table = table

    def get(self, user_id: str) -> User | None:
        """One user; None if there is none with that id."""
        item = self._row(user_id)
        return User.from_record(from_item(item)) if item else None

    def named(self, name: str) -> User | None:
        """The user who has that name now; None if nobody has."""
        item = self._row(_NAME_ROW + name)
        return self.get(item["user"]["S"]) if item else None

    def all(self) -> Iterator[User]:
        """Every user. Reads the whole table, which is small."""
        yield from self._scan(
            {
                "FilterExpression": "NOT begins_with(id, :name_row)",
                "ExpressionAttributeValues": {":name_row": {"S": _NAME_ROW}},
            }
        )

    def to_look_at(self) -> Iterator[User]:
        """Users with an e-mail address, whose state may have changed, or with messages that did not go out yet."""
        yield from self._scan(
            {
                "FilterExpression": "attribute_exists(email) OR attribute_exists(untold) OR attribute_exists(owed)",
                "ConsistentRead": True,
            }
        )

    def mark(self, user_id: str, marker: str, notebook_id: str) -> bool:
        """Puts a notebook into `untold` or `owed`. False if there is no such user."""
        return self._change_marker("ADD", user_id, marker, notebook_id)

    def unmark(self, user_id: str, marker: str, notebook_id: str) -> bool:
        """Takes a notebook out of `untold` or `owed`. False if there is no such user."""
        return self._change_marker("DELETE", user_id, marker, notebook_id)

    def confirm_email(self, user: User) -> bool:
        """Notes that the address of `user` was confirmed. False if it has another subscription by now."""
        return self.set_email_state(user, CONFIRMED)

    def set_email_state(self, user: User, state: str) -> bool:
        """Notes what became of the address of `user`. False if it has another subscription by now."""
        return self._update_if(
            user.id,
            "email_subscription = :subscription",
            "SET email_state = :state",
            {},
            {":subscription": {"S": user.email_subscription}, ":state": {"S": state}},
        )

    def add(self, record: Mapping[str, object]) -> bool:
        """Writes a new user and takes their name, both or none. False if the name is taken."""
        name_row = {"id": _NAME_ROW + str(record["name"]), "user": record["id"]}
        added = self._transact(
            [
                {
                    "Put": {
                        "TableName": self._table,
                        "Item": to_item(row),
                        "ConditionExpression": "attribute_not_exists(id)",
                    }
                }
                for row in (record, name_row)
            ]
        )
        # Nobody else makes this id: a row that has it is of this call, whose answer was lost.
        return added or self._row(str(record["id"])) is not None

    def update(self, user_id: str, changes: Mapping[str, object | None]) -> bool:
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
        return self._update_if(user_id, "attribute_exists(id)", change, keys, values)

    def remove(self, user: User) -> bool:
        """Removes a user and frees their name, both or none. False if they have notebooks; True too if they are gone.

        The condition on the row is what a request for a notebook at the same moment meets, too: either it is refused,
        or the user stays.
        """
        removed = self._transact(
            [
                {
                    "Delete": {
                        "TableName": self._table,
                        "Key": {"id": {"S": user.id}},
                        "ConditionExpression": "attribute_exists(id) AND attribute_not_exists(active) AND "
                        "attribute_not_exists(owned)",
                    }
                },
                {
                    "Delete": {
                        "TableName": self._table,
                        "Key": {"id": {"S": _NAME_ROW + user.name}},
                        "ConditionExpression": "#user = :user",
                        "ExpressionAttributeNames": {"#user": "user"},
                        "ExpressionAttributeValues": {":user": {"S": user.id}},
                    }
                },
            ]
        )
        return removed or self._row(user.id) is None

    def _row(self, key: str) -> dict[str, Any] | None:
        answer = self._client.get_item(TableName=self._table, Key={"id": {"S": key}}, ConsistentRead=True)
        item: dict[str, Any] | None = answer.get("Item")
        return item

    def _transact(self, actions: Sequence[Mapping[str, Any]]) -> bool:
        """False if a condition does not hold. Tries again while other writes have the rows: each takes milliseconds."""
        for attempts_left in reversed(range(_ATTEMPTS)):
            try:
                self._client.transact_write_items(TransactItems=actions)
            except self._client.exceptions.TransactionCanceledException as error:
                reasons = writes.reasons(error)
                if writes.FAILED in reasons:
                    return False
                if "TransactionConflict" not in reasons or not attempts_left:
                    raise
            else:
                break
        return True

    def _change_marker(self, verb: str, user_id: str, marker: str, notebook_id: str) -> bool:
        return self._update_if(
            user_id,
            "attribute_exists(id)",
            f"{verb} #marker :notebook",
            {"#marker": marker},
            {":notebook": {"SS": [notebook_id]}},
        )

    def _update_if(
        self, user_id: str, condition: str, change: str, names: Mapping[str, str], values: Mapping[str, object]
    ) -> bool:
        request: dict[str, Any] = {
            "TableName": self._table,
            "Key": {"id": {"S": user_id}},
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
                    logger.error("user cannot be read", user=item["id"].get("S"), reason=repr(error))
                else:
                    yield user
