"""The root file system that every machine starts from: the host's own release of Debian or Ubuntu, by
debootstrap.

Made once and kept in the cache, from the mirror that this host's apt is configured with.
"""

import fcntl
import hashlib
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from local.errors import ImageError
from local.processes import tied

Say = Callable[[str], None]

PACKAGES: Final = (
    "systemd",
    "systemd-sysv",
    "dbus",
    "python3",
    "python3-venv",
    "ca-certificates",
    "openssl",
    "curl",
    "iproute2",
    "procps",
    "nftables",
    "zstd",
    # Ubuntu's server images bring these: what needrestart ends, and what people leave running, is seen here too.
    "needrestart",
    "tmux",
)
NEEDS_MIB: Final = 2048
_VERSION: Final = 1  # of what this module does to the root; a new number makes a new image

# Nobody logs in on a console, there is no network to update from, and all of these cost time at each boot.
_MASKED: Final = (
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "console-getty.service",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty.target",
    "getty@.service",
    "motd-news.timer",
    "systemd-networkd-wait-online.service",
    "systemd-networkd.service",
    "systemd-resolved.service",
    "systemd-timesyncd.service",
    "systemd-update-utmp-runlevel.service",
)
_KEYRINGS: Final = {
    "debian": "/usr/share/keyrings/debian-archive-keyring.gpg",
    "ubuntu": "/usr/share/keyrings/ubuntu-archive-keyring.gpg",
}
_COMPONENTS: Final = {"debian": "main", "ubuntu": "main,universe"}
_PHASES: Final = {
    "I: Retrieving": "downloading packages",
    "I: Extracting": "unpacking the core",
    "I: Unpacking": "unpacking packages",
    "I: Configuring": "configuring packages",
}

# The empty lower layer makes an overlay whose upper layer is the image; `volatile` turns each of dpkg's
# thousands of fsync calls into nothing. The mounts are in a namespace of their own, and go with it.
_BUILD: Final = """
set -e
cd "$1"; shift
mkdir -p lower root work mount
mount -t overlay nod -o lowerdir=lower,upperdir=root,workdir=work,volatile mount 2>/dev/null ||
    mount --bind root mount
"$@" "$PWD/mount" ${NOD_MIRROR:+"$NOD_MIRROR"}
"""


def ensure_image(cache: Path, say: Say) -> Path:
    """The root of the machine image, made if it is not in `cache` yet; about half a minute then.

    `say` hears of each phase in one line. Raises ImageError.
    """
    release = Release.of_host()
    stamp = _stamp(release)
    image = cache / f"image-{release.codename}-{stamp[:12]}"
    if image.is_dir():
        return image
    with only_one(cache, "image", say):
        if image.is_dir():
            return image
        need_space(cache, NEEDS_MIB, "the machine image", ImageError)
        with half_made(cache / "image.partial", "Cannot make the machine image", ImageError) as partial:
            _debootstrap(partial, release, cache / "debs", say)
            root = partial / "root"
            _trim(root)
            (partial / "stamp.json").write_text(json.dumps({"stamp": stamp, "release": release.codename}))
            root.rename(image)
    return image


def cache_folder(environment: Mapping[str, str]) -> Path:
    """Where image and installer are kept: outside the checkout, so that a fresh clone finds them."""
    chosen = environment.get("NOD_CACHE_DIR") or environment.get("XDG_CACHE_HOME")
    return (Path(chosen) if chosen else Path.home() / ".cache") / "nod"


@dataclass(frozen=True)
class Release:
    """A release of Debian or Ubuntu."""

    distribution: str
    codename: str

    @classmethod
    def of_host(cls) -> "Release":
        """Raises ImageError when this host is neither."""
        system = _os_release(Path("/etc/os-release"))
        distribution, codename = system.get("ID", ""), system.get("VERSION_CODENAME", "")
        if distribution not in _KEYRINGS or not codename:
            name = system.get("PRETTY_NAME", "this system")
            raise ImageError(f"The machine image can be made on Debian or Ubuntu, not on {name}.")
        return cls(distribution, codename)

    def mirror(self) -> str:
        """The address that this host's apt takes the release from. Raises ImageError."""
        # Without package lists apt knows the name in its sources, which may be `stable`, and not the
        # codename.
        fields = ("RELEASE", "CODENAME", "COMPONENT", "REPO_URI")
        line = "|".join(f"$({field})" for field in fields)
        told = subprocess.run(
            ["apt-get", "indextargets", "--format", line, "Created-By: Packages"],
            check=False,
            capture_output=True,
            text=True,
        )
        for target in told.stdout.splitlines():
            release, name, component, uri = (*target.split("|", 3), "", "", "", "")[:4]
            if component == "main" and self.codename in (release, name) and (mirror := _usable(uri)):
                return mirror
        raise ImageError(
            f"apt has no mirror for {self.codename}: add one to /etc/apt/sources.list and run 'apt-get update'."
        )


def _os_release(path: Path) -> dict[str, str]:
    pairs = (line.partition("=") for line in path.read_text().splitlines() if "=" in line)
    return {key: value.strip("\"'") for key, _, value in pairs}


def _usable(uri: str) -> str | None:
    """The address for debootstrap, which does not read the mirror lists that cloud images come with."""
    if uri.startswith("mirror+file:"):
        try:
            lines = Path(uri.removeprefix("mirror+file:").replace("//", "/", 1)).read_text().splitlines()
        except OSError:
            return None
        uri = next((line.split()[0] for line in lines if line.strip() and not line.startswith("#")), "")
    return uri if uri.startswith(("http://", "https://", "file:")) else None


def _stamp(release: Release) -> str:
    inputs = [release.distribution, release.codename, platform.machine(), PACKAGES, _MASKED, _VERSION]
    return hashlib.sha256(json.dumps(inputs).encode()).hexdigest()


@contextmanager
def only_one(cache: Path, what: str, say: Say) -> Iterator[None]:
    """Holds the lock of one build; a killed build lets go of it by itself."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f"{what}.lock").open("wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"Another run is making the {what}, waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def half_made(folder: Path, trouble: str, error: type[Exception]) -> Iterator[Path]:
    """An empty folder for one build, gone at its end; what is whole is renamed out of it before.

    Raises `error`, which begins with `trouble`, for what the disk refuses.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    except OSError as refused:
        raise error(f"{trouble}: {refused.strerror or refused}.") from refused
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def need_space(folder: Path, mib: int, what: str, error: type[Exception]) -> None:
    """Raises `error` when the disk that holds `folder` has less than `mib` MiB to spare."""
    free = shutil.disk_usage(folder).free // (1024 * 1024)
    if free < mib:
        raise error(
            f"Too little disk space for {what}: {folder} has {free} MiB free and needs {mib}; "
            "free some or set NOD_CACHE_DIR to a larger disk."
        )


def alone(*command: str) -> list[str]:
    """The command in namespaces of its own, which takes all it started and mounted along when it or we end."""
    space = ["unshare", "--mount", "--propagation", "slave", "--pid", "--fork", "--kill-child", "--mount-proc"]
    return tied(*space, "--", *command)


def _debootstrap(partial: Path, release: Release, debs: Path, say: Say) -> None:
    debs.mkdir(exist_ok=True)
    command = [
        "debootstrap",
        "--variant=minbase",
        f"--components={_COMPONENTS[release.distribution]}",
        f"--include={','.join(PACKAGES)}",
        f"--cache-dir={debs.resolve()}",
    ]
    keyring = Path(_KEYRINGS[release.distribution])
    if keyring.exists():
        command.append(f"--keyring={keyring}")
    build = ["sh", "-c", _BUILD, "sh", str(partial.resolve()), *command, release.codename]
    environment = {**os.environ, **_proxies(os.environ), "NOD_MIRROR": release.mirror(), "LC_ALL": "C.UTF-8"}
    lines: list[str] = []
    phase = ""
    with subprocess.Popen(
        alone(*build),
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        for line in process.stdout or ():
            lines = [*lines[-19:], line.strip()]
            now = next((text for start, text in _PHASES.items() if line.startswith(start)), phase)
            if now != phase:
                phase = now
                say(f"Machine image ({release.codename}): {phase}")
    if process.returncode:
        why = _end_of_log(partial / "root" / "debootstrap" / "debootstrap.log") or lines
        raise ImageError(
            f"debootstrap could not make the machine image (exit code {process.returncode}): " + " | ".join(why[-5:])
        )


def _end_of_log(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text(errors="replace").splitlines() if line.strip()]
    except OSError:
        return []


def _proxies(environment: Mapping[str, str]) -> dict[str, str]:
    """The proxies that apt is configured with, where the environment names none: debootstrap reads only that."""
    found = {}
    for scheme in ("http", "https"):
        name = f"{scheme}_proxy"
        if name not in environment:
            asked = subprocess.run(
                ["apt-config", "dump", "--format", "%v%n", f"Acquire::{scheme}::Proxy"],
                check=False,
                capture_output=True,
                text=True,
            )
            proxy = asked.stdout.strip()
            if proxy and proxy != "DIRECT":
                found[name] = proxy
    return found


def _trim(root: Path) -> None:
    for folder in ("var/cache/apt/archives", "var/lib/apt/lists", "usr/share/doc", "usr/share/man", "var/log/apt"):
        for path in (root / folder).glob("*"):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
    units = root / "etc/systemd/system"
    for name in _MASKED:
        link = units / name
        link.unlink(missing_ok=True)
        link.symlink_to("/dev/null")
    default = units / "default.target"
    default.unlink(missing_ok=True)
    default.symlink_to("/lib/systemd/system/multi-user.target")
    journal = root / "etc/systemd/journald.conf.d/50-nod.conf"
    journal.parent.mkdir(parents=True, exist_ok=True)
    journal.write_text("[Journal]\nStorage=persistent\nSystemMaxUse=64M\n")
    for name in ("etc/machine-id", "etc/resolv.conf"):
        (root / name).unlink(missing_ok=True)
        (root / name).touch()
    (root / "etc/hostname").unlink(missing_ok=True)
    _declare_updated(root)


def _declare_updated(root: Path) -> None:
    # ConditionNeedsUpdate= compares these with /usr; without them ldconfig and others run in each first boot.
    changed = (root / "usr").stat()
    for name in ("etc/.updated", "var/.updated"):
        (root / name).touch()
        os.utime(root / name, ns=(changed.st_mtime_ns, changed.st_mtime_ns))
