"""Whether a model fits into the memory of its GPUs: found here in a second, instead of after minutes of loading."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from llmops.clients.kubernetes.quantity import quantity
from llmops.errors import BadRelease
from llmops.preflight.capacity import obstacle, replica
from llmops.preflight.checks.case import Case, Check, amount, failed
from llmops.preflight.finding import Finding
from llmops.preflight.fit.findings import fit_findings
from llmops.preflight.fit.shape import Shape

GPU_MEMORY_LABEL = "nvidia.com/gpu.memory"
"""Label with the memory of one GPU in MiB, set by NVIDIA's feature discovery."""
DEFAULT_UTILIZATION = 0.92
"""Share of a GPU's memory that vLLM takes if it is not told."""
TIGHT = 0.95
"""Share of what vLLM takes above which weights leave next to nothing for the KV cache."""


def _fit(case: Case) -> Iterator[Finding]:
    """Whether weights, activations and enough of a KV cache fit; for an unknown kind of model, the weights alone."""
    if case.release is None:
        return
    if isinstance(case.shape, Shape):
        yield from fit_findings(case.release, case.shape, bytes_of_one_gpu(case))
    elif isinstance(case.shape, BadRelease):
        # Whether it is the repository's fault or the hub's on the way is decided by hashes, when the weights come.
        remedy = "Nothing before the weights were compared with their hashes."
        yield Finding("unknown", "GPU fit", f"can't be worked out: {case.shape.message}", remedy)
    elif case.shape is not None:
        yield failed("GPU fit", case.shape)


def _weights(case: Case) -> Iterator[Finding]:
    """Whether the weights fit into the GPUs at all."""
    spec, release, memory = case.spec, case.release, bytes_of_one_gpu(case)
    if not spec.gpu.count or release is None or memory is None:
        return
    share = spec.engine.options.gpu_memory_utilization or DEFAULT_UTILIZATION
    usable = spec.gpu.count * memory * share
    size = release.weights.size
    message = (
        f"weights of {amount(size)}, and {amount(usable)} for vLLM "
        f"({spec.gpu.count} x {amount(memory)}, {share:.0%} of it)"
    )
    remedy = "Take quantized weights, more GPUs (gpu.count and engine.options.tensor_parallel_size) or larger ones."
    if size >= usable:
        yield Finding("error", "GPU memory", message, remedy)
    elif size > usable * TIGHT:
        yield Finding("warning", "GPU memory", f"{message}: little is left for the KV cache", remedy)
    else:
        yield Finding("ok", "GPU memory", message)


def bytes_of_one_gpu(case: Case) -> float | None:
    """Of the smallest GPU that may get a replica, by the nodes' labels, else by the spec."""
    labels: list[dict[str, Any]] = [
        node["metadata"].get("labels") or {}
        for node in case.snapshot.nodes
        if obstacle(replica(case.spec), node) is None
    ]
    told = [int(each[GPU_MEMORY_LABEL]) * 2**20 for each in labels if str(each.get(GPU_MEMORY_LABEL, "")).isdigit()]
    if told:
        return float(min(told))
    return float(quantity(case.spec.gpu.memory)) if case.spec.gpu.memory else None


CHECKS = (
    Check("memory.weights", "GPU memory", ("nodes",), _weights),
    Check("memory.fit", "GPU fit", ("nodes",), _fit),
)
