"""The deployment's settings, from the environment of each Lambda (docs/contracts.md)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from chalicelib.errors import SettingsError

_STAGE = re.compile(r"[a-z][a-z0-9-]{0,19}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Settings:
    """Read once per process. The names are those of the variables, without `NOD_`."""

    stage: str
    region: str
    notebooks_table: str
    users_table: str
    heartbeats_table: str
    events_table: str
    sweeps_table: str
    launch_arn: str
    stop_arn: str
    start_arn: str
    password_arn: str
    terminate_arn: str
    undo_arn: str
    topic_arn: str
    launch_template_id: str
    subnet_ids: tuple[str, ...]
    """In order of preference."""
    installer_url: str | None
    installer_sha256: str | None
    image: str | None
    slack_origin: str
    minute: timedelta
    """How long a minute of limits, warnings and heartbeats lasts: less than 60 s only where one tries it out."""
    api_url: str | None
    """Where the API is called, where the request cannot say it (the local cloud). No slash at the end."""

    def instance_arn(self, instance_id: str) -> str:
        """The key of an instance's heartbeat. Account and partition are those of the workflows."""
        _, partition, _, _, account, *_ = self.launch_arn.split(":")
        return f"arn:{partition}:ec2:{self.region}:{account}:instance/{instance_id}"

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Settings:
        """Reads and checks.

        Raises:
            SettingsError: names the variable that is missing or wrong.
        """
        url, sha256 = env.get("NOD_INSTALLER_URL") or None, env.get("NOD_INSTALLER_SHA256") or None
        if (url is None) != (sha256 is None):
            raise SettingsError("NOD_INSTALLER_URL and NOD_INSTALLER_SHA256 go together: set both or none.")
        if sha256 is not None and not _SHA256.fullmatch(sha256):
            raise SettingsError("NOD_INSTALLER_SHA256 is not 64 hex digits in lower case.")
        subnets = tuple(part.strip() for part in _need(env, "NOD_SUBNET_IDS").split(",") if part.strip())
        if not subnets:
            raise SettingsError("NOD_SUBNET_IDS names no subnet.")
        return cls(
            stage=stage(env),
            region=_need(env, "AWS_REGION"),
            notebooks_table=_need(env, "NOD_NOTEBOOKS_TABLE"),
            users_table=_need(env, "NOD_USERS_TABLE"),
            heartbeats_table=_need(env, "NOD_HEARTBEATS_TABLE"),
            events_table=_need(env, "NOD_EVENTS_TABLE"),
            sweeps_table=_need(env, "NOD_SWEEPS_TABLE"),
            launch_arn=_need(env, "NOD_LAUNCH_ARN"),
            stop_arn=_need(env, "NOD_STOP_ARN"),
            start_arn=_need(env, "NOD_START_ARN"),
            password_arn=_need(env, "NOD_PASSWORD_ARN"),
            undo_arn=_need(env, "NOD_UNDO_ARN"),
            terminate_arn=_need(env, "NOD_TERMINATE_ARN"),
            topic_arn=_need(env, "NOD_TOPIC_ARN"),
            launch_template_id=_need(env, "NOD_LAUNCH_TEMPLATE_ID"),
            subnet_ids=subnets,
            installer_url=url,
            installer_sha256=sha256,
            image=env.get("NOD_IMAGE") or None,
            slack_origin=(env.get("NOD_SLACK_ORIGIN") or "https://hooks.slack.com").rstrip("/"),
            minute=minute_of(env.get("NOD_MINUTE_SECONDS") or "60"),
            api_url=(env.get("NOD_API_URL") or "").rstrip("/") or None,
        )


def stage(env: Mapping[str, str]) -> str:
    """The deployment's name. Alone needed while packaging, for the name of the topic.

    Raises:
        SettingsError: `NOD_STAGE` is missing or not a name.
    """
    value = _need(env, "NOD_STAGE")
    if not _STAGE.fullmatch(value):
        raise SettingsError("NOD_STAGE has to be 1 to 20 of a-z, 0-9 and hyphen, and to begin with a letter.")
    return value


def minute_of(text: str) -> timedelta:
    """How long a minute lasts, from `NOD_MINUTE_SECONDS`.

    Raises:
        SettingsError: it is no number of seconds that a minute could last.
    """
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.01 <= seconds <= 60:
        raise SettingsError("NOD_MINUTE_SECONDS has to be a number of seconds from 0.01 to 60.")
    return timedelta(seconds=seconds)


def _need(env: Mapping[str, str], name: str) -> str:
    value = env.get(name)
    if not value:
        raise SettingsError(f"The environment variable {name} is missing.")
    return value
