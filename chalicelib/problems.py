"""Refusals as RFC 9457 problem details."""

from __future__ import annotations

from http import HTTPStatus

from chalicelib.errors import NodError

CONTENT_TYPE = "application/problem+json"


def of_error(error: NodError, status: int) -> dict[str, object]:
    """The problem detail of one of our errors."""
    problem: dict[str, object] = {
        "type": f"urn:nod:problem:{error.code}",
        "title": error.title,
        "status": status,
        "detail": error.detail,
        "code": error.code,
    }
    if error.errors:
        problem["errors"] = [
            {
                "field": entry.field,
                "message": entry.message,
                **({"allowed": entry.allowed} if entry.allowed else {}),
            }
            for entry in error.errors
        ]
    return problem


def of_status(status: int, detail: str) -> dict[str, object]:
    """The problem detail of a refusal that is not ours: Chalice's own, or an error nobody foresaw."""
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "Error"
    return {
        "type": "about:blank",
        "title": phrase,
        "status": status,
        "detail": detail,
        "code": phrase.lower().replace(" ", "_").replace("-", "_"),
    }
