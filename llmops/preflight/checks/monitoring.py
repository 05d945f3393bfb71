"""Whether the cluster has what monitoring, autoscaling and traffic steps need."""

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
    """Whether the cluster serves the Prometheus Operator's objects: by them Prometheus finds engines."""
    subject, wanted = "Prometheus Operator", f"monitoring.monitor is {snapshot.settings.monitoring.monitor}"
    needed = {MONITORS[snapshot.settings.monitoring.monitor], "prometheusrules"}
    if missing := sorted(needed - snapshot.apis.get(OPERATOR, frozenset())):
        yield Finding(
            "error",
            subject,
            f"{wanted}, but the cluster serves no {' and no '.join(missing)} of {OPERATOR}",
            "Install the Prometheus Operator, or set monitoring.monitor to none.",
        )
    else:
        yield Finding("ok", subject, f"{wanted}, and the cluster serves it")


def _prometheus(snapshot: Snapshot) -> Iterator[Finding]:
    """Whether Prometheus answers."""
    if error := snapshot.unseen.get("prometheus"):
        yield Finding("error", "Prometheus", error.message, error.remedy or "Correct monitoring.prometheus_url.")
    else:
        yield Finding("ok", "Prometheus", f"{snapshot.settings.monitoring.prometheus_url} answers")


def _adapter(case: Case) -> Iterator[Finding]:
    """Whether the Prometheus Adapter serves the metric that the HPA scales by."""
    served = case.snapshot.apis.get(CUSTOM_METRICS)
    if served is not None and WAITING in served:
        yield Finding("ok", "Prometheus Adapter", f"serves {WAITING}")
        return
    if served is not None and case.spec.name not in case.snapshot.stable:
        # The Adapter lists a metric once a series has it: here the first engine's.
        yield Finding(
            "warning",
            "Prometheus Adapter",
            f"serves no {WAITING} yet: it lists the metric once an engine runs",
            "After the rollout: kubectl describe hpa shows ScalingActive.",
        )
        return
    state = "is not installed: the cluster serves no" if served is None else "is installed, but serves no"
    yield Finding(
        "error",
        "Prometheus Adapter",
        f"{state} {WAITING}; autoscaling.kind queue scales by it",
        "Install the Prometheus Adapter with the rule for vllm:num_requests_waiting, or set autoscaling.kind to cpu.",
        # The Adapter lists series periodically: a new engine's appear some seconds later.
        heals=served is not None,
    )


def _keda(case: Case) -> Iterator[Finding]:
    """Whether the cluster serves KEDA's objects."""
    if "scaledobjects" in case.snapshot.apis.get(KEDA, frozenset()):
        yield Finding("ok", "KEDA", "the cluster serves its ScaledObjects")
        return
    yield Finding(
        "error",
        "KEDA",
        f"autoscaling.kind is keda, but the cluster serves no scaledobjects of {KEDA}",
        "Install KEDA, or set autoscaling.kind to queue or cpu.",
    )


def _traffic(case: Case) -> Iterator[Finding]:
    """Whether llmops can divide traffic between two releases, and judge each step."""
    steps, settings = case.spec.traffic.steps, case.snapshot.settings
    if not steps:
        return
    subject = "traffic steps"
    problems: list[tuple[str, str]] = []
    if not settings.router.enabled and case.spec.exposure.kind == "none":
        remedy = "Enable the router in the settings, set exposure.kind to gateway or ingress, or remove traffic.steps."
        problems.append((f"{len(steps)} steps, but neither router nor exposure divides the traffic", remedy))
    if settings.monitoring.prometheus_url is None:
        problems.append((f"{len(steps)} steps, but no Prometheus to judge them by", NO_PROMETHEUS))
    for message, remedy in problems:
        yield Finding("error", subject, message, remedy)
    if not problems:
        yield Finding("ok", subject, f"llmops can move and judge {len(steps)} steps")


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
