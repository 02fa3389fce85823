"""Tokens, passwords, prices, the plan, deletion, paging, settings: plain rules."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from argon2 import PasswordHasher, extract_parameters
from hypothesis import example, given
from hypothesis import strategies as st

from chalicelib import deletion, paging, passwords, plan, prices, tokens
from chalicelib.deletion import Deletion
from chalicelib.errors import (
    ChannelNotRegistered,
    ConfirmationNeeded,
    InvalidFields,
    NotAllowed,
    SettingsError,
)
from chalicelib.model import LEFT, Failure, LaunchRequest, Notebook, User
from chalicelib.names import random_name
from chalicelib.notebook.life import State
from chalicelib.settings import Settings
from chalicelib.views import NotebookView
from tests.unit.stage import ENV

NOW = datetime(2026, 11, 22, 14, 5, tzinfo=UTC)
PRICES = prices.catalogue()
SETTINGS = Settings.from_env(ENV)
ADA = "us-0123456789abcdef0123"
ENDS = ("terminating", "terminated")


def a_user(**changes: Any) -> User:
    base = User(
        id=ADA,
        name="ada",
        role="user",
        quota=3,
        allowed_types=("t3.medium", "t3a.medium", "c5.large", "t3.micro", "t4g.medium"),
        token_sha256="0" * 64,
        secret=tokens.new_hmac_key(),
        email="ada@example.org",
        email_state="pending",
    )
    return dataclasses.replace(base, **changes)


def a_notebook(user: User | None = None, **body: Any) -> Notebook:
    return plan.new_notebook(
        LaunchRequest.from_json(body),
        user or a_user(),
        notebook_id="nb-0123456789abcdef0123",
        name=str(body.get("name", "thesis")),
        password_hash="argon2:$argon2id$x",
        body_hmac="0",
        now=NOW,
    )


class TestHashing:
    def test_the_hash_is_that_of_the_password(self) -> None:
        kind, _, encoded = passwords.hashing("correct horse battery")().partition(":")
        assert kind == "argon2"
        assert PasswordHasher().verify(encoded, "correct horse battery")

    def test_what_goes_wrong_is_raised_where_the_hash_is_asked_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(_: str) -> str:
            raise MemoryError("no memory for it")

        monkeypatch.setattr(passwords, "hashed", broken)
        hashed = passwords.hashing("correct horse battery")
        with pytest.raises(MemoryError, match="no memory"):
            hashed()


class TestTokens:
    def test_a_token_is_known_again_by_its_hash_alone(self) -> None:
        secret = tokens.new_secret()
        parsed = tokens.parse_authorization(f"Bearer nod.ada.{secret}")
        assert parsed is not None
        assert parsed.user == "ada"
        assert tokens.matches(parsed.secret, tokens.fingerprint(secret))
        assert not tokens.matches(tokens.new_secret(), tokens.fingerprint(secret))
        assert not tokens.matches(secret, None)
        assert secret not in repr(parsed)

    @pytest.mark.parametrize(
        "header",
        [None, "", "Bearer", "Basic nod.ada." + "a" * 43, "Bearer nod.Ada." + "a" * 43, "Bearer nod.ada.short"],
    )
    def test_other_headers_hold_no_token(self, header: str | None) -> None:
        assert tokens.parse_authorization(header) is None

    @given(st.text())
    def test_any_header_is_a_token_or_not(self, header: str) -> None:
        assert tokens.parse_authorization(header) is None or header.lower().startswith("bearer")

    def test_ids_repeat_for_owner_and_key_and_for_nothing_else(self) -> None:
        key = tokens.new_hmac_key()
        one = tokens.notebook_id(key, "ada", "k")
        assert one == tokens.notebook_id(key, "ada", "k")
        assert tokens.is_notebook_id(one)
        others = [
            tokens.notebook_id(key, "ada", "k2"),
            tokens.notebook_id(key, "adak", ""),
            tokens.notebook_id(tokens.new_hmac_key(), "ada", "k"),
            tokens.notebook_id(key, "ada", None),
            tokens.notebook_id(key, "ada", None),
        ]
        assert len({one, *others}) == 6


class TestPasswords:
    def test_a_made_password_is_readable_and_has_140_bits(self) -> None:
        found = {passwords.generate() for _ in range(50)}
        assert len(found) == 50
        assert all(re.fullmatch(r"([2-9a-km-z]{4}-){6}[2-9a-km-z]{4}", password) for password in found)

    def test_the_hash_is_as_owasp_asks_and_accepted_as_password_hash(self) -> None:
        hashed = passwords.hashed("correct horse battery")
        assert hashed.startswith("argon2:$argon2id$v=19$m=19456,t=2,p=1$")
        assert PasswordHasher().verify(hashed.removeprefix("argon2:"), "correct horse battery")
        assert LaunchRequest.from_json({"password_hash": hashed}).password_hash == hashed
        assert passwords.hashed("correct horse battery") != hashed, "salted"

    @given(
        memory=st.one_of(st.integers(8, 300_000), st.sampled_from([8191, 8192, 9215, 9216, 12287, 12288])),
        passes=st.integers(1, 18),
        lanes=st.integers(1, 10),
        salt=st.binary(min_size=8, max_size=70),
        digest=st.binary(min_size=8, max_size=70),
    )
    @example(memory=10240, passes=10, lanes=8, salt=bytes(16), digest=bytes(32))
    @example(memory=19456, passes=2, lanes=1, salt=bytes(16), digest=bytes(32))
    @example(memory=19455, passes=2, lanes=1, salt=bytes(16), digest=bytes(32))
    @example(memory=47103, passes=1, lanes=1, salt=bytes(16), digest=bytes(32))
    @example(memory=262144, passes=16, lanes=8, salt=bytes(65), digest=bytes(65))
    @example(memory=262145, passes=16, lanes=8, salt=bytes(16), digest=bytes(32))
    def test_a_hash_is_taken_by_its_cost_from_both_sides(
        self, memory: int, passes: int, lanes: int, salt: bytes, digest: bytes
    ) -> None:
        def plain(value: bytes) -> str:
            return base64.b64encode(value).decode().rstrip("=")

        hashed = f"argon2:$argon2id$v=19$m={memory},t={passes},p={lanes}${plain(salt)}${plain(digest)}"
        least = {1: 47104, 2: 19456, 3: 12288, 4: 9216}.get(passes, 8192)
        wanted = (
            least <= memory <= 262144
            and passes <= 16
            and lanes <= 8
            and all(16 <= len(value) <= 65 for value in (salt, digest))
        )
        try:
            taken = LaunchRequest.from_json({"password_hash": hashed}).password_hash == hashed
        except InvalidFields:
            taken = False
        assert taken == wanted
        if wanted:
            assert extract_parameters(hashed.removeprefix("argon2:")).memory_cost == memory

    @given(st.integers(1, 10**6), st.integers(1, 10**6), st.data())
    def test_numbers_are_those_between(self, one: int, other: int, data: st.DataObject) -> None:
        low, high = sorted((one, other))
        pattern = passwords.numbers(low, high)
        for number in (low, high, data.draw(st.integers(low, high))):
            assert re.fullmatch(pattern, str(number))
            assert not re.fullmatch(pattern, f"0{number}")
        for number in (low - 1, high + 1, data.draw(st.integers(high + 1, 10**8))):
            assert not re.fullmatch(pattern, str(number))


class TestPrices:
    def test_an_hour_has_machine_disk_and_address(self) -> None:
        # 0.0416 (t3.medium, us-east-1) + 30 GiB x 0.08 / 730 h + 0.005
        assert PRICES.notebook_hour("us-east-1", "t3.medium", 30) == Decimal("0.04989")

    def test_what_is_not_in_the_table_has_no_price(self) -> None:
        assert PRICES.notebook_hour("mars-west-1", "t3.medium", 30) is None
        assert PRICES.notebook_hour("us-west-2", "g5.xlarge", 30) is None

    def test_the_table_names_source_and_types_completely(self) -> None:
        assert PRICES.currency == "USD"
        assert {"t3.medium", "m7i.large", "g5.xlarge", "t4g.medium"} <= set(PRICES.types)
        assert len(PRICES.regions) >= 15
        assert all(set(region.instance_hour) <= set(PRICES.types) for region in PRICES.regions.values())
        assert all("t3.medium" in region.instance_hour for region in PRICES.regions.values())

    @given(st.sampled_from(sorted(PRICES.regions)), st.sampled_from(sorted(PRICES.types)), st.integers(16, 1023))
    def test_a_larger_disk_never_costs_less(self, region: str, instance_type: str, gib: int) -> None:
        small, large = (PRICES.notebook_hour(region, instance_type, size) for size in (gib, gib + 1))
        assert (small is None) == (large is None)
        if small is not None and large is not None:
            assert 0 < small <= large


class TestPlan:
    def test_ladder_tries_the_asked_type_in_each_zone_then_its_likes(self) -> None:
        document = plan.launch_plan(a_notebook(), a_user(), PRICES, SETTINGS).to_json()
        overrides = document["fleet"]["LaunchTemplateConfigs"][0]["Overrides"]  # type: ignore[index]
        assert [(entry["InstanceType"], entry["SubnetId"], entry["Priority"]) for entry in overrides] == [
            ("t3.medium", "subnet-a", 0.0),
            ("t3.medium", "subnet-b", 1.0),
            ("t3a.medium", "subnet-a", 2.0),
            ("t3a.medium", "subnet-b", 3.0),
        ], "c5.large is alike but costs twice as much, t4g.medium is arm64, t3.micro is small"

    def test_no_price_no_stand_in(self) -> None:
        assert plan.ladder("t3.medium", ("t3a.medium",), PRICES, "mars-west-1") == ("t3.medium",)

    def test_plan_is_that_of_the_contract_and_the_same_each_time(self) -> None:
        notebook = a_notebook(volume_gib=50)
        document = plan.launch_plan(notebook, a_user(), PRICES, SETTINGS).to_json()
        assert json.dumps(document) == json.dumps(plan.launch_plan(notebook, a_user(), PRICES, SETTINGS).to_json())
        assert set(document) == {"id", "owner", "name", "fleet", "installer", "password_hash", "region"}
        fleet: Any = document["fleet"]
        assert fleet["ClientToken"] == notebook.id
        # CloudFormation adds a version at each change of the template and leaves `$Default` at the first.
        assert fleet["LaunchTemplateConfigs"][0]["LaunchTemplateSpecification"]["Version"] == "$Latest"
        override = fleet["LaunchTemplateConfigs"][0]["Overrides"][0]
        assert override["BlockDeviceMappings"][0]["Ebs"] == {
            "VolumeSize": 50,
            "VolumeType": "gp3",
            "Encrypted": True,
            "DeleteOnTermination": True,
        }
        assert override["ImageId"].endswith("/amd64/hvm/ebs-gp3/ami-id")
        assert "KeyName" not in override
        tags = {
            one["ResourceType"]: {tag["Key"]: tag["Value"] for tag in one["Tags"]} for one in fleet["TagSpecifications"]
        }
        whose = {
            "Name": "nod-thesis",
            "nod:deployment": "test",
            "nod:notebook": notebook.id,
            "nod:owner": ADA,
        }
        assert tags == {"instance": whose, "volume": whose}

    def test_arm_types_get_their_image_and_installer(self) -> None:
        notebook = a_notebook(instance_type="t4g.medium")
        document: Any = plan.launch_plan(notebook, a_user(), PRICES, SETTINGS).to_json()
        assert "/arm64/" in document["fleet"]["LaunchTemplateConfigs"][0]["Overrides"][0]["ImageId"]
        assert document["installer"]["url"].endswith("aarch64.sh")

    def test_settings_put_installer_and_image_in_place(self) -> None:
        settings = Settings.from_env(
            {
                **ENV,
                "NOD_INSTALLER_URL": "http://127.0.0.1/x.sh",
                "NOD_INSTALLER_SHA256": "a" * 64,
                "NOD_IMAGE": "ami-1",
            }
        )
        document: Any = plan.launch_plan(a_notebook(), a_user(), PRICES, settings).to_json()
        override = document["fleet"]["LaunchTemplateConfigs"][0]["Overrides"][0]
        assert override["ImageId"] == "ami-1"
        assert document["installer"] == {"url": "http://127.0.0.1/x.sh", "sha256": "a" * 64}

    def test_a_type_outside_the_users_list_is_not_allowed(self) -> None:
        with pytest.raises(NotAllowed, match=r"t3\.medium") as caught:
            a_notebook(instance_type="g5.xlarge")
        assert caught.value.errors[0].field == "instance_type"

    def test_without_the_default_type_the_users_first_is_taken(self) -> None:
        assert a_notebook(a_user(allowed_types=("t3.large", "t3.small"))).instance_type == "t3.large"
        with pytest.raises(NotAllowed):
            a_notebook(a_user(allowed_types=()))

    def test_channels_are_the_users_own(self) -> None:
        user = a_user(slack="team", email_state="confirmed")
        assert a_notebook(user).notifications == {"email": "pending", "slack:team": "pending"}
        assert a_notebook(user, notify=[]).notifications == {}
        assert a_notebook(a_user()).notifications == {"email": "unconfirmed"}
        with pytest.raises(ChannelNotRegistered) as caught:
            a_notebook(user, notify=["email", "slack:other"])
        assert (caught.value.errors[0].field, caught.value.errors[0].allowed) == ("notify[1]", "email, slack:team")

    def test_small_machines_are_allowed_with_a_warning(self) -> None:
        assert "1 GiB" in plan.warnings("t3.micro", PRICES)[0]
        assert plan.warnings("t3.medium", PRICES) == []

    def test_names_are_valid_names(self) -> None:
        assert all(LaunchRequest.from_json({"name": random_name()}) for _ in range(200))


class TestNotebook:
    def test_record_survives_the_table(self) -> None:
        notebook = a_notebook(max_hours=4)
        assert Notebook.from_record(notebook.to_record()) == notebook
        assert not {"ready_at", "error", "instance_id", "deletes"} & set(notebook.to_record())

    def test_url_is_shown_only_while_it_answers(self) -> None:
        ready = dataclasses.replace(
            a_notebook(), state="ready", public_dns_name="ec2-1.compute.example", address="198.51.100.7"
        )
        assert ready.url == "https://ec2-1.compute.example:8888"
        assert dataclasses.replace(ready, public_dns_name="").url == "https://198.51.100.7:8888"
        assert dataclasses.replace(ready, state="terminating").url is None

    def test_steps_tell_how_far_it_is(self) -> None:
        steps: dict[str, dict[str, object]] = {
            "create_instance": {"started_at": "2026-11-22T14:00:00Z", "finished_at": "2026-11-22T14:00:02Z"},
            "start_instance": {"started_at": "2026-11-22T14:00:02Z"},
        }
        launching = dataclasses.replace(a_notebook(), state="launching", steps=steps)
        view = NotebookView.of(launching, PRICES, "us-east-1", NOW)
        assert [step.state for step in view.steps[:3]] == ["done", "running", "waiting"]
        failed = NotebookView.of(dataclasses.replace(launching, state="failed"), PRICES, "us-east-1", NOW)
        assert [step.state for step in failed.steps[:3]] == ["done", "failed", "waiting"]

    def test_a_request_is_already_at_its_first_step(self) -> None:
        requested = NotebookView.of(a_notebook(), PRICES, "us-east-1", NOW)
        assert [step.state for step in requested.steps] == ["running", *["waiting"] * 6]
        assert requested.steps[0].started_at == a_notebook().created_at
        refused = dataclasses.replace(a_notebook(), state="failed", failed_at="2026-11-22T14:00:05Z")
        view = NotebookView.of(refused, PRICES, "us-east-1", NOW)
        assert [step.state for step in view.steps] == ["failed", *["waiting"] * 6]

    @pytest.mark.parametrize(
        ("installing", "configuring", "state", "code", "shown"),
        [
            ({}, {"failed_at": "2026-11-22T14:02:00Z"}, "launching", None, ["running", "failed"]),
            ({}, {"failed_at": "2026-11-22T14:02:00Z"}, "failed", "disk_full", ["cancelled", "failed"]),
            ({"failed_at": "2026-11-22T14:02:00Z"}, {}, "failed", "disk_full", ["failed", "cancelled"]),
            *[({"failed_at": "2026-11-22T14:02:00Z"}, {}, state, "x", ["failed", "cancelled"]) for state in ENDS],
            # Nobody knows which: an abort, or a machine that was lost.
            ({}, {}, "failed", "instance_lost", ["cancelled", "cancelled"]),
            ({}, {"finished_at": "2026-11-22T14:02:00Z"}, "failed", "command_timed_out", ["failed", "done"]),
            ({}, {"finished_at": "2026-11-22T14:02:00Z"}, "failed", "launch_aborted", ["cancelled", "done"]),
            ({}, {"finished_at": "2026-11-22T14:02:00Z"}, "failed", "terminate_failed", ["cancelled", "done"]),
            *[({}, {"finished_at": "2026-11-22T14:02:00Z"}, state, None, ["cancelled", "done"]) for state in ENDS],
        ],
    )
    def test_of_steps_side_by_side_only_the_one_that_failed_is_said_to_have(
        self,
        installing: dict[str, object],
        configuring: dict[str, object],
        state: str,
        code: str | None,
        shown: list[str],
    ) -> None:
        began = {"started_at": "2026-11-22T14:01:00Z"}
        done = {**began, "finished_at": "2026-11-22T14:01:00Z"}
        steps: dict[str, dict[str, object]] = {
            **dict.fromkeys(("create_instance", "start_instance", "prepare_instance"), done),
            "install_anaconda": {**began, **installing},
            "configure_tls": {**began, **configuring},
        }
        notebook = dataclasses.replace(
            a_notebook(),
            state=state,
            steps=steps,
            error=Failure(code, "It says why.") if code else None,
            failed_at="2026-11-22T14:03:00Z" if code else None,
        )
        view = NotebookView.of(notebook, PRICES, "us-east-1", NOW)
        assert [step.state for step in view.steps[3:]] == [*shown, "waiting", "waiting"]

    def test_cost_runs_from_the_start_of_the_machine_until_its_end(self) -> None:
        steps = {"start_instance": {"finished_at": "2026-11-22T13:05:00Z"}}
        ready = dataclasses.replace(a_notebook(), state="ready", steps=steps)
        cost = NotebookView.of(ready, PRICES, "us-east-1", NOW).cost
        assert (cost.per_hour, cost.so_far, cost.currency) == (0.04989, 0.0499, "USD")
        ended = dataclasses.replace(ready, state="terminated", terminated_at="2026-11-22T13:35:00Z")
        assert NotebookView.of(ended, PRICES, "us-east-1", NOW + timedelta(days=9)).cost.so_far == 0.0249
        unknown = NotebookView.of(ready, PRICES, "mars-west-1", NOW).cost
        assert (unknown.per_hour, unknown.so_far) == (None, None)
        assert NotebookView.of(a_notebook(), PRICES, "us-east-1", NOW).cost.so_far is None
        endless = dataclasses.replace(ended, terminated_at=None)
        assert NotebookView.of(endless, PRICES, "us-east-1", NOW).cost.so_far is None

    @pytest.mark.parametrize("state", ["failed", "terminating", "terminated"])
    def test_a_launch_that_was_undone_costs_nothing_from_then_on(self, state: str) -> None:
        undone = dataclasses.replace(
            a_notebook(),
            state=state,
            steps={"start_instance": {"finished_at": "2026-11-22T13:05:00Z"}},
            error=Failure("disk_full", "The disk is full."),
            failed_at="2026-11-22T13:35:00Z",
            terminated_at="2026-11-29T13:35:00Z" if state == "terminated" else None,
        )
        assert NotebookView.of(undone, PRICES, "us-east-1", NOW + timedelta(days=9)).cost.so_far == 0.0249

    @pytest.mark.parametrize(
        "error", [Failure("terminate_failed", "EC2 refused."), Failure("disk_full", f"Full. {LEFT}: i-1.")]
    )
    def test_cost_is_unknown_while_a_machine_may_be_left_and_known_once_it_is_gone(self, error: Failure) -> None:
        left = dataclasses.replace(
            a_notebook(),
            state="failed",
            steps={"start_instance": {"finished_at": "2026-11-22T13:05:00Z"}},
            error=error,
            failed_at="2026-11-22T13:15:00Z",
        )
        assert NotebookView.of(left, PRICES, "us-east-1", NOW).cost.so_far is None
        gone = dataclasses.replace(left, state="terminated", terminated_at="2026-11-22T13:35:00Z")
        assert NotebookView.of(gone, PRICES, "us-east-1", NOW).cost.so_far == 0.0249


class TestDeletion:
    @pytest.mark.parametrize("state", State)
    def test_every_state_has_an_answer(self, state: str) -> None:
        notebook = dataclasses.replace(a_notebook(), state=state)
        expected = {"terminated": Deletion.DONE, "terminating": Deletion.REPEAT}
        assert deletion.decide(notebook, "thesis") is expected.get(state, Deletion.BEGIN)

    @pytest.mark.parametrize("confirm", [None, "", "Thesis", "thesis "])
    def test_without_the_name_it_says_what_would_be_lost(self, confirm: str | None) -> None:
        notebook = dataclasses.replace(a_notebook(volume_gib=50), state="ready")
        with pytest.raises(ConfirmationNeeded, match=r"50 GiB.*confirm=thesis"):
            deletion.decide(notebook, confirm)


class TestPaging:
    def test_a_cursor_comes_back_as_it_went(self) -> None:
        cursor = paging.Cursor("nb-0123456789abcdef0123", "2026-11-22T14:05:00.123Z")
        assert paging.decode(paging.encode(cursor)) == cursor
        assert paging.encode(None) is None
        assert paging.decode(None) is None

    @given(st.text())
    def test_any_other_text_is_refused(self, text: str) -> None:
        try:
            paging.decode(text)
        except InvalidFields as error:
            assert error.errors[0].field == "next"

    @pytest.mark.parametrize("text", ["0", "101", "-1", "x", "", "1.5", "٣", "99999999"])
    def test_limits_out_of_bounds_are_refused(self, text: str) -> None:
        with pytest.raises(InvalidFields):
            paging.parse_limit(text)
        assert paging.parse_limit("100") == 100


class TestSettings:
    @pytest.mark.parametrize("name", [name for name in ENV if name.startswith("NOD_")] + ["AWS_REGION"])
    def test_a_missing_variable_is_named(self, name: str) -> None:
        for env in ({**ENV, name: ""}, {key: value for key, value in ENV.items() if key != name}):
            with pytest.raises(SettingsError, match=name):
                Settings.from_env(env)

    def test_installer_url_and_checksum_go_together(self) -> None:
        with pytest.raises(SettingsError, match="NOD_INSTALLER_SHA256"):
            Settings.from_env({**ENV, "NOD_INSTALLER_URL": "https://example.org/x.sh"})
        with pytest.raises(SettingsError, match="64 hex"):
            Settings.from_env({**ENV, "NOD_INSTALLER_URL": "https://e.org/x", "NOD_INSTALLER_SHA256": "abc"})

    def test_empty_options_are_as_if_not_there(self) -> None:
        settings = Settings.from_env({**ENV, "NOD_INSTALLER_URL": "", "NOD_SLACK_ORIGIN": ""})
        assert settings.installer_url is None
        assert settings.slack_origin == "https://hooks.slack.com"
