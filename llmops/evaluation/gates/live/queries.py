"""The queries to Prometheus about a release under users' traffic.

They select series by release, so an older canary's never count, and count from the start of the step on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from llmops.config.names import Track

What = Literal["scraped", "requests", "http_errors", "engine_errors", "aborts", "ttft", "e2el"]

HANDLERS = "/v1/.*"
_NOT_COUNTED = "/v1/models"
_COUNTERS: Mapping[What, tuple[str, Mapping[str, str]]] = {
    # A 4xx is the client's mistake, and counts for no release.
    "requests": ("http_requests_total", {"status": "2xx|3xx|5xx"}),
    "http_errors": ("http_requests_total", {"status": "5xx"}),
    "engine_errors": ("vllm:request_success_total", {"finished_reason": "error"}),
    "aborts": ("vllm:request_success_total", {"finished_reason": "abort"}),
}
_HISTOGRAMS: Mapping[What, str] = {
    "ttft": "vllm:time_to_first_token_seconds_bucket",
    "e2el": "vllm:e2e_request_latency_seconds_bucket",
}


@dataclass(frozen=True)
class Subject:
    """A release on a track, as the labels of its series name it."""

    namespace: str
    model: str
    release: str
    track: Track

    @property
    def labels(self) -> dict[str, str]:
        """Labels that select its series, and no other release's."""
        return {"namespace": self.namespace, "model": self.model, "release": self.release, "track": self.track}


def queries(subject: Subject, seconds: float) -> dict[What, str]:
    """All queries about a release: counts by pod, histograms by pod and bucket.

    Args:
        subject: The release.
        seconds: How far back to count. Prometheus needs two scrapes in that time.
    """
    window = f"[{max(1, int(seconds))}s]"
    promql: dict[What, str] = {"scraped": f"count by (pod) ({_select('vllm:num_requests_running', subject)})"}
    for what, (name, chosen) in _COUNTERS.items():
        promql[what] = _increase(_select(name, subject, chosen), window, "pod")
    for what, name in _HISTOGRAMS.items():
        promql[what] = f"sum by (pod, le) (increase({_select(name, subject)}{window}))"
    return promql


def _increase(series: str, window: str, by: str) -> str:
    """How much counters grew. A counter that began in the window began at zero, which `increase` ignores.

    The first error of a pod begins its series; `increase` alone would not count it.
    """
    began = f"({series} unless ({series} offset {window[1:-1]}))"
    grown = f"increase({series}{window})"
    # `or` prefers its left side: of a series that began in the window, the larger of both counts.
    return f"sum by ({by}) (({began} > {grown}) or {grown} or {began})"


def _select(name: str, subject: Subject, chosen: Mapping[str, str] | None = None) -> str:
    exact = [f'{label}="{value}"' for label, value in subject.labels.items()]
    if name.startswith("http_"):
        exact += [f'handler=~"{HANDLERS}"', f'handler!="{_NOT_COUNTED}"']
    patterns = [f'{label}=~"{value}"' for label, value in (chosen or {}).items()]
    return f"{name}{{{','.join([*exact, *patterns])}}}"
