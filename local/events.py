"""EventBridge: events of the local AWS services to the rules that match them, asynchronously and at least once.

moto keeps the rules (PutRule, PutTargets) and matches patterns; it delivers to few kinds of target and emits hardly
any event of its own. On AWS a rule starts state machines and invokes functions; delivery of EC2's and SSM's events is
best effort (fault `event_lost`).
"""

from __future__ import annotations

import json
import logging
import re
import uuid
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

from local.background import Background
from local.faults import Faults
from local.principals import acting, listener

log = logging.getLogger("nod.local.events")

Event = dict[str, Any]
BEST_EFFORT = ("aws.ec2", "aws.ssm")


class EventBus:
    """The default event bus of the account. `rules` yields moto's rules; `send` hands an input to a target's ARN."""

    def __init__(
        self,
        *,
        account: str,
        region: str,
        background: Background,
        faults: Faults,
        rules: Callable[[], Iterable[Any]],
        send: Callable[[str, Any], None],
    ) -> None:
        self.account = account
        self.region = region
        self._background = background
        self._faults = faults
        self._rules = rules
        self._send = send

    def emit(self, source: str, kind: str, resources: list[str], detail: dict[str, Any], *, times: int = 1) -> None:
        """An AWS service says that something happened (`kind` is the `detail-type`)."""
        event = {
            "version": "0",
            "id": str(uuid.uuid4()),
            "detail-type": kind,
            "source": source,
            "account": self.account,
            "time": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "region": self.region,
            "resources": resources,
            "detail": detail,
        }
        subjects = [source]
        if source in BEST_EFFORT:
            lost = self._faults.active("event_lost", *subjects)
        else:
            # The other services deliver at least once: only a fault that names them loses their events.
            lost = f"event_lost:{source}" in self._faults.names()
        state = detail.get("status") or detail.get("state")
        log.info("event", extra={"fields": {"source": source, "type": kind, "state": state, "lost": lost}})
        if lost:
            return
        for _ in range(times):
            self._background.submit(self.deliver, event)

    def deliver(self, event: Event) -> None:
        """Hand an event to every target of every enabled rule that matches it."""
        for rule in list(self._rules()):
            self.deliver_to(rule, event)

    def deliver_to(self, rule: Any, event: Event) -> None:
        """Hand an event to every target of one rule, if it is enabled and matches."""
        if rule.state != "ENABLED" or rule.scheduled_expression or not rule.event_pattern.matches_event(event):
            return
        for target in list(rule.targets):
            self._background.submit(self._to_target, target, event)

    def scheduled_event(self, rule: str) -> Event:
        """What EventBridge makes of a schedule that is due; `rule` is the rule's ARN or name."""
        return {
            "version": "0",
            "id": str(uuid.uuid4()),
            "detail-type": "Scheduled Event",
            "source": "aws.events",
            "account": self.account,
            "time": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "region": self.region,
            "resources": [
                rule if rule.startswith("arn:") else f"arn:aws:events:{self.region}:{self.account}:rule/{rule}"
            ],
            "detail": {},
        }

    def tick(self, rule_arn: str, target: str) -> None:
        """A schedule is due."""
        self._send(target, self.scheduled_event(rule_arn))

    def _to_target(self, target: dict[str, Any], event: Event) -> None:
        if "RoleArn" in target:
            with acting(f"role/{target['RoleArn'].rsplit('/', 1)[-1]}"):
                listener.tell("stepfunctions", "StartExecution", stateMachineArn=target["Arn"])
        self._send(target["Arn"], target_input(target, event))


def target_input(target: dict[str, Any], event: Event) -> Any:
    """What a target receives: the event, `Input`, the part at `InputPath`, or the filled `InputTransformer`."""
    if target.get("Input") is not None:
        return json.loads(target["Input"])
    if target.get("InputPath"):
        return select(event, target["InputPath"])
    transformer = target.get("InputTransformer")
    if transformer:
        return _transform(transformer, event)
    return event


def select(event: Any, path: str) -> Any:
    """The value at a path such as `$.detail.list[0]`; `None` where there is none, as EventBridge has it."""
    for name, index in re.findall(r"\.([^.\[\]]+)|\[(\d+)\]", path.removeprefix("$")):
        if name:
            event = event.get(name) if isinstance(event, dict) else None
        else:
            event = event[int(index)] if isinstance(event, list) and int(index) < len(event) else None
    return event


def _transform(transformer: dict[str, Any], event: Event) -> Any:
    values = {name: select(event, path) for name, path in (transformer.get("InputPathsMap") or {}).items()}
    template: str = transformer["InputTemplate"]

    def fill(match: re.Match[str]) -> str:
        name = match.group(1)
        value: Any = event if name == "aws.events.event" else values.get(name)
        inside_string = template[: match.start()].count('"') % 2 == 1
        if inside_string:
            text = value if isinstance(value, str) else json.dumps(value)
            return json.dumps(text)[1:-1]
        return json.dumps(value)

    filled = re.sub(r"<([\w.-]+)>", fill, template)
    try:
        return json.loads(filled)
    except ValueError:
        return filled
