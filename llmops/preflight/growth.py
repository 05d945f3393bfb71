"""Nodes that an autoscaler may add. Pure.

The cluster autoscaler writes its status into a ConfigMap: YAML since version 1.30 (ClusterAutoscalerStatus of
`cluster-autoscaler/clusterstate/api/types.go`), free text before that. Karpenter's NodePools describe the nodes that
Karpenter creates.
"""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, cast

import yaml

from llmops.clients.kubernetes.quantity import quantity
from llmops.manifests.engine import GPU_PRODUCT_LABEL, GPU_RESOURCE
from llmops.preflight.capacity import Ask, obstacle, tolerated
from llmops.preflight.snapshot import Object, Snapshot

NODE_GROUP_LABEL = "eks.amazonaws.com/nodegroup"


@dataclass(frozen=True)
class NodeGroup:
    """A node group of the cluster autoscaler.

    Args:
        name: The cloud's name of the Auto Scaling group, instance group or scale set.
        target: Wanted number of nodes.
        limit: Maximum number of nodes.
        unready_gpus: Nodes that joined and whose GPUs never came up.
        back_off: Why the cloud refused the last node; empty if it did not.
    """

    name: str
    target: int
    limit: int
    unready_gpus: int = 0
    back_off: str = ""

    @property
    def short(self) -> str:
        """Without the path that Google's names have."""
        return self.name.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class Growth:
    """What an autoscaler may do for a pod that no node has room for.

    Args:
        may: Groups that may add a node.
        cannot: The other groups, each with its obstacle.
    """

    may: tuple[str, ...] = ()
    cannot: tuple[str, ...] = ()


def node_groups(status: str) -> tuple[NodeGroup, ...] | None:
    """The groups in the cluster autoscaler's status; None if the status is not YAML: versions before 1.30."""
    try:
        content = yaml.safe_load(status)
    except yaml.YAMLError:
        return None
    if not isinstance(content, dict) or "autoscalerStatus" not in content:
        return None
    groups = cast("Iterable[Mapping[str, Any]]", cast("dict[str, Any]", content).get("nodeGroups") or ())
    return tuple(_group(group) for group in groups)


def growth(ask: Ask, snapshot: Snapshot) -> Growth:
    """Which node groups may add a node that takes such a pod."""
    may: list[str] = []
    cannot: list[str] = []
    for name, reason in _groups(ask, snapshot):
        if reason is None:
            may.append(name)
        else:
            cannot.append(f"{name} {reason}")
    return Growth(tuple(may), tuple(cannot))


def _groups(ask: Ask, snapshot: Snapshot) -> Iterator[tuple[str, str | None]]:
    """Name of each group, and why it cannot add such a node; None if it may."""
    for group in node_groups(snapshot.autoscaler) or () if snapshot.autoscaler is not None else ():
        members = [node for node in snapshot.nodes if _is_of(node, group)]
        # A group without nodes shows nothing of its nodes here; only the autoscaler knows them.
        if members and all(obstacle(ask, node) is not None for node in members):
            continue
        if group.target >= group.limit:
            yield group.short, f"is at its limit of {group.limit}"
        elif group.back_off:
            yield group.short, f"got no node from its cloud: {group.back_off}"
        else:
            yield f"{group.short} ({group.target} of {group.limit} nodes)", None
    for pool in snapshot.node_pools:
        yield f"NodePool {pool['metadata']['name']}", _pool_obstacle(ask, pool)


def _group(content: Mapping[str, Any]) -> NodeGroup:
    health: Mapping[str, Any] = content.get("health") or {}
    scale_up: Mapping[str, Any] = content.get("scaleUp") or {}
    registered: Mapping[str, Any] = (health.get("nodeCounts") or {}).get("registered") or {}
    back_off = ""
    if scale_up.get("status") == "Backoff":
        info: Mapping[str, Any] = scale_up.get("backoffInfo") or {}
        back_off = ": ".join(str(info[key]) for key in ("errorCode", "errorMessage") if info.get(key)) or "Backoff"
    return NodeGroup(
        name=str(content.get("name", "")),
        target=int(health.get("cloudProviderTarget", 0)),
        limit=int(health.get("maxSize", 0)),
        unready_gpus=int((registered.get("unready") or {}).get("resourceUnready", 0)),
        back_off=back_off,
    )


def _is_of(node: Object, group: NodeGroup) -> bool:
    """Whether a node belongs to a group, by the clouds' naming schemes.

    Google: gke-CLUSTER-POOL-HASH-grp has nodes gke-CLUSTER-POOL-HASH-x. Azure: a scale set aks-POOL-N-vmss has nodes
    aks-POOL-N-vmss00000x. Amazon: nodes of a managed group NAME have a label with it, and their group is eks-NAME-UUID.
    """
    name: str = node["metadata"]["name"]
    labels: Mapping[str, str] = node["metadata"].get("labels") or {}
    if managed := labels.get(NODE_GROUP_LABEL):
        return re.fullmatch(rf"(eks-)?{re.escape(managed)}(-[0-9a-f-]{{36}})?", group.short) is not None
    return name.startswith(group.short.removesuffix("-grp"))


def _pool_obstacle(ask: Ask, pool: Object) -> str | None:
    template: Mapping[str, Any] = pool["spec"]["template"]
    spec: Mapping[str, Any] = template.get("spec") or {}
    for taint in spec.get("taints") or ():
        if taint["effect"] != "PreferNoSchedule" and not tolerated(ask, taint):
            return f"taints its nodes {taint['key']}={taint.get('value', '')}:{taint['effect']}"
    if ask.product and not _promises(template, GPU_PRODUCT_LABEL, ask.product):
        # Karpenter creates no node for a label that its NodePools don't name: discovery sets the label too late.
        return f"does not name {GPU_PRODUCT_LABEL}={ask.product} in spec.template.metadata.labels"
    used: Mapping[str, str] = (pool.get("status") or {}).get("resources") or {}
    for resource, limit in (pool["spec"].get("limits") or {}).items():
        wanted = ask.amounts.get(resource, Decimal(0))
        if wanted and quantity(used.get(resource, "0")) + wanted > quantity(limit):
            return f"is at its limit of {limit} {resource} ({used.get(resource, 0)} used)"
    return None


def _promises(template: Mapping[str, Any], label: str, value: str) -> bool:
    labels: Mapping[str, str] = (template.get("metadata") or {}).get("labels") or {}
    if label in labels:
        return labels[label] == value
    for rule in (template.get("spec") or {}).get("requirements") or ():
        if rule["key"] == label:
            values = rule.get("values") or ()
            return {"In": value in values, "NotIn": value not in values, "Exists": True}.get(rule["operator"], False)
    return False


@dataclass(frozen=True)
class Waiting:
    """Pods that ask for GPUs and have no node.

    Args:
        count: Number of pods.
        minutes: Age of the oldest such pod's wait.
    """

    count: int = 0
    minutes: int = 0


def waiting_for_gpus(snapshot: Snapshot) -> Waiting:
    """Unschedulable pods that ask for GPUs, of all namespaces."""
    since: list[datetime.datetime] = []
    for pod in snapshot.pods:
        conditions = (pod.get("status") or {}).get("conditions") or ()
        refused = [condition for condition in conditions if condition.get("reason") == "Unschedulable"]
        if refused and _asks_for_gpus(pod):
            since.append(datetime.datetime.fromisoformat(refused[0]["lastTransitionTime"]))
    if not since:
        return Waiting()
    return Waiting(len(since), math.floor((snapshot.taken - min(since)).total_seconds() / 60))


def _asks_for_gpus(pod: Object) -> bool:
    limits = [
        (container.get("resources") or {}).get("limits") or {} for container in pod["spec"].get("containers") or ()
    ]
    return any(quantity(limit.get(GPU_RESOURCE, "0")) > 0 for limit in limits)
