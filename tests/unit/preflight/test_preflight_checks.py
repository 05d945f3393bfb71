"""The findings before a rollout creates anything, each with its remedy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from llmops.config.catalog.spec import ModelSpec
from llmops.preflight.checks import preflight as all_findings
from llmops.preflight.checks.case import Case, HubAnswer, ImageAnswer
from llmops.preflight.finding import Finding
from llmops.preflight.snapshot import Snapshot
from llmops.releases.release import Release

Make = Callable[..., Any]


def preflight(release: Release, spec: ModelSpec, snapshot: Snapshot) -> tuple[Finding, ...]:
    """Run all checks; the hub and the registry answer well."""
    hub = HubAnswer("http://hub", spec.weights.repo)
    image = ImageAnswer(release.engine.tag, release.engine.digest, release.engine.image, frozenset({"amd64"}))
    return all_findings(Case(spec, snapshot, release, hub, image))


def of(findings: tuple[Finding, ...], subject: str) -> Finding:
    (finding,) = [finding for finding in findings if finding.subject == subject]
    return finding


def test_a_cluster_that_can_take_it(spec: Make, snapshot: Make, release: Make) -> None:
    findings = preflight(release(), spec(), snapshot())
    assert {finding.severity for finding in findings} == {"ok"}
    assert [finding.subject for finding in findings] == [
        "image",
        "hub",
        "engine arguments",
        "nodes",
        "nodes for Jobs",
        "room",
        "GPU memory",
        "quotas",
        "LimitRanges",
        "startup probe",
        "room on volume llmops-weights",
        "device plugin",
        "GPU feature discovery",
        "GPU nodes' taint",
        "volume llmops-weights",
    ]
    assert not any(finding.remedy for finding in findings)


def test_every_error_has_a_remedy(spec: Make, snapshot: Make, release: Make) -> None:
    model = spec(
        access={"api_key": {"name": "key", "key": "k"}}, weights={"repo": "a/b", "token": {"name": "hub", "key": "t"}}
    )
    findings = preflight(release(10**15), model, snapshot(nodes=(), claim=None))
    wrong = [finding for finding in findings if finding.severity != "ok"]
    assert [finding.check for finding in wrong] == [
        "nodes.fitting",
        "nodes.jobs",
        "nodes.room",
        "volume.room",
        "secrets.model",
        "secrets.model",
        "volume.shared",
    ]
    assert all(finding.remedy and finding.message for finding in wrong)


def test_no_node_has_the_product(spec: Make, snapshot: Make, release: Make) -> None:
    model = spec(gpu={"product": "NVIDIA-H100-80GB-HBM3"})
    finding = of(preflight(release(), model, snapshot()), "nodes")
    assert finding.severity == "error"
    assert "2 nodes: has NVIDIA-L40S; 1 node: has no GPU" in finding.message
    assert "NVIDIA-L40S" in finding.remedy
    assert of(preflight(release(), model, snapshot(nodes=())), "nodes").severity == "error"


def test_nodes_that_are_tainted_otherwise(spec: Make, snapshot: Make, release: Make, node: Make) -> None:
    taints = [{"key": "sku", "value": "gpu", "effect": "NoSchedule"}]
    finding = of(preflight(release(), spec(), snapshot(nodes=(node(taints=taints),))), "nodes")
    assert finding.severity == "error"
    assert "sku=gpu:NoSchedule" in finding.message


def test_jobs_need_a_node_without_taints(spec: Make, snapshot: Make, release: Make, node: Make) -> None:
    finding = of(preflight(release(), spec(), snapshot(nodes=(node(),))), "nodes for Jobs")
    assert finding.severity == "error"
    assert "nvidia.com/gpu=present:NoSchedule" in finding.message


def test_no_room(spec: Make, snapshot: Make, release: Make, pod: Make) -> None:
    finding = of(preflight(release(), spec(), snapshot(pods=(pod("gpu-0"), pod("gpu-1")))), "room")
    assert finding.severity == "error"
    assert "1 replica" in finding.message


def test_room_in_place(spec: Make, snapshot: Make, release: Make, pod: Make) -> None:
    pods = (pod("gpu-0", model="tiny"), pod("gpu-1", model="tiny"))
    model = spec(replicas=2)
    finding = of(
        preflight(release(), model, snapshot(pods=pods, stable={"metadata": {}, "spec": {"replicas": 2}})), "room"
    )
    assert finding.severity == "ok"
    assert "in-place" in finding.message


@pytest.mark.parametrize(
    ("size", "gpu", "severity"),
    [
        (141 * 10**9, {"count": 1}, "error"),  # the article's OOM: 70B unquantized on one L40S
        (141 * 10**9, {"count": 4}, "ok"),
        (39_800_000_000, {"count": 1}, "ok"),
        (43_000_000_000, {"count": 1}, "warning"),
        (45_000_000_000, {"count": 1}, "error"),
    ],
)
def test_weights_have_to_fit_the_gpus(
    spec: Make, snapshot: Make, release: Make, node: Make, size: int, gpu: dict[str, Any], severity: str
) -> None:
    findings = preflight(release(size), spec(gpu=gpu), snapshot(nodes=(node("gpu-0", 8),)))
    assert of(findings, "GPU memory").severity == severity


def test_gpu_memory_is_the_smallest_nodes_or_else_the_specs(
    spec: Make, snapshot: Make, release: Make, node: Make
) -> None:
    model = spec(gpu={"count": 1, "memory": "24Gi"})
    unlabelled = node(labels={"nvidia.com/gpu.memory": ""})
    assert of(preflight(release(30 * 10**9), model, snapshot(nodes=(unlabelled,))), "GPU memory").severity == "error"
    small = node("gpu-1", labels={"nvidia.com/gpu.memory": "23028"})
    mixed = snapshot(nodes=(node("gpu-0"), small))
    assert of(preflight(release(30 * 10**9), spec(), mixed), "GPU memory").severity == "error"
    unknown = preflight(release(30 * 10**9), spec(), snapshot(nodes=(unlabelled,)))
    assert not [finding for finding in unknown if finding.subject == "GPU memory"]


def test_the_share_of_memory_is_the_specs(spec: Make, snapshot: Make, release: Make) -> None:
    engine = {"version": "0.32.0", "options": {"gpu_memory_utilization": 0.5}}
    assert of(preflight(release(30 * 10**9), spec(engine=engine), snapshot()), "GPU memory").severity == "error"
    assert of(preflight(release(30 * 10**9), spec(), snapshot()), "GPU memory").severity == "ok"


def claim(modes: list[str], phase: str = "Bound", storage: str = "500Gi") -> dict[str, Any]:
    return {
        "spec": {"accessModes": modes, "resources": {"requests": {"storage": storage}}},
        "status": {"phase": phase, "capacity": {"storage": storage}} if phase == "Bound" else {"phase": phase},
    }


@pytest.mark.parametrize(
    ("existing", "shared", "room"),
    [
        (claim(["ReadWriteMany"]), "ok", "ok"),
        (claim(["ReadOnlyMany"]), "error", "ok"),  # the article's claim: the Job can't write to it
        (claim(["ReadWriteOnce"]), "error", "ok"),
        (claim(["ReadWriteMany"], "Lost"), "error", "ok"),
        (claim(["ReadWriteMany"], "Pending"), "warning", "ok"),
        (claim(["ReadWriteMany"], storage="2G"), "ok", "warning"),  # rollout.keep_weights asks for more
        (claim(["ReadWriteMany"], storage="1500M"), "ok", "warning"),
        (claim(["ReadWriteMany"], storage="900M"), "ok", "error"),
    ],
)
def test_the_volume(
    spec: Make, snapshot: Make, release: Make, existing: dict[str, Any], shared: str, room: str
) -> None:
    findings = preflight(release(), spec(), snapshot(claim=existing))
    assert of(findings, "volume llmops-weights").severity == shared
    assert of(findings, "room on volume llmops-weights").severity == room


def storage_class(name: str, default: bool) -> dict[str, Any]:
    key = "storageclass.kubernetes.io/is-default-class"
    annotations = {key: "true"} if default else {}
    return {"metadata": {"name": name, "annotations": annotations}, "provisioner": "nfs.csi.k8s.io"}


@pytest.mark.parametrize(
    ("settings", "classes", "shared", "room"),
    [
        ({}, [("nfs", True)], "ok", "ok"),
        ({}, [("nfs", False)], "warning", "ok"),
        ({"storage_class": "nfs"}, [("nfs", False)], "ok", "ok"),
        ({"storage_class": "efs"}, [("nfs", True)], "error", "ok"),
        ({"storage": "500M"}, [("nfs", True)], "ok", "error"),
    ],
)
def test_a_volume_that_llmops_will_create(
    spec: Make,
    snapshot: Make,
    release: Make,
    settings: dict[str, str],
    classes: list[tuple[str, bool]],
    shared: str,
    room: str,
) -> None:
    before = snapshot(claim=None, settings=settings, storage_classes=[storage_class(*args) for args in classes])
    findings = preflight(release(), spec(), before)
    assert of(findings, "volume llmops-weights").severity == shared
    assert of(findings, "room on volume llmops-weights").severity == room


def test_secrets(spec: Make, snapshot: Make, release: Make) -> None:
    model = spec(
        access={"api_key": {"name": "key", "key": "api-key"}},
        weights={"repo": "a/b", "token": {"name": "hub", "key": "token"}},
    )
    whole = {"key": frozenset({"api-key"}), "hub": frozenset({"token", "other"})}
    findings = preflight(release(), model, snapshot(secrets=whole))
    assert of(findings, "Secret key/api-key").severity == "ok"
    assert of(findings, "Secret hub/token").severity == "ok"
    findings = preflight(release(), model, snapshot(secrets={"hub": frozenset({"other"})}))
    assert "access.api_key" in of(findings, "Secret key/api-key").message
    missing = of(findings, "Secret hub/token")
    assert "no key token" in missing.message
    assert missing.remedy == "Add token under stringData: kubectl -n llm-serving edit secret hub"
