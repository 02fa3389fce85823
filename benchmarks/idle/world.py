"""A day of one machine and the people who use it, as facts; nothing here knows a rule.

A `Day` says what happens if nobody stops the machine, and when it is needed. A `Machine` is one run of it: what the
operating system and Jupyter would say, from a start on. After a stop everything that ran is gone (kernels, forgotten
sessions, threads, pages); only what begins after the start of the next run is there.

What Jupyter says follows measurements of Jupyter Server 2.21.1: a silent busy cell leaves `last_activity` alone; each
line that a cell or thread prints moves its kernel's and the server's; a terminal that prints moves its own in
/api/terminals, and the server's only while a page is open; a plain GET of /api/kernels moves the server's, and a page
of JupyterLab polls while it is visible, not while it is hidden.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property

STEP = 5
"""Seconds between two looks of the monitor."""
MINUTE, HOUR = 60.0, 3600.0
DAY = 24 * HOUR
POLL = 10.0
"""A visible page of JupyterLab polls kernels, sessions and terminals about so often."""
PING = 30.0
"""Jupyter pings its websockets so often, and the browser answers."""

Interval = tuple[float, float]


@dataclass(frozen=True)
class Work:
    """Something that runs from `start` to `end`: a cell (`kernel`), a foreground command (`shell`) or neither."""

    start: float
    end: float
    kernel: int | None = None
    shell: int | None = None
    waits: bool = False
    """A cell in `input()`, or a command that waits for keys (an editor, `top`, `tail -f`)."""
    cpu: float = 0.0
    """Cores."""
    disk: float = 0.0
    network: float = 0.0
    """Bytes a second."""
    gpu: float = 0.0
    """Percent."""
    prints: float | None = None
    """Seconds between two lines of output."""
    pulse: Interval | None = None
    """Computes only for the first of each second seconds."""
    system: bool = False
    """Not the user's (a daemon of root)."""
    serves: bool = False
    """A server that sleeps until somebody calls, and nobody does."""
    batch: bool = False
    """A cell in a kernel that Jupyter did not start (`nbconvert --execute`)."""
    thread_of: int | None = None
    """A thread of this kernel that goes on while the kernel is idle."""


@dataclass(frozen=True)
class Shell:
    """A terminal with a shell at its prompt: of Jupyter or over SSH."""

    start: float
    end: float
    ssh: bool = False


@dataclass(frozen=True)
class Asked:
    """A request to an app behind Jupyter's login: what was sent, and whether a browser marks it as a person's."""

    at: float
    path: str
    body: bytes = b""
    marked: bool = False


@dataclass(frozen=True)
class Page:
    """An open page of JupyterLab, connected; `visible` while it is in a visible window."""

    start: float
    end: float
    visible: tuple[Interval, ...]


@dataclass
class Day:
    """What happens in one day of 24 hours, in seconds from its beginning, and when the machine is needed."""

    name: str
    rng: random.Random
    needs: list[Interval] = field(default_factory=list)
    works: list[Work] = field(default_factory=list)
    shells: list[Shell] = field(default_factory=list)
    pages: list[Page] = field(default_factory=list)
    kernels: list[Interval] = field(default_factory=list)
    """When each kernel was started, and ended (killed by its user)."""
    inputs: list[tuple[float, bool]] = field(default_factory=list)
    """When a person did something; whether in an SSH session, not in Jupyter."""
    asked: list[Asked] = field(default_factory=list)
    """What was asked of apps, by persons and by their pages."""
    probes: list[tuple[float, float, float]] = field(default_factory=list)
    """From, to, period: somebody's program asks GET /api/kernels."""
    blind: list[Interval] = field(default_factory=list)
    """The monitor does not run."""
    lost: list[Interval] = field(default_factory=list)
    """No heartbeat reaches the table."""
    hangs: list[Interval] = field(default_factory=list)
    """Jupyter does not answer."""
    swept: list[Interval] = field(default_factory=list)
    """No sweep takes place."""
    clock: list[tuple[float, float]] = field(default_factory=list)
    """From when on the machine's clock is off by how much."""
    reboots: list[float] = field(default_factory=list)

    def need(self, start: float, end: float) -> None:
        """The machine works for somebody, or somebody is at it."""
        self.needs.append((start, min(end, DAY)))

    @cached_property
    def needed(self) -> list[Interval]:
        """The needs, joined where they touch or overlap."""
        joined: list[Interval] = []
        for start, end in sorted(self.needs):
            if joined and start <= joined[-1][1]:
                joined[-1] = (joined[-1][0], max(joined[-1][1], end))
            else:
                joined.append((start, end))
        return joined

    def need_at(self, moment: float) -> Interval | None:
        """The need in which a moment lies."""
        return next((need for need in self.needed if need[0] <= moment < need[1]), None)

    def next_need(self, moment: float) -> Interval | None:
        """The first need that begins after a moment."""
        return next((need for need in self.needed if need[0] > moment), None)


class Machine:
    """One run of a day's machine, from `start` on. `resumed`: a stop cut into a need, and what ran was begun again."""

    def __init__(self, day: Day, start: float, *, resumed: bool) -> None:
        self.day = day
        self.start = start

        def here(begin: float, end: float) -> bool:
            return end > start and (resumed or begin >= start)

        self.works = [work for work in day.works if work.system or here(work.start, work.end)]
        self.shells = [(index, shell) for index, shell in enumerate(day.shells) if here(shell.start, shell.end)]
        self.pages = [page for page in day.pages if here(page.start, page.end)]
        self.kernels = [(index, life) for index, life in enumerate(day.kernels) if here(*life)]
        self.inputs = sorted(at for at, _ in day.inputs if at >= start)
        self.in_jupyter = sorted(at for at, ssh in day.inputs if at >= start and not ssh)
        self.asked = sorted((one for one in day.asked if one.at >= start), key=lambda one: one.at)
        self._asked_at = [one.at for one in self.asked]
        self.boots = [start, *(at for at in day.reboots if at > start)]

    def booted_at(self, moment: float) -> float:
        """When the boot began in which a moment lies."""
        return self.boots[bisect_right(self.boots, moment) - 1]

    # What Jupyter's API says, and who is connected.

    def kernel_states(self, moment: float) -> list[tuple[bool, float]]:
        """Each running kernel: is it busy, and its `last_activity`."""
        found = []
        for index, (start, end) in self.kernels:
            if start <= moment < end:
                mine = [w for w in self.works if index in (w.kernel, w.thread_of) and w.start <= moment]
                busy = any(w.kernel == index and moment < w.end for w in mine)
                found.append((busy, max([max(start, self.start), *(self._spoke(w, moment) for w in mine)])))
        return found

    def _spoke(self, work: Work, moment: float) -> float:
        """The last message of a cell: its begin, a line that it printed, its end."""
        if work.end <= moment and work.kernel is not None:
            return work.end
        until = min(moment, work.end)
        begin = max(work.start, self.start)
        return begin + (until - begin) // work.prints * work.prints if work.prints and until > begin else begin

    def terminals(self, moment: float) -> list[float]:
        """`last_activity` of each of Jupyter's terminals."""
        found = []
        for index, shell in self.shells:
            if not shell.ssh and shell.start <= moment < shell.end:
                mine = [w for w in self.works if w.shell == index and w.start <= moment]
                found.append(max([max(shell.start, self.start), *(self._spoke(w, moment) for w in mine)]))
        return found

    def connected(self, moment: float) -> bool:
        """Whether a page is open somewhere."""
        return any(page.start <= moment < page.end for page in self.pages)

    def ssh(self, moment: float) -> bool:
        """Whether a shell is open over SSH."""
        return any(shell.ssh and shell.start <= moment < shell.end for _, shell in self.shells)

    def in_terminal(self, moment: float) -> bool:
        """Whether a command runs that somebody gave in a terminal and that is no editor or the like."""
        return any(w.shell is not None and not w.waits and w.start <= moment < w.end for w in self.works)

    def jupyter_activity(self, moment: float) -> float:
        """`last_activity` of the server, as /api/status has it."""
        # jupyter-server-proxy tells Jupyter of whatever it passes on.
        latest = [self.start, last(self.in_jupyter, moment), last(self._asked_at, moment)]
        for page in self.pages:
            for start, end in page.visible:
                if start <= moment:
                    # Not exact to the second: it polls at times of its own.
                    latest.append(start + max(0.0, min(moment, end) - start) // POLL * POLL)
        for start, end, period in self.day.probes:
            begin = max(start, self.start)
            if begin <= moment and end > begin:
                latest.append(begin + (min(moment, end) - begin) // period * period)
        latest.extend(spoke for _, spoke in self.kernel_states(moment))
        if self.connected(moment):
            latest.extend(self.terminals(moment))
        return max(latest)

    def proxy_activity(self, moment: float) -> float:
        """Last data through a proxy in front of Jupyter: requests and websockets, whose pings a hidden page answers."""
        latest = [self.jupyter_activity(moment)]
        for page in self.pages:
            if page.start <= moment:
                latest.append(page.start + (min(moment, page.end) - page.start) // PING * PING)
        return max(latest)

    # What the operating system says, one value for each look of the monitor.

    @cached_property
    def looks(self) -> int:
        """How many looks the run has until the day ends."""
        return int((DAY - self.start) // STEP)

    def _amounts(self, of: Callable[[Work], float], noise: Callable[[random.Random], float]) -> list[float]:
        found = self._noise(noise)
        for work in self.works:
            rate = of(work)
            if not rate:
                continue
            for index, seconds in self._shares(work):
                found[index] += rate * seconds
        return found

    def _noise(self, noise: Callable[[random.Random], float]) -> list[float]:
        rng = random.Random(f"{self.day.name} {self.start}")
        # A thousand values of noise, drawn once and read round and round.
        drawn = [noise(rng) for _ in range(997)]
        return (drawn * (self.looks // 997 + 1))[: self.looks]

    def _shares(self, work: Work) -> Iterable[tuple[int, float]]:
        """The looks in which it is there, and for how many seconds of each it computes."""
        first = max(0, int((work.start - self.start) // STEP))
        for index in range(first, min(self.looks, int((work.end - self.start) // STEP) + 1)):
            begin = self.start + index * STEP
            yield index, _overlap(work, begin, begin + STEP)

    @cached_property
    def cpu(self) -> list[float]:
        """Core-seconds of the user's processes in each look: idle kernels use some as well."""
        return self._amounts(lambda work: 0.0 if work.system else work.cpu, _idle_kernels)

    @cached_property
    def busiest(self) -> list[float]:
        """Core-seconds of the user's busiest process in each look. Each work is one process."""
        found = self._noise(_idle_kernels)
        for work in self.works:
            if not work.system and work.cpu:
                for index, seconds in self._shares(work):
                    found[index] = max(found[index], work.cpu * seconds)
        return found

    @cached_property
    def host_cpu(self) -> list[float]:
        """Core-seconds of everything in each look."""
        return self._amounts(lambda work: work.cpu, lambda rng: STEP * rng.uniform(0.008, 0.03))

    @cached_property
    def disk(self) -> list[float]:
        """Bytes of the user's processes in each look."""
        return self._amounts(
            lambda work: 0.0 if work.system else work.disk,
            lambda rng: rng.uniform(0, 64_000) if rng.random() < 0.1 else 0.0,
        )

    @cached_property
    def network(self) -> list[float]:
        """Bytes of the user's processes in each look, without the notebook's port."""
        return self._amounts(lambda work: 0.0 if work.system else work.network, lambda rng: rng.uniform(0, 2_000))

    @cached_property
    def gpu(self) -> list[float]:
        """Percent in each look."""
        found = [0.0] * self.looks
        for work in self.works:
            if work.gpu:
                for index in self._span(work.start, work.end):
                    found[index] = max(found[index], work.gpu)
        return found

    def _span(self, start: float, end: float) -> range:
        """The looks at which something is there that runs from `start` to `end`."""
        return range(
            max(0, -int(-(start - self.start) // STEP)), min(self.looks, max(0, -int(-(end - self.start) // STEP)))
        )

    def _lists(self, entries: Iterable[tuple[float, float, tuple[bool, bool]]]) -> list[list[tuple[bool, bool]]]:
        """For each look the pairs of those that are there; equal neighbours share one list."""
        changes: dict[int, list[tuple[int, tuple[bool, bool]]]] = {}
        for start, end, pair in entries:
            span = self._span(start, end)
            if len(span):
                changes.setdefault(span.start, []).append((1, pair))
                changes.setdefault(span.stop, []).append((-1, pair))
        found: list[list[tuple[bool, bool]]] = []
        counts: dict[tuple[bool, bool], int] = {}
        for index in sorted(changes):
            now = [pair for pair, count in counts.items() for _ in range(count)]
            found.extend([now] * (index - len(found)))
            for sign, pair in changes[index]:
                counts[pair] = counts.get(pair, 0) + sign
        now = [pair for pair, count in counts.items() for _ in range(count)]
        return (found + [now] * (self.looks - len(found)))[: self.looks]

    @cached_property
    def kernel_pairs(self) -> list[list[tuple[bool, bool]]]:
        """(busy, waits) of each kernel: a kernel's cell beside the kernel at rest, as one kernel more that is idle."""
        cells = [(w.start, w.end, (True, w.waits or w.serves)) for w in self.works if w.kernel is not None or w.batch]
        return self._lists([*cells, *((start, end, (False, False)) for _, (start, end) in self.kernels)])

    @cached_property
    def terminal_pairs(self) -> list[list[tuple[bool, bool]]]:
        """(has a foreground command, it waits for keys) of each terminal."""
        commands = [(w.start, w.end, (True, w.waits or w.serves)) for w in self.works if w.shell is not None]
        return self._lists([*commands, *((s.start, s.end, (False, False)) for _, s in self.shells)])

    @cached_property
    def browsers(self) -> list[tuple[int, int]]:
        """Pages visible and hidden. A page is seen by its polls, so it counts as visible for half a minute more."""
        visible = self._lists([(a, b + 3 * POLL, (True, True)) for p in self.pages for a, b in p.visible])
        all_pages = self._lists([(p.start, p.end, (True, True)) for p in self.pages])
        return [(len(seen), max(0, len(opened) - len(seen))) for seen, opened in zip(visible, all_pages, strict=True)]

    def last_input(self, moment: float) -> float:
        """When a person last did something in this boot; 0: not in it. Terminals tell it to 8 seconds."""
        at = last(self.inputs, moment)
        return at if at >= self.booted_at(moment) else 0.0


def last(moments: list[float], until: float) -> float:
    """The last of sorted moments that is not after `until`; 0 when there is none."""
    index = bisect_right(moments, until)
    return moments[index - 1] if index else 0.0


def within(moment: float, intervals: list[Interval]) -> bool:
    """Whether one of them holds the moment."""
    return any(start <= moment < end for start, end in intervals)


def _idle_kernels(rng: random.Random) -> float:
    """0.1 to 0.5 % of a core each, now and then a garbage collection or an autosave of some extension."""
    return STEP * rng.uniform(0.002, 0.012) + (rng.uniform(0.2, 0.9) if rng.random() < 0.01 else 0.0)


def _overlap(work: Work, begin: float, end: float) -> float:
    """Seconds of the span in which it computes."""
    low, high = max(begin, work.start), min(end, work.end)
    if high <= low:
        return 0.0
    if work.pulse is None:
        return high - low
    on, period = work.pulse
    phase = (low - work.start) % period
    seconds = max(0.0, min(high - low, on - phase))
    rest = (high - low) - (period - phase)
    return seconds + max(0.0, min(rest, on))
