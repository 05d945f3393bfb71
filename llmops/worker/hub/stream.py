"""Large downloads at the speed of the network, with the redirects, retries and resume of `huggingface_hub`.

The library's HTTP client takes 2 s of CPU per GB, most of it with Python's lock held, so parallel files are no faster
than one. Through its documented `set_client_factory`, this transport answers GET by `http.client`, which reads from the
socket into one buffer without that lock (0.2 s per GB). All other requests, and all requests if a proxy is
configured, use the library's own transport.
"""

from __future__ import annotations

import http.client
import ssl
import urllib.request
from collections.abc import Iterator
from http import HTTPStatus

import httpx2
from huggingface_hub.utils import hf_raise_for_status

BLOCK = 512 << 10  # Bytes; small enough that a hash finds them in the cache.


def client() -> httpx2.Client:
    """A client for `huggingface_hub.set_client_factory`.

    It raises 429 at once, because the library's own waits are unbounded and silent.
    """
    return httpx2.Client(
        transport=None if {"http", "https", "all"} & urllib.request.getproxies().keys() else StreamingTransport(),
        event_hooks={"response": [_raise_if_limited]},
        follow_redirects=True,
        timeout=None,
    )


def _raise_if_limited(response: httpx2.Response) -> None:
    if response.status_code == HTTPStatus.TOO_MANY_REQUESTS:
        hf_raise_for_status(response)


class StreamingTransport(httpx2.BaseTransport):
    """Sends each GET over a new connection, and everything else through `httpx2.HTTPTransport`."""

    def __init__(self) -> None:
        self._usual = httpx2.HTTPTransport()
        self._tls = httpx2.create_ssl_context()

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send the request, and return the response with an unread body."""
        if request.method != "GET":
            return self._usual.handle_request(request)
        timeouts: dict[str, float | None] = request.extensions.get("timeout", {})
        connection = self._connection(request.url, timeouts.get("connect"))
        try:
            _connect(connection, timeouts.get("read"))
            answer = _ask(connection, request)
        except BaseException:
            connection.close()
            raise
        return _Streamed(answer.status, headers=answer.getheaders(), stream=_Body(connection, answer), request=request)

    def close(self) -> None:
        """Close the idle connections."""
        self._usual.close()

    def _connection(self, url: httpx2.URL, timeout: float | None) -> http.client.HTTPConnection:
        if url.scheme == "https":
            return http.client.HTTPSConnection(url.host, url.port, timeout=timeout, context=self._tls)
        return http.client.HTTPConnection(url.host, url.port, timeout=timeout)


def _connect(connection: http.client.HTTPConnection, read_timeout: float | None) -> None:
    try:
        connection.connect()
    except TimeoutError as error:
        raise httpx2.ConnectTimeout(str(error)) from error
    except (ssl.SSLError, OSError) as error:
        raise httpx2.ConnectError(str(error)) from error
    connection.sock.settimeout(read_timeout)


def _ask(connection: http.client.HTTPConnection, request: httpx2.Request) -> http.client.HTTPResponse:
    with _Mapped():
        connection.putrequest(
            request.method, request.url.raw_path.decode("ascii"), skip_host=True, skip_accept_encoding=True
        )
        for name, value in request.headers.raw:
            if name.lower() != b"connection":
                connection.putheader(name, value)
        connection.putheader("Connection", "close")
        connection.endheaders()
        return connection.getresponse()


class _Streamed(httpx2.Response):
    """A response that yields blocks as they come and ignores the requested size, because joining them costs more."""

    def iter_bytes(self, chunk_size: int | None = None) -> Iterator[bytes]:
        if hasattr(self, "_content") or self.headers.get("Content-Encoding", "identity") != "identity":
            return super().iter_bytes(chunk_size)
        return self.iter_raw()


class _Body(httpx2.SyncByteStream):
    """The body of an answer, read in blocks."""

    def __init__(self, connection: http.client.HTTPConnection, answer: http.client.HTTPResponse) -> None:
        self._connection = connection
        self._answer = answer

    def __iter__(self) -> Iterator[bytes]:
        announced = self._answer.length  # None if the body is chunked: then http.client detects its end.
        received = 0
        block = memoryview(bytearray(BLOCK))
        while True:
            with _Mapped():
                count = self._answer.readinto(block)
            if count == 0:
                break
            received += count
            yield bytes(block[:count])
        if announced is not None and received != announced:
            raise httpx2.RemoteProtocolError(f"the connection ended after {received} of {announced} bytes")

    def close(self) -> None:
        self._answer.close()
        self._connection.close()


class _Mapped:
    """Maps errors of a connection to those of the library, which then retries."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        match error:
            case TimeoutError():
                raise httpx2.ReadTimeout(str(error)) from error
            case http.client.HTTPException() | ConnectionResetError():
                raise httpx2.RemoteProtocolError(str(error)) from error
            case OSError():
                raise httpx2.ReadError(str(error)) from error
            case _:
                return
