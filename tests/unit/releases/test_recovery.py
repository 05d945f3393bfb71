"""Which release served, by the evidence that a lost state leaves."""

import pytest

from llmops.releases.recovery import Evidence, what_served

NOTHING = Evidence(deployed=None, passed=(), refused=(), opened={}, unpromoted=False)
CASES: dict[str, tuple[Evidence, str | None]] = {
    "the model is new": (NOTHING, ""),
    "the Deployment has a passed release": (Evidence("b", ("b", "a"), (), {}, False), "b"),
    "the Deployment went back to an older release": (Evidence("a", ("b", "a"), (), {}, False), "a"),
    "the Deployment's release has no record": (Evidence("a", (), (), {}, False), "a"),
    "a canary is under trial": (Evidence("a", ("a",), (), {"b": "a"}, False), "a"),
    "a promotion has moved the Deployment": (Evidence("c", ("b", "a"), (), {"c": "a"}, False), "a"),
    "an older llmops opened the trial, and kept no serving release": (
        Evidence("c", ("b", "a"), (), {"c": None}, False),
        "b",
    ),
    "the Deployment has a rejected release": (Evidence("c", ("b", "a"), ("c",), {}, False), "b"),
    "a first promotion has made the Deployment": (Evidence("a", (), (), {"a": ""}, False), ""),
    "a first promotion of an older llmops, and the state is older": (Evidence("a", (), (), {"a": None}, True), ""),
    "a first promotion of an older llmops, and the state is younger": (Evidence("a", (), (), {"a": None}, False), None),
    "the only release did not pass": (Evidence("a", (), ("a",), {}, False), None),
    "the Deployment is gone": (Evidence(None, ("b", "a"), (), {}, False), "b"),
    "stable is under trial again, as its record was lost": (Evidence("a", ("b",), (), {"a": "a"}, False), "a"),
}


@pytest.mark.parametrize(("evidence", "served"), CASES.values(), ids=CASES)
def test_evidence_decides_what_served(evidence: Evidence, served: str | None) -> None:
    assert what_served(evidence) == served
