"""Public addresses of instances: loopback addresses 127.0.0.20 to 127.0.0.254, each to one machine at a time."""

from __future__ import annotations

import socket
import threading
from collections import deque

from local.network import claim_of

PORT = 8888
"""What a machine answers on; an address where somebody else does already (another local cloud) is passed over."""


class Addresses:
    """The pool. An address that was given back is the last to be given again, as a public address on EC2 changes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._free = deque(f"127.0.0.{n}" for n in range(20, 255))

    def take(self) -> str | None:
        """An address, or None when all are in use."""
        with self._lock:
            for _ in range(len(self._free)):
                address = self._free.popleft()
                if _usable(address):
                    return address
                self._free.append(address)
            return None

    def any_left(self) -> bool:
        """Whether the next one to ask gets an address."""
        with self._lock:
            return any(_usable(address) for address in self._free)

    def give_back(self, address: str) -> None:
        """The machine that had it is gone."""
        with self._lock:
            if address not in self._free:
                self._free.append(address)


def _usable(address: str) -> bool:
    with socket.socket() as probe, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as claim:
        # As the machine's own door binds: what lingers of closed connections is no hindrance.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            claim.bind(claim_of(address))
            probe.bind((address, PORT))
        except OSError:
            return False
        return True
