"""Posts to incoming webhooks of Slack, and of compatible services: Mattermost, Rocket.Chat."""

from __future__ import annotations

import json
from typing import Any

from llmops.alerts.outbox import Alert
from llmops.alerts.posting import post
from llmops.alerts.targets.message import Message
from llmops.alerts.text import report_url, run_url, sentence
from llmops.config.settings import Settings

MARKS = {"info": "\N{INFORMATION SOURCE}", "warning": "\N{WARNING SIGN}", "error": "\N{NO ENTRY}"}


def send(message: Message) -> None:
    """Post the alert."""
    body = json.dumps(content(message.alert, message.settings)).encode()
    post(message.url, body, lambda: {"webhook-id": message.alert.id})


def content(alert: Alert, settings: Settings) -> dict[str, Any]:
    """The line with a mark for its severity, and the links below it."""
    line = sentence(alert).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    links = {"run": run_url(alert, settings), "report": report_url(alert, settings)}
    shown = " · ".join(f"<{url}|{name}>" for name, url in links.items() if url)
    return {"text": f"{MARKS[alert.severity]} {line}" + (f"\n{shown}" if shown else "")}
