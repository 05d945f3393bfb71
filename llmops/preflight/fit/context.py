"""The longest request that vLLM lets a model take, by vLLM 0.32's `config/model.py`, `_get_and_verify_max_len`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llmops.preflight.fit.fields import LARGEST, Fields, UnknownShape, fields_of, shown

LENGTHS = (
    "max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "model_max_length", "max_target_positions",
    "max_sequence_length", "max_seq_length", "seq_len",
)  # fmt: skip
WITHOUT = 2048
"""Tokens if a file has none of the fields."""
SCALED_ALREADY = ("su", "longrope", "llama3", "yarn", "deepseek_yarn", "deepseek_llama_scaling", "telechat3-yarn")
"""Kinds of position embedding whose factor is in max_position_embeddings already."""
LONG_ROPE = ("su", "longrope")
UNSCALED = ("default", "mrope")


@dataclass(frozen=True)
class Context:
    """Tokens of a request.

    Args:
        longest: What `max_model_len` may be at most.
        default: What vLLM takes without `max_model_len`.
        scaled: Kind of a position embedding that stretches the context; empty if it is not stretched.
    """

    longest: int
    default: int
    scaled: str = ""


def context_of(fields: Fields) -> Context:
    """What a model takes.

    Raises:
        UnknownShape: The file says something else than numbers.
    """
    longest = _declared(fields)
    scaled, factor = "", 1.0
    for parameters in fields.rope():
        kind = _kind(parameters)
        if kind not in UNSCALED:
            scaled = kind
        # gemma3's files have the scaled length already; vLLM goes by the name, too.
        if kind in SCALED_ALREADY or kind in UNSCALED or "gemma3" in fields.kind:
            continue
        factor = _factor(parameters)
    longest = int(longest * factor)
    if not 0 < longest <= LARGEST:
        raise UnknownShape("its rope_scaling in config.json makes no sensible length", about="rope_scaling")
    default = longest
    if any(_kind(parameters) in LONG_ROPE for parameters in fields.rope()):
        default = fields.number("original_max_position_embeddings") or longest
    return Context(longest, default, scaled)


def longest_context(text: Mapping[str, Any]) -> int:
    """Tokens of the longest request that a model takes.

    Raises:
        UnknownShape: The file says something else than numbers.
    """
    return context_of(fields_of(text)).longest


def _declared(fields: Fields) -> int:
    """The smallest of the fields that there are, unless the file names a maximum of the model."""
    if fields.value("model_max_length"):
        return fields.whole("model_max_length")
    lengths = [length for name in LENGTHS if (length := fields.number(name)) is not None]
    return min(lengths, default=WITHOUT)


def _kind(parameters: Mapping[str, Any]) -> str:
    kind = parameters.get("rope_type", parameters.get("type", "default"))
    if not isinstance(kind, str):
        raise UnknownShape(f"its rope_type in config.json is {shown(kind)}", about="rope_scaling")
    return kind


def _factor(parameters: Mapping[str, Any]) -> float:
    factor = parameters.get("factor")
    if factor is None:
        return 1.0
    if isinstance(factor, bool) or not isinstance(factor, int | float) or not 0 < factor <= LARGEST:
        raise UnknownShape(f"its factor in rope_scaling of config.json is {shown(factor)}", about="rope_scaling")
    return float(factor) if math.isfinite(factor) else 1.0
