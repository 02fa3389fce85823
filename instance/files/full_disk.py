"""Lets a kernel start and run cells while the disk is full, so that its owner can look and make room there.

A Python kernel makes folders of IPython's before it answers, and looks for a folder for temporary files before it
runs a cell. Where the disk takes no folder and no file, both lie in memory for this one kernel: IPYTHONDIR under /run,
with the person's own profile shown in it by links, and TMPDIR under /dev/shm.
"""

import contextlib
import os
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jupyter_client.provisioning import LocalProvisioner

# What IPython makes in a profile when it is missing (IPython.core.profiledir).
FOLDERS = ("security", "log", "startup", "pid", "static", "db")
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108


def environment(given: Mapping[str, str], spare: Path, memory: Path = SHARED_MEMORY) -> dict[str, str]:
    """What to change in the environment of a kernel that is about to start; nothing while the disk takes its files.

    `spare` is a folder in memory, `memory` where temporary files may lie.
    """
    changes = {}
    named = given.get("IPYTHONDIR", "")
    own = named in ("", str(spare / "ipython"))
    ipython = Path(given.get("HOME", "/"), ".ipython") if own else Path(named)
    if _takes_profile(ipython):
        if named and own:
            changes["IPYTHONDIR"] = str(ipython)
    else:
        with contextlib.suppress(OSError):
            changes["IPYTHONDIR"] = str(_profile_in_memory(ipython, spare))
    if not _takes_files(Path(given.get("TMPDIR") or "/tmp")):  # noqa: S108
        with contextlib.suppress(OSError):
            changes["TMPDIR"] = str(_private(memory / f"nod-{os.getuid()}"))
    return changes


def _takes_profile(ipython: Path) -> bool:
    """Whether IPython finds its profile there, or could make it."""
    try:
        for name in FOLDERS:
            (ipython / "profile_default" / name).mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return True


def _takes_files(folder: Path) -> bool:
    """Whether a file can be made and written there, as Python's `tempfile` tries it."""
    try:
        with tempfile.NamedTemporaryFile(dir=folder, buffering=0) as file:
            file.write(b"blat")
    except OSError:
        return False
    return True


def _private(folder: Path) -> Path:
    """A folder of our own that nobody else may open; PermissionError where somebody else has put one."""
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise PermissionError(f"{folder} is somebody else's")
    return folder


def _profile_in_memory(ipython: Path, spare: Path) -> Path:
    """An IPYTHONDIR whose profile has the person's own startup files and settings."""
    profile = spare / "ipython" / "profile_default"
    profile.mkdir(parents=True, exist_ok=True)
    mine = ipython / "profile_default"
    with contextlib.suppress(OSError):
        for path in (mine / "startup", *mine.glob("*.py"), *mine.glob("*.json")):
            link = profile / path.name
            if path.exists() and not link.exists() and not link.is_symlink():
                link.symlink_to(path)
    return profile.parent


def bear(spare: Path) -> None:
    """From now on kernels of this process start on a full disk too; `spare` as above.

    Where the server itself looks for kernels, it makes IPython's folder too: it is told of the same place in memory.
    """
    os.environ.update(environment(os.environ, spare))
    launch = LocalProvisioner.launch_kernel

    async def launch_anywhere(self: Any, cmd: list[str], **kwargs: Any) -> Any:
        given = kwargs.get("env")
        if given is not None:
            kwargs["env"] = {**given, **environment(given, spare)}
        return await launch(self, cmd, **kwargs)

    LocalProvisioner.launch_kernel = launch_anywhere
