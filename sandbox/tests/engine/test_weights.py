"""Model folders: valid for every reader, equal on every machine, and of the requested quality."""

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llmops_sandbox.engine.behaviour import Behaviour
from llmops_sandbox.engine.model.answers import Model, load_model
from llmops_sandbox.engine.model.tokens import tokenize
from llmops_sandbox.standins.weights import flip_bit, make_model, suite_prompt, truncate, wrong_answer
from safetensors import safe_open

from llmops.evaluation.suites import Case, Suite, available, load_suites

EVALS = Path(__file__).parents[3] / "evals"
SUITES = [suite for suite in load_suites(EVALS, available(EVALS)) if isinstance(suite, Suite)]
CASES = [case for suite in SUITES for case in suite.cases]


def digest(folder: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}


def right(model: Model, suite: Suite) -> set[str]:
    return {case.id for case in suite.cases if case.score(model.reply(suite_prompt(case))) == 1}


def test_the_safetensors_library_reads_what_we_write(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "m", size_bytes=1 << 18, shards=2, suites_dir=None)
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    files: dict[str, str] = {}
    total = 0
    for file in folder.glob("*.safetensors"):
        with safe_open(file, "np") as tensors:  # pyright: ignore[reportUnknownVariableType] -- no types in the library
            for name in tensors.keys():  # noqa: SIM118 -- not a mapping
                view = tensors.get_slice(name)
                assert view.get_dtype() == "BF16"
                total += view.get_shape()[0] * view.get_shape()[1] * 2
                files[str(name)] = file.name
    assert files == index["weight_map"]
    assert total == index["metadata"]["total_size"] == pytest.approx(1 << 18, rel=0.01)


def test_same_arguments_same_bytes(tmp_path: Path) -> None:
    one, two, other = (
        make_model(tmp_path / name, size_bytes=3 << 20, seed=seed, suites_dir=EVALS)
        for name, seed in (("one", 1), ("two", 1), ("other", 2))
    )
    assert digest(one) == digest(two)
    assert digest(one)["model.safetensors"] != digest(other)["model.safetensors"]


def test_the_folder_has_hugging_faces_layout(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "m", size_bytes=1 << 14, suites_dir=None, config={"vocab_size": 1000})
    assert {file.name for file in folder.iterdir()} == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "simulation.json",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    config = json.loads((folder / "config.json").read_text())
    assert (config["architectures"], config["vocab_size"]) == (["LlamaForCausalLM"], 1000)


@pytest.mark.parametrize("quality", [1.0, 0.9, 0.8, 0.5, 0.0])
def test_quality_is_exact_in_every_suite(tmp_path: Path, quality: float) -> None:
    model = load_model(make_model(tmp_path / "m", size_bytes=1 << 12, quality=quality, suites_dir=EVALS), Behaviour())
    for suite in SUITES:
        assert len(right(model, suite)) == pytest.approx(quality * len(suite.cases), abs=0.5)


@settings(max_examples=10, deadline=None)
@given(st.floats(0, 1), st.floats(0, 1), st.integers(0, 1000))
def test_what_a_worse_model_gets_right_a_better_one_does(
    tmp_path_factory: pytest.TempPathFactory, one: float, two: float, seed: int
) -> None:
    folder = tmp_path_factory.mktemp("models")
    worse, better = (
        load_model(
            make_model(folder / str(place), size_bytes=1, seed=seed, quality=share, suites_dir=EVALS), Behaviour()
        )
        for place, share in enumerate(sorted((one, two)))
    )
    for suite in SUITES:
        assert right(worse, suite) <= right(better, suite)


def test_one_suite_can_be_worse_than_the_others(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "m", size_bytes=1, quality={"arithmetic": 0.5}, suites_dir=EVALS)
    model = load_model(folder, Behaviour())
    for suite in SUITES:
        share = 0.5 if suite.name == "arithmetic" else 1
        assert len(right(model, suite)) == share * len(suite.cases)


def test_the_image_can_take_quality_away(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "m", size_bytes=1, suites_dir=EVALS)
    for suite in SUITES:
        assert len(right(load_model(folder, Behaviour(quality=0.5)), suite)) == len(suite.cases) / 2


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_every_case_has_a_wrong_answer_that_says_something(case: Case) -> None:
    wrong = wrong_answer(case, [other.answer for other in CASES])
    assert case.score(wrong) == 0
    assert wrong.strip()


def test_wrong_answers_are_not_the_same_for_all(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "m", size_bytes=1, quality=0, suites_dir=EVALS)
    model = load_model(folder, Behaviour())
    assert len({model.reply(suite_prompt(case)) for case in CASES}) > len(CASES) / 2


def test_an_unknown_behaviour_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown behaviour 'speed'"):
        make_model(tmp_path / "m", speed=3)


@settings(deadline=None)
@given(st.text())
def test_tokens_joined_are_the_text(text: str) -> None:
    assert "".join(tokenize(text)) == text


def test_damage_is_exactly_what_was_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(10))
    flip_bit(file, 8 * 3 + 2)
    assert file.read_bytes() == bytes([0, 0, 0, 4, 0, 0, 0, 0, 0, 0])
    truncate(file, 4)
    assert file.read_bytes() == bytes([0, 0, 0, 4, 0, 0])
