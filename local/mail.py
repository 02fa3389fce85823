"""The local mail server: real SMTP, and an inbox that can be looked at."""

from __future__ import annotations

import email
import email.policy
import re
import smtplib
import socket
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from email.message import EmailMessage
from typing import Any

from aiosmtpd.controller import Controller

from local.faults import Faults


@dataclass(frozen=True)
class Mail:
    """A mail that arrived."""

    at: str
    sender: str
    recipients: tuple[str, ...]
    subject: str
    text: str

    @property
    def links(self) -> list[str]:
        """The addresses of web pages in the text, in order."""
        return re.findall(r"https?://[^\s<>\"]+", self.text)


class Inbox:
    """An SMTP server on the loopback interface, and what arrived at it."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._mails: list[Mail] = []
        self._arrived = threading.Condition()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self._server = Controller(self, hostname="127.0.0.1", port=self.port)
        self._server.start()

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802, ARG002 - aiosmtpd's names
        if self._faults.active("notification_fails", "email"):
            return "451 4.3.0 fault notification_fails"
        message = email.message_from_bytes(envelope.content, policy=email.policy.default)
        body = message.get_body(preferencelist=("plain", "html"))
        mail = Mail(
            at=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
            sender=str(envelope.mail_from),
            recipients=tuple(envelope.rcpt_tos),
            subject=str(message["Subject"] or ""),
            text=body.get_content().replace("\r\n", "\n") if body is not None else "",
        )
        with self._arrived:
            self._mails.append(mail)
            self._arrived.notify_all()
        return "250 OK"

    def messages(self) -> list[Mail]:
        """All that arrived, oldest first."""
        with self._arrived:
            return list(self._mails)

    def wait(self, wanted: Callable[[Mail], bool], seconds: float = 10.0) -> Mail:
        """The first mail that is wanted. Raises TimeoutError."""
        found: list[Mail] = []

        def there() -> bool:
            found.extend(mail for mail in self._mails if wanted(mail))
            return bool(found)

        with self._arrived:
            if not self._arrived.wait_for(there, seconds):
                raise TimeoutError(f"no such mail within {seconds} s; {len(self._mails)} others arrived")
        return found[0]

    def to_json(self) -> list[dict[str, Any]]:
        """The inbox as JSON has it."""
        return [{**asdict(mail), "links": mail.links} for mail in self.messages()]

    def close(self) -> None:
        """Stop the server."""
        self._server.stop()


def send(port: int, sender: str, recipient: str, subject: str, text: str) -> None:
    """Send one plain-text mail to the local server. Raises smtplib.SMTPException, OSError."""
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = sender, recipient, subject
    message.set_content(text)
    with smtplib.SMTP("127.0.0.1", port, timeout=10) as server:
        server.send_message(message)
