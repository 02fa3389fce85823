"""What the instance metadata service says about an instance (the values; the service itself is local/imds.py)."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

Value = str | Callable[[], str]

ACCESS_KEY = "ASIALOCALNOTEBOOK000"
"""Of the role of every machine: the local cloud checks no signature, and tells by it who asks."""


def metadata(instance: Any, account: str, region: str, public: Callable[[], str | None]) -> Callable[[str], str | None]:
    """A function from a path (`latest/meta-data/instance-id`; `latest/` may be left out) to its text, or None.

    Public address and DNS name are asked for each time, since they change. Instance tags are absent, as EC2 has it
    unless the launch template allows them. A path that ends in a slash, or is a folder, lists what is in it.
    """
    profile = (instance.iam_instance_profile or {}).get("Arn") if instance.iam_instance_profile else None
    role = profile.rsplit("/", 1)[-1] if profile else None
    private = instance.private_ip or ""
    leaves: dict[str, Value] = {
        "meta-data/ami-id": instance.image_id,
        "meta-data/hostname": instance.private_dns_name,
        "meta-data/instance-id": instance.id,
        "meta-data/instance-type": instance.instance_type,
        "meta-data/local-hostname": instance.private_dns_name,
        "meta-data/local-ipv4": private,
        "meta-data/placement/availability-zone": instance.placement.zone or "",
        "meta-data/placement/region": region,
        "meta-data/public-ipv4": lambda: public() or "",
        "meta-data/services/domain": "amazonaws.com",
        "meta-data/services/partition": "aws",
        "dynamic/instance-identity/document": lambda: _identity(instance, account, region, private),
    }
    if role:
        leaves["meta-data/iam/info"] = lambda: json.dumps(
            {"Code": "Success", "LastUpdated": _now(), "InstanceProfileArn": profile, "InstanceProfileId": "AIPALOCAL"}
        )
        leaves[f"meta-data/iam/security-credentials/{role}"] = _credentials

    def answer(path: str) -> str | None:
        path = path.strip("/").removeprefix("latest").strip("/")
        found = leaves.get(path)
        if found is not None:
            return (found() if callable(found) else found) or None
        prefix = f"{path}/" if path else ""
        names = {
            rest[0] + ("/" if rest[1:] else "")
            for leaf in leaves
            if leaf.startswith(prefix) and (rest := leaf[len(prefix) :].split("/"))
        }
        return "\n".join(sorted(names)) or None

    return answer


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _credentials() -> str:
    expires = datetime.now(UTC) + timedelta(hours=6)
    return json.dumps(
        {
            "Code": "Success",
            "LastUpdated": _now(),
            "Type": "AWS-HMAC",
            "AccessKeyId": ACCESS_KEY,
            "SecretAccessKey": "local",
            "Token": "local",
            "Expiration": expires.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
    )


def _identity(instance: Any, account: str, region: str, private: str) -> str:
    return json.dumps(
        {
            "accountId": account,
            "architecture": instance.architecture,
            "availabilityZone": instance.placement.zone,
            "imageId": instance.image_id,
            "instanceId": instance.id,
            "instanceType": instance.instance_type,
            "pendingTime": instance.launch_time.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "privateIp": private,
            "region": region,
            "version": "2017-09-30",
        }
    )
