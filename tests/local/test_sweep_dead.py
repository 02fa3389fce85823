"""The sweep is dead, on a real machine: nobody confirms its monitor, so the machine that nobody uses ends itself.

A minute lasts a third of a second here: limit (ten minutes) twice and three hours are 67 seconds.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest

from local.cloud import Cloud
from tests.local.clouds import ON_MACHINES
from tests.local.person import Person, wait_until

pytestmark = pytest.mark.machine

MINUTE = 1 / 3
PATIENCE = (2 * 10 + 180) * MINUTE


@pytest.mark.long
def test_a_machine_that_no_sweep_stops_ends_itself_and_its_record_says_so(
    tmp_path: Path, image: Path, installer: Any
) -> None:
    with Cloud(
        tmp_path,
        image=image,
        installer=installer,
        api_port=0,
        aws_port=0,
        delays=ON_MACHINES,
        minute_seconds=MINUTE,
        faults=("sweep_dead",),
    ) as cloud:
        person = Person(cloud.api_url, cloud.token)
        notebook_id = person.request(name="forgotten", idle_minutes=10).json()["id"]
        ready = person.wait(notebook_id, "ready")
        answered = time.monotonic()
        machine = cloud.machine(ready["instance_id"])

        stopped = person.wait(notebook_id, "stopped", seconds=PATIENCE + 120, every=0.5)
        # Idleness counts from the last use, which lies before the first answer: the launch works as a daemon.
        assert time.monotonic() - answered > PATIENCE / 2, "it did not wait"
        assert not machine.running
        assert (stopped["stop"]["by"], stopped["stop"]["code"], stopped["error"]) == ("monitor", "monitor", None)
        assert (stopped["url"], stopped["address"]) == (None, None)
        events = person.http.get(f"/notebooks/{notebook_id}/events").json()["events"]
        assert [(event["by"], event["code"]) for event in events] == [
            ("stop", "stopped"),
            ("monitor", "monitor"),
            ("launch", "ready"),
            ("launch", "launching"),
            ("demo", "requested"),
        ], "no sweep decided anything"

        tables = boto3.client("dynamodb", endpoint_url=cloud.aws_url)
        user = tables.get_item(TableName="nod-local-users", Key={"id": {"S": cloud.user_id}})["Item"]
        assert notebook_id not in user.get("active", {}).get("SS", []), "it counts no more"
        assert notebook_id in user["owned"]["SS"]
        message = wait_until(
            lambda: next((one for one in cloud.slack.messages() if "has stopped" in str(one)), None), 60, "not told"
        )
        assert "switched itself off" in str(message)

        assert person.http.post(f"/notebooks/{notebook_id}/start").status_code == 202
        again = person.wait(notebook_id, "ready")
        assert httpx.get(f"{again['url']}/login", verify=False, trust_env=False).status_code == 200
