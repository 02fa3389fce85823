"""What AWS or its SDK says when a command cannot be done, in words that name what to do."""

from __future__ import annotations

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,  # noqa: A004 - the SDK's own name
    HTTPClientError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
    ProfileNotFound,
    SSOTokenLoadError,
    TokenRetrievalError,
    UnauthorizedSSOTokenError,
)

_SIGN_IN = "Sign in to AWS first, for example with `aws sso login`, or set AWS_PROFILE."
_NO_KEYS = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "IncompleteSignature",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "MissingAuthenticationToken",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
_DENIED = frozenset({"AccessDenied", "AccessDeniedException", "AuthorizationError", "AuthorizationErrorException"})
_NOT_THERE = frozenset({"ResourceNotFoundException", "NotFound", "NotFoundException"})


def in_words(error: BotoCoreError | ClientError, stage: str, region: str | None) -> str:
    """One or two sentences: what is wrong, and what to do about it.

    Args:
        error: of the SDK.
        stage: the deployment that was asked for.
        region: the region that was asked; None if none is known.
    """
    if isinstance(error, ClientError):
        return _refusal(error, stage, region)
    if isinstance(error, NoRegionError):
        return "No AWS region is known: give --region, or set AWS_REGION."
    if isinstance(
        error,
        NoCredentialsError
        | PartialCredentialsError
        | ProfileNotFound
        | SSOTokenLoadError
        | TokenRetrievalError
        | UnauthorizedSSOTokenError,
    ):
        return f"There are no AWS credentials to use: {_plain(error)}. {_SIGN_IN}"
    if isinstance(error, ConnectionError | HTTPClientError):
        return f"AWS does not answer in {region}: {_plain(error)}. Check --region and the network."
    return f"AWS cannot be asked: {_plain(error)}."


def _refusal(error: ClientError, stage: str, region: str | None) -> str:
    code = error.response.get("Error", {}).get("Code", "")
    if code in _NOT_THERE:
        return (
            f"There is no deployment {stage!r} in {region or 'this region'} of this AWS account. Check --stage and "
            f"--region; `make deploy STAGE={stage}` makes a deployment."
        )
    if code in _NO_KEYS:
        return f"AWS does not accept these credentials: {_plain(error)}. {_SIGN_IN}"
    if code in _DENIED:
        return (
            f"These AWS credentials may not do this: {_plain(error)}. An administrator of the account attaches the "
            f"policy nod-{stage}-admin (`make policy STAGE={stage}` writes it), or the "
            "deployment is another one: check --stage and --region."
        )
    return f"AWS refuses this: {_plain(error)}."


def _plain(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")
