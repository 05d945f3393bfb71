"""The result of a check."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal, get_args

Severity = Literal["error", "unknown", "warning", "ok"]
SEVERITIES: tuple[Severity, ...] = get_args(Severity)
"""The worst first."""


@dataclass(frozen=True)
class Finding:
    """The result of a check.

    Args:
        severity: ok; warning: the release goes on; error: the release does not start; unknown: the check could not
            look, which is never ok.
        subject: The object, such as `GPUs` or `Secret hub/token`.
        message: Its state.
        remedy: What to do next; empty for ok.
        check: Stable id of the check, `TOPIC.WHAT`.
        model: The model; empty for a finding on the whole installation.
        heals: Whether the problem may pass within seconds. Check again before you report it.
        accepted: Whether it was an error, and people accept it.
    """

    severity: Severity
    subject: str
    message: str
    remedy: str = ""
    check: str = ""
    model: str = ""
    heals: bool = False
    accepted: bool = False


def worst(findings: Iterable[Finding]) -> Severity:
    """The worst severity; ok without findings."""
    present = {finding.severity for finding in findings} | {"ok"}
    return next(severity for severity in SEVERITIES if severity in present)


def about(check: str, model: str, finding: Finding) -> Finding:
    """The finding with the model and the check that it belongs to, unless it names a check of its own."""
    return replace(finding, check=finding.check or check, model=model)
