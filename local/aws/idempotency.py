"""ClientToken: the same token with the same parameters answers the same; with others it is an error.

moto ignores it (two instances for one token). AWS: at most 64 ASCII characters, `IdempotentParameterMismatch`.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

from moto.ec2.exceptions import EC2ClientError


class Tokens:
    """The tokens that were seen, by action. Calls with one token run one after the other."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: dict[tuple[str, str], tuple[str, Any]] = {}

    def once(self, action: str, response: Any, act: Callable[[], Any]) -> Any:
        """The result of `act`, done once for the request's ClientToken (always without one). Raises EC2ClientError."""
        parameters = dict(response._get_params())
        token = parameters.pop("ClientToken", None)
        if token is None:
            return act()
        if len(token) > 64 or not token.isascii():
            raise EC2ClientError(
                "InvalidParameterValue",
                f"Value ({token}) for parameter clientToken is invalid. Tokens must be at most 64 ASCII characters.",
            )
        fingerprint = json.dumps(parameters, sort_keys=True, default=str)
        with self._lock:
            known = self._seen.get((action, token))
            if known is None:
                known = self._seen[action, token] = (fingerprint, act())
            elif known[0] != fingerprint:
                raise EC2ClientError(
                    "IdempotentParameterMismatch",
                    "Arguments on this idempotent request are inconsistent with arguments used in previous request(s).",
                )
        return known[1]
