"""The live view of a notebook that changes, as a function of what is known and of the moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import zip_longest

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from nod import steps, text
from nod.model import Notebook, Step
from nod.states import State, StepState

FANCY = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏✓✗·━─│"
"""The characters beyond ASCII; a terminal without them gets the plain form."""

_SPINNER = FANCY[:10]
_PLAIN_SPINNER = "|/-\\"
_MARKS: Mapping[str, tuple[str, str, str]] = {
    StepState.DONE: ("✓", "+", "green"),
    StepState.FAILED: ("✗", "!", "red"),
    StepState.CANCELLED: ("-", "-", "dim"),
    StepState.WAITING: ("·", ".", "dim"),
}
_HAPPENS: Mapping[str, str] = {
    State.STARTING: "The machine starts; then the notebook has to answer there.",
    State.STOPPING: "The machine shuts down. What is on its disk stays.",
    State.TERMINATING: "Machine and disk are removed.",
}
_STYLES: Mapping[str, str] = {
    State.READY: "green",
    State.FAILED: "red",
    State.STOPPED: "dim",
    State.TERMINATED: "dim",
}
_LANE = 37
_BAR = 18


@dataclass(frozen=True)
class Sight:
    """What there is to show: the notebook, when it was seen, and what is the matter with the connection."""

    notebook: Notebook
    began: float
    """When the clock in the view started (Clock.monotonic())."""
    seen: float
    """When the last answer came (Clock.monotonic())."""
    server_now: datetime
    """The server's time of day at that moment."""
    trouble: str | None = None
    launch: bool = True
    """The launch's steps belong to what is waited for; else they are past."""


def frame(sight: Sight, moment: float, width: int, *, fancy: bool) -> RenderableType:
    """The view at a moment.

    Args:
        sight: what is known.
        moment: on the clock of `Sight.seen`, in seconds.
        width: of the terminal, in columns; lanes stand side by side where they fit.
        fancy: the terminal can show the characters of `FANCY`.
    """
    notebook = sight.notebook
    now = sight.server_now + timedelta(seconds=moment - sight.seen)
    head = Text(notebook.title, style="bold", overflow="fold")
    if notebook.title != notebook.id:
        head.append(f"  {notebook.id}", style="not bold dim")
    head.append(f"  {notebook.state}", style="not bold " + state_style(notebook.state))
    head.append(f"  {text.clock(max(0.0, moment - sight.began))}", style="not bold cyan")
    lines: list[RenderableType] = [head]
    pen = _Pen(now, moment, fancy)
    if not sight.launch and notebook.moving:
        lines.append(pen.words(_HAPPENS.get(notebook.state, notebook.state)))
    for row in steps.rows(notebook.steps) if sight.launch else []:
        lanes = [pen.lane(lane) for lane in row]
        if len(lanes) > 1 and width > 2 * _LANE + 1:
            lines.append(pen.side_by_side(lanes))
        else:
            lines.extend(line for lane in lanes for line in lane)
    if sight.trouble:
        lines.append(Padding(Text(sight.trouble, style="yellow"), (0, 0, 0, 2)))
    return Group(*lines)


def state_style(state: str) -> str:
    """The colour of a notebook's state."""
    return _STYLES.get(state, "yellow")


class _Pen:
    """Draws steps at one moment."""

    def __init__(self, now: datetime, moment: float, fancy: bool) -> None:
        self._now = now
        self._fancy = fancy
        frames = _SPINNER if fancy else _PLAIN_SPINNER
        self._spinner = frames[int(moment * 10) % len(frames)]

    def lane(self, lane: tuple[Step, ...]) -> list[Text]:
        return [line for step in lane for line in self._step(step)]

    def words(self, happens: str) -> Text:
        line = Text("  ", no_wrap=True, overflow="ellipsis")
        return line.append(self._spinner, style="yellow").append(f" {happens}")

    def side_by_side(self, lanes: list[list[Text]]) -> Table:
        grid = Table.grid(padding=0)
        rule = "│" if self._fancy else "|"
        for _ in lanes:
            grid.add_column(width=_LANE, no_wrap=True, overflow="ellipsis")
            grid.add_column(width=1)
        for line in zip_longest(*lanes, fillvalue=Text()):
            cells = [cell for step in line for cell in (step, Text(rule, style="dim"))]
            grid.add_row(*cells[:-1])
        return grid

    def _step(self, step: Step) -> list[Text]:
        mark, style = self._mark(step.state)
        title = steps.title(step.name)
        spent = step.seconds(self._now)
        # A running step counts whole seconds: tenths would flicker.
        count = "" if spent is None else f"{int(spent)} s" if step.state == StepState.RUNNING else text.seconds(spent)
        line = Text("  ", no_wrap=True, overflow="ellipsis")
        line.append(mark, style=style).append(f" {title:<22}", style="dim" if step.state == StepState.WAITING else "")
        line.append(f"{count:>8}", style="cyan" if step.state == StepState.RUNNING else "dim")
        lines = [line]
        typical = steps.TYPICAL_SECONDS.get(step.name)
        if step.state == StepState.RUNNING and typical is not None and spent is not None:
            lines.append(self._bar(steps.estimated_share(spent, typical)))
        if step.detail and step.state in (StepState.RUNNING, StepState.FAILED):
            lines.append(Text(f"    {step.detail}", style="dim", no_wrap=True, overflow="ellipsis"))
        return lines

    def _mark(self, state: str) -> tuple[str, str]:
        if state == StepState.RUNNING:
            return self._spinner, "yellow"
        mark, plain, style = _MARKS.get(state, ("?", "?", "yellow"))
        return (mark if self._fancy else plain), style

    def _bar(self, share: float) -> Text:
        full, empty = ("━", "─") if self._fancy else ("#", "-")
        filled = int(share * _BAR)
        bar = Text("    ", no_wrap=True, overflow="ellipsis")
        bar.append(full * filled, style="yellow").append(empty * (_BAR - filled), style="dim")
        return bar.append(f" ~{int(share * 100)} % estimate", style="dim")
