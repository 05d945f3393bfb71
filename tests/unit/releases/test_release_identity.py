"""A release's id: which inputs change it, and which must not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from llmops.config.catalog.spec import Access, Evaluation, Gate, Gpu, Resources, Rollout
from llmops.config.catalog.traffic import LiveGate, Traffic, TrafficStep
from llmops.releases.release import EnginePin, FilePin, ImagePin, Release, SuitePin, WeightsPin

CONTENT: dict[str, Any] = {
    "model": "tiny",
    "weights": {
        "repo": "acme/tiny",
        "commit": "0123456789abcdef0123456789abcdef01234567",
        "files": [
            {"path": "config.json", "size": 2, "sha256": None, "git_sha1": "9" * 40},
            {"path": "model.safetensors", "size": 2048, "sha256": "8" * 64, "git_sha1": None},
        ],
        "token": {"name": "hub", "key": "token"},
    },
    "engine": {
        "image": "vllm/vllm-openai",
        "tag": "v0.32.0",
        "digest": "sha256:" + "7" * 64,
        "args": ["--max-model-len=2048", "--seed=1"],
        "env": [["VLLM_LOGGING_LEVEL", "INFO"]],
        "user": 2000,
    },
    "gpu": {"product": "NVIDIA-L40S", "count": 1, "memory": "45Gi"},
    "resources": {"cpu": "4", "memory": "32Gi", "shm": "8Gi"},
    "evaluation": {
        "suites": ["arithmetic"],
        "gates": [
            {
                "metric": "all/score",
                "min": 0.5,
                "max": None,
                "max_drop": None,
                "max_ratio": None,
                "max_divergence": None,
            }
        ],
        "confidence": 0.95,
        "concurrency": 8,
        "repeats": 1,
        "max_rounds": 4,
        "complete": False,
    },
    "suites": [{"name": "arithmetic", "sha256": "6" * 64}],
    "rollout": {
        "strategy": "auto",
        "stabilization_seconds": 60.0,
        "load_mb_per_second": 100.0,
        "startup_seconds": 300,
        "drain_seconds": 120,
        "unroute_seconds": 10,
        "on_inconclusive": "hold",
        "keep_weights": 1,
    },
    "access": {"api_key": {"name": "key", "key": "api-key"}},
    "traffic": {
        "steps": [],
        "gates": [
            {"metric": "error_rate", "max_rise": 0.01, "failure_limit": 0},
            {"metric": "p95_ttft_ms", "max_ratio": 1.5, "failure_limit": 0},
            {"metric": "p95_e2el_ms", "max_ratio": 1.5, "failure_limit": 0},
        ],
        "interval_seconds": 60.0,
        "min_requests": 100,
        "wait_seconds": 1800.0,
    },
}
KNOWN_ID = "d1d1075cf9dd"

PROGRAM = (
    "import sys; from llmops.releases.release import Release; print(Release.model_validate_json(sys.stdin.read()).id)"
)


def elsewhere(content: dict[str, Any], folder: Path, **variables: str) -> str:
    """The id that another process calculates, in another folder and with other variables."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3]), **variables}
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=json.dumps(content),
        capture_output=True,
        text=True,
        check=True,
        cwd=folder,
        env=environment,
        timeout=60,
    )
    return result.stdout.strip()


def turned(value: Any) -> Any:
    """The content with the keys of every mapping in reverse order."""
    if isinstance(value, dict):
        pairs = list(cast(dict[str, Any], value).items())
        return {key: turned(item) for key, item in reversed(pairs)}
    return [turned(item) for item in cast(list[Any], value)] if isinstance(value, list) else value


def leaves(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    if isinstance(value, dict):
        for key, item in cast(dict[str, Any], value).items():
            yield from leaves(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(cast(list[Any], value)):
            yield from leaves(item, (*path, index))
    else:
        yield path, value


def other(path: tuple[str | int, ...], value: Any) -> Any:
    """Another value that is allowed in the same place."""
    match path[-1], value:
        case "strategy", _:
            return "surge"
        case "on_inconclusive", _:
            return "reject"
        case "metric", ("error_rate" | "p95_ttft_ms" | "p95_e2el_ms"):
            return {"error_rate": "abort_rate", "p95_ttft_ms": "p95_e2el_ms", "p95_e2el_ms": "p95_ttft_ms"}[value]
        case (("min" | "max" | "max_drop" | "max_ratio" | "max_divergence"), None):
            return None
        case (("sha256" | "git_sha1"), None):
            return None
        case _, str() if value[-1] == "1":
            return value[:-1] + "2"
        case (("commit" | "digest" | "sha256" | "git_sha1"), str()):
            return value[:-1] + "1"
        case (("cpu" | "memory" | "shm"), str()):
            return f"1{value}"
        case _, str():
            return f"{value}x"
        case "confidence", _:
            return 0.9
        case _:
            return value + 1


def replaced(content: dict[str, Any], path: tuple[str | int, ...], value: Any) -> dict[str, Any]:
    copy = json.loads(json.dumps(content))
    place: Any = copy
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = value
    return copy


CHANGES = [(path, other(path, value)) for path, value in leaves(CONTENT) if other(path, value) is not None]


def test_the_id_is_the_same_on_every_machine_and_at_any_time() -> None:
    # A constant: another id for the same content would start trials on every installation.
    assert Release.model_validate(CONTENT).id == KNOWN_ID


# The id's content leaves out defaults: a changed default would change releases without changing their ids.
# Add new fields with their defaults here; never change an existing line.
DEFAULTS: dict[type[BaseModel], dict[str, Any]] = {
    FilePin: {"sha256": None, "git_sha1": None},
    WeightsPin: {"token": None, "strategy": "volume", "image": None},
    ImagePin: {"path": "/"},
    EnginePin: {"args": (), "env": (), "user": 2000, "chat_template": None},
    SuitePin: {},
    Gpu: {"product": None, "count": 1, "memory": None},
    Resources: {"cpu": "4", "memory": "32Gi", "shm": "8Gi", "priority_class": None},
    Gate: {"min": None, "max": None, "max_drop": None, "max_ratio": None, "max_divergence": None, "dry": False},
    Evaluation: {
        "suites": (),
        "gates": (),
        "confidence": 0.95,
        "concurrency": 8,
        "repeats": 1,
        "max_rounds": 4,
        "complete": False,
        "protocol": (),
    },
    Rollout: {
        "strategy": "auto",
        "stabilization_seconds": 60,
        "load_mb_per_second": 100,
        "startup_seconds": 300,
        "drain_seconds": 120,
        "unroute_seconds": 10,
        "on_inconclusive": "hold",
        "keep_weights": 1,
    },
    Access: {"api_key": None},
    TrafficStep: {"bake_seconds": 300},
    LiveGate: {"query": None, "max": None, "max_rise": None, "max_ratio": None, "failure_limit": 0, "dry": False},
    Traffic: {
        "steps": (),
        "gates": (
            LiveGate(metric="error_rate", max_rise=0.01),
            LiveGate(metric="p95_ttft_ms", max_ratio=1.5),
            LiveGate(metric="p95_e2el_ms", max_ratio=1.5),
        ),
        "interval_seconds": 60,
        "min_requests": 100,
        "wait_seconds": 1800,
    },
    Release: {"traffic": Traffic()},
}


@pytest.mark.parametrize("part", DEFAULTS, ids=lambda part: part.__name__)
def test_no_default_of_a_release_ever_changes(part: type[BaseModel]) -> None:
    fields = part.model_fields.items()
    assert {name: field.get_default() for name, field in fields if not field.is_required()} == DEFAULTS[part]


def test_a_field_that_is_at_its_default_is_no_other_release() -> None:
    before = Release.model_validate(replaced(CONTENT, ("evaluation", "concurrency"), 8))
    content = json.loads(json.dumps(before.model_dump(mode="json")))
    del content["evaluation"]["concurrency"]
    assert Release.model_validate(content).id == before.id


def test_no_clock_path_order_or_variable_reaches_the_id(tmp_path: Path) -> None:
    assert elsewhere(CONTENT, tmp_path, PYTHONHASHSEED="1", TZ="UTC") == KNOWN_ID
    variables = {"TZ": "Pacific/Kiritimati", "LC_ALL": "C", "HOME": "/nowhere", "USER": "other", "LLMOPS_SETTINGS": ""}
    assert elsewhere(turned(CONTENT), Path("/"), PYTHONHASHSEED="2", **variables) == KNOWN_ID


@pytest.mark.parametrize(("path", "value"), CHANGES, ids=[".".join(map(str, path)) for path, _ in CHANGES])
def test_any_single_change_is_another_release(path: tuple[str | int, ...], value: Any) -> None:
    assert Release.model_validate(replaced(CONTENT, path, value)).id != KNOWN_ID


def test_the_changes_cover_every_pin() -> None:
    changed = {path[0] for path, _ in CHANGES}
    assert changed == set(Release.model_fields)


def test_other_steps_of_traffic_are_another_release() -> None:
    steps = [{"percent": 5}, {"percent": 50, "bake_seconds": 60}]
    stepped = Release.model_validate(replaced(CONTENT, ("traffic", "steps"), steps))
    assert stepped.id != KNOWN_ID
    assert Release.model_validate(replaced(CONTENT, ("traffic", "steps"), steps[:1])).id not in (KNOWN_ID, stepped.id)


def test_a_missing_or_further_file_is_another_release_and_another_folder() -> None:
    before = Release.model_validate(CONTENT)
    fewer = Release.model_validate(replaced(CONTENT, ("weights", "files"), CONTENT["weights"]["files"][:1]))
    assert fewer.id != before.id
    assert fewer.weights.key != before.weights.key
    assert fewer.weights.commit == before.weights.commit


def test_a_changed_copy_has_an_id_of_its_own() -> None:
    before = Release.model_validate(CONTENT)
    assert before.id == KNOWN_ID
    assert before.model_copy(update={"model": "other"}).id != KNOWN_ID
    fewer = before.weights.model_copy(update={"files": before.weights.files[:1]})
    assert fewer.key != before.weights.key


def test_a_release_comes_back_from_its_canonical_form() -> None:
    before = Release.model_validate(CONTENT)
    after = Release.model_validate_json(before.canonical())
    assert after == before
    assert after.canonical() == before.canonical()


@given(text=st.text(max_size=20))
def test_the_canonical_form_is_plain_ascii_on_one_line(text: str) -> None:
    release = Release.model_validate(replaced(CONTENT, ("engine", "env"), [["A", text]]))
    canonical = release.canonical()
    assert canonical.isascii()
    assert "\n" not in canonical
    assert Release.model_validate_json(canonical).engine.env == (("A", text),)
