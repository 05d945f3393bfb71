"""Pins of each weights strategy, and pins from a file instead of the hub."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from llmops.config.catalog.autoscaling import Autoscaling
from llmops.config.catalog.spec import Engine, ModelSpec, Weights, WeightsImage
from llmops.errors import BadInput
from llmops.releases.pins_file import PinsFile
from llmops.releases.release import FilePin, ImagePin, WeightsPin

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {
    "config.json": {"size": 2, "sha256": "7" * 64, "git_sha1": "9" * 40, "blake3": "6" * 64},
    "model.safetensors": {"size": 2048, "sha256": "8" * 64, "blake3": "5" * 64},
}
MANIFEST = {"model": "tiny", "repo": "acme/tiny", "commit": COMMIT, "pins": "x", "bytes": 2050, "files": FILES}


def pin(**changes: object) -> WeightsPin:
    files = (FilePin(path="model.safetensors", size=2048, sha256="8" * 64),)
    return WeightsPin(repo="acme/tiny", commit=COMMIT, files=files).model_copy(update=changes)


def image(digit: str = "1", path: str = "/") -> ImagePin:
    return ImagePin(repository="r.example/weights", tag="1", digest=f"sha256:{digit * 64}", path=path)


def test_each_place_of_weights_has_a_key_of_its_own() -> None:
    keys = [
        pin().key,
        pin(strategy="init").key,
        pin(strategy="image", image=image()).key,
        pin(strategy="image", image=image("2")).key,
        pin(strategy="image", image=image(path="/m")).key,
    ]
    assert len(set(keys)) == len(keys)
    assert pin().key == "0123456789ab-f3e10847", "weights that are on volumes keep their folders"


def test_a_manifest_of_verified_weights_answers_as_the_hub_does(tmp_path: Path) -> None:
    path = tmp_path / "pins.json"
    path.write_text(json.dumps(MANIFEST))
    file = PinsFile(path)
    assert file.resolve("acme/tiny", COMMIT) == COMMIT
    config, weights = file.list_files("acme/tiny", COMMIT)
    assert (config.sha256, config.git_sha1) == (None, "9" * 40), "pinned as the hub pins it, for the same release id"
    assert (weights.sha256, weights.size) == ("8" * 64, 2048)


@pytest.mark.parametrize(
    ("content", "code", "names"),
    [
        ("{", "BadPinsFile", ""),
        (json.dumps({**MANIFEST, "files": {"a": {"size": -1}}}), "BadPinsFile", "files.a.size"),
        (json.dumps({**MANIFEST, "files": {"a": {"size": 1}}}), "FileNotPinned", "a: "),
        (json.dumps({**MANIFEST, "commit": "f" * 40}), "OtherPins", "acme/tiny at ffff"),
        (json.dumps({**MANIFEST, "repo": "acme/large"}), "OtherPins", "acme/large"),
    ],
)
def test_a_file_without_the_pins_is_refused_by_its_name(tmp_path: Path, content: str, code: str, names: str) -> None:
    path = tmp_path / "pins.json"
    path.write_text(content)
    with pytest.raises(BadInput) as raised:
        PinsFile(path).list_files("acme/tiny", COMMIT)
    assert raised.value.code == code
    assert raised.value.about.startswith(str(path))
    assert names in raised.value.message


WEIGHTS = {"repo": "acme/tiny"}


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ({"strategy": "image"}, "image: is required"),
        ({"image": {"repository": "a/b"}}, "image: is not for strategy volume"),
        ({"pins": "a.json", "revision": COMMIT}, "pins: is for strategy image"),
        ({"strategy": "image", "image": {"repository": "a/b", "tag": "1"}, "pins": "a.json"}, "revision: is main"),
        ({"strategy": "image", "image": {"repository": "a/b:1"}}, "without a tag"),
        ({"strategy": "image", "image": {"repository": "a/b", "path": "models"}}, "should match pattern"),
        ({"strategy": "image", "image": {"repository": "a/b", "path": "/a/../b"}}, "should match pattern"),
        ({"strategy": "image", "image": {"repository": "a/b"}, "pins": "../a.json"}, "should match pattern"),
        ({"strategy": "image", "image": {"repository": "a/b"}}, "weights.image.tag: is required"),
        (
            {"strategy": "image", "image": {"repository": "a/engine", "tag": "1", "path": "/m"}},
            "image.tag: is given",
        ),
        ({"strategy": "image", "image": {"repository": "a/engine"}}, "weights.image.path: is /"),
    ],
)
def test_inconsistent_fields_are_refused_by_name(weights: dict[str, object], words: str) -> None:
    engine = {"image": "a/engine", "version": "1.0"}
    with pytest.raises(ValidationError) as raised:
        ModelSpec.model_validate({"name": "tiny", "weights": WEIGHTS | weights, "engine": engine})
    assert words in str(raised.value)


def test_autoscaled_pods_do_not_all_download() -> None:
    with pytest.raises(ValidationError, match=r"weights\.strategy"):
        ModelSpec(
            name="tiny",
            weights=Weights(repo="acme/tiny", strategy="init"),
            engine=Engine(version="1.0"),
            autoscaling=Autoscaling(max=4),
        )


def test_baked_weights_need_no_tag() -> None:
    weights = Weights(repo="acme/tiny", strategy="image", image=WeightsImage(repository="a/engine", path="/weights"))
    assert ModelSpec(name="tiny", weights=weights, engine=Engine(image="a/engine", version="1.0")).weights == weights
