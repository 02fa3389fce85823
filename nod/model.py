"""The notebook as the API tells it. What is unknown is None; the unexpected is left out, never guessed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation

from nod.errors import BadAnswerError
from nod.states import LAUNCHING, MOVING, StepState
from nod.text import clean


@dataclass(frozen=True)
class Step:
    """One step of the launch workflow; `state` is waiting, running, done, failed, or cancelled (cut off by another)."""

    name: str
    state: str
    started_at: datetime | None = None
    finished_at: datetime | None = None
    detail: str | None = None

    def seconds(self, now: datetime) -> float | None:
        """How long it took, or has taken until `now` (the server's time); None if unknown."""
        if self.started_at is None:
            return None
        if self.finished_at is not None:
            end = self.finished_at
        elif self.state == StepState.RUNNING:
            end = now
        else:
            return None
        return max(0.0, (end - self.started_at).total_seconds())


@dataclass(frozen=True)
class Notification:
    """A channel (`email`, `slack:NAME`) and how its messages fare: pending, unconfirmed, unsubscribed, sent, failed."""

    channel: str
    state: str


@dataclass(frozen=True)
class Stop:
    """Why it stops or stopped; `by` is a user, `sweep`, `monitor` or `outside`."""

    code: str | None = None
    reason: str | None = None
    by: str | None = None


@dataclass(frozen=True)
class Event:
    """A decision as the ledger keeps it. `signals` is as the API sent it, not yet safe for a terminal."""

    at: datetime | None
    action: str
    code: str | None = None
    by: str | None = None
    reason: str | None = None
    stops_at: datetime | None = None
    signals: Mapping[str, object] = field(default_factory=dict)

    @classmethod
    def from_json(cls, document: object) -> Event:
        """Reads one entry of the API's `events`.

        Raises:
            BadAnswerError: it is not an event (no `action`).
        """
        action = _text(document, "action") if isinstance(document, Mapping) else None
        if not isinstance(document, Mapping) or not action:
            raise BadAnswerError("The answer is no list of events.")
        return cls(
            at=_time({"at": (_text(document, "at") or "").partition("#")[0]}, "at"),
            action=action,
            code=_text(document, "code"),
            by=_text(document, "by"),
            reason=_text(document, "reason"),
            stops_at=_time(document, "stops_at"),
            signals=_mapping(document, "signals"),
        )


@dataclass(frozen=True)
class Notebook:
    """The public fields that this client shows. Texts are already safe for a terminal."""

    id: str
    state: str
    name: str | None = None
    steps: tuple[Step, ...] = ()
    url: str | None = None
    link: str | None = None
    """For life: leads to the running notebook, or to a page that wakes it. Whoever has it may do so."""
    certificate_sha256: str | None = None
    instance_type: str | None = None
    instance_id: str | None = None
    volume_gib: int | None = None
    disk_free_gib: Decimal | None = None
    disk_size_gib: Decimal | None = None
    idle_minutes: int | None = None
    max_hours: int | None = None
    created_at: datetime | None = None
    last_active_at: datetime | None = None
    last_activity: str | None = None
    stops_at: datetime | None = None
    hold_until: datetime | None = None
    stopped_at: datetime | None = None
    stop: Stop = Stop()
    safe_mode: str | None = None
    """What is told of it where it runs without its owner's configuration."""
    not_answering: str | None = None
    """What is told of it where its server does not answer."""
    not_answering_since: datetime | None = None
    left_out: tuple[str, ...] = ()
    """Server extensions of its owner that are not loaded."""
    last_words: str | None = None
    currency: str | None = None
    per_hour: Decimal | None = None
    so_far: Decimal | None = None
    notifications: tuple[Notification, ...] = ()
    error_code: str | None = None
    error_message: str | None = None

    @property
    def moving(self) -> bool:
        """Whether the state will change by itself."""
        return self.state in MOVING

    @property
    def launching(self) -> bool:
        """Whether it has never been ready: its steps are what happens now."""
        return self.state in LAUNCHING

    @property
    def title(self) -> str:
        """The name, or the id of a notebook without one."""
        return self.name or self.id

    @classmethod
    def from_json(cls, document: object) -> Notebook:
        """Reads the API's answer.

        Raises:
            BadAnswerError: it is not a notebook (no `id`, no `state`).
        """
        if not isinstance(document, Mapping):
            raise BadAnswerError("The answer is not a notebook: no JSON object.")
        identifier, state = _text(document, "id"), _text(document, "state")
        if not identifier or not state:
            raise BadAnswerError("The answer is not a notebook: it has no id or no state.")
        cost, error, stop = (_mapping(document, key) for key in ("cost", "error", "stop"))
        return cls(
            id=identifier,
            state=state,
            name=_text(document, "name"),
            steps=tuple(_step(entry) for entry in _list(document, "steps") if _text(entry, "name")),
            url=_text(document, "url"),
            link=_text(document, "link"),
            certificate_sha256=_text(document, "certificate_sha256"),
            instance_type=_text(document, "instance_type"),
            instance_id=_text(document, "instance_id"),
            volume_gib=_whole(document, "volume_gib"),
            disk_free_gib=_amount(_mapping(document, "disk"), "free_gib"),
            disk_size_gib=_amount(_mapping(document, "disk"), "size_gib"),
            idle_minutes=_whole(document, "idle_minutes"),
            max_hours=_whole(document, "max_hours"),
            created_at=_time(document, "created_at"),
            last_active_at=_time(document, "last_active_at"),
            last_activity=_text(document, "last_activity"),
            stops_at=_time(document, "stops_at"),
            hold_until=_time(document, "hold_until"),
            stopped_at=_time(document, "stopped_at"),
            stop=Stop(_text(stop, "code"), _text(stop, "reason"), _text(stop, "by")),
            safe_mode=_text(_mapping(document, "safe_mode"), "message"),
            not_answering=_text(_mapping(document, "not_answering"), "message"),
            not_answering_since=_time(_mapping(document, "not_answering"), "since"),
            left_out=tuple(clean(name) for name in _names(document, "left_out")),
            last_words=_lines(document, "last_words"),
            currency=_text(cost, "currency"),
            per_hour=_amount(cost, "per_hour"),
            so_far=_amount(cost, "so_far"),
            notifications=tuple(
                Notification(_text(entry, "channel") or "?", _text(entry, "state") or "?")
                for entry in _list(document, "notifications")
            ),
            error_code=_text(error, "code"),
            error_message=_text(error, "message"),
        )


def warnings_of(document: Mapping[str, object]) -> tuple[str, ...]:
    """The `warnings` of an answer to POST."""
    value = document.get("warnings")
    return tuple(clean(entry) for entry in value if isinstance(entry, str)) if isinstance(value, list) else ()


def _step(entry: Mapping[str, object]) -> Step:
    return Step(
        name=_text(entry, "name") or "?",
        state=_text(entry, "state") or "?",
        started_at=_time(entry, "started_at"),
        finished_at=_time(entry, "finished_at"),
        detail=_text(entry, "detail"),
    )


def _names(document: Mapping[str, object], key: str) -> list[str]:
    value = document.get(key)
    return [name for name in value if isinstance(name, str)] if isinstance(value, list) else []


def _lines(document: Mapping[str, object], key: str) -> str | None:
    value = document.get(key)
    return "\n".join(clean(line) for line in value.splitlines()) if isinstance(value, str) and value else None


def _text(document: Mapping[str, object], key: str) -> str | None:
    value = document.get(key)
    return clean(value) if isinstance(value, str) and value else None


def _whole(document: Mapping[str, object], key: str) -> int | None:
    value = document.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _mapping(document: Mapping[str, object], key: str) -> Mapping[str, object]:
    value = document.get(key)
    return value if isinstance(value, Mapping) else {}


def _list(document: Mapping[str, object], key: str) -> list[Mapping[str, object]]:
    value = document.get(key)
    return [entry for entry in value if isinstance(entry, Mapping)] if isinstance(value, list) else []


def _time(document: Mapping[str, object], key: str) -> datetime | None:
    value = document.get(key)
    if not isinstance(value, str):
        return None
    try:
        time = datetime.fromisoformat(value)
    except ValueError:
        return None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _amount(document: Mapping[str, object], key: str) -> Decimal | None:
    value = document.get(key)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        amount = Decimal(str(value))
    except InvalidOperation:
        return None
    return amount if amount.is_finite() else None
