"""Every state of a change of the password, on the local cloud, with machines that only say what they are told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.aws.workflows import states
from tests.local.lives import (
    HASH,
    LAUNCHED,
    given,
    kinds,
    ledger,
    post,
    wait,
)
from tests.local.town import Town

pytestmark = pytest.mark.usefixtures("clean")


def set_password(town: Town, notebook: str, **more: str) -> dict[str, Any]:
    return town.run("password", **given(town, notebook, **{"password_hash": HASH, **more}))


def test_password_is_set_on_the_machine_and_noted(town: Town, notebook: str) -> None:
    assert set_password(town, notebook)["status"] == "SUCCEEDED"
    assert town.record(notebook)["password_hash"]["S"] == HASH
    _, document, environment = town.machines.ran[-1]
    assert document == "set-password"
    assert HASH in environment.values()
    assert ledger(town, notebook) == [*LAUNCHED, ("set-password", "changed")]


def test_password_is_set_when_the_event_is_lost(town: Town, notebook: str) -> None:
    town.cloud.faults.on("event_lost")
    town.machines.seconds["set-password"] = 2.5
    assert set_password(town, notebook)["status"] == "SUCCEEDED"


def test_password_without_a_number_is_set_and_older_than_any_with_one(town: Town, notebook: str) -> None:
    """As an API asks that was deployed before there were numbers."""

    def unnumbered() -> str:
        document = given(town, notebook, password_hash=HASH)
        del document["number"]
        return str(town.run("password", **document)["status"])

    assert unnumbered() == "SUCCEEDED"
    _, document, environment = town.machines.ran[-1]
    assert (document, environment["SSM_Number"]) == ("set-password", "0")
    record = town.record(notebook)
    assert (record["password_hash"]["S"], record["hash_number"]["N"]) == (HASH, "0")
    assert set_password(town, notebook, password_hash=NEWER)["status"] == "SUCCEEDED"
    assert unnumbered() == "SUCCEEDED"
    assert town.record(notebook)["password_hash"]["S"] == NEWER


NEWER = HASH.replace("B", "C")


def test_password_that_was_overtaken_changes_nothing_and_is_no_failure(town: Town, notebook: str) -> None:
    """On the machine; in the record; and one that fails after a newer one was set."""
    assert set_password(town, notebook, password_hash=NEWER, number="5")["status"] == "SUCCEEDED"
    before = town.record(notebook)
    assert (before["password_hash"]["S"], before["hash_number"]["N"]) == (NEWER, "5")
    assert set_password(town, notebook, number="4")["status"] == "SUCCEEDED"
    town.machines.results["set-password"] = {"ok": True, "overtaken": True}
    assert set_password(town, notebook, number="9")["status"] == "SUCCEEDED"
    town.machines.results["set-password"] = {"ok": False, "code": "password_failed", "message": "It hangs."}
    assert set_password(town, notebook, number="3")["status"] == "SUCCEEDED"
    after = town.record(notebook)
    assert {name for name in after if after[name] != before.get(name)} <= {"updated_at"}
    assert "password_failed" not in kinds(town, notebook)


def test_newer_password_ends_what_the_record_says_of_an_older_one(town: Town, notebook: str) -> None:
    town.machines.results["set-password"] = {"ok": False, "code": "password_failed", "message": "It hangs."}
    assert set_password(town, notebook, number="1")["status"] == "FAILED"
    assert town.person.show(notebook)["error"]["code"] == "password_failed"
    town.machines.results["set-password"] = {"ok": True}
    assert set_password(town, notebook, number="2")["status"] == "SUCCEEDED"
    assert town.person.show(notebook)["error"] is None
    assert not [name for name in town.record(notebook) if name.startswith("hash_change")]


def test_password_that_was_withdrawn_is_not_set(town: Town, notebook: str) -> None:
    town.tables.update_item(
        TableName="nod-local-notebooks",
        Key={"id": {"S": notebook}},
        UpdateExpression="SET hash_change_7 = :withdrawn",
        ExpressionAttributeValues={":withdrawn": {"S": "withdrawn"}},
    )
    ran = len(town.machines.ran)
    assert set_password(town, notebook, number="7")["status"] == "SUCCEEDED"
    assert len(town.machines.ran) == ran


@pytest.mark.parametrize("fault", ["throttling", "event_lost", "command_twice:set-password", "answer_lost:ssm"])
def test_newest_of_three_passwords_wins(town: Town, notebook: str, fault: str) -> None:
    """The machine orders them (set-password.sh); a scripted one takes all, so the record is what is looked at here."""
    town.cloud.faults.on(fault)
    town.machines.seconds["set-password"] = 0.5
    for number in (1, 2, 3):
        assert post(town, notebook, "password", password=f"chosen-as-number-{number}") == 202
    town.settle()
    sent = {run["SSM_Number"]: run["SSM_PasswordHash"] for _, name, run in town.machines.ran if name == "set-password"}
    assert {"1", "2", "3"} <= sent.keys()
    record = town.record(notebook)
    assert (record["password_hash"]["S"], record["hash_number"]["N"]) == (sent["3"], "3")


def test_password_of_a_command_that_did_not_end_well_may_be_in_force(town: Town, notebook: str) -> None:
    town.cloud.faults.on("command_times_out:set-password")
    assert set_password(town, notebook)["status"] == "FAILED"
    assert town.person.show(notebook)["error"]["message"].startswith("It is not known whether")


def test_password_that_the_machine_refuses_leaves_the_old_one(town: Town, notebook: str) -> None:
    before = town.record(notebook)["password_hash"]
    town.machines.results["set-password"] = {"ok": False, "code": "notebook_not_answering", "message": "It hangs."}
    assert set_password(town, notebook)["status"] == "FAILED"
    seen = town.person.show(notebook)
    assert (seen["state"], seen["error"]["code"]) == ("ready", "password_failed")
    assert "It hangs" in seen["error"]["message"]
    assert town.record(notebook)["password_hash"] == before
    assert kinds(town, notebook)[-1] == "password_failed"


def test_password_of_a_machine_that_is_off_leaves_the_old_one(
    town: Town, stopped: str, broken: Callable[[str], None]
) -> None:
    broken("explain_failure")
    broken("tell_owner")
    assert set_password(town, stopped)["status"] == "FAILED"
    seen = town.person.show(stopped)
    assert (seen["state"], seen["error"]["code"]) == ("stopped", "password_failed")


def test_password_of_what_was_deleted_is_nobodys(town: Town, notebook: str) -> None:
    document = given(town, notebook, password_hash=HASH)
    assert town.person.delete(notebook, "mine").status_code == 202
    wait(town, notebook, "terminated")
    assert town.run("password", **document)["status"] == "SUCCEEDED"
    assert "password_failed" not in kinds(town, notebook)


def test_zz_every_state_of_the_workflow_was_reached(town: Town) -> None:
    town.settle()
    assert {state.name for state in states("password")} == town.reached["password"]
