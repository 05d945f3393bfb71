"""One control plane and one agent for all tests of the agent; each test has a namespace of its own."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from sandbox.tests.agent.agent_machine import NODES, Cluster, Machine, eventually


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    found = Machine(tmp_path_factory.mktemp("machine"))
    (found.folder / "nodes.yaml").write_text(NODES)
    found.images.add("python", "3", ("{python}",))
    try:
        found.plane.up()
        found.start_agent()
        yield found
    finally:
        found.agent.stop(grace=20)
        found.plane.down()


@pytest.fixture
def cluster(machine: Machine) -> Iterator[Cluster]:
    found = Cluster(machine, f"t-{secrets.token_hex(4)}")
    found.request("POST", "/api/v1/namespaces", {"metadata": {"name": found.namespace}})
    eventually(lambda: found.exists("serviceaccounts", "default"))
    yield found
    for kind in ("deployments", "jobs"):
        for each in found.list(kind):
            found.delete(kind, each["metadata"]["name"])
    for each in found.list("pods"):
        found.delete("pods", each["metadata"]["name"], grace=0)
    found.request("DELETE", f"/api/v1/namespaces/{found.namespace}")
