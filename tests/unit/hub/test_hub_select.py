"""The files of a commit that a release takes."""

from __future__ import annotations

import pytest
from huggingface_hub.utils import filter_repo_objects
from hypothesis import given
from hypothesis import strategies as st

from llmops.clients.hub import HubFile, select
from llmops.clients.hub.files import is_unsafe, missing_shards
from llmops.config.catalog.spec import DEFAULT_INCLUDE
from llmops.errors import BadRelease

SHARDS = [f"model-{number:05d}-of-00003.safetensors" for number in (1, 2, 3)]
LLAMA = ["config.json", "tokenizer.json", "README.md", "model.safetensors.index.json", *SHARDS]


def files(*paths: str) -> list[HubFile]:
    return [HubFile(path, 1, git_sha1="0" * 40) for path in paths]


def taken(*paths: str, include: tuple[str, ...] = DEFAULT_INCLUDE, exclude: tuple[str, ...] = ()) -> list[str]:
    return [file.path for file in select(files(*paths), include, exclude)]


def test_defaults_take_what_an_engine_loads() -> None:
    unneeded = ["original/consolidated.00.pth", "pytorch_model.bin", ".gitattributes", "LICENSE"]
    assert taken(*unneeded, *LLAMA) == sorted({*LLAMA} - {"README.md"})


def test_safetensors_win_over_pickle_for_any_patterns() -> None:
    assert taken("model.safetensors", "pytorch_model.bin", "old.PT", include=("*",)) == ["model.safetensors"]
    both = select(files("model.safetensors", "pytorch_model.bin"), ("*",), allow_pickle=True)
    assert [file.path for file in both] == ["model.safetensors", "pytorch_model.bin"]


def test_only_pickle_is_refused_by_name() -> None:
    with pytest.raises(BadRelease) as refused:
        select(files("config.json", "pytorch_model.bin"), DEFAULT_INCLUDE)
    assert (refused.value.code, refused.value.about) == ("OnlyUnsafeWeights", "pytorch_model.bin")
    assert "weights.allow_pickle: true" in refused.value.remedy


def test_pickle_is_taken_where_it_is_allowed_and_asked_for() -> None:
    only = files("config.json", "pytorch_model.bin")
    assert len(select(only, (*DEFAULT_INCLUDE, "*.bin"), allow_pickle=True)) == 2
    with pytest.raises(BadRelease, match=r"pytorch_model\.bin") as refused:
        select(only, DEFAULT_INCLUDE, allow_pickle=True)
    assert (refused.value.code, refused.value.about) == ("WeightsNotSelected", "weights.include")


def test_patterns_that_miss_the_weights() -> None:
    for include, exclude in ((("*.json",), ()), (("*",), ("model*",))):
        with pytest.raises(BadRelease, match=r"model\.safetensors") as refused:
            select(files("config.json", "model.safetensors"), include, exclude)
        assert refused.value.code == "WeightsNotSelected"
    with pytest.raises(BadRelease, match="a, b, c, d, e and 2 more") as refused:
        select(files(*"abcdefg"), ("*",))
    assert refused.value.code == "NoWeights"
    with pytest.raises(BadRelease) as refused:
        select([], ("*",))
    assert refused.value.code == "NoWeights"


def test_a_missing_shard_is_named() -> None:
    with pytest.raises(BadRelease) as refused:
        select(files(*(set(LLAMA) - {SHARDS[1]})), DEFAULT_INCLUDE)
    assert (refused.value.code, refused.value.about) == ("ShardsMissing", SHARDS[1])
    with pytest.raises(BadRelease, match=f"{SHARDS[0]}, {SHARDS[2]}") as refused:
        select(files(*LLAMA), DEFAULT_INCLUDE, ("*-00001-*", "*-00003-*"))
    assert (refused.value.code, refused.value.about) == ("ShardsMissing", SHARDS[0])


PATHS = st.text(alphabet="aB./-*[", min_size=1, max_size=8)


@given(paths=st.sets(PATHS, max_size=8), include=st.lists(PATHS, min_size=1), exclude=st.lists(PATHS))
def test_patterns_mean_what_they_mean_to_the_hub_client(
    paths: set[str], include: list[str], exclude: list[str]
) -> None:
    names = [f"{path}.safetensors" for path in paths] + sorted(paths)
    include, exclude = [*include, "always.safetensors"], [item for item in exclude if not item.endswith("s")]
    names.append("always.safetensors")
    expected = set(filter_repo_objects(names, allow_patterns=include, ignore_patterns=exclude))
    if not any(name.endswith(".safetensors") for name in expected):
        return
    assert set(taken(*names, include=tuple(include), exclude=tuple(exclude))) == {
        name for name in expected if not is_unsafe(name)
    }


@given(count=st.integers(1, 40), data=st.data())
def test_every_missing_shard_is_found(count: int, data: st.DataObject) -> None:
    shards = {f"sub/model-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1)}
    present = data.draw(st.sets(st.sampled_from(sorted(shards)), min_size=1))
    assert set(missing_shards(present)) == shards - present
