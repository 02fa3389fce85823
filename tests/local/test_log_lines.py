"""What the functions log of a notebook's life, on the local cloud, where all of them are threads of one process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.local.person import wait_until
from tests.local.town import Town, as_before, opened


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    with opened(tmp_path_factory.mktemp("cloud")) as made:
        made.machines.on_boot = made.beat
        # Long enough for the workflow to wait for an instance before its event is there.
        made.cloud.slow_pending(0.6)
        yield made
        as_before(made)


def executions(town: Town, notebook: str, message: str) -> set[str | None]:
    """Which the lines with this text name."""
    return {line["execution"] for line in town.lines() if (line["notebook"], line["message"]) == (notebook, message)}


def logged(town: Town, notebook: str, message: str, execution: str) -> None:
    # An event's function logs after it has answered the workflow.
    wait_until(lambda: execution in executions(town, notebook, message), 30, f"no line {message} names {execution}")


def test_every_step_of_a_life_names_the_execution_that_takes_it(town: Town) -> None:
    notebook, other = (town.launch(name=name, notify=["email", "slack:demo"]) for name in ("one", "other"))
    for one in (notebook, other):
        town.person.wait(one, "ready", seconds=180)
        for message in ("launch requested", "instance changed", "command ended", "owner told", "slack told"):
            logged(town, one, message, one)
            assert executions(town, one, message) == {one}, message
    for verb, state in (("stop", "stopped"), ("start", "ready")):
        assert town.person.http.post(f"/notebooks/{notebook}/{verb}").status_code == 202
        town.person.wait(notebook, state, seconds=120)
        for message in ("request", "instance changed", "owner told", "slack told"):
            logged(town, notebook, message, f"{notebook}-{verb}-1")
    body = {"password": "correct horse battery"}
    assert town.person.http.post(f"/notebooks/{notebook}/password", json=body).status_code == 202
    logged(town, notebook, "command ended", f"{notebook}-password-1")
    assert town.person.delete(notebook, "one").status_code == 202
    town.person.wait(notebook, "terminated", seconds=120)
    logged(town, notebook, "owner told", f"{notebook}-delete")


def test_looks_for_commands_and_an_undo_name_theirs(town: Town) -> None:
    town.cloud.faults.on("event_lost:aws.ssm")
    town.machines.seconds["configure-tls"] = 2.5
    town.machines.results["configure-tls"] = {"ok": False, "code": "disk_full", "message": "The disk is full: ask."}
    notebook = town.launch(name="full")
    town.failed(notebook, "disk_full")
    logged(town, notebook, "answered by an error", notebook)
    found = [line for line in town.lines() if line["notebook"] == notebook]
    codes = {line["code"] for line in found if line["message"] == "answered by an error"}
    assert "command_failed" in codes
    # One undo is named by the launch that began it, EventBridge has its own name for the other.
    assert notebook in executions(town, notebook, "launch failed")
    assert None not in executions(town, notebook, "launch failed") | executions(town, notebook, "owner told")
