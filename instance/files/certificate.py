#!/usr/bin/env python3
"""Keeps the notebook's self-signed certificate right for the instance's names and addresses.

Run by nod-certificate.service as root, at boot and every hour. Makes a new certificate when there is none,
when it ends within 30 days, or when the instance's public or private names or addresses (asked from IMDSv2)
are others than those in it. `--show` prints fingerprint and names of the present one instead.

Key and certificate are one file, replaced in one step (replace_file.py): the server reads it anew for each connection
and must never see the key of one and the certificate of the other.
"""

import contextlib
import hashlib
import http.client
import ipaddress
import json
import re
import shutil
import ssl
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# python3 -I looks nowhere but in its own library.
sys.path.append(str(Path(__file__).resolve().parent))

from replace_file import replace  # type: ignore[import-not-found]

FOLDER = Path("/etc/nod/tls")
READERS = "jupyter"
# Browsers that hold self-signed certificates to a limit hold them to 825 days (Apple HT210176).
DAYS = 825
RENEW_SECONDS = 30 * 86400
IMDS = ("169.254.169.254", 80)
IMDS_SECONDS = 60
NAMES = ("public-hostname", "local-hostname")
ADDRESSES = ("public-ipv4", "local-ipv4")
# A host name as RFC 1123 has it: it goes into openssl's own notation, where a comma would start another name.
LABEL = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
HOSTNAME = re.compile(rf"(?=.{{1,253}}\Z){LABEL}(?:\.{LABEL})*\Z")


class CertificateError(Exception):
    """The certificate cannot be made; the text says why."""


class Metadata:
    """The instance metadata service, version 2 (a token by PUT, then GET)."""

    def __init__(self, address: tuple[str, int] = IMDS, timeout: float = 3.0) -> None:
        self._address = address
        self._timeout = timeout

    def _request(self, method: str, path: str, headers: dict[str, str]) -> str | None:
        connection = http.client.HTTPConnection(*self._address, timeout=self._timeout)
        try:
            connection.request(method, path, headers=headers)
            response = connection.getresponse()
            body = response.read(4096).decode("ascii", "replace").strip()
        finally:
            connection.close()
        if response.status == http.client.NOT_FOUND:
            return None
        if response.status != http.client.OK:
            raise OSError(f"the metadata service answered {response.status} to {method} {path}")
        return body or None

    def names(self) -> list[str]:
        """Host names, then addresses, public before private, each once; what there is not is left out."""
        token = self._request("PUT", "/latest/api/token", {"X-aws-ec2-metadata-token-ttl-seconds": "60"})
        header = {"X-aws-ec2-metadata-token": token or ""}
        found = [self._request("GET", f"/latest/meta-data/{key}", header) for key in (*NAMES, *ADDRESSES)]
        return canonical([name for name in found if name])


def canonical(names: list[str]) -> list[str]:
    """The names in one spelling, host names first, each once.

    Raises CertificateError for what is neither a host name nor an address.
    """
    hosts, addresses = [], []
    for name in names:
        try:
            addresses.append(str(ipaddress.ip_address(name)))
        except ValueError:
            if not HOSTNAME.match(name):
                raise CertificateError(f"the metadata service gave {name!r} as a host name") from None
            hosts.append(name.lower())
    return list(dict.fromkeys([*hosts, *addresses]))


def names_in(openssl_text: str) -> list[str]:
    """The names of `openssl x509 -noout -ext subjectAltName`, in the order of the certificate."""
    return canonical(re.findall(r"(?:DNS|IP Address):([^,\s]+)", openssl_text))


def fingerprint(pem: str) -> str:
    """SHA-256 of the first certificate of a PEM file, in upper case with colons, as browsers show it."""
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    first = pem[pem.index(begin) :].split(end, maxsplit=1)[0] + end + "\n"
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(first)).digest().hex(":").upper()


def openssl(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["openssl", *arguments], capture_output=True, text=True, timeout=30, check=False)


def reason_to_renew(certificate: Path, names: list[str]) -> str | None:
    """Why the certificate must be made anew for these names; None when it need not."""
    if not certificate.exists():
        return "there is none"
    shown = openssl("x509", "-in", str(certificate), "-noout", "-ext", "subjectAltName")
    if shown.returncode != 0:
        return "it cannot be read"
    if set(names_in(shown.stdout)) != set(names):
        return f"its names {names_in(shown.stdout)} are not {names}"
    if openssl("x509", "-in", str(certificate), "-noout", "-checkend", str(RENEW_SECONDS)).returncode != 0:
        return "it ends within 30 days"
    return None


def make(folder: Path, names: list[str]) -> None:
    """Makes key and certificate for the names and puts them in place.

    Raises CertificateError with openssl's own words when that fails.
    """
    spelled = [f"{'IP' if is_address(name) else 'DNS'}:{name}" for name in names]
    common_name = next((name for name in names if len(name) <= 64), "notebook")
    # In the service's own /tmp, which lies in memory: a full disk does not keep a notebook from its new address.
    with tempfile.TemporaryDirectory() as scratch:
        key, certificate = Path(scratch, "key.pem"), Path(scratch, "certificate.pem")
        # fmt: off
        made = openssl(
            "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-sha256",
            "-days", str(DAYS), "-subj", f"/CN={common_name}",
            "-addext", f"subjectAltName={','.join(spelled)}",
            "-addext", "extendedKeyUsage=serverAuth",
            "-addext", "keyUsage=critical,digitalSignature",
            "-addext", "basicConstraints=critical,CA:FALSE",
            "-keyout", str(key), "-out", str(certificate),
        )
        # fmt: on
        if made.returncode != 0:
            raise CertificateError(f"openssl: {made.stderr.strip()[-300:]}")
        both = certificate.read_bytes() + key.read_bytes()
    try:
        replace(folder / "notebook.pem", both, 0o640, READERS)
    except OSError as error:
        raise CertificateError(f"the certificate could not be put in place: {error}") from error


def is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def ask(metadata: Metadata, patience: float) -> list[str]:
    """The instance's names; asks again for `patience` seconds, since the network may come up after us."""
    deadline = time.monotonic() + patience
    while True:
        try:
            names = metadata.names()
        except (OSError, http.client.HTTPException) as error:
            if time.monotonic() >= deadline:
                raise CertificateError(f"the metadata service does not answer: {error}") from error
        else:
            if not names:
                raise CertificateError("the metadata service knows neither name nor address of the instance")
            return names
        time.sleep(1)


def clean(folder: Path) -> None:
    """Removes what a run that was killed left behind."""
    for scratch in folder.glob(".new-*"):
        with contextlib.suppress(OSError):
            shutil.rmtree(scratch)


def ensure(folder: Path, metadata: Metadata, patience: float = IMDS_SECONDS) -> str:
    """Makes the certificate right; answers what was done. Without an answer of IMDS the present one stays."""
    clean(folder)
    certificate = folder / "notebook.pem"
    try:
        names = ask(metadata, patience)
    except CertificateError as error:
        if certificate.exists():
            return f"kept: {error}"
        raise
    reason = reason_to_renew(certificate, names)
    if reason is None:
        return "kept: it is right"
    make(folder, names)
    return f"made a new one, because {reason}"


def main(arguments: list[str]) -> int:
    certificate = FOLDER / "notebook.pem"
    if arguments == ["--show"]:
        shown = openssl("x509", "-in", str(certificate), "-noout", "-ext", "subjectAltName")
        sys.stdout.write(f"{fingerprint(certificate.read_text())} {json.dumps(names_in(shown.stdout))}\n")
        return 0
    try:
        sys.stdout.write(f"certificate: {ensure(FOLDER, Metadata())}\n")
    except CertificateError as error:
        sys.stdout.write(f"certificate: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
