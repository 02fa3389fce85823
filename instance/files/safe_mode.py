#!/usr/bin/env python3
"""Decides before each start of the notebook's server whether it starts with its owner's configuration or without.

A home can hold a configuration that ends the server at every start. So jupyter.service asks here first
(ExecStartPre) and tells how it ended (ExecStopPost): after two starts in a row that failed it starts in safe mode,
with nothing of its owner's configuration. Whoever then mends the file and shuts the server down (menu, or systemctl
restart) has it started with the configuration again; so does a boot, since all of this is remembered in /run.

Usage, as root: safe_mode.py starting | ended | why. The first two take what systemd has in their environment.
`why` prints code and words about a server that does not come up, for the documents.

What is written is read by the server (mode), the activity monitor (all) and the server's own page (last words).
Nothing here opens a file in the home; of what its owner can write it reads one mark, with bounds.
"""

import contextlib
import grp
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

# python3 -I looks nowhere but in its own library.
sys.path.append(str(Path(__file__).resolve().parent))

from server_causes import CAUSES, code_of  # type: ignore[import-not-found]

FOLDER = Path("/run/nod-server")
STATE = FOLDER / "state.json"
WORDS = FOLDER / "last_words.txt"
# By which the monitor knows that it is this machine's server that answers.
KEY = FOLDER / "key"
# Written by the server, as nod-runtime.service lets it, once it serves: the start (INVOCATION_ID) and its time.
READY = Path("/run/nod-ready/ready.json")

NORMAL, SAFE = "normal", "safe"
MOST_FAILURES = 2
# A start that takes longer hangs; the server ends itself then. In minutes of the deployment, and in seconds at least.
START_MINUTES, LEAST_START_SECONDS = 1.5, 20.0
# One that ends by itself sooner after it came up did not come up; in seconds.
SETTLED_SECONDS = 60.0
# What safe mode is no help for.
NOT_OF_THE_OWNER = {"port_taken", "environment", "system"}
# What is so at every start, until somebody mends it: one is enough.
CERTAIN = {"home"}
# After so many failures in a row each start waits, so that a server that cannot start leaves the machine usable.
PATIENT, WAIT_SECONDS = 6, 10.0
MOST_WORDS = 3000
MOST_LINES = 40


class Ending(NamedTuple):
    """How a start ended: systemd's words for it ($SERVICE_RESULT, $EXIT_CODE, $EXIT_STATUS), how many seconds it
    lived, and for how many of them it served (None: it never did)."""

    result: str
    code: str
    status: str
    lived: float
    served: float | None


class State(NamedTuple):
    """What is remembered between starts.

    `failures` counts starts in a row that failed, `blamed` those of them that the owner's configuration may be the
    reason of. `code` is why the last one failed, or why it is in safe mode. Times: seconds of CLOCK_BOOTTIME.
    """

    mode: str = NORMAL
    phase: str = "starting"
    code: str | None = None
    failures: int = 0
    blamed: int = 0
    since: float | None = None
    """Since when it has been in safe mode."""
    changed: float = 0.0
    """When `phase` changed."""
    invocation: str = ""
    start_seconds: float = 90.0


def starting(state: State, now: float, invocation: str, start_seconds: float) -> State:
    """The state for the start that begins now."""
    safe = state.blamed >= MOST_FAILURES
    return state._replace(
        mode=SAFE if safe else NORMAL,
        phase="starting",
        since=(now if state.since is None else state.since) if safe else None,
        changed=now,
        invocation=invocation,
        start_seconds=start_seconds,
    )


def ended(state: State, ending: Ending, now: float) -> State:
    """The state after a start that has ended."""
    over = state._replace(phase="ended", changed=now)
    served = ending.served
    if served is not None and (ending.result == "success" or served >= SETTLED_SECONDS):
        # Somebody shut it down, or it ended after it had been in use: the next start is the first of its kind.
        return State(phase="ended", changed=now, invocation=state.invocation, start_seconds=state.start_seconds)
    if served is None and ending.result == "success" and ending.code == "killed":
        # Stopped by systemctl while it started: that says nothing of it.
        return over
    code = cause(ending, state.start_seconds)
    if state.mode == SAFE:
        # Safe mode is as safe as it gets: it is tried again, and why it came to it stays.
        return over._replace(failures=state.failures + 1, code=code if code in NOT_OF_THE_OWNER else state.code)
    blamed = 0 if code in NOT_OF_THE_OWNER else MOST_FAILURES if code in CERTAIN else 1
    return over._replace(failures=state.failures + 1, blamed=state.blamed + blamed, code=code)


def cause(ending: Ending, start_seconds: float) -> str:
    """Why a start failed: a code of CAUSES."""
    if ending.result == "oom-kill":
        return "out_of_memory"
    if ending.served is not None:
        return "crashes"
    status = int(ending.status) if ending.status.isdigit() else -1
    told: str | None = code_of(status) if ending.code == "exited" else None
    if told is not None:
        return told
    # systemd.exec(5): from 200 on, what systemd itself could not do; 203 is a program that is not there.
    if ending.code == "exited" and status >= 200:
        return "environment" if status == 203 else "system"
    if ending.lived >= start_seconds - 1 or ending.result == "timeout":
        return "hangs"
    return "ended"


def read_state(text: str) -> State:
    """A kept state; a new one where there is none that can be read."""
    try:
        kept = json.loads(text)
        return State(**{name: kept[name] for name in State._fields if name in kept})
    except (ValueError, TypeError, KeyError):
        return State()


def boottime() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def start_seconds(environment: Mapping[str, str]) -> float:
    """How long a start may take, in seconds; a minute may last less than 60 in the local cloud."""
    try:
        minute = float(environment.get("NOD_MINUTE_SECONDS", "60"))
    except ValueError:
        minute = 60.0
    return max(LEAST_START_SECONDS, START_MINUTES * (minute if 0 < minute <= 60 else 60.0))


def _load() -> State:
    try:
        return read_state(STATE.read_text())
    except OSError:
        return State()


def _write(path: Path, text: str, *, secret: bool = False) -> None:
    """In one step; readable by all, or by root and the notebook's group."""
    new = path.with_suffix(".new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        if secret:
            os.fchown(file.fileno(), 0, grp.getgrnam("jupyter").gr_gid)
        os.fchmod(file.fileno(), 0o640 if secret else 0o644)
    new.replace(path)


def _served(invocation: str, now: float, state: State) -> float | None:
    """For how long the server of this start has served, in seconds. It says so itself in a file of its own; where that
    cannot be read, one that lived on after it should have ended itself served."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        descriptor = os.open(READY, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            mark: Any = json.loads(file.read(1024))
        if mark["invocation"] == invocation and 0 <= float(mark["at"]) <= now:
            return now - float(mark["at"])
    over = now - state.changed - state.start_seconds
    return over if over > 15 else None


def last_words(invocation: str) -> str:
    """The end of what a start wrote into the journal, bounded and without control characters."""
    command = ["journalctl", "--quiet", "--no-pager", "--output", "cat", "--lines", str(MOST_LINES)]
    try:
        told = subprocess.run(
            [*command, f"_SYSTEMD_INVOCATION_ID={invocation}"], check=False, capture_output=True, timeout=10
        ).stdout.decode("utf-8", "replace")
    except (OSError, subprocess.TimeoutExpired):
        told = ""
    lines = ("".join(letter if letter.isprintable() else " " for letter in line)[:300] for line in told.splitlines())
    return "\n".join(line.rstrip() for line in lines if line.strip())[-MOST_WORDS:]


def _prepare() -> None:
    FOLDER.mkdir(mode=0o755, exist_ok=True)
    if not KEY.exists():
        _write(KEY, os.urandom(32).hex() + "\n", secret=True)


def main(what: str, environment: Mapping[str, str]) -> None:
    """One of the three usages."""
    if what == "why":
        state = _load()
        code = state.code or "ended"
        words = CAUSES.get(code, CAUSES["ended"])
        sys.stdout.write(f"{code} The server did not come up, because {words.reason}. {words.advice}\n")
        return
    _prepare()
    state, now, invocation = _load(), boottime(), environment.get("INVOCATION_ID", "")
    if what == "starting":
        if state.failures >= PATIENT:
            time.sleep(WAIT_SECONDS)
            now = boottime()
        _write(STATE, json.dumps(starting(state, now, invocation, start_seconds(environment))._asdict()))
        return
    ending = Ending(
        environment.get("SERVICE_RESULT", ""),
        environment.get("EXIT_CODE", ""),
        environment.get("EXIT_STATUS", ""),
        now - state.changed,
        _served(invocation, now, state),
    )
    after = ended(state, ending, now)
    _write(STATE, json.dumps(after._asdict()))
    if after.failures > state.failures:
        sys.stdout.write(f"start {after.failures} in a row that failed: {after.code}\n")
        if after.mode != SAFE or not WORDS.exists():
            _write(WORDS, last_words(invocation) + "\n", secret=True)
    elif after.failures == 0:
        WORDS.unlink(missing_ok=True)


if __name__ == "__main__":
    main(sys.argv[1], os.environ)
