"""A person's own cron jobs and timers do not run while their notebook is stopped: said in the message, once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from chalicelib.aws.items import to_item
from tests.unit.stage import ENV, Stage, stage, user

INSTANCE = "i-0123456789abcdef0"
JOBS = [
    {"at": "2099-11-23T03:00:00Z", "what": "cron", "name": "backup"},
    {"at": "2020-11-23T04:00:00Z", "what": "timer", "name": "mail`s"},
    {"at": "never", "what": "cron", "name": "lost"},
]


@pytest.fixture
def deployed() -> Iterator[Stage]:
    with stage() as found:
        yield found


@pytest.fixture
def sent(deployed: Stage, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found: list[str] = []
    topic = deployed.app.clients.get("sns")
    monkeypatch.setattr(topic, "publish", lambda **arguments: found.append(" ".join(arguments["Message"].split())))
    return found


def beat(deployed: Stage, jobs: Any) -> None:
    arn = deployed.app.settings().instance_arn(INSTANCE)
    row = {"id": arn, "boot_id": "b", "beat": 1, "uptime": 60, "ages": {}, "facts": {"due_jobs": jobs}}
    deployed.dynamodb.put_item(TableName=ENV["NOD_HEARTBEATS_TABLE"], Item=to_item(row))


def test_the_message_of_a_stop_names_jobs_that_do_not_run_and_each_once(deployed: Stage, sent: list[str]) -> None:
    token = user(deployed, email="ada@example.com")
    notebook = deployed.http("POST", "/notebooks", token, {"name": "thesis"}).json_body["id"]
    deployed.change(notebook, state="stopped", instance_id=INSTANCE)
    beat(deployed, JOBS)
    tell = {"id": notebook, "kind": "stopped"}
    deployed._client.lambda_.invoke("tell_owner", {**tell, "run": "one"})
    (said,) = sent
    assert "Nothing runs while it is stopped" in said
    assert "your cron job `backup` is due at 23 Nov 03:00 UTC" in said.replace("\\n", " ")
    assert "your timer `mail's` was due at 23 Nov 04:00 UTC" in said.replace("\\n", " ")
    assert "lost" not in said
    deployed._client.lambda_.invoke("tell_owner", {**tell, "run": "two"})
    assert "Nothing runs" not in sent[-1]
    beat(deployed, [*JOBS, {"at": "2099-11-23T05:00:00Z", "what": "cron", "name": "report"}])
    deployed._client.lambda_.invoke("tell_owner", {**tell, "run": "three"})
    assert "report" in sent[-1]
    assert "backup" not in sent[-1]


def test_a_message_that_is_not_published_has_told_of_no_job(deployed: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    token = user(deployed, email="ada@example.com")
    notebook = deployed.http("POST", "/notebooks", token, {"name": "thesis"}).json_body["id"]
    deployed.change(notebook, state="stopped", instance_id=INSTANCE)
    beat(deployed, JOBS)

    def publish(**_: Any) -> None:
        raise RuntimeError("no topic")

    monkeypatch.setattr(deployed.app.clients.get("sns"), "publish", publish)
    with pytest.raises(RuntimeError):
        deployed._client.lambda_.invoke("tell_owner", {"id": notebook, "kind": "stopped", "run": "one"})
    assert "jobs_told" not in deployed.record(notebook)
