"""Any service that apprise knows, by its URL."""

from __future__ import annotations

import logging

from llmops.alerts.posting import LONGEST_SECONDS, shown
from llmops.alerts.targets.message import Message
from llmops.alerts.text import plain
from llmops.errors import BadInput, Unavailable


def send(message: Message) -> None:
    """Have apprise send the alert."""
    # Imported here: it takes time that loading the definitions must not take.
    import apprise

    # What it logs has parts of the URL in it.
    logging.getLogger("apprise").propagate = False
    asset = apprise.AppriseAsset(app_id="llmops", app_desc="llmops", http_redirects=False)
    services = apprise.Apprise(asset=asset)
    if not services.add(message.url):
        raise BadInput("the URL is of no service that apprise knows", remedy="Correct the Secret.")
    alert = message.alert
    kind = {"info": "info", "warning": "warning", "error": "failure"}[alert.severity]
    title = f"llmops: {alert.kind.replace('_', ' ')}"
    if not services.notify(plain(alert, message.settings), title=title, notify_type=kind, timeout=LONGEST_SECONDS):
        raise Unavailable(
            f"{shown(message.url)} does not answer or refuses", remedy="Try the URL with the apprise command."
        )
