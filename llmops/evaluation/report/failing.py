"""Cases that the canary did not pass, with the question and both answers."""

from __future__ import annotations

import json
from collections.abc import Iterable

from llmops.config.catalog.spec import Strict
from llmops.evaluation.measurements import Measurements
from llmops.evaluation.suites import AnySuite, Case, Suite

SHOWN = 40
PROMPT_LENGTH = 600
EXPECTED_LENGTH = 300


class FailingCase(Strict):
    """One case, side by side.

    Args:
        suite: Name of the suite.
        case: Id of the case.
        prompt: The question; empty if the suite is not known here.
        expected: The expected answer.
        canary: The canary's answer; None if it was not kept.
        stable: Stable's answer; None if it was not kept, or there is no stable.
        stable_score: Stable's score, 0 to 1; None if it did not answer.
    """

    suite: str
    case: str
    prompt: str = ""
    expected: str = ""
    canary: str | None = None
    stable: str | None = None
    stable_score: float | None = None

    @property
    def lost(self) -> bool:
        """Whether stable passes the case, so that the canary is worse."""
        return self.stable_score is not None and self.stable_score >= 1


def failing_cases(suites: Iterable[AnySuite], canary: Measurements, stable: Measurements | None) -> list[FailingCase]:
    """At most `SHOWN` cases that the canary did not pass; cases that stable passed come first."""
    cases = {suite.name: {case.id: case for case in suite.cases} for suite in suites if isinstance(suite, Suite)}
    failing: list[FailingCase] = []
    for suite, scores in canary.scores.items():
        for case, score in scores.items():
            if score >= 1:
                continue
            definition = cases.get(suite, {}).get(case)
            failing.append(
                FailingCase(
                    suite=suite,
                    case=case,
                    prompt=_prompt(definition)[:PROMPT_LENGTH] if definition else "",
                    expected=_expected(definition)[:EXPECTED_LENGTH] if definition else "",
                    canary=canary.wrong.get(suite, {}).get(case),
                    stable=stable.wrong.get(suite, {}).get(case) if stable else None,
                    stable_score=stable.scores.get(suite, {}).get(case) if stable else None,
                )
            )
    # Cases with a kept answer come before cases without.
    failing.sort(key=lambda case: (not case.lost, case.canary is None, case.suite, case.case))
    return failing[:SHOWN]


def _prompt(case: Case) -> str:
    turns = case.conversation()
    return turns[0]["content"] if len(turns) == 1 else "\n".join(f"{turn['role']}: {turn['content']}" for turn in turns)


def _expected(case: Case) -> str:
    return case.expected if isinstance(case.expected, str) else json.dumps(case.expected, ensure_ascii=False)
