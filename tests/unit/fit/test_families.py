"""Published models of forty families: what each layer keeps, by vLLM's own layers, or unknown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmops.preflight.fit.cache import groups_of
from llmops.preflight.fit.context import context_of
from llmops.preflight.fit.fields import UnknownShape
from llmops.preflight.fit.layers import layers_of
from llmops.preflight.fit.shape import Shape
from tests.unit.fit.published import KNOWN, UNKNOWN
from tests.unit.fit.shapes import GIB

# Made by vLLM 0.32.0's own layers: tests/opt_in/vllm/test_kv_arithmetic.py makes them anew and compares.
ANSWERS: dict[str, dict[str, Any]] = json.loads(
    (Path(__file__).parent / "data" / "vllm-0.32.0-layers.json").read_text()
)


def layers(config: dict[str, Any], tensor: int = 1) -> list[tuple[int, float, int | None, bool]]:
    of_model = layers_of(Shape(config, {}, 0), dtype=None, kv_cache_dtype=None, tensor=tensor)
    return sorted(((kind.count, kind.token_bytes, kind.window, kind.chunked) for kind in of_model), key=str)


@pytest.mark.parametrize("name", KNOWN)
def test_a_published_model_keeps_what_its_makers_say(name: str) -> None:
    known = KNOWN[name]
    of_model = layers(known.config)
    assert sum(count * size for count, size, _, _ in of_model) == known.token_bytes
    assert sum(count for count, _, window, _ in of_model if window is None) == known.full
    assert sum(count for count, _, window, _ in of_model if window is not None) == known.windowed
    assert {window for *_, window, _ in of_model} - {None} == ({known.window} if known.windowed else set())
    assert context_of(Shape(known.config, {}, 0).fields).default == known.context


@pytest.mark.parametrize("name", KNOWN)
def test_vllm_makes_the_same_layers(name: str) -> None:
    answer = ANSWERS[name]
    assert layers(KNOWN[name].config) == [tuple(kind) for kind in answer["layers"]]
    assert context_of(Shape(KNOWN[name].config, {}, 0).fields).default == answer["context"]


@pytest.mark.parametrize("name", KNOWN)
def test_vllm_divides_a_cache_in_the_same_way(name: str) -> None:
    answer = ANSWERS[name]
    of_model = layers_of(Shape(KNOWN[name].config, {}, 0), dtype=None, kv_cache_dtype=None, tensor=1)
    groups = groups_of(of_model, in_flight=answer["in_flight"])
    concurrency = groups.concurrency(64 * GIB, answer["context"])
    assert concurrency == pytest.approx(answer["concurrency"])
    assert int(concurrency * answer["context"]) == answer["tokens"]


def test_vllm_answered_for_every_model() -> None:
    assert set(ANSWERS) == set(KNOWN)


@pytest.mark.parametrize("name", UNKNOWN)
def test_models_with_other_state_are_unknown(name: str) -> None:
    with pytest.raises(UnknownShape):
        layers(UNKNOWN[name])


def test_fields_that_the_file_leaves_out_are_the_librarys() -> None:
    written_out = {**KNOWN["gemma-3-4b-it"].config["text_config"], "num_attention_heads": 8, "num_key_value_heads": 4,
                   "head_dim": 256, "max_position_embeddings": 131072, "vocab_size": 262208}  # fmt: skip
    assert layers(KNOWN["gemma-3-4b-it"].config) == layers(written_out)


def test_heads_that_gpus_cannot_share_are_unknown() -> None:
    with pytest.raises(UnknownShape):
        layers(KNOWN["Phi-4"].config, tensor=4)
