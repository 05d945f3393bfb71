"""Delivers due alerts by the settings on standard input: a process that a test can kill in the middle."""

from __future__ import annotations

import sys

from llmops.alerts.delivery import deliver
from llmops.alerts.outbox import Outbox
from llmops.clients.kubernetes.client import Cluster
from llmops.config.settings import Settings

if __name__ == "__main__":
    settings = Settings.model_validate_json(sys.stdin.read())
    deliver(Outbox(Cluster.connect(settings)), settings)
