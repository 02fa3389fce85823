"""The sweep as stories: what it keeps, warns, stops and mends, and what it does when something fails."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError, ReadTimeoutError

from chalicelib import paging, rows, times
from chalicelib.aws.due import DueNotebooks
from chalicelib.aws.items import from_item, to_item
from chalicelib.aws.ledger import Event, Ledger, event
from chalicelib.model import Failure, Notebook, Stop
from chalicelib.notebook import moves
from chalicelib.notebook.life import Writer
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


def test_a_monitor_that_could_not_be_confirmed_is_confirmed_at_the_next_look(made: World) -> None:
    """Noted is what was done: else it would be half an hour later."""
    one = made.notebook(idle=0)
    made.before = refuse(
        "ProvisionedThroughputExceededException",
        "update_item",
        times_=1,
        when=lambda arguments: arguments["TableName"] == ENV["NOD_HEARTBEATS_TABLE"],
    )
    assert made.sweep().trouble
    assert [line.action for line in made.lines(one)] == ["keep"], "what was decided holds without it"
    assert "confirmed_at" not in made.record(one)
    after(made, 16, one, idle=0)
    assert made.sweep().trouble == []
    assert made.row(one)["confirmed"] == made.record(one)["confirmed_at"] == times.to_text(made.now)


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
        "owner": made.ada,
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


def test_a_probe_that_was_not_sent_is_sent_at_the_next_look_and_only_once(made: World) -> None:
    ones = [heard(made, 0) for _ in range(2)]
    made.pass_minutes(16)
    made.before = refuse("ThrottlingException", "send_command", times_=2)
    assert made.sweep().trouble
    assert (made.commands, [made.record(one).get("probed") for one in ones]) == ([], [None, None])
    for _ in range(3):
        made.pass_minutes(15)
        assert made.sweep().trouble == []
    sent = sorted(one for command in made.commands for one in command)
    assert sent == sorted(str(one.instance_id) for one in ones)
    for one in ones:
        assert [line.code for line in made.lines(one)].count("sent") == 1


def test_a_machine_that_could_not_be_reached_is_probed_once_it_can_be(made: World) -> None:
    one = heard(made, 16)
    made._ssm.offline.add(str(one.instance_id))
    made.sweep()
    made._ssm.offline.clear()
    made.pass_minutes(15)
    made.sweep()
    made.pass_minutes(15)
    made.sweep()
    assert made.commands == [[one.instance_id]]
    assert [line.code for line in made.lines(one) if line.code != "silent"] == ["active", "unreachable", "sent"]


def test_what_there_is_no_time_to_probe_is_probed_by_the_next_sweep(made: World) -> None:
    """Machines that nobody reaches are asked one by one: the stops must not wait for the last of them."""
    ones = [made.notebook(idle=0) for _ in range(40)]
    made.sweep()
    made.pass_minutes(16)
    made._ssm.offline |= {str(one.instance_id) for one in ones}
    asked = 0

    def slow(name: str, arguments: dict[str, Any]) -> None:
        nonlocal asked
        if name == "send_command":
            asked += 1
            made.now += 5 * MINUTE

    made.before = slow
    swept = made.sweep()
    assert (asked, swept.complete) == (2, False)
    made.before = lambda name, arguments: None
    made._ssm.offline.clear()
    made.pass_minutes(15)
    made.sweep()
    assert sorted(one for sent in made.commands for one in sent) == sorted(str(one.instance_id) for one in ones)


def test_tables_that_do_not_answer_are_not_asked_for_every_page(made: World) -> None:
    for _ in range(40):
        made.notebook(idle=0)
    asked = 0

    def before(name: str, arguments: dict[str, Any]) -> None:
        nonlocal asked
        if name == "batch_get_item":
            asked += 1
            raise ClientError({"Error": {"Code": "InternalServerError", "Message": "x"}}, "BatchGetItem")

    made.before = before
    swept = made.sweep()
    assert (asked, swept.complete) == (5, False)


def test_a_machine_whose_owner_cannot_be_told_of_its_silence_is_probed_all_the_same(made: World) -> None:
    one = heard(made, 61)
    made.told.refuses = True
    made.sweep()
    assert made.commands == [[one.instance_id]]


def test_an_instance_stopped_by_hand_is_found_in_its_silence(made: World) -> None:
    one = heard(made, 16)
    made.deployed.change(one.id, hold_until=times.to_text(made.now + timedelta(days=1)))
    made.ec2.stop_instances(InstanceIds=[one.instance_id])
    made.sweep()
    record = made.record(one)
    assert (record["state"], record["stop"]["by"]) == ("stopping", "outside")
    assert "hold_until" not in record, "what is off is not held"
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


def test_while_ec2_does_not_answer_it_is_asked_a_few_times_and_the_others_are_swept_to_the_end(made: World) -> None:
    silent = [made.notebook(idle=0) for _ in range(24)]
    assert len({one.due for one in silent}) > 5
    made.sweep()
    made.pass_minutes(16)
    active = [made.notebook(idle=0) for _ in range(24)]
    asked: list[str] = []
    refusal = refuse("InternalError", "describe_instances")

    def before(name: str, arguments: dict[str, Any]) -> None:
        asked.append(name)
        refusal(name, arguments)

    made.before = before
    swept = made.sweep()
    assert asked.count("describe_instances") == len(swept.trouble) == 5
    assert not swept.complete
    assert {made.lines(one)[-1].code for one in active} == {"active"}


# Messages that do not go out


def test_warnings_that_cannot_be_told_keep_no_notebook_from_its_stop(made: World) -> None:
    to_warn = [made.notebook(idle=55) for _ in range(12)]
    over = made.notebook(idle=0, max_hours=24)
    made.told.refuses = True
    swept = made.sweep()
    assert len(swept.trouble) == len(to_warn)
    assert swept.complete
    assert (made.state(over), made.power(over)) == ("stopping", "stopped")


def test_warnings_that_hang_leave_the_stops_their_time(made: World) -> None:
    """The topic does not answer: each try takes the client's whole patience."""
    to_warn = [made.notebook(idle=55, due="3") for _ in range(30)]
    over = made.notebook(idle=0, max_hours=24, due="3")
    made.told.before = lambda: made.pass_minutes(1)
    made.told.refuses = True
    swept = made.sweep()
    assert made.state(over) == "stopping"
    assert (swept.complete, len(swept.trouble), swept.counts["not reached"]) == (False, 10, 20)
    assert [made.record(one)["due_at"] for one in to_warn].count(times.to_text(NOON)) == 20, "they stay due"


def test_a_warning_that_cannot_be_told_confirms_no_monitor(made: World) -> None:
    """While the topic takes nothing no idleness ends here: the monitor's own switch has to be left to fire."""
    one = made.notebook(idle=55)
    made.told.refuses = True
    for minutes in range(60, 160, 20):
        made.sweep()
        assert "confirmed" not in made.row(one)
        after(made, 20, one, idle=minutes)
    assert [line.code for line in made.lines(one)] == ["idle", "not_sent"] * 5


def test_while_ec2_refuses_every_stop_no_monitor_is_confirmed(made: World) -> None:
    ones = [made.notebook(idle=55) for _ in range(4)]
    made.before = refuse("UnauthorizedOperation", "stop_instances")
    for minutes in range(65, 235, 10):
        made.sweep()
        assert not [one for one in ones if "confirmed" in made.row(one)]
        after(made, 10, *ones, idle=minutes)
    assert {made.state(one) for one in ones} == {"ready"}
    done = Counter((line.action, line.code) for line in made.lines(ones[0]))
    assert done == {("warn", "idle"): 3, ("stop", "idle"): 3, ("stop", "stops_refused"): 3}
    assert {what for _, what in made.told.messages} == {"warned"}, "its owners cannot help that"
    made.before = refuse(
        "OperationNotPermitted",
        "stop_instances",
        when=lambda arguments: ones[0].instance_id in arguments["InstanceIds"],
    )
    for minutes in range(235, 385, 10):
        made.sweep()
        after(made, 10, *ones, idle=minutes)
    assert (made.state(ones[0]), made.told.messages.count((ones[0].id, "stop_failed"))) == ("ready", 1)


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


def test_whoever_comes_back_between_the_decision_and_the_call_keeps_it(made: World) -> None:
    one = to_the_stop(made)

    def come_back(name: str, arguments: dict[str, Any]) -> None:
        # It is taken, and EC2 is about to be called.
        if name == "transact_write_items":
            made.beat(one, 0, beat=10**9)

    made.before = come_back
    swept = made.sweep()
    made.before = lambda name, arguments: None
    assert swept.counts["used again"] == 1
    record = made.record(one)
    assert (record["state"], made.power(one), made.begun("stop")) == ("ready", "running", {})
    assert "stop" not in record
    assert "warned" not in record, "before another stop there is another warning"
    line = made.lines(one)[-1]
    assert (line.action, line.code) == ("stop", "returned")
    assert "is used again" in line.reason
    after(made, 20, one, idle=50)
    made.sweep()
    assert made.told.messages[-1] == (one.id, "warned")
    after(made, 12, one, idle=62)
    assert made.sweep().counts["stop"] == 1
    assert made.power(one) == "stopped"


def test_whoever_comes_back_while_ec2_takes_no_more_calls_keeps_it(made: World) -> None:
    one = to_the_stop(made)

    def throttle(name: str, arguments: dict[str, Any]) -> None:
        if name == "stop_instances":
            made.before = lambda name, arguments: None
            made.beat(one, 0, beat=10**9)
            raise ClientError({"Error": {"Code": "RequestLimitExceeded", "Message": ""}}, name)

    made.before = throttle
    assert made.sweep().counts["used again"] == 1
    assert (made.state(one), made.power(one)) == ("ready", "running")


def test_whoever_comes_back_to_a_machine_that_goes_off_all_the_same_is_told_the_truth(made: World) -> None:
    """EC2 took the call whose answer was lost, and the SDK's next try was one too many."""
    one = to_the_stop(made)

    def take_and_throttle(name: str, arguments: dict[str, Any]) -> None:
        if name == "stop_instances":
            made.before = lambda name, arguments: None
            made.ec2.stop_instances(**arguments)
            made.beat(one, 0, beat=10**9)
            raise ClientError({"Error": {"Code": "RequestLimitExceeded", "Message": ""}}, name)

    made.before = take_and_throttle
    assert made.sweep().counts["used again"] == 0
    assert (made.state(one), made.power(one)) == ("stopping", "stopped")
    assert list(made.begun("stop")) == [f"{one.id}-stop-1"]


def test_whoever_comes_back_to_one_whose_sweep_died_before_its_call_keeps_it(made: World) -> None:
    one = to_the_stop(made)

    def die(name: str, arguments: dict[str, Any]) -> None:
        if name == "stop_instances":
            raise Killed

    made.before = die
    with pytest.raises(Killed):
        made.sweep()
    made.before = lambda name, arguments: None
    assert (made.state(one), made.power(one)) == ("stopping", "running")
    after(made, 6, one, idle=1)
    assert made.sweep("sweep-2").counts["used again"] == 1
    assert (made.state(one), made.power(one)) == ("ready", "running")


def test_one_whose_sweep_died_before_its_call_and_that_nobody_came_back_to_stops(made: World) -> None:
    one = to_the_stop(made)

    def die(name: str, arguments: dict[str, Any]) -> None:
        if name == "stop_instances":
            raise Killed

    made.before = die
    with pytest.raises(Killed):
        made.sweep()
    made.before = lambda name, arguments: None
    after(made, 6, one, idle=72)
    made.sweep("sweep-2")
    assert (made.state(one), made.power(one)) == ("stopping", "stopped")


def test_a_silent_machine_that_is_heard_of_right_before_its_stop_is_kept(made: World) -> None:
    one = heard(made, 241)
    made.deployed.change(
        one.id,
        warned={
            "at": times.to_text(made.now - 100 * MINUTE),
            "stops_at": times.to_text(made.now - MINUTE),
            "code": "silent",
            "boot_id": "boot-1",
        },
    )

    def come_back(name: str, arguments: dict[str, Any]) -> None:
        if name == "transact_write_items":
            made.beat(one, 300, beat=10**9)

    made.before = come_back
    assert made.sweep().counts["used again"] == 1
    assert (made.state(one), made.power(one)) == ("ready", "running")


def test_the_hard_limit_stops_whoever_comes_back(made: World) -> None:
    one = made.notebook(max_hours=24)

    def come_back(name: str, arguments: dict[str, Any]) -> None:
        if name == "transact_write_items":
            made.beat(one, 0, beat=10**9)

    made.before = come_back
    assert made.sweep().counts["stop"] == 1
    assert made.power(one) == "stopped"


def test_a_start_that_overtakes_a_stop_is_left_alone(made: World) -> None:
    """The record that a stop was read from is history by the time it writes."""
    one = made.notebook(idle=90)
    due = DueNotebooks(
        made.dynamodb, *(ENV[f"NOD_{name}_TABLE"] for name in ("NOTEBOOKS", "USERS", "EVENTS")), made.sleep
    )
    made.deployed.change(one.id, state="starting")
    assert due.move(moves.stop(one, Stop("idle", "", "sweep"), Writer.SWEEP, made.now, made.now)) is None
    assert made.state(one) == "starting"
    assert made.lines(one) == []


@pytest.mark.parametrize("changes", [{"state": "ready"}, {"stops": 2}])
def test_a_stop_that_came_to_its_end_while_it_waited_to_be_called_again_stops_no_woken_machine(
    made: World, changes: dict[str, Any]
) -> None:
    one = made.notebook(state="stopping", stops=1)

    def lease(name: str, arguments: dict[str, Any]) -> None:
        if name == "update_item" and arguments["TableName"] == ENV["NOD_SWEEPS_TABLE"]:
            made.deployed.change(one.id, **changes)

    made.before = lease
    swept = made.sweep()
    assert swept.counts["stopped meanwhile"] == 1
    assert made.power(one) == "running"
    assert made.begun("stop") == {}


def test_a_stop_that_is_not_called_again_in_this_sweep_is_so_in_the_next(made: World) -> None:
    """However long the record waits already."""
    one = made.notebook(state="stopping", stops=1)
    made.pass_minutes(24 * 60)
    lease = {"holder": {"S": "other"}, "until": {"S": times.to_text(made.now + MINUTE)}}
    made.dynamodb.put_item(TableName=ENV["NOD_SWEEPS_TABLE"], Item={"id": {"S": "drain"}, **lease})
    assert made.sweep().counts["left to another"] == 1
    made.pass_minutes(6)
    made.sweep()
    assert made.power(one) == "stopped"


# What cannot be read or written


def test_a_table_that_does_not_answer_is_asked_a_few_times_and_no_more(made: World) -> None:
    asked: list[str] = []
    refusal = refuse("InternalServerError", "query")

    def before(name: str, arguments: dict[str, Any]) -> None:
        asked.append(name)
        refusal(name, arguments)

    made.before = before
    swept = made.sweep()
    assert (asked.count("query"), len(swept.trouble), swept.complete) == (5, 5, False)


def test_what_was_found_is_stopped_though_the_table_does_not_answer_any_more(made: World) -> None:
    one = made.notebook(idle=0, max_hours=24)
    # Its shard is the first that is looked at.
    made.now += timedelta(seconds=300 * ((int(one.due or 0) - int(made.now.timestamp()) // 300) % 16))
    made.beat(one, 0)
    queries = 0

    def before(name: str, arguments: dict[str, Any]) -> None:
        nonlocal queries
        queries += name == "query"
        if name == "query" and queries > 1:
            raise ClientError({"Error": {"Code": "InternalServerError", "Message": ""}}, name)

    made.before = before
    assert len(made.sweep().trouble) == 5
    assert made.state(one) == "stopping"


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


def padded(made: World, notebook: Notebook, name: str = "padding") -> None:
    """Its row is as large as a row can be: nothing can be added to it."""
    length = 405_000
    while True:
        try:
            made.dynamodb.update_item(
                TableName=ENV["NOD_HEARTBEATS_TABLE"],
                Key={"id": {"S": made.arn(notebook)}},
                UpdateExpression="SET #name = :text",
                ExpressionAttributeNames={"#name": name},
                ExpressionAttributeValues={":text": {"S": "x" * length}},
            )
        except ClientError:
            length -= 10
        else:
            return


def test_heartbeats_as_large_as_a_row_keep_no_notebook_from_its_stop(made: World) -> None:
    large = [made.notebook(idle=0) for _ in range(6)]
    over = made.notebook(idle=0, max_hours=24)
    for one in large:
        padded(made, one)
    swept = made.sweep()
    # Whoever is root on a machine can have it so for ever: it is no trouble of the deployment's.
    assert swept.trouble == []
    assert made.state(over) == "stopping"
    assert {made.lines(one)[-1].code for one in large} == {"active"}
    assert not [one for one in large if "confirmed" in made.row(one)]


def test_a_heartbeat_full_of_facts_does_not_put_off_the_hard_limit(made: World) -> None:
    over = made.notebook(idle=0, max_hours=24)
    row = made.row(over)
    row["facts"] = {
        f"fact{number:02}": {f"part{part:02}": ["\U0001f600" * 40] * 9 for part in range(16)} for number in range(16)
    }
    made.dynamodb.put_item(TableName=ENV["NOD_HEARTBEATS_TABLE"], Item=to_item(row))
    assert made.sweep().trouble == []
    assert made.state(over) == "stopping"
    (line,) = made.lines(over)
    assert rows.size(line.signals) < 8 * 1024


def test_rows_that_anybody_may_fill_are_read_a_few_at_a_time(made: World) -> None:
    """400 KB of a row can take 70 MiB of memory, of which the sweep has 1,024."""
    template = made.notebook(idle=0)
    for number in range(20):
        made.put(replace(template, id=f"nb-{number:020x}", due="3", instance_id=f"i-{number:017x}"))
    made.forget(template)
    asked: list[int] = []

    def before(name: str, arguments: dict[str, Any]) -> None:
        if name == "batch_get_item":
            asked.extend(
                len(request["Keys"])
                for table, request in arguments["RequestItems"].items()
                if table == ENV["NOD_HEARTBEATS_TABLE"]
            )

    made.before = before
    made.sweep()
    assert sum(asked) == 19
    assert max(asked) * 71 < 1024 - 256


def test_a_name_that_no_table_takes_keeps_no_decision_from_being_written(made: World) -> None:
    one = made.notebook(idle=0)
    row = {**made.row(one), "unknown": ["", "x" * 300, "\n", "lasers"], "facts": {"cpu_cores": 1}}
    made.dynamodb.put_item(TableName=ENV["NOD_HEARTBEATS_TABLE"], Item=to_item(row))
    made.sweep()
    assert set(made.record(one)["seen"]["unknown"]) == {"lasers"}
    assert made.lines(one)[-1].signals["unknown"] == ["lasers"]


def test_a_line_that_dynamodb_refuses_keeps_no_other_out_of_the_ledger(made: World) -> None:
    ones = [made.notebook(idle=0, due="3") for _ in range(30)]
    bad = ones[7]

    def refused(arguments: dict[str, Any]) -> bool:
        puts = arguments["RequestItems"].get(ENV["NOD_EVENTS_TABLE"], [])
        return any(put["PutRequest"]["Item"]["notebook"] == {"S": bad.id} for put in puts)

    made.before = refuse("ValidationException", "batch_write_item", when=refused)
    swept = made.sweep()
    assert len(swept.trouble) == 1
    assert [one.id for one in ones if not made.lines(one)] == [bad.id]


def test_a_stop_that_ec2_took_and_answered_with_a_failure_of_its_own_is_a_stop(made: World) -> None:
    """A try whose answer was lost, repeated by the SDK, ends so too."""
    one = made.notebook(idle=0, max_hours=24)

    def before(name: str, arguments: dict[str, Any]) -> None:
        if name == "stop_instances":
            made.ec2.stop_instances(**arguments)
            raise ClientError({"Error": {"Code": "InternalError", "Message": "InternalError"}}, name)

    made.before = before
    made.sweep()
    assert made.state(one) == "stopping"
    assert list(made.begun("stop")) == [f"{one.id}-stop-1"]
    assert made.told.messages == []
    assert [line.code for line in made.lines(one, "stop")] == ["limit"]


def test_a_stop_that_cannot_be_begun_is_trouble_and_keeps_no_other(made: World) -> None:
    bad, fine = (made.notebook(idle=0, max_hours=24) for _ in range(2))
    made.before = refuse(
        "InternalServerError",
        "transact_write_items",
        when=lambda arguments: arguments["TransactItems"][0]["Update"]["Key"]["id"]["S"] == bad.id,
    )
    swept = made.sweep()
    assert (len(swept.trouble), swept.counts["trouble"]) == (1, 1)
    assert (made.state(bad), made.state(fine)) == ("ready", "stopping")


def test_a_record_of_a_type_that_nobody_writes_keeps_nobody_else(made: World) -> None:
    broken, far, fine = (made.notebook(idle=0) for _ in range(3))
    made.dynamodb.update_item(
        TableName=ENV["NOD_NOTEBOOKS_TABLE"],
        Key={"id": {"S": broken.id}},
        UpdateExpression="SET extra = :bytes",
        ExpressionAttributeValues={":bytes": {"B": b"x"}},
    )
    made.deployed.change(far.id, hold_until="9999-12-31T23:59:59Z", warned={"at": "x"}, idle_minutes=10**13)
    assert made.sweep().trouble == []
    assert made.lines(fine)
    assert not made.lines(broken) + made.lines(far)


def test_what_goes_wrong_with_one_owner_keeps_nobody_else(made: World) -> None:
    """A user's row that cannot be read: no message of theirs can be made."""
    made.tell_for_real()
    hers, his = made.notebook(idle=55), made.notebook(idle=55, owner="us-bob")
    made.dynamodb.put_item(TableName=ENV["NOD_USERS_TABLE"], Item={"id": {"S": "us-bob"}})
    over = made.notebook(idle=0, max_hours=24)
    assert len(made.sweep().trouble) == 1
    assert [(notebook, kind) for _, notebook, kind in made.published] == [(hers.id, "warned")]
    assert made.lines(his)[-1].code == "not_sent"
    assert made.state(over) == "stopping"


# EC2 refuses


def test_a_stop_that_ec2_refuses_leaves_no_token_of_a_workflow_that_was_cut_off(made: World) -> None:
    """The event of an instance that is off would go to it, and to nobody."""
    made.notebook(idle=0)
    bad = made.notebook(state="stopping", wait_token="dead", instance=True)
    made.before = refuse(
        "UnsupportedOperation", "stop_instances", when=lambda arguments: bad.instance_id in arguments["InstanceIds"]
    )
    made.sweep()
    assert made.record(bad)["state"] == "ready"
    assert "wait_token" not in made.record(bad)


def test_who_was_told_that_ec2_refuses_the_stop_is_not_told_again(made: World) -> None:
    bad = made.notebook(idle=55)
    made.before = refuse(
        "UnsupportedOperation", "stop_instances", when=lambda arguments: bad.instance_id in arguments["InstanceIds"]
    )
    for minutes in range(65, 235, 10):
        made.sweep()
        after(made, 10, bad, idle=minutes)
    assert [line.code for line in made.lines(bad, "stop")].count("stop_failed") == 3
    assert made.told.messages.count((bad.id, "stop_failed")) == 1


def test_machines_that_are_gone_are_no_sign_that_ec2_refuses_everything(made: World) -> None:
    gone = [made.notebook(idle=0, max_hours=24) for _ in range(4)]
    for one in gone:
        made.ec2.terminate_instances(InstanceIds=[one.instance_id])
    made.before = refuse("IncorrectInstanceState", "stop_instances")
    swept = made.sweep()
    assert (swept.trouble, swept.counts["refused"]) == ([], 4)
    made.before = lambda name, arguments: None
    made.pass_minutes(6)
    made.sweep()
    assert {made.record(one)["error"]["code"] for one in gone} == {"instance_gone"}


def test_while_ec2_does_not_answer_no_more_notebooks_are_taken(made: World) -> None:
    """Each of them would be `stopping`, while its machine runs and cannot be used by its link."""
    ids = [f"i-{number:017x}" for number in range(60)]
    ones = [made.notebook(instance=False, instance_id=one, max_hours=24) for one in ids]

    def before(name: str, arguments: dict[str, Any]) -> None:
        if name == "stop_instances":
            raise ReadTimeoutError(endpoint_url="https://ec2")

    made.before = before
    swept = made.sweep()
    assert len(swept.trouble) == 1
    assert swept.counts["left for the next"] == 10
    assert [made.state(one) for one in ones].count("ready") == 10


def test_an_old_error_is_not_taken_for_one_of_the_stop(made: World) -> None:
    one = made.notebook(idle=0, max_hours=24, error=Failure("password_failed", "The old one stays."))
    made.sweep()
    assert made.state(one) == "stopping"
    assert "error" not in made.record(one)


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


def test_stops_begin_while_others_are_still_looked_at(made: World) -> None:
    """A sweep that dies later, or has much to look at, has stopped by then what EC2 takes at once."""
    image = {"ImageId": "ami-12c6146b", "MinCount": 60, "MaxCount": 60}
    ids = [one["InstanceId"] for one in made.ec2.run_instances(**image)["Instances"]]
    first = int(made.now.timestamp()) // 300 % 16
    over = [made.notebook(instance=False, instance_id=one, max_hours=24, due=str(first)) for one in ids]

    def die_at_the_next_shard(name: str, arguments: dict[str, Any]) -> None:
        if name == "query" and arguments["ExpressionAttributeValues"][":shard"]["S"] != str(first):
            raise Killed

    made.before = die_at_the_next_shard
    with pytest.raises(Killed):
        made.sweep()
    assert [made.state(one) for one in over].count("stopping") == 60
    found = made.ec2.describe_instances(InstanceIds=ids)["Reservations"]
    assert {one["State"]["Name"] for reservation in found for one in reservation["Instances"]} == {"stopped"}


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


def killed_at_each_call(
    made: World, prepare: Callable[[], Notebook], check: Callable[[Notebook], None]
) -> Counter[str]:
    """For each call of a sweep in turn, but those that only look for what is due: a notebook of its own, a sweep that
    dies there, and what it comes to. The calls that a sweep died at."""
    died: Counter[str] = Counter()
    for point in range(1, 100):
        one, calls = prepare(), 0

        def kill(name: str, arguments: dict[str, Any], point: int = point) -> None:
            nonlocal calls
            calls += name != "query"
            if calls == point:
                died[name] += 1
                raise Killed

        made.before = kill
        try:
            made.sweep(f"sweep-{point}")
        except Killed:
            pass
        finally:
            made.before = lambda name, arguments: None
        check(one)
        made.forget(one)
        if died.total() != point:
            return died
    raise AssertionError("It never came to its end.")


def settle(made: World, one: Notebook, idle: float | None, until: Callable[[], bool] = lambda: False) -> None:
    """The sweeps of the next 40 minutes, or until then; `idle` None: nothing is heard of it."""
    for number in range(8):
        if until():
            return
        made.pass_minutes(5)
        if idle is not None:
            made.beat(one, idle + 5 * (number + 1))
        made.sweep(f"after-{number}")


def test_killed_at_each_call_it_keeps_what_is_used(made: World) -> None:
    made.tell_for_real()

    def check(one: Notebook) -> None:
        after(made, 16, one, idle=0)
        made.sweep("after")
        assert made.state(one) == "ready"
        assert made.lines(one)[-1].code == "active"
        assert made.record(one)["confirmed_at"] <= times.to_text(made.now)

    died = killed_at_each_call(made, lambda: made.notebook(idle=0), check)
    # Read, heartbeat; confirm, decide; the line.
    assert died == {"batch_get_item": 2, "update_item": 2, "batch_write_item": 1}
    assert made.published == []


def test_killed_at_each_call_it_never_stops_unwarned_and_stops_in_the_end(made: World) -> None:
    made.tell_for_real()

    def check(one: Notebook) -> None:
        settle(made, one, 55, until=lambda: made.state(one) == "stopping")
        warned = [at for at, notebook, kind in made.published if (notebook, kind) == (one.id, "warned")]
        assert warned
        (stop,) = made.lines(one, "stop")
        # As long before as it was promised, however often it was told.
        assert min(warned) <= made.now - 10 * MINUTE
        assert stop.at >= times.to_text(max(warned))
        assert made.state(one) == "stopping"
        assert made.power(one) == "stopped"
        assert [name for name in made.begun("stop") if one.id in name] == [f"{one.id}-stop-1"]

    died = killed_at_each_call(made, lambda: made.notebook(idle=55), check)
    assert died["publish"] == 1
    assert died["transact_write_items"] == 1
    # Of the message: what it is made of, and what is noted of it; then that it was given.
    assert died["get_item"] >= 3
    assert died["update_item"] >= 2


def test_killed_at_each_call_of_a_stop_it_is_stopped_once(made: World) -> None:
    made.tell_for_real()

    def check(one: Notebook) -> None:
        settle(made, one, None, until=lambda: bool(made.begun("stop").get(f"{one.id}-stop-1")))
        made.pass_minutes(6)
        made.sweep("after")
        record = made.record(one)
        assert (record["state"], record["stops"], record["stop"]["code"]) == ("stopping", 1, "limit")
        assert made.power(one) == "stopped"
        assert [name for name in made.begun("stop") if one.id in name] == [f"{one.id}-stop-1"]
        assert len(made.lines(one, "stop")) == 1

    died = killed_at_each_call(made, lambda: made.notebook(idle=0, max_hours=24), check)
    assert {"transact_write_items", "update_item", "stop_instances", "start_execution"} <= set(died)


def test_killed_at_each_call_it_probes_what_is_silent(made: World) -> None:
    made.tell_for_real()

    def check(one: Notebook) -> None:
        made.pass_minutes(16)
        made.sweep("after")
        assert [one.instance_id] in made.commands
        assert made.record(one)["probed"]
        assert made.state(one) == "ready"
        count = len(made.commands)
        made.pass_minutes(16)
        made.sweep("after")
        assert len(made.commands) == count

    died = killed_at_each_call(made, lambda: heard(made, 16), check)
    assert died["send_command"] == 1
    # Before it the decision, after it what was sent.
    assert died["update_item"] >= 2


def test_killed_at_each_call_it_ends_what_is_gone_once(made: World) -> None:
    made.tell_for_real()

    def prepare() -> Notebook:
        one = heard(made, 16)
        made.ec2.terminate_instances(InstanceIds=[one.instance_id])
        return one

    def check(one: Notebook) -> None:
        made.pass_minutes(16)
        made.sweep("after")
        record = made.record(one)
        assert (record["state"], record["error"]["code"]) == ("failed", "instance_gone")
        assert [line.code for line in made.lines(one)].count("instance_gone") == 1
        # Killed before its message it is `untold`, and the schedule of the messages sends it.
        told = [kind for _, notebook, kind in made.published if notebook == one.id]
        assert told == ["failed"] or (not told and one.id in made.user()["untold"])

    died = killed_at_each_call(made, prepare, check)
    assert died["publish"] == 1


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
    assert made.record(one)["stop"]["code"] == made.record(one)["error"]["code"] == "start_failed"
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
    made.pass_minutes(24 * 60)
    assert made.sweep().trouble
    made.before = lambda name, arguments: None
    # Soon, however long it waits already: nothing runs for it.
    made.pass_minutes(6)
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


def test_a_line_that_would_be_too_large_goes_without_its_signals() -> None:
    """It is written with the stop, or neither is."""
    line = Event(
        "nb-1", times.to_text(NOON), "stop", "limit", "sweep", "why " * 9999, None, {"facts": ["x" * 900] * 500}
    )
    row = from_item(line.to_item())
    assert rows.size(row) < 16 * 1024
    assert str(row["reason"]).startswith("why why")
    assert row["signals"] == {"left_out": "too large"}


# The monthly message


def test_disks_of_stopped_notebooks_are_told_once_to_each_owner(made: World) -> None:
    from chalicelib.actions.parts import Parts  # noqa: PLC0415
    from tests.unit.stage import user  # noqa: PLC0415

    user(made.deployed, "bob", email="bob@example.com", quota=5)
    names = [made.notebook(state="stopped").name for _ in range(2)]
    made.notebook(idle=0)
    # A row that cannot be read keeps no user from their message.
    made.dynamodb.put_item(TableName=ENV["NOD_USERS_TABLE"], Item={"id": {"S": "us-aaa"}})
    parts = Parts()
    assert made.scheduled().tell_disk_costs(parts) == ["ada"]
    assert made.told.messages == [("ada", f"disks of {', '.join(sorted(names))}")]
    parts.end()


# The notebook's own server


def test_a_dead_server_on_a_running_machine_is_told_once_and_its_end_is_in_the_ledger(made: World) -> None:
    one = made.notebook(idle=0)

    def sweep(minutes: float, *, answers: bool, **server: Any) -> None:
        made.pass_minutes(minutes)
        made.beat(one, 0, answers=answers, server=server)
        made.sweep()

    sweep(0, answers=False, code="port_taken", down_seconds=60)
    assert "not_answering" not in made.record(one)
    # It is looked at again as soon as it is news, and not only when the decision would be.
    sweep(2, answers=False, code="port_taken", down_seconds=180)
    record = made.record(one)["not_answering"]
    assert (record["code"], record["since"]) == ("port_taken", times.to_text(made.now - 3 * MINUTE))
    assert "port 8888" in record["message"]
    for _ in range(3):
        sweep(5, answers=False, code="port_taken", down_seconds=480)
    assert made.told.messages == [(one.id, "not_answering")]
    sweep(5, answers=True)
    assert "not_answering" not in made.record(one)
    assert [line.code for line in made.lines(one, "note")] == ["not_answering", "answers_again"]
    sweep(15, answers=False, down_seconds=300)
    assert made.told.messages == [(one.id, "not_answering")] * 2


def test_a_dead_server_whose_owner_cannot_be_told_is_told_later(made: World) -> None:
    one = made.notebook(idle=0)
    made.beat(one, 0, answers=False, server={"down_seconds": 600})
    made.told.refuses = True
    made.sweep()
    assert made.record(one)["not_answering"]["told"] is False
    made.told.refuses = False
    made.pass_minutes(5)
    made.beat(one, 0, answers=False, server={"down_seconds": 900})
    made.sweep()
    assert made.told.messages == [(one.id, "not_answering")]
    assert "told" not in made.record(one)["not_answering"]


def test_a_dead_server_that_nobody_uses_stops_as_the_rules_say(made: World) -> None:
    one = made.notebook(idle=55)
    made.beat(one, 55, answers=False, server={"down_seconds": 600})
    made.sweep()
    assert sorted(kind for _, kind in made.told.messages) == ["not_answering", "warned"]
    made.pass_minutes(11)
    made.beat(one, 66, answers=False, server={"down_seconds": 1200})
    made.sweep()
    assert made.state(one) == "stopping"


def test_safe_mode_is_told_once_and_its_end_is_in_the_ledger(made: World) -> None:
    one = made.notebook(idle=0)
    server = {"mode": "safe", "code": "configuration", "safe_seconds": 60, "words": "Traceback: secret"}
    for _ in range(3):
        made.beat(one, 0, server=server)
        made.sweep()
        made.pass_minutes(16)
    assert made.record(one)["safe_mode"]["code"] == "configuration"
    assert "secret" not in str(made.record(one)) + str([line.reason for line in made.lines(one)])
    assert made.told.messages == [(one.id, "safe_mode")]
    made.beat(one, 0)
    made.sweep()
    assert "safe_mode" not in made.record(one)
    assert [line.code for line in made.lines(one, "note")] == ["safe_mode", "safe_mode_over"]
