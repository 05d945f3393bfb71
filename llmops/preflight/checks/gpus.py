"""Whether GPU nodes offer their GPUs, have labels with their product, and keep other pods off."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from llmops.clients.kubernetes.quantity import quantity
from llmops.manifests.engine import GPU_PRODUCT_LABEL, GPU_RESOURCE
from llmops.preflight.capacity import ENDED
from llmops.preflight.checks.case import Check, count, some
from llmops.preflight.finding import Finding
from llmops.preflight.growth import NODE_GROUP_LABEL, node_groups, waiting_for_gpus
from llmops.preflight.snapshot import Object, Snapshot

PCI_LABELS = ("feature.node.kubernetes.io/pci-10de.present", "feature.node.kubernetes.io/pci-0302_10de.present")
"""Labels of node feature discovery for an NVIDIA device, with or without a driver."""
ACCELERATOR_LABELS = (
    "cloud.google.com/gke-accelerator",
    "k8s.amazonaws.com/accelerator",
    "kubernetes.azure.com/accelerator",
)
"""Labels that clouds set on nodes with GPUs."""
DISCOVERED = (GPU_PRODUCT_LABEL, "nvidia.com/gpu.memory", "nvidia.com/gpu.count")
"""Labels of NVIDIA's GPU feature discovery that llmops reads."""
DRIVER_LABEL = "nvidia.com/cuda.driver-version.full"
POOL_LABELS = (
    "karpenter.sh/nodepool",
    NODE_GROUP_LABEL,
    "cloud.google.com/gke-nodepool",
    "kubernetes.azure.com/agentpool",
)
"""Labels with a node's pool."""
PLUGIN = "device-plugin"
WAITED_TOO_LONG_MINUTES = 15
"""A new node takes up to this long: the machine, its driver."""
COUNTS_GPUS_SINCE = (1, 15)
"""Older versions add a second node before the first one's GPUs come up: kubernetes/autoscaler#1584."""
READABLE_SINCE = "1.30"

DEVICE_PLUGIN_REMEDY = (
    "Install NVIDIA's GPU Operator, or its device plugin as a DaemonSet on these nodes, and the driver on bare metal; "
    "then `kubectl describe node` shows nvidia.com/gpu in the capacity."
)


def _labels(node: Object) -> Mapping[str, str]:
    return node["metadata"].get("labels") or {}


def _gpus(node: Object) -> int:
    status: Mapping[str, Any] = node.get("status") or {}
    return int(quantity((status.get("capacity") or status.get("allocatable") or {}).get(GPU_RESOURCE, "0")))


def _should_have_gpus(node: Object) -> bool:
    labels = _labels(node)
    return (
        any(labels.get(label) == "true" for label in (*PCI_LABELS, "nvidia.com/gpu.present"))
        or any(label in labels for label in ACCELERATOR_LABELS)
        or GPU_PRODUCT_LABEL in labels
    )


def _names(nodes: list[Object]) -> str:
    return some(sorted(str(node["metadata"]["name"]) for node in nodes))


def _device_plugin(snapshot: Snapshot) -> Iterator[Finding]:
    """Whether nodes with GPUs offer them to pods."""
    without = [node for node in snapshot.nodes if _should_have_gpus(node) and not _gpus(node)]
    offering = [node for node in snapshot.nodes if _gpus(node)]
    subject = "device plugin"
    if without:
        message = f"{count(len(without), 'node')} with GPUs but no {GPU_RESOURCE} in the capacity: {_names(without)}"
        yield Finding("error", subject, f"{message}{_plugin_state(snapshot)}", DEVICE_PLUGIN_REMEDY)
    elif offering:
        number = sum(map(_gpus, offering))
        yield Finding("ok", subject, f"{count(len(offering), 'node')} with {count(number, 'GPU')} for pods")


def _plugin_state(snapshot: Snapshot) -> str:
    """State of the device plugin's DaemonSet, for a message."""
    if "daemon_sets" in snapshot.unseen:
        return ""
    plugins = [obj for obj in snapshot.daemon_sets if PLUGIN in obj["metadata"]["name"] and _is_nvidia(obj)]
    if not plugins:
        return "; the cluster has no DaemonSet of NVIDIA's device plugin"
    status: Mapping[str, int] = plugins[0].get("status") or {}
    wanted, ready = status.get("desiredNumberScheduled", 0), status.get("numberReady", 0)
    return f"; DaemonSet {plugins[0]['metadata']['name']} is ready on {ready} of {count(wanted, 'node')}"


def _is_nvidia(daemon_set: Object) -> bool:
    containers = daemon_set["spec"]["template"]["spec"].get("containers") or ()
    return "nvidia" in daemon_set["metadata"]["name"] or any("nvidia" in container["image"] for container in containers)


def _discovery(snapshot: Snapshot) -> Iterator[Finding]:
    """Whether GPU nodes have labels with their product, memory and number of GPUs."""
    subject = "GPU feature discovery"
    nodes = [node for node in snapshot.nodes if _gpus(node)]
    if not nodes:
        return
    remedy = (
        "Install NVIDIA's GPU feature discovery (part of the GPU Operator and of the device plugin's chart), or set "
        "the label yourself."
    )
    for label in DISCOVERED:
        if without := [node for node in nodes if label not in _labels(node)]:
            severity = "error" if label == GPU_PRODUCT_LABEL else "warning"
            yield Finding(severity, subject, f"no label {label} on {_names(without)}", remedy)
            return
    products = sorted({_labels(node)[GPU_PRODUCT_LABEL] for node in nodes})
    drivers = sorted({_labels(node)[DRIVER_LABEL] for node in nodes if DRIVER_LABEL in _labels(node)})
    suffix = f", driver {', '.join(drivers)}" if drivers else ""
    yield Finding("ok", subject, f"{', '.join(products)}{suffix}")


def _pools(snapshot: Snapshot) -> Iterator[Finding]:
    """Whether each pool has GPUs of one product: an autoscaler cannot tell a pool's nodes apart."""
    products_of: defaultdict[str, set[str]] = defaultdict(set)
    for node in snapshot.nodes:
        labels = _labels(node)
        pool = next((labels[label] for label in POOL_LABELS if label in labels), None)
        if pool is not None and _gpus(node) and GPU_PRODUCT_LABEL in labels:
            products_of[pool].add(labels[GPU_PRODUCT_LABEL])
    for pool, products in sorted(products_of.items()):
        if len(products) > 1:
            yield Finding(
                "warning",
                f"node pool {pool}",
                f"has GPUs of several products: {', '.join(sorted(products))}",
                "Make a pool for each product: an autoscaler plans a pool by one of its nodes.",
            )


def _kept_free(snapshot: Snapshot) -> Iterator[Finding]:
    """Whether taints keep pods without a GPU off GPU nodes."""
    subject = "GPU nodes' taint"
    nodes = [node for node in snapshot.nodes if _gpus(node)]
    open_nodes = [node for node in nodes if not _keeps_off(node)]
    if not open_nodes:
        if nodes:
            yield Finding("ok", subject, f"keeps other pods off {count(len(nodes), 'GPU node')}")
        return
    names = {str(node["metadata"]["name"]) for node in open_nodes}
    squatters = [] if "pods" in snapshot.unseen else [pod for pod in snapshot.pods if _squats(pod, names)]
    problem = f"{count(len(squatters), 'pod')} without a GPU on them" if squatters else "any pod may go there"
    yield Finding(
        "warning",
        subject,
        f"{_names(open_nodes)} without a taint: {problem}",
        f"kubectl taint nodes {min(names)} {GPU_RESOURCE}=present:NoSchedule",
    )


def _keeps_off(node: Object) -> bool:
    taints = (node.get("spec") or {}).get("taints") or ()
    # Kubernetes sets its own taints, such as not-ready, for a while only.
    return any(
        taint["effect"] != "PreferNoSchedule" and not taint["key"].startswith("node.kubernetes.io/") for taint in taints
    )


def _squats(pod: Object, nodes: set[str]) -> bool:
    if pod["spec"].get("nodeName") not in nodes or (pod.get("status") or {}).get("phase") in ENDED:
        return False
    if any(owner["kind"] == "DaemonSet" for owner in pod["metadata"].get("ownerReferences") or ()):
        return False
    resources = [container.get("resources") or {} for container in pod["spec"].get("containers") or ()]
    return not any(GPU_RESOURCE in (part.get(key) or {}) for part in resources for key in ("limits", "requests"))


def _autoscaler(snapshot: Snapshot) -> Iterator[Finding]:
    """Whether the autoscaler adds GPU nodes."""
    subject = "cluster autoscaler"
    waiting = waiting_for_gpus(snapshot)
    karpenter = bool(snapshot.node_pools)
    if waiting.minutes >= WAITED_TOO_LONG_MINUTES and (karpenter or snapshot.autoscaler is not None):
        yield Finding(
            "warning",
            "Karpenter" if karpenter else subject,
            f"{count(waiting.count, 'pod')} waiting for {GPU_RESOURCE}, the first for {waiting.minutes} minutes: "
            "the autoscaler adds no node",
            "See why in the pod's events (kubectl describe pod) and the autoscaler's log: a limit, a quota, or a node "
            "group without declared GPUs (on AWS, tag the Auto Scaling group "
            f"k8s.io/cluster-autoscaler/node-template/resources/{GPU_RESOURCE}).",
        )
    if snapshot.autoscaler is None:
        return
    if (version := _version(snapshot)) and version < COUNTS_GPUS_SINCE:
        yield Finding(
            "error",
            subject,
            f"version {version[0]}.{version[1]} does not count {GPU_RESOURCE} of starting nodes",
            "Update it to the minor version of the cluster.",
        )
        return
    groups = node_groups(snapshot.autoscaler)
    if groups is None:
        yield Finding(
            "warning",
            subject,
            f"its status is not readable: versions before {READABLE_SINCE} write no YAML",
            "Update it to the minor version of the cluster.",
        )
        return
    if stuck := [group for group in groups if group.unready_gpus]:
        number = sum(group.unready_gpus for group in stuck)
        names = some(group.short for group in stuck)
        yield Finding(
            "warning", subject, f"{count(number, 'node')} whose GPUs never came up, in {names}", DEVICE_PLUGIN_REMEDY
        )
    else:
        yield Finding("ok", subject, f"manages {count(len(groups), 'node group')}")


def _version(snapshot: Snapshot) -> tuple[int, int] | None:
    """The cluster autoscaler's version, by its pod's image; None without such a pod, as in most clouds."""
    for pod in snapshot.pods:
        for container in pod["spec"].get("containers") or ():
            name, _, tag = str(container.get("image", "")).partition("@")[0].rpartition(":")
            numbers = tag.lstrip("v").split(".")
            if name.endswith("/cluster-autoscaler") and len(numbers) > 1 and all(map(str.isdigit, numbers[:2])):
                return int(numbers[0]), int(numbers[1])
    return None


CHECKS = (
    Check("gpus.device-plugin", "device plugin", ("nodes",), _device_plugin),
    Check("gpus.discovery", "GPU feature discovery", ("nodes",), _discovery),
    Check("gpus.pools", "node pools", ("nodes",), _pools),
    Check("gpus.taint", "GPU nodes' taint", ("nodes",), _kept_free),
    Check("gpus.autoscaler", "cluster autoscaler", ("autoscaler", "node_pools", "pods"), _autoscaler),
)
