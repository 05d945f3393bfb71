"""The client of a registry, over HTTP, and the codes of its errors."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from llmops_sandbox.standins.images import ImageStore
from llmops_sandbox.standins.registry import RegistryServer
from llmops_sandbox.standins.standin import Fault, in_thread

from llmops.clients.registry import Credentials, ImageName, RegistryClient, resolve_image
from llmops.clients.registry.auth import Challenge
from llmops.clients.retries import Patience
from llmops.errors import BadInput, BadRelease, Unavailable

VLLM = ImageName.parse("vllm/vllm-openai")
WORKER = ImageName.parse("ghcr.io/acme/worker")


@pytest.fixture
def client(mirrors: dict[str, str], once: Patience) -> Generator[RegistryClient]:
    with RegistryClient(mirrors, patience=once) as opened:
        yield opened


def digest_of(images: ImageStore, reference: str) -> str:
    image = images.resolve(reference)
    assert image
    return image.digest


def test_tags_come_from_all_pages(client: RegistryClient, server: RegistryServer, images: ImageStore) -> None:
    expected = sorted(image.tag for image in images.all() if "vllm" in image.repository)
    assert client.tags(VLLM) == expected
    assert len(server.seen("/v2/*/tags/list")) == 1 + 3  # one 401, then three pages of three
    # One token serves all pages, and the next request.
    client.tags(VLLM)
    client.digest(VLLM, "latest")
    assert len(server.seen("/token")) == 1


def test_digest_is_asked_for_by_head(client: RegistryClient, server: RegistryServer, images: ImageStore) -> None:
    before = digest_of(images, f"{VLLM}:latest")
    assert client.digest(VLLM, "latest") == before
    images.add(str(VLLM), "latest", ("engine", "newer"))
    after = client.digest(VLLM, "latest")
    assert after == digest_of(images, f"{VLLM}:latest") != before
    assert client.find(VLLM, before) == before
    assert {item.method for item in server.seen("/v2/*")} == {"HEAD"}


def test_a_token_is_renewed_when_it_expires(images: ImageStore, once: Patience) -> None:
    # The client does not use a token in its last seconds, so this one is never used twice.
    with (
        in_thread(RegistryServer(images, token_seconds=1)) as server,
        RegistryClient({"docker.io": server.url}, patience=once) as client,
    ):
        for _ in range(2):
            client.digest(VLLM, "latest")
        assert len(server.seen("/token")) == 2


def test_a_token_that_is_no_longer_accepted_is_renewed(client: RegistryClient, server: RegistryServer) -> None:
    client.digest(VLLM, "latest")
    server.faults.set(Fault(path="/v2/*", times=1, status=401))
    with pytest.raises(BadInput):
        client.digest(VLLM, "latest")  # this 401 names no token service
    server.forget_tokens()
    client.digest(VLLM, "latest")
    assert len(server.seen("/token")) == 2


def test_a_missing_image_or_tag_is_not_found(client: RegistryClient) -> None:
    with pytest.raises(BadRelease) as raised:
        client.digest(VLLM, "v9.9.9")
    assert (raised.value.code, raised.value.about) == ("ImageNotFound", f"{VLLM}:v9.9.9")
    with pytest.raises(BadRelease) as raised:
        client.tags(ImageName.parse("vllm/none"))
    assert (raised.value.code, raised.value.about) == ("ImageNotFound", "docker.io/vllm/none")
    assert client.find(VLLM, "v9.9.9") is None


def test_credentials(mirrors: dict[str, str], once: Patience, client: RegistryClient, images: ImageStore) -> None:
    with pytest.raises(BadInput) as refused:
        client.digest(WORKER, "0.1.0")
    assert (refused.value.code, refused.value.about) == ("CredentialsMissing", f"{WORKER}:0.1.0")
    with (
        RegistryClient(mirrors, {"ghcr.io": Credentials("ada", "wrong")}, once) as wrong,
        pytest.raises(BadInput, match="incorrect username") as refused,
    ):
        wrong.digest(WORKER, "0.1.0")
    assert (refused.value.code, refused.value.about) == ("CredentialsRefused", f"{WORKER}:0.1.0")
    assert "wrong" not in str(refused.value)
    with RegistryClient(mirrors, {"ghcr.io": Credentials("ada", "secret")}, once) as right:
        assert right.digest(WORKER, "0.1.0") == digest_of(images, f"{WORKER}:0.1.0")
        assert right.tags(WORKER) == ["0.1.0"]


def test_credentials_stay_with_their_registry(mirrors: dict[str, str], server: RegistryServer, once: Patience) -> None:
    with RegistryClient(mirrors, {"ghcr.io": Credentials("ada", "secret")}, once) as client:
        client.digest(VLLM, "latest")
    assert [item.authorization for item in server.seen("/token")] == [False]
    assert "secret" not in repr(Credentials("ada", "secret"))


def test_a_short_outage_is_retried(mirrors: dict[str, str], server: RegistryServer) -> None:
    server.faults.set(Fault(path="/v2/*", times=1, status=503), Fault(path="/token", times=1, status=500))
    with RegistryClient(mirrors) as client:
        assert client.digest(VLLM, "latest")
    assert [item.status for item in server.seen()] == [503, 401, 500, 401, 200, 200]


def test_too_many_requests(mirrors: dict[str, str], server: RegistryServer) -> None:
    server.faults.set(Fault(path="/v2/*", times=1, status=429, retry_after=0.5))
    with RegistryClient(mirrors) as client:
        started = time.monotonic()
        client.digest(VLLM, "latest")
        assert time.monotonic() - started >= 0.5
        server.faults.set(Fault(path="/v2/*", status=429, code="TOOMANYREQUESTS", message="slow down", retry_after=600))
        with pytest.raises(Unavailable, match="TOOMANYREQUESTS slow down") as refused:
            client.tags(VLLM)
    assert (refused.value.code, refused.value.about) == ("RateLimited", str(VLLM))
    assert refused.value.retry_after == 600


def test_a_long_outage_is_reported(mirrors: dict[str, str], server: RegistryServer) -> None:
    server.faults.set(Fault(status=500, code="UNKNOWN", message="on fire"))
    with (
        RegistryClient(mirrors, patience=Patience(attempts=3, longest_wait=0.05)) as client,
        pytest.raises(Unavailable, match=r"500 \(UNKNOWN on fire\)") as raised,
    ):
        client.tags(VLLM)
    assert (raised.value.code, raised.value.about) == ("RegistryFailed", str(VLLM))
    assert len(server.seen()) == 3


def test_nobody_listens(once: Patience) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        # Without a mirror, the client asks a registry on this machine in plain HTTP.
        with (
            RegistryClient({}, patience=once) as client,
            pytest.raises(Unavailable, match=f"http://{address}/") as raised,
        ):
            client.digest(ImageName.parse(f"{address}/x"), "latest")
    assert (raised.value.code, raised.value.about) == ("RegistryUnreachable", f"{address}/x:latest")


def test_something_else_listens(tmp_path: Path, once: Patience) -> None:
    (tmp_path / "v2/x/tags").mkdir(parents=True)
    (tmp_path / "v2/x/manifests").mkdir()
    (tmp_path / "v2/x/manifests/latest").write_text("hello")
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        image = ImageName.parse(f"localhost:{server.server_port}/x")
        with RegistryClient({image.registry: f"http://127.0.0.1:{server.server_port}/"}, patience=once) as client:
            with pytest.raises(Unavailable) as raised:
                client.digest(image, "latest")
            assert (raised.value.code, raised.value.about) == ("MalformedAnswer", str(image))
            for content in ("hello", "[]", '{"tags": 5}', "{}"):
                (tmp_path / "v2/x/tags/list").write_text(content)
                with pytest.raises(Unavailable) as raised:
                    client.tags(image)
                assert (raised.value.code, raised.value.about) == ("MalformedAnswer", str(image))
            (tmp_path / "v2/x/tags/list").write_text('{"name": "x", "tags": null}')
            assert client.tags(image) == []
        server.shutdown()


def test_a_mirror_that_is_not_a_url(once: Patience) -> None:
    with (
        RegistryClient({"docker.io": "mirror:5000"}, patience=once) as client,
        pytest.raises(BadInput, match="mirror:5000") as refused,
    ):
        client.digest(VLLM, "latest")
    assert (refused.value.code, refused.value.about) == ("InvalidUrl", f"{VLLM}:latest")


@pytest.mark.parametrize(
    ("specifier", "variant", "tag", "methods"),
    [
        ("==0.32.0", "", "v0.32.0", {"HEAD"}),
        ("==0.32.0", "cu130", "v0.32.0-cu130", {"HEAD"}),
        (">=0.31,<0.40", "", "v0.32.0", {"GET", "HEAD"}),
        (">=0.31", "x86_64", "v0.32.1-x86_64", {"GET", "HEAD"}),
    ],
)
def test_resolve_image(
    client: RegistryClient,
    server: RegistryServer,
    images: ImageStore,
    specifier: str,
    variant: str,
    tag: str,
    methods: set[str],
) -> None:
    image = resolve_image(client, "vllm/vllm-openai", specifier, variant)
    assert (image.tag, image.digest) == (tag, digest_of(images, f"{VLLM}:{tag}"))
    assert {item.method for item in server.seen("/v2/*")} == methods


def test_resolve_image_tries_the_version_without_v(client: RegistryClient, images: ImageStore) -> None:
    images.add("acme/plain", "1.2.3", ("x",))
    assert resolve_image(client, "acme/plain", "==1.2.3").tag == "1.2.3"


@pytest.mark.parametrize(
    ("specifier", "variant", "tag"),
    [
        ("==25.09", "py3", "25.09-py3"),
        ("==0.4.0rc2", "", "v0.4.0-rc.2"),
        ("==2026.04.01", "", "2026.04.01"),
        ("==1.7.0b3", "rocm", "1.7.0-beta.3-rocm"),
        ("==26.02", "", "v26.02"),
    ],
)
def test_a_pinned_version_has_the_spelling_of_the_registry(
    client: RegistryClient, images: ImageStore, specifier: str, variant: str, tag: str
) -> None:
    images.add("acme/spelled", tag, ("x",))
    images.add("acme/spelled", "25.10-py3", ("y",))
    image = resolve_image(client, "acme/spelled", specifier, variant)
    assert (image.tag, image.digest) == (tag, digest_of(images, f"docker.io/acme/spelled:{tag}"))


def test_an_error_of_resolve_image_names_the_tags_of_the_image(client: RegistryClient) -> None:
    with pytest.raises(BadRelease, match=r"v9\.9\.9 or 9\.9\.9") as raised:
        resolve_image(client, "vllm/vllm-openai", "==9.9.9")
    assert (raised.value.code, raised.value.about) == ("ImageNotFound", f"{VLLM}:v9.9.9")
    with pytest.raises(BadRelease, match=r">=0\.40.* v0\.33\.0rc1, v0\.32\.0, v0\.31\.0") as raised:
        resolve_image(client, "vllm/vllm-openai", ">=0.40")
    assert (raised.value.code, raised.value.about) == ("NoMatchingVersion", str(VLLM))
    with pytest.raises(BadRelease, match=r"rocm.* v0\.33\.0rc1, v0\.32\.1-x86_64") as raised:
        resolve_image(client, "vllm/vllm-openai", ">=0.30", "rocm")
    assert (raised.value.code, raised.value.about) == ("NoMatchingVersion", str(VLLM))


def test_a_password_is_not_sent_in_plain_text() -> None:
    plain, tls = Challenge("bearer", "http://auth/token"), Challenge("bearer", "https://auth/token")
    assert plain.exposes_password("https://registry/v2/")
    assert not plain.exposes_password("http://127.0.0.1:5000/v2/")
    assert not tls.exposes_password("https://registry/v2/")


class Strange(BaseHTTPRequestHandler):
    """A registry that takes a password for each request, and whose pages lead in a circle or away."""

    def do_GET(self) -> None:
        if self.headers["Authorization"] != Credentials("ada", "secret").header():
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="Registry"')
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = b'{"name": "x", "tags": ["1.0"]}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        if "/circle/" in self.path:
            self.send_header("Link", f'<{self.path}>; rel="next"')
        elif "/away/" in self.path:
            self.send_header("Link", '<http://127.0.0.2:1/v2/away/tags/list>; rel="next"')
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def strange() -> Generator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Strange) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_registry_that_wants_the_password_itself(strange: str, once: Patience) -> None:
    image = ImageName.parse(f"{strange}/x")
    with RegistryClient({}, {strange: Credentials("ada", "secret")}, once) as client:
        assert client.tags(image) == ["1.0"]
    for credentials, code in (
        ({}, "CredentialsMissing"),
        ({strange: Credentials("ada", "wrong")}, "CredentialsRefused"),
    ):
        with RegistryClient({}, credentials, once) as client, pytest.raises(BadInput) as refused:
            client.tags(image)
        assert (refused.value.code, refused.value.about) == (code, str(image))


@pytest.mark.parametrize("name", ["circle", "away"])
def test_pages_that_lead_in_circles_or_away(strange: str, once: Patience, name: str) -> None:
    with (
        RegistryClient({}, {strange: Credentials("ada", "secret")}, once) as client,
        pytest.raises(Unavailable) as raised,
    ):
        client.tags(ImageName.parse(f"{strange}/{name}"))
    assert (raised.value.code, raised.value.about) == ("MalformedAnswer", f"{strange}/{name}")


def test_the_architectures_of_an_image(
    client: RegistryClient, server: RegistryServer, images: ImageStore, mirrors: dict[str, str], once: Patience
) -> None:
    digest = digest_of(images, f"{VLLM}:v0.32.0")
    assert client.architectures(VLLM, digest) == {"amd64"}
    with pytest.raises(BadRelease) as raised:
        client.architectures(VLLM, f"sha256:{'0' * 64}")
    assert (raised.value.code, raised.value.about) == ("ImageNotFound", f"{VLLM}@sha256:{'0' * 64}")
    with RegistryClient(mirrors, patience=once) as stranger, pytest.raises(BadInput) as refused:
        stranger.architectures(WORKER, digest)
    assert (refused.value.code, refused.value.about) == ("CredentialsMissing", f"{WORKER}@{digest}")


def test_the_architectures_of_an_index(once: Patience) -> None:
    attestation = {"platform": {"architecture": "unknown", "os": "unknown"}}
    named = [{"platform": {"architecture": name, "os": "linux"}} for name in ("amd64", "arm64")]
    digest = f"sha256:{'1' * 64}"
    with serving({"manifests": [*named, attestation]}) as url:
        opened = RegistryClient({"docker.io": url}, patience=once)
        assert opened.architectures(VLLM, digest) == {"amd64", "arm64"}
        opened.close()
    with serving({"config": {}}) as url:
        opened = RegistryClient({"docker.io": url}, patience=once)
        with pytest.raises(Unavailable) as raised:
            opened.architectures(VLLM, digest)
        assert raised.value.code == "MalformedAnswer"
        opened.close()


@contextmanager
def serving(content: object) -> Generator[str]:
    """A registry that answers everything with the same JSON; its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(content).encode())

        def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
