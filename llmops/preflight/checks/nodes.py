"""Whether nodes take a model's pods, and have room for them now."""

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
"""Number of obstacles in a message."""
MINUTES = "in minutes (the machine, its driver, the image)"
SCALE_FROM_ZERO = (
    "Try it before you rely on it. A group without nodes has to declare its labels and taints: on AWS by the tags "
    "k8s.io/cluster-autoscaler/node-template/label/{label} and .../taint/nvidia.com/gpu of the Auto Scaling group."
)


def _nodes(case: Case) -> Iterator[Finding]:
    """Whether a node takes a replica, full or not, or an autoscaler may add such a node."""
    spec, snapshot = case.spec, case.snapshot
    ask = replica(spec)
    fitting, message = _fitting(ask, snapshot)
    if fitting:
        yield Finding("ok", "nodes", message)
        return
    grows = growth(ask, snapshot)
    if grows.may:
        yield Finding(
            "warning",
            "nodes",
            f"{message}; an autoscaler may add one {MINUTES}: {some(grows.may)}",
            SCALE_FROM_ZERO.format(label=GPU_PRODUCT_LABEL),
        )
        return
    products = sorted({product for node in snapshot.nodes if (product := _product(node))})
    remedy = "Make a node schedulable for it, or correct gpu and resources in the model's entry."
    if "has the taint" in message:
        remedy = (
            "Engines tolerate no taint but nvidia.com/gpu with the effect NoSchedule: remove the other taint, and run "
            "kubectl taint nodes NODE nvidia.com/gpu=present:NoSchedule"
        )
    elif grows.cannot:
        message += f"; no autoscaler can add one: {'; '.join(grows.cannot)}"
        remedy = "Raise the node group's limit or the cloud's quota, or add such a node."
    elif spec.gpu.product and spec.gpu.product not in products:
        labelled = f"the cluster has {', '.join(products)}" if products else "no node has that label"
        remedy = f"Add nodes with {GPU_PRODUCT_LABEL}={spec.gpu.product}, or correct gpu.product: {labelled}."
    yield Finding("error", "nodes", message, remedy)


def _nodes_of_jobs(case: Case) -> Iterator[Finding]:
    """Whether a node takes the download and checksum Jobs: they tolerate no taint."""
    if case.spec.weights.strategy != "volume":
        return
    fitting, message = _fitting(JOB, case.snapshot)
    if fitting:
        yield Finding("ok", "nodes for Jobs", message)
    else:
        remedy = "Add a node without taints, for the download and checksum Jobs."
        yield Finding("error", "nodes for Jobs", message, remedy)


def _fitting(ask: Ask, snapshot: Snapshot) -> tuple[list[str], str]:
    """Names of the nodes that take such a pod, and a message on them, or on the others' obstacles."""
    obstacles = {node["metadata"]["name"]: obstacle(ask, node) for node in snapshot.nodes}
    products = {node["metadata"]["name"]: _product(node) for node in snapshot.nodes}
    other_kinds = {reason for name, reason in obstacles.items() if ask.product and products[name] != ask.product}
    fitting = [name for name, reason in obstacles.items() if reason is None]
    if fitting:
        return fitting, f"{len(fitting)} of {len(obstacles)} can take {ask.what}: {some(fitting)}"
    reasons = Counter(reason for reason in obstacles.values() if reason)
    # Obstacles of nodes with the wanted GPU come first.
    ordered = sorted(reasons.most_common(), key=lambda item: item[0] in other_kinds)
    lines = [f"{count(number, 'node')}: {reason}" for reason, number in ordered]
    more = "; and others" if len(lines) > REASONS else ""
    return fitting, f"no node can take {ask.what}: {'; '.join(lines[:REASONS]) or 'the cluster has no node'}{more}"


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
            remedy = "To be faster, free a GPU or keep a spare node."
            message = f"{free}: surge, on a node that an autoscaler may add {MINUTES}: {some(choice.awaits)}"
            yield Finding("warning", "room", message, remedy)
        case "surge" if waiting.count and case.spec.gpu.count:
            message = f"{free}: surge; but {count(waiting.count, 'pod')} waiting for GPUs may take it first"
            yield Finding("warning", "room", message, "Wait until those pods start, or add nodes.")
        case "surge":
            yield Finding("ok", "room", f"{free}: surge")
        case "in-place":
            yield Finding("ok", "room", f"{free}: in-place, stable lends a replica to the canary")


def _room_for_steps(case: Case) -> Iterator[Finding]:
    """Whether the canary's replicas for its largest traffic step fit beside all of stable's."""
    spec, stable = case.spec, case.snapshot.stable.get(case.spec.name)
    if stable is None or not spec.traffic.steps:
        return  # The first release has no traffic to move.
    percent, replicas = spec.traffic.steps[-1].percent, max(spec.replicas, int(stable["spec"].get("replicas", 1)))
    needed, free = canary_replicas(percent, replicas), choose_strategy(spec, case.snapshot).free
    message = f"{percent}% of the traffic needs {count(needed, 'replica')} of the canary; there is room for {free}"
    if free >= needed:
        yield Finding("ok", "room for steps", message)
    elif awaited := growth(replica(spec), case.snapshot).may:
        message = f"{message}; an autoscaler may add nodes {MINUTES}: {some(awaited)}"
        yield Finding("warning", "room for steps", message, "To be faster, keep that many nodes spare.")
    else:
        remedy = "Free or add such nodes, or lower the last percentage of traffic.steps: promotion moves the rest."
        yield Finding("error", "room for steps", message, remedy)


def _priority(case: Case) -> Iterator[Finding]:
    """Whether the priority class exists: without it, the API server refuses every pod."""
    wanted = case.spec.resources.priority_class
    subject = f"priority class {wanted}"
    values = {str(obj["metadata"]["name"]): obj["value"] for obj in case.snapshot.priority_classes}
    if wanted in values:
        yield Finding("ok", subject, f"has the value {values[wanted]}")
    else:
        own = [name for name in sorted(values) if not name.startswith("system-")]
        remedy = f"Create it, or correct resources.priority_class: the cluster has {some(own) or 'none'}."
        yield Finding("error", subject, "does not exist: the API server would refuse every pod of the model", remedy)


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
