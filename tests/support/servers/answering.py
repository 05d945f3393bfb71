"""HTTP servers that answer as a test says, for answers that no healthy service gives."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


@dataclass(frozen=True)
class Asked:
    """One request: method, path with query, headers, and body."""

    method: str
    path: str
    headers: Message
    body: bytes = b""

    @property
    def authorization(self) -> str | None:
        """Value of the Authorization header."""
        return self.headers["Authorization"]


@dataclass(frozen=True)
class Answer:
    """One answer.

    Args:
        body: Bytes, or blocks of them as they are sent. Blocks are sent without a length, until the connection ends.
        status: Status.
        headers: Names and values.
    """

    body: bytes | Iterable[bytes] = b""
    status: int = 200
    headers: Iterable[tuple[str, str]] = ()


@dataclass
class Answering:
    """A running server.

    Attributes:
        url: Its base URL.
        asked: The requests so far.
    """

    url: str
    asked: list[Asked] = field(default_factory=list[Asked])

    @property
    def host(self) -> str:
        """HOST:PORT."""
        return self.url.partition("//")[2]


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients hang up, and refuse certificates: nothing that a test's output should show."""


@contextmanager
def answering(
    reply: Callable[[Asked], Answer], host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
) -> Generator[Answering]:
    """A server on a free port of a loopback address that answers each request by `reply`."""
    running = Answering("")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            asked = Asked(self.command, self.path, self.headers, self.rfile.read(length))
            running.asked.append(asked)
            answer = reply(asked)
            self.send_response(answer.status)
            for name, value in answer.headers:
                self.send_header(name, value)
            if isinstance(answer.body, bytes):
                self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            if self.command == "HEAD":
                return
            # Whoever asks may hang up.
            with suppress(OSError):
                for block in [answer.body] if isinstance(answer.body, bytes) else answer.body:
                    self.wfile.write(block)

        do_HEAD = do_POST = do_GET  # noqa: N815 - the library's names

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
            return

    server = _Quiet((host, 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
    running.url = f"{'https' if tls else 'http'}://{host}:{server.server_port}"
    try:
        yield running
    finally:
        server.shutdown()
        server.server_close()
