"""A deployment, seen from the machine of who runs it."""

from __future__ import annotations

import os
import re
from functools import cached_property
from typing import Any

import boto3

from chalicelib.aws.parameters import SlackAddresses
from chalicelib.aws.topic import Topic
from chalicelib.aws.users import UsersTable
from chalicelib.errors import AdminError


class Deployment:
    """Takes its stage, and a boto3 session (its region and credentials say which account) or a region.

    Without either the region is that of AWS_REGION, which AWS's other tools go by and boto3 does not, else that of the
    AWS configuration.
    """

    def __init__(self, stage: str, session: Any = None, *, region: str | None = None) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9-]{0,19}", stage):
            raise AdminError(f"{stage!r} is no stage: 1 to 20 of a-z, 0-9 and hyphen, beginning with a letter.")
        self.stage = stage
        self._session = session or boto3.Session(region_name=region or os.environ.get("AWS_REGION") or None)

    @property
    def region(self) -> str | None:
        """The region that is asked; None if none is known."""
        found: str | None = self._session.region_name
        return found

    def check(self) -> None:
        """Asks for a row of the deployment's table of users.

        Without it a Slack channel could be registered for a deployment that is not there.

        Raises:
            ClientError: the table is not there, or these credentials may not read it.
        """
        self._session.client("dynamodb").scan(TableName=f"nod-{self.stage}-users", Limit=1)

    @cached_property
    def users(self) -> UsersTable:
        return UsersTable(self._session.client("dynamodb"), f"nod-{self.stage}-users")

    @cached_property
    def topic(self) -> Topic:
        identity = self._session.client("sts").get_caller_identity()
        partition, account = identity["Arn"].split(":")[1], identity["Account"]
        sns = self._session.client("sns")
        return Topic(sns, f"arn:{partition}:sns:{sns.meta.region_name}:{account}:nod-{self.stage}-messages")

    @cached_property
    def slack(self) -> SlackAddresses:
        return SlackAddresses(self._session.client("ssm"), self.stage)
