"""One notebook's life on a deployment, looked at from outside at each step; everything is removed at the end.

What it costs is bounded: one machine, which the deployment stops after an idle hour if this process is killed.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

import httpx
from botocore.exceptions import BotoCoreError, ClientError

from admin import users
from admin.deployment import Deployment
from chalicelib.errors import AdminError
from deploy.errors import SmokeError
from deploy.smoke.account import Account, Histories, said
from deploy.smoke.api import Api
from deploy.smoke.browser import Notebook, Pages, certificate_of
from deploy.smoke.rows import QUESTIONS, Answer, Row

LAUNCH_SECONDS, CHANGE_SECONDS, BEAT_SECONDS = 3600, 1500, 600
LOOK_SECONDS = 2.0
TRANSITION_PRICE = 0.000025
"""US dollars, of Step Functions' standard workflows in us-east-1: $0.025 for 1,000."""

_SYSTEM = """
import platform, sys, jupyter_server
system = platform.freedesktop_os_release().get("PRETTY_NAME", "?")
python = f"Python {sys.version.split()[0]}, Jupyter Server {jupyter_server.__version__}"
print(f"{system}, kernel {platform.release()}, {python}")
"""
_METADATA = """
import socket
try:
    socket.create_connection(("169.254.169.254", 80), 5).close()
    print("reached")
except OSError as error:
    print("closed:", error)
"""
_INSTALL = """
import subprocess, sys
pip = [sys.executable, "-m", "pip", "install", "--user", "--quiet", "cowsay"]
done = subprocess.run(pip, capture_output=True, text=True)
print("installed" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["no reason"])[-1])
"""
_KEEP = "from pathlib import Path; Path('smoke.txt').write_text({word!r}); print(Path('smoke.txt').read_text())"
_KEPT = "from pathlib import Path; print(Path('smoke.txt').read_text())"


@dataclass
class Place:
    """Where to look: the deployment, and how AWS is asked."""

    stage: str
    account: Account
    deployment: Deployment
    url: str | None = None
    """Of the API, where there is no stack that names it."""
    has_internet: bool = True
    """Whether machines reach package registries."""


class Clock(Protocol):
    """As the module `time` has it, in seconds."""

    def sleep(self, seconds: float, /) -> None: ...

    def monotonic(self) -> float: ...

    def time(self) -> float: ...


@dataclass
class Journey:
    """Takes the place, where each row is told, and the clock. `rows`: what was seen so far."""

    place: Place
    say: Callable[[str], object]
    clock: Clock
    instance_type: str | None = None
    email: str | None = None
    """Where messages go; AWS asks that address to confirm first."""
    rows: list[Row] = field(default_factory=list)
    cost: float | None = None
    """US dollars: the machine's by the API's own figures, and the workflows' transitions."""
    removing: bool = False
    """Whether it has come to its end, which nothing may interrupt."""

    def __post_init__(self) -> None:
        self._word = secrets.token_hex(4)
        self._user = f"smoke-{self._word}"
        self._began = self.clock.time()
        self._token = ""
        self._user_asked_for = False
        self._api: Api | None = None
        self._notebook: dict[str, Any] = {}
        self._password = ""

    def run(self) -> bool:
        """Goes through all of it. True if every row that could be looked at is as it has to be.

        Whatever happens, and on Ctrl-C, the notebook and the user are removed, or what is left is named.
        """
        try:
            self._through()
        except SmokeError:
            # Its row has been told. What comes after it cannot be seen.
            pass
        finally:
            self._remove()
        return all(row.answer is not Answer.NO for row in self.rows)

    def _through(self) -> None:
        with self._row("stack") as row:
            url = self._url(row)
        with self._row("user") as row:
            self._make_user(url)
            row.seen = f"user {self._user}"
        api = self._api
        assert api is not None
        with self._row("request") as row:
            answer = self._request(api)
            row.seen = f"{answer['id']} as {answer['instance_type']}, {_money(answer['cost']['per_hour'])} an hour"
        with self._row("launch") as row:
            self._wait(api, "ready", LAUNCH_SECONDS)
            row.seen = _steps(self._notebook)
        self._launched()
        self._used(api)
        with self._row("stop") as row:
            api.ask("POST", f"/notebooks/{self._id}/stop")
            self._wait(api, "stopped", CHANGE_SECONDS)
            self._until(self._is_free, 60, "the quota is still taken")
            row.seen = "stopped, and it no longer counts against the quota"
        self._woken(api)

    # --- the steps ---

    def _url(self, row: _Open) -> str:
        if self.place.url is not None:
            row.answer, row.seen = Answer.UNSEEN, "the API was named by --url: no stack was looked at"
            return self.place.url
        status, outputs = self.place.account.stack()
        if not status.endswith("_COMPLETE") or status.startswith(("ROLLBACK", "DELETE")):
            raise SmokeError(f"the stack is {status}")
        row.seen = status
        return outputs["EndpointURL"]

    def _make_user(self, url: str) -> None:
        self._user_asked_for = True
        try:
            self._token = users.add_user(self.place.deployment, self._user, email=self.email, quota=1, keeps=1)
        except AdminError as error:
            raise SmokeError(error.detail) from error
        except (BotoCoreError, ClientError) as error:
            raise SmokeError(f"no user could be made: {said(error)}") from error
        headers = {"Authorization": f"Bearer {self._token}"}
        client = httpx.Client(base_url=url.rstrip("/"), headers=headers, trust_env=not url.startswith("http://127."))
        self._api = Api(client, self.clock.sleep)
        self._api.ask("GET", "/notebooks")

    def _request(self, api: Api) -> dict[str, Any]:
        body = {} if self.instance_type is None else {"json": {"instance_type": self.instance_type}}
        answer = api.ask("POST", "/notebooks", headers={"Idempotency-Key": self._word}, **body)
        self._notebook = answer
        if answer["password"] is None:
            raise SmokeError("the first answer was lost, and with it the password, which is shown once: try again")
        self._password = str(answer["password"])
        return answer

    def _launched(self) -> None:
        histories = self._histories()
        with self._row("fleet") as row:
            image = self._asked(lambda: self.place.account.image(str(self._notebook["instance_id"])))
            row.seen = f"{self._notebook['instance_id']}, {self._notebook['instance_type']}, image {image}"
        with self._row("agent") as row:
            if histories is None:
                row.answer, row.seen = Answer.UNSEEN, "Step Functions does not show its histories"
            else:
                refused = {name: count for name, count in histories.errors.items() if name.lower().startswith("ssm.")}
                words = [f"{count} times {name}: {histories.told[name]}" for name, count in sorted(refused.items())]
                row.seen = "; ".join(words) or "never: the agent was online at once"
        with self._row("events") as row:
            if histories is None:
                row.answer, row.seen = Answer.UNSEEN, "Step Functions does not show its histories"
            else:
                row.seen = f"{histories.waits - histories.timed_out} of {histories.waits} waits"
                if histories.waits == histories.timed_out:
                    row.answer = Answer.NO

    def _used(self, api: Api) -> None:
        url = str(self._notebook["url"])
        with self._row("address") as row:
            shown = certificate_of(url)
            row.seen = url
        with self._row("certificate") as row:
            if shown != self._notebook["certificate_sha256"]:
                raise SmokeError(f"it shows {shown}, and the API told {self._notebook['certificate_sha256']}")
            row.seen = shown[:23] + "…"
        with self._row("login"):
            notebook = Notebook(url, self._password)
        try:
            self._cells(notebook)
        finally:
            notebook.close()
        with self._row("heartbeat") as row:
            self._until(lambda: self._beats(api), BEAT_SECONDS, "no heartbeat has come")
            row.seen = f"last active at {self._notebook['last_active_at']}: {self._notebook['last_activity']}"
        with self._row("link"), httpx.Client(timeout=40, trust_env=False) as client:
            Pages(client).look(str(self._notebook["link"]))

    def _cells(self, notebook: Notebook) -> None:
        with self._row("cell") as row:
            row.seen = notebook.run(_KEEP.format(word=self._word))
            if row.seen != self._word:
                raise SmokeError(f"it printed {row.seen!r} and not {self._word!r}")
        with self._row("system") as row:
            row.seen = notebook.run(_SYSTEM)
        with self._row("packages", goes_on=True) as row:
            if self.place.has_internet:
                row.seen = notebook.run(_INSTALL)
                if row.seen != "installed":
                    raise SmokeError(row.seen)
            else:
                row.answer, row.seen = Answer.UNSEEN, "machines of the local cloud reach no registry"
        with self._row("metadata", goes_on=True) as row:
            row.seen = notebook.run(_METADATA)
            if not row.seen.startswith("closed"):
                raise SmokeError("a cell reaches 169.254.169.254")

    def _woken(self, api: Api) -> None:
        with self._row("wake") as row:
            with httpx.Client(timeout=40, trust_env=False) as client:
                Pages(client).press(str(self._notebook["link"]), "wake")
            self._wait(api, "ready", CHANGE_SECONDS)
            url = str(self._notebook["url"])
            if certificate_of(url) != self._notebook["certificate_sha256"]:
                raise SmokeError("it shows another certificate than the API tells")
            notebook = Notebook(url, self._password)
            try:
                kept = notebook.run(_KEPT)
            finally:
                notebook.close()
            if kept != self._word:
                raise SmokeError(f"the file that was written before the stop has {kept!r} in it")
            row.seen = "the same password, and the file that was written before the stop"

    # --- the end ---

    def _remove(self) -> None:
        """Removes notebook and user. Nothing here ends the rest: what cannot be removed is told."""
        self.removing = True
        self._find_notebook()
        if self._notebook:
            with self._row("delete", goes_on=True) as row:
                row.seen = self._delete()
            self._looked_back()
        with self._row("removed", goes_on=True) as row:
            left = self._left()
            if left:
                raise SmokeError("; ".join(left))
            row.seen = "no machine, no disk, no user"
        missing = [key for key in QUESTIONS if key not in {row.key for row in self.rows}]
        for key in missing:
            self._tell(Row(key, Answer.UNSEEN, "it did not come to that"))

    def _find_notebook(self) -> None:
        """A request whose answer was lost, or was not waited for, has made a notebook all the same."""
        if self._notebook or self._api is None:
            return
        try:
            user = self.place.deployment.users.named(self._user)
            for identifier in user.owned if user else ():
                self._notebook = self._api.ask("GET", f"/notebooks/{identifier}")
        except (SmokeError, BotoCoreError, ClientError):
            # If there is one, its user cannot be removed, and that is told with its id.
            return

    def _delete(self) -> str:
        api, machine = self._api, self._notebook.get("instance_id")
        assert api is not None
        api.ask("DELETE", f"/notebooks/{self._id}", params={"confirm": self._notebook["name"]})
        self._wait(api, "terminated", CHANGE_SECONDS, also=("failed",))
        return f"{machine or 'its machine'} and its disk are gone"

    def _looked_back(self) -> None:
        histories = self._histories()
        with self._row("workflows", goes_on=True) as row:
            if histories is None:
                row.answer, row.seen = Answer.UNSEEN, "Step Functions does not show its histories"
            else:
                wrong = [f"{name} {status}" for name, status in histories.executions.items() if status != "SUCCEEDED"]
                met = ", ".join(f"{count} {name}" for name, count in sorted(histories.errors.items()))
                row.seen = f"{len(histories.executions)} executions, {histories.transitions} transitions"
                row.seen += f"; met and retried: {met}" if met else ""
                if wrong:
                    raise SmokeError(", ".join(wrong))
        with self._row("messages", goes_on=True) as row:
            told = {one["channel"]: one["state"] for one in self._notebook["notifications"]}
            row.seen = ", ".join(f"{channel}: {state}" for channel, state in told.items())
            if not told:
                row.answer, row.seen = Answer.UNSEEN, "no EMAIL=… was given"
            elif "failed" in told.values():
                raise SmokeError(row.seen)
        with self._row("rights", goes_on=True) as row:
            try:
                refusals = self.place.account.refusals(self._began)
            except SmokeError as error:
                row.answer, row.seen = Answer.UNSEEN, str(error)
            else:
                if refusals:
                    raise SmokeError("; ".join(refusals))
                row.seen = "none"
        so_far = self._notebook.get("cost", {}).get("so_far")
        transitions = histories.transitions * TRANSITION_PRICE if histories else 0.0
        self.cost = None if so_far is None else float(so_far) + transitions

    def _left(self) -> list[str]:
        left: list[str] = []
        if self._notebook:
            try:
                self._until(lambda: not self._machines_and_disks(), 120, "")
            except SmokeError:
                left += self._machines_and_disks()
            except (BotoCoreError, ClientError) as error:
                left.append(f"EC2 cannot be asked what is left of {self._id}: {said(error)}")
        if self._user_asked_for:
            try:
                # Without a token too: the answer may have been lost, or not waited for.
                if self.place.deployment.users.named(self._user) is not None:
                    users.remove_user(self.place.deployment, self._user)
            except AdminError as error:
                left.append(f"the user {self._user}: {error.detail}")
            except (BotoCoreError, ClientError) as error:
                left.append(f"the user {self._user}: {said(error)}")
        return left

    def _machines_and_disks(self) -> list[str]:
        account = self.place.account
        return [f"the machine {one}" for one in account.machines(self._id)] + [
            f"the disk {one}" for one in account.disks(self._id)
        ]

    # --- what the steps share ---

    @property
    def _id(self) -> str:
        return str(self._notebook["id"])

    def _wait(self, api: Api, state: str, seconds: float, *, also: tuple[str, ...] = ()) -> None:
        def arrived() -> bool:
            self._notebook |= api.ask("GET", f"/notebooks/{self._id}")
            now = self._notebook["state"]
            if now in ("failed", "terminated") and now not in (state, *also):
                error = self._notebook.get("error") or {}
                raise SmokeError(f"it is {now}: {error.get('message', 'no reason given')} ({error.get('code')})")
            return now in (state, *also)

        self._until(arrived, seconds, lambda: f"it is still {self._notebook['state']} after {seconds:.0f} s")
        error = self._notebook.get("error")
        if state in ("ready", "stopped") and error:
            raise SmokeError(f"it is {state}, but {error.get('message')} ({error.get('code')})")

    def _until(self, condition: Callable[[], Any], seconds: float, late: str | Callable[[], str]) -> None:
        end = self.clock.monotonic() + seconds
        while not condition():
            if self.clock.monotonic() > end:
                raise SmokeError(late if isinstance(late, str) else late())
            self.clock.sleep(LOOK_SECONDS)

    def _beats(self, api: Api) -> bool:
        self._notebook |= api.ask("GET", f"/notebooks/{self._id}")
        return self._notebook.get("last_activity") is not None

    def _is_free(self) -> bool:
        found = [user for user in users.list_users(self.place.deployment) if user.name == self._user]
        return bool(found) and self._id not in found[0].active

    def _histories(self) -> Histories | None:
        try:
            return self.place.account.histories(self._id)
        except SmokeError:
            return None

    def _asked(self, ask: Callable[[], str]) -> str:
        try:
            return ask()
        except (BotoCoreError, ClientError) as error:
            return f"not known: {said(error)}"

    @contextmanager
    def _row(self, key: str, *, goes_on: bool = False) -> Iterator[_Open]:
        """One row: told at the end of the block. `goes_on`: what is wrong there keeps nothing else from being seen."""
        began = self.clock.monotonic()
        row = _Open()
        try:
            yield row
        except SmokeError as error:
            self._tell(Row(key, Answer.NO, str(error), self.clock.monotonic() - began))
            if not goes_on:
                raise
        except (BotoCoreError, ClientError) as error:
            self._tell(Row(key, Answer.NO, said(error), self.clock.monotonic() - began))
            if not goes_on:
                raise SmokeError(said(error)) from error
        else:
            self._tell(Row(key, row.answer, row.seen, self.clock.monotonic() - began))

    def _tell(self, row: Row) -> None:
        self.rows.append(row)
        # Where nobody reads any more, what was made is removed all the same.
        with suppress(OSError):
            self.say(row.line())


@dataclass
class _Open:
    """A row that is being looked at."""

    answer: Answer = Answer.YES
    seen: str = "yes"


def _steps(notebook: dict[str, Any]) -> str:
    """The seconds of each step that has them."""
    spent = []
    for step in notebook["steps"]:
        if step["started_at"] and step["finished_at"]:
            began, ended = (datetime.fromisoformat(step[key]) for key in ("started_at", "finished_at"))
            spent.append(f"{step['name']} {(ended - began).total_seconds():.0f} s")
    return ", ".join(spent)


def _money(amount: object) -> str:
    return "an unknown price" if amount is None else f"${float(str(amount)):.4f}"
