"""Watches the notebook's server from inside, for the activity monitor: requests, websockets, saves, kernels.

Every two seconds it writes what it saw (visits.py) into a file in /run, with the time, so that a server that hangs is
seen by the file's age. It changes nothing of what the server does: whatever fails here is logged once and leaves
the file old, which the monitor takes as unknown, not as idle.

It leans on some names of Jupyter Server that are not public. Where one is missing, less is known: a busy kernel
counts as busy then, also while it waits for input(). A contents manager that runs no hooks before it saves is known
by the requests alone; one that saves without a request of a page (real-time collaboration) tells of nobody.
"""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from jupyter_server.services.kernels.connection.base import deserialize_binary_message, deserialize_msg_from_ws_v1
from open_sockets import OPEN
from saves import MOST_BYTES, Saves, on_disk
from tornado.ioloop import PeriodicCallback
from visits import Visits

WRITE_MILLISECONDS = 2000
CONTENTS = "/api/contents/"
V1 = "v1.kernel.websocket.jupyter.org"
# Places in a message as ZeroMQ carries it, after the identities: signature, header, parent, metadata, content.
HEADER, PARENT, CONTENT = 1, 2, 4
# Sent on a kernel's control channel while a cell runs; the server would take the `idle` after each for the cell's.
ASIDE = ("usage_request", "usage_reply")


def boottime() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Watch:
    """Connects a running server with `Visits`."""

    def __init__(self, app: Any, file: Path) -> None:
        self._app = app
        self._file = file
        self._visits = Visits()
        self._saves = Saves()
        self._scanned: dict[str, tuple[int, int]] = {}
        self._logged: set[str] = set()

    def start(self) -> None:
        """Watches from now on."""
        settings = self._app.web_app.settings
        log_request = settings["log_function"]

        def log_and_see(handler: Any) -> None:
            log_request(handler)
            self.safely(self._request, handler)

        settings["log_function"] = log_and_see
        settings["kernel_websocket_connection_class"] = self._watched(settings["kernel_websocket_connection_class"])
        OPEN.on_open = lambda handler: self.safely(self._opened, handler)
        OPEN.on_close = lambda handler: self.safely(self._closed, handler)
        self.safely(self._leave_out_asides)
        self.safely(self._watch_saves)
        self._writer = PeriodicCallback(lambda: self.safely(self._write), WRITE_MILLISECONDS)
        self._writer.start()
        self.safely(self._write)

    def safely(self, do: Callable[..., None], *arguments: Any) -> None:
        """Does it; what goes wrong is logged once of each kind and never reaches the server."""
        try:
            do(*arguments)
        except Exception as error:  # noqa: BLE001
            kind = f"{do.__name__}: {type(error).__name__}"
            if kind not in self._logged and len(self._logged) < 100:
                self._logged.add(kind)
                self._app.log.warning("The activity watch could not see something (%s: %s)", kind, error)

    def _leave_out_asides(self) -> None:
        manager = self._app.kernel_manager
        left_out = manager.untracked_message_types
        manager.untracked_message_types = [*left_out, *(kind for kind in ASIDE if kind not in left_out)]

    def _watch_saves(self) -> None:
        def before_save(model: Any, path: str, contents_manager: Any, **_: Any) -> None:
            self.safely(self._saves.coming, path, model, lambda: on_disk(contents_manager.root_dir, path))

        self._app.contents_manager.register_pre_save_hook(before_save)

    def _wrote(self, handler: Any) -> bool:
        """Whether a request saved what a person writes."""
        request = handler.request
        if request.method != "PUT" or not request.path.startswith(CONTENTS):
            return False
        path = unquote(request.path[len(CONTENTS) :])
        wrote = self._saves.happened(path)
        if wrote is None and path.endswith(".ipynb") and len(request.body) <= MOST_BYTES:
            # No hook was run. The file has changed meanwhile, so the first such save cannot be compared.
            self._saves.coming(path, json.loads(request.body), lambda: None)
            wrote = self._saves.happened(path)
        return wrote is not False

    def _request(self, handler: Any) -> None:
        request = handler.request
        login = request.path == "/login" and request.method == "POST" and handler.get_status() == 302
        if login or getattr(handler, "_jupyter_current_user", None):
            self._visits.request(
                request.method,
                request.path,
                request.headers,
                status=handler.get_status(),
                client=client_of(handler),
                now=boottime(),
                wrote=self._wrote(handler),
            )

    def _opened(self, handler: Any) -> None:
        self._visits.opened(client_of(handler))

    def _closed(self, handler: Any) -> None:
        self._visits.closed(client_of(handler))

    def _watched(self, connection_class: type[Any]) -> type[Any]:
        """The class of kernel connections, with both directions seen."""
        watch = self

        class WatchedConnection(connection_class):  # type: ignore[misc]
            def handle_incoming_message(self, incoming_msg: Any) -> Any:
                watch.safely(watch.to_kernel, self, incoming_msg)
                return super().handle_incoming_message(incoming_msg)

            def handle_outgoing_message(self, stream: Any, outgoing_msg: Any) -> Any:
                channel = stream if isinstance(stream, str) else getattr(stream, "channel", None)
                watch.safely(watch.from_kernel, self.kernel_id, self.session, channel, outgoing_msg)
                return super().handle_outgoing_message(stream, outgoing_msg)

        return WatchedConnection

    def to_kernel(self, connection: Any, message: Any) -> None:
        """A message of a page."""
        if connection.subprotocol == V1:
            _, parts = deserialize_msg_from_ws_v1(message)
            header = json.loads(parts[0])
            content = json.loads(parts[3]) if header["msg_type"] == "execute_request" else {}
        else:
            whole = deserialize_binary_message(message) if isinstance(message, bytes) else json.loads(message)
            header, content = whole["header"], whole.get("content") or {}
        self._visits.to_kernel(connection.kernel_id, header["msg_type"], bool(content.get("silent")), boottime())

    def from_kernel(self, kernel: str, session: Any, channel: str | None, message: list[Any]) -> None:
        """A message of a kernel, as ZeroMQ carries it."""
        if channel not in ("iopub", "stdin"):
            return
        _, parts = session.feed_identities(message)
        header = bytes(parts[HEADER])
        # Output is what there is most of: it is not parsed.
        if channel == "iopub" and b'"comm_' not in header and b'"status"' not in header:
            return
        kind = str(json.loads(header)["msg_type"])
        state = json.loads(parts[CONTENT]).get("execution_state") if kind == "status" else None
        parent = json.loads(parts[PARENT]) if kind in ("status", "input_request") else {}
        asked = str(parent.get("msg_type")), str(parent.get("msg_id"))
        self._visits.from_kernel(kernel, kind, state, asked, boottime())

    def _write(self) -> None:
        now = boottime()
        manager = self._app.kernel_manager
        kernels = {kernel: manager.get_kernel(kernel) for kernel in manager.list_kernel_ids()}
        for kernel in kernels:
            self.safely(self._scan_buffer, kernel, manager)
        self._scanned = {kernel: seen for kernel, seen in self._scanned.items() if kernel in kernels}
        self._visits.keep(kernels)
        states = []
        for name, kernel in kernels.items():
            busy = getattr(kernel, "execution_state", "busy") == "busy"
            states.append([busy, self._visits.is_waiting(name, busy, now)])
        visible, hidden = self._visits.browsers(now)
        content = {
            "at": now,
            "input_at": self._visits.input_at,
            "kernels": states,
            "visible": visible,
            "hidden": hidden,
        }
        new = self._file.with_suffix(".new")
        new.write_text(json.dumps(content))
        new.replace(self._file)

    def _scan_buffer(self, kernel: str, manager: Any) -> None:
        """What the kernel said while no page was there: the server keeps it for the page that comes back."""
        info = getattr(manager, "_kernel_buffers", {}).get(kernel)
        if not info:
            return
        buffer = info["buffer"]
        which, seen = self._scanned.get(kernel, (id(buffer), 0))
        start = seen if which == id(buffer) else 0
        for channel, message in buffer[start:]:
            self.safely(self.from_kernel, kernel, manager.get_kernel(kernel).session, channel, message)
        self._scanned[kernel] = (id(buffer), len(buffer))


def client_of(handler: Any) -> str:
    """Tells browsers apart, well enough to count them."""
    return f"{handler.request.remote_ip} {handler.request.headers.get('User-Agent', '')}"


def attach(app: Any) -> None:
    """Watches the server `app`, when systemd gave it a folder to write to."""
    folder = os.environ.get("RUNTIME_DIRECTORY", "").split(":")[0]
    if folder:
        watch = Watch(app, Path(folder, "activity.json"))
        watch.safely(watch.start)
