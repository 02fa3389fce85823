"""Systems Manager: the document that looks after a monitor which says nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from chalicelib.aws.faults import code_of

_AT_ONCE = 50
_DENIED = "AccessDeniedException"


class Probes:
    """Takes a Systems Manager client, and the stage, which is in the document's name."""

    def __init__(self, client: Any, stage: str) -> None:
        self._client = client
        self._document = f"nod-{stage}-probe-monitor"

    def send(self, ids: Sequence[str]) -> set[str]:
        """Sends the probe, and waits for nothing. Those that Systems Manager cannot reach."""
        unreachable: set[str] = set()
        for first in range(0, len(ids), _AT_ONCE):
            part = list(ids[first : first + _AT_ONCE])
            if not self._send(part):
                # One that is not online refuses the whole call.
                unreachable |= {one for one in part if len(part) == 1 or not self._send([one])}
        return unreachable

    def _send(self, ids: list[str]) -> bool:
        try:
            self._client.send_command(DocumentName=self._document, InstanceIds=ids)
        except self._client.exceptions.ClientError as error:
            # Its tag was removed: then the policy says no, to the whole call too.
            if isinstance(error, self._client.exceptions.InvalidInstanceId) or code_of(error) == _DENIED:
                return False
            raise
        return True
