"""A platform engineer's world in a sandbox: models in a catalog, weights on the hub, images in the registry."""

from __future__ import annotations

import json
import secrets
import threading
import time
import urllib.request
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
from llmops_sandbox.sandbox import ENGINE_PROGRAM, Sandbox
from llmops_sandbox.standins.weights import make_model

from llmops.cli.rollouts import Ended, run_rollback, run_rollout
from llmops.clients.kubernetes.client import Cluster
from llmops.config import names
from llmops.config.settings import SETTINGS_VARIABLE, load_settings
from llmops.errors import ClusterCannot
from llmops.evaluation.suites import load_suites
from llmops.releases.records import Records
from llmops.rollout.platform import Platform

GPU_NODES = 6
NODES: dict[str, Any] = {
    "back_off_seconds": 1,
    "back_off_limit_seconds": 4,
    # Long enough that a pod that skipped this wait before SIGTERM would refuse users.
    "route_seconds": 0.3,
    "nodes": [
        {"name": "cpu-0", "capacity": {"cpu": "64", "memory": "256Gi", "ephemeral-storage": "2Ti", "pods": "200"}},
        *(
            {
                "name": f"gpu-{index}",
                "capacity": {
                    "cpu": "64",
                    "memory": "512Gi",
                    "ephemeral-storage": "2Ti",
                    "pods": "200",
                    "nvidia.com/gpu": "1",
                },
                "labels": {"nvidia.com/gpu.product": "NVIDIA-L40S"},
                "taints": [{"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}],
            }
            for index in range(GPU_NODES)
        ),
    ],
}
ONLY_GPU = "NVIDIA-H100-80GB"
NODES["nodes"].append(
    {
        **NODES["nodes"][1],
        "name": "gpu-only",
        "labels": {"nvidia.com/gpu.product": ONLY_GPU},
    }
)
MANY_GPUS = "NVIDIA-L4"
NODES["nodes"].append(
    {
        **NODES["nodes"][1],
        "name": "gpu-many",
        "capacity": {**NODES["nodes"][1]["capacity"], "nvidia.com/gpu": "64"},
        "labels": {"nvidia.com/gpu.product": MANY_GPUS},
    }
)
PAIR_OF_GPUS = "NVIDIA-A10"
NODES["nodes"] += [
    {**NODES["nodes"][1], "name": f"gpu-pair-{index}", "labels": {"nvidia.com/gpu.product": PAIR_OF_GPUS}}
    for index in range(2)
]
# Short, as tests wait for dead runs' leases; not so short that a busy machine misses three renewals in a row.
LEASE = {"duration_seconds": 8, "renew_seconds": 2}
ENGINE = "vllm/vllm-openai"
SUITE = {"kind": "quality", "scorer": "number", "sampling": {"temperature": 0, "seed": 0, "max_tokens": 16}}
LOAD = {
    "kind": "load",
    "requests": 40,
    "concurrency": 4,
    "prompt_tokens": 16,
    "output_tokens": 4,
    "ignore_eos": True,
    "warmup_requests": 2,
}


def write_suites(folder: Path) -> None:
    """A suite of one hundred sums, a short load profile, and fidelity."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sums.yaml").write_text(json.dumps(SUITE))
    cases = [
        {"id": f"sum-{n}", "prompt": f"What is {n} + {3 * n + 7}?", "expected": 4 * n + 7, "answer": str(4 * n + 7)}
        for n in range(100)
    ]
    (folder / "sums.jsonl").write_text("".join(json.dumps(case) + "\n" for case in cases))
    (folder / "load.yaml").write_text(json.dumps(LOAD))
    (folder / "fidelity.yaml").write_text(json.dumps({"kind": "fidelity"}))
    load_suites(folder, ("sums", "load", "fidelity"))


@dataclass
class Model:
    """One model of a test, with its own catalog, repository and image tags."""

    sandbox: Sandbox
    folder: Path
    name: str
    evals: Path
    spec: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def settings_file(self) -> Path:
        return self.folder / "settings.yaml"

    @property
    def repo(self) -> str:
        return f"tests/{self.name}"

    @property
    def image(self) -> str:
        return f"{ENGINE}-{self.name}"

    @property
    def volume(self) -> Path:
        """The folder of the claim on this machine."""
        settings = load_settings(self.settings_file)
        return self.sandbox.folder / "volumes" / f"{settings.namespace}-{settings.claim}"

    @property
    def records(self) -> Records:
        return Records(self.cluster)

    @property
    def cluster(self) -> Cluster:
        return Cluster.connect(load_settings(self.settings_file))

    @property
    def platform(self) -> Platform:
        return Platform(settings_file=str(self.settings_file))

    def declare(self, **changes: Any) -> None:
        """Write the model's entry; a change names a section and replaces the keys given."""
        base: dict[str, Any] = {
            "name": self.name,
            "weights": {"repo": self.repo},
            "engine": {"image": self.image, "version": ">=0.1"},
            "gpu": {"product": "NVIDIA-L40S", "count": 1},
            "resources": {"cpu": "100m", "memory": "1Gi", "shm": "64Mi"},
            "evaluation": {
                "suites": ["sums", "load"],
                "gates": [
                    {"metric": "sums/score", "min": 0.5},
                    {"metric": "sums/score", "max_drop": 0.05},
                    {"metric": "load/error_rate", "max": 0.01},
                    {"metric": "load/p95_ttft_ms", "max_ratio": 2.0},
                ],
            },
            "rollout": {"stabilization_seconds": 1, "startup_seconds": 20, "unroute_seconds": 1, "drain_seconds": 30},
        }
        self.spec = base
        for section, change in changes.items():
            base[section] = {**base[section], **change} if isinstance(change, Mapping) and section in base else change
        (self.folder / "models" / f"{self.name}.yaml").write_text(json.dumps(base))

    def commit(
        self,
        *,
        quality: float = 0.95,
        size: int = 1 << 20,
        branch: str = "main",
        change: Callable[[Path], None] = lambda folder: None,
        **behaviour: Any,
    ) -> str:
        """Commit weights to a branch of the hub, after `change` has altered them; return the commit."""
        folder = self.folder / f"weights-{secrets.token_hex(4)}"
        behaviour.setdefault("load_seconds", 0.1)
        # Long compared with the noise of a busy machine.
        behaviour.setdefault("ttft_ms", 150)
        make_model(folder, size_bytes=size, quality=quality, suites_dir=self.evals, **behaviour)
        change(folder)
        return self.sandbox.hub_store.commit(self.repo, folder, branch=branch)

    def push(self, tag: str, **behaviour: Any) -> str:
        """Push an engine's image; return its digest."""
        env = {"SIM_FAULTS": json.dumps(behaviour)} if behaviour else {}
        return self.sandbox.images.add(self.image, tag, ENGINE_PROGRAM, env | {"TAG": tag}).digest

    def rollout(self, *, retry: bool = False, engine_version: str | None = None, revision: str | None = None) -> Ended:
        return run_rollout(self.records, self.name, engine_version=engine_version, revision=revision, retry=retry)

    def rollback(self, to: str | None = None, *, reason: str = "") -> Ended:
        return run_rollback(self.records, self.name, to, reason)

    def deployment(self, track: names.Track = "stable") -> dict[str, Any] | None:
        return self.cluster.get("Deployment", names.engine_name(self.name, track))

    def serving(self) -> str | None:
        """The release of the main Deployment, if all its replicas are ready and no canary is left."""
        main = self.deployment()
        if main is None or main["status"].get("readyReplicas") != main["spec"]["replicas"]:
            return None
        return main["metadata"]["labels"][names.RELEASE_LABEL]

    def canary_gone(self) -> bool:
        return (
            self.deployment("canary") is None
            and self.cluster.get("Service", names.engine_name(self.name, "canary")) is None
        )

    def remove(self) -> None:
        cluster = self.cluster
        for kind in ("Deployment", "Service", "PodDisruptionBudget", "Job", "ConfigMap", "Lease"):
            for item in cluster.list(kind, labels={names.MODEL_LABEL: self.name}):
                cluster.delete(kind, item["metadata"]["name"])


def measured(model: Model) -> bool:
    """Whether the canary has answered a quarter of the sums, by its own metrics."""
    try:
        url = model.cluster.endpoint(names.engine_name(model.name, "canary"), names.ENGINE_PORT)
        metrics = httpx2.get(f"{url}/metrics", timeout=5).text
    except (ClusterCannot, httpx2.HTTPError):
        return False
    answered = (line for line in metrics.splitlines() if line.startswith("vllm:request_success_total"))
    return sum(float(line.rpartition(" ")[2]) for line in answered) >= 25


@contextmanager
def watched(model: Model) -> Generator[list[str | None]]:
    """Collect the releases of the main Deployment, at each change; None: missing or not ready."""
    seen: list[str | None] = []
    stop = threading.Event()
    cluster = model.cluster

    def look() -> None:
        while not stop.is_set():
            main = cluster.get("Deployment", model.name)
            ready = main is not None and (main.get("status") or {}).get("availableReplicas", 0) > 0
            now = main["metadata"]["labels"][names.RELEASE_LABEL] if main is not None and ready else None
            if not seen or seen[-1] != now:
                seen.append(now)
            time.sleep(0.05)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()


@contextmanager
def second_actor(work: Callable[[], None]) -> Generator[None]:
    """Run work in a thread during the block; its error fails the test."""
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(work)
        yield
    done.result()


def put_faults(sandbox: Sandbox, faults: list[dict[str, Any]]) -> None:
    """Replace the faults in force in the stand-in hub."""
    body = json.dumps(faults).encode()
    request = urllib.request.Request(f"{sandbox.url('hub')}/_sandbox/faults", data=body, method="PUT")
    with urllib.request.urlopen(request, timeout=10) as answer:
        answer.read()


@contextmanager
def new_model(sandbox: Sandbox, tmp_path: Path) -> Generator[Model]:
    """A model with good weights and a good engine, not rolled out yet."""
    (tmp_path / "models").mkdir(parents=True)
    write_suites(tmp_path / "evals")
    model = Model(sandbox, tmp_path, f"m-{secrets.token_hex(3)}", tmp_path / "evals")
    settings = json.loads(sandbox.settings_file.read_text())
    settings["lease"] = LEASE
    settings |= {"models_dir": str(tmp_path / "models"), "evals_dir": str(tmp_path / "evals")}
    model.settings_file.write_text(json.dumps(settings))
    # Dagster's definitions find the installation by this variable, in this process and its children.
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv(SETTINGS_VARIABLE, str(model.settings_file))
        model.declare()
        model.commit()
        model.push("v0.32.0")
        yield model
        model.remove()
