"""The template language, and what becomes of it in the local cloud."""

from pathlib import Path

import pytest

from local.cloudformation import Resolver, TemplateError, load
from local.stack import Stack, logical_id

TEMPLATE = """
Resources:
  Thing:
    Name: !Sub "nod-${Stage}-${Other.Arn}-${!Literal}"
    Other: !GetAtt Other.Arn
    List: !Join [",", [!Ref Stage, !Select [1, [a, b]]]]
    Own: !Sub ["${a}-${Stage}", {a: !Ref Other}]
"""


def resolver() -> Resolver:
    return Resolver({"Stage": "local"}, lambda name: f"ref-{name}", lambda name, attribute: f"{name}/{attribute}")


def test_intrinsic_functions_are_resolved() -> None:
    assert resolver().resolve(load(TEMPLATE)["Resources"]["Thing"]) == {
        "Name": "nod-local-Other/Arn-${Literal}",
        "Other": "Other/Arn",
        "List": "local,b",
        "Own": "ref-Other-local",
    }


@pytest.mark.parametrize(("key", "found"), [("", {"A": 1, "L": []}), ("mine", {"A": 1, "K": "mine", "L": ["mine"]})])
def test_what_a_condition_leaves_out_is_not_there(key: str, found: dict[str, object]) -> None:
    conditions = load('{HasKey: !Not [!Equals [!Ref Key, ""]]}')
    given = Resolver({"Key": key}, str, lambda name, attribute: f"{name}{attribute}", conditions)
    either = '!If [HasKey, !Ref Key, !Ref "AWS::NoValue"]'
    assert given.resolve(load(f"{{A: 1, K: {either}, L: [{either}]}}")) == found
    with pytest.raises(TemplateError, match="Other"):
        given.resolve({"Fn::If": ["Other", 1, 2]})


def test_an_unknown_function_is_an_error() -> None:
    with pytest.raises(TemplateError, match="Fn::Cidr"):
        resolver().resolve({"Fn::Cidr": []})


@pytest.mark.parametrize(
    ("resources", "message"),
    [
        ("{A: {Type: 'AWS::S3::Bucket'}}", "AWS::S3::Bucket"),
        ("{A: {Type: 'AWS::SNS::Topic', Properties: {TopicName: !Ref Nothing}}}", "Nothing"),
        ("{A: {Type: 'AWS::SNS::Topic', Properties: {TopicName: !Ref A}}}", "circle"),
    ],
)
def test_what_cannot_be_made_is_an_error_that_names_it(tmp_path: Path, resources: str, message: str) -> None:
    template = tmp_path / "resources.yaml"
    template.write_text(f"Resources: {resources}\n")
    stack = Stack(
        template,
        {},
        account="1",
        region="us-east-1",
        functions={},
        lambdas=None,
        substitutions={},  # type: ignore[arg-type]
    )
    with pytest.raises(TemplateError, match=message):
        stack.create()


def test_a_parameter_without_a_value_is_an_error(tmp_path: Path) -> None:
    template = tmp_path / "resources.yaml"
    template.write_text("Parameters: {VpcId: {Type: String}}\nResources: {}\n")
    with pytest.raises(TemplateError, match="VpcId"):
        Stack(template, {}, account="1", region="r", functions={}, lambdas=None, substitutions={})  # type: ignore[arg-type]


def test_logical_ids_are_those_of_chalice() -> None:
    assert [logical_id(name) for name in ("tell_owner", "look_for_command", "x")] == [
        "TellOwner",
        "LookForCommand",
        "X",
    ]
