"""From a valid request to a record, and from a record to the complete launch plan (input of launch.asl.yaml)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import NamedTuple

from chalicelib import times
from chalicelib.errors import ChannelNotRegistered, FieldError, NotAllowed
from chalicelib.model import (
    CONFIRMED,
    DEFAULT_TYPE,
    EMAIL,
    STEPS,
    UNSUBSCRIBED,
    LaunchRequest,
    Notebook,
    User,
    due_shard,
)
from chalicelib.notebook.life import State
from chalicelib.prices import Catalogue
from chalicelib.settings import Settings

_ANACONDA = "https://repo.anaconda.com/archive/Anaconda3-2026.07-1-Linux-"
# SHA-256 as pyenv pins them.
INSTALLERS = {
    "x86_64": (f"{_ANACONDA}x86_64.sh", "9f49042048e9a8220c1cddf9192054290724052d3b2a86f938f9f5edd911db8f"),
    "arm64": (f"{_ANACONDA}aarch64.sh", "af2fd0025728a04408e0481d5668b92c53589cbfc66525a15119e6503742a04d"),
}
_IMAGE = "resolve:ssm:/aws/service/canonical/ubuntu/server/24.04/stable/current/{}/hvm/ebs-gp3/ami-id"
_DEBIAN_ARCHITECTURE = {"x86_64": "amd64", "arm64": "arm64"}

# CreateFleet takes 300 overrides. Each that EC2 refuses comes back with its launch template, up to 2 KB, and a workflow
# holds 256 KiB.
MOST_RUNGS = 60

# When the sweep looks whether a launch still goes on, the first time.
FIRST_LOOK = timedelta(minutes=15)

# A stand-in may cost this much of what was asked for, so that no one is surprised by the bill.
DEAREST_STAND_IN = Decimal("1.5")
# Anaconda's installer alone takes more than 1 GiB.
SMALL_MEMORY_GIB = Decimal(2)


class LaunchPlan(NamedTuple):
    """Everything the workflow needs; `to_json` is its input, the same for the same record."""

    notebook: Notebook
    overrides: tuple[dict[str, object], ...]
    launch_template_id: str
    stage: str
    region: str
    installer_url: str
    installer_sha256: str
    password_hash: str

    def to_json(self) -> dict[str, object]:
        notebook = self.notebook
        tags = {
            "Name": f"nod-{notebook.name}",
            "nod:deployment": self.stage,
            "nod:notebook": notebook.id,
            "nod:owner": notebook.owner,
        }
        return {
            "id": notebook.id,
            "owner": notebook.owner,
            "name": notebook.name,
            "fleet": {
                "ClientToken": notebook.id,
                "Type": "instant",
                "LaunchTemplateConfigs": [
                    {
                        "LaunchTemplateSpecification": {
                            "LaunchTemplateId": self.launch_template_id,
                            "Version": "$Latest",
                        },
                        "Overrides": list(self.overrides),
                    }
                ],
                "TargetCapacitySpecification": {
                    "TotalTargetCapacity": 1,
                    "OnDemandTargetCapacity": 1,
                    "SpotTargetCapacity": 0,
                    "DefaultTargetCapacityType": "on-demand",
                },
                "OnDemandOptions": {"AllocationStrategy": "prioritized"},
                # The disk too, which may come loose: what names no owner has nobody who could be asked. (EC2's
                # reference names only fleet and instance here; of an instant fleet it takes and keeps a volume's.)
                "TagSpecifications": [
                    {"ResourceType": kind, "Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}
                    for kind in ("instance", "volume")
                ],
            },
            "installer": {"url": self.installer_url, "sha256": self.installer_sha256},
            "password_hash": self.password_hash,
            "region": self.region,
        }


def resolve_type(request: LaunchRequest, user: User) -> str:
    """The type to launch: the one asked for, else the default, else the first that the user may have.

    Raises:
        NotAllowed: the user may not have the type that was asked for, or none at all.
    """
    if request.instance_type is not None:
        if request.instance_type not in user.allowed_types:
            allowed = ", ".join(user.allowed_types) or "none"
            raise NotAllowed(
                f"Your user may not have {request.instance_type}. Allowed: {allowed}.",
                [FieldError("instance_type", "Your user may not have this type.", allowed)],
            )
        return request.instance_type
    if DEFAULT_TYPE in user.allowed_types:
        return DEFAULT_TYPE
    if user.allowed_types:
        return user.allowed_types[0]
    raise NotAllowed("Your user may have no instance type. Ask your administrator.")


def resolve_channels(request: LaunchRequest, user: User) -> tuple[str, ...]:
    """The channels to tell: those asked for, else all that the user has.

    Raises:
        ChannelNotRegistered: names the first that the user does not have.
    """
    if request.notify is None:
        return user.channels
    for index, channel in enumerate(request.notify):
        if channel not in user.channels:
            allowed = ", ".join(user.channels) or "none"
            raise ChannelNotRegistered(
                f"Your user has no channel {channel}. It has: {allowed}. Your administrator can register one.",
                [FieldError(f"notify[{index}]", "It is not registered for your user.", allowed)],
            )
    return request.notify


def new_notebook(
    request: LaunchRequest,
    user: User,
    *,
    notebook_id: str,
    name: str,
    password_hash: str,
    body_hmac: str,
    api_url: str | None = None,
    now: datetime,
) -> Notebook:
    """The record of a new notebook, in state `requested`. `api_url`: where the links of its messages lead."""
    channels = resolve_channels(request, user)
    moment = times.to_text(now)
    return Notebook(
        id=notebook_id,
        owner=user.id,
        owner_name=user.name,
        name=name,
        state=State.REQUESTED,
        created_at=moment,
        updated_at=moment,
        instance_type=resolve_type(request, user),
        volume_gib=request.volume_gib,
        idle_minutes=request.idle_minutes,
        max_hours=request.max_hours,
        environment=request.environment,
        # Its launch begins at once, and may end before it has made anything that it could note.
        steps={step: {"started_at": moment} if step == STEPS[0] else {} for step in STEPS},
        notify=channels,
        notifications={channel: first_state(channel, user) for channel in channels},
        body_hmac=body_hmac,
        password_hash=password_hash,
        due=due_shard(notebook_id),
        due_at=times.to_text(now + FIRST_LOOK),
        api_url=api_url,
    )


def first_state(channel: str, user: User) -> str:
    """State of a channel before the first message: SNS holds nothing for an address that is not confirmed."""
    if channel != EMAIL or user.email_state == CONFIRMED:
        return "pending"
    return UNSUBSCRIBED if user.mail_is_off else "unconfirmed"


def shown_state(channel: str, noted: str, owner: User | None) -> str:
    """State of a channel as it is told: whatever became of the last message, none arrives while mail is off."""
    if channel != EMAIL or owner is None:
        return noted
    if owner.mail_is_off:
        return UNSUBSCRIBED
    return first_state(channel, owner) if noted == UNSUBSCRIBED else noted


def ladder(asked: str, allowed: Sequence[str], prices: Catalogue, region: str) -> tuple[str, ...]:
    """Types to try, best first: the one asked for, then cheapest first those that can stand in for it.

    A stand-in has the same vCPUs, memory, GPUs and architecture, is allowed, and costs at most `DEAREST_STAND_IN`
    times as much. Without the prices of both there is none.
    """
    wanted, price = prices.types[asked], prices.instance_hour(region, asked)
    if price is None:
        return (asked,)
    found: list[tuple[Decimal, str]] = []
    for name in allowed:
        other, cost = prices.types.get(name), prices.instance_hour(region, name)
        if name == asked or other is None or cost is None:
            continue
        if other.like(wanted) and cost <= price * DEAREST_STAND_IN:
            found.append((cost, name))
    return (asked, *(name for _, name in sorted(set(found))))


def launch_plan(notebook: Notebook, user: User, prices: Catalogue, settings: Settings) -> LaunchPlan:
    """The plan of a record in state `requested`.

    Made from the record alone and not from the request, so that a replay of the request starts the same execution.
    """
    if notebook.password_hash is None:
        raise ValueError(f"The record {notebook.id} has no password_hash.")
    architecture = prices.types[notebook.instance_type].architecture
    image = settings.image or _IMAGE.format(_DEBIAN_ARCHITECTURE[architecture])
    types = ladder(notebook.instance_type, user.allowed_types, prices, settings.region)
    rungs = [(type_, subnet) for type_ in types for subnet in settings.subnet_ids][:MOST_RUNGS]
    url, sha256 = INSTALLERS[architecture]
    if settings.installer_url is not None and settings.installer_sha256 is not None:
        url, sha256 = settings.installer_url, settings.installer_sha256
    return LaunchPlan(
        notebook=notebook,
        overrides=tuple(
            _override(
                type_,
                subnet,
                float(rank),
                image=image,
                volume_gib=notebook.volume_gib,
            )
            for rank, (type_, subnet) in enumerate(rungs)
        ),
        launch_template_id=settings.launch_template_id,
        stage=settings.stage,
        region=settings.region,
        installer_url=url,
        installer_sha256=sha256,
        password_hash=notebook.password_hash,
    )


def warnings(instance_type: str, prices: Catalogue) -> list[str]:
    """What the caller had better know, though it is allowed."""
    memory = prices.types[instance_type].memory_gib
    if memory < SMALL_MEMORY_GIB:
        return [
            f"{instance_type} has {memory} GiB of memory: Anaconda may not install, and notebooks will be slow or "
            f"be killed. Take 4 GiB or more, for example {DEFAULT_TYPE}."
        ]
    return []


def _override(instance_type: str, subnet: str, rank: float, *, image: str, volume_gib: int) -> dict[str, object]:
    return {
        "InstanceType": instance_type,
        "SubnetId": subnet,
        "Priority": rank,
        "ImageId": image,
        "BlockDeviceMappings": [
            {
                "DeviceName": "/dev/sda1",
                "Ebs": {
                    "VolumeSize": volume_gib,
                    "VolumeType": "gp3",
                    "Encrypted": True,
                    "DeleteOnTermination": True,
                },
            }
        ],
    }
