"""What tells of engines: Prometheus and its operator, the metric that replicas follow, and who moves traffic."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from llmops.preflight.checks.case import Case, Check
from llmops.preflight.finding import Finding
from llmops.preflight.snapshot import Snapshot

OPERATOR = "monitoring.coreos.com/v1"
CUSTOM_METRICS = "custom.metrics.k8s.io/v1beta1"
KEDA = "keda.sh/v1alpha1"
WAITING = "pods/vllm_num_requests_waiting"
"""The Adapter's name of vllm:num_requests_waiting."""
MONITORS = {"service-monitor": "servicemonitors", "pod-monitor": "podmonitors"}
NO_PROMETHEUS = "Set monitoring.prometheus_url in the settings."


def _operator(snapshot: Snapshot) -> Iterator[Finding]:
    """Whether the objects by which Prometheus would find engines are known to the cluster."""
    subject, wanted = "Prometheus Operator", f"monitoring.monitor is {snapshot.settings.monitoring.monitor}"
    needed = {MONITORS[snapshot.settings.monitoring.monitor], "prometheusrules"}
    if missing := sorted(needed - snapshot.apis.get(OPERATOR, frozenset())):
        yield Finding(
            "error",
            subject,
            f"{wanted}, but the cluster knows no {' and no '.join(missing)} of {OPERATOR}",
            "Install the Prometheus Operator with its definitions, or set monitoring.monitor to none.",
        )
    else:
        yield Finding("ok", subject, f"{wanted}, and the cluster knows it")


def _prometheus(snapshot: Snapshot) -> Iterator[Finding]:
    """Whether Prometheus answers."""
    if error := snapshot.unseen.get("prometheus"):
        yield Finding("error", "Prometheus", error.message, error.remedy or "Correct monitoring.prometheus_url.")
    else:
        yield Finding("ok", "Prometheus", f"{snapshot.settings.monitoring.prometheus_url} answers")


def _adapter(case: Case) -> Iterator[Finding]:
    """Whether there is what counts the requests that replicas follow."""
    served = case.snapshot.apis.get(CUSTOM_METRICS)
    if served is not None and WAITING in served:
        yield Finding("ok", "Prometheus Adapter", f"serves {WAITING}")
        return
    if served is not None and case.spec.name not in case.snapshot.stable:
        # It finds a metric when a series has it, and an engine is the first to have this one.
        yield Finding(
            "warning",
            "Prometheus Adapter",
            f"is there, and will show whether it serves {WAITING} once an engine runs",
            "After the rollout: kubectl describe hpa shows ScalingActive.",
        )
        return
    there = "is not there: the cluster serves no" if served is None else "is there, but serves no"
    yield Finding(
        "error",
        "Prometheus Adapter",
        f"{there} {WAITING}, which autoscaling.kind queue scales by",
        "Install the Prometheus Adapter with the rule for vllm:num_requests_waiting, or take autoscaling.kind cpu.",
        # It lists series now and then: a new engine's are there some seconds later.
        heals=served is not None,
    )


def _keda(case: Case) -> Iterator[Finding]:
    """Whether KEDA's objects are known to the cluster."""
    if "scaledobjects" in case.snapshot.apis.get(KEDA, frozenset()):
        yield Finding("ok", "KEDA", "its ScaledObjects are known to the cluster")
        return
    yield Finding(
        "error",
        "KEDA",
        f"autoscaling.kind is keda, but the cluster knows no scaledobjects of {KEDA}",
        "Install KEDA, or take autoscaling.kind queue or cpu.",
    )


def _traffic(case: Case) -> Iterator[Finding]:
    """Whether steps of traffic can be moved, and judged."""
    steps, settings = case.spec.traffic.steps, case.snapshot.settings
    if not steps:
        return
    told = f"{len(steps)} steps of users' traffic"
    problems: list[tuple[str, str]] = []
    if not settings.router.enabled and case.spec.exposure.kind == "none":
        remedy = "Enable the router in the settings, or set exposure.kind to gateway or ingress; or leave steps out."
        problems.append((f"{told}, but there is nothing in front of both releases that could divide it", remedy))
    if settings.monitoring.prometheus_url is None:
        problems.append((f"{told}, but no Prometheus by which they are judged", NO_PROMETHEUS))
    for message, remedy in problems:
        yield Finding("error", "traffic steps", message, remedy)
    if not problems:
        yield Finding("ok", "traffic steps", f"{told} can be moved and judged")


def _scales_by(kind: str) -> Callable[[Case], bool]:
    return lambda case: case.spec.autoscaling is not None and case.spec.autoscaling.kind == kind


CHECKS = (
    Check[Snapshot](
        "monitoring.operator",
        "Prometheus Operator",
        (OPERATOR,),
        _operator,
        used=lambda snapshot: snapshot.settings.monitoring.monitor in MONITORS,
    ),
    Check[Snapshot](
        "monitoring.prometheus",
        "Prometheus",
        (),
        _prometheus,
        used=lambda snapshot: snapshot.settings.monitoring.prometheus_url is not None,
    ),
)
MODEL_CHECKS = (
    Check("monitoring.adapter", "Prometheus Adapter", (CUSTOM_METRICS,), _adapter, used=_scales_by("queue")),
    Check("monitoring.keda", "KEDA", (KEDA,), _keda, used=_scales_by("keda")),
    Check("monitoring.traffic", "traffic steps", (), _traffic),
)
