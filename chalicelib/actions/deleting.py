"""DELETE /notebooks/{id}."""

from __future__ import annotations

from datetime import datetime

from chalicelib import executions
from chalicelib.actions.reading import owned
from chalicelib.actions.stopping import LOOK_AFTER, start_or_leave
from chalicelib.aws.notebooks import NotebooksTable
from chalicelib.aws.workflows import Workflows
from chalicelib.deletion import Deletion, decide
from chalicelib.errors import Unavailable
from chalicelib.model import Notebook, User
from chalicelib.notebook import moves

# Each time the state moved between reading and writing; a launch moves it only twice.
_ATTEMPTS = 4


def delete(
    notebook_id: str,
    confirm: str | None,
    user: User,
    *,
    now: datetime,
    notebooks: NotebooksTable,
    workflows: Workflows,
    terminate_arn: str,
) -> Notebook:
    """Starts to remove a notebook; a second time changes nothing. The record as it is then.

    Raises:
        NotFound, ConfirmationNeeded, WrongState: nothing was done.
        Unavailable: the table did not answer. Asking again goes on from wherever it came to.
    """
    for _ in range(_ATTEMPTS):
        notebook = owned(notebook_id, user, notebooks)
        deletion = decide(notebook, confirm)
        if deletion is Deletion.DONE:
            return notebook
        if deletion is Deletion.BEGIN:
            move = moves.delete(notebook, user.id, f"{user.name} deleted it", now, now + LOOK_AFTER)
            begun = notebooks.move(move)
            if not isinstance(begun, Notebook):
                continue
            notebook = begun
        execution = executions.delete(notebook, user.id)
        start_or_leave(notebook, terminate_arn, execution, now=now, notebooks=notebooks, workflows=workflows)
        return notebook
    raise Unavailable("The notebook's state keeps changing. Try again.")
