"""POST /notebooks/{id}/password."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from chalicelib import passwords
from chalicelib.actions.stopping import ATTEMPTS, read_again, wrong_state
from chalicelib.aws.notebooks import NotebooksTable
from chalicelib.aws.workflows import Workflows
from chalicelib.errors import Unavailable
from chalicelib.model import Notebook, PasswordRequest

_MADE = (
    "Keep the password: it is shown this once, and only its hash is kept. It is being set; until that is done, in "
    "about a minute, the old one holds. If it cannot be set you get a message, and the old one stays."
)
_CHOSEN = (
    "Your password is being set; until that is done, in about a minute, the old one holds. If it cannot be set you "
    "get a message, and the old one stays."
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
        Unavailable: it was not begun, as far as is known; the caller may repeat it.
    """
    request = PasswordRequest.from_json(document)
    for _ in range(ATTEMPTS):
        if notebook.state != "ready" or notebook.instance_id is None:
            raise wrong_state(notebook, "ready", "given a password")
        counted = notebooks.count_password(notebook, now)
        if counted is None:
            notebook = read_again(notebook, notebooks)
            continue
        made = passwords.generate() if request.password is None and request.password_hash is None else None
        workflows.start(
            password_arn,
            f"{counted.id}-password-{counted.passwords}",
            {
                "id": counted.id,
                "owner": counted.owner,
                "name": counted.name,
                "instance_id": counted.instance_id,
                "password_hash": request.password_hash or passwords.hashed(made or request.password or ""),
            },
        )
        return Reset(counted, made, _MADE if made else _CHOSEN)
    raise Unavailable("The notebook's state keeps changing. Try again.")
