"""Keeps count of the server's open websockets: the activity watch counts them, and a new password closes them.

All kinds (kernels, terminals, events) pass through one method of Tornado, which returns when the connection has ended.
"""

import weakref
from collections.abc import Callable
from typing import Any

from tornado.websocket import WebSocketHandler

# The code of a websocket that is closed because a rule says so (RFC 6455, 7.4.1).
POLICY_VIOLATION = 1008


class OpenSockets:
    """The open websockets of this process."""

    def __init__(self) -> None:
        self._handlers: weakref.WeakSet[Any] = weakref.WeakSet()
        self.on_open: Callable[[Any], None] = _nothing
        self.on_close: Callable[[Any], None] = _nothing

    def watch(self) -> None:
        """Knows of every websocket that is opened from now on."""
        get = WebSocketHandler.get
        sockets = self

        async def watched(handler: Any, *args: Any, **kwargs: Any) -> None:
            sockets._handlers.add(handler)
            sockets.on_open(handler)
            try:
                await get(handler, *args, **kwargs)
            finally:
                sockets._handlers.discard(handler)
                sockets.on_close(handler)

        WebSocketHandler.get = watched

    def close_all(self) -> None:
        """Closes them; their pages come back if they still may."""
        for handler in list(self._handlers):
            handler.close(POLICY_VIOLATION, "The password was changed.")


def _nothing(handler: Any) -> None:
    """Nobody wants to know."""


OPEN = OpenSockets()
