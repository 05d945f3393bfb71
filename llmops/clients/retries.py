"""Bounded retries of an outside service, which honour its Retry-After."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from llmops.errors import Unavailable
from llmops.worker.foreign import parse_retry_after

__all__ = ["Patience", "Unbounded", "parse_retry_after"]

ResultT = TypeVar("ResultT")


class Unbounded(Unavailable):
    """The answer of an outside service exceeds a bound: at once, another try would end the same way."""


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
        if not isinstance(error, Unavailable) or isinstance(error, Unbounded):
            return False
        return (error.retry_after or 0) <= self.longest_wait

    def _wait(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, Unavailable) and error.retry_after is not None:
            return error.retry_after
        # Jitter, because the runs of many models meet the same outage at once.
        return wait_random_exponential(multiplier=0.5, max=self.longest_wait)(state)
