"""The difference between two releases. The subject is the wording."""

from __future__ import annotations

from typing import Any

from llmops.config.catalog.spec import Access, Evaluation, Gate, Gpu, Resources, Rollout, SecretKey
from llmops.releases.difference import diff
from llmops.releases.release import EnginePin, FilePin, Release, SuitePin, WeightsPin

OLD = Release(
    model="tiny",
    weights=WeightsPin(
        repo="acme/tiny",
        commit="1a" * 20,
        files=(
            FilePin(path="config.json", size=2, git_sha1="9" * 40),
            FilePin(path="a.safetensors", size=10**9, sha256="8" * 64),
            FilePin(path="b.safetensors", size=10**9, sha256="7" * 64),
        ),
    ),
    engine=EnginePin(
        image="vllm/vllm-openai",
        tag="v0.31.0",
        digest="sha256:" + "6" * 64,
        args=("--max-model-len=2048", "--seed=1"),
        env=(("A", "1"),),
    ),
    gpu=Gpu(product="NVIDIA-L40S"),
    resources=Resources(),
    evaluation=Evaluation(suites=("json",), gates=(Gate(metric="all/score", min=0.5),)),
    suites=(SuitePin(name="json", sha256="5" * 64),),
    rollout=Rollout(),
    access=Access(),
)


def change(part: str, **changes: Any) -> Release:
    return OLD.model_copy(update={part: getattr(OLD, part).model_copy(update=changes)})


def test_nothing_differs() -> None:
    assert diff(OLD, OLD) == []


def test_the_first_release() -> None:
    assert diff(None, OLD) == ["first release: engine v0.31.0, weights acme/tiny at 1a1a1a1a1a1a (3 files, 2.0 GB)"]


def test_a_newer_engine() -> None:
    new = change("engine", tag="v0.32.0", digest="sha256:" + "0" * 64)
    assert diff(OLD, new) == ["engine v0.31.0 -> v0.32.0"]


def test_a_tag_that_was_pushed_again() -> None:
    new = change("engine", digest="sha256:" + "0" * 64)
    assert diff(OLD, new) == ["engine v0.31.0 was rebuilt: 666666666666 -> 000000000000"]


def test_another_image() -> None:
    new = change("engine", image="acme/engine", digest="sha256:" + "0" * 64)
    assert diff(OLD, new) == ["engine image vllm/vllm-openai:v0.31.0 -> acme/engine:v0.31.0"]


def test_arguments_variables_and_user() -> None:
    new = change("engine", args=("--enforce-eager", "--max-model-len=4096"), env=(("A", "2"), ("B", "1")), user=0)
    assert diff(OLD, new) == [
        "engine argument --enforce-eager added",
        "engine argument --max-model-len 2048 -> 4096",
        "engine argument --seed=1 removed",
        "engine variable A 1 -> 2",
        "engine variable B=1 added",
        "engine user 2000 -> 0",
    ]


def test_newer_weights() -> None:
    files = (
        OLD.weights.files[0],
        FilePin(path="a.safetensors", size=10**9, sha256="0" * 64),
        FilePin(path="c.safetensors", size=10**9, sha256="1" * 64),
        FilePin(path="d.safetensors", size=10**9, sha256="2" * 64),
    )
    new = change("weights", commit="3c" * 20, files=files)
    assert diff(OLD, new) == ["weights 1a1a1a1a1a1a -> 3c3c3c3c3c3c (1 file changed, 2 files added, 1 file removed)"]


def test_a_commit_that_changes_no_file_of_ours() -> None:
    assert diff(OLD, change("weights", commit="3c" * 20)) == ["weights 1a1a1a1a1a1a -> 3c3c3c3c3c3c (the same files)"]


def test_another_selection_of_one_commit() -> None:
    assert diff(OLD, change("weights", files=OLD.weights.files[:2])) == ["weights 1a1a1a1a1a1a: 1 file removed"]


def test_everything_else() -> None:
    new = OLD.model_copy(
        update={
            "gpu": Gpu(product="NVIDIA-L40S", count=2),
            "evaluation": Evaluation(suites=("json",), gates=(Gate(metric="all/score", min=0.6),)),
            "suites": (SuitePin(name="json", sha256="4" * 64),),
            "rollout": Rollout(drain_seconds=30),
            "access": Access(api_key=SecretKey(name="key", key="k")),
        }
    )
    assert diff(OLD, new) == [
        "suite json 555555555555 -> 444444444444",
        "gpu.count 1 -> 2",
        "evaluation.gates {metric: all/score, min: 0.5} -> {metric: all/score, min: 0.6}",
        "rollout.drain_seconds 120 -> 30",
        "access.api_key none -> {name: key, key: k}",
    ]
