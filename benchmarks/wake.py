"""POST …/start to a link that answers, on a real machine of the local cloud, split by step, beside the floor.

The floor is what no workflow can go below here: the local cloud's fixed delay until `running` (`pending`), after which
the machine boots, and the boot until Jupyter's login page answers, begun by hand. By hand the address stays, so no
certificate is made anew: that is part of what a wake takes more.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import httpx

from benchmarks.launch import row
from local.cloud import Cloud
from local.delays import Delays
from tests.local.person import Person

PASSWORD = "a password for the bench"
PATIENCE = 120.0


def wait_for_page(url: str) -> None:
    """Until the login page answers."""
    end = time.monotonic() + PATIENCE
    with httpx.Client(verify=False, trust_env=False, timeout=5) as client:
        while True:
            try:
                if client.get(f"{url}/login").status_code == httpx.codes.OK:
                    return
            except httpx.TransportError:
                pass
            if time.monotonic() > end:
                raise SystemExit(f"{url} does not answer")
            time.sleep(0.05)


def boot_by_hand(machine: Any) -> tuple[float, float]:
    """Seconds of the boot, and from its begin until Jupyter's login page answers. The machine is off again then."""
    began = time.monotonic()
    machine.boot()
    booted = time.monotonic() - began
    wait_for_page(f"https://{machine.address}:8888")
    answered = time.monotonic() - began
    machine.shut_down()
    return booted, answered


def entered(cloud: Cloud, notebook_id: str, number: int) -> dict[str, datetime]:
    """When each state of a start was entered first."""
    sfn = boto3.client("stepfunctions", endpoint_url=cloud.aws_url)
    arn = f"arn:aws:states:us-east-1:123456789012:execution:nod-local-start:{notebook_id}-start-{number}"
    found: dict[str, datetime] = {}
    for event in sfn.get_execution_history(executionArn=arn, maxResults=1000)["events"]:
        if "stateEnteredEventDetails" in event:
            found.setdefault(event["stateEnteredEventDetails"]["name"], event["timestamp"])
    return found


def main(arguments: argparse.Namespace) -> None:
    delays = Delays()
    with (
        tempfile.TemporaryDirectory(prefix="nod-bench-") as folder,
        Cloud(state=Path(folder) / "cloud", api_port=0, aws_port=0, delays=delays) as cloud,
    ):
        person = Person(cloud.api_url, cloud.token)
        notebook_id = person.request(name="bench", password=PASSWORD).json()["id"]
        seen = person.wait(notebook_id, "ready", "failed")
        if seen["state"] == "failed":
            raise SystemExit(f"the launch failed: {seen['error']}")
        steps: dict[str, list[float]] = {}
        totals, floors, boots, pages = [], [], [], []
        for number in range(1, arguments.wakes + 1):
            person.http.post(f"/notebooks/{notebook_id}/stop").raise_for_status()
            person.wait(notebook_id, "stopped")
            booted, answered = boot_by_hand(cloud.machine(seen["instance_id"]))
            boots.append(booted)
            pages.append(answered)
            floors.append(delays.pending + answered)
            posted, began = datetime.now(UTC), time.monotonic()
            person.http.post(f"/notebooks/{notebook_id}/start").raise_for_status()
            seen = person.wait(notebook_id, "ready", "stopped", "failed")
            if seen["state"] != "ready":
                raise SystemExit(f"the start failed: {seen['error']}")
            page = httpx.get(seen["link"], trust_env=False).raise_for_status().text
            if seen["url"] not in page:
                raise SystemExit(f"the page behind the link does not lead to {seen['url']}")
            wait_for_page(seen["url"].rstrip("/"))
            totals.append(time.monotonic() - began)
            times = entered(cloud, notebook_id, number)
            before, last = "POST answered", posted
            for name, at in sorted(times.items(), key=lambda pair: pair[1]):
                steps.setdefault(before, []).append((at - last).total_seconds())
                before, last = name, at
            ended = datetime.now(UTC)
            steps.setdefault(before, []).append((ended - last).total_seconds())
    print(
        f"wake: POST start to a link that answers, {arguments.wakes} one after the other, medians (min to max), seconds"
    )
    for name, values in steps.items():
        if max(values) >= 0.05:
            print(f"  {name:<28}{row(values)}")
    print(f"  {'POST to the page':<28}{row(totals)}")
    print(f"floor: {delays.pending:g} s of `pending`, then the boot by hand until the login page answers")
    print(f"  {'boot':<28}{row(boots)}")
    print(f"  {'boot to the page':<28}{row(pages)}")
    print(f"  {'floor':<28}{row(floors)}")
    print(f"  {'ratio, pair by pair':<28}{row([t / f for t, f in zip(totals, floors, strict=True)])}")
    print(f"  {'our overhead, seconds':<28}{row([t - f for t, f in zip(totals, floors, strict=True)])}")
    print(f"  states of the last start    {len(times):8}")
