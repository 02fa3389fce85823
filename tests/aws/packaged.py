"""The package as `make package` makes it, once for all tests until something that goes into it changes."""

from __future__ import annotations

import compileall
import fcntl
import functools
import hashlib
import json
import os
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import boto3
from samtranslator.translator.transform import transform  # type: ignore[import-untyped]

from deploy.package import package

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "build" / "packaged-for-tests" / "package"
# What `make package` reads.
SOURCES = (
    "app.py",
    "requirements.txt",
    "requirements-local.txt",
    "chalicelib",
    ".chalice",
    "statemachine",
    "instance",
    "deploy",
)
CIDRS = ("198.51.100.0/24", "2001:db8::/32")
STAGE = "prod"
# What AWS's image of a Python runtime has beside Python: boto3, and what that needs.
RUNTIME = ("boto3", "botocore", "s3transfer", "jmespath", "dateutil", "six.py", "urllib3")


@functools.cache
def folder() -> Path:
    """What `make package STAGE=prod CIDR=…` leaves."""
    digest = hashlib.sha256(f"{sys.version} {STAGE} {CIDRS}".encode())
    for name in SOURCES:
        whole = ROOT / name
        for path in sorted(whole.rglob("*")) if whole.is_dir() else [whole]:
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(str(path).encode() + path.read_bytes())
    FOLDER.parent.mkdir(parents=True, exist_ok=True)
    with (FOLDER.parent / "lock").open("w") as lock:
        # The processes of a test run wait for the first.
        fcntl.flock(lock, fcntl.LOCK_EX)
        stamp = FOLDER.parent / "of"
        if not stamp.exists() or stamp.read_text() != digest.hexdigest():
            stamp.unlink(missing_ok=True)
            package(STAGE, CIDRS, FOLDER)
            stamp.write_text(digest.hexdigest())
    return FOLDER


def template() -> dict[str, Any]:
    """The packaged template, a fresh copy."""
    loaded: dict[str, Any] = json.loads((folder() / "template.json").read_text(encoding="utf-8"))
    return loaded


def resources(kind: str) -> dict[str, dict[str, Any]]:
    """The resources of one type by logical id."""
    return {name: one for name, one in template()["Resources"].items() if one["Type"] == kind}


@functools.cache
def transformed() -> dict[str, Any]:
    """What CloudFormation makes of it: the transform of AWS's own translator, with the uploads in place."""
    source = template()
    for resource in source["Resources"].values():
        properties = resource.get("Properties", {})
        for name in ("CodeUri", "DefinitionUri"):
            if name in properties:
                properties[name] = {"Bucket": "bucket", "Key": f"{'0' * 64}.zip"}
    with mock.patch.dict(os.environ, {"AWS_DEFAULT_REGION": "us-east-1"}):
        made: dict[str, Any] = transform(source, {}, _ManagedPolicies())
    return made


class _ManagedPolicies:
    def load(self) -> dict[str, str]:
        # Roles name AWS's own policies by their ARNs.
        return {}


def lay_out(root: Path) -> tuple[Path, Path]:
    """The code as Lambda has it: /var/task with the zip unpacked, and the runtime's packages beside it."""
    task, runtime = root / "task", root / "runtime"
    with zipfile.ZipFile(folder() / "deployment.zip") as code:
        code.extractall(task)
    runtime.mkdir()
    site = Path(boto3.__file__).parents[1]
    for name in RUNTIME:
        (runtime / name).symlink_to(site / name)
    # The only one that is no folder, so that its bytecode is not beside it.
    compileall.compile_file(runtime / "six.py", quiet=2)
    return task, runtime


def strings(value: Any) -> Iterator[str]:
    """Every text in the value, keys too."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield str(key)
            yield from strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)
    elif isinstance(value, str):
        yield value
