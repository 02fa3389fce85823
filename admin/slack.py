"""Slack channels: a name, and the address of an incoming webhook, kept as a SecureString."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from admin.deployment import Deployment
from chalicelib.errors import AdminError
from chalicelib.model import CHANNEL_NAME

ORIGIN = "https://hooks.slack.com"


def add_channel(deployment: Deployment, name: str, address: str, *, origin: str = ORIGIN) -> None:
    """Registers a channel, or gives it another address.

    Args:
        origin: where the deployment lets messages go (its `NOD_SLACK_ORIGIN`).

    Raises:
        AdminError: the name or the address is not valid.
    """
    if not re.fullmatch(CHANNEL_NAME, name):
        raise AdminError(f"{name!r} is no channel name: 1 to 32 of a-z, 0-9 and hyphen, beginning with a letter.")
    parts, allowed = urlsplit(address), urlsplit(origin)
    if (parts.scheme, parts.netloc) != (allowed.scheme, allowed.netloc) or len(parts.path) < 2:
        # The address is a secret: it is not repeated.
        raise AdminError(f"The address has to begin with {origin}/ and name a webhook.")
    deployment.slack.put(name, address)


def remove_channel(deployment: Deployment, name: str) -> None:
    """Removes a channel that no user has. Raises AdminError."""
    users = sorted(user.name for user in deployment.users.all() if user.slack == name)
    if users:
        raise AdminError(f"{', '.join(users)} still use it. Take it away first: user change NAME --slack ''")
    if not deployment.slack.remove(name):
        raise AdminError(f"There is no channel {name}.")
