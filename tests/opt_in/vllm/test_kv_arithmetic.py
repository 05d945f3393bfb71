"""GPU fit against the real vLLM: its division of a KV cache, and the size that a running engine logs."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from llmops_sandbox.engine.exchanges import CONTEXT
from llmops_sandbox.engine.process import EngineProcess
from llmops_sandbox.programs import vllm

import llmops.preflight.fit
from llmops.preflight.fit.cache import groups_of
from llmops.preflight.fit.families import FAMILIES
from llmops.preflight.fit.fields import DEFAULTS
from llmops.preflight.fit.layers import layers_of
from llmops.preflight.fit.shape import Shape
from tests.unit.fit.published import KNOWN, text_alone
from tests.unit.fit.shapes import CASES, GIB, MODELS

DATA = Path(__file__).parents[2] / "unit" / "fit" / "data"
ANSWERS = DATA / "vllm-0.32.0-kv-cache.json"
LAYERS = DATA / "vllm-0.32.0-layers.json"
LIBRARY = Path(llmops.preflight.fit.__file__).with_name(DEFAULTS)


@pytest.mark.timeout(600)
def test_the_kept_answers_are_vllms(installed: vllm.Vllm) -> None:
    """vLLM takes seconds to read a configuration; there are sixteen."""
    cases = {
        name: {
            "config": MODELS[model],
            "layers": MODELS[model]["num_hidden_layers"],
            "tensor": tensor,
            "max_model_len": context,
            "kv_bytes": int(kv_bytes),
            "kv_cache_dtype": dtype,
            "max_num_batched_tokens": batched,
        }
        for name, (model, tensor, context, kv_bytes, dtype, batched) in CASES.items()
    }
    assert json.loads(answer(installed, "kv_arithmetic.py", cases).splitlines()[-1]) == json.loads(ANSWERS.read_text())


@pytest.mark.timeout(600)
def test_the_kept_layers_are_vllms(installed: vllm.Vllm) -> None:
    """vLLM makes forty models without weights, in two minutes."""
    cases = {name: text_alone(known.config) for name, known in KNOWN.items()}
    assert json.loads(answer(installed, "layers_of_vllm.py", cases).splitlines()[-1]) == json.loads(LAYERS.read_text())


@pytest.mark.timeout(300)
def test_the_kept_defaults_are_the_libraries(installed: vllm.Vllm) -> None:
    assert json.loads(answer(installed, "library_defaults.py", sorted(FAMILIES))) == json.loads(LIBRARY.read_text())


def answer(installed: vllm.Vllm, program: str, question: object) -> str:
    """What a program of this folder says in vLLM's environment."""
    environment = {**os.environ, **vllm.ENVIRONMENT, "VLLM_LOGGING_LEVEL": "ERROR"}
    ended = subprocess.run(
        [str(installed.python), str(Path(__file__).with_name(program))],
        input=json.dumps(question), capture_output=True, text=True, env=environment, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr[-3000:]
    return ended.stdout


def test_a_running_engine_got_as_many_tokens(real: EngineProcess, installed: vllm.Vllm) -> None:
    log = real.output
    match = re.search(r"KV cache size: ([\d,]+) tokens", log)
    assert match, log[-3000:]
    block = re.search(r"block_size=(\d+)|block size to (\d+)", log)
    tokens = int(match[1].replace(",", ""))
    shape = Shape(json.loads((installed.model / "config.json").read_text()), {}, 0)
    layers = layers_of(shape, dtype="float32", kv_cache_dtype=None, tensor=1)
    size = int(next(filter(None, block.groups()))) if block else 128
    groups = groups_of(layers, block_tokens=size)
    expected = groups.concurrency(GIB * int(vllm.ENVIRONMENT["VLLM_CPU_KVCACHE_SPACE"]), CONTEXT) * CONTEXT
    assert tokens == pytest.approx(expected, rel=0.1)
