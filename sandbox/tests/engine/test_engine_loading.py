"""Weights that an engine refuses: each with vLLM's words, exit code 1, and within seconds."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from llmops_sandbox.engine.loading import LoadError, check_weights
from llmops_sandbox.engine.process import EngineProcess
from llmops_sandbox.standins.weights import flip_bit, make_model, truncate

Start = Callable[..., EngineProcess]


def refused(engine: EngineProcess) -> str:
    assert engine.wait(10) == 1
    return engine.output


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    return make_model(tmp_path / "model", size_bytes=1 << 16, shards=3, suites_dir=None)


def test_a_whole_sharded_model_loads(start: Start, sharded: Path) -> None:
    start(model=sharded).wait_until_healthy()


def test_a_truncated_file(start: Start, sharded: Path) -> None:
    truncate(sharded / "model-00002-of-00003.safetensors", 100)
    output = refused(start(model=sharded))
    assert "Error while deserializing header: incomplete metadata, file not fully covered" in output
    assert "Engine core initialization failed. See root cause above." in output


def test_a_missing_shard(start: Start, sharded: Path) -> None:
    (sharded / "model-00003-of-00003.safetensors").unlink()
    missing = sharded / "model-00003-of-00003.safetensors"
    output = refused(start(model=sharded))
    assert f"FileNotFoundError: Weight files referenced in index but missing: {{'{missing}'}}" in output


def test_a_tensor_of_the_index_that_no_file_has(start: Start, sharded: Path) -> None:
    index = sharded / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"]["lm_head.weight"] = "model-00001-of-00003.safetensors"
    index.write_text(json.dumps(content))
    output = refused(start(model=sharded))
    assert "Following weights were not initialized from checkpoint: {'lm_head.weight'}" in output


def test_no_safetensors_at_all(start: Start, sharded: Path) -> None:
    for file in sharded.glob("*.safetensors"):
        file.rename(file.with_suffix(".bin"))
    assert f"Cannot find any model weights with `{sharded}`" in refused(start(model=sharded))


@pytest.mark.parametrize(("bit", "reason"), [(8 * 5, "header too large"), (8 * 8, "invalid JSON in header")])
def test_a_damaged_header(sharded: Path, bit: int, reason: str) -> None:
    flip_bit(sharded / "model-00001-of-00003.safetensors", bit)
    with pytest.raises(LoadError, match=reason):
        check_weights(sharded, {})


def test_an_empty_file(sharded: Path) -> None:
    (sharded / "model-00001-of-00003.safetensors").write_bytes(b"")
    with pytest.raises(LoadError, match="header too small"):
        check_weights(sharded, {})


def test_a_missing_folder(start: Start, tmp_path: Path) -> None:
    assert "Repo id must be in the form" in refused(start(model=tmp_path / "nowhere"))


def test_a_repository_cannot_be_loaded_offline(start: Start) -> None:
    assert "outgoing traffic has been disabled" in refused(
        start(model="HuggingFaceTB/SmolLM2-135M-Instruct", HF_HUB_OFFLINE="1")
    )


def test_no_config(start: Start, sharded: Path) -> None:
    (sharded / "config.json").unlink()
    refused(start(model=sharded))


def test_quantization_that_the_weights_do_not_have(start: Start) -> None:
    output = refused(start("--quantization", "awq_marlin"))
    assert "Value error, Cannot find the config file for awq_marlin" in output


def test_quantization_that_the_weights_have(start: Start, tmp_path: Path) -> None:
    model = make_model(
        tmp_path / "awq", size_bytes=1 << 14, suites_dir=None, config={"quantization_config": {"quant_method": "awq"}}
    )
    start("--quantization", "awq_marlin", model=model).wait_until_healthy()
    assert "does not match the quantization" in refused(start("--quantization", "fp8", model=model))


def test_a_context_longer_than_the_models(start: Start) -> None:
    assert "User-specified max_model_len (100000) is greater than the derived" in refused(
        start("--max-model-len", "100000")
    )


def test_a_port_that_is_taken(start: Start) -> None:
    first = start()
    first.wait_until_healthy()
    second = start("--port", str(first.port))
    assert "Address already in use" in refused(second)


def test_load_time_follows_size_and_speed(start: Start, tmp_path: Path) -> None:
    model = make_model(tmp_path / "slow", size_bytes=1 << 20, suites_dir=None, load_mb_per_second=1)
    engine = start(model=model)
    engine.wait_until_healthy()
    seconds = float(engine.output.split("Loading weights took ")[1].split()[0])
    assert seconds > 1.04


def test_a_damaged_simulation_file_is_named(start: Start, sharded: Path) -> None:
    (sharded / "simulation.json").write_text(json.dumps({"quality": "high"}))
    engine = start(model=sharded)
    assert engine.wait(10) == 2
    assert "quality must be" in engine.output


def test_any_folder_with_safetensors_can_be_served(start: Start, plain_model: Path, tmp_path: Path) -> None:
    shutil.copytree(plain_model, tmp_path / "bare", ignore=shutil.ignore_patterns("simulation.json"))
    start(model=tmp_path / "bare").wait_until_healthy()
