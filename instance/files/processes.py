"""The user's processes: how much of the processors and disks they use, and which terminals they hold.

Read from /proc with as few system calls as will do, since a machine may have hundreds of processes: what is known
to be the system's is looked at again only now and then, and a process that used no processor has used no disk.

The user's are: processes of an ordinary user (the notebook's, and who came by SSH or Session Manager), of a login
session and what it started as root, and of containers. Not the user's: daemons, the notebook's server itself,
and what carries a login session (sshd, systemd --user).
"""

import os
import re
from collections import Counter, deque
from typing import NamedTuple

# useradd's own range (login.defs); above it are nobody and systemd's dynamic users.
FIRST_USER, LAST_USER = 1000, 60000
SERVER_UNIT = "/jupyter.service"
# Written by systemd when it has started the notebook's server (jupyter.service); only root may write it.
SERVER_PID = "/run/nod/jupyter.pid"
CONTAINERS = ("/docker", "/libpod", "/crio", "/containerd/", "/kubepods", "/lxc", "/machine.slice/", "/buildkit")
CARRIERS = (b"sshd", b"sshd-session", b"sshd-auth", b"(sd-pam)")
INTERPRETERS = re.compile(r"(python|perl|ruby|node|Rscript|java|bash|sh|julia)[\d.]*")
# How long the verdict "the system's" holds; soon after its start a process may still become a user's.
YOUNG_SECONDS = 60.0
AGAIN_YOUNG_SECONDS = 10.0
AGAIN_SECONDS = 60.0
BUSIEST_LOOKS = 12
BUSIEST = 5
NAME_LENGTH = 40
LONGEST = 4096


class Stat(NamedTuple):
    """Of /proc/PID/stat what is needed (proc(5)); CPU in clock ticks, `start` too, since boot."""

    comm: bytes
    state: bytes
    ppid: int
    pgrp: int
    session: int
    tty: int
    tpgid: int
    own: int
    children: int
    start: int


class Process:
    """What is remembered of a process between two looks."""

    __slots__ = ("checked_at", "io", "is_server_unit", "is_user", "pid", "seen_at", "stat")

    def __init__(self, pid: int, stat: Stat, is_user: bool, is_server_unit: bool, now: float) -> None:
        self.pid = pid
        self.stat = stat
        self.is_user = is_user
        self.is_server_unit = is_server_unit
        self.seen_at = now
        self.checked_at = now
        self.io: int | None = None

    def is_due(self, now: float) -> bool:
        """Whether the verdict that it is the system's must be looked at again."""
        young = now - self.seen_at < YOUNG_SECONDS
        return now - self.checked_at >= (AGAIN_YOUNG_SECONDS if young else AGAIN_SECONDS)


class Look(NamedTuple):
    """What one look at the processes found; amounts since the look before, None at the first."""

    cpu_seconds: float | None
    #: Of the process that used most.
    busiest_seconds: float | None
    disk_bytes: float | None
    #: The user's processes, for the terminals that they hold.
    processes: list[Process]
    #: Whether the notebook's server runs.
    server: bool
    #: Names of the user's busiest processes in the last looks.
    busiest: list[str]
    #: Core-seconds since the look before, by process.
    used: dict[int, float] = {}  # noqa: RUF012 (never changed)
    #: The notebook's server.
    server_pid: int | None = None


def parse_stat(data: bytes) -> Stat:
    """Fields of /proc/PID/stat. ValueError or IndexError when it is not one."""
    name = data.index(b"(")
    end = data.rindex(b")")
    fields = data[end + 2 :].split()
    return Stat(
        data[name + 1 : end],
        fields[0],
        int(fields[1]),
        int(fields[2]),
        int(fields[3]),
        int(fields[4]),
        int(fields[5]),
        int(fields[11]) + int(fields[12]),
        int(fields[13]) + int(fields[14]),
        int(fields[19]),
    )


def parse_io(data: bytes) -> int:
    """Bytes read from and written to disks, of /proc/PID/io."""
    values = dict(line.split(b": ", 1) for line in data.splitlines() if b": " in line)
    written = int(values[b"write_bytes"]) - int(values.get(b"cancelled_write_bytes", b"0"))
    return int(values[b"read_bytes"]) + max(0, written)


class Processes:
    """Looks at /proc; `proc` may be another folder of its form, `ticks` its clock ticks a second.

    `server_pid` is the file that holds the server's process id.
    """

    def __init__(self, proc: str = "/proc", ticks: int | None = None, server_pid: str = SERVER_PID) -> None:
        self._proc = proc
        self._server_pid = server_pid
        self._ticks = ticks or os.sysconf("SC_CLK_TCK")
        self._known: dict[int, Process] = {}
        self._looked_at: float | None = None
        self._names: deque[Counter[str]] = deque(maxlen=BUSIEST_LOOKS)
        # In a container the login of who started it may be everybody's: then a login says nothing.
        self._logins_tell = not _is_user(self._number(1, "loginuid"))

    def look(self, now: float) -> Look:
        """Looks at all processes; `now` in seconds of CLOCK_BOOTTIME. OSError when there is no /proc."""
        first = self._looked_at is None
        before, self._known = self._known, {}
        stats: dict[int, Stat] = {}
        # In the order of their numbers, parents mostly come before their children.
        for pid in sorted(int(name) for name in os.listdir(self._proc) if name.isdigit()):  # noqa: PTH208 (iterdir is slow)
            known = before.get(pid)
            if known is not None and not known.is_user and not known.is_due(now):
                self._known[pid] = known
                continue
            stat = self._stat(pid)
            if stat is None:
                continue
            same = known is not None and known.stat.start == stat.start
            if known is None or not same or not known.is_user:
                known = self._classified(pid, stat, known.seen_at if known is not None and same else now, now)
            self._known[pid] = known
            if known.is_user:
                stats[pid] = stat
        server = self._server()
        cpu, most, disk, used = self._growth(before, stats, server)
        self._looked_at = now
        return Look(
            None if first else cpu,
            None if first else most,
            None if first else disk,
            [self._known[pid] for pid in stats],
            server is not None,
            self._busiest(),
            used,
            server,
        )

    def _growth(
        self, before: dict[int, Process], stats: dict[int, Stat], server: int | None
    ) -> tuple[float, float, float | None, dict[int, float]]:
        """Core-seconds, those of the busiest process, bytes, and core-seconds by process, since the look before.

        What each process has now is kept for the next.
        """
        since = ((self._looked_at or 0.0) - 1.0) * self._ticks
        ended = self._ended(before, stats)
        used: Counter[int] = Counter()
        disk = 0
        readable = unreadable = False
        for pid, stat in stats.items():
            process = self._known[pid]
            if before.get(pid) is process:
                own = stat.own - process.stat.own
                children = max(0, stat.children - process.stat.children - ended[pid])
            elif stat.start >= since:
                own, children = stat.own, stat.children
            else:
                # It ran before it became known: what it used until now is of no look.
                own = children = 0
            process.stat = stat
            used[pid] = children if pid == server else own + children
            if pid == server or (process.io is not None and not own):
                continue
            io = self._io(pid)
            if io is None:
                unreadable = True
                continue
            readable = True
            if process.io is not None:
                disk += max(0, io - process.io)
            elif stat.start >= since:
                disk += io
            process.io = io
        self._names.append(self._named(used))
        # One that ends between two reads is nothing; that none can be read is a monitor without its powers.
        written = None if unreadable and not readable else float(disk)
        seconds = {pid: ticks / self._ticks for pid, ticks in used.items() if ticks}
        return sum(used.values()) / self._ticks, max(used.values(), default=0) / self._ticks, written, seconds

    def _ended(self, before: dict[int, Process], stats: dict[int, Stat]) -> Counter[int]:
        """By living process: what its descendants that have ended had been counted for.

        A parent that waits for its child is given the child's time: without this it would count twice.
        """
        ended: Counter[int] = Counter()
        for pid, process in before.items():
            if not process.is_user or self._known.get(pid) is process:
                continue
            heir, generations = process.stat.ppid, 0
            while heir not in stats and heir in before and generations < 64:
                heir, generations = before[heir].stat.ppid, generations + 1
            ended[heir] += process.stat.own + process.stat.children
        return ended

    def _server(self) -> int | None:
        """The notebook's server: of its unit's processes that are systemd's children, the one that systemd wrote down.

        Detached jobs are systemd's children too, and outlive the server that they were started from. Where nothing was
        written down, it is the oldest.
        """
        its = {pid: each for pid, each in self._known.items() if each.is_server_unit and each.stat.ppid == 1}
        written = self._read(self._server_pid).strip()
        if written.isdigit():
            return int(written) if int(written) in its else None
        return min(its.values(), key=lambda process: process.stat.start).pid if its else None

    def _classified(self, pid: int, stat: Stat, seen_at: float, now: float) -> Process:
        is_user, is_server_unit = self._verdict(pid, stat)
        process = Process(pid, stat, is_user, is_server_unit, seen_at)
        process.checked_at = now
        return process

    def _verdict(self, pid: int, stat: Stat) -> tuple[bool, bool]:
        """Whether it is the user's, and whether of the notebook's unit."""
        if stat.ppid == 2 or pid == 2 or stat.comm in CARRIERS:
            return False, False
        cgroup = self._cgroup(pid)
        if cgroup.endswith(SERVER_UNIT):
            return True, True
        if "/user@" in cgroup and cgroup.endswith("/init.scope"):
            return False, False
        if any(mark in cgroup for mark in CONTAINERS) or "/user.slice/" in cgroup or _is_user(self._uid(pid)):
            return True, False
        if self._logins_tell and _is_user(self._number(pid, "loginuid")):
            return True, False
        # What a user's process has started by sudo.
        parent = self._known.get(stat.ppid)
        return parent is not None and parent.is_user and not parent.is_server_unit, False

    def _named(self, used: Counter[int]) -> Counter[str]:
        names: Counter[str] = Counter()
        for pid, ticks in used.most_common(BUSIEST):
            # A hundredth of a core: less is nobody's idea of busy.
            if ticks > 0:
                names[self._name(pid)] += ticks
        return names

    def _busiest(self) -> list[str]:
        total: Counter[str] = Counter()
        for names in self._names:
            total.update(names)
        return [name for name, _ in total.most_common(BUSIEST)]

    def _name(self, pid: int) -> str:
        """The command's name, and for an interpreter the program's. Never an argument: it may be a secret."""
        words = self._read(f"{pid}/cmdline").decode("utf-8", "replace").split("\0")
        name = os.path.basename(words[0]).lstrip("-")  # noqa: PTH119
        if INTERPRETERS.fullmatch(name):
            following = [*words[1:], ""]
            if following[0] == "-m":
                name = f"{name} {following[1]}"
            elif following[0] and not following[0].startswith("-"):
                name = f"{name} {os.path.basename(following[0])}"  # noqa: PTH119
        name = name or self._known[pid].stat.comm.decode("utf-8", "replace")
        return "".join(c for c in name if c.isprintable())[:NAME_LENGTH]

    def _stat(self, pid: int) -> Stat | None:
        try:
            return parse_stat(self._read(f"{pid}/stat"))
        except (ValueError, IndexError):
            return None

    def _io(self, pid: int) -> int | None:
        try:
            return parse_io(self._read(f"{pid}/io"))
        except (ValueError, KeyError):
            return None

    def _cgroup(self, pid: int) -> str:
        """Its place in systemd's hierarchy, as cgroup version 2 or 1 show it."""
        for line in self._read(f"{pid}/cgroup").decode("utf-8", "replace").splitlines():
            _, controllers, path = [*line.split(":", 2), "", ""][:3]
            if controllers == "name=systemd" or (controllers == "" and path not in ("", "/")):
                return path
        return ""

    def _uid(self, pid: int) -> int | None:
        """The real user: the owner of the folder is root where a process may not be dumped."""
        # A process may have another end of a line in its name, which stands there too.
        for line in self._read(f"{pid}/status").split(b"\n"):
            if line.startswith(b"Uid:"):
                return int(line.split()[1])
        return None

    def _number(self, pid: int, name: str) -> int | None:
        text = self._read(f"{pid}/{name}").strip()
        return int(text) if text.isdigit() else None

    def _read(self, name: str) -> bytes:
        """A file of /proc, or one with a path of its own; nothing when it cannot be read: it may have ended."""
        path = name if name.startswith("/") else f"{self._proc}/{name}"
        try:
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return b""
        try:
            return os.read(file, LONGEST)
        except OSError:
            return b""
        finally:
            os.close(file)


def _is_user(uid: int | None) -> bool:
    return uid is not None and FIRST_USER <= uid <= LAST_USER
