"""The gate in front of LiteLLM, as the router's ConfigMap holds it, under the server that LiteLLM uses."""

from __future__ import annotations

import importlib.util
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx2
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from llmops.config.settings import Settings
from llmops.manifests.router import config_map, drain_path, objects
from llmops.manifests.router.plan import plan

MOST = 200_000
KEY = "sk-acme-0123456789"
HIDDEN = "/llmops/drain/kept-to-itself"
CHAT = "/v1/chat/completions"


def installation() -> Settings:
    return Settings.model_validate({"router": {"enabled": True}})


def module(folder: Path, name: str) -> ModuleType:
    """A module out of the ConfigMap."""
    settings = installation()
    file = folder / f"{name}.py"
    file.write_text(config_map(plan({}, {}, {}, settings), settings)["data"][file.name])
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


class Server:
    """The gate before an application that tells its request."""

    def __init__(self, folder: Path, protocol: Any) -> None:
        keys = folder / "keys"
        keys.mkdir()
        (keys / "acme").write_text(KEY + "\n")
        gate, drain = module(folder, "llmops_gate"), module(folder, "llmops_drain")
        self.seen: list[dict[str, Any]] = []
        paths = (CHAT, "/v1/completions", "/v1/embeddings", "/v1/models", "/health/readiness", "/key/generate")
        application = Starlette(routes=[Route(path, self._tell, methods=["GET", "POST", "PUT"]) for path in paths])
        guarded = gate.Gate(application, gate.Keys(["acme"], keys, "sk-master-0123456789"), MOST)
        hidden = gate.HiddenDrain(drain.Drain(guarded), drain.PATH, HIDDEN)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._server = uvicorn.Server(uvicorn.Config(hidden, http=protocol, lifespan="off", log_level="error"))
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],))

    async def _tell(self, request: Request) -> JSONResponse:
        body = await request.body()
        told = {
            "path": request.url.path,
            "query": request.url.query,
            "headers": dict(request.headers),
            "body": json.loads(body) if body else None,
        }
        self.seen.append(told)
        return JSONResponse(told)

    def __enter__(self) -> Server:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = self._server.force_exit = True
        self._thread.join(10)

    def ask(self, body: Any, headers: dict[str, str] | None = None, path: str = CHAT) -> httpx2.Response:
        return httpx2.post(self.url + path, json=body, headers={"authorization": f"Bearer {KEY}", **(headers or {})})

    def send(self, head: str, *, parts: int, part: bytes) -> tuple[str, int]:
        """The status line of an answer, and how many bytes of the body the server let be sent until then."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            connection.sendall(head.replace("\n", "\r\n").encode() + b"\r\n")
            sent = 0
            connection.settimeout(0.05)
            answer = b""
            for _ in range(parts):
                try:
                    connection.sendall(part)
                    sent += len(part)
                except OSError:
                    break
            connection.settimeout(5)
            try:
                answer = connection.recv(4096)
            except ConnectionResetError:
                answer = b"reset"
            return answer.split(b"\r\n", 1)[0].decode(), sent


@pytest.fixture(params=["httptools", "h11"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path, request.param) as running:
        yield running


@pytest.mark.parametrize("headers", [{"authorization": ""}, {"authorization": "Bearer sk-other"}, {"x-api-key": "no"}])
def test_a_stranger_is_refused_before_any_byte_of_his_body_is_read(server: Server, headers: dict[str, str]) -> None:
    shown = "".join(f"{name}: {value}\n" for name, value in headers.items())
    # Not one byte of the body is sent: a server that waits for it would not answer.
    head = f"POST {CHAT} HTTP/1.1\nHost: router\n{shown}Content-Length: 157286400\n"
    status, _ = server.send(head, parts=0, part=b"")
    assert status.startswith("HTTP/1.1 401")
    assert server.seen == []


@pytest.mark.parametrize("length", [MOST + 1, 157_286_400])
def test_a_declared_length_above_the_limit_is_refused_without_the_body(server: Server, length: int) -> None:
    head = f"POST {CHAT} HTTP/1.1\nHost: router\nAuthorization: Bearer {KEY}\nContent-Length: {length}\n"
    assert server.send(head, parts=0, part=b"")[0].startswith("HTTP/1.1 413")
    assert server.seen == []


def test_a_body_of_unknown_length_is_refused_once_it_is_above_the_limit(server: Server) -> None:
    head = f"POST {CHAT} HTTP/1.1\nHost: router\nAuthorization: Bearer {KEY}\nTransfer-Encoding: chunked\n"
    part = b"%x\r\n" % 50_000 + b"x" * 50_000 + b"\r\n"
    status, _ = server.send(head, parts=5, part=part)
    assert status.startswith("HTTP/1.1 413"), status
    assert server.seen == []


def test_the_largest_request_passes(server: Server) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "x" * (MOST - 80)}]}
    assert server.ask(body).json()["body"] == body


def test_orders_to_litellm_do_not_pass(server: Server) -> None:
    sent = {"model": "m", "messages": [{"role": "user", "content": "ü😀"}], "temperature": 0, "top_k": 3}
    orders = {
        "num_retries": 20,
        "max_retries": 7,
        "extra_headers": {"authorization": "Bearer stolen"},
        "headers": {"x-admin": "1"},
        "extra_body": {"priority": -5},
        "api_base": "http://169.254.169.254/",
        "base_url": "http://elsewhere",
        "fallbacks": ["other"],
        "mock_response": "hi",
        "metadata": {"tags": ["x"]},
        "priority": -1000,
        "kv_transfer_params": {"remote_host": "elsewhere"},
        "timeout": 86400,
    }
    told = server.ask(
        sent | orders,
        {"x-litellm-num-retries": "20", "x-litellm-timeout": "9", "x-pass-x": "y", "cookie": "a=b", "Traceparent": "t"},
        path=f"{CHAT}?num_retries=20",
    ).json()
    assert told["body"] == sent
    assert told["query"] == ""
    assert {"host", "authorization", "content-type", "content-length", "traceparent"} <= set(told["headers"])
    assert not [name for name in told["headers"] if name.startswith(("x-", "cookie"))]


@pytest.mark.parametrize(
    "header", [("api-key", KEY), ("X-Api-Key", KEY), ("x-litellm-api-key", f"Bearer {KEY}"), ("authorization", KEY)]
)
def test_a_key_is_known_in_each_header_where_litellm_looks(server: Server, header: tuple[str, str]) -> None:
    told = server.ask({"model": "m"}, {"authorization": "Bearer none", **dict([header])}).json()
    assert told["headers"]["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("body", [b"", b"[1]", b"{", b"[" * 100_000, b"\xff\xfe", b'{"seed": ' + b"9" * 5000 + b"}"])
def test_what_is_no_json_object_is_a_bad_request(server: Server, body: bytes) -> None:
    answer = httpx2.post(server.url + CHAT, content=body, headers={"authorization": f"Bearer {KEY}"})
    assert answer.status_code == 400
    assert server.seen == []


@pytest.mark.parametrize("path", ["/llmops/drain", "/llmops/drain/", "/llmops/drain/x", "//llmops/drain", HIDDEN + "x"])
def test_nobody_drains_the_router_without_its_path(server: Server, path: str) -> None:
    for key in ({}, {"authorization": f"Bearer {KEY}"}):
        assert httpx2.get(server.url + path, headers=key, params={"seconds": "0"}).status_code == 404
    answer = httpx2.get(server.url + "/health/readiness")
    assert answer.headers.get("connection") != "close"


def test_the_pods_own_hook_drains_it(server: Server) -> None:
    assert httpx2.get(server.url + HIDDEN, params={"seconds": "0", "idle": "0"}).status_code == 200
    assert server.ask({"model": "m"}).headers["connection"] == "close"


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/key/generate"), ("PUT", CHAT), ("GET", CHAT), ("POST", "/v1/models"), ("GET", "/")]
)
def test_what_is_not_open_is_not_there(server: Server, method: str, path: str) -> None:
    answer = httpx2.request(method, server.url + path, headers={"authorization": f"Bearer {KEY}"})
    assert answer.status_code == 404
    assert server.seen == []


def test_models_are_listed_with_a_key_alone(server: Server) -> None:
    assert httpx2.get(f"{server.url}/v1/models").status_code == 401
    told = httpx2.get(f"{server.url}/v1/models?team_id=other", headers={"authorization": f"Bearer {KEY}"}).json()
    assert told["query"] == ""


def test_the_fields_that_pass_are_the_apis_and_none_of_litellms(tmp_path: Path) -> None:
    gate = module(tmp_path, "llmops_gate")
    assert {"model", "messages", "input", "prompt", "stream", "tools", "structured_outputs"} <= gate.FIELDS
    assert not gate.FIELDS & {"num_retries", "extra_headers", "api_base", "priority", "metadata", "user_config"}


def deployment_of(hidden: str) -> dict[str, Any]:
    settings = installation()
    return objects(plan({}, {}, {}, settings), settings, hidden)[-1]


def test_the_hidden_path_is_random_and_kept() -> None:
    first, second = drain_path(None), drain_path(None)
    assert first != second
    assert len(first.rpartition("/")[2]) >= 32
    deployment = deployment_of(first)
    assert drain_path(deployment) == first
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["lifecycle"]["preStop"]["httpGet"]["path"].startswith(f"{first}?seconds=")
    deployment["spec"]["template"]["spec"]["containers"].insert(0, {"name": "sidecar"})
    assert drain_path(deployment) == first


def test_a_deployment_of_an_older_version_gets_a_path() -> None:
    deployment = deployment_of("/llmops/drain/old")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    container["env"] = [declared for declared in container["env"] if declared["name"] != "LLMOPS_ROUTER_DRAIN"]
    assert drain_path(deployment).startswith("/llmops/drain/")
