"""What the hub's errors mean for a release, told apart. Imported with `huggingface_hub` only."""

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
from llmops.clients.retries import parse_retry_after
from llmops.config.redaction import without_password
from llmops.errors import BadInput, BadRelease, LlmopsError, Unavailable

TOKEN_REMEDY = "name a Secret key that holds a hub token with access in weights.token"  # noqa: S105 - no token


def refusal(error: HfHubHTTPError, target: str, endpoint: str, *, has_token: bool) -> LlmopsError:
    """The hub's error answer as one of ours.

    Args:
        error: What `huggingface_hub` raised.
        target: What was asked for, REPO or REPO@REVISION.
        endpoint: Base URL of the hub, without a password.
        has_token: Whether a token was sent.
    """
    repo, _, revision = target.partition("@")
    status = error.response.status_code
    said = f"the hub at {endpoint} answered {status}"
    # The order matters: GatedRepoError is a RepositoryNotFoundError.
    if isinstance(error, GatedRepoError):
        page = f"{endpoint.rstrip('/')}/{repo}"
        if has_token:
            return BadInput(
                f"{repo} is gated, and the account of the token in weights.token has no access ({said}).",
                remedy=f"Ask for access at {page} with that account, or name another Secret key in weights.token.",
            )
        return BadInput(
            f"{repo} is gated, and no token was sent ({said}).",
            remedy=f"Ask for access at {page}, then {TOKEN_REMEDY}.",
        )
    if isinstance(error, RevisionNotFoundError):
        return BadInput(
            f"{repo} has no revision {revision} ({said}).",
            remedy="Correct weights.revision: a branch, a tag or a commit of 40 hex digits.",
        )
    if isinstance(error, RemoteEntryNotFoundError):
        return BadRelease(f"A file of {target} is not there ({said}): {without_password(str(error.response.url))}.")
    if isinstance(error, DisabledRepoError):
        return BadInput(f"{repo} has been disabled on the hub ({said}).", remedy="Correct weights.repo.")
    if isinstance(error, RepositoryNotFoundError):
        if has_token:
            remedy = "Correct weights.repo, or name a Secret key whose token may read it in weights.token."
        else:
            remedy = f"Correct weights.repo; if it is private, {TOKEN_REMEDY}."
        return BadInput(f"Repository {repo} does not exist, or is private ({said}).", remedy=remedy)
    if status in (401, 403):
        return BadInput(
            f"The hub token is not accepted for {target} ({said}: {error.server_message or 'no reason given'}).",
            remedy="Put a valid token of https://huggingface.co/settings/tokens into the Secret of weights.token.",
        )
    if status == 429:
        wait = _retry_after(error)
        when = "later" if wait is None else f"in {wait:g} s"
        return RateLimited(
            f"Too many requests: {said} about {target} and asks to come back {when}.",
            retry_after=wait,
            remedy="Wait, or set a hub token: limits are higher with one.",
        )
    if status >= 500 or status == 408:
        return Unavailable(
            f"{said[0].upper()}{said[1:]} about {target}: {error.server_message or 'no reason given'}.",
            retry_after=_retry_after(error),
        )
    return BadInput(f"{said[0].upper()}{said[1:]} about {target}: {error.server_message or error}.")


def no_answer(error: Exception, target: str, endpoint: str) -> Unavailable:
    """A connection that failed, or an answer that is not the hub's."""
    return Unavailable(
        f"The hub at {endpoint} gave no answer about {target}: {type(error).__name__}: {error}.",
        remedy="Check hub_endpoint in the settings, and the network between here and there.",
    )


def _retry_after(error: HfHubHTTPError) -> float | None:
    headers = error.response.headers
    # The hub states its limits in RateLimit on every answer; they are the reason only where nothing remains.
    limits = parse_ratelimit_headers(headers)
    if limits is not None and limits.remaining == 0:
        return float(limits.reset_in_seconds)
    return parse_retry_after(headers.get("Retry-After"))
