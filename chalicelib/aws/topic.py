"""SNS: the topic of messages, and the subscriptions to it."""

from __future__ import annotations

import json
from typing import Any

from chalicelib.messages import Message


class Topic:
    """Takes an SNS client."""

    def __init__(self, client: Any, arn: str) -> None:
        self._client = client
        self._arn = arn

    def publish(self, message: Message) -> None:
        """Sends a message to the subscriptions whose filter fits: see docs/contracts.md."""
        self._client.publish(
            TopicArn=self._arn,
            Subject=message.subject,
            MessageStructure="json",
            Message=json.dumps(
                {
                    "default": message.text,
                    "email": message.text,
                    "lambda": json.dumps(message.for_lambda()),
                }
            ),
            MessageAttributes={
                "owner": {"DataType": "String", "StringValue": message.owner_id},
                "kind": {"DataType": "String", "StringValue": message.kind},
                "channels": {"DataType": "String.Array", "StringValue": json.dumps(list(message.channels))},
            },
        )

    def subscribe_email(self, user_id: str, address: str) -> str:
        """Subscribes an address to a user's messages; AWS mails it to confirm. The subscription's ARN."""
        answer = self._client.subscribe(
            TopicArn=self._arn,
            Protocol="email",
            Endpoint=address,
            Attributes={
                "FilterPolicy": json.dumps({"owner": [user_id], "channels": ["email"]}),
                "RedrivePolicy": json.dumps({"deadLetterTargetArn": self._undelivered()}),
            },
            ReturnSubscriptionArn=True,
        )
        return str(answer["SubscriptionArn"])

    def _undelivered(self) -> str:
        """The queue for what SNS could not deliver: of the same deployment, so of the topic's account and region."""
        _, partition, _, region, account, name = self._arn.split(":")
        return f"arn:{partition}:sqs:{region}:{account}:{name.removesuffix('-messages')}-undelivered-messages"

    def unsubscribe(self, subscription_arn: str) -> None:
        """Ends a subscription. One that is not confirmed cannot be ended: it goes after three days."""
        exceptions = self._client.exceptions
        try:
            self._client.unsubscribe(SubscriptionArn=subscription_arn)
        except (exceptions.InvalidParameterException, exceptions.NotFoundException):
            return

    def is_confirmed(self, subscription_arn: str) -> bool:
        """Whether the address was confirmed. False too when the subscription is gone."""
        try:
            answer = self._client.get_subscription_attributes(SubscriptionArn=subscription_arn)
        except self._client.exceptions.NotFoundException:
            return False
        return str(answer["Attributes"].get("PendingConfirmation", "true")).lower() == "false"
