"""What IAM is asked when a call is made: the actions, the resource of each, and the context that AWS adds.

Source: the service authorization reference, and of CreateFleet, which runs, tags, hands over the role and looks up the
image in the caller's name, "EC2 Fleet prerequisites" and "Example policies to control access the Amazon EC2 API" in the
EC2 User Guide. A call without a rule here is an error, so that nothing is allowed without being asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Context = Mapping[str, str | Sequence[str]]

# The fleet's own defaults come from the launch template, as resources.yaml and deploy/template.py have them.
NEW = {"instance": "i-0new", "volume": "vol-0new", "network-interface": "eni-0new", "fleet": "fleet-0new"}


@dataclass(frozen=True)
class Authorization:
    """One question to IAM: may the principal do `action` to `resource`, given the request's `context`?"""

    action: str
    resource: str
    context: Context = field(default_factory=dict)


@dataclass(frozen=True)
class Facts:
    """What AWS knows of the resources that calls name, and a call does not say."""

    account: str
    region: str
    role_arn: str
    """The role that the launch template hands to instances."""
    profile_arn: str
    template: Mapping[str, Any]
    """The launch template's data."""
    image: str
    """The image that the public parameter leads to."""
    tokens: Mapping[str, str] = field(default_factory=dict)
    """The state machine that waits, by task token."""
    tags: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Tags by the id of a resource, at the time of the call."""

    def arn(self, service: str, rest: str) -> str:
        """An ARN of this account and region."""
        return f"arn:aws:{service}:{self.region}:{self.account}:{rest}"


Rule = Callable[[Mapping[str, Any], Facts], Iterator[Authorization]]


def needed(service: str, operation: str, parameters: Mapping[str, Any], facts: Facts) -> list[Authorization]:
    """All that IAM is asked for one call. Raises KeyError for a call that has no rule."""
    return list(_RULES[service, operation](parameters, facts))


# EC2


def _plain(action: str) -> Rule:
    def rule(_parameters: Mapping[str, Any], _facts: Facts) -> Iterator[Authorization]:
        yield Authorization(action, "*")

    return rule


def _resource_tags(identifier: str, facts: Facts) -> dict[str, str]:
    return {f"aws:ResourceTag/{key}": value for key, value in facts.tags.get(identifier, {}).items()}


def _of_instances(action: str) -> Rule:
    def rule(parameters: Mapping[str, Any], facts: Facts) -> Iterator[Authorization]:
        for identifier in parameters["InstanceIds"]:
            context = _resource_tags(identifier, facts) | {"ec2:InstanceProfile": facts.profile_arn}
            yield Authorization(action, facts.arn("ec2", f"instance/{identifier}"), context)

    return rule


def _of_tagged(action: str, kind: str, parameter: str) -> Rule:
    def rule(parameters: Mapping[str, Any], facts: Facts) -> Iterator[Authorization]:
        identifier = parameters[parameter]
        yield Authorization(action, facts.arn("ec2", f"{kind}/{identifier}"), _resource_tags(identifier, facts))

    return rule


def _request_tags(tags: Mapping[str, str]) -> dict[str, str | Sequence[str]]:
    return {**{f"aws:RequestTag/{key}": value for key, value in tags.items()}, "aws:TagKeys": sorted(tags)}


def _tags_of(specifications: Sequence[Mapping[str, Any]], kind: str) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for one in specifications if one["ResourceType"] == kind for tag in one["Tags"]}


def _create_fleet(parameters: Mapping[str, Any], facts: Facts) -> Iterator[Authorization]:
    given = parameters.get("TagSpecifications", ())
    (config,) = parameters["LaunchTemplateConfigs"]
    template_arn = facts.arn("ec2", f"launch-template/{config['LaunchTemplateSpecification']['LaunchTemplateId']}")
    yield Authorization("ec2:CreateFleet", facts.arn("ec2", f"fleet/{NEW['fleet']}"))
    yield Authorization("ec2:CreateFleet", template_arn)
    tags = {kind: _tags_of(given, kind) for kind in ("instance", "volume")}
    for override in config["Overrides"]:
        instance_type = {"ec2:InstanceType": override["InstanceType"]}
        yield Authorization(
            "ec2:CreateFleet",
            facts.arn("ec2", f"instance/{NEW['instance']}"),
            _request_tags(tags["instance"]) | instance_type,
        )
        yield Authorization("ec2:CreateFleet", facts.arn("ec2", f"subnet/{override['SubnetId']}"))
        yield Authorization("ec2:CreateFleet", f"arn:aws:ec2:{facts.region}::image/{facts.image}")
        disk = _request_tags(tags["volume"]) | _disk(override)
        yield Authorization("ec2:CreateFleet", facts.arn("ec2", f"volume/{NEW['volume']}"), disk)
        yield from _run(override, given, template_arn, facts)
        # The image is a public parameter; it is read in the caller's name.
        name = override["ImageId"].removeprefix("resolve:ssm:")
        yield Authorization("ssm:GetParameters", f"arn:aws:ssm:{facts.region}::parameter{name}")
    for kind, made in tags.items():
        context = _request_tags(made) | {"ec2:CreateAction": "CreateFleet"}
        yield Authorization("ec2:CreateTags", facts.arn("ec2", f"{kind}/{NEW[kind]}"), context)
    yield Authorization("iam:PassRole", facts.role_arn, {"iam:PassedToService": "ec2.amazonaws.com"})


def _disk(override: Mapping[str, Any]) -> dict[str, str | Sequence[str]]:
    (mapping,) = override["BlockDeviceMappings"]
    disk = mapping["Ebs"]
    return {
        "ec2:Encrypted": str(disk.get("Encrypted", False)).lower(),
        "ec2:VolumeSize": str(disk["VolumeSize"]),
        "ec2:VolumeType": disk["VolumeType"],
    }


def _run(
    override: Mapping[str, Any], given: Sequence[Mapping[str, Any]], template_arn: str, facts: Facts
) -> Iterator[Authorization]:
    """RunInstances as the fleet calls it: each resource is asked for, and each knows the launch template."""
    data = facts.template
    specifications = data["TagSpecifications"]
    metadata = data["MetadataOptions"] | override.get("MetadataOptions", {})
    tags = {kind: _tags_of(specifications, kind) | _tags_of(given, kind) for kind in ("instance", "volume")}
    by_template = {"ec2:LaunchTemplate": template_arn}
    resources: dict[str, Mapping[str, Any]] = {
        facts.arn("ec2", f"instance/{NEW['instance']}"): {
            **_request_tags(tags["instance"]),
            "ec2:InstanceType": override["InstanceType"],
            "ec2:InstanceProfile": facts.profile_arn,
            "ec2:MetadataHttpEndpoint": metadata["HttpEndpoint"],
            "ec2:MetadataHttpTokens": metadata["HttpTokens"],
            "ec2:MetadataHttpPutResponseHopLimit": str(metadata["HttpPutResponseHopLimit"]),
        },
        facts.arn("ec2", f"volume/{NEW['volume']}"): {**_request_tags(tags["volume"]), **_disk(override)},
        facts.arn("ec2", f"network-interface/{NEW['network-interface']}"): {},
        facts.arn("ec2", f"subnet/{override['SubnetId']}"): {},
        f"arn:aws:ec2:{facts.region}::image/{facts.image}": {},
        template_arn: {},
        **{facts.arn("ec2", f"security-group/{group}"): {} for group in data["SecurityGroupIds"]},
    }
    if "KeyName" in data:
        resources[facts.arn("ec2", f"key-pair/{data['KeyName']}")] = {}
    for resource, context in resources.items():
        yield Authorization("ec2:RunInstances", resource, {**context, **by_template})
    for kind, made in tags.items():
        yield Authorization(
            "ec2:CreateTags",
            facts.arn("ec2", f"{kind}/{NEW[kind]}"),
            _request_tags(made) | {"ec2:CreateAction": "RunInstances"},
        )


# Systems Manager


def _send_command(parameters: Mapping[str, Any], facts: Facts) -> Iterator[Authorization]:
    name = parameters["DocumentName"]
    # Documents of AWS itself belong to no account.
    owner = "" if name.startswith("AWS-") else facts.account
    yield Authorization("ssm:SendCommand", f"arn:aws:ssm:{facts.region}:{owner}:document/{name}")
    for identifier in parameters["InstanceIds"]:
        tags = facts.tags.get(identifier, {})
        context = {f"ssm:resourceTag/{key}": value for key, value in tags.items()}
        arn = facts.arn("ec2", f"instance/{identifier}")
        yield Authorization("ssm:SendCommand", arn, context | _resource_tags(identifier, facts))


def _get_parameter(parameters: Mapping[str, Any], facts: Facts) -> Iterator[Authorization]:
    yield Authorization("ssm:GetParameter", facts.arn("ssm", f"parameter{parameters['Name']}"))


# DynamoDB


def _value(attribute: Any) -> str:
    """A key as text: `{"S": "x"}` of a client, or the value itself."""
    if isinstance(attribute, dict):
        (text,) = attribute.values()
        return str(text)
    return str(attribute)


_KEYS = ("id", "name", "notebook")


def _key_of(key: Mapping[str, Any]) -> str:
    return next(_value(key[name]) for name in _KEYS if name in key)


def _item(action: str, parameters: Mapping[str, Any], facts: Facts, key: Any) -> Authorization:
    keys = [key] if isinstance(key, str) else key
    return Authorization(
        f"dynamodb:{action}",
        facts.arn("dynamodb", f"table/{parameters['TableName']}"),
        {"dynamodb:LeadingKeys": keys},
    )


def _of_item(action: str, where: str = "Key") -> Rule:
    def rule(parameters: Mapping[str, Any], facts: Facts) -> Iterator[Authorization]:
        yield _item(action, parameters, facts, _key_of(parameters[where]))

    return rule


def _query(parameters: Mapping[str, Any], facts: Facts) -> Iterator[Authorization]:
    index = f"/index/{parameters['IndexName']}" if "IndexName" in parameters else ""
    yield Authorization("dynamodb:Query", facts.arn("dynamodb", f"table/{parameters['TableName']}{index}"))


def _scan(parameters: Mapping[str, Any], facts: Facts) -> Iterator[Authorization]:
    yield Authorization("dynamodb:Scan", facts.arn("dynamodb", f"table/{parameters['TableName']}"))


_TRANSACT = {
    "Put": ("PutItem", "Item"),
    "Update": ("UpdateItem", "Key"),
    "Delete": ("DeleteItem", "Key"),
    "ConditionCheck": ("ConditionCheckItem", "Key"),
}


def _transact(parameters: Mapping[str, Any], facts: Facts) -> Iterator[Authorization]:
    for item in parameters["TransactItems"]:
        ((kind, part),) = item.items()
        action, where = _TRANSACT[kind]
        yield _item(action, part, facts, _key_of(part[where]))


def _batch_get(parameters: Mapping[str, Any], facts: Facts) -> Iterator[Authorization]:
    for table, request in parameters["RequestItems"].items():
        yield _item("BatchGetItem", {"TableName": table}, facts, [_key_of(key) for key in request["Keys"]])


def _batch_write(parameters: Mapping[str, Any], facts: Facts) -> Iterator[Authorization]:
    for table, requests in parameters["RequestItems"].items():
        keys = [
            _key_of(one["PutRequest"]["Item"] if "PutRequest" in one else one["DeleteRequest"]["Key"])
            for one in requests
        ]
        yield _item("BatchWriteItem", {"TableName": table}, facts, keys)


# The other services


def _of_arn(action: str, parameter: str) -> Rule:
    def rule(parameters: Mapping[str, Any], _facts: Facts) -> Iterator[Authorization]:
        yield Authorization(action, parameters[parameter])

    return rule


def _invoke(parameters: Mapping[str, Any], facts: Facts) -> Iterator[Authorization]:
    name = parameters["FunctionName"]
    yield Authorization("lambda:InvokeFunction", name if ":" in name else facts.arn("lambda", f"function:{name}"))


def _answer(action: str) -> Rule:
    def rule(parameters: Mapping[str, Any], facts: Facts) -> Iterator[Authorization]:
        yield Authorization(action, facts.tokens[parameters["taskToken"]])

    return rule


_RULES: dict[tuple[str, str], Rule] = {
    **{
        ("ec2", f"Describe{what}"): _plain(f"ec2:Describe{what}")
        for what in ("Instances", "Volumes", "Addresses", "SecurityGroups")
    },
    ("ec2", "CreateFleet"): _create_fleet,
    **{("ec2", f"{verb}Instances"): _of_instances(f"ec2:{verb}Instances") for verb in ("Start", "Stop", "Terminate")},
    ("ec2", "DeleteVolume"): _of_tagged("ec2:DeleteVolume", "volume", "VolumeId"),
    ("ec2", "ReleaseAddress"): _of_tagged("ec2:ReleaseAddress", "elastic-ip", "AllocationId"),
    ("ec2", "DeleteSecurityGroup"): _of_tagged("ec2:DeleteSecurityGroup", "security-group", "GroupId"),
    ("ssm", "SendCommand"): _send_command,
    ("ssm", "GetParameter"): _get_parameter,
    ("ssm", "ListCommands"): _plain("ssm:ListCommands"),
    ("ssm", "GetCommandInvocation"): _plain("ssm:GetCommandInvocation"),
    ("dynamodb", "GetItem"): _of_item("GetItem"),
    ("dynamodb", "UpdateItem"): _of_item("UpdateItem"),
    ("dynamodb", "DeleteItem"): _of_item("DeleteItem"),
    ("dynamodb", "PutItem"): _of_item("PutItem", "Item"),
    ("dynamodb", "Query"): _query,
    ("dynamodb", "Scan"): _scan,
    ("dynamodb", "TransactWriteItems"): _transact,
    ("dynamodb", "BatchGetItem"): _batch_get,
    ("dynamodb", "BatchWriteItem"): _batch_write,
    ("lambda", "Invoke"): _invoke,
    ("sns", "Publish"): _of_arn("sns:Publish", "TopicArn"),
    ("sns", "ListSubscriptionsByTopic"): _of_arn("sns:ListSubscriptionsByTopic", "TopicArn"),
    # Editions of the reference differ: no resource, or the topic. With no resource it is right for both.
    ("sns", "GetSubscriptionAttributes"): _plain("sns:GetSubscriptionAttributes"),
    ("sqs", "SendMessage"): _of_arn("sqs:SendMessage", "QueueArn"),
    ("stepfunctions", "StartExecution"): _of_arn("states:StartExecution", "stateMachineArn"),
    ("stepfunctions", "DescribeExecution"): _of_arn("states:DescribeExecution", "executionArn"),
    ("stepfunctions", "StopExecution"): _of_arn("states:StopExecution", "executionArn"),
    ("stepfunctions", "SendTaskSuccess"): _answer("states:SendTaskSuccess"),
    ("stepfunctions", "SendTaskFailure"): _answer("states:SendTaskFailure"),
}
