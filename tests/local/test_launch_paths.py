"""Every state of the launch, on the local cloud, with machines that only say what they are told.

The workflow runs in the local cloud's Step Functions with shorter waits; EC2, SSM, the functions of app.py,
tables and messages are those of every other run.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import boto3
import pytest
from moto.stepfunctions.parser.asl.component.state.exec.state_task.service.state_task_service_aws_sdk import (
    StateTaskServiceAwsSdk,
)

from local.aws import beans
from tests.aws.workflows import states
from tests.local.lives import (
    of_state,
)
from tests.local.person import wait_until
from tests.local.scripted import FINGERPRINT, RESULTS
from tests.local.town import DELAYS, QUICK, Town, told

pytestmark = pytest.mark.usefixtures("clean")

LAUNCHING = ("prepare-instance", "install-anaconda", "configure-tls", "start-monitor", "configure-notebook")


def test_launch_is_ready_with_address_certificate_and_every_step_done(town: Town) -> None:
    seen = town.person.wait(town.launch(name="thesis"), "ready", seconds=180)
    assert seen["certificate_sha256"] == FINGERPRINT
    assert seen["url"] == f"https://{seen['address']}:8888"
    assert [s["state"] for s in seen["steps"]] == ["done"] * 7
    assert all(s["started_at"] <= s["finished_at"] for s in seen["steps"])
    wait_until(lambda: any(m["kind"] == "ready" for m in told(town.cloud)), 60, "no message")


def test_launch_reaches_its_end_when_every_event_is_lost(town: Town) -> None:
    town.cloud.faults.on("event_lost")
    town.machines.seconds = dict.fromkeys(RESULTS, 2.5)
    notebook = town.launch()
    assert town.person.wait(notebook, "ready", seconds=180)["certificate_sha256"] == FINGERPRINT


def test_launch_waits_when_ec2_is_slow_and_its_event_is_lost(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    town.cloud.faults.on("event_lost")
    town.cloud.slow_pending(2)
    try:
        town.person.wait(town.launch(), "ready", seconds=180)
    finally:
        town.cloud.slow_pending(DELAYS.pending)


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("no_capacity", "insufficient_capacity"),
        ("vcpu_limit", "vcpu_limit"),
        ("agent_never_online", "agent_never_online"),
        ("command_denied:prepare-instance", "not_permitted"),
        ("instance_lost", "instance_lost"),
        ("command_times_out:configure-notebook", "command_timed_out"),
        ("command_fails:prepare-instance", "command_failed"),
    ],
)
def test_fault_ends_in_failed_with_its_reason_a_message_and_nothing_left(town: Town, fault: str, code: str) -> None:
    town.cloud.faults.on(fault)
    town.machines.seconds["install-anaconda"] = 4 if fault == "instance_lost" else 0.05
    town.failed(town.launch(), code)


def refusals(town: Town, notebook: str) -> list[str]:
    """The errors of the launch's tasks so far."""
    (arn,) = [e for e in town.executions("launch") if e.endswith(notebook)]
    events = town.sfn.get_execution_history(executionArn=arn, maxResults=1000)["events"]
    return [e["taskFailedEventDetails"]["error"] for e in events if "taskFailedEventDetails" in e]


@pytest.mark.parametrize("error", ["Ssm.AccessDeniedException", "Ssm.SsmException"])
def test_commands_that_are_refused_access_before_the_agent_has_registered_are_sent_again(
    town: Town, monkeypatch: pytest.MonkeyPatch, error: str
) -> None:
    """By its own name, and by that which an SDK has for an error that it does not know."""
    name = StateTaskServiceAwsSdk._normalise_exception_name
    if error == "Ssm.SsmException":

        def unknown(service: str, ex: Exception) -> str:
            found = name(service, ex)
            return error if found == "Ssm.AccessDeniedException" else str(found)

        monkeypatch.setattr(StateTaskServiceAwsSdk, "_normalise_exception_name", staticmethod(unknown))
    town.cloud.faults.on("agent_denied")
    town.cloud.faults.on("agent_never_online")
    notebook = town.launch()
    wait_until(lambda: error in refusals(town, notebook), 60, "no command was refused")
    town.cloud.faults.off("agent_never_online")
    town.person.wait(notebook, "ready", seconds=180)


def test_an_agent_that_stays_denied_ends_the_launch_with_the_permission(town: Town) -> None:
    town.cloud.faults.on("agent_denied")
    town.cloud.faults.on("agent_never_online")
    notebook = town.launch()
    seen = town.failed(notebook, "not_permitted")
    assert "ssm:SendCommand" in seen["error"]["message"]
    assert refusals(town, notebook).count("Ssm.AccessDeniedException") == QUICK["AgentAttempts"] + 1


def answering(monkeypatch: pytest.MonkeyPatch, shape_name: str, change: Callable[[dict[str, Any]], None]) -> None:
    """Let AWS answer the workflows' calls with something else."""
    given = beans.from_api

    def changed(shape: Any, value: Any) -> Any:
        if shape is not None and shape.name == shape_name:
            change(value)
        return given(shape, value)

    monkeypatch.setattr(beans, "from_api", changed)


def test_an_instance_without_a_public_name_is_launched(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, "Instance", lambda found: found.pop("PublicDnsName", None))
    notebook = town.launch()
    assert town.person.wait(notebook, "ready", seconds=180)["url"]
    assert town.record(notebook)["public_dns_name"] == {"S": ""}


def test_a_fleet_that_says_nothing_at_all_is_a_failure_that_is_told(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(found: dict[str, Any]) -> None:
        for key in ("Instances", "Errors"):
            found.pop(key, None)

    answering(monkeypatch, "CreateFleetResult", nothing)
    town.failed(town.launch(), "create_failed")


def test_an_instance_that_ec2_does_not_show_is_looked_for_and_undone(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []

    def none(found: dict[str, Any]) -> None:
        looks.append(found["Reservations"])
        if len(looks) <= QUICK["InstanceLooks"] + 2:
            found["Reservations"] = []

    answering(monkeypatch, "DescribeInstancesResult", none)
    town.failed(town.launch(), "instance_lost")
    # Seen at the second look, it goes on.
    looks[:] = [[]] * (QUICK["InstanceLooks"] + 1)
    town.person.wait(town.launch(), "ready", seconds=180)


def test_instance_that_is_lost_without_an_event_is_found_gone(town: Town) -> None:
    town.cloud.faults.on("event_lost")
    town.cloud.slow_pending(8)
    try:
        notebook = town.launch()
        (instance,) = wait_until(lambda: town.instances(notebook), 60, "no instance")
        town.ec2.terminate_instances(InstanceIds=[instance["InstanceId"]])
        town.failed(notebook, "instance_lost")
    finally:
        town.cloud.slow_pending(DELAYS.pending)


def test_instance_that_stays_pending_is_given_up(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    """And EC2 gives no reason."""
    answering(monkeypatch, "Instance", lambda found: found.pop("StateReason", None))
    town.cloud.slow_pending(60)
    try:
        notebook = town.launch()
        town.failed(notebook, "instance_lost")
        (arn,) = [e for e in town.executions("launch") if e.endswith(notebook)]
        assert town.entered(arn, "Explain Loss")
    finally:
        town.cloud.slow_pending(DELAYS.pending)


@pytest.mark.parametrize("document", LAUNCHING)
def test_failure_of_any_document_is_told_with_its_own_code(town: Town, document: str) -> None:
    town.machines.results[document] = {
        "ok": False,
        "code": "disk_full",
        "message": "The disk is full: ask for more.",
    }
    seen = town.failed(town.launch(), "disk_full")
    assert seen["error"]["message"].startswith("The disk is full")
    assert of_state(seen, "failed") == [document.replace("-", "_")]


@pytest.mark.parametrize(
    ("fails", "cut"),
    [
        ("configure-tls", ["install_anaconda"]),
        ("start-monitor", ["install_anaconda"]),
        ("install-anaconda", ["configure_tls"]),
    ],
)
def test_step_that_another_one_cut_off_has_not_failed(town: Town, fails: str, cut: list[str]) -> None:
    town.machines.seconds = {step.replace("_", "-"): 30 for step in cut}
    town.machines.results[fails] = {"ok": False, "code": "disk_full", "message": "The disk is full: ask for more."}
    notebook = town.launch()
    seen = town.failed(notebook, "disk_full")
    assert (of_state(seen, "failed"), of_state(seen, "cancelled")) == ([fails.replace("-", "_")], cut)
    (arn,) = [e for e in town.executions("launch") if e.endswith(notebook)]
    ended = town.sfn.describe_execution(executionArn=arn)
    assert json.loads(ended["cause"])["Error"] == "StepFailed"


def test_creation_that_ec2_refuses_is_the_step_that_failed(town: Town) -> None:
    town.cloud.faults.on("no_capacity")
    answer = town.person.request().json()
    assert of_state(answer, "running") == ["create_instance"]
    seen = town.failed(answer["id"], "insufficient_capacity")
    assert of_state(seen, "failed") == ["create_instance"]
    assert len(of_state(seen, "waiting")) == 6


@pytest.mark.parametrize("garbage", ["", "no json", '{"ok": tru', '[1]\n{"ok": false}', "\x00\x1b[31m", "x" * 30_000])
def test_command_that_prints_garbage_fails_with_a_reason_that_can_be_read(town: Town, garbage: str) -> None:
    town.machines.results["configure-tls"] = garbage
    town.failed(town.launch(), "command_failed")


@pytest.mark.parametrize("document", ["configure-tls", "configure-notebook"])
@pytest.mark.parametrize("forged", [None, ["AB"], "https://evil.example <!channel>"])
def test_result_without_a_fingerprint_ends_the_launch_truly_and_is_told_to_nobody(
    town: Town, document: str, forged: object
) -> None:
    town.machines.results[document] = {"ok": True} | ({} if forged is None else {"certificate_sha256": forged})
    notebook = town.launch()
    town.failed(notebook, "no_result")
    assert "evil" not in json.dumps([m for m in told(town.cloud) if m["id"] == notebook])


@pytest.mark.parametrize("document", ["install-anaconda", "configure-notebook"])
def test_command_that_runs_twice_and_ends_twice_makes_one_notebook(town: Town, document: str) -> None:
    town.cloud.faults.on(f"command_twice:{document}")
    town.person.wait(town.launch(), "ready", seconds=180)


def test_throttled_calls_are_tried_again(town: Town) -> None:
    notebook = town.launch()
    town.cloud.faults.on("throttling:ec2")
    town.person.wait(notebook, "ready", seconds=180)


def test_notebook_is_ready_when_its_message_cannot_be_sent_and_the_schedule_sends_it_later(
    town: Town, broken: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken("tell_owner")
    notebook = town.launch()
    town.person.wait(notebook, "ready", seconds=180)
    town.settle()
    assert town.person.show(notebook)["state"] == "ready"
    assert not any(m["id"] == notebook for m in told(town.cloud))
    monkeypatch.undo()
    town.cloud.run_schedules()
    assert not any(m["id"] == notebook for m in told(town.cloud)), "too early: the workflow could still be at it"
    monkeypatch.setattr("chalicelib.actions.telling.OVERDUE", timedelta(0))
    town.cloud.run_schedules()
    wait_until(lambda: any(m["id"] == notebook for m in told(town.cloud)), 60, "no message")
    wait_until(lambda: notebook not in town.user().get("untold", {}).get("SS", []), 60, "not noted as told")
    # The cloud's own schedule may have run beside the first one: at least once, and never again.
    kinds = [m["kind"] for m in told(town.cloud) if m["id"] == notebook]
    assert set(kinds) == {"ready"}
    town.cloud.run_schedules()
    assert [m["kind"] for m in told(town.cloud) if m["id"] == notebook] == kinds


def test_launch_notes_when_its_run_began_and_has_the_sweep_look_at_it(town: Town) -> None:
    notebook = town.launch()
    town.person.wait(notebook, "ready", seconds=180)
    record = town.record(notebook)
    assert record["run_started_at"] == record["steps"]["M"]["start_instance"]["M"]["finished_at"]
    assert record["due_at"] == record["ready_at"] == record["seen"]["M"]["at"]
    assert record["due"]["S"].isdecimal()


def test_disk_of_a_launch_bears_whose_it_is(town: Town) -> None:
    notebook = town.launch(name="disk")
    instance = town.person.wait(notebook, "ready", seconds=180)["instance_id"]
    here = [{"Name": "attachment.instance-id", "Values": [instance]}]
    (disk,) = town.ec2.describe_volumes(Filters=here)["Volumes"]
    tags = {tag["Key"]: tag["Value"] for tag in disk["Tags"]}
    assert tags == {
        "Name": "nod-disk",
        "nod:deployment": "local",
        "nod:notebook": notebook,
        "nod:owner": town.cloud.user_id,
    }


def test_launch_whose_machine_switches_itself_off_is_undone_at_once(town: Town) -> None:
    town.machines.seconds["install-anaconda"] = 30
    notebook = town.launch()
    town.busy_with(notebook, "install-anaconda").power_off_from_inside()
    (arn,) = [e for e in town.executions("launch") if e.endswith(notebook)]
    town.ended(arn, 20)
    town.failed(notebook, "instance_lost")


def test_instance_without_a_public_address_is_undone(town: Town) -> None:
    town.cloud.without_addresses(True)
    try:
        town.failed(town.launch(), "no_public_address")
    finally:
        town.cloud.without_addresses(False)


def test_message_that_cannot_be_delivered_is_kept_and_the_notebook_is_ready(town: Town) -> None:
    town.cloud.faults.on("notification_fails")
    notebook = town.launch(name="untold")
    ready = town.person.wait(notebook, "ready", seconds=180)
    assert ready["url"]
    sqs = boto3.client("sqs", endpoint_url=town.cloud.aws_url)

    def kept() -> bool:
        for queue in ("nod-local-failed-events", "nod-local-undelivered-messages"):
            url = sqs.get_queue_url(QueueName=queue)["QueueUrl"]
            for message in sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", []):
                if notebook in message["Body"]:
                    return True
        return False

    wait_until(kept, 60, "the message is nowhere")
    seen = {n["channel"]: n["state"] for n in town.person.show(notebook)["notifications"]}
    assert seen["slack:demo"] == "failed"


def test_zz_every_state_of_the_workflow_was_reached(town: Town) -> None:
    town.settle()
    assert {state.name for state in states("launch")} == town.reached["launch"]
