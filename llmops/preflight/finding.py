"""What a check found."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal, get_args

Severity = Literal["error", "unknown", "warning", "ok"]
SEVERITIES: tuple[Severity, ...] = get_args(Severity)
"""The worst first."""


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Args:
        severity: ok: as it has to be; warning: goes on; error: the release is not started; unknown: it could not be
            looked at, which is never ok.
        subject: What was looked at, such as `GPUs` or `Secret hub/token`.
        message: What is there.
        remedy: What to do; empty if it is ok.
        check: Id of the check, the same for ever: `TOPIC.WHAT`.
        model: Which model it is about; empty for the whole installation.
        heals: Whether time alone may heal it within seconds. Look again before you report it.
    """

    severity: Severity
    subject: str
    message: str
    remedy: str = ""
    check: str = ""
    model: str = ""
    heals: bool = False


def worst(findings: Iterable[Finding]) -> Severity:
    """The worst severity; ok where nothing was found."""
    found = {each.severity for each in findings} | {"ok"}
    return next(severity for severity in SEVERITIES if severity in found)


def about(check: str, model: str, finding: Finding) -> Finding:
    """The finding as one of a check on a model."""
    return replace(finding, check=check, model=model)
