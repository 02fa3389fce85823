"""What `make smoke` looks at, and what it saw."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

QUESTIONS: Final[Mapping[str, str]] = {
    "stack": "CloudFormation took the template",
    "user": "a user and a token could be made, and the API takes the token",
    "request": "POST /notebooks without a body starts a launch",
    "launch": "every step of the launch came to its end",
    "fleet": "Step Functions sent CreateFleet as the plan has it, and EC2 made the machine",
    "agent": "how often SendCommand was refused before the agent was online, and in which words",
    "events": "events of EC2 and Systems Manager ended the waits, and not the looks behind them",
    "address": "the machine has a public address that answers from here",
    "certificate": "the notebook shows the certificate whose fingerprint the API told",
    "login": "the password of the answer opens the notebook",
    "cell": "a cell runs in a kernel",
    "system": "what system, Python and Jupyter the machine has",
    "packages": "a package of one's own can be installed (`pip install --user`)",
    "metadata": "the notebook's user does not reach the metadata service",
    "heartbeat": "the machine writes its heartbeat with its own rights",
    "link": "the link for life leads to the notebook's page",
    "stop": "stop switches the machine off and gives the quota back",
    "wake": "the button on the link's page wakes it, and what was on its disk is there",
    "delete": "delete removes machine and disk",
    "workflows": "no workflow ended with an error; the errors that were met and retried",
    "messages": "every message was published",
    "rights": "no function logged that AWS refused it something",
    "removed": "nothing is left: no machine, no disk, no user",
}
"""The rows in their order: a key, and what is to be seen."""


class Answer(StrEnum):
    """How a row came out."""

    YES = "yes"
    NO = "no"
    UNSEEN = "not seen"
    """It could not be looked at: the reader's rights or this place do not show it. That is no failure."""


@dataclass(frozen=True)
class Row:
    """One answer: what was seen, and the seconds it took (None: nothing was waited for)."""

    key: str
    answer: Answer
    seen: str
    seconds: float | None = None

    def line(self) -> str:
        """For a terminal."""
        mark = {Answer.YES: "ok", Answer.NO: "NO", Answer.UNSEEN: "--"}[self.answer]
        spent = "" if self.seconds is None or self.seconds < 1 else f" ({self.seconds:.0f} s)"
        return f"{mark}  {self.key:<12} {self.seen}{spent}"
