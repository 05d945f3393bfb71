"""A webhook receiver of alerts: it checks signatures, and drops repeated alerts."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Alert = dict[str, Any]


class Receiver:
    """An HTTP server on loopback; use it in a `with`.

    Args:
        secret: Key of the signatures in the form of Standard Webhooks: `whsec_` and base64.
        on_alert: Called with each new alert.
    """

    def __init__(self, secret: str, on_alert: Callable[[Alert], None]) -> None:
        self.alerts: dict[str, Alert] = {}
        """The data of the messages by id."""
        self.away = False
        """Whether the receiver answers every delivery with HTTP 503."""
        self._key = base64.b64decode(secret.removeprefix("whsec_"))
        self._on_alert = on_alert
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, name="receiver", daemon=True)

    @property
    def url(self) -> str:
        """The URL for alerts."""
        return f"http://127.0.0.1:{self._server.server_port}/alerts"

    def __enter__(self) -> Receiver:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def take(self, identity: str, stamp: str, signatures: str, body: bytes) -> int:
        """Check and keep one delivery; returns the HTTP status of the answer."""
        if self.away:
            return 503
        signed = hmac.new(self._key, f"{identity}.{stamp}.".encode() + body, hashlib.sha256).digest()
        wanted = f"v1,{base64.b64encode(signed).decode()}"
        if not any(hmac.compare_digest(wanted, signature) for signature in signatures.split()):
            return 401
        if identity not in self.alerts:
            self.alerts[identity] = json.loads(body)["data"]
            self._on_alert(self.alerts[identity])
        return 204

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        take = self.take

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                names = ("webhook-id", "webhook-timestamp", "webhook-signature")
                identity, stamp, signatures = (self.headers.get(name, "") for name in names)
                self.send_response(take(identity, stamp, signatures, body))
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
                """Log nothing: the timeline has the alerts."""

        return Handler
