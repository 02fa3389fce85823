"""The things of the product: what is asked for, who asks, and the notebook as the table and the API have it."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from decimal import Decimal
from enum import StrEnum

from chalicelib import passwords, rows
from chalicelib.errors import FieldError, InvalidFields
from chalicelib.notebook.life import State
from chalicelib.prices import catalogue
from chalicelib.schema import Choice, Field, ListOf, Number, Text, Whole

NAME = r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?"
CHANNEL_NAME = r"[a-z][a-z0-9-]{0,31}"
EMAIL, SLACK = "email", "slack:"
PENDING, CONFIRMED, UNSUBSCRIBED, EXPIRED = "pending", "confirmed", "unsubscribed", "expired"
"""`email_state` of a user: a mail of AWS's asks to confirm the address; it gets mail; it got mail until its
subscription was ended; nobody confirmed it in the two days that AWS waits."""

# A body of 64 KiB has room for thousands of fields that do not exist, and the answer would be 30 times as long.
_MOST_ERRORS = 50

DUE_SHARDS = 16
"""Parts of the index of what is due: one partition would take 1,000 writes a second at most."""

DEFAULT_TYPE = "t3.medium"
DEFAULT_VOLUME_GIB = 30
DEFAULT_IDLE_MINUTES = 60
DEFAULT_EXTEND_HOURS = 24
LEAST_EXTEND_HOURS = Decimal("0.25")
MOST_EXTEND_HOURS = 720
"""As many as an admin may allow a user."""
DEFAULT_KEEPS = 5
"""How many notebooks a user may have for each that may run, where an admin says nothing else."""
ENVIRONMENT = "anaconda"

LEFT = "Not all of it could be removed"
UNKNOWN = "It is not known whether the password was changed"
"""Stands in the message of a failure that left a machine behind."""

STEPS = (
    "create_instance",
    "start_instance",
    "prepare_instance",
    "install_anaconda",
    "configure_tls",
    "start_monitor",
    "configure_notebook",
)
"""Keys of `steps` in the record, in the order in which they are shown."""


class StepState(StrEnum):
    """How a step of a launch stands. `cancelled`: something else cut it off."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


REQUEST_FIELDS: dict[str, Field] = {
    "name": Field(
        Text(1, 40, NAME, "1 to 40 of a-z, 0-9 and hyphen, no hyphen at either end", "thesis"),
        "Name for people; need not be unique. Default: an adjective and a noun.",
    ),
    "instance_type": Field(
        Choice(tuple(catalogue().types), DEFAULT_TYPE),
        "EC2 instance type; your user may be limited to some. When EC2 has none left, a type of the same vCPUs, "
        "memory and architecture that your user may have is taken instead, at no more than 1.5 times its price.",
    ),
    "volume_gib": Field(Whole(16, 1024, "GiB", DEFAULT_VOLUME_GIB), "Size of the disk (EBS gp3, encrypted) in GiB."),
    "idle_minutes": Field(
        Whole(5, 1440, "minutes", DEFAULT_IDLE_MINUTES),
        "Minutes without use after which it stops: nobody typed, no kernel or process of yours worked. You are warned "
        "before, and a page open in a visible window makes it wait longer.",
    ),
    "max_hours": Field(
        Whole(1, 720, "hours"),
        "Hours after each start after which it stops in any case, busy or not; without it there is no such limit.",
    ),
    "password": Field(
        Text(
            passwords.MIN_LENGTH,
            passwords.MAX_LENGTH,
            r"[^\x00-\x1f\x7f]*",
            f"{passwords.MIN_LENGTH} to {passwords.MAX_LENGTH} characters, no control characters",
            "correct horse battery",
        ),
        "Password to log in with. Only its hash is kept. Without it and `password_hash` one is made and returned once.",
    ),
    "password_hash": Field(
        Text(
            1,
            256,
            passwords.HASH_PATTERN,
            "argon2id as `jupyter server password` writes it, or with other parameters that OWASP finds strong enough "
            f"(m={passwords.MEMORY_KIB},t={passwords.PASSES},p={passwords.LANES} is) and of at most "
            f"m={passwords.MOST_MEMORY_KIB},t={passwords.MOST_PASSES},p={passwords.MOST_LANES}",
        ),
        "In place of `password`: its hash, so that the password never leaves your machine.",
    ),
    "notify": Field(
        ListOf(Text(5, 38, rf"(email|slack:{CHANNEL_NAME})", "email or slack:NAME", "email"), 10),
        "Channels that get the link. Default: all that your user has. The link is in GET in any case.",
    ),
    "environment": Field(Choice((ENVIRONMENT,), ENVIRONMENT), "What is installed. This version has Anaconda only."),
    "purchase": Field(
        Choice(
            ("on-demand",),
            "on-demand",
            {"spot": "Spot is not offered yet: a one-time spot instance cannot be stopped without losing its data."},
        ),
        "How the instance is bought.",
    ),
}
"""The body of POST /notebooks: validated by these, and described by them in OpenAPI."""


@dataclass(frozen=True)
class LaunchRequest:
    """A valid body of POST /notebooks. None: not given."""

    name: str | None = None
    instance_type: str | None = None
    volume_gib: int = DEFAULT_VOLUME_GIB
    idle_minutes: int = DEFAULT_IDLE_MINUTES
    max_hours: int | None = None
    password: str | None = field(default=None, repr=False)
    password_hash: str | None = field(default=None, repr=False)
    notify: tuple[str, ...] | None = None
    environment: str = ENVIRONMENT
    purchase: str = "on-demand"

    @classmethod
    def from_json(cls, body: Mapping[str, object], allowed_types: Iterable[str] | None = None) -> LaunchRequest:
        """Reads a body; `allowed_types` are the types that its sender may have, None: any.

        Whether the type is one of those is for `plan.resolve_type` to say. Here no other is proposed.

        Raises:
            InvalidFields: names every field that is wrong and what it may be.
        """
        _check(body, _request_fields(allowed_types), _two_passwords(body))
        values = dict(body)
        if isinstance(notify := values.get("notify"), list):
            values["notify"] = tuple(notify)
        return cls(**values)  # type: ignore[arg-type]  # each was checked against its kind above


def _request_fields(allowed_types: Iterable[str] | None) -> dict[str, Field]:
    if allowed_types is None:
        return REQUEST_FIELDS
    mine = set(allowed_types)
    field_ = REQUEST_FIELDS["instance_type"]
    known = tuple(catalogue().types)
    choice = Choice(known, DEFAULT_TYPE, proposed=[type_ for type_ in known if type_ in mine])
    return {**REQUEST_FIELDS, "instance_type": field_._replace(kind=choice)}


PASSWORD_FIELDS: dict[str, Field] = {name: REQUEST_FIELDS[name] for name in ("password", "password_hash")}
"""The body of POST /notebooks/{id}/password."""


@dataclass(frozen=True)
class PasswordRequest:
    """A valid body of POST /notebooks/{id}/password. None: not given."""

    password: str | None = field(default=None, repr=False)
    password_hash: str | None = field(default=None, repr=False)

    @classmethod
    def from_json(cls, body: Mapping[str, object]) -> PasswordRequest:
        """Raises InvalidFields."""
        _check(body, PASSWORD_FIELDS, _two_passwords(body))
        return cls(**body)  # type: ignore[arg-type]  # each was checked against its kind above


def extend_fields(most_hours: int) -> dict[str, Field]:
    """The body of POST /notebooks/{id}/extend, for a user who may put a stop off by so many hours."""
    return {
        "hours": Field(
            Number(LEAST_EXTEND_HOURS, Decimal(most_hours), "hours"),
            "How many hours from now it runs on in any case, used or not, beyond `max_hours` too. What was extended "
            "further before stays.",
        )
    }


@dataclass(frozen=True)
class ExtendRequest:
    """A valid body of POST /notebooks/{id}/extend."""

    hours: float

    @classmethod
    def from_json(cls, body: Mapping[str, object], most_hours: int) -> ExtendRequest:
        """Raises InvalidFields, also when `hours` are missing or more than `most_hours`."""
        known = extend_fields(most_hours)
        missing = [] if "hours" in body else [FieldError("hours", "It is missing.", known["hours"].kind.allowed)]
        _check(body, known, missing)
        return cls(float(body["hours"]))  # type: ignore[arg-type]  # it was checked against its kind above


@dataclass(frozen=True)
class User:
    """A row of the table `users`. `quota`: how many notebooks may run at a time; `keeps`: how many may exist, stopped
    ones too. `max_extend_hours`: how far ahead a stop may be put off."""

    id: str
    """`us-` and 20 hex digits, for good. Everything that belongs to the user names them by it: after they are removed
    somebody else may get their name."""
    name: str
    role: str
    quota: int
    allowed_types: tuple[str, ...]
    token_sha256: str = field(repr=False)
    secret: str = field(repr=False)
    email: str | None = None
    email_subscription: str | None = None
    email_state: str | None = None
    slack: str | None = None
    active: frozenset[str] = frozenset()
    """Ids of notebooks that run or are about to: they count against the quota."""
    owned: frozenset[str] = frozenset()
    """Ids of all that are not deleted or failed: they count against `keeps`."""
    keeps: int = 0
    max_extend_hours: int = DEFAULT_EXTEND_HOURS
    untold: frozenset[str] = frozenset()
    """Ids of notebooks with a message that is still to be published."""
    owed: frozenset[str] = frozenset()
    """Ids of notebooks whose message was published while the address was not confirmed."""

    @property
    def mail_is_off(self) -> bool:
        """Whether AWS delivers nothing to the address until somebody subscribes it anew."""
        return self.email is not None and self.email_state in (UNSUBSCRIBED, EXPIRED)

    @property
    def channels(self) -> tuple[str, ...]:
        """What may stand in `notify`."""
        return (*((EMAIL,) if self.email else ()), *((SLACK + self.slack,) if self.slack else ()))

    @classmethod
    def from_record(cls, record: Mapping[str, object]) -> User:
        """Reads a row. Unknown attributes are left alone: a later version may have written them."""
        return cls(
            id=str(record["id"]),
            name=str(record["name"]),
            role=str(record["role"]),
            quota=rows.whole(record, "quota") or 0,
            allowed_types=tuple(rows.strings(record.get("allowed_types"))),
            token_sha256=str(record["token_sha256"]),
            secret=str(record["secret"]),
            email=rows.text(record, "email"),
            email_subscription=rows.text(record, "email_subscription"),
            email_state=rows.text(record, "email_state"),
            slack=rows.text(record, "slack"),
            active=frozenset(rows.strings(record.get("active"))),
            owned=frozenset(rows.strings(record.get("owned"))),
            keeps=rows.whole(record, "keeps") or DEFAULT_KEEPS * (rows.whole(record, "quota") or 0),
            max_extend_hours=rows.whole(record, "max_extend_hours") or DEFAULT_EXTEND_HOURS,
            untold=frozenset(rows.strings(record.get("untold"))),
            owed=frozenset(rows.strings(record.get("owed"))),
        )


# Codes of what fails after a launch.
START_FAILED = "start_failed"
NO_CAPACITY = "no_capacity"
STOP_FAILED = "stop_failed"
PASSWORD_FAILED = "password_failed"  # noqa: S105 - a code


@dataclass(frozen=True)
class Failure:
    """Why it failed: a stable code, and a message that says what to do."""

    code: str
    message: str

    @property
    def of_start(self) -> bool:
        """Whether a start failed: what a stopped notebook has may be of a stop or a password."""
        return self.code in (START_FAILED, NO_CAPACITY)

    @property
    def machine_left(self) -> bool:
        """Whether a machine may be left that costs: the record must not go before it."""
        return self.code == "terminate_failed" or LEFT in self.message


@dataclass(frozen=True)
class PastRun:
    """A run that ended: the type it ran as, and from when to when."""

    type: str
    started_at: str
    stopped_at: str


@dataclass(frozen=True)
class Warned:
    """The warning that stands: when it was given, the stop it announced and why, and in which boot (None: unknown)."""

    at: str
    stops_at: str
    code: str
    boot_id: str | None = None
    reason: str | None = None
    """The decision's sentence."""
    told: bool = True
    """False until its message is out: such a warning was not given."""


@dataclass(frozen=True)
class SeenBeat:
    """The last heartbeat that the sweep knows: `at` is when the sweep first saw it, by its own clock."""

    boot_id: str | None
    beat: int | None
    at: str
    unknown: Mapping[str, str] = field(default_factory=dict)
    """Since when each signal cannot be told."""
    restarted: str | None = None
    """When it rebooted first since it was used last."""


LINK = "link"
"""Who asked, where somebody came by a link: no more is known of them."""


@dataclass(frozen=True)
class Stop:
    """Why a notebook stops or stopped, and who wanted it: a user (by id in the record, by name in the API), `link`,
    `sweep`, `monitor` or `outside`."""

    code: str
    reason: str
    by: str


@dataclass(frozen=True)
class ServerTrouble:
    """What is the matter with a notebook's server on a machine that runs: since when, a code, and our sentences."""

    since: str
    code: str
    message: str
    told: bool = True
    """False until its owner was told."""

    def to_record(self) -> dict[str, object]:
        """The map of the record."""
        record: dict[str, object] = {"since": self.since, "code": self.code, "message": self.message}
        return record if self.told else record | {"told": False}


@dataclass(frozen=True)
class Notebook:
    """A row of the table `notebooks` (docs/contracts.md). None: unknown. Times: ISO 8601, UTC."""

    id: str
    owner: str
    """Id of the user."""
    name: str
    state: State
    created_at: str
    updated_at: str
    instance_type: str
    volume_gib: int
    idle_minutes: int
    environment: str
    steps: Mapping[str, Mapping[str, object]]
    notify: tuple[str, ...]
    notifications: Mapping[str, str]
    told: str | None = None
    """Which execution published which kind of message last: one that asks again had its answer lost."""
    max_hours: int | None = None
    ready_at: str | None = None
    terminated_at: str | None = None
    failed_at: str | None = None
    instance_id: str | None = None
    availability_zone: str | None = None
    image_id: str | None = None
    address: str | None = None
    public_dns_name: str | None = None
    certificate_sha256: str | None = None
    error: Failure | None = None
    body_hmac: str | None = field(default=None, repr=False)
    password_hash: str | None = field(default=None, repr=False)
    wait_token: str | None = field(default=None, repr=False)
    deletes: int = 0
    stops: int = 0
    starts: int = 0
    passwords: int = 0
    """How often each was begun: an execution's name serves once in 90 days."""
    expires_at: int | None = None
    due: str | None = None
    due_at: str | None = None
    """When the sweep looks at it next, and in which shard; absent where there is nothing to look at."""
    run_started_at: str | None = None
    runs: tuple[PastRun, ...] = ()
    hold_until: str | None = None
    decided_at: str | None = None
    warned: Warned | None = None
    seen: SeenBeat | None = None
    jobs_told: tuple[str, ...] | None = None
    """The owner's own cron jobs and timers that a message of a stop has named: each is told once."""
    ledger_lines: tuple[Mapping[str, object], ...] = ()
    """Lines that were written with a change of the record and are not in the ledger yet: `{at, action, code, by,
    reason}`."""
    confirmed_at: str | None = None
    stopped_at: str | None = None
    stop: Stop | None = None
    safe_mode: ServerTrouble | None = None
    """Its server runs without its owner's configuration."""
    not_answering: ServerTrouble | None = None
    """Its server has not answered for minutes."""
    link_version: int = 0
    api_url: str | None = None
    owner_name: str | None = None
    """Name of the owner, for people to read; `owner` says who it is."""

    @property
    def owner_called(self) -> str:
        """What people call the owner. Their id, where the record does not have the name."""
        return self.owner_name or self.owner

    def called(self, who: str) -> str:
        """What people call `who`, a user's id or one of the product's own parts."""
        return self.owner_called if who == self.owner else who

    @property
    def url(self) -> str | None:
        """Where it answers, while it is ready. A VPC without DNS hostnames leaves the name empty."""
        host = self.public_dns_name or self.address
        return f"https://{host}:8888" if self.state == State.READY and host else None

    def with_password_hash(self, password_hash: str) -> Notebook:
        """The same with another password."""
        return replace(self, password_hash=password_hash)

    @classmethod
    def from_record(cls, record: Mapping[str, object]) -> Notebook:
        """Reads a row. Unknown attributes are left alone: a later version may have written them."""
        steps = record.get("steps")
        error = record.get("error")
        notifications = record.get("notifications")
        return cls(
            id=str(record["id"]),
            owner=str(record["owner"]),
            name=str(record["name"]),
            state=State(str(record["state"])),
            created_at=str(record["created_at"]),
            updated_at=str(record.get("updated_at", record["created_at"])),
            instance_type=str(record["instance_type"]),
            volume_gib=rows.needed(record, "volume_gib"),
            idle_minutes=rows.needed(record, "idle_minutes"),
            environment=str(record["environment"]),
            steps={
                key: value
                for key, value in (steps if isinstance(steps, Mapping) else {}).items()
                if isinstance(value, Mapping)
            },
            notify=tuple(rows.strings(record.get("notify"))),
            notifications={
                str(channel): str(state)
                for channel, state in (notifications if isinstance(notifications, Mapping) else {}).items()
            },
            told=rows.text(record, "told"),
            max_hours=rows.whole(record, "max_hours"),
            ready_at=rows.text(record, "ready_at"),
            terminated_at=rows.text(record, "terminated_at"),
            failed_at=rows.text(record, "failed_at"),
            instance_id=rows.text(record, "instance_id"),
            availability_zone=rows.text(record, "availability_zone"),
            image_id=rows.text(record, "image_id"),
            address=rows.text(record, "address"),
            public_dns_name=rows.text(record, "public_dns_name"),
            certificate_sha256=_fingerprint(rows.text(record, "certificate_sha256")),
            error=Failure(str(error.get("code")), str(error.get("message"))) if isinstance(error, Mapping) else None,
            body_hmac=rows.text(record, "body_hmac"),
            password_hash=rows.text(record, "password_hash"),
            wait_token=rows.text(record, "wait_token"),
            deletes=rows.whole(record, "deletes") or 0,
            stops=rows.whole(record, "stops") or 0,
            starts=rows.whole(record, "starts") or 0,
            passwords=rows.whole(record, "passwords") or 0,
            expires_at=rows.whole(record, "expires_at"),
            due=rows.text(record, "due"),
            due_at=rows.text(record, "due_at"),
            run_started_at=rows.text(record, "run_started_at"),
            runs=_runs(record.get("runs")),
            hold_until=rows.text(record, "hold_until"),
            decided_at=rows.text(record, "decided_at"),
            warned=_warned(rows.mapping(record, "warned")),
            seen=_seen(rows.mapping(record, "seen")),
            jobs_told=tuple(rows.strings(record.get("jobs_told"))) or None,
            ledger_lines=_lines(record.get("ledger_lines")),
            confirmed_at=rows.text(record, "confirmed_at"),
            stopped_at=rows.text(record, "stopped_at"),
            stop=_stop(rows.mapping(record, "stop")),
            safe_mode=_server_trouble(rows.mapping(record, "safe_mode")),
            not_answering=_server_trouble(rows.mapping(record, "not_answering")),
            link_version=rows.whole(record, "link_version") or 0,
            api_url=rows.text(record, "api_url"),
            owner_name=rows.text(record, "owner_name"),
        )

    def to_record(self) -> dict[str, object]:
        """The row, without what is unknown and without counters at 0."""
        record: dict[str, object] = {
            entry.name: _plain(value)
            for entry in fields(self)
            if (value := getattr(self, entry.name)) is not None and not (entry.name in _COUNTERS and value == 0)
        }
        if not self.runs:
            del record["runs"]
        if not self.ledger_lines:
            del record["ledger_lines"]
        return record


_FINGERPRINT = re.compile(r"[0-9A-F]{2}(:[0-9A-F]{2}){31}")
_COUNTERS = frozenset({"deletes", "stops", "starts", "passwords", "link_version"})


def due_shard(notebook_id: str) -> str:
    """The part of the index `due-index` that holds a notebook."""
    return str(zlib.crc32(notebook_id.encode()) % DUE_SHARDS)


def _fingerprint(text: str | None) -> str | None:
    """Of a start only its length was checked, and root on the machine writes what it likes."""
    return text if text is not None and _FINGERPRINT.fullmatch(text) else None


def _plain(value: object) -> object:
    if is_dataclass(value) and not isinstance(value, type):
        return {entry.name: part for entry in fields(value) if (part := getattr(value, entry.name)) is not None}
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    return value


def _runs(value: object) -> tuple[PastRun, ...]:
    found = []
    for entry in value if isinstance(value, list) else []:
        if isinstance(entry, Mapping):
            parts = rows.text(entry, "type"), rows.text(entry, "started_at"), rows.text(entry, "stopped_at")
            if parts[0] and parts[1] and parts[2]:
                found.append(PastRun(parts[0], parts[1], parts[2]))
    return tuple(found)


def _lines(value: object) -> tuple[Mapping[str, object], ...]:
    return tuple(entry for entry in value if isinstance(entry, Mapping)) if isinstance(value, list) else ()


def _warned(row: Mapping[str, object]) -> Warned | None:
    at, stops_at, code = (rows.text(row, key) for key in ("at", "stops_at", "code"))
    if not (at and stops_at and code):
        return None
    return Warned(at, stops_at, code, rows.text(row, "boot_id"), rows.text(row, "reason"), row.get("told") is not False)


def _seen(row: Mapping[str, object]) -> SeenBeat | None:
    at = rows.text(row, "at")
    unknown = {str(name): since for name, since in rows.mapping(row, "unknown").items() if isinstance(since, str)}
    return (
        SeenBeat(rows.text(row, "boot_id"), rows.whole(row, "beat"), at, unknown, rows.text(row, "restarted"))
        if at
        else None
    )


def _stop(row: Mapping[str, object]) -> Stop | None:
    code, reason, by = (rows.text(row, key) for key in ("code", "reason", "by"))
    return Stop(code, reason or "", by or "") if code else None


def _server_trouble(row: Mapping[str, object]) -> ServerTrouble | None:
    since, code = rows.text(row, "since"), rows.text(row, "code")
    if not (since and code):
        return None
    return ServerTrouble(since, code, rows.text(row, "message") or "", row.get("told") is not False)


def _check(body: Mapping[str, object], known: Mapping[str, Field], more: Iterable[FieldError] = ()) -> None:
    """Raises InvalidFields, which names every field that is wrong and what it may be."""
    errors = [
        FieldError(_short(name), "There is no such field.", ", ".join(known)) for name in body if name not in known
    ]
    for name, described in known.items():
        if name in body:
            errors.extend(described.kind.problems(name, body[name]))
    errors.extend(more)
    if errors:
        raise InvalidFields(_summary(errors), errors[:_MOST_ERRORS])


def _two_passwords(body: Mapping[str, object]) -> list[FieldError]:
    if "password" in body and "password_hash" in body:
        return [FieldError("password_hash", "There is a `password` too.", "one of the two, or none")]
    return []


def _summary(errors: list[FieldError]) -> str:
    first = errors[0]
    more = f" And {len(errors) - 1} more." if len(errors) > 1 else ""
    return f"{first.field}: {first.message} Allowed: {first.allowed}.{more}"[:2000]


def _short(name: str) -> str:
    return name if len(name) <= 80 else name[:79] + "…"
