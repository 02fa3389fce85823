"""A person at the API: what the tests of the whole product do and see, over HTTP only."""

from __future__ import annotations

import hashlib
import re
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any

import httpx


class Person:
    def __init__(self, api_url: str, token: str) -> None:
        self.http = httpx.Client(
            base_url=api_url, headers={"Authorization": f"Bearer {token}"}, timeout=120, trust_env=False
        )

    def request(self, key: str | None = None, **body: Any) -> httpx.Response:
        headers = {"Idempotency-Key": key} if key else {}
        return self.http.post("/notebooks", json=body, headers=headers)

    def show(self, notebook_id: str) -> dict[str, Any]:
        answer = self.http.get(f"/notebooks/{notebook_id}")
        answer.raise_for_status()
        return dict(answer.json())

    def wait(self, notebook_id: str, *states: str, seconds: float = 180, every: float = 0.1) -> dict[str, Any]:
        """The notebook once it is in one of the states; an AssertionError that shows it when time is up."""
        seen: dict[str, Any] = {}

        def arrived() -> bool:
            seen.update(self.show(notebook_id))
            return seen["state"] in states

        wait_until(arrived, seconds, lambda: f"{notebook_id} is no {states}: {seen}", every)
        return seen

    def delete(self, notebook_id: str, confirm: str | None) -> httpx.Response:
        params = {"confirm": confirm} if confirm is not None else {}
        return self.http.delete(f"/notebooks/{notebook_id}", params=params)


def wait_until(condition: Callable[[], Any], seconds: float, what: str | Callable[[], str], every: float = 0.1) -> Any:
    """The first true value of the condition, looked at less and less often. Fails with `what` when time is up."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, what if isinstance(what, str) else what()
        time.sleep(every)
        every = max(every, min(every * 1.3, 0.5))
    return value


def fingerprint(address: str, port: int = 8888) -> str:
    """SHA-256 of the certificate that a server shows, as browsers write it."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with socket.create_connection((address, port), timeout=10) as plain, context.wrap_socket(plain) as tls:
        certificate = tls.getpeercert(binary_form=True)
    assert certificate is not None
    return ":".join(re.findall("..", hashlib.sha256(certificate).hexdigest().upper()))


def log_in(url: str, password: str, source: str | None = None) -> httpx.Client:
    """A browser's session of the notebook after its login form; the client's last answer is in `.login`."""
    transport = httpx.HTTPTransport(verify=False, local_address=source)
    client = httpx.Client(base_url=url, transport=transport, timeout=30, follow_redirects=False, trust_env=False)
    page = client.get("/login")
    token = re.search(r'name="_xsrf" value="([^"]+)"', page.text)
    assert token, page.text[:500]
    client.login = client.post("/login", data={"_xsrf": token[1], "password": password})  # type: ignore[attr-defined]
    return client
