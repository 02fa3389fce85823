"""The longest and widest that the product lets in: what AWS's limits have to hold."""

from __future__ import annotations

import argon2

from chalicelib import passwords
from chalicelib.model import ENVIRONMENT, STEPS, Notebook, User
from chalicelib.prices import catalogue

STAGE = "s" + "-" * 18 + "s"
OWNER = "o" + "-" * 30 + "o"
NAME = "n" + "-" * 38 + "n"
ID = f"nb-{'f' * 20}"
REGION = "ap-southeast-2"
ACCOUNT = "123456789012"
CHANNELS = ("email", *(f"slack:c{number}{'x' * 30}" for number in range(9)))
# A hash as long as a request may bring.
HASH = "argon2:" + argon2.PasswordHasher(
    time_cost=passwords.MOST_PASSES,
    memory_cost=passwords.MOST_MEMORY_KIB // 16,
    parallelism=passwords.MOST_LANES,
    salt_len=65,
    hash_len=65,
).hash("x")
MACHINES = ("launch", "undo", "terminate", "stop", "start", "password")


def environment(**more: str) -> dict[str, str]:
    """The environment of a function of the deployment with the longest names."""
    arn = f"arn:aws:states:{REGION}:{ACCOUNT}:stateMachine:nod-{STAGE}-"
    tables = {name: f"nod-{STAGE}-{name}" for name in ("notebooks", "users", "heartbeats", "events", "sweeps")}
    return {
        "NOD_STAGE": STAGE,
        "AWS_REGION": REGION,
        **{f"NOD_{name.upper()}_TABLE": table for name, table in tables.items()},
        **{f"NOD_{name.upper()}_ARN": f"{arn}{name}" for name in MACHINES},
        "NOD_TOPIC_ARN": f"arn:aws:sns:{REGION}:{ACCOUNT}:nod-{STAGE}-messages",
        "NOD_LAUNCH_TEMPLATE_ID": "lt-0123456789abcdef0",
        "NOD_SUBNET_IDS": ",".join(f"subnet-{number:017x}" for number in range(6)),
        **more,
    }


def notebook() -> Notebook:
    """A record as new, with the longest of what a request may say."""
    moment = "2026-11-30T00:00:00.000Z"
    return Notebook(
        id=ID,
        owner=OWNER,
        name=NAME,
        state="requested",
        created_at=moment,
        updated_at=moment,
        instance_type=max(catalogue().types, key=len),
        volume_gib=1024,
        idle_minutes=1440,
        environment=ENVIRONMENT,
        steps={step: {} for step in STEPS},
        notify=CHANNELS,
        notifications=dict.fromkeys(CHANNELS, "unconfirmed"),
        password_hash=HASH,
    )


def user() -> User:
    """Who may have every type of the catalogue."""
    return User(
        id=f"us-{'f' * 20}",
        name=OWNER,
        role="user",
        quota=1000,
        allowed_types=tuple(catalogue().types),
        token_sha256="0" * 64,
        secret="x" * 44,
        email=f"{'x' * 64}@{'y' * 60}.{'z' * 60}.example",
        slack=CHANNELS[1].removeprefix("slack:"),
    )
