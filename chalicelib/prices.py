"""What EC2 offers and what it costs: instance types, and list prices by region, from prices.json.

prices.json names the source and date of each of its columns. A price that it does not have is None, never a guess.
"""

from __future__ import annotations

import json
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import NamedTuple

# 365 days: AWS divides the price of a GiB-month by the hours of the month at hand (672 to 744).
HOURS_PER_MONTH = Decimal(730)
_PLACES = Decimal("0.00001")


class InstanceType(NamedTuple):
    """One EC2 instance type. `memory_gib` in GiB; `architecture` as EC2 spells it: `x86_64` or `arm64`."""

    name: str
    vcpus: int
    memory_gib: Decimal
    architecture: str
    gpus: int

    def like(self, other: InstanceType) -> bool:
        """Whether the one can stand in for the other: the same size class and architecture."""
        return (self.vcpus, self.memory_gib, self.architecture, self.gpus) == (
            other.vcpus,
            other.memory_gib,
            other.architecture,
            other.gpus,
        )


class _Region(NamedTuple):
    gp3_gib_month: Decimal
    ipv4_hour: Decimal
    instance_hour: dict[str, Decimal]


class Catalogue(NamedTuple):
    """Types and prices. All prices in `currency`, before tax."""

    currency: str
    types: dict[str, InstanceType]
    regions: dict[str, _Region]

    def instance_hour(self, region: str, instance_type: str) -> Decimal | None:
        """On-demand Linux price of an hour of the instance alone."""
        prices = self.regions.get(region)
        return None if prices is None else prices.instance_hour.get(instance_type)

    def machine_hour(self, region: str, instance_type: str) -> Decimal | None:
        """Price of an hour of the instance with its public IPv4 address, without the disk."""
        instance = self.instance_hour(region, instance_type)
        return None if instance is None else instance + self.regions[region].ipv4_hour

    def disk_month(self, region: str, volume_gib: int) -> Decimal | None:
        """Price of a gp3 disk of `volume_gib` GiB for a month."""
        prices = self.regions.get(region)
        return None if prices is None else prices.gp3_gib_month * volume_gib

    def disk_hour(self, region: str, volume_gib: int) -> Decimal | None:
        """The same for an hour."""
        month = self.disk_month(region, volume_gib)
        return None if month is None else month / HOURS_PER_MONTH

    def notebook_hour(self, region: str, instance_type: str, volume_gib: int) -> Decimal | None:
        """Price of an hour of a running notebook: instance, gp3 disk of `volume_gib` GiB, public IPv4 address."""
        machine, disk = self.machine_hour(region, instance_type), self.disk_hour(region, volume_gib)
        return None if machine is None or disk is None else (machine + disk).quantize(_PLACES)


@cache
def catalogue() -> Catalogue:
    """The catalogue of prices.json, read once per process."""
    with (Path(__file__).parent / "prices.json").open(encoding="utf-8") as file:
        document = json.load(file, parse_float=Decimal)
    return Catalogue(
        currency=document["currency"],
        types={
            name: InstanceType(name, vcpus, Decimal(memory), architecture, gpus)
            for name, (vcpus, memory, architecture, gpus) in document["types"].items()
        },
        regions={
            name: _Region(
                gp3_gib_month=Decimal(region["gp3_gib_month"]),
                ipv4_hour=Decimal(region["ipv4_hour"]),
                instance_hour={type_: Decimal(price) for type_, price in region["instance_hour"].items()},
            )
            for name, region in document["regions"].items()
        },
    )
