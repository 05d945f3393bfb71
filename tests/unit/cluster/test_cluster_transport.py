"""Retries, against an HTTP server that fails in the ways of an API server and its load balancers."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from llmops.clients.kubernetes.client import Cluster
from llmops.clients.kubernetes.problems import Conflict, Forbidden, NotFound
from llmops.clients.kubernetes.transport import Transport, as_json
from llmops.errors import BadInput, LlmopsError, Unavailable
from tests.support.fixtures import settings_for

Answer = Callable[[BaseHTTPRequestHandler], None]
FOUND = {"kind": "ConfigMap", "metadata": {"name": "one", "uid": "u", "resourceVersion": "7"}}


class Server:
    """Gives the answers of `script` one after the other, the last of them for ever."""

    def __init__(self) -> None:
        self.script: list[Answer] = []
        self.asked: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                (outer.script.pop(0) if len(outer.script) > 1 else outer.script[0])(self)

            do_POST = do_PATCH = do_GET  # noqa: N815 - the base class calls them

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's signature
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http.server_address[1]}"


@pytest.fixture
def server() -> Iterator[Server]:
    started = Server()
    yield started
    started.http.shutdown()
    started.http.server_close()


@pytest.fixture
def away(server: Server, tmp_path: Path) -> Cluster:
    """A client of that server that is patient for five seconds."""
    return client_of(server, tmp_path / "kubeconfig", {})


def client_of(server: Server, path: Path, user: dict[str, str]) -> Cluster:
    content = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": server.url}}],
        "users": [{"name": "u", "user": user}],
    }
    path.write_text(json.dumps(content))
    return Cluster(Transport(settings_for(path), patience=5), "default")


def answer(code: int, body: object, **headers: str) -> Answer:
    def give(request: BaseHTTPRequestHandler) -> None:
        content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        request.send_response(code)
        for name, value in headers.items():
            request.send_header(name.replace("_", "-"), value)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content)

    return give


def hang_up(request: BaseHTTPRequestHandler) -> None:
    request.connection.shutdown(socket.SHUT_RDWR)


def stream(*lines: object) -> Answer:
    def give(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        for line in lines:
            request.wfile.write(json.dumps(line).encode() + b"\n")

    return give


def status(code: int, reason: str, message: str) -> dict[str, Any]:
    return {"kind": "Status", "code": code, "reason": reason, "message": message}


def test_a_token_unfit_for_a_header_is_not_shown(server: Server, tmp_path: Path) -> None:
    server.script = [answer(200, FOUND)]
    assert client_of(server, tmp_path / "good", {"token": "SECRET\n"}).get("ConfigMap", "one") == FOUND
    client = client_of(server, tmp_path / "bad", {"token": "SECRET\nX: y"})
    with pytest.raises(BadInput, match=r"^the token for ") as refused:
        client.get("ConfigMap", "one")
    assert "SECRET" not in "".join(traceback.format_exception(refused.value))


@pytest.mark.parametrize(
    "failure",
    [
        answer(503, "<html>upstream not ready</html>"),
        answer(500, status(500, "InternalError", "etcdserver: request timed out")),
        answer(504, status(504, "Timeout", "the server was unable to return a response in the time allotted")),
        answer(429, status(429, "TooManyRequests", "storage is (re)initializing"), Retry_After="1"),
        answer(403, status(403, "Forbidden", 'cannot get: RBAC: clusterrole "x" not found')),
        hang_up,
    ],
    ids=["503", "500", "504", "429", "403 of a starting server", "hang-up"],
)
def test_a_temporary_failure_is_retried(server: Server, away: Cluster, failure: Answer) -> None:
    server.script = [failure, failure, answer(200, FOUND)]
    assert away.get("ConfigMap", "one") == FOUND
    assert len(server.asked) == 3


def test_retry_after_is_honoured(server: Server, away: Cluster) -> None:
    server.script = [answer(429, status(429, "TooManyRequests", "slow down"), Retry_After="2"), answer(200, FOUND)]
    started = time.monotonic()
    away.get("ConfigMap", "one")
    assert time.monotonic() - started >= 2


@pytest.mark.parametrize(
    ("status_code", "code"),
    [(400, "Invalid"), (401, "CredentialsRefused"), (403, "AdmissionRefused"), (409, "Conflict"), (422, "Invalid")],
)
def test_a_refusal_is_not_retried(server: Server, away: Cluster, status_code: int, code: str) -> None:
    server.script = [answer(status_code, status(status_code, "No", "no"))]
    with pytest.raises(LlmopsError) as refused:
        away.get("ConfigMap", "one")
    assert (refused.value.code, refused.value.about) == (code, "ConfigMap one")
    # After a 401 the client loads its credentials again, once.
    assert len(server.asked) == (2 if status_code == 401 else 1)


def test_a_refusal_names_the_call_and_quotes_the_api_server(server: Server, away: Cluster) -> None:
    server.script = [answer(409, status(409, "No", "no"))]
    with pytest.raises(Conflict, match="get ConfigMap one in namespace default: 409 No: no"):
        away.get("ConfigMap", "one")


TRY_AGAIN = "the object has been modified; please apply your changes to the latest version and try again"


def conflict(kind: str, name: str) -> Answer:
    message = f'Operation cannot be fulfilled on {kind} "{name}": {TRY_AGAIN}'
    return answer(409, {**status(409, "Conflict", message), "details": {"kind": kind, "name": name}})


CREATED = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "one"}}


def test_a_conflict_that_is_none_of_the_callers_is_retried(server: Server, away: Cluster) -> None:
    writes: tuple[Callable[[], Any], ...] = (
        lambda: away.create(CREATED),
        lambda: away.apply(CREATED),
        lambda: away.patch("ConfigMap", "one", {"data": {"a": "1"}}),
    )
    for write in writes:
        for kind in ("resourcequotas", "configmaps"):
            server.script = [conflict(kind, "one"), answer(200, FOUND)]
            assert write() == FOUND


def test_a_quota_that_is_not_counted_yet_is_asked_again(server: Server, away: Cluster) -> None:
    said = 'configmaps "one" is forbidden: status unknown for quota: team, resources: count/configmaps'
    server.script = [answer(403, status(403, "Forbidden", said)), answer(200, FOUND)]
    assert away.create(CREATED) == FOUND


def test_a_caller_that_expects_a_version_decides_anew(server: Server, away: Cluster) -> None:
    expecting = {"metadata": {"resourceVersion": "6"}, "data": {"a": "1"}}
    server.script = [conflict("configmaps", "one"), answer(200, FOUND)]
    with pytest.raises(Conflict):
        away.patch("ConfigMap", "one", expecting)
    server.script = [conflict("resourcequotas", "team"), answer(200, FOUND)]
    assert away.patch("ConfigMap", "one", expecting) == FOUND


def test_a_kind_that_the_cluster_does_not_serve_is_no_missing_object(server: Server, away: Cluster) -> None:
    server.script = [answer(404, status(404, "NotFound", "no"))]
    with pytest.raises(NotFound) as refused:
        away.get("ConfigMap", "one")
    assert (refused.value.code, refused.value.about) == ("KindNotServed", "ConfigMap")
    assert len(server.asked) == 1


def test_patience_ends_with_the_last_answer(server: Server, away: Cluster) -> None:
    server.script = [answer(429, status(429, "TooManyRequests", "slow down"), Retry_After="1")]
    started = time.monotonic()
    with pytest.raises(Unavailable) as refused:
        away.patient(2).get("ConfigMap", "one")
    assert time.monotonic() - started >= 1
    assert (refused.value.code, refused.value.about) == ("RateLimited", "ConfigMap one")
    assert refused.value.retry_after == 1


def test_a_missing_answer_times_out(server: Server, away: Cluster) -> None:
    release = threading.Event()

    def keep_waiting(_: BaseHTTPRequestHandler) -> None:
        release.wait(3600)

    server.script = [keep_waiting]
    with pytest.raises(Unavailable) as raised:
        away.patient(1).get("ConfigMap", "one")
    assert raised.value.code == "ApiServerUnreachable"
    release.set()


def test_a_lasting_forbidden_is_raised(server: Server, away: Cluster) -> None:
    server.script = [answer(403, status(403, "Forbidden", 'RBAC: clusterrole "x" not found'))]
    with pytest.raises(Forbidden):
        away.patient(1).get("ConfigMap", "one")


def test_pages_are_joined_and_an_expired_list_starts_again(server: Server, away: Cluster) -> None:
    def page(names: str, more: str) -> Answer:
        items = [{"metadata": {"name": name}} for name in names]
        return answer(200, {"metadata": {"resourceVersion": "9", "continue": more}, "items": items})

    expired = answer(410, status(410, "Expired", "The provided continue parameter is too old"))
    server.script = [page("ab", "more"), expired, page("abc", "more"), page("d", "")]
    assert [item["metadata"]["name"] for item in away.list("ConfigMap")] == ["a", "b", "c", "d"]
    assert "continue=more" in server.asked[1]
    assert "continue" not in server.asked[2]


def test_an_expired_watch_yields_the_changes_it_missed(server: Server, away: Cluster) -> None:
    def item(name: str, version: str) -> dict[str, Any]:
        return {"metadata": {"name": name, "uid": name, "resourceVersion": version}}

    def listing(version: str, *items: dict[str, Any]) -> Answer:
        return answer(200, {"metadata": {"resourceVersion": version}, "items": items})

    gone = {"type": "ERROR", "object": status(410, "Expired", "too old resource version")}
    bookmark = {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "15"}}}
    server.script = [
        listing("10", item("a", "1"), item("b", "2"), item("c", "3")),
        stream({"type": "MODIFIED", "object": item("a", "11")}, bookmark),
        stream(gone),
        listing("20", item("a", "11"), item("b", "19"), item("d", "18")),
        stream({"type": "DELETED", "object": item("d", "21")}),
        hang_up,
    ]
    changes = [(event.type, event.object["metadata"]["name"]) for event in away.watch("ConfigMap", timeout=2)]
    assert changes == [
        ("ADDED", "a"), ("ADDED", "b"), ("ADDED", "c"), ("MODIFIED", "a"),
        ("DELETED", "c"), ("MODIFIED", "b"), ("ADDED", "d"), ("DELETED", "d"),
    ]  # fmt: skip
    watches = [path for path in server.asked if "watch=true" in path]
    assert ["resourceVersion=10&" in watches[0], "resourceVersion=15&" in watches[1]] == [True, True]
    assert "resourceVersion=21&" in watches[3]


# Characters next to each other and to backslashes: after an odd number of backslashes an escape is text.
WRITTEN = st.text(st.one_of(st.sampled_from('\\"ud8e\U0001f600\U0010ffff'), st.characters(exclude_categories=["Cs"])))


@given(text=WRITTEN)
def test_a_body_is_the_same_to_readers_of_json_and_of_yaml(text: str) -> None:
    # The API server parses an applied object as YAML, and refuses the surrogate pairs of JSON.
    sent = as_json({"text": text})
    assert json.loads(sent) == {"text": text}
    assert not re.search(rb"(?<!\\)(\\\\)*\\ud[89a-f]", sent)
    assert yaml.safe_load(sent) == {"text": text}
