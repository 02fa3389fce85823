"""EC2's request limits as token buckets, kept so that no call of ours is throttled. Time is an argument.

AWS's table of API throttling limits (docs/decisions/0009): StopInstances has a bucket of 50 requests that refills by 5
a second, and one of 1,000 instances that refills by 20 a second. Both are the account's, in one region.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from chalicelib import rows, times

THROTTLED = frozenset({"RequestLimitExceeded", "Throttling", "ThrottlingException", "RequestThrottled"})
"""EC2's error codes of a call that was one too many."""


@dataclass(frozen=True)
class Bucket:
    """`size` tokens at the most, `refill` a second; `level` of them at the time `at`."""

    size: float
    refill: float
    level: float
    at: datetime

    @classmethod
    def full(cls, size: float, refill: float, now: datetime) -> Bucket:
        """As nobody has taken from it."""
        return cls(size, refill, size, now)

    def seen_at(self, now: datetime) -> Bucket:
        """The same at a later time; a clock that went back adds nothing."""
        passed = max(0.0, (now - self.at).total_seconds())
        return replace(self, level=min(self.size, self.level + passed * self.refill), at=max(now, self.at))

    def take(self, tokens: float, now: datetime) -> Bucket:
        """The same without so many; below nothing too, which has to be waited off."""
        seen = self.seen_at(now)
        return replace(seen, level=seen.level - tokens)

    def wait(self, tokens: float, now: datetime) -> timedelta:
        """How long until so many are there. More than `size` never are: it is `size` that is waited for."""
        missing = min(tokens, self.size) - self.seen_at(now).level
        return timedelta(seconds=max(0.0, missing / self.refill))


@dataclass(frozen=True)
class Limits:
    """What may be used of EC2's buckets. The rest is for people, whose own stops take from the same ones."""

    requests: float = 45
    requests_refill: float = 4.5
    instances: float = 940
    instances_refill: float = 19.4
    most: int = 50
    """Instances a call: one that EC2 refuses for one of them is made again in parts."""


@dataclass(frozen=True)
class Pace:
    """Both buckets of one kind of call."""

    requests: Bucket
    instances: Bucket
    limits: Limits

    @classmethod
    def full(cls, limits: Limits, now: datetime) -> Pace:
        """At the first time."""
        return cls(
            Bucket.full(limits.requests, limits.requests_refill, now),
            Bucket.full(limits.instances, limits.instances_refill, now),
            limits,
        )

    @classmethod
    def from_record(cls, record: Mapping[str, object], limits: Limits, now: datetime) -> Pace:
        """As the last call left it (milli-tokens `requests` and `instances`, `at`); full where nothing is known."""
        at = times.from_text(rows.text(record, "at"))
        requests, instances = rows.whole(record, "requests"), rows.whole(record, "instances")
        if at is None or requests is None or instances is None:
            return cls.full(limits, now)
        # A clock of another container that is ahead would keep us waiting for it: what it saw counts from now.
        at = min(at, now)
        return cls(
            Bucket(limits.requests, limits.requests_refill, min(limits.requests, requests / 1000), at),
            Bucket(limits.instances, limits.instances_refill, min(limits.instances, instances / 1000), at),
            limits,
        )

    def to_record(self) -> dict[str, object]:
        """The row's part, in thousandths of a token: DynamoDB takes no float."""
        at = max(self.requests.at, self.instances.at)
        return {
            "requests": int(self.requests.seen_at(at).level * 1000),
            "instances": int(self.instances.seen_at(at).level * 1000),
            "at": times.to_text(at),
        }

    def wait(self, instances: int, now: datetime) -> timedelta:
        """How long until a call with so many instances may be made."""
        return max(self.requests.wait(1, now), self.instances.wait(instances, now))

    def take(self, instances: int, now: datetime) -> Pace:
        """After such a call."""
        return replace(self, requests=self.requests.take(1, now), instances=self.instances.take(instances, now))

    def emptied(self, now: datetime) -> Pace:
        """After EC2 refused a call as one too many: somebody else takes from the buckets too."""
        return replace(
            self,
            requests=replace(self.requests.seen_at(now), level=0.0),
            instances=replace(self.instances.seen_at(now), level=0.0),
        )
