"""What packaging makes of a template: what joins by itself, and what is refused before AWS would."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from deploy import definitions, package, template
from deploy.errors import PackageError

STATEMENT = {"Effect": "Allow", "Action": ["dynamodb:GetItem"], "Resource": "*"}
LOGS = {"Effect": "Allow", "Action": ["logs:CreateLogGroup", "logs:PutLogEvents"], "Resource": "*"}


def source() -> dict[str, Any]:
    return {
        "Resources": {
            "Role": {
                "Type": "AWS::IAM::Role",
                "Properties": {"Policies": [{"PolicyDocument": {"Statement": [LOGS, STATEMENT]}}]},
            },
            "New": {
                "Type": "AWS::Serverless::Function",
                "Properties": {
                    "FunctionName": {"Fn::Sub": "nod-${Stage}-new"},
                    "Role": {"Fn::GetAtt": ["Role", "Arn"]},
                },
            },
            "Flow": {
                "Type": "AWS::Serverless::StateMachine",
                "Properties": {"Name": {"Fn::Sub": "nod-${Stage}-flow"}, "Policies": [{"Statement": [STATEMENT]}]},
            },
        }
    }


def test_a_new_function_gets_a_log_and_loses_the_right_to_make_one() -> None:
    made = source()
    template._function(made, "New")
    assert made["Resources"]["NewLogs"]["Properties"]["LogGroupName"] == {"Fn::Sub": "/aws/lambda/nod-${Stage}-new"}
    statements = made["Resources"]["Role"]["Properties"]["Policies"][0]["PolicyDocument"]["Statement"]
    assert statements[0] == STATEMENT
    assert [one["Action"][0] for one in statements] == [
        "dynamodb:GetItem",
        "logs:CreateLogStream",
        "xray:PutTraceSegments",
    ]


def test_a_new_workflow_gets_a_log_and_keeps_its_rights() -> None:
    made = source()
    template._machine(made, "Flow")
    policies = made["Resources"]["Flow"]["Properties"]["Policies"]
    assert policies[0] == {"Statement": [STATEMENT]}
    assert all(action.startswith("logs:") for action in policies[1]["Statement"][0]["Action"])


@pytest.mark.parametrize(("logical", "key"), [("New", "FunctionName"), ("Flow", "Name")])
@pytest.mark.parametrize("value", [None, "literal"])
def test_one_without_a_name_of_the_deployment_is_refused(logical: str, key: str, value: str | None) -> None:
    made = source()
    made["Resources"][logical]["Properties"][key] = value
    with pytest.raises(PackageError, match=rf"{logical} needs {key}"):
        (template._function if logical == "New" else template._machine)(made, logical)


def test_a_document_that_ssm_would_refuse_is_refused() -> None:
    with pytest.raises(PackageError, match="The document big has"):
        template._documents(source(), {"big": {"text": "x" * 65_537}})


def test_two_parts_cannot_have_one_name() -> None:
    made = {"Resources": {"OperatorsTopic": {}}}
    with pytest.raises(PackageError, match="OperatorsTopic"):
        template._operations(made)


def test_numbers_of_a_definition_are_numbers_and_what_aws_knows_stays(tmp_path: Path) -> None:
    path = tmp_path / "flow.asl.yaml"
    path.write_text("States:\n  Wait:\n    Seconds: ${Seconds}\n    Resource: ${Function}\n    Name: nod-${Stage}-x\n")
    values = {"Seconds": 5, "Function": {"Fn::GetAtt": ["New", "Arn"]}, "Stage": {"Ref": "Stage"}}
    made = json.loads(definitions.as_json(path, values))
    assert made["States"] == {"Wait": {"Seconds": 5, "Resource": "${Function}", "Name": "nod-${Stage}-x"}}


def test_a_placeholder_without_a_value_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "flow.asl.yaml"
    path.write_text("States:\n  Wait: {Seconds: '${Missing}'}\n")
    with pytest.raises(PackageError, match=r"flow\.asl\.yaml: DefinitionSubstitutions has no Missing"):
        definitions.as_json(path, {})


def test_what_chalice_says_is_handed_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(*_: Any, **__: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess([], 1, "", "Could not install dependencies: argon2-cffi")

    monkeypatch.setattr(package.subprocess, "run", fail)
    (tmp_path / "kept").touch()
    with pytest.raises(PackageError, match="argon2-cffi"):
        package.package("prod", (), tmp_path)
    # What was there is not lost.
    assert (tmp_path / "kept").exists()
