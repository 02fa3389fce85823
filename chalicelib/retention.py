"""How long the record of a notebook that is no more is kept."""

from __future__ import annotations

from datetime import datetime, timedelta

from chalicelib import times
from chalicelib.model import Notebook
from chalicelib.notebook.life import State

KEPT = timedelta(days=30)


def expiry(notebook: Notebook, now: datetime) -> datetime | None:
    """When the record may go, `KEPT` after the notebook's end; None while it may still have a machine."""
    if notebook.state == State.TERMINATED:
        return (times.from_text(notebook.terminated_at) or now) + KEPT
    if notebook.state == State.FAILED and not (notebook.error and notebook.error.machine_left):
        return (times.from_text(notebook.failed_at) or now) + KEPT
    return None
