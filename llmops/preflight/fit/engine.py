"""The engine's options that decide the size of the KV cache, with vLLM's defaults."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llmops.config.vllm.arguments import texts

GIB = 2**30
DEFAULT_UTILIZATION = 0.92
# vLLM 0.32, `engine/arg_utils.py`: a server's defaults by its GPU's memory: bytes, tokens of a step, requests at once.
DEFAULTS = ((160 * GIB, 16384, 1024), (70 * GIB, 8192, 1024), (0, 2048, 256))
_SUFFIXES = {"k": 10**3, "m": 10**6, "g": 10**9, "K": 2**10, "M": 2**20, "G": 2**30}


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

    def limits(self, gpu_bytes: float) -> tuple[int, int]:
        """Tokens of one step and requests at once, on GPUs of so many bytes."""
        tokens, requests = next((tokens, requests) for least, tokens, requests in DEFAULTS if gpu_bytes >= least)
        return self.max_num_batched_tokens or tokens, self.max_num_seqs or requests


def engine_memory(arguments: Sequence[str]) -> EngineMemory:
    """Parse a release's arguments as vLLM does."""
    given = texts(arguments)

    def whole(flag: str) -> int | None:
        return _whole(given[flag]) if flag in given else None

    return EngineMemory(
        max_model_len=whole("--max-model-len"),
        max_num_seqs=whole("--max-num-seqs"),
        max_num_batched_tokens=whole("--max-num-batched-tokens"),
        gpu_memory_utilization=float(given.get("--gpu-memory-utilization", DEFAULT_UTILIZATION)),
        tensor=whole("--tensor-parallel-size") or 1,
        pipeline=whole("--pipeline-parallel-size") or 1,
        block_tokens=whole("--block-size") or 16,
        dtype=given.get("--dtype"),
        kv_cache_dtype=given.get("--kv-cache-dtype"),
        quantization=given.get("--quantization"),
        eager="--enforce-eager" in given,
    )


def _whole(text: str) -> int | None:
    """A number as vLLM reads it: `32k` is 32,000, `32K` is 32,768; `auto` leaves it to vLLM."""
    text = text.strip()
    if text.lower() in ("auto", "-1"):
        return None
    if text[-1:] in _SUFFIXES:
        return int(float(text[:-1]) * _SUFFIXES[text[-1]])
    return int(text)
