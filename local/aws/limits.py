"""What AWS's models of its services say of values: required members, enumerations, lengths, ranges, patterns.

botocore's models state them; botocore itself looks at a part, and moto at little. The words are those with which AWS
refuses such a call (`… failed to satisfy constraint: …`).
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl

from botocore.model import ListShape, MapShape, OperationModel, Shape, StructureShape
from moto.core.parse import PROTOCOL_PARSERS
from moto.core.utils import get_service_model
from werkzeug.datastructures import MultiDict

OPEN = {"InstanceType"}
"""Enumerations that AWS adds to every few weeks: a model of last month does not know all."""

ANY_FORM = {"InstanceId"}
"""Not held to its pattern: an id of another form is answered like one that nobody knows, for short ids in tests."""

_UNICODE = (
    ("\\p{L}", "\\w"),
    ("\\p{N}", "\\w"),
    ("\\p{M}", "\\w"),
    ("\\p{Z}", " \u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"),
)


SERVICES = {
    "dynamodb": "dynamodb",
    "ec2": "ec2",
    "events": "events",
    "sns": "sns",
    "sqs": "sqs",
    "ssm": "ssm",
    "states": "stepfunctions",
}
"""botocore's names of the services that are looked at, by their names in a signature."""

CODES = {"ec2": "InvalidParameterValue", "sns": "ValidationError"}
"""What a service calls such a refusal, where it is not `ValidationException`."""


MESSAGE_BYTES = 262_144
"""Of a message of SNS with its attributes."""
MOST_TAGS, TAG_KEY, TAG_VALUE = 50, 128, 256


def refusal(service: str, action: str, body: bytes) -> tuple[str, str] | None:
    """With which code and in which words a service refuses a call; None if its model has nothing against it."""
    operation = _operation(service, action)
    if operation is None or operation.input_shape is None:
        return None
    try:
        given = _parsed(operation, body)
    except (ValueError, TypeError, KeyError):
        # moto says what it makes of it.
        return None
    found = list(violations(operation.input_shape, given))
    if not found:
        return _beyond_the_model(service, action, given)
    words = f"{len(found)} validation error{'s' if len(found) > 1 else ''} detected: {'; '.join(found)}"
    return CODES.get(service, "ValidationException"), words


def _beyond_the_model(service: str, action: str, given: Any) -> tuple[str, str] | None:
    """Limits that a service's guide states and its model does not."""
    if (service, action) == ("sns", "Publish"):
        subject = given.get("Subject")
        # "Subjects must be ASCII text that begins with a letter, number, or punctuation mark; must not include line
        # breaks or control characters; and must be less than 100 characters long."
        if subject is not None and not re.fullmatch(r"[!-~][ -~]{0,98}", subject):
            return "InvalidParameter", "Invalid parameter: Subject"
        if not given.get("Message"):
            return "InvalidParameter", "Invalid parameter: Empty message"
        attributes = given.get("MessageAttributes") or {}
        texts = [given["Message"], *attributes]
        texts += [str(one.get(key, "")) for one in attributes.values() for key in ("DataType", "StringValue")]
        if sum(len(text.encode()) for text in texts) > MESSAGE_BYTES:
            return "InvalidParameter", "Invalid parameter: Message too long"
    if service == "ec2":
        for tags in _tags(given):
            if (wrong := _wrong_tag(tags)) is not None:
                return wrong
    return None


def _tags(value: Any) -> Iterator[list[dict[str, str]]]:
    if isinstance(value, dict):
        for key, one in value.items():
            if key == "Tags" and isinstance(one, list):
                yield one
            else:
                yield from _tags(one)
    elif isinstance(value, list):
        for one in value:
            yield from _tags(one)


def _wrong_tag(tags: list[dict[str, str]]) -> tuple[str, str] | None:
    keys = [tag.get("Key") or "" for tag in tags]
    if len(keys) > MOST_TAGS:
        return "TagLimitExceeded", f"The maximum number of Tags for a resource is {MOST_TAGS}."
    if any(keys.count(key) > 1 for key in keys):
        return "InvalidParameterValue", "Duplicate tag key specified."
    for tag, key in zip(tags, keys, strict=True):
        if key.startswith("aws:"):
            return "InvalidParameterValue", f"Tag keys starting with 'aws:' are reserved for internal use: {key}"
        if not 1 <= len(key) <= TAG_KEY:
            return "InvalidParameterValue", f"Tag key exceeds the maximum length of {TAG_KEY} characters"
        if len(tag.get("Value") or "") > TAG_VALUE:
            return "InvalidParameterValue", f"Tag value exceeds the maximum length of {TAG_VALUE} characters"
    return None


@functools.cache
def _operation(service: str, action: str) -> OperationModel | None:
    if service not in SERVICES:
        return None
    # moto's, whose parsers read requests into it; the same data as botocore's.
    model = get_service_model(SERVICES[service])
    return model.operation_model(action) if action in model.operation_names else None


def _parsed(operation: OperationModel, body: bytes) -> Any:
    if operation.service_model.protocol == "json" or body[:1] == b"{":
        return json.loads(body or b"{}")
    made: Any = PROTOCOL_PARSERS[operation.service_model.protocol]
    parser = made(operation)
    values = MultiDict(parse_qsl(body.decode("utf-8"), keep_blank_values=True))
    return parser.parse({"values": values, "body": body, "headers": {}, "method": "POST", "url_path": "/"})


def violations(shape: Shape | None, value: Any, where: str = "") -> Iterator[str]:
    """What AWS would say against a value with the API's names, a member at a time."""
    if shape is None or value is None:
        return
    if isinstance(shape, StructureShape):
        yield from _structure(shape, value, where)
    elif isinstance(shape, ListShape):
        if not isinstance(value, list):
            yield _said(value, where, "Member must be a list")
            return
        yield from _length(shape, value, where)
        for index, one in enumerate(value):
            yield from violations(shape.member, one, f"{where}.{index + 1}.member")
    elif isinstance(shape, MapShape):
        if not isinstance(value, dict):
            yield _said(value, where, "Member must be a map")
            return
        yield from _length(shape, value, where)
        for key, one in value.items():
            yield from violations(shape.key, key, where)
            yield from violations(shape.value, one, f"{where}.{key}.member")
    else:
        yield from _scalar(shape, value, where)


def _structure(shape: StructureShape, value: Any, where: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield _said(value, where, "Member must be a structure")
        return
    prefix = f"{where}." if where else ""
    for name in shape.required_members:
        if value.get(name) is None:
            yield _said(None, prefix + _small(name), "Member must not be null")
    for name, one in value.items():
        yield from violations(shape.members.get(name), one, prefix + _small(name))


def _scalar(shape: Shape, value: Any, where: str) -> Iterator[str]:
    kind = shape.type_name
    if kind == "string":
        if not isinstance(value, str):
            yield _said(value, where, "Member must be a string")
            return
        enum = getattr(shape, "enum", None)
        if enum and shape.name not in OPEN and value not in enum:
            yield _said(value, where, f"Member must satisfy enum value set: [{', '.join(enum)}]")
        yield from _length(shape, value, where)
        pattern = None if shape.name in ANY_FORM else _pattern(shape.metadata.get("pattern"))
        if pattern is not None and not pattern.fullmatch(value):
            yield _said(value, where, f"Member must satisfy regular expression pattern: {shape.metadata['pattern']}")
    elif kind in {"integer", "long", "float", "double"}:
        if isinstance(value, bool) or not isinstance(value, int | float):
            yield _said(value, where, "Member must be a number")
            return
        least, most = shape.metadata.get("min"), shape.metadata.get("max")
        if least is not None and value < least:
            yield _said(value, where, f"Member must have value greater than or equal to {least}")
        if most is not None and value > most:
            yield _said(value, where, f"Member must have value less than or equal to {most}")
    elif kind == "boolean" and not isinstance(value, bool):
        yield _said(value, where, "Member must be a boolean")


def _length(shape: Shape, value: Any, where: str) -> Iterator[str]:
    least, most = shape.metadata.get("min"), shape.metadata.get("max")
    if least is not None and len(value) < least:
        yield _said(value, where, f"Member must have length greater than or equal to {least}")
    if most is not None and len(value) > most:
        yield _said(value, where, f"Member must have length less than or equal to {most}")


@functools.cache
def _pattern(text: str | None) -> re.Pattern[str] | None:
    # Java's; what Python cannot read is not looked at.
    if text is None:
        return None
    for java, python in _UNICODE:
        text = text.replace(java, python)
    try:
        return re.compile(text)
    except re.error:
        return None


def _small(name: str) -> str:
    return name[:1].lower() + name[1:]


def _said(value: Any, where: str, rule: str) -> str:
    text = "null" if value is None else f"'{value}'"
    return f"Value {text if len(text) <= 200 else f'{text[:200]}…'} at '{where}' failed to satisfy constraint: {rule}"
