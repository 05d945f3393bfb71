"""Pods that nobody may make, in the words of quotas and admission; and pods that do not go."""

# ruff: noqa: E501 - messages are quoted whole
from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.clients.kubernetes.diagnosis.refusals import refusal_of, refused
from llmops.clients.kubernetes.diagnosis.terminating import lingering

FORBIDDEN = 'Error creating: pods "web-checksum-0-x7k2p" is forbidden: '


@pytest.mark.parametrize(
    ("said", "code", "heals"),
    [
        (
            "failed quota: team: must specify limits.cpu for: worker; requests.memory for: worker",
            "QuotaDemandsLimits",
            "never",
        ),
        ("exceeded quota: team, requested: pods=1, used: pods=3, limited: pods=3", "QuotaExceeded", "maybe"),
        (
            "exceeded quota: team, requested: requests.cpu=2,requests.memory=8Gi, used: requests.cpu=0,requests.memory=0, "
            "limited: requests.cpu=4,requests.memory=4Gi",
            "QuotaExceeded",
            "never",
        ),
        ("exceeded quota: none, requested: pods=1, used: pods=0, limited: pods=0", "QuotaExceeded", "never"),
        ("maximum memory usage per Container is 1Gi, but limit is 4Gi", "LimitRangeRefuses", "never"),
        ("minimum cpu usage per Pod is 2, but request is 500m", "LimitRangeRefuses", "never"),
        (
            "cpu max limit to request ratio per Container is 2, but provided ratio is 8.000000",
            "LimitRangeRefuses",
            "never",
        ),
        ('violates PodSecurity "restricted:latest": allowPrivilegeEscalation != false', "PodsRefused", "never"),
        (
            "ValidatingAdmissionPolicy 'labels' with binding 'b' denied request: label team is required",
            "PodsRefused",
            "never",
        ),
        ("status unknown for quota: team, resources: pods", "PodsRefused", "maybe"),
        ('error looking up service account llm/default: serviceaccount "default" not found', "PodsRefused", "maybe"),
    ],
)
def test_what_no_time_heals_ends_the_wait_at_once(said: str, code: str, heals: str) -> None:
    finding = refused("Job web-checksum", FORBIDDEN + said)
    assert (finding.code, finding.heals) == (code, heals)
    assert said in finding.message
    assert finding.error().about == "Job web-checksum"


def test_a_webhook_that_is_away_may_come_back() -> None:
    said = 'Internal error occurred: failed calling webhook "v.example": Post "https://v.example": context deadline exceeded'
    assert refused("Job j", f"Error creating: {said}").heals == "maybe"


@given(st.text())
def test_any_words_are_told(said: str) -> None:
    assert refused("Job j", said).message.endswith(said)


def about(reason: str, second: int, uid: str = "u") -> dict[str, Any]:
    return {"reason": reason, "lastTimestamp": f"2026-03-01T10:00:{second:02}Z", "message": str(second),
            "involvedObject": {"uid": uid}}  # fmt: skip


def test_a_refusal_holds_until_a_pod_was_made() -> None:
    job = {"metadata": {"uid": "u"}}
    assert refusal_of(job, []) is None
    newest = refusal_of(job, [about("FailedCreate", 1), about("FailedCreate", 7), about("FailedCreate", 9, "other")])
    assert newest is not None
    assert newest["message"] == "7"
    assert refusal_of(job, [about("FailedCreate", 7), about("SuccessfulCreate", 8)]) is None
    assert refusal_of(job, [about("SuccessfulCreate", 3), about("FailedCreate", 7)]) is not None


def going(**meta: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "web-1", "namespace": "llm", "deletionTimestamp": "2026-03-01T10:00:00Z", **meta},
        "spec": {"nodeName": "gpu-7"},
    }


def node(ready: str) -> dict[str, Any]:
    condition = {"type": "Ready", "status": ready, "lastTransitionTime": "2026-03-01T09:58:00Z"}
    return {"status": {"conditions": [condition]}}


@pytest.mark.parametrize(
    ("pod", "nodes", "told", "remedy"),
    [
        (going(finalizers=["example.com/keep"]), {}, "finalizer example.com/keep", "kubectl -n llm edit pod web-1"),
        (going(), {"gpu-7": node("Unknown")}, "not ready since 2026-03-01T09:58:00Z", "out-of-service"),
        (going(), {"gpu-7": None}, "no longer exists", "out-of-service"),
        (going(), {"gpu-7": node("True")}, "does not report", "delete pod web-1 --grace-period=0 --force"),
        (going(), {}, "does not report", "kubelet of node gpu-7"),
    ],
)
def test_a_pod_that_does_not_go_is_told_with_its_node_and_what_to_do(
    pod: dict[str, Any], nodes: dict[str, Any], told: str, remedy: str
) -> None:
    found = lingering([{"metadata": {"name": "alive"}}, pod], nodes)
    assert found is not None
    assert "Pod web-1 on node gpu-7 is terminating since 2026-03-01T10:00:00Z" in found[0]
    assert told in found[0]
    assert remedy in found[1]


def test_pods_that_stay_are_not_told() -> None:
    assert lingering([{"metadata": {"name": "alive"}}], {}) is None
