"""A mail scanner that follows every link of ours in a message, and every link behind it, changes nothing."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from chalicelib import messages, times
from chalicelib.aws.topic import Topic
from chalicelib.messages import Message
from chalicelib.orphans import Resource
from tests.unit.stage import API_URL, ENV, MACHINES, Stage, person, stage, user

INSTANCE = "i-0123456789abcdef0"
STATE_OF = {
    "ready": "ready",
    "started": "ready",
    "stopped": "stopped",
    "failed": "failed",
    "terminated": "terminated",
    "start_failed": "stopped",
    "stop_failed": "ready",
    "password_failed": "ready",
    "warned": "ready",
    "silent": "ready",
    "limit_near": "ready",
}
PREFETCH = {"Sec_Purpose": "prefetch;prerender", "Purpose": "prefetch", "User_Agent": "a mail scanner"}


@pytest.fixture
def deployed() -> Iterator[Stage]:
    with stage() as found:
        yield found


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[Message]:
    found: list[Message] = []
    monkeypatch.setattr(Topic, "publish", lambda _self, message: found.append(message))
    return found


def a_notebook(deployed: Stage, token: str, state: str) -> str:
    identifier = str(deployed.http("POST", "/notebooks", token, {"name": "thesis", "max_hours": 8}).json_body["id"])
    now = datetime.now(UTC)
    error = {"code": "start_failed", "message": "It failed."} if state in ("stopped", "failed") else None
    deployed.change(
        identifier,
        state=state,
        instance_id=INSTANCE,
        address="198.51.100.7",
        run_started_at=times.to_text(now - timedelta(hours=7)),
        warned={
            "at": times.to_text(now),
            "stops_at": times.to_text(now + timedelta(minutes=10)),
            "code": "idle",
            "reason": "idle",
        },
        **({"error": error} if error else {}),
    )
    return identifier


def everything(deployed: Stage) -> str:
    """All tables, and the executions of all workflows."""
    tables = {
        name: sorted(json.dumps(item, sort_keys=True) for item in deployed.dynamodb.scan(TableName=name)["Items"])
        for key, name in ENV.items()
        if key.endswith("_TABLE")
    }
    begun = {machine: [one["name"] for one in deployed.executions(machine)] for machine in MACHINES}
    assert any(tables.values())
    return json.dumps([tables, begun], sort_keys=True)


def links_in(*texts: str) -> set[str]:
    return {html.unescape(link) for text in texts for link in re.findall(r"https?://[^\s<>\"|]+", text)}


def follow(deployed: Stage, link: str, seen: set[str]) -> None:
    """As a scanner does: each safe method, and on from what the page links to, the targets of forms too."""
    path = link.removeprefix(API_URL)
    if path in seen or not path.startswith("/"):
        return
    seen.add(path)
    for method in ("HEAD", "GET", "OPTIONS"):
        answer = deployed.http(method, path, None, None, **PREFETCH)
        assert answer.status_code < 500
        body = answer.body.decode() if answer.body else ""
        for found in re.findall(r'(?:href|action|src)="([^"]+)"', body):
            follow(deployed, html.unescape(found), seen)
        if location := answer.headers.get("Location"):
            follow(deployed, str(location), seen)


@pytest.mark.parametrize("kind", messages.KINDS)
def test_of_every_kind_about_a_notebook(deployed: Stage, sent: list[Message], kind: str) -> None:
    token = user(deployed, email="ada@example.org")
    identifier = a_notebook(deployed, token, STATE_OF[kind])
    deployed.app.tell_owner({"id": identifier, "run": None, "kind": kind}, None)
    (message,) = sent
    links = links_in(message.text, json.dumps(messages.blocks(message.for_lambda())), *(b.url for b in message.buttons))
    ours = {link for link in links if link.startswith(API_URL)}
    assert ours or kind in ("failed", "terminated")
    for state in ("ready", "stopped", STATE_OF[kind]):
        deployed.change(identifier, state=state)
        before, seen = everything(deployed), set[str]()
        for link in sorted(ours):
            follow(deployed, link, seen)
        assert everything(deployed) == before, f"{kind} in {state}"
        assert len(seen) >= len(ours)


def test_of_messages_about_several_things(deployed: Stage, sent: list[Message]) -> None:
    token = user(deployed, email="ada@example.org")
    identifier = a_notebook(deployed, token, "stopped")
    telling, ada = deployed.app.messages(), person(deployed)
    telling.tell_disks(ada, [deployed.app.notebooks().get(identifier)], datetime.now(UTC))
    telling.tell_orphan(ada, Resource("volume", "vol-1", None, ada.id, None), "It goes tomorrow.")
    before = everything(deployed)
    for message in sent:
        for link in links_in(message.text, *(button.url for button in message.buttons)):
            follow(deployed, link, set())
    assert len(sent) == 2
    assert everything(deployed) == before


def test_the_walk_sees_a_change(deployed: Stage, sent: list[Message]) -> None:
    """A form that is sent does change something, so the comparison is worth something."""
    token = user(deployed, email="ada@example.org")
    identifier = a_notebook(deployed, token, "ready")
    deployed.app.tell_owner({"id": identifier, "run": None, "kind": "warned"}, None)
    stop = next(button.url for button in sent[0].buttons if "/stop" in button.url).removeprefix(API_URL)
    before = everything(deployed)
    page = deployed.http("GET", stop).body.decode()
    assert everything(deployed) == before
    form: Any = re.search(r'name="f" value="([^"]+)"', page)
    deployed.http(
        "POST",
        stop.partition("?")[0],
        None,
        f"f={form[1]}".encode(),
        Content_Type="application/x-www-form-urlencoded",
    )
    assert everything(deployed) != before
