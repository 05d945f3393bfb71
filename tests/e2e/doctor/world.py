"""A sandbox with every usual mistake of a first installation, each on another model."""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmops_sandbox.cluster.binaries import find_or_build_kubectl
from llmops_sandbox.sandbox import ENGINE_PROGRAM, Sandbox
from llmops_sandbox.standins.weights import make_model

from llmops.clients.kubernetes.client import Cluster
from llmops.config.catalog.load import load_model
from llmops.config.settings import SETTINGS_VARIABLE, load_settings
from llmops.manifests.pods import container_security, pod_security
from llmops.manifests.records import pins_config_map
from llmops.preflight.finding import Finding
from llmops.releases.records import Record, Records
from llmops.rollout.ops.pinning import pin
from llmops.rollout.outcomes import CanaryOutcome
from llmops.rollout.platform import Platform
from tests.e2e.installation.rights import account_kubeconfig
from tests.support.world import put_faults

Object = dict[str, Any]

GPU = "nvidia.com/gpu"
TAINT = {"key": GPU, "value": "present", "effect": "NoSchedule"}
LONG_AGO = "2026-01-01T00:00:00Z"


@dataclass(frozen=True)
class Ran:
    """Output and exit code of `llmops doctor --json`."""

    code: int
    severity: str
    findings: tuple[Finding, ...]
    seconds: float

    def of(self, check: str, model: str = "") -> list[Finding]:
        return [finding for finding in self.findings if (finding.check, finding.model) == (check, model)]


@dataclass(frozen=True)
class World:
    """The sandbox and a catalog."""

    sandbox: Sandbox
    folder: Path

    @property
    def settings_file(self) -> Path:
        return self.folder / "settings.yaml"

    @property
    def models(self) -> Path:
        return self.folder / "models"

    @property
    def cluster(self) -> Cluster:
        return Cluster.connect(load_settings(self.settings_file))

    def prepare(self) -> None:
        """Put weights on the hub and an image into the registry, and write settings like the sandbox's."""
        self.models.mkdir(parents=True)
        self.set()
        weights = self.folder / "weights"
        make_model(weights, size_bytes=1 << 20)
        self.sandbox.hub_store.commit("acme/model", weights)
        self.sandbox.hub_store.commit("acme/gated", weights)
        self.sandbox.hub_store.set_gated("acme/gated", "hf_granted")
        self.sandbox.images.add("vllm/vllm-openai", "v0.32.0", ENGINE_PROGRAM)

    def set(self, **settings: Any) -> None:
        content = json.loads(self.sandbox.settings_file.read_text()) | {"models_dir": str(self.models)}
        self.settings_file.write_text(json.dumps(content | settings))

    def declare(self, name: str, **changes: Any) -> None:
        """Write a model's entry; without changes it can be rolled out."""
        entry: Object = {
            "name": name,
            "weights": {"repo": "acme/model"},
            "engine": {"version": "0.32.0"},
            "gpu": {"product": "NVIDIA-L40S", "count": 1},
            "resources": {"cpu": "1", "memory": "1Gi", "shm": "64Mi"},
        }
        for section, change in changes.items():
            entry[section] = entry[section] | change if isinstance(change, dict) and section in entry else change
        (self.models / f"{name}.yaml").write_text(json.dumps(entry))

    def join(self, name: str, *, labels: Mapping[str, str], gpus: int = 1, **spec: Any) -> None:
        """Create a node that exists only in the API server."""
        labels = {"kubernetes.io/arch": "amd64", f"{GPU}.count": str(gpus), f"{GPU}.memory": "46068", **labels}
        node: Object = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}
        self.cluster.create(node | {"spec": {"taints": [TAINT]} | spec})
        offered = {"cpu": "64", "memory": "512Gi", "pods": "110"} | ({GPU: str(gpus)} if gpus else {})
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": now}
        status = {"capacity": offered, "allocatable": offered, "conditions": [ready]}
        self.cluster.patch("Node", name, {"status": status}, subresource="status")

    def settle(self) -> None:
        """Wait until the controller has seen that all nodes are ready."""
        deadline = time.monotonic() + 30
        while any(
            taint["key"] == "node.kubernetes.io/not-ready"
            for node in self.cluster.list("Node")
            for taint in node["spec"].get("taints") or ()
        ):
            assert time.monotonic() < deadline
            time.sleep(0.1)

    def put(self, obj: Object) -> None:
        self.cluster.apply(obj, force=True)

    def autoscaler(self, groups: list[Object]) -> None:
        """Write the status of a cluster autoscaler."""
        status = json.dumps({"autoscalerStatus": "Running", "nodeGroups": groups})
        meta = {"name": "cluster-autoscaler-status", "namespace": "kube-system"}
        self.put({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"status": status}})

    def no_autoscaler_pod(self) -> None:
        settings = load_settings(self.settings_file).model_copy(update={"namespace": "kube-system"})
        Cluster.connect(settings).delete("Pod", "cluster-autoscaler", wait=30)

    def pod(self, name: str, namespace: str, container: Object) -> None:
        """A pod that no scheduler places."""
        spec: Object = {
            "schedulerName": "nobody",
            "automountServiceAccountToken": False,
            "securityContext": pod_security(2000),
            "containers": [container | {"securityContext": container_security()}],
        }
        meta = {"name": name, "namespace": namespace}
        deadline = time.monotonic() + 30
        while self.cluster.get("ServiceAccount", "default", namespace=namespace) is None:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        self.put({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})

    def unschedulable(self, name: str) -> None:
        """Mark a pod as unschedulable for long, as the scheduler does."""
        condition = {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": f"0/3 nodes are available: 3 Insufficient {GPU}.",
            "lastTransitionTime": LONG_AGO,
        }
        self.cluster.patch("Pod", name, {"status": {"conditions": [condition]}}, subresource="status")

    def started_slowly(self, model: str, seconds: float) -> None:
        """Record a trial of the model whose canary took this long to answer."""
        platform = Platform(settings_file=str(self.settings_file))
        release = pin(platform, load_model(self.models / f"{model}.yaml"))
        records = Records(self.cluster)
        records.save_release(pins_config_map(release))
        took = CanaryOutcome(model=model, release=release.id, url="", ready_seconds=seconds, surge=True)
        records.save_outcome(model, release.id, "canary", took)
        end = datetime.datetime.now(datetime.UTC)
        record = {"reason": "it was slow", "stage": "evaluation", "image": "", "commit": "", "finished": end}
        content = {"model": model, "release": release.id, "verdict": "Inconclusive"} | record
        records.save_record(Record.model_validate(content))

    def acting_as(self, account: str) -> None:
        """From now on act as an account of the namespace llmops."""
        token = self.kubectl("create", "token", account, "--namespace", "llmops").strip()
        path = account_kubeconfig(self.folder / f"{account}.kubeconfig", self.sandbox.kubeconfig, token)
        self.set(kubeconfig=str(path))

    def kubectl(self, *arguments: str) -> str:
        command = [str(find_or_build_kubectl()), "--kubeconfig", str(self.sandbox.kubeconfig), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def faults(self, faults: list[Object]) -> None:
        put_faults(self.sandbox, faults)

    def doctor(self, *models: str, code: str = "from llmops.cli import main; main()") -> Ran:
        """Run the command in its own process."""
        command = [sys.executable, "-c", code, "doctor", "--json", *models]
        environment = os.environ | {SETTINGS_VARIABLE: str(self.settings_file)}
        before = os.times()
        ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
        after = os.times()
        assert ran.stdout, ran.stderr
        content = json.loads(ran.stdout)
        seconds = after.children_user + after.children_system - before.children_user - before.children_system
        findings = tuple(Finding(**finding) for finding in content["findings"])
        return Ran(ran.returncode, content["severity"], findings, seconds)
