"""Real machines: they boot, run commands, reach what they may reach, and leave nothing behind."""

import contextlib
import http.client
import json
import os
import secrets
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from local.errors import MachineError, NetworkError
from local.imds import MAX_TTL, Imds, Tokens
from local.installer import Installer
from local.machines import MAX_OUTPUT, Machine, Machines

ROOT = Path(__file__).parents[2]
METADATA = {
    "latest/meta-data/": "instance-id\npublic-ipv4",
    "latest/meta-data/public-ipv4": "127.0.0.20",
    "latest/dynamic/instance-identity/document": '{"instanceId": "i-1"}',
}

# Tells each caller its address, then gives back what it gets until it is told that there is no more, then says bye.
ECHO = """
import asyncio, sys

async def serve(reader, writer):
    writer.write((writer.get_extra_info("peername")[0] + "\\n").encode())
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.write(b"bye")
    writer.close()

async def main():
    server = await asyncio.start_server(serve, sys.argv[1], 8888, backlog=4096)
    await server.serve_forever()

asyncio.run(main())
"""

pytestmark = pytest.mark.machine

NewMachine = Callable[..., Machine]


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return condition()


@pytest.fixture(scope="module")
def new_machine(machines: Machines, new_address: Callable[[], str]) -> NewMachine:
    def create(*, disk_mib: int | None = None) -> Machine:
        return machines.create(f"i-{secrets.token_hex(8)}", new_address(), METADATA.get, disk_mib=disk_mib)

    return create


@pytest.fixture(scope="module")
def shared(new_machine: NewMachine) -> Iterator[Machine]:
    """A running machine for tests that change nothing another one could see."""
    machine = new_machine()
    machine.boot()
    yield machine
    machine.destroy()


@pytest.fixture
def machine(new_machine: NewMachine) -> Iterator[Machine]:
    made = new_machine()
    yield made
    made.destroy()


@pytest.fixture(scope="module")
def echo(shared: Machine) -> Machine:
    start_echo(shared)
    return shared


def start_echo(machine: Machine) -> None:
    machine.write_file("/opt/echo.py", ECHO.encode())
    started = machine.run(
        ["systemd-run", "--quiet", "--unit=echo", "-p", "LimitNOFILE=8192", "python3", "/opt/echo.py", machine.address]
    )
    assert started.exit_code == 0, started.stderr
    assert wait_for(lambda: answers(machine.address))


def answers(address: str) -> bool:
    try:
        with socket.create_connection((address, 8888), timeout=5) as sock:
            return sock.recv(100) != b""
    except OSError:
        return False


def read_all(sock: socket.socket) -> bytes:
    data = bytearray()
    while chunk := sock.recv(65536):
        data += chunk
    return bytes(data)


def said(address: str, data: bytes, *, caller: str = "127.0.0.1") -> bytes:
    with socket.create_connection((address, 8888), timeout=60, source_address=(caller, 0)) as sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        return read_all(sock)


# Booting.


def test_a_machine_boots_with_an_identity_of_its_own(shared: Machine) -> None:
    assert shared.running
    assert shared.run(["systemctl", "is-system-running"]).stdout == "running\n"
    name = "ip-" + shared.address.replace(".", "-")
    assert shared.run(["hostname"]).stdout.strip() == name
    assert shared.read_file("/etc/hostname").decode().strip() == name
    assert name != socket.gethostname()
    assert shared.read_file("/etc/machine-id") != Path("/etc/machine-id").read_bytes()
    assert shared.run(["getent", "hosts", name]).stdout.split()[0] == shared.address


def test_a_machine_that_is_on_is_not_booted_again(machine: Machine) -> None:
    machine.boot()
    with pytest.raises(MachineError, match="on already"):
        machine.boot()


def test_services_find_the_aws_apis_in_their_environment(shared: Machine, aws_port: int) -> None:
    told = shared.run(["systemd-run", "--quiet", "--wait", "--pipe", "printenv", "AWS_ENDPOINT_URL"])
    assert told.stdout.strip() == f"http://127.0.0.1:{aws_port}"


def test_services_find_what_else_the_cloud_tells_its_machines(
    tmp_path: Path, image: Path, aws_port: int, new_address: Callable[[], str]
) -> None:
    machines = Machines(tmp_path, image, aws_port, environment={"NOD_MINUTE_SECONDS": "0.5", "WORDS": "two words"})
    try:
        machine = machines.create("i-env", new_address(), lambda _: None)
        machine.boot()
        for name, value in {"NOD_MINUTE_SECONDS": "0.5", "WORDS": "two words"}.items():
            for argv in (["printenv", name], ["systemd-run", "--quiet", "--wait", "--pipe", "printenv", name]):
                assert machine.run(argv).stdout.strip() == value
    finally:
        machines.close()


def test_two_machines_share_nothing_but_the_image(shared: Machine, machine: Machine) -> None:
    machine.boot()
    machine.write_file("/etc/only-here", b"1")
    with pytest.raises(FileNotFoundError):
        shared.read_file("/etc/only-here")
    machine.run(["systemd-run", "--quiet", "--unit=only-here", "sleep", "1000"])
    assert shared.run(["pgrep", "-x", "sleep"]).exit_code == 1
    assert machine.run(["systemctl", "stop", "only-here"]).exit_code == 0
    assert machine.run(["cat", "/etc/machine-id"]).stdout != shared.run(["cat", "/etc/machine-id"]).stdout
    assert shared.run(["systemctl", "is-system-running"]).stdout == "running\n"


def test_the_address_of_a_machine_that_is_off_stays_its_own(
    machines: Machines, machine: Machine, image: Path, aws_port: int, tmp_path: Path
) -> None:
    other = Machines(tmp_path, image, aws_port)
    try:
        with pytest.raises(NetworkError, match="Cannot use"):
            other.create("i-other", machine.address, METADATA.get)
    finally:
        other.close()
    machine.boot()
    assert machine.running


def test_an_address_in_use_is_refused_and_leaves_nothing(machines: Machines, shared: Machine) -> None:
    with pytest.raises(NetworkError, match=shared.address):
        machines.create("i-second", shared.address, METADATA.get)
    assert not (shared.console.parent.parent / "i-second").exists()


@pytest.mark.parametrize("name", ["", "../x", "a b", "a/b", "-x"])
def test_what_is_no_instance_id_is_refused(machines: Machines, name: str) -> None:
    with pytest.raises(MachineError):
        machines.create(name, "127.0.0.3", METADATA.get)


# Commands.


def test_run_reports_exit_code_and_both_outputs(shared: Machine) -> None:
    done = shared.run(["sh", "-c", "echo out; echo err >&2; exit 7"])
    assert (done.exit_code, done.stdout, done.stderr, done.timed_out) == (7, "out\n", "err\n", False)


def test_run_reports_a_death_by_signal_as_a_shell_does(shared: Machine) -> None:
    assert shared.run(["sh", "-c", "kill -KILL $$"]).exit_code == 137


def test_run_of_what_is_not_there_is_127(shared: Machine) -> None:
    assert shared.run(["no-such-program"]).exit_code == 127


def test_run_hands_over_environment_and_arguments_as_they_are(shared: Machine) -> None:
    hostile = "a'b\"c\n$(touch /x) `id` ; \\ €"
    done = shared.run(["sh", "-c", 'printf "%s|%s" "$1" "$SSM_Value"', "sh", hostile], env={"SSM_Value": hostile})
    assert done.stdout == f"{hostile}|{hostile}"
    with pytest.raises(FileNotFoundError):
        shared.read_file("/x")


def test_run_is_root_in_the_machine_and_not_of_the_host(shared: Machine) -> None:
    told = shared.run(["sh", "-c", "id -u; cat /proc/1/comm; ls /proc | grep -c '^[0-9]'; readlink /proc/self/ns/net"])
    uid, first, processes, namespace = told.stdout.split()
    assert (uid, first) == ("0", "systemd")
    assert int(processes) < 40
    assert namespace != str(Path("/proc/self/ns/net").readlink())
    own = shared.run(["cat", "/proc/self/cgroup"]).stdout
    assert own == shared.run(["cat", "/proc/1/cgroup"]).stdout


def test_run_has_an_empty_stdin(shared: Machine) -> None:
    assert shared.run(["cat"], timeout=5).exit_code == 0


def test_run_does_not_wait_for_what_stays_in_the_background(shared: Machine) -> None:
    done = shared.run(["sh", "-c", "sleep 3333 & echo started"], timeout=20)
    assert (done.stdout, done.timed_out) == ("started\n", False)
    assert shared.run(["pkill", "-f", "sleep 3333"]).exit_code == 0


def test_run_keeps_a_bounded_part_of_the_output(shared: Machine) -> None:
    done = shared.run(["sh", "-c", f"head -c {3 * MAX_OUTPUT} /dev/zero | tr '\\0' x; echo end >&2"])
    assert done.exit_code == 0
    assert len(done.stdout) == MAX_OUTPUT
    assert done.stderr == "end\n"


def test_a_timeout_ends_the_whole_group_with_a_chance_to_clean_up(shared: Machine) -> None:
    script = "trap 'sleep 0.5; echo cleaned; exit 9' TERM; sleep 4444 & sleep 4444 & wait"
    done = shared.run(["sh", "-c", script], timeout=3)
    assert done.timed_out
    assert done.exit_code == 143
    assert "cleaned" in done.stdout
    assert shared.run(["pgrep", "-f", "sleep 4444"]).exit_code == 1


def test_a_timeout_kills_what_ignores_the_signal(shared: Machine) -> None:
    start = time.monotonic()
    done = shared.run(["sh", "-c", "trap '' TERM; while :; do sleep 5.5; done"], timeout=3)
    assert done.timed_out
    assert time.monotonic() - start > 3 + 5
    assert wait_for(lambda: shared.run(["pgrep", "-f", "sleep 5.5"]).exit_code == 1)


def test_commands_run_side_by_side(shared: Machine) -> None:
    start = time.monotonic()
    threads = [threading.Thread(target=shared.run, args=(["sleep", "3"],)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - start < 8 * 3


def test_a_machine_that_is_off_runs_nothing(machine: Machine) -> None:
    with pytest.raises(MachineError, match="not running"):
        machine.run(["true"])


def test_switching_off_ends_a_command_that_runs(machine: Machine) -> None:
    machine.boot()
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(machine.run(["sleep", "5555"]).exit_code))
    thread.start()
    assert wait_for(lambda: machine.run(["pgrep", "-f", "sleep 5555"]).exit_code == 0)
    machine.shut_down()
    thread.join(10)
    assert codes
    assert codes[0] > 128


# Files.


def test_files_are_written_and_read_on_and_off(machine: Machine) -> None:
    content = bytes(range(256)) * 5000
    machine.write_file("/etc/nod/deep/file", content, 0o640)
    assert machine.read_file("/etc/nod/deep/file") == content
    machine.boot()
    assert machine.run(["stat", "-c", "%a %U", "/etc/nod/deep/file"]).stdout == "640 root\n"
    assert machine.run(["stat", "-c", "%a", "/etc/nod/deep"]).stdout == "755\n"
    machine.write_file("/etc/nod/deep/file", b"", 0o600)
    assert machine.read_file("/etc/nod/deep/file") == b""
    with pytest.raises(FileNotFoundError):
        machine.read_file("/etc/none")
    with pytest.raises(MachineError):
        machine.read_file("/etc")
    with pytest.raises(MachineError):
        machine.write_file("/proc/none/x", b"1")


def test_links_in_a_machine_do_not_lead_out_of_it(shared: Machine, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("of the host")
    shared.run(["ln", "-sfn", str(outside), "/root/link"])
    with pytest.raises(FileNotFoundError):
        shared.read_file("/root/link")


def test_a_small_disk_is_full_soon_and_outlives_a_shutdown(new_machine: NewMachine) -> None:
    machine = new_machine(disk_mib=128)
    try:
        machine.boot()
        full = machine.run(["sh", "-c", "echo kept > /root/kept; head -c 300M /dev/zero > /root/big"])
        assert full.exit_code != 0
        assert "No space left" in full.stderr
        machine.run(["rm", "/root/big"])
        machine.shut_down()
        machine.boot()
        assert machine.read_file("/root/kept") == b"kept\n"
    finally:
        machine.destroy()
    # The kernel lets go of the disk's loop device a moment after the last mount of it is gone.
    assert wait_for(lambda: str(machine.console.parent) not in loop_devices())


def loop_devices() -> str:
    return subprocess.run(["losetup", "-a"], check=True, capture_output=True, text=True).stdout


# Power.


def test_a_shutdown_keeps_the_disk(machine: Machine) -> None:
    machine.boot()
    before = machine.run(["cat", "/proc/sys/kernel/random/boot_id"]).stdout
    machine.write_file("/home/kept", b"kept")
    machine.run(["sh", "-c", "echo volatile > /run/gone; ip link set lo alias changed"])
    machine.shut_down()
    assert not machine.running
    machine.shut_down()
    machine.boot()
    assert machine.read_file("/home/kept") == b"kept"
    assert machine.run(["cat", "/proc/sys/kernel/random/boot_id"]).stdout != before
    with pytest.raises(FileNotFoundError):
        machine.read_file("/run/gone")
    # The network namespace is a new one, as the network stack of a machine after a boot is.
    assert "changed" not in machine.run(["ip", "link"]).stdout
    assert machine.run(["sh", "-c", "journalctl --list-boots | grep -c '[0-9a-f]\\{32\\}'"]).stdout.strip() == "2"


def test_a_machine_that_is_off_moves_and_stays_itself(
    machine: Machine, shared: Machine, new_address: Callable[[], str]
) -> None:
    machine.boot()
    old, name = machine.address, machine.run(["hostname"]).stdout.strip()
    machine.run(["sh", "-c", "echo 10.1.2.3 beside >> /etc/hosts; echo mine > /home/kept"])
    new = new_address()
    with pytest.raises(MachineError, match="off"):
        machine.move_to(new)
    machine.shut_down()
    with pytest.raises(NetworkError, match="Cannot use"):
        machine.move_to(shared.address)
    assert machine.address == old
    machine.move_to(new)
    with socket.socket() as free:
        free.bind((old, 8888))
    machine.boot()
    assert machine.address == new
    assert machine.run(["hostname"]).stdout.strip() == name
    assert machine.run(["getent", "hosts", name, "beside"]).stdout.split()[::2] == [new, "10.1.2.3"]
    assert machine.read_file("/home/kept") == b"mine\n"
    start_echo(machine)
    assert said(new, b"x") == b"127.0.0.1\nxbye"


def test_a_service_that_will_not_end_is_cut_off(machine: Machine) -> None:
    machine.boot()
    stubborn = "trap '' TERM; while :; do sleep 1; done"
    machine.run(["systemd-run", "--quiet", "-p", "TimeoutStopSec=600", "sh", "-c", stubborn])
    start = time.monotonic()
    machine.shut_down(timeout=1)
    assert 1 <= time.monotonic() - start < 300
    assert not machine.running


def test_reboot_from_outside(machine: Machine) -> None:
    machine.boot()
    before = machine.run(["cat", "/proc/sys/kernel/random/boot_id"]).stdout
    called = threading.Event()
    machine.on_power_off = called.set
    machine.reboot()
    assert machine.run(["cat", "/proc/sys/kernel/random/boot_id"]).stdout != before
    assert not called.is_set()


def test_reboot_from_inside_comes_back_by_itself(machine: Machine) -> None:
    machine.boot()
    called = threading.Event()
    machine.on_power_off = called.set
    before = machine.run(["cat", "/proc/sys/kernel/random/boot_id"]).stdout
    machine.run(["systemctl", "reboot"])

    def is_another_boot() -> bool:
        with contextlib.suppress(MachineError):
            now = machine.run(["cat", "/proc/sys/kernel/random/boot_id"])
            return now.exit_code == 0 and now.stdout != before
        return False

    assert wait_for(is_another_boot)
    assert not called.is_set()
    start_echo(machine)
    assert said(machine.address, b"x") == b"127.0.0.1\nxbye"


@pytest.mark.parametrize("command", [["shutdown", "-h", "now"], ["systemctl", "poweroff", "--force", "--force"]])
def test_power_off_from_inside_calls_back_and_keeps_the_disk(machine: Machine, command: list[str]) -> None:
    machine.boot()
    machine.write_file("/home/kept", b"kept")
    running: list[bool] = []
    called = threading.Event()

    def powered_off() -> None:
        running.append(machine.running)
        called.set()

    machine.on_power_off = powered_off
    machine.run(command)
    assert called.wait(120)
    assert running == [False]
    machine.boot()
    assert machine.read_file("/home/kept") == b"kept"


def test_shutdown_from_outside_does_not_call_back(machine: Machine) -> None:
    called = threading.Event()
    machine.on_power_off = called.set
    machine.boot()
    machine.shut_down()
    assert not called.wait(0.5)


def test_a_machine_whose_boot_fails_says_why_and_is_off(machine: Machine) -> None:
    machine.write_file("/etc/init-is-broken", b"")
    machine.write_file("/usr/lib/systemd/systemd", b"no program", 0o755)
    with pytest.raises(MachineError, match="console"):
        machine.boot()
    assert not machine.running
    assert nspawns_of(machine) == []


def nspawns_of(machine: Machine) -> list[int]:
    return [pid for pid, line in command_lines() if str(machine.console.parent) in line]


def command_lines() -> Iterator[tuple[int, str]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                yield int(entry.name), (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")


def cgroups_named(name: str) -> list[Path]:
    return [path for path in Path("/sys/fs/cgroup").rglob(f"*{name}*") if path.is_dir()]


def test_destroy_leaves_nothing(new_machine: NewMachine, machines: Machines) -> None:
    machine = new_machine()
    machine.boot()
    start_echo(machine)
    folder = machine.console.parent
    assert nspawns_of(machine)
    assert cgroups_named(machine.instance_id)
    machine.run(["sh", "-c", "echo x > /root/immutable; chattr +i /root/immutable"])
    files = len(list(Path("/proc/self/fd").iterdir()))
    machine.destroy()
    machine.destroy()
    assert not folder.exists()
    assert nspawns_of(machine) == []
    assert cgroups_named(machine.instance_id) == []
    assert not Path(f"/run/systemd/nspawn/propagate/nod-{machine.instance_id}").exists()
    assert str(folder) not in Path("/proc/self/mounts").read_text()
    assert len(list(Path("/proc/self/fd").iterdir())) < files
    with pytest.raises(MachineError, match="destroyed"):
        machine.boot()
    again = machines.create(machine.instance_id, machine.address, METADATA.get)
    again.destroy()


def test_booting_again_and_again_keeps_no_files_open(machine: Machine) -> None:
    machine.boot()
    machine.shut_down()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        machine.boot()
        machine.shut_down()
    assert len(list(Path("/proc/self/fd").iterdir())) <= before


# What a killed local cloud leaves.

KILLED = """
import sys, time
from pathlib import Path
from local.machines import Machines
state, image, port, address = sys.argv[1:]
machine = Machines(Path(state), Path(image), int(port)).create("i-killed", address, lambda path: None)
machine.boot()
machine.run(["systemd-run", "--quiet", "sleep", "7777"])
print("up", flush=True)
time.sleep(120)
"""


def test_after_kill_9_nothing_runs_and_the_next_start_removes_the_files(
    tmp_path: Path, image: Path, aws_port: int, new_address: Callable[[], str]
) -> None:
    address = new_address()
    arguments = [sys.executable, "-c", KILLED, str(tmp_path), str(image), str(aws_port), address]
    cloud = subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    folder = tmp_path / "machines" / "i-killed"
    try:
        assert cloud.stdout is not None
        assert cloud.stdout.readline() == "up\n"
        record = json.loads((folder / "record.json").read_text())
        nspawn = record["nspawn"]["pid"]
        inside: list[int] = []

        def began() -> bool:
            # The unit is started before its process is the program.
            inside.extend(pid for pid, line in command_lines() if line.strip().endswith("bin/sleep 7777"))
            return bool(inside)

        assert wait_for(began)
        other = Machines(tmp_path, image, aws_port)
        assert other.sweep_leftovers() == []  # its local cloud lives
        other.close()
        assert folder.is_dir()
        cloud.send_signal(signal.SIGKILL)
        cloud.wait(10)
    finally:
        cloud.kill()
        cloud.wait(10)
        assert cloud.stdout is not None
        cloud.stdout.close()
    assert wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in (nspawn, *inside)))
    assert str(folder) not in Path("/proc/self/mounts").read_text()
    after = Machines(tmp_path, image, aws_port)
    swept = after.sweep_leftovers()
    assert swept == ["disk of machine i-killed"]
    assert not folder.exists()
    assert cgroups_named("i-killed") == []
    machine = after.create("i-killed", address, METADATA.get)
    machine.boot()
    after.close()
    assert not machine.running


def leftover(state: Path, name: str, nspawn: dict[str, object]) -> Path:
    folder = state / "machines" / name
    (folder / "root").mkdir(parents=True)
    (folder / "record.json").write_text(json.dumps({"owner": None, "nspawn": nspawn, "cgroups": []}))
    return folder


def identity(pid: int) -> dict[str, object]:
    started = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return {"pid": pid, "started": started, "boot_id": boot_id}


def test_the_sweep_ends_a_recorded_process_and_unmounts(tmp_path: Path, image: Path, aws_port: int) -> None:
    process = subprocess.Popen(["sleep", "1000"])
    folder = leftover(tmp_path, "i-1", identity(process.pid))
    subprocess.run(["mount", "-t", "tmpfs", "nod-test", str(folder / "root")], check=True)
    machines = Machines(tmp_path, image, aws_port)
    try:
        swept = machines.sweep_leftovers()
        assert process.wait(5) == -signal.SIGKILL
        assert len(swept) == 3
        assert not folder.exists()
        assert str(folder) not in Path("/proc/self/mounts").read_text()
    finally:
        process.kill()
        process.wait(5)
        machines.close()
        subprocess.run(["umount", "-l", str(folder / "root")], check=False, capture_output=True)


def test_the_sweep_spares_a_process_that_only_has_the_same_id(tmp_path: Path, image: Path, aws_port: int) -> None:
    process = subprocess.Popen(["sleep", "1000"])
    machines = Machines(tmp_path, image, aws_port)
    try:
        leftover(tmp_path, "i-1", {**identity(process.pid), "started": 1})
        leftover(tmp_path, "i-2", {**identity(process.pid), "boot_id": "another"})
        broken = tmp_path / "machines" / "i-3"
        broken.mkdir()
        (broken / "record.json").write_text("{")
        assert len(machines.sweep_leftovers()) == 3
        assert process.poll() is None
        assert list((tmp_path / "machines").iterdir()) == []
    finally:
        process.kill()
        process.wait(5)
        machines.close()


# The network.


@pytest.mark.parametrize("caller", ["127.0.0.1", "127.0.0.77", "127.9.8.7"])
def test_the_machine_sees_who_calls(echo: Machine, caller: str) -> None:
    assert said(echo.address, b"hello", caller=caller) == f"{caller}\nhellobye".encode()


def test_a_machine_reaches_its_own_address(echo: Machine) -> None:
    told = echo.run(["bash", "-c", f"exec 3<>/dev/tcp/{echo.address}/8888; head -n1 <&3"], timeout=5)
    assert told.stdout.strip().startswith("127.")


def test_a_quiet_connection_stays_open_and_goes_both_ways(echo: Machine) -> None:
    with socket.create_connection((echo.address, 8888), timeout=10) as sock:
        assert sock.recv(100) == b"127.0.0.1\n"
        for _ in range(3):
            time.sleep(0.7)
            sock.sendall(b"ping")
            assert sock.recv(100) == b"ping"


def test_much_data_to_a_slow_reader_arrives_whole_and_is_not_hoarded(echo: Machine) -> None:
    # The kernel's own buffers may hold this much: three connections on the way, each with two ends.
    kernel = 3 * sum(int(Path(f"/proc/sys/net/ipv4/tcp_{way}mem").read_text().split()[2]) for way in "rw")
    sent = os.urandom(1024 * 1024) * (kernel // (1024 * 1024) + 16)
    with socket.create_connection((echo.address, 8888), timeout=60) as sock:
        assert sock.recv(10) == b"127.0.0.1\n"
        counted = [0]

        def send() -> None:
            for at in range(0, len(sent), 65536):
                sock.sendall(sent[at : at + 65536])
                counted[0] += 65536
            sock.shutdown(socket.SHUT_WR)

        thread = threading.Thread(target=send)
        thread.start()
        before = -1
        while counted[0] != before and thread.is_alive():
            before = counted[0]
            time.sleep(1)
        assert counted[0] < len(sent)
        got = read_all(sock)
        thread.join()
    assert got == sent + b"bye"


def test_thousands_of_short_connections(echo: Machine) -> None:
    files = len(list(Path("/proc/self/fd").iterdir()))
    for number in range(2000):
        assert said(echo.address, b"%d" % number) == b"127.0.0.1\n%dbye" % number
    assert wait_for(lambda: len(list(Path("/proc/self/fd").iterdir())) <= files + 2)


def test_many_connections_at_once(echo: Machine) -> None:
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(socket.create_connection((echo.address, 8888), timeout=30)) for _ in range(800)]
        for number, sock in enumerate(socks):
            sock.sendall(b"%d" % number)
            sock.shutdown(socket.SHUT_WR)
        for number, sock in enumerate(socks):
            assert read_all(sock) == b"127.0.0.1\n%dbye" % number


def test_a_reset_is_passed_on(echo: Machine) -> None:
    def open_inside() -> int:
        told = echo.run(["sh", "-c", "ss -Htn state established sport = :8888 | wc -l"])
        return int(told.stdout)

    assert wait_for(lambda: open_inside() == 0)
    sock = socket.create_connection((echo.address, 8888), timeout=10)
    sock.recv(100)
    assert open_inside() == 1
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
    assert wait_for(lambda: open_inside() == 0)


def test_a_machine_without_a_server_resets(machine: Machine) -> None:
    machine.boot()
    with pytest.raises(ConnectionResetError), socket.create_connection((machine.address, 8888), timeout=5) as sock:
        sock.recv(1)
        sock.sendall(b"x")
        sock.recv(1)
        pytest.fail("was answered")


def test_a_machine_that_is_off_refuses_at_once_and_comes_back(machine: Machine) -> None:
    def refused() -> bool:
        start = time.monotonic()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((machine.address, 8888), timeout=5)
        return time.monotonic() - start < 4

    assert refused()
    machine.boot()
    start_echo(machine)
    with socket.create_connection((machine.address, 8888), timeout=5) as sock:
        sock.recv(100)
        machine.shut_down()
        with contextlib.suppress(ConnectionResetError):
            assert sock.recv(100) in (b"", b"bye")
    assert refused()
    machine.boot()
    start_echo(machine)
    assert said(machine.address, b"again") == b"127.0.0.1\nagainbye"


def test_nothing_else_of_the_host_is_within_reach(shared: Machine) -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(1)
        port = listening.getsockname()[1]
        told = shared.run(["curl", "-sS", "--max-time", "3", f"http://127.0.0.1:{port}/"])
    assert told.exit_code == 7
    assert shared.run(["sh", "-c", "ip -o link | wc -l"]).stdout.strip() == "1"


def test_the_aws_apis_answer_inside_at_their_own_address(machine: Machine, aws_port: int) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[::-1])

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    machine.boot()
    curl = ["curl", "-sS", "--max-time", "5", "-d", "abc", f"http://127.0.0.1:{aws_port}/"]
    assert machine.run(curl).exit_code != 0  # nothing listens there yet
    server = ThreadingHTTPServer(("127.0.0.1", aws_port), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        assert machine.run(curl).stdout == "cba"
        machine.reboot()
        assert machine.run(curl).stdout == "cba"
    finally:
        server.shutdown()
        server.server_close()


# The instance metadata service.


@pytest.fixture
def imds() -> Iterator[tuple[str, int]]:
    listener = socket.create_server(("127.0.0.1", 0))
    address: tuple[str, int] = listener.getsockname()
    served = Imds(METADATA.get)
    served.start(listener)
    yield address
    served.stop()


def ask(imds: tuple[str, int], method: str, path: str, headers: dict[str, str] | None = None) -> tuple[int, str]:
    connection = http.client.HTTPConnection(*imds, timeout=5)
    try:
        connection.request(method, path, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


TTL = "X-aws-ec2-metadata-token-ttl-seconds"
TOKEN = "X-aws-ec2-metadata-token"


def test_imds_answers_with_a_token_only(imds: tuple[str, int]) -> None:
    status, token = ask(imds, "PUT", "/latest/api/token", {TTL: "60"})
    assert status == 200
    path = "/latest/meta-data/public-ipv4"
    assert ask(imds, "GET", path, {TOKEN: token}) == (200, "127.0.0.20")
    assert ask(imds, "GET", path)[0] == 401
    assert ask(imds, "GET", path, {TOKEN: token[:-5] + "AAAA="})[0] == 401
    assert ask(imds, "GET", path, {TOKEN: "€".encode().decode("latin-1")})[0] == 401


@pytest.mark.parametrize("ttl", ["", "0", "-1", "21601", "x", "1.5", "99999999", "\u0661"])
def test_imds_refuses_a_wrong_time_to_live(imds: tuple[str, int], ttl: str) -> None:
    headers = {TTL: ttl.encode().decode("latin-1")} if ttl else {}
    assert ask(imds, "PUT", "/latest/api/token", headers)[0] == 400


@pytest.mark.parametrize("ttl", [1, MAX_TTL])
def test_imds_takes_the_limits(imds: tuple[str, int], ttl: int) -> None:
    assert ask(imds, "PUT", "/latest/api/token", {TTL: str(ttl)})[0] == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/latest/meta-data/", 200),
        ("GET", "/latest/meta-data", 200),
        ("HEAD", "/latest/meta-data/public-ipv4", 200),
        ("GET", "/2021-07-15/meta-data/public-ipv4", 200),
        ("GET", "/latest/dynamic/instance-identity/document", 200),
        ("GET", "/latest/meta-data/nothing", 404),
        ("GET", "/latest/user-data", 404),
        ("GET", "/", 404),
        ("GET", "/2021/meta-data/public-ipv4", 404),
        ("GET", "/latest/api/token", 405),
        ("PUT", "/latest/meta-data/public-ipv4", 405),
        ("POST", "/latest/meta-data/public-ipv4", 405),
        ("DELETE", "/latest/api/token", 405),
    ],
)
def test_imds_status(imds: tuple[str, int], method: str, path: str, status: int) -> None:
    _, token = ask(imds, "PUT", "/latest/api/token", {TTL: "60"})
    assert ask(imds, method, path, {TOKEN: token})[0] == status


def test_imds_gives_no_token_through_a_proxy(imds: tuple[str, int]) -> None:
    assert ask(imds, "PUT", "/latest/api/token", {TTL: "60", "X-Forwarded-For": "10.0.0.1"})[0] == 403


def test_a_token_ends_with_its_time() -> None:
    tokens = Tokens()
    token = tokens.issue(60, now=1000.0)
    assert tokens.valid(token, now=1059.9)
    assert not tokens.valid(token, now=1060.0)
    assert not Tokens().valid(token, now=1000.0)


def test_imds_inside_is_there_from_the_first_moment_of_a_boot(machine: Machine) -> None:
    unit = (
        "[Unit]\nDefaultDependencies=no\nBefore=sysinit.target\n"
        f"[Service]\nType=oneshot\nExecStart=/usr/bin/curl -sf -o /root/token -X PUT -H '{TTL}: 60' "
        "http://169.254.169.254/latest/api/token\n[Install]\nWantedBy=sysinit.target\n"
    )
    machine.write_file("/etc/systemd/system/early.service", unit.encode(), 0o644)
    machine.boot()
    assert machine.run(["systemctl", "enable", "early.service"]).exit_code == 0
    machine.reboot()
    token = machine.read_file("/root/token").decode()
    url = "http://169.254.169.254/latest/meta-data/public-ipv4"
    assert machine.run(["curl", "-sf", "-H", f"{TOKEN}: {token}", url]).stdout == "127.0.0.20"
    assert machine.run(["curl", "-sf", url]).exit_code == 22


# The stand-in installer.


def test_the_stand_in_installs_into_any_prefix_and_works(machine: Machine, installer: Installer) -> None:
    machine.boot()
    machine.write_file("/root/install.sh", installer.path.read_bytes())
    told = machine.run(["sha256sum", "/root/install.sh"])
    assert told.stdout.split()[0] == installer.sha256
    start = time.monotonic()
    done = machine.run(["bash", "/root/install.sh", "-b", "-p", "/srv/elsewhere"], timeout=120)
    seconds = time.monotonic() - start
    print(f"installed in {seconds:.1f} s")
    assert done.exit_code == 0, done.stderr
    assert "stand-in" in done.stdout
    assert b"not Anaconda" in machine.read_file("/srv/elsewhere/STAND-IN.txt")
    imports = "import numpy, pandas, matplotlib.pyplot, notebook, ipykernel, ipywidgets, sys; print(sys.prefix)"
    used = machine.run(["/srv/elsewhere/bin/python", "-c", imports], timeout=60)
    assert used.stdout == "/srv/elsewhere\n", used.stderr
    version = machine.run(["/srv/elsewhere/bin/jupyter", "lab", "--version"], timeout=60)
    assert version.exit_code == 0, version.stderr
    left = machine.run(["grep", "-rlF", "/opt/anaconda3", "/srv/elsewhere/bin", "/srv/elsewhere/pyvenv.cfg"])
    assert left.stdout == ""
    again = machine.run(["bash", "/root/install.sh", "-b", "-p", "/srv/elsewhere"])
    assert again.exit_code == 1
    assert "already exists" in again.stderr
    assert machine.run(["bash", "/root/install.sh", "-b", "-u", "-p", "/srv/elsewhere"]).exit_code == 0
    assert "usage" in machine.run(["bash", "/root/install.sh", "-h"]).stdout
    assert machine.run(["bash", "/root/install.sh", "-b", "-p", "/srv/with space"]).exit_code == 1
    cut = machine.run(["sh", "-c", "head -c 5000000 /root/install.sh > /root/cut.sh; bash /root/cut.sh -b -p /srv/cut"])
    assert cut.exit_code == 1
    assert "cut short" in cut.stderr
