#!/usr/bin/env python3
"""When the notebook user's own jobs are due next: their crontab, their `at` jobs, and their timers of systemd.

Usage: due_jobs.py prints a JSON list of at most three, as the heartbeat has them. The monitor runs this as a program of
its own, which can be ended: a home may lie on a file system that never answers.

A machine that is stopped runs none of them, so whoever is told of a stop should be told of these, too. The files are
the user's and are read with bounds; whatever in them cannot be understood is left out. Of a job only the name of its
program is told: an argument may be a secret.
"""

import calendar
import contextlib
import datetime
import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

USER = "jupyter"
CRONTABS = Path("/var/spool/cron/crontabs")
AT_JOBS = Path("/var/spool/cron/atjobs")
# Of a timer of the user only a link in one of these folders starts it.
WANTS = ".config/systemd/user/timers.target.wants"
LONGEST_FILE = 65536
MOST_LINES = 1000
MOST_TIMERS = 20
MOST_AT_JOBS = 200
MOST_TOLD = 3
NAME_LENGTH = 40
# cron starts no job for a date that does not come, as 30 February.
LONGEST_DAYS = 366
SHORTHANDS = {
    "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *", "@monthly": "0 0 1 * *", "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@hourly": "0 * * * *",
}  # fmt: skip
MONTHS = {name.lower(): number for number, name in enumerate(calendar.month_abbr) if name}
DAYS = {name.lower(): (number + 1) % 7 for number, name in enumerate(calendar.day_abbr)}
# Minute, hour, day, month, day of the week (0 and 7 are Sunday): the range, and names that may stand for a number.
FIELDS: tuple[tuple[int, int, dict[str, int]], ...] = (
    (0, 59, {}), (0, 23, {}), (1, 31, {}), (1, 12, MONTHS), (0, 7, DAYS),
)  # fmt: skip
BEFORE_COMMANDS = (
    "cd",
    "exec",
    "nice",
    "ionice",
    "nohup",
    "env",
    "time",
    "timeout",
    "sudo",
    "flock",
    "chronic",
    "sleep",
)
INTERPRETERS = re.compile(r"(python|perl|ruby|node|Rscript|bash|sh|dash|julia)[\d.]*")
ASSIGNMENT = re.compile(r"\w+=\S*")
ON_CALENDAR = re.compile(r"^\s*OnCalendar\s*=\s*(\S.*?)\s*$", re.MULTILINE)
NEXT = re.compile(rb"(?:\(in UTC\)|Next elapse): \w{3} (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) UTC")
ELAPSE_SECONDS = 5.0

Moment = datetime.datetime


class Job(NamedTuple):
    """A job that is due: when (UTC), by what (`cron` or `timer`), and its name."""

    at: Moment
    what: str
    name: str

    def to_fact(self) -> dict[str, str]:
        """As the heartbeat has it."""
        return {"at": self.at.strftime("%Y-%m-%dT%H:%M:%SZ"), "what": self.what, "name": self.name}


class Schedule(NamedTuple):
    """When a line of a crontab is due: the numbers of each field, and whether days are given by both of theirs."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either_day: bool

    def next_after(self, local: Moment) -> Moment | None:
        """The first time after `local`, which has no zone as cron's times have none; None: never."""
        midnight = local.replace(hour=0, minute=0, second=0, microsecond=0)
        times = sorted((hour, minute) for hour in self.hours for minute in self.minutes)
        for number in range(LONGEST_DAYS):
            day = midnight + datetime.timedelta(days=number)
            if day.month not in self.months or not self._is_day(day):
                continue
            for hour, minute in times:
                found = day.replace(hour=hour, minute=minute)
                if found > local:
                    return found
        return None

    def _is_day(self, day: Moment) -> bool:
        by_month, by_week = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return by_month or by_week if self.either_day else by_month and by_week


def parse_schedule(words: list[str]) -> Schedule:
    """Of the five fields of a crontab's line (crontab(5)); ValueError when they are none."""
    found = [_numbers(word, *field) for word, field in zip(words, FIELDS)]  # noqa: B905 (Python 3.9 has no strict)
    if len(found) != len(FIELDS):
        raise ValueError("five fields are needed")
    weekdays = frozenset(number % 7 for number in found[4])
    # Days of the month and of the week: either is enough when neither field begins with a star.
    either = not words[2].startswith("*") and not words[4].startswith("*")
    return Schedule(found[0], found[1], found[2], found[3], weekdays, either)


def _numbers(word: str, low: int, high: int, names: dict[str, int]) -> frozenset[int]:
    found: set[int] = set()
    for part in word.lower().split(","):
        span, _, step = part.partition("/")
        first, dash, last = span.partition("-")
        begin = low if span == "*" else _number(first, names)
        end = high if span == "*" or (step and not dash) else _number(last if dash else first, names)
        by = int(step) if step else 1
        if not (low <= begin <= end <= high and 1 <= by <= 100):
            raise ValueError(f"{part} is out of range")
        found.update(range(begin, end + 1, by))
    return frozenset(found)


def _number(word: str, names: dict[str, int]) -> int:
    if word in names:
        return names[word]
    if not re.fullmatch(r"[0-9]{1,2}", word):
        raise ValueError(f"{word} is no number")
    return int(word)


def cron_jobs(text: str, local: Moment) -> Iterable[tuple[Moment, str]]:
    """Of a user's crontab each line's next time (local, without a zone) and its program's name."""
    for line in text.splitlines()[:MOST_LINES]:
        stripped = line.strip()
        if not stripped or stripped.startswith("#") or re.match(r"""["']?\w+["']?\s*=""", stripped):
            continue
        words = stripped.split()
        if words[0].lower() in SHORTHANDS:
            words = [*SHORTHANDS[words[0].lower()].split(), *words[1:]]
        with contextlib.suppress(ValueError):
            at = parse_schedule(words[:5]).next_after(local)
            if at is not None and words[5:]:
                yield at, command_name(words[5:])


def command_name(words: list[str]) -> str:
    """The name of the program that a command line runs, and of an interpreter its script's. Never an argument."""
    parts: list[list[str]] = [[]]
    for word in words:
        if re.fullmatch(r"[;&|(){}]+", word):
            parts.append([])
        else:
            parts[-1].append(word.rstrip(";"))
            if word.endswith(";"):
                parts.append([])
    for part in parts:
        left = [word for word in part if not ASSIGNMENT.fullmatch(word)]
        if left and left[0] in BEFORE_COMMANDS:
            # What it runs stands behind arguments of its own: only a path or a known interpreter is surely a program.
            left = [] if left[0] == "cd" else _from_program(left[1:])
        if left:
            return _name(left)
    return "job"


def _from_program(words: list[str]) -> list[str]:
    for number, word in enumerate(words):
        if "/" in word or INTERPRETERS.fullmatch(word):
            return words[number:]
    return []


def _name(words: list[str]) -> str:
    name = os.path.basename(words[0].strip("\"'"))  # noqa: PTH119
    if INTERPRETERS.fullmatch(name):
        following = [*words[1:], ""]
        if following[0] == "-m" and len(following) > 2:
            name = f"{name} {following[1]}"
        elif following[0] and not following[0].startswith("-"):
            name = f"{name} {os.path.basename(following[0])}"  # noqa: PTH119
    return _printable(name) or "job"


def _printable(name: str) -> str:
    # An assignment, a quoted line or an address is no name, and may hold what nobody should read.
    if re.search(r"[=\"'$`@:?]", name):
        return ""
    return "".join(letter for letter in name if letter.isprintable())[:NAME_LENGTH]


def at_time(name: str) -> Moment | None:
    """When a file of at's spool is due: queue, number and minutes since 1970 stand in its name."""
    if not re.fullmatch(r"[a-zA-Z][0-9a-f]{5}[0-9a-f]{8}", name):
        return None
    with contextlib.suppress(OverflowError, ValueError):
        return datetime.datetime.fromtimestamp(int(name[6:], 16) * 60, datetime.timezone.utc)  # noqa: UP017 (Python 3.10)
    return None


def next_elapse(when: str) -> Moment | None:
    """The next time of systemd's calendar expression, as systemd itself reckons it; None for what is none."""
    command = ("/usr/bin/systemd-analyze", "calendar", "--iterations=1", "--", when)
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=ELAPSE_SECONDS,
            check=False,
            env={"TZ": "UTC", "LC_ALL": "C", "PATH": "/usr/bin:/bin"},
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    found = NEXT.search(done.stdout)
    if done.returncode != 0 or found is None:
        return None
    return datetime.datetime.strptime(found[1].decode() + " +0000", "%Y-%m-%d %H:%M:%S %z")


class DueJobs:
    """Looks for the user's jobs. The folders may be others than those of this machine."""

    def __init__(
        self,
        home: Path = Path("/home", USER),
        crontabs: Path = CRONTABS,
        at_jobs: Path = AT_JOBS,
        elapse: Callable[[str], Moment | None] = next_elapse,
    ) -> None:
        self._home = home
        self._crontab = crontabs / USER
        self._at_jobs = at_jobs
        self._elapse = elapse

    def at(self, now: Moment) -> list[Job]:
        """The jobs that are due first after `now` (which knows its zone)."""
        found = [*self._by_cron(now), *self._by_at(now), *self._by_timers()]
        return sorted(job for job in found if job.at > now)[:MOST_TOLD]

    def _by_cron(self, now: Moment) -> Iterable[Job]:
        text = _read(self._crontab)
        # Cron goes by the machine's own zone.
        local = now.astimezone().replace(tzinfo=None)
        for at, name in cron_jobs(text, local):
            with contextlib.suppress(OverflowError, ValueError, OSError):
                yield Job(at.astimezone(datetime.timezone.utc), "cron", name)  # noqa: UP017 (Python 3.10)

    def _by_at(self, now: Moment) -> Iterable[Job]:
        owner = None
        with contextlib.suppress(OSError):
            owner = self._home.stat().st_uid
        for name in _names(self._at_jobs, MOST_AT_JOBS):
            at = at_time(name)
            with contextlib.suppress(OSError):
                if at is not None and at > now and (self._at_jobs / name).lstat().st_uid == owner:
                    yield Job(at, "cron", "at job")

    def _by_timers(self) -> Iterable[Job]:
        wants = self._home / WANTS
        if any(path.is_symlink() for path in (wants, *wants.parents) if path.is_relative_to(self._home)):
            return
        for name in _names(wants, MOST_TIMERS):
            if not name.endswith(".timer"):
                continue
            # A link to the timer beside this folder, or to one of the system's.
            text = _read(wants.parent / name) or _read(Path("/usr/lib/systemd/user", name))
            times = [at for when in ON_CALENDAR.findall(text)[:5] if (at := self._elapse(when[:200])) is not None]
            if times:
                yield Job(min(times), "timer", _printable(name[: -len(".timer")]) or "job")


def _names(folder: Path, most: int) -> list[str]:
    try:
        with os.scandir(folder) as found:
            return sorted(entry.name for entry, _ in zip(found, range(most)))  # noqa: B905 (Python 3.9)
    except OSError:
        return []


def _read(path: Path) -> str:
    """A regular file's text, when it is not too long; empty for all else."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):
        return ""
    try:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode) or found.st_size > LONGEST_FILE:
            return ""
        return os.read(file, LONGEST_FILE).decode("utf-8", "replace")
    except OSError:
        return ""
    finally:
        os.close(file)


if __name__ == "__main__":
    due = DueJobs().at(datetime.datetime.now(datetime.timezone.utc))  # noqa: UP017 (Python 3.10)
    sys.stdout.write(json.dumps([job.to_fact() for job in due]) + "\n")
