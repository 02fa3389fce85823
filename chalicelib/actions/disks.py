"""Once a month: what the disks of stopped notebooks cost, told to their owners."""

from __future__ import annotations

from datetime import datetime

from chalicelib.actions.parts import Parts
from chalicelib.actions.telling import Telling
from chalicelib.aws.due import DueNotebooks
from chalicelib.aws.users import UsersTable
from chalicelib.notebook.life import State


def tell_costs(users: UsersTable, notebooks: DueNotebooks, telling: Telling, parts: Parts, now: datetime) -> list[str]:
    """Tells each user who has stopped notebooks. The names of those who were told."""
    told: list[str] = []
    for user in users.all():
        # `active` changes with the state, `owned` stays: the records say which of them are stopped.
        ids = sorted(user.owned - user.active)
        if not ids:
            continue
        with parts.part():
            found, _ = notebooks.read(ids)
            stopped = sorted(
                (record.notebook for record in found if record.notebook.state == State.STOPPED),
                key=lambda notebook: (notebook.name, notebook.id),
            )
            if stopped and telling.tell_disks(user, stopped, now):
                told.append(user.name)
    return told
