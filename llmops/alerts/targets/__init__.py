"""How each kind of target gets an alert: one module a kind, with the kind's name and a function `send`.

To add a kind, add its module here and its line in `llmops.config.alerting.TARGET_KINDS`, which settings are checked by.
"""

from __future__ import annotations

import importlib
from typing import Protocol, cast

from llmops.alerts.targets.message import Message


class Target(Protocol):
    """The module of one kind."""

    def send(self, message: Message) -> None:
        """Send a message.

        Raises:
            Unavailable: The target does not take it.
            BadInput: Its URL or key cannot be used.
        """
        ...


def target_of(kind: str) -> Target:
    """The module of a kind in `TARGET_KINDS`."""
    return cast(Target, importlib.import_module(f"{__name__}.{kind}"))
