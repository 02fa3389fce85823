"""What the API answers: the notebook as GET shows it, and what stands around it."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from typing import TYPE_CHECKING

from chalicelib import rows, times
from chalicelib.costs import Cost, cost, run_started
from chalicelib.model import STEPS, Failure, Notebook, ServerTrouble, StepState, Stop, User
from chalicelib.notebook import life
from chalicelib.notebook.life import State
from chalicelib.plan import shown_state
from chalicelib.prices import Catalogue

if TYPE_CHECKING:
    # What is not ready has none of these, and a cold start that shows one (POST /notebooks) is shorter without them.
    from chalicelib.heartbeats import Space
    from chalicelib.idleness import Shown
    from chalicelib.server_health import ServerHealth

# Of a notebook that was aborted or deleted while it launched: none of its steps failed.
_INTERRUPTIONS = frozenset({"launch_aborted", "terminate_failed"})


@dataclass(frozen=True)
class Step:
    """One step of the launch. `state`: waiting, running, done, failed, or cancelled (cut off by something else)."""

    name: str
    state: StepState
    started_at: str | None
    finished_at: str | None
    detail: str | None = None


@dataclass(frozen=True)
class Notification:
    """A channel and what became of the last message to it: pending, unconfirmed, sent or failed; or unsubscribed: the
    address gets no mail any more, until an administrator subscribes it anew."""

    channel: str
    state: str


@dataclass(frozen=True)
class Trouble:
    """What is the matter with the notebook's server on a machine that runs: since when, a code, and what to do."""

    since: str
    code: str
    message: str

    @classmethod
    def of(cls, trouble: ServerTrouble | None) -> Trouble | None:
        """The public side of what the record has."""
        return cls(trouble.since, trouble.code, trouble.message) if trouble else None


@dataclass(frozen=True)
class Disk:
    """Room on the disk of a running notebook, in GiB: what may still be written, and the whole."""

    free_gib: float
    size_gib: float

    @classmethod
    def of(cls, space: Space) -> Disk:
        """Rounded down, so that what is full is not told to have room."""
        return cls(space.free_mib * 100 // 1024 / 100, space.size_mib * 100 // 1024 / 100)


@dataclass(frozen=True)
class NotebookView:
    """The notebook as GET shows it. null: not known, or not so in this state."""

    id: str
    owner: str
    owner_id: str
    name: str
    state: State
    steps: list[Step]
    url: str | None
    link: str | None
    certificate_sha256: str | None
    instance_type: str
    instance_id: str | None
    address: str | None
    volume_gib: int
    disk: Disk | None
    idle_minutes: int
    max_hours: int | None
    environment: str
    created_at: str
    ready_at: str | None
    run_started_at: str | None
    last_active_at: str | None
    last_activity: str | None
    stops_at: str | None
    hold_until: str | None
    stopped_at: str | None
    stop: Stop | None
    safe_mode: Trouble | None
    not_answering: Trouble | None
    left_out: list[str]
    cost: Cost
    notifications: list[Notification]
    error: Failure | None

    @classmethod
    def of(
        cls,
        notebook: Notebook,
        prices: Catalogue,
        region: str,
        now: datetime,
        *,
        link: str | None = None,
        shown: Shown | None = None,
        owner: User | None = None,
        health: ServerHealth | None = None,
    ) -> NotebookView:
        """The public side of a record at `now`.

        `link` is the link for life, which takes the owner's secret to make, `shown` what the rule of idleness tells
        of its use, which takes the heartbeat; without them they are null. `owner` says whether mail is off, `health`
        how its server is by the same heartbeat; without it what the record holds is told. Why and when it stopped is
        told until it runs again, and how long it is held while that lies ahead.
        """
        down = notebook.state in life.DOWN
        ready = notebook.state == State.READY
        known = health or notebook
        return cls(
            id=notebook.id,
            owner=notebook.owner_called,
            owner_id=notebook.owner,
            name=notebook.name,
            state=notebook.state,
            steps=[_step(notebook, name) for name in STEPS],
            url=notebook.url,
            link=link,
            certificate_sha256=notebook.certificate_sha256,
            instance_type=notebook.instance_type,
            instance_id=notebook.instance_id,
            address=notebook.address,
            volume_gib=notebook.volume_gib,
            disk=Disk.of(shown.space) if shown and shown.space else None,
            idle_minutes=notebook.idle_minutes,
            max_hours=notebook.max_hours,
            environment=notebook.environment,
            created_at=notebook.created_at,
            ready_at=notebook.ready_at,
            run_started_at=_time(run_started(notebook)) if notebook.state in life.RUN_SHOWN else None,
            last_active_at=_time(shown.last_active_at) if shown else None,
            last_activity=shown.last_activity if shown else None,
            stops_at=_time(shown.stops_at) if shown else None,
            hold_until=_ahead(notebook.hold_until, now),
            stopped_at=notebook.stopped_at if down else None,
            stop=_stop(notebook) if down or notebook.state == State.STOPPING else None,
            safe_mode=Trouble.of(known.safe_mode) if ready else None,
            not_answering=Trouble.of(known.not_answering) if ready else None,
            left_out=list(health.left_out) if ready and health else [],
            cost=cost(notebook, prices, region, now),
            notifications=[
                Notification(channel, shown_state(channel, notebook.notifications[channel], owner))
                for channel in sorted(notebook.notifications)
            ],
            error=notebook.error,
        )


@dataclass(frozen=True)
class LaunchedView(NotebookView):
    """The answer to POST /notebooks and …/password: the notebook, and what is said only then."""

    password: str | None = field(repr=False)
    """The password that was made, this once; null if you gave one, and in a replay."""
    message: str
    warnings: list[str]

    @classmethod
    def of_view(cls, view: NotebookView, password: str | None, message: str, warnings: list[str]) -> LaunchedView:
        """The notebook as `view` shows it, with the rest."""
        parts = {entry.name: getattr(view, entry.name) for entry in fields(view)}
        return cls(**parts, password=password, message=message, warnings=warnings)


@dataclass(frozen=True)
class NotebookList:
    """One page, newest first. `next` goes into the next request; null at the end."""

    notebooks: list[NotebookView]
    next: str | None


def _time(moment: datetime | None) -> str | None:
    return times.to_text(moment) if moment is not None else None


def _stop(notebook: Notebook) -> Stop | None:
    stop = notebook.stop
    return replace(stop, by=notebook.called(stop.by)) if stop is not None else None


def _ahead(text: str | None, now: datetime) -> str | None:
    moment = times.from_text(text)
    return text if moment is not None and moment > now else None


def _step(notebook: Notebook, name: str) -> Step:
    entry = notebook.steps.get(name, {})
    started, finished, failed = (rows.text(entry, key) for key in ("started_at", "finished_at", "failed_at"))
    if finished is not None:
        state = StepState.DONE
    elif failed is not None:
        state = StepState.FAILED
    elif started is None:
        state = StepState.WAITING
    elif notebook.state in life.LAUNCHING:
        state = StepState.RUNNING
    else:
        state = StepState.FAILED if _failed_step(notebook) == name else StepState.CANCELLED
    return Step(name, state, started, finished or failed, rows.text(entry, "detail"))


def _failed_step(notebook: Notebook) -> str | None:
    """The step that its launch failed in, where none says so itself: the only one that was under way. None if there is
    none or were several, or if something else ended the launch."""
    failed = notebook.state == State.FAILED or notebook.failed_at is not None
    if not failed or (notebook.error is not None and notebook.error.code in _INTERRUPTIONS):
        return None
    begun = [
        name for name in STEPS if "started_at" in (step := notebook.steps.get(name, {})) and "finished_at" not in step
    ]
    return begun[0] if len(begun) == 1 else None
