"""Terminals: who types, and whether a foreground command works or waits for keys.

The kernel knows it all: a terminal's access time moves when a program reads what was typed, the foreground process
group is in /proc/PID/stat, and programs that wait for single keys (editors, pagers, `top`, prompts) have switched
line editing (ICANON) off. A program that reads whole lines sleeps in read() of the terminal.

One that hands the keys to another machine has line editing off too, and what it does there cannot be seen. Of ssh its
arguments tell: a command that was given is a command as any other, and a session is a prompt somewhere else. Which of
several commands is running they do not tell: of a job and then a prompt nothing is known. What runs in a container of
this machine (`docker run -it`) has a terminal of its own here, which is looked at as all others are.

Access times are of a clock that may be set, and are kept in steps of 8 seconds: what counts is that one moved
since the look before.
"""

import os
import platform
import re
import shlex
import stat
import termios
from collections.abc import Callable
from typing import Protocol

from .processes import LONGEST, Process, parse_stat

SHELLS = (b"bash", b"sh", b"dash", b"zsh", b"fish", b"ksh", b"mksh", b"tcsh", b"csh", b"xonsh", b"nu", b"pwsh")
# They wait for a command that has an entry of its own.
WRAPPERS = (b"sudo", b"su", b"doas")
FOLLOWERS = (b"tail", b"journalctl", b"dmesg")
# Options of ssh that have an argument (ssh(1)).
SSH_ARGUMENTS = "BbcDEeFIiJLlmOoPpQRSWw"
# As the command of an ssh: what waits for somebody, and ends when they say so.
ATTENDED = (
    "tmux", "screen", "byobu", "zellij", "top", "htop", "btop", "nvtop", "watch", "tail", "journalctl", "less", "more",
    "man", "vi", "vim", "nvim", "nano", "emacs", "psql", "mysql", "sqlite3", "gdb", "telnet", "sftp", "mosh", "login",
)  # fmt: skip
# A prompt unless given a script or a command; and which of their options have an argument that is neither.
PROMPTS = {
    **dict.fromkeys([shell.decode() for shell in SHELLS] + ["$SHELL", "${SHELL}"], "oO"),
    "python": "WX", "ipython": "", "R": "g", "julia": "CHJLpt", "node": "rC",
}  # fmt: skip
# They run what follows their options, of which some have an argument, and so many words of their own.
STARTERS = {
    "exec": ("a", 0), "sudo": ("CDghpRrTtUu", 0), "doas": ("Cu", 0), "env": ("CSu", 0), "nice": ("n", 0),
    "ionice": ("cn", 0), "nohup": ("", 0), "time": ("fo", 0), "timeout": ("ks", 1),
}  # fmt: skip
LONG_ARGUMENTS = ("--rcfile", "--init-file", "--user", "--group", "--chdir", "--unset", "--adjustment")
# They run it elsewhere, behind more options than a table should hold: the last word tells.
CARRIERS = ("docker", "podman", "kubectl", "srun")
# Over at once, whatever follows.
PREPARING = {"cd", "source", ".", "export", "set", "ulimit", "umask", "module", "conda activate", "echo", "printf"}
BETWEEN = "();&|\n"
# Nobody nests commands deeper, and the look must end.
DEEPEST = 4
# read, readv; wait4, waitid: numbers of the system calls by machine.
READS = {"x86_64": (0, 19), "aarch64": (63, 65)}
WAITS = {"x86_64": (61, 247), "aarch64": (260, 95)}
PTS_MAJOR = 136
SERIAL_MAJOR = 4


class System(Protocol):
    """What is asked about a terminal (by its path) and a process (by its id)."""

    def path(self, pid: int, device: int) -> str:
        """Where the terminal of a process is found."""

    def accessed(self, path: str) -> tuple[int, float] | None:
        """On which file system it is, and when something typed was read, seconds since 1970; None: cannot be known."""

    def edits_lines(self, path: str) -> bool | None:
        """Whether the terminal edits lines (ICANON); None: cannot be known."""

    def reads(self, pid: int, device: int) -> bool | None:
        """True: sleeps in read() of the terminal; None: in another read() or waits for a child; False: neither."""

    def runs(self, pid: int) -> bool:
        """Whether it is there and has not ended."""

    def arguments(self, pid: int) -> list[str]:
        """Its command line."""


class Terminals:
    """Remembers the terminals between two looks."""

    def __init__(self, system: System, is_uncalled: Callable[[list[Process]], bool] | None = None) -> None:
        """`is_uncalled`: whether a foreground command is a server that nobody calls."""
        self._system = system
        self._is_uncalled = is_uncalled
        self._accessed: dict[tuple[int, int], float] = {}
        #: Processes of terminals that stand at a question, and of those that work.
        self.asking: set[int] = set()
        self.working: set[int] = set()

    def look(self, processes: list[Process], now: float, wall: float) -> tuple[list[tuple[bool, bool]] | None, float]:
        """The user's terminals as (has a foreground command, it waits for keys), and when one was typed in last.

        None: of one it cannot be told whether it works, and no other does. `now` is of CLOCK_BOOTTIME, `wall` of the
        clock of access times. 0: no typing seen.
        """
        # A container's terminals have numbers of their own, so one number can be two: their foreground tells which.
        held: dict[tuple[int, int], list[Process]] = {}
        for process in processes:
            if process.stat.tty and _path(process.stat.tty):
                held.setdefault((process.stat.tty, process.stat.tpgid), []).append(process)
        typed = 0.0
        commands = []
        self.asking, self.working = set(), set()
        before, self._accessed = self._accessed, {}
        for (device, _), its in held.items():
            path = self._system.path(its[0].pid, device)
            typed = max(typed, self._typed(path, device, before, now, wall))
            command = self._command(path, device, its)
            commands.append(command)
            if command[0] and not command[1]:
                self.working.update(process.pid for process in its)
            elif self._asks(path, device, its):
                self.asking.update(process.pid for process in its)
        if (True, None) in commands and (True, False) not in commands:
            return None, typed
        return [(command, bool(waits)) for command, waits in commands], typed

    def _typed(self, path: str, device: int, known: dict[tuple[int, int], float], now: float, wall: float) -> float:
        found = self._system.accessed(path)
        if found is None:
            return 0.0
        place, accessed = found
        before = known.get((place, device))
        self._accessed[place, device] = accessed
        if before is None:
            # A terminal that was there before us: its time is as good as the clock.
            return min(now, max(0.0, now - (wall - accessed)))
        return now if accessed != before else 0.0

    def _command(self, path: str, device: int, processes: list[Process]) -> tuple[bool, bool | None]:
        group = processes[0].stat.tpgid
        members = [process for process in processes if process.stat.pgrp == group and process.stat.state not in b"ZX"]
        if not members:
            # What began since the processes were counted is a command; what has ended is none.
            return self._system.runs(group), False
        edits = self._system.edits_lines(path)
        only = members[0] if len(members) == 1 else None
        if only is not None and only.stat.comm in SHELLS and (edits is not None or only.pid == only.stat.session):
            # Its prompt is no command. A loop or a wait of its own is, and then the terminal edits lines again.
            return (True, False) if edits and self._works(members, device) else (False, False)
        if edits is False:
            ends = {self._ends_elsewhere(member) for member in members}
            return True, False if True in ends else None if None in ends else True
        return True, not self._works(members, device) or (self._is_uncalled is not None and self._is_uncalled(members))

    def _asks(self, path: str, device: int, processes: list[Process]) -> bool:
        """Whether what holds a terminal stands at a question: reads a line, or is an editor or a pager.

        Not a prompt: a program may hold the other end of the terminal and give its commands there, one now and then.
        """
        members = [process for process in processes if process.stat.pgrp == process.stat.tpgid]
        if self._system.edits_lines(path) is False:
            return any(member.stat.comm.decode("utf-8", "replace") in ATTENDED for member in members)
        return any(self._system.reads(member.pid, device) and not self._is_prompt(member) for member in members)

    def _is_prompt(self, process: Process) -> bool:
        """Whether it is a shell that was given nothing to run."""
        words = self._system.arguments(process.pid)[1:]
        return process.stat.comm in SHELLS and all(word.startswith("-") for word in words)

    def _works(self, members: list[Process], device: int) -> bool:
        """False when one waits for a line, or follows what others write, and the rest waits for that one."""
        waits = False
        for member in members:
            if member.stat.comm in WRAPPERS:
                continue
            if self._follows(member):
                waits = True
                continue
            reads = self._system.reads(member.pid, device)
            if reads is False:
                return True
            waits = waits or reads is True
        return not waits

    def _ends_elsewhere(self, process: Process) -> bool | None:
        """Whether it is an ssh that was given a command which ends by itself. None: cannot be told."""
        if process.stat.comm != b"ssh":
            return False
        return _ends_by_itself(_remote_command(self._system.arguments(process.pid)[1:]), 0)

    def _follows(self, process: Process) -> bool:
        """`watch` and the like show what others do until somebody stops them."""
        if process.stat.comm == b"watch":
            return True
        if process.stat.comm not in FOLLOWERS:
            return False
        words = self._system.arguments(process.pid)[1:]
        short = "".join(word[1:] for word in words if word.startswith("-") and not word.startswith("--"))
        wanted = "fFw" if process.stat.comm == b"dmesg" else "fF"
        return any(c in short for c in wanted) or any(word.startswith("--follow") for word in words)


class Linux:
    """The system that runs."""

    def __init__(self, proc: str = "/proc") -> None:
        self._proc = proc
        self._reads = READS.get(platform.machine(), ())
        self._waits = WAITS.get(platform.machine(), ())

    def path(self, pid: int, device: int) -> str:
        # Through the process itself where it has it open, so that a container's is found too.
        for number in (0, 1, 2):
            path = f"{self._proc}/{pid}/fd/{number}"
            try:
                found = os.stat(path)  # noqa: PTH116
            except OSError:
                continue
            if stat.S_ISCHR(found.st_mode) and found.st_rdev == _rdev(device):
                return path
        return _path(device)

    def accessed(self, path: str) -> tuple[int, float] | None:
        try:
            found = os.stat(path)  # noqa: PTH116
        except OSError:
            return None
        return found.st_dev, found.st_atime

    def edits_lines(self, path: str) -> bool | None:
        try:
            file = os.open(path, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            return bool(termios.tcgetattr(file)[3] & termios.ICANON)
        except (OSError, termios.error):
            return None
        finally:
            os.close(file)

    def reads(self, pid: int, device: int) -> bool | None:
        try:
            with open(f"{self._proc}/{pid}/syscall", "rb") as file:  # noqa: PTH123
                words = file.read(256).split()
            number = int(words[0])
            if number in self._waits:
                return None
            if number not in self._reads:
                return False
            found = os.stat(f"{self._proc}/{pid}/fd/{int(words[1], 16)}")  # noqa: PTH116
        except (OSError, ValueError, IndexError):
            # It runs (no number there), or has ended, or may not be looked at: it counts as work.
            return False
        if stat.S_ISCHR(found.st_mode):
            return found.st_rdev == _rdev(device) or found.st_rdev == os.makedev(5, 0)
        return None if stat.S_ISFIFO(found.st_mode) or stat.S_ISSOCK(found.st_mode) else False

    def runs(self, pid: int) -> bool:
        try:
            with open(f"{self._proc}/{pid}/stat", "rb") as file:  # noqa: PTH123
                return parse_stat(file.read(LONGEST)).state not in b"ZX"
        except (OSError, ValueError, IndexError):
            return False

    def arguments(self, pid: int) -> list[str]:
        try:
            with open(f"{self._proc}/{pid}/cmdline", "rb") as file:  # noqa: PTH123
                return file.read(4096).decode("utf-8", "replace").rstrip("\0").split("\0")
        except OSError:
            return []


def _remote_command(words: list[str]) -> str:
    """The command in the words after `ssh`; empty: none, it is a session."""
    return " ".join(_after(words, SSH_ARGUMENTS, 1))


def _ends_by_itself(line: str, depth: int) -> bool | None:
    """Whether a command line is no prompt and nothing else that waits for somebody.

    None: one of its parts ends and another waits, and nothing tells which of them runs.
    """
    lexer = shlex.shlex(line, posix=True, punctuation_chars=BETWEEN)
    lexer.whitespace, lexer.commenters, lexer.whitespace_split = " \t\r", "", True
    parts: list[list[str]] = [[]]
    try:
        for word in lexer:
            if word.strip(BETWEEN):
                parts[-1].append(word)
            else:
                parts.append([])
    except ValueError:
        return None
    doing = [part for part in parts if part and not {part[0], " ".join(part[:2])} & PREPARING]
    found = {_part_ends(part, depth) if depth <= DEEPEST else None for part in doing}
    if len(found) > 1:
        return None
    return found.pop() if found else any(parts)


def _part_ends(words: list[str], depth: int) -> bool | None:
    words = _after(words, "", 0)
    while words and (name := os.path.basename(words[0])) in STARTERS:  # noqa: PTH119
        words = _after(words[1:], *STARTERS[name])
    if not words:
        return False
    name, rest = os.path.basename(words[0]), words[1:]  # noqa: PTH119
    kind = name.rstrip("0123456789.")
    given = _after(rest, PROMPTS.get(kind, ""), 0)
    options = [word for word in rest[: len(rest) - len(given)] if re.match("-[^-]", word)]
    if name == "ssh":
        inner = _remote_command(rest)
    elif name == "su":
        inner = " ".join(rest[rest.index("-c") + 1 :][:1]) if "-c" in rest else ""
    elif name in CARRIERS:
        inner = next((word for word in reversed(rest) if not word.startswith("-")), "")
    elif PROMPTS.get(kind) == "oO" and any("c" in option for option in options):
        inner = " ".join(given[:1])
    elif kind in PROMPTS:
        # Python and its likes have a prompt after the script too, when they are asked for one.
        return None if given and PROMPTS[kind] != "oO" and "-i" in options else bool(given)
    else:
        return name not in ATTENDED and [name, *rest[:1]] != ["jupyter", "console"]
    return _ends_by_itself(inner, depth + 1)


def _after(words: list[str], letters: str, operands: int) -> list[str]:
    """What follows options (those of `letters` have an argument), NAME=value words, and so many words more."""
    left = list(words)
    while left:
        word = left.pop(0)
        if word.startswith("-"):
            takes = next((place for place, letter in enumerate(word) if place and letter in letters), None)
            if word in LONG_ARGUMENTS or (word[:2] != "--" and takes == len(word) - 1):
                del left[:1]
        elif not re.fullmatch(r"[A-Za-z_]\w*=\S*", word):
            if not operands:
                return [word, *left]
            operands -= 1
    return []


def _major(device: int) -> int:
    return (device >> 8) & 0xFFF


def _minor(device: int) -> int:
    return (device & 0xFF) | ((device >> 12) & 0xFFF00)


def _rdev(device: int) -> int:
    return os.makedev(_major(device), _minor(device))


def _path(device: int) -> str:
    """Where a terminal is found by its number in /proc/PID/stat; empty for what no person sits at."""
    major, minor = _major(device), _minor(device)
    if major == PTS_MAJOR:
        return f"/dev/pts/{minor}"
    if major == SERIAL_MAJOR:
        return f"/dev/tty{minor}" if minor < 64 else f"/dev/ttyS{minor - 64}"
    return ""
