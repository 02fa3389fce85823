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
from local.settings import Settings
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
        settings = Settings.from_env(os.environ, ROOT)
        from local.preflight import check  # noqa: PLC0415 - a wrong setting needs none of this

        check(settings.api_port, settings.aws_port, settings.state, settings.cache)
        from local import demo  # noqa: PLC0415 - moto takes a second to import

        run = demo.Demo(settings, as_json=arguments.json)
        return run.serve() if arguments.what == "serve" else run.demo()
    except PreflightError as error:
        print(error, file=sys.stderr)
        return 2
    except LocalError as error:
        print(error, file=sys.stderr)
        return 1
    except Stopped:
        return 130


if __name__ == "__main__":
    sys.exit(main())
