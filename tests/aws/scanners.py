"""The scanners, each run over what it knows, and the findings that are argued (.scan-exceptions.yaml)."""

from __future__ import annotations

import fnmatch
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.aws.iam.deployment import principals
from tests.aws.packaged import folder, transformed

ROOT = Path(__file__).resolve().parents[2]
SCAN = Path(sys.prefix) / "scan" / "bin"
EXCEPTIONS = ROOT / ".scan-exceptions.yaml"
ROOMS = ("app.py", "chalicelib", "instance", "nod", "admin", "deploy", "local", "statemachine")


@dataclass(frozen=True)
class Finding:
    """What a scanner does not like: its own name of the check, and where."""

    tool: str
    check: str
    where: str
    text: str

    def __str__(self) -> str:
        return f"{self.tool} {self.check} {self.where}: {self.text[:300]}"


@dataclass(frozen=True)
class Argued:
    """Findings that stay. `check` and `where` are patterns of file names."""

    tool: str
    check: str
    where: tuple[str, ...]
    reason: str

    def covers(self, finding: Finding) -> bool:
        """Whether the finding is one of these."""
        return (
            self.tool == finding.tool
            and fnmatch.fnmatchcase(finding.check, self.check)
            and any(fnmatch.fnmatchcase(finding.where, one) for one in self.where)
        )


def argued() -> list[Argued]:
    """What .scan-exceptions.yaml holds."""
    return [
        Argued(one["tool"], one["check"], tuple(one["where"]), one["reason"])
        for one in yaml.safe_load(EXCEPTIONS.read_text(encoding="utf-8"))
    ]


def run(tool: str, arguments: Sequence[str], given: str | None = None, codes: Sequence[int] = (0,)) -> str:
    """A scanner's output. `codes`: with which it may end."""
    program = SCAN / tool if (SCAN / tool).exists() else Path(sys.executable).with_name(tool)
    assert program.exists(), f"{tool} is missing: `make test` installs it (local/setup.sh)"
    done = subprocess.run(
        [str(program), *arguments],
        input=given,
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=120,
        check=False,
        env={**os.environ, "AWS_DEFAULT_REGION": "eu-central-1", "LOG_LEVEL": "ERROR"},
    )
    assert done.returncode in codes, f"{tool} ended with {done.returncode}: {(done.stderr or done.stdout)[-2000:]}"
    return done.stdout


def cfn_lint() -> list[Finding]:
    """The template as it is deployed, with SAM's own resources."""
    # 2, 4, 6, 8, 12, 14: errors, warnings, informations in all mixtures.
    out = run("cfn-lint", ["--format", "json", str(folder() / "template.json")], codes=(0, 2, 4, 6, 8, 10, 12, 14))
    return [
        Finding(
            "cfn-lint", one["Rule"]["Id"], "/".join(map(str, one["Location"]["Path"] or ["template"])), one["Message"]
        )
        for one in json.loads(out or "[]")
    ]


def checkov(scratch: Path) -> list[Finding]:
    """The template after SAM's transform: before it, there are no roles, stages and permissions to look at."""
    path = scratch / "template.json"
    path.write_text(json.dumps(transformed()), encoding="utf-8")
    out = run(
        "checkov",
        ["-f", str(path), "--framework", "cloudformation", "-o", "json", "--quiet", "--compact", "--skip-download"],
        codes=(0, 1),
    )
    found = json.loads(out)
    assert found["summary"]["resource_count"] > 50 and not found["summary"]["parsing_errors"]
    return [
        Finding("checkov", one["check_id"], one["resource"], one["check_name"])
        for one in found["results"]["failed_checks"]
    ]


def policies() -> list[Finding]:
    """parliament and cloudsplaining over every policy of ours, as CloudFormation would resolve it."""
    documents = {
        f"{principal.name} {number}": policy
        for principal in principals().values()
        for number, policy in enumerate(principal.policies)
    }
    assert len(documents) > 10
    found: list[dict[str, Any]] = json.loads(
        run("python", [str(Path(__file__).with_name("scan_policies.py"))], json.dumps(documents))
    )
    return [Finding(**one) for one in found]


def bandit() -> list[Finding]:
    """All Python that is deployed or run, at every severity."""
    out = run("bandit", ["-q", "-r", *ROOMS, "-f", "json"], codes=(0, 1))
    found = json.loads(out)
    assert not found["errors"]
    return [
        Finding("bandit", one["test_id"], one["filename"].removeprefix("./"), one["issue_text"])
        for one in found["results"]
    ]
