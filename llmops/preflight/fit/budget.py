"""Where the memory of a GPU goes, and what is left for the KV cache."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llmops.preflight.fit.cache import Groups, groups_of
from llmops.preflight.fit.engine import GIB, EngineMemory
from llmops.preflight.fit.layers import layers_of
from llmops.preflight.fit.shape import Shape, number_bytes, weight_bytes

# Memory of CUDA, cuBLAS and kernels beside PyTorch's own, and of NCCL's buffers on several GPUs. Logs of vLLM say
# 0.3 to 0.5 GiB for one GPU, 1 to 2 for several.
CONTEXT_BYTES = 0.45 * GIB
COLLECTIVES_BYTES = 1.2 * GIB
GRAPHS_BYTES = 0.6 * GIB
SAMPLING_BYTES = 8
"""Per vocabulary entry and request: a probability in 32 bits, twice."""


@dataclass(frozen=True)
class Fit:
    """Memory of one GPU of a replica, in bytes, and the requests that it is enough for.

    Args:
        taken: The engine's share of the GPU.
        weights: Weights on this GPU.
        activations: Peak of the largest step.
        overhead: CUDA's context, buffers between GPUs, CUDA graphs.
        kv_cache: The rest; below 0 if the others do not fit.
        context: Tokens of a request that users may send: `max_model_len`, or the model's trained context.
        tokens: Tokens that the whole KV cache holds.
        concurrency: Requests of `context` tokens that run at once.
        longest: Tokens of the longest request that fits, up to the model's trained context.
    """

    taken: float
    weights: float
    activations: float
    overhead: float
    kv_cache: float
    context: int
    tokens: int
    concurrency: float
    longest: int


def fit(shape: Shape, engine: EngineMemory, gpu_bytes: float) -> Fit:
    """Calculate the KV cache on each GPU of a replica, and the requests that it holds.

    Args:
        shape: The model.
        engine: The engine's options.
        gpu_bytes: Memory of one GPU.

    Raises:
        UnknownShape: llmops cannot calculate the memory of such a model.
    """
    taken = gpu_bytes * engine.gpu_memory_utilization
    weights = weight_bytes(shape, engine.dtype) / (engine.tensor * engine.pipeline)
    activations = activation_bytes(shape, engine, gpu_bytes)
    overhead = CONTEXT_BYTES + (COLLECTIVES_BYTES if engine.tensor * engine.pipeline > 1 else 0)
    overhead += 0 if engine.eager else GRAPHS_BYTES
    left = taken - weights - activations - overhead
    groups = kv_groups(shape, engine, gpu_bytes)
    trained = longest_context(shape.text)
    context = engine.max_model_len or trained
    concurrency = groups.concurrency(max(left, 0), context)
    return Fit(
        taken=taken,
        weights=weights,
        activations=activations,
        overhead=overhead,
        kv_cache=left,
        context=context,
        tokens=int(concurrency * context),
        concurrency=concurrency,
        longest=groups.longest(max(left, 0), max(trained, context)),
    )


def kv_groups(shape: Shape, engine: EngineMemory, gpu_bytes: float) -> Groups:
    """How vLLM lays out the KV cache of a model on one GPU.

    Raises:
        UnknownShape: See `layers_of`.
    """
    layers = layers_of(shape, dtype=engine.dtype, kv_cache_dtype=engine.kv_cache_dtype, tensor=engine.tensor)
    # vLLM schedules one step while another runs, and each pipeline stage runs a step.
    in_flight = engine.limits(gpu_bytes)[0] * (engine.pipeline + 1)
    return groups_of(layers, pipeline=engine.pipeline, block_tokens=engine.block_tokens, in_flight=in_flight)


def activation_bytes(shape: Shape, engine: EngineMemory, gpu_bytes: float) -> float:
    """Peak of the largest step: inputs and outputs of the widest layer, and the sampler's probabilities."""
    text = shape.text
    tokens, requests = engine.limits(gpu_bytes)
    hidden = int(text.get("hidden_size") or text.get("n_embd") or 0)
    inner = _inner_width(text) / engine.tensor
    step = tokens * number_bytes(engine.dtype) * (3 * inner + 4 * hidden)
    return step + requests * int(text.get("vocab_size") or 0) * SAMPLING_BYTES


def _inner_width(text: Mapping[str, Any]) -> int:
    """Inner width of a layer for one token; with experts, the sum over the experts that the router picks."""
    hidden = int(text.get("hidden_size") or text.get("n_embd") or 0)
    dense = int(text.get("intermediate_size") or text.get("n_inner") or 4 * hidden)
    chosen = int(text.get("num_experts_per_tok") or text.get("experts_per_token") or 0)
    expert = int(text.get("moe_intermediate_size") or dense)
    return max(dense, chosen * expert) if chosen else dense


def longest_context(text: Mapping[str, Any]) -> int:
    """The model's trained context: tokens of the longest request."""
    declared = int(
        text.get("max_position_embeddings") or text.get("n_positions") or text.get("max_sequence_length") or 2048
    )
    scaling: Mapping[str, Any] = text.get("rope_scaling") or text.get("rope_parameters") or {}
    kind = scaling.get("rope_type") or scaling.get("type")
    if kind == "yarn" and (original := scaling.get("original_max_position_embeddings")):
        return max(declared, int(float(original) * float(scaling.get("factor", 1))))
    if kind in ("linear", "dynamic"):
        return int(declared * float(scaling.get("factor", 1)))
    return declared
