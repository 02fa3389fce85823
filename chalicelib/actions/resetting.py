"""POST /notebooks/{id}/password."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from chalicelib import executions, passwords
from chalicelib.actions.stopping import ATTEMPTS, read_again, wrong_state
from chalicelib.aws.faults import as_unavailable
from chalicelib.aws.notebooks import NotebooksTable
from chalicelib.aws.workflows import Workflows
from chalicelib.errors import Unavailable
from chalicelib.executions import Execution
from chalicelib.model import Notebook, PasswordRequest
from chalicelib.notebook.life import State

_KEEP = "Keep the password: it is shown this once, and only its hash is kept. "
_BEING_SET = (
    "It is being set; until that is done, in about a minute, the old one holds. If it cannot be set, you get a "
    "message. If you ask for another one meanwhile, the newest counts."
)
_PERHAPS = (
    "AWS did not answer, so it is not known whether it is being set. Try it in a few minutes; if it does not work "
    "then, the old one holds: ask for another."
)


@dataclass(frozen=True)
class Reset:
    """A password that is being set. `password`: the one that was made, this once; None if it was given."""

    notebook: Notebook
    password: str | None = field(repr=False)
    message: str


def reset(
    document: Mapping[str, object],
    notebook: Notebook,
    *,
    now: datetime,
    notebooks: NotebooksTable,
    workflows: Workflows,
    password_arn: str,
) -> Reset:
    """Begins to set the password that `document` holds, or one made here.

    Raises:
        InvalidFields, WrongState: nothing was done.
        NotFound: it is gone by now.
        Unavailable: nothing was begun, and the old password stays; the caller may repeat it.
    """
    request = PasswordRequest.from_json(document)
    for _ in range(ATTEMPTS):
        if notebook.state != State.READY or notebook.instance_id is None:
            raise wrong_state(notebook, State.READY, "given a password")
        counted = notebooks.count_password(notebook, now)
        if counted is None:
            notebook = read_again(notebook, notebooks)
            continue
        made = passwords.generate() if request.password is None and request.password_hash is None else None
        execution = executions.password(
            counted, request.password_hash or passwords.hashed(made or request.password or "")
        )
        begun = _begun(counted, password_arn, execution, notebooks=notebooks, workflows=workflows)
        return Reset(counted, made, (_KEEP if made else "") + (_BEING_SET if begun else _PERHAPS))
    raise Unavailable("The notebook's state keeps changing. Try again.")


def _begun(
    counted: Notebook, arn: str, execution: Execution, *, notebooks: NotebooksTable, workflows: Workflows
) -> bool:
    """Starts the workflow. False if nobody can tell whether it began.

    Where Step Functions does not answer and shows no execution, the change is withdrawn, which fails if the workflow
    has begun it: so whoever is told that nothing was begun is told the truth, and whoever is not has the password.

    Raises:
        Unavailable: it was not begun, and will not be.
    """
    try:
        workflows.start(arn, execution.name, execution.input)
    except Unavailable as error:
        if _is_there(arn, execution, workflows):
            return True
        try:
            with as_unavailable("DynamoDB"):
                withdrawn = notebooks.withdraw_password(counted)
        except Unavailable:
            return False
        if withdrawn:
            raise Unavailable(f"{error.detail} The password was not changed: the old one stays.") from error
    return True


def _is_there(arn: str, execution: Execution, workflows: Workflows) -> bool:
    """Whether Step Functions shows the execution: one so new it may not show yet."""
    try:
        return workflows.exists(arn, execution.name)
    except Unavailable:
        return False
