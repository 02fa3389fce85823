"""Progress as it happens: a live view on a terminal, a line at each change elsewhere, or JSON lines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from nod import steps, text
from nod.clock import Clock
from nod.model import Step
from nod.output import Output, can_show
from nod.states import StepState
from nod.view import FANCY, Sight, frame


class Display(Protocol):
    """Something that shows a wait."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def show(self, sight: Sight, document: Mapping[str, object]) -> None:
        """A new answer."""

    def trouble(self, message: str) -> None:
        """The connection is lost; the wait goes on."""


class _Written:
    """What is written line by line has nothing to begin or to end."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None


class Lines(_Written):
    """One line at each change, for logs and pipes."""

    def __init__(self, output: Output, clock: Clock) -> None:
        self._output = output
        self._clock = clock
        self._began = clock.monotonic()
        self._state: str | None = None
        self._steps: dict[str, tuple[str, str | None]] = {}
        self._trouble: str | None = None

    def show(self, sight: Sight, document: Mapping[str, object]) -> None:  # noqa: ARG002
        if self._trouble:
            self._trouble = None
            self._line("Connected again")
        notebook = sight.notebook
        for step in notebook.steps if sight.launch else ():
            now = (step.state, step.detail)
            before = self._steps.get(step.name, ("waiting", None))
            self._steps[step.name] = now
            if now != before:
                self._line(_step_line(step, sight.server_now))
        if notebook.state != self._state:
            self._state = notebook.state
            self._line(f"{notebook.title}: {notebook.state}")

    def trouble(self, message: str) -> None:
        self._trouble = message
        self._line(message)

    def _line(self, line: str) -> None:
        elapsed = self._clock.monotonic() - self._began
        self._output.say(f"[{elapsed:5.0f} s] {line}")


class JsonLines(_Written):
    """The API's document on stdout, whenever it changed; trouble on stderr."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._last: Mapping[str, object] | None = None

    def show(self, sight: Sight, document: Mapping[str, object]) -> None:  # noqa: ARG002
        if document != self._last:
            self._last = document
            self._output.document(document)
            # Who follows a notebook through a pipe and has left waits for nothing any more.
            self._output.check()

    def trouble(self, message: str) -> None:
        self._output.say(message)


class Screen:
    """A view that is drawn again several times a second; its last frame stays."""

    def __init__(self, console: Console, clock: Clock) -> None:
        self._console = console
        self._clock = clock
        self._sight: Sight | None = None
        self._fancy = can_show(console, FANCY)
        self._live = Live(
            console=console,
            get_renderable=self._frame,
            refresh_per_second=8,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()

    def show(self, sight: Sight, document: Mapping[str, object]) -> None:  # noqa: ARG002
        # The drawing thread reads this attribute; what it refers to never changes.
        self._sight = sight

    def trouble(self, message: str) -> None:
        if self._sight:
            self._sight = replace(self._sight, trouble=message)

    def _frame(self) -> RenderableType:
        sight = self._sight
        if sight is None:
            return Text()
        return frame(sight, self._clock.monotonic(), self._console.width, fancy=self._fancy)


def choose(output: Output, clock: Clock) -> Display:
    """The live view if stderr is a terminal that can be drawn on, else lines."""
    console = output.progress
    if console.is_terminal and not console.is_dumb_terminal:
        return Screen(console, clock)
    return Lines(output, clock)


def _step_line(step: Step, now: datetime) -> str:
    spent = step.seconds(now)
    line = f"{steps.title(step.name)}: {step.state}"
    if step.state != StepState.RUNNING and spent is not None:
        line += f" ({text.seconds(spent)})"
    return f"{line}: {step.detail}" if step.detail else line
