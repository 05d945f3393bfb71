"""Where the memory of a GPU goes, and what is left for the KV cache."""

from __future__ import annotations

from dataclasses import dataclass

from llmops.preflight.fit.cache import Groups, groups_of
from llmops.preflight.fit.context import context_of
from llmops.preflight.fit.engine import GIB, EngineMemory
from llmops.preflight.fit.fields import Fields, UnknownShape
from llmops.preflight.fit.layers import layers_of
from llmops.preflight.fit.shape import Shape, number_bytes
from llmops.preflight.fit.weights import weights_on_gpu

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
        context: Tokens of a request that users may send: `max_model_len`, or what vLLM takes without it.
        tokens: Tokens that the whole KV cache holds.
        concurrency: Requests of `context` tokens that run at once.
        longest: Tokens of the longest request that fits, up to the model's context.
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
    if engine.unknown:
        raise UnknownShape("; ".join(engine.unknown), about="engine")
    on_gpu = weights_on_gpu(shape, engine)
    if on_gpu.bytes is None:
        raise UnknownShape(on_gpu.why, about="weights")
    taken = gpu_bytes * engine.gpu_memory_utilization
    activations = activation_bytes(shape.fields, engine, gpu_bytes)
    overhead = CONTEXT_BYTES + (COLLECTIVES_BYTES if engine.tensor * engine.pipeline * engine.data > 1 else 0)
    overhead += 0 if engine.eager else GRAPHS_BYTES
    left = taken - on_gpu.bytes - activations - overhead
    if engine.kv_cache_bytes is not None:
        # The engine then takes what it needs of the whole GPU.
        taken = min(gpu_bytes, on_gpu.bytes + activations + overhead + engine.kv_cache_bytes)
        left = min(gpu_bytes - on_gpu.bytes - activations - overhead, float(engine.kv_cache_bytes))
    groups = kv_groups(shape, engine, gpu_bytes)
    own = context_of(shape.fields)
    context = engine.max_model_len or own.default
    longest = groups.longest(max(left, 0), max(own.longest, context))
    if engine.fits_context and longest:
        context = min(own.default, longest)
    concurrency = groups.concurrency(max(left, 0), context)
    return Fit(
        taken=taken,
        weights=on_gpu.bytes,
        activations=activations,
        overhead=overhead,
        kv_cache=left,
        context=context,
        tokens=int(concurrency * context),
        concurrency=concurrency,
        longest=longest,
    )


def kv_groups(shape: Shape, engine: EngineMemory, gpu_bytes: float) -> Groups:
    """How vLLM lays out the KV cache of a model on one GPU.

    Raises:
        UnknownShape: See `layers_of`.
    """
    layers = layers_of(shape, dtype=engine.dtype, kv_cache_dtype=engine.kv_cache_dtype, tensor=engine.tensor)
    # vLLM schedules one step while another runs, and each pipeline stage runs a step.
    in_flight = engine.limits(gpu_bytes)[0] * (engine.pipeline + 1)
    return groups_of(
        layers,
        pipeline=engine.pipeline,
        block_tokens=engine.block_tokens,
        in_flight=in_flight,
        frees_windows=engine.frees_windows,
    )


def activation_bytes(fields: Fields, engine: EngineMemory, gpu_bytes: float) -> float:
    """Peak of the largest step: inputs and outputs of the widest layer, and the sampler's probabilities.

    Raises:
        UnknownShape: A width in the file is no number.
    """
    tokens, requests = engine.limits(gpu_bytes)
    inner = _inner_width(fields) / engine.tensor
    step = tokens * number_bytes(engine.dtype) * (3 * inner + 4 * fields.whole("hidden_size"))
    return step + requests * (fields.count("vocab_size") or fields.count("padded_vocab_size")) * SAMPLING_BYTES


def _inner_width(fields: Fields) -> int:
    """Inner width of a layer for one token; with experts, of those that the router picks."""
    dense = (
        _widest(fields, "intermediate_size") or _widest(fields, "ffn_hidden_size") or 4 * fields.whole("hidden_size")
    )
    chosen = fields.count("num_experts_per_tok") or fields.count("experts_per_token") or fields.count("moe_topk")
    expert = _widest(fields, "moe_intermediate_size") or dense
    return max(dense, chosen * expert) if chosen else dense


def _widest(fields: Fields, name: str) -> int:
    """A width, the largest if the file has one for each layer; 0 if it has none."""
    value = fields.value(name)
    if not isinstance(value, list | tuple):
        return fields.count(name)
    each = [Fields({name: width}, {}, {}).count(name) for width in value]
    return max(each, default=0)
