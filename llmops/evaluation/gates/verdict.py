"""What an evaluation concludes, and from which gates. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BeforeValidator

from llmops.config.schema import Strict, VerdictValue
from llmops.evaluation.statistics import finite

Outcome = Literal[VerdictValue, "Skipped"]
Rule = Literal["min", "max", "max_drop", "max_rise", "max_ratio"]


Known = Annotated[float | None, BeforeValidator(finite)]


class GateResult(Strict):
    """One gate, decided.

    `change` is what a relative gate judges: the drop (stable - canary), the rise or the ratio; `low` and
    `high` are its one-sided confidence bounds, where there are cases or turns to compute them from. `p_value` is how
    likely a drop as large as that is of an equal release. A `dry` gate has its outcome, and no part in the verdict.
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


class Verdict(Strict):
    """The conclusion, one line that says why, and the gates behind it."""

    value: VerdictValue
    reason: str
    gates: tuple[GateResult, ...] = ()

    def because(self, reason: str) -> Verdict:
        """The same conclusion in other words."""
        return self.model_copy(update={"reason": reason})


def verdict_of(gates: Sequence[GateResult], *, held: str, unknown: str = "") -> Verdict:
    """The verdict that gates come to. Failed wins over Inconclusive, Inconclusive over Passed; dry gates have no part.

    Args:
        gates: Each decided by itself.
        held: The reason if nothing keeps the release from passing.
        unknown: What keeps it from passing even if every gate holds; empty if nothing does.
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
