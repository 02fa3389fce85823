"""POST /notebooks/{id}/link."""

from __future__ import annotations

from datetime import datetime

from chalicelib.actions.stopping import read_again
from chalicelib.aws.notebooks import NotebooksTable
from chalicelib.model import Notebook


def renew(notebook: Notebook, api_url: str | None, *, now: datetime, notebooks: NotebooksTable) -> Notebook:
    """Ends the notebook's link for life, and all links and pages made under it. The record with the next one.

    `api_url`: where the API is called now; links lead there from here on. Raises NotFound.
    """
    return notebooks.renew_link(notebook, api_url, now) or read_again(notebook, notebooks)
