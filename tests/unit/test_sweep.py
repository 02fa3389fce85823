"""The sweep as stories: what it keeps, warns, stops and mends, and what it does when something fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from chalicelib import paging, times
from chalicelib.actions.draining import begin
from chalicelib.aws.due import DueNotebooks
from chalicelib.aws.ledger import Ledger, event
from chalicelib.model import Notebook, Stop
from tests.unit.stage import ENV, SESSION
from tests.unit.sweep_world import MINUTE, NOON, Killed, World, world


@pytest.fixture
def made() -> Iterator[World]:
    with world() as one:
        yield one


def after(made: World, minutes: float, *notebooks: Notebook, idle: float) -> None:
    """Time passes; the monitors beat on, and nobody has used anything for `idle` minutes by then."""
    made.pass_minutes(minutes)
    for notebook in notebooks:
        made.beat(notebook, idle)


def to_the_stop(made: World) -> Notebook:
    """A notebook that was warned, and is to be stopped now."""
    one = made.notebook(idle=55)
    made.sweep()
    after(made, 11, one, idle=66)
    return one


def refuse(code: str, *names: str, times_: int = 10**6, when: Callable[[dict[str, Any]], bool] | None = None) -> Any:
    """Calls of these names fail with that code, so often."""
    left = times_

    def before(name: str, arguments: dict[str, Any]) -> None:
        nonlocal left
        if name in names and left > 0 and (when is None or when(arguments)):
            left -= 1
            raise ClientError({"Error": {"Code": code, "Message": code}}, name)

    return before


# What it decides


def test_what_is_used_is_kept_confirmed_and_looked_at_again_later(made: World) -> None:
    one = made.notebook(idle=0)
    made.sweep()
    (line,) = made.lines(one)
    assert (line.action, line.code, line.by) == ("keep", "active", "sweep")
    assert line.signals["ages"]
    assert made.record(one)["due_at"] > times.to_text(made.now)
    assert made.row(one)["confirmed"] == times.to_text(made.now)
    assert made.row(one)["limit_seconds"] == 3600
    made.sweep("sweep-2")
    assert len(made.lines(one)) == 1


def test_a_monitor_is_confirmed_every_half_hour_and_at_once_when_a_limit_changes(made: World) -> None:
    one = made.notebook(idle=0)
    made.sweep()
    first = made.row(one)["confirmed"]
    after(made, 16, one, idle=0)
    made.dynamodb.update_item(  # the monitor leaves what it was told where it is
        TableName=ENV["NOD_HEARTBEATS_TABLE"],
        Key={"id": {"S": made.arn(one)}},
        UpdateExpression="SET confirmed = :at, limit_seconds = :limit",
        ExpressionAttributeValues={":at": {"S": first}, ":limit": {"N": "3600"}},
    )
    made.sweep()
    assert made.row(one)["confirmed"] == first
    hold = times.to_text(made.now + timedelta(hours=2))
    made.deployed.change(one.id, hold_until=hold, due_at=times.to_text(made.now))
    made.sweep()
    assert made.row(one)["hold_until"] == hold
    assert made.row(one)["confirmed"] == times.to_text(made.now)


def test_it_warns_waits_as_long_as_it_said_and_stops(made: World) -> None:
    one = made.notebook(idle=55)
    made.sweep()
    assert made.told.messages == [(one.id, "warned")]
    warned = made.record(one)["warned"]
    assert "told" not in warned
    assert "idle since" in warned["reason"]
    after(made, 5, one, idle=60)
    made.sweep()
    assert made.state(one) == "ready"
    after(made, 5, one, idle=65)
    swept = made.sweep()
    assert swept.counts["stop"] == 1
    record = made.record(one)
    assert (record["state"], record["stops"], record["stop"]["by"]) == ("stopping", 1, "sweep")
    assert made.power(one) == "stopped"
    ((name, document),) = made.begun("stop").items()
    assert name == f"{one.id}-stop-1"
    assert document == {
        "id": one.id,
        "owner": "ada",
        "name": one.name,
        "instance_id": one.instance_id,
        "call": False,
    }
    assert [line.action for line in made.lines(one)] == ["warn", "stop"]


def test_use_after_the_warning_keeps_it(made: World) -> None:
    one = made.notebook(idle=55)
    made.sweep()
    after(made, 11, one, idle=1)
    made.sweep()
    assert (made.state(one), made.lines(one)[-1].action) == ("ready", "keep")


def test_the_hard_limit_stops_what_is_busy(made: World) -> None:
    one = made.notebook(idle=0, max_hours=24)
    made.sweep()
    assert made.state(one) == "stopping"
    assert made.record(one)["stop"]["code"] == "limit"


def test_the_hard_limit_is_told_before(made: World) -> None:
    one = made.notebook(idle=0, max_hours=25)
    made.sweep()
    assert made.told.messages == [(one.id, "limit_near")]
    after(made, 10, one, idle=0)
    made.sweep()
    assert len(made.told.messages) == 1


def test_what_is_not_due_is_not_read(made: World) -> None:
    made.notebook(idle=200, due_at=times.to_text(made.now + MINUTE))
    read: list[str] = []
    made.before = lambda name, arguments: read.append(name)
    made.sweep()
    assert set(read) == {"query"}


def test_a_page_of_the_index_is_not_the_end(made: World) -> None:
    """More than one page in a shard: the ids of these all hash into one."""
    from chalicelib.model import due_shard  # noqa: PLC0415

    ids = [name for number in range(4000) if due_shard(name := f"nb-{number:020x}") == "3"][:130]
    template = made.notebook(state="terminating", instance=False)
    from dataclasses import replace  # noqa: PLC0415

    for identifier in ids:
        made.put(replace(template, id=identifier, due="3"))
    due = DueNotebooks(
        made.dynamodb, *(ENV[f"NOD_{name}_TABLE"] for name in ("NOTEBOOKS", "USERS", "EVENTS")), made.sleep
    )
    pages = list(due.pages(3, made.now))
    assert len(pages[0]) == 100
    assert sorted(one for page in pages for one in page if one != template.id) == sorted(ids)
    assert len(due.read(ids)[0]) == 130


# Silence


def heard(made: World, minutes: float) -> Notebook:
    """A notebook whose last heartbeat was seen so many minutes ago."""
    one = made.notebook(idle=0)
    made.sweep()
    made.pass_minutes(minutes)
    return one


def test_silence_is_probed_once_then_warned_then_stopped_at_the_cap(made: World) -> None:
    one = heard(made, 16)
    made.sweep()
    assert made.commands == [[one.instance_id]]
    assert [(line.action, line.code) for line in made.lines(one)][1:] == [("probe", "silent"), ("probe", "sent")]
    made.pass_minutes(16)
    made.sweep()
    assert len(made.commands) == 1
    made.pass_minutes(30)
    made.sweep()
    assert made.told.messages == [(one.id, "silent")]
    while made.state(one) == "ready":
        made.pass_minutes(5)
        made.sweep()
    # Four hours after the last heartbeat, at the next look.
    assert made.record(one)["stop"]["code"] == "silent"
    assert timedelta(hours=4) <= made.now - NOON <= timedelta(hours=4, minutes=10)
    assert len(made.commands) == 1
    assert len(made.told.messages) == 1


def test_an_hour_without_heartbeats_ends_when_they_come_again(made: World) -> None:
    one = heard(made, 16)
    for _ in range(4):
        made.sweep()
        made.pass_minutes(15)
    assert made.told.messages == [(one.id, "silent")]
    made.beat(one, 2)
    made.sweep()
    after(made, 240, one, idle=0)
    made.sweep()
    assert made.state(one) == "ready"
    assert made.lines(one)[-1].code == "active"


def test_a_machine_that_systems_manager_cannot_reach_does_not_keep_the_others_from_the_probe(made: World) -> None:
    ones = [made.notebook(idle=0) for _ in range(3)]
    made.sweep()
    made.pass_minutes(16)
    made._ssm.offline.add(str(ones[1].instance_id))
    made.sweep()
    assert sorted(one for sent in made.commands for one in sent) == sorted(
        str(one.instance_id) for one in (ones[0], ones[2])
    )
    assert made.lines(ones[1])[-1].code == "unreachable"


def test_a_machine_that_the_policy_does_not_let_be_probed_keeps_nobody_else_from_it(made: World) -> None:
    """Its tag was removed."""
    ones = [made.notebook(idle=0) for _ in range(2)]
    made.sweep()
    made.pass_minutes(16)
    made.before = refuse(
        "AccessDeniedException", "send_command", when=lambda arguments: ones[0].instance_id in arguments["InstanceIds"]
    )
    assert made.sweep().trouble == []
    assert made.commands == [[ones[1].instance_id]]
    assert made.lines(ones[0])[-1].code == "unreachable"


def test_an_instance_stopped_by_hand_is_found_in_its_silence(made: World) -> None:
    one = heard(made, 16)
    made.ec2.stop_instances(InstanceIds=[one.instance_id])
    made.sweep()
    record = made.record(one)
    assert (record["state"], record["stop"]["by"]) == ("stopping", "outside")
    assert f"{one.id}-stop-1" in made.begun("stop")
    assert made.commands == []


def test_an_instance_terminated_by_hand_ends_its_notebook_and_frees_the_quota(made: World) -> None:
    one = heard(made, 16)
    made.ec2.terminate_instances(InstanceIds=[one.instance_id])
    made.sweep()
    record = made.record(one)
    assert (record["state"], record["error"]["code"]) == ("failed", "instance_gone")
    assert "due" not in record
    user = made.user()
    assert one.id not in user.get("active", set()) | user.get("owned", set())
    assert made.told.messages == [(one.id, "failed")]


def test_an_instance_that_ec2_does_not_show_is_given_up_only_after_an_hour(made: World) -> None:
    one = made.notebook(instance=False, instance_id="i-0123456789abcdef0")
    made.pass_minutes(1500)
    for _ in range(4):
        made.sweep()
        assert made.state(one) == "ready"
        made.pass_minutes(15)
    made.sweep()
    assert made.state(one) == "failed"


def test_while_ec2_does_not_answer_silent_ones_wait_and_the_others_are_swept(made: World) -> None:
    silent = heard(made, 16)
    active = made.notebook(idle=0)
    made.before = refuse("InternalError", "describe_instances")
    swept = made.sweep()
    assert len(swept.trouble) == 1
    assert made.lines(active)[-1].code == "active"
    assert made.state(silent) == "ready"
    assert made.commands == []


# Messages that do not go out


def test_a_warning_that_the_topic_refuses_was_not_given(made: World) -> None:
    one = made.notebook(idle=55)
    made.told.refuses = True
    swept = made.sweep()
    assert swept.trouble
    assert made.lines(one)[-1].code == "not_sent"
    for minutes in range(60, 180, 5):
        after(made, 5, one, idle=minutes)
        made.sweep()
        assert made.state(one) == "ready"
    made.told.refuses = False
    after(made, 5, one, idle=180)
    made.sweep()
    published = made.now
    assert made.told.messages == [(one.id, "warned")]
    while made.state(one) == "ready":
        after(made, 1, one, idle=180)
        made.sweep()
    assert made.now - published >= 10 * MINUTE


def test_a_sweep_that_dies_before_its_warning_is_published_has_not_warned(made: World) -> None:
    one = made.notebook(idle=55)

    def die() -> None:
        raise Killed

    made.told.before = die
    with pytest.raises(Killed):
        made.sweep()
    made.told.before = lambda: None
    after(made, 30, one, idle=85)
    made.sweep()
    assert made.state(one) == "ready"
    assert made.told.messages == [(one.id, "warned")]


# Two at once


def test_two_sweeps_side_by_side_do_each_thing_once(made: World) -> None:
    stopped = [made.notebook(idle=55) for _ in range(2)]
    made.sweep()
    after(made, 11, *stopped, idle=66)
    made.told.messages.clear()
    warned = [made.notebook(idle=55) for _ in range(3)]
    lines = {one.id: len(made.lines(one)) for one in (*warned, *stopped)}
    with ThreadPoolExecutor(4) as threads:
        for future in [threads.submit(made.sweep, f"sweep-{number}") for number in range(4)]:
            assert future.result().trouble == []
    assert sorted(made.told.messages) == sorted((one.id, "warned") for one in warned)
    for one in (*warned, *stopped):
        assert len(made.lines(one)) == lines[one.id] + 1
    assert {made.state(one) for one in stopped} == {"stopping"}
    assert sorted(made.begun("stop")) == sorted(f"{one.id}-stop-1" for one in stopped)


def test_a_sweep_beside_one_that_drains_leaves_the_stops_to_it(made: World) -> None:
    one = to_the_stop(made)
    made.dynamodb.put_item(
        TableName=ENV["NOD_SWEEPS_TABLE"],
        Item={
            "id": {"S": "drain"},
            "holder": {"S": "other"},
            "until": {"S": times.to_text(made.now + MINUTE)},
        },
    )
    assert made.sweep().counts["left to another"] == 1
    assert made.state(one) == "ready"
    after(made, 2, one, idle=68)
    made.sweep()
    assert made.state(one) == "stopping"


def test_a_person_who_extends_while_the_sweep_decides_keeps_it(made: World) -> None:
    one = to_the_stop(made)
    hold = times.to_text(made.now + timedelta(hours=2))

    def extend(name: str, arguments: dict[str, Any]) -> None:
        if name == "transact_write_items":
            made.before = lambda name, arguments: None
            made.deployed.change(one.id, hold_until=hold)

    made.before = extend
    made.sweep()
    assert (made.state(one), made.power(one)) == ("ready", "running")
    assert made.begun("stop") == {}


def test_use_while_it_waits_for_its_turn_keeps_it(made: World) -> None:
    one = to_the_stop(made)

    def lease(name: str, arguments: dict[str, Any]) -> None:
        if name == "update_item" and arguments["TableName"] == ENV["NOD_SWEEPS_TABLE"]:
            made.beat(one, 0, beat=10**9)

    made.before = lease
    assert made.sweep().counts["kept after all"] == 1
    assert made.state(one) == "ready"


def test_a_start_that_overtakes_a_stop_is_left_alone(made: World) -> None:
    """The record that a stop was read from is history by the time it writes."""
    one = made.notebook(idle=90)
    due = DueNotebooks(
        made.dynamodb, *(ENV[f"NOD_{name}_TABLE"] for name in ("NOTEBOOKS", "USERS", "EVENTS")), made.sleep
    )
    made.deployed.change(one.id, state="starting")
    assert begin(due, one, Stop("idle", "", "sweep"), made.now, look_at=made.now) is None
    assert made.state(one) == "starting"
    assert made.lines(one) == []


# What cannot be read or written


@pytest.mark.parametrize("table", ["NOTEBOOKS", "HEARTBEATS"])
def test_while_a_table_cannot_be_read_nothing_stops(made: World, table: str) -> None:
    one = to_the_stop(made)
    made.before = refuse(
        "InternalServerError",
        "batch_get_item",
        when=lambda arguments: ENV[f"NOD_{table}_TABLE"] in arguments["RequestItems"],
    )
    assert made.sweep().trouble
    assert (made.state(one), made.power(one)) == ("ready", "running")
    made.before = lambda name, arguments: None
    made.sweep()
    assert made.state(one) == "stopping"


def test_a_table_that_fails_between_the_decision_and_the_stop_keeps_it(made: World) -> None:
    one = to_the_stop(made)
    reads = 0

    def before(name: str, arguments: dict[str, Any]) -> None:
        nonlocal reads
        reads += name == "batch_get_item"
        if reads > 2 and name == "batch_get_item":
            raise ClientError({"Error": {"Code": "InternalServerError", "Message": ""}}, name)

    made.before = before
    assert made.sweep().trouble
    assert made.power(one) == "running"


def test_what_a_table_leaves_unread_is_read_again(made: World, monkeypatch: pytest.MonkeyPatch) -> None:
    ones = [made.notebook(idle=0) for _ in range(3)]
    client = made.dynamodb
    real, asked = client.batch_get_item, []

    def one_at_a_time(**arguments: Any) -> Any:
        ((table, request),) = arguments["RequestItems"].items()
        asked.append(len(request["Keys"]))
        answer = real(RequestItems={table: {**request, "Keys": request["Keys"][:1]}})
        rest = request["Keys"][1:]
        return {**answer, "UnprocessedKeys": {table: {**request, "Keys": rest}} if rest else {}}

    monkeypatch.setattr(client, "batch_get_item", one_at_a_time)
    due = DueNotebooks(client, *(ENV[f"NOD_{name}_TABLE"] for name in ("NOTEBOOKS", "USERS", "EVENTS")), made.sleep)
    assert len(due.read([one.id for one in ones])[0]) == 3
    assert asked == [3, 2, 1]


def test_a_record_that_cannot_be_read_keeps_nobody_else(made: World) -> None:
    broken, fine = made.notebook(idle=0), made.notebook(idle=0)
    made.dynamodb.update_item(
        TableName=ENV["NOD_NOTEBOOKS_TABLE"], Key={"id": {"S": broken.id}}, UpdateExpression="REMOVE idle_minutes"
    )
    assert made.sweep().trouble == []
    assert made.lines(fine)
    assert not made.lines(broken)


def test_a_forged_heartbeat_keeps_nobody_else(made: World) -> None:
    forged, fine = made.notebook(idle=0), made.notebook(idle=0)
    made.dynamodb.put_item(
        TableName=ENV["NOD_HEARTBEATS_TABLE"],
        Item={
            "id": {"S": made.arn(forged)},
            "boot_id": {"B": b"\xff"},
            "beat": {"NS": ["1", "2"]},
            "ages": {"L": [{"NULL": True}]},
            "limit_seconds": {"M": {}},
            "hold_until": {"N": "1"},
        },
    )
    assert made.sweep().trouble == []
    assert made.lines(fine)
    assert made.state(forged) == "ready"


# EC2 refuses


def test_one_instance_that_ec2_refuses_does_not_keep_the_others(made: World) -> None:
    ones = [made.notebook(idle=55) for _ in range(7)]
    made.sweep()
    after(made, 11, *ones, idle=66)
    bad = ones[3]
    made.before = refuse(
        "UnsupportedOperation", "stop_instances", when=lambda arguments: bad.instance_id in arguments["InstanceIds"]
    )
    swept = made.sweep()
    assert (swept.counts["stop"], swept.counts["refused"]) == (6, 1)
    record = made.record(bad)
    assert (record["state"], record["error"]["code"]) == ("ready", "stop_failed")
    assert "stop" not in record
    assert made.told.messages[-1] == (bad.id, "stop_failed")
    assert {made.state(one) for one in ones if one is not bad} == {"stopping"}
    # Again an hour later, without a second message.
    after(made, 61, bad, idle=130)
    told = len(made.told.messages)
    assert made.sweep().counts["refused"] == 1 or made.lines(bad)[-1].action == "warn"
    assert [kind for _, kind in made.told.messages[told:]] != ["stop_failed"]


def test_an_instance_that_is_gone_at_its_stop_ends_as_gone(made: World) -> None:
    one, other = to_the_stop(made), made.notebook(idle=0)
    made.ec2.terminate_instances(InstanceIds=[one.instance_id])
    made.before = refuse("IncorrectInstanceState", "stop_instances")
    made.sweep()
    assert made.state(one) == "stopping"
    made.before = lambda name, arguments: None
    made.pass_minutes(6)
    made.sweep()
    assert (made.state(one), made.record(one)["error"]["code"]) == ("failed", "instance_gone")
    assert made.state(other) == "ready"


def test_if_ec2_refuses_all_its_owners_are_not_bothered(made: World) -> None:
    ones = [made.notebook(idle=55) for _ in range(5)]
    made.sweep()
    after(made, 11, *ones, idle=66)
    made.told.messages.clear()
    made.before = refuse("UnauthorizedOperation", "stop_instances")
    assert made.sweep().trouble
    assert made.told.messages == []
    assert {made.state(one) for one in ones} == {"ready"}


def test_a_throttled_call_is_made_again_when_ec2_takes_it(made: World) -> None:
    one = to_the_stop(made)
    made.before = refuse("RequestLimitExceeded", "stop_instances", times_=3)
    before = made.now
    swept = made.sweep()
    assert (swept.counts["throttled"], made.state(one), made.power(one)) == (3, "stopping", "stopped")
    assert made.now > before


def test_throttled_to_the_end_of_its_time_it_leaves_a_state_that_is_mended(made: World) -> None:
    one = to_the_stop(made)
    made.before = refuse("RequestLimitExceeded", "stop_instances")
    assert made.sweep(seconds=60).trouble
    assert made.state(one) == "stopping"
    made.before = lambda name, arguments: None
    made.pass_minutes(6)
    made.sweep("sweep-2")
    assert made.power(one) == "stopped"
    assert f"{one.id}-stop-1" in made.begun("stop")


def test_a_run_that_ends_leaves_the_rest_to_the_next(made: World) -> None:
    ones = [made.notebook(idle=55) for _ in range(3)]
    made.sweep()
    after(made, 11, *ones, idle=66)
    swept = made.sweep(seconds=45)
    assert swept.counts["left for the next"] == 3 or not swept.complete
    assert {made.state(one) for one in ones} == {"ready"}
    made.sweep("sweep-2")
    assert {made.state(one) for one in ones} == {"stopping"}


# Killed at each call


def kill_at_each_call(made: World, *notebooks: Notebook, idle: float) -> int:
    """Sweeps that die at their first call, their second, and so on, a minute apart, until one comes to its end."""
    for point in range(1, 200):
        calls = 0

        def kill(name: str, arguments: dict[str, Any], point: int = point) -> None:
            nonlocal calls
            calls += 1
            if calls == point:
                raise Killed

        made.before = kill
        try:
            made.sweep(f"sweep-{point}")
        except Killed:
            after(made, 1, *notebooks, idle=idle)
            continue
        made.before = lambda name, arguments: None
        return point
    raise AssertionError("It never came to its end.")


def settle(made: World, *notebooks: Notebook, idle: float) -> None:
    """The sweeps of the next half hour."""
    for number in range(6):
        after(made, 5, *notebooks, idle=idle)
        made.sweep(f"after-{number}")


def test_killed_at_each_call_it_keeps_what_is_used(made: World) -> None:
    one = made.notebook(idle=0)
    assert kill_at_each_call(made, one, idle=0) > 16
    settle(made, one, idle=0)
    assert made.state(one) == "ready"
    assert made.told.messages == []


def test_killed_at_each_call_it_never_stops_unwarned_and_stops_in_the_end(made: World) -> None:
    one = made.notebook(idle=55)
    # Each call of EC2 or of Step Functions once, whatever was called before it died.
    kill_at_each_call(made, one, idle=66)
    while made.state(one) == "ready":
        stops = made.begun("stop")
        assert stops == {}
        after(made, 3, one, idle=70)
        kill_at_each_call(made, one, idle=70)
    settle(made, one, idle=70)
    lines = [line.action for line in made.lines(one) if line.action in ("warn", "stop")]
    assert lines.count("stop") == 1
    assert "warn" in lines
    assert lines[-1] == "stop"
    assert made.power(one) == "stopped"
    assert list(made.begun("stop")) == [f"{one.id}-stop-1"]
    assert made.record(one)["stops"] == 1


def test_killed_at_each_call_it_ends_what_is_gone_once(made: World) -> None:
    one = heard(made, 16)
    made.ec2.terminate_instances(InstanceIds=[one.instance_id])
    kill_at_each_call(made, idle=0)
    settle(made, idle=0)
    record = made.record(one)
    assert (record["state"], record["error"]["code"]) == ("failed", "instance_gone")
    assert [line.code for line in made.lines(one)].count("instance_gone") == 1
    # Killed before its message it is `untold`, and the schedule of the messages sends it.
    assert made.told.messages == [(one.id, "failed")] or one.id in made.user()["untold"]


# Mending


def end(made: World, machine: str, name: str, status: str = "ABORTED") -> None:
    """An execution of that name is over."""
    client = SESSION.client("stepfunctions")
    started = client.start_execution(stateMachineArn=ENV[f"NOD_{machine.upper()}_ARN"], name=name, input="{}")
    if status == "ABORTED":
        client.stop_execution(executionArn=started["executionArn"], error="Mine", cause="by hand")


@pytest.mark.parametrize("state", ["requested", "launching"])
def test_a_launch_that_never_began_is_undone(made: World, state: str) -> None:
    one = made.notebook(state=state, instance=False)
    made.sweep()
    ((name, document),) = made.begun("undo").items()
    assert name.startswith(f"{one.id}-undo-")
    assert document == {"name": one.id, "status": "ABORTED", "error": None, "cause": None}
    assert made.lines(one)[-1].action == "mend"
    assert made.record(one)["due_at"] > times.to_text(made.now)


def test_an_aborted_launch_is_undone_with_its_reason(made: World) -> None:
    one = made.notebook(state="launching", instance=False)
    end(made, "launch", one.id)
    made.sweep()
    (document,) = made.begun("undo").values()
    assert (document["status"], document["name"]) == ("ABORTED", one.id)


def test_a_launch_that_goes_on_is_left_alone(made: World) -> None:
    one = made.notebook(state="launching", instance=False)
    end(made, "launch", one.id, "RUNNING")
    made.sweep()
    assert made.begun("undo") == {}
    assert made.lines(one) == []
    assert made.record(one)["due_at"] > times.to_text(made.now)


def test_a_stop_that_never_began_is_done(made: World) -> None:
    one = made.notebook(state="stopping", stops=1)
    made.sweep()
    assert made.power(one) == "stopped"
    assert list(made.begun("stop")) == [f"{one.id}-stop-1"]


def test_a_stop_that_was_aborted_is_done_by_the_next_execution(made: World) -> None:
    one = made.notebook(state="stopping", stops=1)
    end(made, "stop", f"{one.id}-stop-1")
    made.sweep()
    assert made.power(one) == "stopped"
    assert f"{one.id}-stop-2" in made.begun("stop")
    assert made.record(one)["stops"] == 2


def test_a_stop_whose_machine_is_off_is_only_written_down(made: World) -> None:
    one = made.notebook(state="stopping", stops=1)
    end(made, "stop", f"{one.id}-stop-1")
    made.ec2.stop_instances(InstanceIds=[one.instance_id])
    calls: list[str] = []
    made.before = lambda name, arguments: calls.append(name)
    made.sweep()
    assert "stop_instances" not in calls
    assert f"{one.id}-stop-2" in made.begun("stop")


def test_a_start_that_never_began_is_begun(made: World) -> None:
    one = made.notebook(state="starting", starts=2)
    made.ec2.stop_instances(InstanceIds=[one.instance_id])
    made.sweep()
    ((name, document),) = made.begun("start").items()
    assert name == f"{one.id}-start-2"
    assert document["instance_arn"] == made.arn(one)


def test_a_start_that_was_aborted_with_the_machine_off_is_stopped_again_and_told(made: World) -> None:
    one = made.notebook(state="starting", starts=1)
    made.ec2.stop_instances(InstanceIds=[one.instance_id])
    end(made, "start", f"{one.id}-start-1")
    made.sweep()
    record = made.record(one)
    assert (record["state"], record["error"]["code"]) == ("stopped", "start_failed")
    assert "due_at" not in record
    user = made.user()
    assert (one.id in user.get("active", set()), one.id in user["owned"]) == (False, True)
    assert made.told.messages == [(one.id, "start_failed")]


def test_a_start_that_was_aborted_with_the_machine_on_is_stopped(made: World) -> None:
    one = made.notebook(state="starting", starts=1)
    end(made, "start", f"{one.id}-start-1")
    made.sweep()
    assert (made.state(one), made.power(one)) == ("stopping", "stopped")
    assert made.record(one)["stop"]["code"] == "start_failed"
    assert f"{one.id}-stop-1" in made.begun("stop")


def test_a_delete_that_was_aborted_is_begun_again(made: World) -> None:
    one = made.notebook(state="terminating", deletes=1)
    end(made, "terminate", f"{one.id}-delete")
    made.sweep()
    assert f"{one.id}-delete-2" in made.begun("terminate")
    made.pass_minutes(3000)
    end_of_first = made.record(one)["deletes"]
    assert end_of_first == 2


def test_a_workflow_that_does_not_start_is_tried_again(made: World) -> None:
    one = made.notebook(state="terminating", deletes=1)
    made.before = refuse("ThrottlingException", "start_execution")
    assert made.sweep().trouble
    made.before = lambda name, arguments: None
    made.pass_minutes(300)
    made.sweep()
    assert f"{one.id}-delete" in made.begun("terminate")


# The ledger


def test_the_ledger_is_read_newest_first_page_by_page(made: World) -> None:
    import re  # noqa: PLC0415

    one = made.notebook(idle=0)
    ledger = Ledger(made.dynamodb, ENV["NOD_EVENTS_TABLE"], made.sleep)
    ledger.write(
        [event(one.id, made.now + number * MINUTE, "keep", "active", f"look {number}") for number in range(30)]
    )
    first, cursor = ledger.page(one.id, 20, None)
    assert [line.reason for line in first] == [f"look {number}" for number in range(29, 9, -1)]
    assert cursor is not None
    assert re.fullmatch(paging.EVENT_CURSOR, cursor)
    second, end_ = ledger.page(one.id, 20, cursor)
    assert [line.reason for line in second] == [f"look {number}" for number in range(9, -1, -1)]
    assert end_ is None
    assert first[0].at == times.to_text(made.now + 29 * MINUTE)


def test_lines_expire_and_those_of_what_was_kept_sooner(made: World) -> None:
    kept = event("nb-1", made.now, "keep", "active", "").to_item()["expires_at"]["N"]
    stopped = event("nb-1", made.now, "stop", "idle", "").to_item()["expires_at"]["N"]
    assert int(str(stopped)) - int(str(kept)) == (90 - 14) * 86_400


# The monthly message


def test_disks_of_stopped_notebooks_are_told_once_to_each_owner(made: World) -> None:
    from chalicelib.actions.parts import Parts  # noqa: PLC0415
    from tests.unit.stage import user  # noqa: PLC0415

    user(made.deployed, "bob", email="bob@example.com", quota=5)
    names = [made.notebook(state="stopped").name for _ in range(2)]
    made.notebook(idle=0)
    parts = Parts()
    assert made.scheduled().tell_disk_costs(parts) == ["ada"]
    assert made.told.messages == [("ada", f"disks of {', '.join(sorted(names))}")]
    parts.end()
