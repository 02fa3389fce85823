"""What each principal asks of IAM while the product runs: recorded on the local cloud, kept in calls.json.

Ids, and the names of stage, account and region, are placeholders (`${instance}`), so that one recording serves every
deployment. `python -m tests.aws.iam.record` writes the file anew; test_recording.py says when that is due.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from local.recorder import Call
from tests.aws.iam.authorization import Authorization, Facts, needed

FILE = Path(__file__).with_name("calls.json")


@dataclass(frozen=True)
class Recorded:
    """An authorization, who asked for it, and the API call that made it necessary."""

    principal: str
    call: str
    authorization: Authorization

    def key(self) -> str:
        """Equal for equal ones; sorts."""
        asked = self.authorization
        return json.dumps([self.principal, asked.action, asked.resource, self.call, asked.context], sort_keys=True)


def recorded(calls: Iterable[Call], facts: Facts, placeholders: Sequence[tuple[str, str]]) -> list[Recorded]:
    """The authorizations of recorded calls, each once, sorted. `placeholders`: pattern and name. Of each call, the
    tags of what it names were `seen`."""
    patterns = [(re.compile(pattern), name) for pattern, name in placeholders]

    def general(value: Any) -> Any:
        if isinstance(value, str):
            for pattern, name in patterns:
                value = pattern.sub(name, value)
            return value
        if isinstance(value, Mapping):
            return {key: general(item) for key, item in value.items()}
        return sorted({general(item) for item in value})

    found: dict[str, Recorded] = {}
    for call in calls:
        for asked in needed(call.service, call.operation, call.parameters, replace(facts, tags=call.seen or {})):
            one = Recorded(
                general(call.principal),
                f"{call.service}:{call.operation}",
                Authorization(asked.action, general(asked.resource), general(asked.context)),
            )
            found[one.key()] = one
    return [found[key] for key in sorted(found)]


def to_json(entries: Sequence[Recorded]) -> str:
    """The text of the file: one authorization a line, by principal."""
    lines = []
    for principal in sorted({one.principal for one in entries}):
        mine = [
            "    "
            + json.dumps(
                {
                    "call": one.call,
                    "action": one.authorization.action,
                    "resource": one.authorization.resource,
                    "context": one.authorization.context,
                },
                sort_keys=False,
            )
            for one in entries
            if one.principal == principal
        ]
        lines.append(f"  {json.dumps(principal)}: [\n" + ",\n".join(mine) + "\n  ]")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def load() -> list[Recorded]:
    """What the file holds."""
    return [
        Recorded(principal, one["call"], Authorization(one["action"], one["resource"], one["context"]))
        for principal, entries in json.loads(FILE.read_text(encoding="utf-8")).items()
        for one in entries
    ]
