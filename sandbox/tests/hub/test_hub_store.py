from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llmops_sandbox.standins.hub import HubStore
from llmops_sandbox.standins.hub.store import Content

REPO = "acme/tiny"


def test_commit_id_depends_on_content_alone(tmp_path: Path) -> None:
    one, other = HubStore(tmp_path / "one"), HubStore(tmp_path / "other")
    folder = tmp_path / "files"
    (folder / "sub").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "sub" / "model.safetensors").write_bytes(b"abc")
    first = one.commit(REPO, folder, message="first")
    assert first == other.commit("acme/other", {"sub/model.safetensors": b"abc", "config.json": "{}"}, message="first")
    assert len(first) == 40
    assert int(first, 16) >= 0


@settings(max_examples=25, deadline=None)
@given(
    first=st.dictionaries(st.sampled_from(["a.json", "b/c.txt", "m.safetensors"]), st.binary(max_size=20)),
    second=st.dictionaries(st.sampled_from(["a.json", "b/c.txt", "m.safetensors"]), st.binary(max_size=20)),
)
def test_a_commit_moves_the_branch_if_and_only_if_content_changes(
    tmp_path_factory: pytest.TempPathFactory, first: dict[str, Content], second: dict[str, Content]
) -> None:
    store = HubStore(tmp_path_factory.mktemp("hub"))
    before = store.commit(REPO, first)
    after = store.commit(REPO, second)
    assert (before == after) == (first == second)
    assert store.resolve(REPO, "main") == after
    for commit, files in ((before, first), (after, second)):
        assert {
            name: store.file(REPO, commit, name).read_bytes() for name in store.read_commit(REPO, commit).files
        } == files


def test_going_back_is_a_new_commit_and_old_ones_stay(store: HubStore) -> None:
    first = store.commit(REPO, {"a.json": "1"})
    second = store.commit(REPO, {"a.json": "2"})
    third = store.commit(REPO, {"a.json": "1"})
    assert len({first, second, third}) == 3
    assert store.read_commit(REPO, third).parent == second
    assert store.file(REPO, second, "a.json").read_text() == "2"


def test_hashes_are_those_of_git_and_sha256(store: HubStore, tmp_path: Path) -> None:
    commit = store.commit(REPO, {"a.json": "hello\n", "m.safetensors": b"weights", "big.txt": b"x" * 11_000_000})
    files = store.read_commit(REPO, commit).files
    assert files["a.json"].sha256 is None
    assert files["a.json"].blob_id == _git_hash(b"hello\n", tmp_path)
    assert files["big.txt"].sha256 == hashlib.sha256(b"x" * 11_000_000).hexdigest()
    sha256 = hashlib.sha256(b"weights").hexdigest()
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize 7\n".encode()
    assert files["m.safetensors"].sha256 == sha256
    assert files["m.safetensors"].blob_id == _git_hash(pointer, tmp_path)
    assert files["m.safetensors"].pointer_size == len(pointer)


def _git_hash(content: bytes, folder: Path) -> str:
    path = folder / "content"
    path.write_bytes(content)
    done = subprocess.run(["git", "hash-object", "--no-filters", path], capture_output=True, check=True, text=True)
    return done.stdout.strip()


def test_a_large_file_is_linked_and_hashed_once(store: HubStore, tmp_path: Path) -> None:
    source = tmp_path / "model.safetensors"
    source.write_bytes(os.urandom(17 << 20))
    commit = store.commit(REPO, {"model.safetensors": source})
    assert store.file(REPO, commit, "model.safetensors").samefile(source)
    index = store.root / "hashes.json"
    (key, sha256) = next(iter(json.loads(index.read_text()).items()))
    assert sha256 == hashlib.sha256(source.read_bytes()).hexdigest()
    # A planted hash in the index shows that the store trusts it, and does not read the file again.
    index.write_text(json.dumps({key: "0" * 64}))
    other = store.commit("acme/other", {"model.safetensors": source})
    assert store.read_commit("acme/other", other).files["model.safetensors"].sha256 == "0" * 64
    os.utime(source, ns=(1, 1))
    third = store.commit("acme/third", {"model.safetensors": source})
    assert store.read_commit("acme/third", third).files["model.safetensors"].sha256 == sha256


def test_a_small_file_is_safe_from_its_source(store: HubStore, tmp_path: Path) -> None:
    source = tmp_path / "model.safetensors"
    source.write_bytes(b"before")
    commit = store.commit(REPO, {"model.safetensors": source})
    source.write_bytes(b"after!")
    assert store.file(REPO, commit, "model.safetensors").read_bytes() == b"before"


def test_branches_and_tags(store: HubStore) -> None:
    first = store.commit(REPO, {"a.json": "1"})
    store.tag(REPO, "v1")
    second = store.commit(REPO, {"a.json": "2"})
    dev = store.commit(REPO, {"a.json": "3"}, branch="dev")
    assert store.resolve(REPO, "v1") == store.resolve(REPO, "refs/tags/v1") == first
    assert store.resolve(REPO, "main") == store.resolve(REPO, "refs/heads/main") == second
    assert store.resolve(REPO, "dev") == dev
    assert store.resolve(REPO, first) == first
    assert store.resolve(REPO, "0" * 40) is None
    assert store.resolve("acme/none", "main") is None
    with pytest.raises(KeyError, match="no revision nope"):
        store.tag(REPO, "v2", "nope")


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../x"])
def test_a_path_out_of_the_repository_is_refused(store: HubStore, path: str) -> None:
    with pytest.raises(ValueError, match="not a path inside"):
        store.commit(REPO, {path: "x"})
    assert store.resolve(REPO, "main") is None


@pytest.mark.parametrize("repo", ["noowner", "/x", "a/b/c", "../x", "a/.."])
def test_a_repository_is_owner_and_name(store: HubStore, repo: str) -> None:
    with pytest.raises(ValueError, match="OWNER/NAME"):
        store.commit(repo, {"a": "b"})
