"""How a release gets its GPUs, for every state of a cluster."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.config.catalog.spec import ModelSpec
from llmops.config.settings import Settings
from llmops.preflight.capacity import JOB, obstacle, replica, slots
from llmops.preflight.snapshot import Snapshot
from llmops.preflight.strategy import choose_strategy

Make = Callable[..., Any]


def stable(replicas: int, lent: int = 0) -> dict[str, Any]:
    annotations = {"llmops.dev/lent-replicas": str(lent)} if lent else {}
    return {"metadata": {"annotations": annotations}, "spec": {"replicas": replicas}}


# Room on nodes


def test_room_is_allocatable_less_requests(node: Make, pod: Make, spec: Make) -> None:
    nodes = [node("a", 4), node("b", 2)]
    assert slots(replica(spec()), nodes, []) == 6
    assert slots(replica(spec()), nodes, [pod("a"), pod("a"), pod("b")]) == 3
    assert slots(replica(spec(gpu={"count": 2})), nodes, [pod("a")]) == 1 + 1
    assert slots(replica(spec(gpu={"count": 4})), nodes, [pod("a")]) == 0


def test_pods_that_have_ended_or_have_no_node_hold_nothing(node: Make, pod: Make, spec: Make) -> None:
    gone = [pod("a", phase="Succeeded"), pod("a", phase="Failed"), pod(None, phase="Pending")]
    assert slots(replica(spec()), [node("a")], gone) == 1
    assert slots(replica(spec()), [node("a")], [pod("a", phase="Pending")]) == 0


def test_cpu_and_memory_count_as_well(node: Make, pod: Make, spec: Make) -> None:
    wide = node("a", 8, allocatable={"cpu": "4", "memory": "64Gi"})
    assert slots(replica(spec(resources={"cpu": "2", "memory": "1Gi"})), [wide], []) == 2
    assert slots(replica(spec(resources={"cpu": "500m", "memory": "20Gi"})), [wide], []) == 3
    assert slots(replica(spec(resources={"cpu": "2", "memory": "1Gi"})), [wide], [pod("a", 0)]) == 1


def test_a_model_on_cpu_goes_anywhere_but_on_tainted_nodes(node: Make, spec: Make) -> None:
    on_cpu = spec(gpu={"count": 0}, resources={"cpu": "32", "memory": "1Gi"})
    assert slots(replica(on_cpu), [node("a", 0), node("b", 1)], []) == 2
    assert "taint nvidia.com/gpu=present:NoSchedule" in str(obstacle(replica(on_cpu), node("b", 1)))


def test_a_job_tolerates_no_taint(node: Make) -> None:
    assert obstacle(JOB, node("a", 0)) is None
    assert "taint" in str(obstacle(JOB, node("b", 1)))


def test_init_containers_and_overhead_count_as_the_scheduler_counts_them(node: Make, pod: Make, spec: Make) -> None:
    needs = spec(resources={"cpu": "1", "memory": "1Gi"}, gpu={"count": 0})
    one = node("a", 0, allocatable={"cpu": "10", "memory": "64Gi"})

    def held(**changes: Any) -> int:
        return 10 - slots(replica(needs), [one], [pod("a", 0, spec=changes)])

    def ask(cpu: str, **more: Any) -> dict[str, Any]:
        return {"resources": {"requests": {"cpu": cpu}}, **more}

    assert held(containers=[ask("1"), ask("2")]) == 3
    assert held(containers=[ask("1")], initContainers=[ask("4"), ask("2")]) == 4
    assert held(containers=[ask("1")], initContainers=[ask("2", restartPolicy="Always")]) == 3
    assert held(containers=[ask("1")], overhead={"cpu": "2"}) == 3
    assert held(containers=[{"resources": {"limits": {"cpu": "5"}}}]) == 5


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"product": "Tesla-T4"}, "has Tesla-T4"),
        ({"ready": "Unknown"}, "is not ready"),
        ({"cordoned": True}, "is cordoned"),
        ({"taints": [{"key": "sku", "value": "gpu", "effect": "NoSchedule"}]}, "has the taint sku=gpu:NoSchedule"),
        ({"taints": [{"key": "nvidia.com/gpu", "effect": "NoExecute"}]}, "has the taint nvidia.com/gpu=:NoExecute"),
        ({"taints": [{"key": "sku", "value": "gpu", "effect": "PreferNoSchedule"}]}, None),
        ({"allocatable": {"nvidia.com/gpu": "0"}}, "has 0 nvidia.com/gpu, and a replica needs 1"),
        ({"allocatable": {"memory": "512Mi"}}, "memory, and a replica needs"),
        ({}, None),
    ],
)
def test_a_node_that_never_takes_a_replica_says_why(
    node: Make, spec: Make, changes: dict[str, Any], reason: str | None
) -> None:
    """The subject is the wording: findings quote it."""
    text = obstacle(replica(spec()), node(**changes))
    assert text is None if reason is None else reason in str(text)
    assert slots(replica(spec()), [node(**changes)], []) == (1 if reason is None else 0)


# The choice


@pytest.mark.parametrize(
    ("asked", "nodes", "serving", "replicas", "expected"),
    [
        # the first release: the canary goes before the main Deployment comes
        ("auto", 1, 0, 1, "surge"),
        ("auto", 2, 0, 2, "surge"),
        ("auto", 1, 0, 2, None),
        ("in-place", 2, 0, 2, "surge"),
        # a later one
        ("auto", 2, 1, 1, "surge"),
        ("auto", 1, 1, 1, None),
        ("auto", 3, 2, 2, "surge"),
        ("auto", 2, 2, 2, "in-place"),
        ("surge", 2, 2, 2, None),
        ("surge", 3, 2, 2, "surge"),
        ("in-place", 3, 2, 2, "in-place"),
        ("in-place", 2, 2, 2, "in-place"),
        # more replicas than stable has
        ("auto", 3, 1, 2, "surge"),
        ("auto", 2, 1, 2, None),
        ("auto", 3, 2, 3, "in-place"),
        ("auto", 2, 2, 3, None),
        # fewer
        ("auto", 3, 3, 2, "in-place"),
        ("auto", 4, 3, 2, "surge"),
    ],
)
def test_the_choice(
    node: Make,
    pod: Make,
    spec: Make,
    snapshot: Make,
    asked: str,
    nodes: int,
    serving: int,
    replicas: int,
    expected: str | None,
) -> None:
    model = spec(replicas=replicas, rollout={"strategy": asked})
    pods = [pod(f"n{number}", model="tiny") for number in range(serving)]
    choice = choose_strategy(
        model,
        snapshot(
            nodes=[node(f"n{number}") for number in range(nodes)],
            pods=pods,
            stable=stable(serving) if serving else None,
        ),
    )
    assert choice.strategy == expected
    assert bool(choice.refusal) == bool(choice.remedy) == (expected is None)
    assert choice.free == nodes - serving


def test_the_new_canary_takes_the_place_of_an_old_one(node: Make, pod: Make, spec: Make, snapshot: Make) -> None:
    nodes = [node("n0"), node("n1")]
    pods = [pod("n0", model="tiny"), pod("n1", model="tiny", track="canary")]
    assert choose_strategy(spec(), snapshot(nodes=nodes, pods=pods, stable=stable(1))).strategy == "surge"
    pods[1] = pod("n1", model="another", track="canary")
    assert choose_strategy(spec(), snapshot(nodes=nodes, pods=pods, stable=stable(1))).strategy is None


@pytest.mark.parametrize("canary", [True, False])
@pytest.mark.parametrize("draining", [True, False])
def test_the_run_after_one_killed_with_a_lent_replica_goes_on_in_place(
    node: Make, pod: Make, spec: Make, snapshot: Make, canary: bool, draining: bool
) -> None:
    pods = [pod("n0", model="tiny")]
    if draining:
        pods.append(pod("n1", model="tiny", metadata={"deletionTimestamp": "2026-11-25T00:00:00Z"}))
    if canary:
        pods.append(pod(None if draining else "n1", model="tiny", track="canary", phase="Pending"))
    choice = choose_strategy(
        spec(replicas=2),
        snapshot(nodes=[node("n0"), node("n1")], pods=pods, stable=stable(1, lent=1)),
    )
    assert (choice.strategy, choice.free) == ("in-place", 0)


def test_a_place_that_is_too_small_is_not_lent(node: Make, pod: Make, spec: Make, snapshot: Make) -> None:
    pods = [pod("n0", model="tiny"), pod("n1", model="tiny")]
    nodes = [node("n0"), node("n1")]
    bigger = spec(replicas=2, gpu={"count": 2})
    assert choose_strategy(bigger, snapshot(nodes=nodes, pods=pods, stable=stable(2))).strategy is None
    elsewhere = spec(replicas=2, gpu={"count": 1, "product": "NVIDIA-H100-80GB-HBM3"})
    choice = choose_strategy(elsewhere, snapshot(nodes=nodes, pods=pods, stable=stable(2)))
    assert choice.strategy is None
    assert choice.refusal


def test_the_wording_of_a_refusal(node: Make, pod: Make, spec: Make, snapshot: Make) -> None:
    leaving = pod("n0", metadata={"deletionTimestamp": "2026-11-25T00:00:00Z"})
    choice = choose_strategy(spec(), snapshot(nodes=[node("n0")], pods=[leaving]))
    assert choice.refusal == (
        "the first release needs room for 1 replica; there is room for 0 replicas of 1 x NVIDIA-L40S on 1 suitable node"
    )
    assert "Wait for 1 pod to end" in choice.remedy
    cordoned = [node(f"n{number}", cordoned=True) for number in range(5)]
    choice = choose_strategy(spec(), snapshot(nodes=cordoned))
    assert choice.refusal
    assert choice.refusal.endswith("on 0 suitable nodes; n0 is cordoned, n1 is cordoned, n2 is cordoned and 2 more")
    only = choose_strategy(spec(), snapshot(nodes=[node("n0")], pods=[pod("n0", model="tiny")], stable=stable(1)))
    assert only.refusal
    assert "set replicas to 2 or more" in only.remedy
    surge = spec(replicas=2, rollout={"strategy": "surge"})
    pods = [pod("n0", model="tiny"), pod("n1", model="tiny")]
    refused = choose_strategy(surge, snapshot(nodes=[node("n0"), node("n1")], pods=pods, stable=stable(2)))
    assert "rollout.strategy to auto" in refused.remedy


@given(
    gpus=st.lists(st.integers(0, 4), min_size=1, max_size=4),
    taken=st.lists(st.tuples(st.integers(0, 3), st.integers(1, 2)), max_size=6),
    serving=st.integers(0, 3),
    replicas=st.integers(1, 3),
    asked=st.sampled_from(["surge", "auto"]),
)
def test_a_surge_is_chosen_where_and_only_where_there_is_room(
    gpus: list[int], taken: list[tuple[int, int]], serving: int, replicas: int, asked: str
) -> None:
    nodes = [gpu_node(f"n{number}", count) for number, count in enumerate(gpus)]
    pods = [gpu_pod(f"n{number}", count) for number, count in taken]
    model = ModelSpec.model_validate(
        {
            "name": "tiny",
            "replicas": replicas,
            "weights": {"repo": "a/b"},
            "engine": {"version": "0.32.0"},
            "resources": {"cpu": "1m", "memory": "1Mi", "shm": "1Mi"},
            "rollout": {"strategy": asked},
        }
    )
    now = {"tiny": stable(serving)}
    snapshot = Snapshot(Settings.model_validate({}), nodes=tuple(nodes), pods=tuple(pods), stable=now)
    free = sum(
        max(0, count - sum(used for place, used in taken if place == number)) for number, count in enumerate(gpus)
    )
    needed = replicas if not serving else max(0, replicas - serving) + 1
    choice = choose_strategy(model, snapshot)
    assert choice.free == free
    assert (choice.strategy == "surge") == (free >= needed)


def gpu_node(name: str, gpus: int) -> dict[str, Any]:
    allocatable = {"cpu": "1", "memory": "1Gi", "nvidia.com/gpu": str(gpus)}
    ready = [{"type": "Ready", "status": "True"}]
    return {"metadata": {"name": name}, "status": {"allocatable": allocatable, "conditions": ready}}


def gpu_pod(node: str, gpus: int) -> dict[str, Any]:
    return {
        "metadata": {"name": "p"},
        "spec": {"nodeName": node, "containers": [{"resources": {"limits": {"nvidia.com/gpu": str(gpus)}}}]},
    }


def test_autoscaling_lends_no_replica(node: Make, pod: Make, spec: Make, snapshot: Make) -> None:
    """The autoscaler would put it back: the canary gets a free GPU, or there is no trial."""
    nodes, pods = [node("n0"), node("n1")], [pod("n0", model="tiny"), pod("n1", model="tiny")]
    cluster = snapshot(nodes=nodes, pods=pods, stable=stable(2))
    assert choose_strategy(spec(replicas=2), cluster).strategy == "in-place"
    choice = choose_strategy(spec(replicas=2, autoscaling={"max": 4}), cluster)
    assert choice.strategy is None
    assert choice.refusal
    assert "lower autoscaling.max" in choice.remedy
