"""POST /notebooks/{id}/stop, and the button of a page."""

from __future__ import annotations

from datetime import datetime, timedelta

from chalicelib import executions
from chalicelib.aws.notebooks import NotebooksTable
from chalicelib.aws.workflows import Workflows
from chalicelib.errors import FieldError, NotFound, Unavailable, WrongState
from chalicelib.executions import Execution
from chalicelib.model import Notebook, Stop
from chalicelib.notebook import life, moves
from chalicelib.notebook.life import State, Writer

ATTEMPTS = 4
"""How often a state may move between reading and writing."""
LOOK_AFTER = timedelta(minutes=15)
"""When the sweep looks whether a workflow came to its end: longer than any of them takes where all goes well."""


def stop(
    notebook: Notebook,
    by: str,
    reason: str,
    *,
    now: datetime,
    notebooks: NotebooksTable,
    workflows: Workflows,
    stop_arn: str,
) -> Notebook:
    """Begins to stop a notebook that is ready; its disk stays. The record as it is then.

    `by`: a user's id, or LINK; `reason`: who stopped it, in words.

    Raises:
        WrongState: it is not ready; nothing was done.
        NotFound: it is gone by now.
        Unavailable: the table did not answer.
    """
    for _ in range(ATTEMPTS):
        if notebook.state in life.LAUNCHING:
            raise _still_launching(notebook)
        if notebook.state != State.READY:
            raise wrong_state(notebook, State.READY, "stopped")
        begun = notebooks.move(moves.stop(notebook, Stop("asked", reason, by), Writer.API, now, now + LOOK_AFTER))
        if isinstance(begun, Notebook):
            execution = executions.stop(begun, call=True)
            start_or_leave(begun, stop_arn, execution, now=now, notebooks=notebooks, workflows=workflows)
            return begun
        notebook = read_again(notebook, notebooks)
    raise Unavailable("The notebook's state keeps changing. Try again.")


def finish_stop(notebook: Notebook, *, workflows: Workflows, stop_arn: str) -> bool:
    """Starts the workflow `stop` for an instance that is off, or on its way to be: it calls no StopInstances.

    False if an execution of that number is there. Raises Unavailable.
    """
    execution = executions.stop(notebook, call=False)
    return workflows.start(stop_arn, execution.name, execution.input)


def start_or_leave(
    notebook: Notebook,
    arn: str,
    execution: Execution,
    *,
    now: datetime,
    notebooks: NotebooksTable,
    workflows: Workflows,
) -> None:
    """Starts the workflow of a state that is written already. Where Step Functions does not answer, the state stays as
    it is and the next sweep goes on from there: whether an execution began is not to be known now."""
    try:
        workflows.start(arn, execution.name, execution.input)
    except Unavailable:
        notebooks.look_soon(notebook, now)


def read_again(notebook: Notebook, notebooks: NotebooksTable) -> Notebook:
    """The record as it is now. Raises NotFound."""
    known = notebooks.get(notebook.id)
    if known is None:
        raise NotFound(f"There is no notebook {notebook.id!r} any more.")
    return known


def wrong_state(notebook: Notebook, wanted: str, done: str) -> WrongState:
    """The refusal of what this state does not allow."""
    return WrongState(
        f"The notebook {notebook.name} is {notebook.state}. It can be {done} only while it is {wanted}.",
        [FieldError("state", f"It is {notebook.state}.", wanted)],
    )


def _still_launching(notebook: Notebook) -> WrongState:
    return WrongState(
        f"The notebook {notebook.name} is still being set up, so there is nothing to stop yet. Nothing changed. To "
        f"cancel the launch and remove its machine, delete the notebook: `nod cancel {notebook.id}`, or "
        f"DELETE /notebooks/{notebook.id}?confirm={notebook.name}.",
        [FieldError("state", f"It is {notebook.state}.", State.READY)],
    )
