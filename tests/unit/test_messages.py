"""What owners read."""

from __future__ import annotations

import dataclasses
import json
import re
from datetime import timedelta
from typing import Any

import pytest

from chalicelib import links, messages
from chalicelib.errors import NodError
from chalicelib.messages import About
from chalicelib.model import Failure, Notebook, PastRun, Stop, Warned
from chalicelib.views import NotebookView
from tests.unit.test_rules import NOW, PRICES, a_notebook, a_user

FINGERPRINT = ":".join(["AB"] * 32)
OWNER = a_user(slack="team")
API = "https://api.example/api"
WARNED = Warned("2026-11-22T14:04:00Z", "2026-11-22T14:15:00.000Z", "idle", None, "idle since 13:15 UTC: no input")


def notebook(**changes: Any) -> Notebook:
    values = {
        "state": "ready",
        "public_dns_name": "ec2-1.example",
        "certificate_sha256": FINGERPRINT,
        "ready_at": "2026-11-22T14:00:00Z",
        "api_url": API,
        "run_started_at": "2026-11-22T14:00:00Z",
        **changes,
    }
    return dataclasses.replace(a_notebook(), **values)


def compose(kind: str, *, region: str = "us-east-1", reason: str | None = None, **changes: Any) -> messages.Message:
    known = notebook(**changes)
    view = NotebookView.of(known, PRICES, region, NOW, link=links.life_link(OWNER.secret, known))
    about = About(known, OWNER, view, PRICES, region, NOW, reason=reason)
    return messages.compose(kind, about, ("email", "slack:team"))


def flat(message: messages.Message) -> str:
    """The text without its line breaks."""
    return " ".join(message.text.split())


STOPPED: dict[str, Any] = {
    "state": "stopped",
    "stop": Stop("idle", "idle since 13:05 UTC: no input since 13:05 UTC, kernel idle", "sweep"),
    "stopped_at": "2026-11-22T14:04:30.000Z",
    "run_started_at": None,
    "runs": (
        PastRun("t3.medium", "2026-11-21T10:00:00Z", "2026-11-21T11:00:00Z"),
        PastRun("t3.medium", "2026-11-22T04:04:30Z", "2026-11-22T14:04:30Z"),
    ),
}


def test_the_ready_mail_has_all_that_is_needed_and_no_password() -> None:
    message = compose("ready", password_hash="argon2:$argon2id$canary")
    for part in (
        "https://ec2-1.example:8888",
        FINGERPRINT,
        "t3.medium (2 vCPU, 4 GiB memory), 30 GiB disk, us-east-1",
        "0.0499 USD an hour",
        "nod delete nb-0123456789abcdef0123",
        "after 60 minutes without use",
        f"{API}/n/nb-0123456789abcdef0123?k=",
        "&stay=1",
        "nod extend nb-0123456789abcdef0123 HOURS",
    ):
        assert part in flat(message)
    assert "canary" not in message.text
    assert "in any case" not in message.text, "it has no hard limit"


def test_a_hard_limit_is_told_when_the_run_begins() -> None:
    text = flat(compose("ready", max_hours=8))
    assert "22:00 UTC (in about 8 hours), 8 hours after its start, used or not" in text
    assert "22:00 UTC (in about 8 hours)" in flat(compose("started", max_hours=8))


def test_what_is_not_known_is_said() -> None:
    for kind in ("ready", "stopped", "warned", "failed"):
        text = compose(
            kind, region="mars-west-1", public_dns_name=None, certificate_sha256=None, api_url=None, run_started_at=None
        ).text
        assert "None" not in text
    assert "not known for this type and region" in compose("ready", region="mars-west-1").text


def test_the_failed_mail_says_why() -> None:
    text = compose("failed", state="failed", error=Failure("vcpu_limit", "Take a smaller type.")).text
    assert "Take a smaller type." in text
    assert "vcpu_limit" in text
    assert "No reason is known" in compose("failed", state="failed").text


def test_the_terminated_mail_says_what_it_cost() -> None:
    steps = {"start_instance": {"finished_at": "2026-11-22T04:05:00Z"}}
    values = {"state": "terminated", "steps": steps, "run_started_at": None}
    assert "about 0.50 USD" in compose("terminated", terminated_at="2026-11-22T14:05:00Z", **values).text
    assert "cost about" not in compose("terminated", **values).text


def test_the_stopped_mail_says_why_what_this_run_cost_and_what_the_disk_costs() -> None:
    message = compose("stopped", **STOPPED)
    text = flat(message)
    assert "has stopped at 14:04 UTC: idle since 13:05 UTC: no input since 13:05 UTC, kernel idle." in text
    assert "cost about 0.50 USD" in text, "ten hours, the run before is not this run"
    assert "30 GiB, kept for 2.40 USD a month" in text
    assert f"{API}/n/nb-0123456789abcdef0123?k=" in text
    assert "no kernel" not in text


def test_a_warning_says_when_and_why_and_has_both_buttons() -> None:
    message = compose("warned", warned=WARNED)
    text = flat(message)
    assert message.subject == "Notebook thesis will stop at 14:15 UTC"
    assert "will stop at 14:15 UTC (in about 10 minutes) if nobody uses it: idle since 13:15 UTC: no input." in text
    assert [button.text for button in message.buttons] == ["Keep it 2 hours", "Stop it now", "Open it"]
    for action, button in zip((links.EXTEND, links.STOP), message.buttons, strict=False):
        found = re.fullmatch(rf"{API}/n/nb-0123456789abcdef0123/{action}\?t=(\S+)", button.url)
        assert found
        assert button.url in message.text
        check = {"secret": OWNER.secret, "purpose": links.MAIL, "action": action, "notebook": notebook()}
        assert links.check(found[1], now=NOW + timedelta(minutes=119), **check) is links.Verdict.VALID
        assert links.check(found[1], now=NOW + timedelta(minutes=121), **check) is links.Verdict.EXPIRED


def test_a_link_lives_until_the_stop_it_warns_of() -> None:
    silent = dataclasses.replace(WARNED, stops_at="2026-11-22T17:05:00Z", code="silent")
    message = compose("silent", warned=silent, reason="not this one")
    token = message.buttons[0].url.partition("?t=")[2]
    assert int(token.partition(".")[0]) == int((NOW + timedelta(hours=3)).timestamp())
    assert "17:05 UTC (in about 3 hours)" in flat(message)
    assert "not this one" not in message.text, "the warning has its own reason"


def test_without_a_kept_reason_the_present_one_is_told() -> None:
    near = dataclasses.replace(WARNED, reason=None, code="limit")
    assert "used or not: the limit was set." in flat(compose("limit_near", warned=near, reason="the limit was set"))


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("start_failed", "stays stopped, and its disk is untouched. EC2 has none left."),
        ("stop_failed", "runs on, and costs. EC2 has none left."),
        ("password_failed", "The one before still holds. EC2 has none left."),
    ],
)
def test_what_failed_says_what_holds_now(kind: str, says: str) -> None:
    message = compose(kind, error=Failure("no_capacity", "EC2 has none left."))
    assert says in flat(message)
    assert ("Code", "no_capacity") in message.facts


def test_a_failed_start_is_told_by_its_own_reason_whatever_error_came_after() -> None:
    """That of a password which was asked for before."""
    stop = Stop("start_failed", "Nobody knows whether it answers.", "sweep")
    message = compose(
        "start_failed", state="stopped", stop=stop, error=Failure("password_failed", "The old one stays.")
    )
    assert "its disk is untouched. Nobody knows whether it answers." in flat(message)
    assert ("Code", "start_failed") in message.facts
    assert "The old one stays" not in message.text


@pytest.mark.parametrize("kind", messages.KINDS)
@pytest.mark.parametrize("api_url", [API, None])
def test_subjects_suit_sns_and_lines_suit_mail(kind: str, api_url: str | None) -> None:
    message = compose(kind, name="a" * 40, warned=WARNED, api_url=api_url)
    assert message.subject.isascii()
    assert 0 < len(message.subject) < 100
    assert all(len(line) <= 110 for line in message.text.splitlines() if "https://" not in line)
    assert all(len(line) <= 200 for line in message.text.splitlines())
    assert (API in message.text) is (api_url is not None and kind not in ("failed", "terminated"))


def test_there_are_no_other_kinds() -> None:
    with pytest.raises(NodError, match="started"):
        compose("disks")


@pytest.mark.parametrize("kind", messages.KINDS)
def test_slack_gets_valid_blocks(kind: str) -> None:
    evil = "<!channel> & more"
    message = compose(
        kind,
        error=Failure("start_failed", evil),
        warned=dataclasses.replace(WARNED, reason=evil),
        stop=Stop("idle", evil, "sweep"),
        state="stopped" if kind == "stopped" else "ready",
    )
    document = json.loads(json.dumps(message.for_lambda()))
    assert document["channels"] == ["slack:team"]
    found = messages.blocks(document)
    assert found[0]["type"] == "header"
    assert len(found) <= 50
    text = json.dumps(found)
    assert "<!channel>" not in text
    assert ("&lt;!channel&gt; &amp; more" in text) is (kind not in ("ready", "started", "terminated"))
    assert (FINGERPRINT in text) is (kind in ("ready", "started"))
    assert "<!channel>" not in messages.slack_text(document)
    assert text.count('"mrkdwn"') == text.count('"verbatim": true') > 0, "Slack would read @channel and bare links"
    assert all(f"<{button.url.replace('&', '&amp;')}|{button.text}>" in text for button in message.buttons)
    for block in found:
        if block["type"] == "section":
            assert ("text" in block) != ("fields" in block)


def test_disks_are_told_together_with_their_sum() -> None:
    other = dataclasses.replace(notebook(**STOPPED), id="nb-" + "1" * 20, name="blue-fox", volume_gib=100)
    message = messages.disks(OWNER, [notebook(**STOPPED), other], PRICES, "us-east-1", NOW)
    text = flat(message)
    assert message.subject == "2 stopped notebooks keep disks, which costs 10.40 USD a month"
    assert "30 GiB, 2.40 USD a month, stopped at 14:04 UTC; nod delete nb-0123456789abcdef0123" in text
    assert "blue-fox" in text
    assert message.for_lambda()["id"] is None
    assert messages.blocks(json.loads(json.dumps(message.for_lambda())))[-1]["type"] == "section"
    unknown = messages.disks(OWNER, [other], PRICES, "mars-west-1", NOW)
    assert unknown.subject == "One stopped notebook keeps its disk"
    assert "None" not in unknown.text


def test_an_orphan_is_told_with_what_will_happen() -> None:
    message = messages.orphan(OWNER, "volume", "vol-1", "It is removed 29 Nov.")
    assert "It is removed 29 Nov." in message.text
    assert "vol-1" in message.subject
    assert message.channels == ("email", "slack:team")


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ({"state": "ready"}, "ready"),
        ({"state": "ready", "starts": 1}, "started"),
        ({"state": "ready", "error": Failure("stop_failed", "x")}, "stop_failed"),
        ({"state": "ready", "error": Failure("password_failed", "x")}, "password_failed"),
        ({"state": "ready", "starts": 1, "error": Failure("start_failed", "x")}, "started"),
        ({"state": "stopped"}, "stopped"),
        ({"state": "stopped", "error": Failure("no_capacity", "x")}, "start_failed"),
        ({"state": "stopped", "error": Failure("start_failed", "x")}, "start_failed"),
        ({"state": "stopped", "error": Failure("password_failed", "x")}, "stopped"),
        ({"state": "stopped", "error": Failure("stop_failed", "x")}, "stopped"),
        ({"state": "failed"}, "failed"),
        ({"state": "terminated"}, "terminated"),
        ({"state": "stopping"}, None),
        ({"state": "starting"}, None),
        ({"state": "launching"}, None),
    ],
)
def test_what_was_never_told_is_told_by_the_state_it_led_to(values: dict[str, Any], kind: str | None) -> None:
    assert messages.due(notebook(**values)) == kind


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "now"),
        (20, "in less than a minute"),
        (60, "in about 1 minute"),
        (600, "in about 10 minutes"),
        (7200, "in about 2 hours"),
        (5 * 86400, "in about 5 days"),
    ],
)
def test_times_ahead_are_told_in_words(seconds: int, words: str) -> None:
    assert messages.ahead(timedelta(seconds=seconds)) == words
