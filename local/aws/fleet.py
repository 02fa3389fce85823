"""CreateFleet, type `instant`: moto honours the first override only and returns no `Errors`.

On AWS the overrides are tried in order of priority (lowest number first, with `prioritized`); an override may set type,
subnet, image (also `resolve:ssm:`), block devices and key pair over the launch template's; what could not be launched
comes back as data in `Errors`, one entry an override.
"""

from __future__ import annotations

import uuid
from typing import Any

from moto.core.responses import ActionResult
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models import ec2_backends
from moto.ec2.models.instance_types import INSTANCE_TYPES
from moto.ec2.responses.fleets import Fleets
from moto.ec2.utils import convert_tag_spec
from moto.ssm.models import ssm_backends

from local.aws.ec2 import Ec2
from local.aws.idempotency import Tokens
from local.patches import Patches


def correct_fleets(ec2: Ec2, tokens: Tokens, patches: Patches) -> None:
    """Replace moto's CreateFleet."""

    def create_fleet(response: Any) -> Any:
        response.error_on_dryrun()
        if response._get_param("Type", if_none="maintain") != "instant":
            raise EC2ClientError("InvalidParameterValue", "The local cloud creates fleets of type instant only.")
        return ActionResult(tokens.once("CreateFleet", response, lambda: _create(ec2, response)))

    patches.set(Fleets, "create_fleet", create_fleet)


def _create(ec2: Ec2, response: Any) -> dict[str, Any]:
    fleet_id = f"fleet-{uuid.uuid4()}"
    capacity = response._get_param("TargetCapacitySpecification", {})
    wanted = int(capacity.get("TotalTargetCapacity", 0))
    lifecycle = capacity.get("DefaultTargetCapacityType") or "on-demand"
    tags = convert_tag_spec(response._get_param("TagSpecifications", []))
    errors: list[dict[str, Any]] = []
    instances: list[dict[str, Any]] = []
    launched = 0
    for specification, version, override in _ladder(ec2, response):
        if launched >= wanted:
            break
        entry = {
            "LaunchTemplateAndOverrides": {"LaunchTemplateSpecification": specification, "Overrides": override},
            "Lifecycle": lifecycle,
        }
        try:
            ids = [_launch(ec2, fleet_id, version, override, tags) for _ in range(wanted - launched)]
        except EC2ClientError as error:
            errors.append({**entry, "ErrorCode": error.code, "ErrorMessage": error.message})
            continue
        launched += len(ids)
        instance_type = override.get("InstanceType") or version.data.get("InstanceType")
        instances.append({**entry, "InstanceIds": ids, "InstanceType": instance_type})
    return {"FleetId": fleet_id, "Errors": errors, "Instances": instances}


def _ladder(ec2: Ec2, response: Any) -> list[tuple[dict[str, Any], Any, dict[str, Any]]]:
    backend = ec2_backends[ec2.account][ec2.region]
    rungs: list[tuple[dict[str, Any], Any, dict[str, Any]]] = []
    for config in response._get_param("LaunchTemplateConfigs", []):
        wanted = config.get("LaunchTemplateSpecification", {})
        if wanted.get("LaunchTemplateId"):
            template = backend.get_launch_template(template_id=wanted["LaunchTemplateId"])
        else:
            template = backend.get_launch_template_by_name(name=wanted.get("LaunchTemplateName"))
        version = template.get_version(wanted.get("Version") or "$Default")
        specification = {"LaunchTemplateId": template.id, "Version": str(version.number)}
        rungs += [(specification, version, dict(override)) for override in config.get("Overrides") or [{}]]
    if (response._get_param("OnDemandOptions", {}) or {}).get("AllocationStrategy") == "prioritized":
        # Without a priority an override comes last.
        rungs.sort(key=lambda rung: float(rung[2].get("Priority", float("inf"))))
    return rungs


def _launch(ec2: Ec2, fleet_id: str, version: Any, override: dict[str, Any], tags: dict[str, dict[str, str]]) -> str:
    backend = ec2_backends[ec2.account][ec2.region]
    spec = {**version.data, **override}
    instance_type = spec.get("InstanceType")
    if instance_type not in INSTANCE_TYPES:
        raise EC2ClientError("InvalidParameterValue", f"Invalid value '{instance_type}' for InstanceType.")
    zone = spec.get("AvailabilityZone")
    if spec.get("SubnetId"):
        zone = backend.get_subnet(spec["SubnetId"]).availability_zone
    image_id = resolve_image(ec2, spec.get("ImageId"))
    refused = ec2.refusal(str(instance_type), zone)
    if refused:
        raise EC2ClientError(*refused)
    template_tags = convert_tag_spec(version.data.get("TagSpecifications", []))
    instance_tags = {
        **template_tags.get("instance", {}),
        **tags.get("instance", {}),
        "aws:ec2:fleet-id": fleet_id,
        "aws:ec2launchtemplate:id": version.template.id,
        "aws:ec2launchtemplate:version": str(version.number),
    }
    arguments: dict[str, Any] = {
        "instance_type": instance_type,
        "is_instance_type_default": False,
        "placement": None if spec.get("SubnetId") else zone,
        "region_name": ec2.region,
        "subnet_id": spec.get("SubnetId"),
        "key_name": spec.get("KeyName"),
        "security_group_ids": list(spec.get("SecurityGroupIds") or []),
        "nics": spec.get("NetworkInterfaces") or [],
        "associate_public_ip": None,
        "tags": {"instance": instance_tags, "volume": {**template_tags.get("volume", {}), **tags.get("volume", {})}},
        "instance_initiated_shutdown_behavior": spec.get("InstanceInitiatedShutdownBehavior"),
        "iam_instance_profile": spec.get("IamInstanceProfile"),
        "metadata_options": spec.get("MetadataOptions") or {},
    }
    if spec.get("BlockDeviceMappings"):
        arguments["block_device_mappings"] = spec["BlockDeviceMappings"]
    if spec.get("KeyName"):
        backend.describe_key_pairs(key_names=[spec["KeyName"]])
    reservation = backend.run_instances(
        image_id, 1, spec.get("UserData"), list(spec.get("SecurityGroups") or []), **arguments
    )
    instance = reservation.instances[0]
    profile = spec.get("IamInstanceProfile") or {}
    if profile.get("Arn"):
        backend.associate_iam_instance_profile(instance.id, iam_instance_profile_arn=profile["Arn"])
    elif profile.get("Name"):
        backend.associate_iam_instance_profile(instance.id, iam_instance_profile_name=profile["Name"])
    ec2.launched(instance)
    return str(instance.id)


def resolve_image(ec2: Ec2, image: str | None) -> str:
    """The AMI's id, from itself or through the SSM parameter that `resolve:ssm:` names. Raises EC2ClientError."""
    if not image:
        raise EC2ClientError("MissingParameter", "The request must contain the parameter ImageId")
    if image.startswith("resolve:ssm:"):
        name = image.removeprefix("resolve:ssm:").partition(":")[0]
        parameter = ssm_backends[ec2.account][ec2.region].get_parameter(name)
        if parameter is None:
            raise EC2ClientError("InvalidParameterValue", f"The SSM parameter {name} does not exist.")
        image = str(parameter.value)
    if not ec2_backends[ec2.account][ec2.region].describe_images(filters={"image-id": image}):
        raise EC2ClientError("InvalidAMIID.NotFound", f"The image id '[{image}]' does not exist")
    return image
