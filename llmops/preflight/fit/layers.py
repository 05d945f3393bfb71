"""What each attention layer of a model keeps per token in vLLM's KV cache.

The rules are those of vLLM 0.32's `v1/kv_cache_interface.py` and `v1/core/kv_cache_utils.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llmops.errors import LlmopsError
from llmops.preflight.fit.shape import Shape, number_bytes

FP8 = ("fp8", "fp8_e4m3", "fp8_e5m2")
HALF = ("bfloat16", "float16")
# Of DeepSeek's compressed layer: 512 codes of 8 bits, 4 scales of 32 bits, 64 positions of 16 bits.
FP8_LATENT_BYTES = 656
# Layers that keep a state of fixed size instead of, or beside, keys and values of each token.
STATEFUL = ("linear_attention", "mamba", "recurrent", "conv", "compressed_sparse_attention")
# Fields of config.json that mean layers of a kind not handled below.
FOREIGN = ("ssm_cfg", "mamba_d_state", "mamba_num_heads", "linear_num_key_heads", "index_head_dim", "rwkv_version",
           "linear_attn_config", "attn_type_list", "global_head_dim")  # fmt: skip


class UnknownShape(LlmopsError):
    """llmops cannot calculate the memory of such a model; the message says why."""


@dataclass(frozen=True)
class Layers:
    """Layers of one kind.

    Args:
        count: Number of layers.
        token_bytes: Bytes that a layer keeps per token, on one GPU.
        window: Sliding window in tokens; None for full attention.
    """

    count: int
    token_bytes: float
    window: int | None = None


def layers_of(shape: Shape, *, dtype: str | None, kv_cache_dtype: str | None, tensor: int) -> tuple[Layers, ...]:
    """The layers of a model by kind, those with full attention first.

    Args:
        shape: The model.
        dtype: The engine's option.
        kv_cache_dtype: The engine's option.
        tensor: Tensor-parallel GPUs.

    Raises:
        UnknownShape: The model has layers whose memory llmops cannot calculate.
    """
    text = shape.text
    _refuse_foreign(text)
    count = int(_needed(text, "num_hidden_layers", "n_layer", "num_layers"))
    token_bytes = _token_bytes(shape, dtype, kv_cache_dtype, tensor)
    kinds = Counter(_window(text, index) for index in range(count))
    ordered = sorted(kinds.items(), key=lambda item: (item[0] is not None, item[0] or 0))
    return tuple(Layers(number, token_bytes, window) for window, number in ordered)


def _refuse_foreign(text: Mapping[str, Any]) -> None:
    kinds = {str(kind) for kind in text.get("layer_types") or ()} & set(STATEFUL)
    named = [name for name in FOREIGN if text.get(name)]
    if kinds or named:
        foreign = ", ".join(sorted(kinds) or named)
        raise UnknownShape(f"its layers ({foreign}) keep other state than keys and values of each token", about=foreign)


def _token_bytes(shape: Shape, dtype: str | None, kv_cache_dtype: str | None, tensor: int) -> float:
    text = shape.text
    width = _width(shape, dtype, kv_cache_dtype)
    if rank := text.get("kv_lora_rank"):
        # Compressed keys and values (MLA): one vector for all heads; every GPU keeps all of it.
        if kv_cache_dtype == "fp8_ds_mla":
            return FP8_LATENT_BYTES
        return (int(rank) + int(_needed(text, "qk_rope_head_dim"))) * width
    heads = int(_needed(text, "num_attention_heads", "n_head"))
    shared = int(
        text.get("num_key_value_heads") or text.get("num_kv_heads") or (1 if text.get("multi_query") else heads)
    )
    size = int(text.get("head_dim") or int(_needed(text, "hidden_size", "n_embd")) // heads)
    # With fewer heads than GPUs, several GPUs keep the same head.
    return 2 * max(1, shared // tensor) * size * width


def _width(shape: Shape, dtype: str | None, kv_cache_dtype: str | None) -> float:
    """Bytes of a number in the KV cache."""
    dtype_of_cache = kv_cache_dtype or "auto"
    if dtype_of_cache == "auto":
        scheme: Mapping[str, Any] = (shape.quantization or {}).get("kv_cache_scheme") or {}
        return 1 if scheme.get("num_bits") == 8 else number_bytes(dtype)
    if dtype_of_cache in FP8 or dtype_of_cache == "fp8_ds_mla":
        return 1
    if dtype_of_cache in HALF:
        return 2
    raise UnknownShape(f"llmops does not know the size of a KV cache of type {dtype_of_cache}", about="kv_cache_dtype")


def _window(text: Mapping[str, Any], index: int) -> int | None:
    """The layer's sliding window in tokens; None for full attention."""
    window = text.get("sliding_window")
    if not window or text.get("use_sliding_window") is False:
        return None
    if kinds := text.get("layer_types"):
        return int(window) if kinds[index] == "sliding_attention" else None
    if pattern := text.get("sliding_window_pattern"):
        return int(window) if (index + 1) % int(pattern) else None
    if text.get("model_type") == "gemma2":
        return None if index % 2 else int(window)
    return int(window)


def _needed(text: Mapping[str, Any], *names: str) -> Any:
    for name in names:
        if text.get(name):
            return text[name]
    raise UnknownShape(f"config.json has no {' or '.join(names)}", about=names[0])
