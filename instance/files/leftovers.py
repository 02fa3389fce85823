#!/usr/bin/env python3
"""Ends the processes that the notebook's server left behind, and leaves detached jobs alone.

Runs after each end of jupyter.service (ExecStopPost=), whose KillMode=process ends the server alone. Its kernels
must not stay: nobody could reach them, and they hold memory and GPUs. Most kernels end by themselves within a second,
but one that is busy in C, or is not Python's, does not. What ends here is in a session of the server or of one of its
kernels, and does not ignore SIGHUP. So a job lives that was started with nohup, setsid, tmux or start_new_session.
Terminals need nothing: Linux hangs them up when the server is gone.

With --all it ends every process of the notebook's user: the machine is stopping.
"""

import os
import pwd
import re
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

USER = "jupyter"
# Written by systemd as root when the server started.
SERVER_PID = Path("/run/nod/jupyter.pid")
# As the server names it; other files may begin and end so, too.
CONNECTION_FILE = re.compile(rb"kernel-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\.json")
TERM_SECONDS = 2.0
ALL_TERM_SECONDS = 8.0
KILL_SECONDS = 2.0
SIGHUP_BIT = 1 << (signal.SIGHUP - 1)


class Process(NamedTuple):
    """What is needed of a process."""

    pid: int
    #: Clock ticks since boot: with `pid` it names one process and no later one.
    start: int
    session: int
    ignores_hangup: bool
    #: The id of the Jupyter process that started it or one of its parents as a kernel; 0: none.
    kernel_of: int
    #: Whether its command line names the connection file of a kernel.
    has_connection_file: bool


def is_kernel(process: Process, server: int) -> bool:
    """Whether it is a kernel that the server `server` (its process id) started.

    Kernels of batch runs (nbconvert, papermill) are of another process, and what a kernel started has no connection
    file.
    """
    return process.has_connection_file and process.kernel_of == server


def left_behind(processes: list[Process], server: int) -> list[Process]:
    """Those that must end with the server `server`."""
    sessions = {server, *(each.session for each in processes if is_kernel(each, server))}
    return [each for each in processes if each.session in sessions and not each.ignores_hangup]


def parse(pid: int, stat: bytes, status: bytes, environment: bytes, command: bytes) -> Process:
    """A process from its files in /proc (proc(5)). ValueError, IndexError or StopIteration for what is none."""
    fields = stat[stat.rindex(b")") + 2 :].split()
    parent = next((each[15:] for each in environment.split(b"\0") if each.startswith(b"JPY_PARENT_PID=")), b"")
    names = (word.rpartition(b"/")[2] for word in command.split(b"\0"))
    return Process(
        pid,
        int(fields[19]),
        int(fields[3]),
        bool(int(of_status(status, b"SigIgn:"), 16) & SIGHUP_BIT),
        int(parent) if parent.isdigit() else 0,
        any(map(CONNECTION_FILE.fullmatch, names)),
    )


def of_status(status: bytes, name: bytes) -> bytes:
    """The first value of a line in /proc/PID/status. A process may have other ends of lines in its name, which stands
    there too. StopIteration where there is no such line."""
    return next(line.split()[1] for line in status.split(b"\n") if line.startswith(name))


def read(uid: int, proc: Path = Path("/proc"), cgroup: str | None = None) -> Iterator[Process]:
    """The living processes of a user, of one cgroup where that is given, without this one."""
    for folder in proc.iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        try:
            status = (folder / "status").read_bytes()
            stat = (folder / "stat").read_bytes()
            if int(of_status(status, b"Uid:")) != uid or stat[stat.rindex(b")") + 2 :][:1] in b"ZX":
                continue
            if cgroup is not None and cgroup_of(folder) != cgroup:
                continue
            environment, command = (folder / "environ").read_bytes(), (folder / "cmdline").read_bytes()
            yield parse(int(folder.name), stat, status, environment, command)
        except (OSError, ValueError, IndexError, StopIteration):
            # It has ended meanwhile.
            continue


def cgroup_of(folder: Path) -> str:
    """The place in systemd's own hierarchy: version 2 has one, version 1 names it."""
    lines = [line.split(":", 2) for line in (folder / "cgroup").read_text().splitlines()]
    named = [path for _, controllers, path in lines if controllers == "name=systemd"]
    return (named or [path for _, controllers, path in lines if not controllers] or [""])[0]


def lives(process: Process) -> bool:
    """Whether it is still there."""
    try:
        stat = Path(f"/proc/{process.pid}/stat").read_bytes()
        fields = stat[stat.rindex(b")") + 2 :].split()
    except (OSError, ValueError):
        return False
    return fields[0] not in b"ZX" and int(fields[19]) == process.start


def end(processes: list[Process], *signals: int, patience: float) -> None:
    """Asks them to end, waits for as many seconds, and kills what is left."""
    for signals_now, seconds in ((signals, patience), ((signal.SIGKILL,), KILL_SECONDS)):
        for process in filter(lives, processes):
            for number in signals_now:
                try:
                    os.kill(process.pid, number)
                except OSError:
                    break
        deadline = time.monotonic() + seconds
        while any(map(lives, processes)):
            if time.monotonic() > deadline:
                break
            time.sleep(0.02)
        else:
            return


def main(arguments: list[str]) -> None:
    """Ends what the arguments say, and says what that was."""
    uid = pwd.getpwnam(USER).pw_uid
    if arguments == ["--all"]:
        # An interactive shell ignores SIGTERM and ends at SIGHUP.
        end(list(read(uid)), signal.SIGTERM, signal.SIGHUP, signal.SIGCONT, patience=ALL_TERM_SECONDS)
        return
    try:
        server = int(SERVER_PID.read_text())
    except (OSError, ValueError):
        return
    left = left_behind(list(read(uid, cgroup=cgroup_of(Path("/proc/self")))), server)
    if left:
        sys.stdout.write(f"ending what the server left behind: {', '.join(str(each.pid) for each in left)}\n")
        end(left, signal.SIGTERM, signal.SIGCONT, patience=TERM_SECONDS)


if __name__ == "__main__":
    main(sys.argv[1:])
