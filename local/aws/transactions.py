"""ClientRequestToken of DynamoDB's TransactWriteItems: for 10 minutes the same token with the same transaction answers
well and does nothing more; with another transaction it is `IdempotentParameterMismatchException`.

moto ignores it: a transaction that is repeated, since its answer was lost, fails by its own conditions. Of one that was
cancelled DynamoDB remembers nothing.
"""

from __future__ import annotations

import json
import threading
from typing import Any

REMEMBERED = 600.0
"""Seconds that a token counts for."""


class Transactions:
    """The tokens of the transactions that were done, with what they asked and when. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._done: dict[str, tuple[str, float]] = {}

    def known(self, request: dict[str, Any], now: float) -> bool | None:
        """True: it was done already. False: its token was another transaction's. None: it is to be done."""
        token = request.get("ClientRequestToken")
        with self._lock:
            self._done = {key: value for key, value in self._done.items() if now - value[1] < REMEMBERED}
            before = self._done.get(token) if token else None
        return None if before is None else before[0] == _asked(request)

    def note(self, request: dict[str, Any], now: float) -> None:
        """It was done."""
        if token := request.get("ClientRequestToken"):
            with self._lock:
                self._done.setdefault(token, (_asked(request), now))


def _asked(request: dict[str, Any]) -> str:
    return json.dumps(request, sort_keys=True)
