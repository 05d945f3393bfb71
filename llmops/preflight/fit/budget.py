"""Where the memory of a GPU goes, and what is left for the KV cache."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llmops.preflight.fit.cache import Groups, groups_of
from llmops.preflight.fit.engine import GIB, EngineMemory
from llmops.preflight.fit.layers import layers_of
from llmops.preflight.fit.shape import Shape, number_bytes, weight_bytes

# What CUDA, cuBLAS and the kernels of one process hold beside PyTorch's own memory; with several GPUs NCCL's buffers,
# too. Logs of vLLM say 0.3 to 0.5 GiB for one GPU, 1 to 2 for several.
CONTEXT_BYTES = 0.45 * GIB
COLLECTIVES_BYTES = 1.2 * GIB
GRAPHS_BYTES = 0.6 * GIB
SAMPLING_BYTES = 8
"""Of one entry of the vocabulary for one request: its probability in 32 bits, twice."""


@dataclass(frozen=True)
class Fit:
    """What one GPU of a replica holds, in bytes, and what that is enough for.

    Args:
        taken: What the engine takes of the GPU in all.
        weights: Weights on this GPU.
        activations: What a step of the largest size takes at its peak.
        overhead: CUDA's context, buffers between GPUs, CUDA graphs.
        kv_cache: What is left; below 0 where the rest does not fit.
        context: Tokens of a request that users may send: `max_model_len`, or what the model was made for.
        tokens: Tokens that the KV cache holds in all.
        concurrency: Requests of `context` tokens that run at once.
        longest: Tokens of the longest request that can run at all, up to what the model was made for.
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
    """Work out what is left for the KV cache on each GPU of a replica, and what that holds.

    Args:
        shape: The model.
        engine: The engine's options.
        gpu_bytes: Memory of one GPU.

    Raises:
        UnknownShape: The memory that such a model takes is not known.
    """
    taken = gpu_bytes * engine.gpu_memory_utilization
    weights = weight_bytes(shape, engine.dtype) / (engine.tensor * engine.pipeline)
    activations = activation_bytes(shape, engine, gpu_bytes)
    overhead = CONTEXT_BYTES + (COLLECTIVES_BYTES if engine.tensor * engine.pipeline > 1 else 0)
    overhead += 0 if engine.eager else GRAPHS_BYTES
    left = taken - weights - activations - overhead
    groups = kv_groups(shape, engine, gpu_bytes)
    made_for = longest_context(shape.text)
    context = engine.max_model_len or made_for
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
        longest=groups.longest(max(left, 0), max(made_for, context)),
    )


def kv_groups(shape: Shape, engine: EngineMemory, gpu_bytes: float) -> Groups:
    """How vLLM lays out the KV cache of a model on one GPU.

    Raises:
        UnknownShape: See `layers_of`.
    """
    layers = layers_of(shape, dtype=engine.dtype, kv_cache_dtype=engine.kv_cache_dtype, tensor=engine.tensor)
    # One step is scheduled while another runs, and each stage of a pipeline has one of its own.
    in_flight = engine.limits(gpu_bytes)[0] * (engine.pipeline + 1)
    return groups_of(layers, pipeline=engine.pipeline, block_tokens=engine.block_tokens, in_flight=in_flight)


def activation_bytes(shape: Shape, engine: EngineMemory, gpu_bytes: float) -> float:
    """Peak of a step of the largest size: the widest layer's inputs and outputs, and the sampler's probabilities."""
    text = shape.text
    tokens, requests = engine.limits(gpu_bytes)
    hidden = int(text.get("hidden_size") or text.get("n_embd") or 0)
    inner = _inner_width(text) / engine.tensor
    step = tokens * number_bytes(engine.dtype) * (3 * inner + 4 * hidden)
    return step + requests * int(text.get("vocab_size") or 0) * SAMPLING_BYTES


def _inner_width(text: Mapping[str, Any]) -> int:
    """How wide a layer is inside for one token: with experts, of those that it is sent to."""
    hidden = int(text.get("hidden_size") or text.get("n_embd") or 0)
    dense = int(text.get("intermediate_size") or text.get("n_inner") or 4 * hidden)
    chosen = int(text.get("num_experts_per_tok") or text.get("experts_per_token") or 0)
    expert = int(text.get("moe_intermediate_size") or dense)
    return max(dense, chosen * expert) if chosen else dense


def longest_context(text: Mapping[str, Any]) -> int:
    """Tokens of the longest request that a model was made for."""
    told = int(
        text.get("max_position_embeddings") or text.get("n_positions") or text.get("max_sequence_length") or 2048
    )
    scaling: Mapping[str, Any] = text.get("rope_scaling") or text.get("rope_parameters") or {}
    kind = scaling.get("rope_type") or scaling.get("type")
    if kind == "yarn" and (original := scaling.get("original_max_position_embeddings")):
        return max(told, int(float(original) * float(scaling.get("factor", 1))))
    if kind in ("linear", "dynamic"):
        return int(told * float(scaling.get("factor", 1)))
    return told
