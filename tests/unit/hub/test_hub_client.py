"""The client of the hub, and the codes of its errors."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from llmops_sandbox.standins.hub import HubServer, HubStore
from llmops_sandbox.standins.standin import Fault

from llmops.clients.hub import RateLimited, check_access, list_files, resolve, whoami
from llmops.clients.hub.content import read_content
from llmops.clients.hub.files import HubFile
from llmops.clients.retries import Patience
from llmops.errors import BadInput, Unavailable

REPO = "acme/tiny"


def test_resolve(server: HubServer, store: HubStore, commit: str) -> None:
    store.tag(REPO, "v1")
    newer = store.commit(REPO, {"model.safetensors": b"newer"})
    assert resolve(REPO, "v1", endpoint=server.url) == commit
    assert resolve(REPO, commit, endpoint=server.url) == commit
    assert resolve(REPO, "main", endpoint=server.url) == newer


def test_list_files(server: HubServer, store: HubStore, commit: str) -> None:
    files = list_files(REPO, commit, endpoint=server.url)
    stored = store.read_commit(REPO, commit).files
    assert files == tuple(
        HubFile(name, item.size, sha256=item.sha256, git_sha1=None if item.sha256 else item.blob_id)
        for name, item in sorted(stored.items())
    )
    assert len(server.seen()) == 1


@pytest.mark.usefixtures("commit")
def test_no_token_comes_from_the_environment(server: HubServer, monkeypatch: pytest.MonkeyPatch, commit: str) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_of_someone_else")
    resolve(REPO, "main", endpoint=server.url)
    list_files(REPO, commit, endpoint=server.url)
    assert {item.authorization for item in server.seen()} == {False}


@pytest.mark.usefixtures("commit")
@pytest.mark.parametrize(
    ("repo", "revision", "code", "about"),
    [
        ("acme/none", "main", "RepositoryNotFound", "acme/none"),
        (REPO, "nope", "RevisionNotFound", f"{REPO}@nope"),
        (REPO, "0" * 40, "RevisionNotFound", f"{REPO}@{'0' * 40}"),
        ("a--b/..", "main", "InvalidRepositoryName", "a--b/..@main"),
    ],
)
def test_a_wrong_repository_or_revision_is_bad_input(
    server: HubServer, once: Patience, repo: str, revision: str, code: str, about: str
) -> None:
    with pytest.raises(BadInput) as refused:
        resolve(repo, revision, endpoint=server.url, patience=once)
    assert (refused.value.code, refused.value.about) == (code, about)


@pytest.mark.usefixtures("commit")
def test_access_is_refused_with_the_way_to_get_it(server: HubServer, store: HubStore, once: Patience) -> None:
    store.set_gated(REPO, "hf_granted")
    store.add_token("hf_other")
    page = f"{server.url}/{REPO}"
    for token, code, quoted in (
        (None, "RepositoryGated", page),
        ("hf_other", "AccessNotGranted", page),
        ("hf_wrong", "CredentialsRefused", "Invalid credentials"),
    ):
        with pytest.raises(BadInput) as refused:
            check_access(REPO, endpoint=server.url, token=token, patience=once)
        assert (refused.value.code, refused.value.about) == (code, REPO)
        assert quoted in str(refused.value)
        assert "weights.token" in refused.value.remedy
        assert token is None or token not in str(refused.value)
    check_access(REPO, endpoint=server.url, token="hf_granted", patience=once)
    # The list of a gated repository is open to all, so that a release can be pinned without a token.
    resolve(REPO, "main", endpoint=server.url, patience=once)


@pytest.mark.parametrize("status", [401, 403, 404])
@pytest.mark.parametrize("token", [None, "hf_granted"])
def test_what_the_storage_refuses_says_nothing_of_token_and_files(
    store: HubStore, server: HubServer, once: Patience, status: int, token: str | None
) -> None:
    store.add_token("hf_granted", "ada")
    index = b'{"weight_map": {"a": "model.safetensors"}}'.ljust(1 << 20)
    commit = store.commit(REPO, {"model.safetensors": index})
    server.faults.set(Fault.model_validate({"path": "/cdn/*", "status": status}))
    with pytest.raises(Unavailable) as refused:
        read_content(REPO, commit, "model.safetensors", 1 << 21, endpoint=server.url, token=token, patience=once)
    assert refused.value.code == "StorageRefused"
    assert "127.0.0.1" in refused.value.remedy


@pytest.mark.usefixtures("commit")
def test_a_private_repository_needs_its_token(server: HubServer, store: HubStore, once: Patience) -> None:
    store.set_private(REPO, "hf_mine")
    store.add_token("hf_other")
    for token in (None, "hf_other"):
        with pytest.raises(BadInput) as refused:
            resolve(REPO, "main", endpoint=server.url, token=token, patience=once)
        assert (refused.value.code, refused.value.about) == ("RepositoryNotFound", REPO)
        assert "weights.token" in refused.value.remedy
    resolve(REPO, "main", endpoint=server.url, token="hf_mine", patience=once)


def test_a_short_outage_is_retried(server: HubServer, commit: str) -> None:
    server.faults.set(Fault(path="/api/*", times=2, status=502))
    assert resolve(REPO, "main", endpoint=server.url) == commit
    assert [item.status for item in server.seen()] == [502, 502, 200]


@pytest.mark.usefixtures("commit")
def test_a_long_outage_is_reported(server: HubServer) -> None:
    server.faults.set(Fault(path="/api/*", status=500, message="on fire"))
    with pytest.raises(Unavailable, match=r"500.*on fire") as raised:
        resolve(REPO, "main", endpoint=server.url, patience=Patience(attempts=3, longest_wait=0.05))
    assert (raised.value.code, raised.value.about) == ("HubFailed", "acme/tiny@main")
    assert len(server.seen()) == 3


def test_retry_after_is_honoured(server: HubServer, commit: str) -> None:
    server.faults.set(Fault(path="/api/*", times=1, status=429, retry_after=1))
    started = time.monotonic()
    assert resolve(REPO, "main", endpoint=server.url) == commit
    assert time.monotonic() - started >= 1


@pytest.mark.usefixtures("commit")
def test_a_long_retry_after_goes_to_the_caller(server: HubServer) -> None:
    server.faults.set(Fault(path="/api/*", status=429, retry_after=300))
    with pytest.raises(RateLimited) as refused:
        resolve(REPO, "main", endpoint=server.url)
    assert refused.value.retry_after == 300
    assert len(server.seen()) == 1


def test_nobody_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(Unavailable) as raised:
            resolve(REPO, "main", endpoint=endpoint, patience=Patience(attempts=2, longest_wait=0.05))
    assert (raised.value.code, raised.value.about) == ("HubUnreachable", "acme/tiny@main")


@pytest.mark.parametrize("endpoint", ["localhost:80", "ftp://hub"])
def test_an_endpoint_that_is_not_a_url(endpoint: str, once: Patience) -> None:
    with pytest.raises(BadInput) as refused:
        resolve(REPO, "main", endpoint=endpoint, patience=once)
    assert (refused.value.code, refused.value.about) == ("InvalidUrl", "hub_endpoint")


def test_something_else_listens(tmp_path: Path, once: Patience) -> None:
    page = tmp_path / "api/models/acme/tiny/revision/main"
    page.parent.mkdir(parents=True)
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        endpoint = f"http://127.0.0.1:{server.server_port}"
        for content in ("<html>Welcome to our network</html>", '{"hello": "world"}'):
            page.write_text(content)
            with pytest.raises(Unavailable) as raised:
                resolve(REPO, "main", endpoint=endpoint, patience=once)
            assert (raised.value.code, raised.value.about) == ("HubUnreachable", "acme/tiny@main")
        server.shutdown()


def test_the_first_request_imports_the_library() -> None:
    code = (
        "import sys, llmops.clients.hub, llmops.clients.registry;"
        "sys.exit(','.join({'huggingface_hub', 'httpx2'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_account_of_a_token(server: HubServer, store: HubStore, once: Patience) -> None:
    store.add_token("hf_known", "ada")
    assert whoami(endpoint=server.url, token="hf_known") == "ada"
    with pytest.raises(BadInput) as refused:
        whoami(endpoint=server.url, token="hf_wrong")
    assert refused.value.code == "CredentialsRefused"
    server.faults.set(Fault(path="/api/*", status=429, retry_after=60))
    with pytest.raises(RateLimited) as limited:
        whoami(endpoint=server.url, token="hf_known", patience=once)
    assert limited.value.retry_after == 60
