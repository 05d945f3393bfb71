"""Which nodes take a pod, and for how many such pods they have room now."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from llmops.clients.kubernetes.quantity import quantity
from llmops.config.catalog.spec import ModelSpec
from llmops.manifests.engine import GPU_PRODUCT_LABEL, GPU_RESOURCE, GPU_TOLERATION
from llmops.manifests.worker import REQUESTS as WORKER_REQUESTS
from llmops.preflight.snapshot import Object

ENDED = ("Succeeded", "Failed")


@dataclass(frozen=True)
class Ask:
    """What a pod asks of its node.

    Args:
        what: The pod, for messages: `a replica`.
        amounts: Amount by resource.
        product: GPU product that the node needs.
        tolerates_gpu_taint: Whether the pod tolerates the taint of GPU nodes.
    """

    what: str
    amounts: Mapping[str, Decimal]
    product: str | None = None
    tolerates_gpu_taint: bool = False


JOB = Ask("a Job", {name: quantity(amount) for name, amount in WORKER_REQUESTS.items()})


def replica(spec: ModelSpec) -> Ask:
    """What one replica of a model asks of its node."""
    amounts = {"cpu": quantity(spec.resources.cpu), "memory": quantity(spec.resources.memory)}
    if spec.gpu.count:
        amounts[GPU_RESOURCE] = Decimal(spec.gpu.count)
    return Ask("a replica", amounts, spec.gpu.product, spec.gpu.count > 0)


NOT_READY, CORDONED = PASSING = ("is not ready", "is cordoned")
"""Obstacles of a node that would otherwise do."""


def obstacle(ask: Ask, node: Object) -> str | None:
    """Why a node never takes such a pod; None if it takes the pod once it has room."""
    labels: Mapping[str, str] = node["metadata"].get("labels") or {}
    node_spec: Mapping[str, Any] = node.get("spec") or {}
    if ask.product and labels.get(GPU_PRODUCT_LABEL) != ask.product:
        return f"has {labels.get(GPU_PRODUCT_LABEL, 'no GPU')}"
    if not _ready(node):
        return NOT_READY
    if node_spec.get("unschedulable"):
        return CORDONED
    for taint in node_spec.get("taints") or ():
        if taint["effect"] != "PreferNoSchedule" and not tolerated(ask, taint):
            return f"has the taint {taint['key']}={taint.get('value', '')}:{taint['effect']}"
    allocatable = _allocatable(node)
    for resource, wanted in ask.amounts.items():
        if allocatable.get(resource, Decimal(0)) < wanted:
            return f"has {allocatable.get(resource, 0):f} {resource}, and {ask.what} needs {wanted:f}"
    return None


def slots(ask: Ask, nodes: Iterable[Object], pods: Iterable[Object]) -> int:
    """For how many more such pods the nodes have room. The scheduler counts requests, not use.

    Args:
        ask: Request of one pod.
        nodes: All nodes.
        pods: Pods whose requests count.
    """
    requested = _held(pods)
    total = 0
    for node in nodes:
        if obstacle(ask, node) is None:
            allocatable, used = _allocatable(node), requested.get(node["metadata"]["name"], Counter())
            rooms = [(allocatable[name] - used[name]) // wanted for name, wanted in ask.amounts.items() if wanted]
            total += max(0, int(min(rooms, default=Decimal(0))))
    return total


def _held(pods: Iterable[Object]) -> dict[str, Counter[str]]:
    """Sum of the pods' requests, by node."""
    requested: dict[str, Counter[str]] = {}
    for pod in pods:
        node = pod["spec"].get("nodeName")
        if node and (pod.get("status") or {}).get("phase") not in ENDED:
            requested.setdefault(node, Counter()).update(_requests(pod["spec"]))
    return requested


def _requests(pod: Mapping[str, Any]) -> Counter[str]:
    """A pod's requests: the sum of its containers, or its largest init container if that is more."""
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
    amounts = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
    return Counter({name: quantity(value) for name, value in amounts.items()})


def _allocatable(node: Object) -> dict[str, Decimal]:
    status: Mapping[str, Any] = node.get("status") or {}
    offered: Mapping[str, str] = status.get("allocatable") or status.get("capacity") or {}
    return {name: quantity(value) for name, value in offered.items()}


def _ready(node: Object) -> bool:
    conditions = (node.get("status") or {}).get("conditions") or ()
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)


def tolerated(ask: Ask, taint: Mapping[str, str]) -> bool:
    """Whether the pod tolerates a taint: engines tolerate the taint of GPU nodes, Jobs tolerate none."""
    return (
        ask.tolerates_gpu_taint
        and taint["key"] == GPU_TOLERATION["key"]
        and taint["effect"] == GPU_TOLERATION["effect"]
    )
