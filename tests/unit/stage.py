"""A deployment in moto, in this process, for tests of the app and its gateways."""

from __future__ import annotations

import importlib
import io
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import boto3
from botocore.config import Config
from chalice.test import Client, HTTPResponse
from moto import mock_aws

from admin.deployment import Deployment
from admin.users import add_user
from chalicelib.model import User
from local.aws import attribute_values
from local.patches import Patches
from tests.lines import captured, wrong

ROOT = Path(__file__).resolve().parents[2]
ACCOUNT, REGION, STAGE = "123456789012", "us-east-1", "test"
MACHINES = ("launch", "undo", "stop", "start", "password", "terminate")
"""The state machines."""
ENV = {
    "AWS_REGION": REGION,
    "AWS_DEFAULT_REGION": REGION,
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "NOD_STAGE": STAGE,
    "NOD_NOTEBOOKS_TABLE": f"nod-{STAGE}-notebooks",
    "NOD_USERS_TABLE": f"nod-{STAGE}-users",
    "NOD_HEARTBEATS_TABLE": f"nod-{STAGE}-heartbeats",
    "NOD_EVENTS_TABLE": f"nod-{STAGE}-events",
    "NOD_SWEEPS_TABLE": f"nod-{STAGE}-sweeps",
    **{
        f"NOD_{machine.upper()}_ARN": f"arn:aws:states:{REGION}:{ACCOUNT}:stateMachine:nod-{STAGE}-{machine}"
        for machine in MACHINES
    },
    "NOD_TOPIC_ARN": f"arn:aws:sns:{REGION}:{ACCOUNT}:nod-{STAGE}-messages",
    "NOD_LAUNCH_TEMPLATE_ID": "lt-0123456789abcdef0",
    "NOD_SUBNET_IDS": "subnet-a,subnet-b",
    # The public images that moto knows take longer to make than most tests, and no test asks for them.
    "MOTO_EC2_LOAD_DEFAULT_AMIS": "false",
}


API_URL = "https://api.example/api"
"""Where the app thinks it is called: API Gateway says it on AWS, the setting says it where there is none."""


class OneOfEachClient(boto3.Session):
    """A session whose clients are made once: making one takes as long as some twenty calls of moto."""

    def __init__(self) -> None:
        super().__init__(region_name=REGION, aws_access_key_id="testing", aws_secret_access_key="testing")
        self._made: dict[str, Any] = {}

    def client(self, service_name: str, **options: Any) -> Any:  # type: ignore[override]
        return self._one(
            f"{service_name} {options}", lambda: super(OneOfEachClient, self).client(service_name, **options)
        )

    def create_client(self, service: str, config: Config) -> Any:
        """What chalicelib/aws/clients.py asks of botocore's session: another client, for its retries are others."""
        name = f"{service} {vars(config)['_user_provided_options']}"
        return self._one(name, lambda: self._session.create_client(service, config=config))

    def _one(self, name: str, make: Callable[[], Any]) -> Any:
        if name not in self._made:
            self._made[name] = make()
        return self._made[name]


attribute_values.install(Patches())
# One for all tests: each new session reads the models of the services again.
SESSION = OneOfEachClient()


class Stage:
    """Tables, topic, state machines (which do not run) and a fresh app."""

    def __init__(self, app: ModuleType) -> None:
        self.app = app
        app.clients._session = SESSION
        self.admin = Deployment(STAGE, SESSION)
        self.dynamodb = SESSION.client("dynamodb")
        self.stepfunctions = SESSION.client("stepfunctions")
        self.sns = SESSION.client("sns")
        self.ssm = SESSION.client("ssm")
        self._client = Client(app.app, project_dir=str(ROOT / "tests"))

    def http(self, method: str, path: str, token: str | None = None, body: Any = None, **headers: str) -> HTTPResponse:
        """One request; a body that is no bytes is sent as JSON. `Content_Type` in headers stands for Content-Type."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if token is not None:
            sent["Authorization"] = f"Bearer {token}"
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        if body is not None:
            sent.setdefault("Content-Type", "application/json")
        return self._client.http.request(method, path, headers=sent, body=body if body is not None else b"")

    def record(self, notebook_id: str) -> dict[str, Any]:
        """The raw row of a notebook, empty if there is none."""
        answer = self.dynamodb.get_item(TableName=ENV["NOD_NOTEBOOKS_TABLE"], Key={"id": {"S": notebook_id}})
        return dict(answer.get("Item", {}))

    def change(self, notebook_id: str, **values: Any) -> None:
        """Writes into a row, as the workflow would."""
        from chalicelib.aws.items import to_attribute  # noqa: PLC0415

        for name, value in values.items():
            self.dynamodb.update_item(
                TableName=ENV["NOD_NOTEBOOKS_TABLE"],
                Key={"id": {"S": notebook_id}},
                UpdateExpression="SET #name = :value",
                ExpressionAttributeNames={"#name": name},
                ExpressionAttributeValues={":value": to_attribute(value)},
            )

    def executions(self, machine: str) -> list[dict[str, Any]]:
        """Executions of one of MACHINES, newest first."""
        answer = self.stepfunctions.list_executions(stateMachineArn=ENV[f"NOD_{machine.upper()}_ARN"])
        return list(answer["executions"])

    def count(self) -> int:
        """Notebooks in the table."""
        return int(self.dynamodb.scan(TableName=ENV["NOD_NOTEBOOKS_TABLE"], Select="COUNT")["Count"])


@contextmanager
def stage() -> Iterator[Stage]:
    """A fresh deployment; everything is gone after it, and each of its log lines was looked at."""
    with captured() as lines, mock.patch.dict(os.environ, {**ENV, "NOD_API_URL": API_URL}), mock_aws():
        os.environ.pop("AWS_ENDPOINT_URL", None)
        _tables(SESSION.client("dynamodb"))
        SESSION.client("sns").create_topic(Name=f"nod-{STAGE}-messages")
        for machine in MACHINES:
            SESSION.client("stepfunctions").create_state_machine(
                name=f"nod-{STAGE}-{machine}",
                definition=json.dumps({"StartAt": "End", "States": {"End": {"Type": "Succeed"}}}),
                roleArn=f"arn:aws:iam::{ACCOUNT}:role/any",
            )
        yield Stage(fresh_app())
    assert not wrong(lines.all())


def fresh_app() -> ModuleType:
    """app.py imported anew: it reads the environment once."""
    sys.modules.pop("app", None)
    return importlib.import_module("app")


@contextmanager
def logged() -> Iterator[io.StringIO]:
    """What the product logs meanwhile, as it would stand in CloudWatch."""
    handlers = [handler for handler in logging.getLogger("nod").handlers if isinstance(handler, logging.StreamHandler)]
    assert handlers
    lines = io.StringIO()
    before = [handler.setStream(lines) for handler in handlers]
    try:
        yield lines
    finally:
        for handler, stream in zip(handlers, before, strict=True):
            handler.setStream(stream)


def user(deployed: Stage, name: str = "ada", **options: Any) -> str:
    """Adds a user, returns the token."""
    return add_user(deployed.admin, name, **options)


def person(deployed: Stage, name: str = "ada") -> User:
    """Who has that name now."""
    found = deployed.admin.users.named(name)
    assert found is not None
    return found


def _tables(dynamodb: Any) -> None:
    def key(name: str, kind: str = "HASH") -> dict[str, str]:
        return {"AttributeName": name, "KeyType": kind}

    dynamodb.create_table(
        TableName=ENV["NOD_NOTEBOOKS_TABLE"],
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[
            {"AttributeName": name, "AttributeType": "S"}
            for name in ("id", "owner", "created_at", "instance_id", "due", "due_at")
        ],
        KeySchema=[key("id")],
        GlobalSecondaryIndexes=[
            {
                "IndexName": "owner-index",
                "KeySchema": [key("owner"), key("created_at", "RANGE")],
                "Projection": {"ProjectionType": "ALL"},
            },
            {
                "IndexName": "instance_id-index",
                "KeySchema": [key("instance_id")],
                "Projection": {"ProjectionType": "INCLUDE", "NonKeyAttributes": ["wait_token", "state"]},
            },
            {
                "IndexName": "due-index",
                "KeySchema": [key("due"), key("due_at", "RANGE")],
                "Projection": {"ProjectionType": "KEYS_ONLY"},
            },
        ],
    )
    for table, name in (("USERS", "id"), ("HEARTBEATS", "id"), ("SWEEPS", "id")):
        dynamodb.create_table(
            TableName=ENV[f"NOD_{table}_TABLE"],
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"}],
            KeySchema=[key(name)],
        )
    dynamodb.create_table(
        TableName=ENV["NOD_EVENTS_TABLE"],
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in ("notebook", "at")],
        KeySchema=[key("notebook"), key("at", "RANGE")],
    )
