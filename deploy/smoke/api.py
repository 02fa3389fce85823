"""The deployment's HTTP API, as one user calls it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx

from deploy.errors import SmokeError

SECONDS = 40
"""API Gateway gives up after 29."""
TRIES = 5


class Api:
    """Takes a client with the token, and a way to wait."""

    def __init__(self, client: httpx.Client, sleep: Callable[[float], object]) -> None:
        self._client = client
        self._sleep = sleep

    def ask(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        """One answer. GET, and what carries an Idempotency-Key, is tried again after a lost connection or a 5xx.

        Raises:
            SmokeError: the API refuses, or does not answer.
        """
        again = method in ("GET", "DELETE") or "headers" in options
        said = ""
        for attempt in range(TRIES if again else 1):
            if attempt:
                self._sleep(2.0**attempt)
            try:
                answer = self._client.request(method, path, timeout=SECONDS, **options)
            except httpx.HTTPError as error:
                said = f"no answer: {error}"
                continue
            if answer.is_success:
                return dict(answer.json())
            said = f"{answer.status_code}: {_detail(answer)}"
            if answer.status_code < 500 and answer.status_code != httpx.codes.TOO_MANY_REQUESTS:
                break
        raise SmokeError(f"{method} {path.partition('?')[0]}: {said}")


def _detail(answer: httpx.Response) -> str:
    try:
        document = answer.json()
    except ValueError:
        return answer.text[:200]
    return str(document.get("detail") or document.get("message") or document)[:500]
