"""What has no owner: the rule, and the comparison with EC2 in both directions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from admin.users import change_user
from chalicelib import mends, orphans, times
from chalicelib.aws.ledger import Ledger
from chalicelib.mends import Mend
from chalicelib.notebook import life
from chalicelib.orphans import Known, Resource, Rules
from tests.unit.stage import SESSION, STAGE, logged, person, user
from tests.unit.sweep_world import MINUTE, Killed, World, world

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
RULES = Rules()
HOUR = timedelta(hours=1)


def instance(**changes: Any) -> Resource:
    known = Resource("instance", "i-1", "nb-1", "ada", NOON - timedelta(days=2), running=True)
    return replace(known, **changes)


# The rule


def test_at_first_sight_it_is_only_noted() -> None:
    known = orphans.seen(None, NOON, RULES)
    assert orphans.decide(instance(), known, RULES, NOON) == orphans.NOTE
    assert orphans.decide(instance(), known, RULES, NOON + HOUR) == orphans.TELL


def test_what_is_young_is_left_alone_whenever_it_was_seen() -> None:
    young = instance(created_at=NOON - 10 * MINUTE)
    assert orphans.decide(young, Known(NOON - 2 * HOUR, NOON), RULES, NOON) == orphans.NOTE


def test_it_is_stopped_an_hour_after_its_owner_was_told_and_removed_after_a_week() -> None:
    known = Known(NOON - HOUR, NOON, told_at=NOON, owner_told_at=NOON)
    assert orphans.decide(instance(), known, RULES, NOON + 59 * MINUTE) == orphans.WAIT
    assert orphans.decide(instance(), known, RULES, NOON + HOUR) == orphans.STOP
    stopped = instance(running=False)
    assert orphans.decide(stopped, known, RULES, NOON + timedelta(days=6)) == orphans.WAIT
    assert orphans.decide(stopped, known, RULES, NOON + timedelta(days=7)) == orphans.REMOVE


@pytest.mark.parametrize("kind", ["instance", "volume"])
def test_what_may_hold_data_is_kept_while_its_owner_was_not_told(kind: str) -> None:
    one = instance(kind=kind, running=False)
    known = Known(NOON - HOUR, NOON, told_at=NOON)
    for days in (0, 7, 300):
        assert orphans.decide(one, known, RULES, NOON + timedelta(days=days)) == orphans.KEEP
    late = replace(known, owner_told_at=NOON + timedelta(days=300))
    assert orphans.decide(one, late, RULES, NOON + timedelta(days=306)) == orphans.WAIT
    assert orphans.decide(one, late, RULES, NOON + timedelta(days=307)) == orphans.REMOVE
    assert Known.from_record(late.to_record()) == late


@pytest.mark.parametrize("kind", ["address", "security group"])
def test_what_holds_no_data_goes_a_week_after_it_stood_in_the_log(kind: str) -> None:
    known = Known(NOON - HOUR, NOON, told_at=NOON)
    one = instance(kind=kind, running=False, owner=None)
    assert orphans.decide(one, known, RULES, NOON + timedelta(days=7)) == orphans.REMOVE


def test_what_had_an_owner_meanwhile_begins_anew() -> None:
    known = Known(NOON, NOON, told_at=NOON)
    assert orphans.seen(known, NOON + timedelta(days=8), RULES) == Known(*[NOON + timedelta(days=8)] * 2)
    assert orphans.seen(known, NOON + HOUR, RULES).told_at == NOON


@given(st.integers(0, 20_000), st.integers(0, 20_000), st.booleans())
def test_nothing_is_stopped_or_removed_untold(first: int, now: int, running: bool) -> None:
    moment = NOON + now * MINUTE
    known = Known(min(moment, NOON + first * MINUTE), moment)
    assert orphans.decide(instance(running=running), known, RULES, moment) in (orphans.NOTE, orphans.TELL)


@pytest.mark.parametrize(("count", "of", "stops"), [(3, 3, False), (4, 100, False), (4, 39, True), (11, 100, True)])
def test_many_at_once_are_no_orphans(count: int, of: int, stops: bool) -> None:
    assert orphans.too_many(count, of, RULES) is stops


# The rule of what a workflow left


@pytest.mark.parametrize("state", sorted(life.MOVING))
@pytest.mark.parametrize("power", [None, "pending", "running", "stopping", "stopped", "shutting-down", "terminated"])
def test_a_running_execution_is_waited_for_and_an_ended_one_never_for_good(state: str, power: str | None) -> None:
    assert mends.decide(state, "RUNNING", power) == Mend.WAIT
    for status in (None, "FAILED", "ABORTED", "TIMED_OUT", "SUCCEEDED"):
        mend = mends.decide(state, status, power)
        # Only a machine that is on its way to be off is waited for: EC2 ends that by itself.
        assert mend != Mend.WAIT or power == "stopping"


def test_it_looks_more_and_more_rarely() -> None:
    minute = timedelta(minutes=1)
    looks = [mends.next_look(NOON, NOON + hours * HOUR, minute) - (NOON + hours * HOUR) for hours in (0, 1, 4, 100)]
    assert looks == [5 * minute, 30 * minute, 120 * minute, 240 * minute]


# The comparison with EC2


@pytest.fixture
def deployed() -> Iterator[World]:
    with world() as made:
        yield made


def power(made: World, instance_id: str) -> str:
    found = made.ec2.describe_instances(InstanceIds=[instance_id])["Reservations"][0]["Instances"][0]
    return str(found["State"]["Name"])


def age(made: World) -> None:
    """What moto has made just now is older than the grace: its own clock is the real one."""
    made.now = max(made.now, datetime.now(UTC) + 2 * HOUR)


def hours(made: World, count: int) -> None:
    """A look each hour."""
    for _ in range(count):
        made.reconcile()
        made.now += HOUR


def days(made: World, count: int) -> None:
    """Goes by with a look each hour that finds what the last one did: only what it notes is written, and not looked."""
    made.now += timedelta(days=count)
    table = made.settings.sweeps_table
    for row in made.dynamodb.scan(TableName=table)["Items"]:
        row["seen_at"] = {"S": times.to_text(made.now - HOUR)}
        made.dynamodb.put_item(TableName=table, Item=row)


def test_an_instance_without_a_record_is_told_then_stopped_then_removed(deployed: World) -> None:
    owned = [deployed.notebook() for _ in range(3)]
    lost = deployed.instance("nb-" + "f" * 20)
    age(deployed)
    hours(deployed, 1)
    assert deployed.told.messages == []
    hours(deployed, 1)
    ((who, what),) = deployed.told.messages
    assert (who, power(deployed, lost)) == ("ada", "running")
    assert f"orphan {lost}" in what
    assert "stopped at" in what
    assert "terminated" in what
    hours(deployed, 2)
    assert power(deployed, lost) == "stopped"
    days(deployed, 6)
    hours(deployed, 1)
    assert power(deployed, lost) == "stopped"
    days(deployed, 1)
    hours(deployed, 1)
    assert power(deployed, lost) == "terminated"
    assert len(deployed.told.messages) == 1
    assert {deployed.power(one) for one in owned} == {"running"}


def test_a_message_that_the_topic_refuses_keeps_it_until_it_was_told(deployed: World) -> None:
    lost = deployed.instance("nb-" + "f" * 20)
    age(deployed)
    hours(deployed, 1)
    deployed.told.refuses = True
    hours(deployed, 3)
    days(deployed, 8)
    hours(deployed, 1)
    assert power(deployed, lost) == "running"
    deployed.told.refuses = False
    hours(deployed, 1)
    assert len(deployed.told.messages) == 1
    assert power(deployed, lost) == "running"


def test_an_instance_of_nobody_known_is_told_to_who_runs_the_deployment(deployed: World) -> None:
    lost = deployed.instance(None, **{"nod:owner": "gone"})
    age(deployed)
    hours(deployed, 4)
    assert deployed.told.messages == []
    assert power(deployed, lost) == "stopped"
    days(deployed, 30)
    hours(deployed, 1)
    assert power(deployed, lost) == "stopped", "its disk may be somebody's work"


def loose_volume(made: World, **tags: str) -> str:
    """A disk that hangs on nothing. Older than the grace: moto has made it just now, by its own clock."""
    wanted = [
        {"Key": key.replace("_", ":"), "Value": value} for key, value in {"nod_deployment": STAGE, **tags}.items()
    ]
    volume = made.ec2.create_volume(
        Size=8,
        AvailabilityZone=f"{SESSION.region_name}a",
        TagSpecifications=[{"ResourceType": "volume", "Tags": wanted}],
    )["VolumeId"]
    age(made)
    return str(volume)


def volumes(made: World) -> set[str]:
    return {one["VolumeId"] for one in made.ec2.describe_volumes()["Volumes"]}


@pytest.mark.parametrize(
    "tags", [{}, {"nod_owner": "gone"}, {"nod_owner": "mute"}], ids=["no tag", "no user", "no way"]
)
def test_a_disk_whose_owner_cannot_be_told_is_kept_and_named(deployed: World, tags: dict[str, str]) -> None:
    user(deployed.deployed, "mute")
    if tags.get("nod_owner") == "mute":
        tags = {"nod_owner": person(deployed.deployed, "mute").id}
    lost = "nb-" + "f" * 20
    volume = loose_volume(deployed, nod_notebook=lost, **tags)
    with logged() as lines:
        hours(deployed, 4)
        days(deployed, 30)
        counts, parts = deployed.reconcile()
    assert volume in volumes(deployed)
    assert (counts["orphan keep"], parts.trouble) == (1, [])
    last = [line for line in lines.getvalue().splitlines() if "resource without owner" in line][-1]
    assert volume in last
    assert '"action":"keep"' in last
    events, _ = Ledger(deployed.dynamodb, deployed.settings.events_table, deployed.sleep).page(lost, 10, None)
    assert [(line.action, line.code) for line in events] == [("note", "orphan_kept")]


def test_a_disk_whose_owner_can_be_told_at_last_is_told_and_then_goes(deployed: World) -> None:
    user(deployed.deployed, "late")
    volume = loose_volume(deployed, nod_owner=person(deployed.deployed, "late").id)
    hours(deployed, 3)
    days(deployed, 30)
    change_user(deployed.deployed.admin, "late", email="late@example.com")
    hours(deployed, 1)
    ((who, what),) = deployed.told.messages
    assert (who, volume in what, volume in volumes(deployed)) == ("late", True, True)
    days(deployed, 6)
    hours(deployed, 1)
    assert volume in volumes(deployed)
    days(deployed, 1)
    hours(deployed, 1)
    assert volume not in volumes(deployed)
    assert len(deployed.told.messages) == 1


@pytest.mark.parametrize(("state", "goes"), [("ready", False), ("stopped", False), ("terminated", True)])
def test_a_loose_disk_of_a_notebook_stays_until_its_owner_deletes_that(deployed: World, state: str, goes: bool) -> None:
    one = deployed.notebook()
    if state != "ready":
        deployed.deployed.change(one.id, state=state)
    volume = loose_volume(deployed, nod_notebook=one.id, nod_owner=deployed.ada)
    hours(deployed, 3)
    days(deployed, 7)
    hours(deployed, 2)
    assert (volume not in volumes(deployed)) is goes
    assert any(volume in what for _, what in deployed.told.messages) is goes


def test_the_disk_that_a_failed_notebook_left_is_told_of_and_kept_while_that_is_listed(deployed: World) -> None:
    one = deployed.notebook(instance=False, state="failed")
    volume = loose_volume(deployed, nod_notebook=one.id, nod_owner=deployed.ada)
    hours(deployed, 3)
    ((who, what),) = deployed.told.messages
    assert (who, volume in what, "is kept" in what) == ("ada", True, True)
    days(deployed, 8)
    hours(deployed, 1)
    assert (volume in volumes(deployed), len(deployed.told.messages)) == (True, 1)
    deployed.forget(one)
    hours(deployed, 2)
    assert (volume in volumes(deployed), len(deployed.told.messages)) == (True, 2), "it has its week all the same"
    days(deployed, 7)
    hours(deployed, 1)
    assert volume not in volumes(deployed)


def test_machines_that_are_kept_do_not_keep_what_else_has_no_owner(deployed: World) -> None:
    kept = {deployed.instance(f"nb-{number:020x}", **{"nod:owner": "gone"}) for number in range(4)}
    deployed.ec2.stop_instances(InstanceIds=sorted(kept))
    lost = deployed.instance("nb-" + "f" * 20)
    age(deployed)
    hours(deployed, 4)
    assert power(deployed, lost) == "stopped"
    assert {power(deployed, one) for one in kept} == {"stopped"}


def test_disks_that_are_kept_do_not_keep_what_else_has_no_owner(deployed: World) -> None:
    kept = {loose_volume(deployed) for _ in range(6)}
    lost = deployed.instance("nb-" + "f" * 20)
    age(deployed)
    hours(deployed, 4)
    assert power(deployed, lost) == "stopped"
    assert kept <= volumes(deployed)


def test_a_lost_table_touches_nothing(deployed: World) -> None:
    machines = [deployed.instance(f"nb-{number:020x}") for number in range(5)]
    age(deployed)
    hours(deployed, 4)
    days(deployed, 8)
    hours(deployed, 1)
    assert {power(deployed, one) for one in machines} == {"running"}
    assert deployed.told.messages == []


def test_a_table_that_cannot_be_read_touches_nothing(deployed: World) -> None:
    lost = deployed.instance("nb-" + "f" * 20)
    age(deployed)
    hours(deployed, 2)

    def refuse(name: str, arguments: dict[str, Any]) -> None:
        if name == "batch_get_item":
            raise SESSION.client("dynamodb").exceptions.InternalServerError(
                {"Error": {"Code": "InternalServerError"}}, "BatchGetItem"
            )

    deployed.before = refuse
    with pytest.raises(SESSION.client("dynamodb").exceptions.InternalServerError):
        deployed.reconcile()
    assert power(deployed, lost) == "running"


def test_volumes_addresses_and_groups_without_a_record_go_and_those_in_use_stay(deployed: World) -> None:
    def tagged(kind: str, **more: str) -> list[dict[str, Any]]:
        tags = {"nod:deployment": STAGE, "nod:owner": deployed.ada, **more}
        return [{"ResourceType": kind, "Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}]

    ec2 = deployed.ec2
    keeper = deployed.notebook(state="stopped")
    lost, kept = {"nod:notebook": "nb-" + "f" * 20}, {"nod:notebook": keeper.id}
    zone = f"{SESSION.region_name}a"
    volumes = [
        ec2.create_volume(Size=8, AvailabilityZone=zone, TagSpecifications=tagged("volume", **more))["VolumeId"]
        for more in (lost, kept)
    ]
    address = ec2.allocate_address(Domain="vpc", TagSpecifications=tagged("elastic-ip", **lost))["AllocationId"]
    groups = [
        ec2.create_security_group(
            GroupName=f"g{number}", Description="d", TagSpecifications=tagged("security-group", **more)
        )["GroupId"]
        for number, more in enumerate((lost, kept, {}))
    ]
    age(deployed)
    hours(deployed, 3)
    days(deployed, 7)
    hours(deployed, 1)
    left = {one["VolumeId"] for one in ec2.describe_volumes()["Volumes"]}
    assert (volumes[0] in left, volumes[1] in left) == (False, True)
    assert address not in {one["AllocationId"] for one in ec2.describe_addresses()["Addresses"]}
    left = {one["GroupId"] for one in ec2.describe_security_groups()["SecurityGroups"]}
    assert [one in left for one in groups] == [False, True, True]
    assert len(deployed.told.messages) == 3


def test_a_machine_whose_tags_were_removed_is_still_its_notebooks(deployed: World) -> None:
    one = deployed.notebook()
    deployed.ec2.delete_tags(Resources=[one.instance_id], Tags=[{"Key": "nod:notebook"}])
    age(deployed)
    hours(deployed, 4)
    days(deployed, 8)
    hours(deployed, 1)
    assert deployed.power(one) == "running"
    deployed.ec2.delete_tags(Resources=[one.instance_id], Tags=[{"Key": "nod:deployment"}])
    hours(deployed, 3)
    assert deployed.power(one) == "running"
    assert [line.code for line in deployed.lines(one)] == ["tag_removed"]


def test_a_record_that_cannot_be_read_owns_its_machine_all_the_same(deployed: World) -> None:
    one = deployed.notebook()
    deployed.dynamodb.update_item(
        TableName=deployed.settings.notebooks_table,
        Key={"id": {"S": one.id}},
        UpdateExpression="REMOVE volume_gib",
    )
    age(deployed)
    hours(deployed, 4)
    days(deployed, 8)
    hours(deployed, 1)
    assert deployed.power(one) == "running"


def test_a_stopped_notebook_whose_machine_was_terminated_has_failed(deployed: World) -> None:
    one = deployed.notebook(state="stopped")
    deployed.ec2.terminate_instances(InstanceIds=[one.instance_id])
    deployed.reconcile()
    record = deployed.record(one)
    assert (record["state"], record["error"]["code"]) == ("failed", "instance_gone")
    assert one.id not in deployed.user().get("owned", set())
    assert deployed.told.messages == [(one.id, "failed")]
    deployed.reconcile()
    assert len(deployed.told.messages) == 1


def test_a_machine_that_ec2_does_not_show_for_a_moment_is_not_given_up(deployed: World) -> None:
    one = deployed.notebook(state="stopped", instance=False, instance_id="i-0123456789abcdef0")
    deployed.reconcile()
    assert deployed.state(one) == "stopped"
    deployed.now += 59 * MINUTE
    deployed.reconcile()
    assert deployed.state(one) == "stopped"
    deployed.now += 2 * MINUTE
    deployed.reconcile()
    assert deployed.state(one) == "failed"


def test_a_machine_that_is_shown_again_begins_anew(deployed: World) -> None:
    one = deployed.notebook(state="stopped")
    deployed.ec2.stop_instances(InstanceIds=[one.instance_id])
    deployed.deployed.change(one.id, missing_at=times.to_text(deployed.now - 2 * HOUR))
    deployed.reconcile()
    assert "missing_at" not in deployed.record(one)
    assert deployed.state(one) == "stopped"


def test_a_stopped_notebook_whose_machine_was_started_in_ec2_is_stopped_again(deployed: World) -> None:
    one = deployed.notebook(state="stopped")
    deployed.reconcile()
    assert (deployed.state(one), deployed.power(one)) == ("stopped", "running")
    deployed.now += HOUR
    deployed.reconcile()
    assert (deployed.state(one), deployed.power(one)) == ("stopping", "stopped")
    assert f"{one.id}-stop-1" in deployed.begun("stop")


def test_a_machine_that_went_off_since_ec2_listed_it_is_not_stopped_again(deployed: World) -> None:
    """Its notebook's own stop was coming to its end at both looks."""
    one = deployed.notebook(state="stopped")
    deployed.reconcile()
    deployed.now += HOUR

    def goes_off(name: str, arguments: dict[str, Any]) -> None:
        if name == "put_item":
            deployed.ec2.stop_instances(InstanceIds=[one.instance_id])

    deployed.before = goes_off
    counts, parts = deployed.reconcile()
    assert (counts["stopped meanwhile"], parts.trouble) == (1, [])
    assert deployed.state(one) == "stopped"
    assert deployed.begun("stop") == {}


def test_a_user_who_cannot_be_read_keeps_the_comparison_from_nobody_else(deployed: World) -> None:
    deployed.dynamodb.put_item(TableName=deployed.settings.users_table, Item={"id": {"S": "us-aaa"}})
    gone = deployed.notebook(state="stopped")
    deployed.ec2.terminate_instances(InstanceIds=[gone.instance_id])
    deployed.reconcile()
    assert deployed.state(gone) == "failed"


def test_one_that_lost_its_tag_too_is_stopped_by_the_next_sweep(deployed: World) -> None:
    """The comparison's role may stop tagged machines only."""
    one = deployed.notebook(state="stopped")
    deployed.ec2.delete_tags(Resources=[one.instance_id], Tags=[{"Key": "nod:deployment"}])
    deployed.deployed.change(one.id, missing_at=times.to_text(deployed.now - 2 * HOUR))
    deployed.reconcile()
    assert "missing_at" not in deployed.record(one)
    assert (deployed.state(one), deployed.power(one)) == ("stopped", "running")
    deployed.now += HOUR
    deployed.reconcile()
    assert (deployed.state(one), deployed.power(one)) == ("stopping", "running")
    deployed.sweep()
    assert (deployed.state(one), deployed.power(one)) == ("stopping", "stopped")
    assert list(deployed.begun("stop")) == [f"{one.id}-stop-1"]


def test_a_record_that_no_sweep_would_look_at_is_made_due(deployed: World) -> None:
    old = deployed.notebook(idle=0, due=None, due_at=None)
    deployed.sweep()
    assert deployed.lines(old) == []
    deployed.reconcile()
    deployed.sweep()
    assert deployed.lines(old)[-1].code == "active"


def test_killed_at_each_call_and_started_again_it_comes_to_the_same_end(deployed: World) -> None:
    lost = deployed.instance("nb-" + "f" * 20)
    gone = deployed.notebook(state="stopped")
    deployed.ec2.terminate_instances(InstanceIds=[gone.instance_id])
    age(deployed)
    for hour in range(6):
        deployed.now += HOUR
        for point in range(200):
            calls = 0

            def kill(name: str, arguments: dict[str, Any], point: int = point) -> None:
                nonlocal calls
                calls += 1
                if calls == point + 1:
                    raise Killed

            deployed.before = kill
            try:
                deployed.reconcile()
            except Killed:
                continue
            break
        assert power(deployed, lost) in (("running",) if hour < 2 else ("running", "stopped"))
    assert power(deployed, lost) == "stopped"
    assert deployed.state(gone) == "failed"
    assert [who for who, _ in deployed.told.messages].count(gone.id) == 1
