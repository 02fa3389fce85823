"""The AWS clients of a container: each built once, and only when a function needs it."""

from __future__ import annotations

from threading import Lock
from typing import Any


class Clients:
    """Makes clients of botocore, which boto3 only wraps: its own layer takes a fifth of the cold start."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._session: Any = None
        self._clients: dict[str, Any] = {}

    def get(self, service: str) -> Any:
        """The client of a service. Making one is not thread-safe, and the local cloud has threads."""
        with self._lock:
            if service not in self._clients:
                self._clients[service] = self._make(service)
            return self._clients[service]

    def _make(self, service: str) -> Any:
        # Imported here: a function without AWS calls (explain_failure) does not pay for it.
        from botocore.config import Config  # noqa: PLC0415
        from botocore.session import Session  # noqa: PLC0415

        if self._session is None:
            self._session = Session()
        # API Gateway gives up after 29 s: better to fail in time for an answer.
        config = Config(retries={"mode": "standard", "total_max_attempts": 4}, connect_timeout=3, read_timeout=10)
        return self._session.create_client(service, config=config)
