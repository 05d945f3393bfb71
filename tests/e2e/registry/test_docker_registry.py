"""The client against Debian's docker-registry: open, with a password, and with a token service."""

from __future__ import annotations

import base64
import datetime
import hashlib
import json
import secrets
import socket
import subprocess
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import NameOID
from llmops_sandbox.programs import docker_registry

from llmops.clients.registry import Credentials, ImageName, RegistryClient, resolve_image
from llmops.clients.retries import Patience
from llmops.errors import BadInput, BadRelease
from tests.support.servers.answering import Answer, Asked, answering

ONCE = Patience(attempts=1)
HOST = "registry.example"
NAME = f"{HOST}/acme/engine"
IMAGE = ImageName.parse(NAME)
ADA = Credentials("ada", "MARKED-PASSWORD")
# The bcrypt hash of that password, which the registry insists on.
HTPASSWD = "ada:$2b$05$abcdefghijklmnopqrstuu8z926Qz6JZGFuPlXUZXgXY3UGJV25Gq\n"
OCI = "application/vnd.oci.image"
START_SECONDS = 20.0


@contextmanager
def registry(folder: Path, auth: Mapping[str, Any] | None = None) -> Generator[str]:
    """A running docker-registry; its base URL."""
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        port = chosen.getsockname()[1]
    configuration = {
        "version": 0.1,
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(folder / "storage")}},
        "http": {"addr": f"127.0.0.1:{port}", "secret": secrets.token_hex(8)},
        **({"auth": auth} if auth else {}),
    }
    file = folder / "config.yml"
    file.write_text(json.dumps(configuration))
    process = subprocess.Popen([docker_registry.find_or_unpack(), "serve", file], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + START_SECONDS
        while True:
            with suppress(httpx2.ConnectError):
                httpx2.get(f"http://127.0.0.1:{port}/v2/")
                break
            assert process.poll() is None, "docker-registry ended"
            assert time.monotonic() < deadline, "docker-registry does not listen"
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


class Pusher:
    """Pushes small images."""

    def __init__(self, url: str, **options: Any) -> None:
        self._http = httpx2.Client(base_url=url, **options)

    def blob(self, content: bytes) -> dict[str, Any]:
        started = self._http.post("/v2/acme/engine/blobs/uploads/").raise_for_status()
        place = httpx2.URL(started.headers["Location"]).copy_add_param("digest", digest_of(content))
        octets = {"Content-Type": "application/octet-stream"}
        self._http.put(place, content=content, headers=octets).raise_for_status()
        return {"digest": digest_of(content), "size": len(content)}

    def manifest(self, content: Any, tag: str | None = None) -> dict[str, Any]:
        body, kind = json.dumps(content).encode(), content["mediaType"]
        path = f"/v2/acme/engine/manifests/{tag or digest_of(body)}"
        self._http.put(path, content=body, headers={"Content-Type": kind}).raise_for_status()
        return {"mediaType": kind, "digest": digest_of(body), "size": len(body)}

    def image(self, architecture: str, tag: str | None = None) -> dict[str, Any]:
        config = {"architecture": architecture, "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}
        blob = {"mediaType": f"{OCI}.config.v1+json", **self.blob(json.dumps(config).encode())}
        manifest = {"schemaVersion": 2, "mediaType": f"{OCI}.manifest.v1+json", "config": blob, "layers": []}
        return self.manifest(manifest, tag)

    def index(self, tag: str, *entries: Mapping[str, Any]) -> dict[str, Any]:
        return self.manifest({"schemaVersion": 2, "mediaType": f"{OCI}.index.v1+json", "manifests": entries}, tag)


@pytest.fixture(scope="module")
def open_registry(tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    with registry(tmp_path_factory.mktemp("registry")) as url:
        yield url


def test_tags_and_digests(open_registry: str) -> None:
    pusher = Pusher(open_registry)
    pushed = {tag: pusher.image("amd64", tag)["digest"] for tag in ("25.09-py3", "v0.4.0-rc.2", "2026.04.01", "latest")}
    with RegistryClient({HOST: open_registry}, patience=ONCE) as client:
        assert set(pushed) <= set(client.tags(IMAGE))
        assert {tag: client.digest(IMAGE, tag) for tag in pushed} == pushed
        assert client.find(IMAGE, "v9.9.9") is None
        for specifier, variant, tag in (
            ("==25.09", "py3", "25.09-py3"),
            ("==0.4.0rc2", "", "v0.4.0-rc.2"),
            ("==2026.04.01", "", "2026.04.01"),
            (">=2026", "", "2026.04.01"),
        ):
            assert str(resolve_image(client, NAME, specifier, variant)) == f"{tag}@{pushed[tag]}"
        with pytest.raises(BadRelease) as raised:
            client.tags(ImageName.parse(f"{HOST}/acme/none"))
    assert raised.value.code == "ImageNotFound"


def test_an_index_with_and_without_platforms(open_registry: str) -> None:
    pusher = Pusher(open_registry)
    amd, arm = pusher.image("amd64"), pusher.image("arm64")
    stated = amd | {"platform": {"architecture": "amd64", "os": "linux"}}
    pusher.index("stated", stated)
    pusher.index("unstated", amd)
    pusher.index("mixed", stated, arm)
    with RegistryClient({HOST: open_registry}, patience=ONCE) as client:
        by_tag = {
            tag: client.architectures(IMAGE, client.digest(IMAGE, tag)) for tag in ("stated", "unstated", "mixed")
        }
        assert by_tag == {"stated": {"amd64"}, "unstated": {"amd64"}, "mixed": {"amd64", "arm64"}}
        assert client.architectures(IMAGE, arm["digest"]) == {"arm64"}


def test_a_password(tmp_path: Path) -> None:
    (tmp_path / "htpasswd").write_text(HTPASSWD)
    with registry(tmp_path, {"htpasswd": {"realm": "tests", "path": str(tmp_path / "htpasswd")}}) as url:
        pushed = Pusher(url, auth=(ADA.username, ADA.password)).image("amd64", "v1.2.0")
        with RegistryClient({HOST: url}, {HOST: ADA}, ONCE) as client:
            assert client.tags(IMAGE) == ["v1.2.0"]
            assert client.digest(IMAGE, "v1.2.0") == pushed["digest"]
            assert client.architectures(IMAGE, pushed["digest"]) == {"amd64"}
        for credentials, code in (({}, "CredentialsMissing"), ({HOST: Credentials("ada", "x")}, "CredentialsRefused")):
            with RegistryClient({HOST: url}, credentials, ONCE) as client, pytest.raises(BadInput) as raised:
                client.tags(IMAGE)
            assert (raised.value.code, raised.value.about) == (code, str(IMAGE))


class TokenService:
    """Gives tokens to whom knows the password, as the token specification of the registry has them."""

    def __init__(self, folder: Path) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tokens of tests")])
        now = datetime.datetime.now(datetime.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self._key.public_key())
            .serial_number(1)
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.bundle = folder / "bundle.pem"
        self.bundle.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        self._chain = [base64.b64encode(certificate.public_bytes(serialization.Encoding.DER)).decode()]

    def reply(self, asked: Asked) -> Answer:
        query = parse_qs(urlsplit(asked.path).query)
        if asked.authorization != ADA.header() or query.get("account") != ["tests"]:
            return Answer(b'{"errors": [{"code": "UNAUTHORIZED", "message": "wrong"}]}', 401)
        kind, name, actions = query["scope"][0].split(":")
        access = {"type": kind, "name": name, "actions": actions.split(",")}
        return Answer(json.dumps({"token": self.token(query["service"][0], access)}).encode())

    def token(self, service: str, *access: Mapping[str, Any]) -> str:
        now = int(time.time())
        claims = {
            "iss": "tests",
            "aud": service,
            "sub": "ada",
            "exp": now + 300,
            "nbf": now - 10,
            "iat": now,
            "jti": "1",
        }
        header = {"typ": "JWT", "alg": "ES256", "x5c": self._chain}
        signed = ".".join(_base64(json.dumps(part).encode()) for part in (header, claims | {"access": access}))
        r, s = decode_dss_signature(self._key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{signed}.{_base64(r.to_bytes(32) + s.to_bytes(32))}"


def _base64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def test_a_token_service(tmp_path: Path) -> None:
    service = TokenService(tmp_path)
    with answering(service.reply) as tokens:
        auth = {
            "realm": f"{tokens.url}/token?account=tests",
            "service": "registry of tests",
            "issuer": "tests",
            "rootcertbundle": str(service.bundle),
        }
        with registry(tmp_path, {"token": auth}) as url:
            everything = {"type": "repository", "name": "acme/engine", "actions": ["pull", "push"]}
            bearer = {"Authorization": f"Bearer {service.token('registry of tests', everything)}"}
            pushed = Pusher(url, headers=bearer).image("arm64", "v1.3.0")
            with RegistryClient({HOST: url}, {HOST: ADA}, ONCE) as client:
                assert client.tags(IMAGE) == ["v1.3.0"]
                assert client.digest(IMAGE, "v1.3.0") == pushed["digest"]
                assert client.architectures(IMAGE, pushed["digest"]) == {"arm64"}
            assert len(tokens.asked) == 1
            for credentials in ({}, {HOST: Credentials("ada", "wrong")}):
                with RegistryClient({HOST: url}, credentials, ONCE) as client, pytest.raises(BadInput) as raised:
                    client.tags(IMAGE)
                assert raised.value.about == str(IMAGE)
