"""The cursor of GET /notebooks. It names a place in the caller's own list only: the owner is never taken from it."""

from __future__ import annotations

import re
from typing import NamedTuple

from chalicelib.errors import FieldError, InvalidFields

MIN_LIMIT, MAX_LIMIT, DEFAULT_LIMIT = 1, 100, 50
# The id and the digits of the time. Every text of this form is a place in the list, so none has to be refused.
CURSOR = r"nb-[0-9a-f]{20}\.[0-9]{17}"
EVENT_CURSOR = r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z#[0-9a-f]{4}"
"""That of a notebook's events: when the last of the page was, and what tells it from others of its millisecond."""


class Cursor(NamedTuple):
    """The last notebook of a page."""

    id: str
    created_at: str


def parse_limit(text: str | None) -> int:
    """Notebooks a page. Raises InvalidFields."""
    if text is None:
        return DEFAULT_LIMIT
    if not re.fullmatch(r"[0-9]{1,4}", text, re.ASCII) or not MIN_LIMIT <= int(text) <= MAX_LIMIT:
        allowed = f"a whole number from {MIN_LIMIT} to {MAX_LIMIT}"
        raise InvalidFields(f"limit: Allowed: {allowed}.", [FieldError("limit", "It is out of bounds.", allowed)])
    return int(text)


def encode(cursor: Cursor | None) -> str | None:
    """The text for `next`."""
    if cursor is None:
        return None
    return f"{cursor.id}.{re.sub('[^0-9]', '', cursor.created_at)}"


def decode(text: str | None) -> Cursor | None:
    """Raises InvalidFields if it is none of ours."""
    if text is None:
        return None
    if not re.fullmatch(CURSOR, text, re.ASCII):
        allowed = "the `next` of the page before"
        raise InvalidFields(f"next: Allowed: {allowed}.", [FieldError("next", "It is no cursor.", allowed)])
    identifier, _, d = text.partition(".")
    return Cursor(identifier, f"{d[:4]}-{d[4:6]}-{d[6:8]}T{d[8:10]}:{d[10:12]}:{d[12:14]}.{d[14:]}Z")
