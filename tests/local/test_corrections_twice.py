"""One cloud after the other in one process: the second begins empty, and nothing of the first is left."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import pytest
from moto.ec2.models.instances import Instance

from tests.local.clouds import client, opened, until
from tests.local.test_corrections_ec2 import fleet, state


def test_a_second_cloud_begins_empty_and_the_first_leaves_nothing(tmp_path: Path) -> None:
    environment = dict(os.environ)
    start = Instance.__dict__["start"]
    threads = set(threading.enumerate())
    tokens = []
    for number in range(2):
        with opened(tmp_path / str(number)) as cloud:
            tokens.append(cloud.token)
            ec2 = client(cloud, "ec2")
            assert ec2.describe_instances()["Reservations"] == []
            template = str(cloud.stack.resource("NotebookLaunchTemplate"))
            asked = fleet(template, {"InstanceType": "t3.medium", "SubnetId": cloud.subnet_ids[0]})
            instance_id = ec2.create_fleet(**asked)["Instances"][0]["InstanceIds"][0]
            until(lambda ec2=ec2, instance_id=instance_id: state(ec2, instance_id) == "running")
            ports = (cloud.api_port, cloud.aws_port, cloud.inbox.port)
        for port in ports:
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port))
        assert dict(os.environ) == environment
        assert Instance.__dict__["start"] is start
        until(lambda: not [t for t in set(threading.enumerate()) - threads if t.is_alive() and t.name != "nod-spawner"])
    assert tokens[0] != tokens[1]


def test_a_cloud_ends_in_the_middle_of_a_launch(tmp_path: Path) -> None:
    with opened(tmp_path) as cloud:
        sfn = client(cloud, "stepfunctions")
        arn = f"arn:aws:states:us-east-1:123456789012:stateMachine:nod-{cloud.stage}-undo"
        sfn.start_execution(stateMachineArn=arn, name="x", input='{"name": "nb-0", "status": "FAILED"}')
        machines = cloud.fake_machines  # type: ignore[attr-defined]
    assert machines.closed
