"""How a release gets its GPUs: beside stable, out of stable, or not at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from llmops.config import names
from llmops.config.catalog.spec import ModelSpec
from llmops.preflight.capacity import obstacle, replica, slots
from llmops.preflight.growth import growth
from llmops.preflight.snapshot import Object, Snapshot


@dataclass(frozen=True)
class Choice:
    """What the cluster allows now.

    Args:
        strategy: surge: the canary, and after it the rolling update, take free room for one replica more;
            in-place: they take the place of one of stable's replicas. None: it is refused.
        free: Replicas that there is free room for.
        awaits: Groups of nodes of which an autoscaler may add one, where no node has the room now.
        refusal: Why neither is possible; empty if one is.
        remedy: What makes it possible.
    """

    strategy: Literal["surge", "in-place"] | None
    free: int
    awaits: tuple[str, ...] = ()
    refusal: str = ""
    remedy: str = ""


def choose_strategy(spec: ModelSpec, snapshot: Snapshot) -> Choice:
    """Decide by what the spec allows and what is free.

    A canary of this model that is there already is counted as free: the new one takes its place. What stable lends
    already is counted as stable's own, so that a run after a killed one comes to the same choice. A node that an
    autoscaler may add comes last: it takes minutes, and is a hope where room is a fact.
    """
    pods = [pod for pod in snapshot.pods if not _is_ours(spec, pod, "canary")]
    stable = snapshot.stable.get(spec.name)
    lent = _lent(stable)
    free = max(0, slots(replica(spec), snapshot.nodes, pods) - lent)
    serving = stable["spec"].get("replicas", 1) + lent if stable else 0
    asked, more = spec.rollout.strategy, max(0, spec.replicas - serving)
    # Before the first release the canary goes before the main Deployment comes: there is room for one or the other.
    surge_needs = more + 1 if serving else more
    if free >= surge_needs and (asked != "in-place" or not serving):
        return Choice("surge", free)
    if not serving:
        reason = f"the first release needs room for {_count(more, 'replica')}"
    elif asked == "surge":
        reason = f"rollout.strategy surge needs room for {_count(surge_needs, 'replica')} more"
    elif spec.autoscaling is not None:
        # What is lent to a canary, an autoscaler would put back; and a queue is no time to take a replica away.
        reason = f"{_count(surge_needs, 'replica')} more would be needed, as autoscaling keeps those of stable"
    elif serving < 2:
        reason = (
            f"{_count(surge_needs, 'replica')} more would be needed, as stable's only one is not taken from its users"
        )
    elif free < more:
        reason = f"the spec asks for {_count(more, 'replica')} more than stable has"
    elif not _each_place_fits(spec, snapshot, pods):
        reason = "the place of a replica of stable is too small, or on other nodes"
    else:
        return Choice("in-place", free)
    if asked != "in-place" and (awaits := growth(replica(spec), snapshot).may):
        return Choice("surge", free, awaits)
    return _refused(spec, snapshot, free, reason)


def _lent(stable: Object | None) -> int:
    annotations = stable["metadata"].get("annotations") or {} if stable else {}
    return int(annotations.get(names.LENT_ANNOTATION, 0))


def _each_place_fits(spec: ModelSpec, snapshot: Snapshot, pods: list[Object]) -> bool:
    """Whether a replica of the new release fits wherever one of stable's goes."""
    free = slots(replica(spec), snapshot.nodes, pods)
    stable = [pod for pod in pods if _is_ours(spec, pod, "stable") and pod["spec"].get("nodeName")]
    return all(slots(replica(spec), snapshot.nodes, [pod for pod in pods if pod is not one]) > free for one in stable)


def _is_ours(spec: ModelSpec, pod: Object, track: names.Track) -> bool:
    labels = pod["metadata"].get("labels") or {}
    return names.engine_selector(spec.name, track).items() <= labels.items()


def _refused(spec: ModelSpec, snapshot: Snapshot, free: int, reason: str) -> Choice:
    fitting = {node["metadata"]["name"] for node in snapshot.nodes if obstacle(replica(spec), node) is None}
    leaving = sum(
        "deletionTimestamp" in pod["metadata"] and pod["spec"].get("nodeName") in fitting for pod in snapshot.pods
    )
    each = f" of {spec.gpu.count} x {spec.gpu.product or 'GPU'}" if spec.gpu.count else ""
    refusal = f"{reason}; there is room for {_count(free, 'replica')}{each} on {_count(len(fitting), 'suitable node')}"
    remedy = "Free or add such nodes"
    if leaving:
        remedy = f"Wait for {_count(leaving, 'pod')} to end, or free or add such nodes"
    if spec.autoscaling is not None:
        remedy += ", or lower autoscaling.max until there is room for one replica beside stable's"
    elif spec.rollout.strategy == "surge" and spec.replicas > 1:
        remedy += ", or allow rollout.strategy auto, which takes a replica from stable"
    elif spec.replicas < 2:
        remedy += ", or set replicas to 2 or more, so that one can be lent to the canary"
    return Choice(None, free, refusal=refusal, remedy=f"{remedy}.")


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
