"""API Gateway in front of the real app: Chalice's own route matching and events, and what API Gateway does around it.

Where Chalice's local server is not API Gateway: a path or method without a route is 403 (there: 403 with other words,
405, or an answer to HEAD and OPTIONS that AWS does not give); a body above 10 MB is 413 and is not read; a payload
above Lambda's 6 MB is 413; a request that is not HTTP is a problem detail; a function that fails is 502; the body is
text, bytes that are no UTF-8 replaced. Answers of the gateway itself are problem details, as the gateway responses of
the deployment are.
"""

from __future__ import annotations

import base64
import json
import logging
import re
import socket
import threading
import time
import uuid
from collections.abc import Mapping
from email.errors import FirstHeaderLineIsContinuationDefect, MissingHeaderBodySeparatorDefect
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

from chalice.local import LambdaEventConverter, RouteMatcher

from local.connections import Connections
from local.hosts import REFUSED, is_own
from local.lambdas import Lambdas

log = logging.getLogger("nod.local.gateway")

GATEWAY_LIMIT = 10 * 1024 * 1024
LAMBDA_LIMIT = 6 * 1024 * 1024
LONGEST_LINE = 8192
MOST_TRAILERS = 100
UNREADABLE = (MissingHeaderBodySeparatorDefect, FirstHeaderLineIsContinuationDefect)
"""What the parser of headers says when it took a line for the end of them, `Content-Length : 10` for one."""
MISSING = "There is no such path or method here. GET /openapi.json lists what there is."


class GatewayError(Exception):
    """An answer of the gateway itself."""

    def __init__(self, status: HTTPStatus, detail: str, code: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.headers = {"Content-Type": "application/problem+json", **(headers or {})}
        self.detail = detail
        self.code = code

    def body(self) -> bytes:
        """The problem detail (RFC 9457)."""
        problem = {
            "type": f"urn:nod:problem:{self.code}",
            "title": self.status.phrase,
            "status": self.status.value,
            "detail": self.detail,
            "code": self.code,
        }
        return json.dumps(problem).encode()


class Gateway:
    """The API on the loopback interface: a thread a connection, kept alive."""

    def __init__(self, app: Any, function: str, lambdas: Lambdas, *, port: int, account: str, stage: str) -> None:
        """`function` is the name of the API's function. Port 0 takes a free one. Raises OSError."""
        self.app = app
        self.function = function
        self.lambdas = lambdas
        self.account = account
        self.stage = stage
        self.converter = LambdaEventConverter(RouteMatcher(list(app.routes)), app.api.binary_types)
        self._server = _Server(("127.0.0.1", port), self)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, name="nod-api", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop serving, and end the connections that are kept alive."""
        self._server.shutdown()
        self._thread.join(5)
        self._server.server_close()
        self._server.connections.close()

    def unknown_method(self, path: str) -> GatewayError:
        """The refusal of a method that API Gateway does not have at all (TRACE and the like)."""
        try:
            route = self.converter.create_lambda_event(method="GET", path=path, headers={})
        except ValueError:
            return GatewayError(HTTPStatus.FORBIDDEN, MISSING, "no_route")
        return _not_allowed(self.app.routes[route["requestContext"]["resourcePath"]])

    def answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> dict[str, Any]:
        """The function's answer, in Lambda proxy format. Raises GatewayError."""
        if len(body) > LAMBDA_LIMIT:
            raise GatewayError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The body is larger than 6 MB.", "body_too_large")
        try:
            event: dict[str, Any] = self.converter.create_lambda_event(
                method=method, path=path, headers=dict(headers), body=body
            )
        except ValueError:
            raise GatewayError(HTTPStatus.FORBIDDEN, MISSING, "no_route") from None
        route = event["requestContext"]["resourcePath"]
        if method not in self.app.routes[route]:
            raise _not_allowed(self.app.routes[route])
        if isinstance(event["body"], bytes):
            event["body"] = event["body"].decode("utf-8", "replace") if event["body"] else None
        event["isBase64Encoded"] = bool(event.get("isBase64Encoded"))
        event["resource"], event["path"], event["httpMethod"] = route, path.split("?", maxsplit=1)[0], method
        event["multiValueHeaders"] = {name.lower(): [value] for name, value in headers.items()}
        event["pathParameters"] = {key: unquote(value) for key, value in event["pathParameters"].items()}
        event["requestContext"] |= {
            "accountId": self.account,
            "apiId": "local",
            "protocol": "HTTP/1.1",
            "requestId": str(uuid.uuid4()),
            "stage": self.stage,
        }
        answer = self.lambdas.invoke(self.function, event)
        if answer.error is not None:
            raise GatewayError(HTTPStatus.BAD_GATEWAY, "The function failed. Try again.", "internal_error")
        result: dict[str, Any] = json.loads(answer.payload)
        if not isinstance(result, dict) or "statusCode" not in result:
            raise GatewayError(HTTPStatus.BAD_GATEWAY, "The function's answer has no status.", "internal_error")
        return result


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # A hundred requests at once are one of the tests; the default backlog is 5.
    request_queue_size = 256

    def __init__(self, address: tuple[str, int], gateway: Gateway) -> None:
        self.gateway = gateway
        self.connections = Connections()
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is nobody's error."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Headers and body are two packets: with Nagle's algorithm the second waits 40 ms for an acknowledgement.
    disable_nagle_algorithm = True
    timeout = 65
    server: _Server
    server_version = "nod-local"
    sys_version = ""

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except (ConnectionError, TimeoutError):
            self.close_connection = True

    def _handle(self) -> None:
        began = time.monotonic()
        try:
            body = self._body()
            if not is_own(self.headers.get("Host"), self.server.gateway.port):
                raise GatewayError(HTTPStatus.FORBIDDEN, REFUSED, "wrong_host")
            # Two headers of one name: API Gateway joins them.
            headers = {name: ", ".join(self.headers.get_all(name) or []) for name in self.headers}
            answer = self.server.gateway.answer(self.command, self.path, headers, body)
        except GatewayError as error:
            status = error.status.value
            self._send(status, error.headers, error.body())
        else:
            status = int(answer["statusCode"])
            content = answer.get("body") or ""
            data = base64.b64decode(content) if answer.get("isBase64Encoded") else str(content).encode()
            self._send(status, {**(answer.get("multiValueHeaders") or {}), **(answer.get("headers") or {})}, data)
        fields = {
            "method": self.command,
            "path": self.path.split("?")[0],
            "status": status,
            "ms": round((time.monotonic() - began) * 1000, 1),
        }
        log.info("request", extra={"fields": fields})

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _handle  # noqa: N815 - the base class's names

    # Where a request ends must be beyond doubt (RFC 9112, 6.3): whoever is in doubt answers something nobody asked.

    def _body(self) -> bytes:
        """The whole body. Raises GatewayError, and ConnectionError when the client ended before its body did."""
        if any(isinstance(defect, UNREADABLE) for defect in self.headers.defects):
            raise self._malformed("A header cannot be read.")
        codings = self.headers.get_all("Transfer-Encoding") or []
        lengths = self.headers.get_all("Content-Length") or []
        if codings and lengths:
            raise self._malformed("The body has both a Content-Length and a Transfer-Encoding.")
        if codings:
            if [coding.strip().lower() for coding in codings] != ["chunked"]:
                raise self._malformed("The only Transfer-Encoding here is chunked.")
            return self._chunks()
        # One header with a list is the same as several of one name, and may say the same thing twice.
        said = {text.strip(" \t") for header in lengths for text in header.split(",")}
        if len(said) > 1:
            raise self._malformed("The body has more than one Content-Length.")
        text = said.pop() if said else "0"
        if not re.fullmatch(r"[0-9]+", text):
            raise self._malformed("Content-Length is not a number.")
        digits = text.lstrip("0") or "0"
        # Python reads no number of thousands of digits.
        if len(digits) > len(str(GATEWAY_LIMIT)) or int(digits) > GATEWAY_LIMIT:
            raise self._too_large()
        return self._exactly(int(digits))

    def _chunks(self) -> bytes:
        whole = bytearray()
        while True:
            text = self._line().split(b";")[0].strip(b" \t")
            if not re.fullmatch(rb"[0-9A-Fa-f]+", text):
                raise self._malformed("A chunk of the body has no length.")
            size = int(text, 16)
            if size == 0:
                break
            if len(whole) + size > GATEWAY_LIMIT:
                raise self._too_large()
            whole += self._exactly(size)
            if self._line():
                raise self._malformed("A chunk of the body is longer than it says.")
        for _ in range(MOST_TRAILERS):
            if not self._line():
                return bytes(whole)
        raise self._malformed("The body is followed by too many headers.")

    def _line(self) -> bytes:
        line = self.rfile.readline(LONGEST_LINE)
        if line.endswith(b"\n"):
            return line.rstrip(b"\r\n")
        if len(line) == LONGEST_LINE:
            raise self._malformed("A line between the chunks of the body is too long.")
        raise self._cut_short()

    def _exactly(self, size: int) -> bytes:
        data = self.rfile.read(size) if size else b""
        if len(data) < size:
            raise self._cut_short()
        return data

    def _cut_short(self) -> ConnectionError:
        fields = {"method": self.command, "path": self.path.split("?")[0]}
        log.info("not a whole request, nothing done", extra={"fields": fields})
        return ConnectionAbortedError("the client ended before its body did")

    def _malformed(self, detail: str) -> GatewayError:
        self.close_connection = True
        return GatewayError(HTTPStatus.BAD_REQUEST, detail, "malformed_request")

    def _too_large(self) -> GatewayError:
        # What the client still sends is not read: the connection cannot be used again.
        self.close_connection = True
        return GatewayError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The body is larger than 10 MB.", "body_too_large")

    def _send(self, status: int, headers: Mapping[str, Any], body: bytes) -> None:
        self.send_response(status)
        bare = status in {204, 304} or status < 200
        for name, value in headers.items():
            if name.lower() not in {"content-length", "connection"}:
                for one in value if isinstance(value, list) else [value]:
                    self.send_header(name, str(one))
        self.send_header("x-amzn-RequestId", str(uuid.uuid4()))
        # To HEAD, what GET would send counts: none is known of an answer that comes without a body.
        if not bare and (body or self.command != "HEAD"):
            self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if not bare and self.command != "HEAD":
            self.wfile.write(body)
        if self.close_connection:
            self._drain()

    def _drain(self) -> None:
        # Closing with unread data resets the connection, and the client would lose the answer.
        self.wfile.flush()
        try:
            self.connection.shutdown(socket.SHUT_WR)
            self.connection.settimeout(2)
            deadline = time.monotonic() + 5
            while time.monotonic() < deadline and self.rfile.read1(65_536):
                pass
        except (OSError, ValueError):
            return

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002
        """What http.server refuses by itself: not HTTP, an unknown method, headers without end."""
        self.close_connection = True
        if not hasattr(self, "command") or self.command is None:
            self.command = "GET"
        if code == HTTPStatus.NOT_IMPLEMENTED:
            error = self.server.gateway.unknown_method(self.path)
        else:
            error = GatewayError(HTTPStatus(code), message or HTTPStatus(code).phrase, "malformed_request")
        self.request_version = "HTTP/1.1"
        self._send(error.status.value, error.headers, error.body())

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Nothing: requests are logged above, without their headers."""


def _not_allowed(entries: Mapping[str, Any]) -> GatewayError:
    # The app's own refusal of the other methods is no method to name.
    allowed = ", ".join(sorted(method for method, entry in entries.items() if entry.view_name != "refuse_method"))
    return GatewayError(
        HTTPStatus.METHOD_NOT_ALLOWED, f"Allowed here: {allowed}.", "method_not_allowed", {"Allow": allowed}
    )
