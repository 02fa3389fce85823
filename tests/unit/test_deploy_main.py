"""`python -m deploy`: what it makes of its arguments, and how it ends."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError, ProfileNotFound

from admin.deployment import Deployment
from deploy import __main__ as command
from deploy.errors import AccountError
from tests.unit.test_house import modules, offends

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[Any, ...]]:
    """What would be run, with its arguments; nothing is."""
    seen: dict[str, tuple[Any, ...]] = {}

    def record(name: str) -> Any:
        def run(*arguments: Any, **_: Any) -> Path:
            seen[name] = arguments
            return Path("template.json")

        return run

    for name in ("package", "deploy", "destroy"):
        monkeypatch.setattr(command, name, record(name))
    monkeypatch.setattr(command, "_session", lambda: "session")
    return seen


def test_deploy_hands_on_what_was_said(called: dict[str, tuple[Any, ...]]) -> None:
    said = (
        "--stage prod --region eu-central-1 --cidr 198.51.100.7 --subnets subnet-0aaaaaaa --operators-email a@b.cd "
        "--instance-types t3.*"
    )
    assert command.main(["deploy", *said.split()]) == 0
    session, region, wishes, folder = called["deploy"]
    assert (session, region, folder.name) == ("session", "eu-central-1", "package")
    assert wishes.cidrs == ("198.51.100.7/32",) and wishes.subnets == ("subnet-0aaaaaaa",)
    assert wishes.parameters == {"OperatorsEmail": "a@b.cd", "InstanceTypes": "t3.*"}


def test_what_make_leaves_empty_is_not_said(called: dict[str, tuple[Any, ...]]) -> None:
    arguments = ["deploy", "--stage", "prod", "--cidr", "", "--subnets", "", "--key-name", "", "--region", ""]
    assert command.main(arguments) == 0
    assert called["deploy"][2].cidrs is None and called["deploy"][2].subnets is None
    assert called["deploy"][2].parameters == {}


def test_destroy_and_package_hand_on_too(called: dict[str, tuple[Any, ...]]) -> None:
    assert command.main(["destroy", "--stage", "prod", "--force", "yes-delete-notebooks"]) == 0
    assert called["destroy"] == ("session", "", "prod", "yes-delete-notebooks")
    assert command.main(["package", "--stage", "prod", "--cidr", "0.0.0.0/0", "--open-to-the-world", "yes"]) == 0
    assert called["package"][:2] == ("prod", ("0.0.0.0/0",))


@pytest.mark.parametrize(
    "arguments",
    [
        ["deploy", "--stage", ""],
        ["destroy", "--stage", "PROD"],
        ["package", "--stage", "prod", "--cidr", "::/0"],
        ["deploy", "--stage", "prod", "--cidr", "0.0.0.0/0"],
        ["deploy", "--stage", "prod", "--subnets", "vpc-1"],
    ],
)
def test_bad_input_ends_with_1_and_a_sentence_and_runs_nothing(
    arguments: list[str], called: dict[str, tuple[Any, ...]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(arguments) == 1
    assert called == {}
    assert re.search(r"STAGE|CIDR|SUBNETS", capsys.readouterr().err)


@pytest.mark.parametrize("error", [AccountError("no"), EndpointConnectionError(endpoint_url="https://x")])
def test_a_refusal_of_aws_is_a_sentence_and_no_trace(
    error: Exception,
    called: dict[str, tuple[Any, ...]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(command, "deploy", refuse)
    assert command.main(["deploy", "--stage", "prod"]) == 1
    assert str(error) in capsys.readouterr().err


def test_a_profile_that_is_not_there_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def session(**_: Any) -> None:
        raise ProfileNotFound(profile="work")

    monkeypatch.setattr(command.boto3, "Session", session)
    assert command.main(["destroy", "--stage", "prod"]) == 1
    assert "work" in capsys.readouterr().err


def test_the_region_is_that_of_aws_region_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """boto3 alone reads AWS_DEFAULT_REGION and no other variable."""
    monkeypatch.setenv("AWS_REGION", "eu-west-3")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    assert command._session().region_name == "eu-west-3"
    assert Deployment("prod").users._client.meta.region_name == "eu-west-3"
    assert Deployment("prod", region="eu-west-2").users._client.meta.region_name == "eu-west-2"
    monkeypatch.setenv("AWS_REGION", "")
    assert command._session().region_name == "eu-west-1"


def test_the_policies_are_written_without_aws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = ["--stage", "prod", "--region", "eu-central-1", "--account", "123456789012", "--folder", str(tmp_path)]
    assert command.main(["policy", *said]) == 0
    assert set(capsys.readouterr().out.split()) == {str(path) for path in tmp_path.iterdir()}
    assert {path.name for path in tmp_path.iterdir()} == {
        "nod-prod-deploy.json",
        "nod-prod-deploy-parts.json",
        "nod-prod-admin.json",
        "nod-prod-smoke.json",
    }
    assert command.main(["policy", "--stage", "prod", "--region", "eu-central-1"]) == 1
    assert "12 digits" in capsys.readouterr().err


def test_an_interruption_says_what_goes_on(
    called: dict[str, tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "deploy", interrupted)
    assert command.main(["deploy", "--stage", "prod"]) == 130
    assert "goes on" in capsys.readouterr().err


def test_make_hands_on_every_option_of_the_command() -> None:
    """One that the Makefile forgot could not be said by who deploys."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    parser = command._parser()
    (commands,) = [one for one in parser._actions if one.dest == "command"]
    assert isinstance(commands.choices, dict)
    for name, sub in commands.choices.items():
        (recipe,) = re.findall(rf"^{name}:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
        assert f"-m deploy {name}" in recipe
        for action in sub._actions:
            # What is said by its place is named by the command itself.
            option = action.option_strings[0] if action.option_strings else name
            if option not in ("-h", "--folder"):
                assert f"{option} '$({action.dest.upper()})'" in recipe, f"{name} {option}"


def test_the_room_stays_out_of_what_runs_elsewhere() -> None:
    found = {
        str(path): bad for path in modules("deploy") if (bad := offends(path, "app", "local", "nod", "moto", "tests"))
    }
    assert found == {}


@pytest.mark.parametrize("path", modules("deploy"), ids=lambda path: path.name)
def test_only_the_command_itself_asks_for_clock_and_credentials(path: Path) -> None:
    if path.name != "__main__.py":
        assert not offends(path, "time", "boto3")
