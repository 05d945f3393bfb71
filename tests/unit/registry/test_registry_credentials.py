"""Credentials go to the registry that they are for, and to its token service, and to nobody else."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.clients.registry import Credentials, ImageName, RegistryClient
from llmops.clients.registry.auth import Challenge, challenges, is_token_service
from llmops.clients.retries import Patience
from llmops.errors import BadInput, LlmopsError, Unavailable
from tests.support.servers.answering import Answer, Asked, answering

ONCE = Patience(attempts=1)
ADA = Credentials("ada", "MARKED-SECRET")
TAGS = Answer(b'{"name": "x", "tags": ["v0.41.0"]}')
HOST = "registry.example"
IMAGE = ImageName(HOST, "acme/engine")


def refused(challenge: str) -> Answer:
    return Answer(b"{}", 401, [("WWW-Authenticate", challenge)])


def ask(url: str, credentials: Credentials | None = ADA, **more: object) -> list[str]:
    given = {HOST: credentials} if credentials else {}
    with RegistryClient({HOST: url}, given, ONCE, **more) as client:  # pyright: ignore[reportArgumentType]
        return client.tags(IMAGE)


def protected(challenge: Callable[[], str], *, by: str = "Bearer good") -> Callable[[Asked], Answer]:
    return lambda asked: TAGS if asked.authorization == by else refused(challenge())


def token_service(asked: Asked) -> Answer:
    return Answer(b'{"token": "good"}')


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (
            [
                'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push"'
            ],
            [Challenge("bearer", "https://auth.docker.io/token", "registry.docker.io", "repository:a/b:pull,push")],
        ),
        (['bearer Realm=http://x , service="a\\"b"'], [Challenge("bearer", "http://x", 'a"b')]),
        (['Basic realm="Registry"'], [Challenge("basic", "Registry")]),
        ([""], []),
        ([", ,"], []),
        (
            ['Basic realm="a, Bearer b", Bearer realm="https://x/t", service=s'],
            [Challenge("basic", "a, Bearer b"), Challenge("bearer", "https://x/t", "s")],
        ),
        (
            ['Negotiate, NTLM TlRMTVNTUAAB==, Bearer scope="s", realm="r"'],
            [Challenge("negotiate"), Challenge("ntlm"), Challenge("bearer", "r", "", "s")],
        ),
        (['Bearer realm="r",service="s"', "Basic"], [Challenge("bearer", "r", "s"), Challenge("basic")]),
    ],
)
def test_challenges(headers: list[str], expected: list[Challenge]) -> None:
    assert challenges(headers) == expected


@given(st.lists(st.text() | st.text("Bearer realm=\"',\\ \t"), max_size=3))
def test_challenges_of_anything(headers: list[str]) -> None:
    for challenge in challenges(headers):
        assert challenge.scheme
        host = challenge.host()
        assert host is None or "/" not in host


BEARER = 'Bearer realm="{url}/token",service="s"'
BASIC = 'Basic realm="Registry {comma} of tests"'


@pytest.mark.parametrize("other", ["", "Negotiate", 'Digest realm="d", nonce="n"'])
@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("credentials", [ADA, None])
def test_two_challenges_in_any_order(other: str, together: bool, credentials: Credentials | None) -> None:
    texts = [BEARER, BASIC]
    for order in itertools.permutations([*texts, other] if other else texts):

        def reply(asked: Asked, order: tuple[str, ...] = order) -> Answer:
            url = f"http://{asked.headers['Host']}"
            if asked.path.startswith("/token"):
                return token_service(asked)
            if asked.authorization == "Bearer good":
                return TAGS
            lines = [text.format(url=url, comma=",") for text in order]
            lines = [", ".join(lines)] if together else lines
            return Answer(b"", 401, [("WWW-Authenticate", line) for line in lines])

        with answering(reply) as server:
            assert ask(server.url, credentials) == ["v0.41.0"]


def test_basic_is_taken_where_the_token_service_is_a_stranger() -> None:
    challenge = 'Bearer realm="http://token.invalid/",service="s", Basic realm="r"'
    with answering(protected(lambda: challenge, by=ADA.header())) as server:
        assert ask(server.url) == ["v0.41.0"]
        with pytest.raises(BadInput) as raised:
            ask(server.url, None)
    assert (raised.value.code, raised.value.about) == ("TokenServiceUnknown", str(IMAGE))


@pytest.mark.parametrize(
    ("query", "kept"),
    [("?account=ci", "account=ci"), ("?tenant=a%20b&x=1", "?tenant=a%20b&x=1&"), ("", "scope=")],
)
def test_the_query_of_the_realm_stays(query: str, kept: str) -> None:
    url = ""

    def reply(asked: Asked) -> Answer:
        if asked.path.startswith("/token"):
            return token_service(asked)
        return protected(lambda: f'Bearer realm="{url}/token{query}",service="s",scope="repository:acme/engine:pull"')(
            asked
        )

    with answering(reply) as server:
        url = server.url
        assert ask(url) == ["v0.41.0"]
    (path,) = [asked.path for asked in server.asked if asked.path.startswith("/token")]
    assert kept in path
    assert re.search(r"[?&]scope=repository%3Aacme%2Fengine%3Apull(&|$)", path)
    assert re.search(r"[?&]service=s(&|$)", path)


@pytest.mark.parametrize(
    "realm",
    [
        "http://127.0.0.2:{port}/latest/meta-data",
        "http://localhost:{port}/token",
        "http://ada@127.0.0.1:{port}/token",
        "http://127.0.0.2:{port}#@127.0.0.1/token",
        "http://127.0.0.2:{port}\\@127.0.0.1/token",
        "http://[::ffff:127.0.0.2]:{port}/token",
        "file:///etc/passwd",
        "//127.0.0.2:{port}/token",
        "/token",
        "http://169.254.169.254/latest",
        "http://registry.example.evil.invalid/token",
        "http://[::1/token",
        "Registry",
    ],
)
@pytest.mark.parametrize("credentials", [ADA, None])
def test_a_stranger_is_not_asked_for_a_token(realm: str, credentials: Credentials | None) -> None:
    with answering(token_service, "127.0.0.2") as stranger:
        port = stranger.url.rpartition(":")[2]
        challenge = f'Bearer realm="{realm.format(port=port)}",service="s"'.replace("\\", "\\\\")
        with answering(protected(lambda: challenge)) as server, pytest.raises(BadInput) as raised:
            ask(server.url, credentials)
        assert (raised.value.code, raised.value.about) == ("TokenServiceUnknown", str(IMAGE))
        assert "registry_token_services" in raised.value.remedy
        assert ADA.password not in str(raised.value)
        assert stranger.asked == []
    # The token of a stranger does not reach the registry either.
    assert [asked.authorization for asked in server.asked] == [None]


def test_a_token_service_that_the_settings_name_is_asked() -> None:
    with (
        answering(token_service, "127.0.0.3") as service,
        answering(protected(lambda: f'Bearer realm="{service.url}/auth",service="s"')) as server,
    ):
        assert ask(server.url, token_services={HOST: ["127.0.0.3"]}) == ["v0.41.0"]
        assert service.asked[0].authorization == ADA.header()
        with pytest.raises(BadInput):
            ask(server.url, token_services={"other.example": ["127.0.0.3"]})


def test_the_token_services_of_public_registries_are_known() -> None:
    assert is_token_service("auth.docker.io", {"docker.io", "registry-1.docker.io"}, ())
    assert is_token_service("gitlab.com", {"registry.gitlab.com"}, ())
    assert is_token_service("GHCR.io", {"ghcr.io"}, ())
    assert is_token_service("registry.corp", {"registry.corp:5000"}, ())
    assert is_token_service("login.corp", {"registry.corp"}, ["login.corp:8443"])
    assert not is_token_service("auth.docker.io", {"ghcr.io"}, ())
    assert not is_token_service("docker.io.evil.example", {"docker.io"}, ())
    assert not is_token_service("", {""}, ())


def test_a_token_service_that_redirects_elsewhere_gives_no_token() -> None:
    with answering(token_service, "127.0.0.2") as stranger:

        def reply(asked: Asked) -> Answer:
            if asked.path.startswith("/token"):
                return Answer(b"", 302, [("Location", f"{stranger.url}/steal")])
            if asked.path.startswith("/moved"):
                return token_service(asked)
            return protected(lambda: f'Bearer realm="http://{asked.headers["Host"]}/token",service="s"')(asked)

        with answering(reply) as server, pytest.raises(Unavailable) as raised:
            ask(server.url)
        assert (raised.value.code, raised.value.about) == ("RedirectRefused", str(IMAGE))
        assert stranger.asked == []


def test_a_redirect_within_the_registry_keeps_the_credentials() -> None:
    def reply(asked: Asked) -> Answer:
        if asked.authorization != ADA.header():
            return refused('Basic realm="r"')
        if asked.path.startswith("/v2/"):
            return Answer(b"", 307, [("Location", f"/moved{asked.path}")])
        return TAGS

    with answering(reply) as server:
        assert ask(server.url) == ["v0.41.0"]
    assert server.asked[-1].authorization == ADA.header()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("challenge", ['Basic realm="mine"', 'Bearer realm="{url}/token",service="s"', ""])
def test_a_server_to_which_a_registry_redirects_gets_no_credentials(status: int, challenge: str) -> None:
    for host in ("127.0.0.1", "127.0.0.2"):

        def strange(asked: Asked) -> Answer:
            text = challenge.format(url=f"http://{asked.headers['Host']}")
            return Answer(b"{}", 401, [("WWW-Authenticate", text)] if text else ())

        with answering(strange, host) as stranger:

            def reply(asked: Asked, url: str = stranger.url) -> Answer:
                if asked.authorization == ADA.header():
                    return Answer(b"", status, [("Location", f"{url}{asked.path}")])
                return refused('Basic realm="r"')

            with answering(reply) as server, pytest.raises(LlmopsError) as raised:
                ask(server.url)
        assert [asked.authorization for asked in stranger.asked] == [None]
        assert (raised.value.code, raised.value.about) == ("StorageRefused", str(IMAGE))
        assert ADA.password not in str(raised.value)


def test_storage_elsewhere_serves_without_credentials() -> None:
    digest = f"sha256:{'5' * 64}"
    config = json.dumps({"architecture": "arm64", "os": "linux"}).encode()
    with answering(lambda asked: Answer(config), "127.0.0.4") as storage:

        def reply(asked: Asked) -> Answer:
            if asked.authorization != ADA.header():
                return refused('Basic realm="r"')
            if "/blobs/" in asked.path:
                return Answer(b"", 307, [("Location", f"{storage.url}/bucket?signature=1")])
            return Answer(json.dumps({"config": {"digest": digest}}).encode())

        with answering(reply) as server, RegistryClient({HOST: server.url}, {HOST: ADA}, ONCE) as client:
            assert client.architectures(IMAGE, digest) == {"arm64"}
    assert [asked.authorization for asked in storage.asked] == [None]
