"""The sweep: what deciding on many notebooks takes, and how long EC2's limits make many stops last.

Deciding: the real actions and gateways over tables in memory. Seconds are CPU time of our code with those tables; what
AWS's own answers take is not in them and is shown beside, as calls. Memory is how far the process grows above the
tables at its peak, in a second sweep over the same notebooks.

Draining: a virtual clock, which the sweep's sleeps and the stated seconds of each call move, and a stand-in of EC2 with
the buckets of AWS's table (50 requests + 5/s, 1,000 instances + 20/s), which refuses what is too much. Sweeps start
every 5 minutes, run 15 at the most, and overlap.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import logging
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks.standins import Calls, Clock, Executions, LimitedEc2, Sns, Ssm, Tables
from chalicelib import times
from chalicelib.actions.scheduled import Scheduled
from chalicelib.actions.showing import Showing
from chalicelib.actions.telling import Telling
from chalicelib.aws.heartbeats import HeartbeatsTable
from chalicelib.aws.items import to_item
from chalicelib.aws.notebooks import NotebooksTable
from chalicelib.aws.topic import Topic
from chalicelib.aws.users import UsersTable
from chalicelib.model import STEPS, Notebook, Warned, due_shard
from chalicelib.prices import catalogue
from chalicelib.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
SIZES = (1_000, 10_000, 100_000)
GOAL = 1.1 * 450
_ADA = "us-00000000000000000ada"
TABLES = ("notebooks", "users", "heartbeats", "events", "sweeps")
ACTIVITY = ("input", "kernel", "terminal", "cpu", "disk", "network")
# Of 100 notebooks that are due: in use, left a while ago, to be warned, silent for 75 minutes.
MIX = (88, 8, 3, 1)
# Seconds a call takes AWS, as a guess on the high side; those for one notebook are made eight at a time.
SECONDS = {
    "Query": 0.02,
    "BatchGetItem": 0.03,
    "StopInstances": 0.6,
    "UpdateItem": 0.01 / 8,
    "TransactWriteItems": 0.03 / 8,
    "StartExecution": 0.08 / 8,
}


class Bench:
    """A deployment in memory."""

    def __init__(self, seconds: dict[str, float]) -> None:
        self.clock = Clock(NOON)
        self.calls = Calls(self.clock, seconds)
        self.names = {table: f"nod-bench-{table}" for table in TABLES}
        keys = {f"nod-bench-{table}": "id" for table in TABLES}
        self.tables = Tables(self.calls, {**keys, self.names["events"]: "notebook"})
        self.tables.dropped.add(self.names["events"])
        self.tables.made[self.names["heartbeats"]] = self.heartbeat
        self.ec2 = LimitedEc2(self.calls, self.clock)
        self.executions = Executions(self.calls)
        self.idle: dict[str, float] = {}
        """Minutes since anybody used it at NOON, by instance; None is in use all the time."""
        self.silent: set[str] = set()
        clients = {
            "dynamodb": self.tables,
            "ec2": self.ec2,
            "stepfunctions": self.executions,
            "ssm": Ssm(self.calls),
            "sns": Sns(self.calls),
        }
        self.settings = Settings.from_env(_environment(self.names))
        users = UsersTable(self.tables, self.names["users"])
        notebooks = NotebooksTable(self.tables, self.names["notebooks"], self.names["users"])
        heartbeats = HeartbeatsTable(self.tables, self.names["heartbeats"], self.clock.sleep)
        telling = Telling(
            notebooks,
            users,
            Topic(clients["sns"], self.settings.topic_arn),
            Showing(lambda: heartbeats, catalogue(), self.settings),
        )
        self.scheduled = Scheduled(clients.__getitem__, self.settings, telling, self.clock, self.clock.sleep)
        self.swept: Counter[str] = Counter()
        user = {"id": _ADA, "name": "ada", "role": "user", "quota": 10, "token_sha256": "x", "secret": "c2VjcmV0"}
        email = {"email": "a@b.c", "email_state": "confirmed"}
        self.tables.rows[self.names["users"]][_ADA] = to_item({**user, **email})

    def add(self, number: int, idle: float, *, silent: bool = False, **changes: Any) -> None:
        """A notebook that is due, used last so many minutes ago."""
        identifier, instance = f"nb-{number:020x}", f"i-{number:017x}"
        began = times.to_text(NOON - timedelta(days=1))
        known = Notebook(
            id=identifier,
            owner=_ADA,
            name=f"thesis-{number}",
            state="ready",
            created_at=began,
            updated_at=began,
            ready_at=began,
            run_started_at=began,
            instance_type="t3.medium",
            volume_gib=30,
            idle_minutes=60,
            environment="anaconda",
            steps={step: {"started_at": began, "finished_at": began} for step in STEPS},
            notify=("email",),
            notifications={"email": "sent"},
            instance_id=instance,
            due=due_shard(identifier),
            due_at=times.to_text(NOON - timedelta(seconds=number % 300)),
            confirmed_at=times.to_text(NOON - timedelta(minutes=number % 40)),
        )
        self.tables.rows[self.names["notebooks"]][identifier] = to_item(replace(known, **changes).to_record())
        arn = self.settings.instance_arn(instance)
        self.idle[arn] = idle
        if silent:
            self.silent.add(arn)
            heard = NOON - timedelta(minutes=75)
            seen = {"at": times.to_text(heard), "boot_id": "b", "beat": int(heard.timestamp()) // 240}
            self.tables.rows[self.names["notebooks"]][identifier] |= to_item({"seen": seen})

    def heartbeat(self, arn: str) -> dict[str, Any] | None:
        """As a monitor writes it that is heard every four minutes."""
        if arn not in self.idle:
            return None
        heard = NOON - timedelta(minutes=75) if arn in self.silent else self.clock.now
        beat = int(heard.timestamp()) // 240
        age = max(0, int((heard - NOON).total_seconds() + self.idle[arn] * 60))
        record = {
            "id": arn,
            "at": times.to_text(heard),
            "boot_id": "b",
            "beat": beat,
            "uptime": 86_400,
            "answers": True,
            "ages": dict.fromkeys(ACTIVITY, age),
            "facts": {"cpu_cores": 0, "kernels": {"busy": 0, "idle": 1, "waiting": 0}},
            "limit_seconds": 3600,
            "version": "2",
        }
        return to_item(record)

    def sweep(self, number: int) -> None:
        """A Lambda of 15 minutes."""
        end = self.clock.now + timedelta(minutes=15)

        def remaining() -> float:
            return (end - self.clock.now).total_seconds()

        swept = self.scheduled.sweep(f"sweep-{number}", remaining)
        self.swept.update(swept.counts)
        swept.end()


def main(arguments: argparse.Namespace) -> None:
    with quiet():
        decide()
        # In a process that gives back what it frees: Python's own allocator keeps it, and would hide the peak in it.
        environment = {**os.environ, "PYTHONMALLOC": "malloc"}
        subprocess.run([sys.executable, "-m", "benchmarks.sweep"], env=environment, cwd=ROOT, check=True)
        print()
        for stops in arguments.stops:
            drain(stops)


def decide() -> None:
    """Sizes in a row, for the figure for one notebook to be compared."""
    per_call = botocore_milliseconds()
    in_use, left, to_warn, silent = MIX
    print(f"sweep: deciding (of 100: {in_use} in use, {left} left, {to_warn} to warn, {silent} silent)")
    print(f"  a call costs botocore {per_call:.2f} ms of CPU beside (UpdateItem, measured with a canned answer)")
    for size in SIZES:
        bench = Bench({})
        _fill(bench, size)
        began = time.process_time()
        bench.sweep(1)
        seconds = time.process_time() - began
        counts, swept = bench.calls.counts, bench.swept
        calls = sum(counts.values())
        print(
            f"  {size:>7,} notebooks  {seconds:7.2f} s  {1e6 * seconds / size:6.0f} us each  {calls:>8,} calls "
            f"({calls / size:.2f} each, {calls * per_call / 1000:.1f} s of botocore)"
        )
        print(f"           {_list(counts)}")
        print(f"           {_list(swept)}")


def remember() -> None:
    """What a sweep holds at its peak."""
    for size in SIZES:
        bench = Bench({})
        _fill(bench, size)
        # The first makes the rows in memory longer. What the next one, a while later, takes beside them is its own.
        bench.sweep(1)
        bench.clock.now += timedelta(minutes=20)
        gc.collect()
        before = _reset_peak()
        bench.sweep(2)
        print(f"  {size:>7,} notebooks  peak memory +{max(0, _memory('VmHWM') - before) / 1024:.1f} MiB")


def drain(stops: int) -> None:
    """Until the last is stopped, however many sweeps that takes."""
    bench = Bench(SECONDS)
    for number in range(stops):
        warned = Warned(
            times.to_text(NOON - timedelta(minutes=20)), times.to_text(NOON - timedelta(minutes=5)), "idle", "b"
        )
        bench.add(number, 90, warned=warned)
    began = time.process_time()
    runs = 0

    def start() -> None:
        nonlocal runs
        runs += 1
        bench.sweep(runs)

    while len(bench.ec2.stopped) < stops:
        # Sweeps are due every five minutes of the clock, whether one still runs or not.
        passed = int((bench.clock.now - NOON).total_seconds()) // 300
        first = NOON + timedelta(minutes=5 * (passed + (1 if bench.clock.now > NOON else 0)))
        bench.clock.now = max(bench.clock.now, first)
        bench.clock.at = [(bench.clock.now + timedelta(minutes=5 * later), start) for later in (1, 2)]
        start()
    took = (bench.clock.now - NOON).total_seconds()
    # What EC2's bucket holds at the beginning takes no time of its own.
    floor = max(0.0, (stops - 1000) / 20)
    share = f"{took / floor:.3f} of EC2's own {floor:,.0f} s" if floor else "EC2's own limits take none of it"
    twice = sum(1 for count in bench.ec2.stopped.values() if count > 1)
    goal = f", goal {GOAL:.0f} s: {'met' if took <= GOAL else 'MISSED'}" if stops == 10_000 else ""
    print(
        f"sweep: {stops:,} stops took {took:,.0f} s of virtual time "
        f"({share}{goal}), "
        f"{bench.ec2.throttled} throttled calls, {bench.calls.counts['StopInstances']:,} StopInstances, {runs} sweeps, "
        f"{twice} stopped twice, {len(bench.executions.names):,} workflows "
        f"({time.process_time() - began:.0f} s of CPU here)"
    )


def botocore_milliseconds(calls: int = 300) -> float:
    """CPU time of one UpdateItem in botocore, its answer canned: parameters, signature, parsing."""
    from botocore.awsrequest import AWSResponse  # noqa: PLC0415
    from botocore.session import Session  # noqa: PLC0415

    session = Session()
    session.set_credentials("testing", "testing")
    client = session.create_client("dynamodb", region_name="us-east-1")

    class Raw:
        def stream(self, **_: Any) -> Iterator[bytes]:
            yield b"{}"

    client.meta.events.register("before-send", lambda request, **_: AWSResponse(request.url, 200, {}, Raw()))
    item = {f":v{index}": {"S": "2026-11-22T12:00:00.000Z"} for index in range(8)}
    began = time.process_time()
    for _ in range(calls):
        client.update_item(
            TableName="t", Key={"id": {"S": "x"}}, UpdateExpression="SET a = :v0", ExpressionAttributeValues=item
        )
    return 1000 * (time.process_time() - began) / calls


@contextmanager
def quiet() -> Iterator[None]:
    """What the sweep logs of each notebook is made, and thrown away."""
    log = logging.getLogger("nod")
    handlers = [handler for handler in log.handlers if isinstance(handler, logging.StreamHandler)]
    propagates, log.propagate = log.propagate, False
    with Path("/dev/null").open("w", encoding="utf-8") as nowhere:
        before = [handler.setStream(nowhere) for handler in handlers]
        try:
            yield
        finally:
            log.propagate = propagates
            for handler, stream in zip(handlers, before, strict=True):
                handler.setStream(stream)


def _fill(bench: Bench, size: int) -> None:
    in_use, left, to_warn, _ = MIX
    for number in range(size):
        part = number % 100
        if part < in_use:
            bench.add(number, 0)
        elif part < in_use + left:
            bench.add(number, 20)
        else:
            bench.add(number, 53, silent=part >= in_use + left + to_warn)


def _environment(names: dict[str, str]) -> dict[str, str]:
    machines = ("launch", "stop", "start", "password", "terminate", "undo")
    return {
        "AWS_REGION": "us-east-1",
        "NOD_STAGE": "bench",
        **{f"NOD_{table.upper()}_TABLE": name for table, name in names.items()},
        **{
            f"NOD_{machine.upper()}_ARN": f"arn:aws:states:us-east-1:123456789012:stateMachine:nod-bench-{machine}"
            for machine in machines
        },
        "NOD_TOPIC_ARN": "arn:aws:sns:us-east-1:123456789012:nod-bench-messages",
        "NOD_LAUNCH_TEMPLATE_ID": "lt-0",
        "NOD_SUBNET_IDS": "subnet-a",
    }


def _list(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items()) if count)


def _reset_peak() -> int:
    """KiB in use now, from which the peak is counted. What was in use before goes back to the system first, or the
    peak would be within it."""
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return _memory("VmRSS")


def _memory(which: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(which))


if __name__ == "__main__":
    with quiet():
        remember()
