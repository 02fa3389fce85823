"""The port of the AWS APIs and of the local cloud's pages answers to 127.0.0.1 and localhost alone: a name that was
rebound to this machine, and a page of another origin, get nothing."""

from __future__ import annotations

import pytest
from werkzeug.test import EnvironBuilder
from werkzeug.wrappers import Response

from local.aws.front import Front
from local.faults import Faults
from local.hosts import is_own, is_own_origin

OWN = ["127.0.0.1:5566", "localhost:5566", "LOCALHOST:5566", " localhost:5566 "]
OTHERS = [
    None,
    "",
    "evil.example",
    "evil.example:5566",
    "127.0.0.1",
    "localhost",
    "localhost:80",
    "127.0.0.1:5567",
    "127.0.0.1.evil.example:5566",
    "localhost.evil.example:5566",
    "evil.example:5566, 127.0.0.1:5566",
    "127.0.0.1:5566.evil.example",
    "user@127.0.0.1:5566",
    "0.0.0.0:5566",
    "[::1]:5566",
    "127.0.0.1:05566",
    ":5566",
]


@pytest.mark.parametrize("host", OWN)
def test_a_port_knows_its_own_names(host: str) -> None:
    assert is_own(host, 5566)


@pytest.mark.parametrize("host", OTHERS)
def test_and_no_other(host: str | None) -> None:
    assert not is_own(host, 5566)


def test_on_the_port_of_the_web_the_number_is_left_out() -> None:
    assert is_own("localhost", 80)
    assert not is_own("evil.example", 80)


@pytest.mark.parametrize(
    ("origin", "own"),
    [
        (None, True),
        ("http://127.0.0.1:5566", True),
        ("http://localhost:5566", True),
        ("https://localhost:5566", False),
        ("http://evil.example", False),
        ("http://127.0.0.1:8000", False),
        ("null", False),
        ("", False),
    ],
)
def test_an_origin_is_that_of_a_page_of_this_port_or_absent(origin: str | None, own: bool) -> None:
    assert is_own_origin(origin, 5566) is own


def asked(path: str, host: str | None, **headers: str) -> int:
    """What the port of the AWS APIs answers."""
    front = Front(Faults())
    front.control = lambda _: Response("an inbox")
    environ = EnvironBuilder(path=path, base_url="http://127.0.0.1:5566", headers=headers).get_environ()
    environ.pop("HTTP_HOST", None)
    if host is not None:
        environ["HTTP_HOST"] = host
    statuses: list[str] = []
    list(front(environ, lambda status, *_: statuses.append(status)))
    return int(statuses[0].split()[0])


@pytest.mark.parametrize("path", ["/_local/inbox", "/_local/faults", "/_local/slack/services/T/B/x", "/"])
def test_the_pages_and_the_aws_apis_ask_for_it(path: str) -> None:
    assert asked("/_local/inbox", "localhost:5566") == 200
    for host in OTHERS:
        assert asked(path, host) == 403, host
    assert asked(path, "127.0.0.1:5566", Origin="http://evil.example") == 403
