"""Cold start of each Lambda: a new process, the module imported, one recorded event answered by the local AWS APIs.

The code is that of the zip of `make package`, laid out as Lambda does it: unpacked, with its bytecode, and of this
machine's packages only what the runtime has. Beside it a bare boto3 script with the same clients and the same calls,
recorded from the function itself. Both in turn, medians. Events are recorded from launches, stops and visits with
machines that only say what they are told.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import httpx
from chalice.local import LambdaEventConverter

from local.cloud import Cloud
from local.delays import Delays
from tests.aws.packaged import folder as packaged
from tests.aws.packaged import lay_out
from tests.local.person import Person
from tests.local.scripted import ScriptedMachines

ROOT = Path(__file__).resolve().parents[1]
RUN = Path(__file__).with_name("cold_run.py")
GOAL = 1.25
# Lambda gives a function the share of a processor that its memory is of this many MB.
WHOLE_PROCESSOR = 1769
LONGEST = 120  # characters of calls in a row


class Recorder:
    """The first event of each function during a launch, a look and a list."""

    def __init__(self, cloud: Cloud) -> None:
        self.events: dict[tuple[str, str], tuple[str, Any]] = {}
        """By function of .chalice/config.json and, for the API's, the route: handler and event."""
        invoke = cloud.lambdas.invoke
        convert = LambdaEventConverter.create_lambda_event

        def invoked(name: str, event: Any) -> Any:
            function = name.rsplit(":", maxsplit=1)[-1].removeprefix("nod-local-")
            answer = invoke(name, event)
            # The API's own events are taken where the gateway makes them.
            if answer.error is None and function != "api":
                self.events.setdefault((function, ""), (f"app:{function}", event))
            return answer

        def converted(converter: Any, **request: Any) -> Any:
            event = convert(converter, **request)
            context = event["requestContext"]
            # A copy, with the body as text: what the app adds to its event is not the gateway's.
            copy = json.loads(json.dumps({**event, "body": (event["body"] or b"").decode() or None}))
            again = ", replayed" if "idempotency-key" in copy["headers"] else ""
            route = f"{context['httpMethod']} {context['resourcePath']}{again}"
            self.events.setdefault(("api_handler", route), ("app:app", copy))
            return event

        self.undo = lambda: setattr(LambdaEventConverter, "create_lambda_event", convert)
        cloud.lambdas.invoke = invoked  # type: ignore[method-assign]
        LambdaEventConverter.create_lambda_event = converted  # type: ignore[method-assign]


def once(*arguments: str, env: dict[str, str]) -> dict[str, float]:
    run = subprocess.run(
        # Nothing on the path but what `env` names: no site-packages, no folder of the script.
        [sys.executable, "-S", "-s", "-P", str(RUN), *arguments],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    if run.returncode != 0:
        raise SystemExit(f"{arguments}: {run.stderr[-2000:]}")
    return dict(json.loads(run.stdout.splitlines()[-1]))


@contextlib.contextmanager
def recorded(folder: Path) -> Iterator[tuple[Cloud, dict[tuple[str, str], tuple[str, Any]]]]:
    """A local cloud that still runs, and an event of every function and route that it was seen to get."""
    delays = Delays(visible=0, pending=0.2, agent=0.2, stopping=0.1, invocation=0.05)
    with Cloud(state=folder / "cloud", api_port=0, aws_port=0, delays=delays, machines=ScriptedMachines()) as cloud:
        recorder = Recorder(cloud)
        try:
            exercise(cloud)
        finally:
            recorder.undo()
        config = json.loads((ROOT / ".chalice" / "config.json").read_text(encoding="utf-8"))
        seen = {function for function, _ in recorder.events}
        if unseen := config["lambda_functions"].keys() ^ seen:
            raise SystemExit(f"no event was recorded of {', '.join(sorted(unseen))}, or no such function is deployed")
        yield cloud, recorder.events


def bare_python(cloud: Cloud, task: Path, runtime: Path) -> dict[str, str]:
    """The environment of a Python that has the code and the runtime's packages, and nothing else."""
    # /var/task is read-only.
    path = {"PYTHONPATH": f"{task}{os.pathsep}{runtime}", "PYTHONDONTWRITEBYTECODE": "1"}
    return {**os.environ, **cloud.environment(), **path}


def main(arguments: argparse.Namespace) -> None:
    print(
        f"cold start: seconds from the process's first line to the event answered, and peak memory; medians of "
        f"{arguments.runs} alternating runs"
    )
    with tempfile.TemporaryDirectory(prefix="nod-bench-") as name:
        folder = Path(name)
        task, runtime = lay_out(folder)
        say_package(task)
        print(
            f"\n  {'function':<44}{'ours':>7}{'bare':>7}{'ratio':>7}{'again':>7}{'MiB':>6}{'bare':>6}"
            f"{'has MB':>8}{'there':>7}{'limit':>7}   clients and calls"
        )
        with recorded(folder) as (cloud, events):
            env = bare_python(cloud, task, runtime)
            config = json.loads((ROOT / ".chalice" / "config.json").read_text(encoding="utf-8"))
            for function, route in sorted(events):
                track = Track(arguments.runs, folder, env, lambda: quiet(cloud))
                compare(function, route, events[function, route], track, Limits.of(config, function))
    print(
        "  again: the same event once more in the same process, as in a warm environment.\n"
        "  has MB, limit: memory and seconds that .chalice/config.json gives. there: `ours` by the share of a\n"
        f"  processor of that memory (MB / {WHOLE_PROCESSOR}, at most 1), as if all were computing on one like this"
    )


def say_package(task: Path) -> None:
    """How large the code is, packed and unpacked."""
    files = [path for path in task.rglob("*") if path.is_file()]
    whole = sum(path.stat().st_size for path in files)
    compiled = [path for path in files if path.suffix == ".pyc"]
    print(
        f"  package: {(packaged() / 'deployment.zip').stat().st_size / 1e6:.2f} MB; unpacked {whole / 1e6:.2f} MB, "
        f"{len(files)} files, of which bytecode {sum(path.stat().st_size for path in compiled) / 1e6:.2f} MB, "
        f"{len(compiled)} files"
    )


def exercise(cloud: Cloud) -> None:
    person = Person(cloud.api_url, cloud.token)
    boto3.client("dynamodb", endpoint_url=cloud.aws_url).update_item(
        TableName="nod-local-users",
        Key={"id": {"S": cloud.user_id}},
        UpdateExpression="SET quota = :many",
        ExpressionAttributeValues={":many": {"N": "1000"}},
    )
    new = person.wait(person.request(name="new").json()["id"], "ready", seconds=60)
    # No event was lost, so no workflow called it: its input as launch.asl.yaml gives it.
    cloud.lambdas.invoke(
        "nod-local-look_for_command",
        {
            "id": new["id"],
            "run": new["id"],
            "instance_id": new["instance_id"],
            "document": "nod-local-configure-tls",
            "since": new["created_at"],
        },
    )
    notebook = person.request(key="bench", name="bench", notify=["email", "slack:demo"]).json()["id"]
    person.wait(notebook, "ready", seconds=60)
    person.http.get("/notebooks")
    # Its page, as a browser opens it: no token of the API.
    httpx.get(f"{person.show(notebook)['link']}&stay=1", trust_env=False).raise_for_status()
    cloud.faults.on("no_capacity")
    person.wait(person.request(name="refused").json()["id"], "failed", seconds=60)
    cloud.faults.clear()
    cloud.run_schedules()


def quiet(cloud: Cloud) -> None:
    """Wait until no launch runs that an earlier run has started: it would take this one's processor."""
    sfn = boto3.client("stepfunctions", endpoint_url=cloud.aws_url)
    arn = "arn:aws:states:us-east-1:123456789012:stateMachine:nod-local-launch"
    while sfn.list_executions(stateMachineArn=arn, statusFilter="RUNNING")["executions"]:
        time.sleep(0.1)


@dataclass(frozen=True)
class Limits:
    """What .chalice/config.json gives a function."""

    memory: int
    """MB."""
    timeout: int
    """Seconds."""

    @classmethod
    def of(cls, config: dict[str, Any], function: str) -> Limits:
        own = {**config, **config["lambda_functions"][function]}
        return cls(own["lambda_memory_size"], own["lambda_timeout"])


@dataclass(frozen=True)
class Track:
    """Where the runs of every function take place."""

    runs: int
    folder: Path
    env: dict[str, str]
    settle: Callable[[], None]


def compare(function: str, route: str, recorded: tuple[str, Any], track: Track, limits: Limits) -> None:
    """One row: the function and its bare script in turn."""
    handler, event = recorded
    event_path, calls_path = track.folder / "event.json", track.folder / "calls.json"
    event_path.write_text(json.dumps(event))
    # The first run changes what the event changes; from then on every run finds the same.
    once("function", handler, str(event_path), env=track.env)
    once("--record", str(calls_path), "function", handler, str(event_path), env=track.env)
    ours, bare = [], []
    for _ in range(track.runs):
        track.settle()
        ours.append(once("function", handler, str(event_path), env=track.env))
        track.settle()
        bare.append(once("bare", str(calls_path), env=track.env))
    calls_made = json.loads(calls_path.read_text())["calls"]
    a, b = (statistics.median(r["seconds"] for r in side) for side in (ours, bare))
    again = statistics.median(r["again"] for r in ours)
    ma, mb = (statistics.median(r["mib"] for r in side) for side in (ours, bare))
    calls = ", ".join(f"{service}.{operation}" for service, operation, _ in calls_made)
    if len(calls) > LONGEST:
        calls = f"{calls[:LONGEST]}… ({len(calls_made)} calls)"
    mark = "" if a / b <= GOAL else f"   above the goal of {GOAL}"
    there = a / min(1, limits.memory / WHOLE_PROCESSOR)
    print(
        f"  {f'{function} {route}'.strip():<44}{a:7.3f}{b:7.3f}{a / b:7.2f}{again:7.3f}{ma:6.0f}{mb:6.0f}"
        f"{limits.memory:8}{there:7.2f}{limits.timeout:7}   {calls or 'none'}{mark}",
        flush=True,
    )
