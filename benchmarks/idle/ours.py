"""Our rule as it runs: the monitor's own classifier, heartbeat rows in its rhythm, sweeps of 5 minutes, `decide`."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib import util
from pathlib import Path
from types import ModuleType

from benchmarks.idle.world import DAY, STEP, Machine, last, within
from chalicelib.heartbeats import Heartbeat
from chalicelib.idleness import KEEP, STOP, WARN, Decision, Policy, Run, decide, observed

EPOCH = datetime(2026, 11, 22, tzinfo=UTC)
SWEEP = 300.0
ACTIVE_PERIOD, IDLE_PERIOD = 60.0, 240.0
AWAY = 60.0
"""Use that begins after so long without any is told at once."""
READ_AGAIN = 2.0
"""Right before a stop the sweep reads the row once more."""
LOSS = 0.02
"""Of heartbeats that do not arrive, on any day."""
POLICY = Policy()


@cache
def classifier(name: str = "activity") -> ModuleType:
    """A module of `instance/files`, as the machine loads it: instance/ is no package of the product's."""
    path = Path(__file__).resolve().parents[2] / f"instance/files/{name}.py"
    spec = util.spec_from_file_location(f"nod_bench_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@dataclass(frozen=True)
class Row:
    """A heartbeat that arrived, and when."""

    at: float
    values: Mapping[str, object]


def moment(seconds: float) -> datetime:
    """A time of the day."""
    return EPOCH + timedelta(seconds=seconds)


def seen_in_apps(machine: Machine) -> list[float]:
    """When somebody seemed to be there, of what was asked of apps."""
    rhythm = classifier("rhythm")
    traffic = rhythm.Traffic()
    found = []
    for one in machine.asked:
        content = rhythm.Content.of(one.body)
        by_person = traffic.request("a", "POST", one.path, content, begin=one.at, end=one.at + 0.02)
        if by_person or one.marked:
            found.append(one.at)
    return found


def rows(machine: Machine, limit: int) -> Iterator[Row]:
    """The heartbeats of a run, one look of the monitor after the other; `limit` in minutes, which it is told."""
    activity = classifier()
    day = machine.day
    rng = random.Random(f"rows {day.name} {machine.start}")
    state, boot, sent, beat, watch = None, -1.0, -IDLE_PERIOD, 0, None
    kernels, terminals, browsers = machine.kernel_pairs, machine.terminal_pairs, machine.browsers
    cpu, disk, network, gpu = machine.cpu, machine.disk, machine.network, machine.gpu
    busiest = machine.busiest
    before: list[str] = []
    in_apps = seen_in_apps(machine)
    told_idle, told_used = 0.0, machine.start
    for index in range(machine.looks):
        now = machine.start + (index + 1) * STEP
        booted = machine.booted_at(now)
        if booted != boot:
            # Counters begin anew with a boot; /run, where the state is kept, is empty.
            boot, beat, state, watch = booted, 0, None, None
        if (day.blind and within(now, day.blind)) or now < boot + 25:
            watch = None
            continue
        clock = now - boot
        fresh = watch is None
        if watch is None:
            watch = activity.Activity(clock)
            watch.restore(json.loads(json.dumps(state or {})))
        hangs = bool(day.hangs) and within(now, day.hangs)
        typed = max(machine.last_input(now), last(in_apps, now))
        watch.observe(
            activity.Sample(
                clock,
                None if hangs else max(0.0, typed - boot),
                None if hangs else kernels[index],
                terminals[index],
                # What grew since the look before; the first of a monitor has none before it.
                None if fresh else cpu[index],
                None if fresh else disk[index],
                None if fresh else network[index],
                gpu[index],
                None if hangs else browsers[index],
                None if fresh else busiest[index],
            )
        )
        ages = watch.ages(clock)
        used = now - min((age for name, age in ages.items() if name != "browser"), default=clock)
        begins = told_idle >= AWAY and used - told_used >= AWAY
        if now - sent < ACTIVE_PERIOD and not begins:
            continue
        unknown = watch.unknown(clock)
        to_stop = limit * 60 <= now - used <= limit * 120
        active = any(age <= ACTIVE_PERIOD for age in ages.values()) or unknown != before or to_stop
        if not active and not begins and now - sent < IDLE_PERIOD:
            continue
        told_idle, told_used = now - used, used
        state = watch.state()
        sent, before = now, unknown
        beat += 1
        if rng.random() < LOSS or within(now, day.lost):
            continue
        # DynamoDB takes no row that is signed for another time than its own, but this one arrives: the monitor signs,
        # and dates its row, by the time that DynamoDB told it. Its `at` is left wrong here all the same, since whoever
        # is root may write any: the rule must not lean on it.
        offset = next((offset for since, offset in reversed(day.clock) if since <= now), 0.0)
        yield Row(
            now,
            {
                "at": moment(now + offset).isoformat(timespec="seconds").replace("+00:00", "Z"),
                "boot_id": f"{day.name}-{boot}",
                "beat": beat,
                "uptime": int(clock),
                "answers": not hangs,
                "version": "2",
                "ages": ages,
                "facts": watch.facts(clock),
                "unknown": unknown,
            },
        )


def sweeps(machine: Machine) -> Iterator[float]:
    """When the control plane looks: every 5 minutes, not on the second, at times twice, at times not at all."""
    rng = random.Random(f"sweeps {machine.day.name} {machine.start}")
    now = machine.start + rng.uniform(0, SWEEP)
    while now < DAY:
        if not within(now, machine.day.swept) and rng.random() > 0.01:
            yield now + rng.uniform(0, 15)
            if rng.random() < 0.02:
                yield now + rng.uniform(15, 30)
        now += SWEEP


def taken(run: Run, decision: Decision, heartbeat: Heartbeat | None, now: datetime) -> Run:
    """The record after a decision, as the sweep writes it."""
    return replace(
        run,
        seen=observed(run, heartbeat, now),
        decided_at=now,
        warned=decision.warned if decision.action == WARN else run.warned,
    )


def stop(machine: Machine, limit: int) -> float | None:
    """When our rule stops this run. None: not on this day."""
    return next((at for at, decision in decisions(machine, limit) if decision.action == STOP), None)


def decisions(machine: Machine, limit: int) -> Iterator[tuple[float, Decision]]:
    """Every decision of a run up to the stop, and when it was made."""
    run = Run("ready", moment(machine.start), limit, ready_at=moment(machine.start))
    coming = rows(machine, limit)
    following = next(coming, None)
    row: Row | None = None
    due = machine.start
    for at in sweeps(machine):
        if at < due:
            continue
        while following is not None and following.at <= at:
            row, following = following, next(coming, None)
        heartbeat = Heartbeat.from_record(row.values) if row else None
        decision = decide(run, heartbeat, POLICY, moment(at))
        if decision.action == STOP and following is not None and following.at <= at + READ_AGAIN:
            row, following = following, next(coming, None)
            heartbeat = Heartbeat.from_record(row.values)
            decision = decide(run, heartbeat, POLICY, moment(at + READ_AGAIN))
        yield at, decision
        if decision.action == STOP:
            return
        run = taken(run, decision, heartbeat, moment(at))
        due = (decision.due_at - EPOCH).total_seconds()
        assert decision.action != KEEP or due > at, "a kept notebook would be due for ever"
