"""Findings on weights outside the shared volume."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from llmops.preflight.checks import preflight
from llmops.preflight.checks.case import Case, HubAnswer, ImageAnswer
from llmops.preflight.finding import Finding

Make = Callable[..., Any]
INIT = {"repo": "acme/tiny", "strategy": "init"}
IMAGE = {"repo": "acme/tiny", "strategy": "image", "image": {"repository": "r.example/weights", "tag": "1"}}


def findings(spec: Any, snapshot: Any, release: Any) -> tuple[Finding, ...]:
    image = ImageAnswer(release.engine.tag, release.engine.digest, release.engine.image, frozenset({"amd64"}))
    return preflight(Case(spec, snapshot, release, HubAnswer("http://hub", spec.weights.repo), image))


def weights(findings: tuple[Finding, ...]) -> Finding:
    (finding,) = [finding for finding in findings if finding.check.startswith("weights.")]
    return finding


def test_several_pods_that_download_at_once_are_a_warning(spec: Make, snapshot: Make, release: Make) -> None:
    one = weights(findings(spec(weights=INIT), snapshot(), release()))
    several = weights(findings(spec(weights=INIT, replicas=3), snapshot(), release()))
    assert (one.severity, several.severity) == ("ok", "warning")
    assert "3 pods at once" in several.message
    assert "strategy volume" in several.remedy


def test_a_disk_that_is_too_small_for_a_copy_is_an_error(spec: Make, snapshot: Make, release: Make, node: Make) -> None:
    small = node(allocatable={"ephemeral-storage": "10Gi"})
    finding = weights(findings(spec(weights=INIT), snapshot(nodes=(small,)), release(20 * 10**9)))
    assert (finding.severity, finding.check) == ("error", "weights.own-copies")


@pytest.mark.parametrize(
    ("kubelet", "runtime", "severity"),
    [
        ("v1.37.2", "containerd://2.1.4", "ok"),
        ("v1.35.0", "cri-o://1.35.0", "ok"),
        ("v1.34.1-eks-1", "containerd://2.1.4", "warning"),
        ("v1.32.9", "containerd://2.1.4", "error"),
        ("v1.36.0", "containerd://1.7.28", "error"),
    ],
)
def test_nodes_that_cannot_mount_images_are_found(
    spec: Make, snapshot: Make, release: Make, node: Make, kubelet: str, runtime: str, severity: str
) -> None:
    worker = node()
    worker["status"]["nodeInfo"] = {"kubeletVersion": kubelet, "containerRuntimeVersion": runtime}
    assert weights(findings(spec(weights=IMAGE), snapshot(nodes=(worker,)), release())).severity == severity


@pytest.mark.parametrize(
    ("path", "runtime", "severity"),
    [
        ("/", "containerd://2.1.5", "ok"),
        ("/model", "containerd://2.1.5", "error"),
        ("/weights/v2", "containerd://2.1.0-rc.1", "error"),
        ("/model", "containerd://2.2.0", "ok"),
    ],
)
def test_a_folder_of_an_image_needs_a_newer_runtime_than_the_whole_image(
    spec: Make, snapshot: Make, release: Make, node: Make, path: str, runtime: str, severity: str
) -> None:
    worker = node()
    worker["status"]["nodeInfo"] = {"kubeletVersion": "v1.37.2", "containerRuntimeVersion": runtime}
    source = {**IMAGE, "image": {"repository": "r.example/weights", "tag": "1", "path": path}}
    finding = weights(findings(spec(weights=source), snapshot(nodes=(worker,)), release()))
    assert finding.severity == severity
    assert severity == "ok" or "containerd 2.2" in finding.message


@pytest.mark.parametrize("strategy", [INIT, IMAGE])
def test_no_volume_is_asked_for_where_none_is_used(
    spec: Make, snapshot: Make, release: Make, strategy: dict[str, Any]
) -> None:
    without_volume = findings(spec(weights=strategy), snapshot(claim=None, storage_classes=()), release())
    assert not [finding for finding in without_volume if "volume llmops-weights" in finding.subject]
