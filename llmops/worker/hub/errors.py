"""Errors of the hub as errors of the worker, with remedies."""

from __future__ import annotations

import httpx2
from huggingface_hub.errors import (
    DisabledRepoError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import parse_ratelimit_headers

from llmops.worker.foreign import LONGEST_PAUSE, parse_retry_after
from llmops.worker.pins import FilePin, Pins
from llmops.worker.report import WorkerError

# Errors of the library are OSErrors. So are errors of the volume, for which `as_worker_error` returns None.
HUB_ERRORS = (httpx2.HTTPError, httpx2.StreamError, OSError)


def as_worker_error(error: BaseException, pins: Pins, file: FilePin, *, with_token: bool) -> WorkerError | None:
    """The error of the hub as a `WorkerError`; None if the error is the volume's."""
    if isinstance(error, LocalEntryNotFoundError) and error.__cause__ is not None:
        return as_worker_error(error.__cause__, pins, file, with_token=with_token)
    where = f"{file.path} of {pins.repo}@{pins.commit[:12]}"
    token = "the token given" if with_token else "no token"
    match error:
        case HfHubHTTPError() if (storage := storage_of(error.response)) is not None:
            return _by_storage(error, where, storage)
        case GatedRepoError():
            return WorkerError(
                "gated",
                f"{pins.repo} is gated, and {token} has no access: {_said(error)}",
                remedy=f"Accept the terms of {pins.repo} on the hub, and give weights.token a token of that account.",
            )
        case DisabledRepoError():
            return WorkerError("repo_missing", f"the hub has disabled {pins.repo}: {_said(error)}")
        case RepositoryNotFoundError():
            return WorkerError(
                "repo_missing",
                f"{pins.repo} does not exist, or is private and {token} may not see it: {_said(error)}",
                remedy="Check weights.repo, and weights.token if it is private.",
            )
        case RevisionNotFoundError():
            return WorkerError(
                "revision_missing",
                f"{pins.repo} has no commit {pins.commit} any more: {_said(error)}",
                remedy="Resolve the release again.",
            )
        case RemoteEntryNotFoundError():
            return WorkerError(
                "file_missing", f"{where} does not exist: {_said(error)}", remedy="Resolve the release again."
            )
        case HfHubHTTPError():
            return _by_status(error, pins, where, token)
        case httpx2.HTTPError() | httpx2.StreamError():
            return WorkerError(
                "hub_error",
                f"{where}: {type(error).__name__}: {error}",
                remedy="Check the network between the cluster and the hub; the next attempt resumes.",
            )
        case OSError(errno=None):
            return WorkerError("hub_error", f"{where}: {error}", remedy="The next attempt resumes.")
        case _:
            return None


def storage_of(response: httpx2.Response) -> str | None:
    """The host to which the hub redirected the request, if the answer is that host's; None if it is the hub's."""
    asked = response.history[0] if response.history else response
    return response.url.host if response.url.origin != asked.url.origin else None


def is_outside_file(error: BaseException) -> bool:
    """Whether the server has no byte at the place from which the download was to go on (RFC 9110, 15.5.17)."""
    return isinstance(error, HfHubHTTPError) and error.response.status_code == 416


def retry_after(error: BaseException) -> float | None:
    """Seconds of pause that the hub asks for, if it does."""
    if not isinstance(error, HfHubHTTPError):
        return None
    headers = error.response.headers
    if (limits := parse_ratelimit_headers(headers)) is not None and limits.remaining == 0:
        return min(float(limits.reset_in_seconds), LONGEST_PAUSE)
    return parse_retry_after(headers.get("Retry-After"))


def _by_storage(error: HfHubHTTPError, where: str, storage: str) -> WorkerError:
    """The storage knows neither the token nor the pins: what it refuses says nothing about either."""
    if error.response.status_code == 429:
        return WorkerError("rate_limited", f"{storage} limits the rate of requests: {_said(error)}")
    return WorkerError(
        "hub_error",
        f"{where}: {storage}, to which the hub redirects, answered {error.response.status_code}: {_said(error)}",
        remedy=f"Check the proxies and firewalls between the cluster and {storage}. The next attempt asks the hub for "
        "another link, and resumes.",
    )


def _by_status(error: HfHubHTTPError, pins: Pins, where: str, token: str) -> WorkerError:
    status = error.response.status_code
    match status:
        case 401 | 403:
            return WorkerError(
                "unauthorized",
                f"the hub refuses {pins.repo} to {token} ({status}): {_said(error)}",
                remedy="Check that weights.token is valid and may read this repository.",
            )
        case 404:
            return WorkerError("file_missing", f"{where} does not exist: {_said(error)}")
        case 429:
            return WorkerError(
                "rate_limited",
                f"the hub limits the rate of requests ({token}): {_said(error)}",
                remedy="Wait, or give weights.token a token: its limits are higher.",
            )
        case _:
            return WorkerError("hub_error", f"{where}: the hub answered {status}: {_said(error)}")


def _said(error: HfHubHTTPError) -> str:
    return " ".join((error.server_message or str(error)).split())[:500]
