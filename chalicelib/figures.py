"""What the log says in figures, for the dashboard: how long a launch took step by step, why a notebook stopped."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from decimal import Decimal

from chalicelib import rows, times
from chalicelib.model import Notebook
from chalicelib.notebook.life import ON
from chalicelib.prices import Catalogue

# The sweep looks at each every quarter of an hour.
LATE = timedelta(minutes=30)


def of(notebook: Notebook | None, kind: str) -> dict[str, object]:
    """The figures that go with a message of one kind; empty where there are none."""
    if notebook is None:
        return {}
    if kind == "ready":
        return {"seconds": _seconds(notebook)}
    if kind == "stopped" and notebook.stop is not None:
        return {"code": notebook.stop.code}
    if kind == "failed" and notebook.error is not None:
        return {"code": notebook.error.code}
    return {}


def fleet(notebooks: Iterable[Notebook], prices: Catalogue, region: str, now: datetime) -> dict[str, object]:
    """How many notebooks run, what they cost an hour where prices are known, and how many are late to stop."""
    on = [notebook for notebook in notebooks if notebook.state in ON]
    hours = [prices.notebook_hour(region, notebook.instance_type, notebook.volume_gib) for notebook in on]
    return {
        "notebooks": len(on),
        "usd_per_hour": float(sum((hour for hour in hours if hour is not None), Decimal(0))),
        "overdue": len(late(on, now)),
    }


def late(notebooks: Iterable[Notebook], now: datetime) -> list[Notebook]:
    """Those that run on although somebody should have looked at them, or stopped them, half an hour ago."""
    return [notebook for notebook in notebooks if notebook.state in ON and _is_late(notebook, now)]


def _is_late(notebook: Notebook, now: datetime) -> bool:
    """Nobody looked at it when it was due, or it runs on after its hard limit."""
    moments = [times.from_text(notebook.due_at)]
    started = times.from_text(notebook.run_started_at)
    if started is not None and notebook.max_hours is not None:
        limit = started + timedelta(hours=notebook.max_hours)
        moments.append(max(limit, times.from_text(notebook.hold_until) or limit))
    return any(moment is not None and now - moment > LATE for moment in moments)


def _seconds(notebook: Notebook) -> dict[str, float]:
    spans = {
        name: (rows.text(step, "started_at"), rows.text(step, "finished_at")) for name, step in notebook.steps.items()
    }
    spans["launch"] = notebook.created_at, notebook.ready_at
    found: dict[str, float] = {}
    for name, (start, end) in spans.items():
        began, ended = times.from_text(start), times.from_text(end)
        if began is not None and ended is not None:
            found[name] = round((ended - began).total_seconds(), 3)
    return found
