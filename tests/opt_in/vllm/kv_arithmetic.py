# pyright: reportMissingImports=false, reportUnknownParameterType=false, reportUnknownVariableType=false
"""vLLM's own arithmetic of its KV cache, without weights. Runs in vLLM's environment.

It reads cases from standard input (a config.json, options, bytes of KV cache), lets vLLM read each configuration, makes
the specification of each attention layer, and lets vLLM divide the bytes.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from vllm.config import CacheConfig, ModelConfig, ParallelConfig, SchedulerConfig, VllmConfig, set_current_vllm_config
from vllm.v1.core import kv_cache_utils
from vllm.v1.kv_cache_interface import FullAttentionSpec, MLAAttentionSpec, SlidingWindowSpec


def answer(case: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Tokens in the cache, concurrent requests of full length, and the longest request, by vLLM."""
    (folder / "config.json").write_text(json.dumps(case["config"]))
    model = ModelConfig(
        model=str(folder), tokenizer=str(folder), skip_tokenizer_init=True, max_model_len=case["max_model_len"],
        dtype="bfloat16",
    )  # fmt: skip
    vllm = VllmConfig(
        model_config=model,
        cache_config=CacheConfig(block_size=16, cache_dtype="auto"),
        scheduler_config=SchedulerConfig(
            max_num_batched_tokens=case["max_num_batched_tokens"],
            max_num_seqs=64,
            max_model_len=case["max_model_len"],
            is_encoder_decoder=False,
            async_scheduling=True,
        ),
    )
    # The value on NVIDIA's GPUs; workers resolve it, and there are none here.
    vllm.cache_config.kv_cache_layout = "LBNHC"
    specs = {f"layer.{index}": _spec(model, case, index) for index in range(case["layers"])}
    with set_current_vllm_config(vllm):
        groups = kv_cache_utils.get_kv_cache_groups(vllm, dict(specs))
        config = kv_cache_utils.get_kv_cache_config_from_groups(vllm, groups, case["kv_bytes"])
        tokens, concurrency = kv_cache_utils.get_kv_cache_capacity(vllm, config)
        usable = case["kv_bytes"] - kv_cache_utils._pool_bytes_per_block(vllm, groups)
        longest = kv_cache_utils._estimate_max_model_len_from_groups(vllm, groups, usable)
    return {"tokens": tokens, "concurrency": concurrency, "longest": longest, "in_flight": vllm.max_in_flight_tokens}


def _spec(model: ModelConfig, case: dict[str, Any], index: int) -> Any:
    # vLLM computes the heads per GPU without a GPU.
    parallel = ParallelConfig.__new__(ParallelConfig)
    object.__setattr__(parallel, "tensor_parallel_size", case["tensor"])
    object.__setattr__(parallel, "decode_context_parallel_size", 1)
    common = {
        "block_size": 16,
        "num_kv_heads": model.get_num_kv_heads(parallel),
        "head_size": model.get_head_size(),
        "dtype": torch.float8_e4m3fn if case["kv_cache_dtype"] == "fp8" else torch.bfloat16,
    }
    if model.use_mla:
        return MLAAttentionSpec(**common)
    window = _window(model.hf_text_config, index)
    return FullAttentionSpec(**common) if window is None else SlidingWindowSpec(**common, sliding_window=window)


def _window(config: Any, index: int) -> int | None:
    """The sliding window of a layer, by transformers' configuration."""
    if kinds := getattr(config, "layer_types", None):
        return config.sliding_window if kinds[index] == "sliding_attention" else None
    return getattr(config, "sliding_window", None)


def main() -> None:
    """Answer all cases in one line of JSON, the last of standard output."""
    cases = json.load(sys.stdin)
    with tempfile.TemporaryDirectory() as folder:
        answers = {name: answer(case, Path(folder)) for name, case in cases.items()}
    sys.stdout.write("\n" + json.dumps(answers) + "\n")


if __name__ == "__main__":
    main()
