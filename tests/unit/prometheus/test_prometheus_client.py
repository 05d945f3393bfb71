"""What is asked of Prometheus, and how each sort of answer is told apart; the real one is asked in the other file."""

from __future__ import annotations

import math
import socket
from typing import Any

import pytest

from llmops.clients.prometheus import Prometheus, Sample, Series
from llmops.clients.retries import Patience
from llmops.config.settings.monitoring import MonitoringSettings
from llmops.errors import BadInput, LlmopsError, MeasurementFailed, Unavailable
from tests.unit.prometheus.conftest import Told

ONCE = Patience(attempts=1)


def good(kind: str, result: Any, **more: Any) -> dict[str, Any]:
    return {"status": "success", "data": {"resultType": kind, "result": result}, **more}


def failed(kind: str, error: str) -> dict[str, str]:
    return {"status": "error", "errorType": kind, "error": error}


def test_a_vector_is_read_with_what_is_no_number(told: Told) -> None:
    told.say(
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
    with Prometheus(told.url + "/") as asked:
        first, second, third = asked.query("up", at=1700000000.5)
    assert first == Sample({"__name__": "up", "job": "a"}, 1.0, 1700000000.5)
    assert math.isnan(second.value)
    assert third.value == math.inf
    assert told.asked == [("/api/v1/query", {"query": ["up"], "time": ["1700000000.5"]})]


def test_no_data_is_an_empty_answer_and_a_scalar_is_one_sample(told: Told) -> None:
    told.say(200, good("vector", []))
    told.say(200, good("scalar", [12, "3.5"]))
    with Prometheus(told.url) as asked:
        assert asked.query("nothing") == []
        assert asked.query("3.5") == [Sample({}, 3.5, 12.0)]
    assert told.asked[0] == ("/api/v1/query", {"query": ["nothing"]})


def test_a_range_is_read(told: Told) -> None:
    told.say(200, good("matrix", [{"metric": {"track": "canary"}, "values": [[1, "2"], [2, "NaN"]]}]))
    with Prometheus(told.url) as asked:
        [series] = asked.query_range("q", 1, 2, 0.5)
    assert (series.labels, series.points[0]) == ({"track": "canary"}, (1.0, 2.0))
    assert math.isnan(series.points[1][1])
    assert isinstance(series, Series)
    assert told.asked == [
        ("/api/v1/query_range", {"query": ["q"], "start": ["1"], "end": ["2"], "step": ["0.5"]}),
    ]


WRONG: dict[str, tuple[int, Any, type[LlmopsError], str]] = {
    "not PromQL": (400, failed("bad_data", "parse error"), MeasurementFailed, "parse"),
    "too much": (422, failed("execution", "too many samples"), MeasurementFailed, "many"),
    "in part": (200, good("vector", [], warnings=["store a: no answer"]), MeasurementFailed, "store a"),
    "native histogram": (200, good("vector", [{"metric": {}, "histogram": [1, {}]}]), MeasurementFailed, "histogram"),
    "a range": (200, good("matrix", []), MeasurementFailed, "matrix"),
    "times out": (503, failed("timeout", "timed out"), Unavailable, "timed out"),
    "starts": (503, "Service Unavailable", Unavailable, "Service Unavailable"),
    "proxy": (502, "<html>", Unavailable, "502"),
    "not Prometheus": (404, "404 page not found", BadInput, "monitoring.prometheus_url"),
    "login": (401, "who are you", BadInput, "401"),
    "page of a login": (200, "<html>log in</html>", Unavailable, "log in"),
}


@pytest.mark.parametrize("name", WRONG)
def test_each_wrong_answer_is_told_apart_with_the_query_in_it(told: Told, name: str) -> None:
    status, body, kind, said = WRONG[name]
    told.say(status, body)
    with Prometheus(told.url, ONCE) as asked, pytest.raises(kind) as caught:
        asked.query("sum(rate(x[1m]))")
    assert type(caught.value) is kind
    assert said in str(caught.value)
    assert "sum(rate(x[1m]))" in str(caught.value)


def test_one_that_is_away_for_a_moment_is_asked_again(told: Told) -> None:
    told.say(503, "starting", Retry_After="0")
    told.say(200, good("vector", []))
    with Prometheus(told.url) as asked:
        assert asked.query("up") == []
    assert len(told.asked) == 2


def test_nobody_at_the_address_is_unavailable_and_a_wrong_address_bad_input() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    with Prometheus(f"http://127.0.0.1:{port}", ONCE) as asked, pytest.raises(Unavailable, match="up"):
        asked.query("up")
    with Prometheus("prometheus:9090", ONCE) as asked, pytest.raises(BadInput, match="no URL"):
        asked.query("up")
    with pytest.raises(BadInput, match="prometheus_url is not set"):
        Prometheus.of(MonitoringSettings())
