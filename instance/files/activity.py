"""What counts as activity: looks at the machine become ages of signals. No clock, no files, standard library only.

A `Sample` is what one look found, `Activity` remembers when each signal was last active. Times are seconds of
CLOCK_BOOTTIME, which no clock step moves and which runs on while a machine sleeps. What a look could not find
out is None: unknown, which is not the same as idle.

The thresholds stand between what idle software does by itself and the least that is work; what was measured is in
decision 13:

- CPU. Idle programs add up, work stands out: of what counts is the busiest process of each look, and of all together
  three times as much. 10 % of a core over a minute counts, and also 2 core-seconds within 10 seconds: bursts with
  gaps are work, though their mean is low. So do shorter ones that come again and again: a program that wakes up to
  see whether there is something to do needs milliseconds, one that computes for the better part of a second time
  after time has found something.
- Disk: 100 KiB/s over a minute. Network: 12 KiB/s over a minute.
- GPU. An idle GPU shows 0 %, and up to 3 % while its tools look at it: 5 %.
"""

import math
from collections import deque
from typing import Any, NamedTuple

WINDOW_SECONDS = 60.0
# Of one process.
CPU_CORES = 0.10
BURST_SECONDS = 10.0
BURST_CORE_SECONDS = 2.0
# So many times as much of all processes together.
TOGETHER = 3.0
# So much of one process within BURST_SECONDS, so many times in a row, none of them longer after the one before.
SHORT_CORE_SECONDS = 0.9
SHORT_TIMES = 5
SHORT_GAP_SECONDS = 120.0
DISK_BYTES = 100 * 1024.0
NETWORK_BYTES = 12 * 1024.0
GPU_PERCENT = 5.0
# Without a look for so long nothing is known; three missed looks of the slowest rhythm are not yet that.
STALE_SECONDS = 60.0

SIGNALS = ("input", "kernel", "terminal", "cpu", "disk", "network", "gpu", "browser")
# All but `browser`: somebody who looks makes patience longer, but does nothing.
ACTIVITY = SIGNALS[:-1]


class Sample(NamedTuple):
    """What one look at the machine found. None: could not be found out."""

    #: When it looked.
    at: float
    #: When a person last did something in Jupyter, or typed in a terminal; 0: not since the machine started.
    input_at: float | None = None
    #: Each kernel: is it busy, and if so, does it wait for input()?
    kernels: list[tuple[bool, bool]] | None = None
    #: Each terminal (also SSH and SSM): has it a foreground command, and if so, does that wait for keys?
    terminals: list[tuple[bool, bool]] | None = None
    #: Core-seconds that the user's processes used since the sample before.
    cpu_seconds: float | None = None
    #: Bytes that the user's processes read from and wrote to disks since the sample before.
    disk_bytes: float | None = None
    #: Bytes that the user's processes sent and received since the sample before, without what the notebook serves.
    network_bytes: float | None = None
    #: The busiest GPU's use in percent; 0 on a machine without one.
    gpu_percent: float | None = None
    #: Open pages of the notebook: in a visible window, and not.
    browsers: tuple[int, int] | None = None
    #: Of `cpu_seconds` the share of the process that used most. None: as if one had used it all.
    busiest_seconds: float | None = None
    #: Whether a person may have done something that could not be seen.
    input_unseen: bool = False


class Flow:
    """An amount that grows, looked at in a sliding window."""

    def __init__(self, window: float, least: float) -> None:
        """Active when at least `least` came together within `window` seconds."""
        self.window = window
        self._least = least
        self._parts: deque[tuple[float, float]] = deque()

    def add(self, at: float, seconds: float, amount: float) -> bool:
        """Takes what came in the `seconds` before `at`; whether it is active by it.

        A look that brought next to nothing is never active: work that has ended does not stay young for as
        long as the window remembers it.
        """
        # Of a look that spans more than the window, the window's share.
        share = amount * min(1.0, self.window / seconds) if seconds > 0 else amount
        self._parts.append((at, share))
        self._drop(at)
        rate = self._least / self.window
        span = min(seconds, self.window)
        return share >= rate * span / 2 and sum(part for _, part in self._parts) >= self._least

    def mean(self, now: float) -> float:
        """Amount a second over the window that ends now."""
        self._drop(now)
        return sum(part for _, part in self._parts) / self.window

    def _drop(self, now: float) -> None:
        while self._parts and self._parts[0][0] <= now - self.window:
            self._parts.popleft()


class Repeats:
    """Short bursts, looked at for whether they come again and again."""

    def __init__(self) -> None:
        self._flow = Flow(BURST_SECONDS, SHORT_CORE_SECONDS)
        self._last: float | None = None
        self._times = 0

    def add(self, at: float, seconds: float, amount: float) -> bool:
        """Takes what came in the `seconds` before `at`; whether it ends a burst that is not the first."""
        self._flow.add(at, seconds, amount)
        # Not what `add` says: a burst may lie in two looks, nearly all of it in the first.
        if self._flow.mean(at) * BURST_SECONDS < SHORT_CORE_SECONDS or amount < SHORT_CORE_SECONDS / 10:
            return False
        since = math.inf if self._last is None else at - self._last
        # The same burst is seen for as long as the window remembers it.
        if since >= BURST_SECONDS:
            self._times = self._times + 1 if since <= max(SHORT_GAP_SECONDS, seconds) else 1
            self._last = at
        return self._times >= SHORT_TIMES


class Activity:
    """When each signal was last active. Samples are handed in one after the other."""

    def __init__(self, started_at: float) -> None:
        """`started_at`: when this watch began; before it nothing is known to have been idle."""
        self._started_at = started_at
        self._last: dict[str, float] = {}
        self._sample: Sample | None = None
        self._unknown_at: float | None = None
        self._cpu = Flow(WINDOW_SECONDS, TOGETHER * CPU_CORES * WINDOW_SECONDS)
        self._burst = Flow(BURST_SECONDS, TOGETHER * BURST_CORE_SECONDS)
        self._one = Flow(WINDOW_SECONDS, CPU_CORES * WINDOW_SECONDS)
        self._burst_of_one = Flow(BURST_SECONDS, BURST_CORE_SECONDS)
        self._repeats = Repeats()
        self._disk = Flow(WINDOW_SECONDS, DISK_BYTES * WINDOW_SECONDS)
        self._network = Flow(WINDOW_SECONDS, NETWORK_BYTES * WINDOW_SECONDS)

    def observe(self, sample: Sample) -> None:
        """Takes a sample in. One that is not later than the one before is left out."""
        before = self._sample.at if self._sample else self._started_at
        if self._sample and sample.at <= before:
            return
        seconds = max(0.0, sample.at - before)
        self._sample = sample
        if sample.input_at is not None and sample.input_at > 0:
            self._active("input", min(sample.input_at, sample.at))
        for signal, active in (
            ("kernel", any(busy and not waits for busy, waits in sample.kernels or ())),
            ("terminal", any(command and not waits for command, waits in sample.terminals or ())),
            ("cpu", self._computes(sample, seconds)),
            ("disk", sample.disk_bytes is not None and self._disk.add(sample.at, seconds, sample.disk_bytes)),
            (
                "network",
                sample.network_bytes is not None and self._network.add(sample.at, seconds, sample.network_bytes),
            ),
            ("gpu", sample.gpu_percent is not None and sample.gpu_percent >= GPU_PERCENT),
            ("browser", sample.browsers is not None and sample.browsers[0] > 0),
        ):
            if active:
                self._active(signal, sample.at)
        if _hides_use(self.unknown(sample.at)):
            self._unknown_at = sample.at

    def ages(self, now: float) -> dict[str, int]:
        """Whole seconds since each signal was last active; a signal that never was is absent."""
        return {name: max(0, int(now - self._last[name])) for name in SIGNALS if name in self._last}

    def unknown(self, now: float) -> list[str]:
        """What cannot be told now, in the words of the heartbeat's `unknown`."""
        sample = self._sample
        if sample is None or now - sample.at > STALE_SECONDS:
            sample = Sample(now)
        found = {
            "input": None if sample.input_unseen else sample.input_at,
            "kernels": sample.kernels,
            "terminals": sample.terminals,
            "cpu": sample.cpu_seconds,
            "disk": sample.disk_bytes,
            "network": sample.network_bytes,
            "gpu": sample.gpu_percent,
            "browsers": sample.browsers,
        }
        return [name for name, value in found.items() if value is None]

    def idle_seconds(self, now: float, unknown_cap: float) -> float:
        """How long nothing was active, and all of it was known.

        What cannot be told counts as use for so long after the last use that was told (`unknown_cap`), as it does for
        the sweep: a signal that stays unknown must not keep the machine for ever. Nor must a page that lies open.
        """
        used_at = max([self._started_at, *(self._last[name] for name in ACTIVITY if name in self._last)])
        unknown_at = now if _hides_use(self.unknown(now)) else self._unknown_at
        return max(0.0, now - max(used_at, min(unknown_at or 0.0, used_at + unknown_cap)))

    def facts(self, now: float) -> dict[str, Any]:
        """What the last sample found, for people; what is unknown is absent."""
        unknown = self.unknown(now)
        sample = self._sample
        found: dict[str, Any] = {}
        if sample is None:
            return found
        if sample.kernels is not None and "kernels" not in unknown:
            found["kernels"] = _counts(sample.kernels, ("busy", "waiting", "idle"))
        if sample.terminals is not None and "terminals" not in unknown:
            found["terminals"] = _counts(sample.terminals, ("foreground", "waiting", "quiet"))
        if "cpu" not in unknown:
            found["cpu_cores"] = round(self._cpu.mean(now), 3)
        if "disk" not in unknown:
            found["disk_mib_s"] = round(self._disk.mean(now) / 1048576, 3)
        if "network" not in unknown:
            found["network_kib_s"] = round(self._network.mean(now) / 1024, 2)
        if sample.gpu_percent is not None and "gpu" not in unknown:
            found["gpu_percent"] = round(sample.gpu_percent, 1)
        if sample.browsers is not None and "browsers" not in unknown:
            found["browsers"] = {"visible": sample.browsers[0], "hidden": sample.browsers[1]}
        return found

    def state(self) -> dict[str, Any]:
        """What to keep over a restart of the monitor (JSON)."""
        return {"started_at": self._started_at, "last": dict(self._last), "unknown_at": self._unknown_at}

    def restore(self, state: dict[str, Any]) -> None:
        """Takes up a kept state of this boot; what in it is no time is left out."""
        began = number(state.get("started_at"))
        if began is not None:
            self._started_at = min(self._started_at, began)
        unknown_at = number(state.get("unknown_at"))
        if unknown_at is not None:
            self._unknown_at = max(unknown_at, self._unknown_at or 0.0)
        kept = state.get("last")
        for name, value in kept.items() if isinstance(kept, dict) else ():
            at = number(value)
            if name in SIGNALS and at is not None:
                self._active(name, at)

    def _active(self, signal: str, at: float) -> None:
        self._last[signal] = max(at, self._last.get(signal, at))

    def _computes(self, sample: Sample, seconds: float) -> bool:
        if sample.cpu_seconds is None:
            return False
        most = sample.cpu_seconds if sample.busiest_seconds is None else sample.busiest_seconds
        # All take the sample, whatever the others say.
        return any(
            [
                self._cpu.add(sample.at, seconds, sample.cpu_seconds),
                self._burst.add(sample.at, seconds, sample.cpu_seconds),
                self._one.add(sample.at, seconds, most),
                self._burst_of_one.add(sample.at, seconds, most),
                self._repeats.add(sample.at, seconds, most),
            ]
        )


def _hides_use(unknown: list[str]) -> bool:
    """Whether there may be use behind what cannot be told: who looks at a page uses nothing by that."""
    return any(name != "browsers" for name in unknown)


def _counts(pairs: list[tuple[bool, bool]], names: tuple[str, str, str]) -> dict[str, int]:
    """How many work, how many wait, how many do neither."""
    waiting = sum(1 for works, waits in pairs if works and waits)
    working = sum(1 for works, waits in pairs if works and not waits)
    return dict(zip(names, (working, waiting, len(pairs) - working - waiting)))  # noqa: B905 (Python 3.9 has no strict)


def number(value: Any) -> float | None:
    """A number from outside that is neither negative nor beyond all bounds; None for everything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) and found >= 0 else None
