"""Every state of undo and delete, on the local cloud, with machines that only say what they are told."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from tests.aws.workflows import states
from tests.local.lives import (
    of_state,
)
from tests.local.person import wait_until
from tests.local.town import QUICK, Town, told

pytestmark = pytest.mark.usefixtures("clean")


def test_aborted_launch_is_undone(town: Town) -> None:
    town.machines.seconds["install-anaconda"] = 3
    notebook = town.launch()
    town.person.wait(notebook, "launching")
    (arn,) = [e for e in town.executions("launch") if e.endswith(notebook)]
    town.sfn.stop_execution(executionArn=arn)
    seen = town.failed(notebook, "launch_aborted")
    assert "again" in seen["error"]["message"]


def test_launch_aborted_before_its_instance_is_known_leaves_nothing(town: Town) -> None:
    notebook = town.launch()
    (arn,) = [e for e in town.executions("launch") if e.endswith(notebook)]
    town.sfn.stop_execution(executionArn=arn)
    town.failed(notebook, "launch_aborted")


def test_undo_does_not_touch_the_instance_of_another_notebook(town: Town) -> None:
    other = town.launch(name="other")
    town.person.wait(other, "ready", seconds=180)
    town.machines.results["configure-tls"] = {
        "ok": False,
        "code": "certificate_failed",
        "message": "openssl made no certificate.",
    }
    town.failed(town.launch(name="mine"), "certificate_failed")
    assert len(town.instances(other)) == 1
    assert town.person.show(other)["state"] == "ready"


def test_undo_of_a_notebook_that_is_ready_leaves_it_alone(town: Town) -> None:
    notebook = town.launch()
    town.person.wait(notebook, "ready", seconds=180)
    assert town.run("undo", name=notebook, status="ABORTED")["status"] == "SUCCEEDED"
    assert len(town.instances(notebook)) == 1
    assert town.person.show(notebook)["state"] == "ready"


def test_undo_that_cannot_look_says_that_something_may_be_left(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    town.machines.seconds["install-anaconda"] = 1
    town.machines.results["install-anaconda"] = {"ok": False, "code": "disk_full", "message": "The disk is full."}
    notebook = town.launch()
    town.busy_with(notebook, "install-anaconda")
    refused = town.cloud.front._refused
    broken = ("InternalError", "An internal error has occurred", 500)
    monkeypatch.setattr(
        town.cloud.front,
        "_refused",
        lambda service, action, environ: broken if action == "DescribeInstances" else refused(service, action, environ),
    )
    seen = town.person.wait(notebook, "failed", seconds=180)
    town.settle()
    monkeypatch.undo()
    assert seen["error"]["code"] == "disk_full"
    assert (
        f"terminate the instance, if there is one, that has the tag nod:notebook={notebook}" in seen["error"]["message"]
    )
    assert town.person.show(notebook)["cost"]["so_far"] is None
    assert "expires_at" not in town.record(notebook)
    town.run("undo", name=notebook, status="ABORTED", error=None, cause=None)
    assert town.instances(notebook) == []


def test_undo_after_a_call_that_took_too_long_looks_for_longer(town: Town) -> None:
    """EC2 may be at work on what the launch does not wait for any more."""

    def looks(error: str) -> int:
        arn = town.run("undo", name=f"nb-{'0' * 20}", status="FAILED", error=error, cause="")["executionArn"]
        events = town.sfn.get_execution_history(executionArn=arn, maxResults=1000)["events"]
        names = [event.get("stateEnteredEventDetails", {}).get("name") for event in events]
        return names.count("Find Instances")

    assert looks("States.Timeout") == QUICK["EmptyLooks"] + 1 > looks("LaunchFailed")


def test_undo_without_a_record_removes_what_bears_the_tag(town: Town) -> None:
    notebook = town.launch()
    town.person.wait(notebook, "ready", seconds=180)
    assert len(town.volumes(notebook)) == 1
    town.tables.delete_item(TableName="nod-local-notebooks", Key={"id": {"S": notebook}})
    assert town.run("undo", name=notebook, status="ABORTED", error=None, cause=None)["status"] == "SUCCEEDED"
    assert town.instances(notebook) == []
    assert town.volumes(notebook) == []


@pytest.mark.parametrize("left", [{}, {"owner": {"S": "demo"}}, {"state": {"S": "launching"}}])
def test_undo_of_a_record_that_is_cut_short_removes_the_machine(town: Town, left: dict[str, Any]) -> None:
    """Whatever wrote it: a path that leads nowhere would end the undo past every Catch."""
    notebook = town.launch()
    town.person.wait(notebook, "ready", seconds=180)
    town.tables.put_item(TableName="nod-local-notebooks", Item={"id": {"S": notebook}, **left})
    try:
        assert town.run("undo", name=notebook, status="ABORTED")["status"] == "SUCCEEDED"
        assert town.instances(notebook) == []
    finally:
        town.tables.delete_item(TableName="nod-local-notebooks", Key={"id": {"S": notebook}})


def test_launch_is_undone_when_its_failure_cannot_be_explained(town: Town, broken: Callable[[str], None]) -> None:
    broken("explain_failure")
    town.cloud.faults.on("no_capacity")
    town.failed(town.launch(), "launch_failed")


def expires(town: Town, notebook: str) -> float:
    """Days from the end of a notebook until DynamoDB may remove its record."""
    record = town.tables.get_item(TableName="nod-local-notebooks", Key={"id": {"S": notebook}})["Item"]
    ended = record.get("terminated_at") or record["failed_at"]
    return (float(record["expires_at"]["N"]) - datetime.fromisoformat(ended["S"]).timestamp()) / 86400


def test_records_of_what_is_over_expire_after_30_days(town: Town) -> None:
    notebook = town.launch(name="over", notify=[])
    town.person.wait(notebook, "ready", seconds=180)
    assert town.person.delete(notebook, "over").status_code == 202
    town.person.wait(notebook, "terminated", seconds=180)
    town.cloud.faults.on("no_capacity")
    failed = town.launch()
    town.person.wait(failed, "failed", seconds=180)
    town.settle()
    assert expires(town, notebook) == pytest.approx(30, abs=1e-4)
    assert expires(town, failed) == pytest.approx(30, abs=1e-4)
    ttl = town.tables.describe_time_to_live(TableName="nod-local-notebooks")["TimeToLiveDescription"]
    assert ttl == {"TimeToLiveStatus": "ENABLED", "AttributeName": "expires_at"}


def test_undo_and_delete_are_done_when_their_message_cannot_be_sent(town: Town, broken: Callable[[str], None]) -> None:
    ready = town.launch(name="ready")
    town.person.wait(ready, "ready", seconds=180)
    broken("tell_owner")
    assert town.person.delete(ready, "ready").status_code == 202
    town.person.wait(ready, "terminated", seconds=180)
    town.cloud.faults.on("no_capacity")
    failed = town.launch()
    assert town.person.wait(failed, "failed", seconds=180)["error"]["code"] == "insufficient_capacity"
    town.settle()
    assert {ready, failed} <= set(town.user()["untold"]["SS"]), "the schedule tells it later"


def test_delete_removes_the_machine_frees_the_quota_and_tells(town: Town) -> None:
    notebook = town.launch(name="done")
    town.person.wait(notebook, "ready", seconds=180)
    assert town.person.delete(notebook, None).status_code == 409
    assert town.person.delete(notebook, "else").status_code == 409
    assert len(town.instances(notebook)) == 1
    assert town.person.delete(notebook, "done").status_code == 202
    seen = town.person.wait(notebook, "terminated", seconds=180)
    assert seen["url"] is None
    assert town.instances(notebook) == []
    wait_until(
        lambda: any(m["id"] == notebook and m["kind"] == "terminated" for m in told(town.cloud)),
        60,
        "no message",
    )
    assert town.run("terminate", id=notebook, owner=town.cloud.user_id, name="done")["status"] == "SUCCEEDED"


def test_delete_during_the_launch_leaves_nothing(town: Town) -> None:
    town.machines.seconds["install-anaconda"] = 2
    notebook = town.launch(name="early")
    town.person.wait(notebook, "launching", seconds=180)
    assert town.person.delete(notebook, "early").status_code == 202
    town.person.wait(notebook, "terminated", "failed", seconds=180)
    town.settle()
    assert town.instances(notebook) == []
    assert town.volumes(notebook) == []


def test_delete_while_a_command_runs_ends_the_launch_at_once(town: Town) -> None:
    town.machines.seconds["install-anaconda"] = 30
    notebook = town.launch(name="late")

    def installs_and_nothing_else() -> bool:
        state = {step["name"]: step["state"] for step in town.person.show(notebook)["steps"]}
        return (state["install_anaconda"], state["start_monitor"]) == ("running", "done")

    wait_until(installs_and_nothing_else, 60, "no installation")
    assert town.person.delete(notebook, "late").status_code == 202
    cut = town.person.show(notebook)
    assert (of_state(cut, "failed"), of_state(cut, "cancelled")) == ([], ["install_anaconda"])
    (arn,) = [e for e in town.executions("launch") if e.endswith(notebook)]
    town.ended(arn, 20)
    assert town.sfn.describe_execution(executionArn=arn)["status"] == "ABORTED"
    town.person.wait(notebook, "terminated", seconds=180)
    town.settle()
    assert town.instances(notebook) == []


def test_delete_that_ec2_refuses_says_so_and_can_be_asked_again(town: Town) -> None:
    notebook = town.launch(name="stuck")
    town.person.wait(notebook, "ready", seconds=180)
    town.ec2.modify_instance_attribute(
        InstanceId=town.instances(notebook)[0]["InstanceId"], DisableApiTermination={"Value": True}
    )
    assert town.person.delete(notebook, "stuck").status_code == 202
    assert town.person.wait(notebook, "failed", seconds=180)["error"]["code"] == "terminate_failed"
    town.settle()
    town.ec2.modify_instance_attribute(
        InstanceId=town.instances(notebook)[0]["InstanceId"], DisableApiTermination={"Value": False}
    )
    assert town.person.delete(notebook, "stuck").status_code == 202
    town.person.wait(notebook, "terminated", seconds=180)
    assert town.instances(notebook) == []


def test_delete_finds_the_machine_whose_tags_are_gone(town: Town) -> None:
    notebook = town.launch(name="bare")
    instance = town.person.wait(notebook, "ready", seconds=180)["instance_id"]
    town.ec2.delete_tags(Resources=[instance], Tags=[{"Key": "nod:notebook"}])
    assert town.person.delete(notebook, "bare").status_code == 202
    town.person.wait(notebook, "terminated", seconds=180)
    assert instance in town.machines.gone


def test_delete_ends_what_counts_the_notebook_as_there(town: Town) -> None:
    notebook = town.launch(name="counted")
    town.person.wait(notebook, "ready", seconds=180)
    assert notebook in town.user()["owned"]["SS"]
    assert town.record(notebook)["due"]["S"]
    assert town.person.delete(notebook, "counted").status_code == 202
    town.person.wait(notebook, "terminated", seconds=180)
    town.settle()
    assert notebook not in town.user().get("owned", {}).get("SS", [])
    assert not {"due", "due_at"} & town.record(notebook).keys()


@pytest.mark.parametrize("workflow", ["undo", "terminate"])
def test_zz_every_state_of_the_workflow_was_reached(town: Town, workflow: str) -> None:
    town.settle()
    assert {state.name for state in states(workflow)} == town.reached[workflow]
