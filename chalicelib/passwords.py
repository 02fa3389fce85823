"""Passwords of notebooks: made here, or chosen by their owner. Only the argon2 hash leaves this module's callers."""

from __future__ import annotations

import secrets
from collections.abc import Callable

# What we make: the minimum that OWASP's Password Storage Cheat Sheet names for Argon2id
# (https://cheatsheetseries.owasp.org/cheatsheets/Password_Storage_Cheat_Sheet.html). Jupyter's own are m=10240, t=10,
# p=8: two to three times the work at each login.
MEMORY_KIB, PASSES, LANES = 19456, 2, 1

MIN_LENGTH, MAX_LENGTH = 12, 256

LEAST_MEMORY_KIB = {1: 47104, 2: 19456, 3: 12288, 4: 9216, 5: 8192}
"""Memory that a hash has to have taken, by its passes (5 stands for more): what the same page names as equally good,
but for the last, which is 7168 there."""
MOST_MEMORY_KIB, MOST_PASSES, MOST_LANES = 256 * 1024, 16, 8
"""What a hash may cost the machine at each login: its owner who takes the most of all waits some seconds."""


def numbers(low: int, high: int) -> str:
    """A regular expression for the decimal numbers from `low` to `high`, both at least 1, without leading zeros."""
    parts = []
    while low <= high:
        zeros = 0
        while low % 10 ** (zeros + 1) == 0 and low + 10 ** (zeros + 1) - 1 <= high:
            zeros += 1
        first = last = low // 10**zeros
        while last % 10 < 9 and (last + 2) * 10**zeros - 1 <= high:
            last += 1
        head = str(first // 10) if first >= 10 else ""
        digit = str(last % 10) if first == last else f"[{first % 10}-{last % 10}]"
        parts.append(head + digit + (f"[0-9]{{{zeros}}}" if zeros else ""))
        low = (last + 1) * 10**zeros
    return f"({'|'.join(parts)})"


def _costs() -> str:
    found = []
    for passes, least in LEAST_MEMORY_KIB.items():
        times = numbers(passes, MOST_PASSES) if passes == max(LEAST_MEMORY_KIB) else str(passes)
        found.append(f"m={numbers(least, MOST_MEMORY_KIB)},t={times}")
    return f"({'|'.join(found)}),p=[1-{MOST_LANES}]"


# 16 to 65 bytes in base64 without padding. Where the last digit has bits to spare, they are zero.
_TAIL = "([A-Za-z0-9+/][AQgw]|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048])"
_BYTES = f"(([A-Za-z0-9+/]{{4}}){{5}}{_TAIL}|([A-Za-z0-9+/]{{4}}){{6,21}}{_TAIL}?)"

HASH_PATTERN = rf"argon2:\$argon2id\$v=19\${_costs()}\${_BYTES}\${_BYTES}"
"""A hash as Jupyter Server reads it, whole: argon2id, at least as strong as OWASP asks, and bounded in what it costs.
What `jupyter server password` writes is among them."""

# 32 characters that are not taken for one another (no 0 1 l o), 5 bits each: 140 bits.
_ALPHABET = "23456789abcdefghijkmnpqrstuvwxyz"
_GROUPS, _GROUP = 7, 4


def generate() -> str:
    """A password of 140 random bits: seven groups of four characters, to be read aloud if need be."""
    return "-".join("".join(secrets.choice(_ALPHABET) for _ in range(_GROUP)) for _ in range(_GROUPS))


def hashed(password: str) -> str:
    """The hash as Jupyter's `ServerApp.password` wants it: `argon2:$argon2id$…`. Takes some 30 ms and 19 MiB."""
    # Imported here: few of the Lambdas' calls need it.
    from argon2 import PasswordHasher  # noqa: PLC0415

    hasher = PasswordHasher(time_cost=PASSES, memory_cost=MEMORY_KIB, parallelism=LANES)
    return f"argon2:{hasher.hash(password)}"


def hashing(password: str) -> Callable[[], str]:
    """Begins to hash, and gives what waits for the hash and returns it, or raises what went wrong.

    argon2 lets go of Python's lock meanwhile, so that a cold start makes its clients in that time.
    """
    # Imported here, as argon2 is; and argon2 not by the other thread, which at each file that it reads would wait 5 ms
    # for Python's lock while this one is busy.
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415

    import argon2  # noqa: F401, PLC0415

    pool = ThreadPoolExecutor(1)
    future = pool.submit(hashed, password)
    pool.shutdown(wait=False)
    return future.result
