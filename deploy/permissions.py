"""The policies for the people of a deployment: who deploys it, and who adds its users (deploy/permissions.yaml)."""

from __future__ import annotations

import json
import re
from pathlib import Path
from string import Template
from typing import Any

import yaml

from deploy import account as accounts
from deploy.errors import InputError, PackageError

SOURCE = Path(__file__).with_name("permissions.yaml")
# IAM's quota of a managed policy, white space not counted.
MOST_CHARACTERS = 6144
_ACCOUNT = re.compile(r"[0-9]{12}")


def policies(session: Any, stage: str, said_region: str, account: str) -> dict[str, dict[str, Any]]:
    """The policies by name, for one deployment. AWS is not called.

    Args:
        said_region: such as `eu-central-1`; empty: that of the session.
        account: its 12 digits.

    Raises:
        InputError: region or account are none.
        PackageError: IAM would not take one.
    """
    if not _ACCOUNT.fullmatch(account):
        raise InputError(
            f"ACCOUNT={account}: an AWS account is 12 digits. aws sts get-caller-identity says which you are in."
        )
    region = accounts.region(session, said_region)
    partition = session.get_partition_for_region(region)
    values = {"Stage": stage, "Region": region, "Account": account, "Partition": partition}
    text = Template(SOURCE.read_text(encoding="utf-8")).substitute(values)
    found = {name: {"Version": "2012-10-17", "Statement": one} for name, one in yaml.safe_load(text).items()}
    for name, policy in found.items():
        if (size := len(json.dumps(policy, separators=(",", ":")))) > MOST_CHARACTERS:
            raise PackageError(f"The policy {name} has {size} characters; IAM takes {MOST_CHARACTERS}.")
    return found


def write(session: Any, stage: str, said_region: str, account: str, folder: Path) -> list[Path]:
    """Write the policies into the folder, one file each. Gives their paths; raises as `policies`."""
    found = policies(session, stage, said_region, account)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, policy in found.items():
        path = folder / f"nod-{stage}-{name}.json"
        path.write_text(json.dumps(policy, indent=1) + "\n", encoding="utf-8")
        paths.append(path)
    return paths
