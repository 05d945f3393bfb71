from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from llmops.config.catalog.spec import ModelSpec
from llmops.config.settings import Settings
from llmops.preflight.snapshot import Snapshot
from llmops.releases.release import Release

GPU = "nvidia.com/gpu"

MakeNode = Callable[..., dict[str, Any]]
MakePod = Callable[..., dict[str, Any]]
MakeSpec = Callable[..., ModelSpec]


def make_node(name: str = "gpu-0", gpus: int = 1, *, product: str = "NVIDIA-L40S", **changes: Any) -> dict[str, Any]:
    labels = {"kubernetes.io/arch": "amd64"}
    if gpus:
        labels |= {
            "nvidia.com/gpu.product": product,
            "nvidia.com/gpu.memory": "46068",
            "nvidia.com/gpu.count": str(gpus),
        }
    allocatable = {"cpu": "64", "memory": "512Gi", "pods": "110"} | ({GPU: str(gpus)} if gpus else {})
    taints = [{"key": GPU, "value": "present", "effect": "NoSchedule"}] if gpus else []
    return {
        "metadata": {"name": name, "labels": labels | changes.get("labels", {})},
        "spec": {"taints": changes.get("taints", taints), "unschedulable": changes.get("cordoned", False)},
        "status": {
            "allocatable": allocatable | changes.get("allocatable", {}),
            "conditions": [{"type": "Ready", "status": changes.get("ready", "True")}],
        },
    }


def make_pod(
    node: str | None = "gpu-0", gpus: int = 1, *, model: str = "other", track: str = "stable", **changes: Any
) -> dict[str, Any]:
    requests = {"cpu": "1", "memory": "1Gi"} | ({GPU: str(gpus)} if gpus else {})
    spec: dict[str, Any] = {"containers": [{"resources": {"requests": requests}}]}
    if node:
        spec["nodeName"] = node
    metadata = {"name": "p", "labels": {"llmops.dev/model": model, "llmops.dev/track": track}}
    return {
        "metadata": metadata | changes.get("metadata", {}),
        "spec": spec | changes.get("spec", {}),
        "status": {"phase": changes.get("phase", "Running")},
    }


def make_spec(**changes: Any) -> ModelSpec:
    content: dict[str, Any] = {
        "name": "tiny",
        "weights": {"repo": "acme/tiny"},
        "engine": {"version": "0.32.0"},
        "gpu": {"product": "NVIDIA-L40S", "count": 1},
        "resources": {"cpu": "1", "memory": "1Gi", "shm": "1Gi"},
    }
    return ModelSpec.model_validate(content | changes)


@pytest.fixture
def node() -> MakeNode:
    return make_node


@pytest.fixture
def pod() -> MakePod:
    return make_pod


@pytest.fixture
def spec() -> MakeSpec:
    return make_spec


@pytest.fixture
def snapshot() -> Callable[..., Snapshot]:
    """A snapshot of a cluster that can take the release, with these changes."""

    def make(**changes: Any) -> Snapshot:
        settings = Settings.model_validate(changes.pop("settings", {}))
        whole: dict[str, Any] = {
            "nodes": (make_node("gpu-0"), make_node("gpu-1"), make_node("cpu-0", 0)),
            "claim": {
                "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "500Gi"}}},
                "status": {"phase": "Bound", "capacity": {"storage": "500Gi"}},
            },
        }
        if stable := changes.pop("stable", None):
            changes["stable"] = {"tiny": stable}
        return Snapshot(settings, **(whole | changes))

    return make


@pytest.fixture
def release() -> Callable[[int], Release]:
    def make(size: int = 10**9) -> Release:
        return Release.model_validate(
            {
                "model": "tiny",
                "weights": {
                    "repo": "acme/tiny",
                    "commit": "0" * 40,
                    "files": [{"path": "m.safetensors", "size": size, "sha256": "1" * 64}],
                },
                "engine": {"image": "a/b", "tag": "v0.32.0", "digest": f"sha256:{'2' * 64}"},
                "gpu": {},
                "resources": {},
                "evaluation": {},
                "suites": [],
                "rollout": {},
                "access": {},
            }
        )

    return make
