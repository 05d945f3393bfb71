"""Releases that an older llmops wrote down stay readable, whatever rules a newer one has for people's values."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from pydantic import BaseModel, ValidationError

from llmops.releases.release import Release
from llmops.releases.stored import read_release
from tests.support.everything import pinned, specs

CONTENT: dict[str, Any] = {
    "model": "kept",
    "weights": {
        "repo": "acme/kept",
        "commit": "1" * 40,
        "files": [{"path": "model.safetensors", "size": 9, "sha256": "8" * 64}],
        "strategy": "image",
        "image": {"repository": "registry.example/weights", "tag": "1", "digest": f"sha256:{'7' * 64}"},
        "token": {"name": "hub", "key": "token"},
    },
    "engine": {"image": "vllm/vllm-openai", "tag": "v0.31.0", "digest": f"sha256:{'6' * 64}", "args": ["--seed=1"]},
    "gpu": {"product": "NVIDIA-L40S", "count": 1, "memory": "48Gi"},
    "resources": {"cpu": "4", "memory": "32Gi", "shm": "8Gi"},
    "evaluation": {"suites": ["smoke"], "gates": [{"metric": "smoke/score", "min": 0.5}], "confidence": 0.9},
    "suites": [{"name": "smoke", "sha256": "5" * 64}],
    "rollout": {"stabilization_seconds": 5},
    "access": {"api_key": {"name": "keys", "key": "kept"}},
    "traffic": {"steps": [{"percent": 10, "bake_seconds": 60}], "gates": [{"metric": "error_rate", "max": 0.1}]},
}


def changed(place: str, value: object) -> dict[str, Any]:
    content = copy.deepcopy(CONTENT)
    holder: Any = content
    *path, last = [int(part) if part.isdigit() else part for part in place.split("/")]
    for part in path:
        holder = holder[part]
    holder[last] = value
    return content


def test_a_valid_release_is_read_alike() -> None:
    release = Release.model_validate(CONTENT)
    kept = read_release(release.canonical())
    assert (kept, kept.id) == (release, release.id)
    assert types(kept) == types(release)


@given(specs().map(pinned))
def test_the_release_of_each_entry_is_read_alike(release: Release) -> None:
    kept = read_release(release.canonical())
    assert (kept, kept.id) == (release, release.id)
    assert types(kept) == types(release)


def types(value: object) -> object:
    if isinstance(value, BaseModel):
        return type(value), {name: types(item) for name, item in value}
    return [types(item) for item in value] if isinstance(value, tuple) else type(value)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("resources/memory", "512Ki"),
        ("resources/memory", "0Gi"),
        ("resources/shm", "64e6"),
        ("resources/cpu", "0.0001"),
        ("gpu/memory", "1000"),
        ("gpu/product", "with space"),
        ("weights/token", {"name": "Not_A_Name", "key": "a b"}),
        ("evaluation/suites", ["a suite"]),
        ("evaluation/gates/0", {"metric": "smoke/score"}),
        ("evaluation/gates/0", {"metric": "smoke/score", "min": float("inf")}),
        ("evaluation/confidence", 0.2),
        ("evaluation/repeats", 10**9),
        ("rollout/stabilization_seconds", float("inf")),
        ("rollout/drain_seconds", 0),
        ("traffic/gates/0", {"metric": "p95_ttft_ms", "max_rise": 1.0, "max": 2.0}),
        ("traffic/steps/0/percent", 250),
    ],
)
def test_a_release_with_values_that_are_refused_today_is_read(place: str, value: object) -> None:
    text = json.dumps(changed(place, value))
    with pytest.raises(ValidationError):
        Release.model_validate_json(text)
    kept = read_release(text)
    assert read_release(kept.canonical()) == kept


@pytest.mark.parametrize(
    ("place", "value"),
    [("model", 5), ("resources", "4"), ("weights/files", {"a": 1}), ("weights/files/0/size", "x"), ("unknown", 1)],
)
def test_what_is_no_release_is_refused(place: str, value: object) -> None:
    with pytest.raises(ValueError, match=place.split("/")[0]):
        read_release(json.dumps(changed(place, value)))
