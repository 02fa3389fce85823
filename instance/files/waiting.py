"""Which work only waits, and which is work though nothing shows it: told by what processes of the user are doing.

- A *server that nobody calls* waits: a process that has a port open, sleeps until somebody connects, has no connection
  and computes nothing. That it sleeps so is seen by the system call of its main thread: it accepts, or polls for ever
  or for at most a second, as `serve_forever()` does. Who sleeps longer, or in another way, may have something to do
  after it. Calls through the notebook's own server do not count here: it tells itself whether a person made them.
- A *batch run* works as long as it is there: nbconvert with --execute, papermill and the like run one cell after the
  other and end then. So does a kernel that somebody else than the notebook's server has started, while its main thread
  is not in the loop in which an idle kernel waits for requests.

Everything is read from /proc, of the few processes in question alone.
"""

import contextlib
import os
import platform
import re
import struct
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple, Protocol

from .processes import INTERPRETERS, LONGEST, Process

# System calls by machine: accept, accept4; poll (its third argument is milliseconds); epoll_wait, epoll_pwait (the
# fourth); ppoll, pselect6, epoll_pwait2 (one that is a time somewhere in memory: which argument). x86-64's `select`
# has a `timeval` there.
CALLS: dict[str, dict[int, tuple[str, int]]] = {
    "x86_64": {
        43: ("accept", 0), 288: ("accept", 0), 7: ("poll", 3), 232: ("epoll", 4), 281: ("epoll", 4), 271: ("ppoll", 3),
        270: ("pselect", 5), 23: ("select", 5), 441: ("epoll2", 4),
    },
    "aarch64": {
        202: ("accept", 0), 242: ("accept", 0), 22: ("epoll", 4), 73: ("ppoll", 3), 72: ("pselect", 5),
        441: ("epoll2", 4),
    },
}  # fmt: skip
WAITS_FOR_CHILD = {"x86_64": (61, 247), "aarch64": (260, 95)}
POLLED_SECONDS = 1.0
# ipykernel's input() looks each hundredth of a second whether an answer is there.
INPUT_SECONDS = 0.011
# More than this share of a core is no sleep.
ASLEEP_CORES = 0.02
LISTENS = 10
TCP = ("tcp", "tcp6")
MOST_SOCKETS = 20_000
MOST_FILES = 4096
AGAIN_SECONDS = 10.0
YOUNG_SECONDS = 60.0
# comm of what may be a batch run or a kernel: all else is not looked at.
MAY_RUN = re.compile(rb"(python|ipython|jupyter|papermill|jupytext|runipy|py\.test|pytest)")
ANY, EXECUTE, NOTEBOOKS = "", r"--execute|--ExecutePreprocessor\.enabled=True", r"--nbmake|--nbval(-lax)?"
# Programs that run notebooks and end then; with which argument, if not always.
RUNS = {
    "jupyter-nbconvert": EXECUTE, "nbconvert": EXECUTE, "jupyter-execute": ANY, "nbclient": ANY, "jupyter-run": ANY,
    "papermill": ANY, "runipy": ANY, "jupytext": EXECUTE, "pytest": NOTEBOOKS, "py.test": NOTEBOOKS,
}  # fmt: skip
IPYTHONS = ("ipython", "ipython3", "IPython")
KERNELS = ("ipykernel_launcher", "ipykernel", "ipykernel_launcher.py")


class Connection(NamedTuple):
    """A TCP socket: its ports, its state as the kernel numbers it, and whose it is (0: nobody's any more)."""

    port: int
    remote_port: int
    is_local: bool
    state: int
    inode: int


class Sleep(NamedTuple):
    """What a process waits in: the kind of system call, and for how many seconds at most (None: for ever)."""

    kind: str
    seconds: float | None


class System(Protocol):
    """What is asked about a process (by its id)."""

    def sleep(self, pid: int) -> Sleep | None:
        """What its main thread waits in; None: it runs, or this cannot be seen. Other calls have the kind `other`."""

    def connections(self, pid: int) -> list[Connection]:
        """All sockets of its network."""

    def inodes(self, pid: int) -> set[int]:
        """The sockets that it has open."""

    def arguments(self, pid: int) -> list[str]:
        """Its command line."""


class Linux:
    """The system that runs."""

    def __init__(self, proc: str = "/proc") -> None:
        self._proc = proc
        self._calls = CALLS.get(platform.machine(), {})
        self._children = WAITS_FOR_CHILD.get(platform.machine(), ())

    def sleep(self, pid: int) -> Sleep | None:
        words = self._read(f"{pid}/syscall", 256).split()
        try:
            number, arguments = int(words[0]), [int(word, 16) for word in words[1:7]]
        except (ValueError, IndexError):
            return None
        if number in self._children:
            return Sleep("child", None)
        if number not in self._calls:
            return Sleep("other", None)
        kind, which = self._calls[number]
        value = arguments[which - 1] if 0 < which <= len(arguments) else 0
        if kind in ("poll", "epoll"):
            milliseconds = struct.unpack("<i", struct.pack("<I", value & 0xFFFFFFFF))[0]
            return Sleep(kind, None if milliseconds < 0 else milliseconds / 1000)
        if kind == "accept" or value == 0:
            return Sleep(kind, None)
        return self._until(pid, kind, value)

    def _until(self, pid: int, kind: str, address: int) -> Sleep | None:
        """A call whose time stands in the process's memory, as two numbers of 64 bits."""
        try:
            file = os.open(f"{self._proc}/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return Sleep("other", None)
        try:
            seconds, rest = struct.unpack("<qq", os.pread(file, 16, address))
        except (OSError, struct.error, OverflowError):
            return Sleep("other", None)
        finally:
            os.close(file)
        return Sleep(kind.rstrip("2"), seconds + rest / (1e6 if kind == "select" else 1e9))

    def connections(self, pid: int) -> list[Connection]:
        found: list[Connection] = []
        for name in TCP:
            for line in self._read(f"{pid}/net/{name}", MOST_SOCKETS * 150).splitlines()[1:]:
                with contextlib.suppress(ValueError, IndexError):
                    found.append(parse_connection(line))
        return found[:MOST_SOCKETS]

    def inodes(self, pid: int) -> set[int]:
        found: set[int] = set()
        with contextlib.suppress(OSError):
            for name in os.listdir(f"{self._proc}/{pid}/fd")[:MOST_FILES]:  # noqa: PTH208 (iterdir is slow)
                with contextlib.suppress(OSError):
                    target = os.readlink(f"{self._proc}/{pid}/fd/{name}")  # noqa: PTH115
                    if target.startswith("socket:["):
                        found.add(int(target[8:-1]))
        return found

    def arguments(self, pid: int) -> list[str]:
        return self._read(f"{pid}/cmdline", LONGEST).decode("utf-8", "replace").rstrip("\0").split("\0")

    def _read(self, name: str, most: int) -> bytes:
        try:
            with open(f"{self._proc}/{name}", "rb") as file:  # noqa: PTH123
                return file.read(most)
        except OSError:
            return b""


def parse_connection(line: bytes) -> Connection:
    """A line of /proc/net/tcp or tcp6 (proc(5)). ValueError or IndexError when it is none."""
    words = line.split()
    _, _, port = words[1].rpartition(b":")
    address, _, remote_port = words[2].rpartition(b":")
    # 127.0.0.1 and ::1, and 127.0.0.1 in IPv6 clothing, as the kernel prints them.
    is_local = address.endswith(b"7F") if len(address) == 8 else address.endswith((b"01000000", b"0100007F"))
    return Connection(int(port, 16), int(remote_port, 16), is_local, int(words[3], 16), int(words[9]))


class Waiting:
    """Remembers what processes were doing at the look before: one that runs for a moment goes on with it."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._known: dict[tuple[int, int, str], bool] = {}
        self._before: dict[tuple[int, int, str], bool] = {}
        self._words: dict[int, tuple[Process, bytes, float, list[str]]] = {}
        self._used: Mapping[int, float] = {}
        self._proxied: Collection[int] = ()
        self._seconds = 0.0

    def begin(self, used: Mapping[int, float], seconds: float, proxied: Collection[int]) -> None:
        """A look begins. `used`: core-seconds by process in the `seconds` before; `proxied`: ports that the notebook's
        server calls for its visitors."""
        self._before, self._known = self._known, {}
        self._used, self._seconds, self._proxied = used, seconds, proxied

    def is_uncalled(self, processes: Iterable[Process], own_ports: Collection[int] = ()) -> bool:
        """Whether these together are a server that nobody calls. `own_ports`: at which a kernel listens for us."""
        servers: list[Process] = []
        for process in processes:
            sleeps = self._remembered(process, "call", self._awaits_call)
            if sleeps is None:
                continue
            if not sleeps or not self._is_asleep(process):
                return False
            servers.append(process)
        return bool(servers) and self._has_no_calls(servers, own_ports)

    def _is_asleep(self, process: Process) -> bool:
        return self._used.get(process.pid, 0.0) <= ASLEEP_CORES * max(self._seconds, 1.0)

    def _awaits_call(self, sleep: Sleep) -> bool | None:
        """Whether it waits for a call. None: for a child, which is looked at by itself."""
        if sleep.kind == "child":
            return None
        return sleep.kind != "other" and (sleep.seconds is None or sleep.seconds <= POLLED_SECONDS)

    def _remembered(self, process: Process, what: str, of: "Question") -> bool | None:
        key = (process.pid, process.stat.start, what)
        sleep = self._system.sleep(process.pid)
        found = self._before.get(key, False) if sleep is None else of(sleep)
        if found is not None:
            self._known[key] = found
        return found

    def _has_no_calls(self, servers: list[Process], own_ports: Collection[int]) -> bool:
        inodes = set().union(*(self._system.inodes(process.pid) for process in servers))
        found = self._system.connections(servers[0].pid)
        open_ports = {each.port for each in found if each.state == LISTENS and each.inode in inodes} - set(own_ports)
        if not open_ports:
            return False
        by_server = open_ports & set(self._proxied)
        # A kernel is connected to its own ports, too.
        left_out = by_server | set(own_ports)
        for each in found:
            ends = {each.port, each.remote_port} if each.is_local else {each.port}
            # One of its own, also one to elsewhere; or of somebody who called a moment ago and is gone.
            if each.state != LISTENS and not ends & left_out and (each.inode in inodes or ends & open_ports):
                return False
        return True

    def batch_runs(self, processes: list[Process], kernels: Collection[int], now: float) -> list[tuple[bool, bool]]:
        """What runs cells and is no kernel of the notebook's server (`kernels`), as kernels are told: (busy, waits)."""
        found: list[tuple[bool, bool]] = []
        runs: set[int] = set()
        candidates = [process for process in processes if MAY_RUN.match(process.stat.comm)]
        self._words = {pid: known for pid, known in self._words.items() if any(pid == one.pid for one in candidates)}
        for process in candidates:
            words = program_of(self._arguments(process, now))
            in_front = process.stat.tty != 0 and process.stat.pgrp == process.stat.tpgid
            if is_kernel(words):
                if process.pid not in kernels and process.stat.ppid not in kernels and process.stat.ppid not in runs:
                    found += self._kernel(process)
            elif not in_front and is_batch_run(words):
                runs.add(process.pid)
                found.append((True, False))
        return found

    def _kernel(self, process: Process) -> list[tuple[bool, bool]]:
        """An idle one waits for requests in its loop; one that asks for input looks for the answer again and again."""
        if self._remembered(process, "busy", lambda sleep: sleep.kind != "epoll"):
            asks = self._remembered(process, "asks", _looks_for_input)
            return [(True, bool(asks))]
        return []

    def _arguments(self, process: Process, now: float) -> list[str]:
        """What it was started with; asked again while it is young, since it may have become another program."""
        known = self._words.get(process.pid)
        if known is not None:
            before, comm, at, words = known
            old = at - before.seen_at >= YOUNG_SECONDS
            if before is process and comm == process.stat.comm and (old or now - at < AGAIN_SECONDS):
                return words
        words = self._system.arguments(process.pid)
        self._words[process.pid] = (process, process.stat.comm, now, words)
        return words


class Question(Protocol):
    """What is asked about a sleep."""

    def __call__(self, sleep: Sleep, /) -> bool | None: ...


def _looks_for_input(sleep: Sleep) -> bool:
    return sleep.kind in ("poll", "ppoll") and sleep.seconds is not None and sleep.seconds <= INPUT_SECONDS


def program_of(words: list[str]) -> list[str]:
    """A program's name and its arguments: of an interpreter the script's or the module's."""
    left = list(words)
    if left and INTERPRETERS.fullmatch(os.path.basename(left[0])):  # noqa: PTH119
        left.pop(0)
        while left and left[0].startswith("-") and left[0] != "-m":
            # -W and -X have an argument.
            del left[: 2 if left[0] in ("-W", "-X") else 1]
        if left[:1] == ["-m"]:
            left.pop(0)
    if not left:
        return []
    name = os.path.basename(left[0])  # noqa: PTH119
    if name == "jupyter" and len(left) > 1 and not left[1].startswith("-"):
        return [f"jupyter-{left[1]}", *left[2:]]
    return [name, *left[1:]]


def is_kernel(words: list[str]) -> bool:
    """Whether a program is ipykernel, as a kernel is started."""
    return words[:1] != [] and words[0] in KERNELS and any(word.startswith(("-f", "--f")) for word in words[1:])


def is_batch_run(words: list[str]) -> bool:
    """Whether a program runs notebooks, or a script in IPython, and ends then."""
    if not words:
        return False
    name, given = words[0], words[1:]
    if name in IPYTHONS:
        stays = any(re.fullmatch(r"-[a-zA-Z]*i", word) for word in given) or "--pylab" in given
        return not stays and any(re.search(r"\.(i?py|ipynb)$", word) for word in given if not word.startswith("-"))
    with_argument = RUNS.get(name)
    if with_argument is None:
        return False
    return with_argument == ANY or any(re.fullmatch(with_argument, word) for word in given)
