"""Every state of stop, start and password, on the local cloud, with machines that only say what they are told.

The heartbeat is written as the monitor would write it; everything else is that of every other run.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from moto.ec2.exceptions import InvalidInstanceIdError

from local.aws import beans
from tests.aws.workflows import states
from tests.local.person import wait_until
from tests.local.scripted import FINGERPRINT
from tests.local.town import DELAYS, Town, as_before, opened, told

NAMES = ("stop", "start", "password")
HASH = "argon2:$argon2id$v=19$m=19456,t=2,p=1$" + "A" * 22 + "$" + "B" * 42 + "A"
OTHER = ":".join(["CD"] * 32)


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    with opened(tmp_path_factory.mktemp("cloud")) as made:
        yield made


@pytest.fixture(autouse=True)
def clean(town: Town) -> Iterator[None]:
    yield
    town.cloud.slow_pending(DELAYS.pending)
    town.cloud.without_addresses(False)
    as_before(town)


@pytest.fixture
def broken(town: Town, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """A function of ours that fails at every call."""

    def fail(event: Any, context: Any) -> None:
        raise RuntimeError("broken for this test")

    return lambda name: monkeypatch.setitem(town.cloud.lambdas._handlers, f"nod-local-{name}", fail)


@pytest.fixture
def notebook(town: Town) -> str:
    """A notebook that is ready, and whose machine says so at every boot."""
    town.machines.on_boot = lambda machine: town.beat(machine, certificate_sha256={"S": OTHER})
    made = town.launch(name="mine")
    town.person.wait(made, "ready", seconds=180)
    town.settle()
    return made


def post(town: Town, notebook: str, what: str, **body: Any) -> int:
    answer = town.person.http.post(f"/notebooks/{notebook}/{what}", json=body or None)
    return int(answer.status_code)


def wait(town: Town, notebook: str, state: str, seconds: float = 120) -> dict[str, Any]:
    """Until it is so, and no workflow runs any more."""
    town.person.wait(notebook, state, seconds=seconds)
    town.settle()
    return dict(town.person.show(notebook))


LAUNCHED = [("launch", "requested"), ("launch", "launching"), ("launch", "ready")]


def ledger(town: Town, notebook: str) -> list[tuple[str, str]]:
    """Every change in the ledger, oldest first; not what the sweep decided without changing anything."""
    found = town.person.http.get(f"/notebooks/{notebook}/events?limit=100").json()["events"]
    return [(line["action"], line["code"]) for line in reversed(found) if line["action"] != "keep"]


@pytest.fixture
def stopped(town: Town, notebook: str) -> str:
    assert post(town, notebook, "stop") == 202
    wait(town, notebook, "stopped")
    return notebook


def kinds(town: Town, notebook: str) -> list[str]:
    return [m["kind"] for m in told(town.cloud) if m["id"] == notebook]


def untold(town: Town, notebook: str) -> bool:
    return notebook in town.user().get("untold", {}).get("SS", [])


def active(town: Town) -> list[str]:
    return list(town.user().get("active", {}).get("SS", []))


def given(town: Town, notebook: str, **more: Any) -> dict[str, Any]:
    """The input of a workflow that is started by hand."""
    instance = town.record(notebook)["instance_id"]["S"]
    arn = f"arn:aws:ec2:us-east-1:123456789012:instance/{instance}"
    return {
        "id": notebook,
        "owner": town.cloud.user_id,
        "name": "mine",
        "instance_id": instance,
        "number": "1",
        "instance_arn": arn,
        **more,
    }


def put(town: Town, notebook: str, state: str, remove: str = "") -> None:
    """Writes a state, as whoever begins a workflow does."""
    town.tables.update_item(
        TableName="nod-local-notebooks",
        Key={"id": {"S": notebook}},
        UpdateExpression="SET #state = :state" + (f" REMOVE {remove}" if remove else ""),
        ExpressionAttributeNames={"#state": "state"},
        ExpressionAttributeValues={":state": {"S": state}},
    )


def ran_days_ago(town: Town, notebook: str) -> None:
    """Has its one run so far be long ago."""
    ready, off = ((datetime.now(UTC) - timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%S.000Z") for days in (20, 19))
    town.tables.update_item(
        TableName="nod-local-notebooks",
        Key={"id": {"S": notebook}},
        UpdateExpression="SET ready_at = :ready, runs[0].started_at = :ready, "
        "runs[0].stopped_at = :off, stopped_at = :off",
        ExpressionAttributeValues={":ready": {"S": ready}, ":off": {"S": off}},
    )


def assert_ran_since(town: Town, notebook: str, began: datetime, cost_before: float) -> None:
    """Its second run is of now, and costs no more than that."""
    _, run = town.record(notebook)["runs"]["L"]
    started, ended = (datetime.fromisoformat(run["M"][key]["S"]) for key in ("started_at", "stopped_at"))
    assert began - timedelta(seconds=1) <= started <= ended
    assert town.person.show(notebook)["cost"]["so_far"] == pytest.approx(cost_before, abs=0.01)


def state_of(town: Town, notebook: str) -> str:
    instance = town.record(notebook)["instance_id"]["S"]
    (found,) = town.ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"]
    return str(found["State"]["Name"])


def off(town: Town, notebook: str) -> None:
    wait_until(lambda: state_of(town, notebook) == "stopped", 60, "it is never off")


# Stop


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
    town.machines.stopping = 4
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


# Start


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
    done = threading.Event()

    def forge(machine: Any) -> None:
        def all_of_them() -> None:
            for forgery in forgeries:
                town.monitor.delete_item(TableName="nod-local-heartbeats", Key=key)
                town.tables.put_item(TableName="nod-local-heartbeats", Item={**key, "boot_before_start": old})
                town.beat(machine, **forgery)
                if done.wait(0.5):
                    return
            town.monitor.delete_item(TableName="nod-local-heartbeats", Key=key)
            town.beat(machine, junk={"S": "x" * 380_000})
            done.set()

        threading.Thread(target=all_of_them, daemon=True).start()

    town.machines.on_boot = forge
    assert post(town, stopped, "start") == 202
    seen = {town.person.show(stopped)["state"]}
    while not done.wait(0.1):
        seen.add(town.person.show(stopped)["state"])
    assert seen == {"starting"}, "a forgery made it ready"
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
    town.cloud.slow_pending(3.5)
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
    with monkeypatch.context() as patched:
        patched.setattr(town.cloud.ec2, "known", broken_look)
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


# Password


def set_password(town: Town, notebook: str, **more: str) -> dict[str, Any]:
    return town.run("password", **given(town, notebook, **{"password_hash": HASH, **more}))


def test_password_is_set_on_the_machine_and_noted(town: Town, notebook: str) -> None:
    assert set_password(town, notebook)["status"] == "SUCCEEDED"
    assert town.record(notebook)["password_hash"]["S"] == HASH
    _, document, environment = town.machines.ran[-1]
    assert document == "set-password"
    assert HASH in environment.values()
    assert ledger(town, notebook) == [*LAUNCHED, ("set-password", "changed")]


def test_password_is_set_when_the_event_is_lost(town: Town, notebook: str) -> None:
    town.cloud.faults.on("event_lost")
    town.machines.seconds["set-password"] = 2.5
    assert set_password(town, notebook)["status"] == "SUCCEEDED"


def test_password_without_a_number_is_set_and_older_than_any_with_one(town: Town, notebook: str) -> None:
    """As an API asks that was deployed before there were numbers."""

    def unnumbered() -> str:
        document = given(town, notebook, password_hash=HASH)
        del document["number"]
        return str(town.run("password", **document)["status"])

    assert unnumbered() == "SUCCEEDED"
    _, document, environment = town.machines.ran[-1]
    assert (document, environment["SSM_Number"]) == ("set-password", "0")
    record = town.record(notebook)
    assert (record["password_hash"]["S"], record["hash_number"]["N"]) == (HASH, "0")
    assert set_password(town, notebook, password_hash=NEWER)["status"] == "SUCCEEDED"
    assert unnumbered() == "SUCCEEDED"
    assert town.record(notebook)["password_hash"]["S"] == NEWER


NEWER = HASH.replace("B", "C")


def test_password_that_was_overtaken_changes_nothing_and_is_no_failure(town: Town, notebook: str) -> None:
    """On the machine; in the record; and one that fails after a newer one was set."""
    assert set_password(town, notebook, password_hash=NEWER, number="5")["status"] == "SUCCEEDED"
    before = town.record(notebook)
    assert (before["password_hash"]["S"], before["hash_number"]["N"]) == (NEWER, "5")
    assert set_password(town, notebook, number="4")["status"] == "SUCCEEDED"
    town.machines.results["set-password"] = {"ok": True, "overtaken": True}
    assert set_password(town, notebook, number="9")["status"] == "SUCCEEDED"
    town.machines.results["set-password"] = {"ok": False, "code": "password_failed", "message": "It hangs."}
    assert set_password(town, notebook, number="3")["status"] == "SUCCEEDED"
    after = town.record(notebook)
    assert {name for name in after if after[name] != before.get(name)} <= {"updated_at"}
    assert "password_failed" not in kinds(town, notebook)


def test_newer_password_ends_what_the_record_says_of_an_older_one(town: Town, notebook: str) -> None:
    town.machines.results["set-password"] = {"ok": False, "code": "password_failed", "message": "It hangs."}
    assert set_password(town, notebook, number="1")["status"] == "FAILED"
    assert town.person.show(notebook)["error"]["code"] == "password_failed"
    town.machines.results["set-password"] = {"ok": True}
    assert set_password(town, notebook, number="2")["status"] == "SUCCEEDED"
    assert town.person.show(notebook)["error"] is None
    assert not [name for name in town.record(notebook) if name.startswith("hash_change")]


def test_password_that_was_withdrawn_is_not_set(town: Town, notebook: str) -> None:
    town.tables.update_item(
        TableName="nod-local-notebooks",
        Key={"id": {"S": notebook}},
        UpdateExpression="SET hash_change_7 = :withdrawn",
        ExpressionAttributeValues={":withdrawn": {"S": "withdrawn"}},
    )
    ran = len(town.machines.ran)
    assert set_password(town, notebook, number="7")["status"] == "SUCCEEDED"
    assert len(town.machines.ran) == ran


@pytest.mark.parametrize("fault", ["throttling", "event_lost", "command_twice:set-password", "answer_lost:ssm"])
def test_newest_of_three_passwords_wins(town: Town, notebook: str, fault: str) -> None:
    """The machine orders them (set-password.sh); a scripted one takes all, so the record is what is looked at here."""
    town.cloud.faults.on(fault)
    town.machines.seconds["set-password"] = 0.5
    for number in (1, 2, 3):
        assert post(town, notebook, "password", password=f"chosen-as-number-{number}") == 202
    town.settle()
    sent = {run["SSM_Number"]: run["SSM_PasswordHash"] for _, name, run in town.machines.ran if name == "set-password"}
    assert {"1", "2", "3"} <= sent.keys()
    record = town.record(notebook)
    assert (record["password_hash"]["S"], record["hash_number"]["N"]) == (sent["3"], "3")


def test_password_of_a_command_that_did_not_end_well_may_be_in_force(town: Town, notebook: str) -> None:
    town.cloud.faults.on("command_times_out:set-password")
    assert set_password(town, notebook)["status"] == "FAILED"
    assert town.person.show(notebook)["error"]["message"].startswith("It is not known whether")


def test_start_whose_answers_are_lost_is_no_refusal(town: Town, stopped: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """EC2 started it at the first call."""
    monkeypatch.setattr(town.cloud.front, "_loses", lambda _, service, action: action == "StartInstances")
    assert post(town, stopped, "start") == 202
    assert wait(town, stopped, "ready")["error"] is None
    assert kinds(town, stopped)[-1] == "started"


def test_password_that_the_machine_refuses_leaves_the_old_one(town: Town, notebook: str) -> None:
    before = town.record(notebook)["password_hash"]
    town.machines.results["set-password"] = {"ok": False, "code": "notebook_not_answering", "message": "It hangs."}
    assert set_password(town, notebook)["status"] == "FAILED"
    seen = town.person.show(notebook)
    assert (seen["state"], seen["error"]["code"]) == ("ready", "password_failed")
    assert "It hangs" in seen["error"]["message"]
    assert town.record(notebook)["password_hash"] == before
    assert kinds(town, notebook)[-1] == "password_failed"


def test_password_of_a_machine_that_is_off_leaves_the_old_one(
    town: Town, stopped: str, broken: Callable[[str], None]
) -> None:
    broken("explain_failure")
    broken("tell_owner")
    assert set_password(town, stopped)["status"] == "FAILED"
    seen = town.person.show(stopped)
    assert (seen["state"], seen["error"]["code"]) == ("stopped", "password_failed")


def test_password_of_what_was_deleted_is_nobodys(town: Town, notebook: str) -> None:
    document = given(town, notebook, password_hash=HASH)
    assert town.person.delete(notebook, "mine").status_code == 202
    wait(town, notebook, "terminated")
    assert town.run("password", **document)["status"] == "SUCCEEDED"
    assert "password_failed" not in kinds(town, notebook)


def test_zz_every_state_of_these_workflows_was_reached(town: Town) -> None:
    town.settle()
    for name in NAMES:
        assert {s.name for s in states(name)} - town.reached[name] == set(), name
