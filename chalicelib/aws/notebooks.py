"""The table `notebooks` (DynamoDB). Every write is conditional on what it expects to find."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

from chalicelib import rows, times
from chalicelib.aws import writes
from chalicelib.aws.faults import code_of
from chalicelib.aws.items import from_item, to_attribute, to_item
from chalicelib.aws.ledger import Event
from chalicelib.aws.transitions import MOVED, WITH_LINE, NotMoved, Transitions, counted, join, leave
from chalicelib.model import Notebook, due_shard
from chalicelib.notebook import life
from chalicelib.notebook.life import State
from chalicelib.paging import Cursor

if TYPE_CHECKING:
    from chalicelib.notebook.moves import Move

_CONDITION = "ConditionalCheckFailedException"
_DUE = "due = :due, due_at = :due_at"


class Created(Enum):
    """What became of a new record."""

    DONE = "done"
    EXISTS = "there is a record with this id"
    QUOTA = "the user has as many as they may have, or is gone"
    CONFLICT = "another transaction had the rows; try again"


class Waiting(NamedTuple):
    """What the index by instance id holds."""

    id: str
    state: str
    wait_token: str | None
    execution: str | None
    """Name of the execution that waits by the token."""


class NotebooksTable:
    """Takes a low-level DynamoDB client. Other errors of AWS than those named go through."""

    def __init__(self, client: Any, table: str, users_table: str) -> None:
        self._client = client
        self._table = table
        self._users_table = users_table
        self._transitions = Transitions(client, table, users_table)

    def get(self, notebook_id: str) -> Notebook | None:
        """Reads with consistency: a POST's answer is followed by a GET at once."""
        answer = self._client.get_item(TableName=self._table, Key={"id": {"S": notebook_id}}, ConsistentRead=True)
        item = answer.get("Item")
        return Notebook.from_record(from_item(item)) if item else None

    def create(self, notebook: Notebook) -> Created:
        """Writes the record and counts it against its owner's quota, both or none."""
        write_id = writes.new_id()
        try:
            self._client.transact_write_items(
                TransactItems=[
                    {
                        "Put": {
                            "TableName": self._table,
                            "Item": to_item({**notebook.to_record(), MOVED: write_id}),
                            "ConditionExpression": "attribute_not_exists(id)",
                            **writes.RETURN_ROW,
                        }
                    },
                    join(self._users_table, notebook, life.REQUEST.joins, owed=bool(notebook.notify)),
                ]
            )
        except self._client.exceptions.TransactionCanceledException as error:
            reasons = writes.reasons(error)
            if reasons[:1] == [writes.FAILED]:
                return Created.DONE if writes.done_before(error, MOVED, write_id) else Created.EXISTS
            if reasons[1:2] == [writes.FAILED]:
                return Created.QUOTA
            if writes.CONFLICTS & set(reasons):
                return Created.CONFLICT
            raise
        return Created.DONE

    def take_back(self, notebook: Notebook) -> bool:
        """Removes a record that is still `requested` and that no replay took over, and its count.

        False if it is not so any more. A record that is gone is taken back.
        """
        try:
            self._client.transact_write_items(
                TransactItems=[
                    {
                        "Delete": {
                            "TableName": self._table,
                            "Key": {"id": {"S": notebook.id}},
                            "ConditionExpression": "#state = :requested AND attribute_not_exists(replayed)",
                            "ExpressionAttributeNames": {"#state": "state"},
                            "ExpressionAttributeValues": {":requested": {"S": State.REQUESTED}},
                            **writes.RETURN_ROW,
                        }
                    },
                    leave(self._users_table, notebook, (*life.REQUEST.joins, "untold"), owed=False),
                ]
            )
        except self._client.exceptions.TransactionCanceledException as error:
            reasons = writes.reasons(error)
            if writes.FAILED in reasons:
                # Without a row there is none any more: a first try of this call did it, whose answer was lost.
                return reasons[0] == writes.FAILED and not _row(error)
            raise
        return True

    def take_over(self, notebook: Notebook) -> bool:
        """Notes that a replay starts the launch: the record is not taken back any more. False if it was by now."""
        return self._update_if(
            notebook.id, "attribute_exists(id)", "SET replayed = :yes", values={":yes": {"BOOL": True}}
        )

    def page_of(self, owner: str, limit: int, after: Cursor | None) -> tuple[list[Notebook], Cursor | None]:
        """Notebooks of one owner (an id), newest first, and where the next page begins."""
        query: dict[str, Any] = {
            "TableName": self._table,
            "IndexName": "owner-index",
            "KeyConditionExpression": "#owner = :owner",
            "ExpressionAttributeNames": {"#owner": "owner"},
            "ExpressionAttributeValues": {":owner": {"S": owner}},
            "ScanIndexForward": False,
            "Limit": limit,
        }
        if after is not None:
            query["ExclusiveStartKey"] = to_item({"id": after.id, "owner": owner, "created_at": after.created_at})
        answer = self._client.query(**query)
        last = answer.get("LastEvaluatedKey")
        cursor = Cursor(last["id"]["S"], last["created_at"]["S"]) if last else None
        return [Notebook.from_record(from_item(item)) for item in answer["Items"]], cursor

    def of_instance(self, instance_id: str) -> Waiting | None:
        """The notebook of an instance, by the index (which lags the table a little)."""
        answer = self._client.query(
            TableName=self._table,
            IndexName="instance_id-index",
            KeyConditionExpression="instance_id = :instance",
            ExpressionAttributeValues={":instance": {"S": instance_id}},
            Limit=1,
        )
        for item in answer["Items"]:
            row = from_item(item)
            # Executions that were begun before an update wrote the token alone.
            execution, _, token = (rows.text(row, "wait_token") or "").rpartition(" ")
            return Waiting(str(row["id"]), str(row.get("state")), token or None, execution or None)
        return None

    def move(self, move: Move) -> Notebook | NotMoved:
        """Makes a transition, its line waiting in the record; the record as it is then."""
        return self._transitions.move(move)

    def hold(self, notebook: Notebook, until: datetime, now: datetime) -> Notebook | None:
        """Puts every stop off until then, and has the sweep look at once. None if another state or hold is there."""
        known = notebook.hold_until
        return self._change(
            notebook.id,
            "#state = :expected AND " + ("hold_until = :known" if known else "attribute_not_exists(hold_until)"),
            f"SET hold_until = :until, {_DUE}, updated_at = :now REMOVE warned",
            {
                ":expected": notebook.state,
                ":until": times.to_text(until),
                ":now": times.to_text(now),
                **({":known": known} if known else {}),
                **_due(notebook.id, now),
            },
            names={"#state": "state"},
        )

    def count_password(self, notebook: Notebook, now: datetime) -> Notebook | None:
        """One more of `passwords` than `notebook` shows: the number of this change, by which the newest one counts.
        None if it is not ready by now, or another change was asked for meanwhile."""
        return self._change(
            notebook.id,
            "#state = :expected AND " + counted("passwords", notebook.passwords),
            "SET passwords = :next, updated_at = :now REMOVE #error",
            {
                ":expected": State.READY,
                ":now": times.to_text(now),
                ":known": notebook.passwords,
                ":next": notebook.passwords + 1,
            },
            names={"#state": "state", "#error": "error"},
            once=True,
        )

    def withdraw_password(self, notebook: Notebook) -> bool:
        """Has the change of the password that `notebook` counts last not be made. False if its workflow has begun.

        The workflow's first state writes the same attribute (password.asl.yaml): one of the two is first.
        """
        number = notebook.passwords
        return self._update_if(
            notebook.id,
            "attribute_exists(id) AND (attribute_not_exists(#change) OR #change = :withdrawn) AND "
            "(attribute_not_exists(hash_number) OR hash_number < :number)",
            "SET #change = :withdrawn",
            names={"#change": f"hash_change_{number}"},
            values=to_item({":withdrawn": "withdrawn", ":number": number}),
        )

    def renew_link(self, notebook: Notebook, api_url: str | None, now: datetime) -> Notebook | None:
        """Ends every link there is, and says where the API is called now. None if the record is gone, or another
        request has renewed the link meanwhile."""
        known = notebook.link_version
        return self._change(
            notebook.id,
            "attribute_exists(id) AND " + counted("link_version", known),
            "SET link_version = :next, updated_at = :now" + (", api_url = :url" if api_url else ""),
            {
                ":now": times.to_text(now),
                ":known": known,
                ":next": known + 1,
                **({":url": api_url} if api_url else {}),
            },
            once=True,
        )

    def look_soon(self, notebook: Notebook, now: datetime) -> bool:
        """Has the next sweep look at a notebook. False if it is in another state by now."""
        return self._update_if(
            notebook.id,
            "#state = :expected",
            f"SET {_DUE}",
            names={"#state": "state"},
            values=to_item({":expected": notebook.state, **_due(notebook.id, now)}),
        )

    def set_notification(self, notebook_id: str, channel: str, state: str) -> bool:
        """Notes what became of a message. False if the record is gone."""
        return self._update_if(
            notebook_id,
            "attribute_exists(id) AND attribute_exists(notifications)",
            "SET notifications.#channel = :state",
            names={"#channel": channel},
            values={":state": to_attribute(state)},
        )

    def note_safe_mode(self, notebook_id: str, trouble: Mapping[str, object], line: Event) -> bool:
        """Notes that it runs without its owner's configuration, of which they were told. False if it does not run, or
        that was noted before. `line`: of the ledger, kept in the record until it is there."""
        return self._update_if(
            notebook_id,
            "#state = :ready AND attribute_not_exists(safe_mode)",
            f"SET safe_mode = :trouble, {WITH_LINE}",
            names={"#state": "state"},
            values=to_item(
                {":ready": State.READY, ":trouble": dict(trouble), ":no_lines": [], ":lines": [line.to_record()]}
            ),
        )

    def set_told(self, notebook_id: str, told: str) -> bool:
        """Notes who published which message. False if the record is gone."""
        return self._update_if(
            notebook_id, "attribute_exists(id)", "SET told = :told", values={":told": to_attribute(told)}
        )

    def set_jobs_told(self, notebook_id: str, jobs: Sequence[str]) -> bool:
        """Notes which of the owner's own jobs were told of. False if the record is gone."""
        return self._update_if(
            notebook_id, "attribute_exists(id)", "SET jobs_told = :jobs", values={":jobs": to_attribute(list(jobs))}
        )

    def forget_lines(self, notebook: Notebook) -> bool:
        """Removes the lines that `notebook` shows, which are in the ledger. False if there are others by now: they are
        written again with those, and are the same rows."""
        return self._update_if(
            notebook.id,
            "ledger_lines = :known",
            "REMOVE ledger_lines",
            values=to_item({":known": list(notebook.ledger_lines)}),
        )

    def expire(self, notebook: Notebook, at: datetime) -> bool:
        """Has DynamoDB remove the record some time after `at`. False if it is in another state by now."""
        return self._update_if(
            notebook.id,
            "#state = :expected",
            "SET expires_at = :at",
            names={"#state": "state"},
            values={":expected": {"S": notebook.state}, ":at": {"N": str(int(at.timestamp()))}},
        )

    def _change(
        self,
        notebook_id: str,
        condition: str,
        change: str,
        values: Mapping[str, object],
        *,
        names: dict[str, str] | None = None,
        once: bool = False,
    ) -> Notebook | None:
        """The record after the change; None if the condition did not hold. `change` begins with SET.

        `once`: the change makes its own condition false, so a try of it whose answer was lost is told by its id.
        """
        request: dict[str, Any] = {"ExpressionAttributeNames": names} if names else {}
        write_id = writes.new_id()
        if once:
            change = change.replace("SET ", f"SET {MOVED} = :write, ", 1)
            values = {**values, ":write": write_id}
        try:
            answer = self._client.update_item(
                TableName=self._table,
                Key={"id": {"S": notebook_id}},
                ConditionExpression=condition,
                UpdateExpression=change,
                ExpressionAttributeValues=to_item(values),
                ReturnValues="ALL_NEW",
                **writes.RETURN_ROW,
                **request,
            )
        except self._client.exceptions.ConditionalCheckFailedException as error:
            row = writes.own_row(error, MOVED, write_id)
            return Notebook.from_record(from_item(row)) if row else None
        return Notebook.from_record(from_item(answer["Attributes"]))

    def _update_if(
        self,
        notebook_id: str,
        condition: str,
        change: str,
        *,
        values: dict[str, Any],
        names: dict[str, str] | None = None,
    ) -> bool:
        request: dict[str, Any] = {"ExpressionAttributeNames": names} if names else {}
        try:
            self._client.update_item(
                TableName=self._table,
                Key={"id": {"S": notebook_id}},
                ConditionExpression=condition,
                UpdateExpression=change,
                ExpressionAttributeValues=values,
                **request,
            )
        except self._client.exceptions.ClientError as error:
            if code_of(error) == _CONDITION:
                return False
            raise
        return True


def _due(notebook_id: str, at: datetime) -> dict[str, object]:
    return {":due": due_shard(notebook_id), ":due_at": times.to_text(at)}


def _row(error: Any) -> Mapping[str, Any]:
    """The row of the first action, as its condition found it; empty if there is none."""
    row: Mapping[str, Any] = error.response["CancellationReasons"][0].get("Item") or {}
    return row
