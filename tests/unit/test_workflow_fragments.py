"""Workflows of fragments: what a tag becomes, what is refused with its line, and that no file repeats what has one."""

from __future__ import annotations

import inspect
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy import definitions
from deploy.__main__ import main
from deploy.errors import InputError
from local.aws import definitions as language
from statemachine import build, fragments
from statemachine.build import DefinitionError

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "statemachine").glob("*.asl.yaml"))
DOCS = (ROOT / "docs" / "workflows.md").read_text(encoding="utf-8")
FRAGMENTS = {**fragments.FOR_STATES, **fragments.FOR_PARTS}
WRITE = """
  A State: !write
    condition: "#state = :ready"
    update: SET seen = :seen, updated_at = :now
    values: {seen: $.seen}
    attempts: 8
    Next: The End
"""


def written(folder: Path, states: str) -> Path:
    path = folder / "flow.asl.yaml"
    path.write_text(f"StartAt: A State\nStates:\n{states.lstrip(chr(10))}  The End: {{Type: Succeed}}\n")
    return path


def made(folder: Path, states: str) -> dict[str, Any]:
    whole: dict[str, Any] = build.expanded(written(folder, states))["States"]
    del whole["The End"]
    return whole


def refused(folder: Path, states: str) -> str:
    with pytest.raises(DefinitionError) as failure:
        build.expanded(written(folder, states))
    return str(failure.value)


# What a fragment becomes


def test_a_write_says_its_names_and_values_from_its_expressions(tmp_path: Path) -> None:
    state = made(tmp_path, WRITE)["A State"]
    assert {key: state[key] for key in ("Type", "Resource", "TimeoutSeconds", "ResultPath", "Next")} == {
        "Type": "Task",
        "Resource": "arn:aws:states:::aws-sdk:dynamodb:updateItem",
        "TimeoutSeconds": 30,
        "ResultPath": None,
        "Next": "The End",
    }
    assert state["Parameters"] == {
        "TableName": "${NotebooksTable}",
        "Key": {"id": {"S.$": "$.id"}},
        "ConditionExpression": "#state = :ready",
        "UpdateExpression": "SET seen = :seen, updated_at = :now",
        "ExpressionAttributeNames": {"#state": "state"},
        "ExpressionAttributeValues": {
            ":ready": {"S": "ready"},
            ":seen": {"S.$": "$.seen"},
            ":now": {"S.$": "$$.State.EnteredTime"},
        },
    }
    (retrier,) = state["Retry"]
    assert retrier["MaxAttempts"] == 8 and "DynamoDb.ThrottlingException" in retrier["ErrorEquals"]


def test_a_ledger_line_is_appended_by_the_same_write_and_is_the_records_error(tmp_path: Path) -> None:
    ledger = "    ledger: {action: stop, code: stop_failed, by: stop, reason: \"States.Format('Of {}', $.name)\"}\n"
    text = WRITE.replace("SET seen = :seen, updated_at = :now", '"SET seen = :seen, #error = :error"') + ledger
    parameters = made(tmp_path, text)["A State"]["Parameters"]
    assert parameters["UpdateExpression"] == (
        "SET ledger_lines = list_append(if_not_exists(ledger_lines, :no_lines), :lines), seen = :seen, #error = :error"
    )
    values = parameters["ExpressionAttributeValues"]
    code, reason = {"S": "stop_failed"}, {"S.$": "States.Format('Of {}', $.name)"}
    (line,) = values[":lines"]["L"]
    assert line["M"] == {
        "at": {"S.$": "$$.State.EnteredTime"},
        "action": {"S": "stop"},
        "code": code,
        "by": {"S": "stop"},
        "reason": reason,
    }
    assert values[":no_lines"] == {"L": []}
    assert values[":error"] == {"M": {"code": code, "message": reason}}


def test_a_document_brings_the_look_behind_it(tmp_path: Path) -> None:
    text = """
  A State: !run-document
    document: configure-tls
    instance: $.instance_id
    parameters: {Region: $.region, Kind: plain}
    seconds: ${ShortSeconds}
    looks: ${ShortLooks}
    on_failure: The End
    ResultPath: $.tls
    Next: The End
"""
    states = made(tmp_path, text)
    assert list(states) == ["A State", "Look for A State"]
    sent, look = states.values()
    assert sent["Parameters"]["Parameters"] == {
        "TaskToken.$": "States.Array($$.Task.Token)",
        "Region.$": "States.Array($.region)",
        "Kind": ["plain"],
    }
    assert sent["TimeoutSeconds"] == "${ShortSeconds}" and look["Retry"][0]["MaxAttempts"] == "${ShortLooks}"
    assert sent["Parameters"]["DocumentName"] == look["Parameters"]["document"] == "${DocumentPrefix}configure-tls"
    assert [one["Next"] for one in sent["Catch"]] == ["Look for A State", "The End"]
    bare = made(tmp_path, text.replace("    ResultPath: $.tls\n", "")).values()
    assert [state["ResultPath"] for state in bare] == [None, None], "the workflow's input would be lost"
    for state in (sent, look):
        assert (state["ResultPath"], state["Next"]) == ("$.tls", "The End")


def test_what_a_state_says_itself_takes_the_place_of_the_fragments(tmp_path: Path) -> None:
    own = (
        '    Retry: [!retry-ec2 {attempts: 3}, {ErrorEquals: ["States.ALL"], MaxAttempts: 1}]\n    TimeoutSeconds: 5\n'
    )
    own += "    Catch: [!condition-failed The End]\n"
    state = made(tmp_path, WRITE + own)["A State"]
    assert [one["ErrorEquals"][0] for one in state["Retry"]] == ["Ec2.Ec2Exception", "States.ALL"]
    assert state["TimeoutSeconds"] == 5
    (catcher,) = state["Catch"]
    assert catcher["Next"] == "The End" and catcher["ResultPath"] is None


def test_fragments_stand_in_branches_too(tmp_path: Path) -> None:
    states = (
        "  A State:\n    Type: Parallel\n    Next: The End\n    Branches:\n      - StartAt: Inner\n        States:\n"
    )
    inner = "          Inner: !record-step {finished: configure_tls, started: [start_monitor], End: true}\n"
    state = made(tmp_path, states + inner)["A State"]
    (branch,) = state["Branches"]
    assert branch["States"]["Inner"]["Parameters"]["UpdateExpression"] == (
        "SET updated_at = :now, steps.configure_tls.finished_at = :now, steps.start_monitor.started_at = :now"
    )


def test_numbers_stay_numbers_and_what_only_cloudformation_knows_stays_a_placeholder(tmp_path: Path) -> None:
    states = (
        '  A State: {Type: Wait, Seconds: "${Seconds}", Comment: "${Seconds} at ${Stage}, ${Arn}", Next: The End}\n'
    )
    values = {"Seconds": 5, "Stage": "12", "Arn": {"Ref": "New"}}
    found = build.definition(written(tmp_path, states), values)["States"]["A State"]
    assert found["Seconds"] == 5 and found["Comment"] == "5 at 12, ${Arn}"
    with pytest.raises(DefinitionError, match=r"^flow\.asl\.yaml: DefinitionSubstitutions has no Arn, Seconds\.$"):
        build.definition(written(tmp_path, states), {"Stage": "x"})


# What is refused


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("!write", "!wirte", "3: there is no fragment !wirte; there are !read, !write, "),
        ("condition:", "condtion:", "4: !write takes no `condtion`; it takes condition, update, "),
        ("    attempts: 8\n", "", "3: !write needs `attempts`."),
        (
            "attempts: 8",
            "attempts: [8]",
            "7: !write: `attempts` must be a whole number or a placeholder for one, not [8].",
        ),
        ("attempts: 8", "attempts: true", "7: !write: `attempts` must be a whole number"),
        ("values: {seen: $.seen}", "values: {}", "3: !write: has no value for :seen."),
        (":ready", ":raedy", "3: !write: has no value for :raedy."),
        ("{seen: $.seen}", "{seen: $.seen, more: x}", "3: !write: does not use :more."),
        ("{seen: $.seen}", "{seen: 5}", "3: !write: `seen` must be a text or an attribute value"),
        ("    attempts: 8\n", "    attempts: 8\n    names: {gone: x}\n", "3: !write: does not use #gone."),
        ("    attempts: 8\n", "    attempts: 8\n    table: notes\n", "3: !write: `table` must be one of notebooks, "),
        ("    attempts: 8\n", "    attempts: 8\n    attempts: 9\n", "8: has `attempts` twice."),
        (
            "    attempts: 8\n",
            "    attempts: 8\n    ledger: {action: a, code: b, by: c}\n",
            "a `ledger` needs `reason`.",
        ),
        ("    Next: The End\n", "", "3: !write needs `Next` or `End`."),
        ("!write\n", "!write now\n  X:\n", "3: !write takes parameters"),
        ("!write", "!condition-failed", "4: !condition-failed takes no `condition`; it takes then."),
        ("{seen: $.seen}", "{seen: !read {attributes: x, attempts: 1, Next: Y}}", "6: !read stands for a state"),
        ("{seen: $.seen}", "{seen: &anchor $.seen, other: *anchor}", "6: has an alias"),
        ("{seen: $.seen}", "{seen: $.seen[0]}", "6: "),
        (
            "updated_at = :now",
            "#error = :now",
            "5: `SET seen = :seen,` ends before `#error = :now`, which YAML takes for a ",
        ),
        ("  A State: !write", "  A State: !write {}\n  Else: !write", "3: !write needs "),
    ],
)
def test_a_mistake_is_told_with_its_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    made(tmp_path, WRITE)
    assert WRITE.count(old) >= 1
    said = refused(tmp_path, WRITE.replace(old, new, 1))
    assert said.startswith("flow.asl.yaml:")
    assert message in said


def test_a_state_that_two_fragments_make_is_refused(tmp_path: Path) -> None:
    one = "{code: a, message: b, workflow: stop, Next: The End}"
    said = refused(tmp_path, f"  A State: !explain-failure {one}\n  Another: !explain-failure {one}\n")
    assert said == "flow.asl.yaml:4: makes the state `Explain Nothing`, which exists already."


def test_a_file_that_is_no_state_machine_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "flow.asl.yaml"
    for text in (
        "",
        "[]",
        "StartAt: X",
        "States: []",
        "States: {X: y}",
        "States: {X: {Branches: y}}",
        "a: [",
        "x: !read",
    ):
        path.write_text(text)
        with pytest.raises(DefinitionError, match=r"^flow\.asl\.yaml:1: "):
            build.expanded(path)


# The files and their description


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_what_is_deployed_is_plain_amazon_states_language(path: Path) -> None:
    text = definitions.of_checkout(path.name.removesuffix(".asl.yaml"))[path.name.removesuffix(".asl.yaml")]
    assert '"!' not in text
    filled = re.sub(r"\$\{(\w+)\}", "arn:aws:lambda:us-east-1:123456789012:function:x", text)
    assert language.problems(filled) == []


def test_a_definition_is_printed_by_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["definitions", "undo"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(definitions.of_checkout("undo")["undo"])
    assert set(definitions.of_checkout()) == {path.name.removesuffix(".asl.yaml") for path in FILES}
    with pytest.raises(InputError, match="no workflow nope; there are launch"):
        definitions.of_checkout("nope")


def nodes(node: yaml.Node) -> Iterator[tuple[str, yaml.Node]]:
    """Every value of every mapping in a file, by its key."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield key.value, value
            yield from nodes(value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from nodes(value)


def retriers(text: str) -> list[str]:
    """The error lists that a file's retriers spell out."""
    return [
        " ".join(error.value for error in errors.value)
        for key, retry in nodes(yaml.compose(text))
        if key == "Retry"
        for retrier in retry.value
        if not retrier.tag.startswith("!")
        for name, errors in nodes(retrier)
        if name == "ErrorEquals"
    ]


def test_no_list_of_errors_is_spelled_out_twice_in_a_retry() -> None:
    found = Counter(one for path in FILES for one in retriers(path.read_text(encoding="utf-8")))
    assert found
    assert [one for one, count in found.items() if count > 1] == []
    twice = "A: {Retry: [{ErrorEquals: [X, Y]}]}\nB: {Retry: [{ErrorEquals: [X, Y]}, !retry-ec2 {}]}"
    assert retriers(twice) == ["X Y", "X Y"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_line_of_a_workflow_has_at_most_120_characters(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [number for number, line in enumerate(lines, 1) if len(line) > 120] == []


@pytest.mark.parametrize("tag", FRAGMENTS)
def test_every_fragment_is_used_and_described_with_its_parameters(tag: str) -> None:
    assert any(f"{tag} " in text or f"{tag}\n" in text for text in (path.read_text() for path in FILES))
    (row,) = [line for line in DOCS.splitlines() if line.startswith(f"| `{tag}` ")]
    taken = [one.name for one in inspect.signature(FRAGMENTS[tag]).parameters.values() if one.kind is one.KEYWORD_ONLY]
    assert re.findall(r"`(\w+)`", row.split("|")[3]) == taken
