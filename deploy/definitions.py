"""The state machines' definitions as they are deployed: fragments expanded, the numbers of substitutions in place."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from deploy.errors import InputError, PackageError
from statemachine import build

ROOT = Path(__file__).resolve().parents[1]
RESOURCES = ROOT / ".chalice" / "resources.yaml"
_SUFFIX = ".asl.yaml"


class _Loader(yaml.SafeLoader):
    """CloudFormation's template, whose tags stand for what only CloudFormation knows."""


_Loader.add_multi_constructor("!", lambda _loader, tag, node: {tag: node.value})


def as_json(path: Path, substitutions: Mapping[str, Any]) -> str:
    """A definition as it is packaged. What CloudFormation alone knows stays a placeholder.

    JSON, since Step Functions reads it in one way only; of YAML, CloudFormation's reader knows less than others do.

    Raises:
        PackageError: A fragment or a substitution is wrong.
    """
    try:
        made = build.definition(path, substitutions)
    except build.DefinitionError as error:
        raise PackageError(str(error)) from error
    return json.dumps(made, indent=1) + "\n"


def of_checkout(name: str = "") -> dict[str, str]:
    """The definitions of this checkout by their names: one, or all where none is named.

    Raises:
        InputError: There is no workflow of that name.
        PackageError: A fragment or a substitution is wrong.
    """
    resources = yaml.load(RESOURCES.read_text(encoding="utf-8"), _Loader)["Resources"]  # noqa: S506 - a safe loader
    machines = {
        Path(properties["DefinitionUri"]).name.removesuffix(_SUFFIX): properties
        for properties in (one.get("Properties", {}) for one in resources.values())
        if "DefinitionUri" in properties
    }
    if name and name not in machines:
        raise InputError(f"There is no workflow {name}; there are {', '.join(machines)}.")
    return {
        one: as_json(RESOURCES.parent / properties["DefinitionUri"], properties.get("DefinitionSubstitutions", {}))
        for one, properties in machines.items()
        if name in ("", one)
    }
