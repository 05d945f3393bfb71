"""Bounded retries of an outside service, which honour its Retry-After."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from math import isfinite
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from llmops.errors import Unavailable

ResultT = TypeVar("ResultT")


def parse_retry_after(value: str | None) -> float | None:
    """Seconds of a Retry-After header, which holds seconds or a date; None if there is none, or it is neither."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return None
    return max(0.0, seconds) if isfinite(seconds) else None


@dataclass(frozen=True)
class Patience:
    """How long to retry.

    Args:
        attempts: Calls in all.
        longest_wait: Seconds between two calls, at most. If the service asks for more, its error goes to the caller at
            once, with `retry_after`.
    """

    attempts: int = 4
    longest_wait: float = 20.0

    def call(self, attempt: Callable[[], ResultT]) -> ResultT:
        """Call `attempt` again while it raises `Unavailable` and patience lasts.

        Raises:
            Unavailable: The error of the last call.
        """
        return Retrying(
            retry=retry_if_exception(self._worth_waiting),
            stop=stop_after_attempt(self.attempts),
            wait=self._wait,
            reraise=True,
        )(attempt)

    def _worth_waiting(self, error: BaseException) -> bool:
        return isinstance(error, Unavailable) and (error.retry_after or 0) <= self.longest_wait

    def _wait(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, Unavailable) and error.retry_after is not None:
            return error.retry_after
        # Jitter, because the runs of many models meet the same outage at once.
        return wait_random_exponential(multiplier=0.5, max=self.longest_wait)(state)
