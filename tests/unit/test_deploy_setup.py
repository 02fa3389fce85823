"""local/setup.sh, by which `make` sets up: what it installs for each kind of command, and in which bash."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "local/setup.sh"
# Where the script looks beyond its PATH.
SBIN = "/usr/local/sbin:/usr/sbin:/sbin"
OF_MACHINES = {
    "systemd-nspawn": "systemd-container",
    "debootstrap": "debootstrap",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
    "mkfs.ext4": "e2fsprogs",
}
OF_TESTS = {"chromium": "chromium", "node": "nodejs", "npm": "npm"}
PYTHON = """#!/bin/sh
echo "$*" >> {log}
if [ "$1 $2 $3" = "-m venv --clear" ]; then
    {mkdir} -p "$4/bin"
    {cp} "$0" "$4/bin/python"
fi
"""


class Bare:
    """A machine, seen by the script: root, Python with pip, and nothing else but what /usr/sbin has."""

    def __init__(self, folder: Path) -> None:
        self._bin, self._log = folder / "bin", folder / "python.log"
        self.venv = folder / "venv"
        self._home = folder / "home"
        self._bin.mkdir()
        tools = {name: shutil.which(name) for name in ("mkdir", "grep", "cp")}
        assert all(tools.values())
        for name, path in tools.items():
            (self._bin / name).symlink_to(str(path))
        self._write("id", "#!/bin/sh\necho 0\n")
        self._write("python3", PYTHON.format(log=self._log, **tools))

    def _write(self, name: str, text: str) -> None:
        (self._bin / name).write_text(text, encoding="utf-8")
        (self._bin / name).chmod(0o755)

    def lacks(self, programs: dict[str, str]) -> list[str]:
        path = f"{self._bin}:{SBIN}"
        return [package for name, package in programs.items() if shutil.which(name, path=path) is None]

    def set_up(self, what: str) -> subprocess.CompletedProcess[str]:
        bash = shutil.which("bash")
        assert bash
        return subprocess.run(
            [bash, str(SCRIPT), what, str(self.venv)],
            cwd=ROOT,
            env={"PATH": str(self._bin), "HOME": str(self._home)},
            capture_output=True,
            text=True,
            check=False,
        )

    def ran(self) -> list[str]:
        """What Python was asked for, but for questions."""
        lines = self._log.read_text(encoding="utf-8").splitlines()
        return [line for line in lines if not line.startswith("-c") and line != "-m pip --version"]


@pytest.fixture
def bare(tmp_path: Path) -> Bare:
    return Bare(tmp_path)


def test_to_deploy_python_alone_is_needed(bare: Bare) -> None:
    run = bare.set_up("deploy")
    assert run.returncode == 0, run.stderr
    assert "Debian" not in run.stderr
    pip = "-m pip install --quiet --disable-pip-version-check"
    assert bare.ran() == [
        f"-m venv --clear {bare.venv}",
        f"{pip} -r requirements-local.txt",
        f"{pip} --no-deps --editable .",
    ]


@pytest.mark.parametrize(("what", "programs"), [("demo", OF_MACHINES), ("test", OF_MACHINES | OF_TESTS)])
def test_what_machines_and_tests_need_is_named_by_its_packages(bare: Bare, what: str, programs: dict[str, str]) -> None:
    missing = bare.lacks(programs)
    if not missing:
        pytest.skip("this system has all of it in /usr/sbin")
    run = bare.set_up(what)
    assert run.returncode == 2
    (said,) = re.findall(r"there is no apt-get to install them: (.*)\.\n", run.stderr)
    assert said.split() == missing
    assert not bare.venv.exists()


def test_it_does_without_what_bash_3_2_has_not() -> None:
    """macOS has that one. It knows no tables, and takes an empty array for a variable that is not set."""
    code = re.sub(r"^\s*#.*$", "", SCRIPT.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert "set -euo pipefail" in code
    assert not re.findall(r"\b(?:declare|local|typeset) -[a-z]*[An]|\b(?:mapfile|readarray|coproc)\b", code)
    assert not re.findall(r"\$\{\w+(?:\^|,|@[A-Z])|&>>|\|&|\bwait -n\b", code)
    assert not re.findall(r"\w+\+?=\(|\$\{#?\w+\[[@*]\]", code), "arrays"
