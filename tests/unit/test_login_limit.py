"""How guesses of the password are counted: by address, in a sliding minute, also over a restart."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instance.files.login_limit import LimitFile, LoginLimit, source

ADA = "203.0.113.7"
MALLORY = "198.51.100.66"


def guesses(limit: LoginLimit, address: str, times: list[float]) -> list[bool]:
    return [limit.admit(address, now) == 0 for now in times]


def test_five_guesses_a_minute_and_the_sixth_waits() -> None:
    limit = LoginLimit()
    assert guesses(limit, MALLORY, [0, 1, 2, 3, 4]) == [True] * 5
    assert limit.admit(MALLORY, 10) == pytest.approx(50)
    assert limit.admit(MALLORY, 59.5) == pytest.approx(0.5)
    assert limit.admit(MALLORY, 60) == 0
    assert limit.admit(MALLORY, 60.5) == pytest.approx(0.5)


def test_a_hundred_guesses_at_once_are_five() -> None:
    limit = LoginLimit()
    assert sum(guesses(limit, MALLORY, [7.0] * 100)) == 5


def test_waiting_guesses_do_not_lengthen_the_wait() -> None:
    limit = LoginLimit()
    guesses(limit, MALLORY, [0.0] * 5)
    guesses(limit, MALLORY, [float(now) for now in range(1, 60)])
    assert limit.admit(MALLORY, 60) == 0


def test_an_owner_elsewhere_is_not_locked_out() -> None:
    limit = LoginLimit()
    guesses(limit, MALLORY, [0.0] * 50)
    assert limit.admit(ADA, 0) == 0


def test_the_right_password_forgets_the_wrong_ones_of_its_address_only() -> None:
    limit = LoginLimit()
    guesses(limit, ADA, [0.0] * 5)
    guesses(limit, MALLORY, [0.0] * 5)
    limit.forgive(ADA)
    assert limit.admit(ADA, 1) == 0
    assert limit.admit(MALLORY, 1) > 0


@given(st.lists(st.floats(0, 300), max_size=80))
def test_no_minute_ever_holds_more_than_five(times: list[float]) -> None:
    limit = LoginLimit()
    taken = [now for now in sorted(times) if limit.admit(MALLORY, now) == 0]
    for start in taken:
        assert sum(start <= now < start + 60 for now in taken) <= 5


@given(st.lists(st.tuples(st.sampled_from("abcde"), st.floats(0, 300)), max_size=60), st.floats(0, 300))
def test_the_wait_that_is_told_is_enough(made: list[tuple[str, float]], later: float) -> None:
    limit = LoginLimit()
    now = 0.0
    for name, at in sorted(made, key=lambda guess: guess[1]):
        now = at
        limit.admit(f"192.0.2.{ord(name)}", now)
    wait = limit.admit("192.0.2.97", now)
    # A millisecond for the rounding of floating point.
    assert limit.admit("192.0.2.97", now + wait + 0.001) == 0 or wait == 0


@pytest.mark.parametrize(
    ("address", "counted_by"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("", "unknown"),
        (None, "unknown"),
        ("/run/socket", "unknown"),
    ],
)
def test_guesses_are_counted_by_what_one_customer_has(address: str | None, counted_by: str) -> None:
    assert source(address) == counted_by


def test_a_flood_of_addresses_fills_neither_memory_nor_disk(tmp_path: Path) -> None:
    limit = LoginLimit()
    for number in range(20_000):
        limit.admit(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", number / 1000)
    assert len(limit.state()) == 4096
    LimitFile(tmp_path / "guesses.json").save("boot", limit.state())
    assert (tmp_path / "guesses.json").stat().st_size < 400_000


def test_old_guesses_leave_the_memory() -> None:
    limit = LoginLimit()
    for number in range(1000):
        limit.admit(f"10.0.{number >> 8}.{number & 255}", 0)
    limit.admit(ADA, 61)
    assert list(limit.state()) == [ADA]


def restarted(limit: LoginLimit, path: Path, now: float, boots: tuple[str, str] = ("one", "one")) -> LoginLimit:
    LimitFile(path).save(boots[0], limit.state())
    after = LoginLimit()
    after.restore(LimitFile(path).load(boots[1], now), now)
    return after


def test_a_restart_of_the_server_forgives_nothing(tmp_path: Path) -> None:
    limit = LoginLimit()
    guesses(limit, MALLORY, [100, 101, 102, 103, 104])
    after = restarted(limit, tmp_path / "guesses.json", now=110)
    assert after.admit(MALLORY, 110) == pytest.approx(50)
    assert after.admit(ADA, 110) == 0
    assert after.admit(MALLORY, 160) == 0


def test_after_a_reboot_the_clock_begins_anew_and_the_guesses_count_as_just_made(tmp_path: Path) -> None:
    limit = LoginLimit()
    guesses(limit, MALLORY, [90_000.0] * 5)
    after = restarted(limit, tmp_path / "guesses.json", now=12, boots=("one", "two"))
    assert after.admit(MALLORY, 13) == pytest.approx(59)
    assert after.admit(MALLORY, 72) == 0


def test_a_time_to_come_counts_as_now() -> None:
    limit = LoginLimit()
    limit.restore({MALLORY: [1e12] * 5}, now=10)
    assert limit.admit(MALLORY, 10) == pytest.approx(60)
    assert limit.admit(MALLORY, 70) == 0


def test_what_is_restored_is_bounded_too() -> None:
    limit = LoginLimit()
    limit.restore({f"a{number}": [0.0] * 99 for number in range(9000)}, now=1)
    state = limit.state()
    assert len(state) == 4096
    assert max(len(made) for made in state.values()) == 5


@pytest.mark.parametrize(
    "text",
    ["", "{", "null", "[]", "7", '{"boot_id": "one"}', '{"boot_id": "one", "guesses": [1]}',
     '{"boot_id": "one", "guesses": {"a": 5}}', '{"boot_id": "one", "guesses": {"a": ["x"]}}', "\udce4"],
)  # fmt: skip
def test_a_broken_file_does_not_keep_the_owner_out(text: str, tmp_path: Path) -> None:
    path = tmp_path / "guesses.json"
    path.write_bytes(text.encode(errors="surrogateescape"))
    assert LimitFile(path).load("one", 1) == {}


def test_a_missing_file_is_an_empty_one(tmp_path: Path) -> None:
    assert LimitFile(tmp_path / "none.json").load("one", 1) == {}


def test_a_disk_that_is_full_leaves_the_old_file_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "guesses.json"
    file = LimitFile(path)
    file.save("one", {ADA: [1.0]})

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(json, "dump", full)
    with pytest.raises(OSError, match="No space"):
        file.save("one", {ADA: [1.0, 2.0]})
    assert file.load("one", 3) == {ADA: [1.0]}
    assert [entry.name for entry in tmp_path.iterdir()] == ["guesses.json"]
