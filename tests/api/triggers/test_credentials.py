"""Registry credentials come from a Secret, reach only their registry, and appear in no log."""

from __future__ import annotations

import base64
import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.clients.registry import Credentials, ImageName, RegistryClient, parse_docker_config
from llmops.config.settings import Settings
from llmops.errors import BadInput
from llmops.rollout.ops.pinning import pin, registry_credentials
from llmops.rollout.platform import Platform
from llmops.triggers.image_tags import Cursor
from tests.support.triggers_world import World

PRIVATE = "ghcr.io/acme/private"


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("address", "host"),
    [
        ("https://index.docker.io/v1/", "docker.io"),
        ("index.docker.io", "docker.io"),
        ("registry-1.docker.io", "docker.io"),
        ("docker.io", "docker.io"),
        ("ghcr.io", "ghcr.io"),
        ("https://ghcr.io", "ghcr.io"),
        ("registry.example.com:5000", "registry.example.com:5000"),
        ("https://registry.example.com:5000/v2/", "registry.example.com:5000"),
    ],
)
def test_registries_by_all_their_spellings(address: str, host: str) -> None:
    config = json.dumps({"auths": {address: {"auth": encoded("ada:secret")}}})
    assert parse_docker_config(config, "here") == {host: Credentials("ada", "secret")}


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"auth": encoded("ada:se:cret")}, Credentials("ada", "se:cret")),
        ({"auth": encoded("ada:secret\0\0")}, Credentials("ada", "secret")),
        ({"username": "ada", "password": "secret"}, Credentials("ada", "secret")),
        ({"auth": encoded("ada:se cret \n")}, Credentials("ada", "se cret ")),
        ({"username": "ada", "password": "secret\r\n"}, Credentials("ada", "secret")),
        ({"username": "ada", "identitytoken": "token\n"}, Credentials("ada", "token", identity=True)),
        ({"username": "ada", "password": "x", "auth": encoded("bob:secret")}, Credentials("bob", "secret")),
        ({"auth": encoded("ada:"), "identitytoken": "token"}, Credentials("ada", "token", identity=True)),
        ({"email": "ada@example.com"}, None),
        ({}, None),
    ],
)
def test_entries_of_all_kinds(entry: dict[str, str], expected: Credentials | None) -> None:
    credentials = parse_docker_config(json.dumps({"auths": {"ghcr.io": entry}}), "here")
    assert credentials == ({"ghcr.io": expected} if expected else {})


@pytest.mark.parametrize(
    "text",
    [
        "secret",
        "[]",
        '{"secret": 1}',
        '{"auths": ["secret"]}',
        '{"auths": {"ghcr.io": "secret"}}',
        '{"auths": {"ghcr.io": {"auth": "secret!"}}}',
        json.dumps({"auths": {"ghcr.io": {"auth": encoded("secret")}}}),
    ],
)
def test_what_is_no_configuration_is_refused_without_telling_it(text: str) -> None:
    with pytest.raises(BadInput, match=r"Secret regcred .*kubectl create secret docker-registry") as refused:
        parse_docker_config(text, "Secret regcred")
    texts = f"{refused.value!r} {refused.value} {refused.value.__cause__!r}"
    assert "secret!" not in texts
    assert encoded("secret") not in texts


@given(st.text(), st.text())
def test_any_text_is_read_or_refused(text: str, auth: str) -> None:
    for candidate in (text, json.dumps({"auths": {"ghcr.io": {"auth": auth}}})):
        try:
            parse_docker_config(candidate, "here")
        except BadInput:
            continue


def give_secret(world: World, entry: dict[str, str]) -> None:
    """Create the Secret, with this entry for ghcr.io."""
    value = encoded(json.dumps({"auths": {"ghcr.io": entry}}))
    secret = {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/dockerconfigjson"}
    world.cluster.apply({**secret, "metadata": {"name": "regcred"}, "data": {".dockerconfigjson": value}})
    world.reload(registry_secret="regcred")


@pytest.fixture
def private(world: World) -> World:
    """A model whose image is in a private repository."""
    world.push("v0.32.0", image=PRIVATE)
    world.commit("first")
    world.declare(engine={"image": PRIVATE})
    return world


@pytest.mark.parametrize(
    "entry",
    [
        {"auth": encoded("ada:secret")},
        {"username": "ada", "password": "secret"},
        {"username": "ada", "identitytoken": "secret"},
    ],
    ids=["auth", "password", "identity"],
)
def test_the_sensor_reads_a_private_repository(private: World, entry: dict[str, str]) -> None:
    tick = private.tick()
    assert "may not be read without credentials" in tick.reason
    private.cursors.clear()
    give_secret(private, entry)
    assert private.tick().reason == "nothing new"
    cursor = Cursor.model_validate_json(private.cursors["image_tags"] or "")
    assert cursor.repositories[PRIVATE].tags == ("v0.32.0",)


def test_no_secret_is_told(private: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    give_secret(private, {"username": "ada", "password": "wrong-password"})
    tick = private.tick()
    assert "credentials for ghcr.io are not accepted" in tick.reason
    texts = f"{tick.reason} {private.cursors} {caplog.text}"
    assert "wrong-password" not in texts
    assert encoded("ada:wrong-password") not in texts


def test_a_secret_that_is_not_there_is_named(private: World) -> None:
    private.reload(registry_secret="gone")
    private.registry.forget_requests()
    tick = private.tick()
    assert "Secret gone" in tick.reason
    assert "kubectl" in tick.reason
    # No request without credentials.
    assert private.registry.seen() == []


def test_the_release_stage_reads_it_too(private: World) -> None:
    give_secret(private, {"auth": encoded("ada:secret")})
    folder = private.settings.models_dir
    folder.mkdir()
    (folder / "tiny.yaml").write_text(private.specs["tiny"].model_dump_json())
    file = folder.parent / "settings.yaml"
    file.write_text(private.settings.model_dump_json())
    platform = Platform(settings_file=str(file))
    assert pin(platform, "tiny").engine.tag == "v0.32.0"
    # An exact image is not looked up again.
    private.registry.forget_requests()
    exact = f"v9.9.9@sha256:{'0' * 64}"
    engine = pin(platform, "tiny", image=exact).engine
    assert (f"{engine.tag}@{engine.digest}", private.registry.seen()) == (exact, [])
    with pytest.raises(BadInput, match="names no exact image"):
        pin(platform, "tiny", image="v9.9.9")


def test_without_a_secret_nobody_is_asked(world: World) -> None:
    assert registry_credentials(world.cluster, Settings.model_validate({})) == {}


def test_an_identity_token_is_never_sent_as_a_password(private: World) -> None:
    image = ImageName.parse(PRIVATE)
    with RegistryClient(
        private.settings.registry_mirrors, {"ghcr.io": Credentials("", "secret", identity=True)}
    ) as one:
        assert one.find(image, "v0.32.0")
    (request,) = private.registry.seen("/token")
    assert (request.method, request.authorization, request.query) == ("POST", False, "")
