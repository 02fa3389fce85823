"""What a person does in an app behind the login, and what its page does by itself, as traces of days."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable, Iterable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instance.files.rhythm import Content, Talk, Traffic, place_of, plain_path
from instance.files.visits import Visits

HOUR = 3600.0
LIMIT = 30 * 60.0
PAGE = {"Host": "n:8888", "Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"}
JSON_PAGE = {**PAGE, "Content-Type": "application/json"}
APP = "/proxy/8050/"


def at_even_times(period: float, jitter: float = 0.0, hours: float = 3.0, seed: int = 0) -> Iterator[float]:
    """A timer's: `setInterval`."""
    rng, count = random.Random(seed), 0
    while count * period < hours * HOUR:
        yield 1000.0 + count * period + rng.uniform(0, jitter * period)
        count += 1


def after_each_answer(period: float, latency: Callable[[random.Random], float], hours: float = 3.0) -> Iterator[float]:
    """A timer's that is set again when the answer is there."""
    rng, now = random.Random(1), 1000.0
    while now < 1000.0 + hours * HOUR:
        yield now
        now += period + latency(rng)


def person(seed: int, hours: float = 1.5) -> Iterator[float]:
    """Clicks as people make them: some seconds apart, at times minutes."""
    rng, now = random.Random(seed), 1000.0
    while now < 1000.0 + hours * HOUR:
        yield now
        now += rng.lognormvariate(1.8, 0.9) if rng.random() < 0.95 else rng.uniform(60, 600)


class Tab:
    """A browser at an app."""

    def __init__(self, client: str = "a") -> None:
        self.visits = Visits()
        self.client = client

    def asks(
        self,
        at: float,
        method: str = "GET",
        path: str = APP + "data",
        body: object = None,
        headers: dict[str, str] | None = None,
        *,
        status: int = 200,
        seconds: float = 0.01,
    ) -> None:
        sent = b"" if body is None else body.encode() if isinstance(body, str) else json.dumps(body).encode()
        given = headers if headers is not None else PAGE if method == "GET" else JSON_PAGE
        self.visits.request(
            method, path, given, status=status, client=self.client, now=at + seconds, began=at, body=sent
        )

    def idle(self, now: float) -> float:
        return now - self.visits.input_at


def longest_idle(tab: Tab, events: Iterable[tuple[float, Callable[[], None]]], until: float) -> float:
    """The longest time that nobody seemed to be there, from the first event on."""
    longest, first = 0.0, None
    for at, do in sorted(events, key=lambda event: event[0]):
        if first is not None:
            longest = max(longest, at - max(first, tab.visits.input_at))
        do()
        first = at if first is None else first
    return max(longest, until - max(first or 0.0, tab.visits.input_at))


def dash_interval(count: int) -> dict[str, object]:
    return {
        "output": "graph.figure",
        "inputs": [{"id": "tick", "property": "n_intervals", "value": count}],
        "changedPropIds": ["tick.n_intervals"],
    }


def dash_click(count: int) -> dict[str, object]:
    return {
        "output": "graph.figure",
        "inputs": [{"id": "go", "property": "n_clicks", "value": count}],
        "changedPropIds": ["go.n_clicks"],
    }


Play = Callable[[Tab, float, int], None]
ALONE: dict[str, tuple[Iterable[float], Play]] = {
    "a poll each two seconds": (at_even_times(2, hours=1), lambda tab, at, _: tab.asks(at)),
    "a poll of a tab in the background": (at_even_times(60, 0.02), lambda tab, at, _: tab.asks(at)),
    "a keep-alive each twenty minutes": (at_even_times(1200, 0.001, 12), lambda tab, at, _: tab.asks(at, "POST")),
    "a poll over a bad line": (at_even_times(5, 0.3), lambda tab, at, _: tab.asks(at)),
    "a poll that waits for slow answers": (
        after_each_answer(2, lambda rng: rng.lognormvariate(-1, 0.7), 1),
        lambda tab, at, _: tab.asks(at, seconds=0.05),
    ),
    "Dash's interval": (
        at_even_times(3, 0.02, 1),
        lambda tab, at, n: tab.asks(at, "POST", APP + "_dash-update-component", dash_interval(n)),
    ),
    "a page that reloads itself": (
        at_even_times(30, 0.01),
        lambda tab, at, _: tab.asks(at, headers={**PAGE, "Sec-Fetch-Mode": "navigate", "Accept": "text/html"}),
    ),
    "pictures of a camera, each with a name of its own": (
        at_even_times(1, 0.05),
        lambda tab, at, n: tab.asks(at, path=f"{APP}frames/{n}.jpg", headers={**PAGE, "Sec-Fetch-Dest": "image"}),
    ),
    "an app that has ended": (
        after_each_answer(1, lambda rng: rng.uniform(0, 20)),
        lambda tab, at, _: tab.asks(at, "POST", status=500),
    ),
    "a stream that is opened again and again": (
        person(4),
        lambda tab, at, _: tab.asks(at, headers={**PAGE, "Accept": "text/event-stream"}),
    ),
    "a prober without a browser": (at_even_times(30, 0.1), lambda tab, at, _: tab.asks(at, headers={"Host": "n:8888"})),
    "a page of another site": (
        person(5),
        lambda tab, at, _: tab.asks(at, headers={**PAGE, "Sec-Fetch-Site": "cross-site"}),
    ),
    "a websocket that is refused": (
        person(6),
        lambda tab, at, _: tab.asks(at, headers={**PAGE, "Sec-Fetch-Mode": "websocket"}, status=101),
    ),
    "git's status, each ten seconds": (
        at_even_times(10, 0.05),
        lambda tab, at, _: tab.asks(at, "POST", "/git/home/status", {}),
    ),
}


@pytest.mark.parametrize("what", ALONE)
def test_a_forgotten_tab_is_nobody(what: str) -> None:
    times, play = ALONE[what]
    tab, moments = Tab(), list(times)
    events = [(at, lambda at=at, n=n: play(tab, at, n)) for n, at in enumerate(moments)]
    for _, do in events:
        do()
    used = tab.visits.input_at - moments[0]
    assert used <= max(120, 2.1 * (moments[1] - moments[0])), f"somebody seems to have been there {used:.0f} s later"


def test_a_poll_that_the_server_holds_open_is_nobody() -> None:
    """As RStudio's and socket.io's: the next is asked as soon as the one before is answered, whenever that is."""
    tab, rng, now = Tab(), random.Random(7), 1000.0
    while now < 1000.0 + HOUR:
        held = rng.choice([50.0, rng.uniform(1, 50)])
        tab.asks(now, "POST", "/rstudio/events/get_events", {"id": 1}, seconds=held)
        now += held + rng.uniform(0.01, 0.3)
    assert tab.visits.input_at < 1000.0 + 10 * 50


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "click",
    [
        lambda tab, at, n: tab.asks(at, "POST", APP + "api/vote", {"choice": n % 5}),
        lambda tab, at, _: tab.asks(at, path=APP + "next"),
        lambda tab, at, n: tab.asks(at, "POST", APP + "_dash-update-component", dash_click(n)),
        lambda tab, at, n: tab.asks(at, "PUT", f"/mlflow/api/{n}", {"name": "x"}),
        lambda tab, at, n: tab.asks(at, path=f"/files/pictures/{n}.png", headers={**PAGE, "Sec-Fetch-Dest": "image"}),
    ],
    ids=["vote", "next", "dash", "put", "pictures"],
)
def test_a_person_who_clicks_is_there(seed: int, click: Play) -> None:
    tab = Tab()
    moments = list(person(seed))
    events = [(at, lambda at=at, n=n: click(tab, at, n)) for n, at in enumerate(moments)]
    assert longest_idle(tab, events, moments[-1]) < LIMIT * 0.7


@pytest.mark.parametrize("seed", range(3))
def test_a_person_is_seen_beside_the_polls_of_their_own_page(seed: int) -> None:
    """Also when they send just what the page sends by itself (Streamlit, Dash)."""
    tab = Tab()
    moments = list(person(seed))
    poll = [
        (at, lambda at=at: tab.asks(at, "POST", APP + "_dash-update-component", dash_interval(1)))
        for at in at_even_times(4, 0.01, 1.5)
    ]
    same = [
        (at, lambda at=at: tab.asks(at, "POST", APP + "_dash-update-component", dash_interval(2))) for at in moments
    ]
    assert longest_idle(tab, poll + same, moments[-1]) < LIMIT * 0.7


@pytest.mark.parametrize("offset", [0.02, 0.4, 1.0, 1.97])
def test_two_forgotten_tabs_of_one_browser_are_nobody(offset: float) -> None:
    tab = Tab()
    # The second one's timer is a little slower: it comes at another time of the first one's again and again.
    second = (1000.0 + offset + n * 2.0013 for n in range(1500))
    for at in sorted([*at_even_times(2, 0.01, 0.8), *second]):
        tab.asks(at)
    assert tab.visits.input_at < 1000.0 + 120


def test_a_form_is_a_persons_however_even() -> None:
    """157 clicks, one each 15 seconds, by browsers of today and of before, and whatever the app answers."""
    form = {"Host": "n:8888", "Content-Type": "application/x-www-form-urlencoded"}
    for headers in (form, {**form, **PAGE, "Sec-Fetch-Mode": "navigate"}, {**form, "Accept": "text/html"}):
        for status in (200, 302, 422, 500):
            tab = Tab()
            for n in range(157):
                at = 1000.0 + 15 * n
                tab.asks(at, "POST", APP + "form", "a=1", headers, status=status)
                assert tab.idle(at) <= 0.01
    tab = Tab()
    tab.asks(1000.0, "POST", APP + "form", "a=1", form, status=403)
    assert tab.visits.input_at == 0, "the server itself refused it"


def test_what_a_browser_marks_as_a_persons_is_a_persons_however_even() -> None:
    tab = Tab()
    for at in at_even_times(60):
        headers = {**PAGE, "Sec-Fetch-Mode": "navigate", "Sec-Fetch-User": "?1", "Sec-Fetch-Dest": "document"}
        tab.asks(at, path="/files/a.html", headers=headers)
        assert tab.idle(at) <= 0.01


def test_a_program_that_writes_to_an_app_is_somebodys_and_an_old_browsers_page_is_told_by_its_rhythm() -> None:
    program, page = (
        {"Host": "n:8888"},
        {"Host": "n:8888", "Referer": "https://n:8888/proxy/8050/", "Origin": "https://n:8888"},
    )
    for headers, there in ((program, True), (page, False)):
        tab = Tab()
        for at in at_even_times(10, hours=1):
            tab.asks(at, "POST", APP + "log", {"loss": 0.5}, headers)
        assert (tab.idle(at) <= 0.01) is there


def test_whoever_waits_for_a_large_file_is_there() -> None:
    tab = Tab()
    for headers, there in (
        ({**PAGE, "Sec-Fetch-Mode": "navigate", "Sec-Fetch-User": "?1"}, True),
        (PAGE, False),
        ({**PAGE, "Accept": "text/event-stream"}, False),
    ):
        tab.visits.input_at = 0.0
        tab.visits.goes_on("GET", "/files/large.bin", headers, 500.0)
        assert (tab.visits.input_at == 500.0) is there


def test_what_nobody_wrote_before_is_a_persons_however_even() -> None:
    tab = Tab()
    words = ["".join(pair) for pair in itertools.product("abcdefghij", repeat=3)]
    for at, word in zip(at_even_times(10, hours=1), words, strict=False):
        tab.asks(at, "POST", APP + "chat", {"text": word})
        assert tab.idle(at) <= 0.01


def talk(tab: Tab, path: str = APP + "_stcore/stream", at: float = 900.0) -> Talk:
    return Talk(tab.client, path, at)


def drive(tab: Tab, socket: Talk, events: Iterable[tuple[float, bytes | str | None]]) -> list[float]:
    """Messages of the page, and what the server sends (None), judged each two seconds; when somebody was there."""
    seen, due = [], 0.0
    for at, sent in sorted(events, key=lambda event: event[0]):
        if at >= due:
            before = tab.visits.input_at
            tab.visits.talked(socket)
            due = at + 2
            if tab.visits.input_at > before:
                seen.append(tab.visits.input_at)
        if sent is None:
            socket.said(at)
        else:
            socket.heard(sent, at)
    tab.visits.talked(socket)
    return [*seen, tab.visits.input_at]


PINGS: dict[str, Callable[[int], bytes | str]] = {
    "ping": lambda _: "ping",
    "counted": lambda n: json.dumps({"type": "ping", "n": n, "t": 1764460800.0 + n, "id": f"{n * 7919:08x}"}),
    "dated": lambda n: json.dumps({"type": "alive", "at": f"2026-11-29T{n // 60 % 24:02}:{n % 60:02}:00Z"}),
    "binary": lambda n: bytes([9, 0, 0, n % 256, n // 256]),
}


@pytest.mark.parametrize("ping", PINGS)
@pytest.mark.parametrize("period", [0.5, 5.0, 25.0, 300.0])
def test_a_websocket_that_only_keeps_alive_is_nobody(ping: str, period: float) -> None:
    tab = Tab()
    events = [(at, PINGS[ping](n)) for n, at in enumerate(at_even_times(period, 0.03, period / 5 if period < 5 else 3))]
    assert drive(tab, talk(tab), events)[-1] < 1000.0 + max(60, 4.2 * period)


def test_a_page_that_answers_a_server_is_nobody() -> None:
    """Acknowledgements, and remote desktops that ask for the next picture: whenever the server has news."""
    tab, rng = Tab(), random.Random(2)
    events: list[tuple[float, bytes | str | None]] = []
    for at in person(11):
        events += [(at, None), (at + rng.uniform(0.02, 0.4), b"\x03\x01\x00\x00\x00\x00")]
    assert drive(tab, talk(tab), events)[-1] < 1000.0 + 600


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("pushes", [0.0, 0.2, 7.0])
def test_a_person_who_sends_messages_is_there(seed: int, pushes: float) -> None:
    """Whatever the server sends: nothing, many pictures a second, something now and then; and it answers each."""
    tab, rng = Tab(), random.Random(seed)
    events: list[tuple[float, bytes | str | None]] = []
    for at in person(seed):
        events += [(at, b"\x5a\x20" + rng.randbytes(rng.randint(20, 60))), (at + 0.2, None), (at + 0.6, None)]
    if pushes:
        events += [(at, None) for at in at_even_times(pushes, 0.5, 1.5)]
    seen = [1000.0, *drive(tab, talk(tab), events)]
    assert max(later - sooner for sooner, later in itertools.pairwise(seen)) < LIMIT * 0.7


@pytest.mark.parametrize("seed", range(3))
def test_a_person_is_seen_beside_the_keep_alives_of_their_own_socket(seed: int) -> None:
    tab = Tab()
    events: list[tuple[float, bytes | str | None]] = [(at, "ping") for at in at_even_times(10, 0.02, 1.5)]
    events += [(at, json.dumps({"event": "select", "row": n})) for n, at in enumerate(person(seed))]
    seen = [1000.0, *drive(tab, talk(tab), events)]
    assert max(later - sooner for sooner, later in itertools.pairwise(seen)) < LIMIT * 0.7


def test_a_page_that_reconnects_is_nobody() -> None:
    tab = Tab()
    for at in person(8):
        socket = talk(tab, f"{APP}ws/{int(at):08x}", at)
        drive(tab, socket, [(at + 0.1, json.dumps({"hello": str(at)})), (at + 2, "subscribe")])
    assert tab.visits.input_at == 0


@settings(deadline=None, max_examples=25)
@given(
    st.floats(0.3, 120),
    st.floats(0, 0.08),
    st.integers(0, 2**16),
    st.lists(st.tuples(st.floats(0, 1800), st.floats(0.1, 30)), max_size=3),
)
def test_whatever_its_period_and_however_the_line_stalls_a_timer_is_nobody(
    period: float, jitter: float, seed: int, stalls: list[tuple[float, float]]
) -> None:
    """What waits for a stalled line arrives when the line is there again."""
    tab = Tab()
    for at in at_even_times(period, jitter, min(1.2, period / 3), seed):
        late = max([at, *(1000 + start + length for start, length in stalls if start <= at - 1000 < start + length)])
        tab.asks(late)
    allowed = [1000.0 + 10 * period, *(1000 + start + length + 10 * period for start, length in stalls)]
    assert any(seen - 60 <= limit and tab.visits.input_at <= limit + 60 for seen, limit in zip(allowed, allowed))  # noqa: B905


@settings(deadline=None, max_examples=25)
@given(st.floats(0.5, 2.5), st.floats(0.6, 1.2), st.integers(0, 2**16))
def test_whoever_clicks_unevenly_is_there(mean: float, spread: float, seed: int) -> None:
    tab, rng, now, longest = Tab(), random.Random(seed), 1000.0, 0.0
    while now < 1000.0 + HOUR:
        longest = max(longest, now - max(1000.0, tab.visits.input_at))
        tab.asks(now, "POST", APP + "api", {"n": 1})
        now += rng.lognormvariate(mean, spread)
    assert longest < LIMIT / 2


def test_who_moves_a_widget_in_a_page_that_does_not_poll_is_there_and_one_that_plays_is_nobody() -> None:
    """voila's pages ask for nothing but what the kernel says."""
    moved = Tab()
    for at in person(3, hours=1):
        moved.visits.to_kernel("k", "comm_msg", False, at, b'{"comm_id": "a1b2", "data": {"state": {"value": 7}}}')
    assert moved.visits.input_at > 1000.0 + HOUR - 600
    playing = Tab()
    for n, at in enumerate(at_even_times(0.1, 0.05, 0.5)):
        state = json.dumps({"comm_id": "a1b2", "data": {"state": {"value": n % 100}}}).encode()
        playing.visits.to_kernel("k", "comm_msg", False, at, state)
    assert playing.visits.input_at < 1000.0 + 60


def test_many_messages_cost_little() -> None:
    """Of what passes between two looks the last count: a remote desktop sends each move of the mouse."""
    traffic, socket = Traffic(), Talk("a", APP, 0.0)
    for n in range(20_000):
        socket.heard(b"\x05" + bytes(5), 100.0 + n / 10_000)
    assert socket.judge(traffic) > 0
    assert socket.judge(traffic) == 0


def test_memory_has_bounds() -> None:
    traffic = Traffic()
    for n in range(2500):
        traffic.request(str(n), "POST", f"/x{n}/", Content.of(b"a" * 100_000), begin=float(n), end=float(n))
    assert len(traffic._trains) <= 1024
    assert len(traffic._places) <= 128


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("/proxy/8501/a/b", "proxy/8501"),
        ("/proxy/absolute/8501/a", "proxy/absolute/8501"),
        ("/rstudio/events", "rstudio"),
        ("/", ""),
    ],
)
def test_an_app_is_known_by_its_path(path: str, place: str) -> None:
    assert place_of(path) == place


def test_identifiers_in_paths_are_left_out() -> None:
    assert plain_path("/lsp/ws/pylsp") == "/lsp/ws/pylsp"
    assert plain_path("/x/0a1b2c3d4e/data/17") == "/x/*/data/17"
    assert (
        Content.of(b'{"a": 17, "when": "2026-11-29T00:00:00Z"}').form() == Content.of(b'{"a": 8, "when": "1"}').form()
    )
    assert Content.of(b'{"a": "b"}').form() != Content.of(b'{"a": "c"}').form()
