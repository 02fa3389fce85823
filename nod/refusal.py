"""The API's refusals in the words of the command line."""

from __future__ import annotations

import difflib

from nod.errors import FieldError, RefusedError

OPTIONS = {
    **{
        name: f"--{name.replace('_', '-')}"
        for name in ("name", "volume_gib", "idle_minutes", "max_hours", "password_hash", "notify", "limit")
    },
    "instance_type": "--type",
    "Idempotency-Key": "--idempotency-key",
    "hours": "HOURS",
}
"""The API's field → what was typed for it."""

MOST = 8
"""Of longer lists so many values are shown."""

_COMMON = ("t3.medium", "t3.large", "t3.xlarge", "m7i.large", "m7i.xlarge", "c7i.xlarge", "r7i.xlarge", "g5.xlarge")
_FIELDS_SAY_ALL = frozenset({"invalid_fields", "not_allowed"})
"""The detail of these repeats the fields; the fields of all others repeat the detail."""


def lines(error: RefusedError) -> tuple[str, ...]:
    """What the API refused: its fields, one a line, or its sentence, whichever says more."""
    if error.fields and error.code in _FIELDS_SAY_ALL:
        return tuple(_line(field, error.sent.get(field.field)) for field in error.fields)
    return (error.message,)


def _line(field: FieldError, typed: object) -> str:
    name, bracket, _ = field.field.partition("[")
    option = OPTIONS.get(name, field.field)
    if bracket and name in OPTIONS:
        option += f" ({field.field})"
    allowed = f" {_allowed(field.allowed, typed)}" if field.allowed else ""
    return f"{option}: {field.message}{allowed}"


def _allowed(allowed: str, typed: object) -> str:
    values = allowed.split(", ")
    if len(values) <= MOST:
        return f"Allowed: {allowed}"
    close = difflib.get_close_matches(str(typed), values, MOST // 2) if typed else []
    common = [value for value in _COMMON if value in values]
    shown = list(dict.fromkeys(close + common + values))[:MOST]
    return f"Allowed: {', '.join(shown)} and {len(values) - MOST} more; the same command with --json lists all."
