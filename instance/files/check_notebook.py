#!/usr/bin/env python3
"""Looks whether it is the notebook's own server that answers on its port, with the instance's own certificate.

Prints the certificate's SHA-256 and ends with 0; else prints what is wrong and ends with 1. Trust is by
comparison with the file, since a self-signed certificate has no chain.
"""

import hashlib
import ssl
import sys
from pathlib import Path

# python3 -I looks nowhere but in its own library.
sys.path.append(str(Path(__file__).resolve().parent))

import notebook_probe  # type: ignore[import-not-found]

CERTIFICATE = Path("/etc/nod/tls/notebook.pem")
END = "-----END CERTIFICATE-----"


def fingerprint(der: bytes) -> str:
    return hashlib.sha256(der).digest().hex(":").upper()


def check(
    certificate: Path,
    host: str = "127.0.0.1",
    port: int = 8888,
    timeout: float = 5.0,
    key: Path = notebook_probe.KEY,
) -> tuple[bool, str]:
    """Whether our server answers as it must, and the fingerprint or the fault."""
    expected = fingerprint(ssl.PEM_cert_to_DER_cert(certificate.read_text().split(END, maxsplit=1)[0] + END + "\n"))
    answer = notebook_probe.ask((host, port), timeout, key)
    if not answer.connected:
        return False, f"nothing answers on port {port}"
    if answer.foreign:
        return False, f"another program than the notebook's server answers on port {port}"
    if not answer.ours:
        return False, f"the server on port {port} does not serve yet"
    found = fingerprint(answer.certificate or b"")
    return (True, found) if found == expected else (False, f"another certificate is served: {found}")


if __name__ == "__main__":
    good, text = check(CERTIFICATE)
    sys.stdout.write(f"{text}\n")
    sys.exit(0 if good else 1)
