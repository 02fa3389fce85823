"""Whether what pip brought runs on Lambda: every requirement is there, and compiled code is for Lambda's machine.

Chalice has pip download wheels for Lambda in place of those of this machine. Where pip finds none, it takes what it has
or goes on without, and the functions would fail at their first import.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from email.parser import HeaderParser
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from deploy.errors import PackageError

MACHINES = {"x86_64": (62, "x86_64"), "arm64": (183, "aarch64")}
"""Lambda's architectures: the machine in an ELF file's head, and in the tags of wheels."""
_ELF_MACHINES = {3: "32-bit x86", 40: "32-bit ARM", 62: "x86_64", 183: "aarch64", 243: "RISC-V"}
_MACH_O = {bytes.fromhex(magic) for magic in ("feedface", "feedfacf", "cefaedfe", "cffaedfe", "cafebabe")}
_LIBRARY = re.compile(r"\.(so|pyd|dylib|dll)(\.\d+)*$")
_PYTHON_TAG = re.compile(r"\.cpython-(\d)(\d+)[a-z]*(?:-([a-z0-9_]+)-([a-z]+)-?([a-z0-9]+)?)?\.so$")
_GLIBC = re.compile(rb"GLIBC_2\.(\d+)")
# What AWS's image of the runtime has: Chalice does not package it, and neither do we.
PROVIDED = {"boto3", "botocore", "s3transfer", "jmespath", "python-dateutil", "six", "urllib3"}
# Needed to build argon2 from its source alone (deploy/package.py leaves them out).
LEFT_OUT = {"cffi", "pycparser"}
_DO = (
    "pip has to find wheels for Linux on {machine} (manylinux), also on a Mac or on an ARM machine: look whether its "
    "index has them. Or package on a Linux machine with {machine} and glibc."
)


def glibc(runtime: str) -> int:
    """The minor version of the runtime's C library: 2.26 on Amazon Linux 2, 2.34 on Amazon Linux 2023."""
    return 34 if int(runtime.removeprefix("python3.")) >= 12 else 26


def check(task: Path, requirements: str, runtime: str, architecture: str = "x86_64") -> None:
    """Look through a folder that is to be the functions' code.

    Args:
        requirements: the text of requirements.txt.

    Raises:
        PackageError: what is missing, or what Lambda could not load, and what to do.
    """
    machine = MACHINES[architecture][1]
    wrong = [*_missing(task, requirements, runtime, machine), *_foreign(task, runtime, architecture)]
    if wrong:
        raise PackageError(
            f"The package would not run on Lambda ({runtime}, {machine}):\n  "
            + "\n  ".join(wrong)
            + "\n"
            + _DO.format(machine=machine)
        )


def _missing(task: Path, requirements: str, runtime: str, machine: str) -> Iterator[str]:
    metadata = [HeaderParser().parsestr(path.read_text("utf-8")) for path in task.glob("*.dist-info/METADATA")]
    there = {canonicalize_name(one["Name"]): one for one in metadata}
    environment: Mapping[str, str] = {
        **{key: str(value) for key, value in default_environment().items()},
        "sys_platform": "linux",
        "platform_system": "Linux",
        "os_name": "posix",
        "platform_machine": machine,
        "python_version": runtime.removeprefix("python"),
        "python_full_version": f"{runtime.removeprefix('python')}.0",
        "extra": "",
    }
    lines = [line.partition("#")[0].strip() for line in requirements.splitlines()]
    todo = [("requirements.txt", Requirement(line)) for line in lines if line]
    seen: set[str] = set()
    while todo:
        who, requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        if name in seen or (requirement.marker is not None and not requirement.marker.evaluate(dict(environment))):
            continue
        seen.add(name)
        if name in there:
            found = there[name]["Version"]
            if not requirement.specifier.contains(found, prereleases=True):
                yield f"{requirement.name} {found} is in it, and {who} asks for {requirement.specifier}"
            todo += [(name, Requirement(one)) for one in there[name].get_all("Requires-Dist", [])]
        elif name not in PROVIDED | LEFT_OUT:
            yield f"{requirement.name}, which {who} asks for, is not in it: pip got none that Lambda could load"


def _foreign(task: Path, runtime: str, architecture: str) -> Iterator[str]:
    for path in sorted(task.rglob("*")):
        if path.is_file() and _LIBRARY.search(path.name):
            reason = _reason(path, runtime, architecture)
            if reason is not None:
                yield f"{path.relative_to(task)} is {reason}"


def _reason(path: Path, runtime: str, architecture: str) -> str | None:  # noqa: PLR0911 - one return a reason
    content = path.read_bytes()
    number, machine = MACHINES[architecture]
    if content[:4] in _MACH_O:
        return "for macOS"
    if content[:2] == b"MZ":
        return "for Windows"
    if content[:4] != b"\x7fELF" or len(content) < 20:
        return "no library that Linux loads"
    order = "little" if content[5] == 1 else "big"
    found = int.from_bytes(content[18:20], "little" if order == "little" else "big")
    if found != number or content[4] != 2:
        return f"for {_ELF_MACHINES.get(found, f'another machine ({found})')}"
    if b"libc.musl" in content or "-musl" in path.name:
        return "for musl (Alpine), and Lambda has glibc"
    if (tag := _PYTHON_TAG.search(path.name)) is not None:
        version = f"python{tag[1]}.{tag[2]}"
        if version != runtime:
            return f"for {version}"
        if tag[3] and tag[3] != machine:
            return f"for {tag[3]}"
    if (needs := max((int(one) for one in _GLIBC.findall(content)), default=0)) > glibc(runtime):
        return f"for glibc 2.{needs}, and Lambda's {runtime} has 2.{glibc(runtime)}"
    return None
