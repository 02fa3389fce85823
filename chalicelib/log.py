"""The one logger: JSON lines. They carry ids, states and reasons, never a secret."""

from __future__ import annotations

from aws_lambda_powertools.logging import Logger

logger = Logger(service="nod")
