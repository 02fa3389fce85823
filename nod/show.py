"""Notebooks as text: the result of a request, one in full, all in a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal

from rich.table import Table
from rich.text import Text

from nod import steps, text
from nod.model import Notebook, Notification, Stop
from nod.output import Output
from nod.states import LAUNCHING, NOBODY_ANSWERS, OVER, State, StepState
from nod.view import state_style

_TOLD = {
    "pending": "being sent",
    "unconfirmed": "not confirmed. A mail from AWS asks to confirm the subscription; the link follows then",
    "unsubscribed": "off: AWS delivers nothing to your address any more. Open the link in AWS's mail \"Unsubscribe "
    'Confirmation" to switch it on again, or ask your administrator for a new confirmation',
    "sent": "sent",
    "failed": "could not be delivered",
}
_BY = {
    "link": "by someone with the link",
    "sweep": "by itself",
    "monitor": "by its own machine",
    "outside": "from outside, at EC2 or on the machine",
}
_COLUMNS = ("NAME", "ID", "STATE", "TYPE", "STOPS", "SO FAR", "ACTIVE", "PRICE/H", "AGE", "ADDRESS")
_ALWAYS = ("NAME", "ID", "STATE")
_MOST_WANTED_FIRST = (*_ALWAYS, "STOPS", "TYPE", "SO FAR", "ACTIVE", "PRICE/H", "AGE", "ADDRESS")
_GAP = 2
"""Columns of the terminal between two columns of the table."""


def block(output: Output, notebook: Notebook, now: datetime, *, password: Sequence[str] = ()) -> None:
    """Everything about one notebook that its owner needs.

    Args:
        output: where to.
        notebook: what to show.
        now: the time of day, for "in 3 h".
        password: what to say about it, in lines; the first is the password itself if there is one to show.
    """
    output.gap()
    output.head(f"{notebook.title}: {notebook.state}", f"bold {state_style(notebook.state)}")
    if notebook.error_message or notebook.error_code:
        code = f" ({notebook.error_code})" if notebook.error_code else ""
        output.note("Error", f"{notebook.error_message or 'no reason given'}{code}")
    if notebook.not_answering:
        since = f"since {text.local(notebook.not_answering_since)}: " if notebook.not_answering_since else ""
        output.note("No answer", f"{since}{notebook.not_answering}")
    if notebook.safe_mode:
        output.note("Safe mode", notebook.safe_mode)
    output.row("Id", notebook.id)
    _links(output, notebook)
    if password:
        output.row("Password", password[0], "bold")
        for line in password[1:]:
            output.note("", line)
    if notebook.certificate_sha256 and notebook.state not in NOBODY_ANSWERS:
        certificate(output, notebook.certificate_sha256)
    if notebook.instance_type:
        output.row("Type", _machine(notebook))
    if notebook.state not in OVER:
        output.note("Price", price(notebook))
    _life(output, notebook, now)
    for number, notification in enumerate(notebook.notifications):
        output.note("" if number else "Messages", told(notification, notebook.state))
    if notebook.left_out:
        output.note("Left out", f"server extensions of yours that are not loaded: {', '.join(notebook.left_out)}")
    for number, line in enumerate((notebook.last_words or "").splitlines()):
        output.row("" if number else "Last words", line)
    failed = [step for step in notebook.steps if step.state == StepState.FAILED]
    for step in failed:
        output.note("Failed in", steps.title(step.name) + (f": {step.detail}" if step.detail else ""))


def step_lines(output: Output, notebook: Notebook, now: datetime) -> None:
    """The steps with their seconds; `now` is the server's time."""
    output.gap()
    for step in notebook.steps:
        spent = step.seconds(now)
        count = text.seconds(spent) if spent is not None else ""
        output.row("", f"{steps.title(step.name):<22}{step.state:<9}{count:>8}".rstrip())


def table(output: Output, notebooks: Sequence[Notebook], now: datetime) -> None:
    """All notebooks, one a line, with as many columns as the terminal has room for.

    Nothing in them is cut or broken, since names, ids and addresses are there to be copied: where not even name, id
    and state fit side by side, they stand below each other.
    """
    if not notebooks:
        output.say("No notebooks. `nod request` makes one.")
        return
    rows = [_cells(notebook, now) for notebook in notebooks]
    widths = {name: max(len(name), *(row[name].cell_len for row in rows)) + _GAP for name in _COLUMNS}
    shown = _that_fit(widths, output.console.width + _GAP)
    if not set(shown) >= set(_ALWAYS):
        for row in rows:
            output.console.print(row["NAME"], soft_wrap=True)
            output.console.print(Text("  ").append_text(row["ID"]), soft_wrap=True)
            output.console.print(Text("  ").append_text(row["STATE"]), soft_wrap=True)
        return
    grid = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="dim")
    for heading in shown:
        grid.add_column(heading, no_wrap=True)
    for row in rows:
        grid.add_row(*(row[heading] for heading in shown))
    output.console.print(grid)


def _that_fit(widths: Mapping[str, int], room: int) -> list[str]:
    """The headings in their order, as many of the most wanted as there is room for."""
    shown: set[str] = set()
    for heading in _MOST_WANTED_FIRST:
        if widths[heading] > room:
            break
        room -= widths[heading]
        shown.add(heading)
    return [heading for heading in _COLUMNS if heading in shown]


def _cells(notebook: Notebook, now: datetime) -> dict[str, Text]:
    age = text.since(notebook.created_at, now).removesuffix(" ago") if notebook.created_at else "-"
    return {
        "NAME": Text(notebook.title, style="bold"),
        "ID": Text(notebook.id),
        "STATE": Text(notebook.state + mark(notebook), style=state_style(notebook.state)),
        "TYPE": Text(notebook.instance_type or "-"),
        "STOPS": Text(stops_briefly(notebook, now)),
        "SO FAR": Text(_money(notebook.so_far, notebook.currency, "0.01")),
        "ACTIVE": Text(text.since(notebook.last_active_at, now) if notebook.last_active_at else "-"),
        "PRICE/H": Text(_money(notebook.per_hour, notebook.currency)),
        "AGE": Text(age),
        "ADDRESS": Text(notebook.url or "-"),
    }


def price(notebook: Notebook) -> str:
    """The price of an hour, in words; an unknown one is said to be unknown."""
    if notebook.per_hour is None:
        return "not known for this type and region"
    words = f"{_money(notebook.per_hour, notebook.currency)} an hour while it runs"
    if notebook.state == State.STOPPED:
        words += ", now for its disk only"
    if notebook.so_far is not None:
        words += f"; {_money(notebook.so_far, notebook.currency)} so far"
    return words


def stops(notebook: Notebook, now: datetime) -> str:
    """When it stops by itself, in the reader's time zone; the rule where the time is not known."""
    if notebook.stops_at is not None:
        if notebook.stops_at <= now:
            return f"{text.local(notebook.stops_at)} (due)"
        return f"{text.local(notebook.stops_at)} at the earliest ({text.distance(notebook.stops_at, now)})"
    rules = []
    if notebook.idle_minutes is not None:
        rules.append(f"after {text.span(60 * notebook.idle_minutes)} without use")
    if notebook.max_hours is not None:
        rules.append(f"{text.span(3600 * notebook.max_hours)} after its start in any case")
    return "; ".join(rules) or "not known"


def mark(notebook: Notebook) -> str:
    """What the table adds to the state of a notebook whose server is not well."""
    if notebook.not_answering:
        return ", no answer"
    return ", safe mode" if notebook.safe_mode else ""


def stops_briefly(notebook: Notebook, now: datetime) -> str:
    """For a cell of the table: `in 23 min`, `in 2 h, held`, `3 h ago: idle`."""
    if notebook.stopped_at is not None and notebook.state == State.STOPPED:
        words = text.since(notebook.stopped_at, now)
        return f"{words}: {notebook.stop.code}" if notebook.stop.code else words
    if notebook.state == State.STOPPING:
        return f"now: {notebook.stop.code}" if notebook.stop.code else "now"
    if notebook.state != State.READY or notebook.stops_at is None:
        return "-"
    words = text.distance(notebook.stops_at, now) if notebook.stops_at > now else "due"
    return f"{words}, held" if notebook.hold_until is not None and notebook.hold_until > now else words


def room(notebook: Notebook) -> str | None:
    """What is free on its disk; None where the machine does not tell."""
    free, size = notebook.disk_free_gib, notebook.disk_size_gib
    return f"{_gib(free)} GiB free of {_gib(size)} GiB" if free is not None and size is not None else None


def _gib(amount: Decimal) -> str:
    """At most two digits behind the point; a number that no disk has, as it was sent."""
    return f"{amount.quantize(Decimal('0.01')).normalize():f}" if abs(amount) < 10**9 else str(amount)


def held(notebook: Notebook, now: datetime) -> str | None:
    """Until when a person keeps it from stopping; None if nobody does."""
    if notebook.hold_until is None or notebook.hold_until <= now:
        return None
    return f"until {text.local(notebook.hold_until)} ({text.distance(notebook.hold_until, now)})"


def active(notebook: Notebook, now: datetime) -> str | None:
    """When it was last in use, and how; None if that is not known."""
    if notebook.last_active_at is None:
        return notebook.last_activity
    words = f"{text.local(notebook.last_active_at)} ({text.distance(notebook.last_active_at, now)})"
    return f"{words}: {notebook.last_activity}" if notebook.last_activity else words


def why_stopped(stop: Stop) -> str | None:
    """Why it stops or stopped, and by whom; None if that is not known."""
    reason = stop.reason or stop.code
    by = _BY.get(stop.by, f"by {stop.by}") if stop.by else None
    return f"{reason} ({by})" if reason and by else reason or by


def told(notification: Notification, state: str) -> str:
    """A channel and how far its message is, for a notebook in `state`."""
    words = _TOLD.get(notification.state, notification.state)
    if notification.state == "pending" and state in LAUNCHING:
        words = "gets the link when the notebook is ready"
    return f"{notification.channel}: {words}"


def certificate(output: Output, fingerprint: str) -> None:
    """The fingerprint to compare, and why."""
    _fingerprint(output, fingerprint)
    output.note(
        "",
        "The browser will warn, since the notebook made this certificate itself. Open the certificate from "
        "the warning and compare its SHA-256 fingerprint (some browsers show it without colons, in lower "
        "case). Go on only if it is the same.",
    )


def _links(output: Output, notebook: Notebook) -> None:
    if notebook.link:
        output.row("Link", notebook.link, "bold cyan")
        if notebook.url:
            output.row("Address", notebook.url)
    elif notebook.url:
        output.row("Link", notebook.url, "bold cyan")


def _life(output: Output, notebook: Notebook, now: datetime) -> None:
    """What keeps it running, when it stops, why it stopped, and what can be done about it."""
    if notebook.state == State.READY:
        used = active(notebook, now)
        if used:
            output.note("Last active", used)
        free = room(notebook)
        if free:
            output.note("Disk", free)
    if notebook.state in LAUNCHING | {State.STARTING, State.READY}:
        output.note("Stops", stops(notebook, now))
        kept = held(notebook, now)
        if kept:
            output.note("Held", kept)
    if notebook.state == State.READY:
        output.row("", f"nod extend {notebook.id} HOURS keeps it, nod stop {notebook.id} stops it")
    if notebook.state in (State.STOPPING, State.STOPPED):
        if notebook.stopped_at is not None and notebook.state == State.STOPPED:
            output.row("Stopped", f"{text.local(notebook.stopped_at)} ({text.distance(notebook.stopped_at, now)})")
        why = why_stopped(notebook.stop)
        if why:
            output.note("Why", why)
    if notebook.state == State.STOPPED:
        output.row("Start it", f"nod start {notebook.id}")


def _fingerprint(output: Output, fingerprint: str) -> None:
    pairs = fingerprint.split(":")
    if len(pairs) == 32 and output.console.is_terminal:
        # Two lines of 16: 95 characters would be broken anywhere on a usual terminal.
        output.row("Certificate", "SHA-256 " + ":".join(pairs[:16]) + ":")
        output.row("", "        " + ":".join(pairs[16:]))
    else:
        output.row("Certificate", f"SHA-256 {fingerprint}")


def _machine(notebook: Notebook) -> str:
    parts = [notebook.instance_type or ""]
    if notebook.volume_gib:
        parts.append(f"{notebook.volume_gib} GiB disk")
    if notebook.instance_id:
        parts.append(notebook.instance_id)
    return ", ".join(parts)


def _money(amount: Decimal | None, currency: str | None, places: str = "0.0001") -> str:
    if amount is None:
        return "-"
    if 0 < amount < Decimal(places):
        return _money(Decimal(places), f"< {currency}" if currency else "<", places)
    digits = f"{amount.quantize(Decimal(places)).normalize():f}" if abs(amount) < 10**9 else str(amount)
    return f"{currency} {digits}" if currency else digits
