"""POST /notebooks."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from functools import cached_property

from chalicelib import body, passwords, times, tokens
from chalicelib.actions.showing import Showing
from chalicelib.aws.ledger import event
from chalicelib.aws.notebooks import Created, NotebooksTable
from chalicelib.aws.workflows import Workflows
from chalicelib.errors import FieldError, IdempotencyKeyReused, InvalidFields, QuotaExceeded, Unavailable
from chalicelib.log import note
from chalicelib.model import LaunchRequest, Notebook, User
from chalicelib.names import random_name
from chalicelib.notebook.life import State
from chalicelib.plan import launch_plan, new_notebook, warnings
from chalicelib.views import LaunchedView

_ATTEMPTS = 8
# By how much the clocks of the function and of Step Functions may differ. An execution of another notebook with the
# same name is older by days: records live that long.
_CLOCKS = timedelta(minutes=10)
_SHOWN_ONCE = "Keep the password: it is shown this once, and only its hash is kept."
_CHOSEN = "Log in with the password that you chose; only its hash is kept."
_REPLAY = (
    "This request was made before, and this is its notebook. A password that was made then was in the first answer and "
    "is not kept. If you do not have it, set a new one: POST /notebooks/{id}/password, or `nod password`."
)


class Launching:
    """Takes the gateways it acts on."""

    def __init__(
        self,
        notebooks: NotebooksTable,
        workflows: Callable[[], Workflows],
        showing: Showing,
        sleep: Callable[[float], None],
    ) -> None:
        self._notebooks = notebooks
        self._make_workflows = workflows
        self._showing = showing
        self._settings = showing.settings
        self._prices = showing.prices
        self._sleep = sleep

    @cached_property
    def _workflows(self) -> Workflows:
        return self._make_workflows()

    def request(
        self, document: Mapping[str, object], key: str | None, user: User, *, api_url: str | None, now: datetime
    ) -> LaunchedView:
        """Makes the notebook's record and starts its launch; a replay of `key` answers with the same notebook.

        `api_url` is where this API is called: the links of its messages lead there.

        Raises:
            InvalidFields, NotAllowed, ChannelNotRegistered, QuotaExceeded, IdempotencyKeyReused: nothing was done.
            Unavailable: nothing is left, or it may have begun and the text says so; the caller may try again.
        """
        request = LaunchRequest.from_json(document, user.allowed_types)
        _check_key(key)
        notebook_id = tokens.notebook_id(user.secret, user.id, key)
        fingerprint = tokens.body_hmac(user.secret, body.canonical(document))
        if key is not None and (known := self._notebooks.get(notebook_id)) is not None:
            return self._replay(known, fingerprint, user, now)
        password = passwords.generate() if request.password is None and request.password_hash is None else None
        notebook = new_notebook(
            request,
            user,
            notebook_id=notebook_id,
            name=request.name or random_name(),
            password_hash=request.password_hash or "",
            body_hmac=fingerprint,
            api_url=api_url,
            now=now,
        )
        if request.password_hash is None:
            # A hash takes 50 ms, so it comes after all that could refuse the request, but for the quota.
            hashed = passwords.hashing(password or request.password or "")
            # A cold start makes the client in that time.
            _ = self._workflows
            notebook = notebook.with_password_hash(hashed())
        line = event(notebook_id, now, "launch", "requested", f"{user.name} requested it", by=user.id)
        notebook = replace(notebook, ledger_lines=(line.to_record(),))
        known = self._create(notebook, user)
        if known is not None:
            return self._replay(known, fingerprint, user, now)
        self._start_or_take_back(notebook, user)
        return self._view(notebook, user, password, _SHOWN_ONCE if password else _CHOSEN, now=now)

    def _create(self, notebook: Notebook, user: User) -> Notebook | None:
        """Writes the record; or returns the one that an equal request, side by side with this one, has written."""
        for attempt in range(_ATTEMPTS):
            created = self._notebooks.create(notebook)
            if created is Created.DONE:
                note(notebook=notebook.id)
                return None
            if created is Created.QUOTA:
                raise QuotaExceeded(_refused(user))
            known = self._notebooks.get(notebook.id)
            if known is not None:
                return known
            # S311: spreads load, guards nothing.
            self._sleep(random.uniform(0.01, 0.05) * 2**attempt)  # noqa: S311
        raise Unavailable("Many requests change your notebooks at the same time. Try again.")

    def _start_or_take_back(self, notebook: Notebook, user: User) -> None:
        try:
            started = self._start(notebook, user)
        except Unavailable as error:
            self._settle(notebook, error)
            return
        # An execution of its name that is another's is older: the record of that one has expired, or was taken back.
        # Its name serves no second time.
        if not started and not self._is_own(notebook, user) and self._notebooks.take_back(notebook):
            raise IdempotencyKeyReused(
                "This Idempotency-Key served a notebook that is gone. Take a new key for a new notebook.",
                [FieldError("Idempotency-Key", "It was used before.", "a new key")],
            )

    def _settle(self, notebook: Notebook, error: Unavailable) -> None:
        """After a start that failed, or whose answer was lost. Returns if the launch runs all the same.

        A record is taken back only when no execution has its name and no replay is about to start one. One that begins
        nevertheless (Step Functions shows a new execution a little late) fails at its first look at the record, and
        its undo removes what it made.
        """
        arn = self._settings.launch_arn
        try:
            if self._workflows.exists(arn, notebook.id):
                return
        except Unavailable:
            # Whether it began is not to be known now: the record stays, as what finds the instance.
            raise Unavailable(
                f"{error.detail} The launch of {notebook.id} may have begun: look at it, and delete it if it stays "
                "`requested`; or repeat the request with the same Idempotency-Key. If no password was given, set one "
                "once it is ready: POST /notebooks/{id}/password, or `nod password`."
            ) from error
        if self._notebooks.take_back(notebook):
            raise error
        known = self._notebooks.get(notebook.id)
        if known is None or (known.state == State.REQUESTED and not self._workflows.exists(arn, notebook.id)):
            # A replay has it in hand, and starts it or says that it could not.
            raise error

    def _start(self, notebook: Notebook, user: User) -> bool:
        plan = launch_plan(notebook, user, self._prices, self._settings)
        return self._workflows.start(self._settings.launch_arn, notebook.id, plan.to_json())

    def _is_own(self, notebook: Notebook, user: User) -> bool:
        """Whether the execution of the notebook's name is its launch, begun by a call whose answer was lost."""
        created = times.from_text(notebook.created_at)
        if created is None:
            return False
        plan = launch_plan(notebook, user, self._prices, self._settings).to_json()
        try:
            return self._workflows.began(self._settings.launch_arn, notebook.id, plan, created - _CLOCKS)
        except Unavailable:
            # Not to be known now: the record stays, and the sweep sees to it that it comes to a true end.
            return True

    def _replay(self, known: Notebook, fingerprint: str, user: User, now: datetime) -> LaunchedView:
        if not tokens.same_hmac(known.body_hmac or "", fingerprint):
            raise IdempotencyKeyReused(
                "This Idempotency-Key came with another body before. Take a new key for a new notebook.",
                [FieldError("Idempotency-Key", "It was used with another body.", "a new key")],
            )
        note(notebook=known.id)
        if known.state == State.REQUESTED:
            # The first request may have died between record and start. From here on it cannot take the record back.
            if not self._notebooks.take_over(known):
                raise Unavailable("The first request with this Idempotency-Key is just being settled. Try again.")
            self._start(known, user)
        return self._view(known, user, None, _REPLAY, now=now)

    def _view(
        self, notebook: Notebook, user: User, password: str | None, message: str, *, now: datetime
    ) -> LaunchedView:
        view = self._showing.one(notebook, user, now)
        return LaunchedView.of_view(view, password, message, warnings(notebook.instance_type, self._prices))


def _refused(user: User) -> str:
    if not user.quota:
        return "Your user may have no notebooks. Ask your administrator."
    if len(user.active) < user.quota and len(user.owned) >= user.keeps:
        return f"You have {len(user.owned)} notebooks, as many as you may keep. Delete one first."
    return f"As many of your notebooks run as may run at a time: {user.quota}. Stop or delete one first."


def _check_key(key: str | None) -> None:
    if key is not None and not re.fullmatch(tokens.IDEMPOTENCY_KEY, key):
        allowed = "1 to 255 visible ASCII characters, no spaces"
        raise InvalidFields(
            f"Idempotency-Key: Allowed: {allowed}.",
            [FieldError("Idempotency-Key", "It does not have the right form.", allowed)],
        )
