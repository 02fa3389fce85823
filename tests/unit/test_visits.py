"""What requests and messages to kernels tell of a person."""

from __future__ import annotations

import pytest

from instance.files.saves import Saves
from instance.files.visits import Visits, is_act, is_of_page

BROWSER = {"Host": "n:8888", "Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"}
OLD_BROWSER = {"Host": "n:8888", "Referer": "https://n:8888/lab"}


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("POST", "/api/kernels", {}),
        ("POST", "/api/kernels/1/interrupt", {}),
        ("PATCH", "/api/sessions/1", {}),
        ("DELETE", "/api/terminals/1", {}),
        ("POST", "/api/contents/a.ipynb/checkpoints", {}),
        ("POST", "/login", {}),
        ("GET", "/lab", {"Sec-Fetch-Mode": "navigate"}),
        ("GET", "/lab/tree/a.ipynb", {"Accept": "text/html,*/*"}),
    ],
)
def test_these_are_acts_of_a_person(method: str, path: str, headers: dict[str, str]) -> None:
    assert is_act(method, path, headers)


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("GET", "/api/kernels", BROWSER),
        ("GET", "/api/kernels", {"Sec-Fetch-Mode": "navigate"}),
        ("GET", "/api/status", {}),
        ("GET", "/api/contents", {"Accept": "text/html"}),
        ("PUT", "/api/contents/a.ipynb", BROWSER),
        ("PUT", "/lab/api/workspaces/default", BROWSER),
        ("POST", "/api/kernelspecs", BROWSER),
        ("POST", "/api/events", BROWSER),
        ("GET", "/lab", {"Accept": "*/*"}),
        ("GET", "/lab", BROWSER),
        ("HEAD", "/lab", {"Sec-Fetch-Mode": "navigate"}),
        ("GET", "/static/x.js", {"Accept": "text/html"}),
    ],
)
def test_these_are_what_pages_and_programs_do_by_themselves(method: str, path: str, headers: dict[str, str]) -> None:
    assert not is_act(method, path, headers)


def test_a_refused_act_is_none() -> None:
    visits = Visits()
    visits.request("POST", "/api/kernels", {}, status=404, client="a", now=10.0)
    assert visits.input_at == 0
    visits.request("POST", "/api/kernels", {}, status=201, client="a", now=10.0)
    assert visits.input_at == 10.0


@pytest.mark.parametrize("headers", [BROWSER, OLD_BROWSER])
def test_who_writes_in_a_page_is_there_and_a_program_that_saves_is_nobody(headers: dict[str, str]) -> None:
    visits = Visits()
    for wrote, sender, seen in ((False, headers, 0.0), (True, {}, 0.0), (True, headers, 10.0)):
        visits.request("PUT", "/api/contents/a.md", sender, status=200, client="a", now=10.0, wrote=wrote)
        assert visits.input_at == seen
    visits.request("PUT", "/api/contents/a.md", headers, status=409, client="a", now=20.0, wrote=True)
    assert visits.input_at == 10.0


def test_who_writes_is_there_also_when_the_disk_is_full() -> None:
    visits = Visits()
    saves = Saves()
    for now, source in ((10.0, "a"), (20.0, "ab"), (30.0, "ab")):
        cells = [{"cell_type": "code", "source": source}]
        saves.coming("a.ipynb", {"type": "notebook", "content": {"cells": cells}}, lambda: {"cells": []})
        wrote = saves.happened("a.ipynb") is not False
        visits.request("PUT", "/api/contents/a.ipynb", BROWSER, status=500, client="a", now=now, wrote=wrote)
        assert visits.input_at == min(now, 20.0), "the page tries again by itself"
    visits.request("POST", "/api/kernels", {}, status=500, client="a", now=40.0)
    assert visits.input_at == 20.0


@pytest.mark.parametrize("headers", [BROWSER, OLD_BROWSER])
def test_a_page_that_polls_is_visible_for_half_a_minute(headers: dict[str, str]) -> None:
    visits = Visits()
    visits.opened("a")
    visits.request("GET", "/api/kernels", headers, status=200, client="a", now=100.0)
    assert visits.browsers(129.0) == (1, 0)
    assert visits.browsers(130.0) == (0, 1)
    assert visits.input_at == 0
    visits.closed("a")
    assert visits.browsers(131.0) == (0, 0)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Host": "n:8888", "Referer": "https://other/lab"},
        {"Host": "n:8888", "Sec-Fetch-Site": "cross-site", "Referer": "https://n:8888/lab"},
        {"Referer": "https://n:8888/lab"},
    ],
)
def test_a_program_that_polls_is_no_page(headers: dict[str, str]) -> None:
    assert not is_of_page(headers)
    visits = Visits()
    visits.request("GET", "/api/kernels", headers, status=200, client="a", now=100.0)
    assert visits.browsers(100.0) == (0, 0)


def test_a_reconnecting_websocket_and_a_status_are_no_polls() -> None:
    visits = Visits()
    visits.request("GET", "/api/kernels/1/channels", BROWSER, status=101, client="a", now=1.0)
    visits.request("GET", "/api/status", BROWSER, status=200, client="a", now=1.0)
    assert visits.browsers(1.0) == (0, 0)


def test_two_browsers_are_two() -> None:
    visits = Visits()
    for client in ("a", "b"):
        visits.request("GET", "/api/sessions", BROWSER, status=200, client=client, now=1.0)
    visits.opened("c")
    visits.opened("c")
    assert visits.browsers(2.0) == (2, 1)


def test_a_flood_of_clients_does_not_fill_the_memory() -> None:
    visits = Visits()
    for number in range(2000):
        visits.request("GET", "/api/sessions", BROWSER, status=200, client=str(number), now=1.0)
    assert visits.browsers(1.0)[0] <= 256


def with_a_page(now: float) -> Visits:
    """Somebody looks at a page from then on, for half a minute."""
    visits = Visits()
    visits.request("GET", "/api/kernels", BROWSER, status=200, client="a", now=now)
    return visits


@pytest.mark.parametrize("kind", ["execute_request", "complete_request", "inspect_request", "input_reply"])
def test_what_a_person_asks_of_a_kernel_is_input(kind: str) -> None:
    visits = Visits()
    visits.to_kernel("k", kind, False, 7.0)
    assert visits.input_at == 7.0


def test_moving_a_widget_is_input_while_somebody_can_see_it() -> None:
    """One that plays goes on in a page that nobody sees."""
    visits = with_a_page(0.0)
    for now, seen in ((7.0, 7.0), (29.0, 29.0), (31.0, 29.0)):
        visits.to_kernel("k", "comm_msg", False, now)
        assert visits.input_at == seen


@pytest.mark.parametrize(
    ("kind", "silent"),
    [("kernel_info_request", False), ("comm_info_request", False), ("execute_request", True), ("comm_open", False)],
)
def test_what_a_page_asks_by_itself_is_none(kind: str, silent: bool) -> None:
    visits = Visits()
    visits.to_kernel("k", kind, silent, 7.0)
    assert visits.input_at == 0


def test_the_echo_of_a_widget_is_no_input() -> None:
    visits = with_a_page(9.0)
    visits.spoke("k", 10.0)
    visits.to_kernel("k", "comm_msg", False, 11.0)
    assert visits.input_at == 0
    visits.to_kernel("k", "comm_msg", False, 12.5)
    assert visits.input_at == 12.5
