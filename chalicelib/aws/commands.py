"""Systems Manager: the commands sent to instances, and their output."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from chalicelib.commands import Command, Invocation

# Right after SendCommand the invocation may not be known yet: ten looks within 5 s.
_LOOKS, _SECONDS = 10, 0.5


class Commands:
    """Takes a Systems Manager client, and `time.sleep` or a stand-in."""

    def __init__(self, client: Any, sleep: Callable[[float], None]) -> None:
        self._client = client
        self._sleep = sleep

    def find(self, command_id: str) -> Command | None:
        """The command of an id."""
        found = self._client.list_commands(CommandId=command_id)["Commands"]
        return _command(found[0]) if found else None

    def sent_to(self, instance_id: str, since: datetime) -> list[Command]:
        """Commands sent to an instance since then, to a second."""
        pages = self._client.get_paginator("list_commands").paginate(
            InstanceId=instance_id,
            Filters=[{"key": "InvokedAfter", "value": since.strftime("%Y-%m-%dT%H:%M:%SZ")}],
        )
        return [_command(entry) for page in pages for entry in page["Commands"]]

    def invocation(self, command: Command, instance_id: str) -> Invocation:
        """Status and output of a command on an instance.

        Raises:
            botocore's InvocationDoesNotExist: still not known after five seconds.
        """
        for look in range(_LOOKS):
            try:
                answer = self._client.get_command_invocation(CommandId=command.id, InstanceId=instance_id)
            except self._client.exceptions.InvocationDoesNotExist:
                if look == _LOOKS - 1:
                    raise
                self._sleep(_SECONDS)
            else:
                break
        return Invocation(
            status=answer["Status"].replace(" ", ""),
            status_details=answer.get("StatusDetails", ""),
            stdout=answer.get("StandardOutputContent", ""),
            stderr=answer.get("StandardErrorContent", ""),
        )


def _command(entry: Mapping[str, Any]) -> Command:
    tokens = entry.get("Parameters", {}).get("TaskToken", [])
    instances = entry.get("InstanceIds", [])
    return Command(
        id=entry["CommandId"],
        document=entry["DocumentName"],
        instance_id=instances[0] if instances else None,
        task_token=tokens[0] if tokens else None,
        requested_at=entry.get("RequestedDateTime"),
        # The workflows write it there: a token does not say whose it is.
        execution=entry.get("Comment") or None,
    )
