"""What a notebook costs by list price: its machine while it runs, its disk from its first start to its end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

from chalicelib import rows, times
from chalicelib.model import Notebook
from chalicelib.notebook.life import State
from chalicelib.prices import Catalogue

_PLACES = Decimal("0.0001")


@dataclass(frozen=True)
class Cost:
    """List prices before tax; `per_hour` while it runs, `so_far` since its first start, stopped hours of its disk too.

    None: no price is known for this region, it never ran, or (`so_far`) nobody knows whether the machine is gone.
    """

    currency: str
    per_hour: float | None
    so_far: float | None


class _Span(NamedTuple):
    type: str
    started: datetime
    ended: datetime

    @property
    def hours(self) -> Decimal:
        return _hours(self.started, self.ended)


def cost(notebook: Notebook, prices: Catalogue, region: str, now: datetime) -> Cost:
    """The cost of a notebook at `now`."""
    per_hour = prices.notebook_hour(region, notebook.instance_type, notebook.volume_gib)
    until = _paid_until(notebook, now)
    amount = None if until is None else _amount(notebook, prices, region, until)
    return Cost(
        currency=prices.currency,
        per_hour=None if per_hour is None else float(per_hour),
        so_far=None if amount is None else float(amount),
    )


def last_run(notebook: Notebook, prices: Catalogue, region: str, now: datetime) -> Decimal | None:
    """What the run that goes on, or else the last one, cost: machine, address and disk while it ran."""
    spans = list(_spans(notebook, now))
    if not spans:
        return None
    per_hour = prices.notebook_hour(region, spans[-1].type, notebook.volume_gib)
    return None if per_hour is None else (per_hour * spans[-1].hours).quantize(_PLACES)


def disk_month(notebook: Notebook, prices: Catalogue, region: str) -> Decimal | None:
    """What the disk costs in a month of 730 hours, running or stopped."""
    return prices.disk_month(region, notebook.volume_gib)


def run_started(notebook: Notebook) -> datetime | None:
    """When the run that goes on began. None while it does not run."""
    if notebook.run_started_at is None and not notebook.runs:
        # A launch writes the run at its end; its machine costs from the time when EC2 said `running`.
        return times.from_text(rows.text(notebook.steps.get("start_instance", {}), "finished_at"))
    return times.from_text(notebook.run_started_at)


def _amount(notebook: Notebook, prices: Catalogue, region: str, until: datetime) -> Decimal | None:
    spans = list(_spans(notebook, until))
    disk = prices.disk_hour(region, notebook.volume_gib)
    if not spans or disk is None:
        return None
    total = disk * _hours(spans[0].started, until)
    for span in spans:
        machine = prices.machine_hour(region, span.type)
        if machine is None:
            return None
        total += machine * span.hours
    return total.quantize(_PLACES)


def _spans(notebook: Notebook, until: datetime) -> Iterator[_Span]:
    for run in notebook.runs:
        started, stopped = times.from_text(run.started_at), times.from_text(run.stopped_at)
        if started is not None and stopped is not None:
            yield _Span(run.type, started, stopped)
    started = run_started(notebook)
    if started is not None:
        yield _Span(notebook.instance_type, started, until)


def _paid_until(notebook: Notebook, now: datetime) -> datetime | None:
    """When the machine ended, or `now` while it is there; None where nobody knows whether it still is."""
    if notebook.failed_at is not None and notebook.error is not None and not notebook.error.machine_left:
        # Its machine was gone by then. A delete that comes days later ends nothing that still cost.
        return times.from_text(notebook.failed_at)
    if notebook.state == State.TERMINATED:
        return times.from_text(notebook.terminated_at)
    return None if notebook.state == State.FAILED else now


def _hours(start: datetime, end: datetime) -> Decimal:
    return Decimal(max(0.0, (end - start).total_seconds())) / 3600
