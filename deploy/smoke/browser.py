"""A person's browser, as far as `make smoke` needs one: the pages of a link, and a notebook behind its login."""

from __future__ import annotations

import hashlib
import json
import re
import socket
import ssl
import uuid
from dataclasses import dataclass, field
from html.parser import HTMLParser
from urllib.parse import urljoin, urlsplit

import httpx
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from deploy.errors import SmokeError

SECONDS = 30
"""How long one answer may take."""


@dataclass
class Form:
    """A form of a page: where it is sent, and its hidden fields."""

    action: str
    fields: dict[str, str] = field(default_factory=dict)


class _Forms(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[Form] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.found.append(Form(values.get("action", "")))
        elif tag == "input" and self.found and values.get("name"):
            self.found[-1].fields[values["name"]] = values.get("value", "")


class Pages:
    """The pages that a link for life leads to."""

    def __init__(self, client: httpx.Client) -> None:
        """Takes a client that follows no redirect."""
        self._client = client

    def look(self, link: str) -> httpx.Response:
        """The notebook's own page.

        Raises:
            SmokeError: there is none.
        """
        answer = _get(self._client, link)
        if answer.status_code == httpx.codes.SEE_OTHER:
            # The link of a notebook that is ready may lead on to it: its page is asked for by name.
            answer = _get(self._client, f"{link}&stay=1")
        if answer.status_code != httpx.codes.OK:
            raise SmokeError(f"the link's page answered {answer.status_code}")
        return answer

    def press(self, link: str, action: str) -> None:
        """Opens the page and presses the button.

        Raises:
            SmokeError: there is no such button, or it did nothing.
        """
        page = self.look(link)
        forms = _Forms()
        forms.feed(page.text)
        wanted = [form for form in forms.found if urlsplit(form.action).path.endswith(f"/{action}")]
        if not wanted:
            raise SmokeError(f"the page has no button to {action} the notebook")
        target = urljoin(str(page.url), wanted[0].action)
        try:
            answer = self._client.post(target, data=wanted[0].fields)
        except httpx.HTTPError as error:
            raise SmokeError(f"the button's form got no answer: {error}") from error
        if answer.status_code != httpx.codes.SEE_OTHER:
            raise SmokeError(f"the button's form answered {answer.status_code}")


def certificate_of(url: str) -> str:
    """SHA-256 of the certificate that the notebook shows, as browsers write it.

    Raises:
        SmokeError: it does not answer from here.
    """
    parts = urlsplit(url)
    try:
        where = (parts.hostname or "", parts.port or 443)
        with socket.create_connection(where, timeout=SECONDS) as plain, _unverified().wrap_socket(plain) as tls:
            certificate = tls.getpeercert(binary_form=True) or b""
    except OSError as error:
        raise SmokeError(f"{parts.netloc} does not answer from here: {error}. Is this network in CIDR?") from error
    return ":".join(re.findall("..", hashlib.sha256(certificate).hexdigest().upper()))


class Notebook:
    """A notebook, logged in to."""

    def __init__(self, url: str, password: str) -> None:
        """Raises SmokeError: the login page did not take the password."""
        self._url = url.rstrip("/")
        # Its certificate was compared with the fingerprint before: no authority has signed it.
        transport = httpx.HTTPTransport(verify=_unverified())
        self._client = httpx.Client(base_url=self._url, transport=transport, timeout=SECONDS, trust_env=False)
        try:
            page = self._client.get("/login")
            token = re.search(r'name="_xsrf" value="([^"]+)"', page.text)
            if not token:
                raise SmokeError(f"the login page answered {page.status_code} without a form")
            answer = self._client.post("/login", data={"_xsrf": token[1], "password": password})
        except httpx.HTTPError as error:
            self.close()
            raise SmokeError(f"the login page does not answer: {error}") from error
        if answer.status_code != httpx.codes.FOUND:
            self.close()
            raise SmokeError(f"the login answered {answer.status_code}")
        self._client.headers["X-XSRFToken"] = self._client.cookies["_xsrf"]

    def close(self) -> None:
        """Ends the connection, not what runs there."""
        self._client.close()

    def run(self, code: str) -> str:
        """Runs Python in a new kernel, which ends afterwards; what it printed.

        Raises:
            SmokeError: there is no kernel, no answer, or the code raised.
        """
        try:
            kernel = self._client.post("/api/kernels", json={"name": "python3"})
            kernel.raise_for_status()
            identity = kernel.json()["id"]
            try:
                return self._execute(identity, code)
            finally:
                self._client.delete(f"/api/kernels/{identity}")
        except (httpx.HTTPError, OSError, WebSocketException, ValueError, KeyError) as error:
            raise SmokeError(f"the kernel did not answer: {error}") from error

    def _execute(self, kernel: str, code: str) -> str:
        session = uuid.uuid4().hex
        header = {"msg_id": uuid.uuid4().hex, "session": session, "username": "", "version": "5.3"}
        content = {"code": code, "silent": False, "store_history": False, "user_expressions": {}, "allow_stdin": False}
        message = {"header": {**header, "msg_type": "execute_request"}, "parent_header": {}, "metadata": {}}
        cookies = "; ".join(f"{name}={value}" for name, value in self._client.cookies.items())
        address = f"wss{self._url.removeprefix('https')}/api/kernels/{kernel}/channels?session_id={session}"
        printed = ""
        with connect(
            address,
            ssl=_unverified(),
            additional_headers={"Cookie": cookies},
            open_timeout=SECONDS,
            max_size=None,
            proxy=None,
        ) as channel:
            channel.send(json.dumps({**message, "content": content, "channel": "shell", "buffers": []}))
            while True:
                answer = json.loads(channel.recv(timeout=4 * SECONDS))
                if answer["parent_header"].get("msg_id") != header["msg_id"]:
                    continue
                kind, said = answer["msg_type"], answer["content"]
                if kind == "stream":
                    printed += said["text"]
                elif kind == "error":
                    raise SmokeError(f"the cell raised {said['ename']}: {said['evalue']}")
                elif said.get("execution_state") == "idle":
                    return printed.strip()


def _get(client: httpx.Client, url: str) -> httpx.Response:
    try:
        return client.get(url)
    except httpx.HTTPError as error:
        raise SmokeError(f"the link's page does not answer: {error}") from error


def _unverified() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
