"""The rules of peers, each written anew from its source, which its docstring names; no line of theirs is copied.

Each gets what it would see on this machine, read in its favour where its own world differs: whoever has a page of the
notebook open counts as connected, since they would reach it through the peer's own tunnel or proxy.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.idle.score import Rule
from benchmarks.idle.world import DAY, HOUR, MINUTE, STEP, Machine


def jupyterhub(machine: Machine, limit: int) -> float | None:
    """jupyterhub/jupyterhub-idle-culler, jupyterhub_idle_culler/__init__.py: stops a server whose `last_activity` is
    `timeout` old.

    It looks each 10 minutes, as Zero to JupyterHub sets it (its own default is half the timeout). The hub learns
    activity each 5 minutes, from the server and from the proxy (jupyterhub/configurable-http-proxy, lib/configproxy.js:
    any data of requests and websockets).
    """
    for now in _each(machine, 10 * MINUTE):
        reported = machine.start + (now - machine.start) // 300 * 300
        if now - machine.proxy_activity(reported) >= limit * MINUTE:
            return now
    return None


def sagemaker(machine: Machine, limit: int) -> float | None:
    """aws-samples/amazon-sagemaker-notebook-instance-lifecycle-config-samples, scripts/auto-stop-idle/autostop.py with
    on-start.sh: each 5 minutes, `--ignore-connections`.

    Idle when every kernel is idle and its `last_activity` too old (without kernels: when it runs for so long), and of
    the terminals one is too old, or there is none.
    """
    for now in _each(machine, 5 * MINUTE):
        old = [now - at > limit * MINUTE for at in machine.terminals(now)]
        kernels = machine.kernel_states(now)
        if kernels:
            idle = all(not busy and now - at > limit * MINUTE for busy, at in kernels)
        else:
            idle = now - machine.start > limit * MINUTE
        if idle and (not old or any(old)):
            return now
    return None


def skypilot(machine: Machine, limit: int) -> float | None:
    """skypilot-org/skypilot, sky/skylet/events.py (AutostopEvent) and autostop_lib.py, `wait_for: jobs_and_ssh`: each
    minute; idle without a job of its queue and without a terminal under sshd.

    Commands that a person gave in a terminal are taken as jobs of the queue; cells are none.
    """
    active = machine.start
    for now in _each(machine, MINUTE):
        if machine.in_terminal(now) or machine.ssh(now) or machine.connected(now):
            active = now
        elif (now - active) // MINUTE >= limit:
            return now
    return None


def dstack(machine: Machine, limit: int) -> float | None:
    """dstackai/dstack, runner/internal/connections/connections.go and the server's pipeline of running jobs
    (`inactivity_duration`): time since the last SSH connection that lasted more than 5 seconds."""
    return _connections(machine, limit, period=5.0)


def coder(machine: Machine, limit: int) -> float | None:
    """coder/coder, coderd/workspacestats/reporter.go and activitybump.sql: connections put the deadline off by an hour
    (here the limit), each 30 seconds; the deadline of the start is a limit away too."""
    return _connections(machine, limit, period=30.0)


def cloud9(machine: Machine, limit: int) -> float | None:
    """AWS Cloud9, ~/.c9/stop-if-inactive.sh (aws-samples/cloud9-to-power-vscode-blog, scripts/): each minute; while no
    IDE is connected a shutdown is due after the timeout. Shells over SSH are none of its business."""
    scheduled: float | None = None
    for now in _each(machine, MINUTE):
        if machine.connected(now):
            scheduled = None
        elif scheduled is None:
            scheduled = now + limit * MINUTE
        elif now >= scheduled:
            return now
    return None


def host_cpu(machine: Machine, limit: int) -> float | None:
    """A CloudWatch alarm on CPUUtilization: stops an instance none of whose 5 minutes of the last hour reached 3 %
    (jiamaozheng/cloudwatch_alarm_for_stopping_ec2, README.md). Two vCPUs."""
    looks, each = int(5 * MINUTE // STEP), 5 * MINUTE
    used = machine.host_cpu
    quiet = 0
    for number, first in enumerate(range(0, len(used) - looks + 1, looks), start=1):
        share = sum(used[first : first + looks]) / (2 * each)
        quiet = quiet + 1 if share < 0.03 else 0
        if quiet * each >= limit * MINUTE:
            return machine.start + number * each
    return None


def _connections(machine: Machine, limit: int, period: float) -> float | None:
    """Stops when nobody has been connected for the limit; looked at each `period` seconds."""
    ends = sorted(
        {machine.start} | {page.end for page in machine.pages} | {shell.end for _, shell in machine.shells if shell.ssh}
    )
    for end in ends:
        if machine.connected(end) or machine.ssh(end):
            continue
        starts = [page.start for page in machine.pages] + [shell.start for _, shell in machine.shells if shell.ssh]
        following = min((start for start in starts if start > end), default=DAY + 2 * HOUR)
        stops = end + limit * MINUTE + period
        if following >= stops:
            return stops if stops < DAY else None
    return None


def _each(machine: Machine, period: float) -> Iterator[float]:
    count = 1
    while (now := machine.start + count * period) < DAY:
        yield now
        count += 1


PEERS: dict[str, Rule] = {
    "jupyterhub-idle-culler": jupyterhub,
    "SageMaker autostop": sagemaker,
    "SkyPilot": skypilot,
    "dstack": dstack,
    "Coder": coder,
    "Cloud9": cloud9,
    "host CPU": host_cpu,
}
