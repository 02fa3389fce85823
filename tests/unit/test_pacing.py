"""EC2's buckets as the drain keeps them, against a limiter that was written from AWS's table alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from benchmarks.standins import Calls, ClientError, Clock, LimitedEc2
from chalicelib.pacing import Bucket, Limits, Pace

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def later(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def test_a_bucket_refills_by_the_second_up_to_its_size() -> None:
    bucket = Bucket.full(10, 2, NOON).take(10, NOON)
    assert bucket.level == 0
    assert bucket.seen_at(later(3)).level == 6
    assert bucket.seen_at(later(60)).level == 10


def test_it_says_how_long_to_wait() -> None:
    bucket = Bucket.full(10, 2, NOON).take(10, NOON)
    assert bucket.wait(4, NOON) == timedelta(seconds=2)
    assert bucket.wait(4, later(2)) == timedelta(0)


def test_more_than_fits_is_waited_for_until_it_is_full() -> None:
    assert Bucket.full(10, 2, NOON).take(10, NOON).wait(1000, NOON) == timedelta(seconds=5)


def test_a_clock_that_went_back_adds_nothing() -> None:
    bucket = Bucket.full(10, 2, later(60)).take(10, later(60))
    assert bucket.seen_at(NOON).level == 0
    assert bucket.seen_at(NOON).seen_at(later(61)).level == 2


def test_what_the_table_keeps_is_what_it_was() -> None:
    pace = Pace.full(Limits(), NOON).take(50, NOON)
    assert Pace.from_record(pace.to_record(), Limits(), NOON) == pace


def test_a_pace_of_another_containers_future_counts_from_now() -> None:
    pace = Pace.full(Limits(), later(3600)).emptied(later(3600))
    assert Pace.from_record(pace.to_record(), Limits(), NOON).wait(50, later(10)) == timedelta(0)


def test_without_a_row_the_buckets_are_full() -> None:
    assert Pace.from_record({"holder": "me"}, Limits(), NOON) == Pace.full(Limits(), NOON)


def test_after_a_refusal_it_waits() -> None:
    assert Pace.full(Limits(), NOON).emptied(NOON).wait(1, NOON) > timedelta(0)


@given(
    st.lists(st.integers(1, 50), min_size=1, max_size=200),
    st.floats(0, 5),
    st.lists(st.integers(0, 199), max_size=5),
)
def test_whoever_waits_as_it_says_is_never_refused(sizes: list[int], slowness: float, restarts: list[int]) -> None:
    """Whatever the batches, however slow the calls, and through the table at any point."""
    clock = Clock(NOON)
    ec2 = LimitedEc2(Calls(clock, {"StopInstances": slowness}), clock)
    pace = Pace.full(Limits(), NOON)
    for number, size in enumerate(sizes):
        if number in restarts:
            pace = Pace.from_record(pace.to_record(), Limits(), clock.now)
        while (wait := pace.wait(size, clock.now)) > timedelta(0):
            clock.sleep(wait.total_seconds())
        pace = pace.take(size, clock.now)
        ec2.stop_instances(InstanceIds=[str(one) for one in range(size)])
    assert ec2.throttled == 0


def test_the_limiter_of_this_test_does_refuse() -> None:
    clock = Clock(NOON)
    ec2 = LimitedEc2(Calls(clock, {}), clock)
    refused = 0
    for _ in range(60):
        try:
            ec2.stop_instances(InstanceIds=["i-1"])
        except ClientError:
            refused += 1
    assert refused == ec2.throttled == 10
