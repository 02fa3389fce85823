"""What a person calls a notebook: its id, or its name where that is enough."""

from __future__ import annotations

import re
from collections.abc import Sequence

from nod.errors import NoSuchNameError
from nod.model import Notebook
from nod.states import ENDED

_ID = re.compile(r"nb-[0-9a-f]{20}")
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")


def is_id(word: str) -> bool:
    """Whether it has the form of an id."""
    return _ID.fullmatch(word) is not None


def is_name(word: str) -> bool:
    """Whether it has the form of a name; all else need not be looked for."""
    return _NAME.fullmatch(word) is not None


def find(notebooks: Sequence[Notebook], name: str) -> Notebook:
    """The one of `notebooks` (newest first, as the API lists them) that is meant by `name`.

    Names need not be unique. One that can still run is meant before those that have failed or are deleted; of these it
    is the newest, for there is nothing to mistake it for.

    Raises:
        NoSuchNameError: none has the name, or several that can run.
    """
    named = [notebook for notebook in notebooks if notebook.name == name]
    living = [notebook for notebook in named if notebook.state not in ENDED]
    if len(living) > 1:
        raise NoSuchNameError(
            f"{len(living)} of your notebooks are called {name}. Give the id.",
            hints=tuple(f"{notebook.id}  {notebook.state}" for notebook in living),
            code="ambiguous_name",
        )
    if not named:
        raise NoSuchNameError(f"None of your notebooks is called {name}.", hints=("`nod list` shows them.",))
    return (living or named)[0]
