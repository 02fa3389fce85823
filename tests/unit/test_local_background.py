"""Threads and timers that end together; changes that are taken back."""

import threading
import time

from local.background import Background
from local.patches import Patches


def test_work_runs_at_once_and_later_in_order_of_its_time() -> None:
    background = Background()
    done: list[str] = []
    over = threading.Event()
    background.later(1.5, lambda: (done.append("last"), over.set()))
    background.later(0.7, done.append, "second")
    background.submit(done.append, "first")
    assert over.wait(60)
    assert done == ["first", "second", "last"]
    assert background.close() == []


def test_closing_drops_what_waits_and_waits_for_what_runs() -> None:
    background = Background()
    done: list[str] = []
    begun = threading.Event()

    def work() -> None:
        begun.set()
        time.sleep(0.2)
        done.append("ran")

    background.later(60, done.append, "never")
    background.submit(work)
    assert begun.wait(5)
    began = time.monotonic()
    assert background.close() == []
    assert time.monotonic() - began < 20
    assert done == ["ran"]
    background.submit(done.append, "after")
    background.later(0, done.append, "after")
    time.sleep(0.05)
    assert done == ["ran"]


def test_work_that_does_not_end_is_named() -> None:
    background = Background()
    stop = threading.Event()
    background.submit(stop.wait, 10)
    assert background.close(timeout=0.1) == ["nod-wait"]
    stop.set()


def test_sleep_ends_when_the_background_closes() -> None:
    background = Background()
    assert background.sleep(0.01)
    threading.Timer(0.05, background.close).start()
    assert not background.sleep(10)


class Owner:
    kept = 1

    @staticmethod
    def fixed() -> str:
        return "before"


def test_patches_are_taken_back_last_first() -> None:
    patches = Patches()
    patches.set(Owner, "kept", 2)
    patches.set(Owner, "kept", 3)
    patches.set(Owner, "fixed", staticmethod(lambda: "after"))
    patches.set(Owner, "added", 4)
    assert (Owner.kept, Owner.fixed(), Owner.added) == (3, "after", 4)  # type: ignore[attr-defined]
    patches.undo()
    assert (Owner.kept, Owner.fixed()) == (1, "before")
    assert not hasattr(Owner, "added")
    assert isinstance(Owner.__dict__["fixed"], staticmethod)
