"""GET /n/{id}, and GET and POST /n/{id}/{action}: people who come by a link, without a token of the API."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from chalicelib import body, links, pages, times, tokens
from chalicelib.actions.extending import extend
from chalicelib.actions.showing import Showing
from chalicelib.actions.starting import Starting
from chalicelib.actions.stopping import stop
from chalicelib.aws.notebooks import NotebooksTable
from chalicelib.aws.users import UsersTable
from chalicelib.aws.workflows import Workflows
from chalicelib.costs import disk_month, last_run
from chalicelib.errors import LinkExpired, LinkNotValid, NotFound
from chalicelib.links import Verdict
from chalicelib.model import Notebook, User
from chalicelib.pages import Form, Page

# No user's name has this form, so it is looked up and never found.
_NOBODY = "-"


@dataclass(frozen=True)
class Redirect:
    """Where the browser goes on, by GET."""

    location: str


@dataclass(frozen=True)
class Act:
    """What was done: to which notebook, and where its page is."""

    notebook: Notebook
    by: str
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

    def look(self, notebook_id: str, key: str | None, *, stay: bool, now: datetime) -> Redirect | Page:
        """The link for life: on to the notebook when it is ready (unless one wants to `stay`), else what it does.

        Raises:
            NotFound: in the same words, after the same reads, whether there is no such notebook or the key is wrong.
        """
        found, nothing = self._find(notebook_id), links.Nothing()
        notebook = found.notebook if found else nothing
        if not links.opens(key, found.owner.secret if found else "", notebook) or found is None:
            raise NotFound("There is nothing behind this link. It may be mistyped, or a newer one has replaced it.")
        to = links.destination(found.notebook)
        if to is not None and not stay and self._showing.one(found.notebook, None, now).not_answering is None:
            return Redirect(to)
        return self._page(found, key, now)

    def ask(
        self, notebook_id: str, action: str, *, mail: str | None, done: str | None, key: str | None, now: datetime
    ) -> Page:
        """A link of a message (`mail`): a page with one button. After a button (`done`): what became of it.

        Raises:
            NotFound: there is no such action.
            LinkNotValid, LinkExpired
        """
        purpose, token = (links.DONE, done) if done is not None else (links.MAIL, mail)
        found = self._verified(notebook_id, action, purpose, token, now)
        situation = self._situation(found, now)
        opened = links.opens(key, found.owner.secret, found.notebook)
        if purpose == links.DONE:
            return pages.done(situation, action, self._life(found, key) if opened else None)
        return pages.ask(situation, action, self._form(found, action, None, now))

    def act(self, notebook_id: str, action: str, raw: bytes, content_type: str | None, now: datetime) -> Act:
        """A button: does it, once the form shows that one of our pages made it.

        Raises:
            BodyTooLarge, UnsupportedMediaType, MalformedBody, InvalidFields, NotFound, LinkNotValid, LinkExpired,
            WrongState, QuotaExceeded: nothing was done.
            Unavailable: as of what it does.
        """
        form = body.read_form(raw, content_type, ("f", "k"))
        found = self._verified(notebook_id, action, links.FORM, form.get("f"), now)
        notebook = self._do(action, found, now)
        key = form.get("k")
        if not links.opens(key, found.owner.secret, found.notebook):
            key = None
        if key is not None and action == links.WAKE:
            return Act(notebook, found.owner.name, self._life(found, key))
        token = links.token(found.owner.secret, links.DONE, action, notebook, now + links.FORM_LIFE)
        location = f"{self._prefix}/n/{notebook.id}/{action}?d={token}" + (f"&k={key}" if key else "")
        return Act(notebook, found.owner.name, location)

    def _do(self, action: str, found: _Found, now: datetime) -> Notebook:
        notebook, settings = found.notebook, self._showing.settings
        if action == links.WAKE:
            return self._starting.start(notebook, now)
        if action == links.EXTEND:
            hours = links.extend_hours(found.owner)
            return extend(notebook, hours, now=now, notebooks=self._notebooks, minute=settings.minute)
        return stop(
            notebook,
            found.owner.name,
            now=now,
            notebooks=self._notebooks,
            workflows=self._workflows,
            stop_arn=settings.stop_arn,
        )

    def _find(self, notebook_id: str) -> _Found | None:
        """Reads as much for a notebook that there is not."""
        if not tokens.is_notebook_id(notebook_id):
            return None
        notebook = self._notebooks.get(notebook_id)
        owner = self._users.get(notebook.owner if notebook else _NOBODY)
        return _Found(notebook, owner) if notebook and owner else None

    def _verified(self, notebook_id: str, action: str, purpose: str, token: str | None, now: datetime) -> _Found:
        if action not in links.ACTIONS:
            raise NotFound("There is no such page.")
        found = self._find(notebook_id)
        verdict = links.check(
            token,
            secret=found.owner.secret if found else "",
            purpose=purpose,
            action=action,
            notebook=found.notebook if found else links.Nothing(),
            now=now,
        )
        if found is None or verdict is Verdict.FORGED:
            raise LinkNotValid("It is not complete, not for this, or a newer one has replaced it. Nothing was changed.")
        if verdict is Verdict.EXPIRED:
            raise LinkExpired("Nothing was changed. Open the notebook by its own link, which does not expire.")
        return found

    def _page(self, found: _Found, key: str | None, now: datetime) -> Page:
        situation = self._situation(found, now)
        forms = {action: self._form(found, action, key, now) for action in pages.fitting(situation)}
        return pages.state(situation, forms, self._life(found, key))

    def _form(self, found: _Found, action: str, key: str | None, now: datetime) -> Form:
        target = f"{self._prefix}/n/{found.notebook.id}/{action}"
        return Form(action, target, links.form_token(found.owner.secret, action, found.notebook, now), key)

    def _life(self, found: _Found, key: str | None) -> str:
        return f"{self._prefix}/n/{found.notebook.id}?k={key}"

    def _situation(self, found: _Found, now: datetime) -> pages.Situation:
        notebook, owner = found.notebook, found.owner
        prices, region = self._showing.prices, self._showing.settings.region
        others = owner.active - {notebook.id}
        full = notebook.state == "stopped" and len(others) >= owner.quota
        return pages.Situation(
            view=self._showing.one(notebook, None, now),
            now=now,
            # Of a stop or a start no time is kept until it is over.
            since=times.from_text(notebook.created_at) if notebook.state in ("requested", "launching") else None,
            run_cost=_money(last_run(notebook, prices, region, now), prices.currency),
            disk_month=_money(disk_month(notebook, prices, region), prices.currency),
            in_the_way=self._names(others) if full else (),
            may_run=not full,
            extend_hours=links.extend_hours(owner),
        )

    def _names(self, ids: frozenset[str]) -> list[str]:
        found = (self._notebooks.get(notebook_id) for notebook_id in sorted(ids))
        return [notebook.name for notebook in found if notebook is not None]


def _money(amount: Decimal | None, currency: str) -> str | None:
    return None if amount is None else f"{amount:.2f} {currency}"
