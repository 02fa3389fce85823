"""Every state of the start, on the local cloud, with machines that only say what they are told.

The heartbeat is written as the monitor would write it; everything else is that of every other run.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from moto.ec2.exceptions import InvalidInstanceIdError

from local.aws import beans
from tests.aws.workflows import states
from tests.local.lives import (
    LAUNCHED,
    OTHER,
    active,
    assert_ran_since,
    given,
    kinds,
    ledger,
    off,
    post,
    put,
    ran_days_ago,
    state_of,
    wait,
)
from tests.local.person import wait_until
from tests.local.scripted import FINGERPRINT
from tests.local.town import QUICK, Town

pytestmark = pytest.mark.usefixtures("clean")


def test_start_is_ready_when_the_new_boot_says_so(town: Town, stopped: str) -> None:
    before = town.record(stopped)
    assert post(town, stopped, "start") == 202
    assert stopped in active(town)
    seen = wait(town, stopped, "ready")
    assert seen["certificate_sha256"] == OTHER
    assert seen["url"] == f"https://{town.machine(stopped).address}:8888"
    record = town.record(stopped)
    assert record["run_started_at"]["S"] > before["stopped_at"]["S"]
    assert record["due_at"]["S"] > record["run_started_at"]["S"]
    assert record["due"]["S"]
    assert not {"error", "stop", "stopped_at", "wait_token", "warned"} & record.keys()
    assert kinds(town, stopped) == ["ready", "stopped", "started"]
    assert post(town, stopped, "stop") == 202
    wait(town, stopped, "stopped")
    assert len(town.record(stopped)["runs"]["L"]) == 2


def test_start_waits_for_a_true_heartbeat_and_takes_no_other(town: Town, stopped: str) -> None:
    town.machines.on_boot = None
    arn = given(town, stopped)["instance_arn"]
    key = {"id": {"S": arn}}
    old = town.tables.get_item(TableName="nod-local-heartbeats", Key=key)["Item"]["boot_id"]

    def updates() -> int:
        # While the start waits, nobody else writes with this call.
        return int(town.cloud.front.calls["dynamodb", "UpdateItem"])

    def looked_since(before: int) -> None:
        # The first of the two may have begun earlier.
        wait_until(lambda: updates() >= before + 2, 60, "it does not look", 0.02)

    forgeries: list[dict[str, Any]] = [
        {"boot_id": old},
        {"answers": {"BOOL": False}},
        {"answers": {"S": "true"}},
        {"certificate_valid": {"BOOL": False}},
        {"certificate_valid": None},
        {"address": {"S": "127.0.0.9"}},
        {"certificate_sha256": {"S": "A" * 10_000}},
        {"certificate_sha256": {"N": "1"}},
        {"boot_id": {"L": []}},
    ]
    booted = threading.Event()
    town.machines.on_boot = lambda _: booted.set()
    assert post(town, stopped, "start") == 202
    assert booted.wait(60)
    machine = town.machine(stopped)
    for forgery in forgeries:
        town.monitor.delete_item(TableName="nod-local-heartbeats", Key=key)
        town.tables.put_item(TableName="nod-local-heartbeats", Item={**key, "boot_before_start": old})
        town.beat(machine, **forgery)
        looked_since(updates())
        assert town.person.show(stopped)["state"] == "starting", f"{forgery} made it ready"
    town.monitor.delete_item(TableName="nod-local-heartbeats", Key=key)
    town.beat(machine, junk={"S": "x" * 380_000})
    assert wait(town, stopped, "ready")["certificate_sha256"] == FINGERPRINT


def test_start_without_capacity_stays_stopped_and_offers_other_types(town: Town, stopped: str) -> None:
    town.cloud.faults.on("no_capacity:t3.medium")
    before = town.record(stopped)
    assert post(town, stopped, "start") == 202
    wait_until(lambda: "start_failed" in kinds(town, stopped), 60, "nobody was told")
    seen = wait(town, stopped, "stopped")
    assert seen["error"]["code"] == "no_capacity"
    assert "t3a.medium" in seen["error"]["message"]
    assert stopped not in active(town)
    record = town.record(stopped)
    assert record["runs"] == before["runs"]
    assert record["stopped_at"] == before["stopped_at"]
    assert not {"due", "due_at", "wait_token"} & record.keys()
    town.cloud.faults.clear()
    assert post(town, stopped, "start") == 202
    assert wait(town, stopped, "ready")["error"] is None
    assert ledger(town, stopped)[len(LAUNCHED) + 2 :] == [
        ("start", "asked"),
        ("start", "no_capacity"),
        ("start", "asked"),
        ("start", "ready"),
    ]


def test_start_whose_notebook_never_answers_is_stopped_again_and_told(town: Town, stopped: str) -> None:
    town.machines.on_boot = None
    assert post(town, stopped, "start") == 202
    seen = wait(town, stopped, "stopped")
    assert seen["error"]["code"] == "start_failed"
    assert "did not answer" in seen["error"]["message"]
    assert kinds(town, stopped) == ["ready", "stopped", "start_failed"]
    assert stopped not in active(town)
    assert state_of(town, stopped) == "stopped"
    assert len(town.record(stopped)["runs"]["L"]) == 2, "what ran has cost something"
    assert ledger(town, stopped)[len(LAUNCHED) :] == [
        ("stop", "asked"),
        ("stop", "stopped"),
        ("start", "asked"),
        ("start", "start_failed"),
        ("stop", "stopped"),
    ]


def test_start_that_fails_and_cannot_be_stopped_says_that_it_runs(town: Town, stopped: str) -> None:
    town.machines.on_boot = None
    town.cloud.faults.on("stop_fails")
    assert post(town, stopped, "start") == 202
    wait_until(lambda: "stop_failed" in kinds(town, stopped), 60, "nobody was told")
    seen = wait(town, stopped, "ready")
    assert seen["error"]["code"] == "stop_failed"
    assert state_of(town, stopped) == "running"


def test_machine_that_ec2_takes_back_is_stopped_and_told(town: Town, stopped: str) -> None:
    town.machines.broken = True
    assert post(town, stopped, "start") == 202
    assert post(town, stopped, "extend", hours=2) == 202
    seen = wait(town, stopped, "stopped")
    assert (seen["error"]["code"], seen["hold_until"]) == ("start_failed", None)
    assert kinds(town, stopped)[-1] == "start_failed"
    assert state_of(town, stopped) == "stopped"


@pytest.mark.parametrize("known", [True, False])
def test_start_of_a_machine_that_is_gone(town: Town, stopped: str, known: bool) -> None:
    document = given(town, stopped)
    town.ec2.terminate_instances(InstanceIds=[document["instance_id"]])
    if not known:
        document["instance_id"] = f"i-{uuid.uuid4().hex[:17]}"
    town.tables.update_item(
        TableName="nod-local-notebooks",
        Key={"id": {"S": stopped}},
        UpdateExpression="SET #state = :state, instance_id = :instance",
        ExpressionAttributeNames={"#state": "state"},
        ExpressionAttributeValues={":state": {"S": "starting"}, ":instance": {"S": document["instance_id"]}},
    )
    assert town.run("start", **document)["status"] == "FAILED"
    seen = town.person.show(stopped)
    assert (seen["state"], seen["error"]["code"]) == ("failed", "instance_gone")
    assert kinds(town, stopped)[-1] == "failed"


def test_start_waits_for_the_end_of_a_stop(town: Town, notebook: str) -> None:
    town.machines.stopping = 2
    town.ec2.stop_instances(InstanceIds=[town.record(notebook)["instance_id"]["S"]])
    put(town, notebook, "starting")
    assert town.run("start", **given(town, notebook))["status"] == "SUCCEEDED"
    assert town.person.show(notebook)["state"] == "ready"


def test_start_does_not_wait_for_ever_for_the_end_of_a_stop(town: Town, notebook: str) -> None:
    town.machines.stopping = 10
    town.ec2.stop_instances(InstanceIds=[town.record(notebook)["instance_id"]["S"]])
    put(town, notebook, "starting")
    assert town.run("start", **given(town, notebook))["status"] == "FAILED"
    town.settle()
    assert town.record(notebook)["error"]["M"]["code"]["S"] in ("start_failed", "stop_failed")
    off(town, notebook)


def test_start_finds_its_machine_when_the_event_is_lost_and_ec2_is_slow(town: Town, stopped: str) -> None:
    town.cloud.faults.on("event_lost")
    town.cloud.slow_pending(2)
    assert post(town, stopped, "start") == 202
    wait(town, stopped, "ready")


def test_machine_that_is_not_running_in_time_is_given_up_and_stopped_when_it_runs(
    town: Town, stopped: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_up = threading.Event()
    run = town.cloud.ec2._run
    monkeypatch.setattr(town.cloud.ec2, "_run", lambda *life: given_up.wait(60) and run(*life))
    assert post(town, stopped, "start") == 202
    wait_until(lambda: town.record(stopped).get("error"), 60, "no error")
    given_up.set()
    seen = wait(town, stopped, "stopped")
    assert "in time" in seen["error"]["message"]
    assert state_of(town, stopped) == "stopped"


def test_answers_of_ec2_that_know_nothing_of_the_machine_for_a_while_lose_nothing(
    town: Town, stopped: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = threading.Event()
    run = town.cloud.ec2._run
    monkeypatch.setattr(town.cloud.ec2, "_run", lambda *life: seen.wait(60) and run(*life))
    assert post(town, stopped, "start") == 202
    wait_until(lambda: "wait_token" in town.record(stopped), 60, "it does not wait")
    execution = next(arn for arn in town.executions("start") if arn.endswith(f"{stopped}-start-1"))
    with monkeypatch.context() as patched:
        patched.setattr(town.cloud.ec2, "known", lambda _: False)
        wait_until(lambda: town.entered(execution, "Wait after Empty Answer"), 60, "EC2 was not looked at")
    seen.set()
    assert wait(town, stopped, "ready")["error"] is None


def test_start_that_cannot_look_at_its_machine_is_stopped_and_not_taken_for_off(
    town: Town, stopped: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_up = threading.Event()
    run = town.cloud.ec2._run
    monkeypatch.setattr(town.cloud.ec2, "_run", lambda *life: given_up.wait(60) and run(*life))
    assert post(town, stopped, "start") == 202
    wait_until(lambda: "wait_token" in town.record(stopped), 60, "it does not wait")
    execution = next(arn for arn in town.executions("start") if arn.endswith(f"{stopped}-start-1"))
    known = town.cloud.ec2.known
    # Each try of the start's look, and none of the stop's that follows.
    tries = iter(range(QUICK["Ec2Attempts"] + 1))

    def broken(instance_id: str) -> bool:
        return known(instance_id) if next(tries, None) is None else broken_look(instance_id)

    monkeypatch.setattr(town.cloud.ec2, "known", broken)
    wait_until(lambda: town.entered(execution, "Know Nothing of Instance"), 60, "EC2 was looked at")
    given_up.set()
    seen = wait(town, stopped, "stopped")
    assert seen["error"]["code"] == "start_failed"
    assert state_of(town, stopped) == "stopped"
    assert stopped not in active(town)


def broken_look(instance_id: str) -> bool:
    raise InvalidInstanceIdError(instance_id)


def test_start_without_a_public_address_is_stopped_again_and_costs_what_it_ran(town: Town, stopped: str) -> None:
    ran_days_ago(town, stopped)
    before = town.person.show(stopped)["cost"]["so_far"]
    began = datetime.now(UTC)
    town.cloud.without_addresses(True)
    assert post(town, stopped, "start") == 202
    seen = wait(town, stopped, "stopped")
    assert "public address" in seen["error"]["message"]
    assert_ran_since(town, stopped, began, before)


def test_start_of_an_instance_without_a_public_name_is_ready(
    town: Town, stopped: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_answer = beans.from_api

    def nameless(shape: Any, value: Any) -> Any:
        if shape is not None and shape.name == "Instance":
            value.pop("PublicDnsName", None)
        return given_answer(shape, value)

    monkeypatch.setattr(beans, "from_api", nameless)
    assert post(town, stopped, "start") == 202
    wait(town, stopped, "ready")
    assert town.record(stopped)["public_dns_name"] == {"S": ""}


def test_start_that_was_never_seen_running_is_no_run_since_the_launch(town: Town, stopped: str) -> None:
    """As the sweep takes it over: `stopping`, after a start that ended before it wrote when its run began."""
    ran_days_ago(town, stopped)
    before = town.person.show(stopped)["cost"]["so_far"]
    began = datetime.now(UTC)
    town.ec2.start_instances(InstanceIds=[town.record(stopped)["instance_id"]["S"]])
    wait_until(lambda: state_of(town, stopped) == "running", 60, "it does not run")
    put(town, stopped, "stopping")
    assert town.run("stop", **given(town, stopped, call=True))["status"] == "SUCCEEDED"
    assert_ran_since(town, stopped, began, before)


def test_start_of_what_runs_already_takes_it_as_it_is(town: Town, stopped: str) -> None:
    town.ec2.start_instances(InstanceIds=[town.record(stopped)["instance_id"]["S"]])
    wait_until(lambda: state_of(town, stopped) == "running", 60, "it does not run")
    assert post(town, stopped, "start") == 202
    wait(town, stopped, "ready")


def test_start_of_what_is_pending_already_takes_it_as_it_is(town: Town, stopped: str) -> None:
    town.cloud.slow_pending(2)
    town.ec2.start_instances(InstanceIds=[town.record(stopped)["instance_id"]["S"]])
    assert post(town, stopped, "start") == 202
    wait(town, stopped, "ready")


def test_start_is_ready_when_its_message_cannot_be_sent(
    town: Town, stopped: str, broken: Callable[[str], None]
) -> None:
    broken("tell_owner")
    assert post(town, stopped, "start") == 202
    wait(town, stopped, "ready")


def test_start_fails_truly_when_it_can_be_neither_explained_nor_told(
    town: Town, stopped: str, broken: Callable[[str], None]
) -> None:
    broken("tell_owner")
    broken("explain_failure")
    town.cloud.faults.on("no_capacity")
    assert post(town, stopped, "start") == 202
    wait_until(lambda: "error" in town.record(stopped), 60, "no error")
    assert wait(town, stopped, "stopped")["error"]["code"] == "start_failed"
    assert stopped not in active(town)


def test_two_starts_side_by_side_make_one_of_it(town: Town, stopped: str) -> None:
    put(town, stopped, "starting")
    # Longer than one of the two can be behind the other: the second must not take the new boot for the one before.
    town.cloud.slow_pending(1.5)
    document = given(town, stopped)
    ends: list[dict[str, Any]] = []
    threads = [threading.Thread(target=lambda: ends.append(town.run("start", **document))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [end["status"] for end in ends] == ["SUCCEEDED"] * 2
    assert town.person.show(stopped)["state"] == "ready"
    assert kinds(town, stopped).count("started") == 1


def test_start_again_of_what_is_ready_changes_nothing(town: Town, notebook: str) -> None:
    before = town.record(notebook)
    assert town.run("start", **given(town, notebook))["status"] == "SUCCEEDED"
    assert town.record(notebook) == before


@pytest.mark.parametrize("begun", ["stop", "start"])
def test_delete_wins_over_what_is_under_way_and_nothing_comes_back(town: Town, notebook: str, begun: str) -> None:
    town.machines.on_boot = None
    if begun == "start":
        assert post(town, notebook, "stop") == 202
        wait(town, notebook, "stopped")
    else:
        town.machines.stopping = 2
    assert post(town, notebook, begun) == 202
    assert town.person.delete(notebook, "mine").status_code == 202
    town.person.wait(notebook, "terminated", seconds=180)
    town.settle()
    assert town.person.show(notebook)["state"] == "terminated"
    assert town.instances(notebook) == []
    assert notebook not in active(town)
    assert "stop_failed" not in kinds(town, notebook)
    assert "start_failed" not in kinds(town, notebook)


def test_start_whose_answers_are_lost_is_no_refusal(town: Town, stopped: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """EC2 started it at the first call."""
    monkeypatch.setattr(town.cloud.front, "_loses", lambda _, service, action: action == "StartInstances")
    assert post(town, stopped, "start") == 202
    assert wait(town, stopped, "ready")["error"] is None
    assert kinds(town, stopped)[-1] == "started"


def test_zz_every_state_of_the_workflow_was_reached(town: Town) -> None:
    town.settle()
    assert {state.name for state in states("start")} == town.reached["start"]
