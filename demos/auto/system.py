"""Installs llmops on a sandbox as on a cluster, with a target for alerts."""

from __future__ import annotations

import base64

from llmops_sandbox.cluster.binaries import Progress
from llmops_sandbox.installing import install
from llmops_sandbox.sandbox import Sandbox
from llmops_sandbox.ui import Ui

from llmops.clients.kubernetes.client import Cluster
from llmops.config.settings import load_settings

SECRET = "alerts"  # noqa: S105 - the name of a Secret


def start(sandbox: Sandbox, progress: Progress, alerts_url: str, alerts_key: str) -> Ui:
    """Bring a sandbox up with all of llmops on it.

    Args:
        sandbox: The sandbox.
        progress: Called with the progress of building Kubernetes, if it has to be built.
        alerts_url: The webhook for alerts.
        alerts_key: The key that signs them.

    Returns:
        The Dagster UI.
    """
    sandbox.up(progress)
    data = {"url": alerts_url, "signing-key": alerts_key}
    Cluster.connect(load_settings(sandbox.settings_file)).apply(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": SECRET},
            "data": {name: base64.b64encode(value.encode()).decode() for name, value in data.items()},
        }
    )
    target = {
        "name": "on-call",
        "kind": "webhook",
        "url": {"name": SECRET, "key": "url"},
        "signing_key": {"name": SECRET, "key": "signing-key"},
    }
    return Ui(install(sandbox, {"alerts": [target], "registry_poll_seconds": 10, "hub_poll_seconds": 10}))
