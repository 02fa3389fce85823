"""The order of the tests, and what none leaves to the next."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from chalicelib.log import about

LOCAL = Path(__file__).parent / "local"

# How long an example takes on a machine that does other work too says nothing of the rule.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What mostly waits comes before what computes, so that with several workers each fills the other's gaps.

    First one module that boots machines, which makes their image where none is cached; meanwhile those of the local
    cloud that need none; then the other modules with machines, of which one begun last would be waited for alone.
    """
    boots = [item.path for item in items if item.get_closest_marker("machine")]

    def rank(item: pytest.Item) -> int:
        if item.path in boots:
            return 0 if item.path == boots[0] else 2
        return 1 if item.path.is_relative_to(LOCAL) else 3

    items.sort(key=rank)


def pytest_configure() -> None:
    """What a shell starts in the background, or nohup, has these ignored, and so would have all that tests start: their
    Ctrl-C would do nothing, and a terminal that is closed would leave its commands running."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def of_no_notebook() -> Iterator[None]:
    """A test that calls the product's own code, outside an invocation, would leave the notebook it noted in the log."""
    with about(None):
        yield
