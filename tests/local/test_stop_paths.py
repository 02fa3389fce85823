"""Every state of the stop, on the local cloud, with machines that only say what they are told."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from tests.aws.workflows import states
from tests.local.lives import (
    LAUNCHED,
    active,
    given,
    kinds,
    ledger,
    off,
    post,
    put,
    state_of,
    untold,
    wait,
)
from tests.local.person import wait_until
from tests.local.town import Town

pytestmark = pytest.mark.usefixtures("clean")


def test_stop_writes_the_run_down_frees_the_quota_and_tells(town: Town, notebook: str) -> None:
    began = town.record(notebook)["run_started_at"]["S"]
    assert notebook in active(town)
    assert post(town, notebook, "stop") == 202
    seen = wait(town, notebook, "stopped")
    assert seen["address"] is None
    assert seen["url"] is None
    record = town.record(notebook)
    (run,) = record["runs"]["L"]
    assert run["M"] == {"type": {"S": "t3.medium"}, "started_at": {"S": began}, "stopped_at": record["stopped_at"]}
    assert not {"run_started_at", "due", "due_at", "wait_token", "error"} & record.keys()
    assert notebook not in active(town)
    assert notebook in town.user()["owned"]["SS"]
    assert kinds(town, notebook) == ["ready", "stopped"]
    assert state_of(town, notebook) == "stopped"


def test_stop_comes_to_its_end_when_the_event_is_lost_and_ec2_is_slow(town: Town, notebook: str) -> None:
    town.cloud.faults.on("event_lost")
    town.machines.stopping = 2
    assert post(town, notebook, "stop") == 202
    wait(town, notebook, "stopped")


@pytest.mark.parametrize("before", [None, "password_failed"])
def test_stop_that_takes_too_long_stays_so_is_told_once_and_is_finished_later(
    town: Town, notebook: str, before: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the record says of something else that it failed."""
    off_now = threading.Event()
    machine = town.machine(notebook)
    monkeypatch.setattr(machine, "shut_down", lambda *_, **__: off_now.wait(120))
    assert post(town, notebook, "stop") == 202
    if before:
        town.tables.update_item(
            TableName="nod-local-notebooks",
            Key={"id": {"S": notebook}},
            UpdateExpression="SET #error = :error",
            ExpressionAttributeNames={"#error": "error"},
            ExpressionAttributeValues={":error": {"M": {"code": {"S": before}, "message": {"S": "It was so."}}}},
        )
    wait_until(lambda: "stop_failed" in kinds(town, notebook), 60, "nobody was told")
    town.settle()
    seen = town.person.show(notebook)
    assert (seen["state"], seen["error"]["code"]) == ("stopping", "stop_failed")
    assert town.record(notebook)["due_at"]["S"], "the sweep looks at it"
    assert town.run("stop", **given(town, notebook, call=False))["status"] == "FAILED"
    assert kinds(town, notebook).count("stop_failed") == 1
    off_now.set()
    off(town, notebook)
    assert town.run("stop", **given(town, notebook, call=False))["status"] == "SUCCEEDED"
    seen = town.person.show(notebook)
    assert (seen["state"], seen["error"]) == ("stopped", None)


def test_stop_that_ec2_refuses_leaves_it_ready_and_says_so(town: Town, notebook: str) -> None:
    town.cloud.faults.on(f"stop_fails:{town.record(notebook)['instance_id']['S']}")
    assert post(town, notebook, "stop") == 202
    wait_until(lambda: "stop_failed" in kinds(town, notebook), 60, "nobody was told")
    seen = wait(town, notebook, "ready")
    assert seen["error"]["code"] == "stop_failed"
    assert "not authorized" in seen["error"]["message"]
    assert seen["url"] is not None
    assert notebook in active(town)
    record = town.record(notebook)
    assert "runs" not in record
    assert "stop" not in record
    town.cloud.faults.clear()
    assert post(town, notebook, "stop") == 202
    assert wait(town, notebook, "stopped")["error"] is None


def test_stop_that_was_refused_while_the_machine_became_running_is_asked_again(
    town: Town, notebook: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As EC2 does to a machine that is pending; by the next look it runs."""
    refusals = iter([True, True])
    active = town.cloud.faults.active
    monkeypatch.setattr(
        town.cloud.faults,
        "active",
        lambda name, *subjects: next(refusals, False) if name == "stop_fails" else active(name, *subjects),
    )
    put(town, notebook, "stopping")
    assert town.run("stop", **given(town, notebook, call=True))["status"] == "SUCCEEDED"
    assert next(refusals, None) is None
    assert kinds(town, notebook) == ["ready", "stopped"]
    assert town.person.show(notebook)["error"] is None


def test_instance_that_nobody_called_to_stop_is_called(town: Town, notebook: str) -> None:
    put(town, notebook, "stopping")
    assert town.run("stop", **given(town, notebook, call=False))["status"] == "SUCCEEDED"
    assert state_of(town, notebook) == "stopped"


def test_instance_that_runs_on_after_every_call_is_ready_again(
    town: Town, notebook: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(town.cloud.ec2, "_end", lambda *_: None)
    assert post(town, notebook, "stop") == 202
    wait_until(lambda: "stop_failed" in kinds(town, notebook), 60, "nobody was told")
    monkeypatch.undo()
    assert wait(town, notebook, "ready")["error"]["code"] == "stop_failed"


def test_stop_that_cannot_be_explained_is_told_all_the_same(
    town: Town, notebook: str, broken: Callable[[str], None]
) -> None:
    broken("explain_failure")
    town.cloud.faults.on("stop_fails")
    assert post(town, notebook, "stop") == 202
    wait_until(lambda: "stop_failed" in kinds(town, notebook), 60, "nobody was told")
    assert wait(town, notebook, "ready")["error"]["code"] == "stop_failed"


def test_stop_finds_a_machine_that_is_gone(town: Town, notebook: str) -> None:
    town.ec2.terminate_instances(InstanceIds=[town.record(notebook)["instance_id"]["S"]])
    put(town, notebook, "stopping")
    assert town.run("stop", **given(town, notebook, call=True))["status"] == "SUCCEEDED"
    seen = town.person.show(notebook)
    assert (seen["state"], seen["error"]["code"]) == ("failed", "instance_gone")
    assert notebook not in active(town)
    assert notebook not in town.user().get("owned", {}).get("SS", [])
    assert kinds(town, notebook)[-1] == "failed"
    assert "due" not in town.record(notebook)
    assert not untold(town, notebook)


def test_machine_that_ec2_does_not_know_is_gone_after_a_second_look(
    town: Town, notebook: str, broken: Callable[[str], None]
) -> None:
    broken("tell_owner")
    nowhere = {**given(town, notebook, call=False), "instance_id": "i-0123456789abcdef0"}
    put(town, notebook, "stopping", remove="instance_id")
    assert town.run("stop", **nowhere)["status"] == "SUCCEEDED"
    assert town.record(notebook)["error"]["M"]["code"]["S"] == "instance_gone"
    assert untold(town, notebook), "nobody could be told yet"


def test_stop_is_done_when_its_message_cannot_be_sent_and_the_schedule_sends_it_later(
    town: Town, notebook: str, broken: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not untold(town, notebook)
    broken("tell_owner")
    assert post(town, notebook, "stop") == 202
    wait(town, notebook, "stopped")
    assert untold(town, notebook)
    assert kinds(town, notebook) == ["ready"]
    monkeypatch.undo()
    monkeypatch.setattr("chalicelib.actions.telling.OVERDUE", timedelta(0))
    town.cloud.run_schedules()
    wait_until(lambda: not untold(town, notebook), 60, "not noted as told")
    # The cloud's own schedule may have run beside this one.
    assert set(kinds(town, notebook)) == {"ready", "stopped"}


def test_stop_that_nobody_is_told_of_is_nothing_untold(town: Town) -> None:
    quiet = town.launch(name="quiet", notify=[])
    town.person.wait(quiet, "ready", seconds=180)
    town.settle()
    assert post(town, quiet, "stop") == 202
    wait(town, quiet, "stopped")
    assert not untold(town, quiet)


def test_stop_failed_is_recorded_when_its_message_cannot_be_sent(
    town: Town, notebook: str, broken: Callable[[str], None]
) -> None:
    broken("tell_owner")
    town.cloud.faults.on("stop_fails")
    assert post(town, notebook, "stop") == 202
    wait_until(lambda: "error" in town.record(notebook), 60, "no error")
    assert wait(town, notebook, "ready")["error"]["code"] == "stop_failed"


def test_stop_after_a_start_that_failed_tells_of_the_start(town: Town, notebook: str) -> None:
    put(town, notebook, "stopping")
    town.tables.update_item(
        TableName="nod-local-notebooks",
        Key={"id": {"S": notebook}},
        UpdateExpression="SET #stop = :stop",
        ExpressionAttributeNames={"#stop": "stop"},
        ExpressionAttributeValues={
            ":stop": {"M": {"code": {"S": "start_failed"}, "reason": {"S": "It did not come."}}}
        },
    )
    assert town.run("stop", **given(town, notebook, call=True))["status"] == "SUCCEEDED"
    assert kinds(town, notebook) == ["ready", "start_failed"]


def test_stop_again_changes_nothing(town: Town, stopped: str) -> None:
    before = town.record(stopped)
    assert town.run("stop", **given(town, stopped, call=True))["status"] == "SUCCEEDED"
    assert town.record(stopped) == before
    put(town, stopped, "stopping")
    foreign = {**given(town, stopped, call=True), "instance_id": "i-0123456789abcdef0"}
    assert town.run("stop", **foreign)["status"] == "SUCCEEDED"
    assert town.record(stopped)["state"]["S"] == "stopping"


def test_two_stops_side_by_side_write_one_run(town: Town, notebook: str) -> None:
    put(town, notebook, "stopping")
    ends: list[dict[str, Any]] = []
    document = given(town, notebook, call=True)
    threads = [threading.Thread(target=lambda: ends.append(town.run("stop", **document))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [end["status"] for end in ends] == ["SUCCEEDED"] * 2
    assert len(town.record(notebook)["runs"]["L"]) == 1
    assert kinds(town, notebook) == ["ready", "stopped"]


@pytest.mark.parametrize(("remove", "at"), [("run_started_at", "ready_at"), ("run_started_at, ready_at", "stopped_at")])
def test_run_whose_beginning_is_not_noted_is_not_longer_than_known(
    town: Town, notebook: str, remove: str, at: str
) -> None:
    ready = town.record(notebook)["ready_at"]
    put(town, notebook, "stopping", remove=remove)
    assert town.run("stop", **given(town, notebook, call=True))["status"] == "SUCCEEDED"
    (run,) = town.record(notebook)["runs"]["L"]
    if at == "ready_at":
        assert run["M"]["started_at"] == ready
    else:
        assert run["M"]["started_at"]["S"] <= run["M"]["stopped_at"]["S"]
        assert run["M"]["started_at"]["S"] > ready["S"]


def test_stop_is_recorded_when_its_owner_is_no_user_any_more(town: Town, notebook: str) -> None:
    put(town, notebook, "stopping")
    assert town.run("stop", **{**given(town, notebook, call=True), "owner": "us-" + "0" * 20})["status"] == "SUCCEEDED"
    assert town.record(notebook)["state"]["S"] == "stopped"
    assert len(town.record(notebook)["runs"]["L"]) == 1


@pytest.mark.parametrize("by", ["monitor", "outside"])
def test_machine_that_was_not_stopped_here_is_stopped_in_the_record_too(town: Town, notebook: str, by: str) -> None:
    if by == "monitor":
        town.machine(notebook).power_off_from_inside()
    else:
        town.ec2.stop_instances(InstanceIds=[town.record(notebook)["instance_id"]["S"]])
    seen = wait(town, notebook, "stopped")
    assert seen["stop"]["by"] == by
    record = town.record(notebook)
    assert len(record["runs"]["L"]) == 1
    assert notebook not in active(town)
    assert kinds(town, notebook) == ["ready", "stopped"]
    assert ledger(town, notebook) == [*LAUNCHED, ("stop", seen["stop"]["code"]), ("stop", "stopped")]
    assert "ledger_lines" not in town.record(notebook)


def test_event_of_a_stop_that_is_over_changes_nothing(town: Town, notebook: str) -> None:
    detail = {"instance-id": town.record(notebook)["instance_id"]["S"], "state": "stopped"}
    answered = town.cloud.lambdas.counts["nod-local-on_instance_event"]
    town.cloud.bus.emit("aws.ec2", "EC2 Instance State-change Notification", [], detail, times=2)
    wait_until(lambda: town.cloud.lambdas.counts["nod-local-on_instance_event"] == answered + 2, 60, "no event")
    town.settle()
    assert town.person.show(notebook)["state"] == "ready"


def test_zz_every_state_of_the_workflow_was_reached(town: Town) -> None:
    town.settle()
    assert {state.name for state in states("stop")} == town.reached["stop"]
