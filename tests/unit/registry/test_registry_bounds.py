"""Answers of registries are bounded in bytes, seconds, pages and depth, and read strictly."""

from __future__ import annotations

import gzip
import hashlib
import json
import socket
import time
import tracemalloc
import zlib
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from threading import Thread
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.clients.registry import ImageName, RegistryClient, resolve_image
from llmops.clients.registry.answers import (
    following_page,
    is_tag,
    read_architecture,
    read_error,
    read_manifest,
    read_tags,
)
from llmops.clients.registry.client import PAGES
from llmops.clients.retries import Patience
from llmops.errors import LlmopsError, Unavailable
from llmops.worker.foreign import BadBytes
from tests.support.servers.answering import Answer, Answering, Asked, answering

ONCE = Patience(attempts=1)
HOST = "registry.example"
IMAGE = ImageName(HOST, "acme/engine")
MIB = 1 << 20


def trickle(block: bytes, seconds: float) -> Iterator[bytes]:
    """A block now and then, for ever."""
    while True:
        yield block
        time.sleep(seconds)


def tags(server: Answering, seconds: float = 20.0) -> list[str]:
    with RegistryClient({HOST: server.url}, patience=Patience(longest_wait=0.01), timeout=seconds) as client:
        return client.tags(IMAGE)


@pytest.mark.parametrize("packing", ["gzip", "x-gzip", "deflate"])
def test_a_small_answer_that_unpacks_to_a_large_one_takes_little_memory(packing: str) -> None:
    plain = b'{"tags": ["' + b" " * (150 * MIB) + b'"]}'
    packed = zlib.compress(plain) if packing == "deflate" else gzip.compress(plain, 6)
    del plain
    with answering(lambda asked: Answer(packed, headers=[("Content-Encoding", packing)])) as server:
        tracemalloc.start()
        with pytest.raises(Unavailable) as raised:
            tags(server)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert (raised.value.code, raised.value.about) == ("AnswerTooLarge", str(IMAGE))
    assert raised.value.remedy
    assert peak < 32 * MIB
    # Another try would end the same way.
    assert len(server.asked) == 1


def test_a_packed_answer_is_read() -> None:
    body = gzip.compress(json.dumps({"tags": ["1.2.3"]}).encode())
    with answering(lambda asked: Answer(body, headers=[("Content-Encoding", "gzip")])) as server:
        assert tags(server) == ["1.2.3"]
    assert {asked.headers["Accept-Encoding"] for asked in server.asked} == {"gzip"}


@pytest.mark.parametrize(
    ("body", "encoding"),
    [(b"no gzip", "gzip"), (gzip.compress(b'{"tags": []}')[:-9], "gzip"), (b'{"tags": []}', "br")],
    ids=lambda value: f"{len(value)} bytes" if isinstance(value, bytes) else None,
)
def test_an_answer_with_broken_packing(body: bytes, encoding: str) -> None:
    with answering(lambda asked: Answer(body, headers=[("Content-Encoding", encoding)])) as server:
        with pytest.raises(Unavailable) as raised:
            tags(server)
        assert (raised.value.code, raised.value.about) == ("AnswerUnreadable", str(IMAGE))


def test_a_large_answer_is_not_read_to_its_end() -> None:
    with answering(lambda asked: Answer(trickle(b" " * MIB, 0))) as server, pytest.raises(Unavailable) as raised:
        tags(server)
    assert (raised.value.code, raised.value.about) == ("AnswerTooLarge", str(IMAGE))


def test_an_answer_that_trickles_in_ends() -> None:
    with answering(lambda asked: Answer(trickle(b" ", 0.05))) as server:
        began = time.monotonic()
        client = RegistryClient({HOST: server.url}, patience=ONCE, timeout=0.5)
        with client, pytest.raises(Unavailable) as raised:
            client.tags(IMAGE)
        assert time.monotonic() - began < 3
    assert (raised.value.code, raised.value.about) == ("AnswerTooSlow", str(IMAGE))


def test_headers_that_trickle_in_end() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with suppress(OSError), connection:
                connection.sendall(b"HTTP/1.1 200 OK\r\nX-Long: ")
                for block in trickle(b"x", 0.05):
                    connection.sendall(block)

        Thread(target=serve, daemon=True).start()
        began = time.monotonic()
        mirror = f"http://127.0.0.1:{listening.getsockname()[1]}"
        with RegistryClient({HOST: mirror}, patience=ONCE, timeout=0.5) as client, pytest.raises(Unavailable) as raised:
            client.tags(IMAGE)
    assert time.monotonic() - began < 3
    assert (raised.value.code, raised.value.about) == ("AnswerTooSlow", str(IMAGE))


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 200_000,
        b'{"tags":' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"tags": ' + b'{"a":' * 900 + b"1" + b"}" * 901,
        b'{"tags": [' + b"[]," * 300_000 + b"[]]}",
        b'{"tags": "v1.0"}',
        b'{"tags": {"v1.0": 1}}',
        b'{"tags": [1.0, "v1.0"]}',
        b'{"tags": [' + b"9" * 5000 + b"]}",
        b'{"tags": ["\xff"]}',
        '{"tags": ["v1.0"]}'.encode("utf-16"),
    ],
    ids=lambda value: f"{len(value)} bytes" if isinstance(value, bytes) else None,
)
def test_tags_that_are_none(body: bytes) -> None:
    with answering(lambda asked: Answer(body)) as server, pytest.raises(Unavailable) as raised:
        tags(server)
    assert (raised.value.code, raised.value.about) == ("MalformedAnswer", str(IMAGE))


def test_names_that_no_tag_may_have_are_left_out() -> None:
    names = ["1.0.0", "v0.33.0+x", "../../other/manifests/1.0", "", "-x", "a" * 129, "1.0.1"]
    with answering(lambda asked: Answer(json.dumps({"tags": names}).encode())) as server:
        assert tags(server) == ["1.0.0", "1.0.1"]


def paged(asked: Asked, link: str, most: int = 1000, tags: int = 24) -> Answer:
    """Five tags a page, at most `most` on request."""
    query = parse_qs(urlsplit(asked.path).query)
    size = int(query.get("n", ["5"])[0])
    if size > most:
        error = {"errors": [{"code": "PAGINATION_NUMBER_INVALID", "message": "invalid number of results"}]}
        return Answer(json.dumps(error).encode(), 400)
    names = [f"v0.{minor}.0" for minor in range(10, 10 + tags)]
    rest = [name for name in names if name > query.get("last", [""])[0]]
    page = rest[: min(size, 5)]
    path = urlsplit(asked.path).path
    more = [("Link", link.format(path=path, size=size, last=page[-1], host=asked.headers["Host"]))]
    return Answer(json.dumps({"tags": page}).encode(), headers=more if len(rest) > len(page) else ())


@pytest.mark.parametrize(
    "link",
    [
        '<{path}?n={size}&last={last}>; rel="next"',
        '<?n={size}&last={last}>; rel="next"',
        '<http://{host}{path}?n={size}&last={last}>; rel="next"',
        '<https://registry.example{path}?n={size}&last={last}>; rel="next"',
        "<http://169.254.169.254:80{path}?n={size}&last={last}>; rel=next",
        '<//elsewhere.example{path}?last={last}>; rel="next"',
    ],
)
@pytest.mark.parametrize("most", [1000, 100, 5])
def test_the_next_page_is_asked_of_the_same_server(link: str, most: int) -> None:
    with answering(
        lambda asked: paged(asked, link, most) if "n=" in asked.path or most > 5 else paged(asked, link)
    ) as server:
        assert len(tags(server)) == 24
        with RegistryClient({HOST: server.url}, patience=ONCE) as client:
            assert client.pages(IMAGE)[-1].tags[-1] == "v0.33.0"
    assert all(asked.path.startswith("/v2/acme/engine/tags/list") for asked in server.asked)


@pytest.mark.parametrize("link", ["</metrics>", "<http://[::1/v2/x>", "</v2/../admin>", "<mailto:x>"])
def test_a_link_to_something_else(link: str) -> None:
    answer = Answer(b'{"tags": ["1.0"]}', headers=[("Link", f'{link}; rel="next"')])
    with answering(lambda asked: answer) as server, pytest.raises(Unavailable) as raised:
        tags(server)
    assert raised.value.code == "MalformedAnswer"


def test_a_mirror_with_a_path() -> None:
    base = "https://mirror.example/api/docker/hub"
    path = "/v2/acme/engine/tags/list?n=5"
    assert following_page(base, path, "/v2/acme/engine/tags/list?last=a") == "/v2/acme/engine/tags/list?last=a"
    assert following_page(base, path, "/api/docker/hub/v2/x/tags/list?last=b") == "/v2/x/tags/list?last=b"
    assert following_page(base, path, "?last=c") == "/v2/acme/engine/tags/list?last=c"


def test_pages_without_an_end() -> None:
    numbers = count()
    link = '</v2/acme/engine/tags/list?last={}>; rel="next"'

    def reply(asked: Asked) -> Answer:
        return Answer(b'{"tags": ["1.0"]}', headers=[("Link", link.format(next(numbers)))])

    with answering(reply) as server, pytest.raises(Unavailable) as raised:
        tags(server)
    assert (raised.value.code, raised.value.about) == ("TooManyPages", str(IMAGE))
    assert "engine.version" in raised.value.remedy
    assert len(server.asked) == PAGES


def test_redirects_without_an_end() -> None:
    numbers = count()

    def reply(asked: Asked) -> Answer:
        return Answer(b"", 302, [("Location", f"/v2/{next(numbers)}")])

    with answering(reply) as server, pytest.raises(Unavailable) as raised:
        tags(server)
    assert (raised.value.code, raised.value.about) == ("RedirectRefused", str(IMAGE))
    assert len(server.asked) == 11


INDEX = "application/vnd.oci.image.index.v1+json"


@pytest.mark.parametrize("header", ["", "sha256:short", "md5:0"])
@pytest.mark.parametrize("head", [200, 405, 501])
def test_without_a_digest_header_the_digest_is_that_of_the_content(header: str, head: int) -> None:
    body = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": []}, indent=3).encode()
    right = f"sha256:{hashlib.sha256(body).hexdigest()}"

    def reply(asked: Asked) -> Answer:
        return Answer(
            body, head if asked.method == "HEAD" else 200, [("Docker-Content-Digest", header)] if header else ()
        )

    with answering(reply) as server, RegistryClient({HOST: server.url}, patience=ONCE) as client:
        assert client.digest(IMAGE, "1.0") == right
        assert str(resolve_image(client, str(IMAGE), "==4.5.6")) == f"v4.5.6@{right}"


def test_a_page_of_something_else_is_no_digest() -> None:
    with (
        answering(lambda asked: Answer(b"<html>log in</html>")) as server,
        RegistryClient({HOST: server.url}, patience=ONCE) as client,
        pytest.raises(Unavailable) as raised,
    ):
        client.digest(IMAGE, "1.0")
    assert (raised.value.code, raised.value.about) == ("MalformedAnswer", str(IMAGE))


def stored(*documents: object) -> dict[str, bytes]:
    bodies = [json.dumps(document).encode() for document in documents]
    return {f"sha256:{hashlib.sha256(body).hexdigest()}": body for body in bodies}


def architectures(blobs: dict[str, bytes], digest: str) -> tuple[frozenset[str], int]:
    with (
        answering(lambda asked: Answer(blobs[asked.path.rpartition("/")[2]])) as server,
        RegistryClient({HOST: server.url}, patience=ONCE) as client,
    ):
        return client.architectures(IMAGE, digest), len(server.asked)


def test_an_index_without_platforms_is_told_by_its_images() -> None:
    configs = stored({"architecture": "amd64", "os": "linux"}, {"architecture": "riscv64"}, {})
    images = stored(*({"config": {"digest": digest}, "layers": []} for digest in configs))
    entries = [{"digest": digest} for digest in images]
    signed = {"digest": next(iter(images)), "platform": {"architecture": "unknown", "os": "unknown"}}
    statement = {"annotations": {"vnd.docker.reference.type": "attestation-manifest"}, "digest": "?"}
    artifact = {"artifactType": "application/spdx+json", "digest": "?"}
    stated = {"digest": "?", "platform": {"architecture": "s390x", "os": "linux"}}
    index = stored({"manifests": [*entries, signed, statement, artifact, stated]})
    found, asked = architectures({**configs, **images, **index}, next(iter(index)))
    assert found == {"amd64", "riscv64", "s390x"}
    assert asked == 1 + 3 + 3


def test_an_image_that_states_no_architecture_is_unknown() -> None:
    config = stored({"os": "linux"})
    image = stored({"config": {"digest": next(iter(config))}})
    assert architectures({**config, **image}, next(iter(image)))[0] == frozenset()
    many = stored({"manifests": [{"digest": next(iter(image))}] * 200})
    found, asked = architectures({**config, **image, **many}, next(iter(many)))
    assert (found, asked) == (frozenset(), 1)


@given(
    st.binary()
    | st.recursive(
        st.none() | st.booleans() | st.floats() | st.text() | st.integers(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "tags",
                        "manifests",
                        "config",
                        "digest",
                        "platform",
                        "architecture",
                        "errors",
                        "code",
                        "message",
                        "annotations",
                    ]
                ),
                inner,
                max_size=4,
            )
        ),
    ).map(lambda content: json.dumps(content).encode())
)
def test_readers_of_anything(body: bytes) -> None:
    assert isinstance(read_error(body), str)
    for read in (read_tags, read_manifest, read_architecture):
        with suppress(BadBytes):
            content = read(body)
            assert not isinstance(content, tuple) or all(map(is_tag, content))


@given(st.text(), st.text())
def test_links_of_anything(path: str, link: str) -> None:
    following = following_page("http://r.example/base", f"/v2/x/tags/list?{path}", link)
    assert following is None or following.startswith("/v2/")


HEADERS = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60)


@given(
    link=HEADERS,
    challenge=HEADERS,
    retry=HEADERS,
    limit=HEADERS,
    body=st.binary(max_size=60),
    status=st.sampled_from([200, 302, 304, 400, 401, 404, 429, 500]),
)
def test_a_client_of_anything(link: str, challenge: str, retry: str, limit: str, body: bytes, status: int) -> None:
    headers = {"Link": link, "WWW-Authenticate": challenge, "Retry-After": retry, "RateLimit": limit}
    _anything.answer = Answer(body, status, [*headers.items(), ("Location", f"/{link}")])
    for ask in (lambda: _client().tags(IMAGE), lambda: _client().find(IMAGE, "1.0")):
        # Any other error is a fault of ours.
        with suppress(LlmopsError):
            ask()


class _Anything:
    answer = Answer()
    client: RegistryClient | None = None


_anything = _Anything()


def _client() -> RegistryClient:
    assert _anything.client is not None
    return _anything.client


@pytest.fixture(autouse=True, scope="module")
def _running() -> Iterator[None]:
    with (
        answering(lambda asked: _anything.answer) as server,
        RegistryClient({HOST: server.url}, patience=ONCE) as client,
    ):
        _anything.client = client
        yield
