"""Whether this machine can run the local cloud; asked before anything is made or started."""

import fcntl
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from local.aws.addresses import PORT, Addresses
from local.errors import PreflightError

STATE_MIB: Final = 4096  # three notebooks and their logs
CACHE_MIB: Final = 2048  # while image and installer are made; about 500 MiB of it stay

_PROGRAMS: Final = {
    "systemd-nspawn": "systemd-container",
    "debootstrap": "debootstrap",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "setpriv": "util-linux",
    "mkfs.ext4": "e2fsprogs",
}
_SYSTEM_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# Each step is one thing that a container without privileges lacks; the step's name is the exit message.
_TRIAL: Final = """
cd "$1" || exit 1
mkdir lower upper work root || { echo "write in its folder"; exit 1; }
mount -t overlay nod -o lowerdir=lower,upperdir=upper,workdir=work root ||
    { echo "mount an overlay file system there"; exit 1; }
unshare --uts --ipc --net --pid --cgroup --fork true || { echo "make namespaces"; exit 1; }
mknod root/null c 1 3 || { echo "make device files"; exit 1; }
"""

# The locks this process holds, by folder; the kernel lets go of them when the process ends, however it ends.
_held: dict[Path, int] = {}


def check(api_port: int, aws_port: int, state: Path, cache: Path) -> None:
    """Returns when the local cloud can start here, and then holds the lock of `state` until this process
    ends.

    Raises PreflightError with one sentence that says what to do. Leaves nothing behind when it raises, except
    that the folders may have been made.
    """
    check_system(sys.platform, sys.version_info[:2], os.geteuid())
    check_programs(_SYSTEM_PATH + ":" + os.environ.get("PATH", ""))
    check_folder(state, "NOD_LOCAL_DIR")
    check_folder(cache, "NOD_CACHE_DIR")
    lock(state)
    try:
        check_port(api_port, "NOD_API_PORT")
        check_port(aws_port, "NOD_AWS_PORT")
        check_addresses()
        check_space({state: ("NOD_LOCAL_DIR", STATE_MIB), cache: ("NOD_CACHE_DIR", CACHE_MIB)})
        check_machines_work(state)
    except PreflightError:
        unlock(state)
        raise


def check_system(system: str, python: tuple[int, ...], user: int) -> None:
    """Linux, Python 3.11 or later, root (user id 0)."""
    if system != "linux":
        raise PreflightError("The local cloud runs on Linux only: use a Debian or Ubuntu machine, or a VM with one.")
    if python < (3, 11):
        found = ".".join(map(str, python))
        raise PreflightError(
            f"Python 3.11 or later is needed, this is {found}: install it and run 'make PYTHON=python3.11 …'."
        )
    if user != 0:
        raise PreflightError(
            "The local cloud boots real machines and needs root: run it as root, or install sudo and use 'make demo'."
        )


def check_programs(path: str) -> None:
    """Every program that machines and their image need is on `path`."""
    missing = [program for program in _PROGRAMS if shutil.which(program, path=path) is None]
    if missing:
        packages = sorted({_PROGRAMS[program] for program in missing})
        raise PreflightError(
            f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing: "
            f"run 'apt-get install {' '.join(packages)}'."
        )


def check_folder(folder: Path, variable: str) -> None:
    """The folder can be written, or made where it is not there yet; `variable` is where a person can name another.

    Makes nothing that stays: what is refused later leaves no empty folders.
    """
    there = folder
    # A link that leads nowhere is there, and no folder.
    while not os.path.lexists(there):
        there = there.parent
    what = f"Cannot write in {folder}"
    advice = f"set {variable} to a folder that can be written"
    if not there.is_dir():
        raise PreflightError(f"{what} ({there} is no folder): {advice}.")
    try:
        # Tried, since root may write by the mode of a folder whatever holds it: a read-only disk, /proc.
        with tempfile.TemporaryDirectory(dir=there, prefix=".nod-"):
            return
    except OSError as error:
        raise PreflightError(f"{what} ({error.strerror}): {advice}.") from error


def check_addresses() -> None:
    """One machine at least gets an address whose port 8888 is free."""
    if not Addresses().any_left():
        raise PreflightError(
            f"Port {PORT} is in use on all addresses of this machine, and every notebook needs it on its own: "
            f"stop what listens there ('ss -ltnp sport = :{PORT}' names it, often another Jupyter or a "
            "container), or have it listen on 127.0.0.1 only."
        )


def check_port(port: int, variable: str) -> None:
    """The port on 127.0.0.1 is free; `variable` is where a person can name another."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", port))
            # Binding alone succeeds beside another socket that is bound and does not listen yet.
            sock.listen(1)
        except OSError as error:
            raise PreflightError(
                f"Port {port} is in use on 127.0.0.1: stop what uses it, or set {variable} to another port."
            ) from error


def check_space(needs: Mapping[Path, tuple[str, int]]) -> None:
    """Each folder's disk has what is needed: folder → (variable that moves the folder, MiB).

    Folders on one disk need the sum.
    """
    disks: dict[int, int] = {}
    for folder, (variable, mib) in needs.items():
        made = _existing(folder)
        disk = made.stat().st_dev
        disks[disk] = disks.get(disk, 0) + mib
        free = shutil.disk_usage(made).free // (1024 * 1024)
        if free < disks[disk]:
            raise PreflightError(
                f"Too little disk space: {folder} is on a disk with {free} MiB free and {disks[disk]} are needed; "
                f"free some, or set {variable} to a folder on a larger disk."
            )


def _existing(folder: Path) -> Path:
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return folder


def check_machines_work(state: Path) -> None:
    """Overlay mounts in `state`, namespaces and cgroups work, which they do not in an unprivileged container."""
    state.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=state, prefix="preflight-") as folder:
        command = ["unshare", "--mount", "--propagation", "slave", "--", "sh", "-c", _TRIAL, "sh", folder]
        tried = subprocess.run(
            command, check=False, capture_output=True, text=True, env={"PATH": _SYSTEM_PATH}, timeout=60
        )
    if tried.returncode:
        what = tried.stdout.strip() or "make a mount namespace"
        raise PreflightError(
            f"Machines cannot run here: root in this environment may not {what} (in {state}); "
            "use a VM or a plain host, or a container started with '--privileged' and a volume for that folder."
        )
    if not (_has_cgroups() or Path("/run/systemd/system").is_dir()):
        raise PreflightError(
            "Machines cannot run here: no writable cgroup hierarchy that systemd can use is mounted at "
            "/sys/fs/cgroup; use a VM or a plain host, or a container started with '--privileged --cgroupns=host'."
        )


def _has_cgroups() -> bool:
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _device, point, kind, options, *_ = line.split()
        writable = "rw" in options.split(",")
        if writable and kind == "cgroup" and "name=systemd" in options.split(","):
            return True
        if writable and kind == "cgroup2" and point == "/sys/fs/cgroup":
            return True
    return False


def lock(state: Path) -> None:
    """Takes the lock of this local cloud for as long as this process lives."""
    try:
        state.mkdir(parents=True, exist_ok=True)
        fd = os.open(state / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise PreflightError(
            f"Cannot write in {state} ({error.strerror}): set NOD_LOCAL_DIR to a folder that can be written."
        ) from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        other = os.pread(fd, 32, 0).decode(errors="replace").strip() or "unknown"
        os.close(fd)
        raise PreflightError(
            f"Another local cloud runs from {state} (process {other}): stop it, "
            "or set NOD_LOCAL_DIR, NOD_API_PORT and NOD_AWS_PORT for a second one."
        ) from error
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    _held[state.resolve()] = fd


def unlock(state: Path) -> None:
    """Lets go of the lock before this process ends."""
    fd = _held.pop(state.resolve(), None)
    if fd is not None:
        os.close(fd)
