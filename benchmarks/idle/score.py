"""How a rule did on a day.

The machine starts with the day's first need. It runs until the rule stops it.

- A stop within a need is a *false kill*. It counts once for each need (a need is all needed time without a gap: a cell
  of 7 hours, or a sitting with its lunch). Whoever was stopped starts the machine again at once, and the work goes on
  as if nothing were lost: lenient to the rule.
- A stop outside a need is right. The machine is off until the next need begins, whose person starts it; what had been
  left running (pages, sessions, threads, workers) is gone. Daemons of the system come back.
- *Wasted minutes* are all minutes in which it runs and is not needed. Each absence costs at least the limit, for every
  rule that does not kill.

The day ends after 24 hours, whatever runs then.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.idle.world import DAY, MINUTE, Day, Interval, Machine

Rule = Callable[[Machine, int], float | None]
"""When a run of a machine is stopped at a limit in minutes; None: not on this day."""


@dataclass(frozen=True)
class Score:
    """Of a rule on a day, or on many."""

    kills: int = 0
    wasted: float = 0.0
    """Minutes."""
    killed_at: tuple[float, ...] = ()

    def __add__(self, other: Score) -> Score:
        return Score(self.kills + other.kills, self.wasted + other.wasted, self.killed_at + other.killed_at)


class Machines:
    """The runs of a day that rules asked for: rules that stop in the same gap share the next run."""

    def __init__(self, day: Day) -> None:
        self.day = day
        self._known: dict[tuple[float, bool], Machine] = {}

    def run(self, start: float, *, resumed: bool) -> Machine:
        """The run that starts then."""
        if resumed:
            # Starts within a need are as many as there are rules; what they share is not worth keeping.
            return Machine(self.day, start, resumed=True)
        return self._known.setdefault((start, False), Machine(self.day, start, resumed=False))


def score(machines: Machines, rule: Rule, limit: int) -> Score:
    """Lets a rule judge a whole day."""
    day = machines.day
    start, resumed = day.needed[0][0], False
    killed: dict[Interval, float] = {}
    wasted = 0.0
    while True:
        stopped = rule(machines.run(start, resumed=resumed), limit)
        end = DAY if stopped is None else min(stopped, DAY)
        wasted += (end - start) - needed_within(day, start, end)
        if end >= DAY:
            break
        need = day.need_at(end)
        if need is not None:
            killed.setdefault(need, end)
            start, resumed = end, True
            continue
        following = day.next_need(end)
        if following is None:
            break
        start, resumed = following[0], False
    return Score(len(killed), wasted / MINUTE, tuple(killed.values()))


def needed_within(day: Day, start: float, end: float) -> float:
    """Seconds of a span in which the machine is needed."""
    return sum(max(0.0, min(end, stop) - max(start, begin)) for begin, stop in day.needed)
