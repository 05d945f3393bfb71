"""Whether a model fits into the memory of its GPUs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from llmops.clients.kubernetes.quantity import quantity
from llmops.errors import BadRelease
from llmops.preflight.capacity import obstacle, replica
from llmops.preflight.checks.case import Case, Check, amount, failed
from llmops.preflight.finding import Finding
from llmops.preflight.fit.engine import engine_memory
from llmops.preflight.fit.findings import CONTEXT, FIT, QUANTIZATION, fit_findings, overridden
from llmops.preflight.fit.shape import Shape
from llmops.preflight.fit.weights import weights_on_gpu

GPU_MEMORY_LABEL = "nvidia.com/gpu.memory"
"""Label with the memory of one GPU in MiB, set by NVIDIA's feature discovery."""
FURTHER_IDS = (QUANTIZATION, CONTEXT)
"""Ids of findings of `memory.fit` that people accept on their own."""
TIGHT = 0.95
"""Share of vLLM's memory above which weights leave next to nothing for the KV cache."""


def _fit(case: Case) -> Iterator[Finding]:
    """Whether weights, activations and KV cache fit; unknown for kinds of models that llmops does not know."""
    if case.release is None:
        return
    if isinstance(case.shape, Shape):
        yield from fit_findings(case.release, case.shape, bytes_of_one_gpu(case))
    elif isinstance(case.shape, BadRelease):
        # The file may be broken in the repository or on the way; the hashes of the weights tell, later.
        remedy = "Wait for the checksum stage: it compares the weights with their hashes."
        yield Finding("unknown", "GPU fit", f"is not known: {case.shape.message}", remedy)
    elif case.shape is not None:
        yield failed("GPU fit", case.shape)
    elif case.spec.weights.pins:
        message = "is not known: the file of weights.pins has the hashes of config.json and of the weights alone"
        yield Finding("unknown", "GPU fit", message, "See the findings at a site with a hub.")


def _weights(case: Case) -> Iterator[Finding]:
    """Whether the weights alone fit into the GPUs: by their tensors, or by the size of the files."""
    spec, release, memory = case.spec, case.release, bytes_of_one_gpu(case)
    if not spec.gpu.count or release is None or memory is None:
        return
    engine = engine_memory(release.engine.args, release.engine.env)
    share = spec.engine.options.gpu_memory_utilization or engine.gpu_memory_utilization
    if engine.kv_cache_bytes is not None:
        # vLLM then takes no share.
        share = 1.0
    usable = spec.gpu.count * memory * share
    size = max(0.0, release.weights.size - engine.cpu_offload_bytes * spec.gpu.count)
    if isinstance(case.shape, Shape):
        shape = overridden(case.shape, engine.overrides)
        size = weights_on_gpu(shape, engine).least * engine.tensor * engine.pipeline * engine.data
    message = (
        f"weights of {amount(size)}; vLLM takes {amount(usable)} "
        f"({spec.gpu.count} x {amount(memory)}, {share:.0%} of it)"
    )
    remedy = "Take quantized weights, more GPUs (gpu.count and engine.options.tensor_parallel_size) or larger ones."
    otherwise = engine.loads_otherwise or (engine.quantization is not None and not isinstance(case.shape, Shape))
    if size >= usable and not otherwise:
        yield Finding("error", "GPU memory", message, remedy)
    elif size > usable * TIGHT:
        yield Finding("warning", "GPU memory", f"{message}: too little for a KV cache", remedy)
    else:
        yield Finding("ok", "GPU memory", message)


def bytes_of_one_gpu(case: Case) -> float | None:
    """Memory of the smallest GPU that may get a replica, by the nodes' labels, else by the spec."""
    labels: list[dict[str, Any]] = [
        node["metadata"].get("labels") or {}
        for node in case.snapshot.nodes
        if obstacle(replica(case.spec), node) is None
    ]
    values = [str(node_labels.get(GPU_MEMORY_LABEL, "")) for node_labels in labels]
    if sizes := [int(value) * 2**20 for value in values if value.isdigit()]:
        return float(min(sizes))
    return float(quantity(case.spec.gpu.memory)) if case.spec.gpu.memory else None


CHECKS = (
    Check("memory.weights", "GPU memory", ("nodes",), _weights),
    Check(FIT, "GPU fit", ("nodes",), _fit),
)
