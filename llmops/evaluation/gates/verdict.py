"""What an evaluation concludes, and from which gates."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from llmops.config.schema import Strict

Value = Literal["Passed", "Failed", "Inconclusive"]
Outcome = Literal["Passed", "Failed", "Inconclusive", "Skipped"]
Rule = Literal["min", "max", "max_drop", "max_rise", "max_ratio"]


def finite(value: Any) -> Any:
    """The value, or None in place of NaN and infinities: of such a figure nothing is known."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


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

    value: Value
    reason: str
    gates: tuple[GateResult, ...] = ()
