"""Deploys what `.chalice/resources.yaml` declares into the local cloud, as CloudFormation does on AWS.

The same file, read with the same meaning; functions are referred to by Chalice's logical ids (`TellOwner` for
`tell_owner`). A kind of resource that is not known here is an error, so that nothing is left out silently.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import boto3
import yaml

from local.cloudformation import Resolver, TemplateError, load, substitute
from local.lambdas import Lambdas


class Stack:
    """One deployment. `create` makes everything, each resource once and after what it refers to."""

    def __init__(
        self,
        template: Path,
        parameters: Mapping[str, Any],
        *,
        account: str,
        region: str,
        functions: Mapping[str, str],
        lambdas: Lambdas,
        substitutions: Mapping[str, Any],
    ) -> None:
        """`functions` gives the name of a function by its logical id; `substitutions` overrides those of the
        template, for tests with shorter waits."""
        self._folder = template.parent
        self._template = load(template.read_text(encoding="utf-8"))
        declared = {name: rule.get("Default") for name, rule in self._template.get("Parameters", {}).items()}
        self._parameters: dict[str, Any] = {
            **declared,
            **parameters,
            "AWS::AccountId": account,
            "AWS::Region": region,
            "AWS::Partition": "aws",
            "AWS::URLSuffix": "amazonaws.com",
        }
        missing = [name for name in declared if self._parameters[name] is None]
        if missing:
            raise TemplateError(f"no value for the parameters {', '.join(missing)}")
        self._functions = functions
        self._lambdas = lambdas
        self._substitutions = substitutions
        self._made: dict[str, tuple[Any, dict[str, Any]]] = {}
        self._making: list[str] = []
        self._resolver = Resolver(self._parameters, self._ref, self._attribute, self._template.get("Conditions"))
        self._clients: dict[str, Any] = {}
        self._kinds: dict[str, Callable[[dict[str, Any]], tuple[Any, dict[str, Any]]]] = {
            "AWS::DynamoDB::Table": self._table,
            "AWS::SNS::Topic": self._topic,
            "AWS::SNS::Subscription": self._subscription,
            "AWS::SQS::Queue": self._queue,
            "AWS::SQS::QueuePolicy": self._queue_policy,
            "AWS::EC2::SecurityGroup": self._security_group,
            "AWS::EC2::LaunchTemplate": self._launch_template,
            "AWS::IAM::Role": self._role,
            "AWS::IAM::InstanceProfile": self._profile,
            "AWS::Events::Rule": self._rule,
            "AWS::Serverless::StateMachine": self._state_machine,
            "AWS::Lambda::EventInvokeConfig": self._invoke_config,
            "AWS::SSM::Document": self._document,
            "AWS::SSM::Parameter": self._parameter,
        }

    def create(self) -> None:
        """Make all resources. Raises TemplateError."""
        for name, resource in self._template.get("Resources", {}).items():
            # Without a type it adds to what Chalice makes, a function or the API's.
            if "Type" in resource:
                self._make(name)

    def environment(self) -> dict[str, str]:
        """The environment variables that every function has (`Globals`)."""
        variables = self._template["Globals"]["Function"]["Environment"]["Variables"]
        return {name: str(value) for name, value in self._resolver.resolve(variables).items()}

    def subscription(self, function: str) -> dict[str, Any]:
        """What the template adds to the SNS subscription that Chalice makes for a function (its logical id)."""
        added = self._template["Resources"].get(function, {}).get("Properties", {}).get("Events", {})
        found: dict[str, Any] = self._resolver.resolve(added).get(f"{function}SnsSubscription", {})
        return dict(found.get("Properties", {}))

    def resource(self, name: str) -> Any:
        """What `Ref` gives for a resource."""
        return self._ref(name)

    # References

    def _ref(self, name: str) -> Any:
        if name in self._functions:
            return self._functions[name]
        return self._make(name)[0]

    def _attribute(self, name: str, attribute: str) -> Any:
        if name in self._functions and attribute == "Arn":
            return self._lambdas.arn(self._functions[name])
        attributes = self._make(name)[1]
        if attribute not in attributes:
            raise TemplateError(f"{name} has no attribute {attribute} here")
        return attributes[attribute]

    def _make(self, name: str) -> tuple[Any, dict[str, Any]]:
        if name in self._made:
            return self._made[name]
        resource = self._template.get("Resources", {}).get(name)
        if resource is None:
            raise TemplateError(f"nothing is called {name}: no parameter, resource or function of app.py")
        if name in self._making:
            raise TemplateError(f"a circle of references: {' → '.join([*self._making, name])}")
        kind = resource["Type"]
        if kind not in self._kinds:
            raise TemplateError(f"{name}: the local cloud cannot make a resource of type {kind}")
        self._making.append(name)
        try:
            for other in _listed(resource.get("DependsOn", [])):
                self._make(other)
            properties = self._resolver.resolve(resource.get("Properties", {}))
            self._made[name] = self._kinds[kind](properties)
        finally:
            self._making.pop()
        return self._made[name]

    def _client(self, service: str) -> Any:
        if service not in self._clients:
            self._clients[service] = boto3.client(service)  # type: ignore[call-overload]
        return self._clients[service]

    # Kinds of resource: each returns what Ref gives, and the attributes

    def _table(self, properties: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        client = self._client("dynamodb")
        later = {"TimeToLiveSpecification", "PointInTimeRecoverySpecification"}
        made = client.create_table(**{key: value for key, value in properties.items() if key not in later})
        name = properties["TableName"]
        if "TimeToLiveSpecification" in properties:
            client.update_time_to_live(TableName=name, TimeToLiveSpecification=properties["TimeToLiveSpecification"])
        return name, {"Arn": made["TableDescription"]["TableArn"]}

    def _topic(self, properties: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        attributes = {"DisplayName": properties["DisplayName"]} if "DisplayName" in properties else {}
        arn = self._client("sns").create_topic(Name=properties["TopicName"], Attributes=attributes)["TopicArn"]
        return arn, {"TopicArn": arn, "TopicName": properties["TopicName"]}

    def _subscription(self, properties: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        attributes = {
            name: value if isinstance(value, str) else json.dumps(value)
            for name, value in properties.items()
            if name in {"FilterPolicy", "FilterPolicyScope", "RedrivePolicy", "RawMessageDelivery"}
        }
        arn = self._client("sns").subscribe(
            TopicArn=properties["TopicArn"],
            Protocol=properties["Protocol"],
            Endpoint=properties["Endpoint"],
            Attributes=attributes,
            ReturnSubscriptionArn=True,
        )["SubscriptionArn"]
        return arn, {"Arn": arn}

    def _queue(self, properties: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        client = self._client("sqs")
        attributes = {
            # SQS takes texts only, and `true` in lower case.
            name: value if isinstance(value, str) else json.dumps(value)
            for name, value in properties.items()
            if name not in {"QueueName", "Tags"}
        }
        url = client.create_queue(QueueName=properties["QueueName"], Attributes=attributes)["QueueUrl"]
        arn = client.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        return url, {"Arn": arn, "QueueName": properties["QueueName"], "QueueUrl": url}

    def _queue_policy(self, properties: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        for url in properties["Queues"]:
            policy = json.dumps(properties["PolicyDocument"])
            self._client("sqs").set_queue_attributes(QueueUrl=url, Attributes={"Policy": policy})
        return ",".join(properties["Queues"]), {}

    def _security_group(self, properties: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        client = self._client("ec2")
        group = client.create_security_group(
            GroupName=properties["GroupName"],
            Description=properties["GroupDescription"],
            VpcId=properties["VpcId"],
            **_tag_specifications("security-group", properties),
        )["GroupId"]
        ingress = [_permission(rule) for rule in properties.get("SecurityGroupIngress", [])]
        # One rule a CIDR block: a template cannot make a list of rules of a list of blocks (see resources.yaml).
        ingress += [
            {"IpProtocol": "tcp", "FromPort": 8888, "ToPort": 8888, "IpRanges": [{"CidrIp": block.strip()}]}
            for block in _listed(self._parameters.get("AllowedCidrs") or [])
        ]
        if ingress:
            client.authorize_security_group_ingress(GroupId=group, IpPermissions=ingress)
        return group, {"GroupId": group, "VpcId": properties["VpcId"]}

    def _launch_template(self, properties: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        made = self._client("ec2").create_launch_template(
            LaunchTemplateName=properties["LaunchTemplateName"], LaunchTemplateData=properties["LaunchTemplateData"]
        )["LaunchTemplate"]
        return made["LaunchTemplateId"], {
            "LaunchTemplateId": made["LaunchTemplateId"],
            "DefaultVersionNumber": "1",
            "LatestVersionNumber": "1",
        }

    def _role(self, properties: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        client = self._client("iam")
        name = properties.get("RoleName") or f"nod-{self._making[-1]}"
        made = client.create_role(
            RoleName=name, AssumeRolePolicyDocument=json.dumps(properties["AssumeRolePolicyDocument"])
        )["Role"]
        for policy in properties.get("Policies", []):
            client.put_role_policy(
                RoleName=name, PolicyName=policy["PolicyName"], PolicyDocument=json.dumps(policy["PolicyDocument"])
            )
        return name, {"Arn": made["Arn"], "RoleId": made["RoleId"]}

    def _profile(self, properties: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        client = self._client("iam")
        name = properties["InstanceProfileName"]
        made = client.create_instance_profile(InstanceProfileName=name)["InstanceProfile"]
        for role in properties["Roles"]:
            client.add_role_to_instance_profile(InstanceProfileName=name, RoleName=role)
        return name, {"Arn": made["Arn"]}

    def _rule(self, properties: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        name = properties.get("Name") or f"nod-{self._making[-1]}"
        arn = put_rule(
            self._client("events"),
            name,
            pattern=properties.get("EventPattern"),
            schedule=properties.get("ScheduleExpression"),
            targets=properties.get("Targets", []),
            state=properties.get("State", "ENABLED"),
        )
        return name, {"Arn": arn}

    def _state_machine(self, properties: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        text = (self._folder / properties["DefinitionUri"]).read_text(encoding="utf-8")
        values = {**properties.get("DefinitionSubstitutions", {})}
        values |= {name: value for name, value in self._substitutions.items() if name in values}
        definition = yaml.load(substitute(text, values), yaml.CSafeLoader)
        arn = self._client("stepfunctions").create_state_machine(
            name=properties["Name"],
            definition=json.dumps(definition),
            roleArn=f"arn:aws:iam::{self._parameters['AWS::AccountId']}:role/{properties['Name']}",
            type=properties.get("Type", "STANDARD"),
        )["stateMachineArn"]
        return arn, {"Arn": arn, "Name": properties["Name"]}

    def _invoke_config(self, properties: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        destination = properties.get("DestinationConfig", {}).get("OnFailure", {}).get("Destination")
        if destination:
            self._lambdas.on_failure(
                properties["FunctionName"], destination, int(properties.get("MaximumRetryAttempts", 2))
            )
        return f"{properties['FunctionName']}-config", {}

    def _document(self, properties: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        content = properties["Content"]
        put_document(self._client("ssm"), properties["Name"], content)
        return properties["Name"], {}

    def _parameter(self, properties: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        self._client("ssm").put_parameter(
            Name=properties["Name"], Value=properties["Value"], Type=properties.get("Type", "String")
        )
        return properties["Name"], {"Value": properties["Value"], "Type": properties.get("Type", "String")}


def put_rule(
    client: Any,
    name: str,
    *,
    pattern: Mapping[str, Any] | None = None,
    schedule: str | None = None,
    targets: list[dict[str, Any]],
    state: str = "ENABLED",
) -> str:
    """Make a rule with its targets; its ARN."""
    kind: dict[str, Any] = {"EventPattern": json.dumps(pattern)} if pattern else {"ScheduleExpression": schedule}
    arn: str = client.put_rule(Name=name, State=state, **kind)["RuleArn"]
    client.put_targets(Rule=name, Targets=targets)
    return arn


def put_document(client: Any, name: str, content: Mapping[str, Any]) -> None:
    """Make an SSM document of type Command."""
    client.create_document(Name=name, Content=json.dumps(content), DocumentType="Command", DocumentFormat="JSON")


def logical_id(function: str) -> str:
    """The logical id that Chalice gives a function: `tell_owner` is `TellOwner`."""
    return "".join(part[:1].upper() + part[1:] for part in re.split(r"[^a-zA-Z0-9]", function))


def _listed(value: Any) -> list[Any]:
    if isinstance(value, str):
        return [part for part in value.split(",") if part]
    return list(value)


def _tag_specifications(kind: str, properties: dict[str, Any]) -> dict[str, Any]:
    tags = properties.get("Tags")
    return {"TagSpecifications": [{"ResourceType": kind, "Tags": tags}]} if tags else {}


def _permission(rule: dict[str, Any]) -> dict[str, Any]:
    permission: dict[str, Any] = {key: rule[key] for key in ("IpProtocol", "FromPort", "ToPort") if key in rule}
    return {**permission, "IpRanges": [{"CidrIp": rule["CidrIp"]}]}
