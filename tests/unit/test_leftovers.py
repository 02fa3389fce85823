"""Which processes end with the notebook's server, and how a file of root's is replaced on a full disk."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from instance.files import leftovers, replace_file
from instance.files.leftovers import Process, left_behind
from instance.files.processes import Processes

SERVER = 100


def process(pid: int, session: int, *, nohup: bool = False, kernel_of: int = 0, file: bool = False) -> Process:
    return Process(pid, 1, session, nohup, kernel_of, file)


KERNEL = process(200, 200, kernel_of=SERVER, file=True)


@pytest.mark.parametrize(
    ("one", "ends"),
    [
        (KERNEL, True),
        # What a cell starts has the kernel's environment and session.
        (process(201, 200, kernel_of=SERVER), True),
        (process(202, 200, kernel_of=SERVER, nohup=True), False),
        # setsid, start_new_session, a program that makes itself a daemon, tmux.
        (process(203, 203, kernel_of=SERVER), False),
        (process(204, 999, kernel_of=SERVER), False),
        # What the server itself started: language servers, git.
        (process(205, SERVER), True),
        (process(206, SERVER, nohup=True), False),
        # Of a terminal: Linux hangs it up.
        (process(207, 300), False),
        # A batch run with a kernel of its own (nbconvert, papermill).
        (process(208, 208, kernel_of=207, file=True), False),
        # A kernel of an earlier server that lives on in spite of all.
        (process(209, 209, kernel_of=99, file=True), False),
    ],
)
def test_kernels_end_with_the_server_and_detached_jobs_live(one: Process, ends: bool) -> None:
    assert (one in left_behind([KERNEL, one], SERVER)) is ends


def test_a_process_is_read_as_linux_shows_it() -> None:
    stat_ = b"7 (a) b (c) S 1 7 5 0 -1 " + b"0 " * 13 + b"4242 " + b"0 " * 30
    status = b"Name:\ta\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000001001\n"
    environment = b"HOME=/home/jupyter\0JPY_PARENT_PID=100\0"
    command = b"/opt/anaconda3/bin/python\0-m\0ipykernel_launcher\0-f\0/run/nod-jupyter/runtime/"
    command += b"kernel-8c5ac2c6-6a0f-4f0c-9a4c-3c1b0e5d7f21.json\0"
    assert leftovers.parse(7, stat_, status, environment, command) == Process(7, 4242, 5, True, 100, True)
    assert leftovers.parse(7, stat_, status, b"", b"sh\0") == Process(7, 4242, 5, True, 0, False)
    # A job that a cell detached has the kernel's environment, and may read a file with such a name.
    job = b"python\0train.py\0kernel-svm.json\0"
    assert leftovers.parse(7, stat_, status, environment, job) == Process(7, 4242, 5, True, 100, False)


@pytest.mark.parametrize("name", [b"a\rUid:\t77", b"a\rUid:\tx", b"a\rSigIgn:\t1"])
def test_a_process_is_the_users_whatever_it_calls_itself(name: bytes) -> None:
    """Of what is in a process's name, Linux masks a new line in /proc/PID/status, and no other end of a line."""
    script = f"import ctypes, sys; ctypes.CDLL(None).prctl(15, {name!r}); print(1, flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as its:
        assert its.stdout is not None
        assert its.stdout.readline() == b"1\n"
        found = [each for each in leftovers.read(os.getuid()) if each.pid == its.pid]
        uid = Processes()._uid(its.pid)
        its.kill()
    assert [each.ignores_hangup for each in found] == [False]
    assert uid == os.getuid()


@pytest.fixture
def sleepers() -> Iterator[list[Process]]:
    """One that ends when it is asked to, and one that ignores that."""
    ignores = "trap '' TERM HUP; echo ready; exec sleep 300"
    made = [
        subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, text=True)
        for script in ("echo ready; exec sleep 300", ignores)
    ]
    for each in made:
        assert each.stdout is not None
        assert each.stdout.readline() == "ready\n"
    wanted = {each.pid for each in made}
    yield [found for found in leftovers.read(os.getuid()) if found.pid in wanted]
    for each in made:
        each.kill()
        each.wait()
        assert each.stdout is not None
        each.stdout.close()


def test_what_does_not_end_is_killed(sleepers: list[Process]) -> None:
    assert [each.ignores_hangup for each in sorted(sleepers)] == [False, True]
    leftovers.end(sleepers, signal.SIGTERM, patience=1.0)
    assert not any(map(leftovers.lives, sleepers))


def test_a_later_process_with_the_same_id_is_another(sleepers: list[Process]) -> None:
    later = [each._replace(start=each.start - 1) for each in sleepers]
    leftovers.end(later, signal.SIGTERM, patience=0.1)
    assert all(map(leftovers.lives, sleepers))


# --- replace_file ---


def replaced(folder: Path, content: bytes) -> Path:
    target = folder / "secret"
    replace_file.replace(target, content, 0o640, os.getgid(), folder / "spare")
    return target


@pytest.mark.parametrize("spare", [True, False])
def test_a_file_is_replaced_whole_and_nothing_of_the_old_one_stays(tmp_path: Path, spare: bool) -> None:
    if spare:
        (tmp_path / "spare").mkdir()
    for content in (b"first, and the longest of them", b"second", b"third one"):
        target = replaced(tmp_path, content)
        assert target.read_bytes() == content
        assert stat.S_IMODE(target.stat().st_mode) == 0o640
    kept = list((tmp_path / "spare").iterdir()) if spare else []
    assert [path.read_bytes().strip() for path in kept] == ([b""] if spare else [])
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in kept)
    assert {path.name for path in tmp_path.iterdir()} == ({"secret", "spare"} if spare else {"secret"})


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system")
@pytest.mark.parametrize("spare", [True, False])
def test_only_a_spare_makes_it_possible_on_a_full_disk(tmp_path: Path, spare: bool) -> None:
    """ext4, as EC2's Ubuntu has it; in a mount namespace of its own."""
    script = f"""
import sys; sys.path.insert(0, {str(Path(replace_file.__file__).parent)!r})
import replace_file
from pathlib import Path
folder = Path("mount")
def put(content): replace_file.replace(folder / "secret", content, 0o600, 0, folder / "spare")
if {spare}: (folder / "spare").mkdir()
put(b"first")
full = (folder / "full").open("wb", buffering=0)
size = 1 << 16
while size:
    try: full.write(b"x" * size)
    except OSError: size //= 2
try:
    put(b"second"); put(b"third")
except OSError as error: print(error.errno, end=" ")
print((folder / "secret").read_text())
"""
    assert on_disk(tmp_path, script).split() == (["third"] if spare else ["28", "first"])


def on_disk(folder: Path, script: str) -> str:
    """What a script prints beside a folder `mount` with a file system of 8 MiB, which is the file `disk`."""
    disk = folder / "disk"
    disk.write_bytes(b"")
    os.truncate(disk, 8 << 20)
    (folder / "mount").mkdir()
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(disk)], check=True)
    mounted = ["unshare", "--mount", "sh", "-c", 'mount -o loop,commit=300 disk mount && exec "$@"', "sh"]
    done = subprocess.run(
        [*mounted, sys.executable, "-c", script], cwd=folder, check=False, capture_output=True, text=True
    )
    assert done.stderr == ""
    return done.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system")
@pytest.mark.parametrize("at", range(1, 4))
def test_a_power_cut_at_any_moment_leaves_the_old_content_or_the_new_one(tmp_path: Path, at: int) -> None:
    """Cut off while the file system writes what fsync asks for: the file's blocks come before the journal."""
    script = f"""
import sys; sys.path.insert(0, {str(Path(replace_file.__file__).parent)!r})
import ctypes, os, replace_file, subprocess
from pathlib import Path
folder = Path("mount")
(folder / "spare").mkdir()
def put(content): replace_file.replace(folder / "secret", content, 0o600, 0, folder / "spare")
put(b"first")
os.sync()
fsync, count = os.fsync, 0
def cut_off(file):
    global count
    count += 1
    if count == {at}:
        ctypes.CDLL(None).sync_file_range(file, ctypes.c_int64(0), ctypes.c_int64(0), 7)
        subprocess.run(["cp", "disk", "later"], check=True)
    fsync(file)
os.fsync = cut_off
put(b"second")
if count >= {at}:
    subprocess.run(["umount", "mount"], check=True)
    subprocess.run(["mount", "-o", "loop", "later", "mount"], check=True)
print((folder / "secret").read_text())
"""
    assert on_disk(tmp_path, script).strip() in ("first", "second")
