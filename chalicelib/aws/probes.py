"""Systems Manager: the document that looks after a monitor which says nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from chalicelib.aws.faults import code_of

AT_ONCE = 50
_DENIED = "AccessDeniedException"


class Probes:
    """Takes a Systems Manager client, and the stage, which is in the document's name."""

    def __init__(self, client: Any, stage: str) -> None:
        self._client = client
        self._document = f"nod-{stage}-probe-monitor"

    def send(self, ids: Sequence[str]) -> bool:
        """Sends the probe to AT_ONCE instances at the most, and waits for nothing. False, with nothing sent, if Systems
        Manager cannot reach all of them."""
        try:
            self._client.send_command(DocumentName=self._document, InstanceIds=list(ids))
        except self._client.exceptions.ClientError as error:
            # Its tag was removed: then the policy says no, to the whole call too.
            if isinstance(error, self._client.exceptions.InvalidInstanceId) or code_of(error) == _DENIED:
                return False
            raise
        return True
