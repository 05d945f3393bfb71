"""Queries to Prometheus, or to a server with its HTTP API (Thanos, Mimir, VictoriaMetrics).

An answer with warnings is an error: it may be partial, and no gate may measure by it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, cast

from llmops.clients.retries import Patience
from llmops.config.redaction import without_password
from llmops.config.settings.monitoring import MonitoringSettings
from llmops.errors import BadInput, MeasurementFailed, Unavailable
from llmops.worker.foreign import BadBytes, parse_json, parse_retry_after

if TYPE_CHECKING:
    import httpx2

DEFAULT_PATIENCE = Patience()
TIMEOUT_SECONDS = 20.0
LONGEST = 16 << 20
"""Bytes of an answer. A point of a series has about 30."""
CONTAINERS = 600_000
"""Each point of a series is one."""

ReadT = TypeVar("ReadT")
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
        timeout: Seconds for an answer, from the request to its last byte.
    """

    def __init__(self, url: str, patience: Patience = DEFAULT_PATIENCE, timeout: float = TIMEOUT_SECONDS) -> None:
        # Imported here, because the import takes time that loading the definitions must not take.
        import httpx2

        from llmops.clients.bounded import BeyondBounds, BoundedClient

        self._base = url.rstrip("/")
        self.url = without_password(self._base)
        self._patience = patience
        self._http = BoundedClient(LONGEST, timeout)
        self._beyond_bounds = BeyondBounds
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
        return self._ask("query", promql, parameters, read_samples)

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
        return self._ask("query_range", promql, parameters, read_series)

    def _ask(
        self, path: str, promql: str, parameters: Mapping[str, str], read: Callable[[Any], list[ReadT]]
    ) -> list[ReadT]:
        # By POST, because proxies limit the length of a URL.
        def attempt() -> list[ReadT]:
            try:
                answer = self._http.post(f"{self._base}/api/v1/{path}", data=dict(parameters))
            except self._beyond_bounds as error:
                raise error.told(f"Prometheus at {self.url}", promql) from error
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
            data = self._data(answer, promql)
            try:
                return read(data)
            except UnusableResult as error:
                message = f"Prometheus at {self.url} answered {promql!r} with {error}, not with numbers."
                raise MeasurementFailed(message, code=error.code, about=promql) from error
            except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
                raise self._malformed(promql, f"{type(error).__name__}: {error}") from error

        return self._patience.call(attempt)

    def _malformed(self, promql: str, why: str) -> Unavailable:
        return Unavailable(
            f"Prometheus at {self.url} answered {promql!r} in another format than its HTTP API's: {why[:_SHOWN]}.",
            code="MalformedAnswer",
            about=promql,
            remedy="See what answers at monitoring.prometheus_url.",
        )

    def _data(self, answer: httpx2.Response, promql: str) -> Any:
        status_code, answered = answer.status_code, f"Prometheus at {self.url} answered {promql!r} with"
        why = ""
        try:
            content: Any = parse_json(answer.content, containers=CONTAINERS)
        except BadBytes as error:
            content, why = {}, f" ({error})"
        body = cast("dict[str, Any]", content if isinstance(content, dict) else {})
        status = stated if isinstance(stated := body.get("status"), str) else None
        text = answer.content[: 4 * _SHOWN].decode(errors="replace")[:_SHOWN]
        detail = str(body.get("error") or f"{text}{why}")[: 2 * _SHOWN]
        if status == "success" and status_code == 200:
            if warnings := body.get("warnings"):
                shown = "; ".join(map(str, cast("list[Any]", warnings))) if isinstance(warnings, list) else warnings
                message = f"{answered} warnings, so the answer may be partial: {str(shown)[:_SHOWN]}"
                raise MeasurementFailed(message, code="PartialAnswer", about=promql)
            return body.get("data")
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


class UnusableResult(Exception):
    """A result that is no numbers: the error's text says what it is."""

    def __init__(self, what: str, code: str) -> None:
        super().__init__(what)
        self.code = code


def read_samples(data: Any) -> list[Sample]:
    """The samples of an instant query's `data`.

    Raises:
        UnusableResult: The result is of another kind.
        ValueError, LookupError, TypeError, AttributeError, OverflowError: The data has another format.
    """
    match data["resultType"]:
        case "vector":
            return [_sample(item) for item in data["result"]]
        case "scalar":
            time, value = _pair(data["result"])
            return [Sample({}, _number(value), _number(time))]
        case other:
            raise UnusableResult(f"a {other!s:.80}", "NotAVector")


def read_series(data: Any) -> list[Series]:
    """The series of a range query's `data`; raises as `read_samples` does."""
    return [
        Series(
            _labels(item), tuple((_number(time), _number(value)) for time, value in map(_pair, _values(item, "values")))
        )
        for item in data["result"]
    ]


def _sample(item: Any) -> Sample:
    time, value = _pair(_values(item, "value"))
    return Sample(_labels(item), _number(value), _number(time))


def _labels(item: Any) -> dict[str, str]:
    return {str(name): str(value) for name, value in item["metric"].items()}


def _values(item: Any, key: str) -> Any:
    if key not in item and ("histogram" in item or "histograms" in item):
        raise UnusableResult("native histograms", "NativeHistogram")
    return item[key]


def _pair(content: Any) -> tuple[Any, Any]:
    if not isinstance(content, list):
        # A text of two digits could be taken apart as well.
        raise TypeError("a time with its value is a list of two")
    time, value = cast("list[Any]", content)
    return time, value


def _number(value: Any) -> float:
    if isinstance(value, bool):
        raise TypeError("true and false are no numbers")
    return float(value)
