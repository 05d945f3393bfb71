"""Sends through apprise, to any service that it knows."""

from __future__ import annotations

import logging

from llmops.alerts.posting import LONGEST_SECONDS, shown
from llmops.alerts.targets.message import Message
from llmops.alerts.text import plain
from llmops.errors import BadInput, Unavailable


def send(message: Message) -> None:
    """Send the alert through apprise."""
    # Imported here: it takes time that loading the definitions must not take.
    import apprise

    # It logs parts of the URL.
    logging.getLogger("apprise").propagate = False
    asset = apprise.AppriseAsset(app_id="llmops", app_desc="llmops", http_redirects=False)
    services = apprise.Apprise(asset=asset)
    if not services.add(message.url):
        raise BadInput(
            "the URL names no service that apprise knows",
            code="UnknownService",
            remedy="Correct the URL in the Secret.",
        )
    alert = message.alert
    kind = {"info": "info", "warning": "warning", "error": "failure"}[alert.severity]
    title = f"llmops: {alert.kind.replace('_', ' ')}"
    if not services.notify(plain(alert, message.settings), title=title, notify_type=kind, timeout=LONGEST_SECONDS):
        raise Unavailable(
            f"{shown(message.url)} does not answer or refuses",
            code="TargetFailed",
            about=shown(message.url),
            remedy="Try the URL with the apprise command.",
        )
