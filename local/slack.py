"""The local Slack: an incoming webhook that answers as Slack's does, and shows what it got."""

from __future__ import annotations

import json
import threading
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from local.faults import Faults


@dataclass(frozen=True)
class Post:
    """A message that arrived at a webhook."""

    at: str
    channel: str
    """The last part of the webhook's path."""
    payload: dict[str, Any]


class Slack:
    """All webhooks `/services/TEAM/APP/SECRET`."""

    def __init__(self, faults: Faults, origin: str) -> None:
        """`origin` is where the local cloud's pages are."""
        self._faults = faults
        self._origin = origin
        self._lock = threading.Lock()
        self._posts: list[Post] = []

    def webhook(self, channel: str) -> str:
        """The address of the incoming webhook of a channel."""
        return f"{self._origin}/_local/slack/services/TLOCAL/BLOCAL/{channel}"

    def receive(self, path: str, body: bytes) -> tuple[int, dict[str, str], str]:  # noqa: PLR0911 - one an answer
        """Status, headers and text of Slack's answer to a POST."""
        parts = path.strip("/").split("/")
        if len(parts) != 4 or parts[0] != "services":
            return 404, {}, "no_service"
        if self._faults.active("notification_fails", "slack"):
            return 429, {"Retry-After": "1"}, "rate_limited"
        try:
            payload = json.loads(body)
        except ValueError:
            return 400, {}, "invalid_payload"
        if not isinstance(payload, dict):
            return 400, {}, "invalid_payload"
        if not payload.get("text") and not payload.get("blocks") and not payload.get("attachments"):
            return 400, {}, "no_text"
        if len(payload.get("blocks") or []) > 50:
            return 400, {}, "invalid_blocks"
        at = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        with self._lock:
            self._posts.append(Post(at, parts[-1], payload))
        return 200, {}, "ok"

    def messages(self) -> list[dict[str, Any]]:
        """All that arrived, oldest first: `at`, `channel`, `payload`."""
        with self._lock:
            return [asdict(post) for post in self._posts]
