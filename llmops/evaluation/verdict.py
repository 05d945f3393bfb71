"""What an evaluation concludes, and from which gates."""

from __future__ import annotations

from typing import Literal

from llmops.catalog.spec import Strict

Value = Literal["Passed", "Failed", "Inconclusive"]
Outcome = Literal["Passed", "Failed", "Inconclusive", "Skipped"]
Rule = Literal["min", "max", "max_drop", "max_rise", "max_ratio"]


class GateResult(Strict):
    """One gate, decided.

    `change` is what a relative gate judges: the drop (stable - canary), the rise or the ratio; `low` and
    `high` are its one-sided confidence bounds, where there are cases or turns to compute them from. `p_value` is how
    likely a drop as large as that is of an equal release. A `dry` gate has its outcome, and no part in the verdict.
    """

    metric: str
    rule: Rule
    limit: float
    canary: float | None = None
    stable: float | None = None
    change: float | None = None
    low: float | None = None
    high: float | None = None
    p_value: float | None = None
    dry: bool = False
    outcome: Outcome
    note: str


class Verdict(Strict):
    """The conclusion, one line that says why, and the gates behind it."""

    value: Value
    reason: str
    gates: tuple[GateResult, ...] = ()
