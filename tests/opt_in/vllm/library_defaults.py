# pyright: reportMissingImports=false, reportUnknownParameterType=false, reportUnknownVariableType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false, reportPrivateUsage=false
"""Values that configuration classes of transformers and vLLM give to fields that a `config.json` leaves out.

Runs in vLLM's environment. It reads the names of model types from standard input and writes
`llmops/preflight/fit/library_defaults.json` to standard output. `test_kv_arithmetic.py` compares the two.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import sys
from typing import Any

import transformers
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from vllm.transformers_utils.config import _CONFIG_REGISTRY
from vllm.version import __version__ as vllm_version

FIELDS = (
    "num_hidden_layers", "num_layers", "hidden_size", "num_attention_heads", "num_key_value_heads", "head_dim",
    "num_kv_heads", "multi_query", "new_decoder_architecture", "multi_query_attention", "multi_query_group_num",
    "num_attention_groups", "attention_other_setting", "intermediate_size", "vocab_size", "sliding_window",
    "use_sliding_window", "max_window_layers", "sliding_window_pattern", "attention_chunk_size",
    "no_rope_layer_interval", "num_kv_shared_layers", "kv_lora_rank", "qk_rope_head_dim", "v_head_dim",
    "max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "model_max_length",
    "original_max_position_embeddings", "use_bidirectional_attention", "is_causal", "swa_num_key_value_heads",
    "swa_head_dim", "swa_v_head_dim", "num_experts", "num_local_experts", "n_routed_experts", "num_experts_per_tok",
    "moe_intermediate_size", "first_k_dense_replace", "decoder_sparse_step",
)  # fmt: skip
"""What llmops reads of a configuration."""


def described(kind: str) -> dict[str, dict[str, Any]]:
    """Defaults and other names of fields of a model type; empty if neither library has a class of it."""
    if kind in _CONFIG_REGISTRY:
        used = _CONFIG_REGISTRY[kind]
    elif kind in CONFIG_MAPPING:
        used = CONFIG_MAPPING[kind]
    else:
        return {"defaults": {}, "names": {}}
    names = {name: other for name, other in used.attribute_map.items() if name in FIELDS}
    wanted = {*FIELDS, *names.values()}
    given = {field.name: field.default for field in dataclasses.fields(used)} if dataclasses.is_dataclass(used) else {}
    given |= {
        name: parameter.default
        for name, parameter in inspect.signature(used.__init__).parameters.items()
        if parameter.default is not inspect.Parameter.empty
    }
    plain = (int, bool, str)
    defaults = {name: value for name, value in given.items() if name in wanted and isinstance(value, plain)}
    return {"defaults": dict(sorted(defaults.items())), "names": dict(sorted(names.items()))}


def main() -> None:
    """Describe each model type."""
    models = {kind: described(kind) for kind in json.load(sys.stdin)}
    libraries = f"transformers {transformers.__version__}, vLLM {vllm_version.partition('+')[0]}"
    sys.stdout.write(json.dumps({"libraries": libraries, "models": models}, indent=1) + "\n")


if __name__ == "__main__":
    main()
