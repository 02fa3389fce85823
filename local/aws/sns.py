"""SNS: mail that is sent, functions that are invoked, and subscriptions that somebody has to confirm.

moto sends no mail, wants Docker for functions, confirms every subscription at once and answers an equal endpoint
with the old subscription whatever its filter policy. On AWS an email subscription is pending until the link in the
confirmation mail is visited, nothing is held for it until then, and the same endpoint with other attributes is an
error. Whoever, or whatever, visits the link at the end of a mail ends the subscription, unless it was confirmed by a
signed call with AuthenticateOnUnsubscribe: it is listed as `Deleted` for a while, its attributes are not found, and a
last mail has a link that restores it. One that is pending cannot be ended at all. What cannot be delivered is tried
three times (AWS: for hours), then goes to the subscription's dead-letter queue.
"""

from __future__ import annotations

import json
import logging
import secrets
import smtplib
import threading
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from moto.core.responses import ActionResult
from moto.sns.exceptions import SNSInvalidParameter, SNSNotFoundError
from moto.sns.models import Subscription, sns_backends
from moto.sns.responses import SNSResponse

from local.background import Background
from local.delays import Delays
from local.patches import Patches

log = logging.getLogger("nod.local.sns")

ATTEMPTS = 3
SENDER = "AWS Notifications <no-reply@sns.amazonaws.com>"
EXISTS = "Invalid parameter: Attributes Reason: Subscription already exists with different attributes"


class Sns:
    """What the topics of the account do beyond moto."""

    def __init__(
        self,
        *,
        url: str,
        background: Background,
        delays: Delays,
        mail: Callable[[str, str, str, str], None],
        invoke: Callable[[str, Any], None],
        send: Callable[[str, str], None],
    ) -> None:
        """`mail(sender, recipient, subject, text)`, `invoke(function_arn, event)`, `send(queue_arn, text)`;
        `url` is the address of the local cloud's pages, for links."""
        self._url = url
        self._background = background
        self._delays = delays
        self._mail = mail
        self._invoke = invoke
        self._send = send
        self._tokens: dict[str, Any] = {}
        self._deleted: dict[str, Any] = {}
        """Subscriptions that their endpoint ended, by ARN. AWS forgets them after 72 hours."""
        self._subscribing = threading.Lock()
        self.published: list[str] = []
        """What function subscribers were sent, oldest first."""

    # Subscriptions

    def confirm(self, token: str, *, authenticate: bool = False) -> str:
        """The link in a confirmation mail was visited, or its token given to ConfirmSubscription: the subscription's
        ARN. `authenticate`: from now on only who is authenticated may end it. Raises KeyError."""
        subscription = self._tokens[token]
        backend = _backend(subscription.arn)
        if self._deleted.pop(subscription.arn, None) is not None:
            backend.subscriptions[subscription.arn] = subscription
        if subscription.arn not in backend.subscriptions:
            raise KeyError(token)
        subscription.confirmed = True
        subscription.attributes["PendingConfirmation"] = "false"
        # A token serves again while it is valid: so one that was confirmed by its link is protected later.
        if authenticate or "ConfirmationWasAuthenticated" not in subscription.attributes:
            subscription.attributes["ConfirmationWasAuthenticated"] = "true" if authenticate else "false"
        log.info("confirmed", extra={"fields": {"subscription": subscription.arn}})
        return str(subscription.arn)

    def unsubscribe_by_link(self, subscription_arn: str) -> None:
        """The link at the end of a mail was visited. Raises SNSNotFoundError, SNSInvalidParameter."""
        backend = _backend(subscription_arn)
        subscription = backend.subscriptions.get(subscription_arn)
        if subscription is None:
            raise SNSNotFoundError("Subscription does not exist")
        if subscription.attributes.get("ConfirmationWasAuthenticated") == "true":
            raise SNSInvalidParameter("Your subscription could not be removed because of an error.")
        backend.unsubscribe(subscription_arn)
        self._deleted[subscription_arn] = subscription
        text = (
            f"Your subscription to the topic below has been deactivated:\n{subscription.topic.arn}\n\n"
            "If this was in error or you wish to resubscribe, click or visit the link below to resubscribe to the "
            f"topic:\n{self._confirmation_link(subscription)}\n"
        )
        self._background.submit(
            self._mail, SENDER, subscription.endpoint, "AWS Notification - Unsubscribe Confirmation", text
        )

    def _confirmation_link(self, subscription: Any) -> str:
        token = secrets.token_hex(64)
        self._tokens[token] = subscription
        query = urlencode(
            {
                "Action": "ConfirmSubscription",
                "TopicArn": subscription.topic.arn,
                "Token": token,
                "Endpoint": subscription.endpoint,
            }
        )
        return f"{self._url}/_local/sns/confirm?{query}"

    def _ask_to_confirm(self, subscription: Any) -> None:
        text = (
            "You have chosen to subscribe to the topic:\n"
            f"{subscription.topic.arn}\n\n"
            "To confirm this subscription, click or visit the link below "
            "(If this was in error no action is necessary):\n"
            f"{self._confirmation_link(subscription)}\n"
        )
        self._background.submit(
            self._mail, SENDER, subscription.endpoint, "AWS Notification - Subscription Confirmation", text
        )

    def _subscribe(self, response: Any, subscribe: Callable[[Any], Any]) -> Any:
        backend = response.backend
        topic = response._get_param("TopicArn")
        endpoint, protocol = response._get_param("Endpoint"), response._get_param("Protocol")
        wanted = dict(response._get_attributes() or {})
        with self._subscribing:
            known = backend._find_subscription(topic, endpoint, protocol)
            if known is not None:
                if not _same(known.attributes, wanted):
                    raise SNSInvalidParameter(EXISTS)
            else:
                subscribe(response)
                known = backend._find_subscription(topic, endpoint, protocol)
                # The owner of the topic may subscribe an endpoint anew that ended it: it is asked again.
                self._deleted = {arn: one for arn, one in self._deleted.items() if not _at(one, topic, endpoint)}
                mailed = protocol in {"email", "email-json"}
                known.confirmed = not mailed
                known.attributes["PendingConfirmation"] = "true" if mailed else "false"
        if not known.confirmed:
            self._ask_to_confirm(known)
            if str(response._get_param("ReturnSubscriptionArn")).lower() != "true":
                return ActionResult({"SubscriptionArn": "pending confirmation"})
        return ActionResult({"SubscriptionArn": known.arn})

    # Delivery

    def _publish(self, subscription: Any, message: str, message_id: str, **rest: Any) -> None:
        matcher = subscription._filter_policy_matcher
        attributes = rest.get("message_attributes")
        if matcher is not None and not matcher.matches(attributes, message):
            return
        if rest.get("message_structure") == "json":
            message = subscription._parse_message_structure(message, subscription.protocol)
        note = _notification(subscription, message, message_id, rest.get("subject"), attributes)
        if subscription.protocol == "lambda":
            self.published.append(message)
            self._background.submit(self._to_function, subscription, note)
        elif subscription.confirmed:
            self._background.submit(self._to_mail, subscription, note, 1)

    def _to_function(self, subscription: Any, note: dict[str, Any]) -> None:
        # SNS hands over and is done: what the function does with it is between Lambda and its failure destination.
        record = {
            "EventSource": "aws:sns",
            "EventVersion": "1.0",
            "EventSubscriptionArn": subscription.arn,
            "Sns": note,
        }
        try:
            self._invoke(subscription.endpoint, {"Records": [record]})
        except Exception as error:
            log.exception("a function could not be invoked")
            self._give_up(subscription, note, error)

    def _to_mail(self, subscription: Any, note: dict[str, Any], attempt: int) -> None:
        stop = urlencode({"SubscriptionArn": subscription.arn, "Endpoint": subscription.endpoint})
        text = (
            f"{note['Message']}\n\n--\n"
            "If you wish to stop receiving notifications from this topic, please click or visit the link below to "
            f"unsubscribe:\n{self._url}/_local/sns/unsubscribe?{stop}\n\n"
            "Please do not reply directly to this email. If you have any questions or comments regarding this email, "
            "please contact us at https://aws.amazon.com/support\n"
        )
        try:
            self._mail(SENDER, subscription.endpoint, note["Subject"] or "AWS Notification Message", text)
        except (OSError, smtplib.SMTPException) as error:
            log.warning("mail refused", extra={"fields": {"attempt": attempt, "error": str(error)}})
            if attempt < ATTEMPTS:
                self._background.later(self._delays.delivery_retry, self._to_mail, subscription, note, attempt + 1)
            else:
                self._give_up(subscription, note, error)

    def _give_up(self, subscription: Any, note: dict[str, Any], error: Exception) -> None:
        redrive = json.loads(subscription.attributes.get("RedrivePolicy") or "{}")
        queue = redrive.get("deadLetterTargetArn")
        if queue:
            self._send(queue, json.dumps({**note, "Subject": note["Subject"]}))
        else:
            log.error("a notification is lost, its subscription has no dead-letter queue: %s", type(error).__name__)

    def install(self, patches: Patches) -> None:
        """Correct moto's SNS."""
        subscribe = SNSResponse.subscribe
        publish = Subscription.publish
        unsubscribe = SNSResponse.unsubscribe
        topic_list: Any = SNSResponse.list_subscriptions_by_topic

        def subscribed(response: Any) -> Any:
            return self._subscribe(response, subscribe)

        def published(subscription: Any, message: str, message_id: str, **rest: Any) -> None:
            if subscription.protocol in {"email", "lambda"}:
                self._publish(subscription, message, message_id, **rest)
            else:
                publish(subscription, message, message_id, **rest)

        def confirmed(response: Any) -> Any:
            try:
                authenticate = str(response._get_param("AuthenticateOnUnsubscribe")).lower() == "true"
                arn = self.confirm(response._get_param("Token"), authenticate=authenticate)
                return ActionResult({"SubscriptionArn": arn})
            except KeyError:
                raise SNSInvalidParameter("Invalid parameter: Token") from None

        def listed(response: Any) -> Any:
            answer = topic_list(response)
            answer.result["Subscriptions"] = [_listed(entry) for entry in answer.result["Subscriptions"]]
            topic = response._get_param("TopicArn")
            if not answer.result["NextToken"]:
                gone = [one for one in self._deleted.values() if one.topic.arn == topic]
                answer.result["Subscriptions"] += [{**_listed(one), "SubscriptionArn": "Deleted"} for one in gone]
            return answer

        def unsubscribed(response: Any) -> Any:
            known = response.backend.subscriptions.get(response._get_param("SubscriptionArn"))
            if known is not None and not known.confirmed:
                raise SNSInvalidParameter("Invalid parameter: This subscription is pending confirmation")
            return unsubscribe(response)

        patches.set(SNSResponse, "subscribe", subscribed)
        patches.set(SNSResponse, "confirm_subscription", confirmed)
        patches.set(SNSResponse, "unsubscribe", unsubscribed)
        patches.set(SNSResponse, "list_subscriptions_by_topic", listed)
        patches.set(Subscription, "publish", published)


def _backend(arn: str) -> Any:
    """Where moto keeps the topics of an ARN's account and region. Raises SNSNotFoundError for what is no ARN."""
    parts = arn.split(":")
    if len(parts) < 6:
        raise SNSNotFoundError("Subscription does not exist")
    return sns_backends[parts[4]][parts[3]]


def _at(subscription: Any, topic: str, endpoint: str) -> bool:
    return bool(subscription.topic.arn == topic and subscription.endpoint == endpoint)


def _listed(subscription: Any) -> dict[str, Any]:
    return {
        "SubscriptionArn": subscription.arn if subscription.confirmed else "PendingConfirmation",
        "Owner": subscription.owner,
        "Protocol": subscription.protocol,
        "Endpoint": subscription.endpoint,
        "TopicArn": subscription.topic.arn,
    }


def _same(has: dict[str, Any], wanted: dict[str, Any]) -> bool:
    for name in {"FilterPolicy", "FilterPolicyScope", "RedrivePolicy", "RawMessageDelivery"} & set(wanted):
        if _loaded(has.get(name)) != _loaded(wanted[name]):
            return False
    return "FilterPolicy" not in has or not has["FilterPolicy"] or "FilterPolicy" in wanted


def _loaded(text: Any) -> Any:
    try:
        return json.loads(text)
    except (TypeError, ValueError):
        return text


def _notification(
    subscription: Any, message: str, message_id: str, subject: str | None, attributes: dict[str, Any] | None
) -> dict[str, Any]:
    return {
        "Type": "Notification",
        "MessageId": message_id,
        "TopicArn": subscription.topic.arn,
        "Subject": subject,
        "Message": message,
        "Timestamp": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "SignatureVersion": "1",
        "Signature": uuid.uuid4().hex,
        "SigningCertUrl": "https://sns.us-east-1.amazonaws.com/local.pem",
        "UnsubscribeUrl": f"https://sns.us-east-1.amazonaws.com/?Action=Unsubscribe&SubscriptionArn={subscription.arn}",
        "MessageAttributes": {
            name: {"Type": value["Type"], "Value": value["Value"]} for name, value in (attributes or {}).items()
        },
    }
