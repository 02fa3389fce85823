"""Machines of the local cloud: real Linux with real systemd, by systemd-nspawn over an overlay of the machine
image.

What the kernel guarantees need not be cleaned up: a machine's file system is mounted in a mount namespace of
its own, and its processes in a process namespace, which dies with the thread that started it
(PR_SET_PDEATHSIG). So even after `kill -9` of the local cloud nothing runs and nothing is mounted;
`Machines.sweep_leftovers` removes the files.

On a host where systemd is PID 1 each machine is a scope of the host's systemd; elsewhere (a container, a
plain VM) it gets a cgroup of its own. `--keep-unit` holds in both, so that a reboot from inside ends in exit
code 133 (systemd-nspawn(1)).
"""

import contextlib
import json
import os
import queue
import re
import secrets
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from local.errors import MachineError, NetworkError
from local.imds import Imds, Metadata
from local.network import Door, Namespace, Network, Outlet
from local.processes import KILL_GRACE, MAX_OUTPUT, Completed, children, communicate

__all__ = ["MAX_OUTPUT", "Completed", "Machine", "Machines"]

NOTEBOOK_PORT: Final = 8888
_MAX_FILE: Final = 1024 * 1024 * 1024
_BOOT_TIMEOUT: Final = 60.0
_REBOOT_EXIT_CODE: Final = 133
_POWER_OFF: Final = signal.SIGRTMIN + 4  # systemd(1), "SIGNALS"
_NO_SUCH_FILE: Final = 44
_INSTANCE_ID: Final = re.compile(r"^[A-Za-z0-9][A-Za-z0-9-]{0,63}$")
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# Runs in a mount namespace of its own, in the machine's folder. Relative paths, since a colon or comma in a
# path has a meaning in overlay's options. `volatile`: nothing here has to survive a crash of the host, so
# nothing waits for it; the kernel then asks to remove its mark before the next mount (overlayfs.rst,
# "Volatile mount").
_MOUNT: Final = """
set -e
base=.
if [ -e disk.img ]; then
    base=disk
    mkdir -p disk
    mount -o loop,noatime disk.img disk
    mkdir -p disk/upper disk/work
fi
find "$base/work" -mindepth 2 -maxdepth 2 -name incompat -exec rm -rf {} +
layers=upperdir=$base/upper,workdir=$base/work
mount -t overlay nod -o "lowerdir=image,$layers,volatile" root 2>/dev/null ||
    mount -t overlay nod -o "lowerdir=image,$layers" root
"""

# $1: pid of the starter, which may be dead already: then no signal would ever come. $2…: cgroup files to
# enter.
_ENTER_ALONE: Final = """
[ "$PPID" = "$1" ] || exit 1
shift
while [ "$1" != -- ]; do
    echo $$ > "$1"
    shift
done
shift
exec "$@"
"""

# $1: descriptor of the network namespace, which nspawn wants as a path. The shell stays, as the first process
# of a process namespace around nspawn: with it dies everything. nspawn alone would not do, since the
# machine's systemd outlives a nspawn that was killed.
_START: Final = (
    _MOUNT
    + """
: > netns
mount --bind "/proc/self/fd/$1" netns
shift
"$@"
exit $?
"""
)

# Entering the namespaces does not enter the cgroups; outside them the machine's systemd would not see the
# process at shutdown. nsenter is not to fork: it would stop itself whenever its child is stopped, as systemd
# does to every process at shutdown, and nobody outside would let it go on. A shell that is not interactive
# does not care.
_ENTER: Final = """
while [ "$1" != -- ]; do
    echo $$ > "$1"
    shift
done 2>/dev/null
shift
exec "$@"
"""


@dataclass(frozen=True)
class _Process:
    """A process that cannot be mistaken for a later one with the same id."""

    pid: int
    started: int  # clock ticks since boot
    boot_id: str

    @classmethod
    def of(cls, pid: int) -> "_Process | None":
        """None when there is no such process, or only its remains that nobody has waited for."""
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return None
        # Fields 3 and 22 of proc(5); the name in field 2 may hold spaces and brackets.
        fields = stat.rpartition(")")[2].split()
        return None if fields[0] in "ZX" else cls(pid, int(fields[19]), _boot_id())

    @classmethod
    def from_json(cls, value: Any) -> "_Process | None":
        try:
            return cls(int(value["pid"]), int(value["started"]), str(value["boot_id"]))
        except (KeyError, TypeError, ValueError):
            return None

    def to_json(self) -> dict[str, int | str]:
        return {"pid": self.pid, "started": self.started, "boot_id": self.boot_id}

    @property
    def alive(self) -> bool:
        return _Process.of(self.pid) == self

    def wait_gone(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while self.alive and time.monotonic() < end:
            time.sleep(0.005)


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _leader(process: int) -> int | None:
    """The machine's PID 1, by its id on the host: `unshare` started a shell, that nspawn, and that the
    leader.
    """
    for shell in children(process):
        for nspawn in children(shell):
            inside = len(_ids(nspawn)) + 1
            for child in children(nspawn):
                ids = _ids(child)
                if len(ids) == inside and ids[-1] == "1":
                    return child
    return None


def _ids(pid: int) -> list[str]:
    """A process's ids in each process namespace it is in, ours first (proc(5), NSpid)."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("NSpid:"):
                return line.split()[1:]
    return []


class _Spawner:
    """Starts processes from one thread that lives as long as this process.

    The kernel sends PR_SET_PDEATHSIG when the *thread* that started a process ends, not the process.
    """

    def __init__(self) -> None:
        self._orders: queue.SimpleQueue[tuple[Callable[[], subprocess.Popen[bytes]], Future[subprocess.Popen[bytes]]]]
        self._orders = queue.SimpleQueue()
        threading.Thread(target=self._serve, name="nod-spawner", daemon=True).start()

    def popen(self, start: Callable[[], subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
        result: Future[subprocess.Popen[bytes]] = Future()
        self._orders.put((start, result))
        return result.result()

    def _serve(self) -> None:
        while True:
            start, result = self._orders.get()
            try:
                result.set_result(start())
            except OSError as error:
                result.set_exception(error)


class _Cgroup:
    """A machine's own cgroup where no systemd hands one out. Without it two machines would share `payload`."""

    def __init__(self, name: str) -> None:
        self.paths = [base / f"nod-{name}" for base in _cgroup_bases()]

    def make(self) -> list[str]:
        """Makes it; the files through which a process enters it."""
        for path in self.paths:
            path.mkdir(exist_ok=True)
        return [str(path / "cgroup.procs") for path in self.paths]

    def remove(self) -> None:
        for path in self.paths:
            remove_cgroup(path)


def _cgroup_bases() -> list[Path]:
    """The folders of this process in the hierarchies that systemd uses; none where the host's systemd rules
    them.
    """
    return [] if _systemd_is_host() else _cgroups_of("self")


def _cgroups_of(process: int | str) -> list[Path]:
    """A process's folder in `name=systemd` (cgroup v1) and in the unified hierarchy (v2), as far as mounted."""
    mounts: dict[str, str] = {}
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _device, point, kind, options, *_ = line.split()
        if kind == "cgroup2":
            mounts.setdefault("", point)
        elif kind == "cgroup" and "name=systemd" in options.split(","):
            mounts.setdefault("name=systemd", point)
    folders = []
    for line in Path(f"/proc/{process}/cgroup").read_text().splitlines():
        _number, hierarchy, path = line.split(":", 2)
        if hierarchy in mounts:
            folders.append(Path(mounts[hierarchy] + path))
    return folders


def _systemd_is_host() -> bool:
    return Path("/run/systemd/system").is_dir()  # sd_booted(3)


def remove_cgroup(path: Path) -> None:
    """Removes an empty cgroup with what is below it; processes on their way out are waited for, a second at
    most.
    """
    end = time.monotonic() + 1
    for folder in sorted((p for p in [path, *path.rglob("*")] if p.is_dir()), key=lambda p: -len(p.parts)):
        while True:
            try:
                folder.rmdir()
            except FileNotFoundError:
                break
            except OSError:
                if time.monotonic() > end:
                    return
                time.sleep(0.01)
                continue
            break


class Machines:
    """All machines of one local cloud.

    `state` is the folder of this local cloud, `image` the root of the machine image (never written to),
    `aws_port` the port on 127.0.0.1 that the AWS APIs listen on, which each machine finds at the same address
    inside. `environment` is what every service of each machine has in its environment beside that.
    """

    def __init__(
        self, state: Path, image: Path, aws_port: int, *, environment: Mapping[str, str] | None = None
    ) -> None:
        self._folder = state.resolve() / "machines"
        self._image = image.resolve()
        self._aws_port = aws_port
        self._environment = dict(environment or {})
        self._network = Network()
        self._spawner = _Spawner()
        self._machines: dict[str, Machine] = {}
        self._lock = threading.Lock()

    def create(self, instance_id: str, address: str, metadata: Metadata, *, disk_mib: int | None = None) -> "Machine":
        """Makes a machine that is powered off.

        `address` is a loopback address of its own (127.0.0.N). `metadata` answers IMDS paths such as
        `latest/meta-data/public-ipv4`, None is 404. `disk_mib` limits what the machine can write, in MiB;
        without it the host's disk is the limit. Raises MachineError, NetworkError.
        """
        if not _INSTANCE_ID.match(instance_id):
            raise MachineError(f"{instance_id!r} is no instance id.")
        with self._lock:
            if instance_id in self._machines:
                raise MachineError(f"There is a machine {instance_id} already.")
            machine = Machine(
                instance_id,
                address,
                metadata,
                folder=self._folder / instance_id,
                image=self._image,
                aws_port=self._aws_port,
                environment=self._environment,
                disk_mib=disk_mib,
                network=self._network,
                spawner=self._spawner,
                forget=self._forget,
            )
            self._machines[instance_id] = machine
        return machine

    def sweep_leftovers(self) -> list[str]:
        """Removes what a killed earlier run left, by the records in `state`; says what that was.

        Machines whose local cloud still lives are left alone.
        """
        swept: list[str] = []
        if not self._folder.is_dir():
            return swept
        for folder in sorted(self._folder.iterdir()):
            with self._lock:
                if folder.name in self._machines:
                    continue
            swept += _sweep(folder)
        return swept

    def close(self) -> None:
        """Destroys all machines: nothing runs, nothing is mounted, no address is bound."""
        with self._lock:
            machines = list(self._machines.values())
        if machines:
            with ThreadPoolExecutor(max_workers=8) as pool:
                list(pool.map(Machine.destroy, machines))
        self._network.close()

    def _forget(self, machine: "Machine") -> None:
        with self._lock:
            self._machines.pop(machine.instance_id, None)


def _sweep(folder: Path) -> list[str]:
    try:
        record = json.loads((folder / "record.json").read_text())
    except (OSError, ValueError):
        record = {}
    owner = _Process.from_json(record.get("owner"))
    if owner is not None and owner.alive:
        return []
    swept = []
    process = _Process.from_json(record.get("nspawn"))
    if process is not None and process.alive:
        _kill_machine(process.pid)
        process.wait_gone(KILL_GRACE)
        swept.append(f"process {process.pid} of machine {folder.name}")
    for path in record.get("cgroups", []):
        if Path(path).name == f"nod-{folder.name}" and Path(path).is_dir():
            remove_cgroup(Path(path))
    for mount in _mounts_below(folder):
        subprocess.run(["umount", "--lazy", mount], check=False, capture_output=True)
        swept.append(f"mount {mount}")
    _remove_propagation(folder.name)
    _remove_tree(folder)
    swept.append(f"disk of machine {folder.name}")
    return swept


def _kill_machine(process: int) -> None:
    """Cuts the power: the kernel kills everything in the process namespace that this process holds."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)


def _mounts_below(folder: Path) -> list[str]:
    """Mount points under a folder, the innermost first."""
    mounts = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), line.split()[4])
        if point.startswith(f"{folder}/"):
            mounts.append(point)
    return sorted(mounts, key=len, reverse=True)


def _remove_propagation(instance_id: str) -> None:
    """The folder through which nspawn passes mounts; it does not remove it where /run is no tmpfs, or when
    killed.
    """
    with contextlib.suppress(OSError):
        Path(f"/run/systemd/nspawn/propagate/nod-{instance_id}").rmdir()


def _remove_tree(folder: Path) -> None:
    # Fails where root in the machine made files immutable.
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        return
    except OSError:
        subprocess.run(["chattr", "-R", "-f", "-i", "-a", str(folder)], check=False, capture_output=True)
        try:
            shutil.rmtree(folder)
        except OSError as error:
            raise MachineError(f"Cannot remove {error.filename}: {error.strerror}.") from error


class _Boot:
    """What exists from one boot to the power-off after it."""

    def __init__(self, process: subprocess.Popen[bytes], namespace: Namespace, outlets: list[Outlet]) -> None:
        self.process = process
        self.namespace = namespace
        self.outlets = outlets
        self.leader = -1
        self.first: _Process | None = None  # the leader, so that its end can be waited for
        self.up = False
        self.expected = False  # somebody out here asked for the end of it
        self.over = threading.Event()


class Machine:
    """One machine. Its methods may be called from any thread.

    `on_power_off` is called, from a thread of the machine's own, after the machine powered itself off from
    inside, and when it died or could not come back after a reboot from inside. A reboot from inside makes it
    boot again by itself, without the call.
    """

    def __init__(
        self,
        instance_id: str,
        address: str,
        metadata: Metadata,
        *,
        folder: Path,
        image: Path,
        aws_port: int,
        environment: Mapping[str, str],
        disk_mib: int | None,
        network: Network,
        spawner: _Spawner,
        forget: Callable[["Machine"], None],
    ) -> None:
        self.instance_id = instance_id
        self.address = address
        self.console = folder / "console.log"
        self.on_power_off: Callable[[], None] | None = None
        self._folder = folder
        self._environment = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{aws_port}", **environment}
        self._aws_port = aws_port
        self._network = network
        self._spawner = spawner
        self._forget = forget
        self._imds = Imds(metadata)
        self._power = threading.RLock()  # held while the machine is switched on or off
        self._boot: _Boot | None = None
        self._destroyed = False
        # Of the first address, for good: on EC2 the name is that of the private address, which a stop does not change.
        self._hostname = "ip-" + address.replace(".", "-")
        self._cgroup = _Cgroup(instance_id)
        self._door: Door = network.door(address, NOTEBOOK_PORT)
        try:
            self._make_disk(image, disk_mib)
        except BaseException:
            self._door.close()
            shutil.rmtree(folder, ignore_errors=True)
            raise

    @property
    def running(self) -> bool:
        """Whether systemd inside answers."""
        boot = self._boot
        return boot is not None and boot.up and not boot.over.is_set()

    def boot(self) -> None:
        """Switches the machine on and waits until its systemd has started everything, about 0.4 s.

        Raises MachineError with the end of the console when it does not come up within a minute.
        """
        with self._power:
            self._refuse_destroyed()
            if self._boot is not None:
                raise MachineError(f"Machine {self.instance_id} is on already.")
            self._switch_on()

    def shut_down(self, timeout: float = 20) -> None:
        """Powers the machine off cleanly, by force after `timeout` seconds. Its disk stays. Does nothing when
        it is off.
        """
        with self._power:
            boot = self._boot
            if boot is None:
                return
            boot.expected = True
            self._door.shut()
            with contextlib.suppress(ProcessLookupError):
                os.kill(boot.leader, _POWER_OFF)
            try:
                boot.process.wait(timeout)
            except subprocess.TimeoutExpired:
                _kill_machine(boot.process.pid)
            self._finish(boot)

    def reboot(self) -> None:
        """Shuts down cleanly and boots again: new network namespace, same disk."""
        with self._power:
            self._refuse_destroyed()
            self.shut_down()
            self._switch_on()

    def move_to(self, address: str) -> None:
        """Gives the machine, which has to be off, another loopback address, on the host and inside.

        Its disk, identity and host name stay. Raises MachineError while it is on or when it was destroyed, NetworkError
        when the address is taken; then it keeps the old one.
        """
        with self._power:
            self._refuse_destroyed()
            if self._boot is not None:
                raise MachineError(f"Machine {self.instance_id} is on: only one that is off can move.")
            if address == self.address:
                return
            door = self._network.door(address, NOTEBOOK_PORT)
            try:
                self._rewrite_hosts(address)
            except BaseException:
                door.close()
                raise
            self._door.close()
            self._door, self.address = door, address

    def destroy(self) -> None:
        """Cuts the power and removes the disk; nothing of the machine is left. May be called twice.

        Not a clean shutdown: whatever that could still save is removed right after.
        """
        with self._power:
            if self._destroyed:
                return
            self._destroyed = True
            boot = self._boot
            if boot is not None:
                boot.expected = True
                _kill_machine(boot.process.pid)
                self._finish(boot)
            self._door.close()
            _remove_propagation(self.instance_id)
            _remove_tree(self._folder)
        self._forget(self)

    def run(
        self, argv: Sequence[str], *, env: Mapping[str, str] | None = None, timeout: float | None = None
    ) -> Completed:
        """Runs a command as root in the machine, in /, with an empty stdin.

        The environment is that of a service of the machine, plus `env`. After `timeout` seconds the command's
        whole process group gets SIGTERM, five seconds later SIGKILL. What the command leaves in the
        background lives on until the machine is switched off. Raises MachineError when the machine is not
        running.
        """
        return self._execute(argv, env=env or {}, timeout=timeout, data=b"", limit=MAX_OUTPUT)[0]

    def write_file(self, path: str, data: bytes, mode: int = 0o600) -> None:
        """Writes a file of root's, whole or not at all; makes its folders. Also while the machine is off."""
        script = (
            'umask 077 && mkdir -p -m 755 -- "${1%/*}/" && cat > "$1.nod-new" && chmod "$2" -- "$1.nod-new" '
            '&& mv -f -- "$1.nod-new" "$1"'
        )
        done, _ = self._in_root(["sh", "-c", script, "sh", path, f"{mode:o}"], data, MAX_OUTPUT)
        if done.exit_code:
            raise MachineError(f"Cannot write {path} in {self.instance_id}: {done.stderr.strip()}")

    def read_file(self, path: str) -> bytes:
        """A file's content, also while the machine is off. Raises FileNotFoundError, MachineError."""
        script = f'[ -e "$1" ] || exit {_NO_SUCH_FILE}; exec cat -- "$1"'
        done, content = self._in_root(["sh", "-c", script, "sh", path], b"", _MAX_FILE)
        if done.exit_code == _NO_SUCH_FILE:
            raise FileNotFoundError(path)
        if done.exit_code:
            raise MachineError(f"Cannot read {path} in {self.instance_id}: {done.stderr.strip()}")
        return content

    # The disk.

    def _make_disk(self, image: Path, disk_mib: int | None) -> None:
        self._folder.mkdir(parents=True)
        self._folder.chmod(0o700)
        self._record(None)
        for name in ("upper", "work", "root"):
            (self._folder / name).mkdir(mode=0o755)
        (self._folder / "image").symlink_to(image)
        if disk_mib is not None:
            disk = self._folder / "disk.img"
            with disk.open("wb") as file:
                file.truncate(disk_mib * 1024 * 1024)
            made = subprocess.run(
                ["mkfs.ext4", "-q", "-m", "0", "-O", "^has_journal", str(disk)],
                check=False,
                capture_output=True,
                text=True,
            )
            if made.returncode:
                raise MachineError(f"Cannot make a disk of {disk_mib} MiB: {made.stderr.strip()}")
        settings = {
            "/etc/machine-id": secrets.token_hex(16) + "\n",
            "/etc/hostname": self._hostname + "\n",
            "/etc/hosts": f"127.0.0.1 localhost\n::1 localhost ip6-localhost\n{self._hosts_line(self.address)}",
            "/etc/systemd/system.conf.d/50-aws-endpoint.conf": (
                "[Manager]\nDefaultEnvironment="
                + " ".join(f'"{name}={value}"' for name, value in self._environment.items())
                + "\n"
            ),
        }
        if disk_mib is None:
            for path, text in settings.items():
                target = self._folder / "upper" / path[1:]
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(text)
                target.chmod(0o644)
        else:
            for path, text in settings.items():
                self.write_file(path, text.encode(), 0o644)

    def _hosts_line(self, address: str) -> str:
        return f"{address} {self._hostname}\n"

    def _record(self, process: subprocess.Popen[bytes] | None) -> None:
        owner = _Process.of(os.getpid())
        nspawn = _Process.of(process.pid) if process is not None else None
        record = {
            "owner": owner.to_json() if owner else None,
            "nspawn": nspawn.to_json() if nspawn else None,
            "cgroups": [str(path) for path in self._cgroup.paths],
        }
        new = self._folder / "record.json.new"
        new.write_text(json.dumps(record))
        new.replace(self._folder / "record.json")

    def _rewrite_hosts(self, address: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            hosts = self.read_file("/etc/hosts")
            # Only the line that was written here: the rest is the machine's own.
            moved = hosts.replace(self._hosts_line(self.address).encode(), self._hosts_line(address).encode())
            if moved != hosts:
                self.write_file("/etc/hosts", moved, 0o644)

    # Power.

    def _refuse_destroyed(self) -> None:
        if self._destroyed:
            raise MachineError(f"Machine {self.instance_id} was destroyed.")

    def _switch_on(self) -> None:
        namespace = Namespace()
        outlets: list[Outlet] = []
        try:
            aws = ("127.0.0.1", self._aws_port)
            outlets.append(self._network.outlet(namespace, aws, aws))
            self._imds.start(self._network.listen(namespace, "169.254.169.254", 80))
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
                notify.bind(b"\0nod-" + secrets.token_hex(16).encode())
                process = self._start_nspawn(namespace, notify.getsockname().decode().replace("\0", "@"))
                boot = _Boot(process, namespace, outlets)
                self._boot = boot
                self._wait_until_up(boot, notify)
            self._door.open(namespace)
        except BaseException:
            if self._boot is not None:
                self._boot.expected = True
                _kill_machine(self._boot.process.pid)
                self._finish(self._boot)
            else:
                self._close_network(namespace, outlets)
            raise
        boot.up = True
        threading.Thread(target=self._watch, args=(boot,), name=f"nod-{self.instance_id}", daemon=True).start()

    def _start_nspawn(self, namespace: Namespace, notify_socket: str) -> subprocess.Popen[bytes]:
        nspawn = [
            "systemd-nspawn",
            "--quiet",
            "--boot",
            "--settings=no",
            f"--directory={self._folder / 'root'}",
            f"--machine=nod-{self.instance_id}",
            f"--hostname={self._hostname}",
            f"--network-namespace-path={self._folder / 'netns'}",
            "--capability=CAP_NET_ADMIN",
            "--register=no",
            "--keep-unit",
            "--console=pipe",
            "--notify-ready=yes",
            "--link-journal=no",
            "--resolv-conf=off",
            "--timezone=off",
        ]
        scope = []
        if _systemd_is_host():
            # systemd-run puts itself into the new scope and becomes the command: the process stays our child.
            unit = f"--unit=nod-{self.instance_id}-{secrets.token_hex(4)}"
            scope = ["systemd-run", "--quiet", "--scope", "--collect", unit, "--property=Delegate=yes", "--"]
        enter = ["sh", "-c", _ENTER_ALONE, "sh", str(os.getpid()), *self._cgroup.make(), "--"]
        space = ["unshare", "--mount", "--propagation", "slave", "--pid", "--fork", "--kill-child", "--mount-proc"]
        start = ["--", "sh", "-c", _START, "sh", str(namespace.fd)]
        command = ["setpriv", "--pdeathsig", "KILL", "--", *enter, *scope, *space, *start, *nspawn]
        environment = {"PATH": _PATH, "NOTIFY_SOCKET": notify_socket, "LANG": "C.UTF-8"}

        def popen() -> subprocess.Popen[bytes]:
            with self.console.open("ab") as console:
                # A session of its own: Ctrl-C at the terminal is the local cloud's, not the machine's.
                return subprocess.Popen(
                    command,
                    cwd=self._folder,
                    env=environment,
                    pass_fds=(namespace.fd,),
                    stdin=subprocess.DEVNULL,
                    stdout=console,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )

        try:
            process = self._spawner.popen(popen)
        except OSError as error:
            raise MachineError(f"Cannot start systemd-nspawn: {error.strerror}.") from error
        self._record(process)
        return process

    def _wait_until_up(self, boot: _Boot, notify: socket.socket) -> None:
        end = time.monotonic() + _BOOT_TIMEOUT
        notify.settimeout(0.1)
        ready = False
        while not ready:
            if boot.process.poll() is not None:
                raise MachineError(f"Machine {self.instance_id} ended while it booted. {self._console_end()}")
            if time.monotonic() > end:
                raise MachineError(f"Machine {self.instance_id} did not boot in a minute. {self._console_end()}")
            with contextlib.suppress(TimeoutError):
                ready = b"READY=1" in notify.recv(65536).split(b"\n")
        leader = _leader(boot.process.pid)
        if leader is None:
            raise MachineError(f"Machine {self.instance_id} has no first process. {self._console_end()}")
        boot.leader, boot.first = leader, _Process.of(leader)

    def _console_end(self) -> str:
        try:
            lines = self.console.read_text(errors="replace").splitlines()
        except OSError:
            return ""
        return "Its console ends: " + " | ".join(line.strip() for line in lines[-8:] if line.strip())

    def _watch(self, boot: _Boot) -> None:
        """Waits for the end of a boot that nobody out here asked for."""
        code = boot.process.wait()
        with self._power:
            if boot.over.is_set():
                return
            self._finish(boot)
            if boot.expected or self._destroyed:
                return
            if code == _REBOOT_EXIT_CODE:
                with contextlib.suppress(MachineError, NetworkError):
                    self._switch_on()
                    return
            call = self.on_power_off
        if call is not None:
            call()

    def _finish(self, boot: _Boot) -> None:
        """Takes down what belonged to a boot, after its process was told to end or has ended."""
        boot.process.wait()
        if boot.first is not None:
            boot.first.wait_gone(KILL_GRACE)  # killed with its namespace, a moment after the process we waited for
        self._door.shut()
        self._close_network(boot.namespace, boot.outlets)
        self._cgroup.remove()
        self._boot = None
        boot.over.set()

    def _close_network(self, namespace: Namespace, outlets: list[Outlet]) -> None:
        self._imds.stop()
        for outlet in outlets:
            outlet.close()
        namespace.close()

    # Commands.

    def _in_root(self, argv: Sequence[str], data: bytes, limit: int) -> tuple[Completed, bytes]:
        if self.running:
            return self._execute(argv, env={}, timeout=60, data=data, limit=limit)
        with self._power:
            self._refuse_destroyed()
            if self._boot is not None:
                return self._execute(argv, env={}, timeout=60, data=data, limit=limit)
            script = _MOUNT + 'exec chroot root "$@"'
            command = ["unshare", "--mount", "--propagation", "slave", "--", "sh", "-c", script, "sh", *argv]
            return communicate(command, {"PATH": _PATH}, timeout=60, data=data, limit=limit, cwd=self._folder)

    def _execute(
        self, argv: Sequence[str], *, env: Mapping[str, str], timeout: float | None, data: bytes, limit: int
    ) -> tuple[Completed, bytes]:
        boot = self._boot
        if boot is None or not self.running:
            raise MachineError(f"Machine {self.instance_id} is not running.")
        try:
            cgroups = [str(folder / "cgroup.procs") for folder in _cgroups_of(boot.leader)]
        except OSError as error:
            raise MachineError(f"Machine {self.instance_id} is not running.") from error
        spaces = ["--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup"]
        nsenter = ["nsenter", "--target", str(boot.leader), *spaces, "--no-fork", "--"]
        command = ["sh", "-c", _ENTER, "sh", *cgroups, "--", *nsenter, "sh", "-c", '"$@"; exit $?', "sh", *argv]
        environment = {
            "PATH": _PATH,
            "HOME": "/root",
            "USER": "root",
            "LOGNAME": "root",
            "LANG": "C.UTF-8",
            **self._environment,
            **env,
        }
        return communicate(command, environment, timeout=timeout, data=data, limit=limit, cwd=Path("/"))
