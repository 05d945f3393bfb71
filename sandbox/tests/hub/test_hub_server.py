"""The stand-in hub, seen through the real `huggingface_hub` client."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import httpx2
import pytest
from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_download, hf_hub_url, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile, RepoFolder
from llmops_sandbox.standins.hub import HubServer, HubStore
from llmops_sandbox.standins.standin import Fault

REPO = "acme/tiny"
WEIGHTS = Random(0).randbytes(1 << 20)


def api(server: HubServer, token: str | None = None) -> HfApi:
    return HfApi(endpoint=server.url, token=token or False)


def test_model_info(server: HubServer, store: HubStore, commit: str) -> None:
    info = api(server).model_info(REPO, files_metadata=True)
    assert (info.id, info.sha, info.private, info.gated) == (REPO, commit, False, False)
    siblings = {item.rfilename: item for item in info.siblings or ()}
    stored = store.read_commit(REPO, commit).files
    assert set(siblings) == set(stored)
    assert {name: (item.size, item.blob_id) for name, item in siblings.items()} == {
        name: (file.size, file.blob_id) for name, file in stored.items()
    }
    lfs = siblings["model.safetensors"].lfs
    assert lfs
    assert (lfs.sha256, lfs.size) == (stored["model.safetensors"].sha256, len(WEIGHTS))
    assert siblings["config.json"].lfs is None
    plain = api(server).model_info(REPO, revision=commit)
    assert {item.size for item in plain.siblings or ()} == {None}


def test_refs(server: HubServer, store: HubStore, commit: str) -> None:
    store.tag(REPO, "v1")
    dev = store.commit(REPO, {"a.json": "1"}, branch="a/branch")
    refs = api(server).list_repo_refs(REPO, include_pull_requests=True)
    assert {item.name: item.target_commit for item in refs.branches} == {"main": commit, "a/branch": dev}
    assert {item.ref: item.target_commit for item in refs.tags} == {"refs/tags/v1": commit}
    assert refs.pull_requests == []
    # A slash in a revision is escaped in the URL.
    assert api(server).model_info(REPO, revision="a/branch").sha == dev


def test_tree_comes_in_pages(server: HubServer, commit: str) -> None:
    entries = list(api(server).list_repo_tree(REPO, recursive=True, revision=commit))
    files = {item.path: item for item in entries if isinstance(item, RepoFile)}
    folders = {item.path for item in entries if isinstance(item, RepoFolder)}
    assert set(files) == {"README.md", "config.json", "model.safetensors", "sub/folder/a name.json"}
    assert folders == {"sub", "sub/folder"}
    assert len(server.seen("/api/models/acme/tiny/tree/*")) == 3
    lfs = files["model.safetensors"].lfs
    assert lfs
    assert lfs.size == files["model.safetensors"].size == len(WEIGHTS)


def test_tree_of_a_folder(server: HubServer, commit: str) -> None:
    top = {item.path for item in api(server).list_repo_tree(REPO)}
    assert top == {"README.md", "config.json", "model.safetensors", "sub"}
    below = list(api(server).list_repo_tree(REPO, "sub/folder", expand=True))
    assert [item.path for item in below] == ["sub/folder/a name.json"]
    assert below[0].last_commit
    assert below[0].last_commit.oid == commit
    with pytest.raises(RemoteEntryNotFoundError):
        list(api(server).list_repo_tree(REPO, "nowhere"))


def test_paths_info(server: HubServer, commit: str) -> None:
    entries = api(server).get_paths_info(REPO, ["config.json", "sub", "none.txt"], revision=commit)
    assert [(type(item), item.path) for item in entries] == [(RepoFile, "config.json"), (RepoFolder, "sub")]


def test_metadata_of_a_file(server: HubServer, store: HubStore, commit: str) -> None:
    stored = store.read_commit(REPO, commit).files
    for name, etag in (
        ("config.json", stored["config.json"].blob_id),
        ("model.safetensors", stored["model.safetensors"].sha256),
    ):
        metadata = get_hf_file_metadata(hf_hub_url(REPO, name, endpoint=server.url))
        assert (metadata.commit_hash, metadata.etag, metadata.size) == (commit, etag, stored[name].size)
        assert metadata.xet_file_data is None


@pytest.mark.usefixtures("commit")
def test_snapshot_into_a_cache_passes_hf_cache_verify(server: HubServer, tmp_path: Path) -> None:
    """Both commands run as processes against HF_ENDPOINT, as people run them."""
    hf = Path(sys.executable).with_name("hf")
    env = {**os.environ, "HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
    for command in (["download", REPO], ["cache", "verify", REPO, "--fail-on-missing-files"]):
        done = subprocess.run([hf, *command], env=env, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
    blob = next((tmp_path / "home").rglob("blobs/*"))
    blob.write_bytes(b"wrong")
    done = subprocess.run(
        [hf, "cache", "verify", REPO], env=env, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode != 0


def test_snapshot_into_a_folder(server: HubServer, store: HubStore, commit: str, tmp_path: Path) -> None:
    snapshot_download(REPO, endpoint=server.url, local_dir=tmp_path / "out", allow_patterns=["*.json", "*.safetensors"])
    for name in ("config.json", "sub/folder/a name.json", "model.safetensors"):
        assert (tmp_path / "out" / name).read_bytes() == store.file(REPO, commit, name).read_bytes()
    assert not (tmp_path / "out" / "README.md").exists()


@pytest.mark.usefixtures("commit")
def test_ranges(server: HubServer) -> None:
    for path in ("/acme/tiny/resolve/main/model.safetensors", "/acme/tiny/resolve/main/README.md"):
        url = server.url + path
        whole = httpx2.get(url, follow_redirects=True).content
        size = len(whole)
        for requested, expected in (
            ("bytes=0-0", whole[:1]),
            ("bytes=3-", whole[3:]),
            ("bytes=2-5", whole[2:6]),
            ("bytes=-4", whole[-4:]),
            (f"bytes=1-{size * 2}", whole[1:]),
        ):
            answer = httpx2.get(url, headers={"Range": requested}, follow_redirects=True)
            assert (answer.status_code, answer.content) == (206, expected), requested
            start = size - 4 if requested == "bytes=-4" else whole.index(expected) if size < 100 else int(requested[6])
            assert answer.headers["Content-Range"] == f"bytes {start}-{start + len(expected) - 1}/{size}"
        for requested in (f"bytes={size}-", "bytes=5-2", "lines=1-2"):
            answer = httpx2.get(url, headers={"Range": requested}, follow_redirects=True)
            assert answer.status_code == 416
            assert answer.headers["Content-Range"] == f"bytes */{size}"


@pytest.mark.usefixtures("commit")
def test_an_empty_file_is_served(server: HubServer, store: HubStore, tmp_path: Path) -> None:
    store.commit(REPO, {"empty.json": "", "empty.safetensors": b""})
    for name in ("empty.json", "empty.safetensors"):
        path = hf_hub_download(REPO, name, endpoint=server.url, cache_dir=tmp_path / "cache")
        assert Path(path).read_bytes() == b""


@pytest.mark.usefixtures("commit")
def test_what_is_not_there(server: HubServer, store: HubStore, tmp_path: Path) -> None:
    store.add_token("hf_known")
    with pytest.raises(RepositoryNotFoundError) as missing:
        api(server).model_info("acme/none")
    assert missing.value.response.status_code == 401
    with pytest.raises(RepositoryNotFoundError) as missing:
        api(server, "hf_known").model_info("acme/none")
    assert missing.value.response.status_code == 404
    with pytest.raises(RevisionNotFoundError):
        api(server).model_info(REPO, revision="nope")
    with pytest.raises(RemoteEntryNotFoundError):
        hf_hub_download(REPO, "none.json", endpoint=server.url, cache_dir=tmp_path)


@pytest.mark.usefixtures("commit")
def test_tokens(server: HubServer, store: HubStore) -> None:
    store.add_token("hf_known", "ada")
    assert api(server).whoami("hf_known")["name"] == "ada"
    with pytest.raises(HfHubHTTPError, match="Invalid"):
        api(server).whoami("hf_wrong")
    with pytest.raises(HfHubHTTPError, match="Invalid credentials") as wrong:
        api(server, "hf_wrong").model_info(REPO)
    assert not isinstance(wrong.value, RepositoryNotFoundError)


@pytest.mark.usefixtures("commit")
def test_a_gated_repository_shows_its_list_and_keeps_its_files(
    server: HubServer, store: HubStore, tmp_path: Path
) -> None:
    store.set_gated(REPO, "hf_granted")
    store.add_token("hf_other")
    assert api(server).model_info(REPO).gated == "manual"
    for token, status in ((None, 401), ("hf_other", 403)):
        with pytest.raises(GatedRepoError) as refused:
            hf_hub_download(REPO, "config.json", endpoint=server.url, token=token or False, cache_dir=tmp_path)
        assert refused.value.response.status_code == status
        with pytest.raises(GatedRepoError):
            api(server, token).auth_check(REPO)
    api(server, "hf_granted").auth_check(REPO)
    path = hf_hub_download(REPO, "model.safetensors", endpoint=server.url, token="hf_granted", cache_dir=tmp_path)
    assert Path(path).read_bytes() == WEIGHTS
    # The token goes to the hub, not to the origin of the bytes.
    assert {item.authorization for item in server.seen("/cdn/*")} == {False}


@pytest.mark.usefixtures("commit")
def test_a_private_repository_does_not_exist_for_others(server: HubServer, store: HubStore) -> None:
    store.set_private(REPO, "hf_mine")
    store.add_token("hf_other")
    for token in (None, "hf_other"):
        with pytest.raises(RepositoryNotFoundError):
            api(server, token).model_info(REPO)
    assert api(server, "hf_mine").model_info(REPO).private
    store.set_public(REPO)
    assert not api(server).model_info(REPO).private


def test_a_cut_connection_is_resumed(server: HubServer, store: HubStore, tmp_path: Path) -> None:
    """The client writes 10 MiB at a time: a cut connection loses the bytes beyond a multiple of that."""
    content = os.urandom(24 << 20)
    store.commit(REPO, {"model.safetensors": content})
    server.faults.set(Fault(path="/cdn/*", method="GET", cut_after=11 << 20))
    path = hf_hub_download(REPO, "model.safetensors", endpoint=server.url, local_dir=tmp_path / "out")
    assert Path(path).read_bytes() == content
    seen = [(item.status, item.range) for item in server.seen("/cdn/*", "GET")]
    assert seen == [(200, ""), (206, f"bytes={10 << 20}-"), (206, f"bytes={20 << 20}-")]
    # The server closes the connection at once, so that the client does not wait for the rest.
    with pytest.raises(httpx2.RemoteProtocolError):
        httpx2.get(f"{server.url}/acme/tiny/resolve/main/model.safetensors", follow_redirects=True, timeout=60)


@pytest.mark.usefixtures("commit")
def test_one_bit_is_wrong_and_the_size_right(server: HubServer, tmp_path: Path) -> None:
    bit = 500_000 * 8 + 3
    server.faults.set(Fault(path="*.safetensors", flip_bit=bit))
    path = hf_hub_download(REPO, "model.safetensors", endpoint=server.url, local_dir=tmp_path / "out")
    wrong = int.from_bytes(Path(path).read_bytes(), "little") ^ int.from_bytes(WEIGHTS, "little")
    assert wrong == 1 << bit
    # The bit counts from the file's start: a range after it is right, a range over it is wrong.
    url = f"{server.url}/acme/tiny/resolve/main/model.safetensors"
    for start, same in ((500_001, True), (499_999, False)):
        got = httpx2.get(url, headers={"Range": f"bytes={start}-"}, follow_redirects=True).content
        assert (got == WEIGHTS[start:]) is same


@pytest.mark.usefixtures("commit")
def test_too_many_requests_are_waited_for_by_the_client(server: HubServer, tmp_path: Path) -> None:
    server.faults.set(Fault(path="/cdn/*", times=1, status=429, retry_after=0))
    hf_hub_download(REPO, "model.safetensors", endpoint=server.url, local_dir=tmp_path / "out")
    assert [item.status for item in server.seen("/cdn/*")] == [429, 200]


@pytest.mark.usefixtures("commit")
def test_an_error_of_the_server(server: HubServer, tmp_path: Path) -> None:
    server.faults.set(Fault(path="/api/*", status=503, message="down for maintenance"))
    with pytest.raises(HfHubHTTPError, match="down for maintenance") as failed:
        api(server).model_info(REPO)
    assert failed.value.response.status_code == 503
    server.faults.set(Fault(path="*/resolve/*", status=403, code="GatedRepo"))
    with pytest.raises(GatedRepoError):
        hf_hub_download(REPO, "config.json", endpoint=server.url, cache_dir=tmp_path)
    # Without a local copy, the client retries.
    server.faults.set(Fault(path="*/resolve/*", status=500, times=2))
    hf_hub_download(REPO, "config.json", endpoint=server.url, cache_dir=tmp_path)
    assert [item.status for item in server.seen("*/resolve/*")] == [403, 500, 500, 200, 200]


@pytest.mark.usefixtures("commit")
def test_slow_answers(server: HubServer) -> None:
    url = f"{server.url}/acme/tiny/resolve/main/model.safetensors"
    server.faults.set(Fault(path="/api/*", delay=0.3), Fault(path="/cdn/*", bytes_per_second=2_000_000))
    started = time.monotonic()
    httpx2.get(f"{server.url}/api/models/{REPO}")
    assert time.monotonic() - started >= 0.3
    started = time.monotonic()
    assert httpx2.get(url, follow_redirects=True).content == WEIGHTS
    assert time.monotonic() - started > 0.4


def test_clients_that_go_away_are_no_error(
    server: HubServer, store: HubStore, caplog: pytest.LogCaptureFixture
) -> None:
    store.commit(REPO, {"model.safetensors": os.urandom(24 << 20)})
    url = f"{server.url}/acme/tiny/resolve/main/model.safetensors"
    for fault in ((), (Fault(path="/cdn/*", bytes_per_second=20_000_000),)):
        server.faults.set(*fault)
        for _ in range(3):
            with httpx2.stream("GET", url, follow_redirects=True) as answer:
                next(answer.iter_raw())
    deadline = time.monotonic() + 10
    while len(server.seen("/cdn/*")) < 6:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert [record.message for record in caplog.records if record.name.startswith("aiohttp")] == []
    assert {item.status for item in server.seen("/cdn/*")} == {200}


@pytest.mark.usefixtures("commit")
def test_a_hub_in_a_process_of_its_own(store: HubStore, tmp_path: Path) -> None:
    ready = tmp_path / "ready.json"
    command = [sys.executable, "-m", "llmops_sandbox.standins.hub", "--root", store.root, "--ready-file", ready]
    process = subprocess.Popen(command)
    try:
        deadline = time.monotonic() + 30
        while not ready.exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        url = json.loads(ready.read_text())["url"]
        _steer(url)
        process.terminate()
        assert process.wait(timeout=10) == 0
    finally:
        process.kill()
        process.wait()


def _steer(url: str) -> None:
    """Faults and counters over HTTP, as with curl."""
    admin = f"{url}/_sandbox"
    fault = {"path": "/api/*", "times": 2, "status": 500}
    assert httpx2.put(f"{admin}/faults", json=[fault]).json() == [fault]
    assert httpx2.get(f"{url}/api/models/{REPO}").status_code == 500
    assert httpx2.get(f"{admin}/faults").json() == [{**fault, "times": 1}]
    assert httpx2.delete(f"{admin}/faults").json() == []
    assert httpx2.get(f"{url}/api/models/{REPO}").status_code == 200
    assert httpx2.put(f"{admin}/faults", json=[{"pth": "*"}]).status_code == 422
    seen = httpx2.get(f"{admin}/requests").json()
    assert seen["counts"] == {f"GET /api/models/{REPO}": 2}
    assert [item["status"] for item in seen["requests"]] == [500, 200]
    assert httpx2.delete(f"{admin}/requests").json()["requests"] == []
