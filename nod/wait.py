"""Follows a notebook until it rests."""

from __future__ import annotations

from nod.api import Api, Document
from nod.clock import Clock
from nod.errors import StillGoingError
from nod.model import Notebook
from nod.progress import Display
from nod.retry import Patience
from nod.states import State
from nod.view import Sight

SHORTEST_SECONDS = 1.0
LONGEST_SECONDS = 3.0
SLOWER_AFTER = 60.0


def interval(elapsed: float) -> float:
    """Seconds until the next look after `elapsed` seconds of waiting: 1 at first, 3 from a minute on."""
    share = min(1.0, max(0.0, elapsed) / SLOWER_AFTER)
    return SHORTEST_SECONDS + (LONGEST_SECONDS - SHORTEST_SECONDS) * share


class Wait:
    """One wait. `document` and `notebook` are the last known, also after an exception."""

    def __init__(self, api: Api, clock: Clock, display: Display, *, timeout: float) -> None:
        """`timeout` in seconds; lost connections are borne until then."""
        self._api = api
        self._clock = clock
        self._display = display
        self._timeout = timeout
        self.document: Document = {}
        self.notebook: Notebook | None = None
        self.passed: str | None = None
        """The last state seen that passes by itself."""
        self._launch: bool | None = None

    def begin(self, document: Document) -> Notebook:
        """Takes what is known, such as the answer to POST."""
        self.notebook = Notebook.from_json(document)
        self.document = document
        if self.notebook.moving:
            self.passed = self.notebook.state
        if self._launch is None:
            self._launch = self.notebook.launching or self.notebook.state == State.FAILED
        return self.notebook

    def follow(self, notebook_id: str) -> Notebook:
        """Looks until the state is one that does not pass by itself, and returns the notebook then.

        Raises:
            StillGoingError: the timeout passed.
            NotAuthorizedError, RefusedError: the API no longer answers for this notebook.
            UnreachableError: no answer until the timeout.
        """
        started = self._clock.monotonic()
        deadline = started + self._timeout
        with self._display as display:
            if self.notebook is not None:
                self._show(self.notebook, started)
            while True:
                now = self._clock.monotonic()
                patience = Patience(attempts=None, budget=max(0.0, deadline - now))
                document = self._api.notebook(notebook_id, patience=patience, say=display.trouble)
                notebook = self.begin(document)
                self._show(notebook, started)
                if not notebook.moving:
                    return notebook
                now = self._clock.monotonic()
                if now >= deadline:
                    raise StillGoingError(f"{notebook.title} is still {notebook.state} after the --timeout.")
                self._clock.sleep(min(interval(now - started), deadline - now))

    def _show(self, notebook: Notebook, started: float) -> None:
        now, server_now = self._clock.monotonic(), self._api.server_now()
        began = started
        if notebook.launching and notebook.created_at is not None:
            # A launch that is joined later shows its own age, not that of the look.
            began = now - max(0.0, (server_now - notebook.created_at).total_seconds())
        self._display.show(Sight(notebook, began, now, server_now, launch=bool(self._launch)), self.document)
