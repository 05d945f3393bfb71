"""How a release gets its GPUs: beside stable, out of stable, or not at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from llmops.config import names
from llmops.config.catalog.spec import ModelSpec
from llmops.preflight.capacity import PASSING, obstacle, replica, slots
from llmops.preflight.growth import growth
from llmops.preflight.snapshot import Object, Snapshot

SHOWN = 3
"""Nodes that a refusal names."""


@dataclass(frozen=True)
class Choice:
    """What the cluster allows now.

    Args:
        strategy: surge: the canary, and later the rolling update, use free room for one more replica;
            in-place: they use the place of one of stable's replicas. None: neither is possible.
        free: Number of replicas that fit into the free room.
        awaits: Node groups that may add the missing node; empty if a node has room now.
        refusal: Why neither is possible; empty if one is.
        remedy: What makes it possible.
    """

    strategy: Literal["surge", "in-place"] | None
    free: int
    awaits: tuple[str, ...] = ()
    refusal: str = ""
    remedy: str = ""


def choose_strategy(spec: ModelSpec, snapshot: Snapshot) -> Choice:
    """Choose by what the spec allows and what is free.

    The place of an existing canary of this model counts as free: the new canary replaces it. Replicas that stable
    already lends count as stable's, so that the run after a killed one makes the same choice. A node that an
    autoscaler may add comes last: it takes minutes and may never come.
    """
    pods = [pod for pod in snapshot.pods if not _is_ours(spec, pod, "canary")]
    stable = snapshot.stable.get(spec.name)
    lent = _lent(stable)
    free = max(0, slots(replica(spec), snapshot.nodes, pods) - lent)
    serving = stable["spec"].get("replicas", 1) + lent if stable else 0
    declared, more = spec.rollout.strategy, max(0, spec.replicas - serving)
    # The first release deletes its canary before it creates the main Deployment: only one of them needs room.
    surge_needs = more + 1 if serving else more
    if free >= surge_needs and (declared != "in-place" or not serving):
        return Choice("surge", free)
    if not serving:
        reason = f"the first release needs room for {_count(more, 'replica')}"
    elif declared == "surge":
        reason = f"rollout.strategy surge needs room for {_count(surge_needs, 'replica')} more"
    elif spec.autoscaling is not None:
        # The autoscaler would put back a lent replica, and under load stable needs all of its replicas.
        reason = f"{_count(surge_needs, 'replica')} more must fit: under autoscaling stable lends no replica"
    elif serving < 2:
        reason = f"{_count(surge_needs, 'replica')} more must fit: stable has one replica, and does not lend its last"
    elif free < more:
        reason = f"the spec asks for {_count(more, 'replica')} more than stable has"
    elif not _each_place_fits(spec, snapshot, pods):
        reason = "a new replica does not fit into the place of one of stable's: too small, or on an unsuitable node"
    else:
        return Choice("in-place", free)
    if declared != "in-place" and (awaits := growth(replica(spec), snapshot).may):
        return Choice("surge", free, awaits)
    return _refused(spec, snapshot, free, reason)


def _lent(stable: Object | None) -> int:
    annotations = stable["metadata"].get("annotations") or {} if stable else {}
    return int(annotations.get(names.LENT_ANNOTATION, 0))


def _each_place_fits(spec: ModelSpec, snapshot: Snapshot, pods: list[Object]) -> bool:
    """Whether a new replica fits into the place of each of stable's pods."""
    free = slots(replica(spec), snapshot.nodes, pods)
    stable = [pod for pod in pods if _is_ours(spec, pod, "stable") and pod["spec"].get("nodeName")]
    return all(slots(replica(spec), snapshot.nodes, [pod for pod in pods if pod is not lent]) > free for lent in stable)


def _is_ours(spec: ModelSpec, pod: Object, track: names.Track) -> bool:
    labels = pod["metadata"].get("labels") or {}
    return names.engine_selector(spec.name, track).items() <= labels.items()


def _refused(spec: ModelSpec, snapshot: Snapshot, free: int, reason: str) -> Choice:
    ask = replica(spec)
    obstacles = {str(node["metadata"]["name"]): obstacle(ask, node) for node in snapshot.nodes}
    fitting = {name for name, why in obstacles.items() if why is None}
    away = sorted(f"{name} {why}" for name, why in obstacles.items() if why in PASSING)
    leaving = sum(
        "deletionTimestamp" in pod["metadata"] and pod["spec"].get("nodeName") in fitting for pod in snapshot.pods
    )
    gpus = f" of {spec.gpu.count} x {spec.gpu.product or 'GPU'}" if spec.gpu.count else ""
    refusal = f"{reason}; there is room for {_count(free, 'replica')}{gpus} on {_count(len(fitting), 'suitable node')}"
    if away:
        refusal += f"; {', '.join(away[:SHOWN])}" + (f" and {len(away) - SHOWN} more" if away[SHOWN:] else "")
    remedy = "Free or add such nodes"
    if leaving:
        remedy = f"Wait for {_count(leaving, 'pod')} to end, or free or add such nodes"
    if spec.autoscaling is not None:
        remedy += ", or lower autoscaling.max until one replica fits beside stable's"
    elif spec.rollout.strategy == "surge" and spec.replicas > 1:
        remedy += ", or set rollout.strategy to auto: stable then lends a replica"
    elif spec.replicas < 2:
        remedy += ", or set replicas to 2 or more: stable then lends one to the canary"
    return Choice(None, free, refusal=refusal, remedy=f"{remedy}.")


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
