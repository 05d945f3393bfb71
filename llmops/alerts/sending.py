"""Sending one alert to one target: within a bounded time, and without telling anybody the target's URL.

The URL of a webhook is a password. Errors name the host alone, and say of an answer its status and nothing else.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Mapping
from urllib.parse import urlsplit

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from llmops.alerts import text
from llmops.alerts.outbox import Alert
from llmops.alerts.signing import parse_key, signed_headers
from llmops.clients.kubernetes.client import Cluster
from llmops.clients.retries import parse_retry_after
from llmops.config.alerting import AlertTarget
from llmops.config.schema import SecretKey
from llmops.config.settings import Settings
from llmops.errors import BadInput, Unavailable

ANSWER_SECONDS = 8.0
"""For one request, from its start to the end of the answer's headers."""
TRIES = 2
"""Requests of one attempt. What lasts longer than a blink is left to the next attempt."""
PAUSE_SECONDS = 1.0
TALKATIVE = {"httpx2": logging.WARNING, "urllib3": logging.INFO}
"""Libraries that log whole URLs, and from which level on they do not."""
LONGEST_SECONDS = TRIES * (ANSWER_SECONDS + PAUSE_SECONDS)


def send(alert: Alert, target: AlertTarget, cluster: Cluster, settings: Settings) -> None:
    """Send an alert to a target.

    Raises:
        Unavailable: The target does not answer, asks to come back later, or refuses.
        BadInput: Its URL or key is not there or cannot be used.
    """
    for library, level in TALKATIVE.items():
        logging.getLogger(library).setLevel(level)
    url = _secret(cluster, target, target.url)
    if target.kind == "apprise":
        _notify(url, alert, settings)
        return
    if target.kind == "webhook":
        assert target.signing_key is not None
        key = parse_key(_secret(cluster, target, target.signing_key))
        body = text.webhook(alert, settings)
    else:
        key = None
        body = json.dumps(text.slack(alert, settings)).encode()

    def post() -> None:
        headers = {"content-type": "application/json", "user-agent": "llmops", "webhook-id": alert.id}
        # Signed anew each time: receivers refuse what is older than some minutes.
        headers |= signed_headers(key, alert.id, int(time.time()), body) if key else {}
        _post(url, headers, body)

    Retrying(
        retry=retry_if_exception_type(_BlinkError),
        stop=stop_after_attempt(TRIES),
        wait=wait_random_exponential(multiplier=PAUSE_SECONDS / 2, max=PAUSE_SECONDS),
        reraise=True,
    )(post)


class _BlinkError(Unavailable):
    """The target may well answer in a second."""


def shown(url: str) -> str:
    """What may be told of a URL: its host."""
    try:
        return urlsplit(url).hostname or "its URL"
    except ValueError:
        return "its URL"


def _secret(cluster: Cluster, target: AlertTarget, secret: SecretKey) -> str:
    if not (value := cluster.secret_text(secret.name, secret.key)):
        raise BadInput(
            f"Secret {secret.name} in namespace {cluster.namespace} has no {secret.key}",
            remedy=f"Put there what the alert target {target.name} needs.",
        )
    return value


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


def _notify(url: str, alert: Alert, settings: Settings) -> None:
    import apprise

    # What it logs has parts of the URL in it.
    logging.getLogger("apprise").propagate = False
    asset = apprise.AppriseAsset(app_id="llmops", app_desc="llmops", http_redirects=False)
    services = apprise.Apprise(asset=asset)
    if not services.add(url):
        raise BadInput("the URL is of no service that apprise knows", remedy="Correct the Secret.")
    kind = {"info": "info", "warning": "warning", "error": "failure"}[alert.severity]
    title = f"llmops: {alert.kind.replace('_', ' ')}"
    if not services.notify(text.plain(alert, settings), title=title, notify_type=kind, timeout=LONGEST_SECONDS):
        raise Unavailable(f"{shown(url)} does not answer or refuses", remedy="Try the URL with the apprise command.")
