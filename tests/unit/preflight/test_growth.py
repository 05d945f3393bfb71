"""Which nodes an autoscaler may add, by its own status."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from llmops.preflight.capacity import replica
from llmops.preflight.growth import growth, node_groups, waiting_for_gpus
from llmops.preflight.strategy import choose_strategy

Make = Callable[..., Any]

# As version 1.34 writes it (cluster-autoscaler/clusterstate/utils/status_test.yaml), with groups of a cloud.
STATUS = """
time: "2026-11-24 04:28:19.546750398 +0000 UTC"
autoscalerStatus: "Running"
clusterWide:
  health: {status: "Healthy"}
nodeGroups:
  - name: "https://www.googleapis.com/compute/v1/projects/p/zones/z/instanceGroups/gke-c-cpu-1a2b3c4d-grp"
    health: {status: "Healthy", cloudProviderTarget: 1, minSize: 1, maxSize: 9}
    scaleUp: {status: "NoActivity"}
  - name: "gke-c-l40s-5e6f7a8b-grp"
    health: {status: "Healthy", cloudProviderTarget: 0, minSize: 0, maxSize: 4}
    scaleUp: {status: "NoActivity", backoffInfo: {}}
  - name: "full"
    health:
      cloudProviderTarget: 2
      maxSize: 2
      nodeCounts: {registered: {total: 2, unready: {total: 1, resourceUnready: 1}}}
  - name: "refused"
    health: {cloudProviderTarget: 0, maxSize: 2}
    scaleUp:
      status: "Backoff"
      backoffInfo: {errorCode: "QUOTA_EXCEEDED", errorMessage: "Quota 'GPUS' exceeded."}
"""
# Before version 1.30.
TEXT = """Cluster-autoscaler status at 2023-11-24 04:28:19.546750398 +0000 UTC:
Cluster-wide:
  Health:      Healthy (ready=4 unready=2 notStarted=3 registered=11)
"""


def pool(**spec: Any) -> dict[str, Any]:
    template = {"metadata": {"labels": spec.pop("labels", {})}, "spec": {"taints": spec.pop("taints", [])}}
    template["spec"]["requirements"] = spec.pop("requirements", [])
    resources = spec.pop("used", {})
    return {
        "metadata": {"name": "gpus"},
        "spec": {"template": template, **spec},
        "status": {"resources": resources},
    }


PRODUCT = {"nvidia.com/gpu.product": "NVIDIA-L40S"}
RULE = {"key": "nvidia.com/gpu.product", "values": ["NVIDIA-L40S"]}


def test_groups_as_the_autoscaler_writes_them() -> None:
    groups = node_groups(STATUS)
    assert groups is not None
    assert [(group.short, group.target, group.limit, group.unready_gpus, group.back_off) for group in groups] == [
        ("gke-c-cpu-1a2b3c4d-grp", 1, 9, 0, ""),
        ("gke-c-l40s-5e6f7a8b-grp", 0, 4, 0, ""),
        ("full", 2, 2, 1, ""),
        ("refused", 0, 2, 0, "QUOTA_EXCEEDED: Quota 'GPUS' exceeded."),
    ]


@pytest.mark.parametrize("text", [TEXT, "", "[", "a: b", "- autoscalerStatus"])
def test_the_status_of_an_old_autoscaler_has_no_groups(text: str) -> None:
    assert node_groups(text) is None


def test_a_group_with_other_nodes_does_not_count(spec: Make, snapshot: Make, node: Make) -> None:
    nodes = (node("gke-c-cpu-1a2b3c4d-x1y2", 0),)
    grows = growth(replica(spec()), snapshot(nodes=nodes, autoscaler=STATUS))
    assert grows.may == ("gke-c-l40s-5e6f7a8b-grp (0 of 4 nodes)",)
    full, refused = grows.cannot
    assert full.startswith("full ")
    assert refused.startswith("refused ")
    assert "QUOTA_EXCEEDED: Quota 'GPUS' exceeded." in refused


def test_a_label_marks_the_nodes_of_amazons_managed_groups(spec: Make, snapshot: Make, node: Make) -> None:
    name = "eks-cpus-7ec1b1a3-1111-2222-3333-444455556666"
    status = yaml.safe_dump({"autoscalerStatus": "Running", "nodeGroups": [{"name": name, "health": {"maxSize": 3}}]})
    label = {"eks.amazonaws.com/nodegroup": "cpus"}
    assert growth(replica(spec()), snapshot(nodes=(), autoscaler=status)).may
    nodes = (node("ip-10-0-0-1", 0, labels=label),)
    assert not growth(replica(spec()), snapshot(nodes=nodes, autoscaler=status)).may


@pytest.mark.parametrize(
    ("node_pool", "obstacle"),
    [
        (pool(labels=PRODUCT), None),
        (pool(labels=PRODUCT, limits={"nvidia.com/gpu": "2"}, used={"nvidia.com/gpu": "1"}), None),
        (pool(labels=PRODUCT, limits={"nvidia.com/gpu": "2"}, used={"nvidia.com/gpu": "2"}), "nvidia.com/gpu"),
        (pool(labels=PRODUCT, taints=[{"key": "nvidia.com/gpu", "effect": "NoSchedule"}]), None),
        (pool(labels=PRODUCT, taints=[{"key": "sku", "value": "gpu", "effect": "NoSchedule"}]), "sku=gpu:NoSchedule"),
        (pool(), "nvidia.com/gpu.product=NVIDIA-L40S"),
        (pool(labels={"nvidia.com/gpu.product": "Tesla-T4"}), "nvidia.com/gpu.product=NVIDIA-L40S"),
        (pool(requirements=[RULE | {"operator": "In"}]), None),
        (pool(requirements=[RULE | {"operator": "NotIn"}]), "nvidia.com/gpu.product=NVIDIA-L40S"),
    ],
)  # fmt: skip
def test_a_node_pool_of_karpenter(spec: Make, snapshot: Make, node_pool: dict[str, Any], obstacle: str | None) -> None:
    grows = growth(replica(spec()), snapshot(nodes=(), node_pools=(node_pool,)))
    if obstacle is None:
        assert grows.may == ("NodePool gpus",)
    else:
        assert not grows.may
        assert obstacle in grows.cannot[0]


def test_a_node_that_may_come_beats_none_and_loses_to_room(spec: Make, snapshot: Make, node: Make, pod: Make) -> None:
    pods = (pod("gpu-0"), pod("gpu-1"))
    nodes = (node("gpu-0"), node("gpu-1"), node("gke-c-cpu-1a2b3c4d-x1y2", 0))
    choice = choose_strategy(spec(), snapshot(nodes=nodes, pods=pods, autoscaler=STATUS))
    assert choice.strategy == "surge"
    assert choice.awaits == ("gke-c-l40s-5e6f7a8b-grp (0 of 4 nodes)",)
    assert choose_strategy(spec(), snapshot(autoscaler=STATUS)).awaits == ()
    serving = {"metadata": {}, "spec": {"replicas": 2}}
    ours = (pod("gpu-0", model="tiny"), pod("gpu-1", model="tiny"))
    lends = choose_strategy(spec(replicas=2), snapshot(pods=ours, stable=serving, autoscaler=STATUS))
    assert (lends.strategy, lends.awaits) == ("in-place", ())


def test_unschedulable_pods_with_gpus_count_as_waiting(snapshot: Make, pod: Make) -> None:
    now = datetime.datetime(2026, 11, 27, 12, 0, tzinfo=datetime.UTC)
    waits = pod(None, spec={"containers": [{"resources": {"limits": {"nvidia.com/gpu": "1"}}}]}, phase="Pending")
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
    waits["status"]["conditions"] = [condition | {"lastTransitionTime": "2026-11-27T11:30:00Z"}]
    without = pod(None, 0)
    without["status"]["conditions"] = waits["status"]["conditions"]
    waiting = waiting_for_gpus(snapshot(pods=(waits, without, pod("gpu-0")), taken=now))
    assert (waiting.count, waiting.minutes) == (1, 30)


SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=8)


@given(st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=8), inner), max_leaves=8))
def test_any_content_of_the_status_config_map_is_survived(content: Any) -> None:
    assert node_groups(yaml.safe_dump(content)) in (None, ())
