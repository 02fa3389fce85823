"""The messages to a notebook's owner: plain text for email, blocks for Slack. Never a password."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from chalicelib import links, times
from chalicelib.costs import disk_month, last_run
from chalicelib.errors import NodError
from chalicelib.heartbeats import DueJob
from chalicelib.idle_words import Words, hours
from chalicelib.model import PASSWORD_FAILED, SLACK, START_FAILED, STOP_FAILED, UNKNOWN, Failure, Notebook, User
from chalicelib.notebook.life import OVER, State
from chalicelib.prices import Catalogue
from chalicelib.views import NotebookView

KINDS = (
    "ready",
    "started",
    "stopped",
    "failed",
    "terminated",
    "start_failed",
    "stop_failed",
    "password_failed",
    "warned",
    "silent",
    "limit_near",
)
"""Messages about one notebook."""
SERVER_KINDS = ("safe_mode", "not_answering")
"""Messages about the server of one notebook, on a machine that runs."""
DISKS, ORPHAN = "disks", "orphan"
"""Messages about several notebooks, or about what belongs to none."""
REPEATED = frozenset({"warned", "silent", "limit_near", "safe_mode", "not_answering"})
"""What the sweep itself tells again while it is true: nobody else catches up on it."""

# SNS: fewer than 100 ASCII characters, beginning with a letter, number or punctuation mark.
_LONGEST_SUBJECT = 99
# SNS takes 256 KiB, in which each line of a list stands four times.
_MOST_LISTED = 100
_WIDTH = 79
# What stands between backticks is a command, and one word: a command that is broken over lines is two wrong ones.
_WORD = re.compile(r"(?:`[^`\n]*`|\S)+")


@dataclass(frozen=True)
class Button:
    """A link that leads to a page with one button."""

    text: str
    url: str


@dataclass(frozen=True)
class Message:
    """A message as the topic gets it.

    `owner` is the user's name, for people; the topic's filters go by `owner_id`. `paragraphs` begin with four spaces
    where their lines are to stay as they are: commands, which are never broken. The first says what happened, and the
    links follow it: the first of `buttons` is the link for life. `channels` are those that are to deliver it;
    `notebook` is None where it is not about one, `execution` where no workflow tells it.
    """

    owner: str
    owner_id: str
    kind: str
    channels: tuple[str, ...]
    subject: str
    paragraphs: tuple[str, ...]
    facts: tuple[tuple[str, str], ...] = ()
    buttons: tuple[Button, ...] = ()
    notebook: NotebookView | None = None
    execution: str | None = None

    @property
    def text(self) -> str:
        """The whole as plain text, for email."""
        said = [_wrap(paragraph) for paragraph in self.paragraphs]
        shown = [f"{button.text}:\n\n    {button.url}" for button in self.buttons]
        parts = [f"Hello {self.owner},", *said[:1], *shown, *said[1:]]
        width = max((len(name) for name, _ in self.facts), default=0)
        parts.append("\n".join(_fact(name, value, width) for name, value in self.facts))
        return "\n\n".join(part for part in parts if part) + "\n"

    def for_lambda(self) -> dict[str, object]:
        """What the function behind the topic gets (docs/contracts.md)."""
        return {
            "id": self.notebook.id if self.notebook else None,
            "execution": self.execution,
            "owner": self.owner,
            "owner_id": self.owner_id,
            "kind": self.kind,
            "channels": [channel for channel in self.channels if channel.startswith(SLACK)],
            "subject": self.subject,
            "text": self.text,
            "paragraphs": list(self.paragraphs),
            "facts": [list(fact) for fact in self.facts],
            "buttons": [asdict(button) for button in self.buttons],
            "notebook": asdict(self.notebook) if self.notebook else None,
        }


@dataclass(frozen=True)
class About:
    """What a message about a notebook is made of. `reason`: why it stays or will stop, a sentence without its stop;
    `minute`: how long a minute of limits lasts (Settings.minute)."""

    notebook: Notebook
    owner: User | None = field(repr=False)
    view: NotebookView
    prices: Catalogue
    region: str
    now: datetime
    minute: timedelta = timedelta(minutes=1)
    reason: str | None = None
    jobs: tuple[DueJob, ...] = ()
    """The owner's own jobs that do not run while it is stopped, and were not told of before."""


def due(notebook: Notebook) -> str | None:
    """The kind that tells of the state that a notebook has come to. None while it is on the way to another."""
    error = notebook.error
    if notebook.state in OVER:
        return str(notebook.state)
    # An error stays until the next stop or start: it need not be what the notebook has come to.
    if notebook.state == State.STOPPED:
        return START_FAILED if error is not None and error.of_start else "stopped"
    if notebook.state != State.READY:
        return None
    if error is not None and error.code in (STOP_FAILED, PASSWORD_FAILED):
        return error.code
    return answers_again(notebook)


def answers_again(notebook: Notebook) -> str:
    """The kind that has the link: of its first run, or of a later one."""
    return "started" if notebook.runs or notebook.starts else "ready"


def compose(kind: str, about: About, channels: Sequence[str]) -> Message:
    """The message of one kind about a notebook.

    Raises:
        NodError: there is no such kind.
    """
    made = _COMPOSERS.get(kind)
    if made is None:
        raise NodError(f"There is no message about a notebook of the kind {kind!r}, only {', '.join(KINDS)}.")
    subject, paragraphs, facts, buttons = made(_Words(about))
    view = about.view
    return Message(
        owner=view.owner,
        owner_id=view.owner_id,
        kind=kind,
        channels=tuple(channels),
        subject=subject[:_LONGEST_SUBJECT],
        paragraphs=tuple(paragraphs),
        facts=(*facts, ("Notebook", view.id)),
        buttons=tuple(buttons),
        notebook=view,
    )


def disks(owner: User, notebooks: Sequence[Notebook], prices: Catalogue, region: str, now: datetime) -> Message:
    """What the disks of a user's stopped notebooks cost: once a month, so that nobody forgets them."""
    costs = [disk_month(notebook, prices, region) for notebook in notebooks]
    known = [cost for cost in costs if cost is not None]
    total = _money(sum(known, Decimal(0)), prices.currency) if len(known) == len(costs) else None
    count = "One stopped notebook keeps its disk" if len(costs) == 1 else f"{len(costs)} stopped notebooks keep disks"
    yours = "one stopped notebook" if len(costs) == 1 else f"{len(costs)} stopped notebooks"
    disk = "Its disk costs" if len(costs) == 1 else "Their disks cost"
    words = Words(now)
    facts = [
        (
            notebook.name,
            f"{notebook.volume_gib} GiB, {_money(cost, prices.currency)} a month"
            + (f", stopped at {words.time(at)}" if (at := times.from_text(notebook.stopped_at)) else "")
            + f"\nnod delete {notebook.id}",
        )
        for notebook, cost in list(zip(notebooks, costs, strict=True))[:_MOST_LISTED]
    ]
    if len(costs) > _MOST_LISTED:
        facts.append(("and", f"{len(costs) - _MOST_LISTED} more; nod list shows them all"))
    return Message(
        owner=owner.name,
        owner_id=owner.id,
        kind=DISKS,
        channels=owner.channels,
        subject=f"{count}, which cost{'s' if len(costs) == 1 else ''} {total} a month"[:_LONGEST_SUBJECT]
        if total
        else count,
        paragraphs=(
            f"You have {yours}. "
            + (
                f"{disk} {total} a month (list price, before tax)." if total else "What a disk costs here is not known."
            ),
            "A disk costs by its size, used or not. Everything on it is kept until you delete the notebook: delete "
            "what you no longer need.",
        ),
        facts=tuple(facts),
        buttons=tuple(
            Button(f"Wake {notebook.name}, to see what is on its disk", link)
            for notebook in notebooks
            if (link := links.life_link(owner.secret, notebook))
        ),
    )


def orphan(owner: User, kind: str, identifier: str, plan: str) -> Message:
    """Something of the user's in AWS that no notebook knows. `plan`: what will happen and when, a sentence."""
    return Message(
        owner=owner.name,
        owner_id=owner.id,
        kind=ORPHAN,
        channels=owner.channels,
        subject=f"The {kind} {identifier} belongs to no notebook"[:_LONGEST_SUBJECT],
        paragraphs=(
            f"There is the {kind} {identifier} in AWS in your name, but no notebook that uses it. It costs money, and "
            "nobody can reach it through this service.",
            plan,
            "Tell your administrator if it holds something that you need, or if it can go at once.",
        ),
    )


def blocks(message: Mapping[str, Any]) -> list[dict[str, object]]:
    """Slack's Block Kit for what `Message.for_lambda` made: a heading, what happened, the links, what to do, the facts.

    A channel has many readers: the heading names the owner, whom the rest calls "you".
    """
    found: list[dict[str, object]] = [
        {"type": "header", "text": {"type": "plain_text", "text": f"{message['owner']}: {message['subject']}"[:150]}}
    ]
    said = [_section(_paragraph(text)) for text in message["paragraphs"]]
    found.extend(said[:1])
    # Links, no Slack buttons: those would ask this service to answer Slack. Ten of them fit into a section.
    links_ = [f"<{_slack(button['url'])}|{_slack(button['text'])}>" for button in message["buttons"]]
    found.extend(_section("   ·   ".join(links_[start : start + 10])) for start in range(0, min(len(links_), 200), 10))
    found.extend(said[1:])
    # Slack shows at most ten fields a section.
    facts = [(str(name), str(value)) for name, value in message["facts"]]
    found.extend(_fields(*facts[start : start + 10]) for start in range(0, min(len(facts), 200), 10))
    return found


def slack_text(message: Mapping[str, Any]) -> str:
    """The plain text of `Message.for_lambda`, for where Slack shows no blocks. It reads mentions there too."""
    return _slack(message["text"])


_WARNING = "The page says what your browser will warn you of, and which fingerprint the certificate must have."
_Content = tuple[str, list[str], list[tuple[str, str]], list[Button]]


class _Words:
    """The parts of which the messages about a notebook are made."""

    def __init__(self, about: About) -> None:
        self.about = about
        self.view = about.view
        self.name = about.view.name
        self.now = about.now
        self._words = Words(about.now)

    def time(self, moment: datetime) -> str:
        """`14:35 UTC`, with the day when it is another."""
        return self._words.time(moment)

    def at(self, moment: datetime) -> str:
        """`at 14:35 UTC (in about 10 minutes)`."""
        return f"at {self._words.time(moment)} ({ahead(moment - self.now)})"

    def stops_at(self) -> datetime | None:
        """The stop that was warned of, or what is known of it."""
        warned = self.about.notebook.warned
        return times.from_text(warned.stops_at if warned else None) or times.from_text(self.view.stops_at)

    def price(self) -> tuple[str, str]:
        per_hour = self.view.cost.per_hour
        if per_hour is None:
            return "Price", "not known for this type and region"
        return (
            "Price",
            f"{per_hour:.4f} {self.view.cost.currency} an hour (list price with disk and address, before tax)",
        )

    def machine(self) -> tuple[str, str]:
        type_ = self.about.prices.types.get(self.view.instance_type)
        size = f" ({type_.vcpus} vCPU, {type_.memory_gib} GiB memory)" if type_ else ""
        return "Machine", f"{self.view.instance_type}{size}, {self.view.volume_gib} GiB disk, {self.about.region}"

    def stops(self) -> tuple[str, str]:
        """What ends this run by itself."""
        said = f"by itself, after {self.view.idle_minutes} minutes without use; you are told before that"
        started = times.from_text(self.view.run_started_at)
        if self.view.max_hours is None:
            return "Stops", said
        limit = hours(self.view.max_hours)
        if started is None:
            return "Stops", f"{said}; and {limit} after its start, used or not"
        ends = started + 60 * self.view.max_hours * self.about.minute
        return "Stops", f"{said}; and {self.at(ends)}, {limit} after its start, used or not"

    def certificate(self) -> tuple[str, str]:
        return "Certificate", f"SHA-256 {self.view.certificate_sha256 or '(its fingerprint is not known)'}"

    def life(self, text: str) -> list[Button]:
        """A button with the link for life: the first of every message that is about one notebook."""
        return [Button(text, self.view.link)] if self.view.link else []

    def by_hand(self, *verbs: str) -> list[str]:
        """What does it from the owner's own computer, each command whole on a line of its own."""
        lines = "\n".join(f"    nod {verb.replace('ID', self.view.id)}" for verb in verbs)
        return ["On your own computer, in a terminal:", lines]

    def acting(self) -> list[Button]:
        """What one may want who is told of a stop."""
        owner, notebook, until = self.about.owner, self.about.notebook, self.stops_at()
        if owner is None:
            return []
        found = [
            (text, links.action_link(owner.secret, action, notebook, self.now, until))
            for text, action in (
                (f"Keep it {hours(links.extend_hours(owner))}", links.EXTEND),
                ("Stop it now", links.STOP),
            )
        ]
        return [Button(text, url) for text, url in found if url]

    def why(self) -> str:
        warned = self.about.notebook.warned
        return (warned.reason if warned else None) or self.about.reason or "no reason is known"

    def error(self) -> str:
        return self.view.error.message if self.view.error else "No reason is known."

    def code(self) -> tuple[str, str]:
        return "Code", self.view.error.code if self.view.error else "unknown"

    def run_cost(self) -> tuple[str, str]:
        cost = last_run(self.about.notebook, self.about.prices, self.about.region, self.now)
        if cost is None:
            return "This run", "its cost is not known"
        return "This run", f"cost about {_money(cost, self.view.cost.currency)} (list price, before tax)"

    def disk(self) -> tuple[str, str]:
        cost = disk_month(self.about.notebook, self.about.prices, self.about.region)
        if cost is None:
            return "Disk", f"{self.view.volume_gib} GiB; its price here is not known"
        return "Disk", f"{self.view.volume_gib} GiB, kept for {_money(cost, self.view.cost.currency)} a month"

    def safe_mode(self) -> list[str]:
        """What is to be said where it runs without its owner's configuration."""
        return [self.view.safe_mode.message] if self.view.safe_mode else []

    def wake(self) -> list[Button]:
        return self.life("Wake it, at any time")


def _ready(words: _Words) -> _Content:
    paragraphs = [
        f'Your notebook "{words.name}" is ready.',
        "That link is for life. It leads to the notebook's page, where you open, keep, stop and wake it.",
        "Log in with the password that you chose, or that was shown to you once, when you asked for the notebook. No "
        "message ever contains it.",
        *words.safe_mode(),
        _WARNING,
        *words.by_hand("extend ID 2", "stop ID", "delete ID"),
    ]
    facts = [words.machine(), words.price(), words.stops(), words.certificate()]
    return f"Notebook {words.name} is ready", paragraphs, facts, words.life("Open it")


def _started(words: _Words) -> _Content:
    paragraphs = [
        f'Your notebook "{words.name}" is running again, with everything on its disk.',
        *words.safe_mode(),
        f"{_WARNING} The address and the certificate are new after each start.",
    ]
    facts = [words.machine(), words.price(), words.stops(), words.certificate()]
    return (
        f"Notebook {words.name} is running again",
        paragraphs,
        facts,
        words.life("Open it, keep it longer or stop it"),
    )


def _stopped(words: _Words) -> _Content:
    stop = words.view.stop
    at = times.from_text(words.view.stopped_at)
    when = f" at {words.time(at)}" if at else ""
    paragraphs = [
        f'Your notebook "{words.name}" stopped{when}: {stop.reason.rstrip(".") if stop else "no reason is known"}.',
        "It is back about a minute after you wake it.",
        "Everything on its disk is kept: your files and what you installed. Whatever was running has ended: kernels, "
        "terminals, and what was only in memory.",
        *_jobs(words),
        *words.by_hand("start ID", "delete ID"),
    ]
    return f"Notebook {words.name} has stopped", paragraphs, [words.run_cost(), words.disk()], words.wake()


_SCHEDULERS = {"cron": "cron job", "timer": "timer"}


def _jobs(words: _Words) -> list[str]:
    """That the owner's own jobs do not run now, which a person may not think of."""
    said = []
    for job in words.about.jobs:
        due = "is due" if job.at > words.now else "was due"
        name = job.name.replace("`", "'")
        said.append(f"your {_SCHEDULERS.get(job.what, job.what)} `{name}` {due} at {words.time(job.at)}")
    return [f"Nothing runs while it is stopped: {'; '.join(said)}."] if said else []


def _warned(words: _Words) -> _Content:
    at = words.stops_at()
    paragraphs = [
        f'Your notebook "{words.name}" will stop {words.at(at) if at else "soon"} if nobody uses it: {words.why()}.',
        "If you use it, it stays. When it stops, its disk is kept, but whatever is running ends.",
    ]
    subject = f"Notebook {words.name} will stop {f'at {words.time(at)}' if at else 'soon'}"
    return subject, paragraphs, [words.price()], [*words.life("Open it"), *words.acting()]


def _silent(words: _Words) -> _Content:
    at = words.stops_at()
    paragraphs = [
        f'Your notebook "{words.name}" has gone silent: {words.why()}.',
        f"Unless it is heard from again, it will stop {words.at(at) if at else 'in some hours'}. Its disk is kept. "
        "Open it to see whether it still answers. If it does not, stop it and wake it again.",
    ]
    buttons = [*words.life("Open it"), *words.acting()]
    return f"Notebook {words.name} has gone silent", paragraphs, [words.price()], buttons


def _limit_near(words: _Words) -> _Content:
    at = words.stops_at()
    paragraphs = [
        f'Your notebook "{words.name}" will stop {words.at(at) if at else "soon"}, used or not: {words.why()}.',
        "When it stops, its disk is kept, but whatever is running ends. If that is too early, keep it longer.",
    ]
    subject = f"Notebook {words.name} reaches its limit {f'at {words.time(at)}' if at else 'soon'}"
    return subject, paragraphs, [words.price()], [*words.life("Open it"), *words.acting()]


def _safe_mode(words: _Words) -> _Content:
    paragraphs = [
        f'Your notebook "{words.name}" is running in safe mode.',
        *(words.safe_mode() or ["It runs with your configuration again."]),
        "Your files are untouched, and kernels and terminals have all that you installed.",
    ]
    return f"Notebook {words.name} is running in safe mode", paragraphs, [], words.life("Open it")


def _not_answering(words: _Words) -> _Content:
    trouble = words.view.not_answering
    paragraphs = [
        f'Your notebook "{words.name}" does not answer.',
        trouble.message if trouble else "It answers again by now.",
        "The machine is still running, and costs.",
    ]
    buttons = words.life("See how it is, or stop it")
    return f"Notebook {words.name} does not answer", paragraphs, [words.price()], buttons


def _failed(words: _Words) -> _Content:
    paragraphs = [f'Your notebook "{words.name}" could not be set up.', words.error()]
    return f"Notebook {words.name} failed", paragraphs, [words.code()], []


def _start_failed(words: _Words) -> _Content:
    error, stop = words.view.error, words.view.stop
    if error is None or not error.of_start:
        # One of a password came after it, or none was written.
        reason = f"{stop.reason.rstrip('.')}." if stop and stop.code == START_FAILED else "No reason is known."
        error = Failure(START_FAILED, reason)
    paragraphs = [
        f'Your notebook "{words.name}" could not be started. It stays stopped, and its disk is untouched.',
        error.message,
    ]
    return (
        f"Notebook {words.name} could not be started",
        paragraphs,
        [("Code", error.code), words.disk()],
        words.life("Try again"),
    )


def _stop_failed(words: _Words) -> _Content:
    paragraphs = [
        f'Your notebook "{words.name}" could not be stopped. It is still running, and it still costs money.',
        words.error(),
    ]
    return (
        f"Notebook {words.name} could not be stopped",
        paragraphs,
        [words.code(), words.price()],
        words.life("Try again"),
    )


def _password_failed(words: _Words) -> _Content:
    error = words.error()
    if error.startswith(UNKNOWN):
        said = f'The change of the password of your notebook "{words.name}" did not come to its end.'
        subject = f"Notebook {words.name}: the password may not have been changed"
    else:
        said = f'The new password of your notebook "{words.name}" could not be set. The old one still works.'
        subject = f"Notebook {words.name}: the password was not changed"
    newer = "If you have asked for a newer one since, that one counts."
    return subject, [said, error, newer], [words.code()], words.life("Open it")


def _terminated(words: _Words) -> _Content:
    so_far, currency = words.view.cost.so_far, words.view.cost.currency
    paragraphs = [
        f'Your notebook "{words.name}" is deleted. Its machine and its disk are gone and no longer cost anything.'
    ]
    if so_far is not None:
        paragraphs.append(f"In all it cost about {so_far:.2f} {currency} (list price, before tax).")
    return f"Notebook {words.name} is deleted", paragraphs, [], []


_COMPOSERS = {
    "ready": _ready,
    "started": _started,
    "stopped": _stopped,
    "failed": _failed,
    "terminated": _terminated,
    "start_failed": _start_failed,
    "stop_failed": _stop_failed,
    "password_failed": _password_failed,
    "warned": _warned,
    "silent": _silent,
    "limit_near": _limit_near,
    "safe_mode": _safe_mode,
    "not_answering": _not_answering,
}


def ahead(span: timedelta) -> str:
    """How far away a moment is, in words: `in about 10 minutes`."""
    minutes = round(span.total_seconds() / 60)
    if minutes < 1:
        return "in less than a minute" if span > timedelta(0) else "now"
    if minutes < 100:
        return f"in about {minutes} minute{'s' if minutes > 1 else ''}"
    hours = round(minutes / 60)
    return f"in about {hours} hours" if hours < 48 else f"in about {round(hours / 24)} days"


def _money(amount: Decimal | None, currency: str) -> str:
    return "an unknown price" if amount is None else f"{amount:.2f} {currency}"


def _fact(name: str, value: str, width: int) -> str:
    """Lines of a value, of which commands are some, stay lines."""
    lines = [line for part in value.splitlines() for line in _wrap(part, _WIDTH - width - 2).splitlines()]
    return "\n".join(f"{name if not index else '':{width}}  {line}" for index, line in enumerate(lines))


def _wrap(text: str, width: int = _WIDTH) -> str:
    if text.startswith("    "):
        return text
    lines, line = [], ""
    for word in _WORD.findall(text):
        if line and len(line) + 1 + len(word) > width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    return "\n".join([*lines, line])


def _paragraph(text: str) -> str:
    """Lines that stay as they are become code, which Slack does not break either."""
    if not text.startswith("    "):
        return _slack(text)[:2900]
    lines = [line.strip() for line in text.splitlines()]
    return f"`{_slack(lines[0])}`" if len(lines) == 1 else f"```{_slack(chr(10).join(lines))}```"


def _section(text: str) -> dict[str, object]:
    return {"type": "section", "text": _mrkdwn(text)}


def _fields(*pairs: tuple[str, str]) -> dict[str, object]:
    return {
        "type": "section",
        "fields": [_mrkdwn(f"*{_slack(name)}*\n{_slack(value)}"[:1900]) for name, value in pairs],
    }


def _mrkdwn(text: str) -> dict[str, object]:
    """Verbatim: else Slack makes links and mentions of bare addresses and @channel, which a machine may have said."""
    return {"type": "mrkdwn", "text": text, "verbatim": True}


def _slack(text: object) -> str:
    """Slack's three escapes; without them a name could make a link or call a channel."""
    return str(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
