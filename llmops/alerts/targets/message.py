"""What a target of any kind gets."""

from __future__ import annotations

from dataclasses import dataclass, field

from llmops.alerts.outbox import Alert
from llmops.config.settings import Settings


@dataclass(frozen=True)
class Message:
    """An alert on its way to a target.

    Args:
        alert: The alert.
        settings: Where links lead to.
        url: Of the target; a password.
        key: Key to sign with, as the Secret has it; empty for a target that is not signed to.
    """

    alert: Alert
    settings: Settings
    url: str = field(repr=False)
    key: str = field(default="", repr=False)
