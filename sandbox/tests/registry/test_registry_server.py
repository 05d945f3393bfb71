"""The stand-in registry follows the distribution specification, over plain HTTP."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from pathlib import Path

import httpx2
import pytest
from llmops_sandbox.standins.images import ImageStore
from llmops_sandbox.standins.registry import RegistryServer
from llmops_sandbox.standins.standin import in_thread

from llmops.clients.registry.auth import challenges

BASE = "/v2/vllm/vllm-openai"


@pytest.fixture
def token(server: RegistryServer) -> dict[str, str]:
    (challenge,) = challenges([httpx2.get(f"{server.url}{BASE}/tags/list").headers["WWW-Authenticate"]])
    assert challenge.scope == "repository:vllm/vllm-openai:pull"
    answer = httpx2.get(challenge.realm, params={"service": challenge.service, "scope": challenge.scope}).json()
    assert answer["expires_in"] == 60
    return {"Authorization": f"Bearer {answer['token']}"}


def test_everything_wants_a_token(server: RegistryServer, token: dict[str, str]) -> None:
    for path in ("/v2/", f"{BASE}/tags/list", f"{BASE}/manifests/latest", f"{BASE}/blobs/sha256:0"):
        refused = httpx2.get(server.url + path)
        assert refused.status_code == 401
        assert refused.json()["errors"][0]["code"] == "UNAUTHORIZED"
    assert httpx2.get(f"{server.url}/v2/", headers=token).status_code == 200
    other = httpx2.get(f"{server.url}/v2/acme/worker/tags/list", headers=token)
    assert other.status_code == 401
    assert 'error="insufficient_scope"' in other.headers["WWW-Authenticate"]


def test_a_token_expires(images: ImageStore) -> None:
    with in_thread(RegistryServer(images, token_seconds=0)) as server:
        scope = {"service": "llmops-sandbox", "scope": "repository:vllm/vllm-openai:pull"}
        expired = httpx2.get(f"{server.url}/token", params=scope).json()["token"]
        answer = httpx2.get(f"{server.url}{BASE}/tags/list", headers={"Authorization": f"Bearer {expired}"})
        assert answer.status_code == 401


def test_pages_are_in_lexical_order(server: RegistryServer, token: dict[str, str], images: ImageStore) -> None:
    expected = sorted(image.tag for image in images.all() if "vllm" in image.repository)
    url, tags, pages = f"{server.url}{BASE}/tags/list?n=2", list[str](), 0
    while url:
        answer = httpx2.get(url, headers=token)
        tags += answer.json()["tags"]
        pages += 1
        assert len(answer.json()["tags"]) <= 2
        following = answer.links.get("next", {}).get("url", "")
        url = str(httpx2.URL(url).join(following)) if following else ""
    assert (tags, pages) == (expected, 4)
    last = httpx2.get(f"{server.url}{BASE}/tags/list", params={"last": expected[-2]}, headers=token)
    assert (last.json()["tags"], "Link" in last.headers) == (expected[-1:], False)


def test_an_unchanged_page_is_not_sent_again(server: RegistryServer, token: dict[str, str], images: ImageStore) -> None:
    url = f"{server.url}{BASE}/tags/list"
    etag = httpx2.get(url, headers=token).headers["ETag"]
    tail = {"last": "v0.33.0"}
    tail_etag = httpx2.get(url, params=tail, headers=token).headers["ETag"]
    again = httpx2.get(url, headers={**token, "If-None-Match": etag})
    assert (again.status_code, again.content) == (304, b"")
    images.add("vllm/vllm-openai", "v0.34.0", ("engine",))
    # The new tag is on another page: the first one is unchanged.
    assert httpx2.get(url, headers={**token, "If-None-Match": etag}).status_code == 304
    changed = httpx2.get(url, params=tail, headers={**token, "If-None-Match": tail_etag})
    assert changed.status_code == 200
    assert changed.headers["ETag"] != tail_etag


def test_manifests_and_blobs_are_what_their_digests_say(server: RegistryServer, token: dict[str, str]) -> None:
    by_tag = httpx2.get(f"{server.url}{BASE}/manifests/v0.32.0", headers=token)
    digest = by_tag.headers["Docker-Content-Digest"]
    assert digest == f"sha256:{hashlib.sha256(by_tag.content).hexdigest()}"
    head = httpx2.head(f"{server.url}{BASE}/manifests/v0.32.0", headers=token)
    assert head.content == b""
    for name in ("Docker-Content-Digest", "Content-Type", "Content-Length", "RateLimit-Remaining"):
        assert head.headers[name] == by_tag.headers[name]
    assert httpx2.get(f"{server.url}{BASE}/manifests/{digest}", headers=token).content == by_tag.content
    config = by_tag.json()["config"]
    blob = httpx2.get(f"{server.url}{BASE}/blobs/{config['digest']}", headers=token)
    assert f"sha256:{hashlib.sha256(blob.content).hexdigest()}" == config["digest"]
    assert (len(blob.content), blob.headers["Content-Type"]) == (config["size"], config["mediaType"])


def test_a_moved_tag_leaves_its_digest(server: RegistryServer, token: dict[str, str], images: ImageStore) -> None:
    url = f"{server.url}{BASE}/manifests"
    before = httpx2.head(f"{url}/latest", headers=token).headers["Docker-Content-Digest"]
    images.add("vllm/vllm-openai", "latest", ("engine", "newer"))
    assert httpx2.head(f"{url}/latest", headers=token).headers["Docker-Content-Digest"] != before
    assert httpx2.head(f"{url}/{before}", headers=token).status_code == 200


def test_what_is_not_there(server: RegistryServer, token: dict[str, str]) -> None:
    for path, code in (
        (f"{BASE}/manifests/none", "MANIFEST_UNKNOWN"),
        (f"{BASE}/manifests/sha256:{'0' * 64}", "MANIFEST_UNKNOWN"),
        (f"{BASE}/blobs/sha256:{'0' * 64}", "BLOB_UNKNOWN"),
    ):
        answer = httpx2.get(server.url + path, headers=token)
        assert (answer.status_code, answer.json()["errors"][0]["code"]) == (404, code)
    old = {**token, "Accept": "application/vnd.docker.distribution.manifest.v2+json"}
    assert httpx2.get(f"{server.url}{BASE}/manifests/latest", headers=old).status_code == 404
    scope = {"service": "llmops-sandbox", "scope": "repository:acme/none:pull"}
    other = {"Authorization": f"Bearer {httpx2.get(f'{server.url}/token', params=scope).json()['token']}"}
    for path in ("tags/list", "manifests/latest"):
        answer = httpx2.get(f"{server.url}/v2/acme/none/{path}", headers=other)
        assert (answer.status_code, answer.json()["errors"][0]["code"]) == (404, "NAME_UNKNOWN")


def test_wrong_credentials_get_no_token(server: RegistryServer) -> None:
    for header in ("Basic !!!", "Basic YWRhOndyb25n", "Basic eDp5", "Bearer x"):
        answer = httpx2.get(
            f"{server.url}/token", params={"service": "llmops-sandbox"}, headers={"Authorization": header}
        )
        assert answer.status_code == 401, header


def test_a_registry_in_a_process_of_its_own(images: ImageStore, tmp_path: Path) -> None:
    ready = tmp_path / "ready.json"
    command = [sys.executable, "-m", "llmops_sandbox.standins.registry", "--images", images.path, "--ready-file", ready]
    process = subprocess.Popen(command)
    try:
        deadline = time.monotonic() + 30
        while not ready.exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert httpx2.get(json.loads(ready.read_text())["url"] + "/v2/").status_code == 401
        process.terminate()
        assert process.wait(timeout=10) == 0
    finally:
        process.kill()
        process.wait()
