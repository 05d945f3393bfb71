# pyright: reportMissingImports=false, reportUnknownParameterType=false, reportUnknownVariableType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false, reportMissingParameterType=false, reportPrivateUsage=false, reportUnknownLambdaType=false, reportUntypedBaseClass=false
"""The layers with a KV cache that vLLM itself makes for a `config.json`, without weights. Runs in vLLM's environment.

It reads configurations from standard input, lets vLLM make each model on PyTorch's device `meta`, and asks each layer
for its specification. Of a model that sees, it makes the text model: the others' parts need further packages, and keep
no cache.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import torch
import vllm.model_executor.models.registry as registry
from transformers import AutoConfig, LlamaConfig, Qwen2Config
from vllm.config import set_current_vllm_config
from vllm.distributed import destroy_model_parallel, init_distributed_environment, initialize_model_parallel
from vllm.engine.arg_utils import EngineArgs
from vllm.model_executor.model_loader.utils import initialize_model
from vllm.v1.core import kv_cache_utils

KV_BYTES = 64 * 2**30
# vLLM inspects each class in a process of its own, which takes ten seconds.
registry._run_in_subprocess = lambda inspect: inspect()


class Block(dict[str, Any]):
    """An object with the fields of a block."""

    def __getattr__(self, name: str) -> Any:
        if name not in self:
            raise AttributeError(name)
        return self[name]


class NemotronNasConfig(LlamaConfig):
    """Stands in for the class in the repositories: vLLM takes no code from there, and reads objects."""

    model_type = "nemotron-nas"

    def __init__(self, block_configs: Any = (), **fields: Any) -> None:
        fields |= {"num_key_value_heads": 8, "intermediate_size": 8192}
        super().__init__(**fields)
        self.block_configs = [
            Block(attention=Block(block["attention"]), ffn=Block(no_op=False, **block["ffn"]))
            for block in block_configs
        ]


class MimoConfig(Qwen2Config):
    """Stands in for the class in the repositories, which adds fields for drafts alone."""

    model_type = "mimo"


def layers(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Layers by what they keep, the tokens that vLLM takes without `max_model_len`, and how it divides 64 GiB."""
    device = "meta"
    if config["model_type"] == "gemma3n_text":
        # It reads a number of a tensor, which has none on the device `meta`; what keeps no cache is made small.
        device = "cpu"
        small = {"vocab_size": 64, "vocab_size_per_layer_input": 64, "hidden_size": 64, "laurel_rank": 8}
        config = {**config, **small, "intermediate_size": [64] * config["num_hidden_layers"]}
    (folder / "config.json").write_text(json.dumps(config))
    arguments = EngineArgs(
        model=str(folder), tokenizer=str(folder), skip_tokenizer_init=True, dtype="bfloat16", enforce_eager=True,
        block_size=16,
    )  # fmt: skip
    vllm_config = arguments.create_engine_config()
    with set_current_vllm_config(vllm_config):
        destroy_model_parallel()
        initialize_model_parallel(1, 1)
        with torch.device(device):
            initialize_model(vllm_config=vllm_config)
    kinds: Counter[tuple[Any, ...]] = Counter()
    specs: dict[str, Any] = {}
    for name, layer in vllm_config.compilation_config.static_forward_context.items():
        if not hasattr(layer, "get_kv_cache_spec") or getattr(layer, "kv_sharing_target_layer_name", None):
            continue
        if (spec := layer.get_kv_cache_spec(vllm_config)) is None:
            continue
        chunk = getattr(spec, "attention_chunk_size", None)
        window = getattr(spec, "sliding_window", None) or chunk
        size = spec.num_kv_heads * (spec.head_size + spec.head_size_v) * spec.dtype.itemsize
        kinds[window, chunk is not None, size] += 1
        # A CPU's blocks are others than a GPU's.
        specs[name] = dataclasses.replace(spec, block_size=16)
    # Both as on NVIDIA's GPUs.
    vllm_config.scheduler_config.disable_hybrid_kv_cache_manager = False
    vllm_config.cache_config.kv_cache_layout = "LBNHC"
    with set_current_vllm_config(vllm_config):
        groups = kv_cache_utils.get_kv_cache_groups(vllm_config, specs)
        divided = kv_cache_utils.get_kv_cache_config_from_groups(vllm_config, groups, KV_BYTES)
        tokens, concurrency = kv_cache_utils.get_kv_cache_capacity(vllm_config, divided)
    return {
        "layers": sorted(([count, size, window, chunked] for (window, chunked, size), count in kinds.items()), key=str),
        "context": vllm_config.model_config.max_model_len,
        "in_flight": vllm_config.max_in_flight_tokens,
        "tokens": tokens,
        "concurrency": concurrency,
    }


def main() -> None:
    """Answer all cases in one line of JSON, the last of standard output."""
    for made in (NemotronNasConfig, MimoConfig):
        AutoConfig.register(made.model_type, made)
    with tempfile.TemporaryDirectory() as folder:
        init_distributed_environment(1, 0, f"file://{folder}/meeting", 0, "gloo")
        answers: dict[str, Any] = {}
        for name, config in json.load(sys.stdin).items():
            try:
                answers[name] = layers(config, Path(folder))
            except Exception as error:  # noqa: BLE001 The others are answered.
                answers[name] = f"{type(error).__name__}: {error}"[:300]
    sys.stdout.write("\n" + json.dumps(answers) + "\n")


if __name__ == "__main__":
    main()
