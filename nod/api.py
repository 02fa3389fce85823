"""The HTTP API: requests, tries again, and turns refusals into errors that a person can read."""

from __future__ import annotations

import itertools
import json
import random
import re
import ssl
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from urllib.parse import quote

import httpx

from nod import __version__
from nod.clock import Clock
from nod.config import Settings
from nod.errors import (
    BadAnswerError,
    FieldError,
    NodError,
    NotAuthorizedError,
    RefusedError,
    UnreachableError,
    UsageError,
)
from nod.retry import Patience, retry_after
from nod.states import State
from nod.text import clean, seconds

Document = Mapping[str, object]
Say = Callable[[str], None]

READING = Patience(attempts=4, budget=45.0)
WRITING = Patience(attempts=6, budget=90.0)
# API Gateway ends a request after 29 s: a longer wait for an answer cannot help.
_TIMEOUT = httpx.Timeout(connect=10.0, read=30.0, write=30.0, pool=10.0)
_CHECK_ADDRESS = "Check the address (`--url`, `NOD_URL`)."
_NO_TLS = frozenset({"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"})
"""What OpenSSL calls an answer that is no TLS, depending on its version."""
_LONGEST_LIST = 20_000
_MOST_PAGES = 1000
_PAGE = 50


@dataclass(frozen=True)
class Accepted:
    """The answer to POST, and how many requests it took: a retry can be answered without the password."""

    document: Document
    attempts: int


class Api:
    """The product's HTTP API with one token.

    Every request is tried again after lost connections, 429 and 5xx, which is safe: GET changes nothing, DELETE
    twice is DELETE once, a request for a notebook carries an Idempotency-Key, and of what is done to a notebook the
    second of two is either as good as the first (extend, password, link) or refused (start, stop), which is then
    compared with the notebook's state.
    """

    def __init__(self, settings: Settings, client: httpx.Client, clock: Clock, say: Say) -> None:
        """Takes the client from `open_client`; `say` gets a sentence before each new try."""
        self._url = settings.url
        self._client = client
        self._clock = clock
        self._say = say
        self._skew = timedelta()

    def server_now(self) -> datetime:
        """The server's time of day, by the Date header of its last answer (to a second).

        The steps' times are the server's, and a laptop's clock can be minutes off.
        """
        return self._clock.now() + self._skew

    def request_notebook(self, body: Document, idempotency_key: str) -> Accepted:
        """`POST /notebooks`.

        Raises:
            UnreachableError: no answer after all tries; `maybe_done` says whether a notebook may be starting.
            NotAuthorizedError, RefusedError: the API said no.
        """
        answer, attempts = self._send(
            "POST", "/notebooks", WRITING, body=body, headers={"Idempotency-Key": idempotency_key}
        )
        return Accepted(answer, attempts)

    def notebook(self, notebook_id: str, *, patience: Patience = READING, say: Say | None = None) -> dict[str, object]:
        """`GET /notebooks/{id}`. Raises as `request_notebook`."""
        answer, _ = self._send("GET", _path(notebook_id), patience, say=say)
        return answer

    def notebooks(self) -> list[object]:
        """`GET /notebooks`, all pages, in the API's order. Raises as `request_notebook`."""
        found, _ = self._pages("/notebooks", "notebooks", most=None)
        return found

    def events(self, notebook_id: str, most: int) -> tuple[list[object], bool]:
        """`GET /notebooks/{id}/events`: at most `most`, the newest first, and whether there are older ones.

        Raises as `request_notebook`.
        """
        return self._pages(f"{_path(notebook_id)}/events", "events", most=most)

    def stop(self, notebook_id: str) -> dict[str, object]:
        """`POST /notebooks/{id}/stop`. Raises as `request_notebook`."""
        return self._settle(notebook_id, "stop", settled=(State.STOPPING, State.STOPPED))

    def start(self, notebook_id: str) -> dict[str, object]:
        """`POST /notebooks/{id}/start`. Raises as `request_notebook`."""
        return self._settle(notebook_id, "start", settled=(State.STARTING, State.READY))

    def extend(self, notebook_id: str, hours: float) -> dict[str, object]:
        """`POST /notebooks/{id}/extend`. Raises as `request_notebook`."""
        return self._act(notebook_id, "extend", {"hours": hours})

    def set_password(self, notebook_id: str, body: Document) -> dict[str, object]:
        """`POST /notebooks/{id}/password` with `password` or `password_hash`. Raises as `request_notebook`."""
        return self._act(notebook_id, "password", body)

    def new_link(self, notebook_id: str) -> dict[str, object]:
        """`POST /notebooks/{id}/link`: the notebook with another link for life. Raises as `request_notebook`."""
        return self._act(notebook_id, "link")

    def delete(self, notebook_id: str, confirm: str) -> dict[str, object]:
        """`DELETE /notebooks/{id}?confirm=NAME`. Raises as `request_notebook`."""
        answer, _ = self._send("DELETE", _path(notebook_id), WRITING, params={"confirm": confirm})
        return answer

    def _act(self, notebook_id: str, action: str, body: Document | None = None) -> dict[str, object]:
        answer, _ = self._send("POST", f"{_path(notebook_id)}/{action}", WRITING, body=body)
        return answer

    def _settle(self, notebook_id: str, action: str, settled: Collection[str]) -> dict[str, object]:
        """An action that the API refuses the second time. If it was asked twice because the first answer got lost, a
        notebook in one of the states of `settled` says that the first was heard."""
        try:
            return self._act(notebook_id, action)
        except RefusedError as error:
            if not error.repeated or error.status != httpx.codes.CONFLICT:
                raise
            document = self.notebook(notebook_id)
            if document.get("state") not in settled:
                raise
            return document

    def _pages(self, path: str, key: str, *, most: int | None) -> tuple[list[object], bool]:
        """The entries of all pages, or the first `most`, and whether there are more."""
        found: list[object] = []
        following: str | None = None
        for _ in range(_MOST_PAGES):
            params = {"next": following} if following else {}
            if most is not None:
                params["limit"] = str(min(_PAGE, most - len(found)))
            answer, _ = self._send("GET", path, READING, params=params)
            page, following_now = answer.get(key), answer.get("next")
            if not isinstance(page, list):
                raise BadAnswerError(f"The answer is no list of {key}.")
            found.extend(page)
            if not isinstance(following_now, str) or not following_now or following_now == following:
                return found[:most], most is not None and len(found) > most
            if most is not None and len(found) >= most:
                return found[:most], True
            following = following_now
        return found, True

    def _send(
        self,
        method: str,
        path: str,
        patience: Patience,
        *,
        body: Document | None = None,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        say: Say | None = None,
    ) -> tuple[dict[str, object], int]:
        """Sends until there is an answer or `patience` ends; returns it with the number of requests made."""
        begin = self._clock.monotonic()
        maybe_done = False
        for attempt in itertools.count(1):
            asked: float | None = None
            try:
                response = self._client.request(method, self._url + path, json=body, params=params, headers=headers)
            except (httpx.InvalidURL, UnicodeError) as error:
                # UnicodeError: a host name that the resolver cannot encode, such as "a..b".
                raise UsageError(f"Not an address of the API: {self._url} ({clean(str(error))}).") from error
            except httpx.RequestError as error:
                failure = self._lost(error)
                # Where no connection was made, nothing was sent.
                maybe_done |= not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
            else:
                self._note_time(response)
                if response.status_code != httpx.codes.TOO_MANY_REQUESTS and not response.is_server_error:
                    return _read(response, body or {}, repeated=maybe_done), attempt
                failure = _trouble(response)
                maybe_done |= response.is_server_error
                asked = retry_after(response.headers.get("Retry-After"), self.server_now())
            elapsed = self._clock.monotonic() - begin
            # S311: spreads load, guards nothing.
            delay = patience.delay(attempt, elapsed, asked, random.random())  # noqa: S311
            if delay is None:
                failure.maybe_done = maybe_done
                raise failure
            (say or self._say)(f"{failure.message} Trying again in {seconds(delay)}.")
            self._clock.sleep(delay)
        raise AssertionError("count() does not end")

    def _lost(self, error: httpx.RequestError) -> UnreachableError:
        if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in _causes(error)):
            # Not a thing that passes, and trying again would offer the token again.
            raise UnreachableError(
                f"The certificate of {self._url} cannot be verified: {clean(str(error))}",
                hints=(_CHECK_ADDRESS, "For an authority of your own set SSL_CERT_FILE."),
                code="certificate",
            ) from error
        if any(isinstance(cause, ssl.SSLError) and cause.reason in _NO_TLS for cause in _causes(error)):
            raise UnreachableError(
                f"{self._url} speaks no https; perhaps it is http.", hints=(_CHECK_ADDRESS,), code="no_https"
            ) from error
        reason = re.sub(r"\[Errno -?\d+\] ", "", clean(str(error))) or type(error).__name__
        hints = (_CHECK_ADDRESS,) if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout) else ()
        return UnreachableError(f"Cannot reach {self._url}: {reason}.", hints=hints)

    def _note_time(self, response: httpx.Response) -> None:
        try:
            moment = parsedate_to_datetime(response.headers.get("Date", ""))
        except ValueError:
            return
        if moment.tzinfo is None:
            return
        skew = moment - self._clock.now()
        # The header has whole seconds, so that a small difference says nothing.
        self._skew = skew if abs(skew) > timedelta(seconds=2) else timedelta()


def open_client(settings: Settings) -> httpx.Client:
    """The HTTP client for `Api`: verifies certificates (SSL_CERT_FILE adds one), follows no redirect.

    A redirect could carry the token elsewhere. Proxies of the environment apply, but not to loopback
    addresses: there http is allowed, and a proxy would read the token.
    """
    return httpx.Client(
        headers={
            "Authorization": f"Bearer {settings.token}",
            "Accept": "application/json",
            "User-Agent": f"nod/{__version__}",
        },
        timeout=_TIMEOUT,
        follow_redirects=False,
        mounts={"http://": None, "https://": None} if settings.loopback else None,
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _json(response: httpx.Response) -> dict[str, object] | None:
    try:
        document = json.loads(response.content)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _path(notebook_id: str) -> str:
    return f"/notebooks/{quote(notebook_id, safe='')}"


def _read(response: httpx.Response, sent: Document, *, repeated: bool) -> dict[str, object]:
    document = _json(response)
    if response.is_success:
        if document is None:
            raise BadAnswerError(
                f"{response.request.url.host} answered {response.status_code} without JSON.",
                hints=(_CHECK_ADDRESS, "A proxy or a login page may have answered."),
            )
        return document
    refusal = _refusal(response, document)
    if isinstance(refusal, RefusedError):
        refusal.repeated = repeated
        refusal.sent = sent
    raise refusal


def _refusal(response: httpx.Response, document: dict[str, object] | None) -> NodError:
    status = response.status_code
    if response.is_redirect or status < 400:
        return BadAnswerError(
            f"{response.request.url.host} answered {status}, a redirect, which is not followed.",
            hints=(_CHECK_ADDRESS,),
        )
    code = _word(document, "code")
    if status == 401:
        hints = ("Check the token: option --token-file, NOD_TOKEN, the configuration file.",)
        return NotAuthorizedError("The API does not accept this token.", hints=hints, code=code)
    # A 403 of the product (a type that this user may not have) names its code; one of the gateway does not, which
    # answers so where the address has no stage or a wrong path.
    if status == 403 and code is None:
        return NotAuthorizedError(_sentence(document, "The API forbids this."), hints=(_CHECK_ADDRESS,))
    if code in (None, "no_route"):
        return BadAnswerError(
            f"{response.request.url} is not an address of the API: it answered {status} {response.reason_phrase}.",
            hints=(_CHECK_ADDRESS,),
            code=code,
        )
    return RefusedError(
        _sentence(document, f"The API answered {status} {response.reason_phrase}."),
        status=status,
        fields=_fields(document),
        hints=("`nod list` shows them.",) if status == 404 else (),
        code=code,
    )


def _trouble(response: httpx.Response) -> UnreachableError:
    document = _json(response)
    if response.status_code == httpx.codes.TOO_MANY_REQUESTS:
        return UnreachableError(
            _sentence(document, "The API answers 429: too many requests."),
            code=_word(document, "code") or "too_many_requests",
        )
    reason = _sentence(document, response.reason_phrase or "no reason")
    return UnreachableError(
        f"The API answers {response.status_code}: {reason}",
        hints=(_CHECK_ADDRESS,) if document is None else (),
        code=_word(document, "code") or "server_error",
    )


def _sentence(document: dict[str, object] | None, default: str) -> str:
    """The problem's own words: `detail`, else `title`, else what API Gateway calls `message`."""
    for key in ("detail", "title", "message"):
        text = _word(document, key)
        if text:
            return text
    return default


def _word(document: dict[str, object] | None, key: str) -> str | None:
    value = (document or {}).get(key)
    return clean(value) if isinstance(value, str) and value else None


def _fields(document: dict[str, object] | None) -> tuple[FieldError, ...]:
    errors = (document or {}).get("errors")
    found: list[FieldError] = []
    for entry in errors if isinstance(errors, list) else []:
        if isinstance(entry, dict):
            field = _word(entry, "field") or _word(entry, "pointer") or "?"
            message = _word(entry, "message") or _word(entry, "detail") or ""
            allowed = entry.get("allowed")
            if isinstance(allowed, list):
                allowed = ", ".join(str(value) for value in allowed)
            bounds = clean(str(allowed), _LONGEST_LIST) if allowed not in (None, "") else None
            found.append(FieldError(field, message, bounds))
    return tuple(found)
