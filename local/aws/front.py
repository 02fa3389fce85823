"""What stands before moto on the port of the AWS APIs: commands, functions, faults, locks, the pages `/_local/…`."""

from __future__ import annotations

import io
import json
import logging
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, unquote

from moto.backends import get_backend
from moto.core.model_instances import reset_model_data
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from moto.stepfunctions.parser.models import stepfunctions_parser_backends
from werkzeug.serving import BaseWSGIServer, make_server
from werkzeug.wrappers import Request, Response

from local.aws import limits
from local.aws.ec2 import Ec2
from local.aws.errors import ApiError
from local.aws.metadata import ACCESS_KEY
from local.aws.ssm import Commands
from local.aws.transactions import Transactions
from local.connections import Connections
from local.faults import Faults
from local.hosts import REFUSED, is_own, is_own_origin
from local.lambdas import FunctionNotFoundError, Lambdas

log = logging.getLogger("nod.local.aws")

THROTTLED = {
    "ec2": ("RequestLimitExceeded", 503),
    "dynamodb": ("ThrottlingException", 400),
    "ssm": ("ThrottlingException", 400),
    "states": ("ThrottlingException", 400),
    "sns": ("Throttling", 400),
    "sqs": ("RequestThrottled", 403),
}
"""Each service's own word for "too many requests", and its HTTP status."""


SKEW = timedelta(minutes=5)
"""How far from DynamoDB's own time a request may be signed. Of no other key than the machines' is it looked at: whoever
else calls runs here, by the same clock."""

SERVICES = ("dynamodb", "ec2", "events", "iam", "sns", "sqs", "ssm", "stepfunctions")


class AnswerLostError(ConnectionError):
    """The call was done, and the connection breaks before its answer. A ConnectionError: the server answers nothing."""


class Front:
    """The WSGI application of the AWS port."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self.control: Callable[[Request], Response] = lambda _: Response(status=503)
        """What answers the pages."""
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._dynamodb = threading.Lock()
        self._transactions = Transactions()
        self._throttles: dict[tuple[str, str], int] = {}
        self._answers: dict[tuple[str, str, str], int] = {}
        self._counting = threading.Lock()
        self.throttling = False
        """Whether the faults of calls count yet: not while the stack is deployed."""
        self.commands: Commands | None = None
        self.lambdas: Lambdas | None = None
        self.ec2: Ec2 | None = None
        self.calls: dict[tuple[str, str], int] = {}

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        port = int(environ["SERVER_PORT"])
        if not is_own(environ.get("HTTP_HOST"), port) or not is_own_origin(environ.get("HTTP_ORIGIN"), port):
            refusal = Response(REFUSED + "\n", 403, content_type="text/plain; charset=utf-8")
            return refusal(environ, start_response)
        path = environ.get("PATH_INFO", "")
        if path.startswith("/_local/"):
            return self.control(Request(environ))(environ, start_response)
        began = time.monotonic()
        status = "500"

        def started(line: str, headers: Any, *rest: Any) -> Any:
            nonlocal status
            status = line[:3]
            return start_response(line, headers, *rest)

        service, action = identify(environ)
        try:
            answer = self._answer(service, action, environ, started)
            lost = self._loses(environ, service, action)
            if lost:
                answer, status = [b"".join(answer)], "lost"
        except Exception:
            log.exception("%s %s failed", service, action)
            return _error(service, "InternalFailure", "The local cloud failed; see .local/log/aws.log.", 500)(
                environ, started
            )
        finally:
            fields = {"service": service, "action": action, "status": status}
            fields["ms"] = str(round((time.monotonic() - began) * 1000, 1))
            log.info("call", extra={"fields": fields})
        if lost:
            raise AnswerLostError(f"the answer to {service} {action}")
        return answer

    def _answer(self, service: str, action: str, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        with self._counting:
            self.calls[service, action] = self.calls.get((service, action), 0) + 1
        if self.throttling and self._faults.active("throttling", service) and self._throttled(environ, service, action):
            code, status = THROTTLED.get(service, ("ThrottlingException", 400))
            return _error(service, code, "Rate exceeded", status)(environ, start_response)
        refused = self._refused(service, action, environ) if self.throttling else None
        if refused is None and service in limits.SERVICES:
            beyond = limits.refusal(service, action, _body(environ))
            refused = (*beyond, 400) if beyond is not None else None
        if refused is not None:
            return _error(service, *refused)(environ, start_response)
        if service == "lambda" and self.lambdas is not None and action == "Invoke":
            return self._invoke(Request(environ))(environ, start_response)
        if service == "ssm" and self.commands is not None and action in self.commands.actions:
            return self._command(action, Request(environ))(environ, start_response)
        if service == "dynamodb":
            # A conditional write is one step on AWS; moto looks first and writes then.
            with self._dynamodb:
                done = self._transact if action == "TransactWriteItems" else self._moto
                return [b"".join(done(environ, start_response))]
        return self._moto(environ, start_response)  # type: ignore[no-any-return]

    def _transact(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        request = json.loads(_body(environ) or b"{}")
        known = self._transactions.known(request, time.monotonic())
        if known is False:
            text = "Request parameters do not match those of an earlier request with the same client request token."
            return _error("dynamodb", "IdempotentParameterMismatchException", text, 400)(environ, start_response)
        if known:
            return _json({})(environ, start_response)
        done = False

        def started(line: str, headers: Any, *rest: Any) -> Any:
            nonlocal done
            done = line.startswith("200")
            return start_response(line, headers, *rest)

        answer = b"".join(self._moto(environ, started))
        if done:
            self._transactions.note(request, time.monotonic())
        return [answer]

    def _loses(self, environ: dict[str, Any], service: str, action: str) -> bool:
        if not self.throttling or not self._faults.active("answer_lost", service, f"{service}:{action}"):
            return False
        # Counted for each caller: of two that call in turn, one would lose every answer.
        return self._hits(environ, self._answers, (_caller(environ), service, action))

    def _throttled(self, environ: dict[str, Any], service: str, action: str) -> bool:
        return self._hits(environ, self._throttles, (service, action))

    def _hits(self, environ: dict[str, Any], counts: dict[Any, int], key: Any) -> bool:
        """Whether a fault hits this try: the first of each call that an SDK repeats, and no other of it, whoever calls
        at the same time; where that cannot be told, every second call."""
        attempt, most = _tries(environ)
        if attempt > 1 or most > 1:
            return attempt == 1
        with self._counting:
            seen = counts[key] = counts.get(key, 0) + 1
        return seen % 2 == 1

    def _refused(self, service: str, action: str, environ: dict[str, Any]) -> tuple[str, str, int] | None:
        """What AWS answers in place of the call, by the faults and to a wrong clock: code, message and HTTP status."""
        if service == "dynamodb" and (out_of_time := _skewed(environ, datetime.now(UTC))) is not None:
            return "InvalidSignatureException", out_of_time, 400
        if service == "ec2" and action in {"StartInstances", "StopInstances"} and self.ec2 is not None:
            asked = parse_qs(_body(environ).decode("utf-8", "replace"))
            ids = [value for name, values in asked.items() if name.startswith("InstanceId.") for value in values]
            return self.ec2.refused(action, ids)
        if service == "dynamodb" and self._faults.any("table_unavailable", "heartbeat_lost"):
            tables, keys = _touched(json.loads(_body(environ) or b"{}"))
            lost = action == "UpdateItem" and f"Credential={ACCESS_KEY}/" in environ.get("HTTP_AUTHORIZATION", "")
            if self._faults.active("table_unavailable", *tables) or (
                lost and self._faults.active("heartbeat_lost", *keys)
            ):
                return "InternalServerError", "Internal server error", 500
        return None

    def _command(self, action: str, request: Request) -> Response:
        assert self.commands is not None
        try:
            answer = self.commands.actions[action](json.loads(request.get_data() or b"{}"))
        except ApiError as error:
            return _error("ssm", error.code, error.message, error.status)
        return _json(answer)

    def _invoke(self, request: Request) -> Response:
        assert self.lambdas is not None
        name = unquote(request.path.split("/")[3])
        body = request.get_data()
        headers = {"x-amzn-RequestId": str(uuid.uuid4())}
        try:
            event = json.loads(body) if body else {}
        except ValueError:
            return _error("lambda", "InvalidRequestContentException", "Could not parse request body into json", 400)
        try:
            if request.headers.get("X-Amz-Invocation-Type", "RequestResponse") == "Event":
                self.lambdas.invoke_later(name, event)
                return Response(b"", 202, headers)
            answer = self.lambdas.invoke(name, event)
        except FunctionNotFoundError:
            arn = self.lambdas.arn(name) if not name.startswith("arn:") else name
            return _error("lambda", "ResourceNotFoundException", f"Function not found: {arn}", 404)
        headers["X-Amz-Executed-Version"] = "$LATEST"
        if answer.error:
            headers["X-Amz-Function-Error"] = answer.error
        return Response(answer.payload.encode(), 200, headers, content_type="application/json")


def _caller(environ: dict[str, Any]) -> str:
    """The key that a request is signed with: of the functions, of the workflows, or of the machines."""
    return str(environ.get("HTTP_AUTHORIZATION", "")).partition("Credential=")[2].partition("/")[0]


def _tries(environ: dict[str, Any]) -> tuple[int, int]:
    """Which try of its call this is, and how many the SDK makes at most (0: it does not say).

    SDKs send `amz-sdk-request: attempt=2; max=4`.
    """
    said = dict(re.findall(r"\b(attempt|max)=(\d{1,3})\b", environ.get("HTTP_AMZ_SDK_REQUEST", "")))
    return int(said.get("attempt", 1)), int(said.get("max", 0))


def identify(environ: dict[str, Any]) -> tuple[str, str]:
    """Service and action of a request; empty where they cannot be told."""
    path = environ.get("PATH_INFO", "")
    if path.startswith("/2015-03-31/functions/") and path.endswith("/invocations"):
        return "lambda", "Invoke"
    service = ""
    scope = environ.get("HTTP_AUTHORIZATION", "").partition("Credential=")[2].split(",")[0].split("/")
    if len(scope) >= 5:
        service = scope[3]
    target = environ.get("HTTP_X_AMZ_TARGET", "")
    if target:
        return service, target.rpartition(".")[2]
    if environ.get("CONTENT_TYPE", "").startswith("application/x-www-form-urlencoded"):
        return service, parse_qs(_body(environ).decode("utf-8", "replace")).get("Action", [""])[0]
    return service, ""


def _skewed(environ: dict[str, Any], now: datetime) -> str | None:
    """What DynamoDB says to a machine that signs for another time than its own; None when the time is right."""
    stamp = environ.get("HTTP_X_AMZ_DATE", "")
    if f"Credential={ACCESS_KEY}/" not in environ.get("HTTP_AUTHORIZATION", ""):
        return None
    try:
        signed = datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        return "Date must be in ISO-8601 'basic format'."
    first, last = (f"{moment:%Y%m%dT%H%M%SZ}" for moment in (now - SKEW, now + SKEW))
    if signed < now - SKEW:
        return f"Signature expired: {stamp} is now earlier than {first} ({now:%Y%m%dT%H%M%SZ} - 5 min.)"
    if signed > now + SKEW:
        return f"Signature not yet current: {stamp} is still later than {last} ({now:%Y%m%dT%H%M%SZ} + 5 min.)"
    return None


def _body(environ: dict[str, Any]) -> bytes:
    """The body of a request, which stays to be read."""
    body: bytes = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    environ["wsgi.input"] = io.BytesIO(body)
    return body


def _touched(request: dict[str, Any]) -> tuple[set[str], set[str]]:
    """The tables that a DynamoDB request names, and the ends of the ids in its key: of an instance's ARN, the id."""
    tables = {request["TableName"]} if "TableName" in request else set(request.get("RequestItems", {}))
    for item in request.get("TransactItems", []):
        tables |= {entry["TableName"] for entry in item.values()}
    keys = {str(value.get("S", "")).rpartition("/")[2] for value in request.get("Key", {}).values()}
    return tables, keys


def _json(body: Any) -> Response:
    return Response(json.dumps(body), 200, content_type="application/x-amz-json-1.1")


def _error(service: str, code: str, message: str, status: int) -> Response:
    headers = {"x-amzn-RequestId": str(uuid.uuid4()), "x-amzn-ErrorType": code}
    if service in {"ec2"}:
        body = (
            f"<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors>"
            f"<RequestID>{headers['x-amzn-RequestId']}</RequestID></Response>"
        )
        return Response(body, status, headers, content_type="text/xml")
    if service in {"sns", "iam", "sts"}:
        body = (
            f"<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error>"
            f"<RequestId>{headers['x-amzn-RequestId']}</RequestId></ErrorResponse>"
        )
        return Response(body, status, headers, content_type="text/xml")
    body = json.dumps({"__type": code, "message": message})
    return Response(body, status, headers, content_type="application/x-amz-json-1.1")


class _Handler(MotoRequestHandler):
    # Headers and body are two packets: with Nagle's algorithm the second waits 40 ms for an acknowledgement.
    disable_nagle_algorithm = True
    timeout = 120

    def connection_dropped(self, *_: Any) -> None:
        """Closes the connection: the caller of AnswerLostError would wait for its answer, as it is kept alive."""
        self.close_connection = True

    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002 - werkzeug's name
        """Nothing: calls are logged by Front."""


class Server:
    """The AWS port: a thread a connection, on the loopback interface."""

    def __init__(self, app: Front, port: int) -> None:
        """Bind; port 0 takes a free one. Raises OSError."""
        self._server: BaseWSGIServer = make_server("127.0.0.1", port, app, threaded=True, request_handler=_Handler)
        self._server.daemon_threads = True  # type: ignore[attr-defined]
        self._connections = Connections()
        process, end = self._server.process_request, self._server.shutdown_request

        def process_request(request: Any, address: Any) -> None:
            self._connections.add(request)
            process(request, address)

        def shutdown_request(request: Any) -> None:
            self._connections.discard(request)
            end(request)

        self._server.process_request = process_request  # type: ignore[method-assign,assignment]
        self._server.shutdown_request = shutdown_request  # type: ignore[method-assign]
        self.port = self._server.port
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, name="nod-aws", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop serving, and end the connections that are kept alive."""
        self._server.shutdown()
        self._thread.join(5)
        self._server.server_close()
        self._connections.close()


def reset_moto(account: str, region: str) -> None:
    """Forget everything: a cloud begins empty, also the second one of a process."""
    for name in SERVICES:
        backends: Any = stepfunctions_parser_backends if name == "stepfunctions" else get_backend(name)  # type: ignore[call-overload]
        regions = backends[account]
        regions["aws" if "aws" in regions.regions and region not in regions.regions else region].reset()
    reset_model_data()
