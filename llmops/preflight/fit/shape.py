"""What decides a model's memory: its configuration, and the tensors in its weight files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, cast

from llmops.preflight.fit.fields import Fields, fields_of, text_of

HALF_BYTES = 2
FULL_BYTES = 4
FULL_PRECISION = ("float32", "float")
# Formats in a safetensors header that a model computes with; all others are quantized weights, or tables.
FLOATS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
# https://github.com/huggingface/safetensors/blob/main/safetensors/src/tensor.rs, `Dtype`; bytes of one number.
BYTES = {
    **FLOATS, "BOOL": 1, "U8": 1, "I8": 1, "U16": 2, "I16": 2, "U32": 4, "I32": 4, "U64": 8, "I64": 8, "C64": 8,
    "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "F8_E4M3FNUZ": 1, "F8_E5M2FNUZ": 1, "F4": 0.5, "F6_E2M3": 0.75,
    "F6_E3M2": 0.75,
}  # fmt: skip
CODES = frozenset(BYTES) - frozenset(FLOATS) - {"BOOL", "I64", "U64"}
"""Formats of quantized weights; booleans and 64 bits are tables, such as positions."""


@dataclass(frozen=True)
class Shape:
    """A model, as its repository describes it.

    Args:
        config: Content of `config.json`.
        parameters: Count of numbers in all weight files, by format of their headers (`BF16`, `F8_E4M3`, `I32`).
        size: Bytes of all weight files.
        beside: Content of files beside `config.json` that say how the weights are quantized, by name.
    """

    config: Mapping[str, Any]
    parameters: Mapping[str, int]
    size: int
    beside: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]])

    @cached_property
    def fields(self) -> Fields:
        """The configuration of the text model."""
        return fields_of(self.config)

    @property
    def quantization(self) -> Mapping[str, Any] | None:
        """How the repository says that its weights are quantized; None if it does not say."""
        parts = (self.config, text_of(self.config))
        named: list[object] = [
            part.get(name) for name in ("quantization_config", "compression_config") for part in parts
        ]
        objects = [
            cast("Mapping[str, Any]", value) for value in (*named, *self.beside.values()) if isinstance(value, Mapping)
        ]
        return objects[0] if objects else None

    @property
    def quantized(self) -> bool:
        """Whether the weights are quantized, by what the repository says or by their formats."""
        return self.quantization is not None or any(self.parameters.get(code) for code in CODES)


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
    if shape.quantized or not shape.parameters or any(kind not in BYTES for kind in shape.parameters):
        return shape.size
    width = number_bytes(dtype)
    return int(sum(count * (width if kind in FLOATS else BYTES[kind]) for kind, count in shape.parameters.items()))
