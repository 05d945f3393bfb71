"""Findings that people accept do not stop a release."""

from __future__ import annotations

from llmops.preflight.accepted import accept, accepted_ids
from llmops.preflight.checks import IDS
from llmops.preflight.finding import Finding, about
from llmops.releases.ledger import declaration, terms
from tests.support.preflight import MakeSpec

ERROR = Finding("error", "GPU fit", "no room", "Take a larger one.", "memory.fit", "m")
OTHER = Finding("error", "context", "too long", "Lower it.", "memory.context", "m")


def test_an_accepted_error_is_a_warning_and_says_so() -> None:
    first, second = accept((ERROR, OTHER), ["memory.fit"], IDS)
    assert (first.severity, first.message, first.accepted) == ("warning", "accepted: no room", True)
    assert second == OTHER
    assert accepted_ids((first, second)) == ("memory.fit",)


def test_what_is_no_error_stays_and_is_not_on_record() -> None:
    unknown = Finding("unknown", "GPU fit", "not known", "Look.", "memory.fit")
    assert accept((unknown,), ["memory.fit"], IDS) == (unknown,)
    assert accepted_ids((unknown,)) == ()


def test_an_id_that_no_check_has_is_told() -> None:
    (finding,) = accept((), ["memory.fits"], IDS)
    assert (finding.severity, finding.check) == ("warning", "preflight.accept")
    assert "memory.fits" in finding.message


def test_a_finding_keeps_an_id_of_its_own() -> None:
    assert about("memory.fit", "m", OTHER).check == "memory.context"
    assert {"memory.fit", "memory.context", "memory.quantization", "memory.weights"} <= IDS


def test_accepting_is_a_reason_for_a_rollout_and_no_other_release(spec: MakeSpec) -> None:
    plain, accepting = spec(), spec(preflight={"accept": ["memory.fit"]})
    assert terms(plain, {}) == terms(accepting, {})
    assert declaration(plain, {}) != declaration(accepting, {})
