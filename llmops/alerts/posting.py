"""Posting to a webhook: within a bounded time, and without telling anybody its URL.

The URL of a webhook is a password. Errors name the host alone, and say of an answer its status and nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from llmops.clients.retries import parse_retry_after
from llmops.errors import BadInput, Unavailable

ANSWER_SECONDS = 8.0
"""For one request, from its start to the end of the answer's headers."""
TRIES = 2
"""Requests of one attempt. What lasts longer than a blink is left to the next attempt."""
PAUSE_SECONDS = 1.0
LONGEST_SECONDS = TRIES * (ANSWER_SECONDS + PAUSE_SECONDS)


def post(url: str, body: bytes, headers: Callable[[], Mapping[str, str]]) -> None:
    """Post JSON, and once more if the receiver may well answer in a second.

    Args:
        url: The receiver.
        body: What it gets.
        headers: Made anew for each request, besides those of all: a signature has a time.

    Raises:
        Unavailable: The receiver does not answer, asks to come back later, or refuses.
        BadInput: The URL is none.
    """
    attempts = Retrying(
        retry=retry_if_exception_type(_BlinkError),
        stop=stop_after_attempt(TRIES),
        wait=wait_random_exponential(multiplier=PAUSE_SECONDS / 2, max=PAUSE_SECONDS),
        reraise=True,
    )
    attempts(lambda: _post(url, {"content-type": "application/json", "user-agent": "llmops", **headers()}, body))


class _BlinkError(Unavailable):
    """The target may well answer in a second."""


def shown(url: str) -> str:
    """What may be told of a URL: its host."""
    try:
        return urlsplit(url).hostname or "its URL"
    except ValueError:
        return "its URL"


def _post(url: str, headers: Mapping[str, str], body: bytes) -> None:
    try:
        named = urlsplit(url)
    except ValueError:
        raise BadInput("the URL is none", remedy="Correct the Secret.") from None
    if named.scheme not in ("http", "https") or not named.hostname:
        raise BadInput("the URL is none of http or https", remedy="Correct the Secret.")
    status, retry_after = asyncio.run(_exchange(url, headers, body))
    if 200 <= status < 300:
        return
    host = shown(url)
    if 300 <= status < 400:
        # A signed message goes where it was said to go, and nowhere else.
        raise Unavailable(f"{host} answered {status}, and redirects are not followed", remedy="Correct the URL.")
    failed = f"{host} answered {status}"
    if status >= 500 and retry_after is None:
        raise _BlinkError(failed)
    raise Unavailable(failed, retry_after=retry_after)


async def _exchange(url: str, headers: Mapping[str, str], body: bytes) -> tuple[int, float | None]:
    """Status of the answer, and the seconds it asks to wait; its body is not read, as nothing in it is used."""
    # Imported here: it takes time that loading the definitions must not take.
    import httpx2

    try:
        # One limit for all: those of the client are for each step, and a slow answer has no end of steps.
        async with (
            asyncio.timeout(ANSWER_SECONDS),
            httpx2.AsyncClient(timeout=ANSWER_SECONDS) as client,
            client.stream("POST", url, content=body, headers=dict(headers)) as answer,
        ):
            return answer.status_code, parse_retry_after(answer.headers.get("retry-after"))
    except TimeoutError:
        raise Unavailable(f"{shown(url)} did not answer within {ANSWER_SECONDS:g} s") from None
    except httpx2.InvalidURL:
        raise BadInput("the URL is none", remedy="Correct the Secret.") from None
    except httpx2.HTTPError as error:
        # Without its text and its cause, in which the URL may stand.
        raise _BlinkError(f"{shown(url)} gave no answer: {type(error).__name__}") from None
