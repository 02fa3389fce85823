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
case $1 in -c) {answers} ;; esac
if [ "$1 $2 $3" = "-m venv --clear" ]; then
    echo "{name} makes an environment" >> {log}
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
        self._tools = {name: shutil.which(name) for name in ("mkdir", "grep", "cp")}
        assert all(self._tools.values())
        for name, path in self._tools.items():
            (self._bin / name).symlink_to(str(path))
        self._write("id", "#!/bin/sh\necho 0\n")
        self.install("python3")

    def install(self, name: str, answers: str = "exit 0") -> None:
        """A Python of that name; `answers`: what it does when it is asked something, in sh."""
        text = PYTHON.format(log=self._log, name=name, answers=answers, **self._tools)
        self._write(name, text)

    def _write(self, name: str, text: str) -> None:
        (self._bin / name).write_text(text, encoding="utf-8")
        (self._bin / name).chmod(0o755)

    def lacks(self, programs: dict[str, str]) -> list[str]:
        path = f"{self._bin}:{SBIN}"
        return [package for name, package in programs.items() if shutil.which(name, path=path) is None]

    def made_of(self) -> list[str]:
        """The Pythons by which environments were made, oldest first."""
        return re.findall(r"^(\S+) makes an environment$", self._log.read_text(encoding="utf-8"), re.MULTILINE)

    def set_up(self, what: str, **environment: str) -> subprocess.CompletedProcess[str]:
        bash = shutil.which("bash")
        assert bash
        return subprocess.run(
            [bash, str(SCRIPT), what, str(self.venv)],
            cwd=ROOT,
            env={"PATH": str(self._bin), "HOME": str(self._home), **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    def ran(self) -> list[str]:
        """What Python was asked for, but for questions."""
        lines = self._log.read_text(encoding="utf-8").splitlines()
        left_out = ("-c", "-m pip --version")
        return [one for one in lines if not one.startswith(left_out) and not one.endswith("makes an environment")]


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


def test_the_first_set_up_to_deploy_takes_the_newest_python_that_lambda_has(bare: Bare) -> None:
    for name in ("python3.12", "python3.13", "python3.99"):
        bare.install(name)
    # Without pip it could make no environment.
    bare.install("python3.14", "case $2 in *ensurepip*) exit 1 ;; esac")
    assert bare.set_up("deploy").returncode == 0
    assert bare.made_of() == ["python3.13"]


@pytest.mark.parametrize(("what", "said"), [("lint", {}), ("deploy", {"PYTHON": "python3"})])
def test_another_set_up_or_one_by_name_takes_the_python_that_was_said(
    bare: Bare, what: str, said: dict[str, str]
) -> None:
    bare.install("python3.14")
    assert bare.set_up(what, **said).returncode == 0
    assert bare.made_of() == ["python3"]


def test_an_environment_of_another_python_than_was_asked_for_is_made_anew(bare: Bare) -> None:
    bare.install("python3", "case $2 in *print*) echo 3.11 ;; esac")
    bare.install("python3.14", "case $2 in *print*) echo 3.14 ;; esac")
    for python in ("python3", "python3.14", "python3.14", ""):
        assert bare.set_up("deploy", PYTHON=python).returncode == 0
    assert bare.made_of() == ["python3", "python3.14"]


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
