"""Quotas and LimitRanges against all pods and objects of a rollout, before any of them is made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from llmops.preflight.admission import counts, defaulted, demands, usage
from llmops.preflight.checks import preflight
from llmops.preflight.checks.case import Case, HubAnswer, ImageAnswer
from llmops.preflight.finding import Finding

Make = Callable[..., Any]


def quota(hard: dict[str, str], used: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "team"}, "spec": {"hard": hard, **spec}, "status": {"hard": hard, "used": used or {}}}


def limits(kind: str = "Container", **rules: dict[str, str]) -> dict[str, Any]:
    return {"metadata": {"name": "bounds"}, "spec": {"limits": [{"type": kind, **rules}]}}


@pytest.fixture
def findings(spec: Make, snapshot: Make, release: Make) -> Callable[..., list[Finding]]:
    def find(**changes: Any) -> list[Finding]:
        entry = spec(**changes.pop("entry", {}))
        pinned = release()
        image = ImageAnswer(pinned.engine.tag, pinned.engine.digest, pinned.engine.image, frozenset({"amd64"}))
        case = Case(entry, snapshot(**changes), pinned, HubAnswer("http://hub", entry.weights.repo), image)
        return [finding for finding in preflight(case) if finding.check.startswith("quotas.")]

    return find


def test_a_namespace_without_quotas_is_fine(findings: Callable[..., list[Finding]]) -> None:
    assert [finding.severity for finding in findings()] == ["ok", "ok"]


def test_a_quota_that_demands_a_limit_refuses_every_pod_and_a_default_helps(
    findings: Callable[..., list[Finding]],
) -> None:
    demanding = quota({"limits.cpu": "100"})
    refused = [finding for finding in findings(quotas=(demanding,)) if finding.severity == "error"]
    whats = ("the download Job", "the checksum Job", "the canary", "the replica", "the evaluation Job")
    assert len(refused) == len(whats)
    for what, finding in zip(whats, refused, strict=True):
        assert f"ResourceQuota team refuses {what}: it has to name limits.cpu for " in finding.message
        assert "LimitRange" in finding.remedy
    helped = findings(quotas=(demanding,), limit_ranges=(limits(default={"cpu": "4"}),))
    assert [finding.severity for finding in helped] == ["ok", "ok"]


def test_a_quota_that_is_smaller_than_a_pod_is_an_error_and_one_that_is_full_a_warning(
    findings: Callable[..., list[Finding]],
) -> None:
    small = findings(quotas=(quota({"requests.memory": "1Mi"}),))
    assert {finding.severity for finding in small if finding.check == "quotas.room"} == {"error"}
    assert any("too small for the canary: requests.memory" in finding.message for finding in small)
    full = findings(quotas=(quota({"pods": "10"}, {"pods": "10"}),))
    assert {finding.severity for finding in full if finding.check == "quotas.room"} == {"warning"}
    assert any("no room now for the canary: pods 1, 0 left" in finding.message for finding in full)


def test_a_quota_below_what_is_used_is_no_matter_for_what_needs_nothing_of_it(
    findings: Callable[..., list[Finding]],
) -> None:
    """Somebody lowers a quota in a rollout: less than nothing is left."""
    lowered = findings(quotas=(quota({"pods": "0"}, {"pods": "2"}),))
    assert lowered
    assert all("ResourceQuota team is too small for" in finding.message for finding in lowered
               if finding.severity == "error")  # fmt: skip
    assert not any("objects of a release" in finding.message for finding in lowered)


def test_objects_count_too(findings: Callable[..., list[Finding]]) -> None:
    found = findings(quotas=(quota({"count/configmaps": "3"}),))
    assert found[0].severity == "error"
    assert "too small for the objects of a release: count/configmaps" in found[0].message


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ({"max": {"memory": "1Mi"}}, "has a limit of"),
        ({"max": {"cpu": "2"}}, "has no limit for cpu, and may have 2 at most"),
        ({"min": {"cpu": "900"}}, "has to request 900 at least"),
        ({"maxLimitRequestRatio": {"cpu": "2"}}, "needs a request and a limit for cpu"),
    ],
)
@pytest.mark.parametrize("kind", ["Container", "Pod"])
def test_a_limit_range_that_refuses_a_pod_is_an_error(
    findings: Callable[..., list[Finding]], kind: str, rules: dict[str, dict[str, str]], said: str
) -> None:
    found = [finding for finding in findings(limit_ranges=(limits(kind, **rules),)) if finding.check == "quotas.ranges"]
    assert {finding.severity for finding in found} == {"error"}
    assert all(said in finding.message for finding in found)


def test_a_claim_that_is_yet_to_be_made_is_held_against_the_limit_range(findings: Callable[..., list[Finding]]) -> None:
    small = limits("PersistentVolumeClaim", max={"storage": "1Gi"})
    found = findings(limit_ranges=(small,), claim=None)
    assert any("LimitRange bounds refuses the claim" in finding.message for finding in found)
    assert all("the claim" not in finding.message for finding in findings(limit_ranges=(small,)))


PLAIN = {"containers": [{"name": "a", "resources": {"requests": {"cpu": "1"}, "limits": {"memory": "2Gi"}}}]}


def test_a_limit_alone_is_also_the_request() -> None:
    pod = defaulted(PLAIN, ())
    assert usage(pod)["requests.memory"] == usage(pod)["memory"] == usage(pod)["limits.memory"] == 2 * 2**30
    assert demands(pod, quota({"requests.memory": "1", "limits.memory": "1", "cpu": "1"})) == []
    assert demands(pod, quota({"limits.cpu": "1"})) == ["limits.cpu for a"]
    assert "requests" not in str(PLAIN["containers"][0]["resources"]).partition("memory")[2]


def of_priority(operator: str, *values: str) -> dict[str, Any]:
    expression = {"scopeName": "PriorityClass", "operator": operator, "values": list(values)}
    return {"scopeSelector": {"matchExpressions": [expression]}}


@pytest.mark.parametrize(
    ("scoped", "counted"),
    [
        ({"scopes": ["BestEffort"]}, False),
        ({"scopes": ["NotBestEffort", "NotTerminating"]}, True),
        ({"scopes": ["Terminating"]}, False),
        ({"scopes": ["Tomorrow"]}, None),
        (of_priority("In", "x"), False),
        (of_priority("DoesNotExist"), True),
    ],
)  # fmt: skip
def test_a_quota_counts_pods_by_its_scopes(scoped: dict[str, Any], counted: bool | None) -> None:
    assert counts(defaulted(PLAIN, ()), quota({"pods": "1"}, **scoped)) is counted
