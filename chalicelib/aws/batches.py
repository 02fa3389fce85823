"""DynamoDB's calls for many rows: what it leaves undone under load is asked for again, a few times."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from chalicelib.aws.faults import code_of
from chalicelib.errors import Unavailable

READ_AT_ONCE, WRITTEN_AT_ONCE = 100, 25
_REFUSED = "ValidationException"
_ATTEMPTS = 6
_SECONDS = 0.1


def read(
    client: Any,
    table: str,
    key: str,
    values: Sequence[str],
    sleep: Callable[[float], None],
    *,
    at_once: int = READ_AT_ONCE,
) -> Iterator[Mapping[str, Any]]:
    """The rows of these keys as they stand now, in no order; a key without a row is left out.

    Args:
        at_once: how many rows one call asks for, all of which are in memory together.

    Raises:
        Unavailable: DynamoDB gave some of them at no try.
    """
    wanted = sorted(set(values))
    for first in range(0, len(wanted), at_once):
        request: dict[str, Any] = {
            table: {
                "Keys": [{key: {"S": value}} for value in wanted[first : first + at_once]],
                "ConsistentRead": True,
            }
        }
        for attempt in range(_ATTEMPTS):
            answer = client.batch_get_item(RequestItems=request)
            yield from answer["Responses"].get(table, [])
            request = answer.get("UnprocessedKeys") or {}
            # Not while the next one is read.
            del answer
            if not request:
                break
            sleep(_SECONDS * 2**attempt)
        else:
            raise Unavailable(f"DynamoDB did not read {table}.")


def write(client: Any, table: str, items: Sequence[Mapping[str, Any]], sleep: Callable[[float], None]) -> None:
    """Puts rows. DynamoDB refuses a batch for one of them: then each is put alone, and what it refuses is raised after
    all others were written.

    Raises:
        Unavailable: DynamoDB took some of them at no try.
    """
    refusal: Exception | None = None
    for first in range(0, len(items), WRITTEN_AT_ONCE):
        batch = items[first : first + WRITTEN_AT_ONCE]
        refused = _put(client, table, batch, sleep)
        if refused is not None and len(batch) > 1:
            alone = [_put(client, table, [item], sleep) for item in batch]
            refused = next((one for one in alone if one is not None), None)
        refusal = refusal or refused
    if refusal is not None:
        raise refusal


def _put(
    client: Any, table: str, items: Sequence[Mapping[str, Any]], sleep: Callable[[float], None]
) -> Exception | None:
    """Why DynamoDB refuses them, all of them for one; None when they are written."""
    request: dict[str, Any] = {table: [{"PutRequest": {"Item": item}} for item in items]}
    for attempt in range(_ATTEMPTS):
        try:
            request = client.batch_write_item(RequestItems=request).get("UnprocessedItems") or {}
        except client.exceptions.ClientError as error:
            if code_of(error) != _REFUSED:
                raise
            refusal: Exception = error
            return refusal
        if not request:
            return None
        sleep(_SECONDS * 2**attempt)
    raise Unavailable(f"DynamoDB did not write {table}.")
