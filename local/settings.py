"""What the environment tells the local cloud: read and judged here, before anything is made.

Each variable is read in one place; what is wrong with one is a sentence that names it and says what to do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from local.aws import addresses
from local.errors import PreflightError
from local.faults import Faults, UnknownFaultError
from local.image import cache_folder

DEFAULT_REGION: Final = "us-east-1"

_PORT = re.compile(r"[0-9]{1,5}")


@dataclass(frozen=True)
class Settings:
    """All of them. Folders are absolute, and need not be there yet."""

    state: Path
    cache: Path
    api_port: int
    aws_port: int
    faults: tuple[str, ...]
    """Those that are on from the start."""
    region: str
    minute_seconds: float | None
    """None: nobody said, and a minute lasts 60."""
    installer: tuple[str, str] | None
    """URL and SHA-256. None: the stand-in."""

    @classmethod
    def from_env(cls, environment: Mapping[str, str], root: Path) -> Settings:
        """`root` is the checkout, in which the state is kept if nobody says where. Raises PreflightError."""
        api_port = _port(environment, "NOD_API_PORT", 8000)
        aws_port = _port(environment, "NOD_AWS_PORT", 5566)
        if api_port == aws_port:
            raise PreflightError(f"NOD_API_PORT and NOD_AWS_PORT are both {api_port}: give them two ports.")
        return cls(
            state=Path(environment.get("NOD_LOCAL_DIR") or root / ".local").absolute(),
            cache=_cache(environment),
            api_port=api_port,
            aws_port=aws_port,
            faults=_faults(environment),
            region=chosen_region(environment),
            minute_seconds=chosen_minute(environment),
            installer=chosen_installer(environment),
        )


def chosen_region(environment: Mapping[str, str]) -> str:
    """The region it says it is, of those that moto has with ARNs that begin with `arn:aws:`. Raises PreflightError."""
    region = environment.get("AWS_REGION") or DEFAULT_REGION
    if region == DEFAULT_REGION:
        return region
    from botocore.session import get_session  # noqa: PLC0415 - takes a moment, and most people name no region

    if region not in get_session().get_available_regions("ec2"):
        raise PreflightError(
            f"AWS_REGION is {_shown(region)}, which the local cloud cannot be: set it to a region such as eu-central-1 "
            f"(not of GovCloud or China), or unset it for {DEFAULT_REGION}."
        )
    return region


def chosen_minute(environment: Mapping[str, str]) -> float | None:
    """How many seconds a minute lasts, by the product's own rule. None if nobody says. Raises PreflightError."""
    text = environment.get("NOD_MINUTE_SECONDS")
    if not text:
        return None
    from chalicelib.errors import SettingsError  # noqa: PLC0415 - each cloud imports the product anew
    from chalicelib.settings import minute_of  # noqa: PLC0415

    try:
        return minute_of(text).total_seconds()
    except SettingsError as error:
        raise PreflightError(f"{str(error).rstrip('.')}, and is {_shown(text)}.") from error


def chosen_installer(environment: Mapping[str, str]) -> tuple[str, str] | None:
    """URL and SHA-256 of an installer other than the stand-in, as the document that installs it takes them.

    None if nobody names one. Raises PreflightError.
    """
    url, sha256 = (environment.get(f"NOD_INSTALLER_{name}") or "" for name in ("URL", "SHA256"))
    if not url and not sha256:
        return None
    if not url or not sha256:
        raise PreflightError("NOD_INSTALLER_URL and NOD_INSTALLER_SHA256 go together: set both, or none.")
    sha256 = sha256.lower()
    from instance.build import documents  # noqa: PLC0415 - most people name no installer

    takes = documents()["install-anaconda"]["parameters"]
    if len(url) > takes["InstallerUrl"]["maxChars"] or not re.fullmatch(takes["InstallerUrl"]["allowedPattern"], url):
        raise PreflightError(
            f"NOD_INSTALLER_URL is {_shown(url)}: set it to an address that begins with https://, or with "
            "http://127.0.0.1, has a path, and has no spaces, quotes or other signs that a URL encodes."
        )
    if not re.fullmatch(takes["InstallerSha256"]["allowedPattern"], sha256):
        raise PreflightError(
            f"NOD_INSTALLER_SHA256 is {_shown(sha256)}: set it to the 64 hex digits that sha256sum prints for the "
            "installer."
        )
    return url, sha256


def _port(environment: Mapping[str, str], variable: str, default: int) -> int:
    text = environment.get(variable) or str(default)
    if not _PORT.fullmatch(text) or not 1 <= int(text) <= 65_535:
        raise PreflightError(f"{variable} is {_shown(text)}: set it to a port from 1 to 65535.")
    if int(text) == addresses.PORT:
        raise PreflightError(f"{variable} is {text}, which is the notebooks' own port: set it to another.")
    return int(text)


def _cache(environment: Mapping[str, str]) -> Path:
    cache = cache_folder(environment).absolute()
    if re.search(r"\s", str(cache.resolve())):
        raise PreflightError(
            f"The cache would be in {_shown(str(cache))}, and debootstrap takes no folder with a space in its path: "
            "set NOD_CACHE_DIR to one without."
        )
    return cache


def _faults(environment: Mapping[str, str]) -> tuple[str, ...]:
    names = [name.strip() for name in environment.get("NOD_FAULTS", "").split(",") if name.strip()]
    try:
        return tuple(Faults(names).names())
    except UnknownFaultError as error:
        raise PreflightError(f"NOD_FAULTS: {error}.") from error


def _shown(text: str) -> str:
    """On one line, and not for ever."""
    return repr(text if len(text) <= 200 else text[:199] + "…")
