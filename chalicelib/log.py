"""The one logger: JSON lines. They carry ids, states and reasons, never a secret.

Every line has `notebook` and `execution`: the notebook it is about and the name of the workflow's execution it belongs
to, or null. They are kept by context, not by logger: on the local cloud the functions are threads of one process.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from typing import Any, TypeVar

from aws_lambda_powertools.logging import Logger

from chalicelib.errors import CommandFailed, CommandPending, InstancePending

KEYS = ("notebook", "execution")
"""What every line has."""

_Given = TypeVar("_Given")
_Made = TypeVar("_Made")


def _line(entry: dict[str, Any]) -> str:
    # Powertools leaves out what is None.
    whole = {**entry, **{key: entry.get(key) for key in KEYS}}
    return json.dumps(whole, default=str, separators=(",", ":"), ensure_ascii=False)


logger = Logger(service="nod", json_serializer=_line)


@contextmanager
def about(notebook: str | None, execution: str | None = None) -> Iterator[None]:
    """Inside, lines are about these and no others; after it, about what they were before."""
    before = logger.thread_safe_get_current_keys()
    logger.thread_safe_append_keys(notebook=notebook, execution=execution)
    try:
        yield
    finally:
        logger.thread_safe_clear_keys()
        logger.thread_safe_append_keys(**before)


def note(*, notebook: str | None = None, execution: str | None = None) -> None:
    """What came to be known: lines from here on are about it, to the end of the innermost `about`."""
    found = {"notebook": notebook, "execution": execution}
    logger.thread_safe_append_keys(**{key: value for key, value in found.items() if value is not None})


@contextmanager
def invocation(context: Any, notebook: str | None = None, execution: str | None = None) -> Iterator[None]:
    """One invocation of a function, with Lambda's context if there is one. What it raises is a line, and goes on."""
    with about(notebook, execution):
        if context is not None:
            logger.thread_safe_append_keys(function_request_id=context.aws_request_id)
        try:
            yield
        except (CommandPending, CommandFailed, InstancePending) as error:
            # An answer, which the workflow or Lambda's retry goes on from: nothing is wrong with the function.
            logger.info("answered by an error", code=error.code, reason=error.detail)
            raise
        except Exception as error:
            # Lambda's own line is plain text, which no query finds by notebook.
            logger.exception("function failed", code=getattr(error, "code", None))
            raise


def carried(work: Callable[[_Given], _Made]) -> Callable[[_Given], _Made]:
    """`work` for other threads, which begin without the context of this one and its keys."""
    here = copy_context()
    # A context can be entered by one thread at a time.
    return lambda given: here.copy().run(work, given)
