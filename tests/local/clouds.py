"""A local cloud with fake machines and short delays, for the tests of the corrections."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from local.cloud import Cloud
from local.delays import Delays
from tests.local.fake_machines import FakeMachines
from tests.local.person import wait_until

SHORT = Delays(visible=0.3, pending=0.3, agent=0.2, stopping=0.1, invocation=0.2, retry=0.05, delivery_retry=0.05)
ON_MACHINES = Delays(pending=0.5, agent=0.5, workflow_second=0.25)
"""Where the machines are real: their boot and what runs on them take as long as they take."""


@contextlib.contextmanager
def opened(folder: Path, **options: Any) -> Iterator[Cloud]:
    machines = FakeMachines(folder / "machines")
    options.setdefault("delays", SHORT)
    options.setdefault("schedules", False)
    with Cloud(folder / "state", api_port=0, aws_port=0, machines=machines, **options) as cloud:
        cloud.fake_machines = machines  # type: ignore[attr-defined]
        yield cloud


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    with opened(tmp_path_factory.mktemp("cloud")) as opened_cloud:
        yield opened_cloud


@pytest.fixture(autouse=True)
def no_faults(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "cloud" in request.fixturenames:
        request.getfixturevalue("cloud").faults.clear()


def client(cloud: Cloud, service: str) -> Any:
    return boto3.client(service, endpoint_url=cloud.aws_url, config=Config(retries={"total_max_attempts": 1}))  # type: ignore[call-overload]


def until(condition: Callable[[], Any], seconds: float = 120) -> Any:
    """The first true value of the condition. Fails when time is up."""
    return wait_until(condition, seconds, "it never came true", 0.01)


class Events:
    """Events of some rule, as they arrive in a queue."""

    def __init__(self, cloud: Cloud, name: str, pattern: dict[str, Any], **target: Any) -> None:
        self.sqs = client(cloud, "sqs")
        self.url = self.sqs.create_queue(QueueName=name)["QueueUrl"]
        arn = f"arn:aws:sqs:{cloud.region}:123456789012:{name}"
        events = client(cloud, "events")
        events.put_rule(Name=name, EventPattern=json.dumps(pattern))
        events.put_targets(Rule=name, Targets=[{"Id": "1", "Arn": arn, **target}])
        self.seen: list[Any] = []

    def take(self) -> list[Any]:
        """All that arrived so far."""
        while True:
            messages = self.sqs.receive_message(QueueUrl=self.url, MaxNumberOfMessages=10).get("Messages", [])
            if not messages:
                return self.seen
            for message in messages:
                self.seen.append(json.loads(message["Body"]))
                self.sqs.delete_message(QueueUrl=self.url, ReceiptHandle=message["ReceiptHandle"])

    def wait(self, wanted: Callable[[Any], bool], seconds: float = 120) -> Any:
        """The first event that is wanted."""
        return until(lambda: next((event for event in self.take() if wanted(event)), None), seconds)
