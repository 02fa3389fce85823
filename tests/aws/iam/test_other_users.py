"""One user cannot touch another's notebook: over HTTP, at every route that the app has, with all that they can know.

Ada has a notebook that is ready. Eve is a user too, knows its id and name, has links and form tokens of a notebook of
her own, and tries each method of each route. What she gets is what she gets for an id that nobody has.
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.aws.workflows import NAMES
from tests.local.person import Person
from tests.local.town import Town, opened

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")
NOBODYS = "nb-" + "0" * 20
BODIES: tuple[dict[str, Any] | None, ...] = (
    None,
    {"hours": 1},
    {"password": "correct horse battery"},
    {"name": "eves"},
)


class Two:
    """The town with Ada's notebooks, and Eve with one of her own."""

    def __init__(self, town: Town) -> None:
        self.town = town
        self.ada = town.person
        users, deployment = importlib.import_module("admin.users"), importlib.import_module("admin.deployment")
        self.eves_token = users.add_user(deployment.Deployment("local"), "eve", email="eve@example.com")
        self.eve = Person(town.cloud.api_url, self.eves_token)
        adas, second = town.launch(name="thesis"), town.launch(name="second")
        answer = self.eve.request(name="mine", notify=[])
        assert answer.status_code == 202, answer.text
        self.adas = self.ada.wait(adas, "ready", seconds=180)
        self.ada.wait(second, "ready", seconds=180)
        self.eves = self.eve.wait(answer.json()["id"], "ready", seconds=180)
        town.settle()

    def state(self) -> dict[str, Any]:
        """All that there is of Ada: her record, her quota, her ledger, executions, her machine."""
        town, notebook = self.town, str(self.adas["id"])
        ledger = town.tables.query(
            TableName="nod-local-events",
            KeyConditionExpression="notebook = :id",
            ExpressionAttributeValues={":id": {"S": notebook}},
        )["Items"]
        return {
            "record": town.record(notebook),
            "runs": notebook in town.user()["active"]["SS"],
            "ledger": ledger,
            "executions": sorted(one for name in NAMES for one in town.executions(name) if notebook in one),
            "machines": [(one["InstanceId"], one["State"]["Name"]) for one in town.instances(notebook)],
        }


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    with opened(tmp_path_factory.mktemp("cloud")) as town:
        town.machines.on_boot = town.beat
        yield Two(town)


@pytest.fixture(autouse=True)
def untouched(two: Two) -> Iterator[None]:
    before = two.state()
    yield
    assert two.state() == before


def routes(two: Two) -> list[str]:
    found = [path for path in two.town.cloud.app.routes if "{notebook_id}" in path]
    assert len(found) >= 3, "no route of a notebook: the test looks at nothing"
    return found


def said(answer: httpx.Response, notebook: str) -> tuple[Any, ...]:
    """What can be told of an answer, but for the id that was asked for."""
    kept = {
        key: value for key, value in answer.headers.items() if key not in {"date", "content-length", "x-amzn-requestid"}
    }
    text = re.sub(r'"instance":"[^"]*"', "", answer.text.replace(notebook, "ID"))
    return answer.status_code, text, {key: value.replace(notebook, "ID") for key, value in kept.items()}


def tried(two: Two, method: str, path: str, query: dict[str, str], body: dict[str, Any] | None) -> None:
    answers = []
    for notebook in (two.adas["id"], NOBODYS):
        url = path.replace("{notebook_id}", notebook)
        asked = {"params": query, **({} if body is None else {"json": body})}
        answers.append(said(two.eve.http.request(method, url, **asked), notebook))  # type: ignore[arg-type]
    assert answers[0] == answers[1], f"{method} {path} tells Eve that there is something"
    assert answers[0][0] >= 400, f"{method} {path} did something"


@pytest.mark.parametrize("method", METHODS)
def test_no_method_of_any_route_knows_or_changes_anothers_notebook(two: Two, method: str) -> None:
    for path in routes(two):
        for action in ("stop", "extend", "wake") if "{action}" in path else ("",):
            for body in BODIES if method in {"POST", "PUT", "PATCH"} else (None,):
                for query in ({}, {"confirm": "thesis"}):
                    tried(two, method, path.replace("{action}", action), query, body)


def keys(two: Two) -> dict[str, str]:
    """What Eve's own links and pages hold."""
    link = httpx.URL(two.eves["link"])
    with httpx.Client(base_url=two.town.cloud.api_url, trust_env=False) as browser:
        page = browser.get(str(link)).text
    forms = re.findall(r'action="[^"]*/(\w+)">(.*?)</form>', page, re.DOTALL)
    found = {action: dict(re.findall(r'name="(\w+)" value="([^"]+)"', form))["f"] for action, form in forms}
    assert found
    return {"k": link.params["k"], **found}


def test_links_and_forms_of_ones_own_open_nothing_of_anothers(two: Two) -> None:
    own = keys(two)
    ada = two.adas["id"]
    with httpx.Client(base_url=two.town.cloud.api_url, trust_env=False) as browser:
        for key in (own["k"], "", "x" * 32):
            there, nowhere = (browser.get(f"/n/{one}", params={"k": key}) for one in (ada, NOBODYS))
            assert there.status_code == nowhere.status_code == 404
            assert said(there, ada)[1] == said(nowhere, NOBODYS)[1]
        for action in ("stop", "extend", "wake"):
            for token in [own[name] for name in own if name != "k"]:
                for query in ({"t": token}, {"d": token, "k": own["k"]}):
                    assert browser.get(f"/n/{ada}/{action}", params=query).status_code >= 400
                answer = browser.post(f"/n/{ada}/{action}", data={"f": token, "k": own["k"]})
                assert answer.status_code >= 400


def test_lists_show_ones_own_only(two: Two) -> None:
    mine = two.eve.http.get("/notebooks").json()["notebooks"]
    assert [one["id"] for one in mine] == [two.eves["id"]]
    text = json.dumps(mine)
    for private in (two.adas["id"], two.adas["address"], two.adas["instance_id"], "demo"):
        assert private not in text


def test_a_place_in_anothers_list_is_no_place_in_ones_own(two: Two) -> None:
    place = two.ada.http.get("/notebooks", params={"limit": 1}).json()["next"]
    assert place
    shown = json.dumps(two.eve.http.get("/notebooks", params={"next": place}).json())
    assert two.adas["id"] not in shown
    assert "thesis" not in shown


def test_an_idempotency_key_is_its_owners_alone(two: Two) -> None:
    first = two.eve.request(key="shared", name="eves", notify=[])
    assert first.status_code == 202
    try:
        with httpx.Client(base_url=two.town.cloud.api_url, trust_env=False) as nobody:
            assert (
                nobody.post("/notebooks", json={"name": "eves"}, headers={"Idempotency-Key": "shared"}).status_code
                == 401
            )
        assert first.json()["owner"] == "eve"
    finally:
        assert two.eve.delete(first.json()["id"], "eves").status_code == 202
        two.eve.wait(first.json()["id"], "terminated", "failed", seconds=180)


@pytest.mark.parametrize(
    "forged",
    [
        "",
        "Bearer",
        "Bearer nod.demo.",
        "Bearer nod.demo.{eve}",
        "Bearer nod.eve.{short}",
        "Basic {eve}",
        "Bearer {eve}x",
    ],
)
def test_a_forged_token_is_nobodys(two: Two, forged: str) -> None:
    secret = two.eves_token.rpartition(".")[2]
    header = forged.format(eve=secret, short=secret[:-1])
    with httpx.Client(base_url=two.town.cloud.api_url, trust_env=False) as client:
        for path in routes(two):
            if path.startswith("/n/"):
                continue
            url = path.replace("{notebook_id}", two.adas["id"])
            for method in two.town.cloud.app.routes[path]:
                answer = client.request(method, url, headers={"Authorization": header} if header else {})
                assert answer.status_code == 401, f"{method} {path}"
