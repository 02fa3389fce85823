"""The rules of the house: which room may import what, how small app.py's functions are, what no handler swallows."""

from __future__ import annotations

import ast
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from chalicelib.notebook.life import State

ROOT = Path(__file__).resolve().parents[2]
LONGEST_FUNCTION = 30


def modules(room: str) -> list[Path]:
    found = [path for path in sorted((ROOT / room).rglob("*.py")) if "__pycache__" not in path.parts]
    assert found, f"{room}/ holds no Python: the rule would check nothing"
    return found


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def offends(path: Path, *forbidden: str) -> list[str]:
    return sorted(
        name for name in imported(path) if any(name == bad or name.startswith(f"{bad}.") for bad in forbidden)
    )


RULES = [path for path in modules("chalicelib") if path.parent.name in ("chalicelib", "notebook")]
ACTIONS = modules("chalicelib/actions")
GATEWAYS = modules("chalicelib/aws")


@pytest.mark.parametrize("path", RULES, ids=lambda path: path.name)
def test_rules_know_no_aws_no_framework_and_no_clock(path: Path) -> None:
    assert not offends(
        path, "chalicelib.aws", "chalicelib.actions", "chalice", "boto3", "botocore", "slack_sdk", "time"
    )
    assert not clock_calls(path)


@pytest.mark.parametrize("path", ACTIONS, ids=lambda path: path.name)
def test_actions_get_clock_sleep_and_clients_handed_in(path: Path) -> None:
    assert not offends(path, "chalice", "boto3", "botocore", "slack_sdk", "time", "app")
    assert not clock_calls(path)


@pytest.mark.parametrize("path", GATEWAYS, ids=lambda path: path.name)
def test_gateways_ask_no_clock_and_make_no_client(path: Path) -> None:
    assert not offends(path, "chalice", "chalicelib.actions", "boto3", "time", "app")
    assert not clock_calls(path)
    if path.name not in ("clients.py", "faults.py"):
        assert not offends(path, "botocore")


def clock_calls(path: Path) -> list[str]:
    """Calls like datetime.now(): with them a rule's answer depends on when it is asked."""
    return [
        ast.unparse(node)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("now", "utcnow", "today")
        and ast.unparse(node.func.value) in ("datetime", "datetime.datetime", "date", "datetime.date")
    ]


@pytest.mark.parametrize(
    ("room", "forbidden"),
    [
        ("nod", ("chalicelib", "app", "admin", "local", "instance", "boto3", "chalice")),
        ("instance", ("chalicelib", "app", "admin", "local", "nod", "chalice")),
        ("chalicelib", ("app", "admin", "local", "nod", "instance", "moto", "tests")),
        ("admin", ("app", "local", "nod", "instance", "chalice", "moto")),
        ("statemachine", ("app", "admin", "local", "nod", "instance", "boto3", "chalice", "chalicelib.aws", "tests")),
        # Rules of the product: the local cloud runs the app, and decides nothing in its place.
        (
            "local",
            tuple(
                f"chalicelib.{rule}"
                for rule in ("plan", "commands", "failures", "deletion", "messages", "body", "paging", "actions", "aws")
            ),
        ),
    ],
)
def test_a_room_stays_out_of_the_others(room: str, forbidden: tuple[str, ...]) -> None:
    assert {str(path): found for path in modules(room) if (found := offends(path, *forbidden))} == {}


def test_app_imports_no_heavy_module_for_all_functions() -> None:
    top = ast.parse((ROOT / "app.py").read_text(encoding="utf-8")).body
    names = {
        name
        for node in top
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""])
    }
    assert not {name for name in names if name.split(".")[0] in ("boto3", "botocore", "slack_sdk", "argon2")}
    assert "chalicelib.aws.slack" not in names


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def test_functions_of_app_are_short() -> None:
    tree = ast.parse((ROOT / "app.py").read_text(encoding="utf-8"))
    long = {
        function.name: length
        for function in functions(tree)
        if (length := (function.end_lineno or 0) - function.lineno + 1) > LONGEST_FUNCTION
    }
    assert long == {}


@pytest.mark.parametrize("path", [ROOT / "app.py", *RULES, *ACTIONS, *GATEWAYS, *modules("admin")], ids=str)
def test_no_handler_swallows_every_exception(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ExceptHandler) and (
            node.type is None or ast.unparse(node.type) in ("Exception", "BaseException")
        ):
            assert isinstance(node.body[-1], ast.Raise), f"{path.name}:{node.lineno} swallows every exception"


def test_every_error_of_the_tree_has_its_own_code() -> None:
    from chalicelib import errors  # noqa: PLC0415

    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.NodError)]
    codes = [kind.code for kind in kinds]
    assert len(set(codes)) == len(codes)
    assert all(kind.__name__ in (errors.__doc__ or "") for kind in kinds), "the tree at the top is not complete"


def test_sources_are_utf8() -> None:
    for path in [ROOT / "app.py", *modules("chalicelib"), *modules("admin")]:
        with tokenize.open(path) as file:
            assert file.encoding == "utf-8"


STATE_ROOMS = [
    path
    for path in [ROOT / "app.py", *modules("chalicelib"), *modules("admin"), *modules("nod")]
    if path.relative_to(ROOT).as_posix()
    not in ("chalicelib/notebook/life.py", "chalicelib/notebook/machine.py", "nod/states.py")
]
STATES = {state.value for state in State}


def says_a_state(node: ast.AST | None) -> bool:
    return isinstance(node, ast.Constant) and node.value in STATES


def is_a_state(node: ast.AST) -> bool:
    """Whether an expression has a state for its value, by its name."""
    name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
    return name.rstrip("_") == "state"


def states_as_text(tree: ast.AST) -> list[str]:
    """Comparisons with a state, sets, tables by state and values of one, that spell it out."""
    found: list[ast.AST] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            words = [part for side in sides for part in (*getattr(side, "elts", ()), side)]
            if any(is_a_state(side) for side in sides) and any(says_a_state(word) for word in words):
                found.append(node)
        elif isinstance(node, ast.match_case):
            found += [part for part in ast.walk(node.pattern) if says_a_state(part)]
        elif isinstance(node, ast.Set | ast.Tuple | ast.List):
            found += [node] if sum(says_a_state(part) for part in node.elts) > 1 else []
        elif isinstance(node, ast.Dict):
            pairs = list(zip(node.keys, node.values, strict=True))
            by_state = sum(says_a_state(key) for key, _ in pairs) > 1
            one = any(isinstance(key, ast.Constant) and key.value == "state" and says_a_state(to) for key, to in pairs)
            found += [node] if by_state or one else []
        elif isinstance(node, ast.keyword) and node.arg == "state" and says_a_state(node.value):
            found.append(node.value)
    return [ast.unparse(node) for node in found]


@pytest.mark.parametrize("path", STATE_ROOMS, ids=str)
def test_no_state_is_spelt_out_beside_the_table(path: Path) -> None:
    allowed = {
        # Names of messages, of which some are named after the state that they tell of.
        "messages.py": 2,
        # EC2's states, in a filter of events that Chalice wants as a literal.
        "app.py": 1,
    }
    found = states_as_text(ast.parse(path.read_text(encoding="utf-8")))
    assert len(found) == allowed.get(path.name, 0), found


@pytest.mark.parametrize(
    "code",
    [
        "notebook.state == 'ready'",
        "'ready' != state_",
        "notebook.state in ('ready', other)",
        "known.state in {'stopping'}",
        "OVER = frozenset({'failed', 'terminated'})",
        "{'ready': 1, 'failed': 2}.get(state)",
        "replace(notebook, state='ready')",
        "write(notebook, {'state': 'ready'})",
        "match state:\n    case 'ready' | 'failed':\n        pass",
    ],
)
def test_the_rule_of_states_sees_each_way_to_spell_one(code: str) -> None:
    assert states_as_text(ast.parse(code))


@pytest.mark.parametrize(
    "code", ["notebook.state == State.READY", "kind == 'ready'", "logger.info('stopped', state=x)"]
)
def test_the_rule_of_states_leaves_the_rest_alone(code: str) -> None:
    assert not states_as_text(ast.parse(code))
