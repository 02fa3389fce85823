"""What each command does, with everything it needs handed in."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from nod import show
from nod.api import Accepted, Api
from nod.clock import Clock
from nod.errors import (
    NodError,
    OperationFailedError,
    RefusedError,
    UnreachableError,
    UsageError,
)
from nod.model import Notebook, warnings_of
from nod.output import LABEL, Output
from nod.progress import Display, JsonLines, choose
from nod.states import State
from nod.text import clean
from nod.verdict import check
from nod.wait import Wait

Ask = Callable[[str], str]
_WANTED: Mapping[str, State] = {
    State.REQUESTED: State.READY,
    State.LAUNCHING: State.READY,
    State.STARTING: State.READY,
    State.STOPPING: State.STOPPED,
}
"""Where a state that passes by itself is to lead."""


@dataclass(frozen=True)
class Request:
    """`nod request`: the body for the API (only what was given), and how to wait."""

    body: Mapping[str, object] = field(repr=False)
    idempotency_key: str | None
    wait: bool
    timeout: float
    """Seconds."""


class Commands:
    """To request, see and delete notebooks over one API. Each returns an exit code or raises a NodError."""

    def __init__(self, api: Api, output: Output, clock: Clock) -> None:
        self._api = api
        self._output = output
        self._clock = clock

    def request(self, request: Request) -> int:
        """Requests a notebook and waits until it is ready.

        The password is printed however the wait ends: once the API has answered, nobody can ask for it again.
        """
        accepted = self._post(request)
        notebook = Notebook.from_json(accepted.document)
        for warning in warnings_of(accepted.document):
            self._output.say(f"Warning: {warning}", "yellow")
        wait = Wait(self._api, self._clock, choose(self._output, self._clock), timeout=request.timeout)
        wait.begin(accepted.document)
        if not request.wait:
            self._told(wait, accepted, request)
            self._say_how_to_go_on(notebook)
            return 0
        try:
            notebook = wait.follow(notebook.id)
        except KeyboardInterrupt:
            self._told(wait, accepted, request)
            self._output.say("Stopped waiting. The launch goes on.", "yellow")
            self._say_how_to_go_on(notebook)
            raise
        except NodError as error:
            self._told(wait, accepted, request)
            error.hints += (
                *(() if isinstance(error, RefusedError) else ("The launch goes on.",)),
                *_how_to_go_on(notebook),
            )
            error.told = True
            raise
        if self._output.as_json or notebook.state == State.READY:
            self._told(wait, accepted, request)
        check(notebook, wanted=State.READY)
        return 0

    def list(self) -> int:
        """Prints the caller's notebooks."""
        documents = self._api.notebooks()
        if self._output.as_json:
            self._output.document({"notebooks": documents})
        else:
            notebooks = [Notebook.from_json(document) for document in documents]
            show.table(self._output, notebooks, self._api.server_now())
        return 0

    def show(self, notebook_id: str) -> int:
        """Prints one notebook."""
        document = self._api.notebook(notebook_id)
        notebook = Notebook.from_json(document)
        if self._output.as_json:
            self._output.document(document)
            return 0
        now = self._api.server_now()
        show.block(self._output, notebook, now)
        if notebook.launching or notebook.state == State.FAILED:
            show.step_lines(self._output, notebook, now)
        return 0

    def watch(self, notebook_id: str, timeout: float) -> int:
        """Follows one notebook until its state is one that does not pass by itself."""
        display: Display
        as_json = self._output.as_json
        display = JsonLines(self._output) if as_json else choose(self._output, self._clock)
        wait = Wait(self._api, self._clock, display, timeout=timeout)
        try:
            notebook = wait.follow(notebook_id)
        except RefusedError as error:
            if error.status == 404 and wait.notebook is not None and wait.notebook.state == State.TERMINATING:
                self._output.say(f"{wait.notebook.title} is gone.")
                return 0
            raise
        if not as_json and notebook.state != State.FAILED:
            show.block(self._output, notebook, self._api.server_now())
        check(notebook, wanted=_WANTED.get(wait.passed or ""))
        return 0

    def delete(self, notebook_id: str, *, confirm: str | None, yes: bool, ask: Ask | None) -> int:
        """Deletes a notebook with everything on its disk.

        Args:
            notebook_id: which.
            confirm: its name, as proof that this one is meant; the API compares it.
            yes: no proof is asked.
            ask: asks the person for a line; None where there is no terminal.
        """
        if confirm is None:
            if not yes and ask is None:
                raise UsageError(
                    "Deleting needs a confirmation, and there is no terminal to ask at.",
                    hints=("Give --confirm NAME, or --yes to delete without one.",),
                )
            notebook = Notebook.from_json(self._api.notebook(notebook_id))
            confirm = notebook.name or notebook.id
            gone = notebook.state == State.TERMINATED
            if not (yes or gone) and ask is not None and not self._confirmed(notebook, confirm, ask):
                raise OperationFailedError("That is not its name. Nothing was deleted.", code="not_confirmed")
        try:
            document = self._api.delete(notebook_id, confirm)
        except RefusedError as error:
            error.message = error.message.replace("?confirm=", "--confirm ")
            raise
        notebook = Notebook.from_json(document)
        if self._output.as_json:
            self._output.document(document)
        elif notebook.state == State.TERMINATED:
            self._output.head(f"{notebook.title} is deleted already")
        else:
            self._output.head(f"{notebook.title} is being deleted")
            self._output.row("Follow it", f"nod show {notebook_id} --watch")
        return 0

    def cancel(self, notebook_id: str) -> int:
        """Cancels a launch: the notebook is deleted, and nothing is on its disk yet that could be lost."""
        notebook = Notebook.from_json(self._api.notebook(notebook_id))
        if not notebook.launching:
            raise OperationFailedError(
                f"{notebook.title} is {notebook.state}: there is no launch to cancel. Nothing was changed.",
                hints=_instead_of_cancelling(notebook),
                code="wrong_state",
            )
        document = self._api.delete(notebook_id, notebook.name or notebook.id)
        if self._output.as_json:
            self._output.document(document)
        else:
            self._output.head(f"The launch of {notebook.title} is cancelled; its machine is being removed")
            self._output.row("Follow it", f"nod show {notebook_id} --watch")
        return 0

    def _post(self, request: Request) -> Accepted:
        key = request.idempotency_key or str(uuid.uuid4())
        again = (
            "Whether a notebook was started is not known. To find out without starting a second one, run the "
            "same command again with",
            f"--idempotency-key {key}",
        )
        try:
            return self._api.request_notebook(request.body, key)
        except UnreachableError as error:
            if error.maybe_done:
                error.hints += again
            raise
        except KeyboardInterrupt:
            for line in again:
                self._output.say(line, "yellow")
            raise

    def _told(self, wait: Wait, accepted: Accepted, request: Request) -> None:
        """Prints what is known of the notebook, with the password."""
        self._output.shown_once = isinstance(accepted.document.get("password"), str)
        if self._output.as_json:
            # What only the answer to POST has (password, warnings, message) beside what is known since.
            self._output.document({**accepted.document, **wait.document})
        elif wait.notebook is not None:
            password = _password_lines(accepted, request)
            show.block(self._output, wait.notebook, self._api.server_now(), password=password)

    def _say_how_to_go_on(self, notebook: Notebook) -> None:
        for line in _how_to_go_on(notebook):
            self._output.say(f"  {line}")

    def _confirmed(self, notebook: Notebook, name: str, ask: Ask) -> bool:
        size = f" ({notebook.volume_gib} GiB)" if notebook.volume_gib else ""
        self._output.say(
            f"Deleting {name} ({notebook.id}, {notebook.state}) removes its machine and its disk{size} with "
            "everything on it: notebooks, data, installed packages. There is no copy, and no way back.",
            "yellow",
        )
        return ask(f"Type its name ({name}) to delete it: ").strip() == name


def _how_to_go_on(notebook: Notebook) -> tuple[str, ...]:
    return (
        f"{'Follow it':<{LABEL}}nod show {notebook.id} --watch",
        f"{'Cancel it':<{LABEL}}nod cancel {notebook.id}",
        f"{'Delete it':<{LABEL}}nod delete {notebook.id}",
    )


def _instead_of_cancelling(notebook: Notebook) -> tuple[str, ...]:
    stop = f"{'Stop it':<{LABEL}}nod stop {notebook.id}"
    delete = f"{'Delete it':<{LABEL}}nod delete {notebook.id}"
    verbs: Mapping[str, tuple[str, ...]] = {
        State.READY: (stop, delete),
        State.TERMINATING: (),
        State.TERMINATED: (),
    }
    return verbs.get(notebook.state, (delete,))


def _password_lines(accepted: Accepted, request: Request) -> tuple[str, ...]:
    password = accepted.document.get("password")
    if isinstance(password, str) and password:
        return (clean(password), "Shown this once: keep it. Only its hash is stored.")
    if "password" in request.body or "password_hash" in request.body:
        return ("the one you gave",)
    if accepted.attempts > 1:
        why = "An answer got lost on the way, and with it the password, which the API gives only once."
    else:
        why = "This request was made before (same Idempotency-Key); the password was in its first answer."
    return (
        "not known",
        why,
        f"If you do not have it, set a new one when the notebook is ready:  nod password {accepted.document.get('id')}",
    )
