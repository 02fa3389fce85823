"""Lines of the ledger that wait in the record of their notebook: written, and forgotten there."""

from __future__ import annotations

from typing import Protocol

from chalicelib.aws.ledger import Ledger, waiting
from chalicelib.model import Notebook


class Records(Protocol):
    """A gateway to the table `notebooks`: both of them can forget lines."""

    def forget_lines(self, notebook: Notebook) -> bool: ...


def settle(notebook: Notebook | None, notebooks: Records, ledger: Ledger) -> int:
    """Writes the lines that wait. How many. Safe to run again and side by side: a line twice is one row.

    Raises:
        Unavailable: the ledger does not take them; they wait on.
    """
    lines = waiting(notebook) if notebook is not None else []
    if notebook is None or not lines:
        return 0
    ledger.write(lines)
    notebooks.forget_lines(notebook)
    return len(lines)
