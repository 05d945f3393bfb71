"""Answers of the hub are bounded, and what it says is never taken for granted."""

from __future__ import annotations

import gzip
import json
import struct
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.clients.hub import check_access, count_parameters, list_files, read_config, resolve
from llmops.clients.retries import Patience
from llmops.errors import BadRelease, LlmopsError, Unavailable
from tests.support.servers.answering import Answer, Answering, answering

REPO = "acme/strange"
COMMIT = "c0ffee" + "0" * 34
ONCE = Patience(attempts=1)
MIB = 1 << 20


class _Hub:
    server = Answering("")
    answer = Answer()


_hub = _Hub()


@pytest.fixture(autouse=True, scope="module")
def _running() -> Iterator[None]:
    with answering(lambda asked: _hub.answer) as _hub.server:
        yield


def forever(block: bytes, seconds: float = 0) -> Iterator[bytes]:
    while True:
        yield block
        time.sleep(seconds)


def config(answer: Answer) -> object:
    _hub.answer = answer
    return read_config(REPO, COMMIT, endpoint=_hub.server.url, patience=ONCE)


@pytest.mark.parametrize(
    "answer",
    [
        Answer(forever(b" " * MIB)),
        Answer(gzip.compress(b" " * (200 * MIB)), headers=[("Content-Encoding", "gzip")]),
        Answer(b"[" * 200_000),
        Answer(b'{"a":' * 100_000),
        Answer(b'{"a":' + b"9" * 5000 + b"}"),
        Answer(b"\xff\xfe{}"),
        Answer(b"[]"),
    ],
)
def test_a_configuration_beyond_bounds_is_the_releases_fault(answer: Answer) -> None:
    tracemalloc.start()
    with pytest.raises(BadRelease) as raised:
        config(answer)
    assert tracemalloc.get_traced_memory()[1] < 64 * MIB
    tracemalloc.stop()
    assert (raised.value.code, raised.value.about) == ("FileMalformed", f"config.json of {REPO}@{COMMIT[:12]}")


def test_a_configuration_with_infinity_is_read() -> None:
    # As those of Mamba models have it, in `time_step_limit`.
    assert config(Answer(b'{"time_step_limit": [0.0, Infinity]}')) == {"time_step_limit": [0.0, float("inf")]}


@pytest.mark.parametrize(
    "header",
    [
        b"[" * 50_000,
        b'{"a": {"dtype": "BF16", "shape": [1], "data_offsets": [0, "x"]}}',
        b'{"a": {"dtype": "BF16", "shape": "x", "data_offsets": [0, 1]}}',
        b'{"a": ' + b"[" * 3000 + b"]" * 3000 + b"}",
        b"{}}",
        b'{"a": {"dtype": "BF16", "shape": [' + b"99," * 300_000 + b'1], "data_offsets": [0, 1]}}',
        b'{"a": {"dtype": "BF16", "shape": [' + b"9" * 4000 + b'], "data_offsets": [0, 1]}}',
    ],
    ids=lambda value: f"{len(value)} bytes" if isinstance(value, bytes) else None,
)
def test_a_header_of_another_form_is_the_releases_fault(header: bytes) -> None:
    _hub.answer = Answer(struct.pack("<Q", len(header)) + header)
    with pytest.raises(BadRelease) as raised:
        count_parameters(REPO, COMMIT, ["model.safetensors"], endpoint=_hub.server.url, patience=ONCE)
    assert (raised.value.code, raised.value.about) == ("FileMalformed", f"model.safetensors of {REPO}@{COMMIT[:12]}")


def test_a_hub_without_ranges_sends_no_whole_weights() -> None:
    _hub.answer = Answer(forever(bytes(MIB)))
    with pytest.raises(BadRelease) as raised:
        count_parameters(REPO, COMMIT, ["model.safetensors"], endpoint=_hub.server.url, patience=ONCE)
    assert raised.value.code == "FileMalformed"


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 200_000,
        b"[]",
        b'"text"',
        b"7",
        b'{"id": "x", "siblings": 5}',
        b'{"id": "x", "siblings": [[]]}',
        b'{"id": "x", "siblings": [{"rfilename": "a", "size": "many", "blobId": "1"}]}',
        b'{"id": "x", "siblings": [{"rfilename": ["a"], "size": 1, "blobId": "1"}, {"rfilename": "b", "blobId": 2}]}',
        json.dumps({"id": "x", "siblings": [{"rfilename": "../up", "size": 1, "blobId": "0" * 40}]}).encode(),
        json.dumps({"id": "x", "siblings": [{"rfilename": "/etc/x", "size": 1, "blobId": "0" * 40}]}).encode(),
        json.dumps({"id": "x", "siblings": [{"rfilename": "a/./b", "size": 1, "blobId": "0" * 40}]}).encode(),
        json.dumps({"id": "x", "siblings": [{"rfilename": "a\0b", "size": 1, "blobId": "0" * 40}]}).encode(),
        json.dumps({"id": "x", "siblings": [{"rfilename": "a", "size": True, "blobId": "0" * 40}]}).encode(),
        b'{"id": "x", "siblings": [{"rfilename": "a", "size": 1, "lfs": {"size": -5, "sha256": 7, "pointerSize": 1}}]}',
        b'{"id": "x", "siblings": [{"rfilename": "a", "size": 1, "lfs": {}}]}',
        b'{"id": "x", "sha": 5, "createdAt": 5}',
        b'{"id": "x", "sha": "../../evil"}',
    ],
    ids=lambda value: f"{len(value)} bytes" if isinstance(value, bytes) else None,
)
def test_listings_of_another_form(body: bytes) -> None:
    _hub.answer = Answer(body)
    with pytest.raises(Unavailable) as raised:
        resolve(REPO, "main", endpoint=_hub.server.url, patience=ONCE)
    assert raised.value.code in ("HubUnreachable", "MalformedAnswer")
    if b"sha" not in body:
        with pytest.raises(Unavailable) as raised:
            list_files(REPO, COMMIT, endpoint=_hub.server.url, patience=ONCE)
        assert raised.value.code in ("HubUnreachable", "MalformedAnswer")


def test_a_listing_without_an_end() -> None:
    _hub.answer = Answer(forever(b" " * MIB))
    with pytest.raises(Unavailable) as raised:
        list_files(REPO, COMMIT, endpoint=_hub.server.url, patience=ONCE)
    assert (raised.value.code, raised.value.about) == ("AnswerTooLarge", f"{REPO}@{COMMIT}")


def test_the_token_of_the_hub_stays_there() -> None:
    with answering(lambda asked: Answer(b'{"model_type": "llama"}'), "127.0.0.2") as storage:
        for status in (302, 307):
            _hub.answer = Answer(b"", status, [("Location", f"{storage.url}/signed")])
            assert read_config(REPO, COMMIT, endpoint=_hub.server.url, token="hf_MARKED", patience=ONCE)
        assert [asked.authorization for asked in storage.asked] == [None, None]
    assert _hub.server.asked[-1].authorization == "Bearer hf_MARKED"


HEADER = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40)


@given(
    body=st.binary(max_size=80)
    | st.recursive(
        st.none() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner, max_size=2)
            | st.dictionaries(st.sampled_from(["sha", "siblings", "lfs", "size", "rfilename", "id", "error"]), inner)
        ),
        max_leaves=8,
    ).map(lambda content: json.dumps(content).encode()),
    status=st.sampled_from([200, 400, 401, 403, 404, 416, 429, 500]),
    headers=st.dictionaries(st.sampled_from(["X-Error-Code", "X-Error-Message", "RateLimit", "Retry-After"]), HEADER),
)
def test_a_hub_of_anything(body: bytes, status: int, headers: dict[str, str]) -> None:
    _hub.answer = Answer(body, status, list(headers.items()))
    url = _hub.server.url
    for ask in (
        lambda: resolve(REPO, "main", endpoint=url, patience=ONCE),
        lambda: list_files(REPO, COMMIT, endpoint=url, patience=ONCE),
        lambda: read_config(REPO, COMMIT, endpoint=url, patience=ONCE),
        lambda: count_parameters(REPO, COMMIT, ["a.safetensors"], endpoint=url, patience=ONCE),
        lambda: check_access(REPO, endpoint=url, patience=ONCE),
    ):
        # Any other error is a fault of ours.
        with suppress(LlmopsError):
            ask()
