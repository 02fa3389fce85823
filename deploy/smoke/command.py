"""`python -m deploy smoke`."""

from __future__ import annotations

import argparse
import contextlib
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from admin.deployment import Deployment
from deploy import account as accounts
from deploy.errors import InputError, SmokeError
from deploy.smoke.account import Account
from deploy.smoke.journey import Clock, Journey, Place
from deploy.smoke.rows import Answer


def run(session: Any, options: argparse.Namespace, stage: str, *, clock: Clock, say: Callable[[str], object]) -> None:
    """Looks at a deployment and tells each row, then what it cost.

    Raises:
        InputError, AccountError: nothing was begun.
        SmokeError: something is not as it has to be, or is left.
    """
    region = accounts.region(session, options.region)
    identity = accounts.identity(session, region)
    url = _url(options.url)
    say(f"The deployment nod-{stage} in {region}, account {identity.account}.")
    say("One notebook is launched, used, stopped, woken and deleted. On AWS: about 15 minutes and some cents.\n")
    place = Place(
        stage,
        Account(lambda service: session.client(service, region_name=region), stage, identity),
        Deployment(stage, session, region=region),
        url,
        has_internet=url is None or not _is_loopback(url),
    )
    journey = Journey(place, say, clock, instance_type=options.instance_type or None, email=options.email or None)
    began = clock.monotonic()
    with _interrupted_once(say, lambda: journey.removing):
        right = journey.run()
    counts = {answer: sum(row.answer is answer for row in journey.rows) for answer in Answer}
    say(f"\n{counts[Answer.YES]} as they have to be, {counts[Answer.NO]} not, {counts[Answer.UNSEEN]} not seen.")
    cost = "not known" if journey.cost is None else f"about ${journey.cost:.4f}"
    say(f"It took {(clock.monotonic() - began) / 60:.1f} minutes and cost {cost} (machine, disk, transitions).")
    if not right:
        wrong = ", ".join(row.key for row in journey.rows if row.answer is Answer.NO)
        raise SmokeError(f"Not as it has to be: {wrong}. docs/operations.md says where to look.")


@contextmanager
def _interrupted_once(say: Callable[[str], object], removing: Callable[[], bool]) -> Iterator[None]:
    """The first Ctrl-C ends the looking, and everything is removed; none ends that, and neither does a terminal that is
    closed."""

    def interrupt(number: int, frame: object) -> None:  # noqa: ARG001 - the signature of signal handlers
        for each in before:
            signal.signal(each, signal.SIG_IGN)
        goes_on = removing()
        word = "Not interrupted" if goes_on else "Interrupted"
        with contextlib.suppress(OSError):
            say(f"{word}. What was made is being removed: about two minutes.")
        if not goes_on:
            raise KeyboardInterrupt

    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    for each in before:
        signal.signal(each, interrupt)
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _url(given: str) -> str | None:
    if not given:
        return None
    parts = urlsplit(given)
    if not parts.hostname or (parts.scheme != "https" and not (parts.scheme == "http" and _is_loopback(given))):
        raise InputError(f"--url {given}: the address of the API begins with https://.")
    return given


def _is_loopback(url: str) -> bool:
    return urlsplit(url).hostname in ("127.0.0.1", "localhost", "::1")
