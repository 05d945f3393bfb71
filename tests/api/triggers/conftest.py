"""A world for each test of the triggers."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from llmops_sandbox.cluster.controlplane import ControlPlane
from llmops_sandbox.standins.hub import HubServer, HubStore
from llmops_sandbox.standins.images import ImageStore
from llmops_sandbox.standins.registry import RegistryServer
from llmops_sandbox.standins.standin import in_thread

from llmops.clients.kubernetes.client import Cluster
from llmops.config.settings import Settings
from tests.support.triggers_world import World


@pytest.fixture
def world(plane: ControlPlane, tmp_path: Path) -> Iterator[World]:
    """Registry, hub, cluster and Dagster instance; no model yet."""
    images, store = ImageStore(tmp_path / "images.json"), HubStore(tmp_path / "hub")
    with (
        in_thread(RegistryServer(images, credentials={"ada": "secret"}, private=["acme/private"])) as registry,
        in_thread(HubServer(store)) as hub,
        dg.instance_for_test() as instance,
    ):
        settings = Settings.model_validate({
            "kubeconfig": str(plane.kubeconfig),
            "namespace": f"t-{secrets.token_hex(4)}",
            "hub_endpoint": hub.url,
            "registry_mirrors": {"docker.io": registry.url, "ghcr.io": registry.url, "quay.io": registry.url},
            "models_dir": str(tmp_path / "models"),
            "evals_dir": str(tmp_path / "evals"),
        })  # fmt: skip
        cluster = Cluster.connect(settings)
        cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": settings.namespace}})
        made = World(cluster, settings, images, registry, store, hub, instance, time.time())
        made.write_suite("sums")
        yield made
