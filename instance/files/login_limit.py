"""How many guesses of the password an address may make: five a minute, also across restarts of the server.

Jupyter Server itself takes as many as it can check (18.6 a second were measured), so a short password falls
in hours. The rule here knows neither network nor clock nor Jupyter: addresses and times are handed in. Times
are seconds of a clock that never steps (CLOCK_BOOTTIME).
"""

import contextlib
import ipaddress
import json
import os
from pathlib import Path
from typing import Any

GUESSES = 5
WINDOW_SECONDS = 60.0
# More than a server can check in a window: a flood of addresses pushes out none that still counts.
ADDRESSES = 4096
# As many of them as are kept need less.
MOST_BYTES = 4 * 1024 * 1024


def source(address: str | None) -> str:
    """What guesses are counted by: an IPv4 address, or the /64 that one IPv6 customer has.

    An IPv4 address in IPv6 clothing counts as the IPv4 address. What is no address counts as one source.
    """
    try:
        parsed = ipaddress.ip_address((address or "").partition("%")[0])
    except ValueError:
        return "unknown"
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Network((parsed, 64), strict=False))


class LoginLimit:
    """Counts guesses by source in a sliding window."""

    def __init__(self, guesses: int = GUESSES, window: float = WINDOW_SECONDS, addresses: int = ADDRESSES) -> None:
        self._guesses = guesses
        self._window = window
        self._addresses = addresses
        # In the order of their last guess, so that what is over stands in front.
        self._made: dict[str, list[float]] = {}

    def admit(self, address: str | None, now: float) -> float:
        """Counts a guess and answers 0; or counts nothing and answers the seconds until this source may guess.

        Called before the password is looked at, so that guesses that come side by side are counted too.
        """
        self._forget_old(now)
        key = source(address)
        made = [at for at in self._made.get(key, []) if now - at < self._window]
        if len(made) >= self._guesses:
            return made[-self._guesses] + self._window - now
        self._made.pop(key, None)
        self._made[key] = [*made, now]
        while len(self._made) > self._addresses:
            del self._made[next(iter(self._made))]
        return 0.0

    def forgive(self, address: str | None) -> None:
        """Forgets the guesses of a source: it knew the password."""
        self._made.pop(source(address), None)

    def _forget_old(self, now: float) -> None:
        while self._made:
            key = next(iter(self._made))
            if now - self._made[key][-1] < self._window:
                return
            del self._made[key]

    def state(self) -> dict[str, list[float]]:
        """What to keep over a restart: times of guesses by source."""
        return {key: list(made) for key, made in self._made.items()}

    def restore(self, state: dict[str, list[float]], now: float) -> None:
        """Takes up a kept state. A time after `now` counts as now: nobody gains by a wrong clock."""
        kept = {key: sorted(min(at, now) for at in made)[-self._guesses :] for key, made in state.items() if made}
        newest = sorted(kept.items(), key=lambda item: item[1][-1])[-self._addresses :]
        self._made = dict(newest)
        self._forget_old(now)


class LimitFile:
    """Where the guesses are kept between two runs of the server."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self, boot_id: str, now: float) -> dict[str, list[float]]:
        """The kept guesses. Those of another boot count as made now, since their clock has ended.

        A file that is missing or broken is as good as an empty one: the owner must get in.
        """
        try:
            # The notebook's user owns the folder: a pipe in its place must not hold up the start.
            descriptor = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            with os.fdopen(descriptor, "rb") as file:
                kept: Any = json.loads(file.read(MOST_BYTES))
            same_boot = kept["boot_id"] == boot_id
            return {str(key): [float(at) if same_boot else now for at in made] for key, made in kept["guesses"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return {}

    def save(self, boot_id: str, state: dict[str, list[float]]) -> None:
        """Writes the guesses in one step. OSError when the disk does not take them."""
        new = self._path.with_suffix(".new")
        try:
            new.unlink(missing_ok=True)
            with new.open("x") as file:
                json.dump({"boot_id": boot_id, "guesses": state}, file)
                file.flush()
                os.fsync(file.fileno())
            new.replace(self._path)
        except OSError:
            with contextlib.suppress(OSError):
                new.unlink()
            raise
