"""Compiles what the functions import: Lambda's code is read-only, so each cold start would compile it again.

Of this Python's version, which is the runtime's (deploy/package.py). Never looked up again against the source: a zip is
unpacked with its times, and changes as a whole or not at all.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import botocore

from deploy.errors import PackageError

# Both run in a Python of their own: what is loaded already would hide what a function loads, and by what is interned
# it even changes the bytes that come out.
_LOADED = """
import importlib, json, os, pathlib, sys
task = pathlib.Path(sys.argv[1])
sys.path[:0] = [str(task)]
sys.path.append(sys.argv[2])
sys.dont_write_bytecode = True
os.environ["NOD_STAGE"] = "package"
importlib.import_module("app")
for path in sorted((task / "chalicelib").rglob("*.py")):
    importlib.import_module(".".join(path.relative_to(task).with_suffix("").parts).removesuffix(".__init__"))
files = {getattr(module, "__file__", None) or "" for module in list(sys.modules.values())}
ours = [pathlib.Path(file) for file in files if file.startswith(f"{task}/") and file.endswith(".py")]
print(json.dumps(sorted(str(path.relative_to(task)) for path in ours)))
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
    names = json.loads(_run(_LOADED, [str(task), packages]).splitlines()[-1])
    _run(_COMPILE, [str(task)], json.dumps(names))


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
