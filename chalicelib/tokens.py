"""Tokens: `nod.USER.SECRET`, where USER is the user's id: a name may belong to somebody else tomorrow. Only the SHA-256
of SECRET is stored: 256 random bits need no slow hash."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from typing import AnyStr, NamedTuple

IDEMPOTENCY_KEY = r"[\x21-\x7e]{1,255}"
USER_NAME = r"[a-z][a-z0-9-]{0,31}"
USER_ID = r"us-[0-9a-f]{20}"
_TOKEN = re.compile(rf"nod\.({USER_NAME})\.([A-Za-z0-9_-]{{43}})")
_NOTEBOOK_ID = re.compile(r"nb-[0-9a-f]{20}")


class Token(NamedTuple):
    """The two parts of a token: the user's id, and the `secret`, which never leaves the process."""

    user: str
    secret: str

    def __repr__(self) -> str:
        return f"Token(user={self.user!r}, secret=…)"


def parse_authorization(header: str | None) -> Token | None:
    """The token of an `Authorization: Bearer …` header; None if there is none of the right form."""
    if header is None:
        return None
    scheme, _, credentials = header.partition(" ")
    found = _TOKEN.fullmatch(credentials.strip()) if scheme.lower() == "bearer" else None
    return Token(found[1], found[2]) if found else None


def new_user_id() -> str:
    """`us-` and 20 hex digits, at random: 80 bits, so that no two users ever share one."""
    return f"us-{secrets.token_hex(10)}"


def new_secret() -> str:
    """256 random bits as 43 characters that may stand in a header."""
    return secrets.token_urlsafe(32)


def fingerprint(secret: str) -> str:
    """What is stored of a secret: its SHA-256, 64 hex digits."""
    return hashlib.sha256(secret.encode()).hexdigest()


def matches(secret: str, stored: str | None) -> bool:
    """Compares in constant time. An unknown user (None) takes as long as a wrong secret."""
    same = hmac.compare_digest(fingerprint(secret), stored if stored is not None else "0" * 64)
    return same and stored is not None


def new_hmac_key() -> str:
    """32 random bytes in base64: the key of a user's idempotency HMACs."""
    return base64.b64encode(secrets.token_bytes(32)).decode("ascii")


def notebook_id(hmac_key: str, user_id: str, idempotency_key: str | None) -> str:
    """`nb-` and 20 hex digits: the same for the same user and key, random without a key."""
    if idempotency_key is None:
        return f"nb-{secrets.token_hex(10)}"
    return f"nb-{_hmac(hmac_key, b'id', user_id.encode(), idempotency_key.encode())[:20]}"


def is_notebook_id(text: str) -> bool:
    """Whether it has the form of an id, so that it is worth looking up."""
    return _NOTEBOOK_ID.fullmatch(text) is not None


def body_hmac(hmac_key: str, body: bytes) -> str:
    """What is kept of a body, to compare it with a later one: it can hold a password, so no plain hash."""
    return _hmac(hmac_key, b"body", body)


def same_hmac(one: AnyStr, other: AnyStr) -> bool:
    """Compares in constant time."""
    return hmac.compare_digest(one, other)


def hmac_of(key: str, *parts: bytes) -> bytes:
    """HMAC-SHA-256 of the parts under a user's key."""
    # The lengths keep ("a", "bc") and ("ab", "c") apart.
    message = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    return hmac.new(base64.b64decode(key), message, hashlib.sha256).digest()


def _hmac(key: str, *parts: bytes) -> str:
    return hmac_of(key, *parts).hex()
