"""From the bytes of a request to a JSON object, strictly: what two readers could read in two ways is refused."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from decimal import Decimal, InvalidOperation
from urllib.parse import parse_qsl

from chalicelib.errors import BodyTooLarge, FieldError, InvalidFields, MalformedBody, UnsupportedMediaType

MAX_BYTES = 64 * 1024
MAX_DEPTH = 20
JSON, FORM = "application/json", "application/x-www-form-urlencoded"


def read_json(raw: bytes, content_type: str | None, *, may_be_absent: bool = False) -> dict[str, object]:
    """The JSON object in `raw`.

    A missing content type counts as JSON, as it does for API Gateway. No body at all is an empty object where it
    `may_be_absent`, whatever content type comes with it: `curl -X POST` sends none, and `curl -d ''` calls it a form.

    Raises:
        BodyTooLarge, UnsupportedMediaType, MalformedBody
    """
    if not raw and may_be_absent:
        return {}
    if len(raw) > MAX_BYTES:
        raise BodyTooLarge(f"The body has {len(raw)} bytes; at most {MAX_BYTES} are allowed.")
    _check_media_type(content_type)
    try:
        value = json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=_object,
            parse_constant=_no_constant,
            parse_float=_number,
            parse_int=_whole,
        )
    except UnicodeDecodeError as error:
        raise _malformed("The body is not UTF-8.") from error
    except RecursionError as error:
        raise _malformed("The body is nested too deeply.") from error
    except ValueError as error:
        raise _malformed(f"The body is not JSON: {error}.") from error
    if not isinstance(value, dict):
        raise _malformed("The body is not a JSON object.")
    _check_content(value, MAX_DEPTH)
    return value


def read_form(raw: bytes, content_type: str | None, known: Collection[str]) -> dict[str, str]:
    """The fields of an HTML form, each at most once.

    Raises:
        BodyTooLarge, UnsupportedMediaType, MalformedBody, InvalidFields
    """
    if len(raw) > MAX_BYTES:
        raise BodyTooLarge(f"The form has {len(raw)} bytes; at most {MAX_BYTES} are allowed.")
    _check_media_type(content_type or "none", FORM)
    try:
        pairs = parse_qsl(
            raw.decode("ascii"), keep_blank_values=True, strict_parsing=bool(raw), errors="strict", max_num_fields=20
        )
    except ValueError as error:
        raise MalformedBody("The form cannot be read.", [FieldError("body", "It is no form.", FORM)]) from error
    found = dict(pairs)
    if len(found) < len(pairs):
        raise MalformedBody("The form has a field twice.", [FieldError("body", "A field is there twice.", "once")])
    if others := found.keys() - set(known):
        allowed = ", ".join(sorted(known))
        raise InvalidFields(
            "The form has a field that is not known here.",
            [FieldError(_printable(name), "There is no such field.", allowed) for name in sorted(others)],
        )
    return found


def canonical(value: Mapping[str, object]) -> bytes:
    """The same bytes for the same content, whatever the order of the keys and the spaces were."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, default=str)
    return text.encode("ascii")


def _check_media_type(content_type: str | None, wanted: str = JSON) -> None:
    if content_type is None:
        return
    kind, _, parameters = content_type.partition(";")
    charset = "utf-8"
    for parameter in parameters.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset":
            charset = value.strip().strip('"').lower()
    if kind.strip().lower() != wanted or charset not in ("utf-8", "utf8", "us-ascii"):
        raise UnsupportedMediaType(
            "The body has to be JSON in UTF-8." if wanted == JSON else "The body has to be a form.",
            [FieldError("Content-Type", "Not a media type that is read here.", wanted)],
        )


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in pairs:
        if key in found:
            raise MalformedBody(
                "The body has a key twice.", [FieldError(_printable(key), "It is there twice.", "once")]
            )
        found[key] = value
    return found


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def _whole(text: str) -> int:
    """Short, as _number: what Python says of thousands of digits is no answer for a caller."""
    if len(text) > 31:
        raise ValueError("a number is out of bounds")
    return int(text)


def _number(text: str) -> int | Decimal:
    """JSON Schema calls 30.0 an integer, so it is one here. Decimal, for a float would turn 1e999 into infinity."""
    try:
        number = Decimal(text)
    except InvalidOperation as error:
        raise ValueError("a number is out of bounds") from error
    if abs(number.adjusted()) > 30:
        raise ValueError("a number is out of bounds")
    return int(number) if number == number.to_integral_value() else number


def _check_content(value: object, depth: int) -> None:
    if depth == 0:
        raise _malformed(f"The body is nested deeper than {MAX_DEPTH} levels.")
    if isinstance(value, str):
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise _malformed("The body has half a character (a lone surrogate).")
    elif isinstance(value, list):
        for entry in value:
            _check_content(entry, depth - 1)
    elif isinstance(value, dict):
        for key, entry in value.items():
            _check_content(key, depth)
            _check_content(entry, depth - 1)


def _malformed(detail: str) -> MalformedBody:
    return MalformedBody(detail, [FieldError("body", detail, "one JSON object in UTF-8")])


def _printable(text: str) -> str:
    return text[:80].encode("ascii", "backslashreplace").decode("ascii")
