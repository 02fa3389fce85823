"""The SSM agent of each machine: registers late, runs the steps of a document as root, reports what really came of it.

How the real agent does it (amazon-ssm-agent, `agent/plugins/runscript`): the lines of `runCommand` become a script
file `/var/lib/amazon/ssm/INSTANCE/document/orchestration/COMMAND/STEP/_script.sh`, run by `sh -c FILE` as root, so that
a shebang counts; the file is removed afterwards.

A parameter with `interpolationType: ENV_VAR` is the environment variable `SSM_NAME` (agent 3.3.2746.0 and later).
`{{ Name }}` is replaced by the value as text. What becomes of it for ENV_VAR parameters AWS does not say: the worse
case is done here, and a document had better not write it.
"""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from local.background import Background
from local.delays import Delays
from local.faults import Faults

log = logging.getLogger("nod.local.agent")

VERSION = "3.3.2746.0"
ROOT = "/var/lib/amazon/ssm"
STEP_TIMEOUT = 3600.0
"""Seconds of a step that gives no `timeoutSeconds`, as AWS has it."""


@dataclass
class Registration:
    """An instance as Systems Manager knows it."""

    instance: Any
    machine: Any
    online: bool = True
    last_ping: datetime = field(default_factory=lambda: datetime.now(UTC))


@dataclass(frozen=True)
class Outcome:
    """What the agent reports of a command."""

    status: str
    """`Success`, `Failed` or `TimedOut`."""
    exit_code: int
    stdout: str
    stderr: str
    step: str


class MachineGoneError(Exception):
    """The machine stopped while a command ran: nobody reports its end."""


class Agents:
    """The agents of all machines."""

    def __init__(self, region: str, background: Background, delays: Delays, faults: Faults) -> None:
        self._region = region
        self._background = background
        self._delays = delays
        self._faults = faults
        self._lock = threading.Lock()
        self._known: dict[str, Registration] = {}
        self._boots: dict[str, int] = {}

    def booted(self, instance: Any, machine: Any, since: float) -> None:
        """The machine is up; its agent will be online `delays.agent` after `since` (monotonic), or at once if later."""
        with self._lock:
            boot = self._boots[instance.id] = self._boots.get(instance.id, 0) + 1
        wait = since + self._delays.agent - time.monotonic()
        self._background.later(wait, self._register, instance, machine, boot)

    def gone(self, instance_id: str, *, for_good: bool) -> None:
        """The machine goes down: connection lost, or forgotten when it is terminated."""
        with self._lock:
            self._boots[instance_id] = self._boots.get(instance_id, 0) + 1
            if for_good:
                self._known.pop(instance_id, None)
            elif instance_id in self._known:
                self._known[instance_id].online = False

    def _register(self, instance: Any, machine: Any, boot: int) -> None:
        with self._lock:
            if self._boots.get(instance.id) != boot:
                return
            if self._faults.active("agent_never_online"):
                # As long as the fault is on.
                self._background.later(0.2, self._register, instance, machine, boot)
                return
            self._known[instance.id] = Registration(instance, machine)
        log.info("agent online", extra={"fields": {"instance": instance.id}})

    def registered(self) -> list[Registration]:
        """All that Systems Manager knows, online or not."""
        with self._lock:
            return list(self._known.values())

    def online(self, instance_id: str) -> Registration | None:
        """The registration, if its agent is online."""
        with self._lock:
            found = self._known.get(instance_id)
            return found if found is not None and found.online else None

    def run(
        self, registration: Registration, command_id: str, document: Mapping[str, Any], values: Mapping[str, Any]
    ) -> Outcome:
        """Run the steps of a document one after the other until one fails. Raises MachineGoneError."""
        outcome = Outcome("Failed", 1, "", "the document has no step", "")
        for step in document["mainSteps"]:
            outcome = self._step(registration, command_id, document, step, values)
            if outcome.status != "Success":
                break
        return outcome

    def cancel(self, registration: Registration, command_id: str) -> None:
        """End a running command's script, with what it started."""
        registration.machine.run(["pkill", "-KILL", "-f", f"/orchestration/{command_id}/"])

    def _step(
        self,
        registration: Registration,
        command_id: str,
        document: Mapping[str, Any],
        step: Mapping[str, Any],
        values: Mapping[str, Any],
    ) -> Outcome:
        name = str(step["name"])
        if step["action"] != "aws:runShellScript":
            return Outcome("Failed", 1, "", f"the local agent cannot do {step['action']}", name)
        inputs = step.get("inputs", {})
        lines = inputs.get("runCommand", [])
        script = substitute("\n".join([lines] if isinstance(lines, str) else lines), values) + "\n"
        timeout = float(substitute(str(inputs.get("timeoutSeconds") or STEP_TIMEOUT), values))
        instance_id = registration.instance.id
        folder = f"{ROOT}/{instance_id}/document/orchestration/{command_id}/{name}"
        path = f"{folder}/_script.sh"
        machine = registration.machine
        environment = {
            "AWS_SSM_INSTANCE_ID": instance_id,
            "AWS_SSM_REGION_NAME": self._region,
            **environment_variables(document, values),
        }
        try:
            machine.run(["mkdir", "-p", "-m", "700", folder])
            machine.write_file(path, script.encode(), 0o700)
            try:
                done = machine.run(["sh", "-c", path], env=environment, timeout=timeout)
            finally:
                if machine.running:
                    machine.run(["rm", "-f", path])
        except Exception as error:
            if not machine.running:
                raise MachineGoneError(instance_id) from error
            raise
        if not machine.running and done.exit_code != 0:
            raise MachineGoneError(instance_id)
        status = "TimedOut" if done.timed_out else "Success" if done.exit_code == 0 else "Failed"
        return Outcome(status, 137 if done.timed_out else done.exit_code, done.stdout, done.stderr, name)


def text_of(value: Any) -> str:
    """A parameter's value as the agent pastes it: text as it is, everything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value)


def substitute(text: str, values: Mapping[str, Any]) -> str:
    """Replace each `{{ Name }}` by its value, as text; names that are no parameters stay."""
    return re.sub(
        r"\{\{\s*([a-zA-Z0-9]+)\s*\}\}",
        lambda match: text_of(values[match.group(1)]) if match.group(1) in values else match.group(0),
        text,
    )


def environment_variables(document: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, str]:
    """`SSM_NAME` for each parameter with `interpolationType: ENV_VAR`."""
    return {
        f"SSM_{name}": text_of(values[name])
        for name, declared in document.get("parameters", {}).items()
        if declared.get("interpolationType") == "ENV_VAR" and name in values
    }
