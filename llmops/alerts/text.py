"""What a person reads of an alert, and what a program gets."""

from __future__ import annotations

import json
from typing import Any

from llmops.alerts.outbox import Alert
from llmops.config.settings import Settings

MARKS = {"info": "\N{INFORMATION SOURCE}", "warning": "\N{WARNING SIGN}", "error": "\N{NO ENTRY}"}


def run_url(alert: Alert, settings: Settings) -> str | None:
    """The run in the Dagster UI; None if the alert is about none, or it is not known where the UI is."""
    if not alert.run or settings.dagster_url is None:
        return None
    return f"{settings.dagster_url.rstrip('/')}/runs/{alert.run}"


def report_url(alert: Alert, settings: Settings) -> str | None:
    """The release's evaluation report; None if the alert is about none, or it is not known where reports are."""
    if not alert.release or settings.service_url is None:
        return None
    return f"{settings.service_url.rstrip('/')}/reports/{alert.model}/{alert.release}"


def sentence(alert: Alert) -> str:
    """One line: what happened and why, and what serves now."""
    if not alert.model:
        return alert.line
    return f"{alert.line} ({f'{alert.serving} serves' if alert.serving else 'nothing serves'} now)"


def plain(alert: Alert, settings: Settings) -> str:
    """The line, and the link to the run below it."""
    url = run_url(alert, settings)
    return sentence(alert) + (f"\n{url}" if url else "")


def slack(alert: Alert, settings: Settings) -> dict[str, Any]:
    """The message for an incoming webhook of Slack, or of what speaks like it (Mattermost, Rocket.Chat)."""
    line = sentence(alert).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    links = {"run": run_url(alert, settings), "report": report_url(alert, settings)}
    shown = " · ".join(f"<{url}|{name}>" for name, url in links.items() if url)
    return {"text": f"{MARKS[alert.severity]} {line}" + (f"\n{shown}" if shown else "")}


def webhook(alert: Alert, settings: Settings) -> bytes:
    """The body of a webhook: see docs/alerts.md."""
    data = alert.model_dump(mode="json") | {
        "text": sentence(alert),
        "run_url": run_url(alert, settings),
        "report_url": report_url(alert, settings),
    }
    content = {"type": f"llmops.{alert.kind}", "timestamp": data.pop("at"), "data": data}
    return json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()
