"""`python -m local serve`: the local cloud until Ctrl-C. `python -m local demo`: and a notebook in it."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from local.errors import LocalError, PreflightError
from local.faults import Faults, UnknownFaultError
from local.stopped import Stopped

ROOT = Path(__file__).resolve().parent.parent


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code: 0 after Ctrl-C of something that ran, 130 of something that was not done, 1 or 2 for failures."""
    parser = argparse.ArgumentParser(prog="python -m local", description=__doc__)
    parser.add_argument("what", choices=["serve", "demo"])
    parser.add_argument("--json", action="store_true", help="JSON on stdout (demo)")
    arguments = parser.parse_args(argv)

    def stop(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001 - the signature of signal handlers
        # Once: a second Ctrl-C must not interrupt the end, which leaves nothing behind.
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_IGN)
        raise Stopped

    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, stop)
    # `su` without a dash leaves root with an ordinary user's PATH.
    os.environ["PATH"] = f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin"
    try:
        state = Path(os.environ.get("NOD_LOCAL_DIR") or ROOT / ".local")
        api_port, aws_port = _port("NOD_API_PORT", 8000), _port("NOD_AWS_PORT", 5566)
        faults = _faults()
        _check_installer()
        from local.image import cache_folder  # noqa: PLC0415 - a wrong option needs none of this
        from local.preflight import check  # noqa: PLC0415

        cache = cache_folder(os.environ)
        check(api_port, aws_port, state, cache)
        from local import demo  # noqa: PLC0415 - moto takes a second to import

        run = demo.Demo(state, cache, api_port, aws_port, faults, as_json=arguments.json)
        return run.serve() if arguments.what == "serve" else run.demo()
    except PreflightError as error:
        print(error, file=sys.stderr)
        return 2
    except LocalError as error:
        print(error, file=sys.stderr)
        return 1
    except Stopped:
        return 130


def _faults() -> list[str]:
    names = [name.strip() for name in os.environ.get("NOD_FAULTS", "").split(",") if name.strip()]
    try:
        return Faults(names).names()
    except UnknownFaultError as error:
        raise PreflightError(f"NOD_FAULTS: {error}.") from error


def _check_installer() -> None:
    if bool(os.environ.get("NOD_INSTALLER_URL")) != bool(os.environ.get("NOD_INSTALLER_SHA256")):
        raise PreflightError("NOD_INSTALLER_URL and NOD_INSTALLER_SHA256 go together: set both, or none.")


def _port(variable: str, default: int) -> int:
    text = os.environ.get(variable) or str(default)
    if not text.isdecimal() or not 1 <= int(text) <= 65_535:
        raise PreflightError(f"{variable} is {text!r}: set it to a port from 1 to 65535.")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
