"""The user's processes and terminals, read from a /proc of the test's making and from the real one."""

from __future__ import annotations

import json
import os
import pty
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instance.files import looks
from instance.files.processes import Look, Process, Processes, parse_io, parse_stat
from instance.files.terminals import Linux, Terminals

TICKS = 100
USER = 1000
SERVER = "/system.slice/jupyter.service"


@dataclass
class Proc:
    """A folder as /proc."""

    root: Path

    def put(
        self, pid: int, *, comm: str = "python", ppid: int = 1, cpu: int = 0, children: int = 0, start: int = 100,
        uid: int = USER, cgroup: str = "/system.slice/some.service", io: int | None = 0, login: int = 4294967295,
        cmdline: str = "",
    ) -> None:  # fmt: skip
        folder = self.root / str(pid)
        folder.mkdir(exist_ok=True)
        fields = ["S", ppid, pid, pid, 0, -1, *[0] * 5, cpu, 0, children, 0, 20, 0, 1, 0, start, *[0] * 30]
        (folder / "stat").write_text(f"{pid} ({comm}) {' '.join(map(str, fields))}\n")
        (folder / "status").write_text(f"Name:\t{comm}\nUid:\t{uid}\t0\t0\t0\n")
        (folder / "cgroup").write_text(f"0::{cgroup}\n")
        (folder / "loginuid").write_text(f"{login}\n")
        (folder / "cmdline").write_text(cmdline)
        if io is not None:
            (folder / "io").write_text(f"rchar: 9\nread_bytes: {io}\nwrite_bytes: 0\ncancelled_write_bytes: 0\n")

    def end(self, pid: int) -> None:
        shutil.rmtree(self.root / str(pid))


@pytest.fixture
def proc(tmp_path: Path) -> Proc:
    made = Proc(tmp_path)
    made.put(1, comm="systemd", ppid=0, uid=0, cgroup="/init.scope")
    return made


class Clock:
    """Looks every five seconds from 100 s after boot on."""

    def __init__(self, proc: Proc) -> None:
        self.now = 100.0
        self._processes = Processes(str(proc.root), TICKS)

    def look(self, after: float = 5.0) -> Look:
        self.now += after
        return self._processes.look(self.now)


def test_the_first_look_is_where_counting_begins(proc: Proc) -> None:
    proc.put(50, cpu=9000, io=10**9)
    clock = Clock(proc)
    first = clock.look()
    assert (first.cpu_seconds, first.disk_bytes) == (None, None)
    proc.put(50, cpu=9150, io=10**9 + 4096)
    second = clock.look()
    assert (second.cpu_seconds, second.disk_bytes) == (1.5, 4096.0)


@pytest.mark.parametrize(
    ("more", "counts"),
    [
        ({}, True),
        ({"uid": 0}, False),
        ({"uid": 65534}, False),
        ({"uid": 61500}, False),
        ({"uid": 0, "login": 1000}, True),
        ({"uid": 0, "login": 0}, False),
        ({"uid": 0, "cgroup": "/user.slice/user-0.slice/session-2.scope"}, True),
        ({"uid": 999, "cgroup": "/system.slice/docker-abc.scope"}, True),
        ({"cgroup": "/user.slice/user-1000.slice/user@1000.service/init.scope"}, False),
        ({"comm": "sshd", "cgroup": "/user.slice/user-1000.slice/session-2.scope"}, False),
        ({"uid": 33, "cgroup": "/system.slice/nginx.service"}, False),
    ],
)
def test_whose_process_it_is(proc: Proc, more: dict[str, Any], counts: bool) -> None:
    clock = Clock(proc)
    clock.look()
    proc.put(50, **more, start=10300)
    clock.look()
    proc.put(50, **more, cpu=500, start=10300)
    assert clock.look(after=11).cpu_seconds == (5.0 if counts else 0.0)


def test_a_login_that_is_everybodys_says_nothing(proc: Proc) -> None:
    """In a container, the login of who started it stands in each process."""
    proc.put(1, comm="systemd", ppid=0, uid=0, login=1000)
    proc.put(50, uid=0, login=1000)
    clock = Clock(proc)
    assert clock.look().processes == []


def test_what_a_user_starts_as_root_is_the_users(proc: Proc) -> None:
    proc.put(50)
    proc.put(60, ppid=50, uid=0, comm="sudo")
    clock = Clock(proc)
    assert {process.pid for process in clock.look().processes} == {50, 60}


@pytest.mark.parametrize(
    ("answer", "space"),
    [
        (b"262144 7864320 4096 12 1966080\n", looks.Space(1024, 30720)),
        (b"0 10 4096 12 1966080\n", looks.Space(0, 0)),
        # Millions of small files: no other can be made.
        (b"262144 7864320 4096 0 1966080\n", looks.Space(0, 30720)),
        # btrfs counts none.
        (b"262144 7864320 4096 0 0\n", looks.Space(1024, 30720)),
        (b"", None),
        (None, None),
        (b"-1 10 4096 1 1", None),
        (b"1 2 3", None),
        (b"a b c d e", None),
    ],
)
def test_room_on_the_disk_is_read(answer: bytes | None, space: looks.Space | None) -> None:
    assert looks.parse_space(answer) == space


def test_a_snapshot_that_is_being_written_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "activity.json"
    file.write_text('{"at": 1')
    whole = json.dumps({"at": 1.0, "input_at": 0.0, "kernels": [], "visible": 0, "hidden": 0})
    monkeypatch.setattr(looks.time, "sleep", lambda _: file.write_text(whole))
    assert looks.read_snapshot(str(file), 2.0) == looks.Snapshot(1.0, 0.0, [], (0, 0))


def test_the_server_itself_is_not_the_users_but_its_kernels_are(proc: Proc) -> None:
    proc.put(40, cgroup=SERVER, start=50, io=0)
    proc.put(50, cgroup=SERVER, ppid=40, start=60)
    # What a kernel has detached is systemd's child, as the server is.
    proc.put(60, cgroup=SERVER, ppid=1, start=70)
    clock = Clock(proc)
    assert clock.look().server
    proc.put(40, cgroup=SERVER, start=50, cpu=400, io=10**8)
    proc.put(50, cgroup=SERVER, ppid=40, start=60, cpu=100)
    proc.put(60, cgroup=SERVER, ppid=1, start=70, cpu=10)
    look = clock.look()
    assert (look.cpu_seconds, look.disk_bytes) == (1.1, 0.0)
    for pid in (40, 50, 60):
        proc.end(pid)
    assert not clock.look().server


def test_a_job_that_is_older_than_the_server_is_not_the_server(proc: Proc, tmp_path: Path) -> None:
    """It was detached from an earlier server, and is systemd's child as this one is."""
    proc.put(40, cgroup=SERVER, start=50)
    proc.put(60, cgroup=SERVER, start=900)
    written = tmp_path / "jupyter.pid"
    written.write_text("60\n")
    processes = Processes(str(proc.root), TICKS, str(written))
    assert processes.look(100).server
    proc.put(40, cgroup=SERVER, start=50, cpu=300)
    proc.put(60, cgroup=SERVER, start=900, cpu=700)
    assert processes.look(105).cpu_seconds == 3.0, "of the job alone"
    proc.end(60)
    look = processes.look(110)
    assert not look.server
    assert [process.pid for process in look.processes] == [40]


def test_the_busiest_process_is_told_apart_from_all_together(proc: Proc) -> None:
    clock = Clock(proc)
    for pid in range(50, 58):
        proc.put(pid)
    clock.look()
    for pid in range(50, 58):
        proc.put(pid, cpu=15)
    # What a process has started and seen end is its own: a loop of short commands is one busy process.
    proc.put(50, cpu=15, children=40)
    look = clock.look()
    assert (look.cpu_seconds, look.busiest_seconds) == (1.6, 0.55)


def test_short_lived_children_count_once(proc: Proc) -> None:
    proc.put(50)
    proc.put(60, ppid=50, cpu=300)
    clock = Clock(proc)
    clock.look()
    # One that was seen and has used half a second more before its end; and one that lived between two looks.
    proc.end(60)
    proc.put(50, children=300 + 50 + 200)
    assert clock.look().cpu_seconds == 2.5
    # A grandchild, whose parent ended with it.
    proc.put(60, ppid=50, start=11000, cpu=100)
    proc.put(70, ppid=60, start=11000, cpu=100)
    assert clock.look().cpu_seconds == 2.0
    proc.end(60)
    proc.end(70)
    proc.put(50, children=550 + 200)
    assert clock.look().cpu_seconds == 0.0


def test_a_new_process_counts_whole_and_an_old_one_that_became_a_users_does_not(proc: Proc) -> None:
    clock = Clock(proc)
    proc.put(70, uid=0, cpu=100000)
    clock.look()
    proc.put(50, cpu=200, start=10600, io=8192)
    look = clock.look()
    assert (look.cpu_seconds, look.disk_bytes) == (2.0, 8192.0)
    proc.put(70, uid=USER, cpu=100100)
    assert clock.look(after=11).cpu_seconds == 0.0


def test_a_number_that_is_used_again_is_another_process(proc: Proc) -> None:
    proc.put(50, cpu=50000)
    clock = Clock(proc)
    clock.look()
    proc.put(50, cpu=30, start=10700)
    assert clock.look().cpu_seconds == 0.3


def test_disks_that_cannot_be_read_are_unknown(proc: Proc) -> None:
    proc.put(50, io=None)
    clock = Clock(proc)
    clock.look()
    proc.put(50, io=None, cpu=10)
    assert clock.look().disk_bytes is None


def test_the_busiest_are_named_without_their_arguments(proc: Proc) -> None:
    clock = Clock(proc)
    clock.look()
    proc.put(50, cpu=300, start=10700, cmdline="/opt/anaconda3/bin/python\0/home/jupyter/train.py\0--key=secret\0")
    proc.put(51, cpu=200, start=10700, comm="ffmpeg", cmdline="ffmpeg\0-key\0secret\0")
    proc.put(52, cpu=100, start=10700, cmdline="python3\0-m\0http.server\0")
    proc.put(53, cpu=50, start=10700, cmdline="python3\0-c\0secret\0")
    proc.put(54, cpu=0, start=10700, comm="idle")
    assert clock.look().busiest == ["python train.py", "ffmpeg", "python3 http.server", "python3"]


@pytest.mark.parametrize(
    ("program", "name"),
    [("sha256sum", "sha256sum"), ("shred", "shred"), ("nodemon", "nodemon"), ("python3.12", "python3.12 secret")],
)
def test_the_first_word_after_a_program_is_its_name_only_where_it_is_one(proc: Proc, program: str, name: str) -> None:
    clock = Clock(proc)
    clock.look()
    proc.put(50, cpu=300, start=10700, comm=program, cmdline=f"/usr/bin/{program}\0/home/jupyter/secret\0")
    assert clock.look().busiest == [name]


@given(st.binary(max_size=200))
def test_no_content_of_proc_breaks_a_look(content: bytes) -> None:
    for parse in (parse_stat, parse_io):
        try:
            parse(content)
        except (ValueError, IndexError, KeyError):
            continue


def test_a_name_may_hold_what_it_likes() -> None:
    data = b"7 (a) b (c)) R 1 2 3 34816 5 " + b"0 " * 5 + b"10 20 30 40 " + b"0 " * 4 + b"99 0"
    found = parse_stat(data)
    assert (found.comm, found.state, found.ppid, found.tty, found.own, found.children, found.start) == (
        b"a) b (c)", b"R", 1, 34816, 30, 70, 99,
    )  # fmt: skip


def test_a_real_machine_is_looked_at() -> None:
    processes = Processes()
    processes.look(looks.boottime())
    end = time.process_time() + 0.3
    while time.process_time() < end:
        pass
    look = processes.look(looks.boottime())
    assert look.cpu_seconds is not None
    assert look.cpu_seconds >= 0


# --- terminals, real ones ---


@dataclass
class Typist:
    """A shell in a pseudo-terminal."""

    pid: int
    master: int

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def look(self) -> tuple[bool, bool]:
        mine = [
            Process(int(path.name), stat, True, False, 0.0)
            for path in Path("/proc").iterdir()
            if path.name.isdigit() and (stat := self._stat(path)) and stat.session == self.pid
        ]
        found, _ = Terminals(Linux()).look(mine, 100.0, time.time())
        # It has no terminal until it is a session of its own.
        return found[0] if found else (False, True)

    @staticmethod
    def _stat(path: Path) -> Any:
        try:
            return parse_stat((path / "stat").read_bytes())
        except OSError:
            return None

    def until(self, wanted: tuple[bool, bool], interrupting: bool = False) -> None:
        """Looks until it is so. A Ctrl-C between fork and exec is lost, so it is pressed as often as it takes."""
        end, press = time.monotonic() + 10, 0.0
        while (found := self.look()) != wanted:
            assert time.monotonic() < end, found
            if interrupting and time.monotonic() >= press:
                self.type("\x03")
                press = time.monotonic() + 1
            time.sleep(0.05)


@pytest.fixture
def typist() -> Iterator[Callable[..., Typist]]:
    made: list[Typist] = []

    def make(*command: str) -> Typist:
        pid, master = pty.fork()
        if pid == 0:
            os.environ.update(PS1="$ ", TERM="xterm")
            os.execvp(command[0], command)
        made.append(Typist(pid, master))
        return made[-1]

    yield make
    for each in made:
        os.kill(each.pid, signal.SIGKILL)
        os.close(each.master)
        os.waitpid(each.pid, 0)


QUIET, WORKS, WAITS = (False, False), (True, False), (True, True)


@pytest.mark.parametrize("shell", [("bash", "--norc", "-i"), ("sh", "-i")], ids=["bash", "sh"])
def test_a_prompt_is_quiet_a_command_works_and_one_that_reads_waits(
    typist: Callable[..., Typist], shell: tuple[str, ...]
) -> None:
    person = typist(*shell)
    person.until(QUIET)
    person.type("sleep 60\n")
    person.until(WORKS)
    person.until(QUIET, interrupting=True)
    person.type("cat\n")
    person.until(WAITS)
    person.type("\x04")
    person.until(QUIET)
    person.type("cat | sort\n")
    person.until(WAITS)
    person.type("\x04")
    person.until(QUIET)
    person.type("sleep 60 | cat\n")
    person.until(WORKS)


@pytest.mark.parametrize(
    ("command", "wanted"),
    [
        ("tail -f /etc/hostname", WAITS),
        ("tail -n 3 -f /etc/hostname | cat", WAITS),
        ("watch true", WAITS),
        (f"{sys.executable} -c 'input()'", WAITS),
        (f"{sys.executable} -c 'import tty, time; tty.setraw(0); time.sleep(60)'", WAITS),
        (f"{sys.executable} -c 'import time; time.sleep(60)'", WORKS),
        ("while sleep 0.2; do :; done", WORKS),
        ("sleep 60 & wait", WORKS),
        ("bash -c 'sleep 60; true'", WORKS),
        ("bash --norc -i", QUIET),
    ],
)
def test_commands_of_a_terminal(typist: Callable[..., Typist], command: str, wanted: tuple[bool, bool]) -> None:
    if shutil.which(command.split(maxsplit=1)[0]) is None and not command.startswith("while"):
        pytest.skip(f"there is no {command.split(maxsplit=1)[0]}")
    person = typist("bash", "--norc", "-i")
    person.until(QUIET)
    person.type(f"{command}\n")
    time.sleep(0.5)
    person.until(wanted)


def test_a_command_in_place_of_a_shell_works(typist: Callable[..., Typist]) -> None:
    typist("sleep", "60").until(WORKS)


class Still:
    """A system of which the test says when a terminal was read, and what runs in it."""

    def __init__(self) -> None:
        self.at: float | None = 5000.0
        self.edits: bool | None = None
        self.words: dict[int, list[str]] = {}
        self.running: set[int] = set()

    def path(self, pid: int, device: int) -> str:
        return f"/dev/pts/{device & 0xFF}"

    def accessed(self, path: str) -> tuple[int, float] | None:
        assert path == "/dev/pts/3"
        return None if self.at is None else (24, self.at)

    def edits_lines(self, path: str) -> bool | None:
        return self.edits

    def reads(self, pid: int, device: int) -> bool | None:
        return False

    def runs(self, pid: int) -> bool:
        return pid in self.running

    def arguments(self, pid: int) -> list[str]:
        return self.words[pid]


@pytest.mark.parametrize(("state", "running", "wanted"), [("", {8}, WORKS), ("", set(), QUIET), ("Z", set(), QUIET)])
def test_a_command_that_began_while_processes_were_counted_works(
    state: str, running: set[int], wanted: tuple[bool, bool]
) -> None:
    """The shell is seen when it has given the terminal to a command that the list of processes does not have yet."""
    system = Still()
    system.edits, system.running = True, running
    shell = parse_stat(b"7 (bash) S 1 7 7 34819 8 " + b"0 " * 13 + b"99 0")
    ended = parse_stat(b"8 (sleep) Z 7 8 7 34819 8 " + b"0 " * 13 + b"99 0")
    listed = [Process(7, shell, True, False, 0.0)] + ([Process(8, ended, True, False, 0.0)] if state else [])
    assert Terminals(system).look(listed, 1000.0, 5060.0)[0] == [wanted]


def in_place_of_a_prompt(system: Still, *lines: str) -> list[tuple[bool, bool]] | None:
    """What is said of terminals in which such commands have switched line editing off, and say nothing for hours."""
    system.edits = False
    system.words = {8 + 10 * place: shlex.split(line) for place, line in enumerate(lines)}
    processes = []
    for group, words in system.words.items():
        for pid, name in ((group - 1, b"bash"), (group, words[0].encode())):
            fields = b"%d (%s) S 1 %d 7 34819 %d " % (pid, name, pid, group) + b"0 " * 13 + b"99 0"
            processes.append(Process(pid, parse_stat(fields), True, False, 0.0))
    return Terminals(system).look(processes, 1000.0, 5060.0)[0]


@pytest.mark.parametrize(
    "line",
    [
        "ssh -t host ./train.sh",
        "ssh -tt -i key -p 2222 -oUser=ada host python train.py --fast",
        "ssh host -t -l ada nohup make all",
        "ssh -t -- host cd x && bash run.sh",
        "ssh -t host 'cd x && . env.sh; conda activate e; CUDA_VISIBLE_DEVICES=1 python3.11 train.py | tee log'",
        "ssh -t bastion ssh -p 2222 box python train.py",
        "ssh -t host 'bash -lc \"cd x; ./train.sh\"'",
        "ssh -t host bash -eo pipefail run.sh",
        "ssh -t host sudo -u alice -- env A=b nice -n 5 python -W ignore train.py",
        "ssh -t host 'sudo su - alice -c ./train.sh'",
        "ssh -t host timeout -k 5 8h ionice -c 3 ipython train.py",
        "ssh -t host docker exec -it -w /p c python train.py",
        "ssh -t host 'docker exec -it c bash -c \"cd /p; python train.py\"'",
        "ssh -t host kubectl exec -it pod -- python -m train",
        "ssh -t host srun --pty python train.py",
        "ssh -t host jupyter nbconvert --execute a.ipynb",
        "ssh -t host source train.sh",
    ],
)
def test_a_command_that_ssh_was_given_works_until_it_ends(line: str) -> None:
    assert in_place_of_a_prompt(Still(), line) == [WORKS]


@pytest.mark.parametrize(
    "line",
    [
        "ssh",
        "ssh host",
        "ssh -p 2222 host",
        "ssh -t host bash -l",
        "ssh -t host sudo -i",
        "ssh -t host tmux attach || tmux new",
        "ssh -t host cd x; exec /usr/bin/vim notes",
        "ssh -t host htop",
        "ssh -t bastion ssh box",
        "ssh -t bastion ssh box tmux",
        "ssh -t host 'cd /p; exec $SHELL'",
        "ssh -t host 'cd /p && exec \"$SHELL\" -l'",
        "ssh -t host TERM=xterm bash -l",
        "ssh -t host env TERM=xterm bash",
        "ssh -t host /usr/bin/env bash",
        "ssh -t host sudo -u alice -i",
        "ssh -t host sudo --user alice bash",
        "ssh -t host nice -n 5 bash",
        "ssh -t host sudo su - alice",
        "ssh -t host docker exec -it c bash",
        "ssh -t host docker exec -it c bash -l",
        "ssh -t host podman exec -it c sh -c tmux",
        "ssh -t host kubectl exec -it pod -- python3",
        "ssh -t host srun --pty bash -i",
        "ssh -t host bash -o vi",
        "ssh -t host bash --rcfile f -i",
        "ssh -t host bash -ic tmux",
        "ssh -t host jupyter console",
        "ssh -t host python -W ignore",
        "ssh -t host ipython",
        "ssh -t host 'echo hello; telnet box'",
        "vim -t host",
        "kubectl exec -it pod -- train",
    ],
)
def test_a_session_is_a_prompt_however_it_was_asked_for(line: str) -> None:
    assert in_place_of_a_prompt(Still(), line) == [WAITS]


@pytest.mark.parametrize(
    "line",
    [
        "ssh -t gpu 'python train.py; exec bash'",
        "ssh -t gpu './train.sh && tail -f log'",
        "ssh -t gpu 'python train.py | tee log | less'",
        "ssh -t gpu 'cd x\nmake\nbash'",
        "ssh -t bastion ssh gpu 'python train.py; bash'",
        "ssh -t gpu \"bash -c 'make; bash'\"",
        "ssh -t gpu python -i train.py",
        'ssh -t gpu "echo \'it"',
        "ssh -t " + "box ssh " * 400 + "box make",
    ],
)
def test_a_job_and_then_a_prompt_on_another_machine_cannot_be_told_apart(line: str) -> None:
    assert in_place_of_a_prompt(Still(), line) is None
    assert in_place_of_a_prompt(Still(), line, "ssh host") is None
    assert in_place_of_a_prompt(Still(), line, "ssh -t host make") == [WORKS, WORKS], "another is known to work"


@given(st.text(st.sampled_from(" ;&|()\\'\"\n=-$") | st.sampled_from("abc")) | st.text(), st.booleans())
def test_no_command_line_breaks_a_look(line: str, split: bool) -> None:
    system = Still()
    system.edits, system.words = False, {8: ["ssh", "-t", *(line.split() if split else ["host", line])]}
    ssh = parse_stat(b"8 (ssh) S 7 8 7 34819 8 " + b"0 " * 13 + b"99 0")
    found, _ = Terminals(system).look([Process(8, ssh, True, False, 0.0)], 1000.0, 5060.0)
    assert found in (None, [WORKS], [WAITS])


class Prompted(Linux):
    """The system that runs, where the first process reads what is typed at its prompt."""

    def reads(self, pid: int, device: int) -> bool | None:
        return pid == 1 or super().reads(pid, device)


def test_a_terminal_of_a_container_is_another_than_that_of_its_number() -> None:
    """As `docker run -it` has it: a mount of its own, in which the numbers of terminals begin anew."""
    if os.geteuid() != 0:
        pytest.skip("a mount needs root")
    job = "import os, pty, time\npid, _ = pty.fork()\nif pid == 0: os.execvp('sleep', ['sleep', '61.5'])\n"
    mount = 'mount -t devpts -o newinstance,ptmxmode=0666 devpts /dev/pts && exec "$0" -c "$1"'
    container = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", mount, sys.executable, f"{job}time.sleep(60)"], stdin=subprocess.DEVNULL
    )
    children = Path(f"/proc/{container.pid}/task/{container.pid}/children")
    try:
        end = time.monotonic() + 20
        while not (pid := int(children.read_text() or 0)) or Linux().arguments(pid) != ["sleep", "61.5"]:
            assert time.monotonic() < end
            time.sleep(0.05)
        stat = parse_stat(Path(f"/proc/{pid}/stat").read_bytes())
        # A prompt of this machine under the same number, which a look must not take for the container's.
        prompt = Process(1, stat._replace(comm=b"bash", pgrp=1, session=1, tpgid=1), True, False, 0.0)
        found, _ = Terminals(Prompted()).look([prompt, Process(pid, stat, True, False, 0.0)], 100.0, time.time())
        assert found == [QUIET, WORKS]
        assert Linux().path(pid, stat.tty) == f"/proc/{pid}/fd/0"
        assert Linux().edits_lines(f"/proc/{pid}/fd/0") is True
        os.kill(pid, signal.SIGKILL)
    finally:
        container.kill()
        container.wait()


def test_typing_is_a_time_that_moved_whatever_the_clock_says() -> None:
    system = Still()
    terminals = Terminals(system)
    stat = parse_stat(b"7 (bash) S 1 7 7 34819 7 " + b"0 " * 8 + b"0 " * 5 + b"99 0")
    shell = [Process(7, stat, True, False, 0.0)]
    assert terminals.look(shell, 1000.0, 5060.0) == ([QUIET], 940.0)
    assert terminals.look(shell, 1005.0, 5065.0) == ([QUIET], 0.0)
    # The clock is set back by a day: nothing was typed.
    assert terminals.look(shell, 1010.0, 5070.0 - 86400) == ([QUIET], 0.0)
    system.at = 5080.0 - 86400
    assert terminals.look(shell, 1015.0, 5080.0 - 86400) == ([QUIET], 1015.0)
    system.at = None
    assert terminals.look(shell, 1020.0, 5085.0) == ([QUIET], 0.0)


# --- the other sources ---


GOOD = {"at": 100.0, "input_at": 90.0, "kernels": [[True, False]], "visible": 1, "hidden": 0}


def test_a_snapshot_is_read(tmp_path: Path) -> None:
    path = tmp_path / "activity.json"
    path.write_text(json.dumps(GOOD))
    assert looks.read_snapshot(str(path), 101.0) == looks.Snapshot(100.0, 90.0, [(True, False)], (1, 0))


@pytest.mark.parametrize(
    "change",
    [
        {"at": 200.0}, {"at": "now"}, {"at": True}, {"at": float("nan")}, {"input_at": -1}, {"kernels": {}},
        {"kernels": [[True]]}, {"kernels": [[1, 0]]}, {"kernels": [[True, False]] * 20000}, {"visible": None},
        {"hidden": 10**400},
    ],
)  # fmt: skip
def test_a_forged_snapshot_is_unknown(tmp_path: Path, change: dict[str, Any]) -> None:
    path = tmp_path / "activity.json"
    path.write_text(json.dumps({**GOOD, **change}))
    assert looks.read_snapshot(str(path), 101.0) is None


def test_what_is_no_file_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(json.dumps(GOOD))
    (tmp_path / "link").symlink_to(tmp_path / "secret")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "long").write_text(json.dumps(GOOD) + " " * 70000)
    (tmp_path / "deep").write_text("[" * 60000)
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    for name in ("link", "fifo", "long", "deep", "bytes", "missing", "."):
        assert looks.read_snapshot(str(tmp_path / name), 101.0) is None, name


def test_traffic_is_what_the_counters_grew_by() -> None:
    printed = [b"", b"counter sent {\n packets 1 bytes 100\n}\ncounter received {\n packets 2 bytes 50\n}"]
    printed += [printed[1].replace(b"100", b"900"), printed[1]]
    answers = iter(printed)
    traffic = looks.Traffic(lambda: next(answers), seconds=15)
    # Not counted; then counted from here; asked again only after a while; then grown; then begun anew.
    assert [traffic.since(at) for at in (0.0, 15.0, 20.0, 30.0, 45.0)] == [None, 0.0, 0.0, 800.0, 150.0]


def test_the_rules_of_traffic_are_what_nft_takes() -> None:
    rules = Path(looks.__file__).with_name("traffic.nft")
    if os.geteuid() != 0 or shutil.which("nft") is None:
        pytest.skip("nft needs root")
    subprocess.run(["unshare", "--net", "nft", "-f", rules], check=True, capture_output=True)
