"""What canary and stable make of the checks, and what rejects.

A finding is a check that the canary fails and stable passes, or that the entry requires. Whether a check counts as
failed or passed depends on who decides its outcome:

- **The server**: one failure is one, repeated; see the runner.
- **The model**: `MOST` of the questions fail, and stable passes every one. A release that passes each question with a
  chance of p by pure accident becomes a finding with at most p^4 (4p (1-p)^3 + (1-p)^4), which is 2.3 % at its worst
  (p = 0.61), and far below that near 0 and 1, where the same model gives the same answers at temperature 0. A repeat
  of all questions lowers it further.

Without stable, a failed check is reported, and rejects only if the entry requires it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from llmops.config.kinds import ProtocolTopic
from llmops.config.schema import Strict
from llmops.evaluation.protocol.check import Check

FIRST = 2
"""Questions that a check of the model asks at first."""
MOST = 3
"""Failed questions that make it a failure."""

Outcome = Literal["passed", "failed", "unjudged", "unanswered"]
Status = Literal["passed", "failed", "partly", "unjudged", "unanswered"]


@dataclass(frozen=True)
class Judgement:
    """The outcome of one question.

    Args:
        outcome: unjudged: the replies allow no judgement; unanswered: there is no reply.
        asked: The request, in short.
        came: What came, or why nothing did.
        wanted: What the API says.
    """

    outcome: Outcome
    asked: str = ""
    came: str = ""
    wanted: str = ""


Judgements = Mapping[str, Sequence[Judgement]]
"""Check -> the outcomes of its questions, as far as they were asked."""


class Deviation(Strict):
    """A check that the canary does not pass.

    Args:
        check: Its id.
        sentence: What would hold.
        status: partly: some questions pass.
        failed: Questions that fail.
        questions: Questions that were asked.
        stable: What stable makes of it; None without stable.
        finding: Whether it rejects.
        asked: The request, in short.
        came: What came.
        wanted: What the API says.
    """

    check: str
    sentence: str
    status: Status
    failed: int
    questions: int
    stable: Status | None
    finding: bool
    asked: str
    came: str
    wanted: str

    @property
    def words(self) -> str:
        """What happened, in one line."""
        if self.status == "unanswered":
            return f"{self.check}: no answer to {self.asked}: {self.came}"
        wanted = f"; the API says: {self.wanted}" if self.wanted else ""
        return f"{self.check}: asked {self.asked}, came {self.came}{wanted}"


class Conformance(Strict):
    """How far a canary keeps to the API.

    Args:
        checks: Checks that were asked and have a meaning for this model.
        passed: How many of them it passes.
        deviations: The others; findings come first.
        compared: Whether stable was asked, too.
    """

    checks: int
    passed: int
    deviations: tuple[Deviation, ...] = ()
    compared: bool = False

    @property
    def findings(self) -> tuple[Deviation, ...]:
        """What rejects."""
        return tuple(deviation for deviation in self.deviations if deviation.finding)

    @property
    def missing(self) -> tuple[Deviation, ...]:
        """Checks that stable passes, and to which the canary gave no answer."""
        return tuple(one for one in self.deviations if one.status == "unanswered" and one.stable == "passed")


def status_of(judged: Sequence[Judgement]) -> Status:
    """The outcome of a check by its questions."""
    outcomes = [judgement.outcome for judgement in judged]
    if "failed" in outcomes:
        return "partly" if "passed" in outcomes else "failed"
    if "unanswered" in outcomes:
        return "unanswered"
    return "passed" if "passed" in outcomes else "unjudged"


def fails(check: Check, judged: Sequence[Judgement]) -> bool:
    """Whether the engine cannot do what a check asks for."""
    failed = sum(judgement.outcome == "failed" for judgement in judged)
    return failed >= (1 if check.by == "server" else min(MOST, len(check.questions)))


def holds(judged: Sequence[Judgement]) -> bool:
    """Whether the engine can do what a check asks for, without a doubt."""
    return bool(judged) and all(judgement.outcome == "passed" for judgement in judged)


def open_checks(
    checks: Sequence[Check], ours: Judgements, theirs: Judgements | None, required: Sequence[ProtocolTopic]
) -> list[Check]:
    """The checks of the model whose further questions decide: the canary failed one that stable passes."""
    return [
        check
        for check in checks
        if len(ours[check.id]) < len(check.questions)
        and any(judgement.outcome == "failed" for judgement in ours[check.id])
        and (theirs is None or check.topic in required or holds(theirs[check.id]))
    ]


def is_finding(
    check: Check,
    ours: Sequence[Judgement],
    theirs: Sequence[Judgement] | None,
    required: Sequence[ProtocolTopic],
) -> bool:
    """Whether a check rejects the canary."""
    return fails(check, ours) and (check.topic in required or (theirs is not None and holds(theirs)))


def again(first: Sequence[Judgement], second: Sequence[Judgement], kept: Outcome) -> list[Judgement]:
    """Two rounds of the same questions as one: the outcome `kept` wins wherever either round has it."""
    return [one if one.outcome == kept else other for one, other in zip(first, second, strict=True)]


def conformance(
    checks: Sequence[Check], ours: Judgements, theirs: Judgements | None, required: Sequence[ProtocolTopic]
) -> Conformance:
    """Compare what two engines make of the checks.

    Args:
        checks: The checks.
        ours: The canary's outcomes.
        theirs: Stable's; None without stable.
        required: Topics that have to hold whatever stable does.
    """
    meant = [
        check
        for check in checks
        if check.common or check.topic in required or (theirs is not None and holds(theirs[check.id]))
    ]
    deviations = list(_deviations(meant, ours, theirs, required))
    return Conformance(
        checks=len(meant),
        passed=len(meant) - len(deviations),
        deviations=tuple(sorted(deviations, key=lambda deviation: not deviation.finding)),
        compared=theirs is not None,
    )


def _deviations(
    checks: Sequence[Check], ours: Judgements, theirs: Judgements | None, required: Sequence[ProtocolTopic]
) -> Iterator[Deviation]:
    for check in checks:
        judged = ours[check.id]
        status = status_of(judged)
        if status == "passed":
            continue
        stable = theirs[check.id] if theirs is not None else None
        shown = next((one for one in judged if one.outcome == "failed"), next(one for one in judged if one.asked))
        yield Deviation(
            check=check.id,
            sentence=check.sentence,
            status=status,
            failed=sum(judgement.outcome == "failed" for judgement in judged),
            questions=len(judged),
            stable=status_of(stable) if stable is not None else None,
            finding=is_finding(check, judged, stable, required),
            asked=shown.asked,
            came=shown.came,
            wanted=shown.wanted,
        )
