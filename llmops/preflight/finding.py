"""What a check found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Args:
        severity: ok: as it has to be; warning: goes on; error: the release is not started.
        subject: What was looked at, such as `GPUs` or `Secret hub/token`.
        message: What is there.
        remedy: What to do; empty if it is ok.
    """

    severity: Literal["ok", "warning", "error"]
    subject: str
    message: str
    remedy: str = ""
