"""Reading a model's shape from the hub, without its weights."""

from __future__ import annotations

import json
import struct

import pytest
from llmops_sandbox.standins.hub import HubServer, HubStore

from llmops.clients.hub import count_parameters, read_config
from llmops.errors import BadInput, BadRelease

REPO = "acme/shaped"


def safetensors(**tensors: tuple[str, list[int]]) -> bytes:
    """A file of zeros with such tensors."""
    header: dict[str, object] = {}
    end = 0
    widths = {"BF16": 2, "I32": 4}
    for name, (kind, shape) in tensors.items():
        size = widths[kind]
        for length in shape:
            size *= length
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(end)


def test_numbers_are_counted_by_format_over_all_files(server: HubServer, store: HubStore) -> None:
    files = {
        "config.json": '{"model_type": "llama"}',
        "model-00001-of-00002.safetensors": safetensors(a=("BF16", [300, 1000]), b=("I32", [7])),
        "model-00002-of-00002.safetensors": safetensors(c=("BF16", [10])),
    }
    commit = store.commit(REPO, files)
    names = [name for name in files if name.endswith(".safetensors")]
    assert count_parameters(REPO, commit, names, endpoint=server.url) == {"BF16": 300_010, "I32": 7}
    assert read_config(REPO, commit, endpoint=server.url) == {"model_type": "llama"}
    # The client does not fetch the 600 kB of weights.
    ranges = [request.range for request in server.seen() if request.path.endswith(".safetensors")]
    assert ranges
    assert set(ranges) == {"bytes=0-100000"}


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_malformed_configuration_is_the_releases_fault(server: HubServer, store: HubStore, content: str) -> None:
    commit = store.commit(REPO, {"config.json": content, "model.safetensors": safetensors(a=("BF16", [1]))})
    with pytest.raises(BadRelease) as raised:
        read_config(REPO, commit, endpoint=server.url)
    assert (raised.value.code, raised.value.about) == ("FileMalformed", f"config.json of {REPO}@{commit[:12]}")


def test_a_file_without_a_header_is_named(server: HubServer, store: HubStore) -> None:
    commit = store.commit(REPO, {"config.json": "{}", "model.safetensors": b"\xff" * 64})
    with pytest.raises(BadRelease) as raised:
        count_parameters(REPO, commit, ["model.safetensors"], endpoint=server.url)
    assert (raised.value.code, raised.value.about) == ("FileMalformed", f"model.safetensors of {REPO}@{commit[:12]}")


def test_a_missing_file_is_the_releases_fault(server: HubServer, store: HubStore) -> None:
    commit = store.commit(REPO, {"model.safetensors": safetensors(a=("BF16", [1]))})
    with pytest.raises(BadRelease) as raised:
        read_config(REPO, commit, endpoint=server.url)
    assert (raised.value.code, raised.value.about) == ("FileNotFound", f"{REPO}@{commit[:12]}")


def test_a_gated_model_is_read_with_its_token(server: HubServer, store: HubStore) -> None:
    commit = store.commit(REPO, {"config.json": "{}", "model.safetensors": safetensors(a=("BF16", [1]))})
    store.set_gated(REPO, "hf_any")
    with pytest.raises(BadInput) as refused:
        read_config(REPO, commit, endpoint=server.url)
    assert refused.value.code == "RepositoryGated"
    assert read_config(REPO, commit, endpoint=server.url, token="hf_any") == {}


def test_a_file_beside_the_configuration_is_read_in_the_same_way(server: HubServer, store: HubStore) -> None:
    commit = store.commit(
        REPO,
        {
            "config.json": "{}",
            "quant_config.json": '{"w_bit": 4}',
            "hf_quant_config.json": "[]",
            "model.safetensors": safetensors(a=("I32", [1])),
        },
    )
    assert read_config(REPO, commit, "quant_config.json", endpoint=server.url) == {"w_bit": 4}
    with pytest.raises(BadRelease) as raised:
        read_config(REPO, commit, "hf_quant_config.json", endpoint=server.url)
    assert raised.value.about == f"hf_quant_config.json of {REPO}@{commit[:12]}"
