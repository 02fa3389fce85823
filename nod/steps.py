"""The launch's steps as a person reads them: titles, which run side by side, how long the long one takes."""

from __future__ import annotations

import math
from collections.abc import Sequence

from nod.model import Step

TITLES = {
    "create_instance": "Create Instance",
    "start_instance": "Start Instance",
    "prepare_instance": "Prepare Instance",
    "install_anaconda": "Install Anaconda",
    "configure_tls": "Configure TLS",
    "start_monitor": "Start Monitor",
    "configure_notebook": "Configure Notebook",
}

TYPICAL_SECONDS = {"install_anaconda": 180.0}
"""For the bar of a long step. An estimate that no run on AWS has confirmed, and shown as one."""

LANES = (("install_anaconda",), ("configure_tls", "start_monitor"))
"""Branches of the launch workflow that run at the same time (docs/contracts.md, Workflow → documents)."""


def title(name: str) -> str:
    """`install_anaconda` → `Install Anaconda`; a step that this version does not know is made readable."""
    return TITLES.get(name) or name.replace("_", " ").title()


def estimated_share(elapsed: float, typical: float) -> float:
    """How much of a step is done after `elapsed` seconds, from 0 to 0.99, if it takes `typical` seconds.

    Straight to 0.9, then ever slower: only the step's end makes it whole.
    """
    if elapsed <= typical:
        return max(0.0, 0.9 * elapsed / typical)
    return 0.9 + 0.09 * (1 - math.exp((typical - elapsed) / typical))


def rows(steps: Sequence[Step]) -> list[tuple[tuple[Step, ...], ...]]:
    """The steps in rows of lanes: one lane with one step, or the lanes of the branches side by side."""
    lanes = tuple(tuple(step for step in steps if step.name in lane) for lane in LANES)
    side_by_side = all(lanes)
    found: list[tuple[tuple[Step, ...], ...]] = []
    for step in steps:
        if not side_by_side or not any(step in lane for lane in lanes):
            found.append(((step,),))
        elif lanes not in found:
            found.append(lanes)
    return found
