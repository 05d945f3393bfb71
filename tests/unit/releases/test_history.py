"""Every trial of a release is kept, and a trial that decides nothing leaves the verdict before it in force."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.config.schema import VerdictValue
from llmops.releases.history import (
    ENDED_PREFIX,
    KEPT_BYTES,
    REJECTION_KEY,
    VERDICT_KEY,
    Record,
    appending,
    beginning,
    ended,
    in_force,
    last_record,
    withdrawing,
)
from llmops.releases.ledger import Cause
from llmops.releases.store import Changes

NOON = datetime.datetime(2026, 4, 1, 12, tzinfo=datetime.UTC)
TRIALS = st.lists(st.sampled_from(["Passed", "Failed", "Inconclusive"]), min_size=1, max_size=12)


def trial(number: int, verdict: VerdictValue, *, cause: Cause = "judged", details: str = "") -> Record:
    return Record(
        model="chat",
        release="0a1b2c3d4e5f",
        verdict=verdict,
        reason=f"trial {number}",
        details=details,
        stage="evaluation",
        image="vllm/vllm-openai:v0.33.0@sha256:0",
        commit="c0ffee",
        run=f"run-{number}",
        finished=NOON + datetime.timedelta(minutes=number),
        cause=cause,
    )


def changed(data: dict[str, str], changes: Changes) -> dict[str, str]:
    return {key: text for key, text in {**data, **changes}.items() if text is not None}


@given(TRIALS)
def test_each_trial_stays_and_the_last_decision_is_in_force(verdicts: list[VerdictValue]) -> None:
    data: dict[str, str] = {"canary.json": "{}"}
    records = [trial(number, verdict) for number, verdict in enumerate(verdicts)]
    for record in records:
        data = changed(data, beginning(data))
        assert last_record(data) is None
        data = changed(data, appending(data, record))
        assert last_record(data) == record
    assert ended(data) == records[::-1]
    decided = [record for record in records if record.verdict != "Inconclusive"]
    assert in_force(ended(data)) == (decided[-1] if decided else None)
    assert data["canary.json"] == "{}"


@pytest.mark.parametrize("cause", ["cancelled", "died", "judged"])
@pytest.mark.parametrize("verdict", ["Passed", "Failed"])
def test_a_retry_without_a_decision_leaves_the_verdict_and_its_reason(verdict: VerdictValue, cause: Cause) -> None:
    first = trial(1, verdict, details="CUDA error: no kernel image is available")
    data = changed({}, appending({}, first))
    data = changed(data, beginning(data))
    assert in_force(ended(data)) == first, "while the retry is under way"
    data = changed(data, appending(data, trial(2, "Inconclusive", cause=cause)))
    assert in_force(ended(data)) == first
    assert [record.verdict for record in ended(data)] == ["Inconclusive", verdict]


def test_records_of_earlier_versions_are_read_and_kept() -> None:
    rejected, cancelled, passed = trial(1, "Failed"), trial(2, "Inconclusive", cause="cancelled"), trial(3, "Passed")
    data = {VERDICT_KEY: cancelled.model_dump_json(), REJECTION_KEY: rejected.model_dump_json()}
    assert in_force(ended(data)) == rejected
    data = changed(data, beginning(data))
    assert ended(data) == [cancelled, rejected]
    data = changed(data, appending(data, passed))
    assert ended(data) == [passed, cancelled, rejected]
    assert REJECTION_KEY not in data
    assert in_force(ended(data)) == passed


def test_many_trials_stay_within_their_bytes_and_never_lose_the_verdict() -> None:
    data: dict[str, str] = {}
    rejection = trial(0, "Failed", details="x" * 8000)
    for record in (rejection, *(trial(number, "Inconclusive", details="y" * 8000) for number in range(1, 40))):
        data = changed(data, appending(data, record))
    records = ended(data)
    assert in_force(records) == rejection
    assert [record.run for record in records[:3]] == ["run-39", "run-38", "run-37"]
    kept = sum(len(text) for key, text in data.items() if key.startswith(ENDED_PREFIX))
    assert 0.8 * KEPT_BYTES < kept < KEPT_BYTES + len(rejection.model_dump_json())


def test_an_entry_that_did_not_happen_is_taken_back() -> None:
    passed, rolled_back = trial(1, "Passed"), trial(2, "Failed")
    before = changed({}, appending({}, passed))
    data = changed(before, appending(before, rolled_back))
    assert changed(data, withdrawing(rolled_back, passed)) == before
