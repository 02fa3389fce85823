"""GET /n/{id}, and GET and POST /n/{id}/{action}: people who come by a link, without a token of the API.

Nobody who shows something of ours for a notebook is left at a dead end. Who has its key is led back to its own page,
whatever was asked for and whatever became of it. Who has a token of ours for it, however old, sees what it does now,
but only a token that is in time does anything. Waking is open to any of them: each came in a message with the key.
Who has neither learns nothing, not even whether there is such a notebook.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal

from chalicelib import body, links, pages, times, tokens
from chalicelib.actions.extending import extend, kept
from chalicelib.actions.showing import Showing
from chalicelib.actions.starting import Starting
from chalicelib.actions.stopping import stop
from chalicelib.aws.faults import as_unavailable
from chalicelib.aws.notebooks import NotebooksTable
from chalicelib.aws.users import UsersTable
from chalicelib.aws.workflows import Workflows
from chalicelib.costs import disk_month, last_run
from chalicelib.errors import LinkNotValid, NotFound, QuotaExceeded, Unavailable, WrongState
from chalicelib.idle_words import hours
from chalicelib.links import Verdict
from chalicelib.log import logger
from chalicelib.model import EMAIL, LINK, Notebook, User
from chalicelib.notebook import life
from chalicelib.notebook.life import State
from chalicelib.pages import Form, Note, Page

# No user's id has this form, so it is looked up and never found.
_NOBODY = "-"


@dataclass(frozen=True)
class Redirect:
    """Where the browser goes on, by GET."""

    location: str


@dataclass(frozen=True)
class Act:
    """What was done, and where its page is. `reason`: for the ledger, where no transition has left its line there."""

    notebook: Notebook
    reason: str | None
    location: str


@dataclass(frozen=True)
class _Found:
    notebook: Notebook
    owner: User


class Visits:
    """Takes the gateways it acts on. `prefix` stands before /n/ in the paths of this API (its stage)."""

    def __init__(
        self,
        *,
        notebooks: NotebooksTable,
        users: UsersTable,
        workflows: Workflows,
        showing: Showing,
        starting: Starting,
        prefix: str,
    ) -> None:
        self._notebooks = notebooks
        self._users = users
        self._workflows = workflows
        self._showing = showing
        self._starting = starting
        self._prefix = prefix

    def look(self, notebook_id: str, key: str | None, *, note: str | None, now: datetime) -> Page:
        """The link for life: what the notebook does, with its buttons and the way in. `note`: what led here.

        Raises:
            NotFound: in the same words, after the same reads, whether there is no such notebook or the key is wrong.
        """
        found, nothing = self._find(notebook_id), links.Nothing()
        notebook = found.notebook if found else nothing
        if not links.opens(key, found.owner.secret if found else "", notebook) or found is None:
            raise NotFound(
                "There is nothing behind this link. It may be mistyped, or a newer one has replaced it: try the first "
                "link in the newest message about your notebook."
            )
        situation = self._situation(found, now, opened=True)
        forms = {action: self._form(found, action, key, now) for action in pages.fitting(situation)}
        return pages.state(situation, forms, self._life(found, key), Note.of(note))

    def ask(
        self,
        notebook_id: str,
        action: str,
        *,
        mail: str | None,
        done: str | None,
        key: str | None,
        note: str | None,
        now: datetime,
    ) -> Redirect | Page:
        """A link of a message (`mail`): a page with one button. After a button (`done`): what became of it.

        Raises:
            NotFound: there is no such action.
            LinkNotValid: neither the key nor the token is one of ours for this notebook.
        """
        purpose, token = (links.DONE, done) if done is not None else (links.MAIL, mail)
        found, opened, verdict = self._judge(notebook_id, action, purpose=purpose, token=token, key=key, now=now)
        if opened:
            late = Note.OLD_LINK if verdict is Verdict.EXPIRED and purpose == links.MAIL else None
            return Redirect(self._life(found, key, late))
        situation = self._situation(found, now, opened=False)
        # What any link leads to: a warning that is read in the morning.
        wake = {one: self._form(found, one, None, now) for one in pages.fitting(situation) if one == links.WAKE}
        if purpose == links.DONE:
            page = pages.done(situation, action, None, wake, Note.of(note))
            return page if verdict is Verdict.VALID else replace(page, status=410)
        if verdict is Verdict.EXPIRED:
            return pages.late(situation, action, wake)
        return pages.ask(situation, action, self._form(found, action, None, now), wake)

    def act(self, notebook_id: str, action: str, raw: bytes, content_type: str | None, now: datetime) -> Act | Redirect:
        """A button: does it, once the form shows that one of our pages made it. A Redirect: it was not done, and the
        page it leads to tells why and what is so now.

        Raises:
            BodyTooLarge, UnsupportedMediaType, MalformedBody, InvalidFields, NotFound, LinkNotValid: nothing was done.
        """
        form = body.read_form(raw, content_type, ("f", "k"))
        key = form.get("k")
        found, opened, verdict = self._judge(
            notebook_id, action, purpose=links.FORM, token=form.get("f"), key=key, now=now
        )

        def back(note: Note | None) -> Redirect:
            return self._back(found, action, key if opened else None, note, now)

        if verdict is not Verdict.VALID:
            return back(Note.OTHER if verdict is Verdict.FORGED else Note.OLD_PAGE)
        try:
            with as_unavailable("AWS"):
                notebook, reason = self._do(action, found, now)
        except WrongState:
            return back(Note(action))
        except QuotaExceeded:
            return back(Note.QUOTA)
        except Unavailable as error:
            logger.error("a button was not answered", action=action, exc_info=error)
            return back(Note.BUSY)
        return Act(notebook, reason, back(Note.KEPT if action == links.EXTEND else None).location)

    def _do(self, action: str, found: _Found, now: datetime) -> tuple[Notebook, str | None]:
        """The record as it is then, and what is still to be told to the ledger."""
        notebook, settings = found.notebook, self._showing.settings
        who = f"someone with {found.owner.name}'s link"
        if action == links.WAKE:
            return self._starting.start(notebook, LINK, f"{who} woke it", now), None
        if action == links.EXTEND:
            wanted = links.extend_hours(found.owner)
            held = extend(notebook, wanted, now=now, notebooks=self._notebooks, minute=settings.minute)
            return held, f"{who} asked for {hours(wanted)}; {kept(held)}"
        stopped = stop(
            notebook,
            LINK,
            f"{who} stopped it",
            now=now,
            notebooks=self._notebooks,
            workflows=self._workflows,
            stop_arn=settings.stop_arn,
        )
        return stopped, None

    def _find(self, notebook_id: str) -> _Found | None:
        """Reads as much for a notebook that there is not."""
        if not tokens.is_notebook_id(notebook_id):
            return None
        notebook = self._notebooks.get(notebook_id)
        owner = self._users.get(notebook.owner if notebook else _NOBODY)
        return _Found(notebook, owner) if notebook and owner else None

    def _judge(
        self, notebook_id: str, action: str, *, purpose: str, token: str | None, key: str | None, now: datetime
    ) -> tuple[_Found, bool, Verdict]:
        """The notebook, whether the key opens it, and what the token is worth. Reads and compares as much for a
        notebook that there is not, and for a key that is wrong.

        Raises:
            NotFound: there is no such action, and no valid key.
            LinkNotValid: neither is of ours for this notebook.
        """
        found = self._find(notebook_id)
        notebook, secret = (found.notebook, found.owner.secret) if found else (links.Nothing(), "")
        opened = links.opens(key, secret, notebook) and found is not None
        verdict = links.check(token, secret=secret, purpose=purpose, action=action, notebook=notebook, now=now)
        if action not in links.ACTIONS:
            if not opened or found is None:
                raise NotFound("There is no such page. Use the first link in the newest message about your notebook.")
            return found, opened, Verdict.FORGED
        if found is None or not (opened or verdict is not Verdict.FORGED):
            raise LinkNotValid(
                "This link or button is not complete, was made for something else, or a newer link has replaced it. It "
                "did nothing. Use the first link in the newest message about your notebook."
            )
        return found, opened, verdict

    def _form(self, found: _Found, action: str, key: str | None, now: datetime) -> Form:
        target = f"{self._prefix}/n/{found.notebook.id}/{action}"
        return Form(action, target, links.form_token(found.owner.secret, action, found.notebook, now), key)

    def _life(self, found: _Found, key: str | None, note: Note | None = None) -> str:
        return f"{self._prefix}/n/{found.notebook.id}?k={key}" + (f"&note={note}" if note else "")

    def _back(self, found: _Found, action: str, key: str | None, note: Note | None, now: datetime) -> Redirect:
        """To the page that tells what is so now: by the key where it opened the page, else by a token for that."""
        if key is not None:
            return Redirect(self._life(found, key, note))
        token = links.token(found.owner.secret, links.DONE, action, found.notebook, now + links.FORM_LIFE)
        location = f"{self._prefix}/n/{found.notebook.id}/{action}?d={token}"
        return Redirect(location + (f"&note={note}" if note and note is not Note.KEPT else ""))

    def _situation(self, found: _Found, now: datetime, *, opened: bool) -> pages.Situation:
        notebook, owner = found.notebook, found.owner
        prices, region = self._showing.prices, self._showing.settings.region
        others = owner.active - {notebook.id}
        full = notebook.state == State.STOPPED and len(others) >= owner.quota
        return pages.Situation(
            view=self._showing.one(notebook, None, now),
            now=now,
            # Of a stop or a start no time is kept until it is over.
            since=times.from_text(notebook.created_at) if notebook.state in life.LAUNCHING else None,
            run_cost=_money(last_run(notebook, prices, region, now), prices.currency),
            disk_month=_money(disk_month(notebook, prices, region), prices.currency),
            in_the_way=self._names(others) if full else (),
            may_run=not full,
            extend_hours=links.extend_hours(owner),
            mail_is_off=owner.mail_is_off and EMAIL in notebook.notify,
            to=links.destination(notebook) if opened else None,
        )

    def _names(self, ids: frozenset[str]) -> list[str]:
        found = (self._notebooks.get(notebook_id) for notebook_id in sorted(ids))
        return [notebook.name for notebook in found if notebook is not None]


def _money(amount: Decimal | None, currency: str) -> str | None:
    return None if amount is None else f"{amount:.2f} {currency}"
