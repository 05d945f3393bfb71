"""What stands around engines, in a real API server: applied once, changed as declared, and taken away again."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from llmops_sandbox.binaries import find_or_build_kubectl
from llmops_sandbox.controlplane import ControlPlane
from llmops_sandbox.crds import install_crds

from llmops.clients.kubernetes.client import Cluster
from llmops.clients.kubernetes.problems import Conflict
from llmops.config import names
from llmops.config.catalog.spec import ModelSpec
from llmops.config.settings import load_settings
from llmops.errors import ClusterCannot
from llmops.manifests.companions.objects import KINDS
from llmops.manifests.volume import namespace
from llmops.releases.ledger import declaration, terms
from llmops.releases.release import Release
from llmops.rollout.ops.companions import clear_surroundings, leftovers, protect, rehearse, surround
from llmops.rollout.platform import Platform

OPEN = {"exposure": {"kind": "ingress", "host": "tiny.example.com"}, "access": {"api_key": {"name": "k", "key": "k"}}}
ROUTED = OPEN | {"exposure": {"kind": "gateway", "host": "tiny.example.com"}}


def release() -> Release:
    return Release.model_validate(
        {
            "model": "tiny",
            "weights": {"repo": "a/b", "commit": "0" * 40, "files": [{"path": "m.safetensors", "size": 1}]},
            "engine": {"image": "vllm/vllm-openai", "tag": "v0.32.0", "digest": f"sha256:{'0' * 64}"},
            **{name: {} for name in ("gpu", "resources", "evaluation", "rollout", "access")},
            "suites": [],
        }
    )


def entry(**sections: Any) -> ModelSpec:
    base = {"name": "tiny", "weights": {"repo": "a/b"}, "engine": {"version": "0.32.0"}}
    return ModelSpec.model_validate(base | sections)


@pytest.fixture
def platform(plane: ControlPlane, tmp_path: Path, request: pytest.FixtureRequest) -> Platform:
    """An installation in a namespace of the test's own."""
    where = request.node.name.replace("_", "-")[5:60].rstrip("-")
    file = tmp_path / "settings.yaml"
    file.write_text(json.dumps({"kubeconfig": str(plane.kubeconfig), "namespace": where}))
    found = Platform(settings_file=str(file))
    found.cluster.apply(namespace(load_settings(file)))
    return found


def around(cluster: Cluster) -> set[tuple[str, str]]:
    return {(each["kind"], each["metadata"]["name"]) for each in leftovers(cluster, "tiny")}


def test_it_is_applied_once_and_follows_the_entry(platform: Platform) -> None:
    said: list[str] = []
    surround(platform, entry(**OPEN), release(), said.append)
    assert around(platform.cluster) == {("NetworkPolicy", "tiny-engine"), ("Ingress", "tiny")}
    assert sorted(said) == ["Ingress tiny applied", "NetworkPolicy tiny-engine applied"]
    said.clear()
    surround(platform, entry(**OPEN), release(), said.append)
    assert said == []
    surround(platform, entry(**ROUTED), release(), said.append)
    assert around(platform.cluster) == {("NetworkPolicy", "tiny-engine"), ("HTTPRoute", "tiny")}
    assert said == ["HTTPRoute tiny applied", "Ingress tiny removed: it is no longer wanted around tiny"]
    clear_surroundings(platform, "tiny", said.append)
    assert around(platform.cluster) == set()


def test_what_is_not_ours_stays(platform: Platform) -> None:
    """Another model's, and a copy that somebody made with all its labels."""
    cluster = platform.cluster
    surround(platform, entry(**OPEN), release(), print)
    other = entry(**OPEN | {"name": "other", "exposure": {"kind": "ingress", "host": "other.example.com"}})
    surround(platform, other, release().model_copy(update={"model": "other"}), print)
    ours = cluster.get("Ingress", "tiny")
    assert ours is not None
    copy = {key: value for key, value in ours.items() if key != "status"}
    copy["metadata"] = {"name": "mine", "labels": ours["metadata"]["labels"]}
    kubectl(platform, "apply", "-f", "-", given=yaml.safe_dump(copy))
    surround(platform, entry(), release(), print)
    assert cluster.get("Ingress", "tiny") is None
    assert cluster.get("Ingress", "mine") is not None
    assert cluster.get("Ingress", "other") is not None


def kubectl(platform: Platform, *arguments: str, given: str | None = None) -> None:
    settings = platform.settings
    command = [str(find_or_build_kubectl()), "--kubeconfig", str(settings.kubeconfig), "-n", settings.namespace]
    subprocess.run([*command, *arguments], input=given, check=True, text=True)


def test_a_kind_that_the_cluster_lacks_is_told_before_anything_is_done(platform: Platform) -> None:
    cluster = platform.cluster
    cluster.delete("CustomResourceDefinition", "httproutes.gateway.networking.k8s.io", wait=30)
    try:
        with pytest.raises(ClusterCannot) as told:
            rehearse(platform, entry(**ROUTED), release())
        assert "HTTPRoute tiny: the cluster has no kind HTTPRoute of gateway.networking.k8s.io" in str(told.value)
        assert "Install the Gateway API" in told.value.remedy
        assert around(cluster) == set()
        # A cluster without it is no obstacle to a model that asks for none.
        surround(platform, entry(**OPEN), release(), print)
        assert ("Ingress", "tiny") in around(cluster)
    finally:
        install_crds(cluster)


def test_what_somebody_else_owns_is_a_conflict_before_anything_is_done(platform: Platform) -> None:
    surround(platform, entry(**OPEN), release(), print)
    mine = json.dumps({"spec": {"ingressClassName": "mine"}})
    kubectl(platform, "patch", "ingress", "tiny", "--type=merge", "-p", mine)
    with pytest.raises(Conflict, match="ingressClassName"):
        rehearse(platform, entry(**OPEN), release())
    surround(platform, entry(**OPEN), release(), print, force=True)
    rehearse(platform, entry(**OPEN), release())


def test_the_first_engine_finds_its_policy_there(platform: Platform) -> None:
    protect(platform, entry(**OPEN), release())
    assert around(platform.cluster) == {("NetworkPolicy", "tiny-engine")}
    policy = platform.cluster.get("NetworkPolicy", "tiny-engine")
    assert policy is not None
    assert names.RELEASE_LABEL not in policy["metadata"]["labels"]


def test_every_kind_that_stands_around_can_be_looked_for(platform: Platform) -> None:
    assert len(set(KINDS)) == len(KINDS)
    assert list(leftovers(platform.cluster, "nobody")) == []


def test_what_stands_around_is_acted_on_and_gives_a_rejected_release_no_second_chance() -> None:
    assert terms(entry(**OPEN), {}) == terms(entry(access=OPEN["access"]), {})
    assert declaration(entry(**OPEN), {}) != declaration(entry(access=OPEN["access"]), {})
