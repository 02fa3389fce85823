"""What counts as activity: the thresholds, the ages, what is unknown, and what survives a restart."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instance.files.activity import Activity, Sample

STEP = 5.0
HOUR = 3600.0
CAP = 4 * HOUR
KNOWN: dict[str, Any] = {
    "input_at": 0.0, "kernels": [], "terminals": [], "cpu_seconds": 0.0, "disk_bytes": 0.0, "network_bytes": 0.0,
    "gpu_percent": 0.0, "browsers": (0, 0),
}  # fmt: skip


def watched(*looks: dict[str, Any], step: float = STEP, began: float = 1000.0) -> tuple[Activity, float]:
    """An activity that saw these looks, one each `step` seconds, and the time of the last."""
    activity = Activity(began)
    now = began
    for look in looks:
        now += step
        activity.observe(Sample(now, **{**KNOWN, **look}))
    return activity, now


def steady(minutes: float, step: float = STEP, **rates: float) -> list[dict[str, Any]]:
    """Looks at amounts that flow at so much a second."""
    return [{name: rate * step for name, rate in rates.items()} for _ in range(int(minutes * 60 / step))]


def test_nothing_is_active_on_an_idle_machine() -> None:
    activity, now = watched(*[{}] * 100)
    assert activity.ages(now) == {}
    assert activity.unknown(now) == []
    assert activity.idle_seconds(now, CAP) == 500


@pytest.mark.parametrize(
    ("look", "signal"),
    [
        ({"kernels": [(False, False), (True, False)]}, "kernel"),
        ({"terminals": [(True, True), (True, False)]}, "terminal"),
        ({"gpu_percent": 5.0}, "gpu"),
        ({"browsers": (1, 3)}, "browser"),
        ({"input_at": 1004.0}, "input"),
    ],
)
def test_a_signal_is_as_old_as_when_it_was_last_seen(look: dict[str, Any], signal: str) -> None:
    activity, now = watched({}, look, {}, {})
    assert activity.ages(now) == {signal: 16 if signal == "input" else 10}


@pytest.mark.parametrize(
    "look",
    [
        {"kernels": [(True, True), (False, False)]},
        {"terminals": [(True, True), (False, False)]},
        {"browsers": (0, 2)},
        {"gpu_percent": 4.0},
    ],
)
def test_what_waits_for_a_person_is_not_active(look: dict[str, Any]) -> None:
    activity, now = watched(*[look] * 50)
    assert activity.ages(now) == {}


@pytest.mark.parametrize("step", [1.0, 5.0, 60.0])
@pytest.mark.parametrize(
    ("name", "signal", "work", "noise"),
    [
        ("cpu_seconds", "cpu", 0.12, 0.08),
        ("disk_bytes", "disk", 110 * 1024, 90 * 1024),
        ("network_bytes", "network", 13 * 1024, 11 * 1024),
    ],
)
def test_a_steady_flow_counts_from_its_threshold_on(
    name: str, signal: str, work: float, noise: float, step: float
) -> None:
    active, now = watched(*steady(3, step, **{name: work}), step=step)
    assert active.ages(now) == {signal: 0}
    quiet, now = watched(*steady(3, step, **{name: noise}), step=step)
    assert quiet.ages(now) == {}


@pytest.mark.parametrize("step", [1.0, 5.0, 60.0])
def test_idle_programs_add_up_and_work_stands_out(step: float) -> None:
    """Eight idle workers are no work; three times what one process must use is, whoever uses it."""
    idle = [{"cpu_seconds": 0.28 * step, "busiest_seconds": 0.05 * step}] * int(180 / step)
    assert watched(*idle, step=step)[0].ages(1180.0) == {}
    many = [{"cpu_seconds": 0.32 * step, "busiest_seconds": 0.05 * step}] * int(180 / step)
    assert watched(*many, step=step)[0].ages(1180.0) == {"cpu": 0}
    one = [{"cpu_seconds": 0.16 * step, "busiest_seconds": 0.11 * step}] * int(180 / step)
    assert watched(*one, step=step)[0].ages(1180.0) == {"cpu": 0}


@pytest.mark.parametrize("late", [0.0, 0.05, 0.15, 0.5, 0.95, 1.0])
@pytest.mark.parametrize("period", [30, 60, 120])
def test_a_second_of_computing_again_and_again_is_work(period: int, late: float) -> None:
    looks = [{"cpu_seconds": 1.0 - late}, {"cpu_seconds": late}, *[{}] * (period // 5 - 2)]
    activity, now = watched(*looks * 5)
    assert period - 10 <= activity.ages(now)["cpu"] <= period - 5
    activity, now = watched(*looks * 4)
    assert activity.ages(now) == {}, "a few are a person's last cells, or chance"


def test_a_second_of_computing_now_and_then_is_none() -> None:
    looks = [{"cpu_seconds": 1.0}, *[{}] * 25]
    activity, now = watched(*looks * 50)
    assert activity.ages(now) == {}


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 0.6), st.integers(0, 40)), max_size=30),
    st.floats(0, 0.05),
)
def test_no_short_wake_up_of_a_waiting_program_is_work(wakes: list[tuple[float, int]], level: float) -> None:
    looks = [{"cpu_seconds": 5 * level} for _ in range(41 * 30)]
    for place, (amount, gap) in enumerate(wakes):
        looks[41 * place + gap]["cpu_seconds"] = amount
    activity, now = watched(*looks)
    assert "cpu" not in activity.ages(now)


def test_two_busy_seconds_a_minute_are_bursts_of_work() -> None:
    minute = [{"cpu_seconds": 2.5}, *[{}] * 11]
    activity, now = watched(*minute * 5)
    assert activity.ages(now) == {"cpu": 55}


def test_a_poller_that_wakes_for_half_a_second_each_ten_is_none() -> None:
    activity, now = watched(*[{"cpu_seconds": 0.45}, {}] * 60)
    assert activity.ages(now) == {}


def test_work_that_has_ended_ages_at_once() -> None:
    activity, now = watched(*steady(5, cpu_seconds=4.0), *[{}] * 6)
    assert activity.ages(now) == {"cpu": 30}


def test_a_gap_between_looks_is_judged_by_its_mean() -> None:
    activity = Activity(0.0)
    activity.observe(Sample(600.0, **{**KNOWN, "cpu_seconds": 50.0}))
    assert activity.ages(600.0) == {}
    activity.observe(Sample(1200.0, **{**KNOWN, "cpu_seconds": 70.0}))
    assert activity.ages(1200.0) == {"cpu": 0}


def test_input_in_the_future_counts_as_now() -> None:
    activity, now = watched({"input_at": 9999.0}, {})
    assert activity.ages(now) == {"input": 5}


def test_what_cannot_be_told_is_named_and_is_not_idle() -> None:
    activity, now = watched(*[{}] * 10, {"kernels": None, "cpu_seconds": None}, {})
    assert activity.unknown(now - STEP) == []
    assert activity.idle_seconds(now, CAP) == STEP
    activity.observe(Sample(now + STEP))
    assert activity.unknown(now + STEP) == [
        "input", "kernels", "terminals", "cpu", "disk", "network", "gpu", "browsers",
    ]  # fmt: skip
    assert activity.facts(now + STEP) == {}
    assert activity.idle_seconds(now + STEP, CAP) == 0


def test_a_signal_that_stays_unknown_counts_as_use_for_so_long_and_no_longer() -> None:
    activity, now = watched({"kernels": [(True, False)]}, *[{"network_bytes": None}] * int(6 * HOUR / STEP))
    last = now - 6 * HOUR
    assert activity.idle_seconds(last + CAP, CAP) == 0
    assert activity.idle_seconds(now, CAP) == 2 * HOUR
    activity.observe(Sample(now + STEP, **{**KNOWN, "kernels": [(True, False)]}))
    assert activity.idle_seconds(now + STEP, CAP) == 0, "use that is known begins it anew"
    activity.observe(Sample(now + 2 * STEP, **{**KNOWN, "network_bytes": None}))
    assert activity.idle_seconds(now + 2 * STEP, CAP) == 0


def test_who_only_looks_does_not_use_the_machine() -> None:
    activity, now = watched(*[{"browsers": (1, 0)}] * 10, *[{"browsers": None}] * 10)
    assert activity.idle_seconds(now, CAP) == 100


def test_a_monitor_that_did_not_look_for_long_knows_nothing() -> None:
    activity, now = watched({})
    assert activity.unknown(now + 60) == []
    assert len(activity.unknown(now + 61)) == 8
    assert activity.idle_seconds(now + 61, CAP) == 0


def test_facts_are_the_last_look() -> None:
    activity, now = watched(
        *steady(1, cpu_seconds=0.5, disk_bytes=1048576.0, network_bytes=2048.0)[:-1],
        {
            "kernels": [(True, False), (True, True), (False, False)],
            "terminals": [(True, False), (False, False), (False, False)],
            "cpu_seconds": 2.5,
            "disk_bytes": 5 * 1048576.0,
            "network_bytes": 10240.0,
            "gpu_percent": 97.0,
            "browsers": (1, 2),
        },
    )
    assert activity.facts(now) == {
        "kernels": {"busy": 1, "waiting": 1, "idle": 1},
        "terminals": {"foreground": 1, "waiting": 0, "quiet": 2},
        "cpu_cores": 0.5,
        "disk_mib_s": 1.0,
        "network_kib_s": 2.0,
        "gpu_percent": 97.0,
        "browsers": {"visible": 1, "hidden": 2},
    }


def test_a_look_that_is_not_later_is_left_out() -> None:
    activity, now = watched({})
    activity.observe(Sample(now, **{**KNOWN, "kernels": [(True, False)]}))
    assert activity.ages(now) == {}


def test_a_restarted_monitor_knows_what_it_knew() -> None:
    activity, now = watched(*[{}] * 10, {"kernels": [(True, False)]}, *[{}] * 10)
    again = Activity(now)
    again.restore(json.loads(json.dumps(activity.state())))
    again.observe(Sample(now + STEP, **KNOWN))
    assert again.ages(now + STEP) == {"kernel": 55}
    assert again.idle_seconds(now + STEP, CAP) == 55


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["last", "started_at", "unknown_at", "cpu", "x"]), inner, max_size=4)
        ),
        max_leaves=8,
    )
)
def test_no_kept_state_breaks_the_monitor(state: Any) -> None:
    activity = Activity(100.0)
    activity.restore(state if isinstance(state, dict) else {"last": state})
    activity.observe(Sample(105.0, **KNOWN))
    ages = activity.ages(105.0)
    assert all(isinstance(age, int) and age >= 0 for age in ages.values())
    assert math.isfinite(activity.idle_seconds(105.0, CAP))


amounts = st.floats(0, 100)
looks = st.fixed_dictionaries(
    {
        "kernels": st.lists(st.tuples(st.booleans(), st.booleans()), max_size=2),
        "cpu_seconds": amounts,
        "network_bytes": st.floats(0, 1e7),
        "browsers": st.tuples(st.integers(0, 2), st.integers(0, 2)),
    }
)


@given(st.lists(looks, min_size=1, max_size=40), st.integers(0, 39), st.floats(0.1, 50))
def test_more_use_never_makes_a_signal_older(seen: list[dict[str, Any]], where: int, more: float) -> None:
    index = min(where, len(seen) - 1)
    extra = {**seen[index], "cpu_seconds": seen[index]["cpu_seconds"] + more, "kernels": [(True, False)]}
    less, now = watched(*seen)
    busier, _ = watched(*seen[:index], extra, *seen[index + 1 :])
    for signal, age in less.ages(now).items():
        assert busier.ages(now)[signal] <= age
    assert busier.idle_seconds(now, CAP) <= less.idle_seconds(now, CAP)


def test_what_could_not_be_looked_at_may_have_been_a_person() -> None:
    activity = Activity(0.0)
    activity.observe(Sample(5.0, 1.0, [], [], 0.0, 0.0, 0.0, 0.0, (0, 0), input_unseen=True))
    assert activity.unknown(6.0) == ["input"]
    activity.observe(Sample(10.0, 1.0, [], [], 0.0, 0.0, 0.0, 0.0, (0, 0)))
    assert activity.unknown(11.0) == []
    assert activity.idle_seconds(15.0, 1000.0) == 10.0
