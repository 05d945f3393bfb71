"""One control plane and one agent for all tests of the agent; each test has its own namespace."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from sandbox.tests.agent.agent_machine import NODES, Cluster, Machine, eventually


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    machine = Machine(tmp_path_factory.mktemp("machine"))
    (machine.folder / "nodes.yaml").write_text(NODES)
    machine.images.add("python", "3", ("{python}",))
    try:
        machine.plane.up()
        machine.start_agent()
        yield machine
    finally:
        machine.agent.stop(grace=20)
        machine.plane.down()


@pytest.fixture
def cluster(machine: Machine) -> Iterator[Cluster]:
    cluster = Cluster(machine, f"t-{secrets.token_hex(4)}")
    cluster.request("POST", "/api/v1/namespaces", {"metadata": {"name": cluster.namespace}})
    eventually(lambda: cluster.exists("serviceaccounts", "default"))
    yield cluster
    for kind in ("deployments", "jobs"):
        for item in cluster.list(kind):
            cluster.delete(kind, item["metadata"]["name"])
    for pod in cluster.list("pods"):
        cluster.delete("pods", pod["metadata"]["name"], grace=0)
    cluster.request("DELETE", f"/api/v1/namespaces/{cluster.namespace}")
