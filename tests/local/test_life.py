"""A notebook's life by its links, as people without a token and their browsers see it: over HTTP, on the local cloud,
with machines that only say what they are told."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from playwright.sync_api import sync_playwright

from tests.local.person import wait_until
from tests.local.town import Town, as_before, opened, told


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    with opened(tmp_path_factory.mktemp("cloud")) as made:
        yield made


@pytest.fixture(autouse=True)
def clean(town: Town) -> Iterator[None]:
    town.machines.on_boot = town.beat
    yield
    as_before(town)


@pytest.fixture
def browser(town: Town) -> Iterator[httpx.Client]:
    """Somebody's, without a token; it follows nothing by itself."""
    with httpx.Client(base_url=town.cloud.api_url, timeout=30, trust_env=False) as client:
        yield client


def launch(town: Town, **body: Any) -> dict[str, Any]:
    return town.person.wait(town.launch(**body), "ready", seconds=180)


def post(town: Town, identifier: str, verb: str, **body: Any) -> dict[str, Any]:
    answer = town.person.http.post(f"/notebooks/{identifier}/{verb}", json=body)
    assert answer.status_code == 202, answer.text
    return dict(answer.json())


def stopped(town: Town, **body: Any) -> dict[str, Any]:
    """A notebook that was ready, and was stopped."""
    identifier = launch(town, **body)["id"]
    post(town, identifier, "stop")
    return town.person.wait(identifier, "stopped", seconds=180)


def message(town: Town, identifier: str, kind: str) -> dict[str, Any]:
    """The first message of a kind."""

    def found() -> dict[str, Any] | None:
        return next((m for m in told(town.cloud) if m["id"] == identifier and m["kind"] == kind), None)

    return dict(wait_until(found, 20, f"no message {kind} of {identifier}"))


def html(answer: httpx.Response, status: int = 200) -> str:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    return answer.text


def press(browser: httpx.Client, page: str, action: str) -> httpx.Response:
    """Submits the form of an action, as a browser would."""
    form = re.search(rf'<form method="post" action="([^"]*/{action})">(.*?)</form>', page)
    assert form, page
    fields = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]+)">', form[2]))
    return browser.post(form[1], data=fields)


def after(browser: httpx.Client, answer: httpx.Response) -> str:
    """The page to which a button led."""
    assert answer.status_code == 303, answer.text
    return html(browser.get(answer.headers["location"]))


def test_the_link_of_the_message_opens_keeps_and_stops(town: Town, browser: httpx.Client) -> None:
    notebook = launch(town, name="thesis")
    text = message(town, notebook["id"], "ready")["text"]
    assert notebook["link"].startswith(f"{town.cloud.api_url}/n/{notebook['id']}?k=")
    assert re.findall(r"https?://\S+", text) == [notebook["link"]], "no address that another may have tomorrow"
    page = html(browser.get(notebook["link"]))
    assert "thesis is running" in page
    assert "Stops by itself" in page
    assert f'href="{notebook["url"]}"' in page
    assert "will warn you" in page
    assert notebook["certificate_sha256"] in page
    assert "thesis is kept until" in after(browser, press(browser, page, "extend"))
    hold = datetime.fromisoformat(town.person.show(notebook["id"])["hold_until"]) - datetime.now(UTC)
    assert timedelta(minutes=119) < hold <= timedelta(hours=2)

    assert "thesis is stopping" in after(browser, press(browser, page, "stop"))
    seen = town.person.wait(notebook["id"], "stopped", seconds=180)
    assert (seen["stop"]["by"], seen["url"], seen["address"]) == ("link", None, None)
    said = " ".join(message(town, notebook["id"], "stopped")["text"].split())
    assert "someone with demo's link stopped it." in said
    assert notebook["id"] not in town.user().get("active", {}).get("SS", [])
    page = html(browser.get(notebook["link"]))
    assert "someone with demo&#x27;s link stopped it" in page
    assert "Wake it" in page


def test_the_wake_button_leads_to_the_notebook_at_its_new_address(town: Town, browser: httpx.Client) -> None:
    notebook = stopped(town, name="sleeper")
    answer = press(browser, html(browser.get(notebook["link"])), "wake")
    assert answer.status_code == 303
    assert town.cloud.api_url + answer.headers["location"] == notebook["link"]
    seen = town.person.wait(notebook["id"], "ready", seconds=180)
    page = html(browser.get(notebook["link"]))
    assert f'href="{seen["url"]}"' in page
    assert seen["certificate_sha256"] in page
    text = message(town, notebook["id"], "started")["text"]
    assert re.findall(r"https?://\S+", text) == [notebook["link"]]
    assert (seen["link"], seen["stop"], seen["error"]) == (notebook["link"], None, None)
    assert notebook["id"] in town.user()["active"]["SS"]


def test_a_browser_without_scripts_on_a_phone_wakes_it_and_opens_it(town: Town) -> None:
    notebook = stopped(town, name="phone")
    refused: list[str] = []
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu", "--no-proxy-server"]
        )
        try:
            context = chromium.new_context(**playwright.devices["Pixel 7"] | {"java_script_enabled": False})
            page = context.new_page()
            page.on("console", lambda entry: refused.append(entry.text) if "Refused" in entry.text else None)
            page.goto(notebook["link"])
            button = page.get_by_role("button", name="Wake it")
            box = button.bounding_box()
            assert box is not None
            assert box["height"] > 40, "too small for a thumb: the style was not applied"
            # Nothing answers there: that the browser asks is what counts.
            button.click()
            with page.expect_request(re.compile(r"^https://127\."), timeout=60_000) as asked:
                page.get_by_role("link", name="Open phone").click(timeout=60_000)
            assert asked.value.url.rstrip("/") == town.person.show(notebook["id"])["url"]
        finally:
            chromium.close()
    assert refused == [], "the page breaks its own policy"


def test_without_capacity_it_stays_stopped_and_says_so_and_can_be_woken_later(
    town: Town, browser: httpx.Client
) -> None:
    notebook = stopped(town, name="unlucky")
    town.cloud.faults.on("no_capacity")
    press(browser, html(browser.get(notebook["link"])), "wake")
    seen = town.person.wait(notebook["id"], "stopped", seconds=180)
    assert seen["error"]["code"] == "no_capacity"
    assert seen["stop"], "why it stopped is not forgotten"
    assert seen["error"]["message"] in " ".join(message(town, notebook["id"], "start_failed")["text"].split())
    page = html(browser.get(notebook["link"]))
    assert "The last try to wake it failed." in page
    town.settle()
    assert notebook["id"] not in town.user().get("active", {}).get("SS", [])
    town.cloud.faults.clear()
    press(browser, page, "wake")
    assert town.person.wait(notebook["id"], "ready", seconds=180)["error"] is None


def settled_record(town: Town, identifier: str) -> dict[str, Any]:
    """The row once nothing but what a test does changes it: the launch is over, and Slack has its messages."""
    town.settle()

    def delivered() -> dict[str, Any] | None:
        record = town.record(identifier)
        return record if record["notifications"]["M"]["slack:demo"] == {"S": "sent"} else None

    return dict(wait_until(delivered, 60, "Slack got nothing"))


def test_links_of_a_warning_change_nothing_until_a_button_is_pressed(town: Town, browser: httpx.Client) -> None:
    # The sweep notes in the record when it looked.
    town.cloud.faults.on("sweep_dead")
    notebook = launch(town, name="warned")
    soon = (datetime.now(UTC) + timedelta(minutes=10)).strftime("%Y-%m-%dT%H:%M:%S.000Z")
    warned = {"at": soon, "stops_at": soon, "code": "idle", "reason": "idle since 13:05 UTC: no input"}
    town.tables.update_item(
        TableName="nod-local-notebooks",
        Key={"id": {"S": notebook["id"]}},
        UpdateExpression="SET warned = :warned",
        ExpressionAttributeValues={":warned": {"M": {key: {"S": value} for key, value in warned.items()}}},
    )
    given = {"id": notebook["id"], "kind": "warned", "run": notebook["id"]}
    town.cloud.lambdas.invoke("nod-local-tell_owner", given)
    told_of = message(town, notebook["id"], "warned")
    assert "(in about 10 minutes) if nobody uses it: idle since 13:05 UTC: no input." in " ".join(
        told_of["text"].split()
    )
    links = {button["text"]: button["url"] for button in told_of["buttons"]}
    before = settled_record(town, notebook["id"])
    pages = {text: html(browser.get(url)) for text, url in links.items() if text != "Open it"}
    for url in links.values():
        assert (browser.head(url).status_code, browser.head(url).content) == (200, b"")
    assert town.record(notebook["id"]) == before
    assert notebook["url"] not in "".join(pages.values()), "a link for one thing opens nothing else"

    result = after(browser, press(browser, pages["Keep it 2 hours"], "extend"))
    assert "warned is kept until" in result
    assert "?k=" not in result
    assert "warned" not in town.record(notebook["id"]), "the warning is answered"
    wait_until(lambda: len(town.cloud.slack.messages()) > 0, 60, "Slack got nothing")
    assert "warned is stopping" in after(browser, press(browser, pages["Stop it now"], "stop"))
    town.person.wait(notebook["id"], "stopped", seconds=180)


def test_wrong_links_and_forms_are_pages_that_change_nothing(town: Town, browser: httpx.Client) -> None:
    notebook, other = launch(town, name="one"), launch(town, name="other")
    form = re.search(r'name="f" value="([^"]+)"', html(browser.get(notebook["link"])))
    assert form
    wrong = html(browser.get(notebook["link"][:-8] + "AAAAAAAA"), 404)
    assert html(browser.get(f"/n/nb-{'0' * 20}?k={notebook['link'][-32:]}"), 404) == wrong
    assert html(browser.get(other["link"].replace(other["id"], notebook["id"])), 404) == wrong
    html(browser.post(f"/n/{other['id']}/extend", data={"f": form[1]}), 403)
    html(browser.post(f"/n/{notebook['id']}/stop", data={"f": form[1]}), 403)
    html(browser.post(f"/n/{notebook['id']}/stop", json={"f": form[1]}), 415)
    html(browser.post(f"/n/{notebook['id']}/stop", content=b""), 415)
    html(browser.put(f"/n/{notebook['id']}/stop"), 405)
    html(browser.get(f"/n/{notebook['id']}/explode?t={form[1]}"), 404)
    assert {town.person.show(one["id"])["state"] for one in (notebook, other)} == {"ready"}
    assert "hold_until" not in town.record(other["id"])

    renewed = post(town, notebook["id"], "link")["link"]
    html(browser.get(notebook["link"]), 404)
    html(browser.post(f"/n/{notebook['id']}/extend", data={"f": form[1]}), 403)
    html(browser.get(renewed))


def test_progress_is_shown_until_it_opens(town: Town, browser: httpx.Client) -> None:
    town.machines.seconds["install-anaconda"] = 2
    identifier = town.launch(name="fresh")
    link = town.person.show(identifier)["link"]
    pages = []

    def arrived() -> bool:
        pages.append(html(browser.get(link)))
        return ">Open fresh</a>" in pages[-1]

    wait_until(arrived, 60, "it never opens")
    pages.pop()
    assert all('http-equiv="refresh"' in page for page in pages)
    assert any('class="running">Install Anaconda' in page for page in pages)


def test_a_password_is_set_and_the_events_tell_what_was_done(town: Town) -> None:
    notebook = launch(town, name="secret")
    answer = post(town, notebook["id"], "password")
    assert len(answer["password"]) == 34
    town.settle()
    assert any(name == "set-password" for _, name, _ in town.machines.ran)
    assert town.person.show(notebook["id"])["error"] is None
    post(town, notebook["id"], "extend", hours=1)
    post(town, notebook["id"], "stop")
    town.person.wait(notebook["id"], "stopped", seconds=180)
    events = town.person.http.get(f"/notebooks/{notebook['id']}/events").json()["events"]
    asked = [event["action"] for event in events if event["by"] == "demo"]
    assert asked == ["stop", "extend", "password"]
    assert answer["password"] not in str(events)


@pytest.mark.parametrize("verb", ["stop", "start"])
def test_a_delete_wins_over_a_stop_and_a_start(town: Town, verb: str) -> None:
    notebook = launch(town, name="gone") if verb == "stop" else stopped(town, name="gone")
    post(town, notebook["id"], verb)
    assert town.person.delete(notebook["id"], None).status_code == 409
    assert town.person.delete(notebook["id"], "gone").status_code == 202
    assert town.person.wait(notebook["id"], "terminated", seconds=180)
    town.settle()
    assert town.instances(notebook["id"]) == []
    assert town.person.show(notebook["id"])["state"] == "terminated"
    assert notebook["id"] not in str(town.user().get("active", {})) + str(town.user().get("owned", {}))
