"""The arithmetic of the KV cache against vLLM's own, and against published logs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.preflight.fit.cache import Groups, groups_of
from llmops.preflight.fit.fields import UnknownShape
from llmops.preflight.fit.layers import Layers, layers_of
from llmops.preflight.fit.shape import Shape
from tests.unit.fit.shapes import CASES, GIB, LOGS, MODELS, config

# Made by vLLM 0.32.0's own functions: tests/opt_in/vllm/test_kv_arithmetic.py makes them again and compares.
ANSWERS = json.loads((Path(__file__).parent / "data" / "vllm-0.32.0-kv-cache.json").read_text())


def groups(model: str, tensor: int, kv_cache_dtype: str = "auto", in_flight: int = 2048) -> Groups:
    shape = Shape(MODELS[model], {}, 0)
    layers = layers_of(shape, dtype="bfloat16", kv_cache_dtype=kv_cache_dtype, tensor=tensor)
    return groups_of(layers, in_flight=in_flight)


@pytest.mark.parametrize("name", CASES)
def test_the_cache_is_as_large_as_vllm_computes(name: str) -> None:
    model, tensor, context, kv_bytes, dtype, _ = CASES[name]
    cache = groups(model, tensor, dtype, ANSWERS[name]["in_flight"])
    concurrency = cache.concurrency(int(kv_bytes), context)
    assert int(concurrency * context) == ANSWERS[name]["tokens"]
    assert concurrency == pytest.approx(ANSWERS[name]["concurrency"])
    assert cache.longest(int(kv_bytes), context) == ANSWERS[name]["longest"]


def test_at_least_ten_models_have_answers() -> None:
    assert set(ANSWERS) == set(CASES)
    assert len({case[0] for case in CASES.values()}) >= 10


@pytest.mark.parametrize("source", LOGS)
def test_published_logs_of_vllm_agree(source: str) -> None:
    model, tensor, gib, tokens = LOGS[source]
    context = 16
    held = groups(model, tensor).concurrency(gib * GIB, context) * context
    # The logs round the memory to two decimals.
    assert held == pytest.approx(tokens, rel=0.02)


def test_with_fewer_heads_than_gpus_several_gpus_keep_the_same_head() -> None:
    assert groups("Qwen2.5-7B", 4).block_bytes == groups("Qwen2.5-7B", 8).block_bytes


def test_every_gpu_keeps_a_compressed_cache_whole() -> None:
    assert groups("DeepSeek-V3", 1).block_bytes == groups("DeepSeek-V3", 8).block_bytes


LLAMA = MODELS["Llama-3.1-8B"]


@pytest.mark.parametrize(
    "fields",
    [
        {"layer_types": ["linear_attention", "full_attention"] * 16},
        {"model_type": "mamba2"},
        {"model_type": "deepseek_v3", "architectures": ["DeepseekV3ForCausalLM"], "index_topk": 2048},
        {"model_type": ["llama"]},
        {"architectures": ["LlamaForCausalLMEagle3"]},
        {"is_causal": False},
        {"num_hidden_layers": 0},
        {"num_hidden_layers": 10**9},
        {"num_hidden_layers": 32.0},
        {"num_attention_heads": None},
        {"num_key_value_heads": [8] * 32},
        {"head_dim": "128"},
        {"head_dim": 10**5000},
        {"layer_types": ["full_attention"]},
        {"layer_types": ["sliding_attention", "full_attention"] * 16},
    ],
)
def test_the_memory_of_what_llmops_cannot_read_is_unknown(fields: dict[str, object]) -> None:
    with pytest.raises(UnknownShape):
        layers_of(Shape({**LLAMA, **fields}, {}, 0), dtype=None, kv_cache_dtype=None, tensor=1)


def test_the_text_model_of_a_vision_model_counts() -> None:
    shape = Shape({"model_type": "gemma3", "text_config": MODELS["gemma-3-27b"], "vision_config": {}}, {}, 0)
    assert layers_of(shape, dtype=None, kv_cache_dtype=None, tensor=2) == layers_of(
        Shape(MODELS["gemma-3-27b"], {}, 0), dtype=None, kv_cache_dtype=None, tensor=2
    )


def test_a_checkpoint_may_ask_for_a_cache_of_8_bits() -> None:
    quantized = {**MODELS["Llama-3.1-8B"], "quantization_config": {"kv_cache_scheme": {"num_bits": 8}}}
    (layer,) = layers_of(Shape(quantized, {}, 0), dtype=None, kv_cache_dtype="auto", tensor=1)
    assert layer.token_bytes == 2 * 8 * 128


layers = st.lists(
    st.builds(
        Layers,
        count=st.integers(1, 80),
        token_bytes=st.just(4096.0),
        window=st.none() | st.integers(16, 8192),
    ),
    min_size=1,
    max_size=3,
)


@given(layers, st.integers(0, 80 * GIB), st.integers(1, 200_000))
def test_the_longest_request_fits_and_one_more_token_does_not(kinds: list[Layers], kv_bytes: int, limit: int) -> None:
    cache = groups_of(kinds, in_flight=2048)
    longest = cache.longest(kv_bytes, limit)
    assert longest == 0 or cache.fits(kv_bytes, longest)
    assert longest == limit or not cache.fits(kv_bytes, longest + 1)


@given(layers, st.integers(GIB, 80 * GIB), st.integers(16, 100_000))
def test_more_memory_never_holds_less_and_longer_requests_never_more(
    kinds: list[Layers], kv_bytes: int, context: int
) -> None:
    cache = groups_of(kinds, in_flight=2048)
    assert cache.concurrency(kv_bytes + GIB, context) >= cache.concurrency(kv_bytes, context)
    assert cache.concurrency(kv_bytes, context * 2) <= cache.concurrency(kv_bytes, context)


def test_a_missing_field_of_the_configuration_is_named() -> None:
    with pytest.raises(UnknownShape) as raised:
        layers_of(Shape(config("mimo", "MiMoForCausalLM"), {}, 0), dtype=None, kv_cache_dtype=None, tensor=1)
    assert raised.value.about == "num_hidden_layers"
