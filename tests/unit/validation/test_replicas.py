"""What the check of replicas says: the same, a bad card, all different, too few texts, not available."""

from __future__ import annotations

import pytest

from llmops.evaluation.fidelity.distances import CaseDistance, Distances
from llmops.evaluation.gates.divergence import Excess, recognized
from llmops.releases.release import Release
from llmops.rollout.revalidation.fidelity import Told, result

SAME = Excess(0.0, 0.0, 0.001, 0.0, 30, 600)
OTHER = Excess(0.05, 0.04, 0.06, 0.0012, 30, 600)


def told(number: int, value: str = "same", **fields: object) -> Told:
    found = {"same": SAME, "other": OTHER}.get(value)
    return Told(f"pod-{number}", f"node gpu-{number} (NVIDIA-L40S)", value, **{"found": found} | fields)  # pyright: ignore[reportArgumentType] -- found is an Excess or None


def row(difference: float, null: float = 0.0) -> CaseDistance:
    return CaseDistance(tokens=20, difference=20 * difference, null=20 * null, kl=0.0, same=20)


def test_equal_replicas_pass(release: Release) -> None:
    check = result(release, [told(1), told(2)])
    assert (check.value, check.findings) == ("Passed", ())
    assert check.figures == {"largest_divergence_nats": 0.0}


def test_one_that_differs_is_named_with_its_node_and_gpu(release: Release) -> None:
    check = result(release, [told(1), told(2, "other"), told(3)])
    (finding,) = check.findings
    assert check.value == "Failed"
    assert finding.message == (
        f"replica pod-2 on node gpu-2 (NVIDIA-L40S) differs from what {release.id} was at its promotion: 0.0500 nats "
        "a token over the null of 0.0012, and 2 other replicas do not"
    )
    assert finding.subject == "replica on node gpu-2 (NVIDIA-L40S)"
    assert "Cordon the node" in finding.remedy


def test_siblings_that_are_not_told_count_for_nothing(release: Release) -> None:
    (finding,) = result(
        release, [told(1), told(2, "other"), told(3, "open"), told(4, "open", unavailable="x")]
    ).findings
    assert finding.message.endswith("over the null of 0.0012, and 1 other replica does not")


def test_all_that_differ_are_one_finding(release: Release) -> None:
    check = result(release, [told(1, "other"), told(2, "other")])
    (finding,) = check.findings
    assert finding.subject == "all replicas"
    assert finding.message.startswith("all 2 replicas differ")
    assert f"llmops rollout {release.model} --retry" in finding.remedy


def test_the_only_replica_that_differs_has_no_siblings(release: Release) -> None:
    (finding,) = result(release, [told(1, "other")]).findings
    assert finding.message.endswith("over the null of 0.0012")


def test_what_is_open_or_not_available_finds_nothing(release: Release) -> None:
    check = result(release, [told(1), told(2, "open")])
    assert (check.value, check.line) == ("Inconclusive", "too few texts tell what pod-2 is")
    check = result(release, [told(1), told(2, "open", unavailable="HTTP 400")])
    assert (check.value, check.line) == ("Inconclusive", "too few texts tell what pod-2 (HTTP 400) is")
    check = result(release, [told(1, "open", unavailable="HTTP 400")])
    assert (check.value, check.line) == ("Passed", "not available: pod-1: HTTP 400")


@pytest.mark.parametrize(
    ("rows", "value"),
    [
        ([row(0.0)] * 10, "same"),
        ([row(0.012, 0.01)] * 10, "same"),
        ([row(0.05)] * 10, "other"),
        ([row(0.0), row(0.02)] * 5, "open"),
        ([row(0.0)] * 3, "open"),
    ],
)
def test_a_replica_is_told_by_its_distance_over_the_null(rows: list[CaseDistance], value: str) -> None:
    distances = Distances(cases={f"q/{n}": found for n, found in enumerate(rows)}, asked=len(rows))
    assert recognized(distances, 0.95, 2)[0] == value


def test_a_replica_that_fails_at_many_texts_is_not_told_the_same() -> None:
    few = {f"q/{n}": row(0.0) for n in range(10)}
    assert recognized(Distances(cases=few, asked=20), 0.95, 2)[0] == "open"
    assert recognized(Distances(cases={case: row(0.05) for case in few}, asked=20), 0.95, 2)[0] == "other"
