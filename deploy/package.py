"""Makes build/package: the template, the functions' code, the state machines' definitions."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from deploy import bytecode, definitions, runtimes, wheels
from deploy import template as templates
from deploy.errors import PackageError
from instance.build import documents

ROOT = Path(__file__).resolve().parents[1]
TEMPLATE, CODE, DEFINITIONS = "template.json", "deployment.zip", "statemachine"
SOURCES = ("app.py", "requirements.txt", "chalicelib", ".chalice", "statemachine")
# What wheels bring and no function reads: the pages of an API's documentation, the compilers of cffi (argon2 loads
# _cffi_backend alone), slack_sdk under its former name, tests, caches of another machine's Python.
UNUSED = re.compile(
    r"(^|/)(tests|__pycache__|swagger_ui)/|\.pyc$|^cffi/|^cffi-[^/]+/|^pycparser/|^pycparser-[^/]+/|^slack/|^setup\.py$"
)
# A time of its own would make another hash of the same code, and so another deployment.
EPOCH = (1980, 1, 1, 0, 0, 0)


def runtime(version: tuple[int, int] = sys.version_info[:2]) -> str:
    """Lambda's name of this Python, which Chalice packages for.

    Raises:
        PackageError: Lambda has no such runtime.
    """
    return runtimes.of_python(version)


def package(stage: str, cidrs: tuple[str, ...], folder: Path) -> Path:
    """Package the app for a stage into the folder, which is made anew. Gives the template's path.

    Raises:
        PackageError: what Chalice or pip says, what CloudFormation would refuse, or what Lambda could not load.
    """
    name_of_runtime = runtime()
    with tempfile.TemporaryDirectory(prefix="nod-package-") as name:
        project, made, task = Path(name) / "project", Path(name) / "made", Path(name) / "task"
        _copy(project, stage)
        _chalice(project, stage, made)
        template: dict[str, Any] = yaml.safe_load((made / "sam.yaml").read_text(encoding="utf-8"))
        templates.complete(template, stage, cidrs, documents())
        _check_runtime(template, name_of_runtime)
        unpack(made / CODE, task)
        wheels.check(task, (ROOT / "requirements.txt").read_text(encoding="utf-8"), name_of_runtime)
        bytecode.add(task)
        shutil.rmtree(folder, ignore_errors=True)
        (folder / DEFINITIONS).mkdir(parents=True)
        pack(task, folder / CODE)
        for machine in templates.of_type(template, "AWS::Serverless::StateMachine"):
            _definition(template["Resources"][machine]["Properties"], folder)
    path = folder / TEMPLATE
    path.write_text(json.dumps(template, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return path


def _check_runtime(template: Mapping[str, Any], name: str) -> None:
    for function in templates.of_type(template, "AWS::Serverless::Function"):
        # Chalice takes the newest that it knows for a Python that it does not know.
        if (given := template["Resources"][function]["Properties"]["Runtime"]) != name:
            raise PackageError(
                f"Chalice packages {function} for {given}, and this is {name}. Set up again with a Python that Chalice "
                f"knows, for example: make clean package PYTHON={given}"
            )


def _copy(project: Path, stage: str) -> None:
    ignored = shutil.ignore_patterns("__pycache__", "deployments", "deployed")
    project.mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, project / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, project)
    path = project / ".chalice" / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    # Any stage can be packaged; app.py asks for its name when Chalice imports it.
    config["stages"] = {stage: {"environment_variables": {"NOD_STAGE": stage}}}
    path.write_text(json.dumps(config), encoding="utf-8")


def _chalice(project: Path, stage: str, made: Path) -> None:
    arguments = [
        "package",
        f"--stage={stage}",
        "--merge-template=.chalice/resources.yaml",
        "--template-format=yaml",
        str(made),
    ]
    run = subprocess.run(
        [sys.executable, "-c", "from chalice.cli import main; main()", *arguments],
        cwd=project,
        # Chalice wants a region, which does not get into the package.
        env={"AWS_DEFAULT_REGION": "us-east-1", **os.environ},
        capture_output=True,
        text=True,
        check=False,
    )
    if run.returncode != 0:
        raise PackageError(f"Chalice could not package the app:\n{(run.stderr or run.stdout).strip()[-4000:]}")


def unpack(made: Path, task: Path) -> None:
    """Unpack a zip without what no function uses."""
    with zipfile.ZipFile(made) as whole:
        whole.extractall(task, [name for name in whole.namelist() if not UNUSED.search(name)])


def pack(task: Path, made: Path) -> None:
    """Pack a folder. The same files make the same bytes."""
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as packed:
        for path in sorted(task.rglob("*")):
            if path.is_file():
                entry = zipfile.ZipInfo(str(path.relative_to(task)), EPOCH)
                entry.compress_type = zipfile.ZIP_DEFLATED
                entry.external_attr = 0o644 << 16
                packed.writestr(entry, path.read_bytes())


def _definition(machine: dict[str, Any], folder: Path) -> None:
    """Write a definition beside the template, and let the template name it."""
    source = Path(machine["DefinitionUri"]).name
    substitutions: dict[str, Any] = machine.get("DefinitionSubstitutions", {})
    name = f"{source.removesuffix('.yaml')}.json"
    text = definitions.as_json(ROOT / DEFINITIONS / source, substitutions)
    (folder / DEFINITIONS / name).write_text(text, encoding="utf-8")
    machine["DefinitionUri"] = f"./{DEFINITIONS}/{name}"
    machine["DefinitionSubstitutions"] = {key: one for key, one in substitutions.items() if isinstance(one, dict)}
