"""The message that targets of all kinds get."""

from __future__ import annotations

from dataclasses import dataclass, field

from llmops.alerts.outbox import Alert
from llmops.config.settings import Settings


@dataclass(frozen=True)
class Message:
    """An alert on its way to a target.

    Args:
        alert: The alert.
        settings: The base URLs of links.
        url: URL of the target; a password.
        key: Signing key as the Secret has it; empty if the target's messages are not signed.
    """

    alert: Alert
    settings: Settings
    url: str = field(repr=False)
    key: str = field(default="", repr=False)
