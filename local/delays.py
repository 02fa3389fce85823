"""How long things take in the local cloud: fixed, so that figures compare."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Delays:
    """Seconds. The defaults are the stated ones of the local cloud; tests shorten them."""

    visible: float = 0.3
    """EC2 does not know its own new instance (`InvalidInstanceID.NotFound`)."""
    pending: float = 5.0
    """From CreateFleet, RunInstances or StartInstances until `running`."""
    agent: float = 10.0
    """From `running` (or a reboot's end) until the SSM agent is online, if the machine has booted by then."""
    stopping: float = 1.0
    """At least this long in `stopping` and `shutting-down`."""
    invocation: float = 0.2
    """GetCommandInvocation answers `InvocationDoesNotExist` after SendCommand."""
    retry: float = 1.0
    """Before the first retry of an asynchronous invocation, twice as long before the second (AWS: 1 and 2 minutes)."""
    delivery_retry: float = 0.5
    """Between the three attempts to deliver a mail or a notification (AWS: 20 s and more, over hours)."""
    workflow_second: float = 1.0
    """How long a second lasts in Wait states and between the tries of a Retry. Timeouts stay as they are: a shorter one
    would end what only takes its time on a busy machine."""
