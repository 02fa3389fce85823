"""Systems Manager: commands that really run. moto runs nothing and always answers `Success`.

The API around the agent (local/agent.py): what SendCommand refuses, the states of a command and of each of its
invocations, their output with AWS's limits, and an EventBridge event for every change.
"""

from __future__ import annotations

import json
import re
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from moto.ssm.models import ssm_backends

from local.agent import Agents, MachineGoneError, Outcome, Registration
from local.aws.errors import ApiError
from local.background import Background
from local.delays import Delays
from local.events import EventBus
from local.faults import Faults

STDOUT_LIMIT = 24_000
STDERR_LIMIT = 8_000
PLUGIN_LIMIT = 2_500
DOCUMENT_LIMIT = 64 * 1024
DETAILS = {"TimedOut": "ExecutionTimedOut"}
OVER = frozenset({"Success", "Failed", "TimedOut", "Cancelled"})


@dataclass
class Invocation:
    """One command on one instance."""

    registration: Registration
    status: str = "Pending"
    began: datetime | None = None
    ended: datetime | None = None
    outcome: Outcome | None = None

    @property
    def instance_id(self) -> str:
        return str(self.registration.instance.id)


@dataclass
class Command:
    """What SendCommand made."""

    id: str
    document: str
    version: str
    content: Mapping[str, Any]
    parameters: dict[str, list[str]]
    comment: str
    timeout: int
    asked: datetime
    sent: float
    invocations: dict[str, Invocation]
    status: str = "Pending"
    lock: threading.Lock = field(default_factory=threading.Lock)


class Commands:
    """The commands of the account, newest last."""

    def __init__(
        self,
        *,
        account: str,
        region: str,
        agents: Agents,
        bus: EventBus,
        background: Background,
        delays: Delays,
        faults: Faults,
    ) -> None:
        self._account = account
        self._region = region
        self._agents = agents
        self._bus = bus
        self._background = background
        self._delays = delays
        self._faults = faults
        self._commands: dict[str, Command] = {}
        self.actions = {
            "SendCommand": self.send,
            "CancelCommand": self.cancel,
            "ListCommands": self.list_commands,
            "ListCommandInvocations": self.list_invocations,
            "GetCommandInvocation": self.get_invocation,
            "DescribeInstanceInformation": self.describe_instances,
        }

    # SendCommand, CancelCommand

    def send(self, request: dict[str, Any]) -> dict[str, Any]:
        """SendCommand. Raises ApiError."""
        name = str(request.get("DocumentName", ""))
        if self._faults.active("command_denied", name, name.split("-", 2)[-1]):
            raise self._denied("ssm", f"document/{name}")
        version, content = self._document(name, request.get("DocumentVersion", "$DEFAULT"))
        registrations = self._targets(request)
        given = {key: list(values) for key, values in (request.get("Parameters") or {}).items()}
        values = checked_parameters(content, given)
        if len(json.dumps(content)) + len(json.dumps(given)) > DOCUMENT_LIMIT:
            raise ApiError("ValidationException", "The document and its parameters are larger than 64 KB.")
        timeout = int(request.get("TimeoutSeconds") or 3600)
        if not 30 <= timeout <= 2_592_000:
            raise ApiError(
                "ValidationException",
                f"1 validation error detected: Value '{timeout}' at 'timeoutSeconds' failed to satisfy constraint: "
                "Member must have value between 30 and 2592000",
            )
        comment = request.get("Comment") or ""
        if len(comment) > 100:
            raise ApiError("ValidationException", "A comment has at most 100 characters.")
        command = Command(
            id=str(uuid.uuid4()),
            document=name,
            version=version,
            content=content,
            parameters=given,
            comment=comment,
            timeout=timeout,
            asked=datetime.now(UTC),
            sent=time.monotonic(),
            invocations={r.instance.id: Invocation(r) for r in registrations},
        )
        self._commands[command.id] = command
        answer = {"Command": self._described(command)}
        for invocation in command.invocations.values():
            self._background.submit(self._execute, command, invocation, values)
        return answer

    def cancel(self, request: dict[str, Any]) -> dict[str, Any]:
        """CancelCommand: best effort, as on AWS."""
        command = self._command(request)
        wanted = request.get("InstanceIds") or list(command.invocations)
        for instance_id in wanted:
            invocation = command.invocations.get(instance_id)
            if invocation is None:
                raise ApiError("InvalidInstanceId", f"Command {command.id} has no invocation on {instance_id}")
            if self._become(command, invocation, "Cancelled"):
                self._background.submit(self._agents.cancel, invocation.registration, command.id)
        return {}

    def _execute(self, command: Command, invocation: Invocation, values: dict[str, Any]) -> None:
        if not self._become(command, invocation, "InProgress"):
            return
        short = command.document.split("-", 2)[-1]
        subjects = (command.document, short)
        try:
            if self._faults.active("command_times_out", *subjects):
                self._background.sleep(1)
                outcome = Outcome("TimedOut", 137, "", "", "")
            elif self._faults.active("command_fails", *subjects):
                outcome = Outcome("Failed", 1, "", "fault command_fails: the script was not run\n", "")
            elif self._faults.active("command_twice", *subjects):
                other = threading.Thread(target=self._again, args=(command, invocation, values), daemon=True)
                other.start()
                outcome = self._agents.run(invocation.registration, command.id, command.content, values)
                other.join()
            else:
                outcome = self._agents.run(invocation.registration, command.id, command.content, values)
        except MachineGoneError:
            # Nobody reports the end: AWS calls the command timed out when its step could run no longer.
            self._background.later(self._longest(command), self._become, command, invocation, "TimedOut")
            return
        except Exception:
            if self._background.closing.is_set():
                return
            self._become(
                command, invocation, "Failed", Outcome("Failed", 1, "", "the agent could not run the script", "")
            )
            raise
        self._become(
            command,
            invocation,
            outcome.status,
            outcome,
            times=2 if self._faults.active("command_twice", *subjects) else 1,
        )

    def _again(self, command: Command, invocation: Invocation, values: dict[str, Any]) -> None:
        # The second delivery of a command runs under another folder, as the agent's retry does.
        self._agents.run(invocation.registration, f"{command.id}.2", command.content, values)

    def _longest(self, command: Command) -> float:
        steps = command.content["mainSteps"]
        limits = [float(step.get("inputs", {}).get("timeoutSeconds") or 3600) for step in steps]
        return max(limits)

    def _become(
        self, command: Command, invocation: Invocation, status: str, outcome: Outcome | None = None, *, times: int = 1
    ) -> bool:
        with command.lock:
            if invocation.status in OVER:
                return False
            invocation.status = status
            now = datetime.now(UTC)
            if status in OVER:
                invocation.ended, invocation.outcome = now, outcome
            else:
                invocation.began = now
            before = command.status
            command.status = _overall([each.status for each in command.invocations.values()])
            changed = command.status != before
        instance = f"arn:aws:ec2:{self._region}:{self._account}:instance/{invocation.instance_id}"
        detail: dict[str, Any] = {
            "command-id": command.id,
            "document-name": command.document,
            "instance-id": invocation.instance_id,
            "requested-date-time": _text(command.asked),
            "status": status,
        }
        self._bus.emit("aws.ssm", "EC2 Command Invocation Status-change Notification", [instance], detail, times=times)
        if changed:
            self._tell(command, times)
        return True

    def _tell(self, command: Command, times: int) -> None:
        arns = [f"arn:aws:ec2:{self._region}:{self._account}:instance/{id_}" for id_ in command.invocations]
        detail = {
            "command-id": command.id,
            "document-name": command.document,
            "expire-after": _text(command.asked + timedelta(seconds=command.timeout)),
            "parameters": command.parameters,
            "requested-date-time": _text(command.asked),
            "status": command.status,
        }
        self._bus.emit("aws.ssm", "EC2 Command Status-change Notification", arns, detail, times=times)

    # Questions

    def list_commands(self, request: dict[str, Any]) -> dict[str, Any]:
        """ListCommands, newest first."""
        found = [c for c in self._newest_first() if _wanted(c, request)]
        page, token = _page(found, request)
        return {"Commands": [self._described(command) for command in page], **token}

    def list_invocations(self, request: dict[str, Any]) -> dict[str, Any]:
        """ListCommandInvocations, newest first."""
        entries = []
        for command in self._newest_first():
            if request.get("CommandId") not in (None, command.id):
                continue
            for invocation in command.invocations.values():
                if request.get("InstanceId") not in (None, invocation.instance_id):
                    continue
                status = [f["value"] for f in request.get("Filters") or [] if f["key"] == "Status"]
                if status and invocation.status not in status:
                    continue
                entries.append(self._invocation(command, invocation, details=bool(request.get("Details"))))
        page, token = _page(entries, request)
        return {"CommandInvocations": page, **token}

    def get_invocation(self, request: dict[str, Any]) -> dict[str, Any]:
        """GetCommandInvocation. Right after SendCommand the invocation does not exist yet."""
        command = self._commands.get(str(request.get("CommandId")))
        invocation = command.invocations.get(str(request.get("InstanceId"))) if command else None
        if command is None or invocation is None or time.monotonic() - command.sent < self._delays.invocation:
            raise ApiError("InvocationDoesNotExist", "")
        outcome = invocation.outcome
        step = outcome.step if outcome and outcome.step else command.content["mainSteps"][0]["name"]
        if request.get("PluginName") not in (None, step):
            raise ApiError("InvalidPluginName", "")
        elapsed = ""
        if invocation.began and invocation.ended:
            elapsed = f"PT{(invocation.ended - invocation.began).total_seconds():.3f}S".replace(".000S", "S")
        return {
            "CommandId": command.id,
            "InstanceId": invocation.instance_id,
            "Comment": command.comment,
            "DocumentName": command.document,
            "DocumentVersion": command.version,
            "PluginName": step,
            "ResponseCode": outcome.exit_code if outcome else -1,
            "ExecutionStartDateTime": _text(invocation.began) if invocation.began else "",
            "ExecutionElapsedTime": elapsed,
            "ExecutionEndDateTime": _text(invocation.ended) if invocation.ended else "",
            "Status": invocation.status,
            "StatusDetails": DETAILS.get(invocation.status, invocation.status),
            "StandardOutputContent": _first(
                outcome.stdout if outcome else "", STDOUT_LIMIT, "\n---Output truncated---"
            ),
            "StandardOutputUrl": "",
            "StandardErrorContent": _first(outcome.stderr if outcome else "", STDERR_LIMIT, "\n---Error truncated----"),
            "StandardErrorUrl": "",
            "CloudWatchOutputConfig": {"CloudWatchLogGroupName": "", "CloudWatchOutputEnabled": False},
        }

    def describe_instances(self, request: dict[str, Any]) -> dict[str, Any]:
        """DescribeInstanceInformation: who is online, and whose connection is lost."""
        wanted: dict[str, list[str]] = {}
        for entry in request.get("Filters") or []:
            wanted[entry["Key"]] = entry["Values"]
        for entry in request.get("InstanceInformationFilterList") or []:
            wanted[entry["key"]] = entry["valueSet"]
        found = []
        for registration in self._agents.registered():
            ping = "Online" if registration.online else "ConnectionLost"
            if registration.instance.id not in wanted.get("InstanceIds", [registration.instance.id]):
                continue
            if ping not in wanted.get("PingStatus", [ping]):
                continue
            found.append(
                {
                    "InstanceId": registration.instance.id,
                    "PingStatus": ping,
                    "LastPingDateTime": registration.last_ping.timestamp(),
                    "AgentVersion": "3.3.2746.0",
                    "IsLatestVersion": True,
                    "PlatformType": "Linux",
                    "PlatformName": "Debian GNU/Linux",
                    "PlatformVersion": "12",
                    "ResourceType": "EC2Instance",
                    "IPAddress": registration.instance.private_ip,
                    "ComputerName": registration.instance.private_dns_name,
                }
            )
        page, token = _page(found, request)
        return {"InstanceInformationList": page, **token}

    # What those above share

    def _newest_first(self) -> list[Command]:
        return list(reversed(list(self._commands.values())))

    def _command(self, request: dict[str, Any]) -> Command:
        command = self._commands.get(str(request.get("CommandId")))
        if command is None:
            raise ApiError("InvalidCommandId", "")
        return command

    def _document(self, name: str, version: str) -> tuple[str, Mapping[str, Any]]:
        documents = ssm_backends[self._account][self._region]._documents
        found = documents.get(name.rsplit(":document/", 1)[-1])
        if found is None:
            raise ApiError("InvalidDocument", f"Document with name {name} does not exist.")
        number = found.default_version if version == "$DEFAULT" else version
        number = found.latest_version if version == "$LATEST" else number
        document = found.versions.get(str(number))
        if document is None:
            raise ApiError("InvalidDocumentVersion", f"Document {name} has no version {version}.")
        return version, document.content_json

    def _targets(self, request: dict[str, Any]) -> list[Registration]:
        ids = list(request.get("InstanceIds") or [])
        for target in request.get("Targets") or []:
            if target.get("Key") != "InstanceIds":
                raise ApiError("InvalidTarget", "The local cloud takes targets by InstanceIds only.")
            ids += target["Values"]
        if len(ids) > 50:
            raise ApiError(
                "ValidationException",
                f"1 validation error detected: Value '{ids}' at 'instanceIds' failed to satisfy constraint: "
                "Member must have length less than or equal to 50",
            )
        found = {id_: self._agents.online(id_) for id_ in ids}
        missing = [id_ for id_, registration in found.items() if registration is None]
        if missing and self._faults.active("agent_denied"):
            # A role that may send commands by tag (ssm:resourceTag): Systems Manager learns an instance's tags from the
            # agent's registration.
            raise self._denied("ec2", f"instance/{missing[0]}")
        if missing or not found:
            listed = ", ".join(missing)
            raise ApiError(
                "InvalidInstanceId", f"Instances [[{listed}]] not in a valid state for account {self._account}"
            )
        return [registration for registration in found.values() if registration is not None]

    def _denied(self, service: str, resource: str) -> ApiError:
        return ApiError(
            "AccessDeniedException",
            f"User: arn:aws:sts::{self._account}:assumed-role/nod-local/workflow is not authorized to perform: "
            f"ssm:SendCommand on resource: arn:aws:{service}:{self._region}:{self._account}:{resource} because no "
            "identity-based policy allows the ssm:SendCommand action",
        )

    def _described(self, command: Command) -> dict[str, Any]:
        states = [invocation.status for invocation in command.invocations.values()]
        return {
            "CommandId": command.id,
            "DocumentName": command.document,
            "DocumentVersion": command.version,
            "Comment": command.comment,
            "ExpiresAfter": (command.asked + timedelta(seconds=command.timeout)).timestamp(),
            "Parameters": command.parameters,
            "InstanceIds": list(command.invocations),
            "Targets": [],
            "RequestedDateTime": command.asked.timestamp(),
            "Status": command.status,
            "StatusDetails": DETAILS.get(command.status, command.status),
            "OutputS3BucketName": "",
            "OutputS3KeyPrefix": "",
            "MaxConcurrency": "50",
            "MaxErrors": "0",
            "TargetCount": len(states),
            "CompletedCount": sum(state in OVER for state in states),
            "ErrorCount": sum(state in {"Failed", "TimedOut"} for state in states),
            "DeliveryTimedOutCount": 0,
            "ServiceRole": "",
            "NotificationConfig": {"NotificationArn": "", "NotificationEvents": [], "NotificationType": ""},
            "CloudWatchOutputConfig": {"CloudWatchLogGroupName": "", "CloudWatchOutputEnabled": False},
            "TimeoutSeconds": command.timeout,
        }

    def _invocation(self, command: Command, invocation: Invocation, *, details: bool) -> dict[str, Any]:
        status = invocation.status
        entry: dict[str, Any] = {
            "CommandId": command.id,
            "InstanceId": invocation.instance_id,
            "InstanceName": "",
            "Comment": command.comment,
            "DocumentName": command.document,
            "DocumentVersion": command.version,
            "RequestedDateTime": command.asked.timestamp(),
            "Status": status,
            "StatusDetails": DETAILS.get(status, status),
            "StandardOutputUrl": "",
            "StandardErrorUrl": "",
            "CommandPlugins": [],
        }
        if details and invocation.outcome:
            outcome = invocation.outcome
            entry["CommandPlugins"] = [
                {
                    "Name": outcome.step,
                    "Status": status,
                    "StatusDetails": DETAILS.get(status, status),
                    "ResponseCode": outcome.exit_code,
                    "Output": _first(outcome.stdout, PLUGIN_LIMIT, "--output truncated--"),
                }
            ]
        return entry


def checked_parameters(content: Mapping[str, Any], given: Mapping[str, list[str]]) -> dict[str, Any]:
    """The value of every parameter of a document, defaults included. Raises ApiError `InvalidParameters`.

    `allowedPattern` is searched for, not matched in full: where a pattern lacks its anchors, more gets through.
    """
    declared = content.get("parameters", {})
    unknown = sorted(set(given) - set(declared))
    if unknown:
        raise ApiError("InvalidParameters", f"document does not support parameters: {', '.join(unknown)}")
    values: dict[str, Any] = {}
    for name, rule in declared.items():
        if name not in given:
            if "default" not in rule:
                raise ApiError("InvalidParameters", f"Missing required parameter: {name}")
            values[name] = rule["default"]
            continue
        if rule["type"] == "String" and len(given[name]) != 1:
            raise ApiError("InvalidParameters", f"Parameter {name} is a String: it takes exactly one value.")
        for text in given[name]:
            _check_value(name, text, rule)
        values[name] = given[name][0] if rule["type"] == "String" else given[name]
    return values


def _check_value(name: str, text: str, rule: Mapping[str, Any]) -> None:
    if not isinstance(text, str):
        raise ApiError("SerializationException", f"Parameter {name} is a list of strings.")
    pattern = rule.get("allowedPattern")
    if pattern and not re.search(pattern, text):
        raise ApiError("InvalidParameters", f"Parameter {name} does not match the allowed pattern {pattern}")
    allowed = rule.get("allowedValues")
    if allowed and text not in allowed:
        raise ApiError("InvalidParameters", f"Parameter {name} is none of {', '.join(allowed)}")
    if not int(rule.get("minChars", 0)) <= len(text) <= int(rule.get("maxChars", len(text))):
        raise ApiError("InvalidParameters", f"Parameter {name} is too short or too long")


def _overall(states: list[str]) -> str:
    if all(state == "Pending" for state in states):
        return "Pending"
    if not all(state in OVER for state in states):
        return "InProgress"
    for worst in ("Failed", "TimedOut", "Cancelled"):
        if worst in states:
            return worst
    return "Success"


def _wanted(command: Command, request: dict[str, Any]) -> bool:
    if request.get("CommandId") not in (None, command.id):
        return False
    if request.get("InstanceId") is not None and request["InstanceId"] not in command.invocations:
        return False
    for entry in request.get("Filters") or []:
        key, value = entry["key"], entry["value"]
        if key == "InvokedAfter":
            fits = command.asked >= datetime.fromisoformat(value)
        elif key == "InvokedBefore":
            fits = command.asked < datetime.fromisoformat(value)
        elif key == "Status":
            fits = command.status == value
        elif key == "DocumentName":
            fits = command.document == value
        elif key == "ExecutionStage":
            fits = (command.status in OVER) == (value == "Complete")
        else:
            raise ApiError("InvalidFilterKey", "")
        if not fits:
            return False
    return True


def _page(entries: list[Any], request: dict[str, Any]) -> tuple[list[Any], dict[str, str]]:
    start = int(request.get("NextToken") or 0)
    end = start + int(request.get("MaxResults") or 50)
    return entries[start:end], {"NextToken": str(end)} if end < len(entries) else {}


def _first(text: str, limit: int, suffix: str) -> str:
    return text if len(text) <= limit else text[: limit - len(suffix)] + suffix


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
