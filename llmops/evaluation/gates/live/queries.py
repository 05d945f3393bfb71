"""The queries to Prometheus about a release under users' traffic.

They select series by release, so an older canary's never count.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from llmops.config.catalog.promql import filled
from llmops.config.names import Track

What = Literal["scraped", "requests", "http_errors", "engine_errors", "aborts", "ttft", "e2el"]

HANDLERS = "/v1/.*"
OF_LATE = "15m"
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


def queries(subject: Subject) -> dict[What, str]:
    """All queries about a release: when its pods were scraped, counters by pod, histograms by pod and bucket.

    They ask for counters as they are. `increase` would extrapolate to the ends of its window: a short time would count
    requests that nobody sent.
    """
    promql: dict[What, str] = {"scraped": f"max by (pod) (timestamp({_select('vllm:num_requests_running', subject)}))"}
    for what, (name, chosen) in _COUNTERS.items():
        promql[what] = f"sum by (pod) ({_select(name, subject, chosen)})"
    for what, name in _HISTOGRAMS.items():
        promql[what] = f"sum by (pod, le) ({_select(name, subject)})"
    return promql


def known(subject: Subject) -> str:
    """The query for the pods of a release that Prometheus has seen of late. A scrape that fails hides a pod, for a
    moment, from all others."""
    return f"group by (pod) (last_over_time({_select('vllm:num_requests_running', subject)}[{OF_LATE}]))"


def own_query(query: str, subject: Subject, seconds: float) -> str:
    """The query of a gate of the model's own.

    Args:
        query: The expression with its placeholders.
        subject: The release.
        seconds: Time since the step began. Prometheus takes no window of less than a second.
    """
    labels = ",".join(f'{label}="{value}"' for label, value in subject.labels.items())
    return filled(query, {**subject.labels, "labels": labels, "interval": f"{max(1, int(seconds))}s"})


def _select(name: str, subject: Subject, chosen: Mapping[str, str] | None = None) -> str:
    exact = [f'{label}="{value}"' for label, value in subject.labels.items()]
    if name.startswith("http_"):
        exact += [f'handler=~"{HANDLERS}"', f'handler!="{_NOT_COUNTED}"']
    patterns = [f'{label}=~"{value}"' for label, value in (chosen or {}).items()]
    return f"{name}{{{','.join([*exact, *patterns])}}}"
