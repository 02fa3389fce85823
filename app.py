"""Every function that Lambda runs: parse, apply a rule, act through a gateway. The one place that asks the clock,
and that gives errors their HTTP status."""

from __future__ import annotations

import functools
import gc
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from chalice.app import (
    Chalice,
    ChaliceUnhandledError,
    Cron,
    EventSourceHandler,
    LambdaFunctionEvent,
    Rate,
    Request,
    Response,
)

from chalicelib import VERSION, body, errors, problems, tokens
from chalicelib import settings as deployment
from chalicelib.actions import reading
from chalicelib.actions.launching import Launching
from chalicelib.actions.showing import Showing
from chalicelib.aws.clients import Clients
from chalicelib.aws.faults import as_unavailable
from chalicelib.aws.ledger import Ledger
from chalicelib.aws.ledger import event as line
from chalicelib.aws.notebooks import NotebooksTable
from chalicelib.aws.users import UsersTable
from chalicelib.aws.workflows import Workflows
from chalicelib.documents import document_names
from chalicelib.log import carried, invocation, logger
from chalicelib.model import LINK, ExtendRequest, Notebook, User
from chalicelib.prices import catalogue
from chalicelib.views import LaunchedView

if TYPE_CHECKING:
    # What a launch does not need is imported by the functions that do: Lambda imports this module for each of them, and
    # making a class of values takes half a millisecond of each cold start.
    from chalicelib import pages
    from chalicelib.actions import telling, visiting
    from chalicelib.actions.starting import Starting
    from chalicelib.aws.commands import Commands
    from chalicelib.aws.heartbeats import HeartbeatsTable, Row
    from chalicelib.aws.instances import Instances

STAGE = deployment.stage(os.environ)
# For people who come by a link: no token of the API, and every answer is a page.
PAGES = frozenset({"/n/{notebook_id}", "/n/{notebook_id}/{action}"})
PUBLIC = frozenset({"/health", "/openapi.json"}) | PAGES
HTTP_STATUS: Mapping[type[errors.NodError], int] = {
    errors.MalformedBody: 400,
    errors.NotAuthenticated: 401,
    errors.NotAllowed: 403,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.LinkExpired: 410,
    errors.BodyTooLarge: 413,
    errors.UnsupportedMediaType: 415,
    errors.InvalidRequest: 422,
    errors.Unavailable: 503,
    errors.NodError: 500,
}

# What a cold start loads stays for good, and looking through it for garbage takes a quarter of the start.
gc.set_threshold(50_000)


class Api(Chalice):
    """Names the notebook of a request from the event on: Chalice logs some errors outside of every middleware."""

    def __call__(self, event: Any, context: Any) -> dict[str, Any]:
        # Only what has the form of one: in its place somebody may have put a link's key, or their token.
        named = (event.get("pathParameters") or {}).get("notebook_id") or ""
        with invocation(context, named if tokens.is_notebook_id(named) else None):
            return super().__call__(event, context)


app = Api(app_name="nod", configure_logs=False)
app.log = logger  # type: ignore[assignment]  # it has the methods that Chalice calls
clients = Clients()


# --- what the functions share ---


@functools.cache
def settings() -> deployment.Settings:
    return deployment.Settings.from_env(os.environ)


def now() -> datetime:
    return datetime.now(UTC)


def notebooks() -> NotebooksTable:
    return NotebooksTable(clients.get("dynamodb"), settings().notebooks_table, settings().users_table)


def users() -> UsersTable:
    return UsersTable(clients.get("dynamodb"), settings().users_table)


def workflows() -> Workflows:
    return Workflows(clients.get("stepfunctions"))


def instances() -> Instances:
    from chalicelib.aws.instances import Instances

    return Instances(clients.get("ec2"), STAGE)


def commands() -> Commands:
    from chalicelib.aws.commands import Commands

    return Commands(clients.get("ssm"), time.sleep)


def messages() -> telling.Telling:
    from chalicelib.actions import telling
    from chalicelib.aws.topic import Topic

    topic = Topic(clients.get("sns"), settings().topic_arn)
    return telling.Telling(notebooks(), users(), topic, showing())


def heartbeats() -> HeartbeatsTable:
    from chalicelib.aws.heartbeats import HeartbeatsTable

    return HeartbeatsTable(clients.get("dynamodb"), settings().heartbeats_table, time.sleep)


def ledger() -> Ledger:
    return Ledger(clients.get("dynamodb"), settings().events_table, time.sleep)


def heartbeat_of(instance_id: str) -> Row | None:
    arn = settings().instance_arn(instance_id)
    return heartbeats().read([arn]).get(arn)


def showing() -> Showing:
    return Showing(heartbeats, catalogue(), settings())


def starting() -> Starting:
    from chalicelib.actions.starting import Starting

    return Starting(notebooks(), users(), workflows(), settings(), time.sleep)


def visits() -> visiting.Visits:
    from chalicelib.actions import visiting

    return visiting.Visits(
        notebooks=notebooks(),
        users=users(),
        workflows=workflows(),
        showing=showing(),
        starting=starting(),
        prefix=str(request().context.get("path", "")).rpartition("/n/")[0],
    )


# --- HTTP ---


class Refusal(ChaliceUnhandledError):  # noqa: N818
    """Carries an error of ours past Chalice, which would answer 500 before any middleware saw it."""


def refusable(view: Callable[..., Response]) -> Callable[..., Response]:
    @functools.wraps(view)
    def wrapped(**arguments: str) -> Response:
        try:
            with as_unavailable("AWS"):
                return view(**arguments)
        except errors.NodError as error:
            raise Refusal from error

    return wrapped


@app.middleware("http")
def guard(incoming: Request, get_response: Callable[[Any], Response]) -> Response:
    """Authenticates, and makes every refusal a problem detail: ours, and Chalice's own (405, 415, 500)."""
    started = time.monotonic()
    try:
        if incoming.path not in PUBLIC:
            with as_unavailable("AWS"):
                incoming.context["nod_user"] = reading.authenticate(incoming.headers.get("authorization"), users())
        response = get_response(incoming)
    except errors.NodError as error:
        response = refuse(error, incoming.path)
    except Refusal as refusal:
        response = refuse(refusal.__cause__, incoming.path)
    if response.status_code >= 400 and "Content-Type" not in response.headers:
        document = problems.of_status(response.status_code, response.body["Message"])
        response = refusal_of(document, response.headers, incoming.path)
    if incoming.method == "HEAD":
        # The same answer without its body: nothing here does anything for a GET.
        response.body = ""
    logger.info(
        "request",
        method=incoming.method,
        route=incoming.path,
        user=getattr(incoming.context.get("nod_user"), "name", None),
        status=response.status_code,
        milliseconds=round((time.monotonic() - started) * 1000),
    )
    return response


def refuse(error: BaseException | None, path: str) -> Response:
    if not isinstance(error, errors.NodError):
        raise TypeError("A refusal without an error of ours.") from error
    status = next(HTTP_STATUS[kind] for kind in type(error).__mro__ if kind in HTTP_STATUS)
    if status >= 500:
        logger.error("refused", code=error.code, exc_info=error)
    headers = {}
    if isinstance(error, errors.NotAuthenticated):
        headers["WWW-Authenticate"] = 'Bearer realm="nod"'
    if isinstance(error, errors.Unavailable):
        headers["Retry-After"] = str(error.retry_after)
    return refusal_of(problems.of_error(error, status), headers, path)


def refusal_of(document: Mapping[str, object], headers: Mapping[str, Any], path: str) -> Response:
    """A problem detail, or its words on a page where people come by links."""
    if path not in PAGES:
        return problem(document, headers)
    from chalicelib import pages

    page = pages.refusal(str(document["title"]), str(document["detail"]))
    return show_page(page, int(str(document["status"])), headers)


def show_page(page: pages.Page, status: int = 200, headers: Mapping[str, Any] | None = None) -> Response:
    from chalicelib import pages

    return Response(page.html(), {**pages.HEADERS, **(headers or {})}, status)


def see(location: str) -> Response:
    from chalicelib import pages

    return Response("", {**pages.HEADERS, "Location": location}, 303)


def problem(document: Mapping[str, object], headers: Mapping[str, Any]) -> Response:
    return answer(document, int(str(document["status"])), {**headers, "Content-Type": problems.CONTENT_TYPE})


def answer(document: object, status: int, headers: Mapping[str, Any] | None = None) -> Response:
    return Response(
        document,
        {"Content-Type": "application/json", "Cache-Control": "no-store", **(headers or {})},
        status,
    )


def request() -> Request:
    if app.current_request is None:
        raise RuntimeError("There is a request only while one is answered.")
    return app.current_request


def user() -> User:
    found: User = request().context["nod_user"]
    return found


def owned(notebook_id: str) -> Notebook:
    return reading.owned(notebook_id, user(), notebooks())


def raw_body() -> bytes:
    raw = request().raw_body
    return raw if isinstance(raw, bytes) else raw.encode()


def api_url() -> str | None:
    """Where this API is called, as API Gateway itself says: a client's Host header says what the client likes."""
    context = request().context
    host, stage = context.get("domainName"), str(context.get("path", "")).partition("/notebooks")[0]
    return settings().api_url or (f"https://{host}{stage}" if host else None)


def shown(notebook: Notebook, status: int = 202) -> Response:
    return answer(asdict(showing().one(notebook, user(), now())), status)


def note(notebook: Notebook, action: str, by: str, reason: str) -> None:
    """What somebody did, into the notebook's ledger. It is done: a ledger that does not answer changes nothing."""
    try:
        with as_unavailable("DynamoDB"):
            ledger().write([line(notebook.id, now(), action=action, code="asked", by=by, reason=reason)])
    except errors.Unavailable as error:
        logger.error("not in the ledger", action=action, by=by, exc_info=error)


def query(name: str) -> str | None:
    values = request().query_params
    found = values.getlist(name) if values and name in values else []
    if len(found) > 1:
        raise errors.InvalidFields(f"{name} is there twice.", [errors.FieldError(name, "It is there twice.", "once")])
    return found[0] if found else None


# Content types are checked in chalicelib/body.py, where a body is read: Chalice would also refuse GETs that name one.
@app.route("/notebooks", methods=["POST"], content_types=[])
@refusable
def request_notebook() -> Response:
    headers = request().headers
    document = body.read_json(raw_body(), headers.get("content-type"), may_be_absent=True)
    launching = Launching(notebooks(), workflows, showing(), time.sleep)
    launched = launching.request(document, headers.get("idempotency-key"), user(), api_url=api_url(), now=now())
    logger.info("launch requested", instance_type=launched.instance_type)
    return answer(asdict(launched), 202)


@app.route("/notebooks", methods=["GET"], content_types=[])
@refusable
def list_notebooks() -> Response:
    limit, cursor = query("limit"), query("next")
    page = reading.page(
        user(),
        limit=limit,
        cursor=cursor,
        notebooks=notebooks(),
        showing=showing(),
        now=now(),
    )
    return answer(asdict(page), 200)


@app.route("/notebooks/{notebook_id}", methods=["GET"], content_types=[])
@refusable
def show_notebook(notebook_id: str) -> Response:
    notebook = owned(notebook_id)
    shown_ = asdict(showing().detail(notebook, user(), now()))
    if shown_["last_words"] is None:
        # As in the list, where nobody has any.
        del shown_["last_words"]
    return answer(shown_, 200)


@app.route("/notebooks/{notebook_id}/events", methods=["GET"], content_types=[])
@refusable
def list_events(notebook_id: str) -> Response:
    from chalicelib.actions import settling

    limit, cursor = query("limit"), query("next")
    notebook = owned(notebook_id)
    settling.settle(notebook, notebooks(), ledger())
    return answer(asdict(reading.events(notebook, limit=limit, cursor=cursor, ledger=ledger())), 200)


@app.route("/notebooks/{notebook_id}/stop", methods=["POST"], content_types=[])
@refusable
def stop_notebook(notebook_id: str) -> Response:
    from chalicelib.actions import stopping

    notebook = stopping.stop(
        owned(notebook_id),
        user().id,
        f"{user().name} stopped it",
        now=now(),
        notebooks=notebooks(),
        workflows=workflows(),
        stop_arn=settings().stop_arn,
    )
    return shown(notebook)


@app.route("/notebooks/{notebook_id}/start", methods=["POST"], content_types=[])
@refusable
def start_notebook(notebook_id: str) -> Response:
    started_by = f"{user().name} started it"
    notebook = starting().start(owned(notebook_id), user().id, started_by, now())
    return shown(notebook)


@app.route("/notebooks/{notebook_id}/extend", methods=["POST"], content_types=[])
@refusable
def extend_notebook(notebook_id: str) -> Response:
    from chalicelib.actions import extending
    from chalicelib.idle_words import hours as words

    notebook = owned(notebook_id)
    document = body.read_json(raw_body(), request().headers.get("content-type"))
    hours = ExtendRequest.from_json(document, user().max_extend_hours).hours
    notebook = extending.extend(notebook, hours, now=now(), notebooks=notebooks(), minute=settings().minute)
    note(notebook, "extend", user().id, f"{user().name} asked for {words(hours)}; {extending.kept(notebook)}")
    return shown(notebook)


@app.route("/notebooks/{notebook_id}/password", methods=["POST"], content_types=[])
@refusable
def reset_password(notebook_id: str) -> Response:
    from chalicelib.actions import resetting

    notebook = owned(notebook_id)
    found = resetting.reset(
        body.read_json(raw_body(), request().headers.get("content-type"), may_be_absent=True),
        notebook,
        now=now(),
        notebooks=notebooks(),
        workflows=workflows(),
        password_arn=settings().password_arn,
    )
    note(found.notebook, "password", user().id, f"{user().name} asked for another password")
    view = showing().one(found.notebook, user(), now())
    return answer(asdict(LaunchedView.of_view(view, found.password, found.message, [])), 202)


@app.route("/notebooks/{notebook_id}/link", methods=["POST"], content_types=[])
@refusable
def renew_link(notebook_id: str) -> Response:
    from chalicelib.actions import linking

    notebook = owned(notebook_id)
    renewed = linking.renew(notebook, api_url(), now=now(), notebooks=notebooks())
    note(renewed, "link", user().id, f"{user().name} asked for a new link; the old ones ended")
    return shown(renewed)


@app.route("/notebooks/{notebook_id}", methods=["DELETE"], content_types=[])
@refusable
def delete_notebook(notebook_id: str) -> Response:
    from chalicelib.actions import deleting

    notebook = deleting.delete(
        notebook_id,
        query("confirm"),
        user(),
        now=now(),
        notebooks=notebooks(),
        workflows=workflows(),
        terminate_arn=settings().terminate_arn,
    )
    return shown(notebook)


# --- links, for people ---


@app.route("/n/{notebook_id}", methods=["GET", "HEAD"], content_types=[])
@refusable
def visit(notebook_id: str) -> Response:
    return show_page(visits().look(notebook_id, query("k"), note=query("note"), now=now()))


@app.route("/n/{notebook_id}/{action}", methods=["GET", "HEAD"], content_types=[])
@refusable
def ask(notebook_id: str, action: str) -> Response:
    from chalicelib.actions import visiting

    key, mail, done, led = query("k"), query("t"), query("d"), query("note")
    found = visits().ask(notebook_id, action, mail=mail, done=done, key=key, note=led, now=now())
    return see(found.location) if isinstance(found, visiting.Redirect) else show_page(found, found.status)


@app.route("/n/{notebook_id}/{action}", methods=["POST"], content_types=[])
@refusable
def act(notebook_id: str, action: str) -> Response:
    from chalicelib.actions import visiting

    done = visits().act(notebook_id, action, raw_body(), request().headers.get("content-type"), now())
    if isinstance(done, visiting.Act) and done.reason is not None:
        note(done.notebook, action, LINK, done.reason)
    return see(done.location)


@app.route("/openapi.json", methods=["GET"], content_types=[])
@refusable
def describe_api() -> Response:
    from chalicelib import openapi

    routes = [(method, path) for path, methods in ALLOWED.items() for method in methods]
    base = request().context.get("path", "").removesuffix("/openapi.json")
    return answer(openapi.document(routes, base), 200)


@app.route("/health", methods=["GET"], content_types=[])
@refusable
def show_health() -> Response:
    return answer({"status": "ok", "version": VERSION, "stage": STAGE}, 200)


# Every other method of these paths: API Gateway would answer 403 to it, without saying what there is.
OTHER_METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")
ALLOWED = {path: sorted(methods) for path, methods in app.routes.items()}


def refuse_method(**_: str) -> Response:
    allowed = ", ".join(ALLOWED[request().path])
    return refusal_of(problems.of_status(405, f"Allowed here: {allowed}."), {"Allow": allowed}, request().path)


for path, methods in ALLOWED.items():
    others = [method for method in OTHER_METHODS if method not in methods]
    app.route(path, methods=others, name="refuse_method", content_types=[])(refuse_method)


# --- tasks of the workflows ---


@app.lambda_function()
def look_for_command(event: dict[str, Any], _context: object) -> dict[str, object]:
    """Behind lost events: the result of a command, or CommandPending."""
    from chalicelib.actions import answering

    return answering.look_for_command(event, STAGE, commands())


@app.lambda_function()
def explain_failure(event: dict[str, Any], _context: object) -> dict[str, object]:
    """Why a launch, start, stop or change of password failed, in words that a person can act on."""
    from chalicelib.actions import explaining

    failure = explaining.explain(event, notebooks, users, catalogue(), settings().region, heartbeat_of)
    kind = event.get("workflow") or "launch"
    logger.info(f"{kind} failed", code=failure.code, reason=failure.message)
    return asdict(failure)


@app.lambda_function()
def tell_owner(event: dict[str, Any], _context: object) -> dict[str, object]:
    """Publishes the link, the failure, or the end of a notebook."""
    from chalicelib import figures
    from chalicelib.actions import settling

    notebook_id, kind = str(event["id"]), str(event["kind"])
    # Read before: what fails after a message was published would have it published twice.
    notebook = notebooks().get(notebook_id)
    seen = figures.of(notebook, kind)
    try:
        with as_unavailable("DynamoDB"):
            settling.settle(notebook, notebooks(), ledger())
    except errors.Unavailable as error:
        # The message is more urgent: the lines wait in the record.
        logger.error("not in the ledger yet", exc_info=error)
    published = messages().tell(notebook_id, kind, now(), execution=event.get("run"))
    logger.info("owner told", kind=kind, published=published, extra=seen)
    return {"published": published}


# --- events ---


@app.on_cw_event(
    {
        "source": ["aws.ssm"],
        "detail-type": ["EC2 Command Status-change Notification"],
        "detail": {
            "document-name": document_names(STAGE),
            "status": ["Success", "Failed", "TimedOut", "Cancelled"],
        },
    }
)
def on_command_event(event: Any) -> None:
    """A command on an instance has ended: answer the workflow that waits for it."""
    from chalicelib.actions import answering

    done = answering.answer_command(event.detail, STAGE, commands(), workflows())
    logger.info("command ended", command=event.detail.get("command-id"), done=done)


@app.on_cw_event(
    {
        "source": ["aws.ec2"],
        "detail-type": ["EC2 Instance State-change Notification"],
        "detail": {"state": ["running", "stopped", "shutting-down", "terminated"]},
    }
)
def on_instance_event(event: Any) -> None:
    """An instance runs, is off, or is lost: answer the workflow that waits for it, or begin the stop."""
    from chalicelib.actions import answering

    answers = answering.InstanceEvents(
        notebooks(),
        workflows(),
        instances,
        launch_arn=settings().launch_arn,
        stop_arn=settings().stop_arn,
        undo_arn=settings().undo_arn,
    )
    done = answers.answer(event.detail, now())
    logger.info("instance changed", instance=event.detail.get("instance-id"), done=done)


@app.on_sns_message(topic=f"nod-{STAGE}-messages")
def deliver_to_slack(event: Any) -> None:
    """A message of the topic to its Slack channels."""
    from chalicelib.actions import telling
    from chalicelib.aws.parameters import SlackAddresses
    from chalicelib.aws.slack import post

    addresses, origin = SlackAddresses(clients.get("ssm"), STAGE), settings().slack_origin
    told = telling.deliver_to_slack(event.message, addresses, notebooks(), origin, post)
    logger.info("slack told", channels=told)


@app.schedule(Rate(1, unit=Rate.MINUTES))
def check_confirmations(_event: Any) -> None:
    """Confirmed addresses get the links that SNS did not send them before."""
    for name in messages().check_confirmations(now()):
        logger.info("address confirmed", user=name)


@app.schedule(Rate(5, unit=Rate.MINUTES))
def sweep(event: Any) -> None:
    """Keeps, warns or stops what is due, and mends what a workflow left."""
    from concurrent.futures import ThreadPoolExecutor

    context = event.context
    with ThreadPoolExecutor(8) as threads:
        swept = scheduled().sweep(
            context.aws_request_id,
            lambda: context.get_remaining_time_in_millis() / 1000,
            lambda work, many: threads.map(carried(work), many),
        )
    logger.info("swept", counts=dict(swept.counts), complete=swept.complete, trouble=len(swept.trouble))
    swept.end()


@app.schedule(Rate(1, unit=Rate.HOURS))
def reconcile(_event: Any) -> None:
    """Finds what has no owner: resources without a notebook, notebooks without a machine."""
    from chalicelib.actions.parts import Parts

    parts = Parts()
    with as_unavailable("AWS"):
        counts = scheduled().reconcile(parts)
    logger.info("reconciled", counts=dict(counts), trouble=len(parts.trouble))
    parts.end()


@app.schedule(Cron(0, 9, 1, "*", "?", "*"))
def tell_disk_costs(_event: Any) -> None:
    """On the first of each month: what the disks of stopped notebooks cost."""
    from chalicelib.actions.parts import Parts

    parts = Parts()
    with as_unavailable("AWS"):
        told = scheduled().tell_disk_costs(parts)
    logger.info("disk costs told", users=told)
    parts.end()


def scheduled() -> Any:
    from chalicelib.actions.scheduled import Scheduled

    return Scheduled(clients.get, settings(), messages(), now, time.sleep)


# --- what the functions log ---


def identified(event: Any, answer: Callable[[Any], Any]) -> Any:
    """Middleware: the lines of a workflow's task name what its input names; other functions find out what to name."""
    task = event.to_dict() if isinstance(event, LambdaFunctionEvent) else {}
    with invocation(event.context, task.get("id"), task.get("run")):
        return answer(event)


for function in app.handler_map.values():
    if isinstance(function, EventSourceHandler):
        # A list: of the generator that Chalice hands over, only the first of several threads would get anything.
        function.middleware_handlers = [identified]
