"""What DELETE does in each state of a notebook."""

from __future__ import annotations

from enum import Enum

from chalicelib.errors import ConfirmationNeeded, FieldError, WrongState
from chalicelib.model import Notebook

FROM = frozenset({"requested", "launching", "ready", "stopping", "stopped", "starting", "failed"})
"""States from which a notebook can be deleted. During a launch, a stop and a start too, which end by themselves when
they find the state changed: who wants it gone need not wait."""


class Deletion(Enum):
    """What is left to do."""

    BEGIN = "write the state and start the workflow"
    REPEAT = "start the workflow again, which changes nothing if it runs"
    DONE = "nothing"


def decide(notebook: Notebook, confirm: str | None) -> Deletion:
    """What to do with a request to delete `notebook`.

    Raises:
        ConfirmationNeeded: `confirm` is not the notebook's name; says what would be lost.
        WrongState: another change is under way.
    """
    if notebook.state == "terminated":
        return Deletion.DONE
    if confirm != notebook.name:
        raise ConfirmationNeeded(
            f"{what_would_be_lost(notebook)} To go on, repeat with ?confirm={notebook.name}.",
            [FieldError("confirm", "It is not the notebook's name.", notebook.name)],
        )
    if notebook.state == "terminating":
        return Deletion.REPEAT
    if notebook.state not in FROM:
        raise WrongState(
            f"The notebook is {notebook.state}. Wait until that is over, then delete it.",
            [FieldError("state", f"It is {notebook.state}.", ", ".join(sorted(FROM)))],
        )
    return Deletion.BEGIN


def what_would_be_lost(notebook: Notebook) -> str:
    """In words, for the caller."""
    if notebook.state in ("requested", "launching"):
        return f"The notebook {notebook.name} is being set up: its launch would be stopped and the machine removed."
    if notebook.state == "failed":
        return f"The notebook {notebook.name} failed: what may be left of its machine would be removed."
    lost = (
        f"The machine of the notebook {notebook.name} and its disk of {notebook.volume_gib} GiB, with every file on "
        "it and all that was installed, would be lost for good."
    )
    if notebook.state in ("stopping", "stopped"):
        return f"{lost} It is {notebook.state} now, and could be started again."
    return lost
