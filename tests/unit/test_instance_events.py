"""Instances that are off without anybody's asking, and why a start, a stop or a password failed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.aws.instances import Instance, Instances
from chalicelib.errors import InstancePending
from chalicelib.failures import explain_password, explain_start, explain_stop
from chalicelib.outside import stop_of
from tests.unit.stage import Stage, stage, user

INSTANCE = "i-0123456789abcdef0"


@pytest.fixture
def deployed() -> Iterator[Stage]:
    with stage() as found:
        yield found


class Ec2:
    """What EC2 says of the instance, and what was started and answered meanwhile."""

    def __init__(self, deployed: Stage, patch: pytest.MonkeyPatch) -> None:
        self.state, self.reason = "stopped", "Client.UserInitiatedShutdown"
        self.down: list[ClientError] = []
        self.started: list[dict[str, Any]] = []
        self.answered: list[dict[str, Any]] = []
        patch.setattr(Instances, "describe", lambda _, ids: {i: self.instance(i) for i in ids if self.state})
        client = deployed.app.clients.get("stepfunctions")
        patch.setattr(client, "start_execution", self.start)
        patch.setattr(client, "send_task_success", lambda **arguments: self.answered.append(arguments))

    def instance(self, instance_id: str) -> Instance:
        return Instance(instance_id, self.state, self.reason, None, "test")

    def start(self, **arguments: Any) -> None:
        if self.down:
            raise self.down.pop()
        self.started.append({**arguments, "input": json.loads(arguments["input"])})


@pytest.fixture
def ec2(deployed: Stage, monkeypatch: pytest.MonkeyPatch) -> Ec2:
    return Ec2(deployed, monkeypatch)


@pytest.fixture
def notebook(deployed: Stage, ec2: Ec2) -> str:
    made = deployed.http("POST", "/notebooks", user(deployed), {"name": "thesis"}).json_body
    deployed.change(made["id"], state="ready", instance_id=INSTANCE)
    ec2.started.clear()
    return str(made["id"])


def event(state: str = "stopped") -> dict[str, Any]:
    return {
        "version": "0",
        "account": "1",
        "region": "r",
        "detail": {"instance-id": INSTANCE, "state": state},
        "detail-type": "EC2 Instance State-change Notification",
        "source": "aws.ec2",
        "time": "2026-11-22T14:05:00Z",
        "id": "1",
        "resources": [],
    }


@pytest.mark.parametrize(
    ("reason", "by"),
    [
        ("Client.UserInitiatedShutdown", "outside"),
        ("Client.InstanceInitiatedShutdown", "monitor"),
        ("Server.ScheduledStop", "outside"),
        (None, "outside"),
    ],
)
def test_notebook_that_nobody_stopped_here_is_stopped_with_who_did(
    deployed: Stage, ec2: Ec2, notebook: str, reason: str | None, by: str
) -> None:
    ec2.reason = reason  # type: ignore[assignment]
    deployed.app.on_instance_event(event(), None)
    record = deployed.record(notebook)
    assert record["state"] == {"S": "stopping"}
    assert record["stop"]["M"]["by"] == {"S": by}
    assert record["due_at"]["S"] > record["updated_at"]["S"], "the sweep looks whether it came to its end"
    (started,) = ec2.started
    assert started["name"] == f"{notebook}-stop-1"
    assert started["stateMachineArn"].endswith("-stop")
    assert started["input"] == {
        "id": notebook,
        "owner": record["owner"]["S"],
        "name": "thesis",
        "instance_id": INSTANCE,
        "call": False,
    }


def test_event_that_failed_between_record_and_workflow_is_finished_by_lambdas_retry(
    deployed: Stage, ec2: Ec2, notebook: str
) -> None:
    ec2.down = [ClientError({"Error": {"Code": "ThrottlingException"}}, "StartExecution")]
    with pytest.raises(Exception, match="Step Functions"):
        deployed.app.on_instance_event(event(), None)
    assert deployed.record(notebook)["state"] == {"S": "stopping"}
    deployed.app.on_instance_event(event(), None)
    assert [started["name"] for started in ec2.started] == [f"{notebook}-stop-1"]
    assert deployed.record(notebook)["stops"] == {"N": "1"}


@pytest.mark.parametrize("now", ["running", "pending", ""])
def test_old_event_of_an_instance_that_runs_again_or_is_gone_stops_nothing(
    deployed: Stage, ec2: Ec2, notebook: str, now: str
) -> None:
    ec2.state = now
    deployed.app.on_instance_event(event(), None)
    assert deployed.record(notebook)["state"] == {"S": "ready"}
    assert ec2.started == []


@pytest.mark.parametrize("state", ["ready", "stopping"])
def test_event_that_is_here_before_ec2_shows_it_is_finished_by_lambdas_retry(
    deployed: Stage, ec2: Ec2, notebook: str, state: str
) -> None:
    deployed.change(notebook, state=state)
    ec2.state = "stopping"
    with pytest.raises(InstancePending, match=INSTANCE):
        deployed.app.on_instance_event(event(), None)
    assert deployed.record(notebook)["state"] == {"S": state}
    assert ec2.started == []
    ec2.state = "stopped"
    deployed.app.on_instance_event(event(), None)
    assert deployed.record(notebook)["state"] == {"S": "stopping"}
    assert len(ec2.started) == 1


def test_token_that_nobody_waits_for_any_more_does_not_hide_that_the_instance_is_off(
    deployed: Stage, ec2: Ec2, notebook: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = deployed.app.clients.get("stepfunctions")

    def refuse(**_: Any) -> None:
        raise client.exceptions.TaskTimedOut({"Error": {"Code": "TaskTimedOut"}}, "SendTaskSuccess")

    monkeypatch.setattr(client, "send_task_success", refuse)
    deployed.change(notebook, wait_token="token")
    deployed.app.on_instance_event(event("running"), None)
    assert deployed.record(notebook)["state"] == {"S": "ready"}
    deployed.app.on_instance_event(event(), None)
    assert deployed.record(notebook)["state"] == {"S": "stopping"}
    assert [started["name"] for started in ec2.started] == [f"{notebook}-stop-1"]


@pytest.mark.parametrize("state", ["requested", "stopped", "starting", "failed", "terminated"])
def test_other_states_are_not_touched_by_a_stop_without_a_token(
    deployed: Stage, ec2: Ec2, notebook: str, state: str
) -> None:
    deployed.change(notebook, state=state)
    before = deployed.record(notebook)
    deployed.app.on_instance_event(event(), None)
    assert deployed.record(notebook) == before
    assert ec2.started == ec2.answered == []


@pytest.mark.parametrize("state", ["stopping", "starting"])
@pytest.mark.parametrize("said", ["running", "stopped", "shutting-down", "terminated"])
def test_whoever_waits_for_the_instance_is_waked_and_looks_itself(
    deployed: Stage, ec2: Ec2, notebook: str, state: str, said: str
) -> None:
    deployed.change(notebook, state=state, wait_token="token")
    deployed.app.on_instance_event(event(said), None)
    assert ec2.answered == [{"taskToken": "token", "output": json.dumps({"state": said})}]
    assert ec2.started == []


def test_who_switched_it_off_is_a_sentence() -> None:
    assert stop_of("Client.InstanceInitiatedShutdown").code == "monitor"
    assert stop_of(None).code == "outside"
    assert stop_of(None).reason.endswith(".")


@pytest.mark.parametrize(
    "cause",
    [
        "Insufficient capacity. (Service: Ec2, Status Code: 500, Request ID: 1)",
        "We currently do not have sufficient t3.medium capacity in the Availability Zone you requested (us-east-1a).",
        "An error occurred (InsufficientInstanceCapacity) when calling the StartInstances operation: no",
        "Server.InsufficientInstanceCapacity: Insufficient capacity to satisfy instance request",
    ],
)
def test_start_without_capacity_names_what_else_there_is(cause: str) -> None:
    failure = explain_start({"error": "Ec2.Ec2Exception", "cause": cause}, ["t3a.medium", "t4g.medium"])
    assert failure.code == "no_capacity"
    assert "t3a.medium or t4g.medium" in failure.message
    assert "untouched" in failure.message
    assert "meanwhile" not in explain_start({"error": "Ec2.Ec2Exception", "cause": cause}, []).message


@pytest.mark.parametrize(
    ("error", "cause", "words"),
    [
        ("NotebookSilent", "x", "did not answer"),
        ("NoPublicAddress", "x", "public address"),
        ("StartDelayed", "x", "in time"),
        ("StartReturned", "Server.InternalError: Internal error on launch", "Internal error on launch"),
        (
            "Ec2.Ec2Exception",
            "You have requested more vCPU capacity than your current vCPU limit of 8",
            "Service Quotas",
        ),
        ("Ec2.Ec2Exception", "The subnet has no free address", "no free address"),
        ("States.Runtime", "", "States.Runtime"),
    ],
)
def test_start_that_failed_says_why_and_that_the_disk_is_there(error: str, cause: str, words: str) -> None:
    failure = explain_start({"error": error, "cause": cause}, ["t3a.medium"])
    assert failure.code == "start_failed"
    assert words in failure.message
    assert "untouched" in failure.message


@pytest.mark.parametrize(
    ("error", "cause", "words"),
    [
        ("CommandFailed", json.dumps({"code": "disk_full", "message": "The disk is full."}), "The disk is full"),
        ("Ssm.InvalidInstanceIdException", "x", "offline"),
        ("CommandPending", "x", "in time"),
        ("Other", "Something else", "Something else"),
    ],
)
def test_password_that_was_not_changed_says_why(error: str, cause: str, words: str) -> None:
    failure = explain_password({"error": error, "cause": cause})
    assert failure.code == "password_failed"
    assert words in failure.message
    assert "old one stays" in failure.message


def test_stop_that_failed_says_that_it_costs() -> None:
    failure = explain_stop({"error": "Ec2.Ec2Exception", "cause": "You are not authorized."})
    assert failure.code == "stop_failed"
    assert "You are not authorized. It still runs and costs" in failure.message
    assert "says nothing" in explain_stop({"error": "StillRunning", "cause": "x"}).message


ANYTHING = st.dictionaries(
    st.sampled_from(["error", "cause", "status"]), st.one_of(st.none(), st.integers(), st.text(max_size=600))
)


@given(ANYTHING)
def test_whatever_went_wrong_there_is_a_code_and_a_message(execution: dict[str, Any]) -> None:
    for failure in (explain_start(execution, ["t3a.medium"]), explain_stop(execution), explain_password(execution)):
        assert failure.code in ("no_capacity", "start_failed", "stop_failed", "password_failed")
        assert 20 < len(failure.message) < 1200
        assert failure.message.isprintable()


def test_start_without_capacity_is_explained_with_the_owners_types(deployed: Stage, notebook: str) -> None:
    execution = {"status": "FAILED", "error": "Ec2.Ec2Exception", "cause": "Insufficient capacity."}
    told = deployed.app.explain_failure({"id": notebook, "workflow": "start", "execution": execution}, None)
    assert told["code"] == "no_capacity"
    assert "t3a.medium" in told["message"]
    nobody = deployed.app.explain_failure({"id": "nb-0", "workflow": "start", "execution": execution}, None)
    assert nobody["code"] == "no_capacity"
    assert "t3a" not in nobody["message"]


@pytest.mark.parametrize("workflow", ["stop", "password", None])
def test_each_workflow_is_explained_in_its_own_words(deployed: Stage, workflow: str | None) -> None:
    event = {"id": "nb-0", "execution": {"error": "X", "cause": "y"}, **({"workflow": workflow} if workflow else {})}
    assert deployed.app.explain_failure(event, None)["code"] == f"{workflow or 'launch'}_failed"
