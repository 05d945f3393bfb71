"""The companions of engines on a real API server: applied once, changed with the entry, removed."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from llmops_sandbox.cluster.binaries import find_or_build_kubectl
from llmops_sandbox.cluster.controlplane import ControlPlane
from llmops_sandbox.cluster.crds import install_crds

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
from llmops.rollout.ops.companions import (
    applied_companions,
    apply_companions,
    apply_network_policies,
    dry_run_companions,
    remove_companions,
)
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
    """An installation in a namespace of the test."""
    name = request.node.name.replace("_", "-")[5:60].rstrip("-")
    file = tmp_path / "settings.yaml"
    file.write_text(json.dumps({"kubeconfig": str(plane.kubeconfig), "namespace": name}))
    platform = Platform(settings_file=str(file))
    platform.cluster.apply(namespace(load_settings(file)))
    return platform


def companions(cluster: Cluster) -> set[tuple[str, str]]:
    return {(companion["kind"], companion["metadata"]["name"]) for companion in applied_companions(cluster, "tiny")}


def test_companions_are_applied_once_and_follow_the_entry(platform: Platform) -> None:
    log: list[str] = []
    apply_companions(platform, entry(**OPEN), release(), log.append)
    assert companions(platform.cluster) == {("NetworkPolicy", "tiny-engine"), ("Ingress", "tiny")}
    assert sorted(log) == ["Ingress tiny applied", "NetworkPolicy tiny-engine applied"]
    log.clear()
    apply_companions(platform, entry(**OPEN), release(), log.append)
    assert log == []
    apply_companions(platform, entry(**ROUTED), release(), log.append)
    assert companions(platform.cluster) == {("NetworkPolicy", "tiny-engine"), ("HTTPRoute", "tiny")}
    assert log == ["HTTPRoute tiny applied", "Ingress tiny removed: tiny no longer needs it"]
    remove_companions(platform, "tiny", log.append)
    assert companions(platform.cluster) == set()


def test_companions_of_others_stay(platform: Platform) -> None:
    """Others: another model's companions, and a person's copy with the same labels."""
    cluster = platform.cluster
    apply_companions(platform, entry(**OPEN), release(), print)
    other = entry(**OPEN | {"name": "other", "exposure": {"kind": "ingress", "host": "other.example.com"}})
    apply_companions(platform, other, release().model_copy(update={"model": "other"}), print)
    ours = cluster.get("Ingress", "tiny")
    assert ours is not None
    copy = {key: value for key, value in ours.items() if key != "status"}
    copy["metadata"] = {"name": "mine", "labels": ours["metadata"]["labels"]}
    kubectl(platform, "apply", "-f", "-", given=yaml.safe_dump(copy))
    apply_companions(platform, entry(), release(), print)
    assert cluster.get("Ingress", "tiny") is None
    assert cluster.get("Ingress", "mine") is not None
    assert cluster.get("Ingress", "other") is not None


def kubectl(platform: Platform, *arguments: str, given: str | None = None) -> None:
    settings = platform.settings
    command = [str(find_or_build_kubectl()), "--kubeconfig", str(settings.kubeconfig), "-n", settings.namespace]
    subprocess.run([*command, *arguments], input=given, check=True, text=True)


def test_the_dry_run_reports_a_kind_that_the_cluster_lacks(platform: Platform) -> None:
    cluster = platform.cluster
    cluster.delete("CustomResourceDefinition", "httproutes.gateway.networking.k8s.io", wait=30)
    try:
        with pytest.raises(ClusterCannot) as refused:
            dry_run_companions(platform, entry(**ROUTED), release())
        assert (refused.value.code, refused.value.about) == ("KindNotServed", "HTTPRoute tiny")
        assert "gateway.networking.k8s.io" in refused.value.message
        assert companions(cluster) == set()
        # A model without an HTTPRoute does not need the kind.
        apply_companions(platform, entry(**OPEN), release(), print)
        assert ("Ingress", "tiny") in companions(cluster)
    finally:
        install_crds(cluster)


def test_the_dry_run_reports_a_field_of_another_manager(platform: Platform) -> None:
    apply_companions(platform, entry(**OPEN), release(), print)
    mine = json.dumps({"spec": {"ingressClassName": "mine"}})
    kubectl(platform, "patch", "ingress", "tiny", "--type=merge", "-p", mine)
    with pytest.raises(Conflict) as conflict:
        dry_run_companions(platform, entry(**OPEN), release())
    assert conflict.value.fields == (".spec.ingressClassName",)
    apply_companions(platform, entry(**OPEN), release(), print, force=True)
    dry_run_companions(platform, entry(**OPEN), release())


def test_network_policies_can_be_applied_alone(platform: Platform) -> None:
    apply_network_policies(platform, entry(**OPEN), release())
    assert companions(platform.cluster) == {("NetworkPolicy", "tiny-engine")}
    policy = platform.cluster.get("NetworkPolicy", "tiny-engine")
    assert policy is not None
    assert names.RELEASE_LABEL not in policy["metadata"]["labels"]


def test_every_kind_of_companion_can_be_listed(platform: Platform) -> None:
    assert len(set(KINDS)) == len(KINDS)
    assert list(applied_companions(platform.cluster, "nobody")) == []


def test_companions_count_in_the_declaration_but_not_in_the_terms_of_a_rejection() -> None:
    assert terms(entry(**OPEN), {}) == terms(entry(access=OPEN["access"]), {})
    assert declaration(entry(**OPEN), {}) != declaration(entry(access=OPEN["access"]), {})
