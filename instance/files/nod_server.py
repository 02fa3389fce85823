"""What the notebook's server says of itself: that it is ours, whether it serves, and what it runs without.

`/nod/identity?nonce=…` answers whoever asks with an HMAC of the nonce, by a key that root makes at each boot. No other
server gives that answer by accident; who can read the key can forge it, and is the notebook's own user. It is what the
documents and the activity monitor ask before they say that the notebook answers.

`/nod/server` tells its owner, logged in, whether it is in safe mode and why, and what of theirs was left out.
"""

import faulthandler
import hashlib
import hmac
import html
import json
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jupyter_server.auth.decorator import allow_unauthenticated
from jupyter_server.base.handlers import JupyterHandler
from server_causes import CAUSES, RETRY
from serving import SERVING, forget_folders
from tornado import web
from tornado.httpclient import AsyncHTTPClient, HTTPClientError

SERVER = "notebook-on-demand"
KEY = Path("/run/nod-server/key")
STATE = Path("/run/nod-server/state.json")
WORDS = Path("/run/nod-server/last_words.txt")
# Made by nod-runtime.service.
READY = Path("/run/nod-ready/ready.json")
HOME = Path("/home/jupyter")
NONCE = re.compile(r"[0-9a-f]{16,128}", re.ASCII)
MOST_NAMES, LONGEST_NAME = 20, 40
PROXY = "jupyter_server_proxy"
MOST_FILE = 1024 * 1024
# What a page of JupyterLab needs at its start. One that ends in an error of the server's is no page.
PAGES = ("/lab", "/api/contents/?content=1", "/api/kernelspecs", "/lab/api/settings/", "/lab/api/workspaces/")
CHECK_SECONDS = 30.0
_FAILED = re.compile(r"^(\S+) \| extension failed loading")


class Failures(logging.Handler):
    """Hears from the server's log which extensions could not be loaded."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.names: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        found = _FAILED.match(record.getMessage())
        if found:
            self.names.add(found[1])


class IdentityHandler(JupyterHandler):
    """Says that this is the notebook's own server, once it serves."""

    @allow_unauthenticated
    def get(self) -> None:
        nonce = self.get_query_argument("nonce", "")
        if not NONCE.fullmatch(nonce):
            raise web.HTTPError(400, reason="nonce: 16 to 128 hexadecimal digits")
        self.set_header("Content-Type", "application/json")
        self.set_header("Cache-Control", "no-store")
        serving = SERVING.since is not None
        self.finish(json.dumps({"server": SERVER, "serving": serving, "proof": proof(nonce)}))


def proof(nonce: str) -> str | None:
    """The nonce's HMAC; None where there is no key."""
    try:
        key = bytes.fromhex(KEY.read_text())
    except (OSError, ValueError):
        return None
    return hmac.new(key, f"nod:{nonce}".encode(), hashlib.sha256).hexdigest()


class ServerHandler(JupyterHandler):
    """Tells the owner how the server runs."""

    @web.authenticated
    def get(self) -> None:
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.set_header("Cache-Control", "no-store")
        self.finish(page(_read_state(), _read(WORDS), SERVING.left_out))


def page(state: Mapping[str, Any], words: str, left_out: list[str]) -> str:
    """The page in HTML. `words` are the journal's, about the start that failed."""
    if state.get("mode") == "safe":
        cause = CAUSES.get(str(state.get("code")), CAUSES["ended"])
        title = "This notebook runs in safe mode"
        parts = [
            f"<p>It runs without your configuration, because {html.escape(cause.reason)}.</p>",
            f"<p>{html.escape(cause.advice)} {html.escape(RETRY)}</p>",
            "<p>Your files are all there. Extensions and settings of your own are not used until then.</p>",
        ]
        if words.strip():
            parts.append(f"<h2>The server's last words</h2><pre>{html.escape(words)}</pre>")
    else:
        title, parts = "This notebook's server", ["<p>It runs with your configuration.</p>"]
    if left_out:
        names = "".join(f"<li>{html.escape(name)}</li>" for name in left_out)
        parts.append(
            "<h2>Left out</h2><p>These server extensions of yours are not loaded. The server uses only what is "
            f"installed in /opt/anaconda3; kernels and terminals have everything of yours.</p><ul>{names}</ul>"
        )
    body = "\n".join(parts)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<meta name="viewport" '
        f'content="width=device-width, initial-scale=1">\n<title>{title}</title>\n</head>\n<body>\n<main>\n'
        f'<h1>{title}</h1>\n{body}\n<p><a href="/lab">Go on to JupyterLab</a></p>\n</main>\n</body>\n</html>\n'
    )


def attach(app: Any, cookie: str, then: Callable[[], None]) -> None:
    """Adds the two addresses to the server `app`, and says that it serves once its own pages come.

    Args:
        app: the ServerApp, with its web application, before it loads its extensions.
        cookie: header of a login at 127.0.0.1.
        then: called once it serves.
    """
    failures = Failures()
    app.log.addHandler(failures)
    handlers: list[tuple[Any, ...]] = [(r"/nod/identity", IdentityHandler), (r"/nod/server", ServerHandler)]
    if _read_state().get("mode") == "safe":
        # The first page says so; from there one goes on to JupyterLab.
        handlers.append((r"/", web.RedirectHandler, {"url": "/nod/server", "permanent": False}))
    app.web_app.add_handlers(".*$", handlers)

    async def serve() -> None:
        try:
            if _read_state().get("mode") != "safe":
                await _look_at_pages(app, cookie)
            failed = failures.names | _not_linked(app)
            SERVING.left_out = left_out(app.jpserver_extensions, failed, enabled_at_home(), enabled_by_root())
            _serving(app)
        except Exception as error:  # noqa: BLE001
            app.log.warning("The server could not look at itself (%s: %s)", type(error).__name__, error)
            _serving(app)
        then()

    # After the callback that binds the port, which the server adds when it is made.
    app.io_loop.add_callback(lambda: app.io_loop.add_callback(serve))


def _serving(app: Any) -> None:
    faulthandler.cancel_dump_traceback_later()
    forget_folders()
    SERVING.since = time.clock_gettime(time.CLOCK_BOOTTIME)
    mark = {"invocation": os.environ.get("INVOCATION_ID", ""), "at": SERVING.since, "left_out": SERVING.left_out}
    try:
        # In place: the folder is root's, so that nothing else can take the file's space.
        READY.write_text(json.dumps(mark))
    except OSError as error:
        app.log.warning("That it serves could not be written down: %s", error)


def _not_linked(app: Any) -> set[str]:
    manager = app.extension_manager
    return {name for name, on in app.jpserver_extensions.items() if on and not manager.linked_extensions.get(name)}


async def _look_at_pages(app: Any, cookie: str) -> None:
    """Asks for the pages that a browser opens first, as the owner. Ends the process where one is an error."""
    client = AsyncHTTPClient(force_instance=True)
    base = f"https://127.0.0.1:{app.port}"
    try:
        for path in PAGES:
            try:
                await client.fetch(
                    base + path,
                    headers={"Cookie": cookie},
                    validate_cert=False,
                    follow_redirects=False,
                    request_timeout=CHECK_SECONDS,
                )
            except HTTPClientError as error:
                # 599: nothing came in time; that is for the monitor to tell.
                contents = path.startswith("/api/contents")
                if (500 <= error.code < 599) or (contents and error.code in (403, 404)):
                    code = "root_dir" if contents else "page"
                    app.log.critical("The server does not start (%s): %s answered %s", code, path, error.code)
                    os._exit(CAUSES[code].status or 1)
    finally:
        client.close()


def left_out(wanted: Mapping[str, bool], failed: set[str], at_home: set[str], by_root: set[str]) -> list[str]:
    """Names of server extensions that the owner switched on and that are not loaded: those that failed, and those of
    their own site, which this process does not look into. jupyter-server-proxy is to be there in any case.

    Args:
        wanted: what the server was to load.
        failed: what of it could not be loaded.
        at_home, by_root: what files in the home and files of root's switch on.
    """
    names = {name for name, on in wanted.items() if on and name in failed and name not in by_root}
    names |= {name for name in at_home if not wanted.get(name) or name in failed}
    if not wanted.get(PROXY) or PROXY in failed:
        names.add(PROXY)
    return sorted(name[:LONGEST_NAME] for name in names if name.isprintable())[:MOST_NAMES]


def enabled_at_home(home: Path = HOME) -> set[str]:
    """Server extensions that files in the home switch on: those of pip install --user, and those of its owner."""
    return _enabled_in((home / ".local/etc/jupyter", home / ".jupyter"))


def enabled_by_root() -> set[str]:
    """Those that the environment and the system switch on."""
    return _enabled_in((Path(sys.prefix, "etc/jupyter"), Path("/usr/local/etc/jupyter"), Path("/etc/jupyter")))


def _enabled_in(folders: Sequence[Path]) -> set[str]:
    return {name for folder in folders for file in _files(folder) for name in _enabled(_read(file))}


def _files(folder: Path) -> list[Path]:
    files = []
    for section in ("jupyter_config", "jupyter_server_config"):
        files.append(folder / f"{section}.json")
        try:
            inside = sorted((folder / f"{section}.d").iterdir())[:1000]
        except OSError:
            continue
        files += [file for file in inside if file.name.endswith(".json")]
    return files


def _enabled(text: str) -> set[str]:
    try:
        extensions = json.loads(text)["ServerApp"]["jpserver_extensions"]
        return {str(name) for name, on in extensions.items() if on is True}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return set()


def _read(path: Path) -> str:
    """A file's text, with bounds; nothing where it is no file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            return file.read(MOST_FILE).decode("utf-8", "replace")
    except OSError:
        return ""


def _read_state() -> dict[str, Any]:
    try:
        found = json.loads(_read(STATE))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
