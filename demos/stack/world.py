"""A cluster with a typical serving stack, and two models to serve on it."""

from __future__ import annotations

import base64
import json
import os
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmops_sandbox.cluster.binaries import Progress
from llmops_sandbox.cluster.crds import install_crds
from llmops_sandbox.monitoring import install_prometheus
from llmops_sandbox.programs import litellm
from llmops_sandbox.programs.prometheus_adapter.install import install_adapter
from llmops_sandbox.sandbox import ENGINE_PROGRAM, Sandbox
from llmops_sandbox.seeding import ENGINE_IMAGE, ENGINE_TAG, Engine
from llmops_sandbox.standins.weights import make_model
from llmops_sandbox.timeline import Timeline

from llmops.clients.kubernetes.client import Cluster
from llmops.config import names
from llmops.config.settings import load_settings
from llmops.evaluation.endpoint import Endpoint
from llmops.manifests.volume import namespace
from llmops.releases.records import Records

CHAT, CODE = "chat", "code"
REPOS = {CHAT: "acme/chat", CODE: "acme/code"}
TENANT = "acme"
GPUS = 8
QUEUE_AT = 4
"""Requests that an engine of the model `code` handles at once; more of them wait."""


@dataclass(frozen=True)
class World:
    """The cluster, the kind of its engines, and the tenant's key."""

    sandbox: Sandbox
    cluster: Cluster
    engine: Engine
    timeline: Timeline
    key: str

    @property
    def records(self) -> Records:
        """The records of the pipeline."""
        return Records(self.cluster)

    def users_of(self, model: str) -> Endpoint:
        """The model as the tenant's applications reach it: by name, at the router."""
        return Endpoint(self.cluster.endpoint(names.ROUTER, names.ROUTER_PORT), model, self.key)

    def commit(self, model: str, **behaviour: Any) -> None:
        """Put another revision of a model on the hub, with the same answers; its speed may differ."""
        folder = self.sandbox.folder / "commit"
        shutil.rmtree(folder, ignore_errors=True)
        if self.engine == "vllm":
            from llmops_sandbox.programs import vllm

            shutil.copytree(vllm.install().model, folder)
            # Makes another revision of the same weights: engines ignore the file.
            (folder / "README.md").write_text(secrets.token_hex(8))
        else:
            version = len(list((self.sandbox.folder / "hub").rglob("commits/*"))) + 1
            make_model(
                folder, size_bytes=(8 << 20) + (version << 16), quality=0.9,
                suites_dir=self.sandbox.project / "evals", **behaviour,
            )  # fmt: skip
        self.sandbox.hub_store.commit(REPOS[model], folder)


def make_world(folder: Path, engine: Engine, timeline: Timeline, progress: Progress) -> World:
    """Bring up a new sandbox with a serving stack's kinds, Prometheus, its adapter and LiteLLM.

    Raises:
        LlmopsError: A part of the stack did not start.
    """
    project = folder / "project"
    Sandbox(folder, project=project).down(erase=True)
    shutil.copytree(Path.cwd() / "evals", project / "evals")
    (project / "models").mkdir()
    (project / "tenants").mkdir()
    nodes = folder / "declared-nodes.json"
    nodes.write_text(json.dumps(_nodes()))
    for name, spec in _models(engine).items():
        (project / "models" / f"{name}.yaml").write_text(json.dumps(spec, indent=2))
    tenant = {
        "name": TENANT,
        "models": [CHAT, CODE],
        "key": {"name": f"tenant-{TENANT}", "key": "api-key"},
    }
    (project / "tenants" / f"{TENANT}.yaml").write_text(json.dumps(tenant))
    sandbox = Sandbox(folder, project=project, nodes=nodes)
    sandbox.up(progress)
    cluster = Cluster.connect(load_settings(sandbox.settings_file))
    timeline.add("world", f"Kubernetes {cluster.version()} with {GPUS} GPU nodes")
    install_crds(cluster)
    prometheus = install_prometheus(sandbox, cluster)
    timeline.add("world", f"Prometheus scrapes engines by their labels: {prometheus}")
    install_adapter(sandbox, cluster, prometheus, progress)
    timeline.add("world", "the Prometheus Adapter serves custom.metrics.k8s.io")
    litellm.install().add_to(sandbox.images)
    key = f"sk-{secrets.token_hex(16)}"
    cluster.apply(namespace(cluster.settings))
    cluster.apply(_secret(f"tenant-{TENANT}", {"api-key": key}))
    cluster.apply(_secret("llmops-router", {"master-key": f"sk-{secrets.token_hex(16)}"}))
    settings = _write_settings(sandbox, prometheus)
    os.environ.update(sandbox.environment() | {"LLMOPS_SETTINGS": str(settings)})
    world = World(sandbox, Cluster.connect(load_settings(settings)), engine, timeline, key)
    _seed(world)
    return world


def _seed(world: World) -> None:
    if world.engine == "vllm":
        from llmops_sandbox.programs import vllm

        world.sandbox.images.add(ENGINE_IMAGE, ENGINE_TAG, vllm.install().program, vllm.ENVIRONMENT)
    else:
        world.sandbox.images.add(ENGINE_IMAGE, ENGINE_TAG, ENGINE_PROGRAM)
    for model in (CHAT, CODE):
        world.commit(model)


def _write_settings(sandbox: Sandbox, prometheus: str) -> Path:
    content: dict[str, Any] = json.loads(sandbox.settings_file.read_text())
    content |= {
        "tenants_dir": str(sandbox.project / "tenants"),
        "monitoring": {"prometheus_url": prometheus, "monitor": "pod-monitor"},
        "router": {"enabled": True, "replicas": 1, "cpu": "500m", "unroute_seconds": 1, "drain_seconds": 60},
    }
    path = sandbox.folder / "stack-settings.json"
    path.write_text(json.dumps(content, indent=2))
    return path


def _models(engine: Engine) -> Mapping[str, dict[str, Any]]:
    slow = engine == "vllm"
    rollout = {
        "stabilization_seconds": 2,
        "startup_seconds": 400 if slow else 60,
        "unroute_seconds": 1,
        "drain_seconds": 60,
    }
    common: dict[str, Any] = {
        "gpu": {"product": "NVIDIA-L40S", "count": 1, "memory": "45Gi"},
        "resources": {"cpu": "100m", "memory": "6Gi", "shm": "256Mi"},
        "evaluation": {
            "suites": ["arithmetic", "smoke-load"],
            "gates": [{"metric": "arithmetic/score", "min": 0.02}, {"metric": "smoke-load/error_rate", "max": 0.01}],
        },
        "rollout": rollout,
        "automation": {"follow": False, "revalidate": None},
    }
    options: dict[str, Any] = {"max_model_len": 1024, "max_num_seqs": QUEUE_AT}
    if slow:
        options |= {"dtype": "float32", "enforce_eager": True}
    chat = {
        "name": CHAT,
        "description": "Weighted canaries: users' requests move in steps, judged by Prometheus.",
        "weights": {"repo": REPOS[CHAT]},
        "engine": {"image": ENGINE_IMAGE, "version": "==0.32.0", "options": options | {"max_num_seqs": 16}},
        "routing": {"aliases": ["assistant"]},
        "traffic": {
            "steps": [{"percent": 25, "bake_seconds": 15}, {"percent": 50, "bake_seconds": 15}],
            "gates": [
                {"metric": "error_rate", "max_rise": 0.05},
                {"metric": "p95_ttft_ms", "max_ratio": 4.0 if slow else 2.0},
            ],
            "interval_seconds": 5,
            "min_requests": 20,
            "wait_seconds": 300,
        },
    }
    code = {
        "name": CODE,
        "description": "Replicas follow the queue.",
        "weights": {"repo": REPOS[CODE]},
        "engine": {"image": ENGINE_IMAGE, "version": "==0.32.0", "options": options},
        "routing": {"fallbacks": [CHAT]},
        "autoscaling": {
            "kind": "queue",
            "max": 2 if slow else 3,
            "waiting": 2,
            "scale_up": {"window_seconds": 0, "pods": 1, "period_seconds": 5},
            "scale_down": {"window_seconds": 10, "pods": 1, "period_seconds": 5},
        },
    }
    return {CHAT: chat | common, CODE: code | common}


def _nodes() -> dict[str, Any]:
    capacity = {"cpu": "64", "memory": "512Gi", "ephemeral-storage": "2Ti", "pods": "200"}
    gpu: dict[str, Any] = {
        "capacity": capacity | {"nvidia.com/gpu": "1"},
        "labels": {
            "nvidia.com/gpu.present": "true",
            "nvidia.com/gpu.product": "NVIDIA-L40S",
            "nvidia.com/gpu.count": "1",
            "nvidia.com/gpu.memory": "46068",
        },
        "taints": [{"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}],
    }
    gpus = [{"name": f"gpu-{index}", **gpu} for index in range(GPUS)]
    return {
        "back_off_seconds": 1,
        "back_off_limit_seconds": 4,
        "nodes": [{"name": "cpu-0", "capacity": capacity}, *gpus],
    }


def _secret(name: str, values: Mapping[str, str]) -> dict[str, Any]:
    data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": data}
