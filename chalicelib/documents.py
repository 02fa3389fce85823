"""The documents whose commands a workflow waits for. Apart from commands.py: every cold start names them."""

from __future__ import annotations

# Of instance/documents, those that the workflows send; the sweep's probe has nobody waiting.
AWAITED = (
    "prepare-instance",
    "install-anaconda",
    "configure-tls",
    "start-monitor",
    "configure-notebook",
    "set-password",
)


def document_names(stage: str) -> list[str]:
    """Of this deployment's documents, those whose end a workflow waits for."""
    return [f"nod-{stage}-{name}" for name in AWAITED]


def is_ours(document: str, stage: str) -> bool:
    """Whether the document is one of these. By its whole name: a stage `prod` would else take in a stage `prod-eu`."""
    return document in document_names(stage)
