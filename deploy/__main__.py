"""`python -m deploy`: package, deploy, smoke, destroy, policy, picture, definitions. What `make` runs."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from deploy import definitions, inputs, permissions, picture, runtimes
from deploy.deployment import deploy
from deploy.destroy import destroy
from deploy.errors import DeployError
from deploy.package import ROOT, package

PACKAGE = ROOT / "build" / "package"
POLICY = ROOT / "build" / "policy"
PICTURE = ROOT / "docs" / "architecture.svg"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command. Exit code: 0 done, 1 not done, 2 not understood, 130 interrupted."""
    options = _parser().parse_args(arguments)
    try:
        _run(options)
    except DeployError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        if options.command != "smoke":
            print("\nInterrupted. What CloudFormation has begun goes on; run this again to see.", file=sys.stderr)
        return 130
    except (BotoCoreError, ClientError) as error:
        print(f"AWS refuses or does not answer: {error}", file=sys.stderr)
        return 1
    return 0


def _run(options: argparse.Namespace) -> None:
    if options.command == "picture":
        PICTURE.write_text(picture.of_checkout(), encoding="utf-8")
        return
    if options.command == "definitions":
        for text in definitions.of_checkout(options.name).values():
            print(text, end="")
        return
    stage = inputs.stage(options.stage)
    if options.command == "policy":
        for path in permissions.write(_session(), stage, options.region, options.account, Path(options.folder)):
            print(path)
        return
    if options.command == "smoke":
        from deploy.smoke import command  # noqa: PLC0415 - nothing else needs what it imports

        command.run(_session(), options, stage, clock=time, say=_say)
        return
    if options.command == "destroy":
        destroy(_session(), options.region, stage, options.force, sleep=time.sleep, say=_say)
        return
    cidrs = inputs.cidrs(options.cidr, options.open_to_the_world)
    if (known := runtimes.note(runtimes.of_python(), datetime.now(UTC).date())) is not None:
        print(known, file=sys.stderr, flush=True)
    if options.command == "package":
        path = package(stage, cidrs or (), Path(options.folder))
        print(f"{path}; port 8888 for {', '.join(cidrs or ()) or 'nobody (say CIDR=…)'}")
        return
    wishes = inputs.Wishes(
        stage,
        cidrs,
        inputs.subnets(options.subnets),
        inputs.parameters(
            operators_email=options.operators_email,
            installer_url=options.installer_url,
            installer_sha256=options.installer_sha256,
            key_name=options.key_name,
            slack_origin=options.slack_origin,
            instance_types=options.instance_types,
        ),
    )
    deploy(_session(), options.region, wishes, Path(options.folder), sleep=time.sleep, say=_say)


def _say(line: str) -> None:
    # At once, also into a pipe: a deployment takes minutes.
    print(line, flush=True)


def _session() -> boto3.Session:
    try:
        # AWS_REGION is what AWS's other tools go by; boto3 reads AWS_DEFAULT_REGION alone.
        return boto3.Session(region_name=os.environ.get("AWS_REGION") or None)
    except BotoCoreError as error:
        # AWS_PROFILE names a profile that is not there.
        raise DeployError(f"The AWS configuration cannot be used: {error}") from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m deploy", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, words in (
        ("package", "template and code into build/package"),
        ("deploy", "create or update the deployment"),
        ("smoke", "launch, use, stop, wake and delete one notebook, and say what was seen"),
        ("destroy", "take the deployment away"),
        ("policy", "the IAM policies for who deploys and who adds users, into build/policy"),
        ("picture", "draw docs/architecture.svg"),
        ("definitions", "print the state machines' definitions as they are deployed"),
    ):
        command = commands.add_parser(name, help=words)
        if name == "definitions":
            command.add_argument("name", nargs="?", default="", help="of one workflow, such as launch")
        if name not in ("picture", "definitions"):
            command.add_argument("--stage", default="", help="its name")
        if name in ("deploy", "smoke", "destroy", "policy"):
            command.add_argument("--region", default="", help="else that of the AWS configuration")
        if name in ("package", "deploy"):
            command.add_argument("--folder", default=str(PACKAGE))
            command.add_argument("--cidr", default="", help="blocks that may open a notebook, comma separated")
            command.add_argument("--open-to-the-world", default="", help="`yes`: blocks wider than /8 are meant")
        if name == "deploy":
            command.add_argument("--subnets", default="", help="public subnets, else those of the default VPC")
            command.add_argument(
                "--instance-types", default="", help="what any notebook may have, such as t3.*,m5.large"
            )
            for option in ("operators-email", "installer-url", "installer-sha256", "key-name", "slack-origin"):
                command.add_argument(f"--{option}", default="")
        if name == "smoke":
            command.add_argument("--url", default="", help="the API's address, where no stack names it")
            command.add_argument("--instance-type", default="", help="what to launch, else what a user gets by default")
            command.add_argument("--email", default="", help="where this run's messages go")
        if name == "destroy":
            command.add_argument("--force", default="")
        if name == "policy":
            command.add_argument("--folder", default=str(POLICY))
            command.add_argument("--account", default="", help="its 12 digits")
    return parser


if __name__ == "__main__":
    sys.exit(main())
