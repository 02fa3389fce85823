"""`python -m local` refuses a wrong setting in one line, before it asks for root or makes anything."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("NOD_FAULTS", "no_capacity,nonsense", "nonsense"),
        ("NOD_API_PORT", "http", "NOD_API_PORT"),
        ("NOD_AWS_PORT", "65536", "NOD_AWS_PORT"),
        ("NOD_AWS_PORT", "8000", "NOD_API_PORT"),
        ("NOD_API_PORT", "8888", "NOD_API_PORT"),
        ("NOD_MINUTE_SECONDS", "abc", "NOD_MINUTE_SECONDS"),
        ("NOD_MINUTE_SECONDS", "nan", "NOD_MINUTE_SECONDS"),
        ("AWS_REGION", "x", "AWS_REGION"),
        ("AWS_REGION", "us-gov-west-1", "AWS_REGION"),
        ("NOD_CACHE_DIR", "/nowhere to be found", "NOD_CACHE_DIR"),
        ("NOD_INSTALLER_URL", "https://example.org/a.sh", "NOD_INSTALLER_SHA256"),
        ("NOD_INSTALLER_SHA256", "0" * 64, "NOD_INSTALLER_URL"),
    ],
)
def test_a_wrong_setting_is_one_line_and_leaves_nothing(tmp_path: Path, variable: str, value: str, said: str) -> None:
    assert said in refused(tmp_path, **{variable: value})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.machine
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.parametrize("variable", ["NOD_LOCAL_DIR", "NOD_CACHE_DIR"])
@pytest.mark.parametrize("where", ["{file}", "{file}/below", "{loose}", "{loose}/below", "/proc", "/proc/below"])
def test_a_folder_that_cannot_be_written_is_one_line_and_leaves_nothing(
    tmp_path: Path, variable: str, where: str
) -> None:
    file, loose = tmp_path / "file", tmp_path / "loose"
    file.touch()
    loose.symlink_to(tmp_path / "nowhere")
    said = refused(tmp_path, **{variable: where.format(file=file, loose=loose)})
    assert f"set {variable} to a folder" in said
    assert sorted(tmp_path.iterdir()) == [file, loose]


def refused(folder: Path, **variables: str) -> str:
    """The one line that it says, with `folder` for all that it makes."""
    clean = {name: text for name, text in os.environ.items() if not name.startswith("NOD_") and name != "AWS_REGION"}
    folders = {"NOD_LOCAL_DIR": str(folder / "state"), "NOD_CACHE_DIR": str(folder / "cache")}
    run = subprocess.run(
        [sys.executable, "-m", "local", "serve"],
        cwd=ROOT,
        env={**clean, **folders, **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 2
    assert len(run.stderr.splitlines()) == 1
    assert run.stdout == ""
    return run.stderr
