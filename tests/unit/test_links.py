"""Keys and tokens of links, and the pages behind them."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import re
from datetime import timedelta
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib import links, pages, tokens
from chalicelib.links import Verdict
from chalicelib.model import Failure, Notebook, ServerTrouble, Stop
from chalicelib.notebook.life import State
from chalicelib.pages import Form, Page, Situation
from chalicelib.views import Disk, NotebookView
from tests.unit.test_rules import NOW, PRICES, a_notebook, a_user

SECRET = tokens.new_hmac_key()
OTHER = "nb-" + "1" * 20
EVIL = "\"><script>alert(1)</script>'&"


def notebook(**changes: Any) -> Notebook:
    return dataclasses.replace(a_notebook(), api_url="https://api.example/api", **changes)


def check(token: str | None, **changes: Any) -> Verdict:
    values = {"secret": SECRET, "purpose": links.FORM, "action": links.STOP, "notebook": notebook(), "now": NOW}
    return links.check(token, **{**values, **changes})


class TestKeys:
    def test_the_key_opens_its_notebook_until_a_new_link_is_made(self) -> None:
        key = links.key(SECRET, notebook())
        assert re.fullmatch(links.LIFE_KEY, key)
        assert links.opens(key, SECRET, notebook())
        assert not links.opens(key, SECRET, notebook(link_version=1))
        assert not links.opens(key, SECRET, notebook(id=OTHER))
        assert not links.opens(key, tokens.new_hmac_key(), notebook())
        assert not links.opens(None, SECRET, notebook())

    @given(st.text())
    def test_no_other_text_opens_it(self, text: str) -> None:
        assert not links.opens(text, SECRET, notebook())

    def test_the_link_for_life_leads_to_where_the_api_was_called(self) -> None:
        link = links.life_link(SECRET, notebook())
        assert link == f"https://api.example/api/n/{notebook().id}?k={links.key(SECRET, notebook())}"
        assert links.life_link(SECRET, dataclasses.replace(notebook(), api_url=None)) is None


class TestTokens:
    def test_a_token_is_good_for_one_thing_and_its_time(self) -> None:
        token = links.form_token(SECRET, links.STOP, notebook(), NOW)
        assert re.fullmatch(links.DATED_MAC, token)
        assert check(token) is Verdict.VALID
        assert check(token, now=NOW + timedelta(minutes=9, seconds=59)) is Verdict.VALID
        assert check(token, now=NOW + timedelta(minutes=10)) is Verdict.EXPIRED
        for changes in (
            {"action": links.EXTEND},
            {"purpose": links.MAIL},
            {"purpose": links.DONE},
            {"notebook": notebook(id=OTHER)},
            {"notebook": notebook(link_version=1)},
            {"secret": tokens.new_hmac_key()},
        ):
            assert check(token, **changes) is Verdict.FORGED, changes
            assert check(token, now=NOW + timedelta(days=9), **changes) is Verdict.FORGED

    def test_a_later_expiry_is_another_token(self) -> None:
        at, _, mac = links.form_token(SECRET, links.STOP, notebook(), NOW).partition(".")
        assert check(f"{int(at) + 1}.{mac}") is Verdict.FORGED
        assert check(f"{at}.{mac[:-1]}{'A' if mac[-1] != 'A' else 'B'}") is Verdict.FORGED

    def test_a_key_is_no_token(self) -> None:
        assert check(links.key(SECRET, notebook())) is Verdict.FORGED
        assert check(None) is Verdict.FORGED

    @given(st.text() | st.from_regex(links.DATED_MAC, fullmatch=True))
    def test_any_other_text_is_forged(self, text: str) -> None:
        assert check(text) is Verdict.FORGED

    def test_a_link_of_a_message_lives_two_hours_or_until_the_stop(self) -> None:
        def expiry(**known: Any) -> int:
            link = links.action_link(SECRET, links.STOP, notebook(), NOW, **known)
            assert link is not None
            return int(link.partition("?t=")[2].partition(".")[0]) - int(NOW.timestamp())

        assert expiry() == expiry(stops_at=NOW + timedelta(minutes=5)) == 7200
        assert expiry(stops_at=NOW + timedelta(hours=5)) == 5 * 3600

    def test_the_button_keeps_it_no_longer_than_its_owner_may(self) -> None:
        assert links.extend_hours(a_user()) == 2
        assert links.extend_hours(a_user(max_extend_hours=1)) == 1


class TestDestination:
    @pytest.mark.parametrize(
        ("changes", "to"),
        [
            ({"state": "ready", "address": "198.51.100.7"}, "https://198.51.100.7:8888"),
            ({"state": "ready", "public_dns_name": "ec2-1.example", "address": "x"}, "https://ec2-1.example:8888"),
            ({"state": "stopped", "address": "198.51.100.7"}, None),
            ({"state": "ready"}, None),
            ({"state": "ready", "public_dns_name": "evil.example/path?"}, None),
            ({"state": "ready", "public_dns_name": "user@evil.example"}, None),
            ({"state": "ready", "address": "198.51.100.7\r\nSet-Cookie: a=b"}, None),
        ],
    )
    def test_it_is_the_address_in_the_record_or_nothing(self, changes: dict[str, Any], to: str | None) -> None:
        assert links.destination(notebook(**changes)) == to


class Tags(HTMLParser):
    """What a browser would make of a page: each tag with its attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def situation(state: str = "stopped", *, may_run: bool = True, in_the_way: Any = (), **changes: Any) -> Situation:
    known = dataclasses.replace(a_notebook(), state=state, **changes)
    view = NotebookView.of(known, PRICES, "us-east-1", NOW)
    return Situation(view, NOW, NOW - timedelta(seconds=80), "0.35 USD", "2.40 USD", in_the_way, may_run)


def test_a_page_of_a_server_that_does_not_answer_says_why_and_leads_to_no_dead_port() -> None:
    trouble = ServerTrouble("2026-11-22T12:00:00.000Z", "port_taken", "Another program <uses> its port.")
    there = dataclasses.replace(situation("ready"), to="https://203.0.113.7:8888")
    assert "203.0.113.7" in pages.state(there, ALL).html()
    dead = dataclasses.replace(situation("ready", not_answering=trouble), to="https://203.0.113.7:8888")
    page = pages.state(dead, ALL)
    assert page.title == "thesis does not answer"
    assert "Another program &lt;uses&gt; its port." in page.html()
    assert "203.0.113.7" not in page.html()
    safe = pages.state(dataclasses.replace(there, view=situation("ready", safe_mode=trouble).view), ALL)
    assert safe.title == "thesis is running in safe mode"
    assert "203.0.113.7" in safe.html()


def forms(*actions: str) -> dict[str, Form]:
    return {action: Form(action, f"/api/n/nb-1/{action}", "1.a", "key") for action in actions}


ALL = forms(*links.ACTIONS)


class TestPages:
    @pytest.mark.parametrize("state", list(State))
    def test_every_state_has_a_page_without_anything_from_elsewhere(self, state: str) -> None:
        page = pages.state(situation(state), ALL, "/api/n/nb-1?k=key")
        tags = Tags(page.html())
        assert not {"img", "iframe", "base"} & {tag for tag, _ in tags.found}
        assert tags.all("script") == [{}], "ours, in the page itself"
        (icon,) = tags.all("link")
        assert (icon["rel"], str(icon["href"])[:19]) == ("icon", "data:image/svg+xml,")
        assert all("style" not in attributes for _, attributes in tags.found), "the policy refuses inline styles"
        assert {"lang": "en"} in tags.all("html")
        assert any(meta.get("name") == "viewport" for meta in tags.all("meta"))
        moving = state in ("requested", "launching", "starting", "stopping", "terminating")
        assert any(meta.get("http-equiv") == "refresh" for meta in tags.all("meta")) is moving is page.refreshes

    @pytest.mark.parametrize(
        ("state", "actions"),
        [
            ("ready", ["extend", "stop"]),
            ("starting", ["extend"]),
            ("stopped", ["wake"]),
            ("stopping", []),
            ("launching", []),
            ("failed", []),
            ("terminated", []),
        ],
    )
    def test_buttons_are_those_that_the_state_allows(self, state: str, actions: list[str]) -> None:
        tags = Tags(pages.state(situation(state), ALL).html())
        assert [form["action"] for form in tags.all("form")] == [f"/api/n/nb-1/{action}" for action in actions]
        assert all(form["method"] == "post" for form in tags.all("form"))
        fields = {(entry["name"], entry["value"]) for entry in tags.all("input")}
        assert fields == ({("f", "1.a"), ("k", "key")} if actions else set())

    def test_the_style_is_the_one_that_the_policy_allows(self) -> None:
        style = re.search(r"<style>(.*?)</style>", Page("x", ()).html(), re.DOTALL)
        assert style
        wanted = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
        assert f"style-src 'sha256-{wanted}'" in pages.HEADERS["Content-Security-Policy"]

    def test_the_script_is_the_one_that_the_policy_allows(self) -> None:
        script = re.search(r"<script>(.*?)</script>", Page("x", ()).html(), re.DOTALL)
        assert script
        wanted = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
        policy = pages.HEADERS["Content-Security-Policy"]
        assert f"script-src 'sha256-{wanted}';" in policy
        assert "unsafe" not in policy

    def test_a_page_loads_itself_again_only_where_no_script_does_it_better(self) -> None:
        html = pages.state(situation("starting"), ALL).html()
        assert re.search(r'<noscript><meta http-equiv="refresh" content="\d"></noscript>', html)
        assert html.count('http-equiv="refresh"') == 1

    def test_whatever_a_name_or_a_machine_says_is_text(self) -> None:
        values = {"error": Failure(EVIL, EVIL), "stop": Stop(EVIL, EVIL, EVIL), "name": EVIL, "stopped_at": EVIL}
        for state in State:
            known = situation(state, in_the_way=[EVIL], may_run=False, **values)
            form = Form("wake", EVIL, EVIL, EVIL)
            for page in (
                pages.state(known, {"wake": form}, EVIL),
                pages.ask(known, "stop", form),
                pages.done(known, "extend", EVIL),
                pages.refusal(EVIL, EVIL),
            ):
                assert Tags(page.html()).all("script") == [{}]
                assert EVIL not in page.html()
                assert "&lt;script&gt;" in page.html()

    def test_a_running_one_says_what_is_free_on_its_disk(self) -> None:
        known = situation("ready")
        full = dataclasses.replace(known, view=dataclasses.replace(known.view, disk=Disk(0.25, 29.0)))
        assert "0.25 GiB free of 29 GiB" in pages.state(full, ALL).html()
        assert "GiB free" not in pages.state(known, ALL).html()

    def test_a_stopped_one_says_why_when_and_what_it_cost(self) -> None:
        stop = Stop("idle", "idle since 13:05 UTC", "sweep")
        text = pages.state(situation(stop=stop, stopped_at="2026-11-22T14:04:30Z"), ALL).html()
        for part in ("It stopped at 14:04 UTC: idle since 13:05 UTC.", "0.35 USD", "2.40 USD", "Wake it"):
            assert part in text

    def test_a_failed_start_says_why_and_offers_another(self) -> None:
        text = pages.state(situation(error=Failure("no_capacity", "EC2 has none left.")), ALL).html()
        assert "The last try to wake it failed. EC2 has none left." in text
        assert "Wake it" in text

    def test_an_error_of_something_else_is_shown_and_not_told_as_a_failed_start(self) -> None:
        text = pages.state(situation(error=Failure("password_failed", "The old password stays.")), ALL).html()
        assert "The old password stays." in text
        assert "failed." not in text

    def test_over_the_quota_there_is_no_button_but_the_names_of_those_that_run(self) -> None:
        text = pages.state(situation(may_run=False, in_the_way=["thesis", "blue-fox"]), ALL).html()
        assert "as many notebooks running as your limit allows (thesis, blue-fox). Stop one first." in text
        assert "<form" not in text

    def test_progress_shows_the_steps_and_the_time(self) -> None:
        steps: dict[str, dict[str, object]] = {
            "create_instance": {"started_at": "a", "finished_at": "b"},
            "start_instance": {"started_at": "b"},
        }
        text = pages.state(situation("launching", steps=steps), {}).html()
        assert 'class="done">Get a machine<' in text
        assert 'class="running">Switch it on …<' in text
        assert "1 min 20 s so far" in text
        assert "Waiting for EC2 to boot it." in text

    @pytest.mark.parametrize(
        ("address", "waits"), [(None, "Waiting for EC2 to boot it."), ("198.51.100.7", "Waiting for Jupyter to answer")]
    )
    def test_waking_shows_steps_and_what_it_waits_for(self, address: str | None, waits: str) -> None:
        page = pages.state(situation("starting", address=address), ALL)
        assert page.html().count('<li class="running">') == 1
        assert waits in page.html()
        assert "198.51.100.7" not in page.html()

    @pytest.mark.parametrize("state", ["stopping", "terminating"])
    def test_whatever_moves_says_what_it_waits_for(self, state: str) -> None:
        assert "Waiting for EC2" in pages.state(situation(state), ALL).html()

    def test_the_steps_that_are_over_say_how_long_they_took(self) -> None:
        steps: dict[str, dict[str, object]] = {
            "create_instance": {"started_at": "2026-11-22T14:03:00Z", "finished_at": "2026-11-22T14:03:12Z"},
            "start_instance": {"started_at": "2026-11-22T14:03:12Z", "finished_at": "2026-11-22T14:05:13Z"},
        }
        text = pages.state(situation("launching", steps=steps), {}).html()
        assert "done in 12 s" in text
        assert "done in 2 min 01 s" in text

    def test_the_way_in_says_what_the_browser_will_warn_of_and_names_the_fingerprint(self) -> None:
        known = dataclasses.replace(
            situation("ready", certificate_sha256=":".join(["AB"] * 32)), to="https://198.51.100.7:8888"
        )
        html = pages.state(known, ALL, "/api/n/nb-1?k=key").html()
        opens, warns, fingerprint = (
            html.index(part) for part in ("Open thesis</a>", "will warn you", ":".join(["AB"] * 32))
        )
        assert opens < warns < fingerprint
        assert {"class": "button first", "href": "https://198.51.100.7:8888", "rel": "noreferrer"} in Tags(html).all(
            "a"
        )
        assert not any("first" in str(button) for button in Tags(html).all("button")), "one button stands out"
        assert "198.51.100.7" not in pages.state(situation("ready"), ALL).html()

    @pytest.mark.parametrize("note", pages.Note)
    @pytest.mark.parametrize("state", list(State))
    def test_what_led_here_never_claims_what_it_cannot_know(self, state: str, note: pages.Note) -> None:
        text = pages.state(situation(state), ALL, note=note).html()
        assert "othing was changed" not in text
        assert "othing changed" not in text
        assert situation(state).view.name in text

    def test_one_hour_is_no_hours(self) -> None:
        known = dataclasses.replace(situation("ready"), extend_hours=1)
        for page in (pages.state(known, ALL), pages.ask(known, "extend", ALL["extend"])):
            assert "1 hour" in page.html()
            assert "1 hours" not in page.html()

    def test_who_asks_for_what_the_state_does_not_allow_gets_no_button(self) -> None:
        page = pages.ask(situation("stopped"), "stop", ALL["stop"])
        assert "There is nothing to stop now." in page.html()
        assert "<form" not in page.html()

    def test_asking_shows_one_button(self) -> None:
        for action, state in (("wake", "stopped"), ("extend", "ready"), ("stop", "ready")):
            page = pages.ask(situation(state), action, ALL[action])
            assert len(Tags(page.html()).all("button")) == 1
            assert page.title.endswith("?")

    def test_after_extending_the_new_time_is_the_title(self) -> None:
        known = situation("ready", hold_until="2026-11-22T16:05:00.000Z")
        assert pages.done(known, "extend").title == "thesis is kept until 16:05 UTC"
        assert pages.done(situation("ready"), "wake").parts[-1].startswith("<p>Its link is in the message")
