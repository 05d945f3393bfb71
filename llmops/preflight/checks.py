"""The checks of a release against a cluster. Pure: they look at a snapshot."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from llmops.catalog.spec import ModelSpec, SecretKey
from llmops.manifests.engine import GPU_PRODUCT_LABEL
from llmops.preflight.capacity import JOB, Ask, obstacle, replica
from llmops.preflight.finding import Finding
from llmops.preflight.quantity import quantity
from llmops.preflight.snapshot import Snapshot
from llmops.preflight.strategy import choose_strategy
from llmops.releases.release import Release

GPU_MEMORY_LABEL = "nvidia.com/gpu.memory"
"""Label with the memory of one GPU in MiB, set by NVIDIA's feature discovery."""
DEFAULT_UTILIZATION = 0.92
"""Share of a GPU's memory that vLLM takes if it is not told."""
TIGHT = 0.95
"""Share of what vLLM takes above which weights leave next to nothing for the KV cache."""
DEFAULT_CLASS_ANNOTATION = "storageclass.kubernetes.io/is-default-class"


def preflight(release: Release, spec: ModelSpec, snapshot: Snapshot) -> tuple[Finding, ...]:
    """All that can be known before anything is made, each with its remedy."""
    return (
        _image(release),
        _nodes(spec, snapshot),
        _nodes_of_jobs(snapshot),
        *_room(spec, snapshot),
        *_gpu_memory(release, spec, snapshot),
        _volume(release, snapshot),
        *_secrets(spec, snapshot),
    )


def _image(release: Release) -> Finding:
    return Finding("ok", "image", f"{release.engine.tag} is pinned as {release.engine.reference}")


def _nodes(spec: ModelSpec, snapshot: Snapshot) -> Finding:
    """Whether there are nodes that ever take a replica, full or not."""
    fitting, told = _fitting(replica(spec), snapshot)
    if fitting:
        return Finding("ok", "nodes", told)
    labels = [node["metadata"].get("labels") or {} for node in snapshot.nodes]
    products = sorted({each[GPU_PRODUCT_LABEL] for each in labels if GPU_PRODUCT_LABEL in each})
    remedy = "Make such a node schedulable, or correct gpu and resources in the model's entry."
    if spec.gpu.product and spec.gpu.product not in products:
        there = f"the cluster has {', '.join(products)}" if products else "no node has that label"
        remedy = f"Add nodes with {GPU_PRODUCT_LABEL}={spec.gpu.product}, or correct gpu.product: {there}."
    return Finding("error", "nodes", told, remedy)


def _nodes_of_jobs(snapshot: Snapshot) -> Finding:
    """Whether the Jobs on the volume find a node: they tolerate no taint, and GPUs are not theirs."""
    fitting, told = _fitting(JOB, snapshot)
    if fitting:
        return Finding("ok", "nodes for Jobs", told)
    return Finding("error", "nodes for Jobs", told, "Add a node without taints, for the download and checksum Jobs.")


def _fitting(ask: Ask, snapshot: Snapshot) -> tuple[list[str], str]:
    """Names of the nodes that take such a pod, and what to say of them or of the others."""
    obstacles = {node["metadata"]["name"]: obstacle(ask, node) for node in snapshot.nodes}
    fitting = [name for name, why in obstacles.items() if why is None]
    if fitting:
        return fitting, f"{len(fitting)} of {len(obstacles)} can take {ask.what}: {_some(fitting)}"
    reasons = Counter(why for why in obstacles.values() if why)
    told = "; ".join(f"{count} {'node' if count == 1 else 'nodes'}: {why}" for why, count in reasons.most_common())
    return fitting, f"no node can take {ask.what}: {told or 'there is none'}"


def _room(spec: ModelSpec, snapshot: Snapshot) -> Iterator[Finding]:
    choice = choose_strategy(spec, snapshot)
    free = f"room for {choice.free} more {'replica' if choice.free == 1 else 'replicas'} now"
    match choice.strategy:
        case None:
            yield Finding("error", "room", choice.refusal, choice.remedy)
        case "surge":
            yield Finding("ok", "room", f"{free}: surge")
        case "in-place":
            yield Finding("ok", "room", f"{free}: in-place, stable lends a replica to the canary")


def _gpu_memory(release: Release, spec: ModelSpec, snapshot: Snapshot) -> Iterator[Finding]:
    """Whether the weights fit into the GPUs at all: found here in a second, instead of after minutes of loading."""
    memory = _bytes_of_one_gpu(spec, snapshot)
    if not spec.gpu.count or memory is None:
        return
    share = spec.engine.options.gpu_memory_utilization or DEFAULT_UTILIZATION
    usable = spec.gpu.count * memory * share
    size = release.weights.size
    message = (
        f"weights of {size / 1e9:.1f} GB, and {usable / 1e9:.1f} GB for vLLM "
        f"({spec.gpu.count} x {memory / 1e9:.1f} GB, {share:.0%} of it)"
    )
    remedy = "Take quantized weights, more GPUs (gpu.count and engine.options.tensor_parallel_size) or larger ones."
    if size >= usable:
        yield Finding("error", "GPU memory", message, remedy)
    elif size > usable * TIGHT:
        yield Finding("warning", "GPU memory", f"{message}: little is left for the KV cache", remedy)
    else:
        yield Finding("ok", "GPU memory", message)


def _bytes_of_one_gpu(spec: ModelSpec, snapshot: Snapshot) -> float | None:
    """Of the smallest GPU that may get a replica, by the nodes' labels, else by the spec."""
    labels: list[dict[str, Any]] = [
        node["metadata"].get("labels") or {} for node in snapshot.nodes if obstacle(replica(spec), node) is None
    ]
    told = [int(each[GPU_MEMORY_LABEL]) * 2**20 for each in labels if str(each.get(GPU_MEMORY_LABEL, "")).isdigit()]
    if told:
        return float(min(told))
    return float(quantity(spec.gpu.memory)) if spec.gpu.memory else None


def _volume(release: Release, snapshot: Snapshot) -> Finding:
    subject, claim = f"volume {snapshot.settings.claim}", snapshot.claim
    if claim is None:
        return _new_volume(subject, release, snapshot)
    phase = (claim.get("status") or {}).get("phase", "Pending")
    if phase == "Lost":
        return Finding("error", subject, "has lost its volume", "Restore the volume, or delete the claim.")
    modes = claim["spec"].get("accessModes") or []
    if "ReadWriteMany" not in modes:
        return Finding(
            "error",
            subject,
            f"is {', '.join(modes)}: pods on several nodes can't use it at once",
            "Name a claim with ReadWriteMany (NFS, CephFS, EFS, Filestore) as claim in the settings.",
        )
    offered = (claim.get("status") or {}).get("capacity") or claim["spec"]["resources"]["requests"]
    return _size(subject, release, str(offered["storage"]), f"is {phase}")


def _new_volume(subject: str, release: Release, snapshot: Snapshot) -> Finding:
    settings = snapshot.settings
    classes = {each["metadata"]["name"]: each["metadata"].get("annotations") or {} for each in snapshot.storage_classes}
    defaults = [name for name, annotations in classes.items() if annotations.get(DEFAULT_CLASS_ANNOTATION) == "true"]
    if settings.storage_class is not None and settings.storage_class not in classes:
        return Finding(
            "error",
            subject,
            f"is not there, and neither is storage class {settings.storage_class}",
            f"Correct storage_class in the settings; there is {_some(sorted(classes)) or 'none'}.",
        )
    if settings.storage_class is None and not defaults:
        return Finding(
            "warning",
            subject,
            "is not there, and no storage class is the default: a claim waits until a volume is made for it",
            "Name storage_class in the settings, or make a PersistentVolume.",
        )
    chosen = settings.storage_class or defaults[0]
    return _size(subject, release, settings.storage, f"will be made in storage class {chosen}")


def _size(subject: str, release: Release, storage: str, state: str) -> Finding:
    size, capacity = release.weights.size, float(quantity(storage))
    message = f"{state}, {storage}; the weights are {size / 1e9:.1f} GB"
    if size > capacity:
        return Finding("error", subject, message, "Enlarge the claim (spec.resources.requests.storage).")
    if size * 2 > capacity:
        remedy = "Enlarge the claim."
        return Finding("warning", subject, f"{message}: no room for the next release beside them", remedy)
    return Finding("ok", subject, message)


def _secrets(spec: ModelSpec, snapshot: Snapshot) -> Iterator[Finding]:
    wanted: tuple[tuple[str, SecretKey | None], ...] = (
        ("weights.token", spec.weights.token),
        ("access.api_key", spec.access.api_key),
    )
    for field, secret in wanted:
        if secret is None:
            continue
        subject = f"Secret {secret.name}/{secret.key}"
        if secret.key in snapshot.secrets.get(secret.name, frozenset()):
            yield Finding("ok", subject, f"is there, for {field}")
            continue
        missing = f"has no key {secret.key}" if secret.name in snapshot.secrets else "is not there"
        create = f"kubectl -n {snapshot.settings.namespace} create secret generic {secret.name}"
        yield Finding("error", subject, f"{missing}; {field} names it", f"{create} --from-file={secret.key}=FILE")


def _some(names: list[str], shown: int = 5) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more
