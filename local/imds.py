"""The instance metadata service of one machine, version 2 only, as EC2 serves it with `HttpTokens: required`.

Paths and error codes: "Use the Instance Metadata Service to access instance metadata" in the EC2 User Guide.
What there is to tell comes from a function of the path; this module knows the protocol only.
"""

import base64
import hashlib
import hmac
import re
import secrets
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

Metadata = Callable[[str], str | None]

MAX_TTL: Final = 21600  # seconds, six hours: EC2's own limit
_TTL_HEADER: Final = "X-aws-ec2-metadata-token-ttl-seconds"
_TOKEN_HEADER: Final = "X-aws-ec2-metadata-token"  # noqa: S105
_VERSION: Final = re.compile(r"^(\d{4}-\d\d-\d\d|1\.0)(?=/|$)")


class Tokens:
    """Session tokens. A token carries its own end under a seal, so that none of them need be kept."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)

    def issue(self, ttl: int, now: float) -> str:
        """A token good for `ttl` seconds from `now` (seconds of a monotonic clock)."""
        body = struct.pack(">d", now + ttl)
        return base64.urlsafe_b64encode(body + self._seal(body)).decode()

    def valid(self, token: str, now: float) -> bool:
        try:
            raw = base64.b64decode(token.encode(), altchars=b"-_", validate=True)
        except (ValueError, UnicodeEncodeError):
            return False
        body, seal = raw[:8], raw[8:]
        if not hmac.compare_digest(seal, self._seal(body)):
            return False
        end: float
        (end,) = struct.unpack(">d", body)
        return now < end

    def _seal(self, body: bytes) -> bytes:
        return hmac.digest(self._key, body, hashlib.sha256)


class Imds:
    """Serves one machine's metadata on sockets that are handed in, one for each boot.

    Tokens outlive a boot, as on EC2.
    """

    def __init__(self, metadata: Metadata) -> None:
        self._metadata = metadata
        self._tokens = Tokens()
        self._server: ThreadingHTTPServer | None = None

    def start(self, listener: socket.socket) -> None:
        """Serves on a listening socket until `stop`, which closes it."""
        metadata, tokens = self._metadata, self._tokens

        class Handler(_Handler):
            def __init__(self, request: socket.socket, client: tuple[str, int], server: ThreadingHTTPServer) -> None:
                self.metadata, self.tokens = metadata, tokens
                super().__init__(request, client, server)

        listener.setblocking(True)
        server = _Server(("169.254.169.254", 80), Handler, bind_and_activate=False)
        server.socket.close()
        server.socket = listener
        self._server = server
        threading.Thread(target=server.serve_forever, args=(0.05,), name="nod-imds", daemon=True).start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # A caller that hangs must not hold up the machine's shutdown.
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        """Says nothing of a caller that hung up; anything else is a fault of ours."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _Handler(BaseHTTPRequestHandler):
    server_version = "EC2ws"
    sys_version = ""
    protocol_version = "HTTP/1.1"
    timeout = 30
    metadata: Metadata
    tokens: Tokens

    def do_PUT(self) -> None:
        self._drain()
        if self._category() != "api/token":
            self._error(HTTPStatus.METHOD_NOT_ALLOWED)
        elif "X-Forwarded-For" in self.headers:
            # EC2 refuses this to keep an open proxy on the instance from fetching tokens for strangers.
            self._error(HTTPStatus.FORBIDDEN)
        else:
            ttl = self.headers.get(_TTL_HEADER, "")
            if not (ttl.isascii() and ttl.isdigit() and len(ttl) <= 5 and 1 <= int(ttl) <= MAX_TTL):
                self._error(HTTPStatus.BAD_REQUEST)
            else:
                self._answer(self.tokens.issue(int(ttl), time.monotonic()), {_TTL_HEADER: ttl})

    def do_GET(self) -> None:
        self._drain()
        if not self.tokens.valid(self.headers.get(_TOKEN_HEADER, ""), time.monotonic()):
            self._error(HTTPStatus.UNAUTHORIZED)
            return
        category = self._category()
        if category == "api/token":
            self._error(HTTPStatus.METHOD_NOT_ALLOWED)
            return
        value = None
        if category is not None:
            path = f"latest/{category}"
            value = self.metadata(path)
            if value is None:
                # A folder is asked for with and without the slash.
                value = self.metadata(path[:-1] if path.endswith("/") else f"{path}/")
        if value is None:
            self._error(HTTPStatus.NOT_FOUND)
        else:
            self._answer(value, {})

    do_HEAD = do_GET  # noqa: N815

    def _refuse(self) -> None:
        self._drain()
        self._error(HTTPStatus.METHOD_NOT_ALLOWED)

    do_POST = do_DELETE = do_PATCH = do_OPTIONS = _refuse  # noqa: N815

    def _category(self) -> str | None:
        """The path behind the version: EC2 answers alike under `latest` and under every dated version."""
        path = self.path.split("?", 1)[0].lstrip("/")
        path = _VERSION.sub("latest", path)
        return path.removeprefix("latest/") if path.startswith("latest/") else None

    def _drain(self) -> None:
        # What is left unread of a body would be taken for the next request.
        length = self.headers.get("Content-Length", "0")
        if length.isdigit() and int(length) <= 65536:
            self.rfile.read(int(length))
        else:
            self.close_connection = True

    def _error(self, status: HTTPStatus) -> None:
        page = f"<html><head><title>{status.value} - {status.phrase}</title></head></html>\n"
        self._send(status, page, "text/html", {})

    def _answer(self, text: str, headers: dict[str, str]) -> None:
        self._send(HTTPStatus.OK, text, "text/plain", headers)

    def _send(self, status: HTTPStatus, text: str, content_type: str, headers: dict[str, str]) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Nothing: the machine's own log is its journal."""
