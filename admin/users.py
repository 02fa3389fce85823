"""Users: added, changed, given a new token, removed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import parse_qs, urlsplit

from admin.deployment import Deployment
from chalicelib import tokens
from chalicelib.errors import AdminError
from chalicelib.model import CHANNEL_NAME, CONFIRMED, DEFAULT_EXTEND_HOURS, DEFAULT_KEEPS, PENDING, User
from chalicelib.prices import catalogue

DEFAULT_QUOTA = 3
DEFAULT_TYPES = (
    "t3.medium",
    "t3.micro",
    "t3.small",
    "t3.large",
    "t3.xlarge",
    "t3a.medium",
    "t3a.large",
    "t3a.xlarge",
    "t4g.medium",
    "t4g.large",
    "m5.large",
    "m6i.large",
    "m7i.large",
)
"""Types of a user for whom none are named: small ones, the default type first."""

# As the link has it, or alone. AWS does not say how long one is.
_TOKEN = re.compile(r"(?:^|[?&]Token=)([0-9A-Za-z]{32,1024})(?:$|[&#])")
_EMAIL = re.compile(r"[^\s@]{1,64}@[^\s@]{1,189}")


def add_user(
    deployment: Deployment,
    name: str,
    *,
    email: str | None = None,
    slack: str | None = None,
    quota: int = DEFAULT_QUOTA,
    allowed_types: Sequence[str] = DEFAULT_TYPES,
    role: str = "user",
    keeps: int | None = None,
    max_extend_hours: int | None = None,
) -> str:
    """Adds a user and returns their token, which is shown nowhere else: only its SHA-256 is kept.

    `quota`: notebooks that may run at a time; `keeps`: that may exist, stopped ones too (default: 5 for each that may
    run); `max_extend_hours`: how far ahead a stop may be put off (default: 24). With `email`, AWS sends that address a
    mail to confirm; until then no message reaches it.

    Raises:
        AdminError: a value is not valid, the name is taken, or the address belongs to another user.
    """
    if not re.fullmatch(tokens.USER_NAME, name):
        raise AdminError(f"{name!r} is no user name: 1 to 32 of a-z, 0-9 and hyphen, beginning with a letter.")
    if re.fullmatch(tokens.USER_ID, name):
        raise AdminError(f"{name!r} has the form of a user's id. Choose a name that nobody takes for one.")
    _check(deployment, email=email, slack=slack, quota=quota, allowed_types=allowed_types, role=role)
    _check_limits(keeps, max_extend_hours)
    secret = tokens.new_secret()
    user_id = tokens.new_user_id()
    record: dict[str, object] = {
        "id": user_id,
        "name": name,
        "token_sha256": tokens.fingerprint(secret),
        "secret": tokens.new_hmac_key(),
        "role": role,
        "quota": quota,
        "keeps": DEFAULT_KEEPS * quota if keeps is None else keeps,
        "max_extend_hours": max_extend_hours or DEFAULT_EXTEND_HOURS,
        "allowed_types": list(dict.fromkeys(allowed_types)),
    }
    if slack is not None:
        record["slack"] = slack
    if not deployment.users.add(record):
        raise AdminError(f"There is a user {name} already. Change it with: user change {name}")
    if email is not None:
        try:
            _subscribe(deployment, user_id, email)
        except Exception:
            # Whatever went wrong, a user without the address that was asked for would be half done.
            deployment.users.remove(User.from_record(record))
            raise
    return f"nod.{user_id}.{secret}"


def change_user(
    deployment: Deployment,
    name: str,
    *,
    email: str | None = None,
    slack: str | None = None,
    quota: int | None = None,
    allowed_types: Sequence[str] | None = None,
    role: str | None = None,
    keeps: int | None = None,
    max_extend_hours: int | None = None,
) -> None:
    """Changes what is given. An empty `email` or `slack` takes the channel away. A new quota without `keeps` sets that
    to 5 for each that may run, if it was so before. Raises AdminError."""
    user = one(deployment, name)
    _check(deployment, email=email or None, slack=slack or None, quota=quota, allowed_types=allowed_types, role=role)
    _check_limits(keeps, max_extend_hours)
    changes: dict[str, object | None] = {}
    if quota is not None and keeps is None and user.keeps == DEFAULT_KEEPS * user.quota:
        keeps = DEFAULT_KEEPS * quota
    if keeps is not None:
        changes["keeps"] = keeps
    if max_extend_hours is not None:
        changes["max_extend_hours"] = max_extend_hours
    if quota is not None:
        changes["quota"] = quota
    if allowed_types is not None:
        changes["allowed_types"] = list(dict.fromkeys(allowed_types))
    if role is not None:
        changes["role"] = role
    if slack is not None:
        changes["slack"] = slack or None
    if changes and not deployment.users.update(user.id, changes):
        raise _none(name)
    if email is not None and email != user.email:
        if email:
            _subscribe(deployment, user.id, email)
        else:
            deployment.users.update(user.id, {"email": None, "email_subscription": None, "email_state": None})
        if user.email_subscription is not None:
            deployment.topic.unsubscribe(user.email_subscription)


def new_token(deployment: Deployment, name: str) -> str:
    """Gives a user a new token; the old one is void at once. Raises AdminError."""
    user = one(deployment, name)
    secret = tokens.new_secret()
    if not deployment.users.update(user.id, {"token_sha256": tokens.fingerprint(secret)}):
        raise _none(name)
    return f"nod.{user.id}.{secret}"


def subscribe_user(deployment: Deployment, name: str) -> str:
    """Has AWS ask a user's address again to confirm its subscription. Returns the state: `pending`, or `confirmed` when
    the address gets mail as it is. Raises AdminError."""
    user = one(deployment, name)
    if user.email is None or user.email_subscription is None:
        raise AdminError(f"{name} has no address. Give one with: user change {name} --email ADDRESS")
    if user.email_state == CONFIRMED and deployment.topic.is_confirmed(user.email_subscription):
        return CONFIRMED
    _subscribe(deployment, user.id, user.email)
    user = one(deployment, name)
    # The address may have subscribed itself anew by the link in AWS's last mail.
    if user.email_subscription is not None and deployment.topic.is_confirmed(user.email_subscription):
        deployment.users.confirm_email(user)
        return CONFIRMED
    return PENDING


def confirm_user(deployment: Deployment, name: str, link: str) -> None:
    """Confirms a user's address by the link in AWS's mail, or the token in it, so that only somebody with AWS
    credentials can end the subscription: the unsubscribe link at the end of each mail does nothing then.

    Raises:
        AdminError: there is no token in it, it is no longer valid, or is another address's.
    """
    user = one(deployment, name)
    topic = parse_qs(urlsplit(link.strip()).query).get("TopicArn", [deployment.topic.arn])[0]
    found = _TOKEN.search(link.strip())
    if user.email is None:
        raise AdminError(f"{name} has no address. Give one with: user change {name} --email ADDRESS")
    if found is None:
        raise AdminError("There is no token in it. Copy the whole link in AWS's mail, without opening it.")
    if topic != deployment.topic.arn:
        raise AdminError(f"This link is for the topic {topic}, not for {deployment.topic.arn}.")
    arn = deployment.topic.confirm(found[1])
    if arn is None:
        raise AdminError(
            f"AWS does not take it: it is older than two days, or not whole. Ask for another: user subscribe {name}"
        )
    if arn != user.email_subscription or not deployment.users.confirm_email(user):
        raise AdminError(f"AWS took it, but it confirmed another address than {user.email}: {arn}.")


def remove_user(deployment: Deployment, name: str) -> None:
    """Removes a user without notebooks. Raises AdminError if there are some: nobody could delete them then.

    Whoever is added under the same name later is another user: nothing of this one is theirs.
    """
    user = one(deployment, name)
    if not deployment.users.remove(user):
        # Read again: a notebook may have been requested at this moment.
        user = one(deployment, name)
        left = ", ".join(sorted(user.active | user.owned)) or "notebooks that are just being deleted"
        raise AdminError(f"{name} still has {left}. Delete these notebooks first.")
    if user.email_subscription is not None:
        deployment.topic.unsubscribe(user.email_subscription)


def list_users(deployment: Deployment) -> list[User]:
    """All users by name."""
    return sorted(deployment.users.all(), key=lambda user: user.name)


def one(deployment: Deployment, name: str) -> User:
    """The user with that name or id. Raises AdminError."""
    users = deployment.users
    # By the id too, which is what tags in AWS and log lines have.
    user = users.get(name) if re.fullmatch(tokens.USER_ID, name) else users.named(name)
    if user is None:
        raise _none(name)
    return user


def facts(user: User) -> list[tuple[str, str]]:
    """What there is to say of a user, without their secrets."""
    kept = f"{len(user.owned)} of {user.keeps}"
    return [
        ("name", user.name),
        ("id", user.id),
        ("role", user.role),
        ("running", ", ".join((f"{len(user.active)} of {user.quota}", *sorted(user.active)))),
        ("kept", ", ".join((kept, *sorted(user.owned - user.active)))),
        ("types", ", ".join(user.allowed_types)),
        ("may extend by", f"{user.max_extend_hours} hours"),
        ("email", f"{user.email} ({user.email_state})" if user.email else "-"),
        ("slack", user.slack or "-"),
    ]


def _none(name: str) -> AdminError:
    return AdminError(f"There is no user {name}.")


def _subscribe(deployment: Deployment, user_id: str, email: str) -> None:
    from botocore.exceptions import ClientError  # noqa: PLC0415 - beside its one use

    try:
        arn = deployment.topic.subscribe_email(user_id, email)
    except ClientError as error:
        if error.response["Error"]["Code"] not in ("InvalidParameter", "InvalidParameterException"):
            raise
        raise AdminError(
            f"SNS refuses {email}: {error.response['Error'].get('Message')} An address can belong to one user only, "
            "and one that was not confirmed is free again after two days."
        ) from error
    changes = {"email": email, "email_subscription": arn, "email_state": "pending"}
    if not deployment.users.update(user_id, changes):
        deployment.topic.unsubscribe(arn)
        raise AdminError("The user was removed meanwhile.")


def _check(
    deployment: Deployment,
    *,
    email: str | None,
    slack: str | None,
    quota: int | None,
    allowed_types: Sequence[str] | None,
    role: str | None,
) -> None:
    if email is not None and not _EMAIL.fullmatch(email):
        raise AdminError(f"{email!r} is no e-mail address.")
    if slack is not None and (not re.fullmatch(CHANNEL_NAME, slack) or deployment.slack.get(slack) is None):
        raise AdminError(f"There is no Slack channel {slack!r}. Register it first: slack add {slack}")
    if quota is not None and not 0 <= quota <= 1000:
        raise AdminError("A quota is a whole number from 0 to 1000.")
    if role not in (None, "user", "admin"):
        raise AdminError("A role is user or admin.")
    if allowed_types is not None:
        unknown = [type_ for type_ in allowed_types if type_ not in catalogue().types]
        if unknown or not allowed_types:
            raise AdminError(f"Not known in chalicelib/prices.json: {', '.join(unknown) or '(no type at all)'}.")


def _check_limits(keeps: int | None, max_extend_hours: int | None) -> None:
    if keeps is not None and not 0 <= keeps <= 10_000:
        raise AdminError("How many notebooks may be kept is a whole number from 0 to 10000.")
    if max_extend_hours is not None and not 1 <= max_extend_hours <= 720:
        raise AdminError("The hours by which a stop may be put off are a whole number from 1 to 720.")
