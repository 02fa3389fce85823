"""What AWS's errors mean to us."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from chalicelib.errors import Unavailable


def code_of(error: Exception) -> str:
    """The error code of a botocore ClientError; empty for any other exception."""
    response: Any = getattr(error, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""


@contextmanager
def as_unavailable(what: str) -> Iterator[None]:
    """Inside, any failure of AWS after the SDK's own retries becomes `Unavailable`."""

    from botocore.exceptions import (  # noqa: PLC0415
        BotoCoreError,
        ClientError,
        HTTPClientError,
        ParamValidationError,
    )

    try:
        yield
    except ParamValidationError:
        # Our own mistake, and trying again would not help.
        raise
    except HTTPClientError as error:
        raise Unavailable(
            f"{what} did not answer ({type(error).__name__}). It may have done what it was asked to do."
        ) from error
    except (BotoCoreError, ClientError) as error:
        raise Unavailable(f"{what} did not answer as it should ({code_of(error) or type(error).__name__}).") from error
