"""What requests and messages to kernels tell of the notebook's owner: did a person act, does somebody look.

Knows neither Jupyter nor the clock: what was seen is handed in, times are seconds of CLOCK_BOOTTIME. A person acts
by opening pages, running and completing code, answering input(), making, renaming and deleting things, writing, and
moving widgets. What pages do by themselves is no act: they poll, reconnect, save outputs, and echo widgets. A widget
that plays moves without anybody, so that counts only while a page is visible.

JupyterLab stops its polls while its window is hidden (Lumino's Poll, standby "when-hidden"; at most one follows),
so a poll that a browser sent means that somebody may be looking. A program that polls is no browser.
"""

from collections import Counter
from collections.abc import Iterable, Mapping

# Polled every 10 seconds, directories too.
POLLED = ("/api/kernels", "/api/sessions", "/api/terminals", "/api/contents")
VISIBLE_SECONDS = 30.0
ACTED_ON = ("/api/contents", "/api/sessions", "/api/kernels", "/api/terminals")
ACTS = ("POST", "PATCH", "DELETE")
# What a kernel is asked because somebody pressed a key.
TYPED = ("execute_request", "complete_request", "inspect_request", "history_request", "is_complete_request")
# A page answers a widget's news within this time without anybody's doing.
ECHO_SECONDS = 2.0
MOST_CLIENTS = 256


class Visits:
    """What is remembered of visits."""

    def __init__(self) -> None:
        self.input_at = 0.0
        self._polled: dict[str, float] = {}
        self._sockets: Counter[str] = Counter()
        self._spoke: dict[str, float] = {}

    def request(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        *,
        status: int,
        client: str,
        now: float,
        wrote: bool = False,
    ) -> None:
        """An answered request of somebody who is logged in; `client` tells browsers apart.

        `wrote`: it saved what a person writes (saves.py). That counts from a page: programs save too. It was written
        also when the server could not save it (a full disk).
        """
        if wrote and is_of_page(headers) and not 400 <= status < 500:
            self.input_at = max(self.input_at, now)
        if status >= 400:
            return
        if is_act(method, path, headers):
            self.input_at = max(self.input_at, now)
        if method == "GET" and status != 101 and _below(path, POLLED) and is_of_page(headers):
            self._polled.pop(client, None)
            self._polled[client] = now
            while len(self._polled) > MOST_CLIENTS:
                del self._polled[next(iter(self._polled))]

    def opened(self, client: str) -> None:
        """A websocket was opened."""
        self._sockets[client] += 1

    def closed(self, client: str) -> None:
        """A websocket was closed."""
        self._sockets[client] -= 1
        if self._sockets[client] <= 0:
            del self._sockets[client]

    def to_kernel(self, kernel: str, kind: str, silent: bool, now: float) -> None:
        """A message of type `kind` from a page to a kernel."""
        if kind == "comm_msg":
            if now - self._spoke.get(kernel, -ECHO_SECONDS) >= ECHO_SECONDS and self.browsers(now)[0] > 0:
                self.input_at = max(self.input_at, now)
        elif kind == "input_reply" or (kind in TYPED and not silent):
            self.input_at = max(self.input_at, now)

    def spoke(self, kernel: str, now: float) -> None:
        """A kernel had news of a widget for the pages."""
        self._spoke[kernel] = now

    def keep(self, kernels: Iterable[str]) -> None:
        """Forgets kernels that are no more."""
        living = set(kernels)
        self._spoke = {kernel: at for kernel, at in self._spoke.items() if kernel in living}

    def browsers(self, now: float) -> tuple[int, int]:
        """Browsers with a visible page, and those whose pages are all hidden."""
        self._polled = {client: at for client, at in self._polled.items() if now - at < VISIBLE_SECONDS}
        return len(self._polled), sum(1 for client in self._sockets if client not in self._polled)


def is_act(method: str, path: str, headers: Mapping[str, str]) -> bool:
    """Whether a person caused the request."""
    if method in ACTS:
        return _below(path, ACTED_ON) or path == "/login"
    if method != "GET" or path.startswith(("/api/", "/static/")):
        return False
    mode = headers.get("Sec-Fetch-Mode")
    if mode is not None:
        return mode == "navigate"
    # Browsers that do not say so ask for a page by its kind.
    return headers.get("Accept", "").startswith("text/html")


def is_of_page(headers: Mapping[str, str]) -> bool:
    """Whether a page of this very server sent it, in a browser."""
    site = headers.get("Sec-Fetch-Site")
    if site is not None:
        return site == "same-origin"
    host = headers.get("Host", "")
    return bool(host) and headers.get("Referer", "").startswith(f"https://{host}/")


def _below(path: str, places: tuple[str, ...]) -> bool:
    return any(path == place or path.startswith(f"{place}/") for place in places)
