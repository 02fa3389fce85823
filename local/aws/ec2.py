"""EC2: what moto does not do. Instances take their time and are machines.

On AWS an instance is `pending` before it is `running`, has its public address from then on, `stopping` before
`stopped`, keeps no public address while stopped and gets another one at the next start; every change is an EventBridge
event; right after its creation EC2 may not know it; a machine that powers itself off stops its instance. moto is
`running` at once, for ever, and emits nothing.

`PublicDnsName` is empty, as in a VPC without DNS hostnames: no name resolves to 127.0.0.N in a browser without a
change of the host's files (`*.localhost` is always 127.0.0.1), so the address stands for the name.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from moto.core.responses import ActionResult
from moto.core.utils import utcnow
from moto.ec2.exceptions import EC2ClientError, InvalidInstanceIdError
from moto.ec2.models import ec2_backends
from moto.ec2.models.instances import Instance, InstanceState, MetadataOptions, StateReason
from moto.ec2.responses.instances import InstanceResponse
from moto.ec2.utils import filter_iam_instance_profiles

from local.aws.addresses import PORT, Addresses
from local.aws.idempotency import Tokens
from local.aws.metadata import metadata
from local.background import Background
from local.delays import Delays
from local.events import EventBus
from local.faults import Faults
from local.patches import Patches

log = logging.getLogger("nod.local.ec2")

CODES = {"pending": 0, "running": 16, "shutting-down": 32, "terminated": 48, "stopping": 64, "stopped": 80}
SMALL_DISK_MIB = 600
"""Size of a machine's disk under the fault `disk_full`: boots, holds no Anaconda."""
LOST_AFTER = 2.0


class Machine(Protocol):
    """The part of local/machines.py that EC2 drives."""

    address: str
    on_power_off: Callable[[], None] | None

    def boot(self) -> None: ...
    def shut_down(self, timeout: float = 20) -> None: ...
    def reboot(self) -> None: ...
    def destroy(self) -> None: ...
    def move_to(self, address: str) -> None: ...


class Machines(Protocol):
    """Where machines come from (local/machines.py)."""

    def create(
        self,
        instance_id: str,
        address: str,
        metadata: Callable[[str], str | None],
        *,
        disk_mib: int | None = None,
    ) -> Any: ...


class Agents(Protocol):
    """The SSM agents (local/agent.py), which live and die with their machines."""

    def booted(self, instance: Any, machine: Any, since: float) -> None: ...
    def gone(self, instance_id: str, *, for_good: bool) -> None: ...


class LifeState(InstanceState):
    """The state of an instance; only its `Life` changes it, what moto writes is ignored."""

    def __init__(self, name: str) -> None:
        self._current = name

    @property
    def name(self) -> str:
        return self._current

    @name.setter
    def name(self, value: str) -> None:
        pass

    @property
    def code(self) -> int:
        return CODES[self._current]

    @code.setter
    def code(self, value: int) -> None:
        pass

    def become(self, name: str) -> None:
        """Change, for real."""
        self._current = name


@dataclass
class Life:
    """An instance, its machine, and where it is between birth and end."""

    instance: Any
    state: LifeState
    born: float = field(default_factory=time.monotonic)
    lock: threading.RLock = field(default_factory=threading.RLock)
    machine_lock: threading.Lock = field(default_factory=threading.Lock)
    machine: Any = None
    loopback: str | None = None
    """The machine's address on this host."""
    public: str | None = None
    """The address as EC2 tells it: only while running."""
    ran: bool = False
    """Whether it was ever running: then its disk holds somebody's work."""
    turn: int = 0
    """Counts what was asked of the instance: work for an earlier turn is void."""


class Ec2:
    """The instances of the account."""

    def __init__(
        self,
        *,
        account: str,
        region: str,
        machines: Machines,
        bus: EventBus,
        background: Background,
        delays: Delays,
        faults: Faults,
    ) -> None:
        self.account = account
        self.region = region
        self.agents: Agents | None = None
        self.addressless = False
        """Whether instances get no public address, as in a subnet that gives none."""
        self._machines = machines
        self._bus = bus
        self._background = background
        self._delays = delays
        self._faults = faults
        self._addresses = Addresses()
        self._tokens = Tokens()
        self._lives: dict[str, Life] = {}
        # As moto has it, before it is corrected: what goes with an instance, its disks above all, goes by this.
        self._give_up: Callable[[Any], Any] = Instance.__dict__["terminate"]

    # What the API asks

    def launched(self, instance: Any) -> None:
        """A new instance: pending now, running later."""
        life = Life(instance, LifeState("pending"))
        instance._state = life.state
        for nic in instance.nics.values():
            nic.public_ip, nic.public_ip_auto_assign = None, False
        self._lives[instance.id] = life
        self._tell(life)
        self._begin(life)

    def start(self, life: Life) -> None:
        """StartInstances."""
        with life.lock:
            if life.state.name in {"pending", "running"}:
                return
            self._require(life, {"stopped"}, "IncorrectInstanceState", "started")
            life.state.become("pending")
            self._tell(life)
            self._begin(life)

    def stop(self, life: Life) -> None:
        """StopInstances."""
        with life.lock:
            if life.state.name in {"stopping", "stopped"}:
                return
            self._require(life, {"running"}, "IncorrectInstanceState", "stopped")
            self._end(life, "stopping")

    def terminate(self, life: Life) -> None:
        """TerminateInstances; once more is no error."""
        with life.lock:
            if life.state.name not in {"shutting-down", "terminated"}:
                self._end(life, "shutting-down")

    def reboot(self, life: Life) -> None:
        """RebootInstances: the state stays `running`."""
        with life.lock:
            self._require(life, {"running"}, "IncorrectInstanceState", "rebooted")
            turn = life.turn
        self._background.submit(self._reboot, life, turn)

    def set_pending(self, seconds: float) -> None:
        """How long instances are pending from now on."""
        self._delays = replace(self._delays, pending=seconds)

    def known(self, instance_id: str) -> bool:
        """Whether EC2 knows its own instance yet, which it does not before the instance's life began either."""
        life = self._lives.get(instance_id)
        return life is not None and time.monotonic() - life.born >= self._delays.visible

    def life(self, instance_id: str) -> Life | None:
        """The life of an instance of this account."""
        return self._lives.get(instance_id)

    def summary(self) -> list[dict[str, Any]]:
        """The instances, for the control page."""
        return [
            {
                "instance_id": life.instance.id,
                "state": life.state.name,
                "address": life.public,
                "instance_type": life.instance.instance_type,
                "tags": {tag["key"]: tag["value"] for tag in life.instance.get_tags()},
            }
            for life in list(self._lives.values())
        ]

    def close(self) -> None:
        """Forget the machines; local/machines.py ends them."""
        for life in self._lives.values():
            if life.machine is not None:
                life.machine.on_power_off = None

    # What happens by itself

    def _begin(self, life: Life) -> None:
        with life.lock:
            life.turn += 1
            life.instance.launch_time = utcnow()
            if life.loopback is None:
                life.loopback = self._addresses.take()
            ready = threading.Event()
            self._background.submit(self._prepare, life, life.turn, ready)
            self._background.later(self._delays.pending, self._run, life, life.turn, ready)

    def _prepare(self, life: Life, turn: int, ready: threading.Event) -> None:
        # The machine is made while the instance is pending, so that it boots when the instance runs.
        try:
            with life.machine_lock:
                if life.turn != turn:
                    return
                if life.loopback is None:
                    self._not_started(life, "Server.InsufficientInstanceCapacity: no loopback address is free")
                elif life.machine is None:
                    life.machine = self._machines.create(
                        life.instance.id,
                        life.loopback,
                        metadata(life.instance, self.account, self.region, lambda: life.public),
                        disk_mib=SMALL_DISK_MIB if self._faults.active("disk_full") else None,
                    )
                    life.machine.on_power_off = lambda: self._powered_off(life)
                elif life.loopback != life.machine.address:
                    life.machine.move_to(life.loopback)
        except Exception as error:
            log.exception("machine of %s could not be made", life.instance.id)
            self._not_started(life, f"Server.InternalError: {error}")
        finally:
            ready.set()

    def _run(self, life: Life, turn: int, ready: threading.Event) -> None:
        ready.wait()
        with life.lock:
            if life.turn != turn or life.state.name != "pending" or self._background.closing.is_set():
                return
            if life.instance.associate_public_ip and not self.addressless:
                life.public = life.loopback
            life.state.become("running")
            running_since = time.monotonic()
        self._tell(life)
        if self._faults.active("instance_lost"):
            self._background.later(LOST_AFTER, self._fail, life, "Server.InternalError: fault instance_lost")
        try:
            with life.machine_lock:
                if life.turn != turn:
                    return
                life.machine.boot()
            life.ran = True
        except Exception as error:
            if not self._background.closing.is_set():
                log.exception("machine of %s did not boot", life.instance.id)
                self._not_started(life, f"Server.InternalError: {error}")
            return
        self._agent_booted(life, turn, running_since)

    def _reboot(self, life: Life, turn: int) -> None:
        self._agent_gone(life, for_good=False)
        with life.machine_lock:
            if life.turn != turn:
                return
            life.machine.reboot()
        self._agent_booted(life, turn, time.monotonic())

    def _powered_off(self, life: Life) -> None:
        # The machine shut itself down (InstanceInitiatedShutdownBehavior decides what that means).
        with life.lock:
            if life.state.name != "running":
                return
            ends = life.instance.instance_initiated_shutdown_behavior == "terminate"
            if ends:
                self._give_up(life.instance)
            life.instance.state_reason = StateReason(
                "Client.InstanceInitiatedShutdown: Instance initiated shutdown", "Client.InstanceInitiatedShutdown"
            )
            self._end(life, "shutting-down" if ends else "stopping")

    def _fail(self, life: Life, reason: str) -> None:
        with life.lock:
            if life.state.name in {"shutting-down", "terminated"}:
                return
            self._give_up(life.instance)
            life.instance.state_reason = StateReason(reason, reason.partition(":")[0])
            self._end(life, "shutting-down")

    def _not_started(self, life: Life, reason: str) -> None:
        # On AWS too: an instance that was stopped and cannot start is stopped again; a new one is terminated.
        with life.lock:
            if life.ran and life.state.name in {"pending", "running"}:
                life.instance.state_reason = StateReason(reason, reason.partition(":")[0])
                self._end(life, "stopping")
                return
        self._fail(life, reason)

    def _end(self, life: Life, by: str) -> None:
        life.turn += 1
        life.public = None
        life.state.become(by)
        self._tell(life)
        self._background.submit(self._shut_down, life, life.turn, by)

    def _shut_down(self, life: Life, turn: int, by: str) -> None:
        began = time.monotonic()
        for_good = by == "shutting-down"
        self._agent_gone(life, for_good=for_good)
        with life.machine_lock:
            machine = life.machine
            if machine is not None:
                (machine.destroy if for_good else machine.shut_down)()
            if for_good:
                life.machine = None
        self._background.sleep(max(0.0, began + self._delays.stopping - time.monotonic()))
        with life.lock:
            if life.turn != turn:
                return
            if life.loopback is not None:
                self._addresses.give_back(life.loopback)
                life.loopback = None
            life.state.become("terminated" if for_good else "stopped")
        self._tell(life)

    # What those above share

    def _agent_booted(self, life: Life, turn: int, since: float) -> None:
        if self.agents is not None and life.turn == turn and life.state.name == "running":
            self.agents.booted(life.instance, life.machine, since)

    def _agent_gone(self, life: Life, *, for_good: bool) -> None:
        if self.agents is not None:
            self.agents.gone(life.instance.id, for_good=for_good)

    def _tell(self, life: Life) -> None:
        arn = f"arn:aws:ec2:{self.region}:{self.account}:instance/{life.instance.id}"
        detail = {"instance-id": life.instance.id, "state": life.state.name}
        self._bus.emit("aws.ec2", "EC2 Instance State-change Notification", [arn], detail)

    def _require(self, life: Life, states: set[str], code: str, verb: str) -> None:
        if life.state.name not in states:
            raise EC2ClientError(
                code, f"This instance '{life.instance.id}' is not in a state from which it can be {verb}."
            )

    def refusal(self, instance_type: str, zone: str | None) -> tuple[str, str] | None:
        """Why EC2 would not launch this type in this zone now: error code and message."""
        if self._faults.active("vcpu_limit", instance_type, zone or ""):
            return (
                "VcpuLimitExceeded",
                "You have requested more vCPU capacity than your current vCPU limit of 0 allows for the instance "
                "bucket that the specified instance type belongs to.",
            )
        if self._faults.active("no_capacity", instance_type, zone or ""):
            return (
                "InsufficientInstanceCapacity",
                f"We currently do not have sufficient {instance_type} capacity in the Availability Zone you requested "
                f"({zone}). Our system will be working on provisioning additional capacity.",
            )
        if not self._addresses.any_left():
            log.error("no address from 127.0.0.20 on has a free port %d", PORT)
            return (
                "InsufficientFreeAddressesInSubnet",
                "There are not enough free addresses in the subnet to satisfy the requested number of instances.",
            )
        return None

    def refused(self, action: str, ids: list[str]) -> tuple[str, str, int] | None:
        """Why EC2 would not start or stop these instances, by the faults: code, message and HTTP status.

        All or none, as EC2 has it. What EC2 says to StartInstances is shorter than what it says to RunInstances, and a
        500, which the SDKs try again (seen in logs of nib-health-funds/hammertime, issue 29).
        """
        lives = [life for life in map(self.life, ids) if life is not None]
        if action == "StopInstances" and self._faults.active("stop_fails", *ids):
            return "UnauthorizedOperation", "You are not authorized to perform this operation.", 403
        for life in lives if action == "StartInstances" else ():
            instance = life.instance
            if life.state.name == "stopped" and self._faults.active(
                "no_capacity", instance.instance_type, instance.placement.zone or ""
            ):
                return "InsufficientInstanceCapacity", "Insufficient capacity.", 500
        return None

    def install(self, patches: Patches) -> None:
        """Correct moto's EC2 for this cloud."""
        _correct_instances(self, patches)
        _correct_responses(self, self._tokens, patches)
        from local.aws.fleet import correct_fleets  # noqa: PLC0415 - the two modules need each other

        correct_fleets(self, self._tokens, patches)


def _correct_instances(ec2: Ec2, patches: Patches) -> None:
    def changed(name: str, change: Callable[[Life], None], *, moto_too: Callable[[Life], bool]) -> None:
        original = Instance.__dict__[name]

        def method(instance: Any) -> Any:
            life = ec2.life(instance.id)
            if life is None:
                return original(instance)
            before = InstanceState(life.state.name, life.state.code)
            reason = instance.state_reason
            if moto_too(life):
                original(instance)
                if name == "reboot":
                    instance.state_reason = reason
            change(life)
            return before

        patches.set(Instance, name, method)

    def alive(life: Life) -> bool:
        return life.state.name not in {"shutting-down", "terminated"}

    changed("start", ec2.start, moto_too=lambda life: life.state.name == "stopped")
    changed("stop", ec2.stop, moto_too=lambda life: life.state.name == "running")
    changed("terminate", ec2.terminate, moto_too=alive)
    changed("reboot", ec2.reboot, moto_too=alive)

    def public(instance: Any) -> str | None:
        life = ec2.life(instance.id)
        return life.public if life else None

    patches.set(Instance, "public_ip", property(public))
    patches.set(Instance, "public_ip_address", property(public))
    patches.set(Instance, "public_dns_name", property(lambda _: ""))


def _correct_responses(ec2: Ec2, tokens: Tokens, patches: Patches) -> None:
    describe = InstanceResponse.describe_instances
    run = InstanceResponse.run_instances

    def describe_instances(response: Any) -> Any:
        for instance_id in response._get_param("InstanceIds", []):
            if not ec2.known(instance_id):
                raise InvalidInstanceIdError(instance_id)
        answer: Any = describe(response)
        for reservation in answer.result["Reservations"]:
            reservation.instances = [i for i in reservation.instances if ec2.known(i.id)]
        answer.result["Reservations"] = [r for r in answer.result["Reservations"] if r.instances]
        return answer

    def run_instances(response: Any) -> Any:
        def launch() -> Any:
            subnet_id = response._get_param("SubnetId")
            zone = response._get_param("Placement.AvailabilityZone")
            if subnet_id:
                zone = ec2_backends[ec2.account][ec2.region].get_subnet(subnet_id).availability_zone
            template = _template_of(ec2_backends[ec2.account][ec2.region], response)
            instance_type = response._get_param("InstanceType") or template.get("InstanceType") or "m1.small"
            refused = ec2.refusal(instance_type, zone)
            if refused:
                raise EC2ClientError(*refused)
            answer: Any = run(response)
            for instance in answer.result.instances:
                _apply_template(ec2_backends[ec2.account][ec2.region], response, instance)
                ec2.launched(instance)
            return answer.result

        return ActionResult(tokens.once("RunInstances", response, launch))

    patches.set(InstanceResponse, "describe_instances", describe_instances)
    patches.set(InstanceResponse, "run_instances", run_instances)


def _template_of(backend: Any, response: Any) -> dict[str, Any]:
    asked = response._get_param("LaunchTemplate", {})
    return dict(backend._get_template_from_args(asked).data) if asked else {}


def _apply_template(backend: Any, response: Any, instance: Any) -> None:
    # moto's RunInstances takes type, image, disks, groups, key, user data and tags from a launch template, and nothing
    # else. What the request says itself wins, parameter by parameter.
    spec = _template_of(backend, response)
    for name in ("IamInstanceProfile", "MetadataOptions", "InstanceInitiatedShutdownBehavior"):
        asked = response._get_param(name)
        if asked:
            spec[name] = asked
    profile = spec.get("IamInstanceProfile") or {}
    if profile:
        found = filter_iam_instance_profiles(
            backend.account_id,
            partition="aws",
            iam_instance_profile_arn=profile.get("Arn"),
            iam_instance_profile_name=profile.get("Name"),
        )
        instance.iam_instance_profile = {"Arn": found.arn}
        if instance.id not in backend.iam_instance_profile_associations:
            backend.associate_iam_instance_profile(instance.id, iam_instance_profile_arn=found.arn)
    if spec.get("MetadataOptions"):
        instance.metadata_options = MetadataOptions(spec["MetadataOptions"])
    if spec.get("InstanceInitiatedShutdownBehavior"):
        instance.instance_initiated_shutdown_behavior = spec["InstanceInitiatedShutdownBehavior"]
