"""The parser of answers: whatever way the bytes are cut into packets, what it finds is the same."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.evaluation.wire import Answer, Events, WireError

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: text/event-stream\r\n\r\n"


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """The data in packets, cut at those places."""
    marks = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(marks)]


def chunked(bodies: list[bytes], extension: bytes = b"", trailers: bytes = b"") -> bytes:
    parts = b"".join(b"%x%s\r\n%s\r\n" % (len(body), extension, body) for body in bodies if body)
    return CHUNKED + parts + b"0\r\n" + trailers + b"\r\n"


def read(answer: Answer, packets: list[bytes]) -> bytes:
    return b"".join(answer.feed(packet) for packet in packets)


@given(
    st.lists(st.binary(max_size=40), max_size=6),
    st.lists(st.integers(0, 1000), max_size=20),
    st.sampled_from([b"", b";name=value"]),
    st.sampled_from([b"", b"X-Trailer: 1\r\n"]),
)
def test_chunks_in_any_packets(bodies: list[bytes], places: list[int], extension: bytes, trailers: bytes) -> None:
    answer = Answer()
    assert read(answer, cut(chunked(bodies, extension, trailers), places)) == b"".join(bodies)
    assert answer.complete
    assert answer.keep_alive
    assert answer.status == 200


@given(st.lists(st.binary(min_size=1, max_size=20), min_size=1, max_size=4), st.integers(0, 10_000))
def test_a_cut_stream_is_never_complete(bodies: list[bytes], place: int) -> None:
    whole = chunked(bodies)
    answer = Answer()
    body = read(answer, [whole[: place % len(whole)]])
    answer.close()
    assert not answer.complete
    assert b"".join(bodies).startswith(body)


@given(st.binary(max_size=60), st.lists(st.integers(0, 1000), max_size=10))
def test_body_of_a_length(body: bytes, places: list[int]) -> None:
    data = b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: %d\r\nConnection: close\r\n\r\n%s" % (
        len(body),
        body,
    )
    answer = Answer()
    assert read(answer, cut(data, places)) == body
    assert answer.complete
    assert not answer.keep_alive
    assert answer.status == 500


@given(st.binary(max_size=60), st.lists(st.integers(0, 1000), max_size=10))
def test_body_up_to_the_end_of_the_connection(body: bytes, places: list[int]) -> None:
    answer = Answer()
    assert read(answer, cut(b"HTTP/1.0 200 OK\r\n\r\n" + body, places)) == body
    assert not answer.complete
    answer.close()
    assert answer.complete
    assert not answer.keep_alive


def test_interim_answers_are_skipped() -> None:
    answer = Answer()
    assert answer.feed(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi") == b"hi"
    assert answer.status == 200


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab",
        CHUNKED + b"xyz\r\nabc\r\n",
        CHUNKED + b"-3\r\nabc\r\n",
        b"x" * 70_000,
    ],
)
def test_what_is_no_answer_is_refused(data: bytes) -> None:
    with pytest.raises(WireError):
        Answer().feed(data)


@given(
    st.lists(st.text(st.characters(exclude_characters="\r\n", codec="utf-8"), min_size=1, max_size=20), max_size=6),
    st.lists(st.integers(0, 1000), max_size=20),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from(["data: ", "data:", ": comment\ndata: ", "event: x\nid: 1\ndata: "]),
)
def test_events_in_any_packets(texts: list[str], places: list[int], end: str, before: str) -> None:
    texts = [text.lstrip(" ") or "x" for text in texts]
    body = "".join(f"{before}{text}\n\n" for text in texts).replace("\n", end).encode()
    events = Events()
    found = [event for packet in cut(body, places) for event in events.feed(packet)]
    assert [event.decode() for event in found] == texts


def test_an_event_of_several_lines_is_one() -> None:
    assert Events().feed(b"data: a\ndata: b\n\ndata: unfinished\n") == [b"a\nb"]
