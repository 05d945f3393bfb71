from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Generator

import httpx2
import pytest

from llmops.worker.hub.stream import BLOCK, StreamingTransport

Serve = Callable[[bytes], str]


@pytest.fixture
def serve() -> Generator[Serve]:
    """Answer one request with exactly these bytes, then close the connection."""
    listener = socket.create_server(("127.0.0.1", 0))
    threads: list[threading.Thread] = []

    def served(answer: bytes) -> str:
        def once() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        threads.append(threading.Thread(target=once, daemon=True))
        threads[-1].start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}/file"

    yield served
    listener.close()
    for thread in threads:
        thread.join(timeout=10)


def read(url: str, chunk_size: int = 1 << 20) -> bytes:
    with (
        httpx2.Client(transport=StreamingTransport()) as client,
        client.stream("GET", url, timeout=5) as response,
    ):
        return b"".join(response.iter_bytes(chunk_size))


def test_a_body_larger_than_a_block_comes_whole(serve: Serve) -> None:
    body = bytes(range(256)) * (3 * BLOCK // 256) + b"end"
    assert read(serve(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)) == body


def test_a_body_in_chunks_comes_whole(serve: Serve) -> None:
    assert (
        read(serve(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"))
        == b"abcde"
    )


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"",
        b"nonsense\r\n\r\n",
    ],
)
def test_a_torn_or_malformed_answer_is_an_error_that_the_library_retries(serve: Serve, answer: bytes) -> None:
    with pytest.raises(httpx2.RemoteProtocolError):
        read(serve(answer))


def test_a_missing_server_is_a_connect_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(httpx2.ConnectError):
        read(f"http://127.0.0.1:{port}/")


def test_a_compressed_body_is_decoded(serve: Serve) -> None:
    import gzip

    body = gzip.compress(b"text" * 1000)
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body)
    assert read(serve(head + body)) == b"text" * 1000
