"""A sandbox with the Gateway API's kinds, a real Prometheus and an exposed model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from llmops_sandbox.cluster.crds import install_crds
from llmops_sandbox.monitoring import install_prometheus
from llmops_sandbox.sandbox import Sandbox

from llmops.clients.kubernetes.client import Cluster
from llmops.config.settings import load_settings
from tests.support.planes import sandbox_at
from tests.support.world import Model, new_model

API_KEY = "a key of the test"
KEY_SECRET = "engine-key"


@pytest.fixture(scope="session")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """A sandbox for this folder alone: Prometheus scrapes its engines each second."""
    with sandbox_at(tmp_path_factory.mktemp("sandbox")) as started:
        yield started


@pytest.fixture(scope="session")
def prometheus(sandbox: Sandbox) -> str:
    """Base URL of a Prometheus that scrapes the sandbox's engines each second."""
    cluster = Cluster.connect(load_settings(sandbox.settings_file))
    install_crds(cluster)
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": KEY_SECRET}, "stringData": {"key": API_KEY}}
    cluster.apply(secret)
    listener = {"name": "https", "port": 443, "protocol": "HTTPS", "tls": {"certificateRefs": [{"name": "tls"}]}}
    made = cluster.apply({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": {"name": "gateway"},
        "spec": {"gatewayClassName": "of-the-test", "listeners": [listener]},
    })  # fmt: skip
    # The condition that a controller sets on a Gateway that it serves.
    accepted = {"type": "Accepted", "status": "True", "reason": "Accepted", "message": "",
                "lastTransitionTime": made["metadata"]["creationTimestamp"]}  # fmt: skip
    cluster.patch("Gateway", "gateway", {"status": {"conditions": [accepted]}}, subresource="status")
    return install_prometheus(sandbox, cluster)


STEPS = [{"percent": 25, "bake_seconds": 6}, {"percent": 100, "bake_seconds": 6}]


@pytest.fixture
def model(sandbox: Sandbox, prometheus: str, tmp_path: Path) -> Iterator[Model]:
    """An exposed model of two replicas, ready to roll out; a rollout moves 25, then 100 percent of its users."""
    with new_model(sandbox, tmp_path) as prepared:
        settings = json.loads(prepared.settings_file.read_text())
        prepared.settings_file.write_text(json.dumps(settings | {"monitoring": {"prometheus_url": prometheus}}))
        prepared.declare(**entry(STEPS))
        prepared.commit(ttft_ms=60)
        yield prepared


def entry(steps: list[dict[str, Any]], **traffic: Any) -> dict[str, Any]:
    """The fields of its entry."""
    rules = {"steps": steps, "interval_seconds": 2, "min_requests": 20, "wait_seconds": 20} | traffic
    return {
        "replicas": 2,
        "evaluation": {"suites": ["sums"], "gates": []},
        "access": {"api_key": {"name": KEY_SECRET, "key": "key"}},
        "exposure": {"kind": "gateway", "host": "models.example.com"},
        "traffic": rules,
        # On a busy machine the test's gateway takes this long to see new weights.
        "rollout": {"unroute_seconds": 4},
    }
