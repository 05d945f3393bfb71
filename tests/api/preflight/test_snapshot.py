"""A snapshot of a real API server."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llmops.clients.kubernetes.client import Cluster
from llmops.config.catalog.spec import ModelSpec
from llmops.config.settings import Settings
from llmops.manifests.volume import claim, namespace
from llmops.preflight.checks import preflight
from llmops.preflight.checks.case import Case, HubAnswer, ImageAnswer
from llmops.preflight.finding import Finding
from llmops.preflight.snapshot import Snapshot, survey
from llmops.releases.release import Release
from tests.support.planes import control_plane

Make = Callable[..., Any]


def findings(snapshot: Snapshot, spec: ModelSpec, release: Release) -> tuple[Finding, ...]:
    """With a hub and a registry that answer well."""
    hub = HubAnswer("http://hub", spec.weights.repo)
    image = ImageAnswer(release.engine.tag, release.engine.digest, release.engine.image, frozenset({"amd64"}))
    return preflight(Case(spec, snapshot, release, hub, image))


def join(cluster: Cluster, node: dict[str, Any]) -> None:
    """Let a node join, and wait until the controller removes its not-ready taint."""
    name: str = node["metadata"]["name"]
    labels = node["metadata"]["labels"]
    cluster.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}})
    status = node["status"] | {"capacity": node["status"]["allocatable"]}
    cluster.patch("Node", name, {"status": status}, subresource="status")
    deadline = time.monotonic() + 30
    while (joined := cluster.get("Node", name)) is None or joined["spec"].get("taints"):
        assert time.monotonic() < deadline, joined
        time.sleep(0.1)


def test_a_snapshot_of_a_real_cluster(
    tmp_path: Path, node: Make, pod: Make, spec: Make, release: Callable[[], Release]
) -> None:
    """Its own plane: pending pods in the shared one would take its nodes."""
    with control_plane(tmp_path) as plane:
        settings = Settings.model_validate({"kubeconfig": str(plane.kubeconfig), "namespace": "serving"})
        cluster = Cluster.connect(settings)
        cluster.apply(namespace(settings))
        cluster.apply(claim(settings))
        value = base64.b64encode(b"hf_secret").decode()
        secret = {"metadata": {"name": "hub", "namespace": "serving"}, "data": {"token": value}}
        cluster.create({"apiVersion": "v1", "kind": "Secret", **secret})
        join(cluster, node("gpu-0"))
        join(cluster, node("cpu-0", 0))
        model = spec(
            access={"api_key": {"name": "key", "key": "k"}},
            weights={"repo": "acme/tiny", "token": {"name": "hub", "key": "token"}},
        )
        seen = survey(cluster, settings, [model])
        assert {obj["metadata"]["name"] for obj in seen.nodes} == {"gpu-0", "cpu-0"}
        assert seen.stable == {}
        assert seen.unseen == {}
        assert seen.claim is not None
        assert "system-node-critical" in {obj["metadata"]["name"] for obj in seen.priority_classes}
        assert seen.secrets == {"hub": frozenset({"token"})}
        assert "hf_secret" not in repr(seen)
        assert value not in repr(seen)
        wrong = {finding.subject for finding in findings(seen, model, release()) if finding.severity == "error"}
        assert wrong == {"Secret key/k"}

        # A pod of another namespace takes the one GPU.
        taking = pod("gpu-0")
        taking["spec"]["containers"][0] |= {"name": "main", "image": "a/b"}
        taking["spec"]["containers"][0]["resources"]["limits"] = {"nvidia.com/gpu": "1"}
        taking["spec"]["automountServiceAccountToken"] = False
        taking["metadata"]["namespace"] = "default"
        del taking["status"]
        deadline = time.monotonic() + 30
        while cluster.get("ServiceAccount", "default", namespace="default") is None:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        cluster.create({"apiVersion": "v1", "kind": "Pod", **taking})
        full = findings(survey(cluster, settings, [model]), model, release())
        assert {finding.subject for finding in full if finding.severity == "error"} == {"Secret key/k", "room"}
