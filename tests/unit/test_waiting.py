"""Servers that nobody calls, batch runs, and cells that wait, as real processes show them."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from instance.files import looks
from instance.files.processes import Process, parse_stat
from instance.files.waiting import Linux, Sleep, Waiting, is_batch_run, is_kernel, parse_connection, program_of

Start = Callable[..., "Running"]


def until(condition: Callable[[], object], what: str, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.05)


class Running:
    """A process of the test's."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process = process
        self.port = port

    def look(self) -> Process:
        pid = self.process.pid
        return Process(pid, parse_stat(Path(f"/proc/{pid}/stat").read_bytes()), True, False, 0.0)


@pytest.fixture
def start() -> Iterator[Start]:
    """Runs a script that prints the port at which it listens, and goes on then."""
    running: list[subprocess.Popen[str]] = []

    def start(code: str, *arguments: str) -> Running:
        command = [sys.executable, "-c", textwrap.dedent(code), *arguments]
        running.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        pipe = running[-1].stdout
        assert pipe is not None
        return Running(running[-1], int(pipe.readline()))

    yield start
    for each in running:
        each.kill()
        each.communicate()


def is_uncalled(one: Running, *, used: float = 0.0, proxied: tuple[int, ...] = (), own: tuple[int, ...] = ()) -> bool:
    waiting = Waiting(Linux())
    waiting.begin({one.process.pid: used}, 5.0, proxied)
    return waiting.is_uncalled([one.look()], own)


SOCKET = """
    import asyncio, http.server, select, socket, sys, threading, time
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
"""
HTTP = """
    import http.server
    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_): pass
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_address[1], flush=True)
"""
WAITS = {
    "serve_forever": HTTP + "    server.serve_forever()",
    "accept": SOCKET + "    listener.accept()",
    "select": SOCKET + "    select.select([listener], [], [])",
    "select, now and then": SOCKET + "    while True: select.select([listener], [], [], 0.5)",
    "asyncio": SOCKET
    + """
    async def main():
        server = await asyncio.start_server(lambda r, w: None, sock=listener)
        await server.serve_forever()
    asyncio.run(main())
""",
    "IPv6": """
    import socket
    listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    print(listener.getsockname()[1], flush=True)
    listener.accept()
""",
}


@pytest.mark.parametrize("how", WAITS)
def test_a_server_that_nobody_calls_waits(start: Start, how: str) -> None:
    server = start(WAITS[how])
    until(lambda: is_uncalled(server), "it is not seen to wait")
    assert not is_uncalled(server, used=0.5), "it computes"
    assert not is_uncalled(server, own=(server.port,)), "it listens for us alone: a kernel"


WORKS = {
    "sleeps": SOCKET + "    time.sleep(1000)",
    "sleeps in a loop of its own": SOCKET
    + """
    async def main():
        await asyncio.start_server(lambda r, w: None, sock=listener)
        await asyncio.sleep(1000)
    asyncio.run(main())
""",
    "waits for a thread": HTTP
    + """
    import threading, time
    threading.Thread(target=server.serve_forever, daemon=True).start()
    worker = threading.Thread(target=time.sleep, args=(1000,))
    worker.start()
    worker.join()
""",
    "has no port open": SOCKET + "    listener.close(); select.select([], [], [])",
    "asks another": SOCKET
    + """
    other = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(other.getsockname())
    select.select([client], [], [])
""",
}


@pytest.mark.parametrize("how", WORKS)
def test_what_may_have_something_to_do_works(start: Start, how: str) -> None:
    server = start(WORKS[how])
    time.sleep(0.5)
    assert not is_uncalled(server)


def test_a_call_keeps_it_and_is_remembered_for_a_while(start: Start) -> None:
    server = start(WAITS["serve_forever"])
    until(lambda: is_uncalled(server), "it is not seen to wait")
    with socket.create_connection(("127.0.0.1", server.port)) as caller:
        assert not is_uncalled(server), "somebody is connected"
        # By the notebook's server, which knows who that is.
        until(lambda: is_uncalled(server, proxied=(server.port,)), "what is known elsewhere counts")
        caller.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert caller.recv(10_000)
    assert not is_uncalled(server), "somebody called a moment ago"
    until(lambda: is_uncalled(server, proxied=(server.port,)), "what is known elsewhere counts")


def test_a_kernel_that_is_connected_to_its_own_ports_waits(start: Start) -> None:
    code = (
        SOCKET
        + """
    shell = socket.create_server(("127.0.0.1", 0))
    print(shell.getsockname()[1], flush=True)
    mine = socket.create_connection(shell.getsockname())
    listener.accept()
"""
    )
    kernel = start(code)
    pipe = kernel.process.stdout
    assert pipe is not None
    shell = int(pipe.readline())
    until(lambda: is_uncalled(kernel, own=(shell,)), "it is not seen to wait")
    assert not is_uncalled(kernel), "it is connected to something"


def test_who_runs_for_a_moment_goes_on_with_what_they_did() -> None:
    class System(Linux):
        asleep: Sleep | None = Sleep("epoll", None)

        def sleep(self, pid: int) -> Sleep | None:
            return self.asleep

    system = System()
    with socket.create_server(("127.0.0.1", 0)):
        own = Process(os.getpid(), parse_stat(Path("/proc/self/stat").read_bytes()), True, False, 0.0)
        waiting = Waiting(system)
        for asleep, wanted in ((None, False), (Sleep("epoll", None), True), (None, True), (Sleep("other", None), False),
                               (None, False)):  # fmt: skip
            system.asleep = asleep
            waiting.begin({}, 5.0, ())
            found = waiting._remembered(own, "call", waiting._awaits_call)
            assert found is wanted


V6, MAPPED = "00000000000000000000000001000000", "0000000000000000FFFF00000100007F"


@pytest.mark.parametrize(
    ("local", "remote", "is_local"),
    [
        ("0100007F:1F90", "00000000:0000", False),
        ("0100007F:1F90", "0100007F:D431", True),
        (f"{V6}:1F90", f"{V6}:D431", True),
        (f"{MAPPED}:1F90", f"{MAPPED}:D431", True),
        ("0A00000A:1F90", "0800000A:D431", False),
        (f"{V6}:1F90", f"{'0' * 32}:0000", False),
    ],
)
def test_a_socket_is_read(local: str, remote: str, is_local: bool) -> None:
    found = parse_connection(f" 0: {local} {remote} 06 00000000:00000000 00:00000000 0 1000 0 4242 1 0 20 4".encode())
    assert (found.port, found.is_local, found.state, found.inode) == (8080, is_local, 6, 4242)


PREFIX = "/opt/anaconda3/bin"


@pytest.mark.parametrize(
    "line",
    [
        f"{PREFIX}/python3.12 {PREFIX}/jupyter-nbconvert --to notebook --execute a.ipynb",
        f"{PREFIX}/python {PREFIX}/jupyter nbconvert --execute a.ipynb",
        "python -m nbconvert a.ipynb --ExecutePreprocessor.enabled=True",
        "python -m jupyter nbconvert --execute a.ipynb",
        f"{PREFIX}/python {PREFIX}/papermill in.ipynb out.ipynb -p key secret",
        "python -W ignore -m papermill in.ipynb out.ipynb",
        f"{PREFIX}/python {PREFIX}/jupyter-execute a.ipynb",
        "python -m nbclient a.ipynb",
        f"{PREFIX}/python {PREFIX}/ipython script.py --fast",
        "python -m IPython script.ipy",
        "pytest --nbmake notebooks",
    ],
)
def test_a_batch_run_is_known(line: str) -> None:
    assert is_batch_run(program_of(line.split()))


@pytest.mark.parametrize(
    "line",
    [
        "", "python", "python train.py", "python -c 1", f"{PREFIX}/python {PREFIX}/jupyter-lab",
        f"{PREFIX}/python {PREFIX}/jupyter-nbconvert --to html a.ipynb", f"{PREFIX}/python {PREFIX}/ipython",
        "ipython -i script.py", "python -m IPython", "jupyter console", "jupyter kernel", "pytest tests",
        "python -m ipykernel_launcher -f /x.json",
    ],
)  # fmt: skip
def test_what_is_no_batch_run_is_none(line: str) -> None:
    assert not is_batch_run(program_of(line.split()))


def test_a_kernel_is_known() -> None:
    for line in ("python -m ipykernel_launcher -f x.json", "python3 -Xfrozen_modules=off -m ipykernel_launcher --f=x",
                 "python -m ipykernel -f x"):  # fmt: skip
        assert is_kernel(program_of(line.split()))
    for line in ("python train.py -f x", "python -m ipykernel install --user", "ipykernel_launcher", ""):
        assert not is_kernel(program_of(line.split()))


@pytest.fixture
def launcher(tmp_path: Path) -> Path:
    """A program with the name of ipykernel's, which does what it is told on its first line."""
    path = tmp_path / "ipykernel_launcher.py"
    path.write_text("import asyncio, select, socket, time\nprint(0, flush=True)\nexec(__import__('sys').argv[2])\n")
    return path


@pytest.mark.parametrize(
    ("does", "wanted"),
    [
        ("asyncio.run(asyncio.sleep(1000))", []),
        ("time.sleep(1000)", [(True, False)]),
        ("socket.create_server(('127.0.0.1', 0)).accept()", [(True, False)]),
        ("p = select.poll()\nwhile True: p.poll(10)", [(True, True)]),
    ],
    ids=["idle", "silent", "waits for another", "asks"],
)
def test_a_kernel_that_others_started_works_unless_it_waits_in_its_loop(
    launcher: Path, does: str, wanted: list[tuple[bool, bool]]
) -> None:
    command = [sys.executable, str(launcher), "-f", does]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            one = Running(process, 0)
            waiting = Waiting(Linux())

            def runs(kernels: set[int] | None = None) -> list[tuple[bool, bool]]:
                waiting.begin({}, 5.0, ())
                return waiting.batch_runs([one.look()], kernels or set(), 100.0)

            until(lambda: runs() == wanted, f"it is {runs()}")
            assert runs({process.pid}) == [], "it is the server's"
            assert runs({os.getpid()}) == [], "the server has just started it"
        finally:
            process.kill()


class Snapshot:
    """What the notebook's server wrote of one kernel, which is a process of the test's."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = folder / "activity.json"
        self.looker = looks.Looker(snapshot=str(self.path))
        mine = os.getpid()

        def server(processes: object) -> int:
            return mine

        monkeypatch.setattr(looks.Processes, "_server", server)
        monkeypatch.setattr(looks.Processes, "_verdict", lambda _, pid, stat: (_below(pid, mine), False))

    def kernels(self, pid: int) -> list[tuple[bool, bool]] | None:
        now = looks.boottime()
        row = {"at": now, "input_at": 0, "visible": 0, "hidden": 0, "kernels": [[True, False]], "processes": [[pid]]}
        self.path.write_text(json.dumps(row))
        return self.looker.look().kernels


def _below(pid: int, mine: int) -> bool:
    while pid > 1:
        if pid == mine:
            return True
        with contextlib.suppress(OSError):
            pid = parse_stat(Path(f"/proc/{pid}/stat").read_bytes()).ppid
            continue
        return False
    return False


@pytest.mark.parametrize(
    ("command", "waits"),
    [
        ("read -p 'ok? [y/n] ' answer", True),
        (f"{sys.executable} -c 'input()'", True),
        ("cat; sleep 1", True),
        ("sleep 1000", False),
        ("read x < /dev/null; sleep 1000", False),
    ],
)
def test_a_cell_whose_child_asks_at_its_terminal_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, waits: bool
) -> None:
    """As `!rm -i x` in a cell: the kernel holds the other end of a terminal, and looks whether something comes."""
    snapshot = Snapshot(tmp_path, monkeypatch)
    child = "if not pty.fork()[0]: os.execvp('sh', ['sh', '-c', sys.argv[1]])"
    code = f"import pty, os, sys, time\n{child}\ntime.sleep(999)"
    with subprocess.Popen([sys.executable, "-c", code, command]) as kernel:
        try:
            time.sleep(1.0)
            until(lambda: snapshot.kernels(kernel.pid) == [(True, waits)], f"it is {snapshot.kernels(kernel.pid)}", 20)
        finally:
            for line in Path(f"/proc/{kernel.pid}/task/{kernel.pid}/children").read_text().split():
                os.kill(int(line), 9)
            kernel.kill()


def test_a_cell_that_serves_and_is_called_by_nobody_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: Start
) -> None:
    snapshot = Snapshot(tmp_path, monkeypatch)
    kernel = start(WAITS["serve_forever"])
    until(lambda: snapshot.kernels(kernel.process.pid) == [(True, True)], "it is not seen to wait", 20)
    with socket.create_connection(("127.0.0.1", kernel.port)):
        assert snapshot.kernels(kernel.process.pid) == [(True, False)]


def test_a_server_in_a_terminals_foreground_waits_until_somebody_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = Snapshot(tmp_path, monkeypatch)
    pid, master = pty.fork()
    if pid == 0:
        os.environ["PS1"] = "$ "
        os.execvp("bash", ["bash", "--norc", "-i"])
    try:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        os.write(master, f"{sys.executable} -m http.server --bind 127.0.0.1 {port}\n".encode())

        def terminals() -> list[tuple[bool, bool]] | None:
            snapshot.kernels(pid)
            return snapshot.looker.look().terminals

        until(lambda: terminals() == [(True, True)], "it is not seen to wait")
        with socket.create_connection(("127.0.0.1", port)):
            assert terminals() == [(True, False)]
    finally:
        os.write(master, b"\x03exit\n")
        os.close(master)
        os.waitpid(pid, 0)
