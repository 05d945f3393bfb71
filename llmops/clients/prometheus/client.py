"""Questions to Prometheus, or to what speaks its HTTP API (Thanos, Mimir, VictoriaMetrics).

An answer is whole or it is none: what Prometheus itself has doubts about is not measured by.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

from llmops.clients.retries import Patience, parse_retry_after
from llmops.config.redaction import without_password
from llmops.config.settings.monitoring import MonitoringSettings
from llmops.errors import BadInput, MeasurementFailed, Unavailable

if TYPE_CHECKING:
    import httpx2

DEFAULT_PATIENCE = Patience()
TIMEOUT_SECONDS = 20.0
_NO_PROMETHEUS = (401, 403, 404, 405)
_AWAY = (429, 502, 503, 504)
_SHOWN = 300


@dataclass(frozen=True)
class Sample:
    """One series at one time.

    Args:
        labels: Of the series; its name is `__name__`, if it has one.
        value: May be NaN (0 / 0: no requests) or infinite, which are no figures: ask `math.isfinite`.
        time: Of the evaluation, in Unix seconds.
    """

    labels: Mapping[str, str]
    value: float
    time: float


@dataclass(frozen=True)
class Series:
    """One series over time: pairs of Unix seconds and value, oldest first; see `Sample`."""

    labels: Mapping[str, str]
    points: tuple[tuple[float, float], ...]


class Prometheus:
    """Asks one Prometheus. Safe between threads; close it, or use it in a `with`.

    Args:
        url: Base URL, such as http://prometheus.monitoring:9090.
        patience: How long to try while it is away.
        timeout: Seconds after which a request that is not answered is given up.
    """

    def __init__(self, url: str, patience: Patience = DEFAULT_PATIENCE, timeout: float = TIMEOUT_SECONDS) -> None:
        # Imported here: it takes time that loading the definitions must not take.
        import httpx2

        self._base = url.rstrip("/")
        self.url = without_password(self._base)
        self._patience = patience
        self._http = httpx2.Client(timeout=timeout, follow_redirects=True)
        self._no_url = (httpx2.InvalidURL, httpx2.UnsupportedProtocol)
        self._no_answer = httpx2.HTTPError

    @classmethod
    def of(cls, settings: MonitoringSettings) -> Prometheus:
        """The installation's.

        Raises:
            BadInput: The settings name none.
        """
        if settings.prometheus_url is None:
            raise BadInput(
                "monitoring.prometheus_url is not set, so there is no Prometheus to ask",
                remedy="Set it to Prometheus' base URL as the pipeline reaches it.",
            )
        return cls(settings.prometheus_url)

    def __enter__(self) -> Prometheus:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def query(self, promql: str, at: float | None = None) -> list[Sample]:
        """What an expression comes to at one time; empty where there is no data.

        Args:
            promql: The expression; of an instant vector or a scalar.
            at: Unix seconds; None is now, by Prometheus' clock.

        Raises:
            MeasurementFailed: It cannot be answered: not PromQL, too much of it, or only in part.
            BadInput: What is at the URL is no Prometheus, or wants to know who asks.
            Unavailable: It does not answer.
        """
        asked = {"query": promql} | ({} if at is None else {"time": repr(at)})
        data = self._ask("query", promql, asked)
        match data["resultType"]:
            case "vector":
                return [
                    Sample(each["metric"], _number(each, "value", promql)[1], _number(each, "value", promql)[0])
                    for each in data["result"]
                ]
            case "scalar":
                time, value = data["result"]
                return [Sample({}, float(value), float(time))]
            case other:
                raise MeasurementFailed(f"Prometheus at {self.url} answered {promql!r} with a {other}, not a vector.")

    def query_range(self, promql: str, start: float, end: float, step: float) -> list[Series]:
        """What an expression came to over a time.

        Args:
            promql: The expression.
            start: Unix seconds of the first point.
            end: Of the last, at most.
            step: Seconds between two.

        Raises:
            MeasurementFailed, BadInput, Unavailable: As `query` does.
        """
        asked = {"query": promql, "start": repr(start), "end": repr(end), "step": repr(step)}
        data = self._ask("query_range", promql, asked)
        return [
            Series(each["metric"], tuple((float(time), float(value)) for time, value in _points(each, promql)))
            for each in data["result"]
        ]

    def _ask(self, what: str, promql: str, asked: Mapping[str, str]) -> Any:
        # By POST: a query may be longer than what proxies take for a URL.
        def attempt() -> Any:
            try:
                answer = self._http.post(f"{self._base}/api/v1/{what}", data=dict(asked))
            except self._no_url:
                # Without their text, in which a part of a password may be.
                raise BadInput(f"monitoring.prometheus_url {self.url!r} is no URL of http or https") from None
            except self._no_answer as error:
                raise Unavailable(
                    f"Prometheus at {self.url} does not answer {promql!r}: {type(error).__name__} {error}".strip(),
                    remedy="See whether it runs, and whether the pipeline reaches it.",
                ) from error
            return self._read(answer, promql)

        return self._patience.call(attempt)

    def _read(self, answer: httpx2.Response, promql: str) -> Any:
        code, asked = answer.status_code, f"Prometheus at {self.url}, asked {promql!r}, answered"
        try:
            body = answer.json()
            status = body["status"]
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError):
            body, status = {}, None
        said = body.get("error") or answer.text[:_SHOWN]
        if status == "success" and code == 200:
            if warnings := body.get("warnings"):
                raise MeasurementFailed(f"{asked} with doubts: {'; '.join(warnings)}")
            return body["data"]
        if code in _NO_PROMETHEUS:
            raise BadInput(f"{asked} {code}: {said}", remedy="Set monitoring.prometheus_url to Prometheus' base URL.")
        if status is None or code in _AWAY:
            after = parse_retry_after(answer.headers.get("Retry-After"))
            raise Unavailable(f"{asked} {code}: {said}", retry_after=after)
        raise MeasurementFailed(f"{asked} {code} {body.get('errorType', '')}: {said}")


def _number(each: Mapping[str, Any], key: str, promql: str) -> tuple[float, float]:
    if key not in each:
        raise MeasurementFailed(f"{promql!r} comes to native histograms, which are no number.")
    time, value = each[key]
    return float(time), float(value)


def _points(each: Mapping[str, Any], promql: str) -> list[tuple[Any, Any]]:
    if "values" not in each:
        raise MeasurementFailed(f"{promql!r} comes to native histograms, which are no number.")
    return each["values"]
