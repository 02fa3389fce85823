"""What AWS refuses in a state machine's definition when it is made, and moto takes.

Names of states and fields, transitions, counts of Retry, the order of error names, paths, intrinsic functions, and
what SDK integrations are called with. Source: the Amazon States Language, Step Functions' quotas, and what
CreateStateMachine answers (`SCHEMA_VALIDATION_FAILED: … at /States/…`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from local.aws import beans

DEFINITION_BYTES = 1_048_576
NAME_CHARACTERS = 80
MOST_SECONDS = 99_999_999
MOST_DELAY = 31_622_400
INTRINSIC_CHARACTERS = 10_000
MOST_NESTED = 10

_ANY = {"Type", "Comment", "QueryLanguage"}
_FLOW = {"Next", "End", "InputPath", "OutputPath"}
_RESULT = {"Parameters", "ResultPath", "Assign", "Output", "Arguments"}
_WORK = {"ResultSelector", "Retry", "Catch"}
_LIMITS = {"TimeoutSeconds", "TimeoutSecondsPath", "HeartbeatSeconds", "HeartbeatSecondsPath"}
_MAP = {
    "Iterator",
    "ItemProcessor",
    "ItemReader",
    "ItemSelector",
    "ItemBatcher",
    "Items",
    "ItemsPath",
    "Label",
    "MaxConcurrency",
    "MaxConcurrencyPath",
    "ResultWriter",
    "ToleratedFailureCount",
    "ToleratedFailureCountPath",
    "ToleratedFailurePercentage",
    "ToleratedFailurePercentagePath",
}
FIELDS = {
    "Task": _ANY | _FLOW | _RESULT | _WORK | _LIMITS | {"Resource", "Credentials"},
    "Pass": _ANY | _FLOW | _RESULT | {"Result"},
    "Wait": _ANY | _FLOW | {"Seconds", "SecondsPath", "Timestamp", "TimestampPath", "Assign", "Output"},
    "Choice": _ANY | {"InputPath", "OutputPath", "Choices", "Default", "Assign", "Output"},
    "Succeed": _ANY | {"InputPath", "OutputPath", "Output"},
    "Fail": _ANY | {"Error", "ErrorPath", "Cause", "CausePath"},
    "Parallel": _ANY | _FLOW | _RESULT | _WORK | {"Branches"},
    "Map": _ANY | _FLOW | _RESULT | _WORK | _MAP,
}
"""Which fields each type of state has."""

INTRINSICS = {
    "States.Array": (0, None),
    "States.ArrayContains": (2, 2),
    "States.ArrayGetItem": (2, 2),
    "States.ArrayLength": (1, 1),
    "States.ArrayPartition": (2, 2),
    "States.ArrayRange": (3, 3),
    "States.ArrayUnique": (1, 1),
    "States.Base64Decode": (1, 1),
    "States.Base64Encode": (1, 1),
    "States.Format": (1, None),
    "States.Hash": (2, 2),
    "States.JsonMerge": (3, 3),
    "States.JsonToString": (1, 1),
    "States.MathAdd": (2, 2),
    "States.MathRandom": (2, 3),
    "States.StringSplit": (2, 2),
    "States.StringToJson": (1, 1),
    "States.UUID": (0, 0),
}
"""Intrinsic functions with the fewest and the most arguments that each takes."""

# Dots and brackets; wildcards, slices and filters, which a reference path may not have, in brackets or behind `..`.
_STEP = r"""(\.[A-Za-z_$\u0080-\uffff][\w$\u0080-\uffff-]*|\[-?\d+\]|\['[^']+'\]|\["[^"]+"\])"""
_REFERENCE = re.compile(rf"\$\$?{_STEP}*")
_PATH = re.compile(rf"\$\$?({_STEP}|\.?\*|\[\*\]|\[-?\d*:-?\d*\]|\[\d+(,\d+)+\]|\[\?\(.*\)\]|\.\.[A-Za-z_]\w*)*")
_WORD = re.compile(r"\s*(States\.\w+)\s*\(")
_LITERAL = re.compile(r"\s*(-?\d+(?:\.\d+)?|true|false|null)\s*(?=[,)])")
_TEXT = re.compile(r"\s*'((?:[^'\\]|\\.)*)'\s*")
_ARGUMENT_PATH = re.compile(r"""\s*(\$(?:[^,()'"\s]|'[^']*'|"[^"]*")*)\s*""")


class InvalidIntrinsicError(ValueError):
    """It says what is wrong with an intrinsic function."""


def problems(text: str) -> list[str]:
    """What Step Functions would say against a definition; nothing if it takes it."""
    if len(text.encode()) > DEFINITION_BYTES:
        return [f"DEFINITION_TOO_LARGE: a definition has at most {DEFINITION_BYTES} bytes"]
    try:
        machine = json.loads(text)
    except ValueError as error:
        return [f"INVALID_JSON_DESCRIPTION: {error}"]
    if not isinstance(machine, dict):
        return ["INVALID_JSON_DESCRIPTION: a definition is an object"]
    if machine.get("QueryLanguage") == "JSONata":
        return []
    return list(_machine(machine, "", set()))


def _failed(message: str, where: str) -> str:
    return f"SCHEMA_VALIDATION_FAILED: {message} at {where or '/'}"


def _machine(machine: dict[str, Any], where: str, names: set[str]) -> Iterator[str]:
    states = machine.get("States")
    if not isinstance(states, dict) or not states:
        yield _failed("A state machine has States", where)
        return
    if machine.get("StartAt") not in states:
        yield f"MISSING_TRANSITION_TARGET: Missing 'Next' target: {machine.get('StartAt')} at {where}/StartAt"
    if "TimeoutSeconds" in machine:
        yield from _whole(machine, "TimeoutSeconds", 1, MOST_SECONDS, where)
    reached = {machine.get("StartAt")}
    for name, state in states.items():
        here = f"{where}/States/{name}"
        if len(name) > NAME_CHARACTERS:
            yield _failed(f"The name of a state has at most {NAME_CHARACTERS} characters", here)
        if name in names:
            yield f"DUPLICATE_STATE_NAME: Duplicate State name: {name} at {here}"
        names.add(name)
        for target in _targets(state):
            reached.add(target)
            if target not in states:
                yield f"MISSING_TRANSITION_TARGET: Missing 'Next' target: {target} at {here}"
        yield from _state(state, here, names)
    for name in states:
        if name not in reached:
            yield f'MISSING_TRANSITION_TARGET: State "{name}" is not reachable. at {where}/States/{name}'


def _targets(state: dict[str, Any]) -> Iterator[str]:
    yield from (state[key] for key in ("Next", "Default") if key in state)
    for key in ("Choices", "Catch"):
        yield from (one["Next"] for one in state.get(key, ()) if "Next" in one)


def _state(state: dict[str, Any], where: str, names: set[str]) -> Iterator[str]:
    kind = state.get("Type", "")
    if kind not in FIELDS:
        yield _failed(f"'{kind}' is no type of a state", f"{where}/Type")
        return
    if state.get("QueryLanguage") == "JSONata":
        return
    for field in state.keys() - FIELDS[kind]:
        yield _failed("Field is not supported", f"{where}/{field}")
    if "Next" in FIELDS[kind] and ("Next" in state) == ("End" in state):
        yield _failed("These fields are required, and only one of them: [Next, End]", where)
    for field in ("TimeoutSeconds", "HeartbeatSeconds"):
        if field in state:
            yield from _whole(state, field, 1, MOST_SECONDS, where)
    if kind == "Wait" and "Seconds" in state:
        yield from _whole(state, "Seconds", 0, MOST_SECONDS, where)
    yield from _errors(state, where)
    yield from _paths(state, kind, where)
    for number, branch in enumerate(state.get("Branches", ())):
        yield from _machine(branch, f"{where}/Branches[{number}]", names)
    for field in ("Iterator", "ItemProcessor"):
        if field in state:
            yield from _machine(state[field], f"{where}/{field}", names)
    if kind == "Task":
        yield from _call(state, where)


def _whole(holder: dict[str, Any], field: str, least: int, most: int, where: str) -> Iterator[str]:
    value = holder[field]
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        yield _failed(f"Value is not a whole number from {least} to {most}: {value!r}", f"{where}/{field}")


def _errors(state: dict[str, Any], where: str) -> Iterator[str]:
    for field in ("Retry", "Catch"):
        rules = state.get(field, [])
        for number, rule in enumerate(rules):
            here = f"{where}/{field}[{number}]"
            errors = rule.get("ErrorEquals", [])
            if not errors:
                yield _failed("ErrorEquals names at least one error", here)
            if "States.ALL" in errors and (len(errors) > 1 or number < len(rules) - 1):
                yield _failed("States.ALL stands alone, and in the last rule", here)
            if field == "Retry":
                for name, least, most in (
                    ("IntervalSeconds", 1, MOST_SECONDS),
                    ("MaxAttempts", 0, MOST_SECONDS),
                    ("MaxDelaySeconds", 1, MOST_DELAY),
                ):
                    if name in rule:
                        yield from _whole(rule, name, least, most, here)
                if rule.get("BackoffRate", 1) < 1:
                    yield _failed("Value is less than 1.0", f"{here}/BackoffRate")
                if rule.get("JitterStrategy", "NONE") not in ("FULL", "NONE"):
                    yield _failed("Value is not FULL or NONE", f"{here}/JitterStrategy")


def _paths(state: dict[str, Any], kind: str, where: str) -> Iterator[str]:
    for field in ("InputPath", "OutputPath", "ItemsPath", "SecondsPath", "TimestampPath"):
        if (value := state.get(field)) is not None and not (isinstance(value, str) and _PATH.fullmatch(value)):
            yield _failed("Value is not a Path", f"{where}/{field}")
    for rules, at in ((state.get("Catch", ()), "Catch"), ((state,), "")):
        for rule in rules:
            value = rule.get("ResultPath")
            if value is not None and (not _REFERENCE.fullmatch(str(value)) or value.startswith("$$")):
                yield _failed("Value is not a Reference Path", f"{where}/{at}{'/' if at else ''}ResultPath")
    for field in ("Parameters", "ResultSelector", "ItemSelector"):
        yield from _template(state.get(field), f"{where}/{field}")
    if kind == "Fail":
        for field in ("Error", "Cause"):
            if field in state and f"{field}Path" in state:
                yield _failed(f"Only one of these fields may be there: [{field}, {field}Path]", where)
            if f"{field}Path" in state:
                yield from _expression(state[f"{field}Path"], f"{where}/{field}Path")
    yield from _variables(state.get("Choices"), f"{where}/Choices")


def _variables(value: Any, where: str) -> Iterator[str]:
    if isinstance(value, dict):
        variable = value.get("Variable")
        if variable is not None and not _REFERENCE.fullmatch(variable):
            yield _failed("Value is not a Reference Path", f"{where}/Variable")
        for key, one in value.items():
            yield from _variables(one, f"{where}/{key}")
    elif isinstance(value, list):
        for number, one in enumerate(value):
            yield from _variables(one, f"{where}[{number}]")


def _template(value: Any, where: str) -> Iterator[str]:
    if isinstance(value, dict):
        for key, one in value.items():
            if key.endswith(".$"):
                yield from _expression(one, f"{where}/{key}")
            else:
                yield from _template(one, f"{where}/{key}")
    elif isinstance(value, list):
        for number, one in enumerate(value):
            yield from _template(one, f"{where}[{number}]")


def _expression(value: Any, where: str) -> Iterator[str]:
    if not isinstance(value, str) or not (value.startswith("$") or value.startswith("States.")):
        yield _failed("The value for the field must be a valid JSONPath or intrinsic function", where)
    elif value.startswith("$"):
        if not _PATH.fullmatch(value):
            yield _failed("The value for the field must be a valid JSONPath", where)
    else:
        try:
            check_intrinsic(value)
        except InvalidIntrinsicError as error:
            yield _failed(str(error), where)


def check_intrinsic(text: str) -> None:
    """Hold a call of an intrinsic function to what Step Functions takes. Raises InvalidIntrinsicError."""
    if len(text) > INTRINSIC_CHARACTERS:
        raise InvalidIntrinsicError(f"An intrinsic function has at most {INTRINSIC_CHARACTERS} characters")
    end = _call_of(text, 0, 1)
    if text[end:].strip():
        raise InvalidIntrinsicError(f"Something stands behind the intrinsic function: {text[end:]}")


def _call_of(text: str, start: int, depth: int) -> int:
    match = _WORD.match(text, start)
    if match is None or match[1] not in INTRINSICS:
        raise InvalidIntrinsicError(f"There is no intrinsic function {text[start:].partition('(')[0].strip()}")
    if depth > MOST_NESTED:
        raise InvalidIntrinsicError(f"Intrinsic functions are nested at most {MOST_NESTED} deep")
    at, count = match.end(), 0
    first = _TEXT.match(text, at)
    while not text[at:].lstrip().startswith(")"):
        if count:
            if not text[at:].lstrip().startswith(","):
                raise InvalidIntrinsicError(f"A comma or a bracket is missing in {text}")
            at = text.index(",", at) + 1
        at = _argument(text, at, depth)
        count += 1
    least, most = INTRINSICS[match[1]]
    if count < least or (most is not None and count > most):
        raise InvalidIntrinsicError(f"{match[1]} does not take {count} arguments")
    if match[1] == "States.Format" and first is not None:
        _check_format(first[1], count)
    return text.index(")", at) + 1


def _argument(text: str, at: int, depth: int) -> int:
    """Where the argument ends that begins here."""
    if (literal := _TEXT.match(text, at) or _LITERAL.match(text, at)) is not None:
        return literal.end()
    if (path := _ARGUMENT_PATH.match(text, at)) is not None:
        if not _PATH.fullmatch(path[1]):
            raise InvalidIntrinsicError(f"{path[1]} is no JSONPath")
        return path.end()
    return _call_of(text, at, depth + 1)


def _check_format(template: str, count: int) -> None:
    bare = re.sub(r"\\.", "", template)
    if bare.replace("{}", "").count("{") or bare.replace("{}", "").count("}"):
        raise InvalidIntrinsicError("A brace in a template of States.Format is written \\{ or \\}")
    if bare.count("{}") != count - 1:
        raise InvalidIntrinsicError(f"States.Format has {bare.count('{}')} places for {count - 1} arguments")


def _call(state: dict[str, Any], where: str) -> Iterator[str]:
    resource = state.get("Resource", "")
    try:
        operation = beans.operation(resource)
    except ValueError as error:
        yield _failed(str(error), f"{where}/Resource")
        return
    if operation is None:
        return
    # Without Parameters the state's input is not the call's: Step Functions calls with none.
    for wrong in beans.check(operation.input_shape, state.get("Parameters", {}), template=True):
        yield _failed(wrong.message, f"{where}/Parameters{wrong.where}")
