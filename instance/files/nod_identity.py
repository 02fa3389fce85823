"""How the notebook's owner logs in: by password only, with guesses slowed (see login_limit).

The hash is read from a file of root's; none of this can be set in a Jupyter configuration file of the user's.
When root puts another hash there, it counts within a second: logins by the password of before end, kernels live on.
There is no token: a token would be a second password, so what comes as one is never compared with anything.
"""

import asyncio
import hashlib
import json
import math
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nod_server
from jupyter_server.auth.decorator import allow_unauthenticated
from jupyter_server.auth.identity import PasswordIdentityProvider, User
from jupyter_server.auth.login import LoginFormHandler
from login_limit import LimitFile, LoginLimit
from open_sockets import OPEN
from tornado import httputil, web
from tornado.escape import url_escape
from tornado.ioloop import PeriodicCallback
from traitlets import Bool, Dict, Type, Unicode, default

try:
    import nod_activity
except Exception as error:  # noqa: BLE001
    # The notebook serves without it; the monitor then knows that it does not know.
    nod_activity = None
    WATCH_ERROR = error

HASH_FILE = Path("/etc/nod/password_hash")
# Which password counts for this server, by the SHA-256 of its hash; made by nod-runtime.service.
COUNTS_FILE = Path("/run/nod-password/counts")
# What the notebook is called; absent on a machine that was set up before the login page named it.
NAME_FILE = Path("/etc/nod/notebook_name")
LIMIT_FILE = Path("/var/lib/nod-notebook/guesses.json")
# How often the hash is looked at, in milliseconds.
LOOK_AT_HASH = 500
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
# Longer than any password that was ever set; hashing what is longer would only cost time.
LONGEST_PASSWORD = 1024
# A body is in memory before any handler could refuse it, and Jupyter takes 512 MB: from a stranger, this much.
STRANGERS_BODY = 65536
# Each takes a twentieth of a second: behind more than this, one would wait longer than a person does.
LONGEST_LINE = 40


class LimitedLoginHandler(LoginFormHandler):
    """The login form, which checks a password only when its sender may guess."""

    def _render(self, message: dict[str, str] | None = None) -> None:
        next_url = url_escape(self.get_argument("next", default=self.base_url))
        self.write(self.render_template("login.html", next=next_url, message=message, notebook=_notebook_name()))

    # POST is a coroutine here and none in the class above: the check runs beside the event loop.
    @allow_unauthenticated
    async def post(self) -> None:
        provider = self.identity_provider
        assert isinstance(provider, OwnerIdentityProvider)
        wait = provider.wait_for(self.request.remote_ip)
        if wait > 0:
            seconds = math.ceil(wait)
            self.set_status(429)
            self.set_header("Retry-After", str(seconds))
            self._render({"error": f"Too many attempts from your address. Try again in {seconds} s."})
            return
        # Of the body only: an address ends up in logs and histories.
        password = self.get_body_argument("password", default="", strip=False)
        if not await provider.is_password(self.request.remote_ip, password):
            self.set_status(401)
            self._render({"error": "That is not the password of this notebook."})
            return
        user = self.current_user = provider.generate_anonymous_user(self)
        self.log.info("Logged in from %s", self.request.remote_ip)
        provider.set_login_cookie(self, user)
        self._redirect_safe(self.get_argument("next", default=self.base_url))


class OwnerIdentityProvider(PasswordIdentityProvider):
    """The one owner, known by a password. Traits that guard the door are not configurable any more."""

    hashed_password = Unicode()
    token = Unicode("")
    need_token = Bool(False)
    allow_password_change = Bool(False)
    password_required = Bool(True)
    secure_cookie = Bool(True)
    # Lax: the link in the e-mail must find the owner logged in.
    cookie_options = Dict({"samesite": "Lax"})
    get_secure_cookie_kwargs = Dict({})
    login_handler_class = Type(default_value=LimitedLoginHandler, klass=web.RequestHandler)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._boot_id = BOOT_ID.read_text().strip()
        self._limit = LoginLimit()
        self._file = LimitFile(LIMIT_FILE)
        self._limit.restore(self._file.load(self._boot_id, _now()), _now())
        self._in_line = 0
        # One at a time: more would take the processors from the kernels.
        self._checker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="password")

    @default("hashed_password")
    def _hash_of_file(self) -> str:
        return HASH_FILE.read_text().strip()

    def cookie_secret_hook(self, h: Any) -> Any:
        # The class above mixes the password in; here each cookie names its own, so that a later one can end it at once.
        return h

    def user_to_cookie(self, user: User) -> str:
        return json.dumps({**json.loads(super().user_to_cookie(user)), "password": self.password_id()})

    def user_from_cookie(self, cookie_value: str) -> User | None:
        """The user of a login by the present password; None for a login by another."""
        if json.loads(cookie_value).get("password") != self.password_id():
            return None
        return super().user_from_cookie(cookie_value)

    def password_id(self) -> str:
        """Names the present password's hash without telling it."""
        return hashlib.sha256(self.hashed_password.encode()).hexdigest()

    def _look_at_hash(self) -> None:
        """Takes another hash that root has put there. What cannot be read, or is none, changes nothing."""
        try:
            found = HASH_FILE.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            self.log.warning("%s cannot be read: %s", HASH_FILE, error)
            return
        if found == self.hashed_password or not found.startswith("argon2:"):
            return
        self.hashed_password = found
        self.log.info("The password was changed: all logins end")
        OPEN.close_all()
        self._say_which_password()

    def _say_which_password(self) -> None:
        """For who changed it, and wants to know that it counts."""
        try:
            # In place: the folder is root's, so that nothing else can take the file's space.
            COUNTS_FILE.write_text(self.password_id())
        except OSError as error:
            self.log.warning("Which password counts could not be written down: %s", error)

    @default("token")
    def _token_default(self) -> str:
        # The class above would read it from the environment.
        return ""

    @property
    def auth_enabled(self) -> bool:
        return True

    def get_user_token(self, handler: web.RequestHandler) -> Any:  # noqa: ARG002
        return _nobody()

    def process_login_form(self, handler: web.RequestHandler) -> User | None:  # noqa: ARG002
        # Not on any path of this server; it would check a password without counting.
        return None

    def validate_security(self, app: Any, ssl_options: dict[str, Any] | None = None) -> None:
        """Refuses to serve without TLS or without a hash (RuntimeError ends the start)."""
        super().validate_security(app, ssl_options)
        if not ssl_options or not ssl_options.get("certfile"):
            raise RuntimeError("the notebook is served over TLS only")
        if not self.hashed_password.startswith("argon2:"):
            raise RuntimeError(f"{HASH_FILE} holds no argon2 hash")
        self._bound_bodies(app.web_app)
        OPEN.watch()
        self._say_which_password()
        self._hash_watch = PeriodicCallback(self._look_at_hash, LOOK_AT_HASH)
        self._hash_watch.start()
        # What the server asks of itself before it serves is no use of anybody's, so it is not watched yet.
        nod_server.attach(
            app, self._own_cookie(app.web_app.settings["cookie_secret"], app.port), lambda: self._watch(app)
        )

    def _watch(self, app: Any) -> None:
        if nod_activity is None:
            self.log.warning("Activity is not watched: %s", WATCH_ERROR)
        else:
            nod_activity.attach(app)

    def _own_cookie(self, secret: str | bytes, port: int) -> str:
        """The header of a login at 127.0.0.1, for this process itself."""
        handler: Any = SimpleNamespace(log=self.log, request=SimpleNamespace(host=f"127.0.0.1:{port}"))
        name = self.get_cookie_name(handler)
        value = web.create_signed_value(secret, name, self.user_to_cookie(self.generate_anonymous_user(handler)))
        return f"{name}={value.decode()}"

    def _bound_bodies(self, application: web.Application) -> None:
        """Refuses long bodies of those who are not logged in when their headers are there."""
        find_handler = application.find_handler
        secret = application.settings["cookie_secret"]

        def bounded(request: httputil.HTTPServerRequest, **kwargs: Any) -> Any:
            if not self._is_session(request, secret):
                request.connection.set_max_body_size(STRANGERS_BODY)
            return find_handler(request, **kwargs)

        application.find_handler = bounded

    def _is_session(self, request: httputil.HTTPServerRequest, secret: str | bytes) -> bool:
        """Whether the login cookie is one that this server signed; the handler looks closer."""
        name = self.get_cookie_name(SimpleNamespace(request=request))
        cookie = request.cookies.get(name)
        value = web.decode_signed_value(secret, name, cookie.value) if cookie is not None else None
        return value is not None and self.user_from_cookie(value.decode("utf-8", "replace")) is not None

    def wait_for(self, address: str | None) -> float:
        """Seconds until this address may guess; 0 when it may now, and then the guess is counted."""
        if self._in_line >= LONGEST_LINE:
            return 5.0
        return self._limit.admit(address, _now())

    async def is_password(self, address: str | None, password: str) -> bool:
        """Whether it is the password; if so, the guesses of this address are forgotten.

        Found out beside the event loop, so that open notebooks do not stutter.
        """
        loop = asyncio.get_running_loop()
        self._in_line += 1
        try:
            # Kept before the check: a server that is ended in the middle has counted.
            await loop.run_in_executor(self._checker, self._save, self._limit.state())
            right = await loop.run_in_executor(self._checker, self._check, password)
            if right:
                self._limit.forgive(address)
                await loop.run_in_executor(self._checker, self._save, self._limit.state())
            return right
        finally:
            self._in_line -= 1

    def _save(self, state: dict[str, list[float]]) -> None:
        try:
            self._file.save(self._boot_id, state)
        except OSError as error:
            # A full disk must not lock the owner out; this process goes on counting.
            self.log.warning("Guesses are not kept over a restart: %s", error)

    def _check(self, password: str) -> bool:
        return len(password) <= LONGEST_PASSWORD and bool(self.passwd_check(password))


def _notebook_name() -> str | None:
    try:
        return NAME_FILE.read_text().strip() or None
    except (OSError, UnicodeDecodeError):
        return None


async def _nobody() -> None:
    return None


def _now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)
