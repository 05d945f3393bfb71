"""From policy to pins, against a hub and a registry over HTTP."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llmops_sandbox.standins.hub import HubServer, HubStore
from llmops_sandbox.standins.images import ImageStore
from llmops_sandbox.standins.standin import in_thread

from llmops.clients.registry import RegistryClient
from llmops.config.catalog.spec import EngineOptions, ModelSpec
from llmops.errors import BadInput, BadRelease
from llmops.releases.release import Release
from llmops.releases.resolve import Hub, render_arguments, resolve

REPO = "acme/tiny"
IMAGE = "docker.io/vllm/vllm-openai"
SUITES = {"arithmetic": "a" * 64, "json": "b" * 64}


def spec(**changes: Any) -> ModelSpec:
    content: dict[str, Any] = {
        "name": "tiny",
        "weights": {"repo": REPO},
        "engine": {"version": ">=0.31,<0.40"},
        "evaluation": {"suites": ["arithmetic"]},
    }
    return ModelSpec.model_validate(content | changes)


def pin(hub: Hub, registry: RegistryClient, **options: Any) -> Release:
    return resolve(spec(), hub=hub, registry=registry, suites=SUITES, **options)


def test_every_policy_becomes_a_pin(hub: Hub, registry: RegistryClient, store: HubStore, images: ImageStore) -> None:
    release = pin(hub, registry)
    assert release.weights.commit == store.resolve(REPO, "main")
    assert [file.path for file in release.weights.files] == ["config.json", "model.safetensors"]
    assert release.weights.size == 2 + 2048
    weights = next(file for file in release.weights.files if file.path == "model.safetensors")
    assert weights.sha256 == hashlib.sha256(bytes(2048)).hexdigest()
    assert weights.git_sha1 is None
    assert release.engine.tag == "v0.32.0"
    image = images.resolve(f"{IMAGE}:v0.32.0")
    assert image is not None
    assert release.engine.reference == f"vllm/vllm-openai@{image.digest}"
    assert {suite.name: suite.sha256 for suite in release.suites} == {"arithmetic": SUITES["arithmetic"]}


def test_the_same_answers_give_the_same_release(hub: Hub, registry: RegistryClient) -> None:
    assert pin(hub, registry).id == pin(hub, registry).id


def test_scale_and_words_are_no_part_of_a_release(hub: Hub, registry: RegistryClient) -> None:
    release = resolve(spec(replicas=5, description="Another text."), hub=hub, registry=registry, suites=SUITES)
    assert release.id == pin(hub, registry).id


def test_a_branch_that_moved_is_another_release(hub: Hub, registry: RegistryClient, store: HubStore) -> None:
    before = pin(hub, registry)
    store.commit(REPO, {"config.json": "{}", "model.safetensors": bytes(4096)})
    after = pin(hub, registry)
    assert before.weights.commit != after.weights.commit
    assert before.id != after.id
    assert before.weights.key != after.weights.key


def test_a_tag_that_moved_is_another_release(hub: Hub, registry: RegistryClient, images: ImageStore) -> None:
    before = pin(hub, registry)
    images.add(IMAGE, "v0.32.0", ("engine", "rebuilt"))
    after = pin(hub, registry)
    assert before.engine.tag == after.engine.tag
    assert before.id != after.id


def test_a_revision_and_a_version_may_be_asked_for(hub: Hub, registry: RegistryClient, store: HubStore) -> None:
    old = store.resolve(REPO, "main")
    assert old is not None
    store.commit(REPO, {"config.json": "{}", "model.safetensors": bytes(4096)})
    release = pin(hub, registry, revision=old, engine_version="0.31.0")
    assert release.weights.commit == old
    assert release.engine.tag == "v0.31.0"
    with pytest.raises(BadInput) as raised:
        pin(hub, registry, engine_version="newest")
    assert (raised.value.code, raised.value.about) == ("BadVersion", "newest")


def test_a_pinned_commit_is_not_asked_for_again(registry: RegistryClient, store: HubStore) -> None:
    commit = store.resolve(REPO, "main")
    assert commit is not None
    with in_thread(HubServer(store)) as server:
        pin(Hub(server.url), registry, revision=commit)
        assert len(server.seen("/api/models/*/revision/*")) == 1


def test_a_missing_revision_version_or_suite_is_named(hub: Hub, registry: RegistryClient) -> None:
    with pytest.raises(BadInput, match="nowhere"):
        pin(hub, registry, revision="nowhere")
    with pytest.raises(BadRelease, match=r"v0\.99\.0"):
        pin(hub, registry, engine_version="0.99.0")
    with pytest.raises(BadInput) as raised:
        resolve(spec(evaluation={"suites": ["poetry"]}), hub=hub, registry=registry, suites=SUITES)
    assert (raised.value.code, raised.value.about) == ("NoSuchSuite", "suite poetry")
    assert "arithmetic, json" in raised.value.remedy


def test_a_pickle_where_safetensors_are_required_is_refused(
    hub: Hub, registry: RegistryClient, store: HubStore
) -> None:
    store.commit(REPO, {"config.json": "{}", "pytorch_model.bin": bytes(64)}, branch="pickle")
    with pytest.raises(BadRelease, match=r"pytorch_model\.bin"):
        pin(hub, registry, revision="pickle")


def test_a_gated_repository_is_refused_before_anything_is_downloaded(
    hub: Hub, registry: RegistryClient, store: HubStore
) -> None:
    store.add_token("hf_good")
    store.set_gated(REPO, "hf_good")
    with pytest.raises(BadInput, match="gated"):
        pin(hub, registry)
    assert pin(Hub(hub.endpoint, "hf_good"), registry).weights.repo == REPO


def test_arguments_are_canonical() -> None:
    options = EngineOptions(
        max_model_len=2048, gpu_memory_utilization=0.9, enforce_eager=True, quantization="awq_marlin"
    )
    further = ["--seed=1", "--enable_prefix_caching", '--override-generation-config={"a_b": 1}']
    assert render_arguments(options, further) == (
        "--enable-prefix-caching",
        "--enforce-eager",
        "--gpu-memory-utilization=0.9",
        "--max-model-len=2048",
        '--override-generation-config={"a_b": 1}',
        "--quantization=awq_marlin",
        "--seed=1",
        "--tensor-parallel-size=1",
    )


@given(st.permutations(["--seed=1", "--b=1", "--swap-space=2", "--async-scheduling"]))
def test_the_order_of_arguments_is_not_part_of_a_release(further: list[str]) -> None:
    assert render_arguments(EngineOptions(), further) == render_arguments(EngineOptions(), sorted(further))


def test_repeated_arguments_keep_their_order() -> None:
    rendered = render_arguments(EngineOptions(), ["--middleware=b", "--seed=1", "--middleware=a"])
    middleware = [argument for argument in rendered if argument.startswith("--middleware")]
    assert middleware == ["--middleware=b", "--middleware=a"]
