"""Which requests a kernel is at work on, and whether all that it does is wait in input().

Jupyter Server keeps one word for a kernel and takes it from whatever status comes. A kernel with subshells handles
requests side by side: JupyterLab has one for the messages of widgets, and consoles may have one each. After what was
short there it says `idle`, and the server believes that of the cell that runs for hours. So each request is remembered
from its `busy` to its own `idle`.

A shell takes one request after the other: the next one says that the one before has ended, should its `idle` be lost.
Not so messages to widgets, which ipykernel may hand to another shell than the one that they name: apart from the
others, they follow each other only. A kernel that starts anew has ended them all, also in the server's book: when a
kernel dies, that says `busy` until the next cell has run.

A kernel that stands at a breakpoint says so by a debug_event, and debugpy stops all of its threads: nothing goes on in
it until somebody continues.

Knows neither Jupyter nor the clock: what was seen is handed in, times are seconds of CLOCK_BOOTTIME.
"""

import json
from collections import deque
from collections.abc import Iterable
from typing import Any, NamedTuple

CELL = "execute_request"
WIDGETS = ("comm_open", "comm_msg")
# A page sends such messages by itself, too (a looping animation): they are work when they take as long as work does.
BRIEF_SECONDS = 2.0
# Of one kernel at once. Whoever runs more is taken as busy until the kernel starts anew: what became of the rest is
# unknown, which is not idle.
MOST = 64
LONGEST_ID = 200
# Of a kernel that has started: its own word, and that of its socket to a server that was connected before.
STARTS = ("starting", "iopub_welcome")
# A breakpoint, a step's end or an exception; and what ends that. Said beside the cell, by the debugger.
STOPS, GOES_ON = "debug_stopped", ("debug_continued", "debug_terminated", "debug_exited")
# Parts of a message as ZeroMQ carries it, after the identities: signature, header, parent, metadata, content.
HEADER, PARENT, CONTENT = 1, 2, 4

# In the headers of what is parsed.
MARKS = (b'"status"', b'"comm_', b'"input_request"', b'"iopub_welcome"', b'"debug_event"')

# Where a request is handled: its shell, and whether it is a message to a widget. No request has the place None.
Place = tuple[str, bool] | None


class Request(NamedTuple):
    """What a kernel was asked: the type and the id of the message, and the subshell (empty: the main one)."""

    kind: str
    id: str
    shell: str = ""


class News(NamedTuple):
    """A message of a kernel: its type, or what a `status` says; `asked`: by which request."""

    kind: str
    asked: Request


class Work:
    """A request that was seen to begin, or to ask for input."""

    def __init__(self, asked: Request, since: float) -> None:
        self.id = asked.id
        self.is_cell = asked.kind not in WIDGETS
        self.since = since
        self.began = False
        self.waits = False


class Kernel:
    """What one is at work on, by place, and the cells that ended last."""

    def __init__(self) -> None:
        self.work: dict[Place, Work] = {}
        #: Whether it has said anything that the server's word can be of.
        self.heard = False
        #: Whether it stands at a breakpoint.
        self.stopped = False
        self.ended: deque[str] = deque(maxlen=MOST)

    def put(self, asked: Request, now: float) -> Work:
        """The work on a request, in the place of what was there before."""
        place: Place = _place(asked)
        if place not in self.work and len(self.work) >= MOST:
            place = None
        if place not in self.work or self.work[place].id != asked.id:
            self.work[place] = Work(asked, now)
        return self.work[place]

    def end(self, place: Place) -> None:
        """The work there is done."""
        done = self.work.pop(place)
        if done.is_cell:
            self.ended.append(done.id)
            self.stopped = False

    def end_all(self) -> None:
        """What ran has ended with its process."""
        for place in list(self.work):
            self.end(place)
        self.heard = self.stopped = False


def read(parts: list[bytes]) -> News | None:
    """What a message tells; None: output, which there is most of, and which is not parsed."""
    header = bytes(parts[HEADER])
    if not any(kind in header for kind in MARKS):
        return None
    kind = str(json.loads(header)["msg_type"])
    parent = json.loads(parts[PARENT])
    asked = Request(*(str(parent.get(name) or "")[:LONGEST_ID] for name in ("msg_type", "msg_id", "subshell_id")))
    if kind == "status":
        kind = str(json.loads(parts[CONTENT])["execution_state"])
    elif kind == "debug_event":
        kind = _debugged(json.loads(parts[CONTENT]))
    return News(kind, asked)


def _debugged(event: dict[str, Any]) -> str:
    """What a debugger's event tells of the kernel. One that stops a single thread stops no kernel."""
    body = event.get("body")
    one = event.get("event") == "stopped" and isinstance(body, dict) and body.get("allThreadsStopped") is False
    return "debug_event" if one else f"debug_{event.get('event')}"


class Cells:
    """What is remembered of kernels whose every status is seen."""

    def __init__(self) -> None:
        self._kernels: dict[str, Kernel] = {}

    def watch(self, kernel: str) -> None:
        """Every status of this kernel is seen from now on, and it has begun nothing yet."""
        self._kernels[kernel] = Kernel()

    def started(self, kernel: str) -> None:
        """Its process is another now."""
        if kernel in self._kernels:
            self._kernels[kernel].end_all()

    def take(self, kernel: str, news: News, now: float) -> None:
        """A message of a kernel."""
        its = self._kernels.get(kernel)
        if its is None:
            return
        place, asked = _place(news.asked), news.asked
        if news.kind in STARTS:
            its.end_all()
        elif news.kind == "input_request":
            # That can be known before its beginning is, and after its end.
            if asked.id not in its.ended:
                its.put(asked, now).waits = True
        elif news.kind == STOPS:
            its.stopped = True
        elif news.kind in GOES_ON:
            its.stopped = False
        elif news.kind in ("busy", "idle") and asked.kind in ("", CELL, *WIDGETS):
            its.heard = True
            if news.kind == "busy" and asked.kind:
                its.put(asked, now).began = True
            elif place in its.work and its.work[place].id == asked.id:
                its.end(place)

    def answered(self, kernel: str) -> None:
        """Somebody has answered what a kernel asked for."""
        if kernel in self._kernels:
            for each in self._kernels[kernel].work.values():
                each.waits = False

    def resumed(self, kernel: str) -> None:
        """Somebody has told its debugger to go on."""
        if kernel in self._kernels:
            self._kernels[kernel].stopped = False

    def state(self, kernel: str, busy: bool, now: float) -> tuple[bool, bool]:
        """Whether it is at work, and whether it only waits for input; `busy` is the server's word.

        That word alone counts for a kernel that is not watched, and for requests that are not remembered here.
        """
        its = self._kernels.get(kernel)
        if its is None:
            return busy, False
        work, busy = its.work, busy and its.heard
        if not busy:
            # By now its beginning would have been seen: it had ended, and that was not seen either.
            for place in [place for place, each in work.items() if not each.began and now - each.since > 1]:
                del work[place]
        counts = [each for each in work.values() if each.is_cell or now - each.since >= BRIEF_SECONDS]
        if not counts:
            return busy and not work, False
        return True, its.stopped or all(each.waits for each in counts)

    def keep(self, kernels: Iterable[str]) -> None:
        """Forgets kernels that are no more."""
        living = set(kernels)
        self._kernels = {kernel: its for kernel, its in self._kernels.items() if kernel in living}


def _place(asked: Request) -> tuple[str, bool]:
    return asked.shell, asked.kind in WIDGETS
