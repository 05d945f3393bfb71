"""Where alerts are sent to: one file for each kind of target.

A new kind is a file here, a line below, and its word in `llmops.config.alerting.TargetKind`, which settings are checked
by.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from llmops.alerts.targets import apprise, slack, webhook
from llmops.alerts.targets.message import Message
from llmops.config.alerting import TargetKind

TARGETS: Mapping[TargetKind, Callable[[Message], None]] = {
    "slack": slack.send,
    "webhook": webhook.send,
    "apprise": apprise.send,
}
"""Each sends a message; it raises Unavailable if the target does not take it, and BadInput if URL or key are of no
use."""
