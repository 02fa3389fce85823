"""POST /notebooks/{id}/start, and the button that wakes."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import datetime

from chalicelib import executions
from chalicelib.actions.stopping import LOOK_AFTER, read_again, start_or_leave, wrong_state
from chalicelib.aws.notebooks import NotebooksTable
from chalicelib.aws.transitions import NotMoved
from chalicelib.aws.users import UsersTable
from chalicelib.aws.workflows import Workflows
from chalicelib.errors import QuotaExceeded, Unavailable
from chalicelib.model import Notebook
from chalicelib.notebook import moves
from chalicelib.notebook.life import State
from chalicelib.settings import Settings

_ATTEMPTS = 8


class Starting:
    """Takes the gateways it acts on."""

    def __init__(
        self,
        notebooks: NotebooksTable,
        users: UsersTable,
        workflows: Workflows,
        settings: Settings,
        sleep: Callable[[float], None],
    ) -> None:
        self._notebooks = notebooks
        self._users = users
        self._workflows = workflows
        self._settings = settings
        self._sleep = sleep

    def start(self, notebook: Notebook, by: str, reason: str, now: datetime) -> Notebook:
        """Begins to start a stopped notebook, within its owner's quota. The record as it is then.

        `by`: a user's id, or LINK; `reason`: who started it, in words.

        Raises:
            WrongState, QuotaExceeded: nothing was done.
            NotFound: it is gone by now.
            Unavailable: the table did not answer, or many requests change the same rows.
        """
        for attempt in range(_ATTEMPTS):
            if notebook.state != State.STOPPED or notebook.instance_id is None:
                raise wrong_state(notebook, State.STOPPED, "started")
            started = self._notebooks.move(moves.start(notebook, by, reason, now, now + LOOK_AFTER))
            if started is NotMoved.QUOTA:
                raise self._refused(notebook)
            if isinstance(started, Notebook):
                return self._go(started, now)
            if started is NotMoved.CONFLICT:
                # S311: spreads load, guards nothing.
                self._sleep(random.uniform(0.01, 0.05) * 2**attempt)  # noqa: S311
            notebook = read_again(notebook, self._notebooks)
        raise Unavailable("Many requests change your notebooks at the same time. Try again.")

    def _go(self, written: Notebook, now: datetime) -> Notebook:
        # Of the start that was just written, whatever came to the record since. Before the record is read: nothing may
        # keep a start that is written from beginning.
        start_or_leave(
            written,
            self._settings.start_arn,
            executions.start(written, self._settings),
            now=now,
            notebooks=self._notebooks,
            workflows=self._workflows,
        )
        return read_again(written, self._notebooks)

    def _refused(self, notebook: Notebook) -> QuotaExceeded:
        owner = self._users.get(notebook.owner)
        if owner is None or not owner.quota:
            return QuotaExceeded("No notebook of this user may run. Ask your administrator.")
        running = (self._notebooks.get(other) for other in sorted(owner.active - {notebook.id}))
        names = ", ".join(f"{other.name} ({other.state})" for other in running if other is not None)
        return QuotaExceeded(
            f"As many notebooks run as may run at a time: {owner.quota}. Stop one first: {names or 'none is shown'}."
        )
