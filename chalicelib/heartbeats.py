"""A row of the table `heartbeats`, read without belief: whoever is root on the machine may write anything into it.

What is missing, of another type or out of all bounds is unknown here, never idle and never an error. Identity, address
and limits of a notebook come from its record and from EC2, not from here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal

from chalicelib import rows, times

ACTIVITY = ("input", "kernel", "terminal", "cpu", "disk", "network", "gpu")
"""Signals that count as use."""
BROWSER = "browser"
"""A page in a visible window: a reason to wait longer, no use in itself."""
SIGNALS = (*ACTIVITY, BROWSER)

# What the monitor cannot read may be named by its source.
_SOURCES = {"kernels": "kernel", "terminals": "terminal", "browsers": BROWSER}
# Longer than any machine of EC2 has run; a timedelta ends at 2.7 million years.
_LONGEST = 10**9
_MOST_NAMES = 20
_NAME = 40
_DUE_JOBS = "due_jobs"
_MOST_JOBS = 3
_JOB_KINDS = ("cron", "timer")
_MOST_FACTS = 16
_KINDS = 3
_WORDS = 2000
# Of all facts, in bytes: some times what a monitor says. A stop has them in its line, and a line is at most an item.
_MOST_BYTES = 4096
# EBS has no volume that is larger: 64 TiB.
_LARGEST_DISK_MIB = 64 * 1024 * 1024


@dataclass(frozen=True)
class Space:
    """Room in the file system of the home, in MiB: what its owner may still write, and the whole."""

    free_mib: int
    size_mib: int


@dataclass(frozen=True)
class DueJob:
    """A job of the notebook's user that runs only if the machine does: when, by what, and its program's name."""

    at: datetime
    what: str
    """`cron` or `timer`."""
    name: str


@dataclass(frozen=True)
class ServerStatus:
    """What the monitor said of the notebook's server. `safe`: it runs without its owner's configuration, for so long
    (`safe_for`); `down_for`: how long it has not answered; `code`: why, one of server_causes.CAUSES if it is true."""

    safe: bool = False
    code: str | None = None
    safe_for: timedelta | None = None
    down_for: timedelta | None = None
    left_out: tuple[str, ...] = ()
    words: str | None = None

    @classmethod
    def from_record(cls, value: object) -> ServerStatus:
        """Total over any value."""
        if not isinstance(value, Mapping):
            return cls()
        names = value.get("left_out")
        words = value.get("words")
        return cls(
            safe=value.get("mode") == "safe",
            code=code if _is_name(code := value.get("code")) else None,
            safe_for=_seconds(value.get("safe_seconds")),
            down_for=_seconds(value.get("down_seconds")),
            left_out=tuple(str(name) for name in filter(_is_name, names))[:_MOST_NAMES]
            if isinstance(names, list | tuple)
            else (),
            words=_lines(words) if isinstance(words, str) else None,
        )


@dataclass(frozen=True)
class Heartbeat:
    """What the monitor said (docs/contracts.md, Heartbeat). None, or in `unknown`: it did not say it so that it can
    be read."""

    boot_id: str | None = None
    beat: int | None = None
    at: datetime | None = None
    """When it was written, by the machine's clock."""
    uptime: timedelta | None = None
    ages: Mapping[str, timedelta] = field(default_factory=dict)
    """How long ago each of SIGNALS was last active, by a clock that does not step. Absent: not in this boot."""
    unknown: frozenset[str] = frozenset()
    """Signals that nobody can tell now: those of SIGNALS, and what else the monitor names. Each is a name that can be
    stored, and shown."""
    facts: Mapping[str, object] = field(default_factory=dict)
    """For people and the ledger: texts, booleans, whole and decimal numbers, lists and maps of them. About 4 KB."""
    answers: bool | None = None
    address: str | None = None
    certificate_sha256: str | None = None
    certificate_valid: bool | None = None
    version: str | None = None
    confirmed: str | None = None
    server: ServerStatus = ServerStatus()

    @property
    def space(self) -> Space | None:
        """Room on the disk; None where it is not told, or cannot be true."""
        told = self.facts.get("disk")
        if not isinstance(told, Mapping):
            return None
        free, size = _whole(told.get("free_mib")), _whole(told.get("size_mib"))
        if free is None or size is None or not 0 <= free <= size <= _LARGEST_DISK_MIB or size == 0:
            return None
        return Space(free, size)

    @property
    def told(self) -> bool:
        """Whether it can be told from the one before: one that cannot is no sign of life."""
        return self.boot_id is not None and self.beat is not None

    @property
    def due_jobs(self) -> tuple[DueJob, ...]:
        """The user's jobs that are due next, the first one first. Only what can be one is in `facts`."""
        found = self.facts.get(_DUE_JOBS)
        jobs = [_job(one) for one in found] if isinstance(found, list) else []
        return tuple(sorted((job for job in jobs if job is not None), key=lambda job: job.at))

    @classmethod
    def from_record(cls, record: object) -> Heartbeat | None:
        """Reads a row; None where there is none. Never raises, whatever the row holds."""
        if not isinstance(record, Mapping) or not record:
            return None
        uptime = _seconds(record.get("uptime"))
        ages, unknown = _ages(record.get("ages"), has_uptime=uptime is not None)
        facts = record.get("facts")
        return cls(
            boot_id=_text(record.get("boot_id")),
            beat=_whole(record.get("beat")),
            at=_time(record.get("at")),
            uptime=uptime,
            ages=ages,
            unknown=unknown | _named(record.get("unknown", ())),
            facts=_facts(facts) if isinstance(facts, Mapping) else {},
            answers=_flag(record.get("answers")),
            address=_text(record.get("address")),
            certificate_sha256=_text(record.get("certificate_sha256")),
            certificate_valid=_flag(record.get("certificate_valid")),
            version=_text(record.get("version")),
            confirmed=_text(record.get("confirmed")),
            server=ServerStatus.from_record(record.get("server")),
        )

    @classmethod
    def from_item(cls, item: object) -> Heartbeat | None:
        """The same from DynamoDB's attribute values. A type that the monitor never writes is read as unknown: the
        product's own reader raises there, and a forged row would stop the sweep."""
        if not isinstance(item, Mapping):
            return None
        return cls.from_record({str(key): _plain(value, _KINDS) for key, value in item.items()})


def _ages(value: object, *, has_uptime: bool) -> tuple[dict[str, timedelta], frozenset[str]]:
    if not isinstance(value, Mapping):
        return {}, frozenset(SIGNALS)
    ages = {name: age for name in SIGNALS if (age := _seconds(value.get(name))) is not None}
    # "Not active in this boot" says nothing to one who does not know when the boot was.
    unknown = {name for name in SIGNALS if name not in ages and (name in value or not has_uptime)}
    return ages, frozenset(unknown)


def _named(value: object) -> frozenset[str]:
    if not isinstance(value, list | tuple | set | frozenset):
        return frozenset(SIGNALS)
    names = [str(name) for name in value if isinstance(name, str)]
    if len(names) < len(value):
        return frozenset(SIGNALS)
    return frozenset(_SOURCES.get(name, name) for name in sorted(filter(_is_name, names))[:_MOST_NAMES])


def _is_name(name: object) -> bool:
    """Whether it can be a key in DynamoDB, which takes no empty one, and stand in a sentence. No monitor's is long."""
    return isinstance(name, str) and 0 < len(name) <= _NAME and name.isprintable()


def _facts(value: Mapping[object, object]) -> dict[str, object]:
    found: dict[str, object] = {}
    left = _MOST_BYTES
    for key in sorted(str(key) for key in value if _is_name(key))[:_MOST_FACTS]:
        fact = _jobs(value.get(key)) if key == _DUE_JOBS else _fact(value.get(key), _KINDS - 1)
        needs = rows.size(key) + rows.size(fact)
        # What does not fit is left out as a whole: half of it would be another fact.
        if fact is not None and needs <= left:
            found[key] = fact
            left -= needs
    return found


def _fact(value: object, depth: int) -> object:
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        return "".join(letter if letter.isprintable() else "?" for letter in value[:_NAME])
    if isinstance(value, int | float | Decimal):
        return _decimal(value)
    if depth and isinstance(value, Mapping):
        named = [(str(key), part) for key, part in value.items() if _is_name(key)]
        pairs = ((key, _fact(part, depth - 1)) for key, part in named[:_MOST_FACTS])
        return {key: part for key, part in pairs if part is not None}
    if depth and isinstance(value, list | tuple):
        return [fact for part in value[:_MOST_NAMES] if (fact := _fact(part, depth - 1)) is not None]
    return None


def _jobs(value: object) -> list[object] | None:
    """The jobs among what should be a list of them; None where there is none."""
    given = value if isinstance(value, list | tuple) else []
    jobs = [job for one in given[:_MOST_NAMES] if (job := _job(one)) is not None]
    kept = sorted(jobs, key=lambda job: job.at)[:_MOST_JOBS]
    return [{"at": times.to_text(job.at), "what": job.what, "name": job.name} for job in kept] or None


def _job(value: object) -> DueJob | None:
    if not isinstance(value, Mapping):
        return None
    at, what, name = _time(value.get("at")), value.get("what"), value.get("name")
    if at is None or what not in _JOB_KINDS or not _is_name(name):
        return None
    return DueJob(at, str(what), str(name))


def _decimal(value: object) -> int | Decimal | None:
    """DynamoDB takes no float, and nobody reads a third digit."""
    number = _number(value)
    if number is None or abs(number) > _LONGEST**2:
        return None
    return int(number) if number == int(number) else round(Decimal(str(number)), 2)


def _seconds(value: object) -> timedelta | None:
    number = _number(value)
    return timedelta(seconds=min(number, _LONGEST)) if number is not None and number >= 0 else None


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return None
    try:
        number = float(value)
    except (OverflowError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _whole(value: object) -> int | None:
    number = _number(value)
    return int(number) if number is not None and number == int(number) and abs(number) <= _LONGEST**2 else None


def _text(value: object) -> str | None:
    return value[:256] if isinstance(value, str) and value else None


def _lines(value: str) -> str | None:
    """Text of several lines, without control characters."""
    found = "".join(letter if letter == "\n" or letter.isprintable() else " " for letter in value[-_WORDS:]).strip()
    return found or None


def _flag(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _time(value: object) -> datetime | None:
    if not isinstance(value, str):
        return None
    try:
        return times.from_text(value)
    except OverflowError:
        # The year 1 with an offset: a time, but none in UTC.
        return None


def _plain(attribute: object, depth: int) -> object:  # noqa: PLR0911 - one return a type
    if not isinstance(attribute, Mapping) or len(attribute) != 1:
        return None
    ((kind, value),) = attribute.items()
    if kind in ("S", "BOOL"):
        return value
    if kind == "N":
        try:
            return Decimal(str(value))
        except ArithmeticError:
            return None
    if kind == "SS" and isinstance(value, list | tuple | set):
        return list(value)
    if depth and kind == "M" and isinstance(value, Mapping):
        return {str(key): _plain(part, depth - 1) for key, part in value.items()}
    if depth and kind == "L" and isinstance(value, list):
        return [_plain(part, depth - 1) for part in value]
    return None
