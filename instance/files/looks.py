"""One look at the machine: what processes, terminals, the notebook's server, network and GPU say, as a Sample.

What cannot be found out is None. Nothing here may raise for what a user did: their files are read with bounds, and
a question that fails is an unknown.
"""

import contextlib
import json
import os
import re
import stat
import subprocess
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from .activity import Sample, number
from .processes import Look, Process, Processes
from .terminals import Linux, Terminals
from .waiting import Linux as WaitingSystem
from .waiting import Waiting

# Written by the server every two seconds.
SNAPSHOT = "/run/nod-activity/activity.json"
SNAPSHOT_BYTES = 65536
# It writes in place: who comes in between finds half of it, and all of it a moment later.
SNAPSHOT_TRIES = 3
SNAPSHOT_AGAIN_SECONDS = 0.02
# A server that has not written for so long hangs, whatever it says of its kernels.
STALE_SECONDS = 30.0
# Whatever a minute is: the server writes every two seconds, and may be slow.
LEAST_STALE_SECONDS = 8.0
MOST = 10_000
COUNTERS = ("/usr/sbin/nft", "list", "counters", "table", "inet", "nod_traffic")
COUNTED = re.compile(rb"counter (?:sent|received) \{\s*packets \d+ bytes (\d+)")
# A program of its own costs more than all the rest of a look.
TRAFFIC_SECONDS = 15.0
HOME = "/home/jupyter"
# A program of its own, which can be ended: the user may have put a file system there that never answers.
SPACE_QUESTION = ("/usr/bin/stat", "--file-system", "--format=%a %b %S %d %c", HOME)
MIB = 1024 * 1024
GPU = "/dev/nvidia0"
GPU_SECONDS = 30.0
GPU_QUESTION = ("nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits")
TIMEOUT_SECONDS = 5.0


def boottime() -> float:
    """Seconds since boot, by the clock that no step moves and that counts sleep too."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Snapshot(NamedTuple):
    """What the notebook's server wrote about its owner and kernels (visits.py); times of CLOCK_BOOTTIME."""

    at: float
    input_at: float
    kernels: list[tuple[bool, bool]]
    browsers: tuple[int, int]
    #: Whether something could not be looked at that may have been a person's.
    unseen: bool = False
    #: Of each kernel its process and the ports that it listens at for the server; None: not told.
    processes: tuple[tuple[int, ...] | None, ...] = ()
    #: Ports of apps that are used through the server, which itself sees who calls them.
    proxied: frozenset[int] = frozenset()


def read_snapshot(path: str, now: float) -> Snapshot | None:
    """The server's snapshot; None when there is none that can be believed. Its writer is not trusted."""
    for _ in range(SNAPSHOT_TRIES):
        found = _read_once(path, now)
        if found is not None:
            return found
        time.sleep(SNAPSHOT_AGAIN_SECONDS)
    return None


def _read_once(path: str, now: float) -> Snapshot | None:
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            return None
        content = os.read(file, SNAPSHOT_BYTES + 1)
    except OSError:
        return None
    finally:
        os.close(file)
    try:
        return parse_snapshot(json.loads(content), now) if len(content) <= SNAPSHOT_BYTES else None
    except (ValueError, RecursionError):
        return None


def parse_snapshot(value: Any, now: float) -> Snapshot | None:
    """A snapshot of that form, not from the future; None for anything else."""
    if not isinstance(value, dict):
        return None
    at, input_at = number(value.get("at")), number(value.get("input_at"))
    visible, hidden = number(value.get("visible")), number(value.get("hidden"))
    kernels = value.get("kernels")
    if at is None or input_at is None or visible is None or hidden is None or not isinstance(kernels, list):
        return None
    if at > now + 1 or len(kernels) > MOST:
        return None
    pairs = []
    for kernel in kernels:
        if not isinstance(kernel, list) or len(kernel) != 2 or not all(isinstance(flag, bool) for flag in kernel):
            return None
        pairs.append((kernel[0], kernel[1]))
    return Snapshot(
        at,
        min(input_at, now),
        pairs,
        (min(MOST, int(visible)), min(MOST, int(hidden))),
        value.get("unseen") is True,
        tuple(_numbers(process) or None for process in _list(value.get("processes"))),
        frozenset(_numbers(value.get("proxied"))),
    )


def _list(value: Any) -> list[Any]:
    return value[:MOST] if isinstance(value, list) else []


def _numbers(value: Any) -> tuple[int, ...]:
    """Process ids and ports."""
    return tuple(one for one in _list(value) if isinstance(one, int) and not isinstance(one, bool) and one > 0)


def run(command: tuple[str, ...]) -> bytes | None:
    """What a program prints; None when it is not there, fails or hangs."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(
            command, capture_output=True, stdin=subprocess.DEVNULL, timeout=TIMEOUT_SECONDS, check=False
        )
        return done.stdout if done.returncode == 0 else None
    return None


class Now:
    """An answer that is asked for only so often, and kept in between."""

    def __init__(self, seconds: float, ask: Callable[[], float | None]) -> None:
        self._seconds = seconds
        self._ask = ask
        self._asked_at: float | None = None
        self.value: float | None = None

    def at(self, now: float) -> float | None:
        """The answer, not older than these seconds."""
        if self._asked_at is None or now - self._asked_at >= self._seconds:
            self._asked_at = now
            self.value = self._ask()
        return self.value


class Space(NamedTuple):
    """Room in the file system of the user's home, in MiB: what an ordinary user may still write, and the whole."""

    free_mib: int
    size_mib: int


def home_space() -> Space | None:
    """Room for what the notebook's user writes; None: could not be found out."""
    return parse_space(run(SPACE_QUESTION))


def parse_space(answer: bytes | None) -> Space | None:
    """Space from what `stat` printed: free blocks, all blocks, bytes in a block, free inodes, all inodes. None for
    anything else. Where there are inodes and none is free, no file can be made: there is no room."""
    words = (answer or b"").split()
    if len(words) != 5 or not all(word.isdigit() for word in words):
        return None
    free, blocks, size, free_inodes, inodes = map(int, words)
    return Space(free * size // MIB if free_inodes or not inodes else 0, blocks * size // MIB)


class Traffic:
    """Bytes over the network by the user's processes, as nftables counts them (traffic.nft)."""

    def __init__(self, ask: Callable[[], bytes | None], seconds: float = TRAFFIC_SECONDS) -> None:
        self._bytes: float | None = None
        self._total = Now(seconds, lambda: _counted(ask()))

    def since(self, now: float) -> float | None:
        """Bytes since it was asked before; None when they are not counted."""
        total = self._total.at(now)
        before, self._bytes = self._bytes, total
        if total is None:
            return None
        # Counters that shrink began anew.
        return 0.0 if before is None else total - before if total >= before else total


def _counted(printed: bytes | None) -> float | None:
    found = COUNTED.findall(printed or b"")
    return float(sum(int(number) for number in found)) if len(found) == 2 else None


def _busiest_gpu(printed: bytes | None) -> float | None:
    """Percent of the GPU that is used most."""
    numbers = [float(word) for word in re.findall(rb"^\s*(\d{1,3})\s*$", printed or b"", re.MULTILINE)]
    return max(numbers) if numbers else None


class Looker:
    """Looks at the machine again and again. `minute` is how many seconds a minute of the deployment lasts."""

    def __init__(self, minute: float = 60.0, proc: str = "/proc", snapshot: str = SNAPSHOT) -> None:
        self._snapshot_path = snapshot
        self._stale = max(LEAST_STALE_SECONDS, STALE_SECONDS * minute / 60)
        self._processes = Processes(proc)
        self._waiting = Waiting(WaitingSystem(proc))
        self._terminals = Terminals(Linux(proc), self._waiting.is_uncalled)
        self._looked_at: float | None = None
        self._traffic = Traffic(lambda: run(COUNTERS), TRAFFIC_SECONDS * minute / 60)
        self.has_gpu = os.path.exists(GPU)  # noqa: PTH110
        self._gpu = Now(GPU_SECONDS * minute / 60, lambda: _busiest_gpu(run(GPU_QUESTION)))
        self.busiest: list[str] = []

    def look(self) -> Sample:
        """One look. Amounts are since the look before, and unknown at the first."""
        now = boottime()
        found: Look | None = None
        with contextlib.suppress(OSError):
            found = self._processes.look(now)
        network = self._traffic.since(now)
        gpu = self._gpu.at(now) if self.has_gpu else 0.0
        if found is None:
            return Sample(now, network_bytes=network, gpu_percent=gpu)
        self.busiest = found.busiest
        jupyter = read_snapshot(self._snapshot_path, now) if found.server else Snapshot(now, 0.0, [], (0, 0))
        before, self._looked_at = self._looked_at, now
        self._waiting.begin(found.used, now - (now if before is None else before), jupyter.proxied if jupyter else ())
        terminals, typed_at = self._terminals.look(found.processes, now, time.time())
        # When somebody was there last stays true of a server that hangs, and nobody does anything in one that does.
        input_at = max(typed_at, jupyter.input_at if jupyter else 0.0)
        if jupyter is not None and now - jupyter.at > self._stale:
            jupyter = None
        return Sample(
            now,
            input_at=input_at,
            input_unseen=jupyter is not None and jupyter.unseen,
            kernels=self._kernels(jupyter, found, now) if jupyter else None,
            terminals=terminals,
            cpu_seconds=found.cpu_seconds,
            busiest_seconds=found.busiest_seconds,
            disk_bytes=found.disk_bytes,
            network_bytes=network,
            gpu_percent=gpu,
            browsers=jupyter.browsers if jupyter else None,
        )

    def _kernels(self, jupyter: Snapshot, look: Look, now: float) -> list[tuple[bool, bool]]:
        """The server's kernels, with those that only wait as their processes show it, and those that others started."""
        found = []
        its = {each[0]: each[1:] for each in jupyter.processes if each is not None}
        by_pid = {process.pid: process for process in look.processes}
        for place, (busy, waits) in enumerate(jupyter.kernels):
            told = jupyter.processes[place] if place < len(jupyter.processes) else None
            process = by_pid.get(told[0]) if told is not None else None
            if busy and not waits and process is not None:
                found.append((True, self._waits(process, its[process.pid], look.processes)))
            else:
                found.append((busy, waits))
        # Those that the server has just started are not in its file yet.
        known = set(its) | ({look.server_pid} if look.server_pid is not None else set())
        return found + self._waiting.batch_runs(look.processes, known, now)

    def _waits(self, kernel: Process, ports: tuple[int, ...], processes: list[Process]) -> bool:
        """Whether a busy kernel waits for an answer at a terminal that it has opened, or for somebody to call it."""
        children = {process.pid for process in _below(kernel.pid, processes)}
        if children:
            return bool(children & self._terminals.asking) and not children & self._terminals.working
        return self._waiting.is_uncalled([kernel], ports)


def _below(pid: int, processes: list[Process]) -> list[Process]:
    """What a process has started, and what that has started. Parents have lower numbers, mostly."""
    above, found = {pid}, []
    for _ in range(3):
        new = [
            one for one in processes if one.stat.ppid in above and one.pid not in above and one.stat.state not in b"ZX"
        ]
        if not new:
            break
        found += new
        above.update(one.pid for one in new)
    return found
