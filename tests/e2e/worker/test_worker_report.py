from __future__ import annotations

import json
import time

from hypothesis import given
from hypothesis import strategies as st

from llmops.worker.report import TERMINATION_LIMIT, Pace, Problem, Result, fit

problems = st.lists(st.builds(Problem, st.text(max_size=60), st.just("altered"), st.text(max_size=80), st.text()))


@given(message=st.text(max_size=5000), remedy=st.text(max_size=3000), wrong=problems)
def test_a_result_always_fits_the_termination_log_and_counts_dropped_problems(
    message: str, remedy: str, wrong: list[Problem]
) -> None:
    result = Result("checksum", "mismatch", message, remedy, tuple(wrong), {"bytes": 10**13})
    encoded = fit(result.as_event())
    assert len(encoded) <= TERMINATION_LIMIT
    read = json.loads(encoded)
    assert len(read["problems"]) + read.get("left_out", 0) == len(wrong)
    assert read["bytes"] == 10**13


def test_as_many_problems_as_fit_are_kept() -> None:
    wrong = tuple(Problem(f"file-{number:05}", "missing") for number in range(1000))
    encoded = fit(Result("checksum", "mismatch", "m", problems=wrong).as_event())
    one_more = len(json.dumps(json.loads(encoded)["problems"][0], separators=(",", ":"))) + 1
    assert TERMINATION_LIMIT - one_more < len(encoded) <= TERMINATION_LIMIT


def test_the_pace_limits_all_threads_together() -> None:
    pace = Pace(10)
    began = time.monotonic()
    for _ in range(4):
        pace.take(500_000)
    assert time.monotonic() - began > 0.19
