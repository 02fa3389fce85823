"""Messages to owners: published to the topic, delivered to Slack, sent again once an address is confirmed.

What is still to be said is marked in the owner's row: `untold` from the record's creation until its message is
published, `owed` from before a message goes to an address that is not confirmed until the link was sent again. So
the schedule finds it without reading the table of notebooks, whatever failed in between.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from chalicelib import messages, times
from chalicelib.actions.parts import Parts
from chalicelib.actions.showing import Showing, job_key
from chalicelib.aws.ledger import event
from chalicelib.aws.notebooks import NotebooksTable
from chalicelib.aws.parameters import SlackAddresses
from chalicelib.aws.topic import Subscriptions, Topic
from chalicelib.aws.users import UsersTable
from chalicelib.errors import DeliveryFailed
from chalicelib.heartbeats import DueJob
from chalicelib.log import about, logger, note
from chalicelib.model import CONFIRMED, EMAIL, EXPIRED, PENDING, SLACK, UNSUBSCRIBED, Notebook, User
from chalicelib.notebook.life import State
from chalicelib.orphans import Resource
from chalicelib.plan import first_state
from chalicelib.retention import expiry
from chalicelib.views import NotebookView

# Longer than the workflows try to tell: what is untold by then, they have given up.
OVERDUE = timedelta(minutes=10)

# Of the owner's own jobs that were told of, so many are remembered.
_MOST_JOBS = 50

Post = Callable[[str, str, Sequence[dict[str, object]]], None]


class Telling:
    """Takes the gateways it acts on."""

    def __init__(self, notebooks: NotebooksTable, users: UsersTable, topic: Topic, showing: Showing) -> None:
        self._notebooks = notebooks
        self._users = users
        self._topic = topic
        self._showing = showing

    def tell(self, notebook_id: str, kind: str, now: datetime, *, execution: str | None = None) -> bool:
        """Publishes the message of one kind to the owner. False if there is no one to tell. `execution`: which tells.

        Slack's state is written by the function that delivers to it. What goes wrong comes out, so that who tells can
        try again: nothing that was not published counts as told. A workflow that asks again, since the answer to its
        first try was lost, publishes nothing a second time.
        """
        notebook = self._notebooks.get(notebook_id)
        if notebook is None:
            return False
        if expires_at := expiry(notebook, now):
            self._notebooks.expire(notebook, expires_at)
        if not notebook.notify:
            # Workflows mark what they end without knowing whether anybody is to be told.
            self._users.unmark(notebook.owner, "untold", notebook_id)
            return False
        caught_up = kind not in messages.REPEATED
        if caught_up:
            self._users.mark(notebook.owner, "untold", notebook_id)
        told = f"{execution} {kind}" if execution else None
        if told is None or notebook.told != told:
            confirmed = self._begin_email(notebook) if EMAIL in notebook.notify else False
            jobs = self._showing.untold_jobs(notebook) if kind == "stopped" else ()
            view = self._publish(notebook, kind, notebook.notify, now, execution=execution, jobs=jobs)
            if kind in ("ready", "started") and view.safe_mode is not None:
                # The sweep would tell it again.
                line = event(notebook_id, now, "note", "safe_mode", view.safe_mode.message)
                self._notebooks.note_safe_mode(notebook_id, asdict(view.safe_mode), line)
            if jobs:
                known = (*(notebook.jobs_told or ()), *(job_key(job) for job in jobs))
                self._notebooks.set_jobs_told(notebook_id, known[-_MOST_JOBS:])
            if told is not None:
                self._notebooks.set_told(notebook_id, told)
            if confirmed:
                self._notebooks.set_notification(notebook_id, EMAIL, "sent")
        elif notebook.notifications.get(EMAIL) == "pending":
            # The try that published it ended right before it noted that.
            self._notebooks.set_notification(notebook_id, EMAIL, "sent")
        if caught_up:
            self._users.unmark(notebook.owner, "untold", notebook_id)
        return True

    def tell_disks(self, user: User, notebooks: Sequence[Notebook], now: datetime) -> bool:
        """Publishes what the disks of a user's stopped notebooks cost. False if there is no one or nothing to tell."""
        if not user.channels or not notebooks:
            return False
        self._topic.publish(messages.disks(user, notebooks, self._showing.prices, self._showing.settings.region, now))
        return True

    def tell_orphan(self, user: User, resource: Resource, plan: str) -> bool:
        """Publishes that something of a user's belongs to no notebook. False if there is no one to tell."""
        if not user.channels:
            return False
        self._topic.publish(messages.orphan(user, resource.kind, resource.id, plan))
        return True

    def check_confirmations(self, now: datetime) -> Iterator[str]:
        """Sends what was not sent: links to addresses confirmed since, and messages that their workflow gave up. Notes
        which addresses get mail, and which do no longer.

        Yields the users whose address was confirmed. The trouble of one user, or of one notebook, does not keep the
        others waiting: it comes out at the end.
        """
        parts = Parts()
        users = list(self._users.to_look_at())
        listed: Subscriptions | None = None
        if any(user.email for user in users):
            with parts.part():
                listed = self._topic.subscriptions()
        for user in users:
            confirmed = False
            with parts.part():
                confirmed = self._gets_mail(user, listed)
            if confirmed or user.email is None:
                self._pay(user, now, parts)
            self._catch_up(user, now, parts)
            if confirmed and user.email_state != CONFIRMED:
                yield user.name
        parts.end()

    def _begin_email(self, notebook: Notebook) -> bool:
        """Notes what a message by email will come to if all goes well; whether it will arrive.

        Before it is published: an address that is confirmed meanwhile finds the note, and the link is sent again.
        """
        owner = self._users.get(notebook.owner)
        confirmed = owner is not None and owner.email_state == CONFIRMED
        state = first_state(EMAIL, owner) if owner is not None else "unconfirmed"
        if notebook.notifications.get(EMAIL) != state:
            self._notebooks.set_notification(notebook.id, EMAIL, state)
        if not confirmed:
            # After the state, by which the schedule sees that the link is still to be sent.
            self._users.mark(notebook.owner, "owed", notebook.id)
        return confirmed

    def _gets_mail(self, user: User, listed: Subscriptions | None) -> bool:
        """Whether mail to the address arrives now, which is noted. `listed`: None where that is not known."""
        arn, was = user.email_subscription, user.email_state
        if user.email is None or arn is None:
            return False
        if was == CONFIRMED:
            # The list and the subscription are each a little late; what the list calls ended is so.
            if listed is None or arn in listed.arns:
                return True
            if user.email not in listed.ended and self._topic.state(arn) == CONFIRMED:
                return True
            self._note(user, UNSUBSCRIBED)
        elif was == PENDING:
            if self._is_confirmed_now(user):
                return True
            if listed is not None and arn not in listed.arns and self._topic.state(arn) is None:
                self._note(user, EXPIRED)
        # Restored by the link in AWS's last mail, or confirmed in the last minute after all.
        elif listed is not None and arn in listed.arns:
            if self._topic.tells_only(arn, user.id):
                return self._is_confirmed_now(user)
            logger.error("subscription without its filter", user=user.name, subscription=arn)
        return False

    def _note(self, user: User, state: str) -> None:
        if self._users.set_email_state(user, state):
            logger.warning("address gets no mail", user=user.name, state=state)

    def _is_confirmed_now(self, user: User) -> bool:
        subscription = user.email_subscription
        # Written before the links go out: what is published from here on arrives.
        return subscription is not None and self._topic.is_confirmed(subscription) and self._users.confirm_email(user)

    def _pay(self, user: User, now: datetime, parts: Parts) -> None:
        """Sends the links of notebooks that run. What failed or is gone is no news any more."""
        for notebook_id in sorted(user.owed):
            with about(notebook_id), parts.part():
                notebook = self._notebooks.get(notebook_id)
                if (
                    user.email is not None
                    and notebook is not None
                    and notebook.state == State.READY
                    and notebook.notifications.get(EMAIL) in ("unconfirmed", UNSUBSCRIBED)
                ):
                    self._publish(notebook, messages.answers_again(notebook), (EMAIL,), now)
                    self._notebooks.set_notification(notebook_id, EMAIL, "sent")
                self._users.unmark(user.id, "owed", notebook_id)

    def _catch_up(self, user: User, now: datetime, parts: Parts) -> None:
        for notebook_id in sorted(user.untold):
            with about(notebook_id), parts.part():
                notebook = self._notebooks.get(notebook_id)
                if notebook is None:
                    self._users.unmark(user.id, "untold", notebook_id)
                elif (kind := messages.due(notebook)) is not None and _overdue(notebook, now):
                    self.tell(notebook_id, kind, now)

    def _publish(
        self,
        notebook: Notebook,
        kind: str,
        channels: Sequence[str],
        now: datetime,
        *,
        execution: str | None = None,
        jobs: tuple[DueJob, ...] = (),
    ) -> NotebookView:
        owner = self._users.get(notebook.owner)
        view = self._showing.one(notebook, owner, now)
        about = messages.About(
            notebook=notebook,
            owner=owner,
            view=view,
            prices=self._showing.prices,
            region=self._showing.settings.region,
            now=now,
            minute=self._showing.settings.minute,
            reason=self._showing.reason(notebook, now) if kind in messages.REPEATED else None,
            jobs=jobs,
        )
        self._topic.publish(replace(messages.compose(kind, about, channels), execution=execution))
        return view


def _overdue(notebook: Notebook, now: datetime) -> bool:
    changed = times.from_text(notebook.updated_at)
    return changed is None or now - changed > OVERDUE


def deliver_to_slack(
    text: str, addresses: SlackAddresses, notebooks: NotebooksTable, origin: str, post: Post
) -> list[str]:
    """Delivers a message of the topic to its Slack channels, and notes what became of it. The channels told.

    Raises:
        DeliveryFailed: a channel could not be told; Lambda retries, and keeps the message at last.
    """
    message = json.loads(text)
    # What was published before an update may still be on its way.
    note(notebook=message["id"], execution=message.get("execution"))
    told: list[str] = []
    failures: list[str] = []
    for channel in message["channels"]:
        if not channel.startswith(SLACK):
            continue
        try:
            post(_address(addresses, channel, origin), messages.slack_text(message), messages.blocks(message))
        except DeliveryFailed as error:
            failures.append(f"{channel}: {error.detail}")
            _note(notebooks, message, channel, "failed")
        else:
            told.append(channel)
            _note(notebooks, message, channel, "sent")
    if failures:
        raise DeliveryFailed("; ".join(failures))
    return told


def _note(notebooks: NotebooksTable, message: Mapping[str, Any], channel: str, state: str) -> None:
    """Into the record; a message that is about no single notebook has none."""
    if message["id"] is not None:
        notebooks.set_notification(message["id"], channel, state)


def _address(addresses: SlackAddresses, channel: str, origin: str) -> str:
    """Only Slack's own host gets a message, whatever the parameter says."""
    address = addresses.get(channel.removeprefix(SLACK))
    if address is None:
        raise DeliveryFailed("It is not registered.")
    parts, allowed = urlsplit(address), urlsplit(origin)
    if (parts.scheme, parts.netloc) != (allowed.scheme, allowed.netloc):
        raise DeliveryFailed(f"Its address is not on {origin}.")
    return address
