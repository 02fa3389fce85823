"""Whether a wait ended well."""

from __future__ import annotations

from nod import steps
from nod.errors import OperationFailedError
from nod.model import Notebook
from nod.states import State, StepState


def check(notebook: Notebook, *, wanted: str | None) -> None:
    """Does nothing if the notebook rests in the state `wanted` (None: in any but `failed`).

    Raises:
        OperationFailedError: it does not; with the reason that the API gave. Its document is on stdout by then.
    """
    if notebook.state != State.FAILED and wanted in (None, notebook.state):
        return
    why = notebook.error_message or (
        notebook.stop.reason if notebook.state in (State.STOPPING, State.STOPPED) else None
    )
    reason = f": {why}" if why else "."
    code = f" ({notebook.error_code})" if notebook.error_code else ""
    failed = ", ".join(steps.title(step.name) for step in notebook.steps if step.state == StepState.FAILED)
    error = OperationFailedError(
        f"{notebook.title} is {notebook.state}{reason}{code}",
        hints=((f"It failed in: {failed}.",) if failed else ()) + (f"Details:  nod show {notebook.id}",),
        code=notebook.error_code,
    )
    error.told = True
    raise error
