"""Whatever a `config.json` or an argument says: a finding, and never an exception or a block on a guess."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmops.preflight.fit.engine import GIB, engine_memory
from llmops.preflight.fit.families import FAMILIES
from llmops.preflight.fit.fields import fields_of
from llmops.preflight.fit.shape import Shape
from tests.unit.fit.published import KNOWN
from tests.unit.fit.test_fit_findings import findings

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.integers(0, 64)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["full_attention", "sliding_attention", "longrope", "linear", "LLLG", 10**4000, "9" * 5000])
)
ANYTHING = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8), inner, max_size=5)
)
CONFIGS = [known.config for known in KNOWN.values()]
PARTS = [part for config in CONFIGS for part in config.values() if isinstance(part, dict)]
FURTHER = ("rope_parameters", "factor", "quantization_config", "kv_cache_scheme", "is_causal", "text_config")
NAMES = sorted({str(name) for part in (*CONFIGS, *PARTS) for name in part} | set(FURTHER))


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(sorted(KNOWN)),
    st.dictionaries(st.sampled_from(NAMES), ANYTHING, min_size=1, max_size=4),
    st.booleans(),
)
def test_no_field_of_any_type_raises(name: str, changes: dict[str, Any], inside: bool) -> None:
    config = dict(KNOWN[name].config)
    part = next((key for key in ("text_config", "llm_config") if key in config), None)
    if inside and part:
        config[part] = {**config[part], **changes}
    else:
        config |= changes
    for finding in findings(Shape(config, {"BF16": 10**9}, 2 * 10**9), 80 * GIB, "--max-model-len=4096"):
        assert finding.severity in ("ok", "warning", "unknown", "error")
        assert len(finding.message) < 600
        if finding.severity == "error":
            assert finding.subject == "context"


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from(NAMES), ANYTHING, max_size=8), st.sampled_from(sorted(FAMILIES)))
def test_no_file_of_any_content_raises(config: dict[str, Any], kind: str) -> None:
    for of_kind in (config, {**config, "model_type": kind}):
        assert findings(Shape(of_kind, {}, 10**9), 80 * GIB)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([
                "max-model-len", "max-num-seqs", "max-num-batched-tokens", "gpu-memory-utilization", "block-size",
                "tensor-parallel-size", "data-parallel-size", "cpu-offload-gb", "kv-cache-memory-bytes", "hf-overrides",
                "hf-overrides.rope_parameters", "hf-overrides.a.b", "speculative-config", "quantization", "dtype",
                "kv-cache-dtype",
            ]),
            st.text(max_size=12) | st.integers().map(str) | st.floats().map(str) | ANYTHING.map(repr)
            | st.sampled_from(["[" * 3000, "1e400", "-0", "1K", "9" * 5000, "{}", '{"text_config": 5}']),
        ),
        max_size=4,
    )
)  # fmt: skip
def test_no_argument_raises(options: list[tuple[str, str]]) -> None:
    arguments = [f"--{flag}={value}" for flag, value in options]
    engine_memory(arguments)
    assert findings(Shape(KNOWN["Llama-3.1-8B"].config, {"BF16": 8 * 10**9}, 16 * 10**9), 80 * GIB, *arguments)


@pytest.mark.parametrize("content", ["9" * 4000, "1e999", "[" * 500 + "]" * 500, '"x"', "{}", "[]", "true"])
def test_a_field_of_a_strange_value_is_never_a_number(content: str) -> None:
    value = json.loads(content)
    for name in ("num_hidden_layers", "num_key_value_heads", "head_dim", "max_position_embeddings"):
        odd = Shape({**KNOWN["Llama-3.1-8B"].config, name: value}, {"BF16": 8 * 10**9}, 16 * 10**9)
        assert [finding.severity for finding in findings(odd, 80 * GIB)] == ["unknown"]


def test_a_huge_number_of_layers_is_refused_at_once() -> None:
    config = {**KNOWN["Llama-3.1-8B"].config, "num_hidden_layers": 10**12}
    assert findings(Shape(config, {}, 10**9), 80 * GIB)[0].severity == "unknown"


def test_a_model_type_of_another_type_has_no_defaults() -> None:
    assert fields_of({"model_type": {"a": 1}, "text_config": {"x": 1}}).kind == ""
