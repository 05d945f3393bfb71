"""A Deployment that somebody paused or scaled to 0 is never rolled out, and the message names who did it."""

from __future__ import annotations

from typing import Any

from llmops.clients.kubernetes.progress import halted, rollout_problem, rollout_progress
from llmops.errors import ClusterCannot


def deployment(**spec: Any) -> dict[str, Any]:
    fields = {f"f:{name}": {} for name in spec}
    managed = [
        {
            "manager": "llmops",
            "operation": "Apply",
            "time": "2026-04-01T10:00:00Z",
            "fieldsV1": {"f:spec": {"f:template": {}}},
        },
        {
            "manager": "kube-downscaler",
            "operation": "Update",
            "subresource": "scale" if "replicas" in spec else "",
            "time": "2026-04-01T22:00:00Z",
            "fieldsV1": {"f:spec": fields},
        },
    ]
    meta = {"name": "chat", "namespace": "serving", "generation": 3, "managedFields": managed}
    return {"metadata": meta, "spec": {"replicas": 2, **spec}, "status": {"observedGeneration": 3}}


def test_zero_pods_prove_nothing() -> None:
    scaled = deployment(replicas=0)
    assert not rollout_progress(scaled, [], drained=False).done
    problem = rollout_problem(scaled)
    assert problem is not None
    assert (problem.code, problem.heals, problem.verdict) == ("ScaledToZero", "never", ClusterCannot)
    assert problem.message == (
        "Deployment chat is scaled to 0 replicas (by kube-downscaler (Update of scale) at 2026-04-01T22:00:00Z)"
    )


def test_a_pause_names_who_paused() -> None:
    problem = halted(deployment(paused=True))
    assert problem is not None
    assert "is paused (by kube-downscaler (Update) at 2026-04-01T22:00:00Z)" in problem.message
    assert problem.remedy == "kubectl rollout resume deployment/chat --namespace serving"


def test_a_deployment_without_managers_is_halted_by_an_unknown() -> None:
    unknown = deployment(paused=True)
    del unknown["metadata"]["managedFields"]
    problem = halted(unknown)
    assert problem is not None
    assert problem.message == "Deployment chat is paused"
    assert halted(deployment()) is None
