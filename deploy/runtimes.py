"""Which Pythons Lambda has, and until when it supports them."""

from __future__ import annotations

import functools
import sys
from dataclasses import dataclass
from datetime import date, timedelta

from botocore.loaders import Loader

from deploy.errors import PackageError


@dataclass(frozen=True)
class Support:
    """Of one runtime."""

    until: date
    """The last day with security updates."""
    created_until: date
    """After this day Lambda makes no function with it."""
    updated_until: date
    """After this day Lambda changes no function with it, so no deployment is updated."""


SUPPORT = {
    "python3.11": Support(date(2027, 6, 30), date(2027, 7, 31), date(2027, 8, 31)),
    "python3.12": Support(date(2028, 10, 31), date(2028, 11, 30), date(2029, 1, 10)),
    "python3.13": Support(date(2029, 6, 30), date(2029, 7, 31), date(2029, 8, 31)),
    "python3.14": Support(date(2029, 6, 30), date(2029, 7, 31), date(2029, 8, 31)),
}
"""AWS, Lambda's guide, "Lambda runtimes": the dates it plans with. Also those in local/setup.sh, newest first."""

SOON = timedelta(days=365)
NEWEST_FIRST = tuple(reversed(SUPPORT))


def of_python(version: tuple[int, int] = sys.version_info[:2]) -> str:
    """Lambda's name of a Python.

    Raises:
        PackageError: Lambda has no such runtime.
    """
    name = f"python{version[0]}.{version[1]}"
    if name not in _offered():
        newest, *others = (f"PYTHON={one}" for one in NEWEST_FIRST)
        raise PackageError(
            f"Lambda has no runtime {name}, the Python of .venv. Set up again with the newest one that you have "
            f"installed and Lambda has: make clean package {newest} (or {', '.join(others)})."
        )
    return name


def note(name: str, today: date) -> str | None:
    """What has to be known about a runtime's support; None if it goes on for a year.

    Raises:
        PackageError: Lambda takes no deployment with it any more.
    """
    support = SUPPORT.get(name)
    if support is None or today < support.until - SOON:
        return None
    better = [one for one in NEWEST_FIRST if SUPPORT[one].until > support.until]
    instead = f"To move to a newer one: make clean deploy PYTHON={better[0]} …" if better else "Update this checkout."
    if today > support.updated_until:
        raise PackageError(f"Lambda has taken no deployment with {name} since {_day(support.updated_until)}. {instead}")
    when = "supports" if today <= support.until else "supported"
    return (
        f"Note: Lambda {when} {name} until {_day(support.until)}. It makes no new function with it after "
        f"{_day(support.created_until)} and changes none after {_day(support.updated_until)}. {instead}"
    )


def _day(day: date) -> str:
    return f"{day.day} {day:%B %Y}"


@functools.cache
def _offered() -> list[str]:
    """Lambda's Python runtimes, as the SDK's model of it lists them."""
    model = Loader().load_service_model("lambda", "service-2")
    return [one for one in model["shapes"]["Runtime"]["enum"] if one.startswith("python")]
