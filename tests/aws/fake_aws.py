"""AWS as a test says it answers, held to the services' own models: a call or an answer that AWS could not make fails.

Nothing is sent: an operation without an answer is an error of the test. What was called is kept in order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import boto3
from botocore.exceptions import ClientError
from botocore.validate import ParamValidator

ACCOUNT, REGION = "123456789012", "eu-central-1"
# What only looks. Everything else changes something.
READING = ("Get", "Describe", "List", "Head", "Scan", "Query")
Answer = Callable[[dict[str, Any]], Any] | dict[str, Any] | Exception


def refusal(code: str, message: str = "no", operation: str = "Any", status: int = 400) -> ClientError:
    """The error that boto3 raises for a refused call."""
    return ClientError(
        {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}, operation
    )


class FakeAws(boto3.Session):
    """A session. `answers` by `service:Operation`: a value, an error, or what makes one of the parameters."""

    # Making one takes a third of a second.
    _clients: ClassVar[dict[tuple[str, str], Any]] = {}

    def __init__(self, answers: dict[str, Answer] | None = None, region: str | None = REGION) -> None:
        super().__init__(aws_access_key_id="testing", aws_secret_access_key="testing", region_name=region)
        self._region = region
        self.answers = dict(answers or {})
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def client(self, service: str, **options: Any) -> Any:  # type: ignore[override]
        key = (service, options.get("region_name", ""))
        if key not in self._clients:
            self._clients[key] = super().client(service, **options)  # type: ignore[call-overload]
        client = self._clients[key]

        def call(operation: str, parameters: dict[str, Any]) -> Any:
            model = client.meta.service_model.operation_model(operation)
            if model.input_shape is not None:
                found = ParamValidator().validate(parameters, model.input_shape)
                assert not found.has_errors(), f"{operation}: {found.generate_report()}"
            name = f"{service}:{operation}"
            self.calls.append((name, parameters))
            assert name in self.answers, f"the test has no answer for {name} {parameters}"
            answer = self.answers[name]
            if callable(answer):
                answer = answer(parameters)
            if isinstance(answer, Exception):
                raise answer
            if model.output_shape is not None:
                found = ParamValidator().validate(answer, model.output_shape)
                assert not found.has_errors(), f"{operation} answers: {found.generate_report()}"
            return answer

        client._make_api_call = call
        return client

    @property
    def region_name(self) -> str | None:
        """As the test says; the environment may name another."""
        return self._region

    def changes(self) -> list[str]:
        """The calls that change something, in order."""
        return [name for name, _ in self.calls if not name.split(":")[1].startswith(READING)]

    def called(self, name: str) -> list[dict[str, Any]]:
        """The parameters of each call of this name."""
        return [parameters for one, parameters in self.calls if one == name]


def in_turn(*answers: Any) -> Callable[[dict[str, Any]], Any]:
    """One answer after the other; the last one for ever."""
    left = list(answers)
    return lambda _: left.pop(0) if len(left) > 1 else left[0]


def account(**changed: Answer) -> dict[str, Answer]:
    """An account with a default VPC with two public subnets, and nothing of ours. Names with `__` for the colon."""
    usual: dict[str, Answer] = {
        "sts:GetCallerIdentity": {
            "UserId": "AIDA",
            "Account": ACCOUNT,
            "Arn": f"arn:aws:iam::{ACCOUNT}:user/ada",
        },
        "cloudformation:DescribeStacks": refusal("ValidationError", "Stack with id nod-prod does not exist"),
        "ec2:DescribeVpcs": {"Vpcs": [{"VpcId": "vpc-1", "IsDefault": True}]},
        "ec2:DescribeSubnets": lambda asked: {
            "Subnets": [
                one
                for one in (subnet("subnet-bbbbbbbb", "b"), subnet("subnet-aaaaaaaa", "a"))
                if one["SubnetId"] in asked.get("SubnetIds", [one["SubnetId"]])
            ]
        },
        "ec2:DescribeAvailabilityZones": {
            "AvailabilityZones": [
                {"ZoneName": f"{REGION}{letter}", "ZoneType": "availability-zone"} for letter in "abc"
            ]
        },
        "ec2:DescribeRouteTables": {"RouteTables": [routes("igw-1", main=True)]},
        "ec2:DescribeInstanceTypeOfferings": lambda asked: {
            "InstanceTypeOfferings": [
                {"InstanceType": kind, "Location": f"{REGION}{zone}"}
                for zone in "ab"
                for kind in asked["Filters"][0]["Values"]
            ]
        },
        "dynamodb:DescribeTable": refusal("ResourceNotFoundException"),
        "apigateway:GetAccount": {},
    }
    return usual | {name.replace("__", ":"): answer for name, answer in changed.items()}


def subnet(name: str, zone: str, vpc: str = "vpc-1", public: bool = True) -> dict[str, Any]:
    return {
        "SubnetId": name,
        "VpcId": vpc,
        "AvailabilityZone": f"{REGION}{zone}",
        "MapPublicIpOnLaunch": public,
    }


def routes(gateway: str, *, main: bool = False, subnet_id: str | None = None, state: str = "active") -> dict[str, Any]:
    association: dict[str, Any] = {"Main": main}
    if subnet_id:
        association["SubnetId"] = subnet_id
    return {
        "Routes": [
            {"DestinationCidrBlock": "172.31.0.0/16", "GatewayId": "local", "State": "active"},
            {"DestinationCidrBlock": "0.0.0.0/0", "GatewayId": gateway, "State": state},
        ],
        "Associations": [association],
    }
