"""Published models, as far as their `config.json` decides on memory, and cases for vLLM's arithmetic."""

from __future__ import annotations

from typing import Any

GIB = 2**30


def config(kind: str, architecture: str, **fields: Any) -> dict[str, Any]:
    return {
        "architectures": [architecture],
        "model_type": kind,
        "torch_dtype": "bfloat16",
        "hidden_act": "silu",
        **fields,
    }


def llama(
    layers: int, hidden: int, heads: int, shared: int, inner: int, vocabulary: int, context: int
) -> dict[str, Any]:
    return config(
        "llama", "LlamaForCausalLM", num_hidden_layers=layers, hidden_size=hidden, num_attention_heads=heads,
        num_key_value_heads=shared, intermediate_size=inner, vocab_size=vocabulary, max_position_embeddings=context,
        rms_norm_eps=1e-5,
    )  # fmt: skip


def qwen(kind: str, architecture: str, layers: int, hidden: int, heads: int, shared: int, inner: int, context: int,
         **fields: Any) -> dict[str, Any]:  # fmt: skip
    return config(
        kind, architecture, num_hidden_layers=layers, hidden_size=hidden, num_attention_heads=heads,
        num_key_value_heads=shared, intermediate_size=inner, vocab_size=151936, max_position_embeddings=context,
        rms_norm_eps=1e-6, **fields,
    )  # fmt: skip


def gpt_oss(layers: int, experts: int) -> dict[str, Any]:
    kinds = ["sliding_attention" if index % 2 == 0 else "full_attention" for index in range(layers)]
    return config(
        "gpt_oss", "GptOssForCausalLM", num_hidden_layers=layers, hidden_size=2880, num_attention_heads=64,
        num_key_value_heads=8, head_dim=64, intermediate_size=2880, vocab_size=201088, max_position_embeddings=131072,
        sliding_window=128, layer_types=kinds, num_local_experts=experts, num_experts_per_tok=4,
    )  # fmt: skip


def deepseek(version: str, layers: int, hidden: int, heads: int, inner: int, expert: int) -> dict[str, Any]:
    return config(
        f"deepseek_{version}", f"Deepseek{version.upper()}ForCausalLM", num_hidden_layers=layers, hidden_size=hidden,
        num_attention_heads=heads, num_key_value_heads=heads, kv_lora_rank=512, qk_rope_head_dim=64,
        qk_nope_head_dim=128, v_head_dim=128, q_lora_rank=1536, intermediate_size=inner, moe_intermediate_size=expert,
        num_experts_per_tok=8, n_routed_experts=64, n_shared_experts=1, first_k_dense_replace=1, vocab_size=102400,
        max_position_embeddings=163840,
    )  # fmt: skip


MODELS: dict[str, dict[str, Any]] = {
    "SmolLM2-135M": llama(30, 576, 9, 3, 1536, 49152, 8192),
    "Llama-3.1-8B": llama(32, 4096, 32, 8, 14336, 128256, 131072),
    "Llama-3.3-70B": llama(80, 8192, 64, 8, 28672, 128256, 131072),
    "Qwen2.5-7B": qwen("qwen2", "Qwen2ForCausalLM", 28, 3584, 28, 4, 18944, 32768,
                       use_sliding_window=False, sliding_window=131072),
    "Qwen3-14B": qwen("qwen3", "Qwen3ForCausalLM", 40, 5120, 40, 8, 17408, 40960, head_dim=128),
    "Qwen3-235B-A22B": qwen("qwen3_moe", "Qwen3MoeForCausalLM", 94, 4096, 64, 4, 12288, 40960, head_dim=128,
                            num_experts=128, num_experts_per_tok=8, moe_intermediate_size=1536),
    "Mistral-7B-v0.1": config(
        "mistral", "MistralForCausalLM", num_hidden_layers=32, hidden_size=4096, num_attention_heads=32,
        num_key_value_heads=8, intermediate_size=14336, vocab_size=32000, max_position_embeddings=32768,
        sliding_window=4096),
    "Mixtral-8x7B": config(
        "mixtral", "MixtralForCausalLM", num_hidden_layers=32, hidden_size=4096, num_attention_heads=32,
        num_key_value_heads=8, intermediate_size=14336, vocab_size=32000, max_position_embeddings=32768,
        num_local_experts=8, num_experts_per_tok=2),
    "gpt-oss-20b": gpt_oss(24, 32),
    "gpt-oss-120b": gpt_oss(36, 128),
    "gemma-2-9b": config(
        "gemma2", "Gemma2ForCausalLM", num_hidden_layers=42, hidden_size=3584, num_attention_heads=16,
        num_key_value_heads=8, head_dim=256, intermediate_size=14336, vocab_size=256000, max_position_embeddings=8192,
        sliding_window=4096, hidden_activation="gelu_pytorch_tanh"),
    "gemma-3-27b": config(
        "gemma3_text", "Gemma3ForCausalLM", num_hidden_layers=62, hidden_size=5376, num_attention_heads=32,
        num_key_value_heads=16, head_dim=128, intermediate_size=21504, vocab_size=262208,
        max_position_embeddings=131072, sliding_window=1024, sliding_window_pattern=6,
        hidden_activation="gelu_pytorch_tanh"),
    "DeepSeek-V2": deepseek("v2", 60, 5120, 128, 12288, 1536),
    "DeepSeek-V3": deepseek("v3", 61, 7168, 128, 18432, 2048),
}  # fmt: skip

# model, GPUs of a layer, tokens of a request, bytes of KV cache on each GPU, its type, tokens of a step
CASES: dict[str, tuple[str, int, int, float, str, int]] = {
    "SmolLM2-135M": ("SmolLM2-135M", 1, 1024, 1 * GIB, "auto", 2048),
    "Llama-3.1-8B": ("Llama-3.1-8B", 1, 20000, 3.81 * GIB, "auto", 2048),
    "Llama-3.3-70B on four": ("Llama-3.3-70B", 4, 32768, 30 * GIB, "auto", 8192),
    "Llama-3.3-70B, 8-bit cache": ("Llama-3.3-70B", 1, 8192, 3.5 * GIB, "fp8", 2048),
    "Qwen2.5-7B": ("Qwen2.5-7B", 1, 32768, 20 * GIB, "auto", 2048),
    "Qwen2.5-7B on eight": ("Qwen2.5-7B", 8, 32768, 20 * GIB, "auto", 2048),
    "Qwen3-14B": ("Qwen3-14B", 1, 32768, 6.51 * GIB, "auto", 2048),
    "Qwen3-235B-A22B on four": ("Qwen3-235B-A22B", 4, 40960, 8.11 * GIB, "auto", 8192),
    "Mistral-7B-v0.1": ("Mistral-7B-v0.1", 1, 32768, 10 * GIB, "auto", 2048),
    "Mixtral-8x7B on two": ("Mixtral-8x7B", 2, 32768, 25 * GIB, "auto", 8192),
    "gpt-oss-20b": ("gpt-oss-20b", 1, 131072, 36.56 * GIB, "auto", 2048),
    "gpt-oss-120b": ("gpt-oss-120b", 1, 131072, 6 * GIB, "auto", 8192),
    "gemma-2-9b": ("gemma-2-9b", 1, 8192, 15 * GIB, "auto", 2048),
    "gemma-3-27b on two": ("gemma-3-27b", 2, 65536, 30 * GIB, "auto", 8192),
    "DeepSeek-V2 on eight": ("DeepSeek-V2", 8, 65536, 20 * GIB, "auto", 8192),
    "DeepSeek-V3 on eight": ("DeepSeek-V3", 8, 131072, 30 * GIB, "auto", 8192),
}

# What vLLM wrote into logs that people published: model, GPUs of a layer, GiB of KV cache, tokens that it holds.
LOGS = {
    "https://github.com/vllm-project/vllm/issues/10517": ("Llama-3.1-8B", 1, 3.81, 31232),
    "https://github.com/vllm-project/vllm/issues/10517#29k": ("Llama-3.1-8B", 1, 2.89, 23648),
    "https://github.com/LMCache/LMCache/issues/1739": ("Qwen3-14B", 1, 6.51, 42656),
    "https://github.com/vllm-project/vllm/issues/21348": ("Qwen3-235B-A22B", 4, 8.11, 178880),
}
