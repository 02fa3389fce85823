"""What requests and messages tell of the notebook's owner: did a person act, does somebody look.

Knows neither Jupyter nor the clock: what was seen is handed in, times are seconds of CLOCK_BOOTTIME. A person acts
by opening pages, running and completing code, answering input(), making, renaming and deleting things, writing, moving
widgets, and using whatever else the server serves: an app behind jupyter-server-proxy, an extension, a file's page.
What pages do by themselves is no act: they poll, reconnect, save outputs, and echo widgets. A widget that plays moves
without anybody, so that counts only while a page is visible.

Of Jupyter's own requests it is known which of them a page sends by itself. Of all others a browser marks some as a
person's (SURE), most cannot be a person's (NEVER), and the rest is told by its rhythm (MAYBE; rhythm.py).

JupyterLab stops its polls while its window is hidden (Lumino's Poll, standby "when-hidden"; at most one follows),
so a poll that a browser sent means that somebody may be looking. A program that polls is no browser.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple
from urllib.parse import parse_qs

if __package__:
    from .rhythm import Content, Talk, Traffic
else:
    # On the machine the files of this folder lie side by side and are no package.
    from rhythm import Content, Talk, Traffic  # type: ignore[import-not-found,no-redef]

# Polled every 10 seconds, directories too.
POLLED = ("/api/kernels", "/api/sessions", "/api/terminals", "/api/contents")
VISIBLE_SECONDS = 30.0
ACTED_ON = ("/api/contents", "/api/sessions", "/api/kernels", "/api/terminals")
ACTS = ("POST", "PATCH", "DELETE")
WRITES = ("POST", "PUT", "PATCH", "DELETE")
# Jupyter's own, of which it is known what a person does. Extensions have names of their own beside them.
JUPYTERS = (
    "/api/contents", "/api/sessions", "/api/kernels", "/api/terminals", "/api/kernelspecs", "/api/events",
    "/api/status", "/api/me", "/api/config", "/api/nbconvert", "/api/resolvePath", "/api/security", "/api/shutdown",
    "/api/spec.yaml", "/kernelspecs", "/lab/api", "/lab/extensions", "/login", "/logout",
)  # fmt: skip
STATIC = ("/static", "/lab/static", "/nbextensions", "/favicon.ico", "/metrics")
# Their messages are seen elsewhere: in the kernel's connection, by the terminal, or are the page's own.
SOCKETS = ("/api/kernels", "/terminals/websocket", "/api/events")
# What a page is made of. Pictures and films are left out: a person may ask for them one by one.
PARTS = (
    "script", "style", "font", "manifest", "worker", "serviceworker", "sharedworker", "audioworklet", "paintworklet",
    "report", "xslt", "track",
)  # fmt: skip
FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")
SURE, MAYBE, NEVER = "sure", "maybe", "never"
# What a kernel is asked because somebody pressed a key.
TYPED = (
    "execute_request", "complete_request", "inspect_request", "history_request", "is_complete_request", "debug_step",
)  # fmt: skip
# A page answers a widget's news within this time without anybody's doing.
ECHO_SECONDS = 2.0
MOST_CLIENTS = 256


class Asked(NamedTuple):
    """A request, from when it `began` until it was answered (`now`)."""

    client: str
    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes
    began: float
    now: float


class Visits:
    """What is remembered of visits."""

    def __init__(self) -> None:
        self.input_at = 0.0
        self._polled: dict[str, float] = {}
        self._sockets: Counter[str] = Counter()
        self._spoke: dict[str, float] = {}
        self._traffic = Traffic()

    def request(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        *,
        status: int,
        client: str,
        now: float,
        began: float | None = None,
        query: str = "",
        body: bytes = b"",
        wrote: bool = False,
    ) -> None:
        """An answered request of somebody who is logged in; `client` tells browsers apart.

        `began`: when it came, if not `now`. `wrote`: it saved what a person writes (saves.py). That counts from a page:
        programs save too. It was written also when the server could not save it (a full disk).
        """
        if wrote and is_of_page(headers) and not 400 <= status < 500:
            self.input_at = max(self.input_at, now)
        asked = Asked(client, method, path, query, headers, body, now if began is None else began, now)
        if not _below(path, JUPYTERS):
            self._elsewhere(asked, status)
            return
        if status >= 400:
            return
        opens = is_opened(method, path, query, headers)
        if is_act(method, path, headers) or (opens and self._is_uneven(asked)):
            self.input_at = max(self.input_at, now)
        if method == "GET" and status != 101 and _below(path, POLLED) and is_of_page(headers):
            self._polled.pop(client, None)
            self._polled[client] = now
            while len(self._polled) > MOST_CLIENTS:
                del self._polled[next(iter(self._polled))]

    def _elsewhere(self, asked: Asked, status: int) -> None:
        """A request to a page, an app or an extension. What an app answers is its own business: a form that it refuses
        was sent all the same. Only not what the server itself refused, and not what a page asks again and again of an
        app that has ended."""
        sign = sign_of(asked.method, asked.path, asked.headers)
        if status in (101, 401, 403) or sign == NEVER or (sign == MAYBE and status >= 500):
            return
        # Also what is sure is remembered: the rhythm of the rest is seen by it.
        if self._is_uneven(asked) or sign == SURE:
            self.input_at = max(self.input_at, asked.now)

    def _is_uneven(self, asked: Asked) -> bool:
        content = Content.of(asked.body)
        return self._traffic.request(asked.client, asked.method, asked.path, content, begin=asked.began, end=asked.now)

    def goes_on(self, method: str, path: str, headers: Mapping[str, str], now: float) -> None:
        """A request that is still being answered: a large file that somebody fetches, a form that takes its time."""
        if not _below(path, JUPYTERS) and sign_of(method, path, headers) == SURE:
            self.input_at = max(self.input_at, now)

    def talked(self, talk: Talk) -> None:
        """Looks at what was sent over a websocket since this was called last."""
        self.input_at = max(self.input_at, talk.judge(self._traffic))

    def opened(self, client: str) -> None:
        """A websocket was opened."""
        self._sockets[client] += 1

    def closed(self, client: str) -> None:
        """A websocket was closed."""
        self._sockets[client] -= 1
        if self._sockets[client] <= 0:
            del self._sockets[client]

    def to_kernel(self, kernel: str, kind: str, silent: bool, now: float, sent: bytes | None = None) -> None:
        """A message of type `kind` from a page to a kernel. `sent`: what it holds, of a message to a widget.

        A page that is not visible here may be one that does not poll as JupyterLab does (voila): what is moved there is
        told from what plays by its rhythm.
        """
        if kind == "comm_msg":
            uneven = sent is not None and self._traffic.message(kernel, "/widgets", Content.of(sent), now)
            echo = now - self._spoke.get(kernel, -ECHO_SECONDS) < ECHO_SECONDS
            if not echo and (uneven or self.browsers(now)[0] > 0):
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
    """Whether a person acts on Jupyter by the request, or opens a page."""
    if method in ACTS:
        return _below(path, ACTED_ON) or path == "/login"
    return method == "GET" and not path.startswith(("/api/", "/static/")) and _navigates(headers)


def is_opened(method: str, path: str, query: str, headers: Mapping[str, str]) -> bool:
    """Whether a page asks for what is in a file or notebook, as it does when somebody opens one. Folders are polled."""
    wanted = parse_qs(query)
    is_file = wanted.get("type", [""])[0] in ("file", "notebook") and wanted.get("content") == ["1"]
    return method == "GET" and is_file and _below(path, ("/api/contents",)) and is_of_page(headers)


def sign_of(method: str, path: str, headers: Mapping[str, str]) -> str:
    """What a request to any other address tells of a person: SURE, MAYBE or NEVER."""
    mode, kind = headers.get("Sec-Fetch-Mode"), headers.get("Sec-Fetch-Dest", "")
    navigates = _navigates(headers)
    if method in WRITES:
        # A page sends no form by itself. What bears no mark of a browser at all is of a program, which somebody runs to
        # do something in the app: a tab that was forgotten has marks.
        is_form = headers.get("Content-Type", "").split(";")[0].strip().lower() in FORMS
        by_program = not any(name in headers for name in ("Sec-Fetch-Mode", "Origin", "Referer"))
        return SURE if navigates or (is_form and mode is None) or by_program else MAYBE
    if method != "GET" or _below(path, STATIC) or kind in PARTS or mode == "websocket":
        return NEVER
    if "text/event-stream" in headers.get("Accept", "") or "prefetch" in _purpose(headers):
        return NEVER
    if navigates:
        # A link, an address or a reload: browsers mark what a person did. A page that reloads itself has no mark, nor
        # has any page in a browser that does not give it.
        return SURE if headers.get("Sec-Fetch-User") == "?1" else MAYBE
    by_program = "Sec-Fetch-Site" not in headers and "Referer" not in headers
    return MAYBE if by_program or is_of_page(headers) else NEVER


def _navigates(headers: Mapping[str, str]) -> bool:
    """Whether a browser asks for a page."""
    mode = headers.get("Sec-Fetch-Mode")
    # Browsers that do not say so ask for a page by its kind.
    return mode == "navigate" if mode is not None else headers.get("Accept", "").startswith("text/html")


def _purpose(headers: Mapping[str, str]) -> str:
    return headers.get("Sec-Purpose", "") + headers.get("Purpose", "")


def is_of_page(headers: Mapping[str, str]) -> bool:
    """Whether a page of this very server sent it, in a browser."""
    site = headers.get("Sec-Fetch-Site")
    if site is not None:
        return site == "same-origin"
    host = headers.get("Host", "")
    return bool(host) and headers.get("Referer", "").startswith(f"https://{host}/")


def _below(path: str, places: tuple[str, ...]) -> bool:
    return any(path == place or path.startswith(f"{place}/") for place in places)
