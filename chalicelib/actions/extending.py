"""POST /notebooks/{id}/extend, and the button that keeps a notebook."""

from __future__ import annotations

from datetime import datetime, timedelta

from chalicelib import times
from chalicelib.actions.stopping import ATTEMPTS, read_again, wrong_state
from chalicelib.aws.notebooks import NotebooksTable
from chalicelib.errors import Unavailable
from chalicelib.model import Notebook
from chalicelib.notebook.life import EXTENDABLE


def extend(
    notebook: Notebook, hours: float, *, now: datetime, notebooks: NotebooksTable, minute: timedelta
) -> Notebook:
    """Puts every stop off until `hours` from now, or leaves it where it was put further. The record as it is then.

    Args:
        hours: within what the user may; `minute` is how long a minute of them lasts (Settings.minute).

    Raises:
        WrongState: nothing runs or is about to; nothing was done.
        NotFound: it is gone by now.
        Unavailable: the table did not answer.
    """
    for _ in range(ATTEMPTS):
        if notebook.state not in EXTENDABLE:
            raise wrong_state(notebook, " or ".join(sorted(EXTENDABLE)), "extended")
        until = max(now + 60 * hours * minute, times.from_text(notebook.hold_until) or now)
        held = notebooks.hold(notebook, until, now)
        if held is not None:
            return held
        notebook = read_again(notebook, notebooks)
    raise Unavailable("The notebook's state keeps changing. Try again.")


def kept(notebook: Notebook) -> str:
    """Until when it is kept, by this request or by an earlier one that holds longer."""
    until = times.from_text(notebook.hold_until)
    return f"it is kept until {times.to_minute(until)}" if until else "it is kept no longer than before"
