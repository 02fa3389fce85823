"""What GET /notebooks/{id} answers. Apart from views.py: a class of so many fields takes a cold start 2 ms to make."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from chalicelib.views import NotebookView


@dataclass(frozen=True)
class NotebookDetail(NotebookView):
    """The answer to GET /notebooks/{id}: the notebook, and what only its owner is to read, if there is any."""

    last_words: str | None = field(repr=False)
    """The end of what its server wrote before it failed to start with its owner's configuration, or to answer."""

    @classmethod
    def of_view(cls, view: NotebookView, last_words: str | None) -> NotebookDetail:
        """The notebook as `view` shows it, with the rest."""
        return cls(**{entry.name: getattr(view, entry.name) for entry in fields(view)}, last_words=last_words)
