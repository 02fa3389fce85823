"""How a notebook's own server is, from its heartbeat: in safe mode, not answering, and what of that is news.

Pure: time is an argument. A heartbeat that is old, or of a run before, says nothing: what the record holds stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from chalicelib import server_causes, times
from chalicelib.heartbeats import Heartbeat
from chalicelib.idleness import Policy, Run, heard
from chalicelib.model import Notebook, ServerTrouble

SAFE_MODE, NOT_ANSWERING = "safe_mode", "not_answering"
# In minutes of the policy: a server that is started again is back sooner; and how soon one that is not is looked at.
_GRACE, _AGAIN = 3, 5
_OVER = {SAFE_MODE: "safe_mode_over", NOT_ANSWERING: "answers_again"}
_OVER_WORDS = {
    SAFE_MODE: "the notebook runs with its owner's configuration again",
    NOT_ANSWERING: "the notebook's server answers again",
}


@dataclass(frozen=True)
class ServerHealth:
    """What is so now. None: it is well, as far as is known."""

    safe_mode: ServerTrouble | None = None
    not_answering: ServerTrouble | None = None
    left_out: tuple[str, ...] = ()
    """Server extensions of its owner that it does not load."""
    last_words: str | None = None
    """The end of what the server wrote before it failed: only for its owner, and for nothing else of ours to read."""


@dataclass(frozen=True)
class News:
    """What a look found that the record does not hold yet.

    `changes` are attributes to write (None removes one), `lines` codes and reasons for the ledger. `tell` are the kinds
    of message that are due, each with since when it is so, `due_at` when to look again at the latest (None: nothing of
    the server asks for it).
    """

    changes: Mapping[str, object] = field(default_factory=dict)
    lines: tuple[tuple[str, str], ...] = ()
    tell: tuple[tuple[str, str], ...] = ()
    due_at: datetime | None = None


def health(notebook: Notebook, heartbeat: Heartbeat | None, policy: Policy, now: datetime) -> ServerHealth:
    """How the server of a notebook that is ready is. `heartbeat` is the row as it stands."""
    known = ServerHealth(notebook.safe_mode, notebook.not_answering)
    try:
        run = Run.from_notebook(notebook)
    except ValueError:
        return known
    fresh, at = heard(run, heartbeat, policy, now)
    began = max(run.run_started_at, run.ready_at or run.run_started_at)
    if fresh is None or now - at > policy.minutes(policy.fresh) or fresh.answers is None:
        return known
    status = fresh.server
    if fresh.answers:
        safe = None
        if status.safe:
            since = _since(notebook.safe_mode, at, status.safe_for, run.run_started_at)
            safe = _trouble(SAFE_MODE, status.code, since, notebook.safe_mode)
        return ServerHealth(safe, None, status.left_out, status.words if safe else None)
    if at < began:
        # Written before it was ready: it answered since.
        return known
    since = _since(notebook.not_answering, at, status.down_for, began)
    down = _trouble(NOT_ANSWERING, status.code or "silent", since, notebook.not_answering)
    return ServerHealth(notebook.safe_mode, down, (), status.words)


def news(notebook: Notebook, found: ServerHealth, policy: Policy, now: datetime) -> News:
    """What of it is to be written, told and looked at again."""
    changes: dict[str, object] = {}
    lines: list[tuple[str, str]] = []
    tell: list[tuple[str, str]] = []
    due_at = None
    for name, was, is_ in (
        (SAFE_MODE, notebook.safe_mode, found.safe_mode),
        (NOT_ANSWERING, notebook.not_answering, found.not_answering),
    ):
        if is_ is None:
            if was is not None:
                changes[name] = None
                lines.append((_OVER[name], _OVER_WORDS[name]))
            continue
        if name == NOT_ANSWERING:
            since = times.from_text(is_.since) or now
            due_at = now + policy.minutes(_AGAIN)
            if was is None and now - since < policy.minutes(_GRACE):
                due_at = max(since + policy.minutes(_GRACE), now + policy.minutes(policy.soonest))
                continue
        if was is None or was.code != is_.code:
            changes[name] = is_.to_record()
            lines.append((name, is_.message))
        if not is_.told:
            tell.append((name, is_.since))
    return News(changes, tuple(lines), tuple(tell), due_at)


def _since(was: ServerTrouble | None, at: datetime, span: timedelta | None, began: datetime) -> datetime:
    """Since when: as it was noted first, else by the machine's own count, not before the run began."""
    noted = times.from_text(was.since) if was else None
    return noted or max(began, at - min(span or timedelta(0), at - began if at > began else timedelta(0)))


def _trouble(name: str, code: str | None, since: datetime, was: ServerTrouble | None) -> ServerTrouble:
    code = server_causes.known(code)
    words = server_causes.without_configuration if name == SAFE_MODE else server_causes.not_answering
    return ServerTrouble(times.to_text(since), code, words(code), told=was.told if was else False)
