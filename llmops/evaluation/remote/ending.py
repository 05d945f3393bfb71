"""How the program of a measuring Job ends: its exit codes, and the result in its termination message.

| code | meaning | retry |
|---|---|---|
| 0 | done | |
| 1 | a bug of llmops, with a traceback on stderr | no |
| 2 | usage: arguments, or an order of another version | no |
| 3 | the release is bad | no |
| 4 | an outside service is unavailable | yes |
| 5 | the cluster cannot until someone acts | no |
| 6 | the measurement failed after its bounded retries: no verdict | no |

0 to 5 are the worker's (see `llmops.worker.report`). The Job retries a process that a signal ends (137, 143).
"""

from __future__ import annotations

import json
from typing import Any

from llmops.config.catalog.spec import Strict
from llmops.errors import BadInput, BadRelease, ClusterCannot, LlmopsError, MeasurementFailed, Unavailable
from llmops.evaluation.remote.answer import Seal

CRASH = 1
EXIT_CODES: tuple[tuple[type[LlmopsError], int], ...] = (
    (BadInput, 2),
    (BadRelease, 3),
    (Unavailable, 4),
    (ClusterCannot, 5),
    (MeasurementFailed, 6),
)
TEXT_BYTES = 1800


class Ending(Strict):
    """The result of the program, as its termination message."""

    exit_code: int
    message: str
    remedy: str = ""
    seal: Seal | None = None

    @classmethod
    def of(cls, error: Exception) -> Ending:
        """How an error ends the program."""
        if not isinstance(error, LlmopsError):
            return cls(exit_code=CRASH, message=_cut(f"a bug of llmops: {type(error).__name__}: {error}"))
        code = next((code for kind, code in EXIT_CODES if isinstance(error, kind)), CRASH)
        return cls(exit_code=code, message=_cut(error.message), remedy=_cut(error.remedy))

    def error(self) -> LlmopsError | None:
        """The error that ended the program, without its code; None for success and for a bug."""
        kind = next((kind for kind, code in EXIT_CODES if code == self.exit_code), None)
        return kind(self.message, remedy=self.remedy) if kind else None

    def event(self) -> dict[str, Any]:
        """The result as an event of the log."""
        return {"event": "result", **self.model_dump()}


def _cut(text: str) -> str:
    """Shorten a text so that the termination message, of 4,096 bytes, holds two of it as JSON."""
    while len(json.dumps(text)) > TEXT_BYTES:
        text = text[: len(text) * 9 // 10 - 3] + "..."
    return text
