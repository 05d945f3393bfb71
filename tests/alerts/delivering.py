"""Delivers what is due, by the settings on standard input: a process that can be killed in the middle."""

from __future__ import annotations

import sys

from llmops.automation.alerts.delivery import deliver
from llmops.cluster.client import Cluster
from llmops.releases.outbox import Outbox
from llmops.settings import Settings

if __name__ == "__main__":
    settings = Settings.model_validate_json(sys.stdin.read())
    deliver(Outbox(Cluster.connect(settings)), settings)
