"""Runs a command to its end, with a limit on its time and on what is kept of its output."""

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from local.errors import MachineError

MAX_OUTPUT: Final = 10 * 1024 * 1024  # bytes kept of each of stdout and stderr
KILL_GRACE: Final = 5.0  # seconds from SIGTERM to SIGKILL

# $1: pid of the starter, which may be dead already: then no signal would ever come.
_IF_STARTER_LIVES: Final = '[ "$PPID" = "$1" ] || exit 1; shift; exec "$@"'


@dataclass(frozen=True)
class Completed:
    """How a command ended.

    `exit_code` is the shell's way: 128 + N for a death by signal N. `stdout` and `stderr` hold at most the
    first MAX_OUTPUT bytes each, read as UTF-8 with replacement.
    """

    exit_code: int
    stdout: str
    stderr: str
    timed_out: bool


def children(thread: int) -> list[int]:
    """Whom a thread has started, by its id (a process has its first thread's). None of one that is not there."""
    with contextlib.suppress(OSError):
        return [int(child) for child in Path(f"/proc/{thread}/task/{thread}/children").read_text().split()]
    return []


def tied(*command: str) -> list[str]:
    """The command, which the kernel kills when the *thread* that starts it ends: so after `kill -9` of this process
    too. For threads that wait for what they start, and for the main thread. The process is the command's own.
    """
    return ["setpriv", "--pdeathsig", "KILL", "--", "sh", "-c", _IF_STARTER_LIVES, "sh", str(os.getpid()), *command]


def communicate(
    command: Sequence[str],
    env: Mapping[str, str],
    *,
    timeout: float | None,
    data: bytes,
    limit: int,
    cwd: Path,
) -> tuple[Completed, bytes]:
    """Runs a command in a process group of its own; its end is its end, even if a child still holds its
    output.
    """
    end = None if timeout is None else time.monotonic() + timeout
    try:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=dict(env),
            stdin=subprocess.PIPE if data else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        raise MachineError(f"Cannot run the command: {error}.") from error
    with process, contextlib.closing(_Pump(process, data, limit)) as pump:
        timed_out = not pump.until_exit(end)
        if timed_out:
            _end_group(process, pump)
        code = process.wait()
        pump.drain()
    exit_code = 128 - code if code < 0 else code
    stdout, stderr = bytes(pump.stdout), bytes(pump.stderr)
    done = Completed(exit_code, stdout.decode(errors="replace"), stderr.decode(errors="replace"), timed_out)
    return done, stdout


def _end_group(process: subprocess.Popen[bytes], pump: "_Pump") -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    end = time.monotonic() + KILL_GRACE
    pump.until_exit(end)
    # nsenter itself dies of the first signal; what it started may still be cleaning up.
    while _group_lives(process.pid) and time.monotonic() < end:
        pump.drain()
        time.sleep(0.02)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _group_lives(group: int) -> bool:
    """Whether a process of the group runs; the dead that nobody has waited for do not count."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[2]) == group and fields[0] != "Z":
                    return True
    return False


class _Pump:
    """Feeds a process and collects what it says, at most `limit` bytes of each stream."""

    def __init__(self, process: subprocess.Popen[bytes], data: bytes, limit: int) -> None:
        self.stdout = bytearray()
        self.stderr = bytearray()
        self._limit = limit
        self._data = memoryview(data)
        self._selector = selectors.DefaultSelector()
        self._pidfd = os.pidfd_open(process.pid)
        self._selector.register(self._pidfd, selectors.EVENT_READ)
        for stream, kept in ((process.stdout, self.stdout), (process.stderr, self.stderr)):
            self._add(stream, selectors.EVENT_READ, kept)
        if data:
            self._add(process.stdin, selectors.EVENT_WRITE, None)

    def _add(self, stream: IO[bytes] | None, event: int, kept: bytearray | None) -> None:
        if stream is not None:
            os.set_blocking(stream.fileno(), False)
            self._selector.register(stream, event, kept)

    def until_exit(self, end: float | None) -> bool:
        """Pumps until the process is over; False when `end` (monotonic seconds) came first."""
        while True:
            left = None if end is None else end - time.monotonic()
            if left is not None and left <= 0:
                return False
            over = False
            for key, _ in self._selector.select(left):
                if key.fileobj == self._pidfd:
                    over = True
                else:
                    self._move(key)
            if over:
                return True

    def drain(self) -> None:
        """Takes what is there now, without waiting."""
        moved = True
        while moved:
            moved = False
            for key, _ in self._selector.select(0):
                if key.fileobj != self._pidfd:
                    moved = self._move(key) or moved

    def close(self) -> None:
        self._selector.close()
        os.close(self._pidfd)

    def _move(self, key: selectors.SelectorKey) -> bool:
        stream: Any = key.fileobj
        try:
            if key.data is None:
                self._data = self._data[os.write(key.fd, self._data[:65536]) :]
                ended = not self._data
            else:
                chunk = os.read(key.fd, 65536)
                key.data.extend(chunk[: max(0, self._limit - len(key.data))])
                ended = not chunk
        except BlockingIOError:
            return False
        except OSError:
            ended = True
        if ended:
            self._selector.unregister(stream)
            stream.close()
        return True
