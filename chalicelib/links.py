"""Links that open without a token of the API: the link for life, and what the buttons in messages and pages carry.

All are HMACs under the owner's `secret`, so nothing is stored of them, and all name the notebook's `link_version`:
whoever makes a new link for life ends the links of messages and the pages that are open, too.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Protocol
from urllib.parse import urlencode

from chalicelib import tokens
from chalicelib.model import Notebook, User

WAKE, EXTEND, STOP = "wake", "extend", "stop"
ACTIONS = (WAKE, EXTEND, STOP)
MAIL, FORM, DONE = "mail", "form", "done"
"""What a token is for: a link of a message shows a page, a form does it, the page after it tells what became of it."""

FORM_LIFE = timedelta(minutes=10)
MAIL_LIFE = timedelta(hours=2)
"""The least; a link lives until the stop it warns of."""
EXTEND_HOURS = 2

LIFE_KEY = r"[A-Za-z0-9_-]{32}"
DATED_MAC = r"[0-9]{10,11}\.[A-Za-z0-9_-]{32}"
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
# 192 bits: nobody guesses them, and a link of a mail stays on one line.
_BYTES = 24


class Verdict(Enum):
    """What a token is worth."""

    VALID = "made by us, for this, and in its time"
    EXPIRED = "made by us, for this, and too old"
    FORGED = "not made by us for this: of another notebook, action, purpose or link version, or changed"


class Linked(Protocol):
    """What links are made of: a notebook, or what stands in where there is none."""

    @property
    def id(self) -> str: ...
    @property
    def link_version(self) -> int: ...


@dataclass(frozen=True)
class Nothing:
    """Stands in for a notebook that there is not, so that looking for one takes as long as for any other."""

    id: str = "nb-" + "0" * 20
    link_version: int = 0


def key(secret: str, notebook: Linked) -> str:
    """The key in a notebook's link for life, 32 characters of base64url. `secret`: that of its owner."""
    return _mac(secret, "life", notebook.id, str(notebook.link_version))


def opens(given: str | None, secret: str, notebook: Linked) -> bool:
    """Whether `given` is that key. Takes as long for a wrong one."""
    return tokens.same_hmac((given or "").encode("utf-8", "replace"), key(secret, notebook).encode())


def token(secret: str, purpose: str, action: str, notebook: Linked, expires: datetime) -> str:
    """`EXPIRY.MAC`, good for one purpose (MAIL, FORM, DONE) and one of ACTIONS until `expires`."""
    at = str(int(expires.timestamp()))
    return f"{at}.{_mac(secret, purpose, action, notebook.id, str(notebook.link_version), at)}"


def check(given: str | None, *, secret: str, purpose: str, action: str, notebook: Linked, now: datetime) -> Verdict:
    """What a token is worth. Takes as long for a wrong one."""
    well_formed = given is not None and re.fullmatch(DATED_MAC, given, re.ASCII) is not None
    at, _, mac = (given if given is not None and well_formed else f"0000000000.{'A' * 32}").partition(".")
    wanted = _mac(secret, purpose, action, notebook.id, str(notebook.link_version), at)
    if not tokens.same_hmac(mac.encode(), wanted.encode()) or not well_formed:
        return Verdict.FORGED
    return Verdict.VALID if now < datetime.fromtimestamp(int(at), UTC) else Verdict.EXPIRED


def form_token(secret: str, action: str, notebook: Linked, now: datetime) -> str:
    """What a button on a page carries."""
    return token(secret, FORM, action, notebook, now + FORM_LIFE)


def life_link(secret: str, notebook: Notebook) -> str | None:
    """The link for life. None for a record that does not say where the API is called."""
    return f"{notebook.api_url}/n/{notebook.id}?k={key(secret, notebook)}" if notebook.api_url else None


def extend_hours(owner: User) -> int:
    """How long the button keeps a notebook of this owner."""
    return min(EXTEND_HOURS, owner.max_extend_hours)


def action_link(
    secret: str, action: str, notebook: Notebook, now: datetime, stops_at: datetime | None = None
) -> str | None:
    """A link of a message: to a page with the button for one action, until the stop it warns of, at least 2 hours."""
    if not notebook.api_url:
        return None
    until = max(now + MAIL_LIFE, stops_at or now)
    query = urlencode({"t": token(secret, MAIL, action, notebook, until)})
    return f"{notebook.api_url}/n/{notebook.id}/{action}?{query}"


def destination(notebook: Notebook) -> str | None:
    """Where the link for life forwards to: the notebook itself while it is ready, and never anywhere else."""
    host = notebook.public_dns_name or notebook.address
    if notebook.url is None or host is None or not _HOST.fullmatch(host):
        return None
    return notebook.url


def _mac(secret: str, *parts: str) -> str:
    digest = tokens.hmac_of(secret, b"link", *(part.encode() for part in parts))
    return base64.urlsafe_b64encode(digest[:_BYTES]).decode("ascii")
