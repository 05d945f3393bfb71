"""Bytes of weights on one GPU, how certain they are, and whether the weights can be loaded as asked."""

from __future__ import annotations

from dataclasses import dataclass

from llmops.preflight.fit.engine import EngineMemory
from llmops.preflight.fit.families import FAMILIES
from llmops.preflight.fit.fields import UnknownShape
from llmops.preflight.fit.shape import FLOATS, Shape, number_bytes, weight_bytes

# vLLM 0.32, `get_config_filenames` of `model_executor/layers/quantization`: where these methods look for their
# configuration if config.json has none. Without it vLLM exits with "Cannot find the config file for awq".
NEED_QUANTIZED = {
    "awq": ("quantize_config.json", "quant_config.json"),
    "auto_awq": ("quantize_config.json", "quant_config.json"),
    "awq_marlin": ("quantize_config.json", "quant_config.json"),
    "gptq": ("quantize_config.json",),
    "auto_gptq": ("quantize_config.json",),
    "gptq_marlin": ("quantize_config.json",),
    "modelopt": ("hf_quant_config.json",),
    "modelopt_fp4": ("hf_quant_config.json",),
}
EIGHT_BITS = ("F8_E4M3", "I8")
DRAFT_LAYERS = "num_nextn_predict_layers"
OVERRIDES = ("quantization_config_file", "quantization_config_dict_json")
"""Keys of `--hf-overrides` that say it, too."""
SAYS_HOW = ("hf_quant_config.json", "quant_config.json", "quantize_config.json")
"""Files beside config.json with which weights are quantized; config.json then need not say it."""


@dataclass(frozen=True)
class Weights:
    """Weights on one GPU.

    Args:
        least: Bytes that are there in any case.
        bytes: The estimate; None if llmops cannot make one.
        why: Why there is no estimate.
    """

    least: float
    bytes: float | None
    why: str = ""


def weights_on_gpu(shape: Shape, engine: EngineMemory) -> Weights:
    """Bytes of weights on each GPU of a replica.

    Tensor and pipeline parallelism split all weights; data parallelism splits the routed experts alone, with or
    without expert parallelism (vLLM 0.32, `FusedMoEParallelConfig.make`).
    """
    total = weight_bytes(shape, engine.dtype)
    split = engine.tensor * engine.pipeline
    if quantizes_while_loading(shape, engine):
        return Weights(0, None, f"{engine.quantization} quantizes the weights while vLLM loads them")
    loaded = total * _least_loaded(shape)
    least = max(0.0, loaded / (split * engine.data) - engine.cpu_offload_bytes)
    try:
        experts = _expert_bytes(shape, engine, total) if engine.data > 1 else 0
    except UnknownShape as unknown:
        return Weights(least, None, unknown.message)
    on_gpu = max(0.0, (total - experts) / split + experts / (split * engine.data) - engine.cpu_offload_bytes)
    # The number of experts' weights is by config.json; without any, nothing is shared.
    return Weights(least if experts else max(0.0, loaded / split - engine.cpu_offload_bytes), on_gpu)


def quantizes_while_loading(shape: Shape, engine: EngineMemory) -> bool:
    """Whether the engine makes quantized weights of full ones."""
    return bool(engine.quantization) and not shape.quantized and engine.quantization not in NEED_QUANTIZED


def cannot_quantize(shape: Shape, engine: EngineMemory) -> bool:
    """Whether the engine asks for quantized weights, and the repository has full ones without a word on how."""
    if not shape.parameters or shape.quantized or any(name in engine.overrides for name in OVERRIDES):
        return False
    return engine.quantization in NEED_QUANTIZED


def _least_loaded(shape: Shape) -> float:
    """Share of the files that vLLM loads at least: without a draft it leaves the layers for drafts (MTP) out."""
    try:
        layers, drafts = shape.fields.count("num_hidden_layers"), shape.fields.count(DRAFT_LAYERS)
    except UnknownShape:
        return 0
    # A draft's layer is larger than most.
    return max(0, layers - drafts) / (layers + drafts) if drafts else 1


def _expert_bytes(shape: Shape, engine: EngineMemory, total: int) -> float:
    """Bytes of routed experts.

    Raises:
        UnknownShape: llmops cannot count them.
    """
    fields = shape.fields
    family = FAMILIES.get(fields.kind)
    if family is None:
        raise UnknownShape("llmops does not know which of its weights are experts", about=fields.kind)
    if family.experts is None:
        return 0
    numbers = family.experts(fields)
    if shape.quantized and any(shape.parameters.get(kind, 0) >= numbers for kind in EIGHT_BITS):
        size = float(numbers)
    elif shape.quantized or not shape.parameters or any(kind not in FLOATS for kind in shape.parameters):
        raise UnknownShape("llmops does not know how many bytes its quantized experts have", about=fields.kind)
    else:
        size = float(numbers) * number_bytes(engine.dtype)
    if size > total:
        raise UnknownShape("config.json has more experts than the weight files", about=fields.kind)
    return size
