"""What can go wrong, and the exit code that says so.

NodError
├── UsageError             2  options or configuration
├── UnreachableError       3  no answer, or none that this client can use
│   └── BadAnswerError     3  something answered that is not the API
├── NotAuthorizedError     3  the API does not know the token, or its holder may not do this
├── RefusedError           1  the API said no (RFC 9457 problem detail)
├── OperationFailedError   1  the API said yes, and the work failed
├── NoSuchNameError        1  no notebook has the name, or several have it
├── OutputLostError        1  standard output cannot be written
└── StillGoingError        4  --timeout passed; the work goes on

130 is Ctrl-C and 143 SIGTERM, as shells have it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar


class NodError(Exception):
    """An error a person can act on: `message` in one sentence, `hints` what to do, `code` for scripts."""

    exit_code: ClassVar[int] = 1
    default_code: ClassVar[str] = "error"

    def __init__(self, message: str, *, hints: tuple[str, ...] = (), code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hints = hints
        self.code = code or self.default_code
        self.told = False
        """With --json: stdout has its document already."""


class UsageError(NodError):
    """Options, environment or configuration file cannot be used as they are. Nothing was sent."""

    exit_code = 2
    default_code = "usage"


class UnreachableError(NodError):
    """The API gave no usable answer. `maybe_done`: the request may have arrived all the same."""

    exit_code = 3
    default_code = "unreachable"

    def __init__(
        self, message: str, *, hints: tuple[str, ...] = (), code: str | None = None, maybe_done: bool = False
    ) -> None:
        super().__init__(message, hints=hints, code=code)
        self.maybe_done = maybe_done


class BadAnswerError(UnreachableError):
    """Something answered that is not the API, such as a proxy's page."""

    default_code = "bad_answer"


class NotAuthorizedError(NodError):
    """401, or 403 without a reason of the product's own."""

    exit_code = 3
    default_code = "not_authorized"


@dataclass(frozen=True)
class FieldError:
    """One entry of a problem detail's `errors`: which field, what is wrong, what is allowed."""

    field: str
    message: str
    allowed: str | None = None


class RefusedError(NodError):
    """The API refused the request: its problem detail, readable."""

    default_code = "refused"

    def __init__(
        self,
        message: str,
        *,
        status: int,
        fields: tuple[FieldError, ...] = (),
        hints: tuple[str, ...] = (),
        code: str | None = None,
    ) -> None:
        super().__init__(message, hints=hints, code=code)
        self.status = status
        self.fields = fields
        self.sent: Mapping[str, object] = {}
        """The request's body. It can hold a password: never printed as a whole."""
        self.repeated = False
        """An earlier try of the same request may have been carried out; this answer may be the echo of that."""


class OperationFailedError(NodError):
    """The notebook ended in another state than the one asked for."""

    default_code = "failed"


class NoSuchNameError(NodError):
    """A name that is not the name of one notebook. Nothing was changed."""

    default_code = "not_found"


class OutputLostError(NodError):
    """Standard output is full, or its reader has left (`reader_left`, as in `nod list | head`). The work is done."""

    default_code = "output_lost"

    def __init__(self, message: str, *, reader_left: bool = False) -> None:
        super().__init__(message)
        self.reader_left = reader_left


class StillGoingError(NodError):
    """`--timeout` passed while the work goes on in AWS."""

    exit_code = 4
    default_code = "still_going"
