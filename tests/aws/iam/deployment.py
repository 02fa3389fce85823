"""The deployment as CloudFormation would make it: packaged, transformed by SAM, every reference a value.

Nothing is listed here: functions, state machines, roles and their policies are what the package holds.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from local.cloudformation import Resolver
from tests.aws.packaged import STAGE, transformed

ACCOUNT = "111122223333"
REGION = "eu-central-1"
PARAMETERS = {
    "Stage": STAGE,
    "VpcId": "vpc-0ours",
    "SubnetIds": ["subnet-0a", "subnet-0b"],
    "KeyName": "operators",
    "OperatorsEmail": "operators@example.com",
}
# What SAM attaches to a state machine that is traced, as "AWS managed policies for X-Ray" has it: five actions, none of
# which takes a resource.
MANAGED = {
    "arn:aws:iam::aws:policy/AWSXrayWriteOnlyAccess": {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Action": [
                    "xray:PutTraceSegments",
                    "xray:PutTelemetryRecords",
                    "xray:GetSamplingRules",
                    "xray:GetSamplingTargets",
                    "xray:GetSamplingStatisticSummaries",
                ],
                "Resource": "*",
            }
        ],
    },
    # By which API Gateway writes the logs of all APIs of a region; nothing of ours can take the role on.
    "arn:aws:iam::aws:policy/service-role/AmazonAPIGatewayPushToCloudWatchLogs": {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Action": [
                    "logs:CreateLogGroup",
                    "logs:CreateLogStream",
                    "logs:DescribeLogGroups",
                    "logs:DescribeLogStreams",
                    "logs:PutLogEvents",
                    "logs:GetLogEvents",
                    "logs:FilterLogEvents",
                ],
                "Resource": "*",
            }
        ],
    },
}

# What names a resource of each type, and the ARN that it makes.
_NAMED = {
    "AWS::DynamoDB::Table": ("TableName", "dynamodb", "table/{}"),
    "AWS::SNS::Topic": ("TopicName", "sns", "{}"),
    "AWS::SQS::Queue": ("QueueName", "sqs", "{}"),
    "AWS::Lambda::Function": ("FunctionName", "lambda", "function:{}"),
    "AWS::StepFunctions::StateMachine": ("StateMachineName", "states", "stateMachine:{}"),
    "AWS::CloudWatch::Alarm": ("AlarmName", "cloudwatch", "alarm:{}"),
    "AWS::Logs::LogGroup": ("LogGroupName", "logs", "log-group:{}:*"),
    "AWS::Events::Rule": ("Name", "events", "rule/{}"),
    "AWS::SSM::Document": ("Name", "ssm", "document/{}"),
    "AWS::IAM::Role": ("RoleName", "iam", "role/{}"),
    "AWS::IAM::InstanceProfile": ("InstanceProfileName", "iam", "instance-profile/{}"),
}
_REF_IS_ARN = {"AWS::SNS::Topic", "AWS::StepFunctions::StateMachine"}
# Of EC2, whose ids say nothing.
_IDS = {"AWS::EC2::LaunchTemplate": "lt-0ours", "AWS::EC2::SecurityGroup": "sg-0ours"}


class Deployment:
    """Resources with every reference resolved."""

    def __init__(self, template: Mapping[str, Any]) -> None:
        self.template = template
        self.stage, self.account, self.region = STAGE, ACCOUNT, REGION
        values = {name: rule.get("Default", "") for name, rule in template["Parameters"].items()} | PARAMETERS
        values = {
            name: value.split(",") if _is_list(template["Parameters"][name]) and isinstance(value, str) else value
            for name, value in values.items()
        }
        pseudo = {
            "AWS::AccountId": ACCOUNT,
            "AWS::Region": REGION,
            "AWS::Partition": "aws",
            "AWS::URLSuffix": "amazonaws.com",
            "AWS::StackName": f"nod-{STAGE}",
        }
        self._resolver = Resolver({**values, **pseudo}, self.ref, self.attribute, template.get("Conditions"))

    def properties(self, name: str) -> dict[str, Any]:
        """A resource's properties, resolved."""
        found: dict[str, Any] = self._resolver.resolve(self.template["Resources"][name].get("Properties", {}))
        return found

    def value(self, name: str, key: str) -> Any:
        """One property of a resource, resolved; None if it has none."""
        return self._resolver.resolve(self.template["Resources"][name].get("Properties", {}).get(key))

    def of_type(self, kind: str) -> list[str]:
        """Logical ids of a type."""
        return sorted(name for name, one in self.template["Resources"].items() if one["Type"] == kind)

    def name(self, logical: str) -> str:
        """The physical name of a resource."""
        resource = self.template["Resources"][logical]
        key = _NAMED[resource["Type"]][0]
        given = resource.get("Properties", {}).get(key)
        return str(self._resolver.resolve(given)) if given is not None else f"nod-{STAGE}-{logical}"

    def arn(self, logical: str) -> str:
        """The ARN of a resource."""
        kind = self.template["Resources"][logical]["Type"]
        _, service, rest = _NAMED[kind]
        region = "" if service == "iam" else REGION
        return f"arn:aws:{service}:{region}:{ACCOUNT}:{rest.format(self.name(logical))}"

    def ref(self, logical: str) -> str:
        """What Ref gives."""
        kind = self.template["Resources"][logical]["Type"]
        if kind in _IDS:
            return _IDS[kind]
        if kind in _NAMED:
            return self.arn(logical) if kind in _REF_IS_ARN else self.name(logical)
        return f"{logical.lower()}-0ours"

    def attribute(self, logical: str, attribute: str) -> str:
        """What GetAtt gives."""
        if attribute in {"Arn", "TopicArn"}:
            return self.arn(logical)
        if attribute == "GroupId":
            return self.ref(logical)
        if attribute.endswith("Name"):
            return self.name(logical)
        return f"{logical.lower()}-{attribute.lower()}"


def _is_list(parameter: Mapping[str, Any]) -> bool:
    return "List" in str(parameter["Type"])


@dataclass(frozen=True)
class Statement:
    """One statement of a role's inline policies, and where it stands."""

    policy: int
    index: int
    body: Mapping[str, Any]

    @property
    def actions(self) -> list[str]:
        """Its actions."""
        return listed(self.body["Action"])


@dataclass(frozen=True)
class Principal:
    """Who acts: `function/NAME`, `workflow/NAME`, `machine`, or `role/NAME` for what only AWS's services take on."""

    name: str
    role: str
    """Logical id."""
    service: str
    """Which service of AWS may take the role on."""
    policies: tuple[Mapping[str, Any], ...]
    """Inline, ours."""
    managed: tuple[str, ...]

    def documents(self) -> list[Mapping[str, Any]]:
        """All policies."""
        return [*self.policies, *(MANAGED[arn] for arn in self.managed)]

    def statements(self) -> Iterator[Statement]:
        """Of the inline policies."""
        for number, policy in enumerate(self.policies):
            for index, body in enumerate(policy["Statement"]):
                yield Statement(number, index, body)


def listed(value: Any) -> list[Any]:
    """IAM lets a list of one be written without brackets."""
    return list(value) if isinstance(value, list | tuple) else [value]


@functools.cache
def deployment() -> Deployment:
    """The deployment that the tests judge."""
    return Deployment(transformed())


@functools.cache
def principals() -> dict[str, Principal]:
    """Everyone who has a role, by name."""
    made = deployment()
    names: dict[str, str] = {}
    for function in made.of_type("AWS::Lambda::Function"):
        names[_role_of(made, function, "Role")] = f"function/{made.name(function)}"
    for machine in made.of_type("AWS::StepFunctions::StateMachine"):
        names[_role_of(made, machine, "RoleArn")] = f"workflow/{made.name(machine)}"
    for profile in made.of_type("AWS::IAM::InstanceProfile"):
        (role,) = made.template["Resources"][profile]["Properties"]["Roles"]
        names[role["Ref"]] = "machine"
    found = {}
    for role in made.of_type("AWS::IAM::Role"):
        properties = made.properties(role)
        name = names.get(role, f"role/{role}")
        assert name not in found, f"{name} has two roles"
        (trust,) = properties["AssumeRolePolicyDocument"]["Statement"]
        (service,) = listed(trust["Principal"]["Service"])
        policies = tuple(one["PolicyDocument"] for one in properties.get("Policies", ()))
        found[name] = Principal(name, role, service, policies, tuple(properties.get("ManagedPolicyArns", ())))
    return found


def _role_of(made: Deployment, logical: str, key: str) -> str:
    role: str = made.template["Resources"][logical]["Properties"][key]["Fn::GetAtt"][0]
    return role


def filled(text: str) -> str:
    """A text of the recorded calls with the values of this deployment (see calls.py)."""
    values = {
        "stage": STAGE,
        "account": ACCOUNT,
        "region": REGION,
        "template": _IDS["AWS::EC2::LaunchTemplate"],
        "group": _IDS["AWS::EC2::SecurityGroup"],
        "subnet": PARAMETERS["SubnetIds"][0],
        "image": "ami-0canonical",
        "instance": "i-0ours",
        "volume": "vol-0ours",
        "address": "eipalloc-0ours",
        "owngroup": "sg-0notebook",
        "notebook": "nb-0123456789abcdef0123",
        "user": "us-0123456789abcdef0123",
        "name": "thesis",
    }
    return re.sub(r"\$\{(\w+)\}", lambda match: str(values[match[1]]), text)
