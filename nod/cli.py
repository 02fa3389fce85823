"""The command line: options in, exit code out."""

from __future__ import annotations

import argparse
import getpass
import math
import os
import re
import signal
import sys
import threading
import webbrowser
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

from nod import __version__, config
from nod.api import Api, open_client
from nod.clock import Clock
from nod.commands import Commands, Request
from nod.errors import NodError, OutputLostError, UsageError
from nod.life import Life, NewPassword
from nod.names import is_id, is_name
from nod.output import Output

INTERRUPTED = 130
TERMINATED = 143
DEFAULT_TIMEOUT = 3600.0
"""Seconds to wait; every step of the launch workflow ends well before."""

_EPILOG = """\
The address comes from --url, NOD_URL or the configuration file, in this order; the token from --token-file,
NOD_TOKEN or the configuration file ($XDG_CONFIG_HOME/nod/config.toml, else ~/.config/nod/config.toml; its
keys are url, token and token_file).

Exit codes: 0 done; 1 refused or failed; 2 options or configuration; 3 no usable answer from the API, or the
token is not accepted; 4 --timeout passed; 130 Ctrl-C.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit code (see `nod.errors`). argparse exits by itself with 0 or 2."""
    arguments, stray = _parser().parse_known_args(argv)
    if stray:
        hint = f" (its name: --name {stray[0]})" if arguments.command == "request" and is_name(stray[0]) else ""
        arguments.refuse(f"unrecognized arguments: {' '.join(stray)}{hint}")
    output = Output(as_json=arguments.json)
    try:
        return _told(arguments, output)
    except OutputLostError as error:
        output.lost(error)
        return error.exit_code
    except _TerminatedError:
        return TERMINATED
    except KeyboardInterrupt:
        return INTERRUPTED


def _told(arguments: argparse.Namespace, output: Output) -> int:
    """Runs the command; what goes wrong is told."""
    try:
        with _sigterm_interrupts():
            code = _run(arguments, output)
    except OutputLostError:
        raise
    except NodError as error:
        output.failure(error)
        code = error.exit_code
    finally:
        output.check()
    return code


def _run(arguments: argparse.Namespace, output: Output) -> int:
    # Everything that can be wrong here is found before the first request.
    for name, value in vars(arguments).items():
        if not _is_text(value):
            raise UsageError(f"--{name.replace('_', '-')}: not text in this system's encoding.")
    _check_target(arguments)
    if arguments.command == "extend":
        _check_hours(arguments.hours)
    request = _request(arguments) if arguments.command == "request" else None
    password = _new_password(arguments) if arguments.command == "password" else None
    settings = config.load(
        url=arguments.url,
        token_file=arguments.token_file,
        insecure_http=arguments.insecure_http,
        env=os.environ,
        path=config.config_path(os.environ, Path.home()),
    )
    for warning in settings.warnings:
        output.say(f"Warning: {warning}", "yellow")
    clock = Clock()
    with open_client(settings) as client:
        api = Api(settings, client, clock, output.say)
        commands, life = Commands(api, output, clock), Life(api, output, clock)
        if request is not None:
            return commands.request(request)
        if password is not None:
            return life.password(arguments.id, password)
        return _dispatch(arguments, commands, life)


def _dispatch(arguments: argparse.Namespace, commands: Commands, life: Life) -> int:
    match arguments.command:
        case "list":
            code = commands.list()
        case "show" if arguments.watch:
            code = commands.watch(life.resolve(arguments.id), arguments.timeout)
        case "show":
            code = commands.show(life.resolve(arguments.id))
        case "stop":
            code = life.stop(arguments.id)
        case "start":
            code = life.start(arguments.id, wait=not arguments.no_wait, timeout=arguments.timeout)
        case "extend":
            code = life.extend(arguments.id, float(arguments.hours))
        case "link":
            code = life.link(arguments.id, new=arguments.new)
        case "open":
            code = life.open(arguments.id, webbrowser.open)
        case "events":
            code = life.events(arguments.id, arguments.limit)
        case "cancel":
            code = commands.cancel(life.resolve(arguments.id))
        case "delete":
            ask = _ask if _at_terminal() else None
            code = commands.delete(arguments.id, confirm=arguments.confirm, yes=arguments.yes, ask=ask)
        case unknown:
            raise AssertionError(f"no command {unknown}")
    return code


def _check_target(arguments: argparse.Namespace) -> None:
    target = getattr(arguments, "id", None)
    if target is None or is_id(target) or (is_name(target) and arguments.command != "delete"):
        return
    name = "" if arguments.command == "delete" else ", nor a name"
    raise UsageError(
        f"{target!a} is not a notebook's id, which is nb- and 20 hex digits{name}.",
        hints=("`nod list` shows the ids.",),
    )


def _check_hours(hours: str) -> None:
    try:
        _finite(hours)
    except argparse.ArgumentTypeError as error:
        raise UsageError(f"{error}: give the hours as a number, for example 1.5.") from error


def _at_terminal() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()


def _is_text(value: object) -> bool:
    """False for what Python keeps of undecodable bytes in an argument, which no request can carry."""
    values = value if isinstance(value, list) else [value]
    return not any(isinstance(one, str) and any("\ud800" <= c <= "\udfff" for c in one) for one in values)


def _request(arguments: argparse.Namespace) -> Request:
    fields = {
        "name": arguments.name,
        "instance_type": arguments.type,
        "volume_gib": arguments.volume_gib,
        "idle_minutes": arguments.idle_minutes,
        "max_hours": arguments.max_hours,
        "password": _read_password() if arguments.password_stdin else None,
        "password_hash": arguments.password_hash,
        "notify": arguments.notify,
    }
    key = arguments.idempotency_key
    if key is not None and not re.fullmatch(r"[\x21-\x7e]{1,255}", key):
        raise UsageError("--idempotency-key takes 1 to 255 visible ASCII characters.")
    return Request(
        body={name: value for name, value in fields.items() if value is not None},
        idempotency_key=key,
        wait=not arguments.no_wait,
        timeout=arguments.timeout,
    )


def _new_password(arguments: argparse.Namespace) -> NewPassword:
    """What was chosen; at a terminal it is asked for, and where nothing is given one is made."""
    if arguments.password_hash is not None:
        return NewPassword({"password_hash": arguments.password_hash})
    if arguments.password_stdin:
        return NewPassword({"password": _read_password()})
    if arguments.generate or not _at_terminal():
        return NewPassword.generate()
    password = _typed_password("New password (empty: one is made): ")
    return NewPassword({"password": password}) if password else NewPassword.generate()


def _read_password() -> str:
    try:
        if _at_terminal():
            password = _typed_password("Password for the notebook: ")
        else:
            password = sys.stdin.readline().rstrip("\r\n") if sys.stdin is not None else ""
    except UnicodeDecodeError as error:
        raise UsageError("--password-stdin: standard input is not text in this system's encoding.") from error
    if not password:
        raise UsageError("--password-stdin: standard input has no password.")
    return password


def _typed_password(prompt: str) -> str:
    try:
        password = getpass.getpass(prompt)
        if password and getpass.getpass("Once more: ") != password:
            raise UsageError("The two passwords differ. Nothing was sent.")
    except UnicodeDecodeError as error:
        raise UsageError("What was typed is not text in this system's encoding.") from error
    except EOFError as error:
        raise UsageError("No password was typed. Nothing was sent.") from error
    return password


def _ask(question: str) -> str:
    # Not input(question): that writes to stdout, which holds results only.
    if sys.stderr is not None:
        sys.stderr.write(question)
        sys.stderr.flush()
    return sys.stdin.readline()


class _TerminatedError(KeyboardInterrupt):
    """SIGTERM: the same farewell as Ctrl-C, so that a password is not lost with it."""


@contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    def interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
        raise _TerminatedError

    if threading.current_thread() is not threading.main_thread():
        # Only the main thread may set handlers; a caller elsewhere keeps its own.
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


class _RefuseSecret(argparse.Action):
    """An option that people expect, refused before its value is repeated anywhere."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        _namespace: argparse.Namespace,
        _values: str | Sequence[object] | None,
        option_string: str | None = None,
    ) -> NoReturn:
        parser.error(f"{option_string}: every user of this machine can see a command line. {self.const}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nod",
        description="Notebook on Demand: a Jupyter server of your own on EC2.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"nod {__version__}")
    _common(parser, top=True)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def command(name: str, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        _common(sub, top=False)
        sub.set_defaults(refuse=sub.error)
        return sub

    def target(name: str, text: str) -> argparse.ArgumentParser:
        sub = command(name, text)
        sub.add_argument("id", metavar="ID|NAME", help="its id, or its name where only one that is not gone has it")
        return sub

    request = command("request", "Request a notebook and wait until it is ready.")
    request.add_argument("--name", help="default: the API makes one up")
    request.add_argument("--type", metavar="TYPE", help="EC2 type (default: t3.medium, or the first you may have)")
    request.add_argument("--volume-gib", type=int, metavar="GIB", help="size of the disk (default: 30)")
    request.add_argument("--idle-minutes", type=int, metavar="N", help="stop after so long without activity")
    request.add_argument("--max-hours", type=int, metavar="N", help="stop after so long in any case")
    _chosen_password(request)
    request.add_argument(
        "--notify",
        action="extend",
        nargs="+",
        metavar="CHANNEL",
        help="where the link goes: email, slack:NAME",
    )
    request.add_argument("--no-wait", action="store_true", help="return as soon as the request is accepted")
    request.add_argument("--idempotency-key", metavar="KEY", help="repeat a request: the same key starts nothing twice")
    _timeout(request)

    command("list", "List your notebooks.")

    show = target("show", "Show one notebook.")
    show.add_argument("--watch", action="store_true", help="follow it until it is ready, failed, stopped or gone")
    _timeout(show)

    target("stop", "Stop a notebook; what is on its disk stays.")

    start = target("start", "Start a notebook that is stopped, and wait until it answers.")
    start.add_argument("--no-wait", action="store_true", help="return as soon as the start is accepted")
    _timeout(start)

    extend = target("extend", "Keep a notebook from stopping by itself.")
    extend.add_argument("hours", metavar="HOURS", help="from now; 0.25 is the least")

    password = target("password", "Set another password: the one that you type, or one that is made.")
    _chosen_password(password).add_argument("--generate", action="store_true", help="make one, ask for none")

    link = target("link", "Print the link that holds while the notebook lives: it opens the notebook or wakes it.")
    link.add_argument("--new", action="store_true", help="make another one; the link before it ends")

    target("open", "Open a notebook, or the page that wakes it, in a browser.")

    events = target("events", "Show what was decided about a notebook, when, why and by what signals.")
    events.add_argument("--limit", type=_count, default=50, metavar="N", help="the newest so many (default: 50)")

    target("cancel", "Cancel a launch that is under way: its machine is removed.")

    delete = command("delete", "Delete a notebook with everything on its disk.")
    delete.add_argument("id", metavar="ID")
    proof = delete.add_mutually_exclusive_group()
    proof.add_argument("--confirm", metavar="NAME", help="its name, instead of being asked for it")
    proof.add_argument("--yes", action="store_true", help="ask nothing")
    return parser


def _common(parser: argparse.ArgumentParser, *, top: bool) -> None:
    """Options that may stand before or after the command; after it they leave no default behind."""

    def default(value: object) -> object:
        return value if top else argparse.SUPPRESS

    parser.add_argument("--url", default=default(None), help="address of the API")
    parser.add_argument("--token-file", metavar="FILE", default=default(None), help="file that holds the token")
    parser.add_argument(
        "--insecure-http",
        action="store_true",
        default=default(False),
        help="allow http beyond this machine: the token travels in clear",
    )
    parser.add_argument("--json", action="store_true", default=default(False), help="JSON on stdout")
    _refuse(parser, "--token", "Use --token-file, NOD_TOKEN or the configuration file.")


def _chosen_password(parser: argparse.ArgumentParser) -> argparse._ActionsContainer:
    """Options of which one at most may be given."""
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--password-stdin", action="store_true", help="choose the password: read from stdin")
    choice.add_argument("--password-hash", metavar="HASH", help="choose it by its hash: argon2:$argon2id$…")
    _refuse(choice, "--password", "Use --password-stdin.")
    return choice


def _refuse(parser: argparse._ActionsContainer, option: str, instead: str) -> None:
    parser.add_argument(
        option,
        action=_RefuseSecret,
        nargs="?",
        const=instead,
        default=argparse.SUPPRESS,
        help=argparse.SUPPRESS,
    )


def _timeout(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--timeout",
        type=_positive,
        default=DEFAULT_TIMEOUT,
        metavar="SECONDS",
        help=f"how long to wait (default: {DEFAULT_TIMEOUT:.0f})",
    )


def _positive(value: str) -> float:
    number = _finite(value)
    if number <= 0:
        raise argparse.ArgumentTypeError(f"{value!a} is not above 0")
    return number


def _finite(value: str) -> float:
    """A number that JSON can carry; what it may be is the API's to say."""
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"{value!a} is not a number")
    return number


def _count(value: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", value) or int(value) < 1:
        raise argparse.ArgumentTypeError(f"{value!a} is not a whole number above 0")
    return int(value)
