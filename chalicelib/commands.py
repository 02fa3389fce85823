"""What a command on the instance has come to, from its status and output."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from chalicelib.documents import is_ours

# Values of `Status` (ssm: CommandInvocationStatus, CommandStatus) after which nothing more comes.
FINAL = frozenset({"Success", "Failed", "TimedOut", "Cancelled"})
# Codes after which it is not known what the document did before its end.
UNSURE = frozenset({"no_result", "command_failed", "command_timed_out", "command_cancelled"})
_CODE = re.compile(r"[a-z][a-z0-9_]{0,63}")
_LONGEST = 500
# All that a document has to say fits in far less; the workflow's state, which keeps it several times, in 256 KiB.
_LONGEST_RESULT = 4096
# SHA-256 as the documents write it (docs/contracts.md).
_FINGERPRINT = re.compile(r"[0-9A-F]{2}(:[0-9A-F]{2}){31}")
_WITH_CERTIFICATE = ("-configure-tls", "-configure-notebook")


@dataclass(frozen=True)
class Result:
    """It ended well; `output` is its result line."""

    output: dict[str, object]


@dataclass(frozen=True)
class Failed:
    """It ended without a result. `message` says what to do."""

    code: str
    message: str

    def cause(self) -> str:
        """The cause of the error `CommandFailed`."""
        return json.dumps({"code": self.code, "message": self.message})


@dataclass(frozen=True)
class Pending:
    """It has not ended yet."""


Outcome = Result | Failed | Pending


@dataclass(frozen=True)
class Command:
    """A command sent to one instance, from `ListCommands`."""

    id: str
    document: str
    instance_id: str | None
    task_token: str | None
    requested_at: datetime | None
    execution: str | None = None
    """Name of the execution that sent it and waits for its end."""


@dataclass(frozen=True)
class Invocation:
    """What `GetCommandInvocation` tells of it."""

    status: str
    status_details: str
    stdout: str
    stderr: str


def decide(invocation: Invocation, document: str) -> Outcome:
    """Reads the one JSON line that every document ends with (docs/contracts.md); total over any text."""
    if invocation.status not in FINAL:
        return Pending()
    line = result_line(invocation.stdout)
    if invocation.status == "Success":
        if line is not None and line.get("ok") is True:
            fault = _fault(line, document)
            return Result(line) if fault is None else Failed("no_result", f"{document} ended with a result {fault}.")
        if line is None:
            return Failed(
                "no_result",
                f"{document} ended without a result line. Its output begins: {_trim(invocation.stdout) or '(empty)'}",
            )
    if line is not None and line.get("ok") is False:
        return Failed(_code(line.get("code")), _trim(line.get("message")) or f"{document} failed.")
    return _by_status(invocation, document)


def result_line(stdout: str) -> dict[str, object] | None:
    """The last line that is a JSON object with `ok` true or false. Lines around it are noise of other programs."""
    for line in reversed(stdout.splitlines()):
        try:
            value = json.loads(line, parse_constant=_no_constant)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict) and isinstance(value.get("ok"), bool):
            return value
    return None


def newest(commands: list[Command], document: str, execution: str | None = None) -> Command | None:
    """The one sent last with this document; a document can have been sent again. With `execution`, by that one: others
    may be at work on the same machine."""
    same = [
        command
        for command in commands
        if command.document == document and (execution is None or command.execution in (None, execution))
    ]
    return max(same, key=lambda command: (command.requested_at is not None, command.requested_at), default=None)


def event_command(detail: Mapping[str, object], stage: str) -> str | None:
    """The id of a command of ours that has ended, from the event's detail; None for every other event."""
    command, document, status = (detail.get(key) for key in ("command-id", "document-name", "status"))
    if isinstance(command, str) and isinstance(document, str) and is_ours(document, stage) and status in FINAL:
        return command
    return None


def _fault(line: Mapping[str, object], document: str) -> str | None:
    """What is wrong with a result. Root on the machine writes what it likes, and the workflow, the record and the
    messages take it from here: a path that is missing ends an execution past every Catch."""
    try:
        text = json.dumps(line, ensure_ascii=False, allow_nan=False)
    except ValueError:
        # 1e999 is JSON and becomes infinity here, which is none: Step Functions would refuse the answer at every try.
        return "with a number that is out of bounds"
    if len(text) > _LONGEST_RESULT:
        return f"of more than {_LONGEST_RESULT} characters"
    if any("\ud800" <= character <= "\udfff" for character in text):
        return "that has half a character (a lone surrogate)"
    if document.endswith(_WITH_CERTIFICATE):
        fingerprint = line.get("certificate_sha256")
        if not isinstance(fingerprint, str) or not _FINGERPRINT.fullmatch(fingerprint):
            return "that has no SHA-256 fingerprint of the certificate"
    return None


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def _by_status(invocation: Invocation, document: str) -> Failed:
    details = invocation.status_details.replace(" ", "")
    if details in ("Undeliverable", "DeliveryTimedOut", "Terminated"):
        return Failed(
            "agent_offline",
            f"The agent on the machine did not take {document}: it is offline. Request the notebook again.",
        )
    if invocation.status == "TimedOut":
        return Failed("command_timed_out", f"{document} took longer than it may. Request the notebook again.")
    if invocation.status == "Cancelled":
        return Failed("command_cancelled", f"{document} was cancelled. Request the notebook again.")
    said = _trim(invocation.stderr) or _trim(invocation.stdout) or "(nothing)"
    return Failed("command_failed", f"{document} failed. The end of its output: {said}")


def _code(value: object) -> str:
    return value if isinstance(value, str) and _CODE.fullmatch(value) else "command_failed"


def _trim(value: object) -> str:
    """The end of a text, on one line, without what could be a secret."""
    if not isinstance(value, str):
        return ""
    text = re.sub(r"argon2\S+", "argon2:…", " ".join(value.split()))
    text = "".join(character if character.isprintable() else "?" for character in text)
    return text if len(text) <= _LONGEST else "…" + text[-_LONGEST:]
