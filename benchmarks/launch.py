"""POST to ready on real machines of the local cloud, split by step, beside the floor.

The floor is a machine's boot, the local cloud's fixed delays (`pending`, agent), and the same documents' scripts run by
hand in such a machine, side by side where the workflow runs them so. The sum of these is one figure; the other leaves
the boot out, since here a machine boots while its agent's delay passes: below that no workflow can go.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3

from chalicelib.passwords import hashed
from instance.build import documents
from local.agent import environment_variables
from local.cloud import Cloud
from local.delays import Delays
from tests.local.person import Person

MEMORY = 6 * 1024**3
"""Bytes free in memory from which the machines' disks lie there."""


def seconds_between(began: str, ended: str) -> float:
    return (datetime.fromisoformat(ended) - datetime.fromisoformat(began)).total_seconds()


def transitions(cloud: Cloud, notebook_id: str) -> int:
    """As Step Functions bills: each state entered, and each further try of a task."""
    sfn = boto3.client("stepfunctions", endpoint_url=cloud.aws_url)
    arn = f"arn:aws:states:us-east-1:123456789012:execution:nod-local-launch:{notebook_id}"
    kinds = [e["type"] for e in sfn.get_execution_history(executionArn=arn, maxResults=1000)["events"]]
    entered = sum(kind.endswith("StateEntered") for kind in kinds)
    tries = sum(kind in {"TaskScheduled", "LambdaFunctionScheduled"} for kind in kinds)
    return entered + tries - kinds.count("TaskStateEntered")


class Hand:
    """Runs the scripts of the documents in a machine without a workflow."""

    def __init__(self, cloud: Cloud, machine: Any) -> None:
        self.machine = machine
        self.documents = documents()
        self.values = {
            "prepare-instance": {},
            "install-anaconda": {
                "InstallerUrl": cloud.environment()["NOD_INSTALLER_URL"],
                "InstallerSha256": cloud.environment()["NOD_INSTALLER_SHA256"],
            },
            "configure-tls": {},
            "start-monitor": {"HeartbeatsTable": "nod-local-heartbeats", "Region": "us-east-1"},
            "configure-notebook": {"PasswordHash": hashed("a-password-for-the-bench")},
        }
        self.seconds: dict[str, float] = {}

    def run(self, *names: str) -> None:
        for name in names:
            content = self.documents[name]
            values = {"TaskToken": "none", **self.values[name]}
            lines = content["mainSteps"][0]["inputs"]["runCommand"]
            path = f"/run/bench-{name}.sh"
            began = time.monotonic()
            self.machine.write_file(path, ("\n".join(lines) + "\n").encode(), 0o700)
            done = self.machine.run(["sh", "-c", path], env=environment_variables(content, values), timeout=600)
            self.seconds[name] = time.monotonic() - began
            if done.exit_code != 0:
                raise SystemExit(f"{name} by hand: {done.stdout} {done.stderr}")

    def all(self) -> float:
        began = time.monotonic()
        self.run("prepare-instance")
        with ThreadPoolExecutor(2) as pool:
            for task in [
                pool.submit(self.run, "install-anaconda"),
                pool.submit(self.run, "configure-tls", "start-monitor"),
            ]:
                task.result()
        self.run("configure-notebook")
        return time.monotonic() - began


def floor(cloud: Cloud) -> tuple[float, dict[str, float]]:
    """Seconds of boot and scripts on a fresh machine."""
    ec2 = boto3.client("ec2", endpoint_url=cloud.aws_url)
    template = cloud.environment()["NOD_LAUNCH_TEMPLATE_ID"]
    found = ec2.run_instances(
        LaunchTemplate={"LaunchTemplateId": template},
        ImageId=ec2.describe_images()["Images"][0]["ImageId"],
        InstanceType="t3.medium",
        IamInstanceProfile={"Name": "nod-local-notebook"},
        MinCount=1,
        MaxCount=1,
    )
    instance_id = found["Instances"][0]["InstanceId"]
    time.sleep(cloud.delays.pending + 2)
    machine = cloud.machine(instance_id)
    machine.shut_down()
    began = time.monotonic()
    machine.boot()
    boot = time.monotonic() - began
    hand = Hand(cloud, machine)
    scripts = hand.all()
    ec2.terminate_instances(InstanceIds=[instance_id])
    return boot + scripts, {"boot": boot, **hand.seconds, "scripts together": scripts}


def main(arguments: argparse.Namespace) -> None:
    delays = Delays()
    # On a disk that others use, the installation alone took from 4 to 12 seconds here: it would decide every figure.
    memory = Path("/dev/shm")
    place = str(memory) if memory.is_dir() and shutil.disk_usage(memory).free > MEMORY else None
    print(f"launch: machines' disks are {'in memory' if place else 'on disk'}")
    with (
        tempfile.TemporaryDirectory(prefix="nod-bench-", dir=place) as folder,
        Cloud(state=Path(folder) / "cloud", api_port=0, aws_port=0, delays=delays) as cloud,
    ):
        person = Person(cloud.api_url, cloud.token)
        floors, totals, used = [], [], []
        steps: dict[str, list[float]] = {}
        parts: dict[str, list[float]] = {}

        def measure_floor() -> None:
            own, split = floor(cloud)
            floors.append(own + delays.pending + delays.agent)
            for name, value in split.items():
                parts.setdefault(name, []).append(value)

        for number in range(arguments.launches):
            # In turn, so that neither always finds the disk's cache warmed by the other.
            if number % 2 == 0:
                measure_floor()
            os.sync()
            posted, began = datetime.now(UTC), time.monotonic()
            notebook = person.request(name=f"bench-{number}").json()["id"]
            accepted = time.monotonic() - began
            # As nod asks, and no more often: the machine that answers is the one that is measured.
            seen = person.wait(notebook, "ready", "failed", every=2)
            if seen["state"] == "failed":
                raise SystemExit(f"the launch failed: {seen['error']}")
            totals.append((datetime.fromisoformat(seen["ready_at"]) - posted).total_seconds())
            steps.setdefault("POST answered", []).append(accepted)
            for step in seen["steps"]:
                steps.setdefault(step["name"], []).append(seconds_between(step["started_at"], step["finished_at"]))
            used.append(transitions(cloud, notebook))
            person.delete(notebook, f"bench-{number}")
            person.wait(notebook, "terminated")
            os.sync()
            if number % 2 == 1:
                measure_floor()
    print(f"launch: POST to ready, {arguments.launches} launches one after the other, medians (min to max) in seconds")
    for name, values in steps.items():
        print(f"  {name:<28}{row(values)}")
    print(f"  {'POST to ready':<28}{row(totals)}")
    print(f"floor: boot, fixed delays ({delays.pending:g} s pending, {delays.agent:g} s agent), scripts by hand")
    for name, values in parts.items():
        print(f"  {name:<28}{row(values)}")
    hidden = [low - min(boot, delays.agent) for low, boot in zip(floors, parts["boot"], strict=True)]
    for name, lows in (("floor: the sum", floors), ("floor: boot within the agent's delay", hidden)):
        print(f"  {name:<40}{row(lows)}")
        print(
            f"    {'ratio, pair by pair':<38}{row([t / low for t, low in zip(totals, lows, strict=True)])}   goal 1.05"
        )
        print(f"    {'our overhead, seconds':<38}{row([t - low for t, low in zip(totals, lows, strict=True)])}")
    print(f"  transitions of a launch     {statistics.median(used):g} ({min(used)} to {max(used)})   goal 40")


def row(values: list[float]) -> str:
    return f"{statistics.median(values):8.2f}  ({min(values):.2f} to {max(values):.2f})"
