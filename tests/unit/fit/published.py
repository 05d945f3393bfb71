"""Families of models as published: each `config.json`, as far as it decides on the KV cache, and what it comes to.

Fields that a published file leaves out are left out here, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.unit.fit.shapes import MODELS

YARN = {"rope_type": "yarn", "factor": 16.0, "original_max_position_embeddings": 16384}
NAS_BLOCK = {"attention": {"n_heads_in_group": 8, "no_op": False}, "ffn": {"ffn_mult": 2.6}}
NAS_EMPTY = {"attention": {"n_heads_in_group": None, "no_op": True}, "ffn": {"ffn_mult": 1.0}}


def plain(
    kind: str, architecture: str, layers: int, hidden: int, heads: int, shared: int, context: int, **more: Any
) -> dict[str, Any]:
    """A file with the names that most files have."""
    return {
        "architectures": [architecture],
        "model_type": kind,
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "num_key_value_heads": shared,
        "max_position_embeddings": context,
        **more,
    }


def wrapped(kind: str, architecture: str, part: str, text: dict[str, Any]) -> dict[str, Any]:
    """A model that sees, too."""
    inner = {name: value for name, value in text.items() if name != "architectures"}
    return {"architectures": [architecture], "model_type": kind, part: inner, "vision_config": {}}


def kinds(count: int, nth: int) -> list[str]:
    return ["sliding_attention" if (index + 1) % nth else "full_attention" for index in range(count)]


TEXT_ARCHITECTURES = {
    "llama4_text": "Llama4ForCausalLM", "qwen3_vl_text": "Qwen3ForCausalLM", "gemma3_text": "Gemma3ForCausalLM",
    "gemma3n_text": "Gemma3nForCausalLM", "mistral": "MistralForCausalLM", "ministral3": "Ministral3ForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
}  # fmt: skip


def text_alone(config: dict[str, Any]) -> dict[str, Any]:
    """The text model of a model that sees, as a model of its own; others as they are."""
    text: dict[str, Any] | None = config.get("text_config") or config.get("llm_config")
    return {**text, "architectures": [TEXT_ARCHITECTURES[text["model_type"]]]} if text else config


MIMO_PATTERN = [0, *([1] * 4), *([0, 1, 1, 1, 1, 1] * 7), 0]


@dataclass(frozen=True)
class Known:
    """A published model whose cache llmops calculates.

    Args:
        config: Its `config.json`.
        full: Layers that look back on everything.
        windowed: Layers with a window.
        window: Tokens of the window.
        token_bytes: Bytes of one token in all layers, on one GPU in 16 bits.
        context: Tokens that vLLM takes without `max_model_len`.
    """

    config: dict[str, Any]
    full: int
    token_bytes: int
    context: int
    windowed: int = 0
    window: int | None = None


KNOWN: dict[str, Known] = {
    "Llama-3.1-8B": Known(MODELS["Llama-3.1-8B"], 32, 32 * 4096, 131072),
    "Llama-3.3-70B": Known(MODELS["Llama-3.3-70B"], 80, 80 * 4096, 131072),
    "Llama-4-Scout": Known(
        wrapped("llama4", "Llama4ForConditionalGeneration", "text_config", plain(
            "llama4_text", "", 48, 5120, 40, 8, 10485760, head_dim=128, attention_chunk_size=8192,
            num_local_experts=16, intermediate_size=8192, vocab_size=202048)),
        12, 48 * 4096, 10485760, 36, 8192),
    "Qwen2.5-7B": Known(MODELS["Qwen2.5-7B"], 28, 28 * 2048, 32768),
    "Qwen3-14B": Known(MODELS["Qwen3-14B"], 40, 40 * 4096, 40960),
    "Qwen3-235B-A22B": Known(MODELS["Qwen3-235B-A22B"], 94, 94 * 2048, 40960),
    "Qwen3-VL-8B": Known(
        wrapped("qwen3_vl", "Qwen3VLForConditionalGeneration", "text_config", plain(
            "qwen3_vl_text", "", 36, 4096, 32, 8, 262144, head_dim=128, intermediate_size=12288, vocab_size=151936,
            tie_word_embeddings=False)),
        36, 36 * 4096, 262144),
    "DeepSeek-V3": Known(MODELS["DeepSeek-V3"], 61, 61 * 1152, 163840),
    "Kimi-K2": Known(
        plain("kimi_k2", "DeepseekV3ForCausalLM", 61, 7168, 64, 64, 131072, kv_lora_rank=512, qk_rope_head_dim=64,
              qk_nope_head_dim=128, v_head_dim=128, q_lora_rank=1536, n_routed_experts=384, num_experts_per_tok=8,
              moe_intermediate_size=2048, first_k_dense_replace=1, intermediate_size=18432, vocab_size=163840,
              rope_scaling={"type": "yarn", "factor": 32.0, "original_max_position_embeddings": 4096}),
        61, 61 * 1152, 131072),
    "GLM-4-9B-chat": Known(
        {"architectures": ["ChatGLMModel"], "model_type": "chatglm", "num_layers": 40, "hidden_size": 4096,
         "num_attention_heads": 32, "multi_query_attention": True, "multi_query_group_num": 2, "kv_channels": 128,
         "seq_length": 131072, "padded_vocab_size": 151552, "ffn_hidden_size": 13696,
         "original_rope": True, "tie_word_embeddings": False, "add_qkv_bias": True},
        40, 40 * 1024, 131072),
    "GLM-4-9B-0414": Known(
        plain("glm4", "Glm4ForCausalLM", 40, 4096, 32, 2, 32768, head_dim=128, intermediate_size=13696), 40, 40 * 1024,
        32768),
    "GLM-4.5-Air": Known(
        plain("glm4_moe", "Glm4MoeForCausalLM", 46, 4096, 96, 8, 131072, head_dim=128, n_routed_experts=128,
              num_experts_per_tok=8, moe_intermediate_size=1408, first_k_dense_replace=1, intermediate_size=10944,
              vocab_size=151552),
        46, 46 * 4096, 131072),
    "gpt-oss-20b": Known(MODELS["gpt-oss-20b"], 12, 24 * 2048, 131072, 12, 128),
    "gemma-2-9b": Known(MODELS["gemma-2-9b"], 21, 42 * 8192, 8192, 21, 4096),
    "gemma-3-27b-it": Known(
        wrapped("gemma3", "Gemma3ForConditionalGeneration", "text_config", {
            "model_type": "gemma3_text", "hidden_size": 5376, "intermediate_size": 21504, "head_dim": 128,
            "num_attention_heads": 32, "num_hidden_layers": 62, "num_key_value_heads": 16, "sliding_window": 1024,
            "rope_scaling": {"factor": 8.0, "rope_type": "linear"}}),
        10, 62 * 8192, 131072, 52, 1024),
    "gemma-3-4b-it": Known(
        wrapped("gemma3", "Gemma3ForConditionalGeneration", "text_config", {
            "model_type": "gemma3_text", "hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34,
            "sliding_window": 1024, "rope_scaling": {"factor": 8.0, "rope_type": "linear"}}),
        5, 34 * 4096, 131072, 29, 1024),
    "gemma-3-1b-it": Known(
        plain("gemma3_text", "Gemma3ForCausalLM", 26, 1152, 4, 1, 32768, head_dim=256, sliding_window=512,
              sliding_window_pattern=6, intermediate_size=6912, vocab_size=262144),
        4, 26 * 1024, 32768, 22, 512),
    "gemma-3n-E4B": Known(
        wrapped("gemma3n", "Gemma3nForConditionalGeneration", "text_config", plain(
            "gemma3n_text", "", 35, 2048, 8, 2, 32768, head_dim=256, num_kv_shared_layers=15, sliding_window=512,
            layer_types=kinds(35, 5), intermediate_size=[16384] * 35, vocab_size=262400)),
        4, 20 * 2048, 32768, 16, 512),
    "Mistral-7B-v0.1": Known(MODELS["Mistral-7B-v0.1"], 0, 32 * 4096, 32768, 32, 4096),
    "Mixtral-8x7B": Known(MODELS["Mixtral-8x7B"], 32, 32 * 4096, 32768),
    "Mistral-Small-3.2-24B": Known(
        wrapped("mistral3", "Mistral3ForConditionalGeneration", "text_config", plain(
            "mistral", "", 40, 5120, 32, 8, 131072, head_dim=128, sliding_window=None, intermediate_size=32768)),
        40, 40 * 4096, 131072),
    "Ministral-8B-2410": Known(
        plain("mistral", "MistralForCausalLM", 36, 4096, 32, 8, 32768, head_dim=128, sliding_window=32768),
        0, 36 * 4096, 32768, 36, 32768),
    "Ministral-3-8B": Known(
        wrapped("mistral3", "Mistral3ForConditionalGeneration", "text_config", plain(
            "ministral3", "", 34, 4096, 32, 8, 262144, head_dim=128, intermediate_size=14336, sliding_window=None,
            rope_parameters=YARN)),
        34, 34 * 4096, 262144),
    "Phi-3-mini-4k": Known(
        plain("phi3", "Phi3ForCausalLM", 32, 3072, 32, 32, 4096, sliding_window=2047, rope_scaling=None,
              original_max_position_embeddings=4096, pad_token_id=32000, vocab_size=32064),
        0, 32 * 12288, 4096, 32, 2047),
    "Phi-4": Known(
        plain("phi3", "Phi3ForCausalLM", 40, 5120, 40, 10, 16384, sliding_window=None, pad_token_id=0,
              vocab_size=100352), 40, 40 * 5120, 16384),
    "Phi-4-mini": Known(
        plain("phi3", "Phi3ForCausalLM", 32, 3072, 24, 8, 131072, original_max_position_embeddings=4096,
              partial_rotary_factor=0.75, pad_token_id=199999, sliding_window=262144, vocab_size=200064,
              rope_scaling={"type": "longrope", "long_factor": [1.0] * 48, "short_factor": [1.0] * 48}),
        0, 32 * 4096, 4096, 32, 262144),
    "Nemotron-Super-49B": Known(
        {"architectures": ["DeciLMForCausalLM"], "model_type": "nemotron-nas", "hidden_size": 8192,
         "intermediate_size": None, "max_position_embeddings": 131072, "num_attention_heads": 64,
         "num_hidden_layers": 80, "num_key_value_heads": None, "vocab_size": 128256,
         "block_configs": [NAS_BLOCK] * 49 + [NAS_EMPTY] * 31},
        49, 49 * 4096, 131072),
    "MiniMax-M2": Known(
        plain("minimax_m2", "MiniMaxM2ForCausalLM", 62, 3072, 48, 8, 196608, head_dim=128, num_local_experts=256,
              num_experts_per_tok=8, intermediate_size=1536, vocab_size=200064, rotary_dim=64,
              scoring_func="sigmoid", rms_norm_eps=1e-6),
        62, 62 * 4096, 196608),
    "MiMo-7B": Known(
        plain("mimo", "MiMoForCausalLM", 36, 4096, 32, 8, 32768, head_dim=128, use_sliding_window=False,
              sliding_window=None, max_window_layers=36),
        36, 36 * 4096, 32768),
    "MiMo-V2-Flash": Known(
        plain("mimo_v2_flash", "MiMoV2FlashForCausalLM", 48, 4096, 64, 4, 262144, head_dim=192, v_head_dim=128,
              swa_num_attention_heads=64, swa_num_key_value_heads=8, swa_head_dim=192, swa_v_head_dim=128,
              sliding_window=128, sliding_window_size=128, attention_chunk_size=128,
              hybrid_layer_pattern=MIMO_PATTERN, n_routed_experts=256, num_experts_per_tok=8,
              moe_intermediate_size=2048, intermediate_size=16384, vocab_size=152576, attention_bias=False,
              layernorm_epsilon=1e-5, scoring_func="sigmoid", topk_method="noaux_tc", n_group=1, topk_group=1,
              norm_topk_prob=True, moe_layer_freq=[0, *([1] * 47)], add_swa_attention_sink_bias=True,
              partial_rotary_factor=0.334, rope_theta=5000000, swa_rope_theta=10000),
        9, 9 * 2560 + 39 * 5120, 262144, 39, 128),
    "Step-3.5-Flash": Known(
        {"architectures": ["Step3p5ForCausalLM"], "model_type": "step3p5", "num_hidden_layers": 45,
         "hidden_size": 4096, "num_attention_heads": 64, "num_attention_groups": 8, "head_dim": 128,
         "intermediate_size": 11264, "vocab_size": 128896, "max_position_embeddings": 262144, "max_seq_len": 262144,
         "sliding_window": 512,
         "layer_types": ["sliding_attention" if index % 4 else "full_attention" for index in range(48)],
         "attention_other_setting": {"attention_type": "sliding_attention", "num_attention_heads": 96,
                                     "num_attention_groups": 8, "head_dim": 128}},
        12, 45 * 4096, 262144, 33, 512),
    "ERNIE-4.5-0.3B": Known(
        plain("ernie4_5", "Ernie4_5ForCausalLM", 18, 1024, 16, 2, 131072, head_dim=128, intermediate_size=3072),
        18, 18 * 1024, 131072),
    "ERNIE-4.5-21B-A3B": Known(
        plain("ernie4_5_moe", "Ernie4_5_MoeForCausalLM", 28, 2560, 20, 4, 131072, moe_num_experts=64, moe_k=6,
              moe_intermediate_size=1536, intermediate_size=12288, moe_layer_start_index=1, moe_layer_interval=1),
        28, 28 * 2048, 131072),
    "Command R": Known(
        plain("cohere", "CohereForCausalLM", 40, 8192, 64, 64, 8192, model_max_length=131072), 40, 40 * 32768, 131072),
    "Command R7B": Known(
        plain("cohere2", "Cohere2ForCausalLM", 32, 4096, 32, 8, 132096, sliding_window=4096, sliding_window_pattern=4,
              head_dim=128),
        8, 32 * 4096, 132096, 24, 4097),
    "Granite-3.3-8B": Known(plain("granite", "GraniteForCausalLM", 40, 4096, 32, 8, 131072), 40, 40 * 4096, 131072),
    "OLMo-2-7B": Known(plain("olmo2", "Olmo2ForCausalLM", 32, 4096, 32, 32, 4096), 32, 32 * 16384, 4096),
    "Olmo-3-7B": Known(
        plain("olmo3", "Olmo3ForCausalLM", 32, 4096, 32, 32, 65536, sliding_window=4096, layer_types=kinds(32, 4),
              rope_scaling={"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 8192,
                            "attention_factor": 1.2, "beta_fast": 32, "beta_slow": 1}),
        8, 32 * 16384, 65536, 24, 4096),
    "OLMoE-1B-7B": Known(
        plain("olmoe", "OlmoeForCausalLM", 16, 2048, 16, 16, 4096, num_experts=64, num_experts_per_tok=8),
        16, 16 * 8192, 4096),
    "Falcon-7B": Known(
        {"architectures": ["FalconForCausalLM"], "model_type": "falcon", "num_hidden_layers": 32, "hidden_size": 4544,
         "num_attention_heads": 71, "multi_query": True, "new_decoder_architecture": False, "parallel_attn": True,
         "vocab_size": 65024},
        32, 32 * 256, 2048),
    "Falcon-40B": Known(
        {"architectures": ["FalconForCausalLM"], "model_type": "falcon", "num_hidden_layers": 60, "hidden_size": 8192,
         "num_attention_heads": 128, "num_kv_heads": 8, "multi_query": True, "new_decoder_architecture": True,
         "parallel_attn": True, "vocab_size": 65024},
        60, 60 * 2048, 2048),
    "InternVL3-8B": Known(
        wrapped("internvl_chat", "InternVLChatModel", "llm_config", plain(
            "qwen2", "", 28, 3584, 28, 4, 32768, use_sliding_window=False, sliding_window=None)),
        28, 28 * 2048, 32768),
    "LongCat-Flash": Known(
        {"architectures": ["LongcatFlashForCausalLM"], "model_type": "longcat_flash", "num_layers": 28,
         "hidden_size": 6144, "num_attention_heads": 64, "kv_lora_rank": 512, "qk_rope_head_dim": 64,
         "qk_nope_head_dim": 128, "v_head_dim": 128, "q_lora_rank": 1536, "n_routed_experts": 512, "moe_topk": 12,
         "ffn_hidden_size": 12288, "expert_ffn_hidden_size": 2048, "max_position_embeddings": 131072,
         "zero_expert_num": 256, "zero_expert_type": "identity", "vocab_size": 131072,
         "mla_scale_q_lora": True, "mla_scale_kv_lora": True, "rms_norm_eps": 1e-5},
        56, 56 * 1152, 131072),
    "EXAONE-4.0-32B": Known(
        plain("exaone4", "Exaone4ForCausalLM", 64, 5120, 40, 8, 131072, head_dim=128, sliding_window=4096,
              sliding_window_pattern="LLLG", layer_types=kinds(64, 4), vocab_size=102400),
        16, 64 * 4096, 131072, 48, 4096),
    "Seed-OSS-36B": Known(
        plain("seed_oss", "SeedOssForCausalLM", 64, 5120, 80, 8, 524288, head_dim=128), 64, 64 * 4096, 524288),
}  # fmt: skip

UNKNOWN: dict[str, dict[str, Any]] = {
    "DeepSeek-V3.2": {**MODELS["DeepSeek-V3"], "model_type": "deepseek_v32",
                      "architectures": ["DeepseekV32ForCausalLM"], "index_head_dim": 128, "index_topk": 2048},
    "Qwen3-Next-80B": plain("qwen3_next", "Qwen3NextForCausalLM", 48, 2048, 16, 2, 262144, head_dim=256,
                            full_attention_interval=4, linear_num_key_heads=16),
    "Nemotron-H-8B": plain("nemotron_h", "NemotronHForCausalLM", 52, 4096, 32, 8, 8192, mamba_num_heads=128,
                           hybrid_override_pattern="M-M-M-M*-"),
    "Granite-4.0-H": plain("granitemoehybrid", "GraniteMoeHybridForCausalLM", 40, 4096, 32, 8, 131072,
                           layer_types=["mamba"] * 36 + ["attention"] * 4),
    "Falcon-H1": plain("falcon_h1", "FalconH1ForCausalLM", 36, 2048, 8, 2, 131072, mamba_d_state=256),
    "MiniMax-Text-01": plain("minimax_text_01", "MiniMaxText01ForCausalLM", 80, 6144, 64, 8, 10240000,
                             attn_type_list=[0] * 80),
    "Step3": {"architectures": ["Step3VLForConditionalGeneration"], "model_type": "step3_vl",
              "text_config": {"model_type": "step3_text", "num_hidden_layers": 61, "hidden_size": 7168,
                              "num_attention_heads": 64, "share_q_dim": 2048, "head_dim": 256}},
    "ERNIE-4.5-VL": plain("ernie4_5_moe_vl", "Ernie4_5_VLMoeForConditionalGeneration", 28, 2560, 20, 4, 131072,
                          moe_num_experts=[64, 64], moe_intermediate_size=[1536, 512]),
}  # fmt: skip
