"""Every page in a browser: nothing that axe-core finds, in light and dark, on a desk and on a small phone; its own
policy kept; times in the reader's time zone; up to date where it stands."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Route, sync_playwright
from werkzeug.test import EnvironBuilder
from werkzeug.wrappers import Request

from chalicelib import messages, pages, problems
from chalicelib.errors import LinkNotValid, NotFound, Unavailable
from chalicelib.model import Failure, Stop
from chalicelib.notebook.life import State
from local.control import PAGES, Control
from local.faults import Faults
from tests.unit.test_links import ALL, situation
from tests.unit.test_messages import every_message

ROOT = Path(__file__).resolve().parents[2]
AXE = ROOT / "node_modules/axe-core/axe.min.js"
LOOK = """rules => axe.run({resultTypes: ["violations"], ...(rules.length ? {runOnly: rules} : {})})
  .then(found => found.violations.map(rule => [rule.id, rule.nodes.map(node => node.html)]))"""
HERE = "http://pages.example"
FINGERPRINT = ":".join(["AB", "CD"] * 16)
TO = "https://ec2-198-51-100-7.eu-central-1.compute.amazonaws.com:8888"
LINK = "/api/n/nb-1?k=key"
REASON = "idle since 13:05 UTC: no input since 13:05 UTC, kernel idle, no process of yours used CPU, disk or network"


@dataclass(frozen=True)
class Served:
    """What a browser gets."""

    html: str
    headers: Mapping[str, str] = field(default_factory=lambda: pages.HEADERS)


def ours() -> dict[str, pages.Page]:
    """Every page of the product, in every state."""
    stop = Stop("idle", REASON, "sweep")
    failed = Failure("no_capacity", "EC2 has no machine of this type left just now.")
    steps: dict[str, dict[str, object]] = {
        "create_instance": {"started_at": "2026-11-22T14:03:00Z", "finished_at": "2026-11-22T14:03:12Z"},
        "start_instance": {"started_at": "2026-11-22T14:03:12Z"},
    }
    long = "a-name-of-forty-characters-that-is-so-lo"
    running = {"certificate_sha256": FINGERPRINT, "hold_until": "2026-11-23T16:05:00.000Z"}
    stopped = {"stop": stop, "stopped_at": "2026-11-22T14:04:30.000Z"}
    ready = replace(situation("ready", **running), to=TO)
    found = {state: pages.state(situation(state, steps=steps), ALL, LINK) for state in State}
    found |= {
        "ready, opened": pages.state(ready, ALL, LINK),
        "ready, kept": pages.state(ready, ALL, LINK, pages.Note.KEPT),
        "ready, failed to stop": pages.state(replace(situation("ready", error=failed), to=TO), ALL, LINK),
        "starting, on": pages.state(situation("starting", address="198.51.100.7"), ALL, LINK),
        "stopping, why": pages.state(situation("stopping", stop=stop), {}, LINK),
        "stopped, why": pages.state(situation("stopped", **stopped), ALL, LINK),
        "stopped, failed to start": pages.state(situation("stopped", error=failed, **stopped), ALL, LINK),
        "stopped, no room": pages.state(situation("stopped", may_run=False, in_the_way=[long]), {}, LINK),
        "a long name": pages.state(situation("stopped", name=long, **stopped), ALL, LINK),
        "failed, why": pages.state(situation("failed", error=failed), {}, LINK),
    }
    for note in pages.Note:
        found[f"led by {note}"] = pages.state(situation("stopped", **stopped), ALL, LINK, note)
    for action, state in (("wake", "stopped"), ("extend", "ready"), ("stop", "ready")):
        found[f"ask {action}"] = pages.ask(situation(state), action, ALL[action])
        found[f"ask {action} in vain"] = pages.ask(situation("stopping"), action, ALL[action])
        found[f"done {action}"] = pages.done(situation(state, **running), action)
        found[f"late {action}"] = pages.late(situation("stopped", **stopped), action, {"wake": ALL["wake"]})
        found[f"late {action}, runs"] = pages.late(situation("ready"), action, {})
    for error in (NotFound("Nothing is behind it."), LinkNotValid("It did nothing."), Unavailable("AWS is away.")):
        found[f"refused: {error.code}"] = pages.refusal(error.title, error.detail)
    for status in (405, 413, 415, 500):
        problem = problems.of_status(status, "Not here.")
        found[f"refused: {status}"] = pages.refusal(str(problem["title"]), str(problem["detail"]))
    return found


def of_the_local_cloud(folder: Path) -> dict[str, Served]:
    """Its pages, with every message in them."""
    told = [message for message in every_message() if message.kind != "orphan"]
    posts = [json.loads(json.dumps(message.for_lambda())) for message in told]

    class Arrived:
        def __init__(self, entries: list[Any]) -> None:
            self._entries = entries

        def messages(self) -> list[Any]:
            return self._entries

        def to_json(self) -> list[Any]:
            return []

    @dataclass(frozen=True)
    class Letter:
        subject: str
        text: str
        at: str = "2026-11-22T14:05:00Z"
        recipients: tuple[str, ...] = ("ada@example.org",)

        @property
        def links(self) -> list[str]:
            return re.findall(r"https?://[^\s<>\"]+", self.text)

    letters = Arrived([Letter(message.subject, message.text) for message in told])
    slack = Arrived(
        [
            {"at": "2026-11-22T14:05:00Z", "channel": "team", "payload": {"blocks": messages.blocks(post)}}
            for post in posts
        ]
    )
    shown: dict[str, Served] = {}
    for kind, (mails, channel) in {"": (letters, slack), "empty ": (Arrived([]), Arrived([]))}.items():
        control = Control(Faults(), mails, channel, folder)  # type: ignore[arg-type]
        for name in ("", *PAGES, "sns/confirm", "sns/unsubscribe"):
            answer = control(Request(EnvironBuilder(path=f"/_local/{name}").get_environ()))
            if answer.mimetype == "text/html":
                shown[f"local {kind}{name}"] = Served(answer.get_data(as_text=True), dict(answer.headers))
    return shown


def of_the_machine() -> dict[str, Served]:
    """The login page as Jupyter Server renders it."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(ROOT / "instance/files"), extensions=["jinja2.ext.i18n"], autoescape=True
    )
    values = {
        "base_url": "/",
        "next": quote("/lab?", safe=""),
        "static_url": lambda name: f"/static/{name}",
        "xsrf_form_html": lambda: '<input type="hidden" name="_xsrf" value="1"/>',
    }
    headers = {"Content-Type": "text/html; charset=UTF-8", "Content-Security-Policy": "frame-ancestors 'self'"}
    login = environment.get_template("login.html")
    return {
        f"login {name}": Served(login.render(notebook=notebook, message=message, **values), headers)
        for name, notebook, message in (
            ("at first", "thesis", None),
            ("after a wrong password", "a-name-of-forty-characters-that-is-so-lo", {"error": "That is not it."}),
            ("without a name", None, None),
        )
    }


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Served]:
    found = {name: Served(page.html()) for name, page in ours().items()}
    return {**found, **of_the_local_cloud(tmp_path_factory.mktemp("control")), **of_the_machine()}


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu", "--no-proxy-server"]
        )
        yield browser
        browser.close()


@pytest.fixture
def opened(chromium: Browser) -> Iterator[Callable[..., Page]]:
    """Opens a tab that gets its pages from a function of the path; what its console complains of fails the test."""
    contexts: list[BrowserContext] = []
    complaints: list[str] = []

    def open_(answer: Callable[[str], Served], **options: Any) -> Page:
        context = chromium.new_context(**options)
        contexts.append(context)

        def fulfil(route: Route) -> None:
            path = route.request.url.removeprefix(HERE)
            if path.startswith("/static/"):
                route.fulfill(status=204)
                return
            found = answer(path)
            route.fulfill(status=200, headers=dict(found.headers), body=found.html)

        context.route("**/*", fulfil)
        page = context.new_page()
        page.on("console", lambda entry: complaints.append(entry.text) if entry.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        return page

    yield open_
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.mark.parametrize(
    # What is dark differs by its colours alone.
    ("scheme", "width", "rules"),
    [("light", 320, []), ("dark", 375, ["color-contrast"])],
    ids=["light", "dark"],
)
def test_axe_finds_nothing_on_any_page(
    served: dict[str, Served], opened: Callable[..., Page], scheme: str, width: int, rules: list[str]
) -> None:
    names = list(served)
    page = opened(
        lambda path: served[names[int(path.rpartition("/")[2])]],
        color_scheme=scheme,
        viewport={"width": width, "height": 800},
    )
    axe = AXE.read_text(encoding="utf-8")
    wrong: dict[str, Any] = {}
    for number, name in enumerate(names):
        page.goto(f"{HERE}/{number}")
        page.evaluate(axe)
        found = page.evaluate(LOOK, rules)
        wide = page.evaluate("document.documentElement.scrollWidth")
        if found or wide > width:
            wrong[name] = (found, wide)
    assert wrong == {}
    assert len(names) > 60


def test_axe_would_find_something(opened: Callable[..., Page]) -> None:
    page = opened(
        lambda _: Served('<html lang="en"><title>x</title><body><img src="data:,">', {"Content-Type": "text/html"})
    )
    page.goto(f"{HERE}/0")
    page.evaluate(AXE.read_text(encoding="utf-8"))
    assert "image-alt" in page.evaluate("axe.run().then(found => found.violations.map(v => v.id))")


STOPPED = situation("stopped", stop=Stop("idle", REASON, "sweep"), stopped_at="2026-11-22T14:04:30.000Z")


@pytest.mark.parametrize(
    ("zone", "says"),
    [
        ("Asia/Tokyo", "It stopped at 23:04 GMT+9: idle since 22:05 GMT+9"),
        ("America/New_York", "It stopped at 09:04 EST: idle since 08:05 EST"),
        ("Asia/Kolkata", "It stopped at 19:34 GMT+5:30: idle since 18:35 GMT+5:30"),
        ("Pacific/Auckland", "It stopped at 23 Nov 03:04 GMT+13: idle since 23 Nov 02:05 GMT+13"),
    ],
)
def test_times_are_told_in_the_readers_zone(opened: Callable[..., Page], zone: str, says: str) -> None:
    page = opened(lambda _: Served(pages.state(STOPPED, ALL, LINK).html()), timezone_id=zone, locale="de-DE")
    page.goto(f"{HERE}/0")
    text = " ".join(page.inner_text("main").split())
    if zone == "Pacific/Auckland":
        # The same day for who reads it there: no day is told.
        says = says.replace("23 Nov ", "")
    assert says in text
    assert "UTC" not in page.inner_text("body")


def test_a_time_of_another_day_has_its_day_in_the_readers_zone(opened: Callable[..., Page]) -> None:
    known = situation("ready", hold_until="2026-11-23T06:30:00.000Z")
    page = opened(lambda _: Served(pages.state(known, ALL, LINK).html()), timezone_id="America/Los_Angeles")
    page.goto(f"{HERE}/0")
    assert "22:30 PST" in page.inner_text("dl")
    new_year = situation("stopped", stopped_at="2025-12-31T23:30:00.000Z")
    late = replace(new_year, now=new_year.now.replace(year=2026, month=1, day=2))
    page = opened(lambda _: Served(pages.state(late, ALL, LINK).html()), timezone_id="Europe/Berlin")
    page.goto(f"{HERE}/0")
    assert "It stopped at 1 Jan 00:30 GMT+1" in page.inner_text("main")


def test_without_scripts_times_are_utc_and_say_so_and_the_page_loads_itself_again(opened: Callable[..., Page]) -> None:
    asked: list[str] = []

    def answer(path: str) -> Served:
        asked.append(path)
        first = pages.state(situation("starting"), ALL, LINK)
        return Served((first if len(asked) == 1 else pages.state(STOPPED, ALL, LINK)).html())

    page = opened(answer, java_script_enabled=False, timezone_id="Asia/Tokyo")
    page.goto(f"{HERE}/0")
    page.get_by_role("heading", name="thesis is stopped").wait_for(timeout=30_000)
    assert "It stopped at 14:04 UTC" in page.inner_text("main")


def test_a_page_comes_up_to_date_where_it_stands_and_says_so(opened: Callable[..., Page]) -> None:
    steps = [
        pages.state(situation("starting"), ALL, LINK),
        pages.state(situation("starting", address="198.51.100.7"), ALL, LINK),
        pages.state(replace(situation("ready", certificate_sha256=FINGERPRINT), to=TO), ALL, LINK),
    ]
    asked: list[str] = []

    def answer(path: str) -> Served:
        asked.append(path)
        return Served(steps[min(len(asked), len(steps)) - 1].html())

    page = opened(answer)
    page.goto(f"{HERE}/0")
    page.evaluate("window.stays = true")
    keep = page.get_by_role("button", name="Keep it 2 hours")
    keep.focus()
    page.get_by_text("Waiting for Jupyter to answer").wait_for(timeout=30_000)
    assert page.evaluate("document.activeElement.textContent") == "Keep it 2 hours", "nobody loses their place"
    page.get_by_role("link", name="Open thesis").wait_for(timeout=30_000)
    assert page.evaluate("window.stays") is True, "it was not loaded anew"
    assert page.title() == page.inner_text("[role=status]") == "thesis is running"
    seen = len(asked)
    page.wait_for_timeout(1000 * (pages.REFRESH_SECONDS + 1))
    assert len(asked) == seen, "what does not move is not asked for again"
