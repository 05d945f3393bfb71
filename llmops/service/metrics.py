"""The figures as Prometheus metrics; docs/guides/alerts.md explains each."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, SummaryMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from llmops.config.schema import VERDICT_VALUES
from llmops.service.figures import Figures


class FiguresCollector(Collector):
    """Collector for the figures of one moment.

    Args:
        figures: The figures.
    """

    def __init__(self, figures: Figures) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        """All metrics."""
        yield from _counted(self._figures)
        yield from _now(self._figures)


def _counted(figures: Figures) -> Iterator[Metric]:
    rollouts = CounterMetricFamily("llmops_rollouts", "Trials that ended, by verdict.", labels=("model", "verdict"))
    durations = SummaryMetricFamily(
        "llmops_stage_duration_seconds", "Seconds that stages of trials took.", labels=("model", "stage")
    )
    last = GaugeMetricFamily(
        "llmops_stage_last_duration_seconds", "Seconds that the stage took the last time.", labels=("model", "stage")
    )
    gpu = CounterMetricFamily(
        "llmops_canary_gpu_seconds",
        "GPUs of canaries times the seconds of their life; counted when a canary is removed.",
        labels=("model",),
    )
    # All models and verdicts start at 0: increase() misses a series that appears at 1.
    for model in sorted(figures.models | figures.counted.keys()):
        counted = figures.counted.get(model)
        for verdict in VERDICT_VALUES:
            rollouts.add_metric((model, verdict), counted.rollouts.get(verdict, 0) if counted else 0)
        gpu.add_metric((model,), counted.canary_gpu_seconds if counted else 0)
        for stage, took in counted.stages.items() if counted else ():
            durations.add_metric((model, stage), count_value=took.count, sum_value=took.seconds)
            last.add_metric((model, stage), took.last)
    yield from (rollouts, durations, last, gpu)


def _now(figures: Figures) -> Iterator[Metric]:
    validated = GaugeMetricFamily(
        "llmops_last_validation_timestamp_seconds",
        "Unix time of the last validation with a conclusion in every check.",
        labels=("model",),
    )
    findings = GaugeMetricFamily("llmops_validation_findings", "Findings of the last validation.", labels=("model",))
    for model, last in sorted(figures.validated.items()):
        if last.completed is not None:
            validated.add_metric((model,), last.completed.timestamp())
        findings.add_metric((model,), last.findings)
    serving = GaugeMetricFamily(
        "llmops_serving_info", "The release that serves users.", labels=("model", "release", "image")
    )
    for model, served in sorted(figures.serving.items()):
        serving.add_metric((model, served.release, served.image), 1)
    progress = GaugeMetricFamily(
        "llmops_rollout_in_progress", "Whether a run holds the model's lease.", labels=("model",)
    )
    for model in sorted(figures.models | figures.in_progress):
        progress.add_metric((model,), float(model in figures.in_progress))
    alerts = GaugeMetricFamily("llmops_alerts_pending", "Alerts that wait for the target.", labels=("target",))
    for target, count in sorted(figures.alerts_pending.items()):
        alerts.add_metric((target,), count)
    yield from (validated, findings, serving, progress, alerts)
