"""What a template refers to. CloudFormation says one wrong name at a time, and only when it is asked to deploy."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

_NAME = re.compile(r"\$\{([^!][^}]*)\}")


def names(value: Any) -> Iterator[str]:
    """Every name that a Ref, GetAtt or Sub in the value refers to, without attribute; pseudo parameters left out."""
    if isinstance(value, list):
        for item in value:
            yield from names(item)
    if not isinstance(value, dict):
        return
    for key, item in value.items():
        found: Iterator[str]
        if key == "Ref" and isinstance(item, str):
            found = iter((item,))
        elif key == "Fn::GetAtt":
            found = iter((item[0] if isinstance(item, list) else item.split(".")[0],))
        elif key == "Fn::Sub":
            found = _substituted(item)
        else:
            found = names(item)
        yield from (name for name in found if not name.startswith("AWS::"))


def _substituted(argument: Any) -> Iterator[str]:
    text, own = (argument, {}) if isinstance(argument, str) else (argument[0], argument[1])
    for match in _NAME.finditer(text):
        name = match.group(1).split(".")[0]
        if name not in own:
            yield name
    yield from names(own)


def conditions(value: Any) -> Iterator[str]:
    """Every condition that the value names."""
    if isinstance(value, list):
        for item in value:
            yield from conditions(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key == "Condition" and isinstance(item, str):
                yield item
            elif key == "Fn::If":
                yield str(item[0])
                yield from conditions(item[1:])
            else:
                yield from conditions(item)


def unresolved(template: Mapping[str, Any]) -> dict[str, list[str]]:
    """What is not there, by who refers to it: parameters, resources, conditions."""
    there = {*template.get("Parameters", {}), *template["Resources"]}
    found: dict[str, list[str]] = {}
    parts = {**template["Resources"], **template.get("Outputs", {}), "Globals": template.get("Globals", {})}
    parts["Conditions"] = template.get("Conditions", {})
    for who, part in parts.items():
        wanted = set(names(part)) | set(_listed(part.get("DependsOn", [])) if "Type" in part else ())
        missing = sorted(wanted - there)
        missing += sorted(set(conditions(part)) - set(template.get("Conditions", {}))) if "Type" in part else []
        if missing:
            found[who] = missing
    return found


def _listed(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value)
