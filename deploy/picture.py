"""Draws the architecture from the packaged template, so that the picture cannot say anything else.

Four columns, left to right as a request goes: what calls, functions, workflows, what they keep and make. A line is a
right or a trigger that the template has: solid where something is called to the right, dashed where a workflow
calls a function back. Which tables a function or workflow uses stands in its box: as lines they would hide the rest.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from deploy.package import package
from deploy.template import of_type

_WIDTH, _GAP, _LEFT, _TOP = 310, 110, 30, 90
_TITLE, _LINE, _PAD, _BETWEEN, _HEAD = 20, 15, 9, 14, 34
_CHARACTERS = 47
_COLOURS = {
    "calls": "#6b7280",
    "functions": "#c2410c",
    "workflows": "#be185d",
    "tables": "#1d4ed8",
    "messages": "#7c3aed",
    "machine": "#047857",
}
_STYLE = (
    "text{font-family:system-ui,sans-serif;font-size:12px;fill:#374151}"
    ".title{font-size:14px;font-weight:600;fill:#111827}"
    ".heading{font-size:15px;font-weight:700}"
    ".name{font-size:22px;font-weight:700;fill:#111827}"
    ".arrow{fill:none;stroke:#9ca3af;stroke-width:1.3}"
    ".back{stroke:#be185d;stroke-opacity:.55;stroke-dasharray:5 4}"
)
_LEGEND = (
    "Drawn from the CloudFormation template by “make picture”. Solid: calls, starts, sends. "
    "Dashed: a workflow calls a function."
)


@dataclass
class Box:
    """One thing of the template: its name, and lines that say more."""

    name: str
    title: str
    lines: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Group:
    """Boxes under one heading, in one column."""

    kind: str
    heading: str
    column: int
    boxes: list[Box]


@dataclass(frozen=True)
class Arrow:
    """From box to box, by their names."""

    source: str
    target: str
    back: bool = False


def of_checkout() -> str:
    """The picture of this checkout, which is packaged for it."""
    with tempfile.TemporaryDirectory(prefix="nod-picture-") as folder:
        return draw(json.loads(package("prod", (), Path(folder) / "package").read_text(encoding="utf-8")))


def draw(template: Mapping[str, Any]) -> str:
    """The picture as SVG: the same for the same template."""
    groups, arrows = model(template)
    return _svg(groups, arrows)


def model(template: Mapping[str, Any]) -> tuple[list[Group], list[Arrow]]:
    """What is drawn."""
    reader = _Reader(template)
    functions = of_type(template, "AWS::Serverless::Function")
    machines = of_type(template, "AWS::Serverless::StateMachine")
    calls, triggers = reader.calls(functions)
    groups = [
        Group("calls", "What calls", 0, calls),
        Group("functions", "Functions (Lambda, app.py)", 1, [reader.worker(one) for one in functions]),
        Group("workflows", "Workflows (Step Functions)", 2, [reader.worker(one) for one in machines]),
        Group(
            "tables", "Tables (DynamoDB)", 3, [reader.table(one) for one in of_type(template, "AWS::DynamoDB::Table")]
        ),
        Group("messages", "Messages (SNS, SQS)", 3, reader.messages()),
        Group("machine", "A notebook's machine (EC2, SSM)", 3, [reader.machine()]),
    ]
    arrows = [*triggers, *reader.rules()]
    for one in [*functions, *machines]:
        arrows += reader.arrows(one, one in machines)
    return groups, sorted(set(arrows), key=lambda arrow: (arrow.source, arrow.target, arrow.back))


class _Reader:
    """Reads a template: what may do what, in terms of its own resources."""

    def __init__(self, template: Mapping[str, Any]) -> None:
        self._resources: Mapping[str, Any] = template["Resources"]
        self._stage = str(template["Parameters"]["Stage"]["Default"])
        names = ("TableName", "Name", "TopicName", "QueueName", "FunctionName")
        self._by_name = {
            (resource["Type"], self._plain(resource["Properties"][key])): logical
            for logical, resource in self._resources.items()
            for key in names
            if key in resource.get("Properties", {}) and isinstance(resource["Properties"][key], dict)
        }

    def worker(self, logical: str) -> Box:
        """A function or a workflow."""
        properties = self._resources[logical]["Properties"]
        used = sorted({self.title(one) for one in self._uses(logical) if self._type(one) == "AWS::DynamoDB::Table"})
        lines = [f"tables: {', '.join(used)}"] if used else []
        if "MemorySize" in properties:
            lines.append(f"{properties['MemorySize']} MB, at most {properties['Timeout']} s")
        return Box(logical, self.title(logical), lines)

    def table(self, logical: str) -> Box:
        """A table, with its keys."""
        properties = self._resources[logical]["Properties"]
        lines = [f"key {' and '.join(key['AttributeName'] for key in properties['KeySchema'])}"]
        indexes = [one["IndexName"].removesuffix("-index") for one in properties.get("GlobalSecondaryIndexes", [])]
        if indexes:
            lines.append(f"indexes {', '.join(sorted(indexes))}")
        kept = []
        if properties.get("PointInTimeRecoverySpecification"):
            kept.append("restorable to any second of 35 days")
        if properties.get("TimeToLiveSpecification"):
            kept.append("rows expire")
        return Box(logical, self.title(logical), [*lines, *([", ".join(kept)] if kept else [])])

    def messages(self) -> list[Box]:
        """Topics and queues."""
        boxes = []
        for logical in of_type({"Resources": self._resources}, "AWS::SNS::Topic"):
            boxes.append(Box(logical, f"topic {self.title(logical)}", self._subscribers(logical)))
        for logical in of_type({"Resources": self._resources}, "AWS::SQS::Queue"):
            boxes.append(Box(logical, f"queue {self.title(logical)}"))
        return boxes

    def _subscribers(self, topic: str) -> list[str]:
        if topic == "OperatorsTopic":
            alarms = len(of_type({"Resources": self._resources}, "AWS::CloudWatch::Alarm"))
            return [f"{alarms} alarms, by e-mail"]
        return ["e-mail to each owner, Slack by a function"]

    def machine(self) -> Box:
        """The launch template with its doors, and the documents that run on it."""
        data = self._resources["NotebookLaunchTemplate"]["Properties"]["LaunchTemplateData"]
        metadata = data["MetadataOptions"]
        documents = sorted(
            self._plain(self._resources[one]["Properties"]["Name"])
            for one in of_type({"Resources": self._resources}, "AWS::SSM::Document")
        )
        lines = [
            "port 8888 open to the CIDR blocks of the deployment; no SSH",
            f"IMDSv2 {metadata['HttpTokens']}, hop limit {metadata['HttpPutResponseHopLimit']}; disk encrypted",
            "role: the agent's channels, its own heartbeat row",
            *(f"document {one}" for one in documents),
        ]
        return Box("NotebookLaunchTemplate", "instance of the launch template", lines)

    def calls(self, functions: Iterable[str]) -> tuple[list[Box], list[Arrow]]:
        """HTTP, schedules, events and messages, with what they call."""
        boxes = {"RestAPI": Box("RestAPI", "HTTPS: API Gateway", self._api())}
        arrows = [Arrow("RestAPI", "APIHandler")]
        for function in functions:
            for event in self._resources[function]["Properties"].get("Events", {}).values():
                title, lines = self._event(event)
                boxes.setdefault(title, Box(title, title, lines))
                arrows.append(Arrow(title, function))
        for rule in of_type({"Resources": self._resources}, "AWS::Events::Rule"):
            boxes[rule] = Box(
                rule, f"rule {self.title(rule)}", self._pattern(self._resources[rule]["Properties"]["EventPattern"])
            )
        first = ["RestAPI"]
        return [boxes[one] for one in [*first, *sorted(boxes.keys() - set(first))]], arrows

    def _api(self) -> list[str]:
        paths: Mapping[str, Any] = self._resources["RestAPI"]["Properties"]["DefinitionBody"]["paths"]
        setting = self._resources["RestAPI"]["Properties"]["MethodSettings"][0]
        return [*sorted(paths), f"{setting['ThrottlingRateLimit']} requests a second"]

    def _event(self, event: Mapping[str, Any]) -> tuple[str, list[str]]:
        properties = event["Properties"]
        if event["Type"] == "Schedule":
            return f"schedule {properties['Schedule']}", []
        if event["Type"] == "SNS":
            return "a message of the topic", []
        return f"event {properties['Pattern']['detail-type'][0].removesuffix(' Notification')}", self._pattern(
            properties["Pattern"]
        )

    def _pattern(self, pattern: Mapping[str, Any]) -> list[str]:
        detail = pattern.get("detail", {})
        states = detail.get("state") or detail.get("status") or []
        machines = [self._plain(one).rsplit(":", 1)[-1] for one in detail.get("stateMachineArn", [])]
        return [", ".join([*machines, *states])] if states or machines else []

    def rules(self) -> Iterator[Arrow]:
        """From the rules to the workflows that they start."""
        for rule in of_type({"Resources": self._resources}, "AWS::Events::Rule"):
            for target in self._resources[rule]["Properties"]["Targets"]:
                for logical in self._resolve(target["Arn"]):
                    yield Arrow(rule, logical)

    def arrows(self, logical: str, is_machine: bool) -> Iterator[Arrow]:
        """What it may call, start or send to."""
        kinds = {"AWS::Serverless::StateMachine", "AWS::SNS::Topic"}
        for one in self._uses(logical):
            if self._type(one) in kinds or one == "NotebookLaunchTemplate":
                yield Arrow(logical, one)
            elif self._type(one) == "AWS::Serverless::Function":
                yield Arrow(logical, one, back=is_machine)

    def _uses(self, logical: str) -> set[str]:
        found: set[str] = set()
        for statement in self._statements(logical):
            actions = _listed(statement["Action"])
            if actions and all(action.startswith("iam:") for action in actions):
                continue
            for resource in _listed(statement["Resource"]):
                found |= self._resolve(resource)
            # Describing is looking from afar; these reach the machine.
            if {action.split(":")[0] for action in actions} & {"ec2", "ssm"} and any(
                re.search(r"Instances$|SendCommand$|CreateFleet$", action) and "Describe" not in action
                for action in actions
            ):
                found.add("NotebookLaunchTemplate")
        return found - {logical}

    def _statements(self, logical: str) -> list[Mapping[str, Any]]:
        properties = self._resources[logical]["Properties"]
        if "Policies" in properties:
            documents = properties["Policies"]
        else:
            role = self._resources[properties["Role"]["Fn::GetAtt"][0]]["Properties"]
            documents = [one["PolicyDocument"] for one in role["Policies"]]
        return [statement for document in documents for statement in document["Statement"]]

    def _resolve(self, value: Any) -> set[str]:
        """Logical ids of what an ARN or reference in the template means."""
        if isinstance(value, dict) and "Fn::GetAtt" in value:
            return {value["Fn::GetAtt"][0]}
        if isinstance(value, dict) and "Ref" in value:
            return {value["Ref"]}
        text = self._plain(value)
        kinds = {
            ":table/": "AWS::DynamoDB::Table",
            ":stateMachine:": "AWS::Serverless::StateMachine",
            ":execution:": "AWS::Serverless::StateMachine",
            ":sns:": "AWS::SNS::Topic",
            ":sqs:": "AWS::SQS::Queue",
        }
        for mark, kind in kinds.items():
            if mark in text:
                rest = text.split(mark, 1)[1] if mark.startswith((":t", ":st", ":e")) else text.rsplit(":", 1)[-1]
                names = {name for known, name in self._by_name if known == kind and name == re.split(r"[:/]", rest)[0]}
                return {self._by_name[kind, name] for name in names}
        return set()

    def title(self, logical: str) -> str:
        """Its name without the deployment's prefix."""
        properties = self._resources[logical]["Properties"]
        for key in ("TableName", "TopicName", "QueueName", "FunctionName", "Name"):
            if key in properties:
                return self._plain(properties[key]) or "api"
        return logical

    def _type(self, logical: str) -> str:
        return str(self._resources.get(logical, {}).get("Type", ""))

    def _plain(self, value: Any) -> str:
        text = str(value["Fn::Sub"] if isinstance(value, dict) and "Fn::Sub" in value else value)
        return re.sub(r"\bnod-(\$\{Stage\}|" + re.escape(self._stage) + r")-?", "", text)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


@dataclass(frozen=True)
class _Place:
    x: int
    y: int
    height: int


def _svg(groups: list[Group], arrows: list[Arrow]) -> str:
    bottoms: dict[int, int] = {}
    places: dict[str, _Place] = {}
    grounds: list[str] = []
    boxes: list[str] = []
    for group in groups:
        x = _LEFT + group.column * (_WIDTH + _GAP)
        top, colour = bottoms.get(group.column, _TOP), _COLOURS[group.kind]
        y = top + _HEAD
        for box in group.boxes:
            lines = [line for text in box.lines for line in _wrapped(text)]
            places[box.name] = _Place(x, y, 2 * _PAD + _TITLE + _LINE * len(lines))
            boxes += _box(places[box.name], box.title, lines, colour)
            y += places[box.name].height + _BETWEEN
        grounds += [
            f'<rect x="{x - 14}" y="{top}" width="{_WIDTH + 28}" height="{y - top}" rx="12" fill="{colour}" '
            'fill-opacity="0.07"/>',
            f'<text x="{x}" y="{top + 22}" class="heading" fill="{colour}">{escape(group.heading)}</text>',
        ]
        bottoms[group.column] = y + 24
    width, height = 2 * _LEFT + 4 * _WIDTH + 3 * _GAP, max(bottoms.values()) + 10
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
            'role="img" aria-label="Architecture of Notebook on Demand">',
            f"<style>{_STYLE}</style>",
            '<defs><marker id="end" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
            '<path d="M0 0L8 4L0 8z" fill="#6b7280"/></marker></defs>',
            f'<rect width="{width}" height="{height}" fill="#fff"/>',
            f'<text x="{_LEFT - 14}" y="38" class="name">Notebook on Demand</text>',
            f'<text x="{_LEFT - 14}" y="62">{_LEGEND}</text>',
            *grounds,
            # Under the boxes: a line that passes one does not cross its words.
            *(_arrow(one, places) for one in arrows if one.source in places and one.target in places),
            *boxes,
            "</svg>",
            "",
        ]
    )


def _box(place: _Place, title: str, lines: list[str], colour: str) -> list[str]:
    x, y = place.x + _PAD, place.y + _PAD + 14
    return [
        f'<rect x="{place.x}" y="{place.y}" width="{_WIDTH}" height="{place.height}" rx="7" fill="#fff" '
        f'stroke="{colour}"/>',
        f'<text x="{x}" y="{y}" class="title">{escape(title)}</text>',
        *(
            f'<text x="{x}" y="{y + _LINE * number + 3}">{escape(line)}</text>'
            for number, line in enumerate(lines, start=1)
        ),
    ]


def _arrow(arrow: Arrow, places: Mapping[str, _Place]) -> str:
    one, other = places[arrow.source], places[arrow.target]
    y1, y2 = one.y + one.height // 2, other.y + other.height // 2
    if other.x > one.x:
        x1, x2 = one.x + _WIDTH, other.x
        bend = _GAP // 2 if other.x - one.x <= _WIDTH + _GAP else _GAP
        curve = f"M{x1} {y1}C{x1 + bend} {y1} {x2 - bend} {y2} {x2 - 2} {y2}"
    elif other.x < one.x:
        x1, x2 = one.x, other.x + _WIDTH
        # A little lower than what comes the other way.
        curve = f"M{x1} {y1 + 8}C{x1 - _GAP // 2} {y1 + 8} {x2 + _GAP // 2} {y2 + 8} {x2 + 2} {y2 + 8}"
    else:
        x = one.x
        curve = f"M{x} {y1}C{x - 45} {y1} {x - 45} {y2} {x - 2} {y2}"
    kind = "arrow back" if arrow.back else "arrow"
    return f'<path class="{kind}" d="{curve}" marker-end="url(#end)"/>'


def _wrapped(text: str) -> list[str]:
    lines = [""]
    for word in text.split(" "):
        if lines[-1] and len(lines[-1]) + 1 + len(word) > _CHARACTERS:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}".strip()
    return lines
