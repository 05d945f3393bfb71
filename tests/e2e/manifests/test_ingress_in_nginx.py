"""The rendered Ingress in a real nginx, configured as ingress-nginx does by the annotations."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager, suppress
from http.client import HTTPConnection, HTTPResponse, IncompleteRead
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from llmops_sandbox.programs.nginx import find_or_unpack

from llmops.config.catalog.spec import ModelSpec
from llmops.config.settings import Settings
from llmops.manifests.companions import exposure
from llmops.releases.release import Release

PREFIX = "nginx.ingress.kubernetes.io/"
HOST = "llm.example.com"
PAUSE = 3.0


class Engine(BaseHTTPRequestHandler):
    """Streams two lines with a pause of 3 s between them, and returns the headers of the request."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        body = json.dumps({"path": self.path, **self.headers}).encode()
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        # With buffering nginx holds back an answer without length and chunks. It always passes on chunks.
        chunked = not self.path.endswith("/unchunked")
        self.send_header(*(("Transfer-Encoding", "chunked") if chunked else ("Connection", "close")))
        self.end_headers()
        # The client has gone, or nginx cut it off.
        with suppress(OSError):
            for number in range(2):
                time.sleep(PAUSE if number else 0)
                line = f"data: {number}\n\n".encode()
                self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n" if chunked else line)
            if chunked:
                self.wfile.write(b"0\r\n\r\n")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name in the base class
        pass


class Auth(BaseHTTPRequestHandler):
    """Accepts one token, and returns its tenant."""

    def do_GET(self) -> None:
        accepted = self.headers["Authorization"] == "Bearer good"
        self.send_response(200 if accepted else 401)
        self.send_header("X-Tenant-Id", "acme")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name in the base class
        pass


@contextmanager
def listening(handler: type[BaseHTTPRequestHandler]) -> Generator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


def configuration(ingress: dict[str, Any], engine: int, port: int) -> str:
    """nginx' configuration as ingress-nginx writes it for an Ingress, reduced to what its annotations set."""
    annotations = {name.removeprefix(PREFIX): text for name, text in ingress["metadata"]["annotations"].items()}
    (rule,) = ingress["spec"]["rules"]
    (path,) = rule["http"]["paths"]
    assert path["pathType"] == "Prefix"
    auth, headers = "", ""
    if url := annotations.get("auth-url"):
        auth = f"""location = /_auth {{
            internal; proxy_pass_request_body off; proxy_set_header Content-Length ""; proxy_pass {url};
        }}"""
        headers = "auth_request /_auth;"
        for number, name in enumerate(annotations["auth-response-headers"].split(",")):
            variable = name.lower().replace("-", "_")
            headers += f"auth_request_set $answer{number} $upstream_http_{variable};"
            headers += f"proxy_set_header '{name}' $answer{number};"
    proxied = f"""{{
        {headers}
        client_max_body_size {annotations["proxy-body-size"]};
        proxy_read_timeout {annotations["proxy-read-timeout"]}s;
        proxy_send_timeout {annotations["proxy-send-timeout"]}s;
        proxy_buffering {annotations["proxy-buffering"]};
        proxy_http_version 1.1; proxy_pass http://127.0.0.1:{engine};
    }}"""
    return f"""
    daemon off; master_process off; error_log stderr; pid nginx.pid;
    events {{}}
    http {{
        access_log off;
        client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
        uwsgi_temp_path uwsgi; scgi_temp_path scgi;
        server {{
            listen 127.0.0.1:{port}; server_name {rule["host"]};
            {auth}
            location = {path["path"]} {proxied}
            location {path["path"]}/ {proxied}
            location / {{ return 404; }}
        }}
    }}
    """


@contextmanager
def nginx(folder: Path, ingress: dict[str, Any], engine: int) -> Generator[int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    (folder / "nginx.conf").write_text(configuration(ingress, engine, port))
    log = (folder / "log").open("wb")
    process = subprocess.Popen([find_or_unpack(), "-p", folder, "-c", folder / "nginx.conf"], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait(10)
        log.close()


def ingress(release: Release, settings: Settings, **declared: Any) -> dict[str, Any]:
    spec = ModelSpec.model_validate(
        {
            "name": "tiny",
            "weights": {"repo": "acme/tiny"},
            "engine": {"version": "0.32.0"},
            "access": {"api_key": {"name": "key", "key": "api-key"}},
            "exposure": {"kind": "ingress", "host": HOST, **declared},
        }
    )
    (rendered,) = exposure.objects(spec, release, settings)
    return rendered


def ask(
    port: int, path: str, method: str = "GET", body: bytes | None = None, headers: dict[str, str] | None = None
) -> HTTPResponse:
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request(method, path, body, {"Host": HOST, **(headers or {})})
    return connection.getresponse()


def arrivals(port: int) -> Iterator[float]:
    """Seconds after the request at which each line of a streamed answer came."""
    began = time.monotonic()
    answer = ask(port, "/v1/unchunked", "POST", b"{}")
    while line := answer.readline():
        if line.strip():
            yield time.monotonic() - began


def test_a_stream_with_pauses_survives_and_comes_token_by_token_and_nothing_else_is_open(
    tmp_path: Path, release: Release, settings: Settings
) -> None:
    """Slow: a stream has to pause for longer than a short timeout to be cut."""
    short = ingress(release, settings)
    short["metadata"]["annotations"][PREFIX + "proxy-read-timeout"] = "1"
    with ExitStack() as stack:
        engine = stack.enter_context(listening(Engine))
        places = [tmp_path / name for name in ("as-rendered", "short")]
        for place in places:
            place.mkdir()
        port = stack.enter_context(nginx(places[0], ingress(release, settings), engine))
        cut = stack.enter_context(nginx(places[1], short, engine))

        times = list(arrivals(port))
        assert len(times) == 2
        assert times[1] - times[0] > PAUSE / 2, "the first token waited for the others: the answer was buffered"

        answer = ask(cut, "/v1/chat/completions", "POST", b"{}")
        with pytest.raises((IncompleteRead, ConnectionError)):
            answer.read()

        assert ask(port, "/v1/models").status == 200
        closed = ("/metrics", "/health", "/llmops/drain", "/v1/../metrics", "/v1/%2e%2e/metrics", "/v1%2f..%2fmetrics")
        assert {path: ask(port, path).status for path in closed} == dict.fromkeys(closed, 404)
        assert ask(port, "/v10/x").status == 404
        assert ask(port, "/v1/x", "POST", b"x" * 33_600_000).status == 413


def test_who_asks_is_asked_for_and_cannot_say_who_they_are(
    tmp_path: Path, release: Release, settings: Settings
) -> None:
    with listening(Engine) as engine, listening(Auth) as auth:
        authenticated = ingress(
            release,
            settings,
            auth_url=f"http://127.0.0.1:{auth}/verify",
            auth_response_headers=["X-Tenant-Id"],
        )
        with nginx(tmp_path, authenticated, engine) as port:
            assert ask(port, "/v1/models").status == 401
            assert ask(port, "/v1/models", headers={"Authorization": "Bearer other"}).status == 401
            forged = {"Authorization": "Bearer good", "X-Tenant-Id": "someone else"}
            answer = ask(port, "/v1/models", headers=forged)
            assert answer.status == 200
            seen_headers = yaml.safe_load(answer.read())
            assert seen_headers["X-Tenant-Id"] == "acme"
            assert seen_headers["Authorization"] == "Bearer good"
