"""The client's rules: no network, no clock."""

from __future__ import annotations

import ast
import io
import os
import time
import tomllib
import unicodedata
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

import nod
from chalicelib.model import StepState
from chalicelib.notebook import life
from nod import config, ledger, passwords, show, states, steps, text, wait
from nod.errors import BadAnswerError, UsageError
from nod.model import Event, Notebook, Notification, Step, Stop, warnings_of
from nod.output import Output
from nod.retry import Patience, retry_after
from nod.view import FANCY, Sight, frame

NOW = datetime(2026, 1, 2, 12, 0, 0, tzinfo=UTC)
ROOT = Path(__file__).parents[2]


def test_the_version_is_the_projects() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == nod.__version__


def test_the_client_knows_the_product_by_its_api_only() -> None:
    imported = set()
    for path in (ROOT / "nod").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0
                imported.add((node.module or "").split(".")[0])
    assert "httpx" in imported
    assert not imported & {"chalicelib", "app", "local", "admin", "instance", "boto3", "chalice"}


def test_the_client_has_the_products_states() -> None:
    assert [state.value for state in states.State] == [state.value for state in life.State]
    assert [state.value for state in states.StepState] == [state.value for state in StepState]


@pytest.mark.parametrize("name", ["LAUNCHING", "MOVING", "OVER", "ENDED"])
def test_the_client_has_the_products_sets_of_states(name: str) -> None:
    assert getattr(states, name) == getattr(life, name)


def test_the_client_says_that_nobody_answers_where_no_machine_is_up_or_coming() -> None:
    assert set(life.State) - states.NOBODY_ANSWERS == life.LAUNCHING | life.EXTENDABLE


class TestText:
    @given(st.text())
    def test_nothing_that_steers_a_terminal_is_left(self, value: str) -> None:
        cleaned = text.clean(value)
        assert not any(unicodedata.category(c) in {"Cc", "Cf", "Cs", "Zl", "Zp"} for c in cleaned)
        cleaned.encode()

    def test_escape_sequences_show_as_plain_text(self) -> None:
        assert text.clean("\x1b]0;evil\x07a\x9b31mb\r\nc\u202ed\x7f") == "]0;evila31mb  cd"

    def test_plain_text_stays_as_it_is(self) -> None:
        assert text.clean("Größe: 30 GiB, 東京 ✓") == "Größe: 30 GiB, 東京 ✓"

    def test_a_flood_is_cut(self) -> None:
        assert text.clean("x" * 100_000) == "x" * text.MOST_CHARACTERS + "…"

    @pytest.mark.parametrize(
        ("value", "words"),
        [(0.04, "0.0 s"), (2.14, "2.1 s"), (9.94, "9.9 s"), (9.96, "10 s"), (125, "125 s")],
    )
    def test_seconds(self, value: float, words: str) -> None:
        assert text.seconds(value) == words

    def test_clock(self) -> None:
        assert [text.clock(s) for s in (0, 65.9, 3725)] == ["0:00", "1:05", "1:02:05"]

    def test_span(self) -> None:
        assert [text.span(s) for s in (0, 40, 720, 7500, 7200, 273600)] == [
            "0 s", "40 s", "12 min", "2 h 5 min", "2 h", "3 d 4 h",
        ]  # fmt: skip
        # From a minute on seconds say nothing.
        assert [text.span(s) for s in (59.9, 60, 119, 3659)] == ["59 s", "1 min", "1 min", "1 h"]

    def test_distance(self) -> None:
        found = [text.distance(NOW + timedelta(seconds=s), NOW) for s in (1400, 0.5, -0.5, -45, -12000)]
        assert found == ["in 23 min", "now", "now", "45 s ago", "3 h 20 min ago"]
        assert [text.since(NOW - timedelta(seconds=s), NOW) for s in (12000, 45, -9)] == [
            "3 h ago",
            "45 s ago",
            "0 s ago",
        ]


class TestRetry:
    def test_pauses_grow_to_15_seconds(self) -> None:
        patience = Patience(attempts=None, budget=1e9)
        delays = [patience.delay(n, 0, None, 0.5) for n in range(1, 9)]
        assert delays == [0.5, 1, 2, 4, 8, 15, 15, 15]

    def test_gives_up_after_the_last_attempt(self) -> None:
        patience = Patience(attempts=3, budget=100)
        assert patience.delay(2, 1, None, 0) is not None
        assert patience.delay(3, 1, None, 0) is None

    def test_gives_up_when_the_next_try_would_be_over_the_budget(self) -> None:
        patience = Patience(attempts=None, budget=10)
        assert patience.delay(1, 9.4, None, 0.5) == 0.5
        assert patience.delay(1, 9.6, None, 0.5) is None
        assert patience.delay(1, 0, 11, 0.5) is None

    @given(st.integers(1, 100_000), st.floats(0, 1), st.none() | st.floats(0, 600))
    def test_never_sooner_than_the_server_asks(self, attempt: int, jitter: float, asked: float | None) -> None:
        delay = Patience(attempts=None, budget=1e9).delay(attempt, 0, asked, jitter)
        assert delay is not None
        assert max(asked or 0, 0.375) <= delay <= max(asked or 0, 18.75)

    @pytest.mark.parametrize(
        ("header", "seconds"),
        [
            ("7", 7.0),
            (" 0 ", 0.0),
            ("Fri, 02 Jan 2026 12:00:30 GMT", 30.0),
            ("Fri, 02 Jan 2026 11:00:00 GMT", 0.0),
            ("soon", None),
            ("-3", None),
            ("", None),
            (None, None),
            ("9" * 400, 999999999.0),
        ],
    )
    def test_retry_after(self, header: str | None, seconds: float | None) -> None:
        assert retry_after(header, NOW) == seconds

    def test_looks_every_second_at_first_and_every_three_later(self) -> None:
        assert [wait.interval(s) for s in (-1, 0, 30, 60, 600)] == [1, 1, 2, 3, 3]


class TestSteps:
    @given(st.floats(0, 1e6), st.floats(0, 1e6), st.floats(1, 1e4))
    def test_an_estimate_never_falls_and_is_never_whole(self, a: float, b: float, typical: float) -> None:
        first, second = sorted((a, b))
        low, high = (steps.estimated_share(moment, typical) for moment in (first, second))
        assert 0 <= low <= high <= 0.99

    def test_an_unknown_step_is_made_readable(self) -> None:
        assert steps.title("attach_volume") == "Attach Volume"
        assert steps.title("configure_tls") == "Configure TLS"

    def test_branches_stand_in_one_row(self) -> None:
        names = [*steps.TITLES, "say_hello"]
        found = steps.rows([Step(name, "waiting") for name in names])
        assert [[[step.name for step in lane] for lane in row] for row in found] == [
            [["create_instance"]],
            [["start_instance"]],
            [["prepare_instance"]],
            [["install_anaconda"], ["configure_tls", "start_monitor"]],
            [["configure_notebook"]],
            [["say_hello"]],
        ]

    def test_without_one_branch_there_are_no_lanes(self) -> None:
        found = steps.rows([Step("install_anaconda", "waiting"), Step("say_hello", "waiting")])
        assert len(found) == 2
        assert all(len(row) == 1 for row in found)

    def test_seconds_of_a_step(self) -> None:
        began = NOW - timedelta(seconds=12)
        assert Step("x", "waiting").seconds(NOW) is None
        assert Step("x", "running", began).seconds(NOW) == 12
        assert Step("x", "done", began, began + timedelta(seconds=3)).seconds(NOW) == 3
        assert Step("x", "failed", began).seconds(NOW) is None
        assert Step("x", "running", NOW + timedelta(seconds=5)).seconds(NOW) == 0


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
FIELDS = (
    "id", "name", "state", "steps", "url", "link", "certificate_sha256", "idle_minutes", "max_hours", "created_at",
    "last_active_at", "last_activity", "disk", "stops_at", "hold_until", "stopped_at", "stop", "cost", "notifications",
    "error",
)  # fmt: skip
STATES = tuple(states.State)


class TestNotebook:
    @given(st.fixed_dictionaries({}, optional=dict.fromkeys(FIELDS, JSON)) | JSON)
    def test_any_json_is_a_notebook_or_a_bad_answer(self, document: object) -> None:
        try:
            notebook = Notebook.from_json(document)
        except BadAnswerError:
            return
        assert notebook.id
        assert notebook.state

    @given(
        st.lists(
            st.fixed_dictionaries({"name": st.text(min_size=1), "state": st.text(min_size=1)}, optional={
                "started_at": st.datetimes().map(datetime.isoformat) | JSON, "detail": JSON,
            }),
            max_size=4,
        ),
        st.integers(20, 120),
        st.booleans(),
    )  # fmt: skip
    def test_any_steps_can_be_drawn(self, entries: list[object], width: int, fancy: bool) -> None:
        notebook = Notebook.from_json({"id": "nb-1", "state": "launching", "steps": entries})
        drawn = draw(notebook, 5.0, width=width, fancy=fancy)
        assert "nb-1" in drawn
        assert "\x1b" not in drawn

    def test_unknown_is_none(self) -> None:
        notebook = Notebook.from_json({"id": "nb-1", "state": "ready", "cost": {"per_hour": None}, "url": None})
        assert (notebook.url, notebook.per_hour, notebook.stops_at, notebook.error_code) == (None,) * 4
        assert show.price(notebook) == "not known for this type and region"

    @pytest.mark.parametrize("value", ["NaN", "Infinity", "a lot", True, [], float("nan")])
    def test_a_price_that_is_no_number_is_not_known(self, value: object) -> None:
        assert Notebook.from_json({"id": "i", "state": "s", "cost": {"per_hour": value}}).per_hour is None

    @pytest.mark.parametrize("value", ["0.0499", 0.0499])
    def test_price(self, value: object) -> None:
        cost = {"currency": "USD", "per_hour": value, "so_far": "1.10"}
        notebook = Notebook.from_json({"id": "i", "state": "s", "cost": cost})
        assert show.price(notebook) == "USD 0.0499 an hour while it runs; USD 1.1 so far"

    def test_stops(self) -> None:
        notebook = Notebook("nb-1", "ready", stops_at=NOW + timedelta(hours=3, minutes=5))
        assert show.stops(notebook, NOW).endswith(" at the earliest (in 3 h 5 min)")
        assert show.stops(notebook, NOW + timedelta(hours=4)).endswith("(due)")

    def test_where_no_stop_is_known_the_rule_is_told(self) -> None:
        assert show.stops(Notebook("nb-1", "launching", idle_minutes=90), NOW) == "after 1 h 30 min without use"
        both = Notebook("nb-1", "launching", idle_minutes=60, max_hours=8)
        assert show.stops(both, NOW) == "after 1 h without use; 8 h after its start in any case"
        assert show.stops(Notebook("nb-1", "ready"), NOW) == "not known"

    def test_why_it_stopped(self) -> None:
        assert show.why_stopped(Stop("idle", "idle since 14:05", "sweep")) == "idle since 14:05 (by itself)"
        assert show.why_stopped(Stop("asked", None, "ada")) == "asked (by ada)"
        assert show.why_stopped(Stop(by="monitor")) == "by its own machine"
        assert show.why_stopped(Stop()) is None

    @pytest.mark.parametrize(
        ("notebook", "words"),
        [
            (Notebook("i", "ready", stops_at=NOW + timedelta(minutes=23)), "in 23 min"),
            (Notebook("i", "ready", stops_at=NOW), "due"),
            (Notebook("i", "ready", stops_at=NOW + timedelta(hours=2), hold_until=NOW), "in 2 h"),
            (
                Notebook("i", "ready", stops_at=NOW + timedelta(hours=2), hold_until=NOW + timedelta(hours=1)),
                "in 2 h, held",
            ),
            (Notebook("i", "ready"), "-"),
            (Notebook("i", "starting", stops_at=NOW + timedelta(hours=2), stopped_at=NOW, stop=Stop("idle")), "-"),
            (Notebook("i", "stopping", stop=Stop("limit")), "now: limit"),
            (Notebook("i", "stopped", stopped_at=NOW - timedelta(hours=3), stop=Stop("idle")), "3 h ago: idle"),
            (Notebook("i", "stopped", stopped_at=NOW - timedelta(hours=3)), "3 h ago"),
            (Notebook("i", "stopped"), "-"),
        ],
    )
    def test_stops_in_a_cell(self, notebook: Notebook, words: str) -> None:
        assert show.stops_briefly(notebook, NOW) == words

    @given(st.fixed_dictionaries({}, optional=dict.fromkeys(FIELDS, JSON)), st.sampled_from(STATES))
    def test_any_notebook_can_be_shown(self, document: dict[str, object], state: str) -> None:
        notebook = Notebook.from_json(document | {"id": "nb-1", "state": state})
        stream = io.StringIO()
        output = Output(as_json=False, stdout=stream)
        show.block(output, notebook, NOW)
        show.table(output, [notebook], NOW)
        assert "nb-1" in stream.getvalue()
        assert "\x1b" not in stream.getvalue()

    def test_the_table_fits_a_small_terminal(self) -> None:
        stream = io.StringIO()
        output = Output(as_json=False, stdout=stream)
        output.console = Console(file=stream, width=80)
        notebook = Notebook(
            "nb-0123456789abcdef0123", "stopped", name="thesis", instance_type="t3.medium", currency="USD",
            so_far=Decimal("0.2412"), stopped_at=NOW - timedelta(hours=3), stop=Stop("idle"),
        )  # fmt: skip
        show.table(output, [notebook], NOW)
        assert [line.rstrip() for line in stream.getvalue().splitlines()] == [
            "NAME    ID                       STATE    TYPE       STOPS          SO FAR",
            "thesis  nb-0123456789abcdef0123  stopped  t3.medium  3 h ago: idle  USD 0.24",
        ]

    def test_a_small_cost_is_not_none(self) -> None:
        stream = io.StringIO()
        output = Output(as_json=False, stdout=stream)
        show.table(output, [Notebook("nb-1", "ready", currency="USD", so_far=Decimal("0.0004"))], NOW)
        assert "< USD 0.01" in stream.getvalue()

    @pytest.mark.parametrize(
        ("zone", "words"),
        [("UTC", "9999-12-31 23:00"), ("UTC-9", "9999-12-31 23:00"), ("UTC+9", "9999-12-31 14:00")],
    )
    def test_stops_in_the_readers_time_zone(self, zone: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """POSIX counts zones westwards. East of UTC this moment is in year 10000, which Python has not."""
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        try:
            moment = datetime(9999, 12, 31, 23, tzinfo=UTC)
            assert show.stops(Notebook("nb-1", "ready", stops_at=moment), NOW).startswith(words + " at the earliest")
        finally:
            monkeypatch.undo()
            time.tzset()

    def test_an_unconfirmed_address_is_asked_to_confirm(self) -> None:
        assert "asks to confirm" in show.told(Notification("email", "unconfirmed"), "ready")
        assert show.told(Notification("slack:team", "pending"), "ready") == "slack:team: being sent"
        assert "when the notebook is ready" in show.told(Notification("email", "pending"), "launching")
        assert show.told(Notification("email", "carved in stone"), "ready") == "email: carved in stone"

    def test_warnings_are_sentences(self) -> None:
        assert warnings_of({"warnings": ["a\x1bb", 3, None]}) == ("ab",)
        assert warnings_of({"warnings": "x"}) == ()


class TestLedger:
    def test_signals_in_words(self) -> None:
        found = {
            "heard_at": "2026-01-02T12:00:00Z",
            "idle_minutes": 60,
            "ages": {"input": 3600, "kernel": 0, "cpu": 5, "odd": True},
            "unknown": ["gpu", "disk"],
            "facts": {
                "kernels": {"busy": 1, "waiting": 0},
                "cpu_cores": 0.02,
                "busiest": ["python3", "make"],
                "gpu_percent": [],
            },
            "boot_id": "x",
            "beat": 3,
        }
        assert ledger.signals(found) == (
            "kernel now; cpu 5 s ago; input 1 h ago; not known: gpu, disk; kernels 1 busy, 0 waiting; cpu cores 0.02; "
            f"busiest python3, make; gpu percent none; heard at {text.local(NOW)}; idle minutes 60"
        )
        assert ledger.signals({}) == ""

    @given(st.dictionaries(st.text() | st.sampled_from(["ages", "facts", "unknown"]), JSON, max_size=4))
    def test_any_signals_can_be_shown(self, found: dict[str, object]) -> None:
        words = ledger.signals(found)
        assert not any(unicodedata.category(c) in {"Cc", "Cf", "Cs", "Zl", "Zp"} for c in words)

    def test_a_narrow_terminal_breaks_no_word_and_no_time(self) -> None:
        output = Output(as_json=False, stdout=io.StringIO())
        output.console.width = 80
        why = "no input since 2026-01-02T11:05Z and no kernel worked; " * 4
        event = {"at": "2026-01-02T12:00:00Z", "action": "stop", "by": "sweep", "reason": why, "signals": {"cpu": 1}}
        ledger.blocks(output, [Event.from_json(event)])
        lines = output.console.file.getvalue().splitlines()  # type: ignore[attr-defined]
        assert max(map(len, lines)) <= 80
        assert lines == [line.rstrip() for line in lines]
        assert " ".join(" ".join(lines).split()) == f"{text.local(NOW)} stop by sweep Why {why}Signals cpu 1"

    @given(JSON | st.fixed_dictionaries({"action": JSON}, optional=dict.fromkeys(("at", "stops_at", "signals"), JSON)))
    def test_any_json_is_an_event_or_a_bad_answer(self, document: object) -> None:
        try:
            event = Event.from_json(document)
        except BadAnswerError:
            return
        stream = io.StringIO()
        ledger.blocks(Output(as_json=False, stdout=stream), [event])
        assert "\x1b" not in stream.getvalue()

    @pytest.mark.parametrize("at", ["2026-01-02T12:00:00.123Z", "2026-01-02T12:00:00.123Z#0af3"])
    def test_the_key_of_an_event_holds_its_time(self, at: str) -> None:
        assert Event.from_json({"at": at, "action": "keep"}).at == NOW.replace(microsecond=123000)


def test_passwords_that_are_made_differ_and_are_accepted() -> None:
    made = {passwords.generate() for _ in range(100)}
    assert len(made) == 100
    # The API takes 12 to 256 characters.
    assert {len(one) for one in made} == {34}


def draw(notebook: Notebook, moment: float, *, width: int = 80, fancy: bool = True) -> str:
    """The live view as text; the notebook was seen at 0, when the server's clock was at NOW."""
    stream = io.StringIO()
    console = Console(file=stream, width=width, color_system=None)
    console.print(frame(Sight(notebook, -10.0, 0.0, NOW), moment, width, fancy=fancy))
    return stream.getvalue()


class TestView:
    notebook = Notebook(
        "nb-1",
        "launching",
        name="thesis",
        steps=(
            Step("create_instance", "done", NOW - timedelta(seconds=3), NOW - timedelta(seconds=1)),
            Step("install_anaconda", "running", NOW - timedelta(seconds=10), detail="Unpacking"),
            Step("configure_tls", "done", NOW - timedelta(seconds=10), NOW - timedelta(seconds=7)),
            Step("start_monitor", "failed"),
            Step("configure_notebook", "waiting"),
        ),
    )

    def test_the_clocks_run_between_two_answers(self) -> None:
        assert "0:10" in draw(self.notebook, 0)
        later = draw(self.notebook, 80)
        assert "1:30" in later
        assert "90 s" in later
        assert "~45 % estimate" in later

    def test_branches_side_by_side_where_they_fit(self) -> None:
        line = next(line for line in draw(self.notebook, 0, width=80).splitlines() if "Anaconda" in line)
        assert "Configure TLS" in line
        assert len(line) <= 80
        narrow = draw(self.notebook, 0, width=60).splitlines()
        assert not any("Anaconda" in line and "TLS" in line for line in narrow)
        assert all(len(line) <= 60 for line in narrow)

    def test_without_unicode_it_is_ascii(self) -> None:
        assert draw(self.notebook, 3, fancy=False).isascii()
        assert any(c in FANCY for c in draw(self.notebook, 3))

    def test_a_step_that_was_cut_off_has_a_mark_of_its_own(self) -> None:
        cut = Notebook("nb-1", "failed", steps=(Step("configure_tls", "cancelled"), Step("start_monitor", "waiting")))
        for fancy in (True, False):
            tls, monitor = draw(cut, 0, fancy=fancy).splitlines()[-2:]
            assert tls.startswith("  - Configure TLS")
            assert not monitor.startswith("  -")

    def test_lost_connection_is_said(self) -> None:
        stream = io.StringIO()
        sight = Sight(self.notebook, 0, 0, NOW, trouble="Cannot reach it.")
        Console(file=stream, width=80).print(frame(sight, 0, 80, fancy=True))
        assert "Cannot reach it." in stream.getvalue()


class TestSettings:
    @staticmethod
    def load(
        tmp_path: Path,
        *,
        url: str | None = None,
        token_file: str | None = None,
        insecure_http: bool = False,
        **env: str,
    ) -> config.Settings:
        return config.load(
            url=url,
            token_file=token_file,
            insecure_http=insecure_http,
            env=env,
            path=tmp_path / "config.toml",
        )

    @staticmethod
    def write(path: Path, content: str, mode: int = 0o600) -> Path:
        path.write_text(content)
        path.chmod(mode)
        return path

    def test_options_come_before_the_environment_and_the_file(self, tmp_path: Path) -> None:
        self.write(tmp_path / "config.toml", 'url = "https://file"\ntoken = "file"\n')
        from_file = self.load(tmp_path)
        assert (from_file.url, from_file.token) == ("https://file", "file")
        from_env = self.load(tmp_path, NOD_URL="https://env/api/", NOD_TOKEN="env")
        assert (from_env.url, from_env.token) == ("https://env/api", "env")
        option = str(self.write(tmp_path / "token", "option\n"))
        from_option = self.load(
            tmp_path, url="https://option", token_file=option, NOD_URL="https://env", NOD_TOKEN="env"
        )
        assert (from_option.url, from_option.token) == ("https://option", "option")

    def test_each_value_is_found_by_itself(self, tmp_path: Path) -> None:
        self.write(tmp_path / "config.toml", 'token = "file"\n')
        settings = self.load(tmp_path, NOD_URL="https://env", NOD_TOKEN="")
        assert (settings.url, settings.token) == ("https://env", "file")

    def test_a_token_file_is_relative_to_the_configuration(self, tmp_path: Path) -> None:
        self.write(tmp_path / "config.toml", 'url = "https://h"\ntoken_file = "my-token"\n')
        self.write(tmp_path / "my-token", "\ufeff nod.ada.x \n")
        assert self.load(tmp_path).token == "nod.ada.x"

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            ("url = ", "not valid TOML"),
            ('adress = "x"', "unknown key adress"),
            ("url = 3", "url must be a string"),
            ('url = "https://h"', "No token"),
            ('token = "t"', "No address"),
            ('url = "https://h"\ntoken = "two words"', "holds no token"),
            ('url = "https://h"\ntoken_file = "nowhere"', "Cannot read the token file"),
        ],
    )
    def test_an_unusable_file_is_named(self, tmp_path: Path, content: str, words: str) -> None:
        self.write(tmp_path / "config.toml", content)
        with pytest.raises(UsageError, match=words) as caught:
            self.load(tmp_path)
        assert "two words" not in caught.value.message

    @pytest.mark.skipif(os.name != "posix", reason="file modes")
    def test_a_token_that_others_can_read_gets_a_warning(self, tmp_path: Path) -> None:
        path = self.write(tmp_path / "token", "t", mode=0o644)
        settings = self.load(tmp_path, url="https://h", token_file=str(path))
        assert settings.warnings == (f"{path} holds a token and others on this machine can read it: chmod 600 {path}",)
        path.chmod(0o600)
        assert self.load(tmp_path, url="https://h", token_file=str(path)).warnings == ()

    @pytest.mark.parametrize(
        "url",
        ["h", "ftp://h", "https://", "https://u:p@h", "https://h?x=1", "https://h#x", "https://h:99999",
         "https://[::1", "https://hö", "https://a b"],
    )  # fmt: skip
    def test_what_is_no_address_is_refused(self, tmp_path: Path, url: str) -> None:
        with pytest.raises(UsageError):
            self.load(tmp_path, url=url, NOD_TOKEN="t")

    @pytest.mark.parametrize("host", ["example.org", "10.0.0.1", "127.0.0.1.example.org", "0.0.0.0", "localhost.x"])
    def test_http_beyond_this_machine_is_refused(self, tmp_path: Path, host: str) -> None:
        with pytest.raises(UsageError, match="in clear"):
            self.load(tmp_path, url=f"http://{host}:8000", NOD_TOKEN="t")
        settings = self.load(tmp_path, url=f"http://{host}:8000", NOD_TOKEN="t", insecure_http=True)
        assert not settings.loopback

    @pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "[::1]", "localhost"])
    def test_http_on_this_machine_is_fine(self, tmp_path: Path, host: str) -> None:
        assert self.load(tmp_path, url=f"http://{host}:8000", NOD_TOKEN="t").loopback

    def test_the_token_is_not_in_the_repr(self, tmp_path: Path) -> None:
        assert "canary" not in repr(self.load(tmp_path, url="https://h", NOD_TOKEN="canary"))

    def test_where_the_file_is(self, tmp_path: Path) -> None:
        home = Path("/home/ada")
        assert config.config_path({}, home) == Path("/home/ada/.config/nod/config.toml")
        assert config.config_path({"XDG_CONFIG_HOME": "/x"}, home) == Path("/x/nod/config.toml")
        assert config.config_path({"XDG_CONFIG_HOME": "x"}, home) == Path("/home/ada/.config/nod/config.toml")
