"""Who calls what: the AWS calls of the product while it runs here, each with its principal.

The tests of the policies are made of it: what a function or a workflow calls is recorded, not listed by hand. Nothing
is recorded, and nothing costs time, outside `recording()`.
"""

from __future__ import annotations

import contextlib
import contextvars
import copy
import io
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from botocore.client import BaseClient

from local.aws.front import Front, identify
from local.aws.metadata import ACCESS_KEY
from local.patches import Patches
from local.principals import listener, principal

Look = Callable[[Mapping[str, Any]], Any]

MACHINE = "machine"
"""The principal of calls that bear an instance role's key."""


@dataclass(frozen=True)
class Call:
    """One call: `principal` is `function/NAME`, `workflow/NAME`, `role/NAME` or `machine`; `service` and `operation`
    are botocore's, `parameters` the call's own."""

    principal: str
    service: str
    operation: str
    parameters: Mapping[str, Any]
    seen: Any = None
    """What `look` of `recording` saw just before the call."""


class Recording:
    """The calls so far, in order. Safe for many threads."""

    def __init__(self, look: Look | None = None) -> None:
        self._lock = threading.Lock()
        self._look = look
        self._calls: list[Call] = []

    def add(self, service: str, operation: str, parameters: Mapping[str, Any], who: str) -> None:
        """Note a call of a principal."""
        parameters = copy.deepcopy(dict(parameters))
        call = Call(who, service, operation, parameters, self._look(parameters) if self._look else None)
        with self._lock:
            self._calls.append(call)

    def calls(self) -> list[Call]:
        """All of them."""
        with self._lock:
            return list(self._calls)


@contextlib.contextmanager
def recording(look: Look | None = None) -> Iterator[Recording]:
    """Record the calls of every local cloud of this process until the end of the block.

    `look` is asked at each call, with its parameters, for what may be different by the end.
    """
    found, patches = Recording(look), Patches()

    def note(service: str, operation: str, parameters: Mapping[str, Any]) -> None:
        if (who := principal()) is not None:
            found.add(service, operation, parameters, who)

    _watch_clients(note, patches)
    _watch_machines(found, patches)
    _keep_principal_in_pools(patches)
    listener.note = note
    try:
        yield found
    finally:
        listener.note = None
        patches.undo()


def _watch_clients(note: Callable[[str, str, Mapping[str, Any]], None], patches: Patches) -> None:
    make: Any = BaseClient._make_api_call  # type: ignore[attr-defined]

    def make_api_call(client: Any, operation_name: str, api_params: Mapping[str, Any]) -> Any:
        note(client.meta.service_model.service_name, operation_name, api_params)
        return make(client, operation_name, api_params)

    patches.set(BaseClient, "_make_api_call", make_api_call)


def _watch_machines(found: Recording, patches: Patches) -> None:
    answer: Any = Front.__call__

    def call(front: Any, environ: dict[str, Any], start_response: Any) -> Any:
        # A machine signs by itself, without botocore: its calls are known by the key of its role.
        if f"Credential={ACCESS_KEY}/" in environ.get("HTTP_AUTHORIZATION", ""):
            body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            environ["wsgi.input"] = io.BytesIO(body)
            service, operation = identify(environ)
            found.add(service, operation, json.loads(body or b"{}"), MACHINE)
        return answer(front, environ, start_response)

    patches.set(Front, "__call__", call)


def _keep_principal_in_pools(patches: Patches) -> None:
    submit: Any = ThreadPoolExecutor.submit

    def submit_with_context(pool: Any, call: Any, /, *arguments: Any, **named: Any) -> Future[Any]:
        done: Future[Any] = submit(pool, contextvars.copy_context().run, call, *arguments, **named)
        return done

    patches.set(ThreadPoolExecutor, "submit", submit_with_context)
