"""The task `explain_failure` of the workflows."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from chalicelib import failures
from chalicelib.aws.faults import as_unavailable
from chalicelib.aws.notebooks import NotebooksTable
from chalicelib.aws.users import UsersTable
from chalicelib.errors import Unavailable
from chalicelib.log import logger
from chalicelib.model import Failure
from chalicelib.plan import ladder
from chalicelib.prices import Catalogue


def explain(
    event: Mapping[str, object],
    notebooks: Callable[[], NotebooksTable],
    users: Callable[[], UsersTable],
    prices: Catalogue,
    region: str,
) -> Failure:
    """Code and message for the record and the owner; total over any input (docs/contracts.md).

    The tables as functions: only a start that EC2 had no machine for needs them, to say what else there is.
    """
    given = event.get("execution")
    execution = given if isinstance(given, Mapping) else {}
    workflow = event.get("workflow")
    if workflow == "stop":
        return failures.explain_stop(execution)
    if workflow == "password":
        return failures.explain_password(execution)
    if workflow != "start":
        return failures.explain(execution)
    failure = failures.explain_start(execution, ())
    if failure.code != "no_capacity":
        return failure
    return failures.explain_start(execution, _others(str(event.get("id")), notebooks, users, prices, region))


def _others(
    notebook_id: str,
    notebooks: Callable[[], NotebooksTable],
    users: Callable[[], UsersTable],
    prices: Catalogue,
    region: str,
) -> tuple[str, ...]:
    """Types of the same size that the owner may have. None where the tables do not say: the reason is told without."""
    try:
        with as_unavailable("DynamoDB"):
            notebook = notebooks().get(notebook_id)
            owner = None if notebook is None else users().get(notebook.owner)
    except Unavailable as error:
        logger.error("no other types offered", notebook=notebook_id, reason=error.detail)
        return ()
    if notebook is None or owner is None or notebook.instance_type not in prices.types:
        return ()
    return ladder(notebook.instance_type, owner.allowed_types, prices, region)[1:]
