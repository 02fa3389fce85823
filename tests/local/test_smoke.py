"""`make smoke` against the local cloud: it is known to work before somebody pays for it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from admin.deployment import Deployment
from admin.users import list_users
from deploy import __main__ as command
from deploy.smoke.rows import QUESTIONS, Answer
from local.cloud import Cloud
from tests.local import town as towns
from tests.local.clouds import ON_MACHINES
from tests.local.person import wait_until
from tests.local.town import Town

ROOT = Path(__file__).resolve().parents[2]
NOT_HERE = {"stack": "--url", "messages": "no EMAIL", "packages": "local cloud", "rights": "log"}
"""What the local cloud cannot show, and a word of why."""


def environment(aws_url: str) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": aws_url,
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
    }


def lines_of(out: str) -> dict[str, tuple[str, str]]:
    """Key → mark and what was seen."""
    rows = re.findall(r"^(ok|NO|--)  (\w+) +(.*)$", out, re.MULTILINE)
    return {key: (mark, seen) for mark, key, seen in rows}


def nothing_left(aws_url: str) -> None:
    ec2 = boto3.client("ec2", endpoint_url=aws_url)
    alive = [{"Name": "instance-state-name", "Values": ["pending", "running", "stopping", "stopped"]}]
    assert ec2.describe_instances(Filters=alive)["Reservations"] == []
    assert ec2.describe_volumes()["Volumes"] == []
    session = boto3.Session(region_name="us-east-1")
    assert [user.name for user in list_users(Deployment("local", session))] == ["demo"]


@pytest.mark.machine
def test_all_that_the_local_cloud_can_show_is_seen_on_a_real_machine(
    tmp_path: Path, image: Path, installer: Any, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Cloud(
        tmp_path / "cloud", image=image, installer=installer, api_port=0, aws_port=0, delays=ON_MACHINES
    ) as cloud:
        for name, value in environment(cloud.aws_url).items():
            monkeypatch.setenv(name, value)
        code = command.main(["smoke", "--stage", "local", "--url", cloud.api_url])
        out, err = capfd.readouterr()
        assert code == 0, out + err
        nothing_left(cloud.aws_url)
    rows = lines_of(out)
    assert list(rows) == list(QUESTIONS), "each once, in the order of the table"
    unseen = {key: seen for key, (mark, seen) in rows.items() if mark == "--"}
    assert unseen.keys() == NOT_HERE.keys(), unseen
    assert all(NOT_HERE[key] in seen for key, seen in unseen.items()), unseen
    assert "Ssm.InvalidInstanceIdException" in rows["agent"][1]
    assert re.search(r"It took [0-9.]+ minutes and cost about \$0\.\d+", out)


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    with towns.opened(tmp_path_factory.mktemp("town")) as opened:
        yield opened


def smoke(town: Town, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    for name, value in environment(town.cloud.aws_url).items():
        monkeypatch.setenv(name, value)
    return command.main(["smoke", "--stage", "local", "--url", town.cloud.api_url, *arguments])


@pytest.mark.parametrize(
    ("fault", "row", "words"),
    [
        ("no_capacity", "launch", "insufficient_capacity"),
        ("agent_never_online", "launch", "agent_never_online"),
        ("command_fails:configure-tls", "launch", "command_failed"),
        (None, "address", "does not answer from here"),
    ],
)
def test_what_is_wrong_is_a_row_an_exit_code_and_nothing_is_left(
    town: Town,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    fault: str | None,
    row: str,
    words: str,
) -> None:
    town.cloud.faults.clear()
    if fault:
        town.cloud.faults.on(fault)
    code = smoke(town, monkeypatch)
    out, err = capfd.readouterr()
    assert code == 1
    rows = lines_of(out)
    assert rows[row][0] == "NO"
    assert words in rows[row][1]
    assert row in err
    assert rows["removed"][0] == "ok", out
    assert set(rows) == set(QUESTIONS)
    town.cloud.faults.clear()
    nothing_left(town.cloud.aws_url)


def test_ctrl_c_removes_what_was_made(town: Town) -> None:
    town.cloud.faults.clear()
    town.machines.seconds["install-anaconda"] = 600
    process = subprocess.Popen(
        [sys.executable, "-m", "deploy", "smoke", "--stage", "local", "--url", town.cloud.api_url],
        cwd=ROOT,
        env=os.environ | environment(town.cloud.aws_url),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        ran = len(town.machines.ran)
        wait_until(lambda: any(name == "prepare-instance" for _, name, _ in town.machines.ran[ran:]), 120, "no launch")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=300)
    finally:
        process.kill()
        process.wait()
        town.machines.seconds.clear()
    assert process.returncode == 130, out + err
    assert "Interrupted. What was made is being removed" in out
    assert "Traceback" not in err
    assert lines_of(out)["removed"][0] == "ok", out
    nothing_left(town.cloud.aws_url)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--stage", "Nope"), "STAGE"),
        (("--stage", "local", "--url", "http://example.org"), "https://"),
        (("--stage", "local", "--url", "nonsense"), "https://"),
    ],
)
def test_wrong_input_is_said_before_anything_is_made(
    town: Town,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    words: str,
) -> None:
    for name, value in environment(town.cloud.aws_url).items():
        monkeypatch.setenv(name, value)
    assert command.main(["smoke", *arguments]) == 1
    assert words in capfd.readouterr().err
    nothing_left(town.cloud.aws_url)


def test_the_page_lists_the_rows() -> None:
    page = (ROOT / "docs/aws.md").read_text(encoding="utf-8").partition("## See it")[2]
    listed = dict(re.findall(r"^\| `(\w+)` \| (.+?) \|$", page, re.MULTILINE))
    assert listed == dict(QUESTIONS)
    assert len(Answer) == 3
