"""Ends of commands and of executions, in words a person can act on."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib import commands
from chalicelib.commands import Failed, Invocation, Pending, Result
from chalicelib.failures import explain, explain_password

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = "nod-test-install-anaconda"
FAILURE = '{"ok": false, "code": "disk_full", "message": "Take a larger disk."}'


FINGERPRINT = ":".join(["AB"] * 32)


def ended(
    status: str, stdout: str = "", stderr: str = "", details: str = "", document: str = DOCUMENT
) -> commands.Outcome:
    return commands.decide(Invocation(status, details or status, stdout, stderr), document)


def test_the_result_line_is_the_result() -> None:
    assert ended("Success", '{"ok": true, "prefix": "/opt"}\n') == Result({"ok": True, "prefix": "/opt"})


def test_noise_around_the_result_line_does_no_harm() -> None:
    assert ended("Success", 'warning: x\n{"ok": true}\n[1]\nnot json {\n') == Result({"ok": True})
    assert ended("Success", '{"ok": true, "n": 1}\n{"ok": true, "n": 2}\n') == Result({"ok": True, "n": 2})


def test_a_failure_line_gives_code_and_message_whatever_the_status() -> None:
    for status in ("Failed", "Success", "TimedOut"):
        assert ended(status, FAILURE) == Failed("disk_full", "Take a larger disk.")


@pytest.mark.parametrize("document", ["nod-test-configure-tls", "nod-test-configure-notebook"])
@pytest.mark.parametrize(
    "forged",
    [
        None,
        "",
        7,
        ["AB"],
        FINGERPRINT[:-1],
        FINGERPRINT.lower(),
        f"{FINGERPRINT}\n",
        f"{FINGERPRINT} or https://evil.example",
        "<!channel>",
    ],
)
def test_what_is_no_fingerprint_ends_the_launch_and_is_not_told(document: str, forged: object) -> None:
    line = {"ok": True} if forged is None else {"ok": True, "certificate_sha256": forged}
    outcome = ended("Success", json.dumps(line), document=document)
    assert isinstance(outcome, Failed)
    assert outcome.code == "no_result"
    assert "evil" not in outcome.message
    good = {"ok": True, "certificate_sha256": FINGERPRINT}
    assert ended("Success", json.dumps(good), document=document) == Result(good)


@pytest.mark.parametrize(
    "line",
    [
        '{"ok": true, "x": "%s"}' % ("é" * 20_000),
        '{"ok": true, "x": "\\ud800"}',
        '{"ok": true, "x": NaN}',
        '{"ok": true, "seconds": 1e999}',
        '{"ok": true, "x": [{"y": -1e999}]}',
    ],
    ids=["long", "half a character", "NaN", "infinity", "infinity inside"],
)
def test_a_result_that_a_workflow_cannot_take_is_none(line: str) -> None:
    outcome = ended("Success", line)
    assert isinstance(outcome, Failed)
    assert outcome.code == "no_result"


@pytest.mark.parametrize("status", ["Pending", "InProgress", "Delayed", "Cancelling"])
def test_it_is_pending_until_it_has_ended(status: str) -> None:
    assert ended(status, '{"ok": true}') == Pending()


@pytest.mark.parametrize(
    ("status", "details", "stdout", "code"),
    [
        ("Success", "Success", "", "no_result"),
        ("Success", "Success", "hello", "no_result"),
        ("Failed", "Failed", "", "command_failed"),
        ("Failed", "Failed", '{"ok": true}', "command_failed"),
        ("Failed", "Failed", '{"ok": false, "code": "Bad Code"}', "command_failed"),
        ("TimedOut", "ExecutionTimedOut", "", "command_timed_out"),
        ("TimedOut", "DeliveryTimedOut", "", "agent_offline"),
        ("TimedOut", "Delivery Timed Out", "", "agent_offline"),
        ("Failed", "Undeliverable", "", "agent_offline"),
        ("Cancelled", "Cancelled", "", "command_cancelled"),
    ],
)
def test_without_a_line_the_status_decides(status: str, details: str, stdout: str, code: str) -> None:
    outcome = ended(status, stdout, "no space left", details)
    assert isinstance(outcome, Failed)
    assert outcome.code == code
    assert outcome.message


def test_output_is_shown_short_and_without_hashes() -> None:
    outcome = ended("Failed", "", "x" * 5000 + " argon2:$argon2id$v=19$secret end")
    assert isinstance(outcome, Failed)
    assert len(outcome.message) < 700
    assert outcome.message.endswith("end")
    assert "secret" not in outcome.message


@given(st.sampled_from(sorted(commands.FINAL)), st.text(), st.text(), st.text())
def test_any_output_has_an_outcome(status: str, details: str, stdout: str, stderr: str) -> None:
    outcome = ended(status, stdout, stderr, details)
    assert isinstance(outcome, Result | Failed)
    if isinstance(outcome, Failed):
        assert json.loads(outcome.cause()).keys() == {"code", "message"}


def fleet(*codes: str) -> str:
    return json.dumps([{"ErrorCode": code, "ErrorMessage": f"about {code}"} for code in codes])


def refused(*codes: str) -> str:
    return json.dumps({"codes": list(codes), "messages": ["what EC2 says"] * min(len(codes), 3)})


# An SDK that does not know a service's refusal of access has its general name for it.
DENIALS = (
    "Ssm.AccessDeniedException",
    "Ssm.SsmException",
    "DynamoDb.DynamoDbException",
    "StepFunctions.AccessDeniedException",
    "Lambda.AWSLambdaException",
)
DENIED = (
    "User: arn:aws:sts::123456789012:assumed-role/r/x is not authorized to perform: ssm:SendCommand on resource: "
    "arn:aws:ec2:us-east-1:123456789012:instance/i-1 because no identity-based policy allows the ssm:SendCommand action"
)


@pytest.mark.parametrize("error", DENIALS)
def test_a_refusal_of_access_names_the_permission(error: str) -> None:
    assert "ssm:SendCommand" in explain({"status": "FAILED", "error": error, "cause": DENIED}).message
    password = explain_password({"status": "FAILED", "error": error, "cause": DENIED})
    assert password.code == "password_failed"
    assert "refuses this" in password.message and "ssm:SendCommand" in password.message


# What the SDK says of CreateFleet itself: EC2's message without its code, and where it comes from.
SENT = "(Service: Ec2, Status Code: 403, Request ID: 6f4e2f2c-33c5-4c1e-9d1f-0123456789ab)"
REFUSED = [
    ("You are not authorized to perform this operation.", "not_permitted"),
    (
        "You are not authorized to perform this operation. User: arn:aws:sts::123456789012:assumed-role/r/x is not "
        "authorized to perform: ec2:CreateFleet on resource: arn:aws:ec2:us-east-1:123456789012:fleet/* because no "
        f"identity-based policy allows it. Encoded authorization failure message: {'x' * 1200}",
        "not_permitted",
    ),
    ("This account is currently blocked and not recognized as a valid account.", "not_permitted"),
    ("Your account is currently pending verification.", "not_permitted"),
    ("Request limit exceeded.", "throttled"),
    ("Rate exceeded", "throttled"),
    ("You have requested more vCPU capacity than your current vCPU limit of 0 allows.", "vcpu_limit"),
    ("Insufficient capacity.", "insufficient_capacity"),
    ("The parameter Priority is not valid.", "create_failed"),
]


@pytest.mark.parametrize(
    ("error", "cause", "code"),
    [
        ("CommandFailed", '{"code": "installer_checksum", "message": "Wrong file."}', "installer_checksum"),
        (
            "CommandFailed",
            json.dumps({"errorMessage": FAILURE, "errorType": "CommandFailed", "stackTrace": []}),
            "disk_full",
        ),
        ("CommandFailed", "garbage", "command_failed"),
        ("CommandFailed", "[]", "command_failed"),
        ("CommandPending", "", "command_timed_out"),
        ("CreateFleetFailed", fleet("InsufficientInstanceCapacity"), "insufficient_capacity"),
        ("CreateFleetFailed", fleet("UnfulfillableCapacity"), "insufficient_capacity"),
        ("CreateFleetFailed", fleet("VcpuLimitExceeded"), "vcpu_limit"),
        ("CreateFleetFailed", fleet("InsufficientInstanceCapacity", "VcpuLimitExceeded"), "vcpu_limit"),
        ("CreateFleetFailed", fleet("Unsupported", "InsufficientInstanceCapacity"), "insufficient_capacity"),
        ("CreateFleetFailed", fleet("Unsupported"), "type_unsupported"),
        ("CreateFleetFailed", fleet("UnauthorizedOperation"), "not_permitted"),
        ("CreateFleetFailed", fleet("SomethingNew"), "create_failed"),
        ("CreateFleetFailed", refused("Unsupported", "InsufficientInstanceCapacity"), "insufficient_capacity"),
        ("CreateFleetFailed", refused("UnauthorizedOperation"), "not_permitted"),
        ("CreateFleetFailed", refused(), "create_failed"),
        ("CreateFleetFailed", '{"codes": 1, "messages": [null, 2]}', "create_failed"),
        ("CreateFleetFailed", "[]", "create_failed"),
        ("CreateFleetFailed", "not json", "create_failed"),
        ("Ec2.Ec2Exception", "You have requested more vCPU … (Code: VcpuLimitExceeded)", "vcpu_limit"),
        ("Ec2.Ec2Exception", "Request limit exceeded. (… Error Code: RequestLimitExceeded)", "throttled"),
        *(("Ec2.Ec2Exception", f"{said} {SENT}", code) for said, code in REFUSED),
        ("Ec2.Ec2Exception", "", "create_failed"),
        ("Ssm.InvalidInstanceIdException", "not in a valid state", "agent_never_online"),
        ("ssm.InvalidInstanceIdException", "not in a valid state", "agent_never_online"),
        ("Ssm.AccessDeniedException", "", "not_permitted"),
        *((error, DENIED, "not_permitted") for error in DENIALS),
        ("Ssm.SsmException", "1 validation error detected", "launch_failed"),
        ("InstanceLost", "", "instance_lost"),
        ("NoPublicAddress", "", "no_public_address"),
        ("States.Timeout", "", "launch_timed_out"),
        ("SomethingNew", "what happened", "launch_failed"),
    ],
)
def test_errors_of_the_launch_are_explained(error: str, cause: str, code: str) -> None:
    failure = explain({"status": "FAILED", "error": error, "cause": cause})
    assert failure.code == code
    assert len(failure.message) > 10


def test_a_refusal_is_told_with_its_request_and_without_what_only_aws_can_read() -> None:
    message = explain({"status": "FAILED", "error": "Ec2.Ec2Exception", "cause": f"{REFUSED[1][0]} {SENT}"}).message
    assert "ec2:CreateFleet" in message
    assert "Request ID: 6f4e2f2c" in message
    assert "xxx" not in message


@pytest.mark.parametrize(("status", "code"), [("ABORTED", "launch_aborted"), ("TIMED_OUT", "launch_timed_out")])
def test_executions_without_an_error_are_explained(status: str, code: str) -> None:
    assert explain({"status": status, "error": None, "cause": None}).code == code
    assert explain({"status": status}).code == code


def test_instances_that_could_not_be_removed_are_named() -> None:
    failure = explain({"status": "ABORTED", "found": {"ids": ["i-0123"]}})
    assert "i-0123" in failure.message
    assert "costs" in failure.message


def test_the_cause_of_an_unknown_error_is_kept_short_and_without_hashes() -> None:
    failure = explain({"status": "FAILED", "error": "X", "cause": "argon2:$argon2id$secret " + "y" * 9000})
    assert len(failure.message) < 800
    assert "secret" not in failure.message


@given(st.dictionaries(st.sampled_from(["status", "error", "cause", "found"]), st.none() | st.text() | st.integers()))
def test_explain_is_total(execution: dict[str, object]) -> None:
    failure = explain(execution)
    assert failure.code
    assert failure.message


@given(st.sampled_from(["CommandFailed", "CreateFleetFailed", "Ec2.Ec2Exception"]), st.text())
def test_explain_takes_any_cause(error: str, cause: str) -> None:
    assert explain({"status": "FAILED", "error": error, "cause": cause}).message


@pytest.mark.parametrize(
    ("cause", "code"),
    [
        ({"Code": "Client.VolumeLimitExceeded", "Message": "Client.VolumeLimitExceeded: Too many."}, "volume_limit"),
        ({"code": "instance_lost", "message": "EC2's reason: Client.VolumeLimitExceeded."}, "volume_limit"),
        ({"Code": "Server.InsufficientInstanceCapacity", "Message": "None left."}, "insufficient_capacity"),
        ({"Code": "Client.UserInitiatedShutdown", "Message": "User initiated shutdown"}, "instance_lost"),
        ({"Code": 48, "Name": "terminated"}, "instance_lost"),
    ],
)
def test_instance_that_ec2_gave_up_says_ec2s_reason(cause: dict[str, object], code: str) -> None:
    assert explain({"status": "FAILED", "error": "InstanceLost", "cause": json.dumps(cause)}).code == code


def test_undo_that_could_not_look_says_that_something_may_be_left() -> None:
    known = {"status": "FAILED", "error": "InstanceLost", "cause": "{}", "name": "nb-1", "unseen": {"Error": "x"}}
    failure = explain(known)
    assert failure.machine_left
    assert "nod:notebook=nb-1" in failure.message
    assert "terminate i-1 " not in failure.message
    assert "terminate i-1." in explain({**known, "found": {"ids": ["i-1"]}}).message


@pytest.mark.parametrize("code", ["no_result", "command_failed", "command_timed_out", "command_cancelled"])
def test_password_whose_command_did_not_end_well_may_be_in_force(code: str) -> None:
    failure = explain_password({"error": "CommandFailed", "cause": json.dumps({"code": code, "message": "Cut off."})})
    assert failure.message.startswith("It is not known whether the password was changed: Cut off.")
    sure = explain_password(
        {"error": "CommandFailed", "cause": json.dumps({"code": "password_failed", "message": "x"})}
    )
    assert sure.message.startswith("The password was not changed, and the old one stays")


@pytest.mark.parametrize(
    ("status", "details"), [("TimedOut", "DeliveryTimedOut"), ("TimedOut", "ExecutionTimedOut"), ("Cancelled", "")]
)
def test_who_asked_for_a_password_is_not_told_to_request_the_notebook_again(status: str, details: str) -> None:
    outcome = commands.decide(Invocation(status, details, "", ""), "nod-test-set-password")
    assert isinstance(outcome, Failed)
    assert "Request the notebook again" in explain({"error": "CommandFailed", "cause": outcome.cause()}).message
    failure = explain_password({"error": "CommandFailed", "cause": outcome.cause()})
    assert "Request the notebook" not in failure.message
    assert failure.message.endswith(("Ask for it again.", "ask for another."))


def test_whom_to_ask_is_told_in_one_way() -> None:
    rooms = [*(ROOT / "chalicelib").rglob("*.py"), *(ROOT / "nod").rglob("*.py"), *(ROOT / "statemachine").iterdir()]
    # A sentence may be in several literals.
    texts = {path: re.sub(r'"\s+f?"', "", path.read_text(encoding="utf-8")) for path in rooms if path.is_file()}
    assert any("your administrator" in text for text in texts.values())
    assert not [path for path, text in texts.items() if re.search(r"who runs this deployment", text, re.IGNORECASE)]
