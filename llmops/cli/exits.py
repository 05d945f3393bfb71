"""Exit codes of `llmops`, and how an error becomes one."""

from __future__ import annotations

from enum import IntEnum

from llmops.errors import BadInput, BadRelease, ClusterCannot, LlmopsError, MeasurementFailed, Unavailable


class Exit(IntEnum):
    """Exit codes."""

    DONE = 0
    BUG = 1
    BAD_INPUT = 2
    REJECTED = 3
    INCONCLUSIVE = 4
    CANNOT = 5
    FOUND = 6
    CANCELLED = 130


_BY_ERROR: dict[type[LlmopsError], Exit] = {
    BadInput: Exit.BAD_INPUT,
    BadRelease: Exit.REJECTED,
    MeasurementFailed: Exit.INCONCLUSIVE,
    ClusterCannot: Exit.CANNOT,
    Unavailable: Exit.CANNOT,
}
BY_SEVERITY = {"ok": Exit.DONE, "warning": Exit.DONE, "unknown": Exit.INCONCLUSIVE, "error": Exit.FOUND}
"""By the worst finding of `doctor`. An `unknown` leaves the question open."""
BY_VERDICT = {"Passed": Exit.DONE, "Failed": Exit.REJECTED, "Inconclusive": Exit.INCONCLUSIVE}


def exit_code(error: LlmopsError) -> Exit:
    """The exit code of an error, by its class."""
    return next((code for kind, code in _BY_ERROR.items() if isinstance(error, kind)), Exit.BUG)


def by_name(name: str) -> Exit:
    """The exit code of a verdict or of an error's class name, as the metadata of a failed stage has them."""
    if name in BY_VERDICT:
        return BY_VERDICT[name]
    return next((code for kind, code in _BY_ERROR.items() if kind.__name__ == name), Exit.BUG)
