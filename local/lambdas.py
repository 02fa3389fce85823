"""Lambda: the functions of the real `app.py`, invoked in this process, without Docker.

What exists is read from Chalice's own registrations, so that nothing is listed twice: functions, event patterns,
schedules and topics. Asynchronous invocations (events, SNS) are tried three times as on AWS, sooner one after the
other (Delays.retry; AWS waits 1 and 2 minutes); what failed at every try goes to the function's failure destination.
"""

from __future__ import annotations

import json
import logging
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from local.background import Background
from local.delays import Delays
from local.principals import acting, listener

log = logging.getLogger("nod.local.lambda")


class Context:
    """What Lambda hands to a handler as `context`."""

    def __init__(self, name: str, arn: str, seconds: float, memory: int) -> None:
        self.function_name = name
        self.function_version = "$LATEST"
        self.invoked_function_arn = arn
        self.memory_limit_in_mb = str(memory)
        self.aws_request_id = str(uuid.uuid4())
        self.log_group_name = f"/aws/lambda/{name}"
        self.log_stream_name = f"{datetime.now(UTC):%Y/%m/%d}/[$LATEST]{uuid.uuid4().hex}"
        self.identity = None
        self.client_context = None
        self._end = time.monotonic() + seconds

    def get_remaining_time_in_millis(self) -> int:
        """Milliseconds until the function's timeout."""
        return max(0, int((self._end - time.monotonic()) * 1000))


@dataclass(frozen=True)
class Answer:
    """What an invocation came to: the payload as JSON text, and `Unhandled` if the function raised."""

    payload: str
    error: str | None
    request_id: str


class FunctionNotFoundError(Exception):
    """No function has this name."""


class Lambdas:
    """The functions of one deployment, by name (`nod-STAGE-api`, `nod-STAGE-FUNCTION`)."""

    def __init__(
        self,
        account: str,
        region: str,
        background: Background,
        delays: Delays,
        send: Callable[[str, str], None],
    ) -> None:
        """`send(queue_arn, text)` puts a message into a queue, for failure destinations."""
        self._account = account
        self._region = region
        self._background = background
        self._delays = delays
        self._send = send
        self._handlers: dict[str, Callable[[Any, Any], Any]] = {}
        self._seconds: dict[str, float] = {}
        self._destinations: dict[str, str] = {}
        self._retries: dict[str, int] = {}
        self.counts: dict[str, int] = {}
        self._counting = threading.Lock()

    def load(self, app: Any, stage: str, config: Mapping[str, Any]) -> None:
        """Take the functions of a Chalice app; `config` is `.chalice/config.json`."""
        prefix = f"{app.app_name}-{stage}"
        settings = {**config, **config.get("stages", {}).get(stage, {})}
        functions = settings.get("lambda_functions", {})
        self._handlers[f"{prefix}-api"] = app
        self._seconds[f"{prefix}-api"] = float(settings.get("lambda_timeout", 60))
        for name, handler in app.handler_map.items():
            if not any(name == entry.view_name for route in app.routes.values() for entry in route.values()):
                function = f"{prefix}-{name}"
                self._handlers[function] = handler
                own = functions.get(name, {}).get("lambda_timeout")
                self._seconds[function] = float(own or settings.get("lambda_timeout", 60))

    def names(self) -> list[str]:
        """All functions."""
        return sorted(self._handlers)

    def arn(self, name: str) -> str:
        """The ARN of a function, whether it exists or not."""
        return f"arn:aws:lambda:{self._region}:{self._account}:function:{name}"

    def on_failure(self, name: str, queue_arn: str, retries: int = 2) -> None:
        """Set a function's failure destination (AWS::Lambda::EventInvokeConfig)."""
        self._destinations[name] = queue_arn
        self._retries[name] = retries

    def invoke(self, name: str, event: Any) -> Answer:
        """Invoke and wait. Raises FunctionNotFoundError; an error of the function is an answer."""
        name = short(name)
        handler = self._handlers.get(name)
        if handler is None:
            raise FunctionNotFoundError(name)
        with self._counting:
            self.counts[name] = self.counts.get(name, 0) + 1
        context = Context(name, self.arn(name), self._seconds.get(name, 60.0), 128)
        began = time.monotonic()
        error = None
        try:
            with acting(f"function/{name}"):
                result = handler(event, context)
        except Exception as raised:  # noqa: BLE001 - Lambda reports whatever the function raises
            payload, error = _failure(raised), "Unhandled"
        else:
            try:
                payload = json.dumps(result)
            except (TypeError, ValueError) as raised:
                message = f"Unable to marshal response: {raised}"
                payload, error = (
                    json.dumps({"errorMessage": message, "errorType": "Runtime.MarshalError", "stackTrace": []}),
                    "Unhandled",
                )
        if time.monotonic() - began > self._seconds.get(name, 60.0):
            # A thread cannot be ended from outside; what Lambda would have answered is answered.
            seconds = self._seconds[name]
            at = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
            message = f"{at} {context.aws_request_id} Task timed out after {seconds:.2f} seconds"
            payload, error = json.dumps({"errorMessage": message, "errorType": "Sandbox.Timedout"}), "Unhandled"
        fields = {"function": name, "ms": round((time.monotonic() - began) * 1000, 1)}
        if error:
            reason = json.loads(payload)
            fields |= {"error": reason.get("errorType"), "trace": reason.get("stackTrace")}
        log.info("invoked", extra={"fields": fields})
        return Answer(payload, error, context.aws_request_id)

    def invoke_later(self, name: str, event: Any) -> None:
        """Invoke asynchronously, with retries and failure destination. Raises FunctionNotFoundError."""
        name = short(name)
        if name not in self._handlers:
            raise FunctionNotFoundError(name)
        # As text and back: what a function does to its event does not reach the next try.
        self._background.submit(self._try, name, json.dumps(event), 1)

    def _try(self, name: str, event: str, attempt: int) -> None:
        answer = self.invoke(name, json.loads(event))
        if answer.error is None:
            return
        if attempt <= self._retries.get(name, 2):
            self._background.later(self._delays.retry * attempt, self._try, name, event, attempt + 1)
            return
        destination = self._destinations.get(name)
        if destination is None:
            log.error("an asynchronous invocation failed for good, and has no destination: %s", name)
            return
        record = {
            "version": "1.0",
            "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "requestContext": {
                "requestId": answer.request_id,
                "functionArn": f"{self.arn(name)}:$LATEST",
                "condition": "RetriesExhausted",
                "approximateInvokeCount": attempt,
            },
            "requestPayload": json.loads(event),
            "responseContext": {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"},
            "responsePayload": json.loads(answer.payload),
        }
        with acting(f"function/{name}"):
            # Lambda sends it by the function's role.
            listener.tell("sqs", "SendMessage", QueueArn=destination)
        self._send(destination, json.dumps(record))


def short(name: str) -> str:
    """A function's name, from its name or ARN, without a qualifier."""
    if name.startswith("arn:"):
        return name.split(":")[6]
    return name.split(":", 1)[0]


def _failure(raised: BaseException) -> str:
    # The first frame is ours; a function's own stack begins below it.
    trace = traceback.format_tb(raised.__traceback__)[1:]
    return json.dumps({"errorMessage": str(raised), "errorType": type(raised).__name__, "stackTrace": trace})
