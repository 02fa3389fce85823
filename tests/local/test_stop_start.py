"""EC2's own calls on real machines: what stopping, starting, rebooting and terminating do to a notebook."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest

from chalicelib import passwords
from local.cloud import UBUNTU, Cloud
from local.errors import MachineError
from tests.local.clouds import ON_MACHINES
from tests.local.person import Person, fingerprint, log_in, wait_until

pytestmark = pytest.mark.machine

PASSWORD = "kept-Over-the-stop-1"


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory, image: Path, installer: Any) -> Iterator[Cloud]:
    state = tmp_path_factory.mktemp("cloud")
    with Cloud(state, image=image, installer=installer, api_port=0, aws_port=0, delays=ON_MACHINES) as opened:
        yield opened


@pytest.fixture(scope="module")
def ec2(cloud: Cloud) -> Any:
    return boto3.client("ec2", endpoint_url=cloud.aws_url)


def seen(ec2: Any, instance_id: str) -> dict[str, Any]:
    return dict(ec2.describe_instances(InstanceIds=[instance_id])["Reservations"][0]["Instances"][0])


def wait_for_state(ec2: Any, instance_id: str, state: str) -> dict[str, Any]:
    wait_until(lambda: seen(ec2, instance_id)["State"]["Name"] == state, 60, f"{instance_id} is never {state}")
    return seen(ec2, instance_id)


def refuses(address: str) -> bool:
    try:
        socket.create_connection((address, 8888), timeout=5).close()
    except ConnectionRefusedError:
        return True
    return False


def boot_id(machine: Any) -> str:
    """Empty while it is off."""
    try:
        return str(machine.run(["cat", "/proc/sys/kernel/random/boot_id"]).stdout)
    except MachineError:
        return ""


def test_the_calls_of_ec2_drive_the_machine(cloud: Cloud, ec2: Any) -> None:
    asked = {
        "Type": "instant",
        "LaunchTemplateConfigs": [
            {
                "LaunchTemplateSpecification": {
                    "LaunchTemplateId": cloud.stack.resource("NotebookLaunchTemplate"),
                    "Version": "$Default",
                },
                "Overrides": [{"InstanceType": "t3.medium", "ImageId": "resolve:ssm:" + UBUNTU.format("amd64")}],
            }
        ],
        "TargetCapacitySpecification": {"TotalTargetCapacity": 1, "DefaultTargetCapacityType": "on-demand"},
    }
    instance_id = ec2.create_fleet(**asked)["Instances"][0]["InstanceIds"][0]
    wait_until(lambda: cloud.ec2.life(instance_id).machine is not None, 60, "no machine")  # type: ignore[union-attr]
    machine = cloud.machine(instance_id)
    wait_until(lambda: machine.running, 60, "it does not boot")
    machine.write_file("/home/work", b"work")
    first = boot_id(machine)

    ec2.reboot_instances(InstanceIds=[instance_id])
    wait_until(lambda: boot_id(machine) not in ("", first), 60, "no reboot")
    assert seen(ec2, instance_id)["State"]["Name"] == "running"

    ec2.stop_instances(InstanceIds=[instance_id])
    stopped = wait_for_state(ec2, instance_id, "stopped")
    assert "PublicIpAddress" not in stopped
    assert not machine.running
    assert machine.read_file("/home/work") == b"work"

    ec2.start_instances(InstanceIds=[instance_id])
    wait_for_state(ec2, instance_id, "running")
    wait_until(lambda: machine.running, 60, "it does not start")
    assert machine.read_file("/home/work") == b"work"

    machine.run(["systemctl", "poweroff"])
    assert wait_for_state(ec2, instance_id, "stopped")["StateReason"]["Code"] == "Client.InstanceInitiatedShutdown"

    ec2.terminate_instances(InstanceIds=[instance_id])
    wait_for_state(ec2, instance_id, "terminated")
    assert not list((cloud.state / "machines").glob(f"{instance_id}*"))
    assert refuses(machine.address)


def test_a_notebook_that_was_stopped_answers_elsewhere_as_itself(cloud: Cloud, ec2: Any) -> None:
    person = Person(cloud.api_url, cloud.token)
    notebook = person.wait(person.request(name="moved", password=PASSWORD).json()["id"], "ready")
    instance_id, old = notebook["instance_id"], notebook["address"]
    machine = cloud.machine(instance_id)
    machine.run(["runuser", "-u", "jupyter", "--", "sh", "-c", "echo mine > /home/jupyter/kept.txt"])

    ec2.stop_instances(InstanceIds=[instance_id])
    wait_for_state(ec2, instance_id, "stopped")
    # Written down, too: the workflow that does so would stop what it finds running.
    person.wait(notebook["id"], "stopped")
    assert refuses(old)
    ec2.start_instances(InstanceIds=[instance_id])
    new = wait_for_state(ec2, instance_id, "running")["PublicIpAddress"]
    assert new != old
    url = f"https://{new}:8888"

    def answers() -> bool:
        try:
            return httpx.get(f"{url}/login", verify=False, trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False

    wait_until(answers, 120, f"nothing answers at {new}")
    assert refuses(old)
    certificate = fingerprint(new)
    assert certificate != notebook["certificate_sha256"], "the name changed, so the certificate has to"
    names = machine.run(["python3", "-I", "/opt/nod/certificate.py", "--show"]).stdout
    assert new in names
    assert old not in names
    session = log_in(url, PASSWORD)
    assert session.login.status_code == 302  # type: ignore[attr-defined]
    assert session.get("/api/contents/kept.txt").json()["content"] == "mine\n"

    jupyter = "from jupyter_server.auth.security import passwd, passwd_check as check; import sys; "
    code = f"{jupyter}print(passwd('{PASSWORD}'), check(sys.argv[1], '{PASSWORD}'), check(sys.argv[1], 'another'))"
    said = machine.run(["/opt/anaconda3/bin/python", "-c", code, passwords.hashed(PASSWORD)])
    theirs, *checked = said.stdout.split()
    assert checked == ["True", "False"], "Jupyter reads our hashes"
    assert re.fullmatch(passwords.HASH_PATTERN, theirs), "and we take Jupyter's"

    tables = boto3.client("dynamodb", endpoint_url=cloud.aws_url)
    row: dict[str, Any] = {}

    def told() -> bool:
        items = tables.scan(TableName="nod-local-heartbeats")["Items"]
        row.update(next((item for item in items if item["id"]["S"].endswith(instance_id)), {}))
        return row.get("address") == {"S": new} and row.get("answers") == {"BOOL": True}

    wait_until(told, 130, lambda: f"the heartbeat never says so: {row}")
    assert row["certificate_sha256"] == {"S": certificate}
    assert row["boot_id"]["S"] == boot_id(machine).strip().replace("-", "")
    assert person.delete(notebook["id"], "moved").status_code == 202
    person.wait(notebook["id"], "terminated")
    assert refuses(new)


def test_a_notebook_that_is_woken_answers_with_all_it_had(cloud: Cloud) -> None:
    person = Person(cloud.api_url, cloud.token)
    notebook = person.wait(person.request(name="woken", password=PASSWORD).json()["id"], "ready")
    machine = cloud.machine(notebook["instance_id"])
    machine.run(["runuser", "-u", "jupyter", "--", "sh", "-c", "echo mine > /home/jupyter/kept.txt"])
    assert person.http.post(f"/notebooks/{notebook['id']}/stop").status_code == 202
    stopped = person.wait(notebook["id"], "stopped")
    assert (stopped["url"], stopped["stop"]["code"]) == (None, "asked")
    assert not machine.running

    assert person.http.post(f"/notebooks/{notebook['id']}/start").status_code == 202
    ready = person.wait(notebook["id"], "ready")
    assert ready["address"] != notebook["address"]
    assert fingerprint(ready["address"]) == ready["certificate_sha256"] != notebook["certificate_sha256"]
    session = log_in(ready["url"], PASSWORD)
    assert session.get("/api/contents/kept.txt").json()["content"] == "mine\n"

    machine.run(["systemctl", "poweroff"])
    off = person.wait(notebook["id"], "stopped")
    assert off["stop"]["by"] == "monitor"
    record = boto3.client("dynamodb", endpoint_url=cloud.aws_url).get_item(
        TableName="nod-local-notebooks", Key={"id": {"S": notebook["id"]}}
    )["Item"]
    assert len(record["runs"]["L"]) == 2
    assert person.delete(notebook["id"], "woken").status_code == 202
    person.wait(notebook["id"], "terminated")
