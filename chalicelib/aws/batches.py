"""DynamoDB's calls for many rows: what it leaves undone under load is asked for again, a few times."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from chalicelib.errors import Unavailable

READ_AT_ONCE, WRITTEN_AT_ONCE = 100, 25
_ATTEMPTS = 6
_SECONDS = 0.1


def read(
    client: Any, table: str, key: str, values: Sequence[str], sleep: Callable[[float], None]
) -> Iterator[Mapping[str, Any]]:
    """The rows of these keys as they stand now, in no order; a key without a row is left out.

    Raises:
        Unavailable: DynamoDB gave some of them at no try.
    """
    wanted = sorted(set(values))
    for first in range(0, len(wanted), READ_AT_ONCE):
        request: dict[str, Any] = {
            table: {
                "Keys": [{key: {"S": value}} for value in wanted[first : first + READ_AT_ONCE]],
                "ConsistentRead": True,
            }
        }
        for attempt in range(_ATTEMPTS):
            answer = client.batch_get_item(RequestItems=request)
            yield from answer["Responses"].get(table, [])
            request = answer.get("UnprocessedKeys") or {}
            if not request:
                break
            sleep(_SECONDS * 2**attempt)
        else:
            raise Unavailable(f"DynamoDB did not read {table}.")


def write(client: Any, table: str, items: Sequence[Mapping[str, Any]], sleep: Callable[[float], None]) -> None:
    """Puts rows.

    Raises:
        Unavailable: DynamoDB took some of them at no try.
    """
    for first in range(0, len(items), WRITTEN_AT_ONCE):
        puts = [{"PutRequest": {"Item": item}} for item in items[first : first + WRITTEN_AT_ONCE]]
        request: dict[str, Any] = {table: puts}
        for attempt in range(_ATTEMPTS):
            request = client.batch_write_item(RequestItems=request).get("UnprocessedItems") or {}
            if not request:
                break
            sleep(_SECONDS * 2**attempt)
        else:
            raise Unavailable(f"DynamoDB did not write {table}.")
