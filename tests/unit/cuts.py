"""Answers that get lost: AWS does what a call asks, and then the connection breaks. The SDK repeats the call."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from botocore.endpoint import Endpoint
from botocore.exceptions import ConnectionClosedError
from botocore.retries.standard import ExponentialBackoff


class Cuts:
    """Calls as AWS gets them, and which of their answers never arrive."""

    def __init__(self, loses: Callable[[int, str], bool]) -> None:
        self._loses = loses
        self.calls: list[str] = []
        """Every call that AWS did, repeated ones too: its operation, such as `dynamodb:UpdateItem`."""
        self.lost: list[str] = []
        """Those whose answer was lost."""

    def takes(self, operation: str) -> bool:
        """Notes a call that AWS has done. True if its answer is lost."""
        self.calls.append(operation)
        lost = self._loses(len(self.calls) - 1, operation)
        if lost:
            self.lost.append(operation)
        return lost


@contextmanager
def cutting(loses: Callable[[int, str], bool] = lambda index, operation: False) -> Iterator[Cuts]:
    """Inside, the answer to a call is lost where `loses` says so: it gets the call's number, from 0, and its operation.
    The SDK does not wait between its tries."""
    cuts = Cuts(loses)
    kind: Any = Endpoint
    answer = kind._do_get_response

    def answered(endpoint: Any, request: Any, operation_model: Any, context: Any) -> Any:
        found = answer(endpoint, request, operation_model, context)
        operation = f"{operation_model.service_model.endpoint_prefix}:{operation_model.name}"
        return (None, ConnectionClosedError(endpoint_url=request.url)) if cuts.takes(operation) else found

    with (
        mock.patch.object(Endpoint, "_do_get_response", answered),
        mock.patch.object(ExponentialBackoff, "delay_amount", lambda *_: 0),
        mock.patch.object(time, "sleep", lambda _: None),
    ):
        yield cuts
