"""Bodies and fields: what is accepted, what is refused, and with which words."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib import body
from chalicelib.errors import BodyTooLarge, InvalidFields, InvalidRequest, MalformedBody, UnsupportedMediaType
from chalicelib.model import REQUEST_FIELDS, LaunchRequest

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=20,
)
HASH = "argon2:$argon2id$v=19$m=10240,t=10,p=8$" + "A" * 22 + "$" + "A" * 43


def refused(document: dict[str, Any]) -> dict[str, str]:
    """Field → what is allowed."""
    with pytest.raises(InvalidFields) as caught:
        LaunchRequest.from_json(document)
    assert caught.value.errors
    return {entry.field: entry.allowed or "" for entry in caught.value.errors}


def test_an_empty_body_is_a_request_with_defaults() -> None:
    request = LaunchRequest.from_json({})
    assert (request.volume_gib, request.idle_minutes, request.max_hours, request.environment) == (
        30,
        60,
        None,
        "anaconda",
    )


def test_every_field_is_taken_over() -> None:
    request = LaunchRequest.from_json(
        {
            "name": "thesis",
            "instance_type": "t3.large",
            "volume_gib": 100,
            "idle_minutes": 30,
            "max_hours": 8,
            "password": "correct horse",
            "notify": ["email", "slack:team"],
            "environment": "anaconda",
            "purchase": "on-demand",
        }
    )
    assert request.notify == ("email", "slack:team")
    assert (request.name, request.instance_type, request.max_hours) == ("thesis", "t3.large", 8)
    assert "correct horse" not in repr(request)


def test_unknown_fields_are_named_with_those_that_exist() -> None:
    assert "instance_type" in refused({"instanceType": "t3.medium"})["instanceType"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("name", "-a"),
        ("name", "a-"),
        ("name", "a" * 41),
        ("name", "Thesis"),
        ("name", "a\n"),
        ("name", None),
        ("instance_type", "t3.enormous"),
        ("instance_type", 3),
        ("volume_gib", 15),
        ("volume_gib", 1025),
        ("volume_gib", "30"),
        ("volume_gib", True),
        ("volume_gib", 30.5),
        ("idle_minutes", 4),
        ("max_hours", 0),
        ("password", "elevenchars"),
        ("password", "x" * 257),
        ("password", "with a tab\t here"),
        ("password_hash", "sha1:abc:def"),
        ("password_hash", HASH.replace("p=8", "p=8000")),
        ("password_hash", HASH.replace("m=10240", "m=4000000")),
        ("password_hash", HASH.replace("m=10240", "m=010240")),
        ("password_hash", HASH.replace("t=10", "t=2")),
        ("password_hash", HASH.replace("argon2id", "argon2i")),
        ("password_hash", HASH + "\n"),
        ("password_hash", HASH[:-1] + "B"),
        ("notify", "email"),
        ("notify", ["email", "email"]),
        ("notify", ["pager"]),
        ("notify", ["slack:Team"]),
        ("notify", [f"slack:c{number}" for number in range(11)]),
        ("environment", "miniforge"),
        ("purchase", "spot"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(field: str, value: object) -> None:
    found = refused({field: value})
    assert all(name.startswith(field) for name in found)
    assert all(found.values())


def test_spot_is_refused_with_its_reason() -> None:
    with pytest.raises(InvalidFields, match="cannot be stopped"):
        LaunchRequest.from_json({"purchase": "spot"})


def test_all_wrong_fields_are_named_at_once() -> None:
    assert set(refused({"name": "", "volume_gib": 1, "color": 1})) == {"name", "volume_gib", "color"}


def test_thousands_of_wrong_fields_make_no_long_answer() -> None:
    with pytest.raises(InvalidFields, match="And 4999 more") as caught:
        LaunchRequest.from_json({f"k{number}": 0 for number in range(5000)})
    assert len(caught.value.errors) == 50


def test_numbers_out_of_bounds_are_refused_in_words_of_ours() -> None:
    with pytest.raises(MalformedBody, match="a number is out of bounds") as caught:
        body.read_json(b'{"volume_gib": ' + b"9" * 5000 + b"}", None)
    assert "sys." not in caught.value.detail


def test_password_and_its_hash_exclude_one_another() -> None:
    assert LaunchRequest.from_json({"password_hash": HASH}).password_hash == HASH
    assert "password_hash" in refused({"password": "correct horse", "password_hash": HASH})


@given(JSON)
def test_any_json_is_a_request_or_names_its_fields(value: object) -> None:
    try:
        document = body.read_json(json.dumps(value).encode(), "application/json")
        LaunchRequest.from_json(document)
    except InvalidRequest as error:
        assert error.detail


@given(st.dictionaries(st.sampled_from(sorted(REQUEST_FIELDS)), JSON))
def test_known_fields_with_any_value_never_crash(document: dict[str, object]) -> None:
    try:
        LaunchRequest.from_json(document)
    except InvalidFields as error:
        assert {entry.field.split("[")[0] for entry in error.errors} <= set(REQUEST_FIELDS)


@given(st.binary(max_size=300))
def test_any_bytes_are_an_object_or_refused(raw: bytes) -> None:
    try:
        assert isinstance(body.read_json(raw, None), dict)
    except MalformedBody as error:
        assert error.errors


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b" ",
        b"[]",
        b"null",
        b'"text"',
        b"{",
        b"{} {}",
        b'{"name": "a", "name": "b"}',
        b'{"volume_gib": NaN}',
        b'{"volume_gib": Infinity}',
        b'{"volume_gib": 1e999}',
        b'{"volume_gib": ' + b"9" * 5000 + b"}",
        b'{"volume_gib": ' + b"9" * 5000 + b"}",
        b'{"name": "\\ud800"}',
        b'{"\\udfff": 1}',
        b'{"name": "\xff"}',
        b"\xef\xbb\xbf{}",
        b'{"a": ' + b"[" * 30 + b"]" * 30 + b"}",
        b"[" * 20000,
    ],
)
def test_what_could_be_read_in_two_ways_or_not_at_all_is_refused(raw: bytes) -> None:
    with pytest.raises(MalformedBody):
        body.read_json(raw, "application/json")


def test_a_body_over_64_kib_is_refused_before_it_is_read() -> None:
    assert body.read_json(b'{"a":"' + b"x" * (65536 - 8) + b'"}', None)
    with pytest.raises(BodyTooLarge):
        body.read_json(b" " * 65537, "text/plain")


@pytest.mark.parametrize("kind", ["application/json", "Application/JSON; charset=UTF-8", None])
def test_json_in_utf8_is_read(kind: str | None) -> None:
    assert body.read_json(b'{"name": "a"}', kind) == {"name": "a"}


@pytest.mark.parametrize("kind", ["", "text/plain", "*/*", "application/json; charset=utf-16", "application/jsonx"])
def test_other_media_types_are_refused(kind: str) -> None:
    with pytest.raises(UnsupportedMediaType):
        body.read_json(b"{}", kind)


def test_a_whole_number_may_be_written_with_a_point() -> None:
    assert LaunchRequest.from_json(body.read_json(b'{"volume_gib": 30.0}', None)).volume_gib == 30


def test_equal_content_has_equal_bytes() -> None:
    one = body.read_json(b'{"a": 1, "b": [2, "x"]}', None)
    other = body.read_json(b'{ "b":[2,"\\u0078"] , "a":1.0}', None)
    assert body.canonical(one) == body.canonical(other)
    assert body.canonical(one) != body.canonical({"a": 1, "b": ["x", 2]})
