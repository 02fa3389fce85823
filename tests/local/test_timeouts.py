"""A launch that Step Functions itself ends: no Catch runs then, the event of its end starts the undo."""

from __future__ import annotations

from pathlib import Path

import boto3

from local.cloud import Cloud
from local.delays import Delays
from tests.local.person import Person
from tests.local.scripted import ScriptedMachines

DELAYS = Delays(visible=0.05, pending=0.3, agent=0.3, stopping=0.1, invocation=0.05)


def test_launch_that_times_out_is_undone_and_says_so(tmp_path: Path) -> None:
    machines = ScriptedMachines()
    machines.seconds["install-anaconda"] = 12
    with Cloud(
        tmp_path / "cloud",
        api_port=0,
        aws_port=0,
        delays=DELAYS,
        machines=machines,
        substitutions={"LaunchSeconds": 5, "LookSeconds": 1, "EmptyLooks": 2},
    ) as cloud:
        person = Person(cloud.api_url, cloud.token)
        seen = person.wait(person.request().json()["id"], "failed", seconds=40)
        assert seen["error"]["code"] == "launch_timed_out"
        assert "again" in seen["error"]["message"]
        sfn = boto3.client("stepfunctions", endpoint_url=cloud.aws_url)
        arn = f"arn:aws:states:us-east-1:123456789012:execution:nod-local-launch:{seen['id']}"
        assert sfn.describe_execution(executionArn=arn)["status"] == "TIMED_OUT"
        ec2 = boto3.client("ec2", endpoint_url=cloud.aws_url)
        found = ec2.describe_instances(Filters=[{"Name": "tag:nod:notebook", "Values": [seen["id"]]}])
        (state,) = [i["State"]["Name"] for r in found["Reservations"] for i in r["Instances"]]
        assert state in {"shutting-down", "terminated"}
