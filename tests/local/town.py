"""A town: a local cloud with machines that only say what they are told, short waits, and what tests ask of it."""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3

from local.aws.metadata import ACCESS_KEY
from local.cloud import Cloud
from local.delays import Delays
from tests.aws.workflows import NAMES
from tests.lines import Line, wrong
from tests.local.person import Person, wait_until
from tests.local.scripted import FINGERPRINT, RESULTS, ScriptedMachine, ScriptedMachines

QUICK = {
    "LaunchSeconds": 60,
    "InstanceEventSeconds": 1,
    "InstanceLooks": 15,
    "EmptyLooks": 2,
    "LookSeconds": 1,
    "AgentAttempts": 12,
    "PrepareSeconds": 2,
    "PrepareLooks": 20,
    "InstallSeconds": 2,
    "InstallLooks": 20,
    "ShortSeconds": 2,
    "ShortLooks": 20,
    "CommandLookSeconds": 1,
    "LambdaAttempts": 1,
    "Ec2Attempts": 1,
    "StopEventSeconds": 1,
    "StopLooks": 10,
    "RunningLooks": 2,
    "StartAttempts": 1,
    "AnswerAttempts": 12,
    "AnswerRounds": 2,
}
"""Timeouts are true seconds; from one look or try to the next a second lasts DELAYS.workflow_second."""
DELAYS = Delays(
    visible=0.05,
    pending=0.3,
    agent=0.3,
    stopping=0.1,
    invocation=0.05,
    retry=0.1,
    delivery_retry=0.05,
    workflow_second=0.2,
)
OF_WORKFLOWS = (
    "owner told",
    "launch failed",
    "start failed",
    "stop failed",
    "password failed",
    "command ended",
    "answered by an error",
)


class Town:
    """The cloud of this module, and what the tests of it share."""

    def __init__(self, cloud: Cloud, machines: ScriptedMachines) -> None:
        self.cloud = cloud
        self.machines = machines
        self.person = Person(cloud.api_url, cloud.token)
        self.sfn = boto3.client("stepfunctions", endpoint_url=cloud.aws_url)
        self.ec2 = boto3.client("ec2", endpoint_url=cloud.aws_url)
        self.tables = boto3.client("dynamodb", endpoint_url=cloud.aws_url)
        # As a machine asks, with the key of its role.
        self.monitor = boto3.client(
            "dynamodb",
            endpoint_url=cloud.aws_url,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key="local",
        )
        self.noted: set[str] = set()
        self.reached: dict[str, set[str]] = {name: set() for name in NAMES}

    def arn(self, machine: str) -> str:
        return f"arn:aws:states:us-east-1:123456789012:stateMachine:nod-local-{machine}"

    def launch(self, **body: Any) -> str:
        answer = self.person.request(**body)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def run(self, machine: str, **given: Any) -> dict[str, Any]:
        """An execution started by hand, to its end."""
        arn = self.sfn.start_execution(
            stateMachineArn=self.arn(machine), name=f"hand-{uuid.uuid4()}", input=json.dumps(given)
        )["executionArn"]
        self.ended(arn)
        return self.sfn.describe_execution(executionArn=arn)  # type: ignore[return-value]

    def ended(self, arn: str, seconds: float = 120) -> None:
        wait_until(
            lambda: self.sfn.describe_execution(executionArn=arn)["status"] != "RUNNING",
            seconds,
            f"{arn} runs",
        )

    def settle(self) -> None:
        """Until no execution runs; then every state that any of them entered is noted."""
        for machine in NAMES:
            for execution in self.executions(machine):
                if execution in self.noted:
                    continue
                self.ended(execution)
                self.noted.add(execution)
                for event in self.sfn.get_execution_history(executionArn=execution, maxResults=1000)["events"]:
                    if "stateEnteredEventDetails" in event:
                        self.reached[machine].add(event["stateEnteredEventDetails"]["name"])

    def entered(self, execution: str, state: str) -> bool:
        """Whether the execution has come to the state."""
        events = self.sfn.get_execution_history(executionArn=execution, maxResults=1000)["events"]
        return state in {event.get("stateEnteredEventDetails", {}).get("name") for event in events}

    def executions(self, machine: str) -> list[str]:
        found = self.sfn.list_executions(stateMachineArn=self.arn(machine), maxResults=1000)["executions"]
        return [e["executionArn"] for e in found]

    def lines(self) -> list[Line]:
        """What the functions have logged so far."""
        return _lines(self.cloud.state)

    def instances(self, notebook_id: str) -> list[dict[str, Any]]:
        found = self.ec2.describe_instances(
            Filters=[
                {"Name": "tag:nod:notebook", "Values": [notebook_id]},
                {"Name": "instance-state-name", "Values": ["pending", "running", "stopping", "stopped"]},
            ]
        )
        return [i for r in found["Reservations"] for i in r["Instances"]]  # type: ignore[misc]

    def volumes(self, notebook_id: str) -> list[str]:
        """The ids of the disks that bear the notebook's tag, attached or not."""
        found = self.ec2.describe_volumes(Filters=[{"Name": "tag:nod:notebook", "Values": [notebook_id]}])["Volumes"]
        return [volume["VolumeId"] for volume in found]

    def record(self, notebook_id: str) -> dict[str, Any]:
        """The row as the table has it."""
        return dict(self.tables.get_item(TableName="nod-local-notebooks", Key={"id": {"S": notebook_id}})["Item"])

    def user(self) -> dict[str, Any]:
        return dict(self.tables.get_item(TableName="nod-local-users", Key={"id": {"S": self.cloud.user_id}})["Item"])

    def machine(self, notebook_id: str) -> ScriptedMachine:
        instance_id = self.record(notebook_id)["instance_id"]["S"]
        return next(m for m in self.machines.made if m.instance_id == instance_id)

    def busy_with(self, notebook_id: str, document: str) -> ScriptedMachine:
        """The notebook's machine, once it runs the document."""

        def found() -> ScriptedMachine | None:
            instance_id = self.record(notebook_id).get("instance_id", {}).get("S")
            runs = (instance_id, document) in {(machine, name) for machine, name, _ in list(self.machines.ran)}
            return self.machine(notebook_id) if runs else None

        return wait_until(found, 30, f"{document} does not run")

    def beat(self, machine: ScriptedMachine, **changes: Any) -> None:
        """A heartbeat as the monitor of a machine that answers writes it; `changes` are attributes in DynamoDB's form,
        None leaves one out."""
        row: dict[str, Any] = {
            "boot_id": {"S": uuid.uuid4().hex},
            "beat": {"N": "1"},
            "answers": {"BOOL": True},
            "certificate_valid": {"BOOL": True},
            "certificate_sha256": {"S": FINGERPRINT},
            "address": {"S": machine.address},
            **changes,
        }
        row = {name: value for name, value in row.items() if value is not None}
        self.monitor.update_item(
            TableName="nod-local-heartbeats",
            Key={"id": {"S": f"arn:aws:ec2:us-east-1:123456789012:instance/{machine.instance_id}"}},
            UpdateExpression="SET " + ", ".join(f"#{name} = :{name}" for name in row),
            ExpressionAttributeNames={f"#{name}": name for name in row},
            ExpressionAttributeValues={f":{name}": value for name, value in row.items()},
        )

    def failed(self, notebook_id: str, code: str) -> dict[str, Any]:
        """What every failed launch comes to: a true state with a reason, a message, nothing left."""
        seen = self.person.wait(notebook_id, "failed", seconds=180)
        assert seen["error"]["code"] == code, seen
        assert len(seen["error"]["message"]) > 20
        self.settle()
        assert self.instances(notebook_id) == []
        assert self.volumes(notebook_id) == []
        quota = self.tables.get_item(TableName="nod-local-users", Key={"id": {"S": self.cloud.user_id}})["Item"]
        assert notebook_id not in quota.get("active", {}).get("SS", [])
        wait_until(
            lambda: any(m["id"] == notebook_id and m["kind"] == "failed" for m in told(self.cloud)),
            60,
            "no message",
        )
        return seen


def told(cloud: Cloud) -> list[dict[str, Any]]:
    """What the topic published, as its function subscribers get it."""
    return [json.loads(m) for m in cloud.published()]


def _lines(state: Path) -> list[Line]:
    text = (state / "log" / "app.log").read_text(encoding="utf-8")
    # The last may be half written just now.
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


@contextlib.contextmanager
def opened(state: Path) -> Iterator[Town]:
    """A town, gone at the end of the block; and each line that its functions logged was looked at."""
    machines = ScriptedMachines()
    with Cloud(state=state, api_port=0, aws_port=0, delays=DELAYS, machines=machines, substitutions=QUICK) as cloud:
        yield Town(cloud, machines)
    lines = _lines(state)
    assert not wrong(lines)
    assert not [line for line in lines if "function_request_id" not in line]
    # What only workflows call, and the ends of their commands.
    assert not [line for line in lines if line["message"] in OF_WORKFLOWS and line["execution"] is None]


def as_before(town: Town) -> None:
    """After a test: no fault, no notebook that could be in the way of the next."""
    town.cloud.faults.clear()
    town.machines.results = dict(RESULTS)
    town.machines.seconds.clear()
    town.machines.broken = False
    town.machines.on_boot = None
    town.machines.stopping = 0.0
    town.settle()
    for notebook in town.person.http.get("/notebooks").json()["notebooks"]:
        if notebook["state"] in ("ready", "stopped", "stopping", "starting"):
            assert town.person.delete(notebook["id"], notebook["name"]).status_code == 202
    town.settle()
