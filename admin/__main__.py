"""`python -m admin`: users, tokens and Slack channels of a deployment."""

from __future__ import annotations

import argparse
import getpass
import os
import sys
from collections.abc import Sequence

from botocore.exceptions import BotoCoreError, ClientError

from admin import refusals, slack, users
from admin.deployment import Deployment
from chalicelib.errors import AdminError
from chalicelib.model import CONFIRMED

_SAFER = (
    "Better: do not open it, copy it and hand it to `user confirm NAME`. Then no mail scanner that follows the "
    "unsubscribe link at the end of a mail can switch mail off."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command. Exit code: 0 done, 1 not done, 2 not understood."""
    options = _parser().parse_args(arguments)
    region = options.region
    try:
        deployment = Deployment(options.stage, region=region)
        region = deployment.region
        deployment.check()
        _run(options, deployment)
    except AdminError as error:
        print(f"admin: {error.detail}", file=sys.stderr)
        return 1
    except (BotoCoreError, ClientError) as error:
        print(f"admin: {refusals.in_words(error, options.stage, region)}", file=sys.stderr)
        return 1
    return 0


def _run(options: argparse.Namespace, deployment: Deployment) -> None:
    command = f"{options.what} {options.command}"
    if command == "user add":
        token = users.add_user(
            deployment,
            options.name,
            email=options.email,
            slack=options.slack,
            quota=options.quota if options.quota is not None else users.DEFAULT_QUOTA,
            keeps=options.keeps,
            max_extend_hours=options.max_extend_hours,
            allowed_types=options.types or users.DEFAULT_TYPES,
            role=options.role or "user",
        )
        _show_token(token)
        if options.email:
            print(f"AWS has sent {options.email} a mail: its link has to be opened. {_SAFER}", file=sys.stderr)
    elif command == "user change":
        users.change_user(
            deployment,
            options.name,
            email=options.email,
            slack=options.slack,
            quota=options.quota,
            keeps=options.keeps,
            max_extend_hours=options.max_extend_hours,
            allowed_types=options.types,
            role=options.role,
        )
    elif command == "user token":
        _show_token(users.new_token(deployment, options.name))
    elif command == "user remove":
        users.remove_user(deployment, options.name)
    elif options.what == "user":
        _run_for_user(deployment, options)
    elif command == "slack add":
        slack.add_channel(deployment, options.name, _read_secret("Address of the webhook: "), origin=options.origin)
    elif command == "slack remove":
        slack.remove_channel(deployment, options.name)
    else:
        for name in deployment.slack.names():
            print(name)


def _run_for_user(deployment: Deployment, options: argparse.Namespace) -> None:
    if options.command == "subscribe":
        if users.subscribe_user(deployment, options.name) == CONFIRMED:
            print(f"The address of {options.name} gets mail.")
        else:
            print(f"AWS has sent {options.name} a mail: its link has to be opened. {_SAFER}", file=sys.stderr)
        return
    if options.command == "confirm":
        users.confirm_user(deployment, options.name, _read_secret("Link in AWS's mail: "))
        print(f"The address of {options.name} gets mail, and the unsubscribe link in a mail does not end it.")
        return
    if options.command == "show":
        for fact, value in users.facts(users.one(deployment, options.name)):
            print(f"{fact:15}{value}")
        return
    for user in users.list_users(deployment):
        mail = f"{user.email} ({user.email_state})" if user.email else "-"
        print(f"{user.name}\t{user.role}\t{len(user.active)}/{user.quota}\t{mail}\t{user.slack or '-'}")


def _show_token(token: str) -> None:
    print(token)
    print("Hand the token over on a safe way: it is shown this once.", file=sys.stderr)


def _read_secret(prompt: str) -> str:
    """From standard input: on the command line it would be seen in process lists."""
    if sys.stdin.isatty():
        return getpass.getpass(prompt).strip()
    return sys.stdin.readline().strip()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m admin", description=__doc__)
    parser.add_argument("--stage", default=os.environ.get("NOD_STAGE", "prod"), help="the deployment (NOD_STAGE, prod)")
    parser.add_argument("--region", help="its region (AWS_REGION, else that of the AWS configuration)")
    things = parser.add_subparsers(dest="what", required=True)
    user = things.add_parser("user", help="users and their tokens").add_subparsers(dest="command", required=True)
    for command, words in (("add", "add one; prints the token"), ("change", "change what is given")):
        _user_options(user.add_parser(command, help=words))
    user.add_parser("token", help="a new token; the old one is void").add_argument("name")
    user.add_parser("remove", help="remove one without notebooks").add_argument("name")
    user.add_parser("subscribe", help="have AWS ask the address again to confirm").add_argument("name")
    confirm = user.add_parser(
        "confirm", help="confirm the address by the link in AWS's mail, read from standard input; no mail ends it then"
    )
    confirm.add_argument("name")
    user.add_parser("list", help="name, role, notebooks/quota, e-mail, Slack")
    user.add_parser("show", help="everything about one; also tells who an id is").add_argument("name")
    channel = things.add_parser("slack", help="Slack channels").add_subparsers(dest="command", required=True)
    add = channel.add_parser("add", help="register a webhook; its address is read from standard input")
    add.add_argument("name")
    add.add_argument("--origin", default=slack.ORIGIN, help="NOD_SLACK_ORIGIN of the deployment")
    channel.add_parser("remove", help="remove one that no user has").add_argument("name")
    channel.add_parser("list", help="the names")
    return parser


def _user_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name")
    parser.add_argument("--email", help="address for messages; empty takes it away")
    parser.add_argument("--slack", help="a registered channel; empty takes it away")
    parser.add_argument("--quota", type=int, help=f"notebooks that run at a time ({users.DEFAULT_QUOTA})")
    parser.add_argument(
        "--keeps", type=int, help="notebooks that may exist, stopped ones too (5 for each of the quota)"
    )
    parser.add_argument("--max-extend-hours", type=int, help="how far ahead a stop may be put off (24)")
    parser.add_argument("--types", type=lambda text: text.split(","), help="instance types, comma separated")
    parser.add_argument("--role", choices=("user", "admin"))


if __name__ == "__main__":
    sys.exit(main())
