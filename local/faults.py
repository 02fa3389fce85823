"""Faults by name: what can go wrong on AWS, switched on so that a test and a person see what the product does.

A fault may carry a subject after a colon (`command_fails:configure-tls`, `no_capacity:t3.medium`); without one it
concerns all. Names and meanings are those of docs/contracts.md.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping

MEANINGS: Mapping[str, str] = {
    "no_capacity": "EC2 has no capacity to launch or start (InsufficientInstanceCapacity); subject: a type or a zone",
    "vcpu_limit": "the account's vCPU limit is reached (VcpuLimitExceeded); subject: an instance type or a zone",
    "agent_never_online": "the SSM agent never registers",
    "agent_denied": "until an agent has registered, SendCommand to its machine is refused access (AccessDenied)",
    "command_denied": "SendCommand is refused access (AccessDeniedException); subject: a document",
    "command_fails": "a command ends with exit code 1 and no result line; subject: a document",
    "command_times_out": "a command reports TimedOut; subject: a document",
    "command_twice": "a command is delivered and run twice, at the same time; subject: a document",
    "event_lost": "EventBridge loses events of EC2 and SSM; subject: a source such as aws.states",
    "notification_fails": "mail and Slack refuse every message; subject: email or slack",
    "throttling": "AWS throttles the first try of each call, or every second call where none is repeated; "
    "subject: a service such as ec2",
    "answer_lost": "AWS does what is asked, and the connection breaks before the answer, at the first try of each "
    "call, or at every second call where none is repeated; subject: a service such as dynamodb, or one of its actions "
    "such as dynamodb:UpdateItem",
    "installer_checksum": "the installer that is served is not the one that was promised",
    "disk_full": "new machines have a disk that is too small",
    "instance_lost": "EC2 terminates an instance two seconds after it runs",
    "stop_fails": "EC2 refuses StopInstances (UnauthorizedOperation); subject: an instance id",
    "heartbeat_lost": "machines cannot write their heartbeat (InternalServerError); subject: an instance id",
    "table_unavailable": "DynamoDB fails at every call (InternalServerError); subject: a table",
    "sweep_dead": "the schedules `sweep` and `reconcile` are not run; subject: one of the two",
}


class UnknownFaultError(ValueError):
    """A name that is no fault."""


class Faults:
    """The faults that are on. Thread-safe."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._lock = threading.Lock()
        self._on: set[str] = set()
        for name in names:
            self.on(name)

    def on(self, name: str) -> None:
        """Switch a fault on. Raises UnknownFaultError."""
        with self._lock:
            self._on.add(_checked(name))

    def off(self, name: str) -> None:
        """Switch a fault off. Raises UnknownFaultError."""
        with self._lock:
            self._on.discard(_checked(name))

    def clear(self) -> None:
        """Switch all faults off."""
        with self._lock:
            self._on.clear()

    def active(self, name: str, *subjects: str) -> bool:
        """Whether the fault is on, for all or for one of these subjects."""
        with self._lock:
            return name in self._on or any(f"{name}:{subject}" in self._on for subject in subjects)

    def any(self, *names: str) -> bool:
        """Whether one of the faults is on, for all or for any subject."""
        with self._lock:
            return any(entry.partition(":")[0] in names for entry in self._on)

    def names(self) -> list[str]:
        """What is on, subjects included, sorted."""
        with self._lock:
            return sorted(self._on)

    def change(self, wanted: Mapping[str, bool]) -> None:
        """Switch several at once. Raises UnknownFaultError before anything is changed."""
        for name, value in wanted.items():
            _checked(name)
            if not isinstance(value, bool):
                raise UnknownFaultError(f"{name} is true or false, not {value!r}")
        for name, value in wanted.items():
            (self.on if value else self.off)(name)


def _checked(name: str) -> str:
    if name.partition(":")[0] not in MEANINGS:
        raise UnknownFaultError(f"no fault is called {name!r}; there are {', '.join(MEANINGS)}")
    return name
