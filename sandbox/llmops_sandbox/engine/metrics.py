"""The /metrics answer of vLLM 0.32.0: names, help texts, types, labels and buckets come from a captured answer.

It shows the metrics whose values are true for the simulated engine: vLLM's own without the size of batches, and the
HTTP server's number of requests.
"""

from __future__ import annotations

import re
import time
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files

CAPTURE = "vllm_0_32_0/metrics.txt"
UNSPOKEN = ("vllm:iteration_tokens_total",)
HTTP = "http_requests_total"
# Routes that vLLM's HTTP server does not count.
UNCOUNTED = ("/metrics", "/health", "/load", "/ping", "/version")

_SAMPLE = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$")
_LABEL = re.compile(r'([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"')
_TOKEN_BUCKETS = (
    "vllm:request_prompt_tokens",
    "vllm:request_generation_tokens",
    "vllm:request_max_num_generation_tokens",
    "vllm:request_params_max_tokens",
    "vllm:request_prefill_kv_computed_tokens",
)

Labels = tuple[tuple[str, str], ...]


@dataclass
class Family:
    """One metric of the captured answer, with its first label sets and the buckets of a histogram."""

    name: str
    help: str
    type: str
    series: list[Labels] = field(default_factory=list[Labels])
    bounds: list[float] = field(default_factory=list[float])


def parse_exposition(text: str) -> dict[str, Family]:
    """Parse a Prometheus text answer into families by name; `_bucket`, `_count` and `_sum` join their histogram."""
    families: dict[str, Family] = {}
    helps: dict[str, str] = {}
    for line in text.splitlines():
        if line.startswith("# HELP "):
            name, _, rest = line[7:].partition(" ")
            helps[name] = rest
        elif line.startswith("# TYPE "):
            name, _, kind = line[7:].partition(" ")
            families[name] = Family(name, helps.get(name, ""), kind)
        elif match := _SAMPLE.match(line):
            _add_sample(families, match[1], dict(_LABEL.findall(match[2] or "")))
    return families


def _add_sample(families: dict[str, Family], name: str, labels: dict[str, str]) -> None:
    family = families.get(name) or families[re.sub(r"_(bucket|count|sum)$", "", name)]
    bound = labels.pop("le", None) if family.type == "histogram" else None
    if bound is not None and float(bound) not in family.bounds:
        family.bounds.append(float(bound))
    series = tuple(labels.items())
    if series not in family.series:
        family.series.append(series)


def token_bounds(max_model_len: int) -> list[float]:
    """vLLM's buckets for counts of tokens: 1, 2, 5, 10, ... up to the context length."""
    bounds = [
        float(mantissa * 10**exponent)
        for exponent in range(len(str(max_model_len)))
        for mantissa in (1, 2, 5)
        if mantissa * 10**exponent <= max_model_len
    ]
    return [*bounds, float("inf")]


@dataclass
class _Histogram:
    bounds: list[float]
    counts: list[int]
    total: float = 0.0


class Metrics:
    """Live values of the captured families, for one model.

    Args:
        model_name: First served name: the `model_name` label.
        max_model_len: Context length, which sets the buckets of token counts.
        cache: Labels of `vllm:cache_config_info` that differ from the captured ones.
    """

    def __init__(self, model_name: str, max_model_len: int, cache: Mapping[str, str]) -> None:
        captured = parse_exposition(files("llmops_sandbox.engine").joinpath(CAPTURE).read_text())
        self._families = [
            family
            for family in captured.values()
            if family.name.startswith("vllm:") and not family.name.startswith(UNSPOKEN)
        ]
        self._http = captured[HTTP]
        self._started = time.time()
        self._values: dict[str, dict[Labels, float]] = {}
        self._histograms: dict[str, dict[Labels, _Histogram]] = {}
        self._values[HTTP] = {}
        for family in self._families:
            family.series = [self._own(series, model_name) for series in family.series]
            if family.name in _TOKEN_BUCKETS:
                family.bounds = token_bounds(max_model_len)
            if family.type == "histogram":
                self._histograms[family.name] = {
                    series: _Histogram(family.bounds, [0] * len(family.bounds)) for series in family.series
                }
            else:
                self._values[family.name] = dict.fromkeys(family.series, 0.0)
        info = "vllm:cache_config_info"
        described = {**dict(next(iter(self._values[info]))), **cache}
        self._values[info] = {tuple(described.items()): 1.0}
        self.set("vllm:engine_sleep_state", 1, sleep_state="awake")

    @staticmethod
    def _own(series: Labels, model_name: str) -> Labels:
        return tuple((key, model_name if key == "model_name" else value) for key, value in series)

    def _series(self, table: Mapping[Labels, object], labels: Mapping[str, str]) -> Labels:
        if len(table) == 1:
            return next(iter(table))
        return next(series for series in table if labels.items() <= dict(series).items())

    def set(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge."""
        table = self._values[name]
        table[self._series(table, labels)] = value

    def add(self, name: str, amount: float = 1, **labels: str) -> None:
        """Add to a counter or a gauge."""
        table = self._values[name]
        table[self._series(table, labels)] += amount

    def value(self, name: str, **labels: str) -> float:
        """The current value of a counter or gauge."""
        table = self._values[name]
        return table[self._series(table, labels)]

    def count_http(self, handler: str, method: str, status: int) -> None:
        """Count an answer of the HTTP server; the first answer starts its series.

        Args:
            handler: Route, such as `/v1/chat/completions`.
            method: Such as `POST`.
            status: HTTP status.
        """
        if handler not in UNCOUNTED:
            series = (("handler", handler), ("method", method), ("status", f"{status // 100}xx"))
            self._values[HTTP][series] = self._values[HTTP].get(series, 0.0) + 1

    def observe(self, name: str, value: float, times: int = 1) -> None:
        """Add `times` observations of a value to a histogram."""
        histogram = next(iter(self._histograms[name].values()))
        histogram.counts[bisect_left(histogram.bounds, value)] += times
        histogram.total += value * times

    def render(self) -> str:
        """The answer, in the order of the captured one."""
        lines: list[str] = []
        shown = [*self._families, self._http] if self._values[HTTP] else self._families
        for family in shown:
            lines.append(f"# HELP {family.name} {family.help}")
            lines.append(f"# TYPE {family.name} {family.type}")
            if family.type == "histogram":
                for series, histogram in self._histograms[family.name].items():
                    lines += _histogram_lines(family.name, series, histogram)
            else:
                created = family.name.endswith("_created")
                for series, value in self._values[family.name].items():
                    lines.append(f"{family.name}{_labels(series)} {float(self._started if created else value)}")
        return "\n".join(lines) + "\n"


def _labels(series: Labels) -> str:
    return "{" + ",".join(f'{key}="{value}"' for key, value in series) + "}" if series else ""


def _histogram_lines(name: str, series: Labels, histogram: _Histogram) -> list[str]:
    lines: list[str] = []
    running = 0
    for bound, count in zip(histogram.bounds, histogram.counts, strict=True):
        running += count
        le = "+Inf" if bound == float("inf") else str(bound)
        lines.append(f"{name}_bucket{_labels(tuple(sorted((*series, ('le', le)))))} {float(running)}")
    lines.append(f"{name}_count{_labels(series)} {float(running)}")
    lines.append(f"{name}_sum{_labels(series)} {histogram.total}")
    return lines
