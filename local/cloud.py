"""The local cloud: AWS APIs, machines, mail and Slack in one process, and the product deployed into it."""

from __future__ import annotations

import importlib
import json
import logging
import os
import secrets
import sys
import time
import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import boto3
from moto.ec2.models import ec2_backends
from moto.events.models import Rule, events_backends
from moto.sqs.models import sqs_backends
from moto.ssm.models import Parameter, ssm_backends
from moto.stepfunctions.parser.models import stepfunctions_parser_backends

from local import mail, schedules
from local.agent import Agents
from local.aws import attribute_values, stepfunctions
from local.aws.ec2 import Ec2
from local.aws.front import Front, Server, reset_moto
from local.aws.sns import Sns
from local.aws.ssm import Commands
from local.background import Background
from local.control import Control
from local.delays import Delays
from local.events import EventBus
from local.faults import Faults
from local.gateway import Gateway
from local.image import cache_folder, ensure_image
from local.installer import ensure_installer
from local.lambdas import FunctionNotFoundError, Lambdas
from local.logs import Logs
from local.machines import Machines
from local.mail import Inbox
from local.patches import Patches
from local.settings import chosen_installer, chosen_minute, chosen_region
from local.slack import Slack
from local.stack import Stack, logical_id, put_document, put_rule

log = logging.getLogger("nod.local.cloud")

ROOT = Path(__file__).resolve().parent.parent
ACCOUNT = "123456789012"
DEMO_USER = "demo"
DEMO_MAIL = "demo@example.com"
DEMO_QUOTA = 10
PROXY = ("NO_PROXY", "no_proxy")
UBUNTU = "/aws/service/canonical/ubuntu/server/24.04/stable/current/{}/hvm/ebs-gp3/ami-id"


class AnyMachines(Protocol):
    """Where machines come from: local/machines.py, or a test's own."""

    def create(self, instance_id: str, address: str, metadata: Any, *, disk_mib: int | None = None) -> Any: ...
    def sweep_leftovers(self) -> list[str]: ...
    def close(self) -> None: ...


class Cloud:
    """Begins with `with Cloud(...) as cloud`; nothing of it is left at the end of the block.

    `api_url` and `aws_url` are where it listens, `token` is that of the user `demo`, `user_id` their id; `inbox`,
    `slack` and `faults` are what a person looks at and switches.
    """

    api_url: str
    aws_url: str
    token: str
    user_id: str

    def __init__(
        self,
        state: Path,
        *,
        image: Path | None = None,
        installer: Any = None,
        api_port: int = 8000,
        aws_port: int = 5566,
        stage: str = "local",
        faults: Iterable[str] = (),
        delays: Delays | None = None,
        machines: AnyMachines | None = None,
        substitutions: Mapping[str, Any] | None = None,
        schedules: bool = True,
        settings: Mapping[str, str] | None = None,
        minute_seconds: float | None = None,
    ) -> None:
        """Without `machines`, real ones of `image`, the root of the machine image; `installer` is what
        local/installer.py made, served to the machines unless the environment names another. Image and installer are
        made or taken from the cache if they are not given. `substitutions` override those of the state
        machines, `settings` add to the functions' environment. Port 0 takes a free one. `minute_seconds` is how long a
        minute of limits, warnings, heartbeats and `rate(…)` schedules lasts, for functions and machines; without it
        NOD_MINUTE_SECONDS, else 60."""
        self.state = state
        self.stage = stage
        self.region = chosen_region(os.environ)
        self.delays = delays or Delays()
        self.faults = Faults(faults)
        self._image = image
        self._given_installer = installer
        self._ports = api_port, aws_port
        self._substitutions = dict(substitutions or {})
        self._run_schedules = schedules
        self._settings = dict(settings or {})
        self._minute = minute_seconds if minute_seconds is not None else chosen_minute(os.environ)
        if self._minute is not None:
            self._settings["NOD_MINUTE_SECONDS"] = f"{self._minute:g}"
        self._machines: AnyMachines | None = machines
        self._closers: list[Any] = []

    def __enter__(self) -> Cloud:
        self.open()
        return self

    def open(self) -> None:
        """Begin; `close` ends it. Closes by itself when it fails."""
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *_: object) -> None:
        self.close()

    # Opening, in this order

    def _open(self) -> None:
        began = time.monotonic()
        self.state.mkdir(parents=True, exist_ok=True)
        self._closers.append(Logs(self.state / "log").close)
        self.background = Background()
        self._closers.append(self._close_background)
        self.inbox = Inbox(self.faults)
        self._closers.append(self.inbox.close)
        self.front = Front(self.faults)
        server = Server(self.front, self._ports[1])
        self._closers.append(server.close)
        self.aws_port = server.port
        self.aws_url = f"http://127.0.0.1:{server.port}"
        self.slack = Slack(self.faults, self.aws_url)
        self.control = Control(self.faults, self.inbox, self.slack, self.state)
        self.front.control = self.control
        self._enter_environment()
        reset_moto(ACCOUNT, self.region)
        self._connect()
        self._prepare_account()
        self._deploy()
        self._make_user()
        self.front.throttling = True
        function = f"{self.app.app_name}-{self.stage}-api"
        gateway = Gateway(self.app, function, self.lambdas, port=self._ports[0], account=ACCOUNT, stage=self.stage)
        self._closers.append(gateway.close)
        self.api_port = gateway.port
        self.api_url = f"http://127.0.0.1:{gateway.port}"
        # Links of messages lead here. On AWS the requests say where the API is; here the port is known only now.
        os.environ.setdefault("NOD_API_URL", self.api_url)
        sys.modules["app"].settings.cache_clear()
        log.info("up", extra={"fields": {"seconds": round(time.monotonic() - began, 2), "api": self.api_url}})

    # What tests and people look at and change

    def environment(self) -> dict[str, str]:
        """The environment of the functions, for processes that act on this cloud."""
        return {name: value for name, value in os.environ.items() if name.startswith(("AWS_", "NOD_")) or name in PROXY}

    def machine(self, instance_id: str) -> Any:
        """The machine of an instance (local/machines.py). Raises KeyError without one."""
        life = self.ec2.life(instance_id)
        if life is None or life.machine is None:
            raise KeyError(instance_id)
        return life.machine

    def published(self) -> list[str]:
        """What the topics sent to functions, oldest first."""
        return list(self.sns.published)

    def slow_pending(self, seconds: float) -> None:
        """How long new instances are pending from now on."""
        self.ec2.set_pending(seconds)

    def without_addresses(self, on: bool) -> None:
        """Whether new instances get no public address."""
        self.ec2.addressless = on

    def run_schedules(self) -> None:
        """Every schedule is due now; returns when its functions have run."""
        for source in self.app.event_sources:
            if hasattr(source, "schedule_expression") and not self._is_dead(source.name):
                name = f"{self.app.app_name}-{self.stage}-{source.name}"
                self.lambdas.invoke(name, self.bus.scheduled_event(f"{name}-event"))

    def close(self) -> None:
        """End everything, last thing first."""
        closers, self._closers = self._closers, []
        for close in reversed(closers):
            began = time.monotonic()
            try:
                close()
            except Exception:
                log.exception("something did not close")
            seconds = round(time.monotonic() - began, 2)
            if seconds >= 1:
                log.warning("slow end", extra={"fields": {"of": close.__qualname__, "seconds": seconds}})

    def _close_background(self) -> None:
        left = self.background.close()
        if left:
            log.warning("threads still at work: %s", ", ".join(left))

    def _enter_environment(self) -> None:
        before = dict(os.environ)
        self._closers.append(lambda: _restore_environment(before))
        nowhere = str(self.state / "no-such-file")
        for name in ("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN", "AWS_ROLE_ARN"):
            os.environ.pop(name, None)
        os.environ |= {
            "AWS_ENDPOINT_URL": self.aws_url,
            "AWS_ACCESS_KEY_ID": "local",
            "AWS_SECRET_ACCESS_KEY": "local",
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_CONFIG_FILE": nowhere,
            "AWS_SHARED_CREDENTIALS_FILE": nowhere,
            "AWS_EC2_METADATA_DISABLED": "true",
            "MOTO_PORT": str(self.aws_port),
            # The only public images here are those of _prepare_account.
            "MOTO_EC2_LOAD_DEFAULT_AMIS": "false",
            "NOD_STAGE": self.stage,
            # A proxy of this machine is not asked for what is on this machine.
            "NO_PROXY": ",".join(filter(None, (os.environ.get("NO_PROXY"), "127.0.0.1", "localhost"))),
        }
        os.environ["no_proxy"] = os.environ["NO_PROXY"]
        boto3.DEFAULT_SESSION = None

    def _connect(self) -> None:
        patches = Patches()
        self._closers.append(patches.undo)
        if self._machines is None:
            self._machines = self._real_machines()
        self._closers.append(self._machines.close)
        for line in self._machines.sweep_leftovers():
            log.info("left over from an earlier run: %s", line)
        self.bus = EventBus(
            account=ACCOUNT,
            region=self.region,
            background=self.background,
            faults=self.faults,
            rules=self._rules,
            send=self._send_to_target,
        )
        self.lambdas = Lambdas(ACCOUNT, self.region, self.background, self.delays, self._send_to_queue)
        self.ec2 = Ec2(
            account=ACCOUNT,
            region=self.region,
            machines=self._machines,
            bus=self.bus,
            background=self.background,
            delays=self.delays,
            faults=self.faults,
        )
        self._closers.append(self.ec2.close)
        agents = Agents(self.region, self.background, self.delays, self.faults)
        self.ec2.agents = agents
        self.sns = Sns(
            url=self.aws_url,
            background=self.background,
            delays=self.delays,
            mail=self._mail,
            invoke=self._invoke_later,
            send=self._send_to_queue,
        )
        self.ec2.install(patches)
        self.sns.install(patches)
        attribute_values.install(patches)
        stepfunctions.install(self.bus, self.aws_url, patches, self.delays)
        self._correct_put_events(patches)
        self.front.commands = Commands(
            account=ACCOUNT,
            region=self.region,
            agents=agents,
            bus=self.bus,
            background=self.background,
            delays=self.delays,
            faults=self.faults,
        )
        self.front.lambdas = self.lambdas
        self.front.ec2 = self.ec2
        self.control.machines = self.ec2.summary
        self.control.confirm = self.sns.confirm
        self.control.unsubscribe = self.sns.unsubscribe_by_link
        self.control.health = lambda: {"stage": self.stage, "api": getattr(self, "api_url", None)}
        # First of all at the end: nothing new begins, executions are over before what they call is gone.
        self._closers.append(self._stop_executions)

    def _real_machines(self) -> AnyMachines:
        cache = cache_folder(os.environ)
        if self._image is None:
            self._image = ensure_image(cache, log.info)
        if self._given_installer is None and chosen_installer(os.environ) is None:
            self._given_installer = ensure_installer(cache, self._image, log.info)
        minute = {} if self._minute is None else {"NOD_MINUTE_SECONDS": f"{self._minute:g}"}
        return Machines(self.state, self._image, self.aws_port, environment=minute)

    def _stop_executions(self) -> None:
        self.background.closing.set()
        stepfunctions.stop_all(stepfunctions_parser_backends[ACCOUNT][self.region])

    def _prepare_account(self) -> None:
        # What a real account has before anything is deployed: a default VPC, and Canonical's public parameters.
        client = boto3.client("ec2")
        subnets = client.describe_subnets(Filters=[{"Name": "default-for-az", "Values": ["true"]}])["Subnets"]
        self.subnet_ids = [subnet["SubnetId"] for subnet in sorted(subnets, key=lambda s: s["AvailabilityZone"])]
        self.vpc_id = subnets[0]["VpcId"]
        # See local/aws/ec2.py: no DNS name leads to a machine here.
        client.modify_vpc_attribute(VpcId=self.vpc_id, EnableDnsHostnames={"Value": False})
        ssm = ssm_backends[ACCOUNT][self.region]
        parameter: Any = Parameter
        for architecture, image_architecture in (("amd64", "x86_64"), ("arm64", "arm64")):
            name = UBUNTU.format(architecture)
            image = _register_image(ec2_backends[ACCOUNT][self.region], architecture, image_architecture)
            # Straight into moto: PutParameter refuses names under /aws/, which are AWS's own.
            ssm._parameters[name].append(
                parameter(
                    account_id=ACCOUNT,
                    name=name,
                    value=image,
                    parameter_type="String",
                    description=None,
                    allowed_pattern=None,
                    keyid=None,
                    last_modified_date=datetime.now(UTC),
                    version=1,
                    data_type="aws:ec2:image",
                )
            )

    # The product

    def _deploy(self) -> None:
        functions: dict[str, str] = {}
        url, sha256 = self._installer()
        self.stack = Stack(
            ROOT / ".chalice" / "resources.yaml",
            {
                "Stage": self.stage,
                "VpcId": self.vpc_id,
                "SubnetIds": self.subnet_ids,
                "InstallerUrl": url,
                "InstallerSha256": sha256,
                "SlackOrigin": self.aws_url,
            },
            account=ACCOUNT,
            region=self.region,
            functions=functions,
            lambdas=self.lambdas,
            substitutions=self._substitutions,
        )
        # The functions' environment first: app.py may read it when it is imported.
        os.environ |= self.stack.environment() | self._settings
        self.app = self._import_app()
        config_file = ROOT / ".chalice" / "config.json"
        config = json.loads(config_file.read_text(encoding="utf-8")) if config_file.exists() else {}
        self._log_to_file()
        self.lambdas.load(self.app, self.stage, config)
        functions |= {
            logical_id(name.removeprefix(f"{self.app.app_name}-{self.stage}-")): name for name in self.lambdas.names()
        }
        documents = importlib.import_module("instance.build").documents()
        client = boto3.client("ssm")
        for name, content in documents.items():
            put_document(client, f"nod-{self.stage}-{name}", content)
        self.stack.create()
        self._connect_functions()

    def _installer(self) -> tuple[str, str]:
        given = chosen_installer(os.environ)
        if given is not None:
            return given
        if self._given_installer is None:
            return "", ""
        self.control.installer = Path(self._given_installer.path)
        return f"{self.aws_url}/_local/installer.sh", str(self._given_installer.sha256)

    def _import_app(self) -> Any:
        # Anew for each cloud, as a Lambda is a new process: app.py reads its environment once.
        ours = [name for name in sys.modules if _ours(name)]
        before = {name: sys.modules.pop(name) for name in ours}
        if str(ROOT) not in sys.path:
            sys.path.insert(0, str(ROOT))
            self._closers.append(lambda: sys.path.remove(str(ROOT)))

        def restore() -> None:
            for name in [n for n in sys.modules if _ours(n)]:
                del sys.modules[name]
            sys.modules.update(before)

        self._closers.append(restore)
        from chalice.local import LocalChalice  # noqa: PLC0415

        app = importlib.import_module("app").app
        # A Lambda serves one request at a time; here many threads do: what a request is, each thread has its own.
        app.__class__ = type("LocalApp", (LocalChalice, type(app)), {})
        return app

    def _log_to_file(self) -> None:
        # On AWS what a function writes to stdout is its log; here stdout belongs to the person.
        file = (self.state / "log" / "app.log").open("a", encoding="utf-8")
        self._closers.append(file.close)
        for handler in logging.getLogger("nod").handlers:
            if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
                before = handler.setStream(file)
                self._closers.append(lambda h=handler, s=before or sys.stdout: h.setStream(s))

    def _connect_functions(self) -> None:
        """What Chalice deploys for each function with an event source: rules, schedules, subscriptions."""
        events, sns = boto3.client("events"), boto3.client("sns")
        for source in self.app.event_sources:
            function = f"{self.app.app_name}-{self.stage}-{source.name}"
            arn = self.lambdas.arn(function)
            targets = [{"Id": "1", "Arn": arn}]
            if hasattr(source, "event_pattern"):
                put_rule(events, f"{function}-event", pattern=source.event_pattern, targets=targets)
            elif hasattr(source, "schedule_expression"):
                expression = source.schedule_expression
                text = expression if isinstance(expression, str) else expression.to_string()
                rule = put_rule(events, f"{function}-event", schedule=text, targets=targets)
                if self._run_schedules:
                    self._arm(text, rule, arn, source.name)
            elif hasattr(source, "topic"):
                topic = source.topic
                if not topic.startswith("arn:"):
                    topic = f"arn:aws:sns:{self.region}:{ACCOUNT}:{topic}"
                added = self.stack.subscription(logical_id(source.name))
                attributes = {name: json.dumps(value) for name, value in added.items()}
                sns.subscribe(
                    TopicArn=topic, Protocol="lambda", Endpoint=arn, Attributes=attributes, ReturnSubscriptionArn=True
                )
            else:
                raise ValueError(f"{source.name}: the local cloud has no event source {type(source).__name__}")

    def _arm(self, expression: str, rule: str, target: str, name: str) -> None:
        now = datetime.now(UTC)
        wait = (schedules.following(expression, now) - now).total_seconds()
        if self._minute is not None and expression.startswith("rate("):
            wait = max(1.0, wait * self._minute / 60)

        def due() -> None:
            self._arm(expression, rule, target, name)
            if not self._is_dead(name):
                self.bus.tick(rule, target)

        self.background.later(wait, due)

    def _is_dead(self, schedule: str) -> bool:
        return schedule in {"sweep", "reconcile"} and self.faults.active("sweep_dead", schedule)

    def _make_user(self) -> None:
        deployment = importlib.import_module("admin.deployment").Deployment(self.stage)
        importlib.import_module("admin.slack").add_channel(
            deployment, DEMO_USER, self.slack.webhook(DEMO_USER), origin=self.aws_url
        )
        self.token = importlib.import_module("admin.users").add_user(
            deployment, DEMO_USER, email=DEMO_MAIL, slack=DEMO_USER, quota=DEMO_QUOTA
        )
        self.user_id = self.token.split(".")[1]
        path = self.state / "token"
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        if invoker := os.environ.get("SUDO_UID"):
            # Who typed `sudo` is who uses the client, without it.
            os.fchown(descriptor, int(invoker), -1)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(self.token + "\n")

    # Between the services

    def _rules(self) -> list[Any]:
        bus = events_backends[ACCOUNT][self.region].event_buses["default"]
        return list(bus.rules.values())

    def _correct_put_events(self, patches: Patches) -> None:
        bus = self.bus

        # PutEvents: moto hands the event to each rule, whose targets it mostly cannot reach.
        def send_to_targets(rule: Any, original_event: Any, **_: Any) -> None:
            moment = datetime.fromtimestamp(float(original_event["time"]), UTC)
            bus.deliver_to(rule, {**original_event, "time": moment.strftime("%Y-%m-%dT%H:%M:%SZ")})

        patches.set(Rule, "send_to_targets", send_to_targets)

    def _send_to_target(self, arn: str, payload: Any) -> None:
        service = arn.split(":")[2]
        if service == "lambda":
            self._invoke_later(arn, payload)
        elif service == "states":
            backend = stepfunctions_parser_backends[ACCOUNT][self.region]
            backend.start_execution(arn, f"{uuid.uuid4()}_{uuid.uuid4()}", json.dumps(payload))
        elif service == "sqs":
            self._send_to_queue(arn, json.dumps(payload))
        else:
            log.error("the local cloud cannot send events to %s", arn)

    def _invoke_later(self, arn: str, payload: Any) -> None:
        try:
            self.lambdas.invoke_later(arn, payload)
        except FunctionNotFoundError:
            log.exception("an event for a function that does not exist: %s", arn)

    def _send_to_queue(self, arn: str, text: str) -> None:
        sqs_backends[ACCOUNT][self.region].send_message(arn.rsplit(":", 1)[-1], text)

    def _mail(self, sender: str, recipient: str, subject: str, text: str) -> None:
        mail.send(self.inbox.port, sender, recipient, subject, text)


def _register_image(backend: Any, architecture: str, image_architecture: str) -> str:
    """Canonical's image, as DescribeImages has it: its root device is what the launch plan's block device names."""
    from moto.ec2.models.amis import Ami  # noqa: PLC0415

    image_id = f"ami-{secrets.token_hex(9)[:17]}"
    backend.amis[image_id] = Ami(
        backend,
        ami_id=image_id,
        name=f"ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-{architecture}-server-local",
        description="Stand-in for Canonical's Ubuntu 24.04 image",
        owner_id="099720109477",
        public=True,
        virtualization_type="hvm",
        architecture=image_architecture,
        state="available",
        platform=None,
        image_type="machine",
        image_location="099720109477/ubuntu-noble-24.04",
        hypervisor="xen",
        root_device_type="ebs",
        root_device_name="/dev/sda1",
        sriov="simple",
    )
    return image_id


def _ours(module: str) -> bool:
    return module == "app" or module.partition(".")[0] in {"admin", "chalicelib"}


def _restore_environment(before: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(before)
    boto3.DEFAULT_SESSION = None
