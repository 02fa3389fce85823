"""Where words go: results to stdout, everything else to stderr, one JSON document for `--json`."""

from __future__ import annotations

import io
import json
import os
import textwrap
from collections.abc import Mapping
from typing import IO, cast

from rich.console import Console
from rich.text import Text

from nod import refusal, streams
from nod.errors import NodError, OutputLostError, RefusedError

LABEL = 13
"""Width of a label."""
_NO_WIDTH = 10_000


class Output:
    """The two streams of a command. Everything printed here is already safe for a terminal (`text.clean`)."""

    def __init__(self, *, as_json: bool, stdout: IO[str] | None = None, stderr: IO[str] | None = None) -> None:
        """`as_json`: stdout gets JSON only."""
        self.as_json = as_json
        self._results = streams.Results(_any_encoding(stdout or streams.results()))
        self._stdout = cast(IO[str], self._results)
        self.console = _console(self._stdout)
        self.progress = _console(cast(IO[str], streams.Remarks(_any_encoding(stderr or streams.remarks()))))
        self.shown_once = False
        """The results hold something that nobody can ask for again."""

    def document(self, document: object) -> None:
        """One JSON document on a line of stdout.

        Non-ASCII is escaped, so that no character of the server's can steer a terminal or fail an encoding.
        """
        text = json.dumps(document, separators=(", ", ": ")).replace("\x7f", "\\u007f")
        self._stdout.write(text + "\n")
        self._stdout.flush()

    def say(self, text: str, style: str = "") -> None:
        """A sentence for the person, on stderr."""
        self._line(self.progress, text, style)

    def head(self, text: str, style: str = "bold") -> None:
        """A heading of the result."""
        self._line(self.console, text, style)

    def row(self, label: str, value: str, style: str = "") -> None:
        """A labelled value on one line: never wrapped by us, so that it can be copied."""
        line = Text(f"  {label:<{LABEL}}", style="dim").append(value, style=style or "not dim")
        self.console.print(line, soft_wrap=True)

    def note(self, label: str, text: str) -> None:
        """A labelled sentence, wrapped under itself; an empty label continues the row above."""
        width = self.console.width - LABEL - 3
        for number, line in enumerate(_wrapped(text, max(width, 30))):
            self.row("" if number else label, line)

    def gap(self) -> None:
        """An empty line in the result."""
        self.console.print()

    def failure(self, error: NodError) -> None:
        """What went wrong: for the person on stderr, for a script as `{"error": …}` on stdout.

        Args:
            error: what went wrong.
            told: stdout has its document already.
        """
        first, *more = refusal.lines(error) if isinstance(error, RefusedError) else (error.message,)
        self.say(f"nod: {first}", "red")
        for line in more:
            self.say(f"     {line}", "red")
        if isinstance(error, RefusedError) and error.code != error.default_code:
            self.say(f"  ({error.status} {error.code})", "dim")
        for hint in error.hints:
            self.say(f"  {hint}")
        if self.as_json and not error.told:
            self.document({"error": _as_json(error)})

    def check(self) -> None:
        """Raises OutputLostError if a result could not be written."""
        if self._results.error is not None:
            raise self._results.error

    def lost(self, error: OutputLostError) -> None:
        """Standard output could not be written: says so, and gives the results to stderr.

        A reader that has left has read what it wanted, so it is told only what cannot be had again.
        """
        streams.abandon(self._stdout)
        if error.reader_left and not self.shown_once:
            return
        self.say(f"nod: {error.message} What was for it:", "red")
        self.progress.print(Text(self._results.kept()), soft_wrap=True)

    def _line(self, console: Console, text: str, style: str) -> None:
        console.print(Text(text, style=style), soft_wrap=True)


def can_show(console: Console, text: str) -> bool:
    """Whether the stream's encoding has all characters of `text`."""
    try:
        text.encode(console.encoding)
    except (LookupError, UnicodeEncodeError):
        return False
    return True


def _wrapped(text: str, width: int) -> list[str]:
    # Times and ids stay whole, to be read and copied.
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False) or [""]


def _any_encoding(stream: IO[str]) -> IO[str]:
    if isinstance(stream, io.TextIOWrapper):
        # A notebook's name or a message can hold what an old code page cannot.
        stream.reconfigure(errors="replace")
    return stream


def _console(stream: IO[str]) -> Console:
    return Console(
        file=stream,
        markup=False,
        highlight=False,
        emoji=False,
        force_jupyter=False,
        # Colour is for terminals only: rich would let FORCE_COLOR put it into files.
        force_terminal=None if stream.isatty() else False,
        # A file has no width: nothing is wrapped or cut there.
        width=None if stream.isatty() else _NO_WIDTH,
        no_color=True if os.environ.get("NO_COLOR") else None,
    )


def _as_json(error: NodError) -> Mapping[str, object]:
    document: dict[str, object] = {"code": error.code, "message": error.message, "hints": list(error.hints)}
    if isinstance(error, RefusedError):
        document["status"] = error.status
        document["fields"] = [vars(field) for field in error.fields]
    return document
