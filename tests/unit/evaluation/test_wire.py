"""The parser of answers: its result does not depend on how packets cut the bytes."""

from __future__ import annotations

from itertools import pairwise, repeat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.evaluation.runners.wire import MAX_EVENT, MAX_OVERHEAD, Answer, Events, WireError

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
        CHUNKED + b"3\r\nabcde\r\n",
        CHUNKED + b"0\r\n\r\nHTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"HTTP/2.0 200 OK\r\nContent-Length: 1\r\n\r\na",
        b"x" * 70_000,
    ],
)
def test_bytes_that_are_no_answer_are_refused(data: bytes) -> None:
    with pytest.raises(WireError) as raised:
        Answer().feed(data)
    assert raised.value.code == "NotHttp"
    with pytest.raises(WireError):
        read(Answer(), [data[place : place + 1] for place in range(len(data))])


@pytest.mark.parametrize(
    ("before", "endless"),
    [
        (b"HTTP/1.1 200 OK\r\n", b"X-One-More: header\r\n"),
        (b"HTTP/1.1 200 OK\r\nX-Long: ", b"value"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (CHUNKED + b"3;name=", b"value"),
        (CHUNKED + b"3\r\nabc\r\n0\r\n", b"X-One-More: trailer\r\n"),
    ],
)
def test_an_endless_head_or_chunk_extension_or_trailer_is_refused(before: bytes, endless: bytes) -> None:
    answer = Answer()
    read(answer, [before, *repeat(endless, (MAX_OVERHEAD - len(before)) // len(endless))])
    with pytest.raises(WireError, match="65536 bytes") as raised:
        answer.feed(endless * 20)
    assert raised.value.code == "AnswerTooLong"
    assert not answer.complete


def test_a_body_may_be_longer_than_a_head() -> None:
    answer = Answer()
    body = read(answer, [CHUNKED, *repeat(b"400\r\n%s\r\n" % (b"x" * 1024), 200), b"0\r\n\r\n"])
    assert len(body) == 200 * 1024
    assert answer.complete


def test_an_interim_answer_is_no_end() -> None:
    answer = Answer()
    answer.feed(b"HTTP/1.1 100 Continue\r\nContent-Length: 0\r\n\r\n")
    answer.close()
    assert (answer.status, answer.complete, answer.keep_alive, answer.headers) == (0, False, False, {})


def test_trailers_are_no_headers() -> None:
    answer = Answer()
    answer.feed(chunked([b"abc"], trailers=b"Connection: close\r\nX-Late: 1\r\n"))
    assert answer.headers == {"transfer-encoding": "chunked", "content-type": "text/event-stream"}


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
    read_events = [event for packet in cut(body, places) for event in events.feed(packet)]
    assert [event.decode() for event in read_events] == texts


def test_an_event_of_several_lines_is_one() -> None:
    assert Events().feed(b"data: a\ndata: b\n\ndata: unfinished\n") == [b"a\nb"]


@pytest.mark.parametrize("part", [b"endless", b"data: more\n", b"data:\n"])
def test_an_event_that_never_ends_is_refused(part: bytes) -> None:
    events = Events()
    assert events.feed(b"data: {}\n\n" * MAX_EVENT) == [b"{}"] * MAX_EVENT
    with pytest.raises(WireError) as raised:
        events.feed(part * (MAX_EVENT + 1))
    assert raised.value.code == "AnswerTooLong"
