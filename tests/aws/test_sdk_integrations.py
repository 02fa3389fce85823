"""The packaged definitions as Step Functions reads them: names by the Java SDK's rule, values within AWS's models.

What stands in a definition, what code puts into a call (the launch plan, the inputs of executions), and what is read of
an answer. The models are botocore's; the rule of names is local/aws/beans.py.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.model import ListShape, MapShape, Shape, StructureShape

from chalicelib import executions
from chalicelib.plan import MOST_RUNGS, launch_plan
from chalicelib.prices import catalogue
from chalicelib.settings import Settings
from local.aws import beans, definitions, limits
from tests.aws.longest import OWNER, STAGE, environment, notebook, user
from tests.aws.packaged import folder, resources

NAMES = ("launch", "password", "start", "stop", "terminate", "undo")


@functools.cache
def tables() -> dict[str, str]:
    found = resources("AWS::DynamoDB::Table").items()
    return {name: one["Properties"]["TableName"]["Fn::Sub"].replace("${Stage}", STAGE) for name, one in found}


@functools.cache
def machine(name: str) -> dict[str, Any]:
    """A packaged definition with the longest values that its placeholders may have."""
    text = (folder() / "statemachine" / f"{name}.asl.json").read_text(encoding="utf-8")
    (properties,) = (
        one["Properties"]
        for one in resources("AWS::Serverless::StateMachine").values()
        if one["Properties"]["DefinitionUri"].endswith(f"/{name}.asl.json")
    )
    values = {key: _resolved(one) for key, one in properties["DefinitionSubstitutions"].items()}
    loaded: dict[str, Any] = json.loads(re.sub(r"\$\{(\w+)\}", lambda match: values[match[1]], text))
    return loaded


def _resolved(value: dict[str, Any]) -> str:
    if "Ref" in value:
        return tables().get(value["Ref"], STAGE)
    if "Fn::GetAtt" in value:
        return f"arn:aws:lambda:ap-southeast-2:123456789012:function:nod-{STAGE}-explain_failure"
    text = value["Fn::Sub"].replace("${Stage}", STAGE).replace("${AWS::Region}", "ap-southeast-2")
    return str(text.replace("${AWS::Partition}", "aws").replace("${AWS::AccountId}", "123456789012"))


def states(definition: dict[str, Any], where: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, state in definition["States"].items():
        yield f"{where}: {name}", state
        for branch in [*state.get("Branches", ()), state.get("ItemProcessor"), state.get("Iterator")]:
            if branch:
                yield from states(branch, where)


CALLS = [
    (where, state)
    for name in NAMES
    for where, state in states(machine(name), name)
    if state["Type"] == "Task" and state["Resource"].startswith(beans.PREFIX)
]


def test_the_workflows_are_those_that_are_packaged() -> None:
    assert {path.name for path in (folder() / "statemachine").iterdir()} == {f"{name}.asl.json" for name in NAMES}
    assert len(CALLS) > 40


@pytest.mark.parametrize("name", NAMES)
def test_step_functions_takes_the_definition(name: str) -> None:
    """Every key of every call, nested, in lists and maps, and the language itself (local/aws/definitions.py)."""
    assert definitions.problems(json.dumps(machine(name))) == []


@pytest.mark.parametrize("key", ["SS", "BOOL", "NULL", "Sss", "s"])
def test_a_wrong_name_deep_in_a_packaged_definition_is_seen(key: str) -> None:
    """The test above can fail: of any attribute value in any call."""
    seen = 0
    for name in NAMES:
        for place in _attributes(json.loads(json.dumps(machine(name)))):
            ((old, _),) = list(place.items())
            wrong = json.dumps(machine(name))
            assert old.removesuffix(".$") in {"S", "N", "M", "L", "Ss", "Bool"}
            before = json.dumps(place)
            wrong = wrong.replace(before, json.dumps({key: place[old]}), 1)
            assert definitions.problems(wrong), f"{name}: {before}"
            seen += 1
    assert seen > 50


def _attributes(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        for inner in (value.get("ExpressionAttributeValues") or {}).values():
            if isinstance(inner, dict):
                yield inner
        for inner in value.values():
            yield from _attributes(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _attributes(inner)


def literals(shape: Shape | None, value: Any, where: str) -> Iterator[tuple[Shape, Any, str]]:
    """What stands in a call's parameters and is no path, with the shape that it has to have."""
    if isinstance(shape, StructureShape):
        known = beans.members(shape)
        for key, inner in value.items():
            if not key.endswith(".$"):
                yield from literals(known[key][1], inner, f"{where}.{key}")
    elif isinstance(shape, MapShape):
        for key, inner in value.items():
            if not key.endswith(".$"):
                yield shape.key, key, where
                yield from literals(shape.value, inner, f"{where}.{key}")
    elif isinstance(shape, ListShape):
        assert len(value) <= shape.metadata.get("max", len(value)), where
        for inner in value:
            yield from literals(shape.member, inner, where)
    elif shape is not None:
        yield shape, value, where


@pytest.mark.parametrize(("where", "state"), CALLS, ids=[where for where, _ in CALLS])
def test_what_a_definition_says_is_within_the_services_limits(where: str, state: dict[str, Any]) -> None:
    operation = beans.operation(state["Resource"])
    assert operation is not None
    for shape, value, place in literals(operation.input_shape, state["Parameters"], where):
        assert list(limits.violations(shape, value, place)) == []


def plan(**more: Any) -> dict[str, Any]:
    """The longest launch plan."""
    settings = Settings.from_env(environment(**more))
    return launch_plan(notebook(), user(), catalogue(), settings).to_json()


def test_the_longest_launch_plan_is_a_call_that_ec2_takes() -> None:
    made = json.loads(json.dumps(plan(NOD_KEY_NAME="mine")))
    (parameters,) = [state["Parameters"] for where, state in CALLS if where == "launch: Create Instance"]
    # Each by its path: the plan is the call, member for member.
    given = {key.removesuffix(".$"): made["fleet"][path.removeprefix("$.fleet.")] for key, path in parameters.items()}
    assert given == made["fleet"]
    shape = beans.named("ec2", "createFleet").input_shape
    assert list(beans.check(shape, given, template=False)) == []
    assert list(limits.violations(shape, beans.to_api(shape, given))) == []
    assert "KeyName" not in json.dumps(made), "an SDK of before July 2026 does not know it in a fleet's overrides"


def test_a_plan_stays_within_what_a_fleet_and_a_workflow_take() -> None:
    """CreateFleet takes 300 overrides; each that EC2 refuses comes back with its launch template, some 2 KB."""
    many = ",".join(f"subnet-{number:017x}" for number in range(160))
    made = plan(NOD_SUBNET_IDS=many)
    overrides = made["fleet"]["LaunchTemplateConfigs"][0]["Overrides"]
    assert len(overrides) == MOST_RUNGS <= 300
    assert overrides[0]["SubnetId"] == many.split(",")[0]
    text = json.dumps(made)
    refusals = MOST_RUNGS * (len(json.dumps(overrides[0])) + 1_900)
    assert len(text) + refusals < 262_144
    assert [one["Priority"] for one in overrides] == [float(number) for number in range(MOST_RUNGS)]


def test_an_ec2_tag_takes_the_longest_values_and_all_characters_of_ours() -> None:
    tags = plan()["fleet"]["TagSpecifications"][0]["Tags"]
    assert len(tags) <= 50
    for tag in tags:
        assert re.fullmatch(r"(?!aws:)[\w .:/=+@-]{1,128}", tag["Key"])
        assert re.fullmatch(r"[\w .:/=+@-]{0,256}", tag["Value"])


@pytest.mark.parametrize("count", [1, 10**6])
def test_names_and_inputs_of_executions_are_within_the_limits(count: int) -> None:
    settings = Settings.from_env(environment())
    one = replace(notebook(), stops=count, starts=count, deletes=count, instance_id="i-0123456789abcdef0")
    begun = [
        executions.stop(one, call=True),
        executions.start(one, settings),
        executions.delete(one, OWNER),
        executions.password(replace(one, passwords=count), one.password_hash or ""),
        executions.Execution(f"{one.id}-undo-{datetime.now(UTC):%Y%m%d%H%M}", {}),
        executions.Execution(one.id, plan()),
    ]
    shape = beans.named("sfn", "startExecution").input_shape
    for execution in begun:
        text = json.dumps(execution.input)
        arn = settings.launch_arn
        call = {"stateMachineArn": arn, "name": execution.name, "input": text}
        assert list(limits.violations(shape, call)) == []
        assert re.fullmatch(r"[A-Za-z0-9_-]{1,80}", execution.name)
        # It is a command's comment too.
        assert len(execution.name) <= 100
