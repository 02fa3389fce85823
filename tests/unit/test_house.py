"""The rules of the house: which room may import what, how small app.py's functions are, what no handler swallows."""

from __future__ import annotations

import ast
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

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


RULES = [path for path in modules("chalicelib") if path.parent.name == "chalicelib"]
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
