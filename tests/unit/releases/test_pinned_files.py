"""The files that a release pins, read from a hub over HTTP with the documents that decide about them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from llmops_sandbox.standins.hub import HubServer, HubStore
from llmops_sandbox.standins.standin import in_thread

from llmops.clients import hub as hub_client
from llmops.clients.hub import HubFile, documents
from llmops.clients.registry import RegistryClient
from llmops.config.catalog.spec import DEFAULT_INCLUDE, ModelSpec
from llmops.errors import BadInput, BadRelease
from llmops.releases.pins_file import PinsFile
from llmops.releases.release import FilePin, Release
from llmops.releases.resolve import Hub, resolve

REPO = "acme/found"
INDEX = "model.safetensors.index.json"
SHARDS = [f"model-{number:05d}-of-00003.safetensors" for number in range(3)]


def index(*files: str) -> str:
    return json.dumps({"weight_map": {f"layer.{number}": file for number, file in enumerate(files)}})


def pin(
    hub: Hub, registry: RegistryClient, store: HubStore, files: Mapping[str, str | bytes], **changes: Any
) -> Release:
    store.commit(REPO, dict(files))
    weights = {"repo": REPO, **changes.pop("weights", {})}
    engine = {"version": ">=0.31,<0.40", **changes}
    spec = ModelSpec.model_validate({"name": "found", "weights": weights, "engine": engine})
    return resolve(spec, hub=hub, registry=registry, suites={})


def paths(release: Release) -> list[str]:
    return [file.path for file in release.weights.files]


def test_the_index_decides(hub: Hub, registry: RegistryClient, store: HubStore) -> None:
    further = {"consolidated.safetensors": bytes(900), "params.json": "{}", "original/model.safetensors": bytes(300)}
    files = {"config.json": "{}", INDEX: index(*SHARDS), **dict.fromkeys(SHARDS, bytes(300)), **further}
    release = pin(hub, registry, store, files)
    assert paths(release) == sorted({"config.json", INDEX, "params.json", *SHARDS})
    with pytest.raises(BadRelease, match=f"{SHARDS[0]} of {INDEX}") as refused:
        pin(hub, registry, store, {path: content for path, content in files.items() if path != SHARDS[0]})
    assert (refused.value.code, refused.value.about) == ("ShardsMissing", SHARDS[0])
    asked = pin(hub, registry, store, files, args=["--load-format=mistral"])
    assert [path for path in paths(asked) if path.endswith(".safetensors")] == ["consolidated.safetensors"]


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ("{", "FileMalformed"),
        ("[" * 200_000, "FileMalformed"),
        ("[]", "IndexMalformed"),
        (b"\xff\xfe\x00", "FileMalformed"),
        ("", "FileMalformed"),
    ],
)
def test_an_index_that_is_none_is_refused(
    hub: Hub, registry: RegistryClient, store: HubStore, content: str | bytes, code: str
) -> None:
    files = {"config.json": "{}", INDEX: content, SHARDS[0]: bytes(9)}
    with pytest.raises(BadRelease, match=re.escape(INDEX)) as refused:
        pin(hub, registry, store, files)
    assert refused.value.code == code


def test_no_more_is_read_than_the_bound(hub: Hub, store: HubStore) -> None:
    commit = store.commit(REPO, {"config.json": json.dumps({"a": "x" * 5000})})
    for size, problem in ((documents.LARGEST + 1, "reads at most"), (4000, "has other than the 4,000 bytes")):
        with pytest.raises(BadRelease, match=problem) as refused:
            hub_client.read_documents(REPO, commit, [HubFile("config.json", size)], endpoint=hub.endpoint)
        assert refused.value.code == "FileMalformed"


def test_code_is_pinned_where_the_engine_runs_it(hub: Hub, registry: RegistryClient, store: HubStore) -> None:
    files = {
        "config.json": "{}",
        "tokenizer_config.json": json.dumps({"auto_map": {"AutoTokenizer": ["tokenization_x.T", None]}}),
        "tokenization_x.py": "class T: ...",
        "tiktoken.model": "x",
        "model.safetensors": bytes(8),
    }
    assert paths(pin(hub, registry, store, files, options={"trust_remote_code": True})) == sorted(files)
    assert paths(pin(hub, registry, store, files)) == sorted(set(files) - {"tokenization_x.py"})


def test_an_adapter_is_told_with_its_base(hub: Hub, registry: RegistryClient, store: HubStore) -> None:
    adapter = {"adapter_config.json": json.dumps({"base_model_name_or_path": "acme/base"}), "README.md": "# LoRA"}
    with pytest.raises(BadRelease, match="adapter of acme/base and no model") as refused:
        pin(hub, registry, store, {**adapter, "adapter_model.safetensors": bytes(64)})
    assert refused.value.code == "AdapterAlone"


def test_weights_without_a_configuration_are_refused(hub: Hub, registry: RegistryClient, store: HubStore) -> None:
    with pytest.raises(BadRelease, match=r"no config\.json") as refused:
        pin(hub, registry, store, {"model.safetensors": bytes(64)})
    assert refused.value.code == "ConfigMissing"


def test_access_is_refused_before_a_document_is_read(registry: RegistryClient, store: HubStore) -> None:
    store.add_token("hf_good")
    store.set_gated(REPO, "hf_good")
    files = {"config.json": "{}", INDEX: index(SHARDS[0]), SHARDS[0]: bytes(9)}
    with in_thread(HubServer(store)) as server:
        with pytest.raises(BadInput) as refused:
            pin(Hub(server.url), registry, store, files)
        assert refused.value.code == "RepositoryGated"
        assert not server.seen("*/resolve/*")
        pin(Hub(server.url, "hf_good"), registry, store, files)
        assert len(server.seen("*/resolve/*")) == 1


def test_a_file_with_pins_has_no_content_and_says_itself_what_is_taken(tmp_path: Path) -> None:
    paths = ["config.json", INDEX, "modeling_x.py", "consolidated.safetensors", *SHARDS]
    entry = {"size": 1, "sha256": "8" * 64}
    content = {"repo": REPO, "commit": "0" * 40, "files": dict.fromkeys(paths, entry)}
    (tmp_path / "pins.json").write_text(json.dumps(content))
    pins = PinsFile(tmp_path / "pins.json")
    listing, loading = pins.list_files(REPO, "0" * 40), hub_client.Loading(remote_code=True)
    needed = hub_client.documents_needed(listing, DEFAULT_INCLUDE, loading=loading)
    documents = pins.read_documents(REPO, "0" * 40, needed)
    chosen = hub_client.select(listing, DEFAULT_INCLUDE, loading=loading, documents=documents)
    assert {file.path for file in chosen} == {"config.json", INDEX, "modeling_x.py", *SHARDS}


def test_an_index_of_twenty_mebibytes_is_read(hub: Hub, registry: RegistryClient, store: HubStore) -> None:
    names = {f"model.layers.{number}.{'x' * 160}": SHARDS[number % 3] for number in range(100_000)}
    text = json.dumps({"weight_map": names})
    assert 20 << 20 < len(text) < documents.LARGEST
    files = {"config.json": "{}", INDEX: text, **dict.fromkeys(SHARDS, bytes(30)), "extra.safetensors": bytes(9)}
    assert paths(pin(hub, registry, store, files)) == sorted({"config.json", INDEX, *SHARDS})


DENSE = [{"path": "2_Dense", "type": "sentence_transformers.models.Dense"}]
BELOW = {"config.json": "{}", "modules.json": json.dumps(DENSE), "model.safetensors": bytes(9)}


@pytest.mark.parametrize(
    "files",
    [
        {"config.json": "{}", INDEX: index(*SHARDS[:2]), **dict.fromkeys(SHARDS[:2], bytes(30))},
        {"config.json": "{}", INDEX: index("a.safetensors"), "a.safetensors": b"1", "b-0-of-9.safetensors": b"2"},
        {**BELOW, "2_Dense/model.safetensors": bytes(8), "other/model.safetensors": bytes(8)},
        {
            "config.json": json.dumps({"architectures": ["JinaEmbeddingsV5Model"]}),
            "model.safetensors": bytes(9),
            "adapters/search/adapter_model.safetensors": bytes(8),
        },
        {"config.json": json.dumps({"auto_map": {"AutoModel": "a.M"}}), "a.py": "1", "model.safetensors": bytes(9)},
        {"params.json": "{}", "consolidated.safetensors": bytes(9), "tekken.json": "{}"},
    ],
    ids=["an index of fewer shards", "odd names", "dense layers", "adapters of the architecture", "code", "Mistral"],
)
def test_a_site_without_a_hub_pins_the_same_release(
    hub: Hub, registry: RegistryClient, store: HubStore, tmp_path: Path, files: dict[str, str | bytes]
) -> None:
    commit = store.commit(REPO, files)
    spec = ModelSpec.model_validate(
        {
            "name": "found",
            "weights": {
                "repo": REPO,
                "revision": commit,
                "strategy": "image",
                "image": {"repository": "docker.io/vllm/vllm-openai", "path": "/model"},
            },
            "engine": {
                "image": "docker.io/vllm/vllm-openai",
                "version": "0.32.0",
                "options": {"trust_remote_code": True},
            },
        }
    )
    release = resolve(spec, hub=hub, registry=registry, suites={})
    listed = {file.path: {"size": file.size, **hashes(file)} for file in release.weights.files}
    (tmp_path / "pins.json").write_text(json.dumps({"repo": REPO, "commit": commit, "files": listed}))
    elsewhere = resolve(spec, hub=PinsFile(tmp_path / "pins.json"), registry=registry, suites={})
    assert (elsewhere, elsewhere.id) == (release, release.id)


def hashes(file: FilePin) -> dict[str, str | None]:
    return {"sha256": file.sha256, "git_sha1": file.git_sha1}
