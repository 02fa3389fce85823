"""Scanners: every finding is put right or argued in .scan-exceptions.yaml (docs/security.md), and nothing is argued
that no scanner finds any more."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.aws import scanners
from tests.aws.scanners import Finding

TOOLS: dict[str, Callable[[Path], list[Finding]]] = {
    "cfn-lint": lambda _: scanners.cfn_lint(),
    "checkov": scanners.checkov,
    "policies": lambda _: scanners.policies(),
    "bandit": lambda _: scanners.bandit(),
}
NAMES = {"policies": {"parliament", "cloudsplaining"}}


@pytest.mark.parametrize("tool", TOOLS)
def test_every_finding_is_argued_and_every_argument_needed(tool: str, tmp_path: Path) -> None:
    found = TOOLS[tool](tmp_path)
    names = NAMES.get(tool, {tool})
    assert {one.tool for one in found} <= names
    arguments = [one for one in scanners.argued() if one.tool in names]
    assert not [str(one) for one in found if not any(argument.covers(one) for argument in arguments)]
    assert not [one for one in arguments if not any(one.covers(finding) for finding in found)], "argued for nothing"


def test_each_argument_says_why() -> None:
    for one in scanners.argued():
        assert one.tool in {"cfn-lint", "checkov", "parliament", "cloudsplaining", "bandit"}
        assert len(one.reason) > 40, one


def test_no_known_vulnerability_in_what_is_deployed_or_installed() -> None:
    """pip-audit asks the index for what is known of each version; one that tells nothing of them proves nothing."""
    out = scanners.run(
        "pip-audit",
        [
            "-r",
            "requirements.txt",
            "-r",
            "requirements-local.txt",
            "--no-deps",
            "--disable-pip",
            "-f",
            "json",
            "--progress-spinner",
            "off",
        ],
        codes=(0, 1),
    )
    audited = json.loads(out)["dependencies"]
    assert audited
    if all("skip_reason" in one for one in audited):
        pytest.skip("no index with vulnerabilities can be reached from here")
    assert not [one for one in audited if one.get("vulns")]


def test_scanners_see_what_is_wrong(tmp_path: Path) -> None:
    """A scanner that is asked wrongly finds nothing, and nobody would notice."""
    text = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "iam:*", "Resource": "*"}]})
    found = json.loads(
        scanners.run("python", [str(Path(scanners.__file__).with_name("scan_policies.py"))], f'{{"bad": {text}}}')
    )
    assert {one["tool"] for one in found} == {"parliament", "cloudsplaining"}
    bad = tmp_path / "bad.py"
    bad.write_text("import pickle\npickle.loads(open('x', 'rb').read())\n")
    assert "B301" in scanners.run("bandit", ["-q", str(bad), "-f", "json"], codes=(1,))
