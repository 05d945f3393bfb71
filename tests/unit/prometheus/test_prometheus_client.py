"""Requests to Prometheus and the error of each sort of answer; the other file asks a real Prometheus."""

from __future__ import annotations

import math
import socket
from typing import Any

import pytest

from llmops.clients.prometheus import Prometheus, Sample, Series
from llmops.clients.retries import Patience
from llmops.config.settings.monitoring import MonitoringSettings
from llmops.errors import BadInput, LlmopsError, MeasurementFailed, Unavailable
from tests.unit.prometheus.conftest import ScriptedServer

ONCE = Patience(attempts=1)


def good(kind: str, result: Any, **more: Any) -> dict[str, Any]:
    return {"status": "success", "data": {"resultType": kind, "result": result}, **more}


def failed(kind: str, error: str) -> dict[str, str]:
    return {"status": "error", "errorType": kind, "error": error}


def test_a_vector_may_have_values_that_are_not_numbers(scripted: ScriptedServer) -> None:
    scripted.answer(
        200,
        good(
            "vector",
            [
                {"metric": {"__name__": "up", "job": "a"}, "value": [1700000000.5, "1"]},
                {"metric": {}, "value": [1700000000.5, "NaN"]},
                {"metric": {}, "value": [1700000000.5, "+Inf"]},
            ],
        ),
    )
    with Prometheus(scripted.url + "/") as prometheus:
        first, second, third = prometheus.query("up", at=1700000000.5)
    assert first == Sample({"__name__": "up", "job": "a"}, 1.0, 1700000000.5)
    assert math.isnan(second.value)
    assert third.value == math.inf
    assert scripted.asked == [("/api/v1/query", {"query": ["up"], "time": ["1700000000.5"]})]


def test_no_data_is_an_empty_answer_and_a_scalar_is_one_sample(scripted: ScriptedServer) -> None:
    scripted.answer(200, good("vector", []))
    scripted.answer(200, good("scalar", [12, "3.5"]))
    with Prometheus(scripted.url) as prometheus:
        assert prometheus.query("nothing") == []
        assert prometheus.query("3.5") == [Sample({}, 3.5, 12.0)]
    assert scripted.asked[0] == ("/api/v1/query", {"query": ["nothing"]})


def test_a_range_is_read(scripted: ScriptedServer) -> None:
    scripted.answer(200, good("matrix", [{"metric": {"track": "canary"}, "values": [[1, "2"], [2, "NaN"]]}]))
    with Prometheus(scripted.url) as prometheus:
        [series] = prometheus.query_range("q", 1, 2, 0.5)
    assert (series.labels, series.points[0]) == ({"track": "canary"}, (1.0, 2.0))
    assert math.isnan(series.points[1][1])
    assert isinstance(series, Series)
    assert scripted.asked == [
        ("/api/v1/query_range", {"query": ["q"], "start": ["1"], "end": ["2"], "step": ["0.5"]}),
    ]


WRONG: dict[str, tuple[int, Any, type[LlmopsError], str, str]] = {
    "not PromQL": (400, failed("bad_data", "parse error"), MeasurementFailed, "QueryRefused", "parse error"),
    "too much": (422, failed("execution", "too many samples"), MeasurementFailed, "QueryRefused", "many"),
    "in part": (
        200,
        good("vector", [], warnings=["store a: no answer"]),
        MeasurementFailed,
        "PartialAnswer",
        "store a",
    ),
    "native histogram": (
        200,
        good("vector", [{"metric": {}, "histogram": [1, {}]}]),
        MeasurementFailed,
        "NativeHistogram",
        "",
    ),
    "a range": (200, good("matrix", []), MeasurementFailed, "NotAVector", "matrix"),
    "times out": (503, failed("timeout", "timed out"), Unavailable, "PrometheusFailed", "timed out"),
    "starts": (503, "Service Unavailable", Unavailable, "PrometheusFailed", "Service Unavailable"),
    "proxy": (502, "<html>", Unavailable, "PrometheusFailed", "502"),
    "not Prometheus": (404, "404 page not found", BadInput, "NotPrometheus", "404"),
    "login": (401, "who are you", BadInput, "NotPrometheus", "401"),
    "page of a login": (200, "<html>log in</html>", Unavailable, "PrometheusFailed", "log in"),
}


@pytest.mark.parametrize("name", WRONG)
def test_each_wrong_answer_is_an_error_with_the_query_and_the_answer(scripted: ScriptedServer, name: str) -> None:
    status, body, kind, code, quoted = WRONG[name]
    scripted.answer(status, body)
    with Prometheus(scripted.url, ONCE) as prometheus, pytest.raises(kind) as caught:
        prometheus.query("sum(rate(x[1m]))")
    assert type(caught.value) is kind
    assert caught.value.code == code
    assert quoted in str(caught.value)
    assert "sum(rate(x[1m]))" in str(caught.value)


def test_a_short_outage_is_retried(scripted: ScriptedServer) -> None:
    scripted.answer(503, "starting", Retry_After="0")
    scripted.answer(200, good("vector", []))
    with Prometheus(scripted.url) as prometheus:
        assert prometheus.query("up") == []
    assert len(scripted.asked) == 2


def test_no_listener_is_unavailable_and_a_wrong_address_bad_input() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    with Prometheus(f"http://127.0.0.1:{port}", ONCE) as prometheus, pytest.raises(Unavailable) as raised:
        prometheus.query("up")
    assert (raised.value.code, raised.value.about) == ("PrometheusUnreachable", "up")
    with Prometheus("prometheus:9090", ONCE) as prometheus, pytest.raises(BadInput) as refused:
        prometheus.query("up")
    assert (refused.value.code, refused.value.about) == ("InvalidUrl", "monitoring.prometheus_url")
    with pytest.raises(BadInput) as refused:
        Prometheus.of(MonitoringSettings())
    assert (refused.value.code, refused.value.about) == ("PrometheusNotSet", "monitoring.prometheus_url")
