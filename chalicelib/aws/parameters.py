"""Systems Manager's parameters: the addresses of Slack's webhooks, which are secrets."""

from __future__ import annotations

from typing import Any


class SlackAddresses:
    """Takes a Systems Manager client. Channel NAME is the SecureString `/nod/STAGE/slack/NAME`."""

    def __init__(self, client: Any, stage: str) -> None:
        self._client = client
        self._prefix = f"/nod/{stage}/slack/"

    def get(self, name: str) -> str | None:
        """The webhook's address; None if no such channel is registered."""
        try:
            answer = self._client.get_parameter(Name=self._prefix + name, WithDecryption=True)
        except self._client.exceptions.ParameterNotFound:
            return None
        return str(answer["Parameter"]["Value"])

    def put(self, name: str, address: str) -> None:
        """Registers a channel, or gives it another address."""
        self._client.put_parameter(
            Name=self._prefix + name,
            Value=address,
            Type="SecureString",
            Overwrite=True,
            Description="Slack webhook of Notebook on Demand",
        )

    def remove(self, name: str) -> bool:
        """False if there was none."""
        try:
            self._client.delete_parameter(Name=self._prefix + name)
        except self._client.exceptions.ParameterNotFound:
            return False
        return True

    def names(self) -> list[str]:
        """All registered channels."""
        pages = self._client.get_paginator("get_parameters_by_path").paginate(Path=self._prefix.rstrip("/"))
        return sorted(entry["Name"].removeprefix(self._prefix) for page in pages for entry in page["Parameters"])
