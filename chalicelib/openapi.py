"""OpenAPI 3.1 of the API, made from the routes, the request's fields and the answers' dataclasses."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from enum import StrEnum

from chalicelib import VERSION, links, paging
from chalicelib.body import FORM, JSON, MAX_BYTES
from chalicelib.detail import NotebookDetail
from chalicelib.events import EventList
from chalicelib.model import MOST_EXTEND_HOURS, PASSWORD_FIELDS, REQUEST_FIELDS, extend_fields
from chalicelib.pages import Note
from chalicelib.problems import CONTENT_TYPE
from chalicelib.schema import Field, Schema
from chalicelib.tokens import IDEMPOTENCY_KEY
from chalicelib.views import LaunchedView, NotebookList, NotebookView


@dataclass(frozen=True)
class Health:
    """`status` is always `ok`: a deployment that cannot answer does not answer."""

    status: str
    version: str
    stage: str


@dataclass(frozen=True)
class Operation:
    """What a route cannot say of itself."""

    id: str
    summary: str
    description: str
    success: int
    answer: type | None
    refusals: tuple[int, ...]
    public: bool = False
    body: str | None = None
    """The component that describes it."""
    parameters: tuple[Schema, ...] = ()
    page: bool = False
    """Whether it answers people, with HTML."""


_ID: Schema = {
    "name": "notebook_id",
    "in": "path",
    "required": True,
    "description": "The notebook's id.",
    "schema": {"type": "string", "pattern": "^nb-[0-9a-f]{20}$", "examples": ["nb-0123456789abcdef0123"]},
}
_ACTION: Schema = {
    "name": "action",
    "in": "path",
    "required": True,
    "description": "What the link is for.",
    "schema": {"type": "string", "enum": list(links.ACTIONS)},
}


def _query(name: str, description: str, schema: Schema) -> Schema:
    return {"name": name, "in": "query", "required": False, "description": description, "schema": schema}


_KEY = _query("k", "The key of the link for life.", {"type": "string", "pattern": f"^{links.LIFE_KEY}$"})
_NOTE = _query("note", "What led to the page, which then says so.", {"type": "string", "enum": sorted(Note)})
_LIMIT = _query(
    "limit",
    "Entries a page.",
    {
        "type": "integer",
        "minimum": paging.MIN_LIMIT,
        "maximum": paging.MAX_LIMIT,
        "default": paging.DEFAULT_LIMIT,
    },
)
# Any call can meet these: not authenticated, throttled by API Gateway, an error of ours, an error of AWS.
_ALWAYS = (401, 429, 500, 503)

OPERATIONS: dict[tuple[str, str], Operation] = {
    ("POST", "/notebooks"): Operation(
        id="requestNotebook",
        summary="Request a notebook",
        description="Answers at once; the launch goes on, and GET shows its steps. A `password` that the server made "
        "is in this answer only. Every field is optional, and so is the body.",
        success=202,
        answer=LaunchedView,
        refusals=(400, 403, 409, 413, 415, 422),
        body="LaunchRequest",
        parameters=(
            {
                "name": "Idempotency-Key",
                "in": "header",
                "required": False,
                "description": "Makes the request safe to repeat: the same key answers with the same notebook, and "
                "with another body with 422. A UUID will do.",
                "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": f"^{IDEMPOTENCY_KEY}$"},
            },
        ),
    ),
    ("GET", "/notebooks"): Operation(
        id="listNotebooks",
        summary="List your notebooks",
        description="Newest first, deleted ones too.",
        success=200,
        answer=NotebookList,
        refusals=(422,),
        parameters=(
            _LIMIT,
            _query("next", "`next` of the page before.", {"type": "string", "pattern": f"^{paging.CURSOR}$"}),
        ),
    ),
    ("GET", "/notebooks/{notebook_id}"): Operation(
        id="showNotebook",
        summary="Show a notebook",
        description="What is unknown is null. Someone else's notebook is answered as one that does not exist.",
        success=200,
        answer=NotebookDetail,
        refusals=(404,),
        parameters=(_ID,),
    ),
    ("DELETE", "/notebooks/{notebook_id}"): Operation(
        id="deleteNotebook",
        summary="Delete a notebook",
        description="Removes the machine and its disk for good, during a launch too. Without the right `confirm` the "
        "answer is 409, which says what would be lost. Again, it changes nothing and answers the same.",
        success=202,
        answer=NotebookView,
        refusals=(404, 409, 422),
        parameters=(
            _ID,
            {
                "name": "confirm",
                "in": "query",
                "required": False,
                "description": "The notebook's name, to confirm that its files may be lost.",
                "schema": {"type": "string"},
            },
        ),
    ),
    ("GET", "/notebooks/{notebook_id}/events"): Operation(
        id="listEvents",
        summary="List what was decided about a notebook",
        description="Newest first: every decision of the sweep with its reason and signals, and what was asked for. "
        "Kept for 90 days, decisions to keep it for 14.",
        success=200,
        answer=EventList,
        refusals=(404, 422),
        parameters=(
            _ID,
            _LIMIT,
            _query("next", "`next` of the page before.", {"type": "string", "pattern": f"^{paging.EVENT_CURSOR}$"}),
        ),
    ),
    ("POST", "/notebooks/{notebook_id}/stop"): Operation(
        id="stopNotebook",
        summary="Stop a notebook",
        description="From `ready`. Its disk stays, with everything on it; it costs while it is stopped.",
        success=202,
        answer=NotebookView,
        refusals=(404, 409),
        parameters=(_ID,),
    ),
    ("POST", "/notebooks/{notebook_id}/start"): Operation(
        id="startNotebook",
        summary="Start a stopped notebook",
        description="From `stopped`, within the quota. It gets another address and certificate; its link stays.",
        success=202,
        answer=NotebookView,
        refusals=(404, 409),
        parameters=(_ID,),
    ),
    ("POST", "/notebooks/{notebook_id}/extend"): Operation(
        id="extendNotebook",
        summary="Keep a notebook longer",
        description="Puts off every stop, that at `max_hours` too. From `ready` or `starting`.",
        success=202,
        answer=NotebookView,
        refusals=(400, 404, 409, 413, 415, 422),
        body="ExtendRequest",
        parameters=(_ID,),
    ),
    ("POST", "/notebooks/{notebook_id}/password"): Operation(
        id="resetPassword",
        summary="Set another password",
        description="From `ready`. A `password` that the server made is in this answer only. Ends open logins, and no "
        "kernel.",
        success=202,
        answer=LaunchedView,
        refusals=(400, 404, 409, 413, 415, 422),
        body="PasswordRequest",
        parameters=(_ID,),
    ),
    ("POST", "/notebooks/{notebook_id}/link"): Operation(
        id="renewLink",
        summary="Replace the link for life",
        description="The old one ends, and the links in all messages about this notebook.",
        success=202,
        answer=NotebookView,
        refusals=(404,),
        parameters=(_ID,),
    ),
    ("GET", "/n/{notebook_id}"): Operation(
        id="visit",
        summary="The link for life",
        description="The notebook's own page: what it does, the way in with what the browser will warn of, and buttons "
        "to keep, stop or wake it. Changes nothing.",
        success=200,
        answer=None,
        refusals=(404, 422),
        public=True,
        parameters=(
            _ID,
            _KEY,
            _NOTE,
        ),
        page=True,
    ),
    ("GET", "/n/{notebook_id}/{action}"): Operation(
        id="ask",
        summary="A link of a message",
        description="A page with one button; with the key, on (303) to the notebook's own page. Changes nothing.",
        success=200,
        answer=None,
        refusals=(403, 404, 410, 422),
        public=True,
        parameters=(
            _ID,
            _ACTION,
            _query("t", "The token of the message.", {"type": "string", "pattern": f"^{links.DATED_MAC}$"}),
            _query("d", "The token of the page before.", {"type": "string", "pattern": f"^{links.DATED_MAC}$"}),
            _KEY,
            _NOTE,
        ),
        page=True,
    ),
    ("POST", "/n/{notebook_id}/{action}"): Operation(
        id="act",
        summary="A button of a page",
        description="Does it, then goes on (303) to a page that tells what became of it. A button that is too old, or "
        "that does not fit any more, leads there too, and the page says so.",
        success=303,
        answer=None,
        refusals=(400, 403, 404, 413, 415, 422),
        public=True,
        body="ActionForm",
        parameters=(_ID, _ACTION),
        page=True,
    ),
    ("GET", "/openapi.json"): Operation(
        id="describeApi",
        summary="This description",
        description="OpenAPI 3.1.",
        success=200,
        answer=None,
        refusals=(),
        public=True,
    ),
    ("GET", "/health"): Operation(
        id="showHealth",
        summary="Whether the API answers",
        description="Asks no other service.",
        success=200,
        answer=Health,
        refusals=(),
        public=True,
    ),
}

_WORDS = {
    400: "The body is not JSON",
    401: "No valid token",
    303: "On to another page",
    403: "Your user may not have this",
    404: "You have no such notebook",
    409: "Not possible now: quota, channel, confirmation or state",
    410: "The link is too old",
    413: f"The body has more than {MAX_BYTES} bytes",
    415: "The body has another media type",
    422: "Some fields are not valid",
    429: "Too many requests",
    500: "An error of the server",
    503: "Not available just now; try again",
}


def document(routes: Iterable[tuple[str, str]], base: str) -> dict[str, object]:
    """The document for the routes of the app.

    Args:
        routes: method and path of each.
        base: what stands before the paths on this host (API Gateway's stage), empty for nothing.

    Raises:
        KeyError: a route is not described here. HEAD is described by its GET.
    """
    paths: dict[str, dict[str, object]] = {}
    for method, path in sorted(routes, key=lambda route: (route[1], route[0])):
        described = _head(OPERATIONS["GET", path]) if method == "HEAD" else _operation(OPERATIONS[method, path])
        paths.setdefault(path, {})[method.lower()] = described
    components: dict[str, Schema] = {
        "Problem": _PROBLEM,
        "LaunchRequest": _fields_of(REQUEST_FIELDS, one_of_passwords=True),
        "PasswordRequest": _fields_of(PASSWORD_FIELDS, one_of_passwords=True),
        "ExtendRequest": {**_fields_of(extend_fields(MOST_EXTEND_HOURS)), "required": ["hours"]},
        "ActionForm": _FORM,
    }
    for operation in OPERATIONS.values():
        if operation.answer is not None:
            _collect(operation.answer, components)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Notebook on Demand",
            "version": VERSION,
            "description": "One POST gives you a Jupyter server of your own on EC2. Errors are RFC 9457 problems.",
        },
        "servers": [{"url": base or "/"}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "`nod.USER.SECRET`, from your administrator.",
                }
            },
        },
    }


def _operation(operation: Operation) -> dict[str, object]:
    found: dict[str, object] = {
        "operationId": operation.id,
        "summary": operation.summary,
        "description": operation.description,
        "responses": _responses(operation),
    }
    if operation.public:
        found["security"] = []
    if operation.parameters:
        found["parameters"] = list(operation.parameters)
    if operation.body:
        found["requestBody"] = {
            "required": operation.body in _NEEDED,
            "content": {FORM if operation.page else JSON: _body(operation.body)},
        }
    return found


def _responses(operation: Operation) -> dict[str, dict[str, object]]:
    refusals = {*operation.refusals, *(status for status in _ALWAYS if not _spared(operation, status))}
    return {
        **_successes(operation),
        **{str(status): _refusal(status, page=operation.page) for status in sorted(refusals)},
    }


def _head(get: Operation) -> dict[str, object]:
    return {
        **_operation(replace(get, id=f"{get.id}Head")),
        "description": "As GET answers, without the body.",
        "responses": {
            status: {name: part for name, part in answer.items() if name != "content"}
            for status, answer in _responses(get).items()
        },
    }


def _body(component: str) -> dict[str, object]:
    found: dict[str, object] = {"schema": {"$ref": f"#/components/schemas/{component}"}}
    if component in _EXAMPLES:
        found["examples"] = _EXAMPLES[component]
    return found


def _successes(operation: Operation) -> dict[str, dict[str, object]]:
    if not operation.page:
        words = "Accepted; it goes on" if operation.success == 202 else "As asked"
        return {str(operation.success): {"description": words, "content": {JSON: {"schema": _answer(operation)}}}}
    on: dict[str, dict[str, object]] = {
        "303": {
            "description": _WORDS[303],
            "headers": {"Location": {"description": "Where", "schema": {"type": "string", "format": "uri-reference"}}},
        }
    }
    if operation.id.startswith("visit"):
        on = {}
    page: dict[str, dict[str, object]] = {"200": {"description": "A page", "content": _HTML}}
    if operation.success != 200:
        page = {}
    return {**page, **on}


def _spared(operation: Operation, status: int) -> bool:
    """A public operation does not ask who calls; if it is no page, it asks no other service either."""
    return operation.public and (status == 401 or (status == 503 and not operation.page))


def _answer(operation: Operation) -> Schema:
    if operation.answer is None:
        return {"type": "object", "required": ["openapi", "info", "paths"]}
    return {"$ref": f"#/components/schemas/{operation.answer.__name__}"}


def _refusal(status: int, *, page: bool) -> dict[str, object]:
    problem = {CONTENT_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    # Too many requests is what API Gateway says itself, and it knows no pages.
    found: dict[str, object] = {
        "description": _WORDS[status],
        "content": _HTML if page and status != 429 else problem,
    }
    if status == 401:
        found["headers"] = {
            "WWW-Authenticate": {"description": "`Bearer`", "schema": {"type": "string"}},
        }
    if status == 503:
        found["headers"] = {
            "Retry-After": {"description": "Seconds", "schema": {"type": "integer", "minimum": 1}},
        }
    return found


_PROBLEM: Schema = {
    "type": "object",
    "description": "RFC 9457. `code` is stable; `detail` is for people.",
    "required": ["type", "title", "status", "detail", "code"],
    "properties": {
        "type": {"type": "string", "format": "uri-reference"},
        "title": {"type": "string"},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": {"type": "string"},
        "code": {"type": "string", "examples": ["invalid_fields"]},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["field", "message"],
                "properties": {
                    "field": {"type": "string"},
                    "message": {"type": "string"},
                    "allowed": {"type": "string"},
                },
            },
        },
    },
}


_HTML: dict[str, object] = {"text/html": {"schema": {"type": "string"}}}
_FORM: Schema = {
    "type": "object",
    "additionalProperties": False,
    "required": ["f"],
    "properties": {
        "f": {"type": "string", "pattern": f"^{links.DATED_MAC}$", "description": "The token of the page's form."},
        "k": {"type": "string", "pattern": f"^{links.LIFE_KEY}$", "description": "The key of the link for life."},
    },
}
_NEEDED = frozenset({"ExtendRequest", "ActionForm"})
"""Bodies that have fields without a default: the others may be left out."""
_EXAMPLES: dict[str, dict[str, object]] = {
    "LaunchRequest": {
        "default": {"summary": "All defaults", "value": {}},
        "larger": {
            "summary": "A larger machine for a thesis",
            "value": {"name": "thesis", "instance_type": "t3.large", "volume_gib": 50},
        },
    },
    "ExtendRequest": {"default": {"summary": "Over night", "value": {"hours": 12}}},
}


def _fields_of(known: Mapping[str, Field], *, one_of_passwords: bool = False) -> Schema:
    found: Schema = {
        "type": "object",
        "additionalProperties": False,
        "properties": {name: described.schema() for name, described in known.items()},
    }
    return {**found, "not": {"required": ["password", "password_hash"]}} if one_of_passwords else found


_MAY_BE_ABSENT = frozenset({"last_words"})


def _collect(answer: type, components: dict[str, Schema]) -> None:
    """Adds the schema of a dataclass and of those inside it."""
    if answer.__name__ in components:
        return
    properties: dict[str, Schema] = {}
    components[answer.__name__] = {
        "type": "object",
        "description": " ".join((answer.__doc__ or "").split()),
        "required": [entry.name for entry in fields(answer) if entry.name not in _MAY_BE_ABSENT],
        "properties": properties,
    }
    hints = typing.get_type_hints(answer)
    for entry in fields(answer):
        properties[entry.name] = _schema(hints[entry.name], components)
        _refine(entry.name, properties[entry.name])


def _schema(hint: object, components: dict[str, Schema]) -> Schema:  # noqa: PLR0911 - one return a kind
    if isinstance(hint, types.UnionType):
        (inner,) = (part for part in typing.get_args(hint) if part is not type(None))
        schema = _schema(inner, components)
        kind = schema.get("type")
        if isinstance(kind, str):
            return {**schema, "type": [kind, "null"]}
        return {"anyOf": [schema, {"type": "null"}]}
    if typing.get_origin(hint) is dict:
        return {"type": "object"}
    if typing.get_origin(hint) is list:
        return {"type": "array", "items": _schema(typing.get_args(hint)[0], components)}
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return {"type": "string", "enum": list(hint)}
    if isinstance(hint, type) and is_dataclass(hint):
        _collect(hint, components)
        return {"$ref": f"#/components/schemas/{hint.__name__}"}
    simple: Mapping[object, str] = {str: "string", int: "integer", float: "number", bool: "boolean"}
    return {"type": simple[hint]}


def _refine(name: str, schema: Schema) -> None:
    """What a Python type does not say."""
    if name.endswith(("_at", "_until")) or name == "at":
        schema["format"] = "date-time"
    elif name in ("url", "link"):
        schema["format"] = "uri"
    elif name == "id":
        schema["pattern"] = "^nb-[0-9a-f]{20}$"
