"""A row that anybody may have written is read without belief and without an error."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib import rows
from chalicelib.aws.items import to_attribute, to_item
from chalicelib.heartbeats import SIGNALS, Heartbeat, Space

ROW: dict[str, Any] = {
    "id": "arn:aws:ec2:us-east-1:123456789012:instance/i-1",
    "at": "2026-11-22T14:05:00Z",
    "boot_id": "b" * 32,
    "beat": 7,
    "uptime": Decimal("3600.5"),
    "answers": True,
    "address": "198.51.100.7",
    "certificate_sha256": "AA:BB",
    "certificate_valid": True,
    "version": "2",
    "ages": {"input": 60, "kernel": Decimal("4.5")},
    "facts": {"kernels": {"busy": 0, "waiting": 1, "idle": 2}, "cpu_cores": Decimal("0.034"), "busiest": ["python3"]},
    "unknown": ["terminals"],
    "confirmed": "x",
}


def read(**changes: Any) -> Heartbeat:
    heartbeat = Heartbeat.from_record(ROW | changes)
    assert heartbeat is not None
    return heartbeat


def test_what_a_monitor_writes_is_read() -> None:
    heartbeat = read()
    assert heartbeat == Heartbeat(
        boot_id="b" * 32,
        beat=7,
        at=datetime(2026, 11, 22, 14, 5, tzinfo=UTC),
        uptime=timedelta(seconds=3600.5),
        ages={"input": timedelta(seconds=60), "kernel": timedelta(seconds=4.5)},
        unknown=frozenset({"terminal"}),
        facts={
            "kernels": {"busy": 0, "waiting": 1, "idle": 2},
            "cpu_cores": Decimal("0.03"),
            "busiest": ["python3"],
        },
        answers=True,
        address="198.51.100.7",
        certificate_sha256="AA:BB",
        certificate_valid=True,
        version="2",
        confirmed="x",
    )
    assert heartbeat.told


@pytest.mark.parametrize("record", [None, {}, [], "row", 3])
def test_no_row_is_no_heartbeat(record: object) -> None:
    assert Heartbeat.from_record(record) is None


@pytest.mark.parametrize("ages", [None, [], "0", 0, [["input", 5]]])
def test_ages_that_are_no_map_leave_every_signal_unknown(ages: object) -> None:
    heartbeat = read(ages=ages)
    assert heartbeat.ages == {}
    assert heartbeat.unknown == set(SIGNALS)


@pytest.mark.parametrize(
    "age", ["5", None, True, -1, float("nan"), float("inf"), Decimal("NaN"), Decimal("sNaN"), 10**400, [5], {}]
)
def test_an_age_that_is_no_span_is_unknown_and_the_others_are_not(age: object) -> None:
    heartbeat = read(ages={"input": 60, "cpu": age}, unknown=[])
    assert heartbeat.ages == {"input": timedelta(seconds=60)}
    assert heartbeat.unknown == {"cpu"}


def test_an_absent_age_is_known_only_with_the_boot_it_speaks_of() -> None:
    assert read(ages={"input": 60}, unknown=[]).unknown == frozenset()
    assert read(ages={"input": 60}, unknown=[], uptime=None).unknown == set(SIGNALS) - {"input"}


@pytest.mark.parametrize("unknown", [None, "kernels", 5, ["kernels", 5], {"kernels": 1}])
def test_a_list_of_unknown_signals_that_is_none_leaves_all_unknown(unknown: object) -> None:
    assert read(unknown=unknown).unknown == set(SIGNALS)


def test_the_monitor_names_what_it_cannot_read_by_its_source() -> None:
    assert read(unknown=["kernels", "browsers", "lasers"]).unknown == {"kernel", "browser", "lasers"}


@pytest.mark.parametrize("changes", [{"boot_id": None}, {"boot_id": 5}, {"beat": None}, {"beat": "7"}, {"beat": 1.5}])
def test_a_row_that_cannot_be_told_from_the_one_before_is_no_sign_of_life(changes: dict[str, Any]) -> None:
    assert not read(**changes).told


def test_facts_are_cut_to_what_the_ledger_can_keep() -> None:
    facts = read(
        facts={
            "busiest": ["x" * 500, b"bytes", "two\nlines", 1.239],
            "deep": {"a": {"b": {"c": 1}}},
            "bad": float("nan"),
            **{f"fact{number}": number for number in range(100)},
        }
    ).facts
    assert facts["busiest"] == ["x" * 40, "two?lines", Decimal("1.24")]
    assert facts["deep"] == {"a": {}}
    assert "bad" not in facts
    assert len(facts) <= 16
    to_attribute(facts)


def test_names_that_cannot_be_stored_or_shown_are_left_out() -> None:
    """An empty key is none for DynamoDB; a new line in a message would be a forger's own paragraph."""
    bad = ["", "x" * 41, "two\nlines", "\x1b[31m"]
    assert read(unknown=[*bad, "kernels", "x" * 40]).unknown == {"kernel", "x" * 40}
    facts = read(facts={**dict.fromkeys(bad, 1), "good": {**dict.fromkeys(bad, 1), "fine": 2}}).facts
    assert facts == {"good": {"fine": 2}}


def test_facts_of_all_sizes_come_to_a_few_kilobytes() -> None:
    large = {f"part{number:02}": ["\U0001f600" * 40] * 20 for number in range(16)}
    facts = read(facts={"busiest": ["python3"], **{f"fact{number:02}": large for number in range(15)}}).facts
    assert facts == {"busiest": ["python3"]}
    facts = read(facts={f"fact{number:02}": ["x" * 40] * 10 for number in range(16)}).facts
    assert 3000 < rows.size(facts) <= 4096 + 3
    assert all(fact == ["x" * 40] * 10 for fact in facts.values()), "whole, or not at all"


def test_a_row_comes_from_dynamodb_as_it_was_written() -> None:
    assert Heartbeat.from_item(to_item(ROW)) == Heartbeat.from_record(ROW)


def test_types_that_the_product_never_writes_are_unknown_and_not_an_error() -> None:
    item = to_item(ROW) | {"ages": {"NS": ["1", "2"]}, "boot_id": {"B": b"\x00"}, "beat": {"N": "seven"}}
    heartbeat = Heartbeat.from_item(item)
    assert heartbeat is not None
    assert (heartbeat.boot_id, heartbeat.beat) == (None, None)
    assert heartbeat.unknown == set(SIGNALS)


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.decimals()
    | st.text()
    | st.binary()
    | st.sampled_from(["0001-01-01T00:00:00+14:00", "2026-11-22T14:05:00Z", 10**400, "9" * 400]),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(SIGNALS) | st.text(max_size=9), inner, max_size=4)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(sorted(ROW)) | st.text(max_size=9), ANYTHING))
def test_no_row_raises_and_every_age_is_a_span(row: dict[str, Any]) -> None:
    for heartbeat in (Heartbeat.from_record(row), Heartbeat.from_item(row)):
        if heartbeat is not None:
            assert all(age >= timedelta(0) for age in heartbeat.ages.values())
            to_attribute(heartbeat.facts)
            assert rows.size(heartbeat.facts) <= 4096 + 3
            assert "" not in {*heartbeat.unknown, *heartbeat.facts}


@given(
    st.dictionaries(
        st.sampled_from(sorted(ROW)), st.dictionaries(st.sampled_from(["S", "N", "M", "L", "B", "SS"]), ANYTHING)
    )
)
def test_no_item_raises(item: dict[str, Any]) -> None:
    Heartbeat.from_item(item)


def test_room_on_the_disk_is_told() -> None:
    assert read(facts={"disk": {"free_mib": Decimal(12), "size_mib": Decimal(30000)}}).space == Space(12, 30000)
    assert read(facts={}).space is None


@pytest.mark.parametrize(
    "told",
    [
        "full", 7, [1, 2], {}, {"free_mib": 1}, {"size_mib": 1}, {"free_mib": "1", "size_mib": 2},
        {"free_mib": -1, "size_mib": 2}, {"free_mib": 3, "size_mib": 2}, {"free_mib": 0, "size_mib": 0},
        {"free_mib": True, "size_mib": 2}, {"free_mib": 1, "size_mib": 10**12},
        {"free_mib": Decimal("NaN"), "size_mib": 2},
        {"free_mib": Decimal("0.5"), "size_mib": 2}, {"free_mib": {"a": 1}, "size_mib": 2},
    ],
)  # fmt: skip
def test_room_that_no_disk_has_is_not_believed(told: object) -> None:
    assert read(facts={"disk": told}).space is None
