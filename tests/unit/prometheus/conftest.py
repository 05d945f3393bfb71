"""An HTTP server with scripted answers, for answers that no healthy Prometheus gives."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

import pytest


@dataclass
class ScriptedServer:
    """Gives its answers in order, and repeats the last one; records path and form of each request.

    Attributes:
        url: Base URL.
        answers: Status, body and headers of each answer.
        asked: Path and form of each request.
    """

    url: str = ""
    answers: list[tuple[int, Any, dict[str, str]]] = field(default_factory=list[tuple[int, Any, dict[str, str]]])
    asked: list[tuple[str, dict[str, list[str]]]] = field(default_factory=list[tuple[str, dict[str, list[str]]]])

    def answer(self, status: int, body: Any, **headers: str) -> None:
        """Append an answer."""
        self.answers.append((status, body, headers))


@pytest.fixture
def scripted() -> Iterator[ScriptedServer]:
    script = ScriptedServer()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            form = self.rfile.read(int(self.headers["Content-Length"])).decode()
            script.asked.append((self.path, parse_qs(form)))
            status, body, headers = script.answers.pop(0) if len(script.answers) > 1 else script.answers[0]
            content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    script.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield script
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
