"""When a notebook stops by itself: from the record, the heartbeat and the time to keep, probe, warn or stop.

Pure: time is an argument. docs/idle.md says in words what stands here; the laws are in tests/unit/test_idleness.py.

Three rules carry the rest:

- Idle is only what the machine itself has counted: its clock that does not step has to show the whole patience in one
  heartbeat, and that heartbeat has to be fresh. No time without news is ever added to it.
- Unknown is not idle. A signal that cannot be told counts as active, a machine that says nothing is silent: both end
  after hours, with a warning, because a broken machine must not run for ever.
- Nobody is stopped unwarned, except at the hard limit that was told when the run began.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import cached_property
from typing import assert_never

from chalicelib import idle_words, times
from chalicelib.heartbeats import ACTIVITY, BROWSER, Heartbeat, Space
from chalicelib.model import Notebook, SeenBeat, Warned
from chalicelib.notebook.life import State


class Action(StrEnum):
    """What a look comes to."""

    KEEP = "keep"
    PROBE = "probe"
    WARN = "warn"
    STOP = "stop"


class Code(StrEnum):
    """Why."""

    ACTIVE = "active"
    RECENTLY_ACTIVE = "recently_active"
    READING = "reading"
    GRACE = "grace"
    HELD = "held"
    IDLE = "idle"
    LIMIT = "limit"
    SILENT = "silent"


KEEP, PROBE, WARN, STOP = Action.KEEP, Action.PROBE, Action.WARN, Action.STOP
ACTIVE, RECENTLY_ACTIVE, READING, GRACE = Code.ACTIVE, Code.RECENTLY_ACTIVE, Code.READING, Code.GRACE
HELD, IDLE, LIMIT, SILENT = Code.HELD, Code.IDLE, Code.LIMIT, Code.SILENT


@dataclass(frozen=True)
class Policy:
    """What is the same for all notebooks, in minutes that last `minute` each (NOD_MINUTE_SECONDS)."""

    minute: timedelta = timedelta(minutes=1)
    warning: int = 10
    """Notice before a stop; half the limit where that is less."""
    sweep: int = 6
    """How much earlier than that a warning is due: a sweep comes every 5 minutes, and not on the second. The sweep that
    finds the warning due is then early enough for the stop to come at the limit. Never in the first half of the limit:
    a short pause is not warned of."""
    patience: int = 30
    """How much longer a visible page makes the limit at the least; and how long a page counts that has gone."""
    hidden: int = 30
    """How much longer a page in a hidden tab or window makes it at the most; half the limit where that is less."""
    grace: int = 15
    """After a start, for the mail to be read; the limit where that is more."""
    fresh: int = 8
    """The oldest heartbeat that may stop a notebook: two of the slowest rhythm (240 s)."""
    rhythm: int = 2
    """Active within it is active now: heartbeats of an active machine come each minute."""
    clock: int = 10
    """How far behind the machine's clock may be and still be believed."""
    silence_probe: int = 15
    silence_warn: int = 60
    silence_stop: int = 240
    """The most that unknown, of one signal or of all, counts as active; an hour over the limit where that is more."""
    near: int = 60
    """How long before the hard limit it is told again; half of it where that is less."""
    soonest: int = 1
    latest: int = 15

    def minutes(self, count: float) -> timedelta:
        """So many of its minutes."""
        return count * self.minute


@dataclass(frozen=True)
class Seen:
    """The last heartbeat that was seen: which, when first (`at`), and since when each signal in it is unknown."""

    boot_id: str | None
    beat: int | None
    at: datetime
    unknown: Mapping[str, datetime] = field(default_factory=dict)
    restarted: datetime | None = None
    """When the machine booted first since anybody or anything used it, of boots that were seen in this run. None: it
    was used in this boot, or has not rebooted."""

    @classmethod
    def from_model(cls, seen: SeenBeat | None) -> Seen | None:
        """None where there is none or its time cannot be read."""
        at = times.from_text(seen.at) if seen else None
        if seen is None or at is None:
            return None
        since = {name: times.from_text(text) for name, text in seen.unknown.items()}
        unknown = {name: moment for name, moment in since.items() if moment}
        return cls(seen.boot_id, seen.beat, at, unknown, times.from_text(seen.restarted))

    def to_record(self) -> dict[str, object]:
        """The map `seen` of the record."""
        record: dict[str, object] = {"at": times.to_text(self.at)}
        if self.boot_id is not None and self.beat is not None:
            record |= {"boot_id": self.boot_id, "beat": self.beat}
        if self.unknown:
            record["unknown"] = {name: times.to_text(since) for name, since in self.unknown.items()}
        if self.restarted is not None:
            record["restarted"] = times.to_text(self.restarted)
        return record


@dataclass(frozen=True)
class GivenWarning:
    """The warning that stands: when it was given, which stop it promised and why, and in which boot."""

    at: datetime
    stops_at: datetime
    code: str
    boot_id: str | None = None

    @classmethod
    def from_model(cls, warned: Warned | None) -> GivenWarning | None:
        """None where there is none, its message is not out, or its times cannot be read: then it has to be given
        again."""
        if warned is None or not warned.told:
            return None
        at, stops_at = times.from_text(warned.at), times.from_text(warned.stops_at)
        return cls(at, stops_at, warned.code, warned.boot_id) if at and stops_at else None

    def to_record(self) -> dict[str, object]:
        """The map `warned` of the record."""
        record: dict[str, object] = {
            "at": times.to_text(self.at),
            "stops_at": times.to_text(self.stops_at),
            "code": self.code,
        }
        return record | ({"boot_id": self.boot_id} if self.boot_id is not None else {})


@dataclass(frozen=True)
class Run:
    """What the record says of the run that is to be judged. Times know their zone."""

    state: str
    run_started_at: datetime
    idle_minutes: int
    max_hours: int | None = None
    hold_until: datetime | None = None
    decided_at: datetime | None = None
    warned: GivenWarning | None = None
    seen: Seen | None = None
    ready_at: datetime | None = None
    """When the notebook was first ready: a launch takes minutes, which are nobody's idleness."""

    @classmethod
    def from_notebook(cls, notebook: Notebook) -> Run:
        """Raises ValueError when no time of the record can be read: such a notebook is not for a rule to stop."""
        started = times.from_text(notebook.run_started_at) or times.from_text(notebook.ready_at)
        started = started or times.from_text(notebook.created_at)
        if started is None:
            raise ValueError(f"{notebook.id} does not say when it was created.")
        return cls(
            state=notebook.state,
            run_started_at=started,
            idle_minutes=notebook.idle_minutes,
            max_hours=notebook.max_hours,
            hold_until=times.from_text(notebook.hold_until),
            decided_at=times.from_text(notebook.decided_at),
            warned=GivenWarning.from_model(notebook.warned),
            seen=Seen.from_model(notebook.seen),
            ready_at=times.from_text(notebook.ready_at),
        )


@dataclass(frozen=True)
class Decision:
    """What to do, and why. `signals` are for the ledger: texts, whole and decimal numbers, lists and maps of them."""

    action: Action
    code: Code
    reason: str
    stops_at: datetime | None
    """The earliest stop as known now; None while nothing would stop it."""
    last_active_at: datetime | None
    last_activity: str | None
    due_at: datetime
    """When to decide again at the latest."""
    signals: Mapping[str, object]
    warned: GivenWarning | None = None
    """To be stored with the action `warn`."""


@dataclass(frozen=True)
class Shown:
    """What GET tells of a running notebook."""

    last_active_at: datetime | None
    last_activity: str | None
    stops_at: datetime | None
    space: Space | None = None
    """Room on its disk, as the machine told of it last in this run."""


def observed(run: Run, heartbeat: Heartbeat | None, now: datetime) -> Seen | None:
    """The record's `seen` after a look at `now`: the same as long as no new heartbeat came."""
    if heartbeat is None or not heartbeat.told:
        return run.seen
    before = run.seen
    if before is not None and (before.boot_id, before.beat) == (heartbeat.boot_id, heartbeat.beat):
        return before
    # Two clocks of Lambda may differ: what was seen later was not seen earlier.
    at = max(now, before.at) if before else now
    since = before.unknown if before else {}
    unknown = {name: since.get(name, at) for name in heartbeat.unknown}
    return Seen(heartbeat.boot_id, heartbeat.beat, at, unknown, _restarted(before, heartbeat, at))


def _restarted(before: Seen | None, heartbeat: Heartbeat, at: datetime) -> datetime | None:
    """`Seen.restarted` after a new heartbeat that was seen first at `at`."""
    if heartbeat.uptime is None:
        return before.restarted if before else None
    if any(heartbeat.ages[name] <= heartbeat.uptime for name in ACTIVITY if name in heartbeat.ages):
        return None
    if before is None or before.boot_id is None or before.boot_id == heartbeat.boot_id:
        return before.restarted if before else None
    return before.restarted or at - heartbeat.uptime


def decide(run: Run, heartbeat: Heartbeat | None, policy: Policy, now: datetime) -> Decision:
    """What to do with a notebook now. `heartbeat` is the row as it stands; None: there is none."""
    return _Look(run, heartbeat, policy, now).decision()


def shown(run: Run, heartbeat: Heartbeat | None, policy: Policy, now: datetime) -> Shown:
    """The same computation for GET, which decides nothing."""
    look = _Look(run, heartbeat, policy, now)
    space = look.heartbeat.space if look.heartbeat else None
    return Shown(look.last_active_at, look.last_activity, look.stops_at, space)


def came_back(run: Run, code: str, heartbeat: Heartbeat | None, policy: Policy, now: datetime) -> Decision | None:
    """Why a stop for want of use (`code`) that was begun at `run.decided_at`, and is not carried out yet, is not to be:
    what the heartbeat shows by now. None where it shows nothing against it. `run`: as if it were ready still."""
    seen, began = observed(run, heartbeat, now), run.decided_at or now
    notice = min(policy.minutes(policy.warning), policy.minutes(run.idle_minutes) / 2)
    # The record does not keep the warning that came before: it was given in time, and nobody had answered it.
    warned = GivenWarning(began - notice, began, code, seen.boot_id if seen else None)
    look = _Look(replace(run, warned=warned), heartbeat, policy, now)
    # What is silent by now says nothing: perhaps it is off already.
    fresh = look.heartbeat is not None and look.now - look.heard_at <= policy.minutes(policy.fresh)
    decision = look.decision()
    return decision if fresh and decision.action != STOP else None


def heard(run: Run, heartbeat: Heartbeat | None, policy: Policy, now: datetime) -> tuple[Heartbeat | None, datetime]:
    """The heartbeat if it is one of this run, and when the machine last gave a sign of life."""
    look = _Look(run, heartbeat, policy, now)
    return look.heartbeat, look.heard_at


class _Look:
    """One look at one notebook: every time that the decision is made of."""

    def __init__(self, run: Run, heartbeat: Heartbeat | None, policy: Policy, now: datetime) -> None:
        self.run = run
        self.policy = policy
        # A sweep that runs beside ours, or a clock that went back: what was decided stays decided.
        self.now = max(now, run.decided_at) if run.decided_at else now
        self.limit = policy.minutes(run.idle_minutes)
        self.notice = min(policy.minutes(policy.warning), self.limit / 2)
        self.long = self.limit + max(self.limit, policy.minutes(policy.patience))
        self.linger = min(self.limit, policy.minutes(policy.patience))
        # Later than a stop by idleness with all its waits: what is lost must not end sooner than what is idle.
        self.cap = max(policy.minutes(policy.silence_stop), self.limit + policy.minutes(policy.silence_warn))
        self.seen = observed(run, heartbeat, self.now)
        # The row of an earlier run is there until the machine writes.
        told = heartbeat is not None and heartbeat.told and self._observed_at(heartbeat) >= run.run_started_at
        self.heartbeat = heartbeat if told else None

    def _observed_at(self, heartbeat: Heartbeat) -> datetime:
        assert self.seen is not None
        first = self.seen.at
        if heartbeat.at is None or not first - self.policy.minutes(self.policy.clock) <= heartbeat.at <= first:
            return first
        before = self.run.seen
        newer = before is not None and before.boot_id == heartbeat.boot_id and before.beat != heartbeat.beat
        # Written after the one before it was seen, whatever the machine's clock says.
        return max(heartbeat.at, before.at) if newer and before else heartbeat.at

    @cached_property
    def heard_at(self) -> datetime:
        """When the machine last gave a sign of life in this run."""
        if self.heartbeat is not None:
            return self._observed_at(self.heartbeat)
        return max(self.run.run_started_at, self.seen.at) if self.seen else self.run.run_started_at

    @property
    def began_at(self) -> datetime:
        """Nothing was idle before it: the run, the first link, or a reboot since."""
        began = max(self.run.run_started_at, self.run.ready_at or self.run.run_started_at)
        if self.booted_at is not None:
            began = max(
                began, self.booted_at if self.reboots_until is None else min(self.booted_at, self.reboots_until)
            )
        return began

    @property
    def booted_at(self) -> datetime | None:
        """When the machine booted last, as far as it says."""
        if self.heartbeat is None or self.heartbeat.uptime is None:
            return None
        return self.heard_at - self.heartbeat.uptime

    @property
    def reboots_until(self) -> datetime | None:
        """Until when a reboot counts as use: what was running before it cannot be told any more. A machine that reboots
        again and again, and that nobody uses, ends as what is unknown does. None: it was used since, or has not
        rebooted."""
        if self.seen is None or self.seen.restarted is None or self.seen.restarted < self.run.run_started_at:
            return None
        return self.seen.restarted + self.cap - self.limit

    @cached_property
    def ages(self) -> dict[str, timedelta]:
        """Of the signals that count as use."""
        ages = self.heartbeat.ages if self.heartbeat else {}
        return {name: ages[name] for name in ACTIVITY if name in ages}

    @cached_property
    def untold(self) -> dict[str, datetime]:
        """Signals that nobody can tell, and since when."""
        if self.heartbeat is None or self.seen is None:
            return {}
        return {name: self.seen.unknown.get(name, self.now) for name in self.heartbeat.unknown}

    @cached_property
    def unknown(self) -> dict[str, datetime]:
        """Those of them that count as active because of that, and until when they do."""
        until = {name: since + self.cap for name, since in self.untold.items()}
        return {name: end for name, end in until.items() if self.now < end}

    @property
    def latest_signal(self) -> str | None:
        """The signal that was active last. None: none since it began."""
        first = min(self.ages, key=lambda name: self.ages[name], default=None)
        return first if first is not None and self.heard_at - self.ages[first] >= self.began_at else None

    @property
    def last_active_at(self) -> datetime | None:
        """The last use that is known, for people. None: none in this run."""
        signal = self.latest_signal
        return self.heard_at - self.ages[signal] if signal is not None else None

    @property
    def last_activity(self) -> str | None:
        """What it was."""
        signal = self.latest_signal
        if signal is None or self.heartbeat is None:
            return None
        return idle_words.activity(signal, self.heartbeat.facts, now=self.active_now)

    @property
    def active_now(self) -> bool:
        """Whether the last heartbeat shows use that goes on."""
        signal = self.latest_signal
        return signal is not None and self.ages[signal] <= self.policy.minutes(self.policy.rhythm) and not self.silent

    @cached_property
    def idle_from(self) -> datetime:
        """From when it counts as idle."""
        if any(name != BROWSER for name in self.unknown):
            return max(self.heard_at, self.began_at)
        return max([self.began_at, *(self.heard_at - age for age in self.ages.values())])

    @property
    def page_at(self) -> datetime | None:
        """When a page was last in a visible window."""
        if self.heartbeat is None:
            return None
        if BROWSER in self.unknown:
            return self.heard_at
        age = self.heartbeat.ages.get(BROWSER)
        return self.heard_at - age if age is not None else None

    @cached_property
    def patience_until(self) -> datetime:
        """Until when idleness is borne: the limit, and longer for a page that somebody may be reading."""
        until = self.idle_from + self.limit
        if self.page_at is not None:
            until = max(until, min(self.idle_from + self.long, self.page_at + self.linger))
        if self.page_hidden:
            until = max(
                until, self.idle_from + self.limit + min(self.limit / 2, self.policy.minutes(self.policy.hidden))
            )
        return until

    @property
    def page_hidden(self) -> bool:
        """Whether a page is connected whose window cannot be seen: somebody may read elsewhere, for a while."""
        return self.heartbeat is not None and idle_words.pages_hidden(self.heartbeat.facts) > 0

    @property
    def silent(self) -> bool:
        """Whether the machine has said nothing for so long that something is wrong."""
        return self.now - self.heard_at >= self.policy.minutes(self.policy.silence_probe)

    @cached_property
    def soft_stop(self) -> datetime:
        """The stop by idleness or silence, if nothing changes and whatever was warned."""
        stop = self.heard_at + self.cap if self.silent else self.patience_until
        grace = max(self.policy.minutes(self.policy.grace), self.limit)
        return max(stop, self.run.run_started_at + grace, self.run.hold_until or stop)

    @property
    def hard_stop(self) -> datetime | None:
        """The stop at the hard limit, put off by extending."""
        if self.run.max_hours is None:
            return None
        stop = self.run.run_started_at + self.policy.minutes(60 * self.run.max_hours)
        return max(stop, self.run.hold_until or stop)

    @property
    def soft_code(self) -> Code:
        return SILENT if self.silent else IDLE

    @cached_property
    def warned(self) -> GivenWarning | None:
        """The warning of idleness or silence that stands. Not one of another boot, or that use, a newer heartbeat, an
        extension or a page answered."""
        warned = self.run.warned
        if warned is None or warned.code != self.soft_code or warned.at < self.run.run_started_at:
            return None
        if warned.boot_id != (self.seen.boot_id if self.seen else None) and not self._reboots_are_over(warned.at):
            return None
        if self.run.hold_until is not None and self.run.hold_until > warned.stops_at:
            return None
        if warned.at < (self.heard_at if self.silent else self.idle_from):
            return None
        # A page that was opened since puts the stop off by far more than clocks differ by.
        return warned if self.soft_stop <= warned.stops_at + self.policy.minutes(self.policy.latest) else None

    def _reboots_are_over(self, since: datetime) -> bool:
        """Whether the reboots since then are of a machine that reboots again and again, and count as use no more. A
        warning would never stand otherwise: the next boot is there before the stop."""
        return (
            self.seen is not None
            and self.seen.restarted is not None
            and self.seen.restarted <= since
            and self.booted_at is not None
            and self.reboots_until is not None
            and self.reboots_until < self.booted_at
        )

    @property
    def announced_stop(self) -> datetime:
        """The stop that a warning given now would promise."""
        silence = self.policy.minutes(self.policy.silence_warn)
        return max(self.soft_stop, self.now + (max(self.notice, silence) if self.silent else self.notice))

    @property
    def warn_at(self) -> datetime:
        """When the warning of idleness or silence is due."""
        if self.silent:
            silence = self.heard_at + self.policy.minutes(self.policy.silence_warn)
            return max(silence, (self.run.hold_until or silence) - self.policy.minutes(self.policy.silence_warn))
        latest = self.soft_stop - self.notice
        # Not while the stop moves on with each heartbeat: with use, or with a page that is in sight.
        calm = self.idle_from + self.limit / 2
        if self.page_at is not None:
            calm = max(calm, self.page_at + self.linger / 2)
        return min(latest, max(latest - self.policy.minutes(self.policy.sweep), calm))

    @property
    def soft_end(self) -> datetime:
        """The earliest stop by idleness or silence, warnings and all."""
        if self.warned is None:
            return self.announced_stop
        return max(self.soft_stop, self.warned.stops_at, self.warned.at + self.notice)

    @property
    def stops_at(self) -> datetime | None:
        """The earliest stop as known now: what is overdue comes with the next sweep, and lies in no past."""
        if self.run.state != State.READY:
            return None
        return max(self.now, self._first(self.soft_end))

    def _first(self, soft: datetime) -> datetime:
        return min(soft, self.hard_stop) if self.hard_stop is not None else soft

    @property
    def proved(self) -> bool:
        """Whether a fresh heartbeat shows the whole patience. Silence has nothing to show."""
        if self.silent:
            return True
        fresh = self.now - self.heard_at <= self.policy.minutes(self.policy.fresh)
        return self.heartbeat is not None and fresh and self.heard_at >= self.patience_until

    @property
    def near_at(self) -> datetime | None:
        """When the hard limit is to be told again. None: there is none, or it was told."""
        if self.hard_stop is None or self.run.max_hours is None:
            return None
        warned = self.run.warned
        # A warning of an earlier stop tells no less. One slot holds them, or the two would take turns for ever.
        if self.warned is not None and self.warned.stops_at <= self.hard_stop:
            return None
        if warned is not None and warned.code == LIMIT and warned.at >= self.run.run_started_at:
            told = warned.stops_at >= self.hard_stop
        else:
            told = False
        half = self.policy.minutes(30 * self.run.max_hours)
        return None if told else self.hard_stop - min(half, self.policy.minutes(self.policy.near))

    def decision(self) -> Decision:
        action, code = self._action()
        warned = None
        stops_at = self.now if action == STOP else self.stops_at
        if action == WARN:
            promised = self.hard_stop if code == LIMIT and self.hard_stop else self._first(self.announced_stop)
            warned = GivenWarning(self.now, promised, code, self.seen.boot_id if self.seen else None)
            stops_at = stops_at if code == LIMIT else promised
        return Decision(
            action=action,
            code=code,
            reason=self._reason(action, code),
            stops_at=stops_at,
            last_active_at=self.last_active_at,
            last_activity=self.last_activity,
            due_at=self._due_at(warned),
            signals=self._signals(),
            warned=warned,
        )

    def _action(self) -> tuple[Action, Code]:
        if self.run.state != State.READY:
            return KEEP, GRACE
        if self.hard_stop is not None and self.now >= self.hard_stop:
            return STOP, LIMIT
        if self.warned is not None and self.now >= self.soft_end and self.proved:
            return STOP, self.soft_code
        # A stop by idleness that comes after the hard limit needs no words of its own.
        comes = self.hard_stop is None or self.announced_stop < self.hard_stop
        if self.warned is None and comes and self.now >= self.warn_at:
            return WARN, self.soft_code
        if self.near_at is not None and self.now >= self.near_at:
            return WARN, LIMIT
        return (PROBE, SILENT) if self.silent else (KEEP, self._kept_code())

    def _kept_code(self) -> Code:  # noqa: PLR0911 - one return a reason
        if self.active_now:
            return ACTIVE
        if self.run.hold_until is not None and self.now < self.run.hold_until and self.now >= self.patience_until:
            return HELD
        if self.warned is not None:
            return IDLE
        if self.unknown.keys() - {BROWSER}:
            return RECENTLY_ACTIVE
        if self.latest_signal is None and self.now < self.soft_stop:
            return GRACE
        if self.now < self.idle_from + self.limit:
            return RECENTLY_ACTIVE
        return READING if self.now < self.patience_until else IDLE

    def _reason(self, action: Action, code: Code) -> str:  # noqa: PLR0911 - one return a reason
        words = idle_words.Words(self.now)
        if self.run.state != State.READY:
            return f"nothing to decide while it is {self.run.state}"
        match code:
            case Code.LIMIT:
                hours, run = self.run.max_hours or 0, self.run
                return words.limit(hours, run.run_started_at, self.hard_stop, run.hold_until)
            case Code.SILENT:
                return words.silent(self.heard_at, self.last_activity, ended=action == STOP)
            case Code.ACTIVE:
                return self.last_activity or "active"
            case Code.HELD:
                held = self.run.hold_until
                return words.held(held, self.idle_from) if held is not None else self._idle(words)
            case Code.GRACE:
                return words.grace(self.began_at, self.soft_stop, restarted=self._restarted_in_this_run)
            case Code.READING:
                return words.reading(self.idle_from, self.patience_until, visible=self._page_visible)
            case Code.RECENTLY_ACTIVE:
                tells = words.unknown(self.unknown) if self.unknown else None
                return tells or words.recent(self.idle_from, self.last_activity)
            case Code.IDLE:
                return self._idle(words)
            case _:
                assert_never(code)

    def _idle(self, words: idle_words.Words) -> str:
        return words.idle(
            self.idle_from,
            self.heartbeat.facts if self.heartbeat else {},
            self.last_input_at,
            untold=self.untold,
            restarted=self.booted_at if self._restarted_in_this_run else None,
        )

    @property
    def _restarted_in_this_run(self) -> bool:
        """Whether it rebooted while it was ready. The boot that began the run is a moment after its beginning."""
        began = max(self.run.run_started_at, self.run.ready_at or self.run.run_started_at)
        return self.booted_at is not None and self.booted_at > began + self.policy.minutes(self.policy.latest / 3)

    @property
    def last_input_at(self) -> datetime | None:
        """When a person last did something in this run."""
        age = self.ages.get("input")
        at = self.heard_at - age if age is not None else None
        return at if at is not None and at >= self.began_at else None

    @property
    def _page_visible(self) -> bool:
        return self.page_at is not None and self.heard_at - self.page_at <= self.policy.minutes(self.policy.rhythm)

    def _due_at(self, warned: GivenWarning | None) -> datetime:
        """When the decision could change first. Between heartbeats nothing else can."""
        soonest, latest = (self.now + self.policy.minutes(count) for count in (self.policy.soonest, self.policy.latest))
        if self.run.state != State.READY:
            return latest
        standing = (warned is not None and warned.code != LIMIT) or self.warned is not None
        events: list[datetime | None] = [
            warned.stops_at if warned and warned.code != LIMIT else self.soft_end if standing else self.warn_at,
            None if self.silent else self.heard_at + self.policy.minutes(self.policy.silence_probe),
            self.hard_stop,
            self.near_at if warned is None else None,
        ]
        return _between(soonest, latest, events)

    def _signals(self) -> dict[str, object]:
        """For the ledger."""
        found: dict[str, object] = {"heard_at": times.to_text(self.heard_at), "idle_minutes": self.run.idle_minutes}
        if self.run.hold_until is not None:
            found["hold_until"] = times.to_text(self.run.hold_until)
        if self.heartbeat is None:
            return found
        found["ages"] = {name: int(age.total_seconds()) for name, age in self.heartbeat.ages.items()}
        if self.heartbeat.unknown:
            found["unknown"] = sorted(self.heartbeat.unknown)
        if self.heartbeat.facts:
            found["facts"] = dict(self.heartbeat.facts)
        if self.heartbeat.boot_id is not None and self.heartbeat.beat is not None:
            found |= {"boot_id": self.heartbeat.boot_id, "beat": self.heartbeat.beat}
        return found


def _between(soonest: datetime, latest: datetime, events: Iterable[datetime | None]) -> datetime:
    coming = min((event for event in events if event is not None), default=latest)
    return max(soonest, min(latest, coming)).astimezone(UTC)
