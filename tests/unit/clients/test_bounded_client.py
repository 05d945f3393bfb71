"""The client for foreign services: where redirects may lead, and what connections it leaves behind."""

from __future__ import annotations

import ipaddress
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from llmops_sandbox.cluster.pki import Identity, write_pki

from llmops.clients.bounded import NETWORK, SAME_ORIGIN, BeyondBounds, BoundedClient, Network, network_of
from llmops.clients.retries import Unbounded
from llmops.errors import Unavailable
from tests.support.servers.answering import Answer, Asked, answering


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("127.0.0.1", "loopback"),
        ("127.8.9.10", "loopback"),
        ("0.0.0.0", "loopback"),
        ("::1", "loopback"),
        ("::", "loopback"),
        ("::ffff:127.0.0.1", "loopback"),
        ("169.254.169.254", "link-local"),
        ("::ffff:169.254.169.254", "link-local"),
        ("64:ff9b::a9fe:a9fe", "link-local"),
        ("2002:a9fe:a9fe::", "link-local"),
        ("fe80::1%eth0", "link-local"),
        ("168.63.129.16", "link-local"),
        ("10.0.0.7", "private"),
        ("172.20.1.1", "private"),
        ("192.168.1.1", "private"),
        ("100.100.100.200", "private"),
        ("fd00:ec2::254", "private"),
        ("8.8.8.8", "public"),
        ("2606:4700::1111", "public"),
    ],
)
def test_networks(address: str, network: Network) -> None:
    assert network_of(address) == network


@given(st.ip_addresses())
def test_every_address_has_a_network(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    assert network_of(str(address)) in ("loopback", "link-local", "private", "public")


def refused(server: str, **more: object) -> str:
    with BoundedClient(1000, 5.0) as client, pytest.raises(BeyondBounds) as raised:
        client.get(server, **more)  # pyright: ignore[reportArgumentType]
    assert raised.value.code == "RedirectRefused"
    told = raised.value.told("the service at X", "the object")
    assert isinstance(told, Unbounded)
    assert (told.code, told.about) == ("RedirectRefused", "the object")
    assert told.remedy
    return str(raised.value)


@pytest.mark.parametrize(
    "location",
    [
        "http://169.254.169.254/latest/meta-data",
        "http://[::ffff:169.254.169.254]/latest",
        "http://[fe80::1]/",
        "http://10.11.12.13/internal",
        "http://[fd00:ec2::254]/latest",
    ],
)
def test_a_redirect_into_another_network_is_refused_before_it_connects(location: str) -> None:
    with answering(lambda asked: Answer(b"", 302, [("Location", location)])) as server:
        began = time.monotonic()
        assert "another network" in refused(server.url)
        assert time.monotonic() - began < 2


def test_a_request_from_a_public_service_does_not_lead_here() -> None:
    with answering(lambda asked: Answer(b"{}")) as server:
        # As of a token service that a public registry names: by its address, and by a name that leads to it.
        for url in (server.url, server.url.replace("127.0.0.1", "localhost")):
            assert "loopback" in refused(url, extensions={NETWORK: "public"})
    assert server.asked == []


def test_an_answer_tells_its_network() -> None:
    with answering(lambda asked: Answer(b"{}")) as server, BoundedClient(1000, 5.0) as client:
        assert client.get(server.url).extensions[NETWORK] == "loopback"


def test_bodies_and_secrets_stay_with_their_origin() -> None:
    with answering(lambda asked: Answer(b"{}"), "127.0.0.5") as stranger:

        def reply(asked: Asked) -> Answer:
            return Answer(b"", 307, [("Location", f"{stranger.url}/x")])

        with answering(reply) as server:
            assert "another server" in refused(server.url, extensions={SAME_ORIGIN: True})
            with BoundedClient(1000, 5.0) as client, pytest.raises(BeyondBounds, match="a request with a body"):
                client.post(server.url, data={"refresh_token": "MARKED"})
        assert stranger.asked == []


@pytest.fixture
def tls(tmp_path: Path) -> ssl.SSLContext:
    """The side of a server, which the clients of this process trust."""
    write_pki(tmp_path, (Identity("server", "localhost", hosts=("127.0.0.1", "localhost")),))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")
    return context


def trickle() -> Iterator[bytes]:
    while True:
        yield b" "
        time.sleep(0.05)


def test_with_tls(tls: ssl.SSLContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.crt"))
    with answering(lambda asked: Answer(b"", 302, [("Location", "/there")])) as plain:

        def reply(asked: Asked) -> Answer:
            if asked.path == "/down":
                return Answer(b"", 302, [("Location", plain.url)])
            return Answer(trickle() if asked.path == "/slow" else b"{}")

        with answering(reply, tls=tls) as server:
            with BoundedClient(1000, 5.0) as client:
                assert client.get(server.url).content == b"{}"
            assert "from https to http" in refused(f"{server.url}/down")
            began = time.monotonic()
            with BoundedClient(1000, 0.5) as client, pytest.raises(BeyondBounds) as raised:
                client.get(f"{server.url}/slow")
            assert raised.value.code == "AnswerTooSlow"
            # The next answer may be faster: unlike the other bounds, this one is worth another try.
            assert not isinstance(raised.value.told("X", "y"), Unbounded)
            assert isinstance(raised.value.told("X", "y"), Unavailable)
            assert time.monotonic() - began < 3
    assert plain.asked == []


def test_nothing_is_left_behind() -> None:
    with answering(lambda asked: Answer(b"{}")) as server, BoundedClient(1000, 5.0) as client:
        client.get(server.url)
        files, threads = len(list(Path("/proc/self/fd").iterdir())), threading.active_count()
        for _ in range(20):
            client.get(server.url)
        time.sleep(0.1)
        assert len(list(Path("/proc/self/fd").iterdir())) <= files + 4
        assert threading.active_count() <= threads + 4


def test_errors_of_connections_are_the_librarys() -> None:
    with BoundedClient(1000, 5.0) as client:
        for url, kind in (
            ("http://127.0.0.1:1/", httpx2.ConnectError),
            ("ftp://127.0.0.1/", httpx2.UnsupportedProtocol),
            ("http://name.invalid/", httpx2.ConnectError),
        ):
            with pytest.raises(kind):
                client.get(url)


def test_a_stream_is_bounded_as_well() -> None:
    with (
        answering(lambda asked: Answer(trickle())) as server,
        BoundedClient(5, 20.0) as client,
        pytest.raises(BeyondBounds) as raised,
        client.stream("GET", server.url),
    ):
        pass
    assert raised.value.code == "AnswerTooLarge"


def test_certificates_of_strangers_are_refused(tls: ssl.SSLContext) -> None:
    with (
        answering(lambda asked: Answer(b"{}"), tls=tls) as server,
        BoundedClient(1000, 5.0) as client,
        pytest.raises(httpx2.ConnectError),
    ):
        client.get(server.url)
