"""What can be said of the workflows without AWS: calls against botocore's service models, ends, loops."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import botocore.session
import pytest
from botocore.model import ListShape, MapShape, Shape, StructureShape

from chalicelib.documents import AWAITED
from instance.build import documents
from local.aws import beans
from tests.aws.workflows import NAMES, State, definition, placeholders, states, substitutions

SESSION = botocore.session.get_session()
# Optimised integrations name the service otherwise than the SDK does.
SERVICES = {"sfn": "stepfunctions", "states": "stepfunctions"}
ALL = [state for name in NAMES for state in states(name)]
TASKS = [s for s in ALL if s.body["Type"] == "Task"]
SDK = [s for s in TASKS if ":::" in s.body["Resource"]]
# What workflows.py puts in the place of ${DocumentPrefix}.
PREFIX = "arn:aws:lambda:us-east-1:123456789012:function:DocumentPrefix"
LAMBDA = [s for s in TASKS if ":function:" in s.body["Resource"]]


def ids(state: State) -> str:
    return f"{state.machine}: {state.name}"


def operation(state: State) -> Any:
    resource = state.body["Resource"].split(":::")[1].removeprefix("aws-sdk:")
    service, action = resource.split(".")[0].split(":")
    model = SESSION.get_service_model(SERVICES.get(service, service))
    return model.operation_model(action[0].upper() + action[1:])


def member(shape: StructureShape, name: str) -> Shape | None:
    """A member by the name that Step Functions uses, whatever the service's own."""
    return beans.members(shape).get(name, (None, None))[1]


PATH_KEYS = {"Variable", "InputPath", "ErrorPath", "CausePath"}


def paths(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if isinstance(inner, str) and (key.endswith(".$") or key in PATH_KEYS):
                yield from re.findall(r"(?<!\$)\$(?:\.[\w]+|\[\d+\]|\[\*\])+", inner)
            else:
                yield from paths(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from paths(inner)


def resolve(shape: Shape, steps: list[str], where: str) -> Shape:
    for step in steps:
        if step.startswith("["):
            assert isinstance(shape, ListShape), f"{where}: {shape.name} is no list"
            shape = shape.member
        else:
            if isinstance(shape, MapShape):
                shape = shape.value
                continue
            assert isinstance(shape, StructureShape), f"{where}: {shape.name} has no members"
            found = member(shape, step)
            assert found is not None, f"{where}: {shape.name} has no member {step}"
            shape = found
    return shape


def split(path: str) -> list[str]:
    return re.findall(r"\[[\d*]+\]|\w+", path)


READ = [s for s in SDK if s.body.get("ResultPath") and "waitForTaskToken" not in s.body["Resource"]]


@pytest.mark.parametrize("state", READ, ids=ids)
def test_used_result_fields_of_each_sdk_integration_exist_in_the_service_model(state: State) -> None:
    output = operation(state).output_shape
    assert output is not None
    root = split(state.body["ResultPath"].removeprefix("$"))
    selector: dict[str, tuple[Shape, bool]] = {
        key.removesuffix(".$"): (resolve(output, split(path.removeprefix("$")), path), "[*]" in path)
        for key, path in state.body.get("ResultSelector", {}).items()
    }
    readers = [s.body for s in ALL if s.machine == state.machine]
    used = [p for body in readers for p in paths({**body, "ResultSelector": None, "Branches": None})]
    seen = 0
    for path in used:
        steps = split(path.removeprefix("$"))
        if steps[: len(root)] != root or len(steps) == len(root):
            continue
        rest = steps[len(root) :]
        seen += 1
        if selector:
            assert rest[0] in selector, f"{path}: no {rest[0]} in the ResultSelector"
            shape, many = selector[rest[0]]
            # A path with [*] selects a list of what it names.
            inner = rest[2:] if many and rest[1:2] == ["[0]"] else rest[1:]
            resolve(shape, inner, path)
        else:
            resolve(output, rest, path)
    assert seen, f"nobody reads {state.body['ResultPath']}"


@pytest.mark.parametrize("state", TASKS, ids=ids)
def test_each_task_has_a_timeout_a_retry_and_an_end_for_its_errors(state: State) -> None:
    assert state.body["TimeoutSeconds"] <= 3600
    assert state.body.get("Retry"), "an error that passes would end the workflow"
    if state.machine == "launch":
        assert state.caught, "an error here would not reach the undo"


@pytest.mark.parametrize("state", [s for s in ALL if "Retry" in s.body], ids=ids)
def test_every_retry_is_counted_and_ends(state: State) -> None:
    for retry in state.body["Retry"]:
        assert 0 <= retry["MaxAttempts"] <= 200
        # Step Functions accepts at most 99,999,999 and whole seconds only.
        assert isinstance(retry["IntervalSeconds"], int) and retry["IntervalSeconds"] >= 1


@pytest.mark.parametrize("state", [s for s in SDK if ":dynamodb:" in s.body["Resource"]], ids=ids)
def test_a_call_of_dynamodb_is_tried_again_however_its_answer_is_lost(state: State) -> None:
    """After a broken connection or a timeout it may have been done. Only a task that waits ends with its timeout."""
    again = {error for retry in state.body["Retry"] for error in retry["ErrorEquals"]}
    assert "DynamoDb.SdkClientException" in again
    assert ("States.Timeout" in again) == ("waitForTaskToken" not in state.body["Resource"])


@pytest.mark.parametrize("state", [s for s in TASKS if s.name.startswith("Look for ")], ids=ids)
def test_a_look_at_a_command_is_tried_again_unless_the_command_has_failed(state: State) -> None:
    pending, ended, rest = state.body["Retry"]
    assert pending["ErrorEquals"] == ["CommandPending"] and pending["MaxAttempts"] > 0
    assert "CommandFailed" in ended["ErrorEquals"] and ended["MaxAttempts"] == 0
    # SDK errors have class names of their own (InternalServerError, ReadTimeoutError), Lambda's end in States.….
    assert rest["ErrorEquals"] == ["States.ALL"] and rest["MaxAttempts"] > 0


@pytest.mark.parametrize("state", LAMBDA, ids=ids)
def test_each_function_is_told_for_whom_and_by_which_execution(state: State) -> None:
    given = state.body["Parameters"]
    assert given["run.$"] == "$$.Execution.Name"
    # The undo's input is EventBridge's, which calls the notebook by the name of its launch.
    assert given["id.$"] == ("$.name" if state.machine == "undo" else "$.id")


@pytest.mark.parametrize("state", [s for s in SDK if "waitForTaskToken" in s.body["Resource"]], ids=ids)
def test_what_waits_for_an_event_says_its_name_to_the_function_that_hears_of_it(state: State) -> None:
    given = state.body["Parameters"]
    if operation(state).name == "SendCommand":
        assert given["Comment.$"] == "$$.Execution.Name"
    else:
        token = given["ExpressionAttributeValues"][":token"]["S.$"]
        assert token == "States.Format('{} {}', $$.Execution.Name, $$.Task.Token)"
        assert re.search(r"\bwait_token = :token\b", given["UpdateExpression"])


SENT = [s for s in TASKS if "ssm:sendCommand" in s.body["Resource"]]
# SSM notes the end of a command that ran into its limit some time after it.
LATE = 60


@pytest.mark.parametrize("state", SENT, ids=ids)
def test_a_command_is_waited_for_until_ssm_itself_has_ended_it(state: State) -> None:
    document = state.body["Parameters"]["DocumentName"].removeprefix(PREFIX)
    (step,) = documents()[document]["mainSteps"]
    own = int(step["inputs"]["timeoutSeconds"]) + state.body["Parameters"]["TimeoutSeconds"]
    (look,) = [s for s in TASKS if s.machine == state.machine and s.name == f"Look for {state.name}"]
    assert look.body["Parameters"]["document"] == PREFIX + document
    pending = look.body["Retry"][0]
    assert state.body["TimeoutSeconds"] + pending["MaxAttempts"] * pending["IntervalSeconds"] >= own + LATE


def test_every_command_that_is_awaited_is_sent_by_a_workflow_that_looks_for_it() -> None:
    sent = {s.body["Parameters"]["DocumentName"].removeprefix(PREFIX) for s in SENT}
    assert sent == set(AWAITED) == documents().keys() - {"probe-monitor"}


def waits(body: dict[str, Any]) -> float:
    """How long a state takes at the most, if each call but the last is refused at once."""
    again = sum(
        retry["IntervalSeconds"] * retry.get("BackoffRate", 2) ** number
        for retry in body.get("Retry", ())
        for number in range(retry["MaxAttempts"])
    )
    inside = max((longest(branch) for branch in body.get("Branches", ())), default=0)
    return again + inside + int(body.get("TimeoutSeconds", 0)) + int(body.get("Seconds", 0))


def longest(machine: dict[str, Any]) -> float:
    """Of all ways through a state machine, a loop once."""
    found: dict[str, float] = {}

    def after(name: str, came_by: frozenset[str]) -> float:
        if name in came_by:
            return 0
        if name not in found:
            body = machine["States"][name]
            following = {body.get("Next"), body.get("Default")}
            following |= {one["Next"] for key in ("Choices", "Catch") for one in body.get(key, ())}
            rest = max((after(one, came_by | {name}) for one in following if one), default=0)
            found[name] = waits(body) + rest
        return found[name]

    return after(machine["StartAt"], frozenset())


def test_a_launch_may_take_as_long_as_its_longest_way_and_has_room_in_its_history() -> None:
    launch, values = definition("launch"), substitutions("launch")
    looks = values["InstanceLooks"] * values["LookSeconds"]
    assert launch["TimeoutSeconds"] >= longest(launch) + looks
    # Each try is up to five events, each state two; a look at the instance passes five states.
    tries = [retry["MaxAttempts"] for s in states("launch") for retry in s.body.get("Retry", ())]
    events = sum(5 * (count + 1) for count in tries) + 2 * len(states("launch"))
    assert events + values["InstanceLooks"] * 5 * (2 + 5) < 25_000 / 2


def test_a_machine_that_ec2_refuses_to_terminate_is_told_of_before_the_undo_runs_out_of_time() -> None:
    undo, values = definition("undo"), substitutions("undo")
    terminate = undo["States"]["Terminate Instances"]
    refused = waits(terminate) - terminate["TimeoutSeconds"]
    rounds = (values["InstanceLooks"] + 1) * (refused + values["LookSeconds"])
    # The calls' own time, and what comes after.
    assert undo["TimeoutSeconds"] >= rounds + 600


@pytest.mark.parametrize("name", NAMES)
def test_every_state_can_be_reached_and_every_loop_passes_a_counter(name: str) -> None:
    def check(machine: dict[str, Any]) -> None:
        edges: dict[str, set[str]] = {}
        for state_name, body in machine["States"].items():
            nexts = {body.get("Next"), body.get("Default")}
            nexts |= {c["Next"] for c in body.get("Choices", ())} | {c["Next"] for c in body.get("Catch", ())}
            edges[state_name] = {n for n in nexts if n}
            assert edges[state_name] <= machine["States"].keys()
            for branch in body.get("Branches", ()):
                check(branch)
        reached, todo = set(), [machine["StartAt"]]
        while todo:
            current = todo.pop()
            if current not in reached:
                reached.add(current)
                todo.extend(edges[current])
        assert reached == machine["States"].keys()
        # Without the states that count there is no cycle left.
        counters = {state_name for state_name in edges if state_name.startswith("Count a ")}
        for counter in counters:
            assert "States.MathAdd(" in str(machine["States"][counter]["Parameters"]), f"{counter} does not count"
        uncounted = {s: n - counters for s, n in edges.items() if s not in counters}
        visiting: set[str] = set()
        done: set[str] = set()

        def visit(node: str) -> None:
            assert node not in visiting, f"a loop without a count through {node}"
            if node in done:
                return
            visiting.add(node)
            for following in uncounted.get(node, ()):
                visit(following)
            visiting.discard(node)
            done.add(node)

        for node in uncounted:
            visit(node)

    check(definition(name))


@pytest.mark.parametrize("name", NAMES)
def test_every_placeholder_is_substituted_and_every_substitution_used(name: str) -> None:
    assert placeholders(name) == set(substitutions(name))


@pytest.mark.parametrize("name", NAMES)
def test_state_names_are_sentences_within_the_limit_of_step_functions(name: str) -> None:
    names = [s.name for s in states(name)]
    assert len(names) == len(set(names)), "names are unique in a machine"
    for state_name in names:
        assert len(state_name) <= 80
        assert state_name[0].isupper() and " " in state_name


def test_no_workflow_carries_a_password_or_a_token_of_a_user() -> None:
    for state in ALL:
        # What is called after the password: its hash, the document, the code and kind of its failure.
        text = re.sub(r"password_?hash|set[- ]password|password_?failed", "", str(state.body).lower())
        text = re.sub(r"the password was not changed|'workflow': 'password'", "", text)
        assert "password" not in text
        assert "bearer" not in text
