"""The evaluator of IAM policies, `@cloud-copilot/iam-simulate`, which knows resources and conditions."""

from __future__ import annotations

import functools
import json
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.aws.iam.authorization import Authorization
from tests.aws.iam.deployment import ACCOUNT, listed

ROOT = Path(__file__).resolve().parents[3]
Policies = Sequence[Mapping[str, Any]]

# The reference says that these take no resource, and the evaluator goes by it. AWS asks for the state machine all the
# same: its refusal names one (NOAA-OWP/hydrovis#837), and the CDK, which tried it, grants it so (aws-cdk#8486). So they
# are judged as an action that has a state machine for a resource and is in none of our policies.
STAND_IN = {
    "states:SendTaskSuccess": "states:DescribeStateMachine",
    "states:SendTaskFailure": "states:DeleteStateMachine",
}
RESOURCES = {
    # Public parameters and AWS's own documents belong to no account, and the evaluator takes their ARNs for none.
    "arn:aws:ssm:([a-z0-9-]*)::": r"arn:aws:ssm:\1:000000000000:",
    # The collection of WebSocket and HTTP APIs is in AWS's reference (API Gateway Management V2) and not in the
    # evaluator's: judged as a collection that is in none of our policies.
    r"(arn:aws:apigateway:[a-z0-9-]*::)/apis(?=\"|$)": r"\1/vpclinks",
}


@dataclass(frozen=True)
class Question:
    """Whether these policies allow this."""

    policies: Policies
    asked: Authorization


@dataclass(frozen=True)
class Answer:
    """`ignored`: context keys that the action does not have, so that no condition can rest on them."""

    allowed: bool
    ignored: tuple[str, ...]
    error: str | None


def ask(questions: Sequence[Question]) -> list[Answer]:
    """An answer for each question, all in one process."""
    roles: dict[int, int] = {}
    documents: list[Policies] = []
    cases = []
    for one in questions:
        if id(one.policies) not in roles:
            roles[id(one.policies)] = len(documents)
            documents.append([_with_stand_ins(policy) for policy in one.policies])
        asked = one.asked
        cases.append(
            {
                "role": roles[id(one.policies)],
                "action": STAND_IN.get(asked.action, asked.action),
                "resource": _known(asked.resource),
                "context": asked.context,
            }
        )
    run = subprocess.run(
        [_node(), str(Path(__file__).with_name("simulate.mjs"))],
        input=json.dumps({"account": ACCOUNT, "roles": documents, "cases": cases}),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-4000:]
    answers = [Answer(one["allowed"], tuple(one["ignored"]), one.get("error")) for one in json.loads(run.stdout)]
    assert len(answers) == len(questions)
    return answers


@functools.cache
def _node() -> str:
    found = shutil.which("node")
    assert found, "node is missing: `make test` installs it (local/setup.sh)"
    assert (ROOT / "node_modules/@cloud-copilot/iam-simulate").is_dir(), "run `npm ci` (local/setup.sh does)"
    return found


def _known(text: str) -> str:
    """With ARNs that the evaluator knows."""
    for pattern, stand_in in RESOURCES.items():
        text = re.sub(pattern, stand_in, text)
    return text


def _with_stand_ins(policy: Mapping[str, Any]) -> Mapping[str, Any]:
    changed: dict[str, Any] = json.loads(_known(json.dumps(policy)))
    for statement in changed["Statement"]:
        statement["Action"] = [STAND_IN.get(action, action) for action in listed(statement["Action"])]
    return changed
