"""GET /notebooks, GET /notebooks/{id} and its events; who is calling."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING

from chalicelib import paging, tokens
from chalicelib.actions.showing import Showing
from chalicelib.aws.ledger import Ledger
from chalicelib.aws.notebooks import NotebooksTable
from chalicelib.aws.users import UsersTable
from chalicelib.errors import FieldError, InvalidFields, NotAuthenticated, NotFound
from chalicelib.model import Notebook, User
from chalicelib.views import NotebookList

if TYPE_CHECKING:
    from chalicelib.events import EventList


def authenticate(authorization: str | None, users: UsersTable) -> User:
    """The user of an Authorization header. Raises NotAuthenticated, with the same words whatever was wrong."""
    token = tokens.parse_authorization(authorization)
    user = users.get(token.user) if token is not None else None
    if token is None or not tokens.matches(token.secret, user.token_sha256 if user else None) or user is None:
        raise NotAuthenticated("Send a valid token as `Authorization: Bearer nod.USER.SECRET`.")
    return user


def owned(notebook_id: str, user: User, notebooks: NotebooksTable) -> Notebook:
    """A notebook of the user. Someone else's is not found, as if there were none. Raises NotFound."""
    notebook = notebooks.get(notebook_id) if tokens.is_notebook_id(notebook_id) else None
    if notebook is None or notebook.owner != user.id:
        raise NotFound(f"You have no notebook {notebook_id[:40]!r}.")
    return notebook


def page(
    user: User,
    *,
    limit: str | None,
    cursor: str | None,
    notebooks: NotebooksTable,
    showing: Showing,
    now: datetime,
) -> NotebookList:
    """One page of the user's notebooks. Raises InvalidFields."""
    found, following = notebooks.page_of(user.id, paging.parse_limit(limit), paging.decode(cursor))
    return NotebookList(
        notebooks=showing.many(found, user, now),
        next=paging.encode(following),
    )


def events(notebook: Notebook, *, limit: str | None, cursor: str | None, ledger: Ledger) -> EventList:
    """One page of what was decided about a notebook. Raises InvalidFields."""
    from chalicelib.events import Event, EventList  # noqa: PLC0415

    if cursor is not None and not re.fullmatch(paging.EVENT_CURSOR, cursor, re.ASCII):
        allowed = "the `next` of the page before"
        raise InvalidFields(f"next: Allowed: {allowed}.", [FieldError("next", "It is no cursor.", allowed)])
    found, following = ledger.page(notebook.id, paging.parse_limit(limit), cursor)
    return EventList(
        events=[
            Event(
                at=event.at,
                action=event.action,
                code=event.code,
                by=notebook.called(event.by) or None,
                reason=event.reason or None,
                stops_at=event.stops_at,
                signals=plain(event.signals),
            )
            for event in found
        ],
        next=following,
    )


def plain(signals: Mapping[str, object]) -> dict[str, object]:
    """The same in what JSON has: numbers of the table are decimals, and its sets no lists."""
    return {str(key): _plain(value) for key, value in signals.items()}


def _plain(value: object) -> object:
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, Mapping):
        return plain(value)
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(part) for part in (sorted(value) if isinstance(value, set | frozenset) else value)]
    return value
