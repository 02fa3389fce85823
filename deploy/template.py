"""Completes the template that `chalice package` writes: what AWS has and the local cloud has not.

Works on the functions and state machines that are there, so that a new one gets its log, its trace and its place on the
dashboard by itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import yaml

from deploy import dashboard, gateway, references
from deploy.errors import PackageError

OPERATIONS = Path(__file__).with_name("operations.yaml")
RETENTION_DAYS = 30
# CloudFormation's quotas: a template from S3, resources, parameters, outputs; SSM's for a document.
MOST_BYTES, MOST_RESOURCES, MOST_PARAMETERS, MOST_OUTPUTS = 1_000_000, 500, 200, 200
MOST_DOCUMENT_BYTES = 65_536
_TRACE = {"Effect": "Allow", "Action": ["xray:PutTraceSegments", "xray:PutTelemetryRecords"], "Resource": "*"}
# The plan gives size and kind by the same device; a machine that is started without a plan has its disk encrypted all
# the same. Not in .chalice/resources.yaml: moto does not take the size from the image, as EC2 does.
_DISK = {
    "DeviceName": "/dev/sda1",
    "Ebs": {"VolumeType": "gp3", "Encrypted": True, "DeleteOnTermination": True},
}
# What Step Functions' guide asks of the role of a state machine that logs; none of it can be limited to a group.
_LOG_DELIVERY = [
    "logs:CreateLogDelivery",
    "logs:GetLogDelivery",
    "logs:UpdateLogDelivery",
    "logs:DeleteLogDelivery",
    "logs:ListLogDeliveries",
    "logs:PutResourcePolicy",
    "logs:DescribeResourcePolicies",
    "logs:DescribeLogGroups",
]


def complete(
    template: dict[str, Any], stage: str, cidrs: tuple[str, ...], documents: Mapping[str, Mapping[str, Any]]
) -> None:
    """Add everything to the template, in place.

    Args:
        documents: SSM documents by their names without the deployment's prefix (instance/build.py).

    Raises:
        PackageError: it would be refused by CloudFormation.
    """
    _stage(template, stage)
    _operations(template)
    _port(template, cidrs)
    _documents(template, documents)
    for name in of_type(template, "AWS::EC2::LaunchTemplate"):
        template["Resources"][name]["Properties"]["LaunchTemplateData"]["BlockDeviceMappings"] = [_DISK]
    for name in of_type(template, "AWS::Serverless::Function"):
        _function(template, name)
    for name in of_type(template, "AWS::Serverless::StateMachine"):
        _machine(template, name)
    gateway.add(template, f"nod-{stage}")
    dashboard.add(template)
    _alarms(template)
    check(template)


def check(template: Mapping[str, Any]) -> None:
    """Raises PackageError for a reference to nothing, or a template beyond CloudFormation's quotas."""
    if missing := references.unresolved(template):
        lines = "; ".join(f"{who} refers to {', '.join(names)}" for who, names in missing.items())
        raise PackageError(f"Nothing in the template is called so: {lines}.")
    size = len(json.dumps(template))
    counts = {
        "bytes": (size, MOST_BYTES),
        "resources": (len(template["Resources"]), MOST_RESOURCES),
        "parameters": (len(template["Parameters"]), MOST_PARAMETERS),
        "outputs": (len(template["Outputs"]), MOST_OUTPUTS),
    }
    for what, (there, most) in counts.items():
        if there > most:
            raise PackageError(f"The template has {there} {what}; CloudFormation takes {most}.")


def of_type(template: Mapping[str, Any], kind: str) -> list[str]:
    """Logical ids of the resources of one type, sorted."""
    return sorted(name for name, resource in template["Resources"].items() if resource["Type"] == kind)


def _stage(template: dict[str, Any], stage: str) -> None:
    # Chalice writes the stage's name into event patterns and the topic's: the template is this stage's and no other's.
    template["Parameters"]["Stage"] |= {"Default": stage, "AllowedValues": [stage]}
    template["Outputs"]["Stage"] = {"Value": {"Ref": "Stage"}}


def _operations(template: dict[str, Any]) -> None:
    added = yaml.safe_load(OPERATIONS.read_text(encoding="utf-8"))
    for section, parts in added.items():
        there = template.setdefault(section, {})
        if both := there.keys() & parts.keys():
            raise PackageError(f"{', '.join(sorted(both))}: in deploy/operations.yaml and in the rest of the template.")
        there.update(parts)


def _alarms(template: dict[str, Any]) -> None:
    # By name: with alarm:nod-STAGE-* the alarms of a stage `prod-eu` could speak for a stage `prod`.
    (statement,) = template["Resources"]["OperatorsTopicPolicy"]["Properties"]["PolicyDocument"]["Statement"]
    arns = [{"Fn::GetAtt": [name, "Arn"]} for name in of_type(template, "AWS::CloudWatch::Alarm")]
    statement["Condition"]["ArnEquals"] = {"aws:SourceArn": arns}


def _port(template: dict[str, Any], cidrs: tuple[str, ...]) -> None:
    # One rule a block: CloudFormation cannot make rules of a list parameter. What was allowed stands in the outputs,
    # where the next deployment finds it.
    del template["Parameters"]["AllowedCidrs"]
    template["Outputs"]["AllowedCidrs"] = {"Value": ",".join(cidrs) or "none"}
    for block in cidrs:
        # Named by its block: by a number, a block that moves up the list would be allowed anew before its old rule
        # goes, which EC2 refuses as a duplicate.
        template["Resources"][f"NotebookPort{sha256(block.encode()).hexdigest()[:12]}"] = {
            "Type": "AWS::EC2::SecurityGroupIngress",
            "Properties": {
                "GroupId": {"Fn::GetAtt": ["NotebookSecurityGroup", "GroupId"]},
                "Description": "Jupyter over TLS",
                "IpProtocol": "tcp",
                "FromPort": 8888,
                "ToPort": 8888,
                "CidrIp" if ip_network(block).version == 4 else "CidrIpv6": block,
            },
        }


def _documents(template: dict[str, Any], documents: Mapping[str, Mapping[str, Any]]) -> None:
    for name, content in documents.items():
        size = len(json.dumps(content))
        if size > MOST_DOCUMENT_BYTES:
            raise PackageError(f"The document {name} has {size} bytes; SSM takes {MOST_DOCUMENT_BYTES}.")
        template["Resources"][f"{_camel(name)}Document"] = {
            "Type": "AWS::SSM::Document",
            "Properties": {
                "Name": {"Fn::Sub": f"nod-${{Stage}}-{name}"},
                "DocumentType": "Command",
                "DocumentFormat": "JSON",
                "TargetType": "/AWS::EC2::Instance",
                # A launch that runs meanwhile keeps finding the document.
                "UpdateMethod": "NewVersion",
                "Content": content,
                "Tags": [{"Key": "nod:deployment", "Value": {"Ref": "Stage"}}],
            },
        }


def _function(template: dict[str, Any], name: str) -> None:
    function = template["Resources"][name]["Properties"]
    group = f"{name}Logs"
    template["Resources"][group] = _log_group({"Fn::Sub": f"/aws/lambda/{_named(function, 'FunctionName', name)}"})
    function["LoggingConfig"] = {"LogGroup": {"Ref": group}}
    role = template["Resources"][function["Role"]["Fn::GetAtt"][0]]["Properties"]
    (policy,) = role["Policies"]
    # Its group exists before the function does, so that no function may make one that is kept for ever.
    statements = [
        one for one in policy["PolicyDocument"]["Statement"] if not all(a.startswith("logs:") for a in one["Action"])
    ]
    write = {
        "Effect": "Allow",
        "Action": ["logs:CreateLogStream", "logs:PutLogEvents"],
        "Resource": {"Fn::GetAtt": [group, "Arn"]},
    }
    policy["PolicyDocument"]["Statement"] = [*statements, write, _TRACE]


def _machine(template: dict[str, Any], name: str) -> None:
    machine = template["Resources"][name]["Properties"]
    group = f"{name}Logs"
    # The prefix that AWS's log delivery keeps a resource policy for; others run into that policy's length.
    template["Resources"][group] = _log_group({"Fn::Sub": f"/aws/vendedlogs/states/{_named(machine, 'Name', name)}"})
    machine["Logging"] = {
        "Level": "ERROR",
        # The input holds the hash of a password.
        "IncludeExecutionData": False,
        "Destinations": [{"CloudWatchLogsLogGroup": {"LogGroupArn": {"Fn::GetAtt": [group, "Arn"]}}}],
    }
    machine["Tracing"] = {"Enabled": True}
    machine["Policies"] = [
        *machine["Policies"],
        {
            "Version": "2012-10-17",
            "Statement": [{"Effect": "Allow", "Action": _LOG_DELIVERY, "Resource": "*"}],
        },
    ]


def _named(properties: Mapping[str, Any], key: str, resource: str) -> str:
    given = properties.get(key)
    text = given.get("Fn::Sub") if isinstance(given, dict) else None
    if not isinstance(text, str):
        raise PackageError(f'{resource} needs {key}: !Sub "nod-${{Stage}}…" in .chalice/resources.yaml.')
    return text


def _log_group(name: dict[str, Any]) -> dict[str, Any]:
    return {
        "Type": "AWS::Logs::LogGroup",
        "DeletionPolicy": "Delete",
        "UpdateReplacePolicy": "Delete",
        "Properties": {"LogGroupName": name, "RetentionInDays": RETENTION_DAYS},
    }


def _camel(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("-"))
