"""The ledger as text: what was decided about a notebook, when, why, and by what signals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TypeGuard

from rich.text import Text

from nod import text
from nod.model import Event
from nod.output import Output

_STYLES = {"keep": "dim", "probe": "yellow", "warn": "yellow", "stop": "red"}
_HIDDEN = frozenset({"boot_id", "beat"})
"""They tell one heartbeat from another, which helps no reader; --json has them."""
_DEEPEST = 3


def blocks(output: Output, events: Sequence[Event]) -> None:
    """The events, in the order given; each a line that says what and when, and sentences under it."""
    for event in events:
        head = Text(text.local(event.at) if event.at else "-")
        head.append(f"  {event.action}", style=_STYLES.get(event.action, ""))
        if event.by:
            head.append(f"  by {event.by}")
        if event.stops_at:
            head.append(f"  stops {text.local(event.stops_at)}")
        output.console.print(head, soft_wrap=True)
        why = event.reason or event.code or "-"
        output.note("Why", f"{why} ({event.code})" if event.code and event.reason else why)
        found = signals(event.signals)
        if found:
            output.note("Signals", found)


def signals(found: Mapping[str, object]) -> str:
    """Signals in words: what was active when, what could not be told, then the facts: `kernel 5 s ago; input 1 h ago`.

    `ages` and `unknown` are the monitor's (docs/contracts.md); what else there is is shown by its own name, so that a
    signal that this version does not know is seen too.
    """
    parts: list[str] = []
    ages = found.get("ages")
    if isinstance(ages, Mapping):
        known = [(float(age), str(name)) for name, age in ages.items() if _is_number(age)]
        parts += [f"{text.clean(name)} {_ago(age)}" for age, name in sorted(known)]
    unknown = found.get("unknown")
    if isinstance(unknown, list) and unknown:
        parts.append(f"not known: {', '.join(_value(name, 1) for name in unknown)}")
    for source in (found.get("facts"), found):
        for name, value in source.items() if isinstance(source, Mapping) else ():
            if name in _HIDDEN or (source is found and name in ("ages", "unknown", "facts")):
                continue
            parts.append(f"{text.clean(str(name)).replace('_', ' ')} {_value(value, _DEEPEST)}")
    return "; ".join(part for part in parts if part)


def _ago(age: float) -> str:
    return "now" if age < 1 else f"{text.span(age)} ago"


def _value(value: object, depth: int) -> str:
    if isinstance(value, Mapping) and depth:
        words = (f"{_value(one, depth - 1)} {text.clean(str(name))}" for name, one in value.items())
        return ", ".join(words) or "none"
    if isinstance(value, list) and depth:
        return ", ".join(_value(one, depth - 1) for one in value) or "none"
    if isinstance(value, str):
        moment = _moment(value)
        return text.local(moment) if moment else text.clean(value)
    if isinstance(value, float):
        return f"{value:g}"
    return text.clean(str(value))


def _moment(value: str) -> datetime | None:
    """A time of the API's form, with its zone. What merely begins like one is text."""
    if len(value) < 20 or not value.endswith("Z"):
        return None
    try:
        return datetime.fromisoformat(value).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e15
