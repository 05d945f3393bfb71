"""What the attention layers of a model keep per token on one GPU, in vLLM's KV cache.

The rules are those of vLLM 0.32's `v1/kv_cache_interface.py` and `utils/torch_utils.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from llmops.preflight.fit.families import Layer, family_of
from llmops.preflight.fit.fields import UnknownShape, shown
from llmops.preflight.fit.shape import Shape, number_bytes

FP8 = ("fp8", "fp8_e4m3", "fp8_e5m2")
HALF = ("bfloat16", "float16")
# Of DeepSeek's compressed layer: 512 codes of 8 bits, 4 scales of 32 bits, 64 positions of 16 bits.
PACKED_LATENT, PACKED_LATENT_BYTES = "fp8_ds_mla", 656


@dataclass(frozen=True)
class Layers:
    """Layers of one kind.

    Args:
        count: Number of layers.
        token_bytes: Bytes that a layer keeps per token, on one GPU.
        window: Tokens that the layers look back on; None for all.
        chunked: Whether the window is a chunk that starts anew, and does not slide.
    """

    count: int
    token_bytes: float
    window: int | None = None
    chunked: bool = False


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
    fields = shape.fields
    layers = family_of(fields, shape.config.get("architectures")).layers(fields)
    cache_type = kv_cache_dtype or "auto"
    width = _width(shape, dtype, cache_type)
    kinds = Counter((layer.window, layer.chunked, _token_bytes(layer, cache_type, width, tensor)) for layer in layers)
    ordered = sorted(kinds.items(), key=lambda item: (item[0][0] is not None, item[0][0] or 0, item[0][2]))
    return tuple(Layers(number, size, window, chunked) for (window, chunked, size), number in ordered)


def _token_bytes(layer: Layer, cache_type: str, width: float, tensor: int) -> float:
    if not layer.heads:
        # Each GPU keeps the whole compressed vector.
        return PACKED_LATENT_BYTES if cache_type == PACKED_LATENT else layer.key * width
    if cache_type == PACKED_LATENT:
        raise UnknownShape(f"kv_cache_dtype {cache_type} is for compressed keys and values", about="kv_cache_dtype")
    if layer.heads % tensor and tensor % layer.heads:
        raise UnknownShape(f"{tensor} GPUs cannot share its {layer.heads} heads of keys and values", about="heads")
    # With fewer heads than GPUs, several GPUs keep the same head.
    return max(1, layer.heads // tensor) * (layer.key + layer.value) * width


def _width(shape: Shape, dtype: str | None, cache_type: str) -> float:
    """Bytes of a number in the KV cache."""
    if cache_type == "auto":
        if shape.quantized and shape.quantization is None:
            raise UnknownShape("its weights are quantized, and no file says how", about="quantization_config")
        return _checkpoints_width(shape.quantization) or number_bytes(dtype)
    if cache_type in FP8 or cache_type == PACKED_LATENT:
        return 1
    if cache_type in HALF:
        return 2
    raise UnknownShape(
        f"llmops does not know the size of a KV cache of type {shown(cache_type)}", about="kv_cache_dtype"
    )


def _checkpoints_width(quantization: Mapping[str, Any] | None) -> int | None:
    """Bytes of a number in the cache that the weights ask for; None if they do not ask.

    Raises:
        UnknownShape: They ask for a type that llmops does not know.
    """
    outer = quantization or {}
    inner = outer.get("quantization")
    for part in (cast("Mapping[str, Any]", inner) if isinstance(inner, Mapping) else {}, outer):
        for name in ("kv_cache_scheme", "kv_cache_quant_algo"):
            wanted = part.get(name)
            if not wanted:
                continue
            if isinstance(wanted, Mapping):
                bits = cast("Mapping[str, Any]", wanted).get("num_bits")
                if bits == 8:
                    return 1
            elif isinstance(wanted, str) and wanted.lower() == "fp8":
                return 1
            raise UnknownShape(f"its {name} ({shown(wanted)}) is of a kind that llmops does not know", about=name)
    return None
