"""How many replicas of a model the nodes have room for now."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from llmops.catalog.spec import ModelSpec
from llmops.manifests.engine import GPU_PRODUCT_LABEL, GPU_RESOURCE, GPU_TOLERATION
from llmops.preflight.quantity import quantity
from llmops.preflight.snapshot import Object

ENDED = ("Succeeded", "Failed")


def needs(spec: ModelSpec) -> dict[str, Decimal]:
    """What one replica asks of its node."""
    found = {"cpu": quantity(spec.resources.cpu), "memory": quantity(spec.resources.memory)}
    return found | ({GPU_RESOURCE: Decimal(spec.gpu.count)} if spec.gpu.count else {})


def obstacle(spec: ModelSpec, node: Object) -> str | None:
    """Why a node never takes a replica of this model; None if it does as soon as it has room."""
    labels: Mapping[str, str] = node["metadata"].get("labels") or {}
    node_spec: Mapping[str, Any] = node.get("spec") or {}
    if spec.gpu.product and labels.get(GPU_PRODUCT_LABEL) != spec.gpu.product:
        return f"has {labels.get(GPU_PRODUCT_LABEL, 'no GPU')}"
    if not _ready(node):
        return "is not ready"
    if node_spec.get("unschedulable"):
        return "is cordoned"
    for taint in node_spec.get("taints") or ():
        if taint["effect"] != "PreferNoSchedule" and not _tolerated(spec, taint):
            return f"has the taint {taint['key']}={taint.get('value', '')}:{taint['effect']}"
    allocatable = _allocatable(node)
    for resource, wanted in needs(spec).items():
        if allocatable.get(resource, Decimal(0)) < wanted:
            return f"has {allocatable.get(resource, 0):f} {resource} in all, and a replica needs {wanted:f}"
    return None


def slots(spec: ModelSpec, nodes: Iterable[Object], pods: Iterable[Object]) -> int:
    """How many more replicas the nodes have room for, as the scheduler counts: by what pods ask for, not by use.

    Args:
        spec: Of what.
        nodes: All nodes.
        pods: The pods that hold their place.
    """
    held = _held(pods)
    wanted = needs(spec)
    found = 0
    for node in nodes:
        if obstacle(spec, node) is None:
            allocatable, used = _allocatable(node), held.get(node["metadata"]["name"], Counter())
            free = {name: allocatable[name] - used[name] for name in wanted}
            found += max(0, min(int(free[name] // wanted[name]) for name in wanted if wanted[name]))
    return found


def _held(pods: Iterable[Object]) -> dict[str, Counter[str]]:
    """What the pods of each node ask for together."""
    found: dict[str, Counter[str]] = {}
    for pod in pods:
        node = pod["spec"].get("nodeName")
        if node and (pod.get("status") or {}).get("phase") not in ENDED:
            found.setdefault(node, Counter()).update(_requests(pod["spec"]))
    return found


def _requests(pod: Mapping[str, Any]) -> Counter[str]:
    """What a pod asks for: its containers together, or its hungriest init container, whichever is more."""
    running: Counter[str] = Counter()
    for container in pod.get("containers") or ():
        running.update(_amounts(container))
    for container in pod.get("initContainers") or ():
        if container.get("restartPolicy") == "Always":
            running.update(_amounts(container))
        else:
            running |= _amounts(container)
    running.update({name: quantity(value) for name, value in (pod.get("overhead") or {}).items()})
    return running


def _amounts(container: Mapping[str, Any]) -> Counter[str]:
    resources: Mapping[str, Any] = container.get("resources") or {}
    asked = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
    return Counter({name: quantity(value) for name, value in asked.items()})


def _allocatable(node: Object) -> dict[str, Decimal]:
    status: Mapping[str, Any] = node.get("status") or {}
    offered: Mapping[str, str] = status.get("allocatable") or status.get("capacity") or {}
    return {name: quantity(value) for name, value in offered.items()}


def _ready(node: Object) -> bool:
    conditions = (node.get("status") or {}).get("conditions") or ()
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def _tolerated(spec: ModelSpec, taint: Mapping[str, str]) -> bool:
    """Whether the engine's pods tolerate it: they tolerate what keeps others off GPUs, and nothing else."""
    return spec.gpu.count > 0 and taint["key"] == GPU_TOLERATION["key"] and taint["effect"] == GPU_TOLERATION["effect"]
