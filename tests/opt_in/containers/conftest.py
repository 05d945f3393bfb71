"""A node with real containers, which `python -m llmops_sandbox.containers run` starts. Run by `make e2e-containers`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from llmops_sandbox.sandbox import Sandbox

from llmops.clients.kubernetes.client import Cluster
from llmops.config.settings import load_settings


@pytest.fixture(scope="session")
def node() -> Sandbox:
    """The node's files, hub and settings."""
    folder = os.environ.get("LLMOPS_CONTAINERS")
    if not folder:
        pytest.fail(
            "no node with containers runs beside these tests. Start them with `make e2e-containers` (root, Linux), or "
            "with `python -m llmops_sandbox.containers run .venv/bin/pytest tests/opt_in/containers`.",
            pytrace=False,
        )
    return Sandbox(Path(folder), project=Path.cwd())


@pytest.fixture(scope="session")
def probe(node: Sandbox) -> Cluster:
    """A namespace for pods that are not of llmops."""
    settings = load_settings(node.settings_file).model_copy(update={"namespace": "probe"})
    cluster = Cluster.connect(settings)
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "probe"}})
    return cluster
