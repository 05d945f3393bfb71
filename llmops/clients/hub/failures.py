"""Errors of the hub as errors of llmops. Imports `huggingface_hub`, so import it on the first request."""

from __future__ import annotations

from huggingface_hub.errors import (
    DisabledRepoError,
    GatedRepoError,
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import parse_ratelimit_headers

from llmops.clients.hub.limits import RateLimited
from llmops.config.redaction import without_password
from llmops.errors import BadInput, BadRelease, LlmopsError, Unavailable
from llmops.worker.foreign import LONGEST_PAUSE, parse_retry_after

TOKEN_REMEDY = "name a Secret key that holds a hub token with access in weights.token"  # noqa: S105 - no token


def refusal(error: HfHubHTTPError, target: str, endpoint: str, *, has_token: bool) -> LlmopsError:
    """The error for an answer of the hub that is not a success.

    Args:
        error: Error of `huggingface_hub`.
        target: REPO or REPO@REVISION of the request.
        endpoint: Base URL of the hub, without a password.
        has_token: Whether the request had a token.
    """
    repo, _, revision = target.partition("@")
    status = error.response.status_code
    answer = f"the hub at {endpoint} answered {status}"
    response = error.response
    if response.history and response.url.origin != response.history[0].url.origin and status != 429:
        # The storage knows neither the token nor the revision.
        storage = response.url.host
        return Unavailable(
            f"{storage}, to which the hub at {endpoint} redirects, answered {status} about {target}.",
            code="StorageRefused",
            about=target,
            retry_after=_retry_after(error),
            remedy=f"Check the proxies and firewalls between the pipeline and {storage}.",
        )
    # The order matters: GatedRepoError is a RepositoryNotFoundError.
    if isinstance(error, GatedRepoError):
        page = f"{endpoint.rstrip('/')}/{repo}"
        if has_token:
            return BadInput(
                f"{repo} is gated, and the account of the token in weights.token has no access ({answer}).",
                code="AccessNotGranted",
                about=repo,
                remedy=f"Ask for access at {page} with that account, or name another Secret key in weights.token.",
            )
        return BadInput(
            f"{repo} is gated, and no token was sent ({answer}).",
            code="RepositoryGated",
            about=repo,
            remedy=f"Ask for access at {page}, then {TOKEN_REMEDY}.",
        )
    if isinstance(error, RevisionNotFoundError):
        return BadInput(
            f"{repo} has no revision {revision} ({answer}).",
            code="RevisionNotFound",
            about=target,
            remedy="Correct weights.revision: a branch, a tag or a commit of 40 hex digits.",
        )
    if isinstance(error, RemoteEntryNotFoundError):
        url = without_password(str(error.response.url))
        return BadRelease(f"A file of {target} does not exist ({answer}): {url}.", code="FileNotFound", about=target)
    if isinstance(error, DisabledRepoError):
        return BadInput(
            f"The hub has disabled {repo} ({answer}).",
            code="RepositoryDisabled",
            about=repo,
            remedy="Correct weights.repo.",
        )
    if isinstance(error, RepositoryNotFoundError):
        if has_token:
            remedy = "Correct weights.repo, or name a Secret key whose token may read it in weights.token."
        else:
            remedy = f"Correct weights.repo; if it is private, {TOKEN_REMEDY}."
        return BadInput(
            f"Repository {repo} does not exist, or is private ({answer}).",
            code="RepositoryNotFound",
            about=repo,
            remedy=remedy,
        )
    if status in (401, 403):
        return BadInput(
            f"The hub refuses the token for {target} ({answer}: {error.server_message or 'no reason given'}).",
            code="CredentialsRefused",
            about=repo,
            remedy="Put a valid token of https://huggingface.co/settings/tokens into the Secret of weights.token.",
        )
    if status == 429:
        wait = _retry_after(error)
        when = "later" if wait is None else f"in {wait:g} s"
        return RateLimited(
            f"Too many requests: {answer} about {target} and asks to come back {when}.",
            about=target,
            retry_after=wait,
            remedy="Wait, or set a hub token: limits are higher with one.",
        )
    if status >= 500 or status == 408:
        return Unavailable(
            f"{answer[0].upper()}{answer[1:]} about {target}: {error.server_message or 'no reason given'}.",
            code="HubFailed",
            about=target,
            retry_after=_retry_after(error),
        )
    return BadInput(
        f"{answer[0].upper()}{answer[1:]} about {target}: {error.server_message or error}.",
        code="HubRefused",
        about=target,
    )


def no_answer(error: Exception, target: str, endpoint: str) -> Unavailable:
    """The error for a failed connection, or an answer in another format than the hub's."""
    return Unavailable(
        f"The hub at {endpoint} gave no answer about {target}: {type(error).__name__}: {error}.",
        code="HubUnreachable",
        about=target,
        remedy="Check hub_endpoint in the settings, and the network between the pipeline and the hub.",
    )


def _retry_after(error: HfHubHTTPError) -> float | None:
    headers = error.response.headers
    # Every answer of the hub has a RateLimit header; it is the reason only if no request remains.
    limits = parse_ratelimit_headers(headers)
    if limits is not None and limits.remaining == 0:
        return min(float(limits.reset_in_seconds), LONGEST_PAUSE)
    return parse_retry_after(headers.get("Retry-After"))
