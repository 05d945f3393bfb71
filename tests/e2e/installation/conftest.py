"""One sandbox with llmops installed in it, for all tests of a file."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from llmops_sandbox.installing import NAMESPACE, install
from llmops_sandbox.sandbox import Sandbox

from demos.auto.receiver import Receiver
from llmops.clients.kubernetes.client import Cluster
from llmops.config.settings import load_settings
from tests.e2e.installation.dagster_ui import Dagster
from tests.support.world import NODES, Model, new_model

SIGNING_KEY = f"whsec_{base64.b64encode(bytes(range(32))).decode()}"
QUICK = {"suites": ["sums"], "gates": [{"metric": "sums/score", "min": 0.5}]}


@dataclass(frozen=True)
class Installed:
    """llmops on a cluster, a model that was never rolled out, and a receiver of alerts."""

    sandbox: Sandbox
    model: Model
    dagster: Dagster
    receiver: Receiver

    @property
    def cluster(self) -> Cluster:
        """The administrator's client for the orchestrator's namespace."""
        settings = load_settings(self.sandbox.settings_file)
        return Cluster.connect(settings.model_copy(update={"namespace": NAMESPACE}))


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    folder = tmp_path_factory.mktemp("installed")
    nodes = folder / "declared-nodes.yaml"
    nodes.write_text(json.dumps(NODES))
    sandbox = Sandbox(folder / "state", project=folder, nodes=nodes)
    sandbox.up()
    try:
        with Receiver(SIGNING_KEY, lambda alert: None) as receiver, new_model(sandbox, folder / "model") as model:
            model.declare(evaluation=QUICK)
            settings = {
                "models_dir": str(model.folder / "models"),
                "evals_dir": str(model.evals),
                "registry_poll_seconds": 5,
                "hub_poll_seconds": 5,
                "alerts": [tell(model.cluster, receiver.url)],
            }
            yield Installed(sandbox, model, Dagster(install(sandbox, settings, tell=print)), receiver)
    finally:
        sandbox.down(erase=True)


def tell(cluster: Cluster, url: str) -> dict[str, object]:
    """A target of alerts, whose address and key are in a Secret."""
    data = {"url": url, "signing-key": SIGNING_KEY}
    encoded = {name: base64.b64encode(value.encode()).decode() for name, value in data.items()}
    cluster.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "alerts"}, "data": encoded})
    return {
        "name": "on-call",
        "kind": "webhook",
        "url": {"name": "alerts", "key": "url"},
        "signing_key": {"name": "alerts", "key": "signing-key"},
    }
