"""Why a notebook was kept, warned or stopped, in words that its owner understands. Times are UTC."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

_NOW = {
    "input": "somebody uses it",
    "kernel": "a kernel is busy",
    "terminal": "a command runs in a terminal",
    "cpu": "a process of yours uses CPU",
    "disk": "a process of yours reads or writes the disk",
    "network": "a process of yours uses the network",
    "gpu": "the GPU is in use",
}
_WAS = {
    "input": "somebody used it",
    "kernel": "a kernel was busy",
    "terminal": "a command ran in a terminal",
    "cpu": "a process of yours used CPU",
    "disk": "a process of yours read or wrote the disk",
    "network": "a process of yours used the network",
    "gpu": "the GPU was in use",
}
_USED = {"cpu": "CPU", "disk": "disk", "network": "network"}
_UNTOLD = {
    "input": "whether somebody types",
    "kernel": "what the kernels do",
    "terminal": "what runs in terminals",
    "cpu": "what CPU your processes use",
    "disk": "what your processes read and write",
    "network": "what your processes send and receive",
    "gpu": "whether the GPU is in use",
    "browser": "whether a page is open",
}


def activity(signal: str, facts: Mapping[str, object], *, now: bool) -> str:
    """What was active last, or is; with the busiest programs where the monitor named them."""
    said = (_NOW if now else _WAS).get(signal, signal)
    busiest = facts.get("busiest")
    names = [name for name in busiest if isinstance(name, str) and name] if isinstance(busiest, list) else []
    return f"{said} ({', '.join(names[:3])})" if now and signal in ("cpu", "disk", "network") and names else said


class Words:
    """Sentences without a full stop, with times told from the day of `now`."""

    def __init__(self, now: datetime) -> None:
        self._now = now.astimezone(UTC)

    def time(self, moment: datetime) -> str:
        """`14:05 UTC`, with the day when it is another."""
        moment = moment.astimezone(UTC)
        day = "" if moment.date() == self._now.date() else f"{moment.day} {moment:%b} "
        return f"{day}{moment:%H:%M} UTC"

    def idle(
        self,
        since: datetime,
        facts: Mapping[str, object],
        last_input: datetime | None,
        *,
        untold: Mapping[str, datetime] | None = None,
        restarted: datetime | None = None,
    ) -> str:
        """All that was looked at, and what was found; first what could not be looked at (`untold`: since when), which
        is not said to be idle. `restarted`: the last boot, where it is not the run's own."""
        missing = untold or {}
        found = []
        if "input" not in missing:
            here = f"since its machine restarted {self.time(restarted)}" if restarted else "in this run"
            found.append(f"no input since {self.time(last_input)}" if last_input else f"no input {here}")
        if "kernel" not in missing:
            found.append(_kernels(facts))
        if "terminal" not in missing and _count(facts, "terminals", "foreground", "waiting", "quiet"):
            waiting = _count(facts, "terminals", "waiting")
            found.append("what runs in a terminal only waits" if waiting else "no command runs in a terminal")
        used = [word for name, word in _USED.items() if name not in missing]
        if used:
            found.append(f"no process of yours used {_joined(used, 'or')}")
        if "browser" not in missing and _count(facts, "browsers", "hidden"):
            found.append("the page is open, but in a hidden tab or window")
        idle = f"idle since {self.time(since)}: {', '.join(found)}" if found else ""
        if not missing:
            return idle
        what = _joined(_UNTOLD.get(name, name) for name in sorted(missing))
        said = f"{what} could not be told since {self.time(min(missing.values()))}, which counts as use only for hours"
        return f"{said}; as far as can be told {idle}" if idle else said

    def recent(self, last: datetime, what: str | None) -> str:
        """Not long enough ago."""
        return f"{what} until {self.time(last)}" if what else f"in use until {self.time(last)}"

    def reading(self, since: datetime, until: datetime, *, visible: bool) -> str:
        """A page makes it wait longer."""
        page = "the page is open in a visible window" if visible else "the page is open, or was a moment ago"
        return f"{page}; idle since {self.time(since)}, patience until {self.time(until)}"

    def grace(self, began: datetime, until: datetime, *, restarted: bool = False) -> str:
        """Nobody has come yet; or not again since its machine restarted."""
        if restarted:
            return (
                f"its machine restarted {self.time(began)} and nobody has used it since; patience until "
                f"{self.time(until)}"
            )
        return (
            f"it has been running since {self.time(began)} and nobody has used it yet; patience until "
            f"{self.time(until)}"
        )

    def held(self, until: datetime, since: datetime) -> str:
        """The owner said so."""
        return f"you asked to keep it until {self.time(until)}; idle since {self.time(since)}"

    def limit(self, hours: int, began: datetime, ends: datetime | None, hold: datetime | None) -> str:
        """The hard limit."""
        said = f"it has been running since {self.time(began)}, and the limit of {hours} h was set when it was requested"
        if ends is not None and hold is not None and ends == hold:
            return f"{said}, put off to {self.time(ends)} when you extended it"
        return f"{said}: it ends {self.time(ends)}" if ends is not None else said

    def silent(self, heard: datetime, last: str | None, *, ended: bool = False) -> str:
        """Nobody knows; `ended`: and has not known for so long that it is stopped."""
        known = f" (the last thing known: {last})" if last else ""
        if ended:
            return (
                f"no heartbeat since {self.time(heard)}: whether it was in use could not be told, which counts as use "
                f"only for hours{known}"
            )
        return f"no heartbeat since {self.time(heard)}: whether it is in use is unknown, and unknown is not idle{known}"

    def unknown(self, signals: Mapping[str, datetime]) -> str:
        """Which signals cannot be told, and how long that counts as use."""
        what = _joined(_UNTOLD.get(name, name) for name in sorted(signals))
        return f"{what} is unknown just now, and unknown is not idle; it counts as use until at most " + self.time(
            max(signals.values())
        )


def hours(number: float) -> str:
    """`1 hour`, `2 hours`, `1.5 hours`."""
    return f"{number:g} hour{'' if number == 1 else 's'}"


def pages_hidden(facts: Mapping[str, object]) -> int:
    """Pages that are connected, but in a hidden tab or window."""
    return _count(facts, "browsers", "hidden")


def _kernels(facts: Mapping[str, object]) -> str:
    waiting = _count(facts, "kernels", "waiting")
    idle = _count(facts, "kernels", "idle")
    if waiting:
        return "a cell waits for input()" if waiting == 1 else f"{waiting} cells wait for input()"
    if not idle:
        return "no kernel is busy"
    return "kernel idle" if idle == 1 else f"{idle} kernels idle"


def _count(facts: Mapping[str, object], name: str, *keys: str) -> int:
    group = facts.get(name)
    if not isinstance(group, Mapping):
        return 0
    return sum(count for key in keys if isinstance(count := group.get(key), int) and not isinstance(count, bool))


def _joined(parts: Iterable[str], word: str = "and") -> str:
    *first, last = parts
    return f"{', '.join(first)} {word} {last}" if first else last
