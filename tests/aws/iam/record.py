"""The product at work on the local cloud, each way that calls AWS gone once; what it asked of IAM is recorded.

    python -m tests.aws.iam.record

writes tests/aws/iam/calls.json anew.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
from moto.ec2.models import ec2_backends

from chalicelib import errors
from local.cloud import Cloud
from local.recorder import Call, recording
from tests.aws.iam.authorization import Facts
from tests.aws.iam.calls import FILE, Recorded, recorded, to_json
from tests.aws.workflows import NAMES
from tests.local.person import wait_until
from tests.local.scripted import RESULTS, ScriptedMachines
from tests.local.town import DELAYS, QUICK, Town

ACCOUNT, REGION, STAGE = "123456789012", "us-east-1", "local"
# Of the tags those that say whose a resource is: names of notebooks would only make the file longer.
TAGS = ("nod:deployment", "nod:notebook", "nod:owner")
# Nothing here is about how long anything takes.
FASTER = {
    "PrepareSeconds": 1,
    "InstallSeconds": 6,
    "ShortSeconds": 1,
    "AnswerAttempts": 5,
    "AnswerRounds": 1,
}
_IDS = ("VolumeId", "AllocationId", "GroupId")
PASSWORD = "correct horse battery"


class Scenario:
    """What a person, their machines and EC2 do, in an order in which each step finds what it needs."""

    def __init__(self, town: Town) -> None:
        self.town = town
        self.ahead = timedelta(0)
        self._ended: set[str] = set()
        self._app = sys.modules["app"]
        self._app.now = lambda: datetime.now(UTC) + self.ahead  # type: ignore[attr-defined]

    def run(self, part: int) -> None:
        """A half of it. Steps of one line run side by side: no fault and no other time of one is in another's way."""
        halves = (
            (
                (self.a_notebook_and_its_life, self.links, self.stopped_from_outside),
                (self.requests_that_do_not_begin,),
                (self.launches_that_fail,),
                (self.untold,),
                (self.starts_and_stops_that_fail,),
            ),
            (
                (self.events_are_lost,),
                (self.idle_and_silent,),
                (self.workflows_that_vanish,),
                (self.machines_that_do_as_they_like,),
                (self.without_owner,),
                (self.whose_owner_has_no_row,),
            ),
        )
        for phase in halves[part]:
            with ThreadPoolExecutor(len(phase)) as threads:
                for done in [threads.submit(step) for step in phase]:
                    done.result()
            self._between()

    # The steps

    def a_notebook_and_its_life(self) -> None:
        notebook = self._ready(key="first", name="life")
        self._ask(notebook, "extend", hours=2)
        self._ask(notebook, "password", password=PASSWORD)
        self._settle(notebook)
        self._ask(notebook, "link")
        http = self.town.person.http
        assert http.get(f"/notebooks/{notebook}/events").status_code == 200
        assert http.get("/notebooks").status_code == 200
        assert self.town.person.request(key="first", name="life").status_code == 202
        self._stop(notebook)
        self._schedules()
        self._start(notebook)
        self._delete(notebook, "life")

    def links(self) -> None:
        notebook = self._ready(name="links")
        link = self.town.person.show(notebook)["link"]
        with httpx.Client(base_url=self.town.cloud.api_url, trust_env=False, timeout=30) as browser:
            assert browser.get(link).status_code == 200
            for action in ("extend", "stop", "wake"):
                self._press(browser, link, action)
                self._settle(notebook)
        self._wait(notebook, "ready")

    def requests_that_do_not_begin(self) -> None:
        """Step Functions takes no execution: the record is taken back, and so is a change of the password."""
        workflows = sys.modules["chalicelib.aws.workflows"].Workflows

        def refuse(*_: object) -> bool:
            raise errors_of_app().Unavailable("refused")

        notebook = self._ready(name="unchanged")
        with _replaced(workflows, "start", refuse):
            assert self.town.person.request(name="never").status_code == 503
            changed = self.town.person.http.post(f"/notebooks/{notebook}/password", json={"password": PASSWORD})
            assert changed.status_code == 503

    def launches_that_fail(self) -> None:
        """By a document; by an instance that is terminated while it is pending; by a delete while a command runs."""
        town = self.town
        town.machines.results["configure-tls"] = {"ok": False, "code": "disk_full", "message": "The disk is full: ask."}
        broken = town.launch(name="broken")
        self._failed(broken)
        town.machines.results = dict(RESULTS)
        town.cloud.slow_pending(4)
        lost = town.launch(name="lost")
        wait_until(lambda: "wait_token" in town.record(lost), 60, "nobody waits")
        town.ec2.terminate_instances(InstanceIds=[town.instances(lost)[0]["InstanceId"]])
        town.cloud.slow_pending(DELAYS.pending)
        town.machines.seconds["install-anaconda"] = 4
        taken = town.launch(name="taken")
        self._installs(taken)
        town.machines.seconds.clear()
        self._delete(taken, "taken")
        self._failed(lost)

    def starts_and_stops_that_fail(self) -> None:
        town = self.town
        town.machines.results["set-password"] = {"ok": False, "code": "invalid_parameter", "message": "It is no hash."}
        notebook = self._ready(name="stuck")
        town.cloud.faults.on(f"stop_fails:{town.record(notebook)['instance_id']['S']}")
        self._ask(notebook, "stop")
        self._wait(notebook, "ready")
        town.cloud.faults.clear()
        self._ask(notebook, "password", password=PASSWORD)
        self._settle(notebook)
        self._stop(notebook)
        town.cloud.faults.on("no_capacity")
        self._ask(notebook, "start")
        self._wait(notebook, "stopped")
        town.cloud.faults.clear()
        # Its start is aborted, and it is off again before anybody looks.
        town.cloud.faults.on("event_lost")
        town.machines.on_boot = None
        self._ask(notebook, "start")
        instance = town.record(notebook)["instance_id"]["S"]
        self._until(instance, "running")
        (running,) = [one for one in town.executions("start") if notebook in one and one not in self._ended]
        town.sfn.stop_execution(executionArn=running)
        town.ec2.stop_instances(InstanceIds=[instance])
        self._until(instance, "stopped")
        self._mend(notebook, "stopped")
        town.cloud.faults.clear()
        # It boots, and never answers: what began is stopped.
        town.machines.on_boot = None
        self._ask(notebook, "start")
        self._wait(notebook, "stopped")

    def events_are_lost(self) -> None:
        town = self.town
        notebook = self._ready(name="slow")
        town.cloud.faults.on("event_lost:aws.ssm")
        self._ask(notebook, "password", password=PASSWORD)
        town.machines.seconds["prepare-instance"] = 2.5
        unheard = town.launch(name="unheard")
        wait_until(lambda: self._step(unheard, "prepare_instance") == "done", 60, "nobody looked for the command")
        town.cloud.faults.clear()
        self._wait(unheard, "ready")

    def stopped_from_outside(self) -> None:
        notebook = self._ready(name="outside")
        self.town.ec2.stop_instances(InstanceIds=[self.town.record(notebook)["instance_id"]["S"]])
        self._wait(notebook, "stopped")

    def idle_and_silent(self) -> None:
        """The sweep: kept, warned, stopped; silent, probed, warned, stopped; a tag removed meanwhile."""
        town = self.town
        notebook, silent = self._all_ready("idle", "silent")
        machine = town.machine(notebook)
        for minutes in (1, 40, 60, 80):
            self.ahead = timedelta(minutes=minutes)
            self._beat_idle(machine, minutes)
            self._schedules()
        self._wait(notebook, "stopped")
        instance = town.record(silent)["instance_id"]["S"]
        for minutes in (120, 200, 320, 600):
            self.ahead = timedelta(minutes=minutes)
            self._schedules()
            # After the probe, which Systems Manager refuses without the tag: it is stopped all the same.
            town.ec2.delete_tags(Resources=[instance], Tags=[{"Key": "nod:deployment"}])
        self._wait(silent, "stopped")
        self.ahead = timedelta(0)
        self._start(silent)
        self._stop(silent)

    def untold(self) -> None:
        """Messages that nobody could send at their time, and an address that is confirmed late."""
        town = self.town
        handlers = town.cloud.lambdas._handlers
        with _replaced_item(handlers, "nod-local-tell_owner", _fail):
            notebook = self._ready(name="quiet")
        self.ahead = timedelta(minutes=30)
        self._schedules()
        self.ahead = timedelta(0)
        for subscription in list(town.cloud.sns._tokens):
            town.cloud.sns.confirm(subscription)
        self._schedules()
        town.cloud.faults.on("notification_fails")
        self._delete(notebook, "quiet")

    def workflows_that_vanish(self) -> None:
        """Workflows are aborted, or never begin; the sweep finds the records due and mends each."""
        town = self.town
        workflows = sys.modules["chalicelib.aws.workflows"].Workflows
        notebook = self._ready(name="mended")
        self._awake()
        for verb, aside, end in (("stop", "stopping", "stopped"), ("start", "starting", "ready")):
            with _replaced(workflows, "start", lambda *_: True):
                self._ask(notebook, verb)
            assert town.person.show(notebook)["state"] == aside
            self._mend(notebook, end)
        with _replaced(workflows, "start", lambda *_: True):
            assert town.person.delete(notebook, "mended").status_code == 202
        self._mend(notebook, "terminated")
        with _replaced(workflows, "start", lambda *_: True):
            never = town.launch(name="never")
        self._mend(never, "failed")

    def machines_that_do_as_they_like(self) -> None:
        """One is terminated outside, one is started outside; the events of both are lost. `reconcile` finds them."""
        town = self.town
        gone, runs = self._all_ready("gone", "runs")
        self._stop(runs)
        town.cloud.faults.on("event_lost")
        town.ec2.terminate_instances(InstanceIds=[town.record(gone)["instance_id"]["S"]])
        town.ec2.start_instances(InstanceIds=[town.record(runs)["instance_id"]["S"]])
        for minutes in (0, 70, 140):
            self.ahead = timedelta(minutes=minutes)
            self._schedules()
        self._wait(gone, "failed")
        self._wait(runs, "stopped")

    def without_owner(self) -> None:
        """What bears the deployment's tag and belongs to nobody is noted, told, stopped, removed.

        What hours and days of looks would leave in the table is put there: more than three at once are never touched.
        """
        town = self.town
        notebook = self._ready(name="orphaned")
        instance = town.record(notebook)["instance_id"]["S"]
        town.tables.delete_item(TableName="nod-local-notebooks", Key={"id": {"S": notebook}})
        self._schedules()
        for hours_told in (None, 2, 200):
            self._orphan_since(instance, hours_told)
            self._schedules()
        wait_until(lambda: not town.instances(notebook), 60, "it is still there")
        for identifier in self._loose():
            self._orphan_since(identifier, 200)
        self._schedules()

    def whose_owner_has_no_row(self) -> None:
        """Its machine is stopped in EC2 while the owner's row is missing. The row is put back at the end."""
        town = self.town
        notebook = self._ready(name="rowless")
        record = town.record(notebook)
        key = {"id": record["owner"]}
        row = town.tables.get_item(TableName="nod-local-users", Key=key, ConsistentRead=True)["Item"]
        town.tables.delete_item(TableName="nod-local-users", Key=key)
        town.ec2.stop_instances(InstanceIds=[record["instance_id"]["S"]])
        self._wait(notebook, "stopped")
        town.tables.put_item(TableName="nod-local-users", Item=row)

    def _orphan_since(self, identifier: str, hours_told: int | None) -> None:
        def at(hours: float) -> dict[str, str]:
            return {"S": f"{datetime.now(UTC) + self.ahead - timedelta(hours=hours):%Y-%m-%dT%H:%M:%SZ}"}

        row = {"id": {"S": f"orphan#{identifier}"}, "first_seen_at": at(300), "seen_at": at(0.5)}
        if hours_told is not None:
            row["told_at"] = row["owner_told_at"] = at(hours_told)
        self.town.tables.put_item(TableName="nod-local-sweeps", Item=row)
        # It counts from its making too, which is now.
        self.ahead = timedelta(hours=2)

    # What they are made of

    def _ready(self, key: str | None = None, **body: Any) -> str:
        self._awake()
        answer = self.town.person.request(key=key, **body)
        assert answer.status_code == 202, answer.text
        notebook = str(answer.json()["id"])
        self._wait(notebook, "ready")
        return notebook

    def _all_ready(self, *names: str) -> list[str]:
        with ThreadPoolExecutor(len(names)) as threads:
            return list(threads.map(lambda name: self._ready(name=name, idle_minutes=10), names))

    def _awake(self) -> None:
        self.town.machines.on_boot = self.town.beat

    def _ask(self, notebook: str, verb: str, **body: Any) -> None:
        answer = self.town.person.http.post(f"/notebooks/{notebook}/{verb}", json=body or None)
        assert answer.status_code == 202, answer.text

    def _wait(self, notebook: str, state: str, seconds: float = 120) -> None:
        def arrived() -> bool:
            if self.town.record(notebook)["state"]["S"] != state:
                return False
            self._settle(notebook)
            return bool(self.town.record(notebook)["state"]["S"] == state)

        wait_until(arrived, seconds, lambda: f"{notebook} is not {state}: {self.town.record(notebook)}", 0.2)

    def _settle(self, notebook: str) -> None:
        """Until no workflow of the notebook runs."""
        for machine in NAMES:
            for execution in self.town.executions(machine):
                if notebook in execution and execution not in self._ended:
                    self.town.ended(execution)
                    self._ended.add(execution)

    def _stop(self, notebook: str) -> None:
        self._ask(notebook, "stop")
        self._wait(notebook, "stopped")

    def _start(self, notebook: str) -> None:
        self._awake()
        self._ask(notebook, "start")
        self._wait(notebook, "ready")

    def _delete(self, notebook: str, name: str) -> None:
        assert self.town.person.delete(notebook, name).status_code == 202
        self._wait(notebook, "terminated")

    def _failed(self, notebook: str) -> None:
        self._wait(notebook, "failed")

    def _installs(self, notebook: str) -> None:
        def installing() -> bool:
            return (self._step(notebook, "install_anaconda"), self._step(notebook, "start_monitor")) == (
                "running",
                "done",
            )

        wait_until(installing, 60, "no installation")

    def _step(self, notebook: str, name: str) -> str:
        return next(str(one["state"]) for one in self.town.person.show(notebook)["steps"] if one["name"] == name)

    def _press(self, browser: httpx.Client, link: str, action: str) -> None:
        page = browser.get(link).text
        form = re.search(rf'<form method="post" action="([^"]*/{action})">(.*?)</form>', page, re.DOTALL)
        assert form, page
        fields = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]+)">', form[2]))
        assert browser.post(form[1], data=fields).status_code == 303

    def _beat_idle(self, machine: Any, minutes: int) -> None:
        self.town.beat(
            machine,
            boot_id={"S": "boot-of-the-idle"},
            beat={"N": str(minutes)},
            uptime={"N": str(minutes * 60)},
            ages={"M": {}},
            at={"S": f"{datetime.now(UTC) + timedelta(minutes=minutes):%Y-%m-%dT%H:%M:%SZ}"},
        )

    def _until(self, instance: str, state: str) -> None:
        def so() -> bool:
            (found,) = self.town.ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"]
            return bool(found["State"]["Name"] == state)

        wait_until(so, 20, f"{instance} is not {state}")

    def _schedules(self) -> None:
        self.town.cloud.run_schedules()

    def _mend(self, notebook: str, end: str) -> None:
        self.ahead = timedelta(minutes=30)
        self._schedules()
        self.ahead = timedelta(0)
        self._wait(notebook, end)

    def _loose(self) -> list[str]:
        """A volume, an address and a security group that a notebook has left behind."""
        ec2 = self.town.ec2
        tags = [
            {"Key": "nod:deployment", "Value": STAGE},
            {"Key": "nod:notebook", "Value": "nb-" + "0" * 20},
            {"Key": "nod:owner", "Value": self.town.cloud.user_id},
        ]

        def tagged(kind: str) -> list[Any]:
            return [{"ResourceType": kind, "Tags": tags}]

        volume = ec2.create_volume(AvailabilityZone=f"{REGION}a", Size=1, TagSpecifications=tagged("volume"))
        address = ec2.allocate_address(Domain="vpc", TagSpecifications=tagged("elastic-ip"))
        group = ec2.create_security_group(
            GroupName="nod-left",
            Description="own",
            VpcId=self.town.cloud.vpc_id,
            TagSpecifications=tagged("security-group"),
        )
        return [volume["VolumeId"], address["AllocationId"], group["GroupId"]]

    def _between(self) -> None:
        town, self.ahead = self.town, timedelta(0)
        town.cloud.faults.clear()
        town.machines.results = dict(RESULTS)
        town.machines.seconds.clear()
        town.settle()
        found = town.person.http.get("/notebooks").json()["notebooks"]
        left = [notebook for notebook in found if notebook["state"] in ("ready", "stopped")]
        for notebook in left:
            assert town.person.delete(notebook["id"], notebook["name"]).status_code == 202
        for notebook in left:
            self._wait(notebook["id"], "terminated")


def errors_of_app() -> Any:
    """The errors as the app of the cloud has them: it is imported anew for each."""
    return sys.modules.get("chalicelib.errors", errors)


def _fail(_event: Any, _context: Any) -> None:
    raise RuntimeError("broken for the recording")


@contextlib.contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


@contextlib.contextmanager
def _replaced_item(owner: dict[str, Any], name: str, value: Any) -> Iterator[None]:
    before, owner[name] = owner[name], value
    try:
        yield
    finally:
        owner[name] = before


def record() -> list[Recorded]:
    """Runs the product and gives what it asked for. Two halves, each in a process and a cloud of its own."""
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as processes:
        found = {one.key(): one for half in processes.map(_half, (0, 1)) for one in half}
    return [found[key] for key in sorted(found)]


def _half(part: int) -> list[Recorded]:
    with tempfile.TemporaryDirectory() as folder, recording(_tags) as found, _opened(Path(folder)) as town:
        Scenario(town).run(part)
        calls = found.calls()
        return recorded(calls, _facts(town, calls), _placeholders(town))


@contextlib.contextmanager
def _opened(state: Path) -> Iterator[Town]:
    machines = ScriptedMachines()
    waits = QUICK | FASTER
    with Cloud(
        state, api_port=0, aws_port=0, delays=DELAYS, machines=machines, substitutions=waits, schedules=False
    ) as cloud:
        yield Town(cloud, machines)


def _tags(parameters: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """The tags of the resources that a call names, as they are now."""
    kept = ec2_backends[ACCOUNT][REGION].tags
    named = [*parameters.get("InstanceIds", ()), *(parameters[key] for key in _IDS if key in parameters)]
    return {one: {key: value for key, value in kept[one].items() if key in TAGS} for one in named}


def _facts(town: Town, calls: list[Call]) -> Facts:
    stack = town.cloud.stack
    template_id = stack.resource("NotebookLaunchTemplate")
    template = ec2_backends[ACCOUNT][REGION].launch_templates[template_id].latest_version().data
    role = "arn:aws:iam::" + ACCOUNT + ":role/nod-local-notebook"
    return Facts(
        account=ACCOUNT,
        region=REGION,
        role_arn=role,
        profile_arn=role.replace(":role/", ":instance-profile/"),
        template=template,
        image="ami-0canonical",
        tokens=_tokens(calls),
    )


def _tokens(calls: list[Call]) -> dict[str, str]:
    """Which state machine handed out each token that was answered."""
    workflows = [
        (call.principal, json.dumps(call.parameters, default=str))
        for call in calls
        if call.principal.startswith("workflow/")
    ]
    found = {}
    for call in calls:
        token = call.parameters.get("taskToken")
        if token is None or token in found:
            continue
        owner = next(who for who, text in workflows if token in text)
        found[token] = f"arn:aws:states:{REGION}:{ACCOUNT}:stateMachine:{owner.removeprefix('workflow/')}"
    return found


def _placeholders(town: Town) -> list[tuple[str, str]]:
    stack = town.cloud.stack
    return [
        (stack.resource("NotebookLaunchTemplate"), "${template}"),
        (f"{stack.resource('NotebookSecurityGroup')}\\b", "${group}"),
        ("|".join(town.cloud.subnet_ids), "${subnet}"),
        ("ami-0canonical", "${image}"),
        (r"\bi-[0-9a-f]{17}\b", "${instance}"),
        (r"\bvol-[0-9a-f]{8,17}\b", "${volume}"),
        (r"\beipalloc-[0-9a-f]{8,17}\b", "${address}"),
        (r"\bsg-[0-9a-f]{8,17}\b", "${owngroup}"),
        (r"\bnb-[0-9a-f]{20}\b", "${notebook}"),
        (r"\bus-[0-9a-f]{20}\b", "${user}"),
        # How many there were is a matter of time, and of no matter to IAM.
        (r"\$\{notebook\}-(undo|start|stop)-\d+", r"${notebook}-\1-1"),
        (ACCOUNT, "${account}"),
        (REGION, "${region}"),
        (r"\bnod-local\b", "nod-${stage}"),
        (r"/nod/local/", "/nod/${stage}/"),
        (r"^local$", "${stage}"),
        # Names of notebooks, as their instances bear them.
        (r"^nod-(?!local$)[a-z]+$", "nod-${name}"),
    ]


if __name__ == "__main__":
    FILE.write_text(to_json(record()), encoding="utf-8")
