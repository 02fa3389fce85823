"""What is done to a notebook that is there: stop, start, extend, password, link; and its ledger."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from urllib.parse import urlsplit

from nod import ledger, passwords, show
from nod.api import Api
from nod.clock import Clock
from nod.config import is_loopback
from nod.errors import BadAnswerError, NodError, OperationFailedError, RefusedError, UnreachableError
from nod.model import Event, Notebook
from nod.names import find, is_id
from nod.output import LABEL, Output
from nod.progress import choose
from nod.states import State
from nod.verdict import check
from nod.wait import Wait

Open = Callable[[str], bool]
"""Opens an address in a browser; False if there is none."""
_IN_DOUBT = "Whether the password is being set is not known. Run the command again."


@dataclass(frozen=True)
class NewPassword:
    """What `nod password` sends: `password` or `password_hash`. `made`: nobody has seen it yet."""

    body: Mapping[str, object] = field(repr=False)
    made: str | None = field(default=None, repr=False)

    @classmethod
    def generate(cls) -> NewPassword:
        """Made here and not by the API: a request that is sent twice then sets the same one twice."""
        password = passwords.generate()
        return cls({"password": password}, password)


class Life:
    """The commands for notebooks that exist, over one API. Each returns an exit code or raises a NodError.

    A notebook is given by its id or by its name (`nod.names.find`).
    """

    def __init__(self, api: Api, output: Output, clock: Clock) -> None:
        self._api = api
        self._output = output
        self._clock = clock

    def resolve(self, target: str) -> str:
        """The id of the notebook that is meant; asks the API only where a name was given.

        Raises:
            NoSuchNameError: no notebook has the name, or several have it.
        """
        if is_id(target):
            return target
        return find([Notebook.from_json(document) for document in self._api.notebooks()], target).id

    def stop(self, target: str) -> int:
        """Stops a notebook; what is on its disk stays."""
        document = self._api.stop(self.resolve(target))
        notebook = Notebook.from_json(document)
        if self._output.as_json:
            self._output.document(document)
            return 0
        done = notebook.state == State.STOPPED
        self._output.head(f"{notebook.title} is {'stopped' if done else 'being stopped'}")
        self._output.note("Disk", "What is on it stays, and it costs until the notebook is deleted.")
        if not done:
            self._output.row("Follow it", f"nod show {notebook.id} --watch")
        self._output.row("Start it", f"nod start {notebook.id}")
        return 0

    def start(self, target: str, *, wait: bool, timeout: float) -> int:
        """Starts a notebook that is stopped, and waits until it answers.

        Args:
            target: which.
            wait: False returns as soon as the API has accepted.
            timeout: how long to wait, in seconds; the start goes on after it.
        """
        document = self._api.start(self.resolve(target))
        waiting = Wait(self._api, self._clock, choose(self._output, self._clock), timeout=timeout)
        notebook = waiting.begin(document)
        follow = f"{'Follow it':<{LABEL}}nod show {notebook.id} --watch"
        if not wait:
            self._show(waiting)
            self._output.say(f"  {follow}")
            return 0
        try:
            notebook = waiting.follow(notebook.id)
        except KeyboardInterrupt:
            self._output.say("Stopped waiting. The start goes on.", "yellow")
            self._output.say(f"  {follow}")
            raise
        except NodError as error:
            error.hints += (*(() if isinstance(error, RefusedError) else ("The start goes on.",)), follow)
            raise
        if self._output.as_json or notebook.state == State.READY:
            self._show(waiting)
        check(notebook, wanted=State.READY)
        return 0

    def extend(self, target: str, hours: float) -> int:
        """Keeps a notebook from stopping by itself for `hours` from now; what it was kept before still holds."""
        document = self._api.extend(self.resolve(target), hours)
        notebook = Notebook.from_json(document)
        if self._output.as_json:
            self._output.document(document)
            return 0
        now = self._api.server_now()
        self._output.head(f"{notebook.title} is kept")
        self._output.note("Held", show.held(notebook, now) or "not known")
        # A minute for the way there and for rounding.
        if notebook.hold_until is not None and notebook.hold_until > now + timedelta(hours=hours, minutes=1):
            self._output.note("", "An earlier extension holds longer than what you asked for, and stays.")
        self._output.note("Stops", show.stops(notebook, now))
        return 0

    def password(self, target: str, new: NewPassword) -> int:
        """Sets another password. The work goes on after the API has accepted: the machine has to be told."""
        notebook_id = self.resolve(target)
        try:
            document = self._api.set_password(notebook_id, new.body)
        except UnreachableError as error:
            if error.maybe_done:
                error.hints += (_IN_DOUBT,)
            raise
        except KeyboardInterrupt:
            self._output.say(_IN_DOUBT, "yellow")
            raise
        self._output.shown_once = new.made is not None
        if self._output.as_json:
            self._output.document({**document, "password": new.made})
            return 0
        notebook = Notebook.from_json(document)
        self._output.head(f"{notebook.title} gets a new password")
        self._output.row("Password", new.made or "the one you gave", "bold" if new.made else "")
        if new.made:
            self._output.note("", "Shown this once: keep it. Only its hash is stored.")
        self._output.note(
            "",
            "Until it is set, in a minute or so, the old one holds. Logins that are open end then; kernels go on. If "
            "it cannot be set, the old one stays and a message says so, as does:",
        )
        self._output.row("", f"nod show {notebook.id}")
        return 0

    def link(self, target: str, *, new: bool) -> int:
        """Prints the link for life, alone on its line; `new` makes another one first, and the old one ends."""
        notebook_id = self.resolve(target)
        document = self._api.new_link(notebook_id) if new else self._api.notebook(notebook_id)
        notebook = Notebook.from_json(document)
        if self._output.as_json:
            self._output.document(document)
            return 0
        if notebook.link is None:
            raise _no_link(notebook)
        self._output.head(notebook.link, "")
        if new:
            self._output.say("The link before it, in all messages so far, leads nowhere now.", "yellow")
        return 0

    def open(self, target: str, browser: Open) -> int:
        """Opens the notebook in a browser, or the page that wakes it, and prints which address that was.

        A notebook that is ready is opened at its own address: the link for life lets whoever reads it stop and wake
        the notebook, and other users of this machine can read a browser's command line.
        """
        document = self._api.notebook(self.resolve(target))
        notebook = Notebook.from_json(document)
        address = notebook.url or notebook.link
        if address is None:
            raise _no_link(notebook)
        if not _is_web_address(address):
            raise BadAnswerError(f"The API names an address that is none of a web page: {address}")
        if self._output.as_json:
            self._output.document(document)
        else:
            self._output.head(address, "")
        if notebook.url and notebook.certificate_sha256:
            self._output.say("The browser will warn. Go on only if the certificate has this SHA-256 fingerprint:")
            self._output.say(f"  {notebook.certificate_sha256}")
        if not browser(address):
            hints = ("Open the address above.",)
            error = OperationFailedError("No browser could be opened here.", hints=hints, code="no_browser")
            error.told = True
            raise error
        return 0

    def events(self, target: str, most: int) -> int:
        """Prints the newest `most` decisions about a notebook, with their signals, the newest first."""
        notebook_id = self.resolve(target)
        documents, more = self._api.events(notebook_id, most)
        if self._output.as_json:
            self._output.document({"events": documents})
        elif documents:
            ledger.blocks(self._output, [Event.from_json(document) for document in documents])
        else:
            self._output.say("Nothing has been decided yet.")
        if more:
            self._output.say(f"There are older ones:  nod events {notebook_id} --limit {most * 10}")
        return 0

    def _show(self, waiting: Wait) -> None:
        if self._output.as_json:
            self._output.document(waiting.document)
        elif waiting.notebook is not None:
            show.block(self._output, waiting.notebook, self._api.server_now())


def _no_link(notebook: Notebook) -> OperationFailedError:
    return OperationFailedError(
        f"{notebook.title} has no link: it is {notebook.state}.",
        hints=(f"Details:  nod show {notebook.id}",),
        code="no_link",
    )


def _is_web_address(address: str) -> bool:
    """https, or http on this machine (the local cloud). A browser is handed nothing else: no file, no option."""
    try:
        parts = urlsplit(address)
        host = parts.hostname
    except ValueError:
        return False
    return bool(host) and (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host or "")))
