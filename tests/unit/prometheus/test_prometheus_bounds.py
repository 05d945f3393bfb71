"""Answers of Prometheus are bounded, and read strictly."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.clients.prometheus import Prometheus
from llmops.clients.retries import Patience
from llmops.errors import LlmopsError, Unavailable
from tests.support.servers.answering import Answer, Answering, answering

ONCE = Patience(attempts=1)
MIB = 1 << 20


class _Running:
    server = Answering("")
    answer = Answer()
    client: Prometheus | None = None


_running = _Running()


@pytest.fixture(autouse=True, scope="module")
def _serving() -> Iterator[None]:
    with (
        answering(lambda asked: _running.answer) as _running.server,
        Prometheus(_running.server.url, ONCE) as _running.client,
    ):
        yield


def ask(answer: Answer, seconds: float = 20.0) -> object:
    _running.answer = answer
    with Prometheus(_running.server.url, ONCE, seconds) as prometheus:
        return prometheus.query("up")


def forever(block: bytes, seconds: float = 0) -> Iterator[bytes]:
    while True:
        yield block
        time.sleep(seconds)


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (Answer(forever(b" " * MIB)), "AnswerTooLarge"),
        (Answer(forever(b" ", 0.05)), "AnswerTooSlow"),
        (Answer(b"[" * 200_000), "PrometheusFailed"),
        (Answer(b"[]"), "PrometheusFailed"),
        (Answer(b'{"status": ["success"]}'), "PrometheusFailed"),
    ],
)
def test_an_answer_beyond_bounds(answer: Answer, code: str) -> None:
    with pytest.raises(LlmopsError) as raised:
        ask(answer, 1.0 if code == "AnswerTooSlow" else 20.0)
    assert (raised.value.code, raised.value.about) == (code, "up")


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        "text",
        {},
        {"resultType": "vector"},
        {"resultType": "vector", "result": {"a": 1}},
        {"resultType": "vector", "result": [7]},
        {"resultType": "vector", "result": [{"metric": {}, "value": [1]}]},
        {"resultType": "vector", "result": [{"metric": [], "value": [1, "2"]}]},
        {"resultType": "vector", "result": [{"metric": {}, "value": [1, "two"]}]},
        {"resultType": "vector", "result": [{"metric": {}, "value": [1, True]}]},
        {"resultType": "vector", "result": [{"metric": {}, "value": [10**400, "1"]}]},
        {"resultType": "vector", "result": [{"metric": {}}]},
        {"resultType": "scalar", "result": "12"},
        {"resultType": "vector", "result": [{"metric": {}, "value": "34"}]},
        {"resultType": "scalar", "result": [1, None]},
    ],
)
def test_results_of_another_form(data: object) -> None:
    with pytest.raises(Unavailable) as raised:
        ask(Answer(json.dumps({"status": "success", "data": data}).encode()))
    assert (raised.value.code, raised.value.about) == ("MalformedAnswer", "up")
    assert raised.value.remedy


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["status", "data", "resultType", "result", "metric", "value", "warnings", "error"]),
                inner,
            )
        ),
        max_leaves=12,
    ).map(lambda content: json.dumps(content).encode())
    | st.binary(max_size=60),
    st.sampled_from([200, 400, 422, 429, 503]),
    st.sampled_from(["", "²", "1.5", "Wed, 99 Zzz"]),
)
def test_a_prometheus_of_anything(body: bytes, status: int, retry: str) -> None:
    _running.answer = Answer(body, status, [("Retry-After", retry)])
    prometheus = _running.client
    assert prometheus is not None
    # Any other error is a fault of ours.
    with suppress(LlmopsError):
        prometheus.query("up")
    with suppress(LlmopsError):
        prometheus.query_range("up", 0, 60, 15)
