"""The task `explain_failure` of the workflows."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from chalicelib import failures
from chalicelib.aws.faults import as_unavailable
from chalicelib.aws.heartbeats import Row
from chalicelib.aws.notebooks import NotebooksTable
from chalicelib.aws.users import UsersTable
from chalicelib.errors import Unavailable
from chalicelib.log import logger
from chalicelib.model import Failure
from chalicelib.plan import ladder
from chalicelib.prices import Catalogue


def explain(  # noqa: PLR0917 - each is another source
    event: Mapping[str, object],
    notebooks: Callable[[], NotebooksTable],
    users: Callable[[], UsersTable],
    prices: Catalogue,
    region: str,
    row: Callable[[str], Row | None] | None = None,
) -> Failure:
    """Code and message for the record and the owner; total over any input (docs/contracts.md). `row`: the heartbeat's
    of an instance's id.

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
    silent = execution.get("error") == "NotebookSilent" and row is not None
    server = _server(str(event.get("id")), notebooks, row) if silent and row is not None else None
    failure = failures.explain_start(execution, (), server)
    if failure.code != "no_capacity":
        return failure
    return failures.explain_start(execution, _others(str(event.get("id")), notebooks, users, prices, region))


def _server(notebook_id: str, notebooks: Callable[[], NotebooksTable], row: Callable[[str], Row | None]) -> str | None:
    """Why the server of a start that is given up does not answer, as its machine says. None where it does not say."""
    try:
        with as_unavailable("DynamoDB"):
            notebook = notebooks().get(notebook_id)
            found = row(notebook.instance_id) if notebook is not None and notebook.instance_id else None
    except Unavailable as error:
        logger.error("why the server is silent is not known", notebook=notebook_id, reason=error.detail)
        return None
    # What the boot before it said is no news.
    if found is None or found.heartbeat.boot_id in (None, found.boot_before_start):
        return None
    return found.heartbeat.server.code if found.heartbeat.answers is False else None


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
