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
        ("NOD_INSTALLER_URL", "https://example.org/a.sh", "NOD_INSTALLER_SHA256"),
        ("NOD_INSTALLER_SHA256", "0" * 64, "NOD_INSTALLER_URL"),
    ],
)
def test_a_wrong_setting_is_one_line_and_leaves_nothing(tmp_path: Path, variable: str, value: str, said: str) -> None:
    clean = {name: text for name, text in os.environ.items() if not name.startswith("NOD_")}
    folders = {"NOD_LOCAL_DIR": str(tmp_path / "state"), "NOD_CACHE_DIR": str(tmp_path / "cache")}
    run = subprocess.run(
        [sys.executable, "-m", "local", "serve"],
        cwd=ROOT,
        env={**clean, **folders, variable: value},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 2
    assert said in run.stderr
    assert len(run.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
