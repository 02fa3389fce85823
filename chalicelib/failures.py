"""Why a launch, a start, a stop or a change of the password failed, in words that a person can act on."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

from chalicelib.commands import UNSURE
from chalicelib.model import LEFT, UNKNOWN, Failure
from chalicelib.server_causes import CAUSES

_AGAIN = "Request the notebook again"
_LONGEST = 500

# Error codes of EC2, as CreateFleet returns them as data or the SDK in a message.
_CAPACITY = {
    "InsufficientInstanceCapacity",
    "InsufficientHostCapacity",
    "InsufficientReservedInstanceCapacity",
    "UnfulfillableCapacity",
    "InsufficientCapacity",
}
_LIMITS = {"VcpuLimitExceeded", "InstanceLimitExceeded", "MaxSpotInstanceCountExceeded"}
_VOLUMES = {"VolumeLimitExceeded", "MaxIOPSLimitExceeded"}
_ADDRESSES = {"InsufficientFreeAddressesInSubnet", "AddressLimitExceeded"}
_UNSUPPORTED = {"Unsupported", "UnsupportedOperation", "InvalidInstanceType", "InvalidFleetConfiguration"}
_FORBIDDEN = {"UnauthorizedOperation", "AuthFailure", "OptInRequired", "PendingVerification", "Blocked"}
_DENIED = {"AccessDeniedException", "AccessDenied", "UnauthorizedException", "AuthorizationErrorException"}
_THROTTLED = {"RequestLimitExceeded", "Throttling", "ThrottlingException", "RequestThrottled"}
# "Insufficient capacity." (StartInstances), "We currently do not have sufficient t3.medium capacity …" (RunInstances).
_CAPACITY_WORDS = re.compile(
    r"insufficient[a-z ]*capacity|not have sufficient \S* ?capacity|UnfulfillableCapacity", re.I
)
_LIMIT_WORDS = re.compile(r"VcpuLimitExceeded|InstanceLimitExceeded|vCPU limit", re.I)
_FORBIDDEN_WORDS = re.compile(
    r"not authorized to perform|not able to validate the provided access credentials|currently blocked|"
    r"pending verification|not subscribed to this service",
    re.I,
)
_THROTTLED_WORDS = re.compile(r"request limit exceeded|rate exceeded|too many requests", re.I)
# Of a call that is refused as a whole, Step Functions' cause carries the SDK's message, which need not hold the code.
_WORDS = (
    (_FORBIDDEN_WORDS, "UnauthorizedOperation"),
    (_LIMIT_WORDS, "VcpuLimitExceeded"),
    (_CAPACITY_WORDS, "InsufficientInstanceCapacity"),
    (_THROTTLED_WORDS, "RequestLimitExceeded"),
)
# Some 1,000 characters that only `aws sts decode-authorization-message` can read.
_ENCODED = re.compile(r"\s*Encoded authorization failure message: \S+")
_UNTOUCHED = "its disk untouched"
_KNOWN = _CAPACITY | _LIMITS | _VOLUMES | _ADDRESSES | _UNSUPPORTED | _FORBIDDEN | _THROTTLED


def explain(execution: Mapping[str, object]) -> Failure:
    """Code and message for the record and the owner; total over any input.

    Args:
        execution: `status` (FAILED, ABORTED, TIMED_OUT), `error` and `cause` of the launch (may be null or absent),
            `found.ids`: instances that the undo could not remove, and `unseen`: why it could not look any more.
    """
    failure = _explain(_word(execution, "status"), _word(execution, "error"), _word(execution, "cause"))
    left = _left(execution)
    if execution.get("unseen") is not None:
        return Failure(failure.code, f"{failure.message} {_unseen(execution, left)}")
    if left:
        return Failure(
            failure.code,
            f"{failure.message} {LEFT}, and it costs until it is: terminate {', '.join(left)} in the EC2 console.",
        )
    return failure


def explain_start(execution: Mapping[str, object], others: Sequence[str], server: str | None = None) -> Failure:
    """Why a stopped notebook did not come up again: code `no_capacity` or `start_failed`; total over any input.

    Args:
        execution: as for `explain`.
        others: types of the same size that the owner may have.
        server: why the notebook's server did not answer, a code of server_causes.CAUSES; None: nobody knows.
    """
    error, cause = _word(execution, "error"), _word(execution, "cause")
    # The SDK's message says what EC2 says, without its code; in the state's reason there is the code.
    if _CAPACITY_WORDS.search(cause):
        return Failure(
            "no_capacity",
            "EC2 has no machine of this type left just now in the zone that the notebook's disk is in. The notebook "
            f"stays stopped, {_UNTOUCHED}. Start it again in some minutes{_meanwhile(others)}.",
        )
    if error == "NotebookSilent" and server in CAUSES:
        found = CAUSES[server]
        return Failure(
            "start_failed",
            f"The machine ran, but the notebook's server did not answer, because {found.reason}; the machine was "
            f"stopped again. {found.advice} The notebook is stopped, {_UNTOUCHED}. Start it again; if it fails again, "
            "tell your administrator.",
        )
    if error == "NotebookSilent":
        why = "The machine ran, but the notebook on it did not answer in time, and the machine was stopped again"
    elif error == "NoPublicAddress":
        why = "The subnet gave the machine no public address; your administrator has to change that"
    elif error == "StartDelayed":
        why = "EC2 did not bring the machine up in time"
    elif error == "StartReturned" and any(code in cause for code in _VOLUMES):
        why = "The AWS account's limit of EBS storage is used up; ask your administrator to have it raised"
    elif error == "StartReturned":
        why = f"EC2 took the machine back: {_sentence(cause)}"
    elif _LIMIT_WORDS.search(cause):
        why = (
            "The AWS account's limit of vCPUs for this kind of type is used up. Stop another notebook, or ask your "
            "administrator to have the limit raised (Service Quotas)"
        )
    elif error.lower().startswith("ec2."):
        why = f"EC2 did not start the machine: {_sentence(cause)}"
    else:
        why = f"The start failed: {_sentence(' '.join(part for part in (error, cause) if part))}"
    return Failure(
        "start_failed",
        f"{why}. The notebook is stopped, {_UNTOUCHED}. Start it again; if it fails again, tell your administrator.",
    )


def explain_stop(execution: Mapping[str, object]) -> Failure:
    """Why a notebook still runs that was to be stopped: code `stop_failed`; total over any input."""
    error, cause = _word(execution, "error"), _word(execution, "cause")
    said = "it says nothing of why" if error == "StillRunning" else _sentence(cause or error)
    return Failure(
        "stop_failed",
        f"EC2 did not stop the machine: {said}. It still runs and costs. Stop the notebook again; if it fails again, "
        "tell your administrator.",
    )


def explain_password(execution: Mapping[str, object]) -> Failure:
    """Why a password was not set, or is not known to be: code `password_failed`; total over any input."""
    error, cause = _word(execution, "error"), _word(execution, "cause")
    sure = True
    if error == "CommandFailed":
        failure = _command(cause)
        # That advice is for a launch. Here there is a notebook that runs.
        why, sure = failure.message.removesuffix(f" {_AGAIN}.").rstrip("."), failure.code not in UNSURE
    elif error.lower() == "ssm.invalidinstanceidexception":
        why = "The machine's Systems Manager agent is offline"
    elif error in ("CommandPending", "States.Timeout"):
        why, sure = "The machine did not answer in time", False
    elif _is_refusal(error, cause):
        why = f"The AWS account refuses this: {_sentence(cause or error)}. Your administrator has to permit it"
    else:
        why = _sentence(cause or error)
    if sure:
        said = f"The password was not changed, and the old one stays: {why}. Ask for it again."
    else:
        said = f"{UNKNOWN}: {why}. Try the new one; if it does not work, the old one stays: ask for another."
    return Failure("password_failed", said)


def _meanwhile(others: Sequence[str]) -> str:
    if not others:
        return ""
    return f"; meanwhile a new notebook of the same size may find room as {' or '.join(others[:4])}"


def _sentence(text: str) -> str:
    return _trim(text).rstrip(".") or "no reason is known"


def _explain(status: str, error: str, cause: str) -> Failure:  # noqa: PLR0911 - one return a kind of failure
    if error in ("LaunchFailed", "StepFailed") and isinstance(inner := _json(cause), dict):
        # The launch's own end, and that of a branch of it, carry what went wrong in their cause (launch.asl.yaml).
        return _explain(status, _word(inner, "Error"), _word(inner, "Cause"))
    if error == "CommandFailed":
        return _command(cause)
    if error == "CommandPending":
        return Failure("command_timed_out", f"A command on the machine did not end in time. {_AGAIN}.")
    if error == "CreateFleetFailed":
        return _fleet(cause)
    # The local interpreter spells the service in lower case.
    if error.lower() == "ssm.invalidinstanceidexception":
        return Failure(
            "agent_never_online",
            f"The machine started, but its Systems Manager agent never came online. {_AGAIN}; if it happens again, the "
            "subnet's way to the internet or the instance profile is wrong: tell your administrator.",
        )
    if error == "InstanceLost":
        # EC2's reason, where it gave one: `Client.VolumeLimitExceeded`, `Server.InsufficientInstanceCapacity`, …
        codes = re.findall(r"[A-Z][A-Za-z]+", cause)
        if _KNOWN & set(codes):
            return _ec2(codes, cause)
        return Failure("instance_lost", f"EC2 took the machine away while the notebook was being set up. {_AGAIN}.")
    if error == "NoPublicAddress":
        return Failure(
            "no_public_address",
            "The subnet gives its machines no public address. Your administrator has to name public subnets.",
        )
    if _is_refusal(error, cause):
        return _forbidden(cause or error)
    if error.lower().startswith("ec2."):
        codes = [*re.findall(r"[A-Z][A-Za-z]+", cause), *(code for words, code in _WORDS if words.search(cause))]
        return _ec2(codes, cause)
    if error in ("States.Timeout", "States.HeartbeatTimeout") or status == "TIMED_OUT":
        return Failure("launch_timed_out", f"The launch took longer than it may. {_AGAIN}.")
    if status == "ABORTED":
        return Failure(
            "launch_aborted", f"The launch was stopped before the notebook was ready. {_AGAIN} if you want it."
        )
    return Failure(
        "launch_failed",
        f"The launch failed: {_trim(' '.join(part for part in (error, cause) if part)) or 'no reason is known'}. "
        f"{_AGAIN}; if it fails again, tell your administrator.",
    )


def _command(cause: str) -> Failure:
    """The cause is the failure as JSON, or Lambda's own JSON around it when a function raised the error."""
    document = _json(cause)
    if isinstance(document, dict) and isinstance(inner := document.get("errorMessage"), str):
        document = _json(inner)
    if isinstance(document, dict):
        code, message = document.get("code"), document.get("message")
        if isinstance(code, str) and isinstance(message, str) and code:
            return Failure(_trim(code)[:64], _trim(message) or "A command on the machine failed.")
    return Failure("command_failed", f"A command on the machine failed: {_trim(cause) or 'no reason is known'}")


def _fleet(cause: str) -> Failure:
    """The cause has the codes of all rungs of the ladder and the first messages, or is CreateFleet's own `Errors`."""
    refused = _json(cause)
    if isinstance(refused, list):
        errors = [entry for entry in refused if isinstance(entry, dict)]
        names = {"codes": "ErrorCode", "messages": "ErrorMessage"}
        refused = {key: [entry.get(name) for entry in errors] for key, name in names.items()}
    if not isinstance(refused, dict):
        refused = {}
    return _ec2(_texts(refused.get("codes")), "; ".join(_texts(refused.get("messages"))[:3]))


def _texts(value: object) -> list[str]:
    return [one for one in value if isinstance(one, str) and one] if isinstance(value, list) else []


def _ec2(codes: list[str], said: str) -> Failure:  # noqa: PLR0911 - one return a kind of refusal
    """One answer for the codes of all rungs. What a person can change comes before what only passes with time."""
    found = {code for code in codes if code in _KNOWN}
    if found & _FORBIDDEN:
        return _forbidden(said)
    if found & _LIMITS:
        return Failure(
            "vcpu_limit",
            "The AWS account's limit of vCPUs for this kind of type is used up (new accounts have 0 for GPU types). "
            "Take a smaller type, delete a notebook, or ask your administrator to have the limit raised "
            "(Service Quotas).",
        )
    if found & _CAPACITY:
        return Failure(
            "insufficient_capacity",
            "EC2 has no machine of this type left just now, in any zone. "
            f"{_AGAIN} in some minutes, or with another type.",
        )
    if found & _VOLUMES:
        return Failure(
            "volume_limit",
            "The AWS account's limit of EBS storage is used up. Take a smaller disk or delete a notebook.",
        )
    if found & _ADDRESSES:
        return Failure(
            "no_addresses", f"The subnets have no address left. Delete a notebook, or {_AGAIN.lower()} later."
        )
    if found & _THROTTLED:
        return Failure("throttled", f"AWS takes no more requests just now. {_AGAIN} in a minute.")
    if found & _UNSUPPORTED:
        return Failure(
            "type_unsupported",
            f"This type is not offered in this deployment's zones: {_trim(said)}. Take another type.",
        )
    reason = _trim(said) or ", ".join(sorted(set(codes)))[:200] or "no reason is known"
    return Failure(
        "create_failed",
        f"EC2 did not create the machine: {reason}. {_AGAIN}; if it fails again, tell your administrator.",
    )


def _is_refusal(error: str, cause: str) -> bool:
    """Whether AWS refused access. An SDK that does not know this error of a service has a general name for it."""
    service, _, name = error.partition(".")
    # EC2 says more than this in its words, and has its own codes for it.
    if not name or service.lower() in ("ec2", "states"):
        return False
    return name in _DENIED or _FORBIDDEN_WORDS.search(cause) is not None


def _forbidden(said: str) -> Failure:
    return Failure(
        "not_permitted",
        f"The AWS account refuses this: {_sentence(said)}. Your administrator has to permit it.",
    )


def _left(execution: Mapping[str, object]) -> list[str]:
    found = execution.get("found")
    ids = found.get("ids") if isinstance(found, Mapping) else None
    return [entry for entry in ids if isinstance(entry, str)][:10] if isinstance(ids, list) else []


def _unseen(execution: Mapping[str, object], left: Sequence[str]) -> str:
    """What EC2 did not show at the last look is not known to be removed."""
    which = ", ".join(left) or "the instance, if there is one,"
    name = _word(execution, "name")
    tag = f" that has the tag nod:notebook={name}" if name and not left else ""
    return (
        f"{LEFT}, for EC2 did not answer, and a machine that is left costs until it is removed: look in the EC2 "
        f"console, and terminate {which}{tag}."
    )


def _word(document: Mapping[str, object], key: str) -> str:
    value = document.get(key)
    return value if isinstance(value, str) else ""


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _trim(text: str) -> str:
    """One line of at most 500 printable characters, without what could be a secret and what nobody can read."""
    line = _ENCODED.sub("", re.sub(r"argon2\S+", "argon2:…", " ".join(text.split())))
    line = "".join(character if character.isprintable() else "?" for character in line)
    return line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"
