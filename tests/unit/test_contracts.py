"""docs/contracts.md against the code, where a machine can check it: names that one room writes and another reads."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from chalicelib import messages
from local.faults import MEANINGS

ROOT = Path(__file__).resolve().parents[2]
CONTRACTS = (ROOT / "docs" / "contracts.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    """What stands under a heading, until the next."""
    _, found, rest = CONTRACTS.partition(f"\n## {title}")
    assert found, title
    return rest.partition("\n## ")[0]


def words(text: str) -> set[str]:
    """What stands in backticks, and words in it."""
    return {word for code in re.findall(r"`([^`\n]+)`", text) for word in (code, *re.findall(r"[\w-]+", code))}


def test_every_setting_is_named_and_no_other() -> None:
    read = set(re.findall(r'"(NOD_[A-Z0-9_]+)"', (ROOT / "chalicelib" / "settings.py").read_text(encoding="utf-8")))
    assert len(read) > 10
    named = {word for word in words(section("Settings")) if word.startswith("NOD_")}
    assert named == read


def test_every_workflow_and_table_is_named() -> None:
    row = next(line for line in section("Names").splitlines() if line.startswith("| every AWS resource"))
    names = words(row)
    machines = {path.name.removesuffix(".asl.yaml") for path in (ROOT / "statemachine").glob("*.asl.yaml")}
    template = (ROOT / ".chalice" / "resources.yaml").read_text(encoding="utf-8")
    tables = set(re.findall(r'TableName: !Sub "?nod-\$\{Stage\}-(\w+)', template))
    assert len(tables) > 3
    for name in machines | tables:
        assert names & {f"-{name}", f"nod-STAGE-{name}"}, name


@pytest.mark.parametrize("path", sorted((ROOT / "instance" / "documents").iterdir()), ids=lambda path: str(path.stem))
def test_every_document_is_named(path: Path) -> None:
    assert path.stem in words(CONTRACTS)
    assert f"`{path.stem}`" in (ROOT / "docs" / "notebook.md").read_text(encoding="utf-8")


def test_every_kind_of_message_is_named() -> None:
    told = (ROOT / "docs" / "messages.md").read_text(encoding="utf-8")
    line = next(line for line in CONTRACTS.splitlines() if line.startswith("Kinds of message:"))
    for kind in (*messages.KINDS, *messages.SERVER_KINDS, messages.DISKS, messages.ORPHAN):
        assert kind in words(line), kind
        assert f"`{kind}`" in told, kind


def test_every_fault_is_named() -> None:
    told = (ROOT / "docs" / "local-cloud.md").read_text(encoding="utf-8")
    for fault in MEANINGS:
        assert fault in words(section("The local cloud")), fault
        assert f"| `{fault}` |" in told, fault
