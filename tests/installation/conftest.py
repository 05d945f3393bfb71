"""One sandbox with llmops installed in it, for all tests of a file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from llmops.cluster.client import Cluster
from llmops.sandbox.installing import NAMESPACE, install
from llmops.sandbox.sandbox import Sandbox
from llmops.settings import load_settings
from tests.installation.dagster_ui import Dagster
from tests.stages.world import NODES, Model, new_model


@dataclass(frozen=True)
class Installed:
    """llmops on a cluster, and a model in its catalog that is not yet rolled out."""

    sandbox: Sandbox
    model: Model
    dagster: Dagster

    @property
    def cluster(self) -> Cluster:
        """The orchestrator's namespace, as the administrator sees it."""
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
        with new_model(sandbox, folder / "model") as model:
            catalog = {"models_dir": str(model.folder / "models"), "evals_dir": str(model.evals)}
            yield Installed(sandbox, model, Dagster(install(sandbox, catalog, tell=print)))
    finally:
        sandbox.down(erase=True)
