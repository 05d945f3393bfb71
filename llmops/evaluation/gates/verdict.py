"""What an evaluation concludes, and from which gates. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from llmops.config.schema import Strict, VerdictValue
from llmops.evaluation.statistics import finite

Outcome = Literal[VerdictValue, "Skipped"]
Rule = Literal["min", "max", "max_drop", "max_rise", "max_ratio", "max_divergence"]
Code = Literal[
    "",
    "WithinLimit",
    "BeyondLimit",
    "ReplicaBeyondLimit",  # one replica is, the canary as a whole may not be
    "AtLimit",  # so near that no amount of data decides
    "TooFewCases",
    "TooFewTurns",
    "TooFewSamples",
    "TooFewRequests",
    "NoRequests",
    "NotMeasured",
    "CasesUnmeasured",  # too many cases have no answer
    "CasesNotPaired",  # too few cases have an answer of both releases
    "ScoreOutOfRange",
    "NoBaseline",  # no stable release to compare with
    "BaselineIsZero",
    "DecidedBefore",  # not measured, because another gate had failed
    "NotAvailable",  # an engine does not give what the gate needs
    "PromptsDiffer",  # canary and stable read a prompt as other tokens
    "SameModel",  # too few cases alone, but the engines are shown to be the same model
]
"""Why a gate has its outcome. Empty for a gate that was read from a record."""

Known = Annotated[float | None, BeforeValidator(finite)]


class GateResult(Strict):
    """One gate, decided.

    Args:
        metric: As SUITE/FIGURE.
        rule: The rule of the gate.
        limit: The limit of the rule.
        canary: The canary's figure.
        stable: Stable's figure.
        change: What a relative gate judges: the drop (stable - canary), the rise or the ratio.
        low: One-sided lower confidence bound of the change, if cases or turns give one.
        high: One-sided upper confidence bound, likewise.
        p_value: How likely an equal release shows a drop as large.
        dry: The gate has no part in the verdict.
        outcome: How the gate came out.
        note: Why, in one sentence.
        code: Why, in one word; records do not keep it.
        more: How many more cases or turns would decide an open gate, if known; records do not keep it.
    """

    metric: str
    rule: Rule
    limit: float
    canary: Known = None
    stable: Known = None
    change: Known = None
    low: Known = None
    high: Known = None
    p_value: Known = None
    dry: bool = False
    outcome: Outcome
    note: str
    code: Code = Field(default="", exclude=True)
    more: int | None = Field(default=None, exclude=True)


class Verdict(Strict):
    """The conclusion, one line that says why, and the gates behind it."""

    value: VerdictValue
    reason: str
    gates: tuple[GateResult, ...] = ()

    def because(self, reason: str) -> Verdict:
        """The same conclusion with another reason."""
        return self.model_copy(update={"reason": reason})


def verdict_of(gates: Sequence[GateResult], *, held: str, unknown: str = "") -> Verdict:
    """The verdict of gates. Failed wins over Inconclusive, Inconclusive over Passed; dry gates do not count.

    Args:
        gates: The decided gates.
        held: The reason of a Passed.
        unknown: Why the verdict is Inconclusive even if every gate holds; empty if it is not.
    """
    notes: dict[Outcome, list[str]] = {"Failed": [], "Inconclusive": []}
    for gate in gates:
        if not gate.dry and gate.outcome in notes:
            notes[gate.outcome].append(gate.note)
    if notes["Failed"]:
        value, reason = "Failed", "; ".join(notes["Failed"])
    elif unknown or notes["Inconclusive"]:
        value, reason = "Inconclusive", unknown or "; ".join(notes["Inconclusive"])
    else:
        value, reason = "Passed", held
    return Verdict(value=value, reason=reason, gates=tuple(gates))
