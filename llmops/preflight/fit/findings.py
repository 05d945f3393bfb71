"""What there is to say of a model on its GPUs, before it is loaded for minutes only to fail."""

from __future__ import annotations

from collections.abc import Iterator

from llmops.preflight.finding import Finding
from llmops.preflight.fit.budget import Fit, fit, longest_context
from llmops.preflight.fit.engine import GIB, EngineMemory, engine_memory
from llmops.preflight.fit.layers import UnknownShape
from llmops.preflight.fit.shape import Shape
from llmops.releases.release import Release

SUBJECT = "GPU fit"
# Methods that only load what was quantized before: vLLM ends with "Cannot find the config file for awq".
NEED_QUANTIZED = ("awq", "awq_marlin", "gptq", "gptq_marlin", "compressed-tensors", "modelopt", "modelopt_fp4", "mxfp4")
FEW_AT_ONCE = 2.0
SMALLER = "quantized weights, more GPUs (gpu.count and engine.options.tensor_parallel_size) or larger ones"


def fit_findings(release: Release, shape: Shape, gpu_bytes: float | None) -> Iterator[Finding]:
    """Whether the model fits with its context, how many requests run at once, and the longest that would.

    Args:
        release: What is to run; its arguments are the engine's.
        shape: The model.
        gpu_bytes: Memory of one GPU; None where it is not known, which is said.
    """
    engine = engine_memory(release.engine.args)
    yield from _quantization(engine, shape)
    yield from _context(engine, shape)
    if not release.gpu.count:
        return
    if gpu_bytes is None:
        yield Finding(
            "unknown", SUBJECT, "how much memory the GPUs have is not known",
            "Install NVIDIA's GPU feature discovery, or write gpu.memory into the model's entry.",
        )  # fmt: skip
        return
    try:
        yield _fit(release, engine, fit(shape, engine, gpu_bytes), gpu_bytes)
    except UnknownShape as unknown:
        why = f"what its KV cache takes can't be worked out: {unknown}"
        yield Finding("unknown", SUBJECT, why, "Look for `GPU KV cache size` in the log of the canary's engine.")


def _fit(release: Release, engine: EngineMemory, found: Fit, gpu_bytes: float) -> Finding:
    gpus = f"{release.gpu.count} GPU{'s' if release.gpu.count > 1 else ''}"
    parts = (
        f"of {_gib(gpu_bytes)} GiB on each of {gpus} the engine takes {_gib(found.taken)}: "
        f"weights {_gib(found.weights)}, activations {_gib(found.activations)}, CUDA {_gib(found.overhead)}"
    )
    if found.kv_cache <= 0:
        return Finding("error", SUBJECT, f"{parts}; nothing is left for the KV cache", f"Take {SMALLER}.")
    parts = f"{parts}, KV cache {_gib(found.kv_cache)} for {found.tokens:,} tokens"
    if found.longest < found.context:
        longest = found.longest // 16 * 16
        remedy = f"Set engine.options.max_model_len to {longest} or less, or take kv_cache_dtype fp8, {SMALLER}."
        return Finding("error", SUBJECT, f"{parts}; a request of {found.context:,} tokens does not fit", remedy)
    at_once = f"{found.concurrency:.1f} requests of {found.context:,} tokens at once"
    if found.concurrency < FEW_AT_ONCE:
        remedy = f"Lower engine.options.max_model_len from {found.context} to what users send, or take {SMALLER}."
        return Finding("warning", SUBJECT, f"{parts}: only {at_once}", remedy)
    wanted = engine.limits(gpu_bytes)[1]
    return Finding(
        "ok", SUBJECT, f"{parts}: {at_once} (max_num_seqs {wanted}); the longest that fits: {found.longest:,}"
    )


def _quantization(engine: EngineMemory, shape: Shape) -> Iterator[Finding]:
    if engine.quantization in NEED_QUANTIZED and shape.quantization is None:
        yield Finding(
            "error",
            "quantization",
            f"engine.options.quantization is {engine.quantization}, and the weights are not quantized: "
            "config.json has no quantization_config",
            f"Name a repository with {engine.quantization.split('_')[0].upper()} weights; asking for it makes none.",
        )


def _context(engine: EngineMemory, shape: Shape) -> Iterator[Finding]:
    if "max_position_embeddings" not in shape.text or engine.max_model_len is None:
        return
    made_for = longest_context(shape.text)
    if engine.max_model_len > made_for:
        yield Finding(
            "error",
            "context",
            f"max_model_len is {engine.max_model_len:,}, and the model was made for {made_for:,} tokens: "
            "vLLM refuses it",
            f"Set engine.options.max_model_len to {made_for} or less.",
        )


def _gib(size: float) -> str:
    return f"{size / GIB:.1f}"
