"""The probe takes a completion, and no other answer, as proof that an engine works."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from aiohttp import web

from llmops.errors import BadRelease, LlmopsError, MeasurementFailed
from llmops.evaluation.endpoint import Endpoint
from llmops.evaluation.evaluate import probe

if TYPE_CHECKING:
    from tests.unit.evaluation.conftest import Engine


def test_text_of_a_real_completion(engine: Engine, endpoint: Endpoint) -> None:
    assert probe(endpoint, 10) == "ready"
    assert engine.asked[0]["model"] == "tiny"


@pytest.mark.parametrize(
    ("status", "text", "error", "code"),
    [
        (500, "broken", BadRelease, "CompletionFailed"),
        (404, "no such model", BadRelease, "CompletionFailed"),
        (200, "{}", BadRelease, "NoChatCompletion"),
        (200, "not json", BadRelease, "NoChatCompletion"),
        (200, '{"choices": [{"message": {"content": " "}}]}', BadRelease, "EmptyCompletion"),
        (200, '{"choices": [{"message": {"content": null}}]}', BadRelease, "EmptyCompletion"),
        (401, "", MeasurementFailed, "CredentialsRefused"),
        (429, "", MeasurementFailed, "TooManyRequests"),
    ],
)
def test_answers_that_prove_nothing(
    engine: Engine, endpoint: Endpoint, status: int, text: str, error: type[LlmopsError], code: str
) -> None:
    engine.reply = lambda number: web.Response(status=status, text=text, content_type="application/json")
    with pytest.raises(error) as raised:
        probe(endpoint, 10)
    assert (raised.value.code, raised.value.about) == (code, "tiny")


def test_the_words_of_a_failed_completion_name_engine_status_and_body(engine: Engine, endpoint: Endpoint) -> None:
    engine.reply = lambda number: web.Response(status=404, text="no such model")
    with pytest.raises(BadRelease) as raised:
        probe(endpoint, 10)
    assert raised.value.message == f"tiny at {endpoint.base_url}: a completion failed with HTTP 404: no such model"


def test_nothing_listening_is_no_bad_release(nowhere: Endpoint) -> None:
    with pytest.raises(MeasurementFailed) as raised:
        probe(nowhere, 10)
    assert (raised.value.code, raised.value.about) == ("EngineUnreachable", "tiny")


def test_hang_is_a_bad_release_in_time(engine: Engine, endpoint: Endpoint) -> None:
    engine.first_seconds = 3600
    with pytest.raises(BadRelease) as raised:
        probe(endpoint, 0.3)
    assert raised.value.code == "CompletionTimedOut"


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "ConnectionCut"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", "ConnectionCut"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{", "ConnectionCut"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "NotHttp"),
        (b"HTTP/1.1 200 OK\r\n" + b"X-One-More: header\r\n" * 20_000, "AnswerTooLong"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (17 << 20), "AnswerTooLong"),
    ],
)
def test_cut_or_foreign_answer_is_a_bad_release(content: bytes, code: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection, suppress(OSError):  # the prober hangs up on an endless answer
                connection.recv(65536)
                connection.sendall(content)

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(BadRelease) as raised:
            probe(Endpoint(f"http://127.0.0.1:{server.getsockname()[1]}", "tiny"), 10)
        thread.join(10)
    assert raised.value.code == code


def test_probing_loads_no_heavy_client() -> None:
    code = (
        "import sys, llmops.evaluation.evaluate, llmops.evaluation.gates.offline\n"
        "print([name for name in ('openai', 'httpx2', 'scipy', 'matplotlib', 'jsonschema', 'aiohttp') "
        "if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_api_key_is_never_shown() -> None:
    assert "s3cret" not in repr(Endpoint("http://engine:8000", "tiny", "s3cret"))


@pytest.mark.parametrize("url", ["http://e:1", "http://e:1/", "http://e:1/v1", "http://e:1/v1/"])
def test_base_url_with_or_without_v1(url: str) -> None:
    assert Endpoint(url, "tiny").root == "http://e:1"
    assert Endpoint(url, "tiny").address == ("e", 1, False)


@pytest.mark.parametrize("url", ["e:8000", "ftp://e", "http://"])
def test_a_url_without_http_or_host_is_refused(url: str) -> None:
    with pytest.raises(ValueError):
        _ = Endpoint(url, "tiny").address
