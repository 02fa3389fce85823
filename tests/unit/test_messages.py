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
        FINGERPRINT,
        "t3.medium (2 vCPU, 4 GiB memory), 30 GiB disk, us-east-1",
        "0.0499 USD an hour",
        "nod delete nb-0123456789abcdef0123",
        "after 60 minutes without use",
        f"{API}/n/nb-0123456789abcdef0123?k=",
        "nod extend nb-0123456789abcdef0123 2",
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
    assert (
        'Your notebook "thesis" stopped at 14:04 UTC: idle since 13:05 UTC: no input since 13:05 UTC, kernel idle.'
        in text
    )
    assert "cost about 0.50 USD" in text, "ten hours, the run before is not this run"
    assert "30 GiB, kept for 2.40 USD a month" in text
    assert f"{API}/n/nb-0123456789abcdef0123?k=" in text
    assert "no kernel" not in text


def test_a_warning_says_when_and_why_and_has_both_buttons() -> None:
    message = compose("warned", warned=WARNED)
    text = flat(message)
    assert message.subject == "Notebook thesis will stop at 14:15 UTC"
    assert "will stop at 14:15 UTC (in about 10 minutes) if nobody uses it: idle since 13:15 UTC: no input." in text
    assert [button.text for button in message.buttons] == ["Open it", "Keep it 2 hours", "Stop it now"]
    for action, button in zip((links.EXTEND, links.STOP), message.buttons[1:], strict=True):
        found = re.fullmatch(rf"{API}/n/nb-0123456789abcdef0123/{action}\?t=(\S+)", button.url)
        assert found
        assert button.url in message.text
        check = {"secret": OWNER.secret, "purpose": links.MAIL, "action": action, "notebook": notebook()}
        assert links.check(found[1], now=NOW + timedelta(minutes=119), **check) is links.Verdict.VALID
        assert links.check(found[1], now=NOW + timedelta(minutes=121), **check) is links.Verdict.EXPIRED


def test_a_link_lives_until_the_stop_it_warns_of() -> None:
    silent = dataclasses.replace(WARNED, stops_at="2026-11-22T17:05:00Z", code="silent")
    message = compose("silent", warned=silent, reason="not this one")
    token = message.buttons[1].url.partition("?t=")[2]
    assert int(token.partition(".")[0]) == int((NOW + timedelta(hours=3)).timestamp())
    assert "17:05 UTC (in about 3 hours)" in flat(message)
    assert "not this one" not in message.text, "the warning has its own reason"


def test_without_a_kept_reason_the_present_one_is_told() -> None:
    near = dataclasses.replace(WARNED, reason=None, code="limit")
    assert "used or not: the limit was set." in flat(compose("limit_near", warned=near, reason="the limit was set"))


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("start_failed", "stays stopped, and its disk is untouched."),
        ("stop_failed", "is still running, and it still costs money."),
        ("password_failed", "The old one still works."),
    ],
)
def test_what_failed_says_what_holds_now(kind: str, says: str) -> None:
    message = compose(kind, error=Failure("no_capacity", "EC2 has none left."))
    assert says in flat(message)
    assert "EC2 has none left." in flat(message)
    assert ("Code", "no_capacity") in message.facts


def test_a_failed_start_is_told_by_its_own_reason_whatever_error_came_after() -> None:
    """That of a password which was asked for before."""
    stop = Stop("start_failed", "Nobody knows whether it answers.", "sweep")
    message = compose(
        "start_failed", state="stopped", stop=stop, error=Failure("password_failed", "The old one stays.")
    )
    assert "Nobody knows whether it answers." in flat(message)
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


COMMAND = re.compile(r"\bnod (?:extend|stop|start|delete|show|link|password) nb-[0-9a-f]{20}(?: \d+)?")


def every_message(**changes: Any) -> list[messages.Message]:
    """One of each kind, those about several notebooks too."""
    state = {"stopped": STOPPED, "failed": {"state": "failed"}, "terminated": {"state": "terminated"}}
    told = [compose(kind, warned=WARNED, **{**changes, **state.get(kind, {})}) for kind in messages.KINDS]
    several = [notebook(**STOPPED), dataclasses.replace(notebook(**STOPPED), id="nb-" + "1" * 20, name="blue-fox")]
    return [
        *told,
        messages.disks(OWNER, several, PRICES, "us-east-1", NOW),
        messages.orphan(OWNER, "volume", "vol-1", "It is removed 29 Nov."),
    ]


@pytest.mark.parametrize(
    "message", every_message(name="a-name-of-forty-characters-that-is-so-long"), ids=lambda m: m.kind
)
def test_the_link_for_life_comes_first_then_what_to_do_then_details(message: messages.Message) -> None:
    text = message.text
    found = re.findall(r"https?://\S+", text)
    if message.kind in ("failed", "terminated", "orphan"):
        assert found == [], "there is nothing to open"
        return
    assert re.fullmatch(rf"{API}/n/nb-[0-9a-f]{{20}}\?k={links.LIFE_KEY}", found[0])
    before = text[: text.index(found[0])]
    assert len(before.split("\n\n")) == 4, "only the greeting, what happened, and the link's own line stand before it"
    places = [text.index(value[:7]) for name, value in message.facts if name != "Notebook"] + [len(text)]
    assert all(text.index(link) < min(places) for link in found)
    shown = messages.blocks(json.loads(json.dumps(message.for_lambda())))
    linked = [index for index, block in enumerate(shown) if "?k=" in json.dumps(block)]
    assert linked[0] == 2, "the heading, what happened, the links"


@pytest.mark.parametrize("message", every_message(address="198.51.100.7"), ids=lambda m: m.kind)
def test_no_message_has_an_address_that_another_machine_may_have_tomorrow(message: messages.Message) -> None:
    document = json.loads(json.dumps(message.for_lambda()))
    for text in (message.text, json.dumps(messages.blocks(document)), messages.slack_text(document)):
        assert "8888" not in text
        assert "ec2-1.example" not in text
        assert "198.51.100.7" not in text


@pytest.mark.parametrize("message", every_message(), ids=lambda m: m.kind)
def test_a_command_stands_whole_on_a_line_of_its_own(message: messages.Message) -> None:
    lines = message.text.splitlines()
    commands = [line for line in lines if re.search(r"\bnod [a-z]+ nb-|\bnod$|\bnod [a-z]+$", line)]
    assert all(COMMAND.fullmatch(line.strip()) for line in commands), commands
    assert bool(commands) is (message.kind in ("ready", "stopped", "disks"))
    for block in messages.blocks(json.loads(json.dumps(message.for_lambda()))):
        for said in re.findall(r"`+([^`]+)`+", json.dumps(block)):
            assert all(COMMAND.fullmatch(line) for line in said.split("\\n"))


@pytest.mark.parametrize("width", range(8, 60))
def test_wrapping_breaks_no_command_wherever_it_falls(width: int) -> None:
    text = f"{'x' * width} Give it a name first, then run `nod start nb-0123456789abcdef0123` again."
    assert "`nod start nb-0123456789abcdef0123`" in messages._wrap(text)


@pytest.mark.parametrize("message", every_message(), ids=lambda m: m.kind)
def test_every_paragraph_begins_as_a_sentence_and_a_channel_reads_whose_it_is(message: messages.Message) -> None:
    for paragraph in message.paragraphs:
        first = paragraph.strip()
        assert first[0].isupper() or first.startswith(("nod ", "thesis:", "blue-fox:")), paragraph
    assert message.text.startswith("Hello ada,\n\n")
    heading = messages.blocks(json.loads(json.dumps(message.for_lambda())))[0]["text"]
    assert str(heading["text"]).startswith("ada: ")  # type: ignore[index]


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
    assert message.subject == "2 stopped notebooks keep disks, which cost 10.40 USD a month"
    assert "thesis 30 GiB, 2.40 USD a month, stopped at 14:04 UTC nod delete nb-0123456789abcdef0123" in text
    assert "blue-fox" in text
    assert message.for_lambda()["id"] is None
    assert messages.blocks(json.loads(json.dumps(message.for_lambda())))[-1]["type"] == "section"
    unknown = messages.disks(OWNER, [other], PRICES, "mars-west-1", NOW)
    assert unknown.subject == "One stopped notebook keeps its disk"
    assert "None" not in unknown.text


def test_many_disks_fit_into_what_slack_takes() -> None:
    many = [
        dataclasses.replace(notebook(**STOPPED), id=f"nb-{number:020x}", name=f"{number}-{'x' * 34}")
        for number in range(300)
    ]
    message = messages.disks(OWNER, many, PRICES, "us-east-1", NOW)
    shown = messages.blocks(json.loads(json.dumps(message.for_lambda())))
    assert len(shown) <= 50
    for block in shown:
        for part in [block.get("text"), *block.get("fields", [])]:  # type: ignore[attr-defined]
            assert part is None or len(part["text"]) <= 3000
    assert all(COMMAND.fullmatch(line.strip()) for line in message.text.splitlines() if "nod delete" in line)


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
