"""The pages behind links: what a notebook is doing, and buttons. HTML without anything from elsewhere, for any browser,
in words for someone who never heard of AWS.

One small script of ours, named by its hash in the policy, tells times in the reader's time zone and brings a page up to
date where it stands. Without scripts a page works all the same: its times are in UTC and say so, and it loads itself
again.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from html import escape
from urllib.parse import quote

from chalicelib import links, times
from chalicelib.idle_words import Words, hours
from chalicelib.messages import ahead
from chalicelib.model import StepState
from chalicelib.notebook import life
from chalicelib.notebook.life import State
from chalicelib.views import NotebookView, Step

CONTENT_TYPE = "text/html; charset=utf-8"
REFRESH_SECONDS = 3

_STYLE = """
:root { color-scheme: light dark; --page: #f6f8fa; --card: #fff; --text: #1f2328; --dim: #59636e; --line: #d1d9e0;
  --edge: #6e7781; --accent: #0b57d0; --good: #1a7f37; --bad: #b3121d; --soft: #eef4fe; }
@media (prefers-color-scheme: dark) {
  :root { --page: #0d1117; --card: #161b22; --text: #e6edf3; --dim: #9aa4af; --line: #30363d; --edge: #8b949e;
    --accent: #8ab4f8; --good: #56d364; --bad: #ff8a80; --soft: #1b2636; }
}
* { box-sizing: border-box; }
body { font: 1.0625rem/1.55 system-ui, sans-serif; max-width: 36rem; margin: 0 auto; padding: 1.25rem 1rem 2rem;
  overflow-wrap: anywhere; color: var(--text); background: var(--page); }
header, footer { color: var(--dim); font-size: .875rem; padding: 0 .25rem; }
header { display: flex; align-items: center; gap: .5rem; font-weight: 600; }
header svg { width: 1.25rem; height: 1.25rem; }
main { background: var(--card); border: 1px solid var(--line); border-radius: .9rem; padding: 1.25rem;
  margin: .75rem 0; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 .75rem; }
p { margin: .75rem 0; }
a { color: var(--accent); }
code { font: .875rem/1.5 ui-monospace, monospace; }
.fingerprint { display: block; width: 24ch; word-break: break-all; }
ol { list-style: none; padding: 0; margin: 1rem 0; }
li { position: relative; padding: 0 0 .6rem 1.9rem; }
li::before { position: absolute; left: 0; content: "\\25CB"; color: var(--dim); }
.done::before { content: "\\2713"; color: var(--good); font-weight: 700; }
.running::before { content: "\\25CF"; color: var(--accent); }
.failed::before { content: "\\2715"; color: var(--bad); font-weight: 700; }
li.waiting, li small, dt { color: var(--dim); }
.running { font-weight: 600; }
li small { display: block; font-size: .875rem; font-weight: 400; }
dl { margin: 1rem 0; }
dl div { display: grid; grid-template-columns: 9.5rem 1fr; gap: 0 1rem; padding: .35rem 0;
  border-top: 1px solid var(--line); }
dd { margin: 0; }
@media (max-width: 30rem) { dl div { display: block; } }
.error { color: var(--bad); }
.note { background: var(--soft); border-left: .25rem solid var(--accent); border-radius: .25rem; padding: .6rem .8rem; }
details { margin: .75rem 0; }
summary { cursor: pointer; padding: .35rem 0; }
button, .button { display: block; width: 100%; margin: .75rem 0; padding: .8rem 1rem; font: inherit; font-weight: 600;
  text-align: center; text-decoration: none; border: 1px solid var(--edge); border-radius: .6rem; color: inherit;
  background: transparent; cursor: pointer; }
.first { color: #fff; background: #0b57d0; border-color: #0b57d0; }
:focus-visible { outline: .2rem solid var(--accent); outline-offset: .15rem; }
.heard { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
"""

# Times are written as `14:05 UTC`, with the day (`21 Nov 14:05 UTC`) where that is another. Where none is given, it is
# that of the nearest `data-at`: a reason was written when the notebook stopped.
_SCRIPT = """
const MONTHS = "JanFebMarAprMayJunJulAugSepOctNovDec", HALF_A_YEAR = 183 * 864e5;
function told(text, base, now) {
  return text.replace(/(?:(\\d{1,2}) ([A-Z][a-z]{2}) )?(\\d\\d):(\\d\\d) UTC/g, (whole, day, month, hour, minute) => {
    const at = new Date(base), index = day ? MONTHS.indexOf(month) / 3 : at.getUTCMonth();
    if (!Number.isInteger(index) || index < 0 || isNaN(base)) return whole;
    at.setUTCMonth(index, day || at.getUTCDate());
    at.setUTCHours(hour, minute, 0, 0);
    if (at - base > HALF_A_YEAR) at.setUTCFullYear(at.getUTCFullYear() - 1);
    if (base - at > HALF_A_YEAR) at.setUTCFullYear(at.getUTCFullYear() + 1);
    const other = at.toDateString() !== (day ? now : base).toDateString();
    const clock = { hour: "2-digit", minute: "2-digit", hourCycle: "h23", timeZoneName: "short" };
    const date = other ? `${at.getDate()} ${MONTHS.substr(3 * at.getMonth(), 3)} ` : "";
    return date + new Intl.DateTimeFormat("en", clock).format(at);
  });
}
function tell(page) {
  const texts = document.createTreeWalker(page, NodeFilter.SHOW_TEXT);
  for (let node; (node = texts.nextNode()); ) {
    const base = node.parentElement.closest("[data-at]");
    if (base) node.data = told(node.data, new Date(base.dataset.at), new Date(page.dataset.at));
  }
}
async function again() {
  const old = document.querySelector("main");
  if (!old.dataset.refresh) return;
  try {
    const answer = await fetch(location.href, { cache: "no-store" });
    const found = new DOMParser().parseFromString(await answer.text(), "text/html"), main = found.querySelector("main");
    if (main) {
      tell(found.body);
      const heard = document.querySelector(".heard"), news = main.dataset.news;
      if (news !== old.dataset.news) heard.textContent = news;
      document.title = found.title;
      const within = "a, button, summary", at = [...old.querySelectorAll(within)].indexOf(document.activeElement);
      old.replaceWith(document.adoptNode(main));
      if (at >= 0) main.querySelectorAll(within)[at]?.focus();
      document.querySelector("footer").replaceWith(document.adoptNode(found.querySelector("footer")));
    }
  } catch (error) {
    console.info("not up to date", error);
  }
  setTimeout(again, 1000 * old.dataset.refresh);
}
tell(document.body);
setTimeout(again, 1000 * (document.querySelector("main").dataset.refresh || 0));
"""

_ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"{}><rect width="32" height="32" rx="8" fill="#0b57d0"/>'
    '<path d="M21.5 18.8A8.5 8.5 0 0 1 13.2 7.5a8.8 8.8 0 1 0 11 10.4 8.4 8.4 0 0 1-2.7.9z" fill="#fff"/></svg>'
)
_HIDDEN = ' aria-hidden="true"'
ICON_LINK = f'<link rel="icon" href="data:image/svg+xml,{quote(_ICON.format(""), safe="")}">'
"""A moon, for whoever nods off. In the page itself: API Gateway serves nothing at the root of its host."""


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}'"


HEADERS: Mapping[str, str] = {
    "Content-Type": CONTENT_TYPE,
    "Cache-Control": "no-store",
    "Content-Security-Policy": f"default-src 'none'; style-src {_hash(_STYLE)}; script-src {_hash(_SCRIPT)}; "
    "connect-src 'self'; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    # The address of a page is what opens it.
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex",
}

_STEPS = {
    "create_instance": ("Get a machine", "Waiting for EC2 to create it."),
    "start_instance": ("Switch it on", "Waiting for EC2 to boot it."),
    "prepare_instance": ("Prepare it", "Waiting for the machine to finish its first boot and to take commands."),
    "install_anaconda": (
        "Install Anaconda (Python and its packages)",
        "Waiting for the download and the installation: this is the longest step.",
    ),
    "configure_tls": ("Make the certificate", "Waiting for the machine to make its own certificate."),
    "start_monitor": ("Start watching for activity", "Waiting for the first sign of life from the machine."),
    "configure_notebook": ("Start the notebook", "Waiting for Jupyter to answer."),
}
_BUTTONS = {links.WAKE: "Wake it", links.STOP: "Stop it now"}
_TO_DO_MORE = "To do more, use its own link, the first one in every message about it. It does not expire."
# Of a link that may do one thing and not wake it.
_BY_ITS_LINK = "Its link is in the messages that you got about it: the first link in each."
_MAIL_IS_OFF = (
    "Email is off: AWS delivers nothing to your address any more. Its subscription was ended by the unsubscribe link "
    "at the end of a mail, which some mail scanners follow by themselves, or it was not confirmed in time. To switch "
    "email on again, open the link in AWS's mail with the subject Unsubscribe Confirmation, or ask your administrator "
    "for a new confirmation."
)


class Note(StrEnum):
    """What a page says of the click or the link that led to it, in the query `note`. What became of it is told by the
    notebook's state now, so nothing here claims that anything was or was not changed by somebody else."""

    KEPT = "kept"
    WAKE = links.WAKE
    EXTEND = links.EXTEND
    STOP = links.STOP
    QUOTA = "quota"
    OLD_PAGE = "old-page"
    OLD_LINK = "old-link"
    OTHER = "other"
    BUSY = "busy"

    @classmethod
    def of(cls, text: str | None) -> Note | None:
        """None for what is none of them."""
        return cls(text) if text in list(cls) else None


@dataclass(frozen=True)
class Form:
    """A button: where it posts to, its form token, and the key of the link for life where that opened the page."""

    action: str
    target: str
    token: str
    key: str | None = None


@dataclass(frozen=True)
class Page:
    """A page. `parts` are HTML already. With `refreshes`, the page brings itself up to date every few seconds; `now` is
    when it was true; `again`: a link to what is true later; `news`: what is read out when it changes."""

    title: str
    parts: tuple[str, ...]
    refreshes: bool = False
    status: int = 200
    now: datetime | None = None
    again: str | None = None
    news: str = ""

    def html(self) -> str:
        """The whole document."""
        # Without scripts only: with them, the page would jump, and a screen reader would begin anew.
        refresh = (
            f'<noscript><meta http-equiv="refresh" content="{REFRESH_SECONDS}"></noscript>\n' if self.refreshes else ""
        )
        moving = f' data-refresh="{REFRESH_SECONDS}"' if self.refreshes else ""
        base = f' data-at="{times.to_text(self.now)}"' if self.now else ""
        return (
            f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta name="viewport" content="width=device-width, initial-scale=1">\n{refresh}'
            f"<title>{escape(self.title)}</title>\n{ICON_LINK}\n<style>{_STYLE}</style>\n</head>\n<body{base}>\n"
            f"<header>{_ICON.format(_HIDDEN)}Notebook on Demand</header>\n"
            f'<main{moving} data-news="{escape(self.news or self.title)}">\n'
            f"<h1>{escape(self.title)}</h1>\n" + "\n".join(self.parts) + "\n</main>\n"
            f"<footer>{self._footer()}</footer>\n"
            f'<p class="heard" role="status"></p>\n<script>{_SCRIPT}</script>\n</body>\n</html>\n'
        )

    def _footer(self) -> str:
        if self.now is None:
            return ""
        seen = f"As of {Words(self.now).time(self.now)}."
        return f'{seen} <a href="{escape(self.again)}">Look again</a>' if self.again else seen


@dataclass(frozen=True)
class Situation:
    """What there is to say about a notebook.

    `since`: when its launch was asked for; `in_the_way`: other notebooks of the owner that run, where as many run as
    may; `extend_hours`: what the button to keep it gives; `mail_is_off`: its messages should go by email, and AWS
    delivers none to the owner's address; `to`: where the notebook itself answers, for who may be told.
    """

    view: NotebookView
    now: datetime
    since: datetime | None = None
    run_cost: str | None = None
    disk_month: str | None = None
    in_the_way: Sequence[str] = ()
    may_run: bool = True
    extend_hours: int = links.EXTEND_HOURS
    mail_is_off: bool = False
    to: str | None = None


def state(situation: Situation, forms: Mapping[str, Form], link: str | None = None, note: Note | None = None) -> Page:
    """What a notebook does, with the buttons that make sense now. `link`: its link for life, where it may be shown;
    `note`: what led here."""
    view = situation.view
    say = _Say(situation)
    made = _STATES.get(view.state)
    title, parts = made(say) if made else (f"{view.name} is {view.state}", [])
    if note is Note.KEPT and (kept := say.kept()):
        title = kept
    told = say.note(note) if note else None
    parts = [_paragraph(told, "note"), *parts] if told else parts
    if situation.mail_is_off:
        parts = [*parts, _paragraph(_MAIL_IS_OFF)]
    for action in fitting(situation):
        if action in forms:
            parts.append(_button(forms[action], say, first=action == links.WAKE))
    running = next((_STEPS[step.name][0] for step in view.steps if step.state == "running" and step.name in _STEPS), "")
    return Page(
        title,
        tuple(parts),
        view.state in life.MOVING,
        now=situation.now,
        again=link,
        news=f"{title}: {running}" if running else title,
    )


def ask(situation: Situation, action: str, form: Form, forms: Mapping[str, Form] | None = None) -> Page:
    """A page with one button, for who comes by a link of a message. `forms`: buttons for when that does not fit."""
    view, say = situation.view, _Say(situation)
    if action not in fitting(situation):
        page = state(situation, forms or {})
        verb = {links.WAKE: "wake", links.EXTEND: "keep longer", links.STOP: "stop"}[action]
        return replace(page, parts=(_paragraph(f"There is nothing to {verb} now.", "note"), *page.parts))
    title = {
        links.WAKE: f"Wake {view.name}?",
        links.EXTEND: f"Keep {view.name} {hours(situation.extend_hours)}?",
        links.STOP: f"Stop {view.name} now?",
    }[action]
    texts = {
        links.WAKE: "It is switched on again, with everything on its disk.",
        links.EXTEND: f"It will then run for at least {hours(situation.extend_hours)} from now, used or not.",
        links.STOP: "Its disk is kept. Everything that is running ends, so save your work first.",
    }
    return Page(
        title,
        (_paragraph(texts[action]), *say.running(), _button(form, say, first=action != links.STOP)),
        now=situation.now,
    )


def done(
    situation: Situation,
    action: str,
    link: str | None = None,
    forms: Mapping[str, Form] | None = None,
    note: Note | None = None,
) -> Page:
    """What became of a button that was pressed, or what is so now (`note`) where it was pressed in vain."""
    if action == links.EXTEND and note is None:
        note = Note.KEPT
    page = state(situation, forms or {}, link, note)
    if situation.view.state == State.READY and action == links.WAKE and not link:
        return replace(page, parts=(*page.parts, _paragraph(_BY_ITS_LINK)))
    if note is Note.OLD_PAGE and action in fitting(situation) and action not in (forms or {}):
        return replace(page, parts=(*page.parts, _paragraph(_TO_DO_MORE)))
    return page


def late(situation: Situation, action: str, forms: Mapping[str, Form]) -> Page:
    """For who comes by a link of a message that is too old for its button. `forms`: buttons that it still gives."""
    verb = {links.WAKE: "wake it", links.EXTEND: "keep it longer", links.STOP: "stop it"}[action]
    page = state(situation, forms)
    parts = [_paragraph(f"The link that you followed is too old to {verb}. This is how things are now.", "note")]
    parts += page.parts
    if situation.view.state not in life.ENDED and "<form" not in "".join(page.parts):
        parts.append(_paragraph(_TO_DO_MORE))
    return replace(page, parts=tuple(parts), status=410)


def refusal(title: str, detail: str) -> Page:
    """Why something was not done."""
    return Page(title, (_paragraph(detail),))


def fitting(situation: Situation) -> tuple[str, ...]:
    """The actions that its state allows, the most likely one first."""
    state_ = situation.view.state
    if state_ == State.READY:
        return (links.EXTEND, links.STOP)
    if state_ == State.STARTING:
        return (links.EXTEND,)
    return (links.WAKE,) if state_ == State.STOPPED and situation.may_run else ()


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

    def kept(self) -> str | None:
        """Until when it is kept. None where nothing runs or is about to."""
        if self.view.state not in life.EXTENDABLE or not self.view.hold_until:
            return None
        return f"{self.view.name} is kept until {self.clock(self.view.hold_until)}"

    def note(self, note: Note) -> str | None:
        """What to say of the click or link that led here, true whenever it is read. None: the state says it all."""
        if note is Note.OLD_PAGE:
            return (
                f"That page had been open for more than {links.FORM_LIFE.seconds // 60} minutes, so the button did "
                "nothing. This is how things are now."
            )
        if note is Note.OLD_LINK:
            return "The link that you followed was too old for its button. This is how things are now."
        if note is Note.OTHER:
            return "That button or link belongs to something else, so it did nothing. This is how things are now."
        if note is Note.BUSY:
            return "AWS did not answer that click in time, so it may not have worked. This is how things are now."
        if note is Note.QUOTA:
            again = self.view.state == State.STOPPED and self.situation.may_run
            return "Your limit of running notebooks was reached when you pressed. You can try again." if again else None
        return self._in_vain(note)

    def _in_vain(self, note: Note) -> str | None:
        """Of a button that its state did not allow, by the state now."""
        state_ = self.view.state
        if note is Note.KEPT or state_ == State.FAILED:
            return None
        said = {
            Note.STOP: {
                State.STOPPING: "It is already stopping: pressing Stop once is enough.",
                State.STOPPED: "It has already stopped: there is nothing left to stop.",
                State.STARTING: "It is waking up, and can be stopped as soon as it runs.",
                State.READY: "It was not running when you pressed Stop. It is running now.",
            },
            Note.WAKE: {
                State.STOPPING: "It is still stopping. The button to wake it appears here as soon as it has stopped.",
                State.STOPPED: "It could not be woken when you pressed. You can try again.",
                State.STARTING: "It is already waking up: pressing Wake once is enough.",
                State.READY: "It is already running.",
            },
            Note.EXTEND: {
                State.STOPPING: "It began to stop before you pressed, so there was nothing left to keep running. "
                "The button to wake it appears here as soon as it has stopped.",
                State.STOPPED: "It stopped before you pressed, so there was nothing left to keep running.",
                State.STARTING: "It was not running when you pressed. It is waking up now, and can be kept longer.",
                State.READY: "It was not running when you pressed. It is running now, and can be kept longer.",
            },
        }[note]
        return said.get(state_)

    def open(self, to: str) -> list[str]:
        """The way in, and what the browser will say of it."""
        fingerprint = self.view.certificate_sha256
        found = [f'<a class="button first" href="{escape(to)}" rel="noreferrer">Open {escape(self.view.name)}</a>']
        warning = (
            "Your browser will warn you that the connection is not private, because the certificate is the notebook's "
            "own. The warning comes back when the notebook has been woken, since its address and its certificate are "
            "new then."
        )
        if fingerprint is None:
            return [*found, _paragraph(f"{warning} The certificate's fingerprint is not known just now.")]
        return [
            *found,
            _paragraph(f"{warning} Before you type your password, compare the certificate's SHA-256 fingerprint:"),
            f'<p><code class="fingerprint">{escape(fingerprint)}</code></p>',
            "<details><summary>How to compare it</summary>"
            "<p><b>Firefox:</b> Advanced, View Certificate, Fingerprints, SHA-256.</p>"
            "<p><b>Chrome, Edge:</b> click <i>Not secure</i> in the address bar, then the certificate's details, "
            "SHA-256 of the <i>certificate</i> (not of the public key). It is in lower case, without colons.</p>"
            "<p>If it differs, someone else answers: close the page and do not type your password.</p></details>",
        ]

    def running(self) -> list[str]:
        """What a person wants to know about a notebook that runs."""
        if self.view.state != State.READY:
            return []
        facts = []
        if self.view.stops_at:
            facts.append(("Stops by itself", f"{self.coming(self.view.stops_at)} at the earliest"))
        if self.view.hold_until:
            facts.append(("Kept until", self.clock(self.view.hold_until)))
        if self.view.last_activity and self.view.last_active_at:
            facts.append(("Last activity", f"{self.view.last_activity}, {self.clock(self.view.last_active_at)}"))
        if self.view.disk:
            facts.append(("Disk", f"{self.view.disk.free_gib:g} GiB free of {self.view.disk.size_gib:g} GiB"))
        if self.situation.run_cost:
            facts.append(("Cost of this run", f"about {self.situation.run_cost}"))
        return [_facts(facts)] if facts else []


def _launching(say: _Say) -> tuple[str, list[str]]:
    steps = "".join(_launch_step(step) for step in say.view.steps)
    text = (
        "This first time everything is installed, which usually takes a few minutes. You do not have to wait here: you "
        "get a message when it is ready."
    )
    return f"{say.view.name} is being set up", [_paragraph(text + say.so_long()), f"<ol>{steps}</ol>"]


def _launch_step(step: Step) -> str:
    name, waits = _STEPS.get(step.name, (step.name, ""))
    return _step(step.state, name, waits if step.state == "running" else _took(step))


def _took(step: Step) -> str:
    began, ended = times.from_text(step.started_at), times.from_text(step.finished_at)
    if step.state != StepState.DONE or began is None or ended is None:
        return step.state if step.state in (StepState.FAILED, StepState.CANCELLED) else ""
    seconds = max(0, round((ended - began).total_seconds()))
    return f"done in {seconds} s" if seconds < 100 else f"done in {seconds // 60} min {seconds % 60:02d} s"


def _starting(say: _Say) -> tuple[str, list[str]]:
    text = "It is being switched on again, which usually takes about a minute. Then the button to open it appears here."
    # Its address is in the record as soon as EC2 says that the machine runs.
    on = say.view.address is not None
    steps = [
        _step("done" if on else "running", "Switch the machine on", "" if on else "Waiting for EC2 to boot it."),
        _step(
            "running" if on else "waiting",
            "Start the notebook",
            "Waiting for Jupyter to answer, with a certificate for the machine's new address." if on else "",
        ),
    ]
    return f"{say.view.name} is waking up", [_paragraph(text), f"<ol>{''.join(steps)}</ol>"]


def _ready(say: _Say) -> tuple[str, list[str]]:
    view = say.view
    troubles = [found.message for found in (view.not_answering, view.error, view.safe_mode) if found]
    parts = [_paragraph(message, "error") for message in troubles]
    if say.situation.to and view.not_answering is None:
        parts += say.open(say.situation.to)
    parts += say.running()
    if view.left_out:
        parts.append(_paragraph(f"Server extensions of yours that are not loaded: {', '.join(view.left_out)}."))
    if view.not_answering:
        return f"{view.name} does not answer", parts
    return f"{view.name} is running{' in safe mode' if view.safe_mode else ''}", parts


def _stopping(say: _Say) -> tuple[str, list[str]]:
    why = f": {say.view.stop.reason.rstrip('.')}." if say.view.stop and say.view.stop.reason else "."
    text = (
        f"It is being switched off{why} This usually takes less than a minute. Its disk is kept, and then it can be "
        "woken here."
    )
    step = _step("running", "Switch the machine off", "Waiting for EC2 to say that it is off.")
    return f"{say.view.name} is stopping", [_paragraph(text), f"<ol>{step}</ol>"]


def _stopped(say: _Say) -> tuple[str, list[str]]:
    view, situation, parts = say.view, say.situation, []
    if view.error:
        tells = "The last try to wake it failed. " if view.error.of_start else ""
        parts.append(_paragraph(f"{tells}{view.error.message}", "error"))
    why = f": {view.stop.reason.rstrip('.')}." if view.stop and view.stop.reason else "."
    when = f"It stopped at {say.clock(view.stopped_at)}" if view.stopped_at else "It stopped"
    parts.append(_paragraph(f"{when}{why} Everything on its disk is kept.", at=times.from_text(view.stopped_at)))
    facts = [
        (name, text)
        for name, text in (("The last run cost", situation.run_cost), ("Its disk, a month", situation.disk_month))
        if text
    ]
    parts += [_facts(facts)] if facts else []
    if not situation.may_run:
        others = f" ({', '.join(situation.in_the_way)})" if situation.in_the_way else ""
        text = f"It cannot be woken now: you already have as many notebooks running as your limit allows{others}."
        parts.append(_paragraph(f"{text} Stop one first."))
    return f"{view.name} is stopped", parts


def _failed(say: _Say) -> tuple[str, list[str]]:
    text = say.view.error.message if say.view.error else "No reason is known."
    return f"{say.view.name} failed", [_paragraph(text, "error"), _paragraph("Request a new notebook if you need one.")]


def _terminating(say: _Say) -> tuple[str, list[str]]:
    step = _step("running", "Remove the machine and its disk", "Waiting for EC2 to say that both are gone.")
    return f"{say.view.name} is being deleted", [f"<ol>{step}</ol>"]


def _terminated(say: _Say) -> tuple[str, list[str]]:
    text = "Its machine and its disk have been removed. Request a new notebook if you need one."
    return f"{say.view.name} is deleted", [_paragraph(text)]


_STATES = {
    State.REQUESTED: _launching,
    State.LAUNCHING: _launching,
    State.STARTING: _starting,
    State.READY: _ready,
    State.STOPPING: _stopping,
    State.STOPPED: _stopped,
    State.FAILED: _failed,
    State.TERMINATING: _terminating,
    State.TERMINATED: _terminated,
}


def _button(form: Form, say: _Say, *, first: bool) -> str:
    """`first`: it stands out, as one thing of a page does."""
    text = _BUTTONS.get(form.action, f"Keep it {hours(say.situation.extend_hours)}")
    key = f'<input type="hidden" name="k" value="{escape(form.key)}">' if form.key else ""
    style = ' class="first"' if first else ""
    return (
        f'<form method="post" action="{escape(form.target)}">'
        f'<input type="hidden" name="f" value="{escape(form.token)}">{key}'
        f"<button{style}>{escape(text)}</button></form>"
    )


def _step(state_: str, name: str, more: str) -> str:
    dots = " …" if state_ == "running" else ""
    small = f"<small>{escape(more)}</small>" if more else ""
    return f'<li class="{escape(state_)}">{escape(name)}{dots}{small}</li>'


def _paragraph(text: str, kind: str | None = None, at: datetime | None = None) -> str:
    """`at`: from when on its times are told that name no day."""
    base = f' data-at="{times.to_text(at)}"' if at else ""
    return f'<p class="{kind}"{base}>{escape(text)}</p>' if kind else f"<p{base}>{escape(text)}</p>"


def _facts(facts: Sequence[tuple[str, str]]) -> str:
    rows = (f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts)
    return f"<dl>{''.join(rows)}</dl>"
