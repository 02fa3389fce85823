"""The executions of a notebook's workflows: what each is called, and its input (docs/contracts.md).

Who asks and who mends call them alike, so that what was begun already is not begun twice.
"""

from __future__ import annotations

from dataclasses import dataclass

from chalicelib.model import Notebook
from chalicelib.notebook import life
from chalicelib.notebook.life import Writer
from chalicelib.settings import Settings
from chalicelib.tokens import is_notebook_id


@dataclass(frozen=True)
class Execution:
    """One to begin. An execution's name serves once in 90 days."""

    name: str
    input: dict[str, object]


def stop(notebook: Notebook, *, call: bool) -> Execution:
    """Of the stop that the record counts last. `call`: whether it is to call StopInstances."""
    return Execution(stop_name(notebook), {**_whose(notebook), "instance_id": notebook.instance_id or "", "call": call})


def stop_name(notebook: Notebook) -> str:
    """Of the stop that the record counts last."""
    return f"{notebook.id}-stop-{notebook.stops}"


def start(notebook: Notebook, settings: Settings) -> Execution:
    """Of the start that the record counts last."""
    instance_id = notebook.instance_id or ""
    places = {"instance_id": instance_id, "instance_arn": settings.instance_arn(instance_id)}
    return Execution(start_name(notebook), {**_whose(notebook), **places})


def start_name(notebook: Notebook) -> str:
    """Of the start that the record counts last."""
    return f"{notebook.id}-start-{notebook.starts}"


def password(notebook: Notebook, password_hash: str) -> Execution:
    """Of the change of the password that the record counts last. `number`, as text: the newest change counts."""
    places = {"instance_id": notebook.instance_id or "", "number": str(notebook.passwords)}
    name = f"{notebook.id}-password-{notebook.passwords}"
    return Execution(name, {**_whose(notebook), **places, "password_hash": password_hash})


def delete(notebook: Notebook, requested_by: str) -> Execution:
    """Of the delete that the record counts last."""
    return Execution(delete_name(notebook), {**_whose(notebook), "requested_by": requested_by})


def delete_name(notebook: Notebook) -> str:
    """`ID-delete`; `ID-delete-N` when one that failed is asked for the Nth time."""
    return f"{notebook.id}-delete" if notebook.deletes <= 1 else f"{notebook.id}-delete-{notebook.deletes}"


def current_name(notebook: Notebook) -> str | None:
    """Of the execution that the record's state waits for; None where it waits for none."""
    match life.WORKFLOWS.get(notebook.state):
        case Writer.LAUNCH:
            return notebook.id
        case Writer.STOP:
            return stop_name(notebook)
        case Writer.START:
            return start_name(notebook)
        case Writer.TERMINATE:
            return delete_name(notebook)
        case _:
            return None


def notebook_of(name: str) -> str | None:
    """The notebook whose execution has this name, a launch's too, which is the id; None for a name of another form."""
    notebook_id = "-".join(name.split("-")[:2])
    return notebook_id if is_notebook_id(notebook_id) else None


def _whose(notebook: Notebook) -> dict[str, object]:
    return {"id": notebook.id, "owner": notebook.owner, "name": notebook.name}
