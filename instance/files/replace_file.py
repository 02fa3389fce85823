#!/usr/bin/env python3
"""Replaces a small file of root's in one step, also on a full disk.

Usage: replace_file.py SOURCE TARGET MODE GROUP, with the mode in octal. Whoever reads TARGET finds the old content or
the new one, never a part.

In /etc/nod/spare, of the same file system, lies a spare file whose space on the disk is taken already. The new content
is written into it, and then the two change places. The old content is overwritten, since it may be a secret, and its
file is the next spare. Where there is no such folder, a file is made anew each time, as everybody does it.
"""

import ctypes
import os
import shutil
import sys
from pathlib import Path

SPARES = Path("/etc/nod/spare")
# What a file system gives at least to a file that is not empty.
BLOCK = 4096
# linux/fs.h, RENAME_EXCHANGE; fcntl.h, AT_FDCWD.
EXCHANGE = 2
AT_FDCWD = -100


def replace(target: Path, content: bytes, mode: int, group: str | int, spares: Path = SPARES) -> None:
    """Puts `content` in place. OSError when the disk takes it not even into the spare; the old content stays then."""
    keeps = spares.is_dir()
    spare = (spares if keeps else target.parent) / f".new-{target.name}"
    file = os.open(spare, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        _write(file, content)
        os.ftruncate(file, len(content))
        os.fsync(file)
    finally:
        os.close(file)
    shutil.chown(spare, group=group)
    spare.chmod(mode)
    if not (keeps and target.exists() and _exchange(spare, target)):
        spare.replace(target)
    if keeps:
        # On the disk before the old content is overwritten: after a power cut the old file may be the target again.
        _sync(target.parent)
        _reserve(spare, len(content))


def _write(file: int, content: bytes) -> None:
    done = 0
    while done < len(content):
        done += os.pwrite(file, content[done:], done)


def _exchange(one: Path, other: Path) -> bool:
    """Lets two files change places (renameat2(2)); False where the file system cannot."""
    library = ctypes.CDLL(None, use_errno=True)
    call = getattr(library, "renameat2", None)
    return call is not None and call(AT_FDCWD, bytes(one), AT_FDCWD, bytes(other), EXCHANGE) == 0


def _sync(folder: Path) -> None:
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _reserve(spare: Path, length: int) -> None:
    """Takes space for the next content, and leaves nothing of what was in the file. Without it the next needs some."""
    try:
        file = os.open(spare, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.fchmod(file, 0o600)
            _write(file, b"\n" * max(BLOCK, -(-length // BLOCK) * BLOCK))
            os.fsync(file)
        finally:
            os.close(file)
    except OSError:
        spare.unlink(missing_ok=True)


if __name__ == "__main__":
    SOURCE, TARGET, MODE, GROUP = sys.argv[1:]
    try:
        replace(Path(TARGET), Path(SOURCE).read_bytes(), int(MODE, 8), GROUP)
    except OSError as error:
        sys.stderr.write(f"{TARGET} could not be replaced: {error}\n")
        sys.exit(1)
