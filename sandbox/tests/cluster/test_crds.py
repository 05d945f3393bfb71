"""The operators' definitions: their content, and that a real API server accepts them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from llmops_sandbox.cluster.binaries import find_or_build
from llmops_sandbox.cluster.controlplane import ControlPlane
from llmops_sandbox.cluster.crds import FOLDER, definitions, install_crds, schema

from llmops.clients.kubernetes.client import Cluster
from llmops.clients.kubernetes.kinds import KINDS
from llmops.clients.kubernetes.problems import Invalid
from llmops.config.settings import Settings


def test_every_definition_is_of_a_kind_that_the_client_knows_at_its_version() -> None:
    for definition in definitions():
        spec = definition["spec"]
        kind = KINDS[spec["names"]["kind"]]
        assert (kind.group, kind.plural) == (spec["group"], spec["names"]["plural"])
        assert kind.namespaced == (spec["scope"] == "Namespaced")
        version = kind.api.rpartition("/")[2]
        assert [declared["served"] for declared in spec["versions"] if declared["name"] == version] == [True]
        assert schema(definition, version)["type"] == "object"


def test_there_is_a_definition_for_every_kind_of_another_project() -> None:
    ours = {definition["spec"]["group"] for definition in definitions()}
    assert ours == {"gateway.networking.k8s.io", "monitoring.coreos.com", "keda.sh", "cert-manager.io"}
    assert {definition["spec"]["names"]["kind"] for definition in definitions()} == {
        kind.name for kind in KINDS.values() if kind.group in ours
    }


def test_where_each_comes_from_stands_beside_it() -> None:
    notes = (FOLDER / "README.md").read_text()
    for path in FOLDER.glob("*.yaml"):
        module, version = path.read_text().splitlines()[0].removeprefix("# ").split(",")[0].split()
        assert module in notes
        assert version in notes


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    plane = ControlPlane(tmp_path_factory.mktemp("plane"), find_or_build())
    try:
        plane.up()
        yield Cluster.connect(Settings.model_validate({"kubeconfig": str(plane.kubeconfig), "namespace": "default"}))
    finally:
        plane.down()


def test_they_are_installed_once_and_judge_what_comes(cluster: Cluster) -> None:
    assert len(install_crds(cluster)) == len(definitions())
    before = [crd["metadata"]["generation"] for crd in cluster.list("CustomResourceDefinition")]
    install_crds(cluster)
    assert before == [crd["metadata"]["generation"] for crd in cluster.list("CustomResourceDefinition")]
    route: dict[str, Any] = {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "route", "namespace": "default"},
        "spec": {"hostnames": ["x.example.com"], "rules": [{"backendRefs": [{"name": "x", "port": 8000}]}]},
    }
    cluster.apply(route, dry_run=True)
    route["spec"]["rules"][0]["backendRefs"][0]["weight"] = -1
    with pytest.raises(Invalid, match="weight"):
        cluster.apply(route, dry_run=True)
