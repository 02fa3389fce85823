"""Where the API is and who asks: options, then environment, then the configuration file."""

from __future__ import annotations

import ipaddress
import os
import re
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from nod.errors import UsageError

KEYS = ("url", "token", "token_file")
_TOKEN = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True)
class Settings:
    """What every command needs. The token is kept out of `repr`, so that no traceback shows it."""

    url: str
    """Without a slash at its end."""
    token: str = field(repr=False)
    loopback: bool
    """The API is on this machine: proxies of the environment do not apply."""
    warnings: tuple[str, ...] = ()


def config_path(env: Mapping[str, str], home: Path) -> Path:
    """`$XDG_CONFIG_HOME/nod/config.toml`, else `~/.config/nod/config.toml`, on every system.

    A relative XDG_CONFIG_HOME is ignored, as the XDG Base Directory Specification says.
    """
    base = env.get("XDG_CONFIG_HOME", "")
    return (Path(base) if base and Path(base).is_absolute() else home / ".config") / "nod" / "config.toml"


def load(
    *,
    url: str | None,
    token_file: str | None,
    insecure_http: bool,
    env: Mapping[str, str],
    path: Path,
) -> Settings:
    """Settles address and token, each from the first place that names it.

    Args:
        url: `--url`.
        token_file: `--token-file`.
        insecure_http: `--insecure-http`: http is accepted for addresses other than loopback.
        env: the environment; an empty variable counts as not set.
        path: the configuration file, which need not exist.

    Raises:
        UsageError: one is missing, unreadable or unusable.
    """
    warnings: list[str] = []
    file = _read_file(path)
    address = url or env.get("NOD_URL") or file.get("url")
    if not address:
        raise UsageError(
            "No address of the API.",
            hints=(f'Give --url URL, set NOD_URL, or write  url = "https://…"  into {path}.',),
        )
    parts = _checked_url(address, insecure_http)
    token = _token(token_file, env, file, path, warnings)
    return Settings(
        url=address.rstrip("/"),
        token=token,
        loopback=is_loopback(parts.hostname or ""),
        warnings=tuple(warnings),
    )


def _token(option: str | None, env: Mapping[str, str], file: Mapping[str, str], path: Path, warnings: list[str]) -> str:
    if option:
        return _token_from(Path(option), warnings)
    if env.get("NOD_TOKEN"):
        return _checked_token(env["NOD_TOKEN"], "NOD_TOKEN")
    if "token" in file:
        warnings.extend(_readable_by_others(path))
        return _checked_token(file["token"], f"token in {path}")
    if "token_file" in file:
        # Relative to the file that names it: the working directory changes, that folder does not.
        return _token_from(path.parent / Path(file["token_file"]).expanduser(), warnings)
    raise UsageError(
        "No token.",
        hints=(f'Give --token-file FILE, set NOD_TOKEN, or write  token = "nod.…"  into {path}.',),
    )


def _token_from(path: Path, warnings: list[str]) -> str:
    try:
        content = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"Cannot read the token file {path}: {_reason(error)}.") from error
    warnings.extend(_readable_by_others(path))
    return _checked_token(content, str(path))


def _checked_token(value: str, source: str) -> str:
    token = value.strip()
    if not _TOKEN.fullmatch(token):
        # The value is not repeated: it may be a token with a typing error.
        raise UsageError(f"{source} holds no token: one word like nod.USER.SECRET is expected.")
    return token


def _readable_by_others(path: Path) -> list[str]:
    if os.name != "posix" or not stat.S_IMODE(path.stat().st_mode) & 0o044:
        return []
    return [f"{path} holds a token and others on this machine can read it: chmod 600 {path}"]


def _read_file(path: Path) -> dict[str, str]:
    try:
        content = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"Cannot read {path}: {_reason(error)}.") from error
    try:
        document = tomllib.loads(content)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path} is not valid TOML: {error}.") from error
    for key, value in document.items():
        if key not in KEYS:
            raise UsageError(f"{path}: unknown key {key}; known are {', '.join(KEYS)}.")
        if not isinstance(value, str):
            raise UsageError(f"{path}: {key} must be a string in quotes.")
    return {key: value for key, value in document.items() if value}


def _checked_url(url: str, insecure_http: bool) -> SplitResult:
    try:
        parts = urlsplit(url)
        host, _port = parts.hostname, parts.port
    except ValueError as error:
        raise UsageError(f"Not an address: {url} ({error}).") from error
    if parts.scheme not in ("http", "https") or not host or not url.isascii() or " " in url:
        raise UsageError(f"Not an address of the API: {url}; expected https://HOST or https://HOST/STAGE.")
    if parts.username is not None or parts.query or parts.fragment:
        raise UsageError(
            "The address of the API has no user, query or fragment; the token goes in NOD_TOKEN or a file."
        )
    if parts.scheme == "http" and not (insecure_http or is_loopback(host)):
        raise UsageError(
            f"{url}: with http the token would travel in clear.",
            hints=("Use https. Where the network in between is trusted: --insecure-http.",),
        )
    return parts


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine itself."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _reason(error: OSError | UnicodeDecodeError) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else "it is not UTF-8 text"
