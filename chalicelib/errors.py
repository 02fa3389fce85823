"""Every error of the product, in one tree. Each class has a stable `code`; app.py gives it its HTTP status.

NodError
├── InvalidRequest                 what the caller sent cannot be used
│   ├── BodyTooLarge
│   ├── UnsupportedMediaType
│   ├── MalformedBody
│   ├── InvalidFields
│   └── IdempotencyKeyReused
├── NotAuthenticated
├── NotAllowed                     the caller's user may not have this
│   └── LinkNotValid               a link or form that was not made by us for this
├── LinkExpired                    one that was, too long ago
├── NotFound
├── Conflict                       right in itself, wrong in the present state
│   ├── QuotaExceeded
│   ├── ChannelNotRegistered
│   ├── ConfirmationNeeded
│   └── WrongState
├── Unavailable                    passes by itself; try again
├── CommandPending                 the command on the instance still runs
├── CommandFailed                  it ended without a result
├── InstancePending                EC2 does not show yet what its event said
├── DeliveryFailed                 a message did not reach its channel
├── SettingsError                  a variable of the environment is missing or wrong
└── AdminError                     what the deploying person asked for cannot be done
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class FieldError:
    """What is wrong with one field. `field` is its name (`notify[1]` inside a list), or a header or parameter."""

    field: str
    message: str
    allowed: str | None = None
    """What is allowed, in words or as a list."""


class NodError(Exception):
    """Base of all errors. `str()` is a sentence for the caller, and never holds a secret."""

    code = "error"
    title = "Error"

    def __init__(self, detail: str, errors: Sequence[FieldError] = ()) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors = tuple(errors)


class InvalidRequest(NodError):  # noqa: N818 - the names say what happened, as HTTP's own do
    code = "invalid_request"
    title = "The request cannot be used"


class BodyTooLarge(InvalidRequest):
    code = "body_too_large"
    title = "The body is too large"


class UnsupportedMediaType(InvalidRequest):
    code = "unsupported_media_type"
    title = "The body has the wrong media type"


class MalformedBody(InvalidRequest):
    code = "malformed_body"
    title = "The body cannot be read"


class InvalidFields(InvalidRequest):
    code = "invalid_fields"
    title = "Some fields are not valid"


class IdempotencyKeyReused(InvalidRequest):
    code = "idempotency_key_reused"
    title = "The Idempotency-Key was used with another body"


class NotAuthenticated(NodError):  # noqa: N818
    code = "not_authenticated"
    title = "No valid token"


class NotAllowed(NodError):  # noqa: N818
    code = "not_allowed"
    title = "Your user may not have this"


class LinkNotValid(NotAllowed):
    code = "link_not_valid"
    title = "This link does not work"


class LinkExpired(NodError):  # noqa: N818
    code = "link_expired"
    title = "This link is too old"


class NotFound(NodError):  # noqa: N818
    code = "not_found"
    title = "Not found"


class Conflict(NodError):  # noqa: N818
    code = "conflict"
    title = "Not possible now"


class QuotaExceeded(Conflict):
    code = "quota_exceeded"
    title = "The quota is used up"


class ChannelNotRegistered(Conflict):
    code = "channel_not_registered"
    title = "Your user has no such channel"


class ConfirmationNeeded(Conflict):
    code = "confirmation_needed"
    title = "Confirm what would be lost"


class WrongState(Conflict):
    code = "wrong_state"
    title = "Not possible in this state"


class Unavailable(NodError):  # noqa: N818
    code = "unavailable"
    title = "Not available just now"
    retry_after = 5
    """Seconds after which to try again."""


class CommandPending(NodError):  # noqa: N818 - the name is the error's name in launch.asl.yaml
    code = "command_pending"
    title = "The command still runs"


class CommandFailed(NodError):  # noqa: N818 - likewise
    """Its `str()` is the cause for the workflow: JSON with `code` and `message`."""

    code = "command_failed"
    title = "The command failed"

    def __init__(self, failure_code: str, message: str) -> None:
        super().__init__(json.dumps({"code": failure_code, "message": message}))
        self.failure_code = failure_code
        self.message = message


class InstancePending(NodError):  # noqa: N818
    code = "instance_pending"
    title = "EC2 does not show yet what its event said"


class DeliveryFailed(NodError):  # noqa: N818
    code = "delivery_failed"
    title = "A message was not delivered"


class SettingsError(NodError):
    code = "settings"
    title = "The deployment's settings are wrong"


class AdminError(NodError):
    code = "admin"
    title = "Not done"
