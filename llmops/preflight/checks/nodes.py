"""Where the pods of a model go: nodes that ever take one, and room on them now."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from llmops.config.catalog.traffic import canary_replicas
from llmops.manifests.engine import GPU_PRODUCT_LABEL
from llmops.preflight.capacity import JOB, Ask, obstacle, replica
from llmops.preflight.checks.case import Case, Check, count, some
from llmops.preflight.finding import Finding
from llmops.preflight.growth import growth, waiting_for_gpus
from llmops.preflight.snapshot import Object, Snapshot
from llmops.preflight.strategy import choose_strategy

REASONS = 3
"""Why nodes do not fit, of which so many are told."""
MINUTES = "which takes minutes: the machine, its driver, the image"
SCALE_FROM_ZERO = (
    "Try it before you rely on it. A group without nodes has to promise its labels and taints: on AWS by the tags "
    "k8s.io/cluster-autoscaler/node-template/label/{label} and .../taint/nvidia.com/gpu of the Auto Scaling group."
)


def _nodes(case: Case) -> Iterator[Finding]:
    """Whether there are nodes that ever take a replica, full or not, or may be soon."""
    spec, snapshot = case.spec, case.snapshot
    ask = replica(spec)
    fitting, told = _fitting(ask, snapshot)
    if fitting:
        yield Finding("ok", "nodes", told)
        return
    grows = growth(ask, snapshot)
    if grows.may:
        yield Finding(
            "warning",
            "nodes",
            f"{told}; an autoscaler may add one, {MINUTES}: {some(grows.may)}",
            SCALE_FROM_ZERO.format(label=GPU_PRODUCT_LABEL),
        )
        return
    products = sorted({product for node in snapshot.nodes if (product := _product(node))})
    remedy = "Make such a node schedulable, or correct gpu and resources in the model's entry."
    if "has the taint" in told:
        remedy = (
            "Engines tolerate the taint nvidia.com/gpu with the effect NoSchedule alone: "
            "kubectl taint nodes NODE nvidia.com/gpu=present:NoSchedule, and take the other taint away."
        )
    elif grows.cannot:
        told += f"; no autoscaler can add one: {'; '.join(grows.cannot)}"
        remedy = "Raise the limit of a group of such nodes, or the cloud's quota; or add such a node."
    elif spec.gpu.product and spec.gpu.product not in products:
        there = f"the cluster has {', '.join(products)}" if products else "no node has that label"
        remedy = f"Add nodes with {GPU_PRODUCT_LABEL}={spec.gpu.product}, or correct gpu.product: {there}."
    yield Finding("error", "nodes", told, remedy)


def _nodes_of_jobs(case: Case) -> Iterator[Finding]:
    """Whether the Jobs on the volume find a node: they tolerate no taint, and GPUs are not theirs."""
    if case.spec.weights.strategy != "volume":
        return
    fitting, told = _fitting(JOB, case.snapshot)
    if fitting:
        yield Finding("ok", "nodes for Jobs", told)
    else:
        remedy = "Add a node without taints, for the download and checksum Jobs."
        yield Finding("error", "nodes for Jobs", told, remedy)


def _fitting(ask: Ask, snapshot: Snapshot) -> tuple[list[str], str]:
    """Names of the nodes that take such a pod, and what to say of them or of the others."""
    obstacles = {node["metadata"]["name"]: obstacle(ask, node) for node in snapshot.nodes}
    products = {node["metadata"]["name"]: _product(node) for node in snapshot.nodes}
    other_kinds = {why for name, why in obstacles.items() if ask.product and products[name] != ask.product}
    fitting = [name for name, why in obstacles.items() if why is None]
    if fitting:
        return fitting, f"{len(fitting)} of {len(obstacles)} can take {ask.what}: {some(fitting)}"
    reasons = Counter(why for why in obstacles.values() if why)
    # What is wrong with nodes of the right kind comes before nodes of another.
    ordered = sorted(reasons.most_common(), key=lambda reason: reason[0] in other_kinds)
    told = [f"{count(number, 'node')}: {why}" for why, number in ordered]
    more = "; and others" if len(told) > REASONS else ""
    return fitting, f"no node can take {ask.what}: {'; '.join(told[:REASONS]) or 'there is none'}{more}"


def _product(node: Object) -> str | None:
    return (node["metadata"].get("labels") or {}).get(GPU_PRODUCT_LABEL)


def _room(case: Case) -> Iterator[Finding]:
    choice = choose_strategy(case.spec, case.snapshot)
    free = f"room for {choice.free} more {'replica' if choice.free == 1 else 'replicas'} now"
    waiting = waiting_for_gpus(case.snapshot)
    match choice.strategy:
        case None:
            yield Finding("error", "room", choice.refusal, choice.remedy)
        case "surge" if choice.awaits:
            remedy = "Free a GPU to be faster, or keep one spare node."
            message = f"{free}: surge, on a node that an autoscaler may add, {MINUTES}: {some(choice.awaits)}"
            yield Finding("warning", "room", message, remedy)
        case "surge" if waiting.count and case.spec.gpu.count:
            message = f"{free}: surge; but {count(waiting.count, 'pod')} waiting for GPUs may take it first"
            yield Finding("warning", "room", message, "Wait until they have started, or add nodes.")
        case "surge":
            yield Finding("ok", "room", f"{free}: surge")
        case "in-place":
            yield Finding("ok", "room", f"{free}: in-place, stable lends a replica to the canary")


def _room_for_steps(case: Case) -> Iterator[Finding]:
    """Whether the canary gets the replicas of its largest share of users' requests, beside all of stable's."""
    spec, stable = case.spec, case.snapshot.stable.get(case.spec.name)
    if stable is None or not spec.traffic.steps:
        return  # The first release has no users to move.
    percent, replicas = spec.traffic.steps[-1].percent, max(spec.replicas, int(stable["spec"].get("replicas", 1)))
    needed, free = canary_replicas(percent, replicas), choose_strategy(spec, case.snapshot).free
    told = f"{percent}% of the users need {count(needed, 'replica')} of the canary, and there is room for {free}"
    if free >= needed:
        yield Finding("ok", "room for steps", told)
    elif awaited := growth(replica(spec), case.snapshot).may:
        message = f"{told}; an autoscaler may add nodes, {MINUTES}: {some(awaited)}"
        yield Finding("warning", "room for steps", message, "Keep as many nodes spare to be faster.")
    else:
        remedy = "Free or add such nodes, or end traffic.steps at a smaller percentage: promotion moves the rest."
        yield Finding("error", "room for steps", told, remedy)


def _priority(case: Case) -> Iterator[Finding]:
    """Whether the class is there: without it, the API server refuses every pod."""
    wanted = case.spec.resources.priority_class
    subject = f"priority class {wanted}"
    values = {str(each["metadata"]["name"]): each["value"] for each in case.snapshot.priority_classes}
    if wanted in values:
        yield Finding("ok", subject, f"has the value {values[wanted]}")
    else:
        own = [name for name in sorted(values) if not name.startswith("system-")]
        remedy = f"Make it, or correct resources.priority_class in the model's entry: there is {some(own) or 'none'}."
        yield Finding("error", subject, "is not there: every pod of the model would be refused", remedy)


CHECKS = (
    Check("nodes.fitting", "nodes", ("nodes",), _nodes),
    Check("nodes.jobs", "nodes for Jobs", ("nodes",), _nodes_of_jobs),
    Check("nodes.room", "room", ("nodes", "pods", "stable"), _room),
    Check("nodes.steps", "room for steps", ("nodes", "pods", "stable"), _room_for_steps),
    Check[Case](
        "nodes.priority",
        "priority class",
        ("priority_classes",),
        _priority,
        used=lambda case: case.spec.resources.priority_class is not None,
    ),
)
