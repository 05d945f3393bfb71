"""Cases that the canary did not pass, with what was asked and what both answered: what a person looks at first."""

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
        prompt: What was asked; empty where the suite's cases are not known here.
        expected: What was wanted.
        canary: The canary's answer; None if it was not kept.
        stable: Stable's answer; None if it was not kept, or nothing serves.
        stable_score: How right stable was, 0 to 1; None if it did not answer.
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
        """Whether stable passes it, so that the canary is worse here."""
        return self.stable_score is not None and self.stable_score >= 1


def failing_cases(suites: Iterable[AnySuite], canary: Measurements, stable: Measurements | None) -> list[FailingCase]:
    """The cases that the canary did not pass, those that stable passes first; at most some tens."""
    known = {suite.name: {case.id: case for case in suite.cases} for suite in suites if isinstance(suite, Suite)}
    failing: list[FailingCase] = []
    for suite, scores in canary.scores.items():
        for case, score in scores.items():
            if score >= 1:
                continue
            asked = known.get(suite, {}).get(case)
            failing.append(
                FailingCase(
                    suite=suite,
                    case=case,
                    prompt=_prompt(asked)[:PROMPT_LENGTH] if asked else "",
                    expected=_expected(asked)[:EXPECTED_LENGTH] if asked else "",
                    canary=canary.wrong.get(suite, {}).get(case),
                    stable=stable.wrong.get(suite, {}).get(case) if stable else None,
                    stable_score=stable.scores.get(suite, {}).get(case) if stable else None,
                )
            )
    # Those of which the answer was kept before those of which it was not.
    failing.sort(key=lambda case: (not case.lost, case.canary is None, case.suite, case.case))
    return failing[:SHOWN]


def _prompt(case: Case) -> str:
    turns = case.conversation()
    return turns[0]["content"] if len(turns) == 1 else "\n".join(f"{turn['role']}: {turn['content']}" for turn in turns)


def _expected(case: Case) -> str:
    return case.expected if isinstance(case.expected, str) else json.dumps(case.expected, ensure_ascii=False)
