"""Findings on a model's GPU memory: an engine that does not fit fails only after minutes of loading.

An error blocks a release, so it says only what is certain: weights that alone exceed the GPUs, and options that vLLM
refuses. The rest is an estimate, which warns, or unknown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, cast

from llmops.preflight.finding import Finding, Severity
from llmops.preflight.fit.budget import Fit, fit
from llmops.preflight.fit.context import LENGTHS, Context, context_of
from llmops.preflight.fit.engine import GIB, EngineMemory, engine_memory
from llmops.preflight.fit.families import FAMILIES
from llmops.preflight.fit.fields import UnknownShape
from llmops.preflight.fit.shape import Shape
from llmops.preflight.fit.weights import NEED_QUANTIZED, cannot_quantize, weights_on_gpu
from llmops.releases.release import Release

FIT, QUANTIZATION, CONTEXT = "memory.fit", "memory.quantization", "memory.context"
"""Ids of the checks."""
SUBJECT = "GPU fit"
FEW_AT_ONCE = 2.0
SMALLER = "quantized weights, more GPUs (gpu.count and engine.options.tensor_parallel_size) or larger ones"
LOOK = "Look for `GPU KV cache size` in the log of the canary's engine."
MISTRALS_OWN = "params.json"
"""vLLM reads this file in place of config.json where it finds it beside Mistral's own weights."""
OVERRIDABLE = ("text_config", "llm_config", "language_config")
KEEPS_YARN_SINCE = (0, 31)
"""Versions of vLLM before this multiplied the context of a YaRN model by its factor; later ones do not."""


def fit_findings(release: Release, shape: Shape, gpu_bytes: float | None) -> Iterator[Finding]:
    """Whether the model and its context fit, how many requests run at once, and the longest request that fits.

    Nothing that the files say raises.

    Args:
        release: The release, with the engine's arguments.
        shape: The model.
        gpu_bytes: Memory of one GPU; None if unknown, which is a finding.
    """
    engine = engine_memory(release.engine.args, release.engine.env)
    shape = overridden(shape, engine.overrides)
    yield from (replace(finding, check=QUANTIZATION) for finding in _quantization(engine, shape))
    yield from (replace(finding, check=CONTEXT) for finding in _context(release, engine, shape))
    if release.gpu.count:
        yield replace(_memory(release, engine, shape, gpu_bytes), check=FIT)


def overridden(shape: Shape, overrides: Mapping[str, Any]) -> Shape:
    """The model with the fields of `--hf-overrides`: parts are merged, the rest replaced (vLLM 0.32, `ModelConfig`)."""
    if not overrides:
        return shape
    config = _replaced(shape.config, overrides)
    for name, value in overrides.items():
        part = shape.config.get(name)
        if name in OVERRIDABLE and isinstance(part, Mapping) and isinstance(value, Mapping):
            config[name] = _replaced(cast("Mapping[str, Any]", part), cast("Mapping[str, Any]", value))
    return replace(shape, config=config)


def _replaced(part: Mapping[str, Any], by: Mapping[str, Any]) -> dict[str, Any]:
    """Fields with others in their place; `rope_parameters` is the newer name of `rope_scaling`."""
    old = ("rope_scaling",) if "rope_parameters" in by else ()
    return {name: value for name, value in part.items() if name not in old} | dict(by)


def _memory(release: Release, engine: EngineMemory, shape: Shape, gpu_bytes: float | None) -> Finding:
    if gpu_bytes is None:
        remedy = "Install NVIDIA's GPU feature discovery, or write gpu.memory into the model's entry."
        return Finding("unknown", SUBJECT, "the GPUs' memory is not known", remedy)
    if (too_large := too_large_weights(release, engine, shape, gpu_bytes)) is not None:
        return too_large
    try:
        return _estimate(release, engine, fit(shape, engine, gpu_bytes), gpu_bytes)
    except UnknownShape as unknown:
        return Finding("unknown", SUBJECT, f"the size of its KV cache is not known: {unknown.message}", LOOK)


def too_large_weights(release: Release, engine: EngineMemory, shape: Shape, gpu_bytes: float) -> Finding | None:
    """The error if the weights alone exceed what the engine takes of each GPU; None if they do not for certain."""
    share = 1.0 if engine.kv_cache_bytes is not None else engine.gpu_memory_utilization
    least = weights_on_gpu(shape, engine).least
    if least < gpu_bytes * share or engine.loads_otherwise:
        return None
    message = (
        f"of {_gib(gpu_bytes)} GiB on each of {_gpus(release)} the engine takes {_gib(gpu_bytes * share)}, and the "
        f"weights alone are {_gib(least)}: no room for a KV cache"
    )
    return Finding("error", SUBJECT, message, f"Take {SMALLER}.")


def _estimate(release: Release, engine: EngineMemory, memory: Fit, gpu_bytes: float) -> Finding:
    parts = (
        f"of {_gib(gpu_bytes)} GiB on each of {_gpus(release)} the engine takes {_gib(memory.taken)}: "
        f"weights {_gib(memory.weights)}, activations {_gib(memory.activations)}, CUDA {_gib(memory.overhead)}"
    )
    if memory.kv_cache <= 0:
        return Finding("warning", SUBJECT, f"{parts}; it seems that no room is left for a KV cache", f"Take {SMALLER}.")
    parts = f"{parts}, KV cache {_gib(memory.kv_cache)} for {memory.tokens:,} tokens"
    if memory.longest < memory.context:
        longest = memory.longest // 16 * 16
        remedy = f"Set engine.options.max_model_len to {longest} or less, or take kv_cache_dtype fp8, {SMALLER}."
        return Finding(
            "warning", SUBJECT, f"{parts}; a request of {memory.context:,} tokens does not seem to fit", remedy
        )
    at_once = f"{memory.concurrency:.1f} requests of {memory.context:,} tokens at once"
    if memory.concurrency < FEW_AT_ONCE:
        remedy = f"Lower engine.options.max_model_len from {memory.context} to what users send, or take {SMALLER}."
        return Finding("warning", SUBJECT, f"{parts}: only {at_once}", remedy)
    wanted = engine.limits(gpu_bytes)[1]
    return Finding(
        "ok", SUBJECT, f"{parts}: {at_once} (max_num_seqs {wanted}); the longest that fits: {memory.longest:,}"
    )


def _quantization(engine: EngineMemory, shape: Shape) -> Iterator[Finding]:
    method = engine.quantization
    if method is not None and cannot_quantize(shape, engine):
        names = " or ".join(("config.json", *NEED_QUANTIZED[method]))
        yield Finding(
            "error",
            "quantization",
            f"engine.options.quantization is {method}, but the weights are not quantized: no quantization in {names}",
            f"Take a weights.repo with {method.split('_')[0].upper()} weights; the option makes none.",
        )


def _context(release: Release, engine: EngineMemory, shape: Shape) -> Iterator[Finding]:
    fields = shape.fields
    wanted = engine.max_model_len
    if wanted is None or not any(fields.value(name) is not None for name in LENGTHS):
        return
    try:
        own = context_of(fields)
    except UnknownShape as unknown:
        yield Finding("unknown", "context", f"the model's context is not known: {unknown.message}", LOOK)
        return
    if wanted <= own.longest:
        return
    message = f"max_model_len is {wanted:,}, but the model's context is {own.longest:,} tokens"
    remedy = f"Set engine.options.max_model_len to {own.longest} or less."
    if engine.allows_long:
        yield Finding(
            "warning",
            "context",
            f"{message}; VLLM_ALLOW_LONG_MAX_MODEL_LEN lets vLLM start, and answers may be nonsense",
            remedy,
        )
    elif (severity := _refusal(own, fields.kind, release)) == "error":
        yield Finding(severity, "context", f"{message}: vLLM refuses to start", remedy)
    else:
        yield Finding(
            severity,
            "context",
            f"{message}: vLLM {'.'.join(map(str, KEEPS_YARN_SINCE))} and later refuse to start",
            remedy,
        )


def _refusal(own: Context, kind: str, release: Release) -> Severity:
    """An error if vLLM refuses for certain: the class of the model is known, and so is vLLM's rule of that version."""
    if kind not in FAMILIES or any(file.path == MISTRALS_OWN for file in release.weights.files):
        return "warning"
    if not own.scaled:
        return "error"
    match = re.search(r"(\d{1,4})\.(\d{1,4})\.\d", release.engine.tag)
    return "error" if match and (int(match[1]), int(match[2])) >= KEEPS_YARN_SINCE else "warning"


def _gpus(release: Release) -> str:
    return f"{release.gpu.count} GPU{'s' if release.gpu.count > 1 else ''}"


def _gib(size: float) -> str:
    return f"{size / GIB:.1f}"
