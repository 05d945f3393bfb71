"""What Prometheus is asked of a release under users' traffic.

Every series is chosen by its release: an older canary's never count. Counts are those since a moment, never before it.
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
    # What the client did wrong (4xx) is nobody's error.
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
    """A release on a track, as its series are labelled."""

    namespace: str
    model: str
    release: str
    track: Track

    @property
    def labels(self) -> dict[str, str]:
        """What its series have, and no other release's."""
        return {"namespace": self.namespace, "model": self.model, "release": self.release, "track": self.track}


def queries(subject: Subject, seconds: float) -> dict[What, str]:
    """All that is asked of a release: counts by pod, of histograms by pod and bucket too.

    Args:
        subject: The release.
        seconds: How far back counts go. Prometheus needs two scrapes in that time.
    """
    window = f"[{max(1, int(seconds))}s]"
    asked: dict[What, str] = {"scraped": f"count by (pod) ({_select('vllm:num_requests_running', subject)})"}
    for what, (name, chosen) in _COUNTERS.items():
        asked[what] = _increase(_select(name, subject, chosen), window, "pod")
    for what, name in _HISTOGRAMS.items():
        asked[what] = f"sum by (pod, le) (increase({_select(name, subject)}{window}))"
    return asked


def _increase(series: str, window: str, by: str) -> str:
    """How much counters grew. One that began in the window began at zero, which `increase` does not know.

    Without that, the first errors of all would not count: their series begins with them.
    """
    began = f"({series} unless ({series} offset {window[1:-1]}))"
    grown = f"increase({series}{window})"
    # On the right of `or` only what is not on its left: of a series that began, the larger of both counts.
    return f"sum by ({by}) (({began} > {grown}) or {grown} or {began})"


def _select(name: str, subject: Subject, chosen: Mapping[str, str] | None = None) -> str:
    exact = [f'{label}="{value}"' for label, value in subject.labels.items()]
    if name.startswith("http_"):
        exact += [f'handler=~"{HANDLERS}"', f'handler!="{_NOT_COUNTED}"']
    patterns = [f'{label}=~"{value}"' for label, value in (chosen or {}).items()]
    return f"{name}{{{','.join([*exact, *patterns])}}}"
