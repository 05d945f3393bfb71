"""Posts to a webhook within a bounded time, and keeps its URL secret.

The URL of a webhook is a password. Errors show only its host and the status of the answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from llmops.clients.retries import parse_retry_after
from llmops.errors import BadInput, Unavailable

ANSWER_SECONDS = 8.0
"""Limit for one request, from its start to the end of the answer's headers."""
TRIES = 2
"""Requests of one attempt. The second one covers an outage of a second; the next attempt covers longer ones."""
PAUSE_SECONDS = 1.0
LONGEST_SECONDS = TRIES * (ANSWER_SECONDS + PAUSE_SECONDS)


def post(url: str, body: bytes, headers: Callable[[], Mapping[str, str]]) -> None:
    """Post JSON; if the receiver fails in a way that may pass within a second, post once more.

    Args:
        url: The receiver.
        body: The JSON.
        headers: Further headers, called for each request: a signature carries its time.

    Raises:
        Unavailable: The receiver does not answer, asks to come back later, or refuses.
        BadInput: The URL is invalid.
    """
    attempts = Retrying(
        retry=retry_if_exception_type(_BlinkError),
        stop=stop_after_attempt(TRIES),
        wait=wait_random_exponential(multiplier=PAUSE_SECONDS / 2, max=PAUSE_SECONDS),
        reraise=True,
    )
    attempts(lambda: _post(url, {"content-type": "application/json", "user-agent": "llmops", **headers()}, body))


class _BlinkError(Unavailable):
    """The target may answer a second later."""


def shown(url: str) -> str:
    """The part of a URL that is no secret: its host."""
    try:
        return urlsplit(url).hostname or "its URL"
    except ValueError:
        return "its URL"


def _post(url: str, headers: Mapping[str, str], body: bytes) -> None:
    try:
        parts = urlsplit(url)
    except ValueError:
        raise _invalid_url() from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise _invalid_url()
    status, retry_after = asyncio.run(_exchange(url, headers, body))
    if 200 <= status < 300:
        return
    host = shown(url)
    if 300 <= status < 400:
        # A redirect must not choose who gets a signed message.
        raise Unavailable(
            f"{host} answered {status}, and llmops follows no redirect",
            code="TargetRedirects",
            about=host,
            remedy="Put the final URL into the Secret.",
        )
    line = f"{host} answered {status}"
    if status >= 500 and retry_after is None:
        raise _BlinkError(line, code="TargetFailed", about=host)
    raise Unavailable(
        line, code="TargetFailed" if status >= 500 else "TargetRefused", about=host, retry_after=retry_after
    )


def _invalid_url() -> BadInput:
    return BadInput(
        "the URL of the target is not a valid http or https URL",
        code="InvalidUrl",
        remedy="Correct the URL in the Secret.",
    )


async def _exchange(url: str, headers: Mapping[str, str], body: bytes) -> tuple[int, float | None]:
    """Status of the answer, and the seconds to wait that it asks for. The body is never read."""
    # Imported here: it takes time that loading the definitions must not take.
    import httpx2

    try:
        # The client's timeout limits each read. An answer that trickles in needs a limit for all of them.
        async with (
            asyncio.timeout(ANSWER_SECONDS),
            httpx2.AsyncClient(timeout=ANSWER_SECONDS) as client,
            client.stream("POST", url, content=body, headers=dict(headers)) as answer,
        ):
            return answer.status_code, parse_retry_after(answer.headers.get("retry-after"))
    except TimeoutError:
        host = shown(url)
        line = f"{host} did not answer within {ANSWER_SECONDS:g} s"
        raise Unavailable(line, code="TargetTimedOut", about=host) from None
    except httpx2.InvalidURL:
        raise _invalid_url() from None
    except httpx2.HTTPError as error:
        # The error's text and cause may contain the URL.
        line = f"{shown(url)} gave no answer: {type(error).__name__}"
        raise _BlinkError(line, code="TargetUnreachable", about=shown(url)) from None
