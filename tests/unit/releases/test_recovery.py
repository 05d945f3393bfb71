"""What served is told by proof alone: what a lost state leaves to go by, and what it comes to."""

import pytest

from llmops.releases.recovery import Evidence, what_served

NOTHING = Evidence(deployed=None, passed=(), refused=(), opened={}, unpromoted=False)
CASES: dict[str, tuple[Evidence, str | None]] = {
    "nothing is there": (NOTHING, ""),
    "the Deployment is at what passed": (Evidence("b", ("b", "a"), (), {}, False), "b"),
    "the Deployment went back to an older release": (Evidence("a", ("b", "a"), (), {}, False), "a"),
    "no record is left of what the Deployment is at": (Evidence("a", (), (), {}, False), "a"),
    "a canary is under trial": (Evidence("a", ("a",), (), {"b": "a"}, False), "a"),
    "a promotion has moved the Deployment": (Evidence("c", ("b", "a"), (), {"c": "a"}, False), "a"),
    "the trial is an older version's, which noted nothing": (Evidence("c", ("b", "a"), (), {"c": None}, False), "b"),
    "the Deployment is at a rejected release": (Evidence("c", ("b", "a"), ("c",), {}, False), "b"),
    "a first promotion has made the Deployment": (Evidence("a", (), (), {"a": ""}, False), ""),
    "the same of an older version, and the state is older": (Evidence("a", (), (), {"a": None}, True), ""),
    "the same, and the state is younger": (Evidence("a", (), (), {"a": None}, False), None),
    "a release that did not pass is all there is": (Evidence("a", (), ("a",), {}, False), None),
    "the Deployment is gone": (Evidence(None, ("b", "a"), (), {}, False), "b"),
    "what serves is tried anew, as its record was lost": (Evidence("a", ("b",), (), {"a": "a"}, False), "a"),
}


@pytest.mark.parametrize(("found", "served"), CASES.values(), ids=CASES)
def test_what_served_is_told_by_proof(found: Evidence, served: str | None) -> None:
    assert what_served(found) == served
