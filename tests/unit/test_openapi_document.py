"""The OpenAPI document: valid, complete, and true to what the app answers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from chalicelib import openapi
from tests.unit.stage import API_URL, Stage, stage, user


@pytest.fixture(scope="module")
def deployed() -> Iterator[Stage]:
    with stage() as found:
        yield found


@pytest.fixture(scope="module")
def document(deployed: Stage) -> Any:
    response = deployed.http("GET", "/openapi.json")
    assert response.status_code == 200
    return response.json_body


def check(document: Any, response: Any, method: str, path: str) -> None:
    """The answer is one that the document tells of."""
    described = document["paths"][path][method]["responses"][str(response.status_code)]
    if response.status_code == 303:
        assert set(described["headers"]) == {"Location"} <= set(response.headers)
        return
    (kind,) = described["content"]
    if kind == "text/html":
        assert response.headers["Content-Type"] == "text/html; charset=utf-8"
        return
    assert response.headers["Content-Type"] == kind
    schema = {**described["content"][kind]["schema"], "components": document["components"]}
    Draft202012Validator(schema).validate(response.json_body)


def test_it_is_valid(document: Any) -> None:
    OpenAPIV31SpecValidator(document).validate()


def test_it_has_every_route_and_no_other(deployed: Stage, document: Any) -> None:
    routes = {(method.lower(), path) for path, methods in deployed.app.ALLOWED.items() for method in methods}
    assert {(method, path) for path, methods in document["paths"].items() for method in methods} == routes
    with pytest.raises(KeyError):
        openapi.document([("GET", "/not-described")], "")


def test_every_status_of_an_error_is_described_somewhere(deployed: Stage, document: Any) -> None:
    described = {
        status
        for methods in document["paths"].values()
        for method in methods.values()
        for status in method["responses"]
    }
    assert {str(status) for status in deployed.app.HTTP_STATUS.values()} <= described


def test_answers_fit_their_schemas(deployed: Stage, document: Any) -> None:
    token = user(deployed, email="ada@example.org")
    made = deployed.http("POST", "/notebooks", token, {"name": "thesis"})
    one = "/notebooks/{notebook_id}"
    path = f"/notebooks/{made.json_body['id']}"
    check(document, made, "post", "/notebooks")
    check(document, deployed.http("POST", "/notebooks", token, {"color": 1}), "post", "/notebooks")
    check(document, deployed.http("POST", "/notebooks", token, b"{"), "post", "/notebooks")
    check(document, deployed.http("POST", "/notebooks", None, {}), "post", "/notebooks")
    check(document, deployed.http("GET", "/notebooks", token), "get", "/notebooks")
    check(document, deployed.http("GET", path, token), "get", one)
    check(document, deployed.http("GET", path[:-1], token), "get", one)
    check(document, deployed.http("DELETE", path, token), "delete", one)
    check(document, deployed.http("DELETE", f"{path}?confirm=thesis", token), "delete", one)
    check(document, deployed.http("GET", "/health"), "get", "/health")


def test_answers_of_its_life_fit_their_schemas(deployed: Stage, document: Any) -> None:
    token = user(deployed, "bob")
    made = deployed.http("POST", "/notebooks", token, {"name": "thesis"}).json_body
    one, path = "/notebooks/{notebook_id}", f"/notebooks/{made['id']}"
    deployed.change(made["id"], state="ready", instance_id="i-1", run_started_at="2026-11-22T14:05:00.000Z")

    def post(verb: str, body: Any = None) -> Any:
        response = deployed.http("POST", f"{path}/{verb}", token, body)
        check(document, response, "post", f"{one}/{verb}")
        return response

    assert post("extend", {"hours": 1}).status_code == 202
    assert post("extend", {"hours": 0}).status_code == 422
    assert post("password", {}).status_code == 202
    assert post("link").status_code == 202
    assert post("start").status_code == 409
    assert post("stop").status_code == 202
    check(document, deployed.http("GET", path, token), "get", one)
    events = deployed.http("GET", f"{path}/events", token)
    check(document, events, "get", f"{one}/events")
    # What was asked for above, and the launch.
    assert len(events.json_body["events"]) == 5
    deployed.change(made["id"], state="stopped", stopped_at="2026-11-22T14:05:00.000Z")
    assert post("start").status_code == 202
    link = deployed.http("GET", path, token).json_body["link"].removeprefix(API_URL)
    check(document, deployed.http("GET", link), "get", "/n/{notebook_id}")
    deployed.change(made["id"], state="ready", address="198.51.100.7")
    check(document, deployed.http("GET", link), "get", "/n/{notebook_id}")
    ask = link.replace("?", "/stop?")
    assert deployed.http("GET", ask).status_code == 303
    check(document, deployed.http("GET", ask), "get", "/n/{notebook_id}/{action}")
    for path_ in ("/n/{notebook_id}", "/n/{notebook_id}/{action}"):
        assert not any("content" in answer for answer in document["paths"][path_]["head"]["responses"].values())
    check(document, deployed.http("GET", link[:-1]), "get", "/n/{notebook_id}")
    check(document, deployed.http("GET", f"/n/{made['id']}/stop"), "get", "/n/{notebook_id}/{action}")
    check(document, deployed.http("POST", f"/n/{made['id']}/stop", None, b"f=1"), "post", "/n/{notebook_id}/{action}")


def test_the_stage_of_api_gateway_stands_before_the_paths() -> None:
    assert openapi.document([("GET", "/health")], "/api")["servers"] == [{"url": "/api"}]
    assert openapi.document([("GET", "/health")], "")["servers"] == [{"url": "/"}]


def test_states_of_a_step_are_named() -> None:
    schemas = openapi.document([("GET", "/notebooks")], "")["components"]["schemas"]
    assert schemas["Step"]["properties"]["state"]["enum"] == ["waiting", "running", "done", "failed", "cancelled"]


def test_schemas_of_the_body_are_those_that_validate(document: Any) -> None:
    schema = document["components"]["schemas"]["LaunchRequest"]
    validator = Draft202012Validator({**schema, "components": document["components"]})
    assert validator.is_valid({})
    assert not validator.is_valid({"volume_gib": 15})
    assert not validator.is_valid({"password": "correct horse", "password_hash": "x"})
    assert not validator.is_valid({"purchase": "spot"})
    assert not validator.is_valid({"color": "red"})
