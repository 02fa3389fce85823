#!/usr/bin/env python3
"""Looks whether the notebook's login page answers over TLS with the instance's own certificate.

Prints the certificate's SHA-256 and ends with 0; else prints what is wrong and ends with 1. Trust is by
comparison with the file, since a self-signed certificate has no chain.
"""

import hashlib
import http.client
import ssl
import sys
from pathlib import Path

CERTIFICATE = Path("/etc/nod/tls/notebook.pem")
END = "-----END CERTIFICATE-----"


def served(host: str, port: int, timeout: float) -> tuple[str, int, str]:
    """Fingerprint of the certificate that is served, status of the login page, its text."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    connection = http.client.HTTPSConnection(host, port, timeout=timeout, context=context)
    try:
        connection.connect()
        der = connection.sock.getpeercert(binary_form=True) or b""
        connection.request("GET", "/login")
        response = connection.getresponse()
        page = response.read(262144).decode("utf-8", "replace")
    finally:
        connection.close()
    return fingerprint(der), response.status, page


def fingerprint(der: bytes) -> str:
    return hashlib.sha256(der).digest().hex(":").upper()


def check(certificate: Path, host: str = "127.0.0.1", port: int = 8888, timeout: float = 5.0) -> tuple[bool, str]:
    """Whether the login page answers as it must, and the fingerprint or the fault."""
    expected = fingerprint(ssl.PEM_cert_to_DER_cert(certificate.read_text().split(END, maxsplit=1)[0] + END + "\n"))
    try:
        found, status, page = served(host, port, timeout)
    except (OSError, http.client.HTTPException) as error:
        return False, f"no answer on port {port}: {error}"
    if found != expected:
        return False, f"another certificate is served: {found}"
    if status != http.client.OK or 'name="password"' not in page:
        return False, f"the login page answered {status} and has no field for a password"
    return True, found


if __name__ == "__main__":
    good, text = check(CERTIFICATE)
    sys.stdout.write(f"{text}\n")
    sys.exit(0 if good else 1)
