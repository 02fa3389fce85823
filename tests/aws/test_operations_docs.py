"""docs/operations.md against what it speaks of: alarms, codes, states, log lines, and the commands of the AWS CLI."""

from __future__ import annotations

import ast
import json
import logging
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import botocore.session
import jmespath
import pytest
import yaml
from botocore import xform_name
from botocore.model import ListShape, MapShape, OperationModel, Shape, StructureShape

from chalicelib.log import KEYS, logger
from chalicelib.mends import Mend
from chalicelib.notebook import life
from deploy.gateway import LOG_FORMAT
from deploy.template import OPERATIONS
from instance.build import documents
from tests.aws.workflows import NAMES, ROOT, states, template

PAGE = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
FENCED = re.compile(r"^```\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = FENCED.findall(PAGE)
PROSE = FENCED.sub("", PAGE)
SESSION = botocore.session.get_session()
CONFIG = json.loads((ROOT / ".chalice/config.json").read_text(encoding="utf-8"))
# What the AWS CLI adds to each command, and to those that come in pages.
GLOBAL = {"query", "output"}
PAGED = {"max-items", "page-size", "starting-token"}
# Words of Logs Insights itself.
LANGUAGE = {"fields", "filter", "sort", "stats", "dedup", "by", "and", "or", "like", "asc", "desc", "count_distinct"}


# --- the page ---


def words(text: str) -> list[str]:
    """What stands in backticks; a line's end in it is a space."""
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", text)]


def rows(header: str) -> list[list[str]]:
    """Cells of all tables whose first columns are called so."""
    found = []
    for table in re.findall(rf"^\| {re.escape(header)} \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", PROSE, re.MULTILINE):
        found += [[cell.strip() for cell in row.strip("|").split(" | ")] for row in table.splitlines()]
    assert found, f"no table of {header}"
    return found


def named(header: str) -> set[str]:
    return {code for cells in rows(header) for code in words(cells[0])}


def after(begin: str) -> str:
    """The paragraph that begins so."""
    (found,) = re.findall(rf"^{re.escape(begin)}.*?(?=\n\n)", PROSE, re.MULTILINE | re.DOTALL)
    return str(found)


# --- names of resources ---


def alarms() -> set[str]:
    added = yaml.safe_load(OPERATIONS.read_text(encoding="utf-8"))["Resources"].values()
    names = [one["Properties"]["AlarmName"]["Fn::Sub"] for one in added if one["Type"] == "AWS::CloudWatch::Alarm"]
    return {name.replace("${Stage}", "STAGE") for name in names}


def resources() -> set[str]:
    """Every name of the template that begins with the deployment's."""
    sources = [OPERATIONS, ROOT / ".chalice/resources.yaml"]
    texts = [path.read_text(encoding="utf-8") for path in sources]
    given = {f"nod-STAGE{rest}" for text in texts for rest in re.findall(r"nod-\$\{Stage\}([\w-]*)", text)}
    return given | {f"nod-STAGE-{name}" for name in documents()}


def expanded() -> str:
    """The page with what its commands have in variables of the shell."""
    known = {"executions": "nod-STAGE", "machines": "nod-STAGE", "logs": "nod-STAGE", "STAGE": "STAGE"}
    return re.sub(r"\$(\w+)", lambda match: known.get(match[1], match[0]), PAGE)


def test_every_alarm_has_its_row_and_no_other_has_one() -> None:
    assert alarms() == named("alarm")


def test_undos_are_looked_for_by_each_end_that_is_an_alarm() -> None:
    filters = yaml.safe_load(OPERATIONS.read_text(encoding="utf-8"))["Resources"]["FailedUndos"]["Properties"]
    ends = {xform_name(end).upper() for end in re.findall(r'"Execution(\w+)"', filters["FilterPattern"])}
    (block,) = [block for block in BLOCKS if '"$machines-undo"' in block]
    (listed,) = re.findall(
        r'^for s in ([A-Z_ ]+); do\n +aws .*"\$machines-undo" --status-filter \$s ', block, re.MULTILINE
    )
    assert set(listed.split()) == ends == {"FAILED", "TIMED_OUT", "ABORTED"}


def test_every_name_of_a_resource_is_one_of_the_template() -> None:
    found = re.findall(r"nod-STAGE(?:-[a-z][\w-]*)?(?!-?[\w$])", expanded())
    assert len(set(found)) > 20
    assert set(found) <= resources()


def test_every_function_and_workflow_has_the_name_by_which_the_page_finds_it() -> None:
    functions = {f"nod-STAGE-{name}" for name in CONFIG["lambda_functions"] if name != "api_handler"}
    assert functions | {f"nod-STAGE-{name}" for name in NAMES} <= resources()
    assert {code for cells in rows("line") for code in words(cells[1])} <= CONFIG["lambda_functions"].keys()


def of_type(kind: str) -> list[dict[str, Any]]:
    return [one["Properties"] for one in template()["Resources"].values() if one.get("Type") == kind]


def test_tables_are_protected_as_the_page_says() -> None:
    tables = of_type("AWS::DynamoDB::Table")
    assert all(one["PointInTimeRecoverySpecification"]["PointInTimeRecoveryEnabled"] for one in tables)
    kept = {one["TableName"]["Sub"] for one in tables if one.get("DeletionProtectionEnabled")}
    said = after("All tables have point-in-time recovery.").partition(" also have\ndeletion protection")[0]
    assert {name.replace("${Stage}", "STAGE") for name in kept} == set(words(said))


def test_every_function_whose_events_may_be_dead_letters_is_spoken_of() -> None:
    letters = {xform_name(one["FunctionName"]["Ref"]) for one in of_type("AWS::Lambda::EventInvokeConfig")}
    assert len(letters) > 4
    said = set(words(after("**Dead letters.**"))) & CONFIG["lambda_functions"].keys()
    assert said - {"tell_owner"} == letters


# --- codes ---

LATER = ("explain_start", "explain_stop", "explain_password")


def tree(path: str | Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text(encoding="utf-8"))


def made(node: ast.AST, kind: str) -> set[str]:
    """Codes of the failures that are made there."""
    calls = [call for call in ast.walk(node) if isinstance(call, ast.Call) and ast.unparse(call.func) == kind]
    return {call.args[0].value for call in calls if isinstance(call.args[0], ast.Constant)}


def of_failures(*, later: bool) -> set[str]:
    functions = [node for node in tree("chalicelib/failures.py").body if isinstance(node, ast.FunctionDef)]
    return {code for one in functions if (one.name in LATER) is later for code in made(one, "Failure")}


def of_script(name: str) -> set[str]:
    """Codes that a script of the instance's ends with."""
    text = (ROOT / f"instance/scripts/{name}.sh").read_text(encoding="utf-8")
    return set(re.findall(r'(?:\b(?:fail|give_up) |^DEFAULT_CODE=|"code": ")([a-z]+_[a-z_]+)\b', text, re.MULTILINE))


def of_states(*names: str) -> set[str]:
    """Codes of the failures that a state itself writes. Lines of the ledger have codes too, also of what went well."""
    return {code for name in names for state in states(name) for code in failure_codes(state.body)}


def failure_codes(value: Any) -> Iterator[str]:
    """The code of each object with a code and a message, whether plain or as DynamoDB's attributes."""
    if isinstance(value, dict):
        code = value.get("code")
        code = code.get("S") if isinstance(code, dict) else code
        if isinstance(code, str) and "message" in value:
            yield code
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from failure_codes(item)


def of_actions() -> set[str]:
    """Codes of errors that an action writes into the record."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "chalicelib/actions").glob("*.py"))
    return set(re.findall(r'"error": \{"code": "(\w+)"', text))


def scripts_of_launch() -> dict[str, str]:
    """The documents that a launch runs, each with its state."""
    found = {}
    for state in states("launch"):
        name = state.body.get("Parameters", {}).get("DocumentName", "")
        if name:
            found[name.rpartition("DocumentPrefix")[2]] = state.name
    assert len(found) == 5
    return found


def launch_codes() -> set[str]:
    scripts = [code for name in ("common", *scripts_of_launch()) for code in of_script(name)]
    return of_failures(later=False) | made(tree("chalicelib/commands.py"), "Failed") | set(scripts) | of_states("undo")


def later_codes() -> set[str]:
    written = of_states("start", "stop", "password", "terminate") | of_actions()
    return of_failures(later=True) | written


OF_LAUNCH, OF_LATER = "code | state", "code | workflow, state"


def test_every_code_of_a_failed_launch_has_its_row_and_no_other() -> None:
    assert len(launch_codes()) > 25
    assert launch_codes() == named(OF_LAUNCH)


def test_every_code_of_what_comes_later_has_its_row_and_no_other() -> None:
    assert later_codes() == named(OF_LATER)


def test_no_code_of_the_failures_is_without_a_row() -> None:
    assert of_failures(later=False) | of_failures(later=True) <= named(OF_LAUNCH) | named(OF_LATER)


@pytest.mark.parametrize(("document", "state"), scripts_of_launch().items())
def test_a_code_of_one_document_is_in_the_row_of_its_state(document: str, state: str) -> None:
    others = {code for name in ("common", *scripts_of_launch()) if name != document for code in of_script(name)}
    own = of_script(document) - others
    assert own
    for cells in rows(OF_LAUNCH):
        if own & set(words(cells[0])):
            assert f"*{state}*" in cells[1], cells[0]


# --- states ---


def quoted_states() -> list[tuple[str, str]]:
    """Workflow and state: those of a line are of the workflows that it names, else of the launch."""
    found = []
    for line in PROSE.splitlines():
        of = [code for code in words(line) if code in NAMES] or ["launch"]
        quoted = re.findall(r"(?<!\*)\*([A-Z][^*]+)\*(?!\*)", re.sub(r"`[^`]+`", "", line))
        found += [(name, state) for state in quoted for name in of]
    return found


def test_every_state_is_one_of_its_workflow() -> None:
    there = {(name, state.name) for name in NAMES for state in states(name)}
    assert len(quoted_states()) > 40
    assert set(quoted_states()) <= there


def test_what_a_hanging_record_comes_to_is_named() -> None:
    done = set(Mend) - {Mend.WAIT, Mend.GONE}
    said = after("**It hangs.**")
    assert done <= set(words(said.partition("`mend`:")[2]))
    assert set(words(said)) >= life.MOVING


# --- log lines ---

LEVELS = ("debug", "info", "warning", "error", "exception")


def kinds() -> set[str]:
    """What explain_failure is asked about: by the workflows that say which they are, and by the undo of a launch."""
    asked = {state.body.get("Parameters", {}).get("workflow") for name in NAMES for state in states(name)}
    return {kind for kind in asked if kind} | {"launch"}


def figures(name: str) -> set[str]:
    """Keys of what a function of chalicelib/figures.py gives."""
    (function,) = [n for n in tree("chalicelib/figures.py").body if isinstance(n, ast.FunctionDef) and n.name == name]
    given = [n.value for n in ast.walk(function) if isinstance(n, ast.Return) and isinstance(n.value, ast.Dict)]
    return {key.value for one in given for key in one.keys if isinstance(key, ast.Constant)}


def messages(call: ast.Call) -> set[str]:
    text = call.args[0]
    if isinstance(text, ast.Constant):
        return {text.value}
    assert ast.unparse(text) == "f'{kind} failed'", f"a line whose text is made: {ast.unparse(text)}"
    return {f"{kind} failed" for kind in kinds()}


def fields(call: ast.Call, function: ast.FunctionDef) -> set[str]:
    found = {keyword.arg for keyword in call.keywords if keyword.arg not in (None, "exc_info", "extra")}
    for extra in [keyword.value for keyword in call.keywords if keyword.arg == "extra"]:
        (value,) = [
            node.value
            for node in ast.walk(function)
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == ast.unparse(extra)
        ]
        assert isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute)
        assert ast.unparse(value.func.value) == "figures"
        found |= figures(value.func.attr)
    return found


def lines() -> dict[str, set[str]]:
    """Every line of the functions' logs by its message, with its fields; and API Gateway's."""
    found: dict[str, set[str]] = {LOG_FORMAT["message"]: set(LOG_FORMAT)}
    for path in [ROOT / "app.py", *(ROOT / "chalicelib").rglob("*.py")]:
        for function in ast.walk(tree(path)):
            if not isinstance(function, ast.FunctionDef):
                continue
            for call in ast.walk(function):
                if isinstance(call, ast.Call) and ast.unparse(call.func) in {f"logger.{level}" for level in LEVELS}:
                    for message in messages(call):
                        found.setdefault(message, set()).update(fields(call, function))
    return found


def common() -> set[str]:
    """Keys that each line has, and one with an exception."""
    error = (ValueError, ValueError("text"), None)
    record = logging.LogRecord("nod", logging.ERROR, __file__, 1, "text", None, error)
    with mock.patch.dict(os.environ, {"_X_AMZN_TRACE_ID": "Root=1-5759e988-bd862e3fe1be46a994272793"}):
        return set(json.loads(logger.registered_formatter.format(record)))


LINES = lines()
COMMON = common()


def test_the_lines_are_found_with_their_fields() -> None:
    assert len(LINES) > 30
    assert LINES["kept"] == {"notebook", "code", "reason"}
    assert {"seconds", "published"} <= LINES["owner told"] and "overdue" in LINES["running"]
    assert {"launch failed", "start failed", "stop failed", "password failed"} <= LINES.keys()
    assert {"level", "message", "exception", *KEYS} <= COMMON


def test_every_line_that_is_spoken_of_is_written_somewhere() -> None:
    said = re.findall(r"\blines? ((?:`[^`]+`(?:, | and )?)+)", " ".join(PROSE.split()))
    spoken = {line for some in said for line in words(some)}
    assert len(spoken) > 5
    assert spoken | named("line") <= LINES.keys()


def test_what_every_line_has_is_what_the_page_says() -> None:
    assert set(KEYS) == set(words(after("Every line has").partition(",")[0]))


# --- commands ---


def commands(text: str) -> Iterator[list[str]]:
    """The words of each `aws …` and `insights …`, also of those inside $(…)."""
    text = text.replace("\\\n", " ")
    while inner := re.search(r"\$\(\([^()]*\)\)|\$\(([^()]*)\)", text):
        yield from commands(inner[1] or "")
        text = text.replace(inner[0], "X")
    lexer = shlex.shlex(text, posix=True, punctuation_chars=";|&\n")
    lexer.whitespace, lexer.whitespace_split = " \t", True
    command: list[str] = []
    for word in [*lexer, ";"]:
        if set(word) <= set(";|&\n") or word in ("aws", "insights"):
            if command:
                yield command
            command = [word] if word in ("aws", "insights") else []
        elif command:
            command.append(word)


SAID = [
    command
    for text in [*BLOCKS, *(code for code in words(PROSE) if code.startswith("aws "))]
    for command in commands(text)
]
AWS = [command for command in SAID if command[0] == "aws"]
QUERIES = [command for command in SAID if command[0] == "insights"]


def ids(command: list[str]) -> str:
    return " ".join(command[1:3])


def operation(command: list[str]) -> OperationModel:
    model = SESSION.get_service_model(command[1])
    by_command = {xform_name(name, "-"): name for name in model.operation_names}
    assert command[2] in by_command, f"{command[1]} has no {command[2]}"
    return model.operation_model(by_command[command[2]])


def options(command: list[str]) -> dict[str, str]:
    """By name; the value is what stands behind it."""
    return {
        word.removeprefix("--"): following
        for word, following in zip(command, [*command[1:], ""], strict=True)
        if word.startswith("--")
    }


def test_the_commands_of_the_page_are_found() -> None:
    assert len(AWS) > 25 and len(QUERIES) > 10
    counted = re.compile(r"(?:^|[ (`])(aws|insights) (?![(])", re.MULTILINE)
    found = [name for text in [*BLOCKS, *(f"`{code}" for code in words(PROSE))] for name in counted.findall(text)]
    assert (found.count("aws"), found.count("insights")) == (len(AWS), len(QUERIES))


@pytest.mark.parametrize("command", AWS, ids=ids)
def test_each_command_and_its_options_exist(command: list[str]) -> None:
    found = operation(command)
    members = found.input_shape.members if found.input_shape else {}
    known = {xform_name(name, "-") for name in members}
    known |= {f"no-{xform_name(name, '-')}" for name, shape in members.items() if shape.type_name == "boolean"}
    pages = SESSION.get_component("data_loader").load_service_model(command[1], "paginators-1")["pagination"]
    known |= GLOBAL | (PAGED if found.name in pages else set())
    assert options(command).keys() <= known
    required = found.input_shape.required_members if found.input_shape else []
    assert {xform_name(name, "-") for name in required} <= options(command).keys()


class Many:
    """What a projection gives: each of these."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape


def follow(node: dict[str, Any], shape: Any) -> Any:
    """The shape that a JMESPath expression comes to; fails where the service has no such member."""
    kind, children = node["type"], node.get("children", [])
    if kind == "field":
        if isinstance(shape, MapShape):
            return shape.value
        assert isinstance(shape, StructureShape), f"{node['value']} of no structure"
        assert node["value"] in shape.members, f"{shape.name} has no {node['value']}"
        return shape.members[node["value"]]
    if kind in ("subexpression", "index_expression"):
        for child in children:
            shape = follow(child, shape)
        return shape
    if kind == "index":
        assert isinstance(shape, ListShape), "an index of no list"
        return shape.member
    if kind == "flatten":
        inner = follow(children[0], shape)
        each = inner.shape if isinstance(inner, Many) else inner
        return Many(each.member if isinstance(each, ListShape) else each)
    if kind in ("projection", "filter_projection"):
        inner = follow(children[0], shape)
        each = inner.shape if isinstance(inner, Many) else inner.member
        result, *_ = [follow(child, each) for child in children[1:]]
        return Many(result.shape if isinstance(result, Many) else result)
    if kind == "identity":
        return shape
    assert kind in ("multi_select_list", "comparator", "function_expression", "or_expression", "literal"), kind
    for child in children:
        follow(child, shape)
    return shape


@pytest.mark.parametrize("command", [one for one in AWS if "--query" in one], ids=ids)
def test_what_is_taken_from_each_answer_is_in_it(command: list[str]) -> None:
    follow(jmespath.compile(options(command)["query"]).parsed, operation(command).output_shape)


@pytest.mark.parametrize("command", QUERIES, ids=lambda command: command[3][:60])
def test_each_query_asks_for_lines_and_fields_that_are_written(command: list[str]) -> None:
    assert len(command) == 4 and command[2].isdecimal()
    query = command[3]
    asked = set(re.findall(r"message = '([^']+)'", query))
    for begin in re.findall(r"(?<!@)message like '([^']+)'", query):
        alike = {line for line in LINES if line.startswith(begin)}
        assert alike, begin
        asked |= alike
    assert asked <= LINES.keys()
    written = COMMON.union(*(LINES[line] for line in asked or LINES))
    bare = re.sub(r"'[^']*'|/[^/]*/", "", query)
    used = set(re.findall(r"(?<![@.\w])[A-Za-z_]\w*", bare)) - LANGUAGE
    assert used
    assert used <= written


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block[:30])
def test_each_block_is_one_that_bash_reads(block: str) -> None:
    run = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
