"""What root on a machine may do with AWS: its role, read as IAM reads it."""

from __future__ import annotations

from typing import Any

from tests.aws.workflows import template

# The Systems Manager agent's, none of which takes a resource that we could name.
AGENT = {"ssmmessages", "ec2messages"}
AGENT_ALONE = {"ssm:UpdateInstanceInformation", "ssm:ListInstanceAssociations"}


def statements() -> list[dict[str, Any]]:
    role = template()["Resources"]["NotebookRole"]["Properties"]
    assert "ManagedPolicyArns" not in role, "AWS's own policy for the agent reads every parameter of the account"
    return [one for policy in role["Policies"] for one in policy["PolicyDocument"]["Statement"]]


def actions(statement: dict[str, Any]) -> list[str]:
    found = statement["Action"]
    return [found] if isinstance(found, str) else found


def test_the_agent_has_its_channels_and_reads_no_parameter() -> None:
    for statement in statements():
        assert statement["Effect"] == "Allow"
        assert not {"NotAction", "NotResource"} & statement.keys()
        for action in actions(statement):
            assert "*" not in action
            assert action.split(":")[0] in AGENT or action in AGENT_ALONE or action == "dynamodb:UpdateItem", (
                f"{action} is new: may root on a machine that we do not trust have it?"
            )


def test_a_machine_writes_its_own_heartbeat_and_no_other_row_or_table() -> None:
    (statement,) = [one for one in statements() if "dynamodb:UpdateItem" in actions(one)]
    assert actions(statement) == ["dynamodb:UpdateItem"]
    assert statement["Resource"] == {"GetAtt": "HeartbeatsTable.Arn"}
    condition = statement["Condition"]
    (keys,) = [value for operator, value in condition.items() if operator.endswith("StringEquals")]
    # Equals, not Like: the value is the ARN that EC2 vouches for. ForAllValues is true of a request without the key,
    # and a variable that is not set would compare as text: so both have to be there.
    assert keys == {"dynamodb:LeadingKeys": ["${ec2:SourceInstanceARN}"]}
    assert condition["Null"] == {"dynamodb:LeadingKeys": "false", "ec2:SourceInstanceARN": "false"}
    assert len(condition) == 2


def test_a_machine_asks_the_metadata_service_by_token_from_itself_only() -> None:
    data = template()["Resources"]["NotebookLaunchTemplate"]["Properties"]["LaunchTemplateData"]
    assert data["MetadataOptions"]["HttpTokens"] == "required"
    assert data["MetadataOptions"]["HttpPutResponseHopLimit"] == 1
    assert data["InstanceInitiatedShutdownBehavior"] == "stop"
