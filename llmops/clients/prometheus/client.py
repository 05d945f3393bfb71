"""Queries to Prometheus, or to a server with its HTTP API (Thanos, Mimir, VictoriaMetrics).

An answer with warnings is an error: it may be partial, and no gate may measure by it.
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
        labels: Labels of the series; `__name__` is its name, if it has one.
        value: The value; NaN (0 / 0: no requests) or infinite if there is no figure: check `math.isfinite`.
        time: Time of the evaluation, in Unix seconds.
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
    """Client of one Prometheus. Thread-safe; close it, or use it in a `with`.

    Args:
        url: Base URL, such as http://prometheus.monitoring:9090.
        patience: How long to retry while Prometheus is away.
        timeout: Seconds to wait for an answer.
    """

    def __init__(self, url: str, patience: Patience = DEFAULT_PATIENCE, timeout: float = TIMEOUT_SECONDS) -> None:
        # Imported here, because the import takes time that loading the definitions must not take.
        import httpx2

        self._base = url.rstrip("/")
        self.url = without_password(self._base)
        self._patience = patience
        self._http = httpx2.Client(timeout=timeout, follow_redirects=True)
        self._no_url = (httpx2.InvalidURL, httpx2.UnsupportedProtocol)
        self._no_answer = httpx2.HTTPError

    @classmethod
    def of(cls, settings: MonitoringSettings) -> Prometheus:
        """Client of the installation's Prometheus.

        Raises:
            BadInput: The settings name no Prometheus.
        """
        if settings.prometheus_url is None:
            raise BadInput(
                "monitoring.prometheus_url is not set: cannot query Prometheus",
                code="PrometheusNotSet",
                about="monitoring.prometheus_url",
                remedy="Set it to the base URL at which the pipeline reaches Prometheus.",
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
        """Evaluate an expression at one time; the list is empty if there is no data.

        Args:
            promql: The expression, an instant vector or a scalar.
            at: Unix seconds; None is now, by Prometheus' clock.

        Raises:
            MeasurementFailed: Prometheus refuses the query, or answers only in part.
            BadInput: The server at the URL is not Prometheus, or asks for credentials.
            Unavailable: Prometheus does not answer.
        """
        parameters = {"query": promql} | ({} if at is None else {"time": repr(at)})
        data = self._ask("query", promql, parameters)
        match data["resultType"]:
            case "vector":
                return [_sample(item, promql) for item in data["result"]]
            case "scalar":
                time, value = data["result"]
                return [Sample({}, float(value), float(time))]
            case other:
                raise MeasurementFailed(
                    f"Prometheus at {self.url} answered {promql!r} with a {other}, not a vector.",
                    code="NotAVector",
                    about=promql,
                )

    def query_range(self, promql: str, start: float, end: float, step: float) -> list[Series]:
        """Evaluate an expression over a range of time.

        Args:
            promql: The expression.
            start: Unix seconds of the first point.
            end: Unix seconds of the last point, at most.
            step: Seconds between two points.

        Raises:
            MeasurementFailed, BadInput, Unavailable: As `query` does.
        """
        parameters = {"query": promql, "start": repr(start), "end": repr(end), "step": repr(step)}
        data = self._ask("query_range", promql, parameters)
        return [
            Series(item["metric"], tuple((float(time), float(value)) for time, value in _points(item, promql)))
            for item in data["result"]
        ]

    def _ask(self, path: str, promql: str, parameters: Mapping[str, str]) -> Any:
        # By POST, because proxies limit the length of a URL.
        def attempt() -> Any:
            try:
                answer = self._http.post(f"{self._base}/api/v1/{path}", data=dict(parameters))
            except self._no_url:
                # The text of the error may have a part of a password.
                raise BadInput(
                    f"monitoring.prometheus_url {self.url!r} is not a URL of http or https",
                    code="InvalidUrl",
                    about="monitoring.prometheus_url",
                ) from None
            except self._no_answer as error:
                raise Unavailable(
                    f"Prometheus at {self.url} does not answer {promql!r}: {type(error).__name__} {error}".strip(),
                    code="PrometheusUnreachable",
                    about=promql,
                    remedy="See whether it runs, and whether the pipeline reaches it.",
                ) from error
            return self._read(answer, promql)

        return self._patience.call(attempt)

    def _read(self, answer: httpx2.Response, promql: str) -> Any:
        status_code, answered = answer.status_code, f"Prometheus at {self.url} answered {promql!r} with"
        try:
            body = answer.json()
            status = body["status"]
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError):
            body, status = {}, None
        detail = body.get("error") or answer.text[:_SHOWN]
        if status == "success" and status_code == 200:
            if warnings := body.get("warnings"):
                message = f"{answered} warnings, so the answer may be partial: {'; '.join(warnings)}"
                raise MeasurementFailed(message, code="PartialAnswer", about=promql)
            return body["data"]
        if status_code in _NO_PROMETHEUS:
            raise BadInput(
                f"{answered} {status_code}: {detail}",
                code="NotPrometheus",
                about="monitoring.prometheus_url",
                remedy="Set monitoring.prometheus_url to Prometheus' base URL.",
            )
        if status is None or status_code in _AWAY:
            after = parse_retry_after(answer.headers.get("Retry-After"))
            raise Unavailable(
                f"{answered} {status_code}: {detail}", code="PrometheusFailed", about=promql, retry_after=after
            )
        raise MeasurementFailed(
            f"{answered} {status_code} {body.get('errorType', '')}: {detail}", code="QueryRefused", about=promql
        )


def _sample(item: Mapping[str, Any], promql: str) -> Sample:
    if "value" not in item:
        raise _histogram(promql)
    time, value = item["value"]
    return Sample(item["metric"], float(value), float(time))


def _points(item: Mapping[str, Any], promql: str) -> list[tuple[Any, Any]]:
    if "values" not in item:
        raise _histogram(promql)
    return item["values"]


def _histogram(promql: str) -> MeasurementFailed:
    message = f"{promql!r} evaluates to native histograms, not to numbers."
    return MeasurementFailed(message, code="NativeHistogram", about=promql)
