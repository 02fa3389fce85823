"""No dead ends behind links: every action in every state, with every kind of token, with the key and without.

Who has the notebook's key is led back to its page; who has a token of ours for it sees what it does now; who has
neither gets the page that anybody gets for any id.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator
from dataclasses import fields, replace
from datetime import datetime, timedelta
from typing import Any
from unittest import mock
from urllib.parse import urlencode

import pytest
from chalice.test import Client, HTTPResponse

from chalicelib import links, messages, times
from chalicelib.aws.ledger import Event
from chalicelib.aws.transitions import NotMoved, line_of
from chalicelib.errors import Unavailable
from chalicelib.model import Notebook, Stop, User
from chalicelib.notebook.moves import Move
from chalicelib.views import NotebookView
from tests.unit.stage import API_URL, ENV, ROOT, fresh_app
from tests.unit.test_life import FORM, location, page
from tests.unit.test_rules import NOW as T0
from tests.unit.test_rules import PRICES, a_notebook, a_user

STATES = (
    "requested",
    "launching",
    "ready",
    "stopping",
    "stopped",
    "starting",
    "failed",
    "terminating",
    "terminated",
)
FITS = {("ready", "extend"), ("ready", "stop"), ("starting", "extend"), ("stopped", "wake")}
SAYS_IT_ALL = ("requested", "launching", "failed", "terminating", "terminated")
"""States in which every button is out of date, and the page needs no word of it."""
NOBODYS = f"nb-{'0' * 20}"


class World:
    """The app over records in memory, which does what its tables would: thousands of requests in seconds."""

    def __init__(self) -> None:
        self.app = fresh_app()
        self.now = T0
        self.owner = a_user(quota=5)
        self.records: dict[str, Notebook] = {}
        self.lines: list[Event] = []
        self.refuses = False
        one = replace(a_notebook(), api_url=API_URL, instance_id="i-0123456789abcdef0", address="198.51.100.7")
        self.one, self.other = one.id, f"nb-{'1' * 20}"
        self.records = {self.one: one, self.other: replace(one, id=self.other, name="other", state="ready")}
        self.put("ready")
        self.app.now = lambda: self.now  # type: ignore[attr-defined]
        for name in ("notebooks", "users", "workflows", "ledger", "heartbeats"):
            setattr(self.app, name, lambda name=name: _Gateway(self, name))
        self._client = Client(self.app.app, project_dir=str(ROOT / "tests"))

    def put(self, state: str) -> None:
        """The record of `one`, as its workflows would leave it."""
        stop = Stop("idle", "idle since 13:05 UTC", "sweep") if state in ("stopping", "stopped") else None
        self.records[self.one] = replace(self.records[self.one], state=state, stop=stop, hold_until=None)

    @property
    def state(self) -> str:
        return self.records[self.one].state

    @property
    def key(self) -> str:
        return links.key(self.owner.secret, self.records[self.one])

    def http(self, method: str, path: str, body: bytes = b"") -> HTTPResponse:
        return self._client.http.request(method, path, headers={"Content-Type": FORM} if body else {}, body=body)

    def press(self, action: str, identifier: str | None = None, **fields: str) -> HTTPResponse:
        """Sends a form as a browser would."""
        return self.http("POST", f"/n/{identifier or self.one}/{action}", urlencode(fields or {"f": ""}).encode())

    def token(self, purpose: str, action: str, expires: datetime, of: str | None = None) -> str:
        return links.token(self.owner.secret, purpose, action, self.records[of or self.one], expires)

    def mail(self, action: str) -> str:
        """Path and query of the link in a message that goes out now."""
        link = links.action_link(self.owner.secret, action, self.records[self.one], self.now)
        assert link is not None
        return link.removeprefix(API_URL)

    def reached(self, answer: HTTPResponse) -> str:
        """The page that a browser comes to in the end."""
        seen = 0
        while answer.status_code == 303:
            answer = self.http("GET", location(answer))
            seen += 1
            assert seen < 3, "round and round"
        return page(answer, answer.status_code)


def _known(move: Move) -> dict[str, Any]:
    """What the transition makes of the record."""
    after = move.after
    return {entry.name: getattr(after, entry.name) for entry in fields(after)}


class _Gateway:
    """Every gateway in one."""

    def __init__(self, world: World, name: str) -> None:
        self._world = world
        self._name = name

    def get(self, identifier: str) -> Notebook | User | None:
        if self._name == "users":
            running = {one.id for one in self._world.records.values() if one.state not in OFF}
            owner = self._world.owner
            return replace(owner, active=frozenset(running)) if identifier == owner.id else None
        return self._world.records.get(identifier)

    def _change(self, notebook: Notebook, states: tuple[str, ...], **values: Any) -> Notebook | None:
        if self._world.refuses:
            raise Unavailable("The table did not answer.")
        known = self._world.records[notebook.id]
        if known.state not in states:
            return None
        self._world.records[notebook.id] = replace(known, **values)
        return self._world.records[notebook.id]

    def move(self, move: Move) -> Notebook | NotMoved:
        if move.transition.joins:
            owner = _Gateway(self._world, "users").get(self._world.owner.id)
            assert isinstance(owner, User)
            if len(owner.active) >= owner.quota:
                return NotMoved.QUOTA
        moved = self._change(move.notebook, tuple(move.transition.before), **_known(move))
        if moved is None:
            return NotMoved.CHANGED
        self._world.lines.append(line_of(move))
        return moved

    def hold(self, notebook: Notebook, until: datetime, _now: datetime) -> Notebook | None:
        return self._change(notebook, ("ready", "starting"), hold_until=times.to_text(until))

    def start(self, *_: object) -> bool:
        return True

    def read(self, _: object) -> dict[str, Any]:
        return {}

    def write(self, lines: list[Event]) -> None:
        self._world.lines.extend(lines)


OFF = ("stopped", "failed", "terminated")


@pytest.fixture(scope="module")
def running() -> Iterator[World]:
    with mock.patch.dict(os.environ, {**ENV, "NOD_API_URL": API_URL}):
        yield World()


@pytest.fixture
def world(running: World) -> World:
    running.now, running.refuses = T0, False
    running.owner = replace(running.owner, quota=5)
    running.lines.clear()
    running.put("ready")
    return running


SOON, OVER = T0 + timedelta(minutes=9), T0 - timedelta(seconds=1)
OTHER_ACTION = {"wake": "stop", "stop": "extend", "extend": "wake"}
GIVEN = ("fresh", "expired", "long expired", "of another action", "of another notebook", "mail", "done", "odd", "none")


def token_for(world: World, action: str, given: str, purpose: str = links.FORM) -> str | None:
    return {
        "fresh": world.token(purpose, action, SOON),
        "expired": world.token(purpose, action, OVER),
        "long expired": world.token(purpose, action, T0 - timedelta(days=9)),
        "of another action": world.token(purpose, OTHER_ACTION[action], SOON),
        "of another notebook": world.token(purpose, action, SOON, world.other),
        "mail": world.token(links.MAIL, action, SOON),
        "done": world.token(links.DONE, action, SOON),
        "odd": f"{int(SOON.timestamp())}.{'A' * 32}",
        "none": None,
    }[given]


def tells(html: str, state: str) -> bool:
    """Whether a page says what the notebook does now."""
    words = {
        "requested": "is being set up",
        "launching": "is being set up",
        "ready": "is running",
        "stopping": "is stopping",
        "stopped": "is stopped",
        "starting": "is waking up",
        "terminating": "is being deleted",
        "terminated": "is deleted",
        "failed": "failed",
    }
    return f"thesis {words.get(state, 'is ' + state)}" in html or "thesis is kept until" in html


def buttons(html: str) -> set[str]:
    return set(re.findall(r'<form method="post" action="[^"]*/(\w+)">', html))


def form_of(html: str, action: str) -> dict[str, str]:
    """The hidden fields of the form of one action."""
    found = re.search(rf'<form method="post" action="[^"]*/{action}">(.*?)</form>', html)
    assert found, html
    return dict(re.findall(r'name="(\w)" value="([^"]+)"', found[1]))


@pytest.mark.parametrize("action", links.ACTIONS)
@pytest.mark.parametrize("state", STATES)
def test_with_the_key_every_button_leads_back_to_the_notebooks_own_page(world: World, state: str, action: str) -> None:
    for given in GIVEN:
        world.put(state)
        token = token_for(world, action, given)
        before = world.records[world.one]
        answer = world.press(action, k=world.key, **({"f": token} if token else {}))
        assert location(answer).startswith(f"/n/{world.one}?k={world.key}"), given
        does = given == "fresh" and (state, action) in FITS
        assert (world.records[world.one] != before) is does, given
        html = world.reached(answer)
        assert tells(html, world.state), (given, html)
        assert "othing changed" not in html
        assert "othing was changed" not in html
        assert buttons(html) == {one for one in links.ACTIONS if (world.state, one) in FITS}, given
        said = 'class="note"' in html
        assert said is not does or (given == "fresh" and state in SAYS_IT_ALL), given


@pytest.mark.parametrize("action", links.ACTIONS)
@pytest.mark.parametrize("state", STATES)
def test_without_the_key_what_is_ours_shows_what_is_so_now_and_nothing_else_shows_anything(
    world: World, state: str, action: str
) -> None:
    nothing = page(world.press(action, NOBODYS, f="x"), 403)
    wrong = [None, "A" * 32, links.key(world.owner.secret, world.records[world.other]), "\0"]
    for given, key in itertools.product(GIVEN, wrong):
        world.put(state)
        token = token_for(world, action, given)
        before = world.records[world.one]
        fields = {name: value for name, value in (("f", token), ("k", key)) if value is not None}
        answer = world.press(action, **fields)
        does = given == "fresh" and (state, action) in FITS
        assert (world.records[world.one] != before) is does, (given, key)
        if given not in ("fresh", "expired", "long expired"):
            assert page(answer, 403) == nothing, (given, key)
            continue
        html = world.reached(answer)
        assert tells(html, world.state), given
        assert "?k=" not in html
        assert "198.51.100.7" not in html
        # What is too old gets nothing that is in its time, but for the button that wakes.
        assert buttons(html) == ({"wake"} if world.state == "stopped" else set()), given
        too_old = given != "fresh" and (world.state, action) in FITS and action != "wake"
        assert ("use its own link" in html) is too_old, given


@pytest.mark.parametrize("action", links.ACTIONS)
@pytest.mark.parametrize("state", STATES)
def test_a_link_of_a_message_tells_what_is_so_now_and_wakes_what_has_stopped(
    world: World, state: str, action: str
) -> None:
    world.put(state)
    nothing = page(world.http("GET", f"/n/{NOBODYS}/{action}?t=x"), 403)
    for given, purpose, query in (
        ("fresh", links.MAIL, "t"),
        ("expired", links.MAIL, "t"),
        ("long expired", links.MAIL, "t"),
        ("fresh", links.DONE, "d"),
        ("expired", links.DONE, "d"),
        ("of another action", links.MAIL, "t"),
        ("of another notebook", links.MAIL, "t"),
        ("fresh", links.FORM, "t"),
        ("odd", links.MAIL, "t"),
        ("none", links.MAIL, "t"),
    ):
        token = token_for(world, action, given, purpose)
        before = world.records[world.one]
        path = f"/n/{world.one}/{action}?" + (f"{query}={token}" if token else "")
        answer = world.http("GET", path)
        ours = purpose != links.FORM and given in ("fresh", "expired", "long expired")
        if not ours:
            assert page(answer, 403) == nothing, (given, purpose)
        else:
            html = page(answer, 200 if given == "fresh" else 410)
            fits = (state, action) in FITS and given == "fresh" and purpose == links.MAIL
            assert fits or tells(html, state), (given, purpose)
            assert buttons(html) == ({action} if fits else set()) | ({"wake"} if state == "stopped" else set())
            assert given == "fresh" or purpose == links.DONE or "too old" in html
        # Whatever they hold beside it, the key opens the notebook's own page.
        html = world.reached(world.http("GET", f"{path}&k={world.key}"))
        assert tells(html, state)
        assert buttons(html) == {one for one in links.ACTIONS if (state, one) in FITS}
        assert world.records[world.one] == before, "a GET changes nothing"


def test_an_action_that_there_is_not_leads_back_with_the_key_alone(world: World) -> None:
    for action in ("delete", "explode", "WAKE", "start"):
        assert tells(world.reached(world.press(action, f="x", k=world.key)), "ready")
        assert tells(world.reached(world.http("GET", f"/n/{world.one}/{action}?k={world.key}")), "ready")
        nothing = page(world.press(action, NOBODYS, f="x"), 404)
        assert page(world.press(action, f="x"), 404) == nothing
        assert page(world.http("GET", f"/n/{world.one}/{action}"), 404) == nothing


def test_a_second_click_says_that_the_first_one_worked(world: World) -> None:
    form = {"f": world.token(links.FORM, "stop", SOON), "k": world.key}
    first, second = world.press("stop", **form), world.press("stop", **form)
    assert "already stopping" not in world.reached(first)
    assert "It is already stopping: pressing Stop once is enough." in world.reached(second)
    world.put("stopped")
    assert "It has already stopped" in world.reached(second)
    assert [line.action for line in world.lines] == ["stop"]


def test_two_tabs_that_stop_and_keep_end_where_either_would(world: World) -> None:
    html = page(world.http("GET", f"/n/{world.one}?k={world.key}"))
    stop, keep = form_of(html, "stop"), form_of(html, "extend")
    world.press("stop", **stop)
    assert "It began to stop before you pressed" in world.reached(world.press("extend", **keep))
    world.put("stopped")
    html = world.reached(world.press("extend", **keep))
    assert "It stopped before you pressed" in html
    assert buttons(html) == {"wake"}


def test_a_page_that_was_open_for_an_hour_leads_on(world: World) -> None:
    form = form_of(page(world.http("GET", f"/n/{world.one}?k={world.key}")), "stop")
    world.now = T0 + timedelta(hours=1)
    html = world.reached(world.press("stop", **form))
    assert "That page had been open for more than 10 minutes" in html
    assert "is stopping" in world.reached(world.press("stop", **form_of(html, "stop")))


@pytest.mark.parametrize("action", ["extend", "stop"])
def test_a_link_that_leaked_alone_does_no_more_when_its_time_is_over(world: World, action: str) -> None:
    """However its pages are led to: by what they hold, or by an address that somebody wrote by hand."""
    pressed = world.press(action, **form_of(page(world.http("GET", world.mail(action))), action))
    world.put("ready")
    where = location(pressed)
    for address in (where, f"{where}&note=old-page"):
        assert buttons(page(world.http("GET", address))) == set()
    form = {"f": world.token(links.FORM, action, SOON)}
    world.now = T0 + timedelta(hours=3)
    assert buttons(world.reached(world.press(action, **form))) == set()


def test_after_stop_it_now_comes_wake_it_also_without_the_key(world: World) -> None:
    stopped = world.press("stop", **form_of(page(world.http("GET", world.mail("stop"))), "stop"))
    assert buttons(world.reached(stopped)) == set()
    world.put("stopped")
    html = world.reached(stopped)
    assert buttons(html) == {"wake"}
    assert "is waking up" in world.reached(world.press("wake", **form_of(html, "wake")))


@pytest.mark.parametrize("later", [timedelta(minutes=30), timedelta(hours=9), timedelta(days=30)])
@pytest.mark.parametrize("action", ["extend", "stop"])
def test_a_warning_that_is_read_after_the_stop_wakes_it(world: World, action: str, later: timedelta) -> None:
    link = world.mail(action)
    world.put("stopped")
    world.now = T0 + later
    html = world.reached(world.http("GET", link))
    assert "is waking up" in world.reached(world.press("wake", **form_of(html, "wake")))


def test_over_the_quota_the_page_says_what_to_stop_and_wakes_when_there_is_room(world: World) -> None:
    world.put("stopped")
    form = {"f": world.token(links.FORM, "wake", SOON), "k": world.key}
    world.owner = replace(world.owner, quota=1)
    answer = world.press("wake", **form)
    html = world.reached(answer)
    assert "(other). Stop one first." in html
    assert buttons(html) == set()
    world.owner = replace(world.owner, quota=5)
    html = world.reached(answer)
    assert "Your limit of running notebooks was reached when you pressed. You can try again." in html
    assert buttons(html) == {"wake"}


@pytest.mark.parametrize("with_key", [True, False])
def test_aws_that_does_not_answer_a_click_leads_back_too(world: World, with_key: bool) -> None:
    world.refuses = True
    form = {"f": world.token(links.FORM, "stop", SOON), **({"k": world.key} if with_key else {})}
    html = world.reached(world.press("stop", **form))
    assert "AWS did not answer that click in time" in html
    assert tells(html, "ready")


@pytest.mark.parametrize("path", ["", "/stop"])
def test_head_answers_as_get_without_a_body_and_changes_nothing(world: World, path: str) -> None:
    before = world.records[world.one]
    queries = (f"?k={world.key}", f"?t={world.token(links.MAIL, 'stop', SOON)}", "?k=wrong", "?k=1&k=2", "")
    for one, query in itertools.product((world.one, NOBODYS, "x"), queries):
        got, head = (world.http(method, f"/n/{one}{path}{query}") for method in ("GET", "HEAD"))
        assert head.status_code == got.status_code
        assert head.headers == got.headers
        assert got.body or got.status_code == 303
        assert head.body == b""
    assert world.records[world.one] == before


def test_page_ledger_and_message_say_that_somebody_with_the_link_did_it(world: World) -> None:
    def click(action: str) -> str:
        return world.reached(world.press(action, f=world.token(links.FORM, action, SOON), k=world.key))

    click("extend")
    assert "someone with ada&#x27;s link stopped it." in click("stop")
    stopped = replace(world.records[world.one], state="stopped", stopped_at="2026-11-22T14:05:00.000Z")
    world.records[world.one] = stopped
    view = NotebookView.of(stopped, PRICES, "us-east-1", T0)
    told = messages.compose("stopped", messages.About(stopped, world.owner, view, PRICES, "us-east-1", T0), ("email",))
    assert "stopped at 14:05 UTC: someone with ada's link stopped it." in " ".join(told.text.split())
    click("wake")
    assert [(line.action, line.by, line.reason) for line in world.lines] == [
        ("extend", "link", "someone with ada's link asked for 2 hours; it is kept until 2026-11-22 16:05 UTC"),
        ("stop", "link", "someone with ada's link stopped it"),
        ("start", "link", "someone with ada's link woke it"),
    ]
