"""Each kind of day of `python -m benchmarks idle` once: our rule kills nothing, wastes little, and others do not."""

from __future__ import annotations

import pytest

from benchmarks.idle import LIMIT, best_peer, compare, ours, totals
from benchmarks.idle.kinds import ADDED, BEYOND, KINDS, day_of
from benchmarks.idle.peers import sagemaker
from benchmarks.idle.score import Machines, Score, score
from benchmarks.idle.world import DAY, HOUR, Day, Machine, Work

HIDDEN = 30
"""What a page that stays open in a hidden tab adds."""
SEED = 3
LONGEST = {"visible_tab": 120, "missing_heartbeats": 240, "sweep_gap": 180, "jupyter_hangs": 120}
"""Minutes. A page in sight doubles the patience, a machine that says nothing is borne for hours."""


FORGOTTEN = ("polling_cell", "forgotten_loop")
"""Cells that cannot be told from those that somebody waits for."""


RETURNS = "return_at_the_stop"
"""Who comes back in the last seconds before a stop may be cut off: that kind has a test of its own below."""


@pytest.mark.parametrize("kind", [*KINDS, *(kind for kind in ADDED if kind not in (*FORGOTTEN, RETURNS))])
def test_nobody_is_stopped_who_needs_it_and_each_absence_costs_little_more_than_the_limit(kind: str) -> None:
    day = day_of(kind, SEED)
    found = score(Machines(day), ours.stop, LIMIT)
    assert found.kills == 0
    ends = [need[1] for need in day.needed]
    absences = sum(end < DAY for end in ends)
    assert found.wasted <= absences * (LONGEST.get(kind, LIMIT + HIDDEN) + 20)


@pytest.mark.parametrize("kind", FORGOTTEN)
def test_a_cell_that_goes_on_is_borne_whatever_it_is_for(kind: str) -> None:
    found = score(Machines(day_of(kind, SEED)), ours.stop, LIMIT)
    assert found.kills == 0
    assert found.wasted > 10 * 60


def test_whoever_comes_back_right_at_the_stop_is_cut_off_only_in_its_last_seconds() -> None:
    """The monitor looks each 5 seconds, tells at once, and the sweep reads once more before it stops."""
    late = []
    for seed in range(40):
        day = day_of(RETURNS, seed)
        killed = score(Machines(day), ours.stop, LIMIT).killed_at
        late += [at - need[0] for at in killed if (need := day.need_at(at)) is not None]
    assert len(late) <= 6, late
    assert max(late, default=0.0) < 8, late


def test_a_limit_of_another_length_kills_nothing_either() -> None:
    kinds = ["silent_cell", "detached_child", "terminal_silent", "dask_workers", "clock_step", "jupyter_hangs"]
    for limit in (15, 240):
        assert [score(Machines(day_of(kind, SEED)), ours.stop, limit).kills for kind in kinds] == [0] * len(kinds)


def test_every_peer_kills_or_wastes_more_than_twice_as_much() -> None:
    scores = totals(compare([SEED]))
    ours_wasted = scores.pop("ours").wasted
    assert all(one.kills for one in scores.values())
    assert scores[best_peer(scores)].wasted > 2 * ours_wasted


def test_a_rule_that_knows_too_little_is_seen_to_kill() -> None:
    assert score(Machines(day_of("terminal_silent", SEED)), sagemaker, LIMIT).kills == 1
    seeds = range(SEED, SEED + 3)
    killed = {
        kind: sum(score(Machines(day_of(kind, seed)), ours.stop, LIMIT).kills for seed in seeds) for kind in BEYOND
    }
    assert all(killed.values()), killed


def test_scores_are_counted_as_the_words_say() -> None:
    day = day_of("nobody_came", SEED)
    day.needs[:] = [(8 * HOUR, 9 * HOUR), (9 * HOUR, 12 * HOUR), (20 * HOUR, 21 * HOUR)]
    stops = iter([10 * HOUR, 11 * HOUR, 13 * HOUR, 22 * HOUR])
    found = score(Machines(day), lambda _machine, _limit: next(stops), LIMIT)
    # Two stops in one need are one kill; the machine is off from 13:00 to 20:00.
    assert found == Score(1, 120.0, (10 * HOUR,))
    assert score(Machines(day), lambda _machine, _limit: None, LIMIT).wasted == (24 - 8 - 4 - 1) * 60


def test_what_was_left_running_is_gone_after_a_stop_but_not_after_a_kill() -> None:
    day = Day("test", day_of("nobody_came", SEED).rng)
    day.works.append(Work(8 * HOUR, DAY, cpu=1.0))
    day.works.append(Work(0, DAY, cpu=0.5, system=True))
    assert sum(Machine(day, 12 * HOUR, resumed=False).host_cpu[:720]) == pytest.approx(1800, rel=0.1)
    assert sum(Machine(day, 12 * HOUR, resumed=True).host_cpu[:720]) == pytest.approx(5400, rel=0.1)
