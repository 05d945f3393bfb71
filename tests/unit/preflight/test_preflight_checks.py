"""What is found before anything is made, each with its remedy."""

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
    """With a hub and a registry that answer well."""
    hub = HubAnswer("http://hub", spec.weights.repo)
    image = ImageAnswer(release.engine.tag, release.engine.digest, release.engine.image, frozenset({"amd64"}))
    return all_findings(Case(spec, snapshot, release, hub, image))


def of(findings: tuple[Finding, ...], subject: str) -> Finding:
    (found,) = [each for each in findings if each.subject == subject]
    return found


def test_a_cluster_that_can_take_it(spec: Make, snapshot: Make, release: Make) -> None:
    findings = preflight(release(), spec(), snapshot())
    assert {each.severity for each in findings} == {"ok"}
    assert [each.subject for each in findings] == [
        "image",
        "hub",
        "nodes",
        "nodes for Jobs",
        "room",
        "GPU memory",
        "startup probe",
        "room on volume llmops-weights",
        "device plugin",
        "GPU feature discovery",
        "GPU nodes' taint",
        "volume llmops-weights",
    ]
    assert not any(each.remedy for each in findings)


def test_every_error_has_a_remedy(spec: Make, snapshot: Make, release: Make) -> None:
    model = spec(
        access={"api_key": {"name": "key", "key": "k"}}, weights={"repo": "a/b", "token": {"name": "hub", "key": "t"}}
    )
    findings = preflight(release(10**15), model, snapshot(nodes=(), claim=None))
    wrong = [each for each in findings if each.severity != "ok"]
    assert [each.check for each in wrong] == [
        "nodes.fitting",
        "nodes.jobs",
        "nodes.room",
        "volume.room",
        "secrets.model",
        "secrets.model",
        "volume.shared",
    ]
    assert all(each.remedy and each.message for each in wrong)


def test_no_node_has_the_product(spec: Make, snapshot: Make, release: Make) -> None:
    model = spec(gpu={"product": "NVIDIA-H100-80GB-HBM3"})
    found = of(preflight(release(), model, snapshot()), "nodes")
    assert found.severity == "error"
    assert found.message == "no node can take a replica: 2 nodes: has NVIDIA-L40S; 1 node: has no GPU"
    assert "the cluster has NVIDIA-L40S" in found.remedy
    assert of(preflight(release(), model, snapshot(nodes=())), "nodes").message.endswith("there is none")


def test_nodes_that_are_tainted_otherwise(spec: Make, snapshot: Make, release: Make, node: Make) -> None:
    taints = [{"key": "sku", "value": "gpu", "effect": "NoSchedule"}]
    found = of(preflight(release(), spec(), snapshot(nodes=(node(taints=taints),))), "nodes")
    assert found.severity == "error"
    assert "sku=gpu:NoSchedule" in found.message


def test_jobs_need_a_node_without_taints(spec: Make, snapshot: Make, release: Make, node: Make) -> None:
    found = of(preflight(release(), spec(), snapshot(nodes=(node(),))), "nodes for Jobs")
    assert found.severity == "error"
    assert found.message == "no node can take a Job: 1 node: has the taint nvidia.com/gpu=present:NoSchedule"


def test_no_room(spec: Make, snapshot: Make, release: Make, pod: Make) -> None:
    found = of(preflight(release(), spec(), snapshot(pods=(pod("gpu-0"), pod("gpu-1")))), "room")
    assert found.severity == "error"
    assert "needs room for 1 replica" in found.message


def test_room_in_place(spec: Make, snapshot: Make, release: Make, pod: Make) -> None:
    pods = (pod("gpu-0", model="tiny"), pod("gpu-1", model="tiny"))
    model = spec(replicas=2)
    found = of(
        preflight(release(), model, snapshot(pods=pods, stable={"metadata": {}, "spec": {"replicas": 2}})), "room"
    )
    assert (found.severity, found.message) == (
        "ok",
        "room for 0 more replicas now: in-place, stable lends a replica to the canary",
    )


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
    assert not [each for each in unknown if each.subject == "GPU memory"]


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
    ("found", "severity", "words"),
    [
        (claim(["ReadWriteMany"]), "ok", "500Gi; the weights are 1.0 GB"),
        (claim(["ReadOnlyMany"]), "error", "is ReadOnlyMany"),  # the article's claim: the Job can't write to it
        (claim(["ReadWriteOnce"]), "error", "pods on several nodes"),
        (claim(["ReadWriteMany"], "Lost"), "error", "has lost its volume"),
        (claim(["ReadWriteMany"], "Pending"), "warning", "is Pending: no volume is bound to it"),
        (claim(["ReadWriteMany"], storage="2G"), "ok", "is Bound"),
        (claim(["ReadWriteMany"], storage="1500M"), "warning", "no room for the next release"),
        (claim(["ReadWriteMany"], storage="900M"), "error", "the weights are 1.0 GB"),
    ],
)
def test_the_volume(
    spec: Make, snapshot: Make, release: Make, found: dict[str, Any], severity: str, words: str
) -> None:
    subject = f"{'room on ' if 'weights are' in words or 'no room' in words else ''}volume llmops-weights"
    finding = of(preflight(release(), spec(), snapshot(claim=found)), subject)
    assert finding.severity == severity
    assert words in finding.message


def storage_class(name: str, default: bool) -> dict[str, Any]:
    key = "storageclass.kubernetes.io/is-default-class"
    annotations = {key: "true"} if default else {}
    return {"metadata": {"name": name, "annotations": annotations}, "provisioner": "nfs.csi.k8s.io"}


@pytest.mark.parametrize(
    ("settings", "classes", "severity", "words"),
    [
        ({}, [("nfs", True)], "ok", "will be made in storage class nfs"),
        ({}, [("nfs", False)], "warning", "no storage class is the default"),
        ({"storage_class": "nfs"}, [("nfs", False)], "ok", "in storage class nfs"),
        ({"storage_class": "efs"}, [("nfs", True)], "error", "neither is storage class efs"),
        ({"storage": "500M"}, [("nfs", True)], "error", "500M; the weights are 1.0 GB"),
    ],
)
def test_a_volume_that_is_to_be_made(
    spec: Make,
    snapshot: Make,
    release: Make,
    settings: dict[str, str],
    classes: list[tuple[str, bool]],
    severity: str,
    words: str,
) -> None:
    before = snapshot(claim=None, settings=settings, storage_classes=[storage_class(*each) for each in classes])
    subject = f"{'room on ' if 'weights are' in words else ''}volume llmops-weights"
    finding = of(preflight(release(), spec(), before), subject)
    assert finding.severity == severity
    assert words in finding.message


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
    assert of(findings, "Secret key/api-key").message == "is not there; access.api_key names it"
    missing = of(findings, "Secret hub/token")
    assert missing.message == "has no key token; weights.token names it"
    assert missing.remedy == "kubectl -n llm-serving create secret generic hub --from-file=token=FILE"
