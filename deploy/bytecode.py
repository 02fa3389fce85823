"""Compiles what the functions import: Lambda's code is read-only, so each cold start would compile it again.

Of this Python's version, which is the runtime's (deploy/package.py). Never looked up again against the source: a zip is
unpacked with its times, and changes as a whole or not at all.
"""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

import botocore

from deploy.errors import PackageError

# Both run in a Python of their own: what is loaded already would hide what a function loads, and by what is interned
# it even changes the bytes that come out.
_LOADED = """
import ast, importlib, importlib.machinery, json, os, pathlib, sys
task, packages = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
sys.dont_write_bytecode = True
os.environ["NOD_STAGE"] = "package"
foreign = set(json.loads(sys.argv[3]))

# Compiled code of Lambda's machine, which this one cannot load: what is installed here stands in for it.
class Here:
    def find_spec(name, path=None, target=None):
        return importlib.machinery.PathFinder.find_spec(name, [str(packages)]) if name in foreign else None

sys.meta_path.insert(0, Here)
sys.path[:0] = [str(task)]
sys.path.append(str(packages))
importlib.import_module("app")
ours = [task / "app.py", *sorted((task / "chalicelib").rglob("*.py"))]
for path in ours[1:]:
    importlib.import_module(".".join(path.relative_to(task).with_suffix("").parts).removesuffix(".__init__"))
# What a function imports when it is called.
for node in (node for path in ours for node in ast.walk(ast.parse(path.read_bytes()))):
    if isinstance(node, ast.ImportFrom) and node.module:
        importlib.import_module(node.module)
    elif isinstance(node, ast.Import):
        for alias in node.names:
            importlib.import_module(alias.name)
files = {getattr(module, "__file__", None) or "" for module in list(sys.modules.values())}
names = {file.removeprefix(f"{root}/") for file in files for root in (task, packages) if file.startswith(f"{root}/")}
print(json.dumps(sorted(name for name in names if name.endswith(".py") and (task / name).is_file())))
"""
_COMPILE = """
import importlib.util, json, py_compile, sys
task, names = sys.argv[1], json.loads(sys.stdin.read())
for name in names:
    py_compile.compile(
        f"{task}/{name}",
        cfile=importlib.util.cache_from_source(f"{task}/{name}"),
        dfile=f"/var/task/{name}",
        doraise=True,
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )
"""


def add(task: Path) -> None:
    """Compile, beside their sources, the modules that the functions import. The same sources make the same bytes.

    Raises:
        PackageError: a module does not import.
    """
    packages = str(Path(botocore.__file__).parents[1])
    foreign = [] if _is_lambdas_machine() else sorted(_compiled(task))
    names = json.loads(_run(_LOADED, [str(task), packages, json.dumps(foreign)]).splitlines()[-1])
    _run(_COMPILE, [str(task)], json.dumps(names))


def _is_lambdas_machine() -> bool:
    """Whether this machine loads what Lambda loads: Linux, x86_64, glibc."""
    return sysconfig.get_platform() == "linux-x86_64" and "musl" not in (sysconfig.get_config_var("SOABI") or "")


def _compiled(task: Path) -> set[str]:
    """The modules and packages of a folder that have compiled code."""
    return {path.relative_to(task).parts[0].partition(".")[0] for path in task.rglob("*.so")}


def _run(script: str, arguments: Sequence[str], given: str = "") -> str:
    run = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script, *arguments],
        input=given,
        capture_output=True,
        text=True,
        check=False,
    )
    if run.returncode != 0:
        raise PackageError(f"The packaged app does not import:\n{run.stderr.strip()[-2000:]}")
    return run.stdout
