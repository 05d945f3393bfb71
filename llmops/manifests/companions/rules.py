"""Prometheus' rules for a model: recorded figures, and alerts for people.

Alerts cover stable, which serves users. The rollout judges the canary.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from llmops.config import names
from llmops.config.catalog.objectives import Objectives
from llmops.config.settings import Settings
from llmops.manifests import engine_metrics as metrics
from llmops.manifests.pods import Manifest
from llmops.releases.release import Release

QUANTILES = {"p50": "0.5", "p95": "0.95", "p99": "0.99"}
LABELS = "namespace, model, track, release"
SCRAPES_PER_WINDOW = 8
ABSENT_SECONDS = 300
# Requests of users: no probes, no scrapes.
REQUESTS = 'handler=~"/v1/.*",handler!="/v1/models"'

Severity = Literal["critical", "warning"]


@dataclass(frozen=True)
class Alert:
    """One alerting rule.

    Args:
        name: Its name, which people see.
        expr: Expression that is true while the cause lasts.
        seconds: How long the expression must be true.
        severity: critical: users feel it; warning: they may feel it soon.
        summary: One line with templates that Prometheus fills in.
        action: What to do first.
        labels: Labels in addition to those of the expression.
    """

    name: str
    expr: str
    seconds: int
    severity: Severity
    summary: str
    action: str
    labels: tuple[tuple[str, str], ...] = ()


def groups(release: Release, settings: Settings, objectives: Objectives) -> list[Manifest]:
    """A model's groups of rules: the content of `groups` in a rule file and in a PrometheusRule's `spec`.

    Args:
        release: The release that serves; its version of vLLM decides the names of metrics.
        settings: The installation.
        objectives: Thresholds of the alerts.
    """
    rules = _Rules(release, settings, objectives)
    model = release.model
    return [
        {
            "name": f"llmops.{settings.namespace}.{model}.figures",
            "rules": [{"record": name, "expr": expr} for name, expr in rules.figures()],
        },
        {
            "name": f"llmops.{settings.namespace}.{model}.alerts",
            "rules": [_alert(alert, release, settings) for alert in rules.alerts()],
        },
    ]


def _alert(alert: Alert, release: Release, settings: Settings) -> Manifest:
    links: dict[str, str] = {}
    # All models share the volume: their rules have the same alert, and Alertmanager sends it once.
    if dict(alert.labels).get("model"):
        if settings.service_url:
            links["report_url"] = f"{settings.service_url.rstrip('/')}/reports/{release.model}/{release.id}"
        if settings.dagster_url:
            links["runs_url"] = f"{settings.dagster_url.rstrip('/')}/assets/promotion?partition={release.model}"
    return {
        "alert": alert.name,
        "expr": alert.expr,
        "for": f"{alert.seconds}s",
        "labels": {"severity": alert.severity, **dict(alert.labels)},
        "annotations": {"summary": alert.summary, "action": alert.action, **links},
    }


class _Rules:
    def __init__(self, release: Release, settings: Settings, objectives: Objectives) -> None:
        self.release, self.settings, self.objectives = release, settings, objectives
        self.window = f"{settings.monitoring.interval_seconds * SCRAPES_PER_WINDOW}s"
        self.here = f'namespace="{settings.namespace}",model="{release.model}"'
        self.stable = f'{self.here},track="stable"'

    def name(self, metric: str) -> str:
        return metrics.name_in(metric, self.release.engine.tag)

    def rate(self, metric: str, more: str = "") -> str:
        chosen = f"{self.here},{more}" if more else self.here
        return f"sum by ({LABELS}) (rate({self.name(metric)}{{{chosen}}}[{self.window}]))"

    def figures(self) -> Iterator[tuple[str, str]]:
        for what, metric in (("ttft", metrics.TTFT), ("e2e", metrics.E2E), ("inter_token", metrics.INTER_TOKEN)):
            buckets = f"rate({self.name(metric)}_bucket{{{self.here}}}[{self.window}])"
            for label, quantile in QUANTILES.items():
                yield (
                    f"llmops:{what}_seconds:{label}",
                    f"histogram_quantile({quantile}, sum by ({LABELS}, le) ({buckets}))",
                )
        yield "llmops:generation_tokens_per_second:sum", self.rate(metrics.GENERATION_TOKENS)
        yield "llmops:prompt_tokens_per_second:sum", self.rate(metrics.PROMPT_TOKENS)
        # 4xx is the client's error: leave it out.
        requests = self.rate(metrics.HTTP_REQUESTS, f'{REQUESTS},status=~"2xx|3xx|5xx"')
        refused = self.rate(metrics.HTTP_REQUESTS, f'{REQUESTS},status="5xx"')
        # A broken stream was answered with 200. Both rates may count one request, so take the larger one.
        broken = self.rate(metrics.FINISHED, 'finished_reason="error"')
        yield "llmops:requests_per_second:sum", requests
        yield "llmops:errors:ratio", f"(({refused} >= {broken}) or {broken}) / ({requests} > 0)"
        yield "llmops:preemptions_per_second:sum", self.rate(metrics.PREEMPTIONS)
        yield "llmops:requests_running:sum", f"sum by ({LABELS}) ({self.name(metrics.RUNNING)}{{{self.here}}})"
        yield "llmops:requests_waiting:sum", f"sum by ({LABELS}) ({self.name(metrics.WAITING)}{{{self.here}}})"
        # The maximum over engines: a full queue beside an empty one is a full queue.
        yield "llmops:requests_waiting:max", f"max by ({LABELS}) ({self.name(metrics.WAITING)}{{{self.here}}})"
        yield "llmops:kv_cache_usage:max", f"max by ({LABELS}) ({self.name(metrics.KV_CACHE)}{{{self.here}}})"
        hits, queries = self.rate(metrics.PREFIX_HITS), self.rate(metrics.PREFIX_QUERIES)
        yield "llmops:prefix_cache_hits:ratio", f"{hits} / ({queries} > 0)"
        yield "llmops:engines_up:count", f"sum by ({LABELS}) (max by ({LABELS}, pod) (up{{{self.here}}}))"
        if self.release.gpu.count:
            yield "llmops:gpu_utilization_percent:avg", self._gpu()

    def alerts(self) -> Iterator[Alert]:
        levels, model = self.objectives, self.release.model
        about = (("model", model),)

        def over(figure: str, limit: float) -> str:
            return f"{figure}{{{self.stable}}} > {limit:g}"

        yield Alert(
            "LlmLatencyHigh",
            over("llmops:e2e_seconds:p95", levels.p95_e2e_seconds),
            levels.slow_for_seconds,
            "critical",
            f"{model}: 95 % of answers take up to {{{{ $value | humanizeDuration }}}}, the objective is "
            f"{levels.p95_e2e_seconds:g} s",
            "Look at the queue and the KV cache: with both low, answers got longer or the GPU slower. After a "
            f"promotion, `llmops rollback {model}`; under load, more replicas.",
            about,
        )
        yield Alert(
            "LlmFirstTokenLate",
            over("llmops:ttft_seconds:p95", levels.p95_ttft_seconds),
            levels.slow_for_seconds,
            "warning",
            f"{model}: 95 % of first tokens come within {{{{ $value | humanizeDuration }}}}, the objective is "
            f"{levels.p95_ttft_seconds:g} s",
            "Look at the queue: with requests waiting, more replicas; without, prompts got longer.",
            about,
        )
        yield Alert(
            "LlmQueueLong",
            over("llmops:requests_waiting:max", levels.waiting_requests),
            levels.waiting_for_seconds,
            "warning",
            f"{model}: {{{{ $value }}}} requests wait at one engine",
            "Autoscaling is too slow, at its maximum, or without free GPUs: look for pending pods "
            f"(`kubectl get pods -n {self.settings.namespace} -l {names.MODEL_LABEL}={model}`); raise its maximum, or "
            "limit tenants.",
            about,
        )
        if self.release.gpu.count:
            yield Alert(
                "LlmGpuHot",
                over("llmops:gpu_utilization_percent:avg", levels.gpu_percent),
                levels.gpu_for_seconds,
                "warning",
                f"{model}: its GPUs are {{{{ $value | humanize }}}} % busy",
                "There is no room for more users: add replicas before the queue grows.",
                about,
            )
        yield Alert(
            "LlmPodRestarts",
            f"{self._restarts()} > {levels.restarts_per_hour}",
            0,
            "warning",
            f"{model}: {{{{ $labels.pod }}}} restarted {{{{ $value }}}} times within an hour",
            f"`kubectl logs -n {self.settings.namespace} {{{{ $labels.pod }}}} --previous` says why the engine ended. "
            f"Out of memory: fewer sequences or a shorter context. After a promotion: `llmops rollback {model}`.",
            about,
        )
        if self.release.weights.strategy == "volume":
            yield self._volume()
        yield Alert(
            "LlmNoReplicaReady",
            self._unready(),
            levels.unready_for_seconds,
            "critical",
            f"{model}: no replica is ready, nobody is served",
            f"`llmops status {model}`, then `kubectl describe pods -n {self.settings.namespace} -l "
            f"{names.MODEL_LABEL}={model}`: no node with a GPU, a crash, or a volume that can't be mounted.",
            (*about, ("track", "stable")),
        )
        yield Alert(
            "LlmErrors",
            over("llmops:errors:ratio", levels.error_ratio),
            levels.errors_for_seconds,
            "critical",
            f"{model}: {{{{ $value | humanizePercentage }}}} of requests fail",
            "The engine's log names the cause (`kubectl logs`); its core may be dead while it still answers /health. "
            f"After a promotion: `llmops rollback {model}`.",
            about,
        )
        yield Alert(
            "LlmKvCacheFull",
            f"{over('llmops:kv_cache_usage:max', levels.kv_cache_percent / 100)} and on ({LABELS}) "
            f"llmops:preemptions_per_second:sum{{{self.stable}}} > 0",
            levels.kv_cache_for_seconds,
            "warning",
            f"{model}: the KV cache is {{{{ $value | humanizePercentage }}}} full, and requests are preempted",
            "More is asked of an engine than it holds: add replicas, or lower max_num_seqs or max_model_len.",
            about,
        )
        yield Alert(
            "LlmMetricsAbsent",
            # A Deployment with 0 replicas has no metrics to miss.
            f"absent(up{{{self.stable}}} == 1) unless on () (kube_deployment_spec_replicas"
            f"{{{self._deployment()}}} == 0)",
            ABSENT_SECONDS,
            "warning",
            f"{model}: Prometheus gets no metrics of any engine: every other alert is blind",
            "Either no engine runs, or the monitor is not chosen (monitoring.labels), or a NetworkPolicy keeps "
            "Prometheus out.",
            about,
        )

    def _deployment(self) -> str:
        name = names.engine_name(self.release.model, "stable")
        return f'namespace="{self.settings.namespace}",deployment="{name}"'

    def _unready(self) -> str:
        by = "max by (namespace, deployment)"
        ready = f"{by} (kube_deployment_status_replicas_ready{{{self._deployment()}}}) == 0"
        return f"{ready} and {by} (kube_deployment_spec_replicas{{{self._deployment()}}}) > 0"

    def _pods(self, chosen: str) -> str:
        """Every pod that Prometheus scrapes, up or not, with its model, track and release: the right side of a join."""
        return f"group by (namespace, pod, model, track, release) (up{{{chosen}}})"

    def _restarts(self) -> str:
        counted = (
            f'kube_pod_container_status_restarts_total{{namespace="{self.settings.namespace}",'
            f'container="{names.ENGINE_CONTAINER}"}}[1h]'
        )
        # Not `increase`: it extrapolates, so one restart becomes 1.004, which is more than 1.
        grown = f"(max_over_time({counted}) - min_over_time({counted}))"
        joined = f"{grown} * on (namespace, pod) group_left (model, track, release) {self._pods(self.stable)}"
        return f"max by ({LABELS}, pod) ({joined})"

    def _gpu(self) -> str:
        metric, here = "DCGM_FI_DEV_GPU_UTIL", self.settings.namespace
        # The exporter labels a GPU with its pod. A scrape without `honorLabels` renames them to `exported_...`.
        honoured = f'{metric}{{namespace="{here}",exported_pod=""}}'
        moved = f'{metric}{{exported_namespace="{here}"}}'
        for label in ("namespace", "pod"):
            moved = f'label_replace({moved}, "{label}", "$1", "exported_{label}", "(.+)")'
        joined = f"({honoured} or {moved}) * on (namespace, pod) group_left (model, track, release) "
        return f"avg by ({LABELS}) ({joined}{self._pods(self.here)})"

    def _volume(self) -> Alert:
        limit = self.settings.monitoring
        claim = f'namespace="{self.settings.namespace}",persistentvolumeclaim="{self.settings.claim}"'
        by = "max by (namespace, persistentvolumeclaim)"
        used = f"{by} (kubelet_volume_stats_used_bytes{{{claim}}} / kubelet_volume_stats_capacity_bytes{{{claim}}})"
        return Alert(
            "LlmVolumeNearlyFull",
            f"{used} > {limit.volume_used_percent / 100:g}",
            limit.volume_for_seconds,
            "warning",
            f"{self.settings.claim} is {{{{ $value | humanizePercentage }}}} full: the next download may fail",
            "Each model keeps the weights of its last releases: lower rollout.keep_weights, or let the claim grow. "
            "What else is on it, `kubectl exec` into an engine shows under /models.",
        )
