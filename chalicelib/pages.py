"""The pages behind links: what a notebook is doing, and buttons. HTML without a script and without anything from
elsewhere, for any browser, in words for someone who never heard of AWS."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from html import escape

from chalicelib import links, times
from chalicelib.idle_words import Words
from chalicelib.messages import ahead
from chalicelib.views import NotebookView

CONTENT_TYPE = "text/html; charset=utf-8"
REFRESH_SECONDS = 3

_STYLE = """
:root { color-scheme: light dark; }
body { font: 1.0625rem/1.5 system-ui, sans-serif; max-width: 34rem; margin: 0 auto; padding: 1.5rem 1.25rem;
  overflow-wrap: anywhere; color: #1f2328; background: #fff; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: .5rem 0 1rem; }
ol { padding-left: 1.5rem; }
dl { display: grid; grid-template-columns: auto 1fr; gap: .25rem 1rem; }
dt, footer, .waiting { color: #59636e; }
dd { margin: 0; }
.done::marker { content: "\\2713\\00a0\\00a0"; }
.running { font-weight: 600; }
.failed, .error { color: #c1121f; }
button, .button { display: block; box-sizing: border-box; width: 100%; margin: .75rem 0; padding: .85rem 1rem;
  font: inherit; font-weight: 600; text-align: center; text-decoration: none; border: 1px solid #59636e;
  border-radius: .6rem; color: inherit; background: transparent; cursor: pointer; }
.first { color: #fff; background: #0b57d0; border-color: #0b57d0; }
footer { margin-top: 2rem; font-size: .875rem; }
@media (prefers-color-scheme: dark) {
  body { color: #e6edf3; background: #0d1117; }
  dt, footer, .waiting { color: #9198a1; }
  .failed, .error { color: #ff8a80; }
  .first { color: #fff; background: #1f6feb; border-color: #1f6feb; }
}
"""
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode("ascii")

HEADERS: Mapping[str, str] = {
    "Content-Type": CONTENT_TYPE,
    "Cache-Control": "no-store",
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    # The address of a page is what opens it.
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex",
}

_STEPS = {
    "create_instance": "Get a machine",
    "start_instance": "Switch it on",
    "prepare_instance": "Prepare it",
    "install_anaconda": "Install Anaconda (Python and its packages)",
    "configure_tls": "Make the certificate",
    "start_monitor": "Start watching for activity",
    "configure_notebook": "Start the notebook",
}
_BUTTONS = {links.WAKE: "Wake it", links.STOP: "Stop it now"}
# Of a link that may do one thing and not wake it.
_BY_ITS_LINK = " Its own link, in the message that you got when it was ready, wakes it."
_MOVING = frozenset({"requested", "launching", "starting", "stopping", "terminating"})


@dataclass(frozen=True)
class Form:
    """A button: where it posts to, its form token, and the key of the link for life where that opened the page."""

    action: str
    target: str
    token: str
    key: str | None = None


@dataclass(frozen=True)
class Page:
    """A page. `parts` are HTML already. With `refreshes`, the browser loads it again after some seconds."""

    title: str
    parts: tuple[str, ...]
    refreshes: bool = False

    def html(self) -> str:
        """The whole document."""
        refresh = f'<meta http-equiv="refresh" content="{REFRESH_SECONDS}">\n' if self.refreshes else ""
        return (
            f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta name="viewport" content="width=device-width, initial-scale=1">\n{refresh}'
            f"<title>{escape(self.title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
            f"<h1>{escape(self.title)}</h1>\n" + "\n".join(self.parts) + "\n</main>\n"
            "<footer>Notebook on Demand</footer>\n</body>\n</html>\n"
        )


@dataclass(frozen=True)
class Situation:
    """What there is to say about a notebook.

    `since`: when its launch was asked for; `in_the_way`: other notebooks of the owner that run, where as many run as
    may; `extend_hours`: what the button to keep it gives.
    """

    view: NotebookView
    now: datetime
    since: datetime | None = None
    run_cost: str | None = None
    disk_month: str | None = None
    in_the_way: Sequence[str] = ()
    may_run: bool = True
    extend_hours: int = links.EXTEND_HOURS


def state(situation: Situation, forms: Mapping[str, Form], link: str | None = None) -> Page:
    """What a notebook does, with the buttons that make sense now. `link`: its link for life, where it may be shown."""
    view = situation.view
    say = _Say(situation)
    made = _STATES.get(view.state)
    title, parts = made(say) if made else (f"{view.name} is {view.state}", [])
    if view.state == "ready" and link and view.not_answering is None:
        parts.append(f'<a class="button first" href="{escape(link)}" rel="noreferrer">Open it</a>')
    parts.extend(_button(forms[action], say) for action in fitting(situation) if action in forms)
    return Page(title, tuple(parts), view.state in _MOVING)


def ask(situation: Situation, action: str, form: Form) -> Page:
    """A page with one button, for who comes by a link of a message."""
    view, say = situation.view, _Say(situation)
    if action not in fitting(situation):
        page = state(situation, {})
        verb = {links.WAKE: "wake", links.EXTEND: "keep longer", links.STOP: "stop"}[action]
        how = _BY_ITS_LINK if view.state == "stopped" and action != links.WAKE else ""
        return Page(page.title, (_paragraph(f"There is nothing to {verb} now.{how}"), *page.parts))
    title = {
        links.WAKE: f"Wake {view.name}?",
        links.EXTEND: f"Keep {view.name} {situation.extend_hours} hours?",
        links.STOP: f"Stop {view.name} now?",
    }[action]
    texts = {
        links.WAKE: "It is switched on again, with everything on its disk.",
        links.EXTEND: f"It runs on for {situation.extend_hours} hours from now in any case, used or not.",
        links.STOP: "Its disk is kept. What runs ends: save your work first.",
    }
    return Page(title, (_paragraph(texts[action]), *say.running(), _button(form, say)))


def done(situation: Situation, action: str, link: str | None = None) -> Page:
    """What became of a button that was pressed."""
    page = state(situation, {}, link)
    view, say = situation.view, _Say(situation)
    if action == links.EXTEND and view.state in ("ready", "starting") and view.hold_until:
        return Page(f"{view.name} is kept until {say.clock(view.hold_until)}", page.parts)
    if action == links.WAKE and view.state == "ready" and not link:
        return Page(page.title, (*page.parts, _paragraph("Its link is in the message that you got about it.")))
    return page


def refusal(title: str, detail: str) -> Page:
    """Why something was not done."""
    return Page(title, (_paragraph(detail),))


def fitting(situation: Situation) -> tuple[str, ...]:
    """The actions that its state allows, the most likely one first."""
    state_ = situation.view.state
    if state_ == "ready":
        return (links.EXTEND, links.STOP)
    if state_ == "starting":
        return (links.EXTEND,)
    return (links.WAKE,) if state_ == "stopped" and situation.may_run else ()


class _Say:
    """Sentences about a situation."""

    def __init__(self, situation: Situation) -> None:
        self.situation = situation
        self.view = situation.view
        self._words = Words(situation.now)

    def clock(self, text: str) -> str:
        moment = times.from_text(text)
        return self._words.time(moment) if moment else text

    def coming(self, text: str) -> str:
        moment = times.from_text(text)
        return f"{self._words.time(moment)} ({ahead(moment - self.situation.now)})" if moment else text

    def so_long(self) -> str:
        """How long the launch has taken."""
        since = self.situation.since
        seconds = int(max(timedelta(0), self.situation.now - since).total_seconds()) if since else 0
        return f" It has taken {seconds // 60} min {seconds % 60:02d} s so far." if since else ""

    def running(self) -> list[str]:
        """What a person wants to know about a notebook that runs."""
        if self.view.state != "ready":
            return []
        facts = []
        if self.view.stops_at:
            facts.append(("Stops by itself", f"{self.coming(self.view.stops_at)} at the earliest"))
        if self.view.hold_until:
            facts.append(("Kept until", self.clock(self.view.hold_until)))
        if self.view.last_activity and self.view.last_active_at:
            facts.append(("Last activity", f"{self.view.last_activity}, {self.clock(self.view.last_active_at)}"))
        if self.situation.run_cost:
            facts.append(("Cost of this run", f"about {self.situation.run_cost}"))
        return [_facts(facts)] if facts else []


def _launching(say: _Say) -> tuple[str, list[str]]:
    steps = "".join(
        f'<li class="{escape(step.state)}">{escape(_STEPS.get(step.name, step.name))}'
        f"{' …' if step.state == 'running' else ''}</li>"
        for step in say.view.steps
    )
    text = (
        "This first time everything is installed, which usually takes a few minutes. You need not wait here: a message "
        "comes when it is ready, and this page then leads to it."
    )
    return f"{say.view.name} is being set up", [_paragraph(text + say.so_long()), f"<ol>{steps}</ol>"]


def _starting(say: _Say) -> tuple[str, list[str]]:
    text = "It is being switched on again, which usually takes about a minute. This page then leads to it."
    return f"{say.view.name} is waking up", [_paragraph(text)]


def _ready(say: _Say) -> tuple[str, list[str]]:
    view, parts = say.view, say.running()
    if view.error:
        parts.insert(0, _paragraph(view.error.message, "error"))
    if view.left_out:
        parts.append(_paragraph(f"Server extensions of yours that it does not load: {', '.join(view.left_out)}."))
    if view.safe_mode:
        parts.insert(0, _paragraph(view.safe_mode.message, "error"))
    if view.not_answering:
        parts.insert(0, _paragraph(view.not_answering.message, "error"))
        return f"{view.name} does not answer", parts
    return f"{view.name} is running{' in safe mode' if view.safe_mode else ''}", parts


def _stopping(say: _Say) -> tuple[str, list[str]]:
    text = "It is being switched off, which usually takes less than a minute. Its disk is kept. It can be woken then."
    return f"{say.view.name} is stopping", [_paragraph(text)]


def _stopped(say: _Say) -> tuple[str, list[str]]:
    view, situation, parts = say.view, say.situation, []
    if view.error:
        tells = "The last try to wake it failed. " if view.error.of_start else ""
        parts.append(_paragraph(f"{tells}{view.error.message}", "error"))
    why = f": {view.stop.reason}." if view.stop and view.stop.reason else "."
    when = f"It stopped at {say.clock(view.stopped_at)}" if view.stopped_at else "It stopped"
    parts.append(_paragraph(f"{when}{why} Everything on its disk is kept."))
    facts = [
        (name, text)
        for name, text in (("The last run cost", situation.run_cost), ("Its disk, a month", situation.disk_month))
        if text
    ]
    parts += [_facts(facts)] if facts else []
    if not situation.may_run:
        others = f": {', '.join(situation.in_the_way)}" if situation.in_the_way else ""
        parts.append(_paragraph(f"It cannot be woken now, as many notebooks run as may run{others}. Stop one first."))
    return f"{view.name} is stopped", parts


def _failed(say: _Say) -> tuple[str, list[str]]:
    text = say.view.error.message if say.view.error else "No reason is known."
    return f"{say.view.name} failed", [_paragraph(text, "error"), _paragraph("Request a new notebook if you need one.")]


def _terminating(say: _Say) -> tuple[str, list[str]]:
    return f"{say.view.name} is being deleted", [_paragraph("Its machine and its disk are being removed.")]


def _terminated(say: _Say) -> tuple[str, list[str]]:
    return f"{say.view.name} is deleted", [_paragraph("Its machine and its disk are removed. Request a new notebook.")]


_STATES = {
    "requested": _launching,
    "launching": _launching,
    "starting": _starting,
    "ready": _ready,
    "stopping": _stopping,
    "stopped": _stopped,
    "failed": _failed,
    "terminating": _terminating,
    "terminated": _terminated,
}


def _button(form: Form, say: _Say) -> str:
    text = _BUTTONS.get(form.action, f"Keep it {say.situation.extend_hours} hours")
    key = f'<input type="hidden" name="k" value="{escape(form.key)}">' if form.key else ""
    first = "" if form.action == links.STOP else ' class="first"'
    return (
        f'<form method="post" action="{escape(form.target)}">'
        f'<input type="hidden" name="f" value="{escape(form.token)}">{key}'
        f"<button{first}>{escape(text)}</button></form>"
    )


def _paragraph(text: str, kind: str | None = None) -> str:
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def _facts(facts: Sequence[tuple[str, str]]) -> str:
    return "<dl>" + "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts) + "</dl>"
