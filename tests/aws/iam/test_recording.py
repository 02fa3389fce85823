"""What the policies are judged by is what the product asks for today: it runs once more, and the record is the same."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest

from local.principals import acting, principal
from local.recorder import recording
from tests.aws.iam import calls, record
from tests.aws.iam.calls import Recorded
from tests.aws.workflows import NAMES, states

AGAIN = "run `python -m tests.aws.iam.record` and look at the difference"


@pytest.fixture(scope="module")
def today() -> list[Recorded]:
    return record.record()


def test_the_product_asks_for_nothing_that_is_not_written_down(today: list[Recorded]) -> None:
    written = {one.key() for one in calls.load()}
    assert not [one.key() for one in today if one.key() not in written], AGAIN


def test_nothing_is_written_down_that_the_product_does_not_ask_for(today: list[Recorded]) -> None:
    asked = {one.key() for one in today}
    assert not [one.key() for one in calls.load() if one.key() not in asked], AGAIN


def test_the_file_is_as_the_recorder_writes_it() -> None:
    assert calls.to_json(calls.load()) == calls.FILE.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_every_kind_of_call_of_a_workflow_was_recorded(name: str) -> None:
    """By its definition, which says what it may come to call; which state calls it makes no difference to IAM."""
    recorded = {one.call.lower() for one in calls.load() if one.principal == f"workflow/nod-${{stage}}-{name}"}
    for state in states(name):
        resource = str(state.body.get("Resource", ""))
        if ":::" in resource:
            call = resource.split(":::")[1].removeprefix("aws-sdk:").split(".")[0]
            assert call.replace("states:", "stepfunctions:").lower() in recorded, f"{state.name} was never seen to call"
        elif resource:
            assert "lambda:invoke" in recorded


def test_a_recording_hears_only_of_those_who_act_in_a_name_and_only_while_it_lasts() -> None:
    run = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(run, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert principal() is None
    with acting("function/a"):
        assert principal() == "function/a"
    assert principal() is None
    with recording() as found:
        assert found.calls() == []


# In a process of its own: what is patched is botocore's.
SCRIPT = """
from concurrent.futures import ThreadPoolExecutor
import boto3
from botocore.client import BaseClient
from botocore.exceptions import BotoCoreError, ClientError
from local.principals import acting
from local.recorder import recording

client = boto3.client("sqs", region_name="us-east-1", endpoint_url="http://127.0.0.1:9",
                      aws_access_key_id="x", aws_secret_access_key="x")

def call(name):
    try:
        client.get_queue_url(QueueName=name)
    except (BotoCoreError, ClientError):
        pass

before = BaseClient._make_api_call
with recording(lambda parameters: len(parameters)) as found:
    call("unnamed")
    with acting("workflow/w"):
        call("named")
        with ThreadPoolExecutor(1) as pool:
            list(pool.map(call, ["pooled"]))
with acting("workflow/w"):
    call("after")
assert BaseClient._make_api_call is before
got = [(c.principal, c.service, c.operation, c.parameters["QueueName"], c.seen) for c in found.calls()]
assert got == [("workflow/w", "sqs", "GetQueueUrl", name, 1) for name in ("named", "pooled")], got
"""


def test_no_id_of_one_run_is_left_in_the_file() -> None:
    text = calls.FILE.read_text(encoding="utf-8")
    for given in (record.ACCOUNT, record.REGION, "nod-local", "127.0.0.1"):
        assert given not in text
    assert len(Counter(one.principal for one in calls.load())) > 15
