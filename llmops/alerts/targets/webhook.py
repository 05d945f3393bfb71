"""Posts signed JSON for programs, by the Standard Webhooks specification."""

from __future__ import annotations

import json
import time

from llmops.alerts.outbox import Alert
from llmops.alerts.posting import post
from llmops.alerts.signing import parse_key, signed_headers
from llmops.alerts.targets.message import Message
from llmops.alerts.text import report_url, run_url, sentence
from llmops.config.settings import Settings


def send(message: Message) -> None:
    """Post the alert. Each request gets a new signature: receivers refuse one that is some minutes old."""
    alert, key = message.alert, parse_key(message.key)
    body = content(alert, message.settings)
    post(message.url, body, lambda: signed_headers(key, alert.id, int(time.time()), body))


def content(alert: Alert, settings: Settings) -> bytes:
    """The body: see docs/guides/alerts.md."""
    data = alert.model_dump(mode="json") | {
        "text": sentence(alert),
        "run_url": run_url(alert, settings),
        "report_url": report_url(alert, settings),
    }
    event = {"type": f"llmops.{alert.kind}", "timestamp": data.pop("at"), "data": data}
    return json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode()
