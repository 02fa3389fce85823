"""What each workflow may do with AWS: all that its states call, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from tests.aws.workflows import LOGICAL_IDS, NAMES, states, template

# Done by AWS in the name of who calls: CreateFleet runs, tags, hands over the role and looks up the image.
ON_BEHALF = {"launch": {"ec2:RunInstances", "ec2:CreateTags", "iam:PassRole", "ssm:GetParameters"}}
# These take no resource, as the service authorization reference has it.
WITHOUT_RESOURCE = {"ec2:DescribeInstances"}
OF_SDK = {"states": "states", "sfn": "states"}


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def statements(name: str) -> list[dict[str, Any]]:
    (policy,) = template()["Resources"][LOGICAL_IDS[name]]["Properties"]["Policies"]
    return policy["Statement"]


def called(name: str) -> set[str]:
    found = set()
    for state in states(name):
        resource = state.body.get("Resource", "")
        if ":::" in resource:
            service, action = resource.split(":::")[1].removeprefix("aws-sdk:").split(".")[0].split(":")
            if action == "transactWriteItems":
                # No action of its own in IAM: what is in the transaction is what has to be allowed.
                found |= {f"dynamodb:{kind}Item" for one in state.body["Parameters"]["TransactItems"] for kind in one}
                continue
            found.add(f"{OF_SDK.get(service, service)}:{action[0].upper()}{action[1:]}")
        elif resource:
            found.add("lambda:InvokeFunction")
    return found


@pytest.mark.parametrize("name", NAMES)
def test_a_workflow_may_do_what_its_states_call_and_nothing_else(name: str) -> None:
    allowed = {action for one in statements(name) for action in listed(one["Action"])}
    assert allowed == called(name) | ON_BEHALF.get(name, set())


@pytest.mark.parametrize("name", NAMES)
def test_a_workflow_may_call_the_functions_of_its_states(name: str) -> None:
    functions = {s.body["Resource"].split(":")[-1] for s in states(name) if ":function:" in s.body.get("Resource", "")}
    (statement,) = [one for one in statements(name) if one["Action"] == "lambda:InvokeFunction"]
    assert {one["GetAtt"] for one in listed(statement["Resource"])} == {f"{function}.Arn" for function in functions}


@pytest.mark.parametrize("name", NAMES)
def test_a_workflow_touches_only_this_deployments_machines(name: str) -> None:
    for statement in statements(name):
        assert statement["Effect"] == "Allow"
        actions = set(listed(statement["Action"]))
        resources = [str(one) for one in listed(statement["Resource"])]
        assert "*" not in resources or actions <= WITHOUT_RESOURCE
        if any(one.endswith("instance/*'}") for one in resources) and actions != {"ec2:CreateFleet"}:
            condition = statement["Condition"]
            ours = condition.get("StringEquals", {})
            assert any(
                key.endswith("/nod:deployment") and value == {"Ref": "Stage"} for key, value in ours.items()
            ) or condition["ArnEquals"]["ec2:InstanceProfile"] == {"GetAtt": "NotebookProfile.Arn"}
