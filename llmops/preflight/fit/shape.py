"""What decides a model's memory: its configuration, and the tensors in its weight files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

HALF_BYTES = 2
FULL_BYTES = 4
FULL_PRECISION = ("float32", "float")
# Formats in a safetensors header that a model computes with; all others are quantized weights.
FLOATS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}


@dataclass(frozen=True)
class Shape:
    """A model, as its repository describes it.

    Args:
        config: Content of `config.json`.
        parameters: Count of numbers in all weight files, by format of their headers (`BF16`, `F8_E4M3`, `I32`).
        size: Bytes of all weight files.
    """

    config: Mapping[str, Any]
    parameters: Mapping[str, int]
    size: int

    @property
    def text(self) -> Mapping[str, Any]:
        """The configuration of the text model. Models for images or sound have it under `text_config`."""
        return self.config.get("text_config") or self.config

    @property
    def quantization(self) -> Mapping[str, Any] | None:
        """The repository's quantization; None for full weights."""
        config: Mapping[str, Any] | None = self.config.get("quantization_config") or self.text.get(
            "quantization_config"
        )
        return config or self.config.get("compression_config")


def number_bytes(dtype: str | None) -> int:
    """Bytes of a number that the engine computes with.

    Args:
        dtype: The engine's option; None and `auto` take the model's own, which vLLM keeps within 16 bits.
    """
    return FULL_BYTES if dtype in FULL_PRECISION else HALF_BYTES


def weight_bytes(shape: Shape, dtype: str | None) -> int:
    """Bytes of all weights once they are loaded.

    vLLM casts full weights to the engine's type, and keeps quantized ones as they are.
    """
    if shape.quantization is not None or not shape.parameters:
        return shape.size
    width = number_bytes(dtype)
    return sum(count * (width if kind in FLOATS else 1) for kind, count in shape.parameters.items())
