"""How often a request is tried, and whose fault it is that no answer came."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Literal, TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt

from llmops.clients.retries import parse_retry_after
from llmops.errors import MeasurementFailed

ATTEMPTS = 4
IN_A_ROW = 10
"""Requests in a row without an answer after which a suite asks no more."""
WAIT_SECONDS = 0.25
LONGEST_WAIT_SECONDS = 10.0

Fault = Literal["engine", "measurement"]
ResultT = TypeVar("ResultT")


class NoAnswer(Exception):
    """A request without an answer.

    Args:
        fault: The engine was reached, and answered an error; or the measurement tells nothing about it.
        why: For people.
        again: Whether another try may help.
        after: Seconds that the engine asks to wait.
    """

    def __init__(self, fault: Fault, why: str, *, again: bool, after: float = 0.0) -> None:
        super().__init__(why)
        self.fault: Fault = fault
        self.why, self.again, self.after = why, again, after


def error_of_status(status: int, retry_after: str | None, message: str) -> MeasurementFailed | NoAnswer:
    """What an HTTP status other than 200 means."""
    if status in (401, 403):
        return MeasurementFailed(
            f"the engine refuses the API key (HTTP {status})",
            code="CredentialsRefused",
            remedy="Check the Secret that access.api_key names.",
        )
    why = f"{_known(message)}HTTP {status}: {message[:120]}"
    if status == 429:
        return NoAnswer("measurement", why, again=True, after=parse_retry_after(retry_after) or 0.0)
    return NoAnswer("engine", why, again=status >= 500)


KNOWN = {
    "chat template": "the model has no chat template, which engine.chat_template can give: ",
    "enable-auto-tool-choice": "the engine takes no tools, as it runs without --enable-auto-tool-choice and "
    "--tool-call-parser: ",
}
"""A part of an engine's message -> what it means for this installation."""


def _known(message: str) -> str:
    return next((meaning for part, meaning in KNOWN.items() if part in message), "")


async def persist(ask: Callable[[], Awaitable[ResultT]], retried: Callable[[], None]) -> ResultT:
    """Ask, and ask again while that may help.

    Args:
        ask: Sends one request.
        retried: Called before each further try.

    Raises:
        NoAnswer: That of the last try.
    """
    async for attempt in AsyncRetrying(
        stop=stop_after_attempt(ATTEMPTS),
        wait=_wait,
        retry=retry_if_exception(lambda error: isinstance(error, NoAnswer) and error.again),
        reraise=True,
    ):
        with attempt:
            if attempt.retry_state.attempt_number > 1:
                retried()
            return await ask()
    raise AssertionError("a retry ends with an answer or an error")


def _wait(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    retry_after = error.after if isinstance(error, NoAnswer) else 0.0
    return min(LONGEST_WAIT_SECONDS, max(retry_after, WAIT_SECONDS * 2 ** (state.attempt_number - 1)))
