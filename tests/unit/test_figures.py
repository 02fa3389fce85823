"""What the log says in figures."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from chalicelib import figures
from chalicelib.model import Failure, Stop
from chalicelib.prices import catalogue
from tests.unit.test_rules import a_notebook


def test_a_launch_is_told_in_seconds_by_step_and_in_all() -> None:
    steps = {
        "create_instance": {"started_at": "2026-11-22T20:00:00.000Z", "finished_at": "2026-11-22T20:00:02.500Z"},
        "start_instance": {"started_at": "2026-11-22T20:00:02.500Z"},
    }
    seen = replace(a_notebook(), created_at="2026-11-22T20:00:00Z", ready_at="2026-11-22T20:02:00Z", steps=steps)
    assert figures.of(seen, "ready") == {"seconds": {"create_instance": 2.5, "launch": 120.0}}


def test_a_stop_is_told_with_why() -> None:
    assert figures.of(replace(a_notebook(), stop=Stop("idle", "idle since", "sweep")), "stopped") == {"code": "idle"}


def test_a_failure_is_told_with_why() -> None:
    failed = replace(a_notebook(), error=Failure("no_capacity", "EC2 has none."))
    assert figures.of(failed, "failed") == {"code": "no_capacity"}


def test_what_is_not_known_is_left_out() -> None:
    assert figures.of(None, "ready") == {}
    assert figures.of(a_notebook(), "stopped") == {}
    assert figures.of(a_notebook(), "failed") == {}
    assert figures.of(a_notebook(), "warned") == {}


NOW = datetime(2026, 11, 22, 20, tzinfo=UTC)


def fleet(**changes: Any) -> dict[str, object]:
    running = {"state": "ready", "due_at": "2026-11-22T20:05:00Z", "run_started_at": "2026-11-22T10:00:00Z"}
    return figures.fleet([replace(a_notebook(), **{**running, **changes})], catalogue(), "us-east-1", NOW)


def test_what_runs_is_counted_with_its_price_and_what_is_off_is_not() -> None:
    assert fleet() == {"notebooks": 1, "usd_per_hour": 0.04989, "overdue": 0}
    assert fleet(state="stopped") == {"notebooks": 0, "usd_per_hour": 0.0, "overdue": 0}


@pytest.mark.parametrize(
    ("changes", "late"),
    [
        ({"due_at": "2026-11-22T19:31:00Z"}, 0),
        ({"due_at": "2026-11-22T19:29:00Z"}, 1),
        ({"max_hours": 9}, 1),
        ({"max_hours": 9, "hold_until": "2026-11-22T21:00:00Z"}, 0),
        ({"max_hours": 10}, 0),
    ],
)
def test_late_is_what_nobody_looked_at_or_what_runs_on_after_its_limit(changes: dict[str, Any], late: int) -> None:
    assert fleet(**changes)["overdue"] == late
