"""What a release declares to change about the model."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from llmops.config.vllm.flags import known
from llmops.releases.release import EnginePin, Release
from llmops.releases.sameness import DECLARING, declared_changes


def with_engine(release: Release, **fields: object) -> Release:
    return release.model_copy(update={"engine": EnginePin.model_validate(release.engine.model_dump() | fields)})


def other_file(release: Release) -> Release:
    first, *rest = release.weights.files
    files = (first.model_copy(update={"size": first.size + 1}), *rest)
    return release.model_copy(update={"weights": release.weights.model_copy(update={"files": files})})


def other_commit(release: Release) -> Release:
    return release.model_copy(update={"weights": release.weights.model_copy(update={"commit": "f" * 40})})


Change = Callable[[Release], Release]


def engine(**fields: object) -> Change:
    return lambda release: with_engine(release, **fields)


def argument(text: str) -> Change:
    return lambda release: with_engine(release, args=(*release.engine.args, text))


@pytest.mark.parametrize(
    "change",
    [
        other_commit,  # of the same files
        engine(tag="v0.99.0", digest=f"sha256:{'9' * 64}"),
        engine(env=(("VLLM_LOGGING_LEVEL", "DEBUG"),)),
        argument("--max-num-seqs=4"),
        argument("--enforce-eager"),
    ],
)
def test_an_engine_or_its_speed_must_not_change_the_model(release: Release, change: Change) -> None:
    assert declared_changes(release, release) == []
    assert declared_changes(release, change(release)) == []


@pytest.mark.parametrize(
    ("change", "declared"),
    [
        (other_file, "the files of the weights"),
        (engine(chat_template="{{ messages }}"), "engine.chat_template"),
        (engine(args=()), "--quantization"),
        (argument("-q=fp8"), "--quantization"),
        (argument("--kv_cache_dtype=fp8"), "--kv-cache-dtype"),
        (argument("--hf-overrides.rope_theta=5"), "--hf-overrides"),
        (argument('--quantization-config={"linear": "fp8"}'), "--quantization-config"),
        (argument("--mamba-ssm-cache-dtype=float16"), "--mamba-ssm-cache-dtype"),
        (argument("--kv-cache-dtype-skip-layers=0"), "--kv-cache-dtype-skip-layers"),
    ],
)
def test_what_a_release_declares_to_change_is_named(release: Release, change: Change, declared: str) -> None:
    assert declared_changes(release, change(release)) == [declared]


def test_the_arguments_that_declare_are_vllms() -> None:
    for flags in known().values():
        assert [name for name in DECLARING if name not in flags.by_name or flags.by_name[name].name != name] == []
