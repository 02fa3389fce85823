"""What the deploying person says, checked without AWS."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from chalicelib import settings
from chalicelib.errors import SettingsError
from chalicelib.prices import catalogue
from deploy.errors import InputError

MOST_CIDRS = 10
# Of all that a function's environment holds, 4 KB, these are the longest. A launch tries 60 types in subnets at most.
MOST_SUBNETS = 40
MOST_URL = 1024
# A block wider than this takes in whole countries. /8 is the largest that was ever given to one organisation; of IPv6
# a registry gives a provider a /32.
WIDEST = {4: 8, 6: 32}
NONE = "none"
_THIS_NETWORK = ipaddress.IPv4Network("0.0.0.0/8")
_SUBNET = re.compile(r"subnet-[0-9a-f]{8,17}")
_EMAIL = re.compile(r"[^@\s,]+@[^@\s,]+\.[^@\s,]+")
# The family is named: a pattern that begins with * would allow what the catalogue has no price of.
_TYPES = re.compile(r"[a-z][a-z0-9-]*\.[a-z0-9*-]+")
MOST_PARAMETER = 4096  # characters, CloudFormation's quota
# As the document that downloads it has it (instance/documents/install-anaconda.yaml).
_URL = re.compile(rf"(?=.{{1,{MOST_URL}}}$)https://[A-Za-z0-9.-]{{1,253}}(:[0-9]{{1,5}})?/[A-Za-z0-9._~/+%@=&?:,-]*")
_KEY_NAME = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,253}[\x21-\x7e])?")


@dataclass(frozen=True)
class Wishes:
    """What to deploy. None: as it is in the stack, or the template's default."""

    stage: str
    cidrs: tuple[str, ...] | None
    """Blocks that may open a notebook's port, in their usual form."""
    subnets: tuple[str, ...] | None
    parameters: dict[str, str]
    """Further parameters of the template, by their names there."""


def stage(text: str) -> str:
    """The name of the deployment.

    Raises:
        InputError: AWS would refuse the names made of it.
    """
    if not text:
        raise InputError("Which deployment? Say STAGE=…, for example STAGE=prod.")
    try:
        return settings.stage({"NOD_STAGE": text})
    except SettingsError:
        raise InputError(
            f"STAGE={text}: AWS would refuse names made of it. A stage is 1 to 20 of a-z, 0-9 and hyphen, and begins "
            "with a letter."
        ) from None


def cidrs(text: str, open_to_the_world: str = "") -> tuple[str, ...] | None:
    """The blocks, comma or space separated; a single address is a block of one. None if nothing is said.

    Args:
        open_to_the_world: `yes` says a second time that a block may be wider than WIDEST.

    Raises:
        InputError: no block, or one that is wider than one means.
    """
    words = _words(text)
    if not words:
        return None
    if len(words) > MOST_CIDRS:
        raise InputError(f"CIDR names {len(words)} blocks; at most {MOST_CIDRS} are allowed.")
    blocks = [_block(word) for word in words]
    wide = [str(block) for block in blocks if block.prefixlen < WIDEST[block.version]]
    if wide and open_to_the_world != "yes":
        raise InputError(
            f"CIDR={text}: {', '.join(wide)} would open every notebook's login page to (nearly) the whole internet. "
            "Name your own network, for example CIDR=198.51.100.7/32. If you mean it, say it twice: add "
            "OPEN_TO_THE_WORLD=yes."
        )
    return tuple(dict.fromkeys(str(block) for block in blocks))


def _block(word: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        block = ipaddress.ip_network(word)
    except ValueError:
        try:
            meant = ipaddress.ip_network(word, strict=False)
        except ValueError:
            raise InputError(f"CIDR: {word!r} is no block of addresses such as 198.51.100.0/24.") from None
        raise InputError(f"CIDR: {word} has bits set behind its length. Did you mean {meant}?") from None
    if any((block.is_loopback, block.is_multicast, block.is_link_local, block.is_reserved, _is_of_nobody(block))):
        raise InputError(f"CIDR: nobody calls a notebook from {block}.")
    return block


def _is_of_nobody(block: ipaddress.IPv4Network | ipaddress.IPv6Network) -> bool:
    # A slip for the world, which is 0.0.0.0/0. Python calls none of these reserved.
    return isinstance(block, ipaddress.IPv4Network) and block.subnet_of(_THIS_NETWORK)


def subnets(text: str) -> tuple[str, ...] | None:
    """Subnet ids in order of preference, comma or space separated. None if nothing is said.

    Raises:
        InputError: a word that is no id, or one that is there twice.
    """
    words = _words(text)
    if not words:
        return None
    if wrong := [word for word in words if not _SUBNET.fullmatch(word)]:
        raise InputError(f"SUBNETS: {wrong[0]!r} is no id of a subnet (subnet- and hex digits).")
    if len(words) > MOST_SUBNETS:
        raise InputError(f"SUBNETS names {len(words)} subnets; at most {MOST_SUBNETS} are allowed.")
    if len(set(words)) < len(words):
        raise InputError("SUBNETS names a subnet twice.")
    return tuple(words)


def parameters(
    *,
    operators_email: str = "",
    installer_url: str = "",
    installer_sha256: str = "",
    key_name: str = "",
    slack_origin: str = "",
    instance_types: str = "",
) -> dict[str, str]:
    """The template's further parameters: those that are said; `none` takes one away again.

    Args:
        instance_types: what any notebook may have, comma or space separated, such as `t3.*,m5.large`; `none`: no
            narrower than the catalogue.

    Raises:
        InputError: one that CloudFormation or the functions would refuse.
    """
    said = {
        "OperatorsEmail": operators_email,
        "InstallerUrl": installer_url,
        "InstallerSha256": installer_sha256.lower(),
        "KeyName": key_name,
        "SlackOrigin": slack_origin.rstrip("/"),
    }
    found = {name: "" if value == NONE else value for name, value in said.items() if value}
    if bool(found.get("InstallerUrl")) != bool(found.get("InstallerSha256")):
        raise InputError("INSTALLER_URL and INSTALLER_SHA256 go together: say both or none.")
    patterns = {
        "OperatorsEmail": (_EMAIL, "OPERATORS_EMAIL", "an e-mail address"),
        "InstallerUrl": (
            _URL,
            "INSTALLER_URL",
            f"an https:// address of at most {MOST_URL} characters: letters, digits and ._~/+%@=&?:,-",
        ),
        "InstallerSha256": (re.compile(r"[0-9a-f]{64}"), "INSTALLER_SHA256", "64 hex digits"),
        "KeyName": (_KEY_NAME, "KEY_NAME", "the name of an EC2 key pair"),
        "SlackOrigin": (
            re.compile(r"https://[a-z0-9.:-]{1,255}"),
            "SLACK_ORIGIN",
            "an origin such as https://hooks.slack.com",
        ),
    }
    for name, value in found.items():
        pattern, variable, kind = patterns[name]
        if value and not pattern.fullmatch(value):
            raise InputError(f"{variable}={value} is not {kind}.")
    if found.get("SlackOrigin") == "":
        raise InputError("SLACK_ORIGIN cannot be empty.")
    if instance_types:
        found["InstanceTypes"] = ",".join(_instance_types(instance_types))
    return found


def _instance_types(text: str) -> list[str]:
    known = catalogue().types
    if text == NONE:
        return sorted({f"{name.partition('.')[0]}.*" for name in known})
    patterns = list(dict.fromkeys(_words(text)))
    for pattern in patterns:
        if not _TYPES.fullmatch(pattern):
            raise InputError(f"INSTANCE_TYPES: {pattern!r} is no type or family such as t3.medium or t3.*.")
        if not allowed(known, [pattern]):
            raise InputError(
                f"INSTANCE_TYPES: {pattern} is no type of the catalogue (chalicelib/prices.json), so no notebook could "
                "have it."
            )
    if not patterns or len(",".join(patterns)) > MOST_PARAMETER:
        raise InputError(f"INSTANCE_TYPES: one type at least, and at most {MOST_PARAMETER} characters.")
    return patterns


def allowed(types: Iterable[str], patterns: Iterable[str]) -> list[str]:
    """Those of the types that one of the patterns takes in, * standing for any text as in IAM's StringLike."""
    patterns = list(patterns)
    return [name for name in types if any(fnmatchcase(name, pattern) for pattern in patterns)]


def _words(text: str) -> list[str]:
    return text.replace(",", " ").split()
