"""Progress of the long steps of `make demo`: bars on a terminal, plain lines elsewhere; each step with its seconds."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn


class Steps:
    """Shows steps, also several at once. Writes to stderr, so that stdout is the client's."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._progress: Progress | None = None
        if sys.stderr.isatty():
            self._progress = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(bar_width=20),
                TimeElapsedColumn(),
                console=self._console,
                transient=True,
            )
        self._lock = threading.Lock()

    def __enter__(self) -> Steps:
        if self._progress:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress:
            self._progress.stop()

    def say(self, text: str) -> None:
        """One line."""
        with self._lock:
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def step(self, name: str) -> Iterator[Callable[[str], None]]:
        """A step while it runs; what it yields takes news of the step."""
        began = time.monotonic()
        bar = self._progress.add_task(name, total=None) if self._progress else None
        if self._progress is None:
            self.say(f"{name} …")

        def news(text: str) -> None:
            if self._progress is not None and bar is not None:
                self._progress.update(bar, description=f"{name}: {text}"[:100])
            else:
                self.say(f"  {name}: {text}")

        try:
            yield news
        finally:
            if self._progress is not None and bar is not None:
                self._progress.remove_task(bar)
        self.say(f"{name}: {time.monotonic() - began:.1f} s")
