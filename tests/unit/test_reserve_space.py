"""Part of the disk is kept for root, on the file systems that know such a share."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from instance import build

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system")

SCRIPT = build.ROOT / "files/reserve_space.sh"
# As an ordinary user and as root: how many MiB go onto the disk, until it is full.
FILL = """
mkdir mount/own && chown 1000:1000 mount/own
setpriv --reuid=1000 --regid=1000 --clear-groups sh -c 'dd if=/dev/zero of=mount/own/full bs=1M 2>/dev/null || :'
dd if=/dev/zero of=mount/roots bs=1M 2>/dev/null || :
stat -c %s mount/own/full mount/roots
"""


def on_disk(folder: Path, script: str, *, mkfs: str = "mkfs.ext4 -q -b 4096 -m 0") -> str:
    """What a script prints that has a disk of 64 MiB at `mount`, in a mount namespace of its own."""
    folder.chmod(0o755)
    (folder / "mount").mkdir()
    with (folder / "disk").open("wb") as disk:
        disk.truncate(64 << 20)
    steps = f"{mkfs} disk && mount -o loop disk mount && {script}"
    done = subprocess.run(
        ["unshare", "--mount", "bash", "-ec", steps], cwd=folder, check=False, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def test_what_a_user_fills_leaves_root_some(tmp_path: Path) -> None:
    said, users, roots = on_disk(tmp_path, f"bash {SCRIPT} mount; {FILL}").splitlines()
    assert said == f"kept for root: {int(64 * 1024 / 4 * 0.03)} blocks of 4096 bytes"
    assert int(roots) >= 1 << 20
    assert int(users) > 20 << 20


def test_an_image_of_ubuntu_leaves_root_nothing_by_itself(tmp_path: Path) -> None:
    assert on_disk(tmp_path, FILL).splitlines()[1] == "0"


def test_a_larger_share_stays_and_a_second_run_changes_nothing(tmp_path: Path) -> None:
    run = f"bash {SCRIPT} mount; "
    first, second = on_disk(tmp_path, run * 2, mkfs="mkfs.ext4 -q -b 4096 -m 20").splitlines()
    assert first == second == f"kept for root: {int(64 * 1024 / 4 * 0.2)} blocks of 4096 bytes"


def test_another_file_system_is_no_error() -> None:
    done = subprocess.run(["bash", str(SCRIPT), "/proc"], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("no part of the disk can be kept for root")
