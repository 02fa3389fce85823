"""What the local cloud starts ends with it, also when it is killed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from local.processes import tied

ROOT = Path(__file__).resolve().parents[2]

STARTER = """
import subprocess, sys, threading
from local.processes import tied
def start():
    child = subprocess.Popen(tied("sleep", "1000"))
    print(child.pid, flush=True)
    child.wait()
if sys.argv[1] == "main":
    start()
else:
    threading.Thread(target=start).start()
"""


def runs(pid: int) -> bool:
    try:
        return "sleep" in Path(f"/proc/{pid}/comm").read_text() and "\nState:\tZ" not in (
            Path(f"/proc/{pid}/status").read_text()
        )
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until(pid: int, running: bool) -> None:
    end = time.monotonic() + 10
    while runs(pid) is not running:
        assert time.monotonic() < end, f"{pid} runs: {not running}"
        time.sleep(0.02)


@pytest.mark.parametrize("thread", ["main", "one that waits for it"])
def test_a_killed_starter_takes_what_it_started_along(thread: str) -> None:
    with subprocess.Popen([sys.executable, "-c", STARTER, thread], cwd=ROOT, stdout=subprocess.PIPE) as starter:
        try:
            assert starter.stdout is not None
            pid = int(starter.stdout.readline())
            wait_until(pid, running=True)
        finally:
            starter.kill()
    wait_until(pid, running=False)


def test_what_was_started_by_a_process_that_is_dead_already_does_not_begin(tmp_path: Path) -> None:
    command = tied("touch", str(tmp_path / "begun"))
    late = [str(os.getppid()) if word == str(os.getpid()) else word for word in command]
    assert subprocess.run(late, check=False).returncode == 1
    assert not (tmp_path / "begun").exists()


def test_its_words_and_its_exit_code_are_the_commands_own() -> None:
    done = subprocess.run(
        tied("sh", "-c", 'printf "%s|" "$@"; exit 7', "sh", "a b", "$(c)", ""),
        check=False,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (7, "a b|$(c)||")
