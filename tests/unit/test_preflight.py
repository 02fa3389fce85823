"""What keeps the local cloud from starting is said in one sentence that tells what to do."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from local import preflight
from local.aws import addresses
from local.errors import PreflightError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen(1)
        yield sock.getsockname()[1]


@pytest.fixture
def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def refusal(call: object, *args: object) -> str:
    with pytest.raises(PreflightError) as raised:
        call(*args)  # type: ignore[operator]
    text = str(raised.value)
    assert "\n" not in text
    assert text.endswith(".")
    return text


def test_other_systems_are_refused() -> None:
    assert "Linux" in refusal(preflight.check_system, "darwin", (3, 12), 0)


def test_an_old_python_is_refused_with_its_version() -> None:
    assert "3.10" in refusal(preflight.check_system, "linux", (3, 10), 0)


def test_without_root_it_says_sudo() -> None:
    assert "sudo" in refusal(preflight.check_system, "linux", (3, 11), 1000)


def test_linux_with_python_3_11_and_root_is_enough() -> None:
    preflight.check_system("linux", (3, 11), 0)


@pytest.mark.parametrize(
    ("program", "package"),
    [("systemd-nspawn", "systemd-container"), ("debootstrap", "debootstrap"), ("nsenter", "util-linux")],
)
def test_a_missing_program_is_named_with_its_package(tmp_path: Path, program: str, package: str) -> None:
    for name in ("systemd-nspawn", "debootstrap", "nsenter", "unshare", "setpriv", "mkfs.ext4"):
        if name != program:
            (tmp_path / name).touch(mode=0o755)
    text = refusal(preflight.check_programs, str(tmp_path))
    assert program in text
    assert f"apt-get install {package}" in text
    (tmp_path / program).touch(mode=0o755)
    preflight.check_programs(str(tmp_path))


@pytest.mark.parametrize("variable", ["NOD_API_PORT", "NOD_AWS_PORT"])
def test_a_port_in_use_is_named_with_its_variable(taken_port: int, variable: str) -> None:
    text = refusal(preflight.check_port, taken_port, variable)
    assert str(taken_port) in text
    assert variable in text


def test_a_port_that_was_just_used_is_free(free_port: int) -> None:
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", free_port))
        server.listen(1)
        with socket.create_connection(("127.0.0.1", free_port)):
            server.accept()[0].close()
    preflight.check_port(free_port, "NOD_API_PORT")


def test_a_folder_that_is_not_there_yet_is_not_made(tmp_path: Path) -> None:
    preflight.check_folder(tmp_path / "a" / "b", "NOD_LOCAL_DIR")
    preflight.check_folder(tmp_path, "NOD_LOCAL_DIR")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_below_a_file_or_a_link_to_nowhere_is_refused_with_its_variable(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loose").symlink_to(tmp_path / "nowhere")
    for name in ("file", "loose"):
        for folder in (tmp_path / name, tmp_path / name / "below"):
            text = refusal(preflight.check_folder, folder, "NOD_CACHE_DIR")
            assert str(folder) in text
            assert "NOD_CACHE_DIR" in text
    assert len(list(tmp_path.iterdir())) == 2


def test_a_folder_that_root_may_write_and_cannot_is_refused() -> None:
    assert "NOD_LOCAL_DIR" in refusal(preflight.check_folder, Path("/proc/nod"), "NOD_LOCAL_DIR")


def test_without_any_address_for_a_notebook_it_names_the_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "_usable", lambda _: False)
    assert "8888" in refusal(preflight.check_addresses)


# In a network of its own: elsewhere it would be in the way of every notebook on this machine.
LISTENER = """
import socket, sys
from local import network, preflight
from local.errors import PreflightError
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
    network._interface_up(control, b"lo")
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
preflight.check_addresses()
with socket.socket(family) as jupyter:
    jupyter.bind((sys.argv[1], 8888))
    jupyter.listen()
    try:
        preflight.check_addresses()
    except PreflightError as error:
        print(error)
preflight.check_addresses()
"""


@pytest.mark.machine
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.parametrize(("address", "refused"), [("0.0.0.0", True), ("::", True), ("127.0.0.1", False)])
def test_a_jupyter_on_all_addresses_is_in_the_way_and_one_on_its_own_is_not(address: str, refused: bool) -> None:
    told = subprocess.run(
        ["unshare", "--net", "--", sys.executable, "-c", LISTENER, address],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 0, told.stderr
    assert ("Port 8888 is in use on all addresses" in told.stdout) is refused
    assert len(told.stdout.splitlines()) == refused


def test_too_little_space_names_folder_and_variable(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free // (1024 * 1024)
    folder = tmp_path / "not" / "there"
    text = refusal(preflight.check_space, {folder: ("NOD_CACHE_DIR", free + 1000)})
    assert str(folder) in text
    assert "NOD_CACHE_DIR" in text


def test_folders_on_one_disk_need_the_sum(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free // (1024 * 1024)
    half = int(free * 0.6)
    one = {tmp_path / "a": ("NOD_LOCAL_DIR", half)}
    preflight.check_space(one)
    refusal(preflight.check_space, {**one, tmp_path / "b": ("NOD_CACHE_DIR", half)})


def test_what_is_in_use_is_refused_before_anything_but_the_folder_of_the_lock_is_made(
    tmp_path: Path, free_port: int, taken_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "check_system", lambda *_: None)
    monkeypatch.setattr(preflight, "check_programs", lambda *_: None)
    state, cache = tmp_path / "state", tmp_path / "cache"
    assert "NOD_AWS_PORT" in refusal(preflight.check, free_port, taken_port, state, cache)
    monkeypatch.setattr(addresses, "_usable", lambda _: False)
    assert "8888" in refusal(preflight.check, free_port, free_port, state, cache)
    assert [path.name for path in tmp_path.rglob("*")] == ["state", "lock"]
    # What refused holds no lock: the next try is told its own reason.
    preflight.lock(tmp_path / "state")
    preflight.unlock(tmp_path / "state")


HOLDER = """
import sys, time
from pathlib import Path
from local import preflight
preflight.lock(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


def test_a_second_local_cloud_is_refused_until_the_first_is_killed(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        text = refusal(preflight.lock, tmp_path)
        assert str(holder.pid) in text
        holder.send_signal(signal.SIGKILL)
        holder.wait(10)
        preflight.lock(tmp_path)
        preflight.unlock(tmp_path)
    finally:
        holder.kill()
        holder.wait(10)
        assert holder.stdout is not None
        holder.stdout.close()


@pytest.mark.machine
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_machines_work_here_and_the_trial_leaves_nothing(tmp_path: Path) -> None:
    preflight.check_machines_work(tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert str(tmp_path) not in Path("/proc/self/mounts").read_text()


@pytest.mark.machine
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_without_the_right_to_mount_it_says_so(tmp_path: Path) -> None:
    """What an unprivileged container is like: root without CAP_SYS_ADMIN."""
    code = (
        "import sys; from pathlib import Path; from local import preflight\n"
        "try: preflight.check_machines_work(Path(sys.argv[1]))\n"
        "except preflight.PreflightError as error: print(error); sys.exit(3)\n"
    )
    limited = ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin", "--"]
    told = subprocess.run(
        [*limited, sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert told.returncode == 3, told.stderr
    assert "Machines cannot run here" in told.stdout
    assert list(tmp_path.iterdir()) == []
