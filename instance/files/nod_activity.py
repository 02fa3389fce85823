"""Watches the notebook's server from inside, for the activity monitor: requests, websockets, saves, kernels.

Every two seconds it writes what it saw (visits.py, cells.py) into a file in /run, with the time, so that a server that
hangs is seen by the file's age. It changes nothing of what the server does: whatever fails here is logged once and
leaves the file old, which the monitor takes as unknown, not as idle.

What kernels say is heard where the server hears it itself, since it reaches pages only while they are there; that one
asks for input() only the page is told that ran the cell.

Requests are seen when they end, by the server's own log, and while they take long. Messages of the websockets of apps
and extensions are seen when they pass: a message is only noted then, and judged when the file is written.

It leans on some names of Jupyter Server, Tornado and pyzmq that are not public. Where one is missing, less is known: a
kernel is as busy then as the server says, also while it waits for input(). A request or websocket that could not be
looked at makes it unknown whether somebody is there (`unseen`). A contents manager that runs no hooks before it saves
is known by the requests alone; one that saves without a request of a page (real-time collaboration) tells of nobody but
by the messages of the page.
"""

import json
import os
import re
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from cells import Cells, read
from jupyter_server.base.handlers import JupyterHandler
from jupyter_server.services.kernels.connection.base import deserialize_binary_message, deserialize_msg_from_ws_v1
from open_sockets import OPEN
from rhythm import Talk
from saves import MOST_BYTES, Saves, on_disk
from tornado.ioloop import PeriodicCallback
from visits import SOCKETS, Visits

WRITE_MILLISECONDS = 2000
# When somebody comes back after so long, the file is written at once.
AWAY_SECONDS = 30.0
# For so long after something could not be looked at, nobody knows who is there.
UNSEEN_SECONDS = 60.0
# What a person tells a debugger; all else a page asks by itself. A kernel that has ended its debugger goes on, too.
GO_ON = ("continue", "next", "stepIn", "stepOut", "disconnect", "terminate")
PROXIED = re.compile(r"/proxy/(?:absolute/)?(?:[^/]*:)?(\d{1,5})(?:/|$)")
# An app that nobody asked for so long is not being used through the server.
PROXIED_SECONDS = 120.0
CONTENTS = "/api/contents/"
V1 = "v1.kernel.websocket.jupyter.org"
# Sent on a kernel's control channel while a cell runs; the server would take the `idle` after each for the cell's.
ASIDE = [
    f"{what}_{way}"
    for what in ("usage", "create_subshell", "delete_subshell", "list_subshell")
    for way in ("request", "reply")
]


def boottime() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Watch:
    """Connects a running server with `Visits` and `Cells`."""

    def __init__(self, app: Any, file: Path) -> None:
        self._app = app
        self._file = file
        self._visits = Visits()
        self._saves = Saves()
        self._cells = Cells()
        self._talks: dict[Any, Talk] = {}
        # Handlers of requests that are being answered.
        self._answering: weakref.WeakSet[Any] = weakref.WeakSet()
        self._unseen_at: float | None = None
        # Ports of apps, and when one was last asked through this server.
        self._proxied: dict[int, float] = {}
        self._scanned: dict[str, tuple[int, int]] = {}
        self._logged: set[str] = set()

    def start(self) -> None:
        """Watches from now on."""
        settings = self._app.web_app.settings
        log_request = settings["log_function"]

        def log_and_see(handler: Any) -> None:
            log_request(handler)
            self._or_unseen(self._request, handler)

        settings["log_function"] = log_and_see
        settings["kernel_websocket_connection_class"] = self._watched(settings["kernel_websocket_connection_class"])
        OPEN.on_open = lambda handler: self._or_unseen(self._opened, handler)
        OPEN.on_close = lambda handler: self.safely(self._closed, handler)
        self.safely(self._watch_requests)
        self.safely(self._leave_out_asides)
        self.safely(self._watch_kernels)
        self.safely(self._watch_saves)
        self._writer = PeriodicCallback(lambda: self.safely(self._write), WRITE_MILLISECONDS)
        self._writer.start()
        self.safely(self._write)

    def safely(self, do: Callable[..., None], *arguments: Any) -> bool:
        """Does it; what goes wrong is logged once of each kind and never reaches the server. Whether it went well."""
        try:
            do(*arguments)
        except Exception as error:  # noqa: BLE001
            kind = f"{do.__name__}: {type(error).__name__}"
            if kind not in self._logged and len(self._logged) < 100:
                self._logged.add(kind)
                self._app.log.warning("The activity watch could not see something (%s: %s)", kind, error)
            return False
        return True

    def _or_unseen(self, see: Callable[..., None], *arguments: Any) -> None:
        """Looks at what somebody may have done; where that fails it is unknown for a while whether anybody is there."""
        before = self._visits.input_at
        if not self.safely(see, *arguments):
            self._unseen_at = boottime()
        if self._visits.input_at - before >= AWAY_SECONDS:
            self.safely(self._write)

    def _watch_requests(self) -> None:
        prepare, watch = JupyterHandler.prepare, self

        async def prepare_and_see(handler: Any, *arguments: Any, **keywords: Any) -> Any:
            done = await prepare(handler, *arguments, **keywords)
            watch.safely(watch._answering.add, handler)
            return done

        JupyterHandler.prepare = prepare_and_see

    def _leave_out_asides(self) -> None:
        manager = self._app.kernel_manager
        left_out = manager.untracked_message_types
        manager.untracked_message_types = [*left_out, *(kind for kind in ASIDE if kind not in left_out)]

    def _watch_kernels(self) -> None:
        manager = self._app.kernel_manager
        start = manager.start_watching_activity

        def start_and_see(kernel: str) -> None:
            start(kernel)
            self.safely(self._hear, kernel)

        manager.start_watching_activity = start_and_see

    def _hear(self, kernel: str) -> None:
        """Hears what a kernel publishes by the stream that the server has for its own book of who is busy."""
        its_manager = self._app.kernel_manager.get_kernel(kernel)
        stream, session = its_manager._activity_stream, its_manager.session
        record = stream._recv_callback

        def record_and_see(message: list[bytes]) -> None:
            self.safely(self.from_kernel, kernel, session, message)
            record(message)

        stream.on_recv(record_and_see)
        self._cells.watch(kernel)
        # Told when its process has died and another is about to be started.
        its_manager.add_restart_callback(lambda: self.safely(self._cells.started, kernel), "restart")

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
        now = boottime()
        self._answering.discard(handler)
        login = request.path == "/login" and request.method == "POST" and handler.get_status() == 302
        if login or getattr(handler, "_jupyter_current_user", None):
            self._visits.request(
                request.method,
                request.path,
                request.headers,
                status=handler.get_status(),
                client=client_of(handler),
                now=now,
                began=now - max(0.0, request.request_time()),
                query=request.query,
                body=request.body or b"",
                wrote=self._wrote(handler),
            )
            self._note_app(handler, now)

    def _note_app(self, handler: Any, now: float) -> None:
        """Remembers the port of an app that is used through this server: who calls it there is known here."""
        found = PROXIED.match(handler.request.path)
        port = int(found[1]) if found else getattr(handler, "port", 0)
        if isinstance(port, int) and 0 < port < 65536:
            self._proxied[port] = now

    def _opened(self, handler: Any) -> None:
        self._visits.opened(client_of(handler))
        if handler.request.path.startswith(SOCKETS) or not getattr(handler, "_jupyter_current_user", None):
            return
        talk = Talk(client_of(handler), handler.request.path, boottime())
        on_message, write_message = handler.on_message, handler.write_message

        def hear(message: Any) -> Any:
            self._or_unseen(talk.heard, message, boottime())
            return on_message(message)

        def say(message: Any, *arguments: Any, **keywords: Any) -> Any:
            talk.said(boottime())
            return write_message(message, *arguments, **keywords)

        handler.on_message, handler.write_message = hear, say
        self._talks[handler] = talk

    def _closed(self, handler: Any) -> None:
        self._visits.closed(client_of(handler))
        talk = self._talks.pop(handler, None)
        if talk is not None:
            self._or_unseen(self._visits.talked, talk)

    def _judge(self) -> None:
        now = boottime()
        for handler in list(self._answering):
            stream = getattr(handler.request.connection, "stream", None)
            if handler._finished or stream is None or stream.closed():
                self._answering.discard(handler)
            elif getattr(handler, "_jupyter_current_user", None):
                request = handler.request
                self._visits.goes_on(request.method, request.path, request.headers, now)
        for handler, talk in self._talks.items():
            self._visits.talked(talk)
            self._note_app(handler, now)

    def _watched(self, connection_class: type[Any]) -> type[Any]:
        """The class of kernel connections, with both directions seen."""
        watch = self

        class WatchedConnection(connection_class):  # type: ignore[misc]
            def handle_incoming_message(self, incoming_msg: Any) -> Any:
                watch.safely(watch.to_kernel, self, incoming_msg)
                return super().handle_incoming_message(incoming_msg)

            def handle_outgoing_message(self, stream: Any, outgoing_msg: Any) -> Any:
                channel = stream if isinstance(stream, str) else getattr(stream, "channel", None)
                if channel == "stdin":
                    watch.safely(watch.from_kernel, self.kernel_id, self.session, outgoing_msg)
                return super().handle_outgoing_message(stream, outgoing_msg)

        return WatchedConnection

    def to_kernel(self, connection: Any, message: Any) -> None:
        """A message of a page."""
        if connection.subprotocol == V1:
            _, parts = deserialize_msg_from_ws_v1(message)
            header = json.loads(parts[0])
            content = json.loads(parts[3]) if header["msg_type"] in ("execute_request", "debug_request") else {}
            sent = bytes(parts[3])
        else:
            whole = deserialize_binary_message(message) if isinstance(message, bytes) else json.loads(message)
            header, content = whole["header"], whole.get("content") or {}
            sent = json.dumps(content).encode() if header["msg_type"] == "comm_msg" else b""
        kind = header["msg_type"]
        if kind == "debug_request" and content.get("command") in GO_ON:
            kind = "debug_step"
            self._cells.resumed(connection.kernel_id)
        self._visits.to_kernel(connection.kernel_id, kind, bool(content.get("silent")), boottime(), sent)
        if header["msg_type"] == "input_reply":
            self._cells.answered(connection.kernel_id)

    def from_kernel(self, kernel: str, session: Any, message: list[bytes]) -> None:
        """A message of a kernel, as ZeroMQ carries it."""
        news = read(session.feed_identities(message)[1])
        if news is not None:
            self._cells.take(kernel, news, boottime())
            if news.kind.startswith("comm_"):
                self._visits.spoke(kernel, boottime())

    def _write(self) -> None:
        now = boottime()
        if not self.safely(self._judge):
            self._unseen_at = now
        manager = self._app.kernel_manager
        kernels = {kernel: manager.get_kernel(kernel) for kernel in manager.list_kernel_ids()}
        for kernel in kernels:
            self.safely(self._scan_buffer, kernel, manager)
        self._scanned = {kernel: seen for kernel, seen in self._scanned.items() if kernel in kernels}
        self._visits.keep(kernels)
        self._cells.keep(kernels)
        states = [
            self._cells.state(name, getattr(kernel, "execution_state", "busy") == "busy", now)
            for name, kernel in kernels.items()
        ]
        visible, hidden = self._visits.browsers(now)
        self._proxied = {port: at for port, at in self._proxied.items() if now - at < PROXIED_SECONDS}
        content = {
            "at": now,
            "input_at": self._visits.input_at,
            "unseen": self._unseen_at is not None and now - self._unseen_at < UNSEEN_SECONDS,
            "kernels": states,
            "processes": [_process_of(kernel) for kernel in kernels.values()],
            "proxied": sorted(self._proxied),
            "visible": visible,
            "hidden": hidden,
        }
        # In place: the folder is root's, so that nothing else can take the file's space. The reader tries again.
        self._file.write_text(json.dumps(content))

    def _scan_buffer(self, kernel: str, manager: Any) -> None:
        """What the kernel asked while no page was there: the server keeps it for the page that comes back."""
        info = getattr(manager, "_kernel_buffers", {}).get(kernel)
        if not info:
            return
        buffer = info["buffer"]
        which, seen = self._scanned.get(kernel, (id(buffer), 0))
        start = seen if which == id(buffer) else 0
        for channel, message in buffer[start:]:
            if channel == "stdin":
                self.safely(self.from_kernel, kernel, manager.get_kernel(kernel).session, message)
        self._scanned[kernel] = (id(buffer), len(buffer))


def _process_of(kernel: Any) -> list[int] | None:
    """The process of a kernel and the ports that it listens at for this server; None where that cannot be told (a
    kernel on another machine)."""
    pid = getattr(getattr(kernel, "provisioner", None), "pid", None)
    if not isinstance(pid, int):
        return None
    ports = (getattr(kernel, f"{channel}_port", None) for channel in ("shell", "iopub", "stdin", "control", "hb"))
    return [pid, *(port for port in ports if isinstance(port, int))]


def client_of(handler: Any) -> str:
    """Tells browsers apart, well enough to count them."""
    return f"{handler.request.remote_ip} {handler.request.headers.get('User-Agent', '')}"


def attach(app: Any) -> None:
    """Watches the server `app`, when its unit names the file that the monitor reads."""
    file = os.environ.get("NOD_ACTIVITY")
    if file:
        watch = Watch(app, Path(file))
        watch.safely(watch.start)
