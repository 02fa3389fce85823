"""Which Python the functions run on, and what pip brings for it: said in words where Lambda would refuse it."""

from __future__ import annotations

import json
import re
import shutil
import sysconfig
from collections.abc import Callable
from datetime import date
from pathlib import Path

import cfnlint  # type: ignore[import-untyped]
import pytest

from deploy import bytecode, runtimes, wheels
from deploy.errors import PackageError

ROOT = Path(__file__).resolve().parents[2]


# --- the runtime ---


def test_a_python_that_lambda_does_not_have_is_refused_with_those_it_has() -> None:
    with pytest.raises(PackageError, match=r"no runtime python3\.99.*PYTHON=python3\.14 .*PYTHON=python3\.11"):
        runtimes.of_python((3, 99))
    for name in runtimes.SUPPORT:
        assert runtimes.of_python((3, int(name.removeprefix("python3.")))) == name


@pytest.mark.parametrize(
    ("name", "today", "words"),
    [
        ("python3.11", date(2026, 6, 29), None),
        ("python3.11", date(2026, 6, 30), "supports python3.11 until 30 June 2027"),
        ("python3.11", date(2026, 11, 30), "no new function with it after 31 July 2027"),
        ("python3.11", date(2027, 6, 30), "make clean deploy PYTHON=python3.14"),
        ("python3.11", date(2027, 7, 1), "supported python3.11 until 30 June 2027"),
        ("python3.14", date(2027, 1, 1), None),
        ("python3.14", date(2029, 1, 1), "Update this checkout."),
        ("python3.15", date(2029, 1, 1), None),
    ],
)
def test_the_end_of_a_runtime_is_told_a_year_before(name: str, today: date, words: str | None) -> None:
    told = runtimes.note(name, today)
    assert told is None if words is None else told is not None and words in told


def test_a_runtime_that_lambda_changes_no_more_is_refused() -> None:
    assert runtimes.note("python3.11", date(2027, 8, 31)) is not None
    with pytest.raises(PackageError, match=r"no deployment with python3\.11 since 31 August 2027.*PYTHON=python3\.14"):
        runtimes.note("python3.11", date(2027, 9, 1))


def test_the_dates_are_those_that_cfn_lint_knows() -> None:
    """It is brought up to date from AWS's page with each of its releases."""
    path = Path(cfnlint.__file__).parent / "data/AdditionalSpecs/LmbdRuntimeLifecycle.json"
    known = {
        name: runtimes.Support(
            *(date.fromisoformat(one[key]) for key in ("deprecated", "create-block", "update-block"))
        )
        for name, one in json.loads(path.read_text(encoding="utf-8")).items()
        if re.fullmatch(r"python3\.1[1-9]", name)
    }
    assert known == runtimes.SUPPORT


def test_set_up_and_page_name_the_same_runtimes() -> None:
    script = (ROOT / "local/setup.sh").read_text(encoding="utf-8")
    assert re.findall(r'^of_lambda="(.*)"$', script, re.MULTILINE) == [" ".join(runtimes.NEWEST_FIRST)]
    page = (ROOT / "docs/aws.md").read_text(encoding="utf-8")
    for name, support in runtimes.SUPPORT.items():
        row = rf"\| (?:[^|]*\b)?{re.escape(name.removeprefix('python'))}\b[^|]* \| (\d+ \w+ \d{{4}})"
        assert re.findall(row, page) == [f"{support.until.day} {support.until:%B %Y}"]


# --- the wheels ---


def elf(machine: int = 62, *, bits: int = 2, needs: bytes = b"GLIBC_2.2.5\0GLIBC_2.14\0") -> bytes:
    head = b"\x7fELF" + bytes([bits, 1, 1]) + bytes(9) + (3).to_bytes(2, "little") + machine.to_bytes(2, "little")
    return head + bytes(44) + needs


def distribution(task: Path, name: str, version: str, *needs: str) -> None:
    folder = task / f"{name}-{version}.dist-info"
    folder.mkdir(parents=True)
    requires = "".join(f"Requires-Dist: {one}\n" for one in needs)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{requires}\ntext\n")


@pytest.fixture
def task(tmp_path: Path) -> Path:
    """What is packaged, and runs."""
    distribution(tmp_path, "argon2_cffi", "25.1.0", "argon2-cffi-bindings", "tomli; python_version < '3.10'")
    distribution(tmp_path, "argon2_cffi_bindings", "26.2.0", "cffi>=1.0.1", "pytest; extra == 'tests'")
    (tmp_path / "_cffi_backend.cpython-311-x86_64-linux-gnu.so").write_bytes(elf())
    (tmp_path / "_argon2_cffi_bindings").mkdir()
    (tmp_path / "_argon2_cffi_bindings/_ffi.abi3.so").write_bytes(elf())
    return tmp_path


ASKED = "argon2-cffi==25.1.0  # hashes\n\n"


def test_what_lambda_loads_is_taken(task: Path) -> None:
    wheels.check(task, ASKED, "python3.11")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("_argon2_cffi_bindings/_ffi.abi3.so", elf(183), "for aarch64"),
        ("_argon2_cffi_bindings/_ffi.abi3.so", elf(40, bits=1), "for 32-bit ARM"),
        ("_argon2_cffi_bindings/_ffi.abi3.so", elf(62, bits=1), "for x86_64"),
        ("_argon2_cffi_bindings/_ffi.abi3.so", bytes.fromhex("cffaedfe") + bytes(60), "for macOS"),
        ("_argon2_cffi_bindings/_ffi.abi3.so", bytes.fromhex("cafebabe") + bytes(60), "for macOS"),
        ("_argon2_cffi_bindings/_ffi.abi3.so", b"", "no library"),
        ("_argon2_cffi_bindings/_ffi.abi3.so", elf(needs=b"libc.musl-x86_64.so.1\0"), "for musl"),
        ("_argon2_cffi_bindings/_ffi.abi3.so", elf(needs=b"GLIBC_2.4\0GLIBC_2.38\0"), "for glibc 2.38"),
        ("_argon2_cffi_bindings/libargon2.so.1", elf(183), "for aarch64"),
        ("x/y.pyd", b"MZ" + bytes(60), "for Windows"),
        ("x/y.dylib", bytes.fromhex("feedfacf") + bytes(60), "for macOS"),
        ("_cffi_backend.cpython-312-x86_64-linux-gnu.so", elf(), "for python3.12"),
        ("_cffi_backend.cpython-311-x86_64-linux-musl.so", elf(), "for musl"),
        ("_cffi_backend.cpython-311-aarch64-linux-gnu.so", elf(), "for aarch64"),
    ],
)
def test_what_lambda_could_not_load_is_refused_with_what_to_do(
    task: Path, name: str, content: bytes, words: str
) -> None:
    (task / name).parent.mkdir(exist_ok=True)
    (task / name).write_bytes(content)
    with pytest.raises(PackageError, match=re.escape(f"{name} is {words}")) as raised:
        wheels.check(task, ASKED, "python3.11")
    assert "package on a Linux machine with x86_64" in str(raised.value)


def test_the_library_of_a_newer_runtime_is_newer(task: Path) -> None:
    for name in ("python3.12", "python3.14"):
        (task / "_cffi_backend.cpython-311-x86_64-linux-gnu.so").unlink(missing_ok=True)
        (task / "_argon2_cffi_bindings/_ffi.abi3.so").write_bytes(elf(needs=b"GLIBC_2.34\0"))
        wheels.check(task, ASKED, name)
    with pytest.raises(PackageError, match=r"glibc 2\.34"):
        wheels.check(task, ASKED, "python3.11")


def test_arm_functions_want_arms_libraries(task: Path) -> None:
    with pytest.raises(PackageError, match="for x86_64"):
        wheels.check(task, ASKED, "python3.11", "arm64")


def _without(name: str) -> Callable[[Path], None]:
    return lambda task: shutil.rmtree(task / name)


@pytest.mark.parametrize(
    ("change", "asked", "words"),
    [
        (_without("argon2_cffi-25.1.0.dist-info"), ASKED, "argon2-cffi, which requirements.txt asks for, is not in it"),
        (_without("argon2_cffi_bindings-26.2.0.dist-info"), ASKED, "argon2-cffi-bindings, which argon2-cffi asks for"),
        (lambda _: None, "argon2-cffi==25.2.0", "argon2-cffi 25.1.0 is in it, and requirements.txt asks for ==25.2.0"),
    ],
)
def test_what_pip_did_not_bring_is_refused(task: Path, change: Callable[[Path], None], asked: str, words: str) -> None:
    """Chalice says so on its standard error and goes on."""
    change(task)
    with pytest.raises(PackageError, match=re.escape(words)):
        wheels.check(task, asked, "python3.11")


def test_what_the_runtime_has_need_not_be_packaged(task: Path) -> None:
    distribution(task, "more", "1.0", "boto3>=1.30", "jmespath")
    wheels.check(task, ASKED + "more==1.0", "python3.11")


@pytest.mark.parametrize(
    ("platform", "abi", "ours"),
    [
        ("linux-x86_64", "cpython-311-x86_64-linux-gnu", True),
        ("linux-x86_64", "cpython-311-x86_64-linux-musl", False),
        ("linux-aarch64", "cpython-311-aarch64-linux-gnu", False),
        ("macosx-14.0-arm64", "cpython-311-darwin", False),
    ],
)
def test_which_machine_loads_what_lambda_loads(
    monkeypatch: pytest.MonkeyPatch, platform: str, abi: str, ours: bool
) -> None:
    monkeypatch.setattr(sysconfig, "get_platform", lambda: platform)
    monkeypatch.setattr(sysconfig, "get_config_var", lambda _: abi)
    assert bytecode._is_lambdas_machine() is ours
