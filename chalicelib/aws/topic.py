"""SNS: the topic of messages, and the subscriptions to it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from chalicelib.messages import Message
from chalicelib.model import CONFIRMED, PENDING


@dataclass(frozen=True)
class Subscriptions:
    """The subscriptions of a topic: the ARNs of those that are confirmed, and the addresses that ended theirs by the
    link in a mail (AWS lists them as `Deleted`, without their ARN, for three days)."""

    arns: frozenset[str]
    ended: frozenset[str]


class Topic:
    """Takes an SNS client."""

    def __init__(self, client: Any, arn: str) -> None:
        self._client = client
        self.arn = arn

    def publish(self, message: Message) -> None:
        """Sends a message to the subscriptions whose filter fits: see docs/contracts.md."""
        self._client.publish(
            TopicArn=self.arn,
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
            TopicArn=self.arn,
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
        _, partition, _, region, account, name = self.arn.split(":")
        return f"arn:{partition}:sqs:{region}:{account}:{name.removesuffix('-messages')}-undelivered-messages"

    def unsubscribe(self, subscription_arn: str) -> None:
        """Ends a subscription. One that is not confirmed cannot be ended: it goes after two days."""
        exceptions = self._client.exceptions
        try:
            self._client.unsubscribe(SubscriptionArn=subscription_arn)
        except (exceptions.InvalidParameterException, exceptions.NotFoundException):
            return

    def confirm(self, token: str) -> str | None:
        """Confirms an address with the token in AWS's mail, so that no link in a mail can end the subscription: that
        takes AWS credentials then. Its ARN; None if the token is not, or no longer, valid."""
        exceptions = self._client.exceptions
        try:
            answer = self._client.confirm_subscription(TopicArn=self.arn, Token=token, AuthenticateOnUnsubscribe="true")
        except (exceptions.InvalidParameterException, exceptions.NotFoundException):
            return None
        return str(answer["SubscriptionArn"])

    def is_confirmed(self, subscription_arn: str) -> bool:
        """Whether the address was confirmed. False too when the subscription is gone."""
        return self.state(subscription_arn) == CONFIRMED

    def state(self, subscription_arn: str) -> str | None:
        """Of a subscription: PENDING or CONFIRMED, None when it is gone. One that got too much mail at once is pending
        again. What is gone may be shown for some minutes more."""
        try:
            answer = self._client.get_subscription_attributes(SubscriptionArn=subscription_arn)
        except self._client.exceptions.NotFoundException:
            return None
        pending = str(answer["Attributes"].get("PendingConfirmation", "true")).lower() != "false"
        return PENDING if pending else CONFIRMED

    def tells_only(self, subscription_arn: str, user_id: str) -> bool:
        """Whether a subscription gets that user's messages alone: SNS says nowhere that one keeps its filter when it is
        restored, and without it the address would get everybody's."""
        try:
            answer = self._client.get_subscription_attributes(SubscriptionArn=subscription_arn)
        except self._client.exceptions.NotFoundException:
            return False
        policy = json.loads(answer["Attributes"].get("FilterPolicy") or "{}")
        return bool(policy.get("owner") == [user_id])

    def subscriptions(self) -> Subscriptions:
        """All of the topic, 100 a call."""
        arns: set[str] = set()
        ended: set[str] = set()
        for page in self._client.get_paginator("list_subscriptions_by_topic").paginate(TopicArn=self.arn):
            for one in page["Subscriptions"]:
                if one["SubscriptionArn"] == "Deleted":
                    ended.add(one["Endpoint"])
                else:
                    arns.add(one["SubscriptionArn"])
        return Subscriptions(frozenset(arns), frozenset(ended))
