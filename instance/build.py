"""Builds the SSM documents that `ssm:CreateDocument` takes from the files of this folder.

A document in `documents/NAME.yaml` is complete but for one thing: where it says `!bundle`, it names a
script and the files that the script installs. The builder packs these (and `scripts/common.sh`) into an
archive inside the step's `runCommand`, so that a document needs nothing from the network but what the script
itself downloads.
"""

import base64
import functools
import io
import lzma
import tarfile
import textwrap
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent
COMMON = "scripts/common.sh"

# TMPDIR: bash may put a here-document into a file, and /run is there even when the disk is full.
HEAD = """\
#!/bin/bash
# {title}
# Built by instance/build.py from instance/{script}, which is in the archive below with the files it installs.
# Constraints: root, systemd, bash 5. Prints one JSON line; the rest is in /var/log/nod.
set -euo pipefail
umask 077
trap 'echo "{refusal}"; exit 1' ERR
export TMPDIR=/run
NOD_WORK=$(mktemp -d /run/nod-work.XXXXXXXX 2>/dev/null)
export NOD_WORK
unpack='import lzma, sys; sys.stdout.buffer.write(lzma.decompress(sys.stdin.buffer.read()))'
unpack() { base64 -d | python3 -I -c "$unpack" | tar -xf - --no-same-owner -C "$NOD_WORK"; }
unpack <<'ARCHIVE' 2>/dev/null
""".replace(
    "{refusal}",
    r"{\"ok\": false, \"code\": \"unsupported_system\", "
    r"\"message\": \"The script could not be unpacked under /run: is this root, with tar and Python 3?\"}",
)
TAIL = """\
ARCHIVE
exec bash "$NOD_WORK/{script}"
"""


class _Loader(yaml.CSafeLoader):
    """YAML with the tag `!bundle`."""


def _bundle(loader: yaml.CSafeLoader, node: yaml.Node) -> list[str]:
    assert isinstance(node, yaml.MappingNode)
    fields = loader.construct_mapping(node, deep=True)
    return _run_command(fields["title"], fields["script"], fields.get("files", []))


_Loader.add_constructor("!bundle", _bundle)


def _run_command(title: str, script: str, files: list[str]) -> list[str]:
    head = HEAD.replace("{title}", title).replace("{script}", script)
    payload = base64.b64encode(_archive([COMMON, script, *files])).decode()
    return [*head.splitlines(), *textwrap.wrap(payload, 1000), *TAIL.replace("{script}", script).splitlines()]


def _archive(names: list[str]) -> bytes:
    """A tar.xz that depends on the files' names and content only, so that a document changes when they do. gzip would
    leave less room below AWS's limit of 64 KB a document."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name in sorted(names):
            content = (ROOT / name).read_bytes()
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            entry.mode = 0o600
            archive.addfile(entry, io.BytesIO(content))
    return _compressed(plain.getvalue())


@functools.cache
def _compressed(content: bytes) -> bytes:
    # Kept, since it takes half a second for all documents, and each local cloud of a process has the same.
    return lzma.compress(content, preset=9 | lzma.PRESET_EXTREME)


def documents() -> dict[str, dict[str, Any]]:
    """Every document by its name without the deployment's prefix: schema 2.2, ready for CreateDocument."""
    return {
        # A subclass of the safe loader: it builds nothing but plain values.
        path.stem: yaml.load(path.read_text(), Loader=_Loader)  # noqa: S506
        for path in sorted((ROOT / "documents").glob("*.yaml"))
    }
