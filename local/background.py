"""Threads and timers that end together.

Everything in the local cloud that happens "a moment later" (an instance that becomes running, an event on its way to
a function, a retry) runs here, so that closing the cloud leaves nothing behind.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

log = logging.getLogger("nod.local.background")


class Background:
    """Runs work in threads, at once or after a delay in seconds, until closed."""

    def __init__(self) -> None:
        self.closing = threading.Event()
        self._timers: list[tuple[float, int, Callable[[], Any]]] = []
        self._order = itertools.count()
        self._changed = threading.Condition()
        self._threads: set[threading.Thread] = set()
        self._clock = threading.Thread(target=self._run_timers, name="nod-timers", daemon=True)
        self._clock.start()

    def submit(self, work: Callable[..., Any], *arguments: Any) -> None:
        """Run `work` in a thread of its own. Nothing is started once the background closes."""

        def run() -> None:
            try:
                work(*arguments)
            except Exception:
                if not self.closing.is_set():
                    log.exception("background work failed: %s", getattr(work, "__qualname__", work))
            finally:
                with self._changed:
                    self._threads.discard(threading.current_thread())

        thread = threading.Thread(target=run, name=f"nod-{getattr(work, '__name__', 'work')}", daemon=True)
        with self._changed:
            if self.closing.is_set():
                return
            self._threads.add(thread)
            # Started under the lock, so that `close` never meets a thread it cannot join yet.
            thread.start()

    def later(self, seconds: float, work: Callable[..., Any], *arguments: Any) -> None:
        """Run `work` in `seconds` from now, unless the background closes before."""
        if seconds <= 0:
            self.submit(work, *arguments)
            return
        with self._changed:
            due = time.monotonic() + seconds
            heapq.heappush(self._timers, (due, next(self._order), lambda: self.submit(work, *arguments)))
            self._changed.notify()

    def sleep(self, seconds: float) -> bool:
        """Wait; false when the background closes meanwhile."""
        return not self.closing.wait(seconds)

    def _run_timers(self) -> None:
        while True:
            with self._changed:
                while not self.closing.is_set() and (not self._timers or self._timers[0][0] > time.monotonic()):
                    self._changed.wait(self._timers[0][0] - time.monotonic() if self._timers else None)
                if self.closing.is_set():
                    return
                _, _, start = heapq.heappop(self._timers)
            start()

    def close(self, timeout: float = 5.0) -> list[str]:
        """Drop what waits, give what runs `timeout` seconds to end; the names of threads that did not."""
        with self._changed:
            self.closing.set()
            self._timers.clear()
            self._changed.notify_all()
            threads = list(self._threads)
        deadline = time.monotonic() + timeout
        for thread in [self._clock, *threads]:
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))
        return [thread.name for thread in threads if thread.is_alive()]
