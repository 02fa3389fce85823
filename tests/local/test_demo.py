"""`make demo` as a person runs it: to a link, Ctrl-C, again, and again after a kill -9."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from tests.local.person import log_in, wait_until

pytestmark = pytest.mark.machine
ROOT = Path(__file__).resolve().parents[2]


class Demo:
    def __init__(self, state: Path, *arguments: str) -> None:
        self.api, self.aws = free_port(), free_port()
        self.file: IO[bytes] = (state.parent / "demo.txt").open("w+b")
        self.state = state
        self.process = subprocess.Popen(
            [sys.executable, "-m", "local", "demo", *arguments],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=self.file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={
                **os.environ,
                "NOD_LOCAL_DIR": str(state),
                "NOD_API_PORT": str(self.api),
                "NOD_AWS_PORT": str(self.aws),
            },
        )

    def output(self) -> str:
        self.file.seek(0)
        return self.file.read().decode(errors="replace")

    def link(self, seconds: float = 240) -> tuple[str, str]:
        """Address and password, once they are printed."""

        def printed() -> Any:
            assert self.process.poll() is None, self.output()
            return re.search(r"https://127\.\d+\.\d+\.\d+:8888", self.output()) and self.password()

        wait_until(printed, seconds, self.output)
        found = re.search(r"https://127\.\d+\.\d+\.\d+:8888", self.output())
        assert found
        return found[0], self.password()

    def type(self, verb: str) -> None:
        """A line of those that it says to type, after the one that points the client at it."""
        wait_until(lambda: "Runs until" in self.output(), 60, self.output)
        lines = self.output().splitlines()
        point, command = (
            next(line for line in lines if words in line) for words in ("export NOD_URL", f" {verb} demo ")
        )
        done = subprocess.run(
            ["bash", "-c", f"{point}\n{command}"], cwd=ROOT, check=False, capture_output=True, timeout=120
        )
        assert done.returncode == 0, done

    def password(self) -> str:
        found = re.search(r"(?im)^\s*password:?\s+(\S+)\s*$", self.output())
        return found[1] if found else ""


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def processes() -> dict[tuple[int, str], tuple[int, str]]:
    """Parent and command line of all that runs, by pid and start: a pid alone may be given again."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            stat = (process / "stat").read_text().rpartition(")")[2].split()
            line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if stat[0] != "Z":
            found[int(process.name), stat[19]] = int(stat[1]), line
    return found


def started_by(pid: int) -> dict[tuple[int, str], str]:
    """Command lines of what a process started, and what that started."""
    running = processes()
    pids, found = {pid}, {}
    while new := {key: line for key, (parent, line) in running.items() if parent in pids and key not in found}:
        found |= new
        pids |= {key[0] for key in new}
    return found


def left_of(state: Path) -> list[str]:
    """Mounts and processes that belong to the local cloud of this folder."""
    mounts = Path("/proc/mounts").read_text().replace("\\040", " ").splitlines()
    left = [line for line in mounts if str(state) in line]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(state) in line:
            left.append(f"{process.name}: {line}")
    return left


@pytest.fixture
def demos(tmp_path: Path) -> Iterator[list[Demo]]:
    started: list[Demo] = []
    yield started
    for demo in started:
        if demo.process.poll() is None:
            demo.process.kill()
            demo.process.wait()
        demo.file.close()


def test_kill_in_the_middle_of_a_launch_leaves_no_process_and_the_next_demo_ends_with_a_link(
    tmp_path: Path, image: Path, installer: Any, demos: list[Demo]
) -> None:
    """No process, not even the client. And Ctrl-C leaves nothing of a demo that was used."""
    state = tmp_path / "state of mine"
    demo = Demo(state)
    demos.append(demo)
    wait_until(lambda: "Install Anaconda: running" in demo.output(), 120, demo.output)
    started = started_by(demo.process.pid)
    assert any(" -m nod request " in line for line in started.values()), started
    assert any(line.startswith("systemd-nspawn ") for line in started.values()), started
    demo.process.kill()
    demo.process.wait()

    def left() -> list[str]:
        running = processes()
        return [f"{key[0]}: {line}" for key, line in started.items() if key in running] + left_of(state)

    wait_until(lambda: left() == [], 10, lambda: f"left after kill -9: {left()}")
    assert "Cannot reach" not in demo.output()

    again = Demo(state)
    demos.append(again)
    url, password = again.link()
    assert log_in(url, password).login.status_code == 302  # type: ignore[attr-defined]
    assert "stand-in" in again.output().lower(), "says which installer ran"
    again.type("stop")
    again.type("show")
    again.type("start")
    again.process.send_signal(signal.SIGINT)
    assert again.process.wait(120) in {0, 130}
    assert "Traceback" not in again.output()
    assert left_of(state) == []


@pytest.mark.long
def test_demo_runs_again_after_it_was_killed(tmp_path: Path, image: Path, installer: Any, demos: list[Demo]) -> None:
    """As after a kill in the middle of a launch, once its notebook is ready."""
    state = tmp_path / "state"
    first = Demo(state)
    demos.append(first)
    first.link()
    first.process.kill()
    first.process.wait()
    wait_until(lambda: left_of(state) == [], 60, lambda: f"left after kill -9: {left_of(state)}")

    again = Demo(state)
    demos.append(again)
    url, password = again.link()
    assert log_in(url, password).login.status_code == 302  # type: ignore[attr-defined]
    again.process.send_signal(signal.SIGTERM)
    assert again.process.wait(120) in {0, 130, 143}
    assert left_of(state) == []


def test_ctrl_c_in_the_middle_of_a_launch_leaves_nothing(
    tmp_path: Path, image: Path, installer: Any, demos: list[Demo]
) -> None:
    state = tmp_path / "state"
    demo = Demo(state)
    demos.append(demo)
    wait_until(lambda: "Wait for" in demo.output() or "Install" in demo.output(), 120, demo.output)
    time.sleep(3)
    demo.process.send_signal(signal.SIGINT)
    assert demo.process.wait(120) in {0, 130}
    assert "Traceback" not in demo.output()
    assert left_of(state) == []


@pytest.mark.parametrize("variable", ["NOD_API_PORT", "NOD_AWS_PORT"])
def test_port_in_use_is_one_sentence_that_names_the_variable(tmp_path: Path, variable: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ports = {"NOD_API_PORT": str(free_port()), "NOD_AWS_PORT": str(free_port())}
        ports[variable] = str(taken.getsockname()[1])
        run = subprocess.run(
            [sys.executable, "-m", "local", "serve"],
            cwd=ROOT,
            env={**os.environ, "NOD_LOCAL_DIR": str(tmp_path / "state"), **ports},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert run.returncode not in {0, None}
    assert variable in run.stderr
    assert "Traceback" not in run.stderr
    assert len(run.stderr.strip().splitlines()) == 1
