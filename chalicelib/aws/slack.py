"""Slack's incoming webhooks. Imported by the one function that delivers to Slack: slack_sdk takes 200 ms."""

from __future__ import annotations

from collections.abc import Sequence

from slack_sdk.http_retry.builtin_handlers import ConnectionErrorRetryHandler, RateLimitErrorRetryHandler
from slack_sdk.webhook import WebhookClient

from chalicelib.errors import DeliveryFailed

_SECONDS = 10


def post(address: str, text: str, blocks: Sequence[dict[str, object]]) -> None:
    """Sends one message. Slack's 429 is waited out as its Retry-After says, twice; then Lambda's own retry comes.

    Raises:
        DeliveryFailed: Slack refused it or was not reached. The address, which is a secret, is not in the text.
    """
    handlers = [RateLimitErrorRetryHandler(max_retry_count=2), ConnectionErrorRetryHandler()]
    client = WebhookClient(address, timeout=_SECONDS, retry_handlers=handlers)
    try:
        answer = client.send(text=text, blocks=blocks)
    except (OSError, ValueError) as error:
        # Not chained: the exception's text may hold the address.
        raise DeliveryFailed(f"Slack was not reached ({type(error).__name__}).") from None
    if answer.status_code != 200:
        raise DeliveryFailed(f"Slack answered {answer.status_code}: {answer.body[:100]}")
