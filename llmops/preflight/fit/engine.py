"""The engine's options that decide the size of the KV cache, with vLLM's defaults."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from llmops.config.vllm.arguments import texts
from llmops.preflight.fit.fields import LARGEST

GIB = 2**30
DEFAULT_UTILIZATION = 0.92
# vLLM 0.32, `engine/arg_utils.py`: a server's defaults by its GPU's memory: bytes, tokens of a step, requests at once.
DEFAULTS = ((160 * GIB, 16384, 1024), (70 * GIB, 8192, 1024), (0, 2048, 256))
# Options that change the memory in ways that llmops does not calculate: what vLLM then does, and the harmless values.
UNKNOWN = {
    "--speculative-config": ("it keeps a draft's weights and cache, too", ()),
    "--enable-lora": ("it keeps room for adapters, too", ("false",)),
    "--decode-context-parallel-size": ("it splits requests over GPUs", ("1",)),
    "--prefill-context-parallel-size": ("it splits requests over GPUs", ("1",)),
    "--num-gpu-blocks-override": ("it sets the size of the KV cache itself", ()),
    "--kv-cache-dtype-skip-layers": ("it mixes types of KV caches", ()),
    "--kv-transfer-config": ("it changes how the KV cache is kept", ()),
    "--kv-offloading-size": ("it keeps a part of the KV cache in the node's memory", ()),
    "--model-impl": ("it runs other code of the model", ("auto", "vllm")),
    "--runner": ("it serves no text", ("auto", "generate")),
    "--hf-config-path": ("it reads another config.json", ()),
    "--config-format": ("it reads another configuration", ("auto", "hf")),
    "--load-format": ("it loads the weights in a way of its own", ("auto", "hf", "safetensors", "runai_streamer",
        "fastsafetensors", "mistral", "dummy")),
    "--offload-group-size": ("it keeps weights in the node's memory", ("0",)),
    "--offload-backend": ("it keeps weights in the node's memory", ("auto", "uva")),
    "--enable-sleep-mode": ("it allocates memory in another way", ("false",)),
}  # fmt: skip
LOADS_OTHERWISE = ("--load-format", "--offload-group-size", "--offload-backend", "--model-impl", "--hf-config-path")
UNKNOWN_VARIABLES = {
    "VLLM_MLA_DISABLE": ("it keeps keys and values in full", ("", "0")),
    "VLLM_ALLOW_CHUNKED_LOCAL_ATTN_WITH_HYBRID_KV_CACHE": ("it keeps what is behind a chunk", ("1",)),
}
"""Variables that do the same, and their harmless values."""
TRUE = ("1", "true")
_SUFFIXES = {
    "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40,
}  # fmt: skip


@dataclass(frozen=True)
class EngineMemory:
    """Options of an engine; None leaves the value to vLLM.

    Args:
        max_model_len: Largest number of tokens of a request.
        max_num_seqs: Requests at once.
        max_num_batched_tokens: Tokens of one step.
        gpu_memory_utilization: The engine's share of a GPU's memory.
        tensor: Tensor-parallel GPUs: each layer is split over them.
        pipeline: Pipeline stages.
        block_tokens: Tokens of a block of the KV cache.
        dtype: Type of weights and activations.
        kv_cache_dtype: Type of the KV cache.
        quantization: Method of quantized weights.
        eager: No CUDA graphs.
        data: Data-parallel copies; they share the experts.
        cpu_offload_bytes: Bytes of weights on each GPU that stay in the node's memory.
        kv_cache_bytes: Size of the KV cache on each GPU, which then does not depend on the engine's share.
        frees_windows: Whether vLLM frees what is behind a sliding window.
        overrides: What replaces fields of `config.json`.
        allows_long: Whether vLLM takes a longer context than the model's.
        fits_context: Whether vLLM lowers the context to what fits (`--max-model-len auto`).
        unknown: Why llmops cannot calculate the KV cache with these options.
        loads_otherwise: Whether the options decide which weights are on a GPU in ways that llmops does not know.
    """

    max_model_len: int | None = None
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    gpu_memory_utilization: float = DEFAULT_UTILIZATION
    tensor: int = 1
    pipeline: int = 1
    block_tokens: int = 16
    dtype: str | None = None
    kv_cache_dtype: str | None = None
    quantization: str | None = None
    eager: bool = False
    data: int = 1
    cpu_offload_bytes: int = 0
    kv_cache_bytes: int | None = None
    frees_windows: bool = True
    overrides: Mapping[str, Any] = field(default_factory=dict[str, Any])
    allows_long: bool = False
    fits_context: bool = False
    unknown: tuple[str, ...] = ()
    loads_otherwise: bool = False

    def limits(self, gpu_bytes: float) -> tuple[int, int]:
        """Tokens of one step and requests at once, on GPUs of so many bytes."""
        tokens, requests = next((tokens, requests) for least, tokens, requests in DEFAULTS if gpu_bytes >= least)
        return self.max_num_batched_tokens or tokens, self.max_num_seqs or requests


def engine_memory(arguments: Sequence[str], env: Iterable[tuple[str, str]] = ()) -> EngineMemory:
    """Read a release's arguments and variables. The last of equal flags counts.

    Nothing raises: a value that llmops cannot read makes the memory unknown.

    Args:
        arguments: `--flag` or `--flag=value` each.
        env: The engine's environment.
    """
    given = texts(arguments)
    variables = dict(env)
    unread: list[str] = []

    def read(flag: str, parse: Callable[[str], Any]) -> Any:
        if flag not in given:
            return None
        try:
            return parse(given[flag])
        except (ValueError, OverflowError):
            unread.append(f"llmops cannot read {flag}")
            return None

    maximum = given.get("--max-model-len", "").strip().lower()
    options = EngineMemory(
        max_model_len=read("--max-model-len", _whole),
        max_num_seqs=read("--max-num-seqs", _whole),
        max_num_batched_tokens=read("--max-num-batched-tokens", _whole),
        gpu_memory_utilization=read("--gpu-memory-utilization", _share) or DEFAULT_UTILIZATION,
        tensor=read("--tensor-parallel-size", _whole) or 1,
        pipeline=read("--pipeline-parallel-size", _whole) or 1,
        block_tokens=read("--block-size", _whole) or 16,
        dtype=given.get("--dtype"),
        kv_cache_dtype=given.get("--kv-cache-dtype"),
        quantization=given.get("--quantization"),
        eager=_is_on(given, "--enforce-eager"),
        data=read("--data-parallel-size", _whole) or 1,
        cpu_offload_bytes=read("--cpu-offload-gb", _gibibytes) or 0,
        kv_cache_bytes=read("--kv-cache-memory-bytes", _whole),
        frees_windows=not _is_on(given, "--disable-hybrid-kv-cache-manager"),
        overrides=read("--hf-overrides", _object) or {},
        allows_long=variables.get("VLLM_ALLOW_LONG_MAX_MODEL_LEN", "").strip().lower() in TRUE,
        fits_context=maximum in ("auto", "-1"),
        unknown=tuple(_unknown_options(given)) + tuple(_unknown_variables(variables)),
        loads_otherwise=any(_is_unknown(given, flag) for flag in LOADS_OTHERWISE),
    )
    return _with(options, unread) if unread else options


def _with(options: EngineMemory, more: Sequence[str]) -> EngineMemory:
    return replace(options, unknown=(*options.unknown, *more))


def _unknown_options(given: Mapping[str, str]) -> Iterator[str]:
    for flag, (why, _) in UNKNOWN.items():
        if _is_unknown(given, flag):
            yield f"with {flag}, {why}"


def _is_unknown(given: Mapping[str, str], flag: str) -> bool:
    _, harmless = UNKNOWN[flag]
    return flag in given and given[flag].strip().lower() not in harmless


def _unknown_variables(variables: Mapping[str, str]) -> Iterator[str]:
    for name, (why, harmless) in UNKNOWN_VARIABLES.items():
        if name in variables and variables[name].strip() not in harmless:
            yield f"with {name}, {why}"


def _is_on(given: Mapping[str, str], flag: str) -> bool:
    return flag in given and given[flag].strip().lower() != "false"


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise ValueError(text) from error
    if not isinstance(value, dict):
        raise ValueError(text)
    return cast("dict[str, Any]", value)


def _gibibytes(text: str) -> int:
    return _bounded(float(text) * GIB)


def _share(text: str) -> float:
    share = float(text)
    if not 0 < share <= 1:
        raise ValueError(text)
    return share


def _whole(text: str) -> int | None:
    """A number as vLLM reads it: `32k` is 32,000, `32K` is 32,768; `auto` leaves it to vLLM."""
    text = text.strip()
    if text.lower() in ("auto", "-1"):
        return None
    if text[-1:] in _SUFFIXES:
        return _bounded(float(text[:-1]) * _SUFFIXES[text[-1]]) or None
    return _bounded(int(text)) or None


def _bounded(value: float) -> int:
    if not math.isfinite(value) or not 0 <= value <= LARGEST * 1024:
        raise ValueError(str(value)[:20])
    return int(value)
