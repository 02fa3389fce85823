"""`python -m benchmarks idle`: rules that stop idle notebooks, compared on days whose truth is known.

Ours is not a copy of the product: the monitor's classifier (`instance/files/activity.py`), rows in its rhythm, a sweep
of 5 minutes and `chalicelib/idleness.py` run on raw looks of 5 seconds. `world.py` says what a day is, `kinds.py` what
kinds there are, `peers.py` the others' rules, `score.py` what counts. No rule is told the truth.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Mapping

from benchmarks.idle import ours
from benchmarks.idle.kinds import ADDED, BEYOND, KINDS, day_of
from benchmarks.idle.peers import PEERS
from benchmarks.idle.score import Machines, Rule, Score, score

OURS = "ours"
RULES: Mapping[str, Rule] = {OURS: ours.stop, **PEERS}
LIMIT = 60
GOAL = 0.5
"""Of the best peer's wasted minutes."""


def compare(seeds: Iterable[int], limit: int = LIMIT, kinds: Iterable[str] = KINDS) -> dict[str, dict[str, Score]]:
    """Kind → rule → score over all seeds."""
    table = {kind: dict.fromkeys(RULES, Score()) for kind in kinds}
    for seed in seeds:
        for kind, row in table.items():
            machines = Machines(day_of(kind, seed))
            for name, rule in RULES.items():
                row[name] += score(machines, rule, limit)
    return table


def totals(table: Mapping[str, Mapping[str, Score]]) -> dict[str, Score]:
    """Rule → score over all kinds."""
    found = dict.fromkeys(RULES, Score())
    for row in table.values():
        for name, one in row.items():
            found[name] += one
    return found


def best_peer(scores: Mapping[str, Score]) -> str:
    """Fewest false kills, then fewest wasted minutes."""
    return min(PEERS, key=lambda name: (scores[name].kills, scores[name].wasted))


def main(arguments: argparse.Namespace) -> None:
    began = time.monotonic()
    seeds = range(arguments.seeds)
    table = compare(seeds)
    scores = totals(table)
    print(
        f"idle: {len(table)} kinds of days, {len(seeds)} variations of each, limit {LIMIT} min; cells: false kills in "
        "all variations / wasted minutes a day"
    )
    print("  " + f"{'kind':<20}" + "".join(f"{name[:15]:>16}" for name in RULES))
    for kind, row in table.items():
        print(line(kind, row, len(seeds)))
    print(line("all", scores, len(seeds) * len(table)))
    print("  came later, with a sum of their own:")
    added = compare(seeds, kinds=ADDED)
    for kind, row in added.items():
        print(line(kind, row, len(seeds)))
    print(line("all that came later", totals(added), len(seeds) * len(added)))
    print("  cannot be told from its opposite, not counted:")
    beyond = compare(seeds, kinds=BEYOND)
    for kind, row in beyond.items():
        print(line(kind, row, len(seeds)))
    everything = totals(table | beyond)
    print(line("all with these", everything, len(seeds) * (len(table) + len(beyond))))
    best = best_peer(scores)
    mine, theirs = scores[OURS], scores[best]
    share = mine.wasted / theirs.wasted
    met = "met" if mine.kills == 0 and share <= GOAL else "NOT met"
    print(
        f"  best peer by kills, then minutes: {best}, {theirs.kills} false kills, {theirs.wasted:.0f} wasted minutes; "
        f"ours {mine.kills} and {mine.wasted:.0f}, {share:.0%} of it"
    )
    print(f"  goal of 0 false kills and at most {GOAL:.0%}: {met}; {time.monotonic() - began:.0f} s for all of it")


def line(kind: str, row: Mapping[str, Score], days: int) -> str:
    """A row of the table."""
    return f"  {kind:<20}" + "".join(f"{f'{one.kills} / {one.wasted / days:.0f}':>16}" for one in row.values())
