"""The text of an alert, for targets of all kinds."""

from __future__ import annotations

from llmops.alerts.outbox import Alert
from llmops.config.settings import Settings


def run_url(alert: Alert, settings: Settings) -> str | None:
    """The run in the Dagster UI; None if the alert is about none, or the settings have no `dagster_url`."""
    if not alert.run or settings.dagster_url is None:
        return None
    return f"{settings.dagster_url.rstrip('/')}/runs/{alert.run}"


def report_url(alert: Alert, settings: Settings) -> str | None:
    """The release's evaluation report; None if the alert is about none, or the settings have no `service_url`."""
    if not alert.release or settings.service_url is None:
        return None
    return f"{settings.service_url.rstrip('/')}/reports/{alert.model}/{alert.release}"


def sentence(alert: Alert) -> str:
    """The alert's line, and what serves now."""
    if not alert.model:
        return alert.line
    if alert.now:
        return f"{alert.line} ({alert.now})"
    return f"{alert.line} ({f'{alert.serving} serves' if alert.serving else 'nothing serves'} now)"


def plain(alert: Alert, settings: Settings) -> str:
    """The line, and the link to the run below it."""
    url = run_url(alert, settings)
    return sentence(alert) + (f"\n{url}" if url else "")
