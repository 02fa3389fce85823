"""What DELETE does in each state of a notebook."""

from __future__ import annotations

from enum import Enum

from chalicelib.errors import ConfirmationNeeded, FieldError
from chalicelib.model import Notebook
from chalicelib.notebook import life
from chalicelib.notebook.life import State


class Deletion(Enum):
    """What is left to do."""

    BEGIN = "write the state and start the workflow"
    REPEAT = "start the workflow again, which changes nothing if it runs"
    DONE = "nothing"


def decide(notebook: Notebook, confirm: str | None) -> Deletion:
    """What to do with a request to delete `notebook`.

    Raises:
        ConfirmationNeeded: `confirm` is not the notebook's name; says what would be lost.
    """
    if notebook.state == State.TERMINATED:
        return Deletion.DONE
    if confirm != notebook.name:
        raise ConfirmationNeeded(
            f"{what_would_be_lost(notebook)} To go on, repeat with ?confirm={notebook.name}.",
            [FieldError("confirm", "It is not the notebook's name.", notebook.name)],
        )
    if notebook.state == State.TERMINATING:
        return Deletion.REPEAT
    return Deletion.BEGIN


def what_would_be_lost(notebook: Notebook) -> str:
    """In words, for the caller."""
    if notebook.state in life.LAUNCHING:
        return f"The notebook {notebook.name} is being set up: its launch would be stopped and the machine removed."
    if notebook.state == State.FAILED:
        return f"The notebook {notebook.name} failed: what may be left of its machine would be removed."
    lost = (
        f"The machine of the notebook {notebook.name} and its disk of {notebook.volume_gib} GiB, with every file on "
        "it and all that was installed, would be lost for good."
    )
    if notebook.state in (State.STOPPING, State.STOPPED):
        return f"{lost} It is {notebook.state} now, and could be started again."
    return lost
