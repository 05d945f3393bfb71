"""Usual mistakes of a first installation: how the test makes each in a sandbox, and which check has to find it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from llmops.preflight.finding import Finding, Severity
from tests.e2e.doctor.world import GPU, Ran, World

Make = Callable[[World], None]
AWS = "aws:///eu-central-1a/i-0123456789abcdef0"
KEY = {"api_key": {"name": "key", "key": "k"}}
EXPOSED = {"exposure": {"kind": "ingress", "host": "llm.example.com"}, "access": KEY}
FULL = {"name": "gpu-full", "health": {"cloudProviderTarget": 2, "minSize": 0, "maxSize": 2}}
GROWS = {"name": "gpu-zero", "health": {"cloudProviderTarget": 0, "minSize": 0, "maxSize": 4}}
NO_GPU_CAME_UP = {
    "name": "gpu-dark",
    "health": {
        "cloudProviderTarget": 1,
        "maxSize": 1,
        "nodeCounts": {"registered": {"total": 1, "unready": {"total": 1, "resourceUnready": 1}}},
    },
}


@dataclass(frozen=True)
class Gotcha:
    """A usual mistake.

    Args:
        what: The mistake in a user's words.
        made: How the test makes it, for readers of the page.
        check: Id of the check that finds it.
        severity: Severity of the finding.
        make: Makes the mistake.
        model: Model of the finding; empty for a finding on the installation.
        says: A text of the finding that distinguishes it from others of the same check.
    """

    what: str
    made: str
    check: str
    severity: Severity
    make: Make
    model: str = ""
    says: str = ""

    def find(self, ran: Ran) -> Finding:
        """The finding."""
        findings = [finding for finding in ran.of(self.check, self.model) if self.says in finding.message]
        assert len(findings) == 1, (self.what, findings, ran.of(self.check, self.model))
        return findings[0]


def model(name: str, **changes: object) -> Make:
    return lambda world: world.declare(name, **changes)


def nothing(_: World) -> None:
    """Do nothing: the settings of `bad_settings` make the mistake."""


def _class(world: World) -> None:
    storage_class = {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "gp3"}}
    world.put(storage_class | {"provisioner": "ebs.csi.aws.com"})


def _taint(world: World) -> None:
    taint = {"key": "sku", "value": "gpu", "effect": "NoSchedule"}
    world.join("gpu-tainted", labels={f"{GPU}.product": "NVIDIA-H100-80GB-HBM3"}, taints=[taint])
    world.declare("tainted", gpu={"product": "NVIDIA-H100-80GB-HBM3"})


def _small(world: World) -> None:
    world.join("gpu-small", labels={f"{GPU}.product": "TINY", f"{GPU}.memory": "1"})
    world.declare("big", gpu={"product": "TINY"})


def _arm(world: World) -> None:
    world.join("gpu-arm", labels={f"{GPU}.product": "NVIDIA-GH200-480GB", "kubernetes.io/arch": "arm64"})
    world.declare("arm", gpu={"product": "NVIDIA-GH200-480GB"})


def _mixed(world: World) -> None:
    pool = {"cloud.google.com/gke-nodepool": "gpus"}
    for name, product in (("gpu-mixed-0", "NVIDIA-L4"), ("gpu-mixed-1", "Tesla-T4")):
        world.join(name, labels=pool | {f"{GPU}.product": product})


def _dark(world: World) -> None:
    world.join("gpu-dark", labels={"feature.node.kubernetes.io/pci-10de.present": "true"}, gpus=0)


def _open(world: World) -> None:
    world.join("gpu-open", labels={f"{GPU}.product": "NVIDIA-L40S-open"}, taints=[])


def _undiscovered(world: World) -> None:
    world.join("gpu-nameless", labels={})


def _slow(world: World) -> None:
    world.declare("slow")
    world.started_slowly("slow", 1500)


def _load_balancer(world: World) -> None:
    world.join("aws-0", labels={f"{GPU}.product": "NVIDIA-A10G"}, providerID=AWS)
    world.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "ingress-nginx"}})
    meta = {"name": "ingress-nginx-controller", "namespace": "ingress-nginx"}
    spec = {"type": "LoadBalancer", "ports": [{"port": 443, "protocol": "TCP"}], "selector": {"app": "nginx"}}
    world.put({"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec})
    world.declare("exposed", **EXPOSED)


def _gated(world: World) -> None:
    world.declare("gated", weights={"repo": "acme/gated"})


def _waiting(world: World) -> None:
    limits = {GPU: "1"}
    world.pod("waits", "llm-serving", {"name": "main", "image": "a/b", "resources": {"limits": limits}})
    world.unschedulable("waits")


def _full(world: World) -> None:
    world.autoscaler([FULL])
    world.declare("full", gpu={"product": "NVIDIA-B200"})


def _grows(world: World) -> None:
    # With the autoscaler's old pod the check reports the old version alone.
    world.no_autoscaler_pod()
    world.autoscaler([FULL, GROWS, NO_GPU_CAME_UP])


def _old(world: World) -> None:
    image = "registry.k8s.io/autoscaling/cluster-autoscaler:v1.14.8"
    world.pod("cluster-autoscaler", "kube-system", {"name": "cluster-autoscaler", "image": image})


def _limited(world: World) -> None:
    world.faults([{"path": "/api/models/*", "status": 429, "retry_after": 60}])


BAD_SETTINGS = {
    "storage_class": "gp3",
    "claim": "weights-on-gp3",
    "monitoring": {"monitor": "service-monitor", "prometheus_url": "http://127.0.0.1:9"},
    "access": {"issuer": "letsencrypt-prod"},
}
TOKEN = {"token": {"name": "hf-secret", "key": "token"}}
STEPS = {"steps": [{"percent": 5}, {"percent": 50}]}

BAD: tuple[Gotcha, ...] = (
    Gotcha(
        "The device plugin is not installed: `kubectl describe node` shows no nvidia.com/gpu",
        "a node with a device of NVIDIA and without nvidia.com/gpu in its capacity",
        "gpus.device-plugin", "error", _dark,
    ),
    Gotcha(
        "GPU feature discovery does not label nodes with their product",
        "a node with a GPU and without the label nvidia.com/gpu.product",
        "gpus.discovery", "error", _undiscovered,
    ),
    Gotcha(
        "Mix and match of GPUs in a pool hurts",
        "a pool with an L4 and a T4", "gpus.pools", "warning", _mixed,
    ),
    Gotcha(
        "Regular workloads land on GPU nodes", "a GPU node without a taint", "gpus.taint", "warning", _open,
    ),
    Gotcha(
        "The toleration does not match the nodes' taint",
        "the only nodes with this GPU have the taint sku=gpu", "nodes.fitting", "error", _taint, "tainted",
    ),
    Gotcha(
        "A node autoscaler that cannot add a GPU node: pods are pending forever",
        "a node group at its limit, in the cluster autoscaler's status", "nodes.fitting", "error", _full, "full",
    ),
    Gotcha(
        "An autoscaler that does not count GPUs: pods are pending forever",
        "a pod that has waited for a GPU since January, and no node is being added",
        "gpus.autoscaler", "warning", _waiting, says="waiting for",
    ),
    Gotcha(
        "An old cluster autoscaler does not count nvidia.com/gpu",
        "a pod of the cluster autoscaler 1.14", "gpus.autoscaler", "error", _old, says="version",
    ),
    Gotcha(
        "ReadWriteMany is not universal: default block storage is ReadWriteOnce",
        "a storage class of EBS, named in the settings", "volume.shared", "error", _class,
    ),
    Gotcha(
        "The hub's token is not there", "weights.token names a Secret that nobody made",
        "secrets.model", "error", model("tokenless", weights=TOKEN), "tokenless",
    ),
    Gotcha(
        "A gated model, and no access to it", "a gated repository, and no token",
        "sources.hub", "error", _gated, "gated",
    ),
    Gotcha(
        "HF rate limits during scale events: init-container downloads of many replicas",
        "weights.strategy init with 8 replicas", "sources.copies", "warning",
        model("copies", weights={"strategy": "init"}, gpu={"product": None, "count": 0}, replicas=8), "copies",
    ),
    Gotcha(
        "vLLM ships breaking changes: the tag latest in production", "engine.version latest",
        "catalog.entry", "error", model("latest", engine={"version": "latest"}), "latest",
    ),
    Gotcha(
        "The image is not there for the node's processor", "an image for amd64, nodes with arm64",
        "sources.image", "error", _arm, "arm",
    ),
    Gotcha(
        "OOM when loading a model that is larger than its GPU",
        "1 MB of weights for a GPU of 1 MiB, as 141 GB are for one L40S", "memory.weights", "error", _small, "big",
    ),
    Gotcha(
        "The first start takes 10 to 30 minutes, and the probe gives up before",
        "a start on record that took 1,500 s, and rollout.startup_seconds of 300", "startup.budget", "warning",
        _slow, "slow",
    ),
    Gotcha(
        "A ServiceMonitor without the Prometheus Operator", "monitoring.monitor service-monitor, and no definitions",
        "monitoring.operator", "error", nothing,
    ),
    Gotcha(
        "Prometheus does not answer", "monitoring.prometheus_url where nothing listens",
        "monitoring.prometheus", "error", nothing,
    ),
    Gotcha(
        "Autoscaling on queue depth without the custom metrics adapter", "autoscaling.kind queue, and no adapter",
        "monitoring.adapter", "error", model("queue", autoscaling={"kind": "queue", "max": 8}), "queue",
    ),
    Gotcha(
        "Autoscaling by KEDA without KEDA", "autoscaling.kind keda, and no KEDA",
        "monitoring.keda", "error", model("keda", autoscaling={"kind": "keda", "max": 8}), "keda",
    ),
    Gotcha(
        "A weighted canary with nothing that could divide traffic", "traffic.steps without router and exposure",
        "monitoring.traffic", "error", model("steps", traffic=STEPS), "steps",
    ),
    Gotcha(
        "LoadBalancer long-connection timeouts: AWS cuts idle connections at 60 seconds",
        "nodes of AWS, and a Service of type LoadBalancer without the annotation",
        "access.idle-timeout", "warning", _load_balancer, "exposed",
    ),
    Gotcha(
        "No ingress controller answers for the Ingress", "exposure.kind ingress, and no IngressClass",
        "access.ingress-class", "error", nothing, "exposed",
    ),
    Gotcha(
        "No cert-manager issuer makes the certificate", "access.issuer, and no cert-manager",
        "access.issuer", "error", nothing, "exposed",
    ),
    Gotcha(
        "The service behind auth-url is not there", "exposure.auth_url names a Service that nobody made",
        "access.auth-service", "error",
        model("asked", exposure={**EXPOSED["exposure"], "auth_url": "http://auth-proxy.llm-serving.svc/verify"}),
        "asked",
    ),
    Gotcha(
        "The Gateway API's definitions are not there", "exposure.kind gateway, and no definitions",
        "access.gateway", "error",
        model("gateway", access=KEY, exposure={"kind": "gateway", "host": "llm.example.com"}), "gateway",
    ),
)  # fmt: skip

GROWN: tuple[Gotcha, ...] = (
    Gotcha(
        "Scale-up from zero GPU nodes", "no node with this GPU, and a node group that may have one",
        "nodes.fitting", "warning", _grows, "full",
    ),
    Gotcha(
        "A new node whose GPUs never come up", "a node group of which the autoscaler says so",
        "gpus.autoscaler", "warning", nothing, says="never came up",
    ),
    Gotcha(
        "The hub answers 429", "a hub that refuses with Retry-After", "sources.hub", "warning", _limited, "good",
    ),
)  # fmt: skip


def table(pairs: list[tuple[Gotcha, Finding]]) -> Iterator[str]:
    """The table in docs/start/doctor.md."""
    yield "| gotcha | made in the sandbox by | check | finding | remedy |"
    yield "|---|---|---|---|---|"
    for gotcha, finding in pairs:
        line = f"{finding.severity}: {finding.subject}: {finding.message}"
        cells = (gotcha.what, gotcha.made, f"`{finding.check}`", line, finding.remedy)
        yield f"| {' | '.join(_cell(cell) for cell in cells)} |"


def _cell(text: str) -> str:
    """The text without parts that differ between runs and machines."""
    text = re.sub(r"sha256:[0-9a-f]{64}", "sha256:...", text)
    text = re.sub(r"http://127\.0\.0\.1:\d{2,}", "http://HOST", text)
    text = re.sub(r"release [0-9a-f]{12}", "release ID", text)
    text = re.sub(r"for \d+ minutes", "for N minutes", text)
    text = re.sub(r"/\S*/models/", "models/", text)
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")
