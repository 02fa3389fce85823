"""Names inside SDK integrations of Step Functions (`arn:aws:states:::aws-sdk:…`).

Step Functions calls AWS with the Java SDK, so parameters and results have the names of that SDK's beans, not those of
the API: `Ss` for DynamoDB's `SS`, `DbInstanceIdentifier` for RDS's `DBInstanceIdentifier` (boto3#4253,
aws-sdk-js#4294). A name that the SDK does not know is refused: in the definition when the state machine is made
(aws-cdk#10014), in what arrives by a path when the task starts.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import botocore.session
from botocore.model import ListShape, MapShape, OperationModel, Shape, StructureShape

SERVICES = {"sfn": "stepfunctions", "eventbridge": "events", "sesv2": "sesv2", "cloudwatchlogs": "logs"}
"""botocore's names for services that the Java SDK calls otherwise."""

RENAMED = {("AttributeValue", "NULL"): "NUL"}
"""Members that the Java SDK's own configuration renames: NULL would be a getter `getNull`."""

PREFIX = "arn:aws:states:::aws-sdk:"


@dataclass(frozen=True)
class Wrong:
    """What Step Functions does not take, as it says it, and where it stands below the parameters."""

    message: str
    where: str


def bean(name: str) -> str:
    """The Java SDK's bean name of a member: of the capitals that it begins with, the first stays.

    The last of them stays too if a lower-case letter follows, for it begins the next word. Capitals further on stay as
    they are: `OpenIDConnectProviderArn`. (The SDK's code generator: DefaultNamingStrategy, Utils.unCapitalize.)
    """
    end = 1
    while end < len(name) and name[end].isupper() and not name[end + 1 : end + 2].islower():
        end += 1
    return name[:1].upper() + name[1:end].lower() + name[end:]


def members(shape: StructureShape) -> dict[str, tuple[str, Shape]]:
    """Bean name → the API's name and the shape, for each member of a structure."""
    return {_bean_of(shape, name): (name, inner) for name, inner in shape.members.items()}


def _bean_of(shape: StructureShape, name: str) -> str:
    return bean(RENAMED.get((str(shape.name), name), name))


@functools.cache
def _service(name: str) -> Any:
    return botocore.session.get_session().get_service_model(SERVICES.get(name, name))


def operation(resource: str) -> OperationModel | None:
    """The operation that an SDK integration calls; None for another kind of resource.

    Raises:
        ValueError: AWS has no such service or operation.
    """
    if not resource.startswith(PREFIX):
        return None
    service, _, action = resource.removeprefix(PREFIX).split(".", 1)[0].partition(":")
    return named(service, action)


@functools.cache
def named(service: str, action: str) -> OperationModel:
    """The operation of a service by the names of a resource, such as `dynamodb` and `updateItem`. Raises ValueError."""
    try:
        model = _service(service)
        by_bean = {bean(name): name for name in model.operation_names}
        # An action is written as Java writes a method: its first letter, or the capitals it begins with, are small.
        return model.operation_model(by_bean[action[:1].upper() + action[1:]])  # type: ignore[no-any-return]
    except (KeyError, botocore.exceptions.UnknownServiceError):
        raise ValueError(f"The resource aws-sdk:{service}:{action} is not recognized.") from None


def check(shape: Shape | None, value: Any, where: str = "", *, template: bool) -> Iterator[Wrong]:
    """What Step Functions would refuse in the parameters of a call.

    Args:
        template: the value is a definition's, in which a key that ends in `.$` stands for what is not known yet.
    """
    last = where.rpartition("/")[2]
    if isinstance(shape, StructureShape | MapShape) and not isinstance(value, dict):
        yield Wrong(f'The value for the field "{last}" must be an OBJECT', where)
    elif isinstance(shape, ListShape) and not isinstance(value, list):
        yield Wrong(f'The value for the field "{last}" must be an ARRAY', where)
    elif isinstance(shape, StructureShape):
        yield from _check_members(shape, value, where, template=template)
    elif isinstance(shape, ListShape):
        for index, one in enumerate(value):
            yield from check(shape.member, one, f"{where}/{index}", template=template)
    elif isinstance(shape, MapShape):
        for key, one in value.items():
            if not (template and key.endswith(".$")):
                yield from check(shape.value, one, f"{where}/{key}", template=template)
    elif shape is not None and isinstance(value, dict | list) and shape.type_name != "blob":
        yield Wrong(f'The value for the field "{last}" must be a {shape.type_name.upper()}', where)


def _check_members(shape: StructureShape, value: dict[str, Any], where: str, *, template: bool) -> Iterator[Wrong]:
    known = members(shape)
    given = {key.removesuffix(".$") if template else key: key for key in value}
    for name, key in given.items():
        if name not in known:
            yield Wrong(f'The field "{name}" is not supported by Step Functions', where)
        elif not (template and key.endswith(".$")):
            yield from check(known[name][1], value[key], f"{where}/{name}", template=template)
    for name, (api, _) in known.items():
        if api in shape.required_members and name not in given:
            yield Wrong(f'The field "{name}" is required but was missing', where)


def to_api(shape: Shape | None, value: Any) -> Any:
    """Parameters of an SDK integration with the API's names. What is unknown stays as it is: see `check`."""
    if isinstance(shape, StructureShape) and isinstance(value, dict):
        known = members(shape)
        return {
            known[key][0] if key in known else key: to_api(known[key][1] if key in known else None, one)
            for key, one in value.items()
        }
    return _inside(to_api, shape, value)


def from_api(shape: Shape | None, value: Any) -> Any:
    """An answer of the API with the names that Step Functions gives it."""
    if isinstance(shape, StructureShape) and isinstance(value, dict):
        return {_bean_of(shape, key): from_api(shape.members.get(key), one) for key, one in value.items()}
    return _inside(from_api, shape, value)


def _inside(convert: Any, shape: Shape | None, value: Any) -> Any:
    if isinstance(shape, ListShape) and isinstance(value, list):
        return [convert(shape.member, one) for one in value]
    if isinstance(shape, MapShape) and isinstance(value, dict):
        return {key: convert(shape.value, one) for key, one in value.items()}
    return value
