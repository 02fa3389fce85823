"""EC2: instances and what else bears the deployment's tag."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from chalicelib.aws.faults import code_of
from chalicelib.notebook.machine import ALIVE, GONE, UP
from chalicelib.orphans import ADDRESS, GROUP, INSTANCE, VOLUME, Resource

# EC2 takes 200 values in one filter.
_VALUES = 200
_PAGE = 1000


@dataclass(frozen=True)
class Instance:
    """An instance as EC2 describes it. `state`: `pending`, `running`, `stopping`, `stopped` and so on."""

    id: str
    state: str
    reason: str | None
    """EC2's code for the last change, for example `Client.InstanceInitiatedShutdown`."""
    address: str | None
    deployment: str | None
    """The value of its tag nod:deployment."""

    @property
    def running(self) -> bool:
        """Whether it costs by the hour."""
        return self.state in UP

    @property
    def gone(self) -> bool:
        """Whether it was terminated: it never comes back, and neither does its disk."""
        return self.state in GONE


class Instances:
    """Takes an EC2 client, and the stage, whose tag says what is ours."""

    def __init__(self, client: Any, stage: str) -> None:
        self._client = client
        self._stage = stage

    def describe(self, ids: Sequence[str]) -> dict[str, Instance]:
        """Those of them that EC2 knows, by id. By a filter: a call that names ids fails for one that is gone."""
        found: dict[str, Instance] = {}
        for first in range(0, len(ids), _VALUES):
            filters = [{"Name": "instance-id", "Values": list(ids[first : first + _VALUES])}]
            for entry in self._instances(filters):
                found[entry["InstanceId"]] = _instance(entry)
        return found

    def stop(self, ids: Sequence[str]) -> str | None:
        """Stops all of them, or none: EC2's error code then. An instance that is stopped already is no error."""
        return self._try(self._client.stop_instances, InstanceIds=list(ids))

    def tagged(self) -> Iterator[Resource]:
        """The deployment's instances that are not terminated."""
        state = {"Name": "instance-state-name", "Values": list(ALIVE)}
        for entry in self._instances([*self._tag(), state]):
            running = entry["State"]["Name"] in UP
            yield _resource(INSTANCE, entry["InstanceId"], entry, entry.get("LaunchTime"), running=running)

    def loose(self) -> Iterator[Resource]:
        """The deployment's volumes and addresses that hang on nothing, and the notebooks' own security groups."""
        available = {"Name": "status", "Values": ["available"]}
        pages = self._client.get_paginator("describe_volumes").paginate(
            Filters=[*self._tag(), available], PaginationConfig={"PageSize": _PAGE}
        )
        for page in pages:
            for entry in page["Volumes"]:
                yield _resource(VOLUME, entry["VolumeId"], entry, entry.get("CreateTime"))
        for entry in self._client.describe_addresses(Filters=self._tag())["Addresses"]:
            if not entry.get("AssociationId") and entry.get("AllocationId"):
                yield _resource(ADDRESS, entry["AllocationId"], entry, None)
        groups = self._client.get_paginator("describe_security_groups").paginate(
            Filters=[*self._tag(), {"Name": "tag-key", "Values": ["nod:notebook"]}],
            PaginationConfig={"PageSize": _PAGE},
        )
        for page in groups:
            for entry in page["SecurityGroups"]:
                # Asked for by the filter, and again: the deployment's own group bears no notebook.
                resource = _resource(GROUP, entry["GroupId"], entry, None)
                if resource.notebook:
                    yield resource

    def remove(self, resource: Resource) -> str | None:
        """Removes a resource for good. EC2's error code if it does not; one that is gone is removed."""
        calls = {
            INSTANCE: lambda: self._try(self._client.terminate_instances, InstanceIds=[resource.id]),
            VOLUME: lambda: self._try(self._client.delete_volume, VolumeId=resource.id),
            ADDRESS: lambda: self._try(self._client.release_address, AllocationId=resource.id),
            GROUP: lambda: self._try(self._client.delete_security_group, GroupId=resource.id),
        }
        code = calls[resource.kind]()
        return None if code is not None and code.endswith(".NotFound") else code

    def _try(self, call: Any, **arguments: object) -> str | None:
        try:
            call(**arguments)
        except self._client.exceptions.ClientError as error:
            return code_of(error)
        return None

    def _tag(self) -> list[dict[str, object]]:
        return [{"Name": "tag:nod:deployment", "Values": [self._stage]}]

    def _instances(self, filters: Sequence[Mapping[str, object]]) -> Iterator[Mapping[str, Any]]:
        pages = self._client.get_paginator("describe_instances").paginate(
            Filters=list(filters), PaginationConfig={"PageSize": _PAGE}
        )
        for page in pages:
            for reservation in page["Reservations"]:
                yield from reservation["Instances"]


def _tags(entry: Mapping[str, Any]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in entry.get("Tags", [])}


def _instance(entry: Mapping[str, Any]) -> Instance:
    return Instance(
        id=entry["InstanceId"],
        state=entry["State"]["Name"],
        reason=entry.get("StateReason", {}).get("Code") or None,
        address=entry.get("PublicIpAddress"),
        deployment=_tags(entry).get("nod:deployment"),
    )


def _resource(
    kind: str, identifier: str, entry: Mapping[str, Any], created: datetime | None, *, running: bool = False
) -> Resource:
    tags = _tags(entry)
    return Resource(kind, identifier, tags.get("nod:notebook"), tags.get("nod:owner"), created, running)
