"""States of an EC2 instance."""

from __future__ import annotations

from enum import StrEnum


class InstanceState(StrEnum):
    """As EC2 calls them."""

    PENDING = "pending"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    SHUTTING_DOWN = "shutting-down"
    TERMINATED = "terminated"


UP = (InstanceState.PENDING, InstanceState.RUNNING)
"""While it costs by the hour, or is about to."""
OFF = (InstanceState.STOPPING, InstanceState.STOPPED)
"""When it is on its way off, or there."""
GONE = (InstanceState.SHUTTING_DOWN, InstanceState.TERMINATED)
"""When it does not come back."""
ALIVE = tuple(state for state in InstanceState if state not in GONE)
"""While there is something to remove."""
