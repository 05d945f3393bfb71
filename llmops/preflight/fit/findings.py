"""Findings on a model's GPU memory: an engine that does not fit fails only after minutes of loading."""

from __future__ import annotations

from collections.abc import Iterator

from llmops.preflight.finding import Finding
from llmops.preflight.fit.budget import Fit, fit, longest_context
from llmops.preflight.fit.engine import GIB, EngineMemory, engine_memory
from llmops.preflight.fit.layers import UnknownShape
from llmops.preflight.fit.shape import Shape
from llmops.releases.release import Release

SUBJECT = "GPU fit"
# Methods that load quantized weights only: with others vLLM exits with "Cannot find the config file for awq".
NEED_QUANTIZED = ("awq", "awq_marlin", "gptq", "gptq_marlin", "compressed-tensors", "modelopt", "modelopt_fp4", "mxfp4")
FEW_AT_ONCE = 2.0
SMALLER = "quantized weights, more GPUs (gpu.count and engine.options.tensor_parallel_size) or larger ones"


def fit_findings(release: Release, shape: Shape, gpu_bytes: float | None) -> Iterator[Finding]:
    """Whether the model and its context fit, how many requests run at once, and the longest request that fits.

    Args:
        release: The release, with the engine's arguments.
        shape: The model.
        gpu_bytes: Memory of one GPU; None if unknown, which is a finding.
    """
    engine = engine_memory(release.engine.args)
    yield from _quantization(engine, shape)
    yield from _context(engine, shape)
    if not release.gpu.count:
        return
    if gpu_bytes is None:
        yield Finding(
            "unknown", SUBJECT, "the GPUs' memory is not known",
            "Install NVIDIA's GPU feature discovery, or write gpu.memory into the model's entry.",
        )  # fmt: skip
        return
    try:
        yield _fit(release, engine, fit(shape, engine, gpu_bytes), gpu_bytes)
    except UnknownShape as unknown:
        message = f"the size of its KV cache is not known: {unknown}"
        yield Finding("unknown", SUBJECT, message, "Look for `GPU KV cache size` in the log of the canary's engine.")


def _fit(release: Release, engine: EngineMemory, memory: Fit, gpu_bytes: float) -> Finding:
    gpus = f"{release.gpu.count} GPU{'s' if release.gpu.count > 1 else ''}"
    parts = (
        f"of {_gib(gpu_bytes)} GiB on each of {gpus} the engine takes {_gib(memory.taken)}: "
        f"weights {_gib(memory.weights)}, activations {_gib(memory.activations)}, CUDA {_gib(memory.overhead)}"
    )
    if memory.kv_cache <= 0:
        return Finding("error", SUBJECT, f"{parts}; no room for a KV cache", f"Take {SMALLER}.")
    parts = f"{parts}, KV cache {_gib(memory.kv_cache)} for {memory.tokens:,} tokens"
    if memory.longest < memory.context:
        longest = memory.longest // 16 * 16
        remedy = f"Set engine.options.max_model_len to {longest} or less, or take kv_cache_dtype fp8, {SMALLER}."
        return Finding("error", SUBJECT, f"{parts}; a request of {memory.context:,} tokens does not fit", remedy)
    at_once = f"{memory.concurrency:.1f} requests of {memory.context:,} tokens at once"
    if memory.concurrency < FEW_AT_ONCE:
        remedy = f"Lower engine.options.max_model_len from {memory.context} to what users send, or take {SMALLER}."
        return Finding("warning", SUBJECT, f"{parts}: only {at_once}", remedy)
    wanted = engine.limits(gpu_bytes)[1]
    return Finding(
        "ok", SUBJECT, f"{parts}: {at_once} (max_num_seqs {wanted}); the longest that fits: {memory.longest:,}"
    )


def _quantization(engine: EngineMemory, shape: Shape) -> Iterator[Finding]:
    if engine.quantization in NEED_QUANTIZED and shape.quantization is None:
        yield Finding(
            "error",
            "quantization",
            f"engine.options.quantization is {engine.quantization}, but the weights are not quantized: "
            "config.json has no quantization_config",
            f"Take a weights.repo with {engine.quantization.split('_')[0].upper()} weights; the option makes none.",
        )


def _context(engine: EngineMemory, shape: Shape) -> Iterator[Finding]:
    if "max_position_embeddings" not in shape.text or engine.max_model_len is None:
        return
    trained = longest_context(shape.text)
    if engine.max_model_len > trained:
        yield Finding(
            "error",
            "context",
            f"max_model_len is {engine.max_model_len:,}, but the model's context is {trained:,} tokens: "
            "vLLM refuses to start",
            f"Set engine.options.max_model_len to {trained} or less.",
        )


def _gib(size: float) -> str:
    return f"{size / GIB:.1f}"
