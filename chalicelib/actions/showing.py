"""From records to what the API and the messages show of them: with the link for life, and with what the last
heartbeat tells of their use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING

from chalicelib import links
from chalicelib.aws.faults import as_unavailable
from chalicelib.errors import Unavailable
from chalicelib.log import logger
from chalicelib.model import Notebook, User
from chalicelib.notebook.life import State
from chalicelib.prices import Catalogue
from chalicelib.settings import Settings
from chalicelib.views import NotebookView

if TYPE_CHECKING:
    # Rules of notebooks that are ready, imported with the first of them: POST /notebooks, whose answer people wait for,
    # has none.
    from chalicelib.aws.heartbeats import HeartbeatsTable
    from chalicelib.detail import NotebookDetail
    from chalicelib.heartbeats import DueJob, Heartbeat
    from chalicelib.idleness import Policy, Shown
    from chalicelib.server_health import ServerHealth


def job_key(job: DueJob) -> str:
    """By which a job is known again: its next time is another one each time."""
    return f"{job.what} {job.name}"


class Showing:
    """Takes what makes the gateway it reads from, which only notebooks that are ready need."""

    def __init__(self, heartbeats: Callable[[], HeartbeatsTable], prices: Catalogue, settings: Settings) -> None:
        self.prices = prices
        self.settings = settings
        self._make_heartbeats = heartbeats

    @cached_property
    def _heartbeats(self) -> HeartbeatsTable:
        return self._make_heartbeats()

    @cached_property
    def _policy(self) -> Policy:
        from chalicelib.idleness import Policy  # noqa: PLC0415

        return Policy(minute=self.settings.minute)

    def one(self, notebook: Notebook, owner: User | None, now: datetime) -> NotebookView:
        """The view of one notebook. Without its `owner` there is no link."""
        return self.many([notebook], owner, now)[0]

    def detail(self, notebook: Notebook, owner: User, now: datetime) -> NotebookDetail:
        """The view of one notebook for its owner alone."""
        from chalicelib.detail import NotebookDetail  # noqa: PLC0415

        view, health = self._many([notebook], owner, now)[0]
        return NotebookDetail.of_view(view, health.last_words if health else None)

    def many(self, notebooks: Sequence[Notebook], owner: User | None, now: datetime) -> list[NotebookView]:
        """The views of notebooks of one owner. What heartbeats tell is left out where they cannot be read: the link is
        no less true, nor is what was just done."""
        return [view for view, _ in self._many(notebooks, owner, now)]

    def _many(
        self, notebooks: Sequence[Notebook], owner: User | None, now: datetime
    ) -> list[tuple[NotebookView, ServerHealth | None]]:
        heartbeats: dict[str, Heartbeat] | None
        try:
            with as_unavailable("DynamoDB"):
                heartbeats = self._of(notebooks)
        except Unavailable as error:
            logger.error("heartbeats cannot be read", exc_info=error)
            heartbeats = None
        found = []
        for notebook in notebooks:
            heartbeat = None if heartbeats is None else heartbeats.get(notebook.id)
            health = None if heartbeats is None else self._health(notebook, heartbeat, now)
            gone = notebook.state == State.TERMINATED
            view = NotebookView.of(
                notebook,
                self.prices,
                self.settings.region,
                now,
                link=links.life_link(owner.secret, notebook) if owner and not gone else None,
                owner=owner,
                shown=None if heartbeats is None else self._shown(notebook, heartbeat, now),
                health=health,
            )
            found.append((view, health))
        return found

    def reason(self, notebook: Notebook, now: datetime) -> str | None:
        """Why it stays or will stop, in the words of the decision. None while it does not run."""
        if notebook.state != State.READY:
            return None
        from chalicelib.idleness import Run, decide  # noqa: PLC0415

        return decide(Run.from_notebook(notebook), self._of([notebook]).get(notebook.id), self._policy, now).reason

    def untold_jobs(self, notebook: Notebook) -> tuple[DueJob, ...]:
        """The owner's own jobs that the last heartbeat named and no message has. None where it cannot be read: the
        message is true without them."""
        if notebook.instance_id is None:
            return ()
        arn = self.settings.instance_arn(notebook.instance_id)
        try:
            with as_unavailable("DynamoDB"):
                row = self._heartbeats.read([arn]).get(arn)
        except Unavailable as error:
            logger.error("heartbeats cannot be read", exc_info=error)
            return ()
        told = notebook.jobs_told or ()
        return tuple(job for job in (row.heartbeat.due_jobs if row else ()) if job_key(job) not in told)

    def _of(self, notebooks: Iterable[Notebook]) -> dict[str, Heartbeat]:
        """Heartbeats by notebook id. What does not run is not looked up."""
        arns = {
            notebook.id: self.settings.instance_arn(notebook.instance_id)
            for notebook in notebooks
            if notebook.state == State.READY and notebook.instance_id
        }
        found = self._heartbeats.read(list(arns.values())) if arns else {}
        return {notebook_id: found[arn].heartbeat for notebook_id, arn in arns.items() if arn in found}

    def _shown(self, notebook: Notebook, heartbeat: Heartbeat | None, now: datetime) -> Shown | None:
        if notebook.state != State.READY:
            return None
        from chalicelib.idleness import Run, shown  # noqa: PLC0415

        return shown(Run.from_notebook(notebook), heartbeat, self._policy, now)

    def _health(self, notebook: Notebook, heartbeat: Heartbeat | None, now: datetime) -> ServerHealth | None:
        if notebook.state != State.READY:
            return None
        from chalicelib import server_health  # noqa: PLC0415

        return server_health.health(notebook, heartbeat, self._policy, now)
