"""Asks the notebook's port whether it is the notebook's own server that answers.

The server proves it by an HMAC of a nonce, by a key that only root and the notebook's user can read and that is new at
each boot (nod_server.py, safe_mode.py). So no other server that sits on the port is taken for it: an older Jupyter, or
a page that has a field for a password too.
"""

import hashlib
import hmac
import json
import secrets
import socket
import ssl
import time
from pathlib import Path
from typing import NamedTuple

NOTEBOOK = ("127.0.0.1", 8888)
KEY = Path("/run/nod-server/key")
MOST_BYTES = 16384


class Answer(NamedTuple):
    """What came from the port.

    `ours`: it is the notebook's server, and it serves. `connected`: something listens there. `replied`: something
    answered the request. `certificate`: what it showed, DER.
    """

    ours: bool
    connected: bool
    replied: bool
    certificate: bytes | None

    @property
    def foreign(self) -> bool:
        """Whether it is another program that answers. Our own says so until it serves."""
        return self.replied and not self.ours


def ask(address: tuple[str, int] = NOTEBOOK, timeout: float = 5.0, key: Path = KEY) -> Answer:
    """Asks over TLS; `timeout` seconds for all of it. Whose certificate it is, is for the caller to compare."""
    deadline = time.monotonic() + timeout
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    nonce = secrets.token_hex(16)
    certificate, connected, answer = None, False, b""
    try:
        with socket.create_connection(address, timeout) as plain:
            connected = True
            try:
                with context.wrap_socket(plain) as connection:
                    certificate = connection.getpeercert(binary_form=True)
                    connection.sendall(
                        f"GET /nod/identity?nonce={nonce} HTTP/1.1\r\nHost: localhost\r\n"
                        "Connection: close\r\n\r\n".encode()
                    )
                    # Each part has its own timeout: a server that dribbles would otherwise hold us for ever.
                    while len(answer) < MOST_BYTES and (left := deadline - time.monotonic()) > 0:
                        connection.settimeout(left)
                        part = connection.recv(MOST_BYTES)
                        if not part:
                            break
                        answer += part
            except ssl.SSLError as error:
                # What speaks no TLS answered too.
                if certificate is None and not isinstance(error, TimeoutError):
                    return Answer(False, True, "timed out" not in str(error), None)
    except OSError:
        pass
    head, _, body = answer.partition(b"\r\n\r\n")
    status = head.split(b"\r\n", 1)[0].split(b" ", 2)
    if len(status) < 2 or not status[0].startswith(b"HTTP/1."):
        return Answer(False, connected, bool(answer), certificate)
    told = _told(body)
    ours = status[1] == b"200" and is_proof(told.get("proof"), nonce, key)
    # Ours that does not serve yet is as good as no answer.
    return Answer(ours and told.get("serving") is True, connected, not ours or told["serving"] is True, certificate)


def is_proof(proof: object, nonce: str, key: Path = KEY) -> bool:
    """Whether it is the nonce's HMAC by this boot's key."""
    try:
        secret = bytes.fromhex(key.read_text())
    except (OSError, ValueError):
        return False
    expected = hmac.new(secret, f"nod:{nonce}".encode(), hashlib.sha256).hexdigest()
    return isinstance(proof, str) and hmac.compare_digest(proof.encode(), expected.encode())


def _told(body: bytes) -> dict[str, object]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
