"""Where the command starts, as `nod` and as `python -m nod`."""

from __future__ import annotations

import signal
import sys


def main() -> int:
    """Runs the command line; the exit code.

    Loading it takes a moment. A Ctrl-C in that moment, or while Python ends, ends the process as it would end any
    program: without a traceback.
    """
    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if ours:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from nod import cli, streams  # noqa: PLC0415 - only now a Ctrl-C is quiet

    streams.hold_descriptors()
    try:
        try:
            if ours:
                signal.signal(signal.SIGINT, signal.default_int_handler)
            code = cli.main()
        finally:
            if ours:
                signal.signal(signal.SIGINT, signal.SIG_DFL)
    except KeyboardInterrupt:
        code = cli.INTERRUPTED
    except SystemExit as done:
        code = done.code if isinstance(done.code, int) else 0 if done.code is None else 1
    written = streams.flushed(sys.stdout)
    streams.flushed(sys.stderr)
    return code if written or code else 1


if __name__ == "__main__":
    sys.exit(main())
