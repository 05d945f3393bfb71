"""Delivers alerts from the outbox to the targets.

Each target has its own thread, so a slow target delays no other. After a failure, delivery skips the target until the
next tick, and retries the alert after pauses that double.
"""

from __future__ import annotations

import datetime
import logging
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from llmops.alerts.outbox import Alert, Mark, Outbox, Waiting, unsettled
from llmops.alerts.posting import LONGEST_SECONDS
from llmops.alerts.sending import send
from llmops.config.alerting import AlertTarget
from llmops.config.settings import Settings
from llmops.errors import LlmopsError, Unavailable

FIRST_PAUSE = datetime.timedelta(seconds=30)
"""Longer than the longest attempt, so that two deliverers never try at once."""
LONGEST_PAUSE = datetime.timedelta(minutes=15)
GIVEN_UP_AFTER = datetime.timedelta(days=1)
SEND_SECONDS = 15.0
"""A tick starts attempts for so long."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Failure:
    """Why a target did not get its alerts in this tick.

    Attributes:
        target: Name of the target.
        code: Code of the error, `GivenUp` or `StillSending`.
        line: One line for the log.
    """

    target: str
    code: str
    line: str


@dataclass
class Delivered:
    """The result of one tick.

    Attributes:
        sent: Number of alerts sent.
        failures: At most one for each target.
    """

    sent: int = 0
    failures: list[Failure] = field(default_factory=list[Failure])


def pause(attempts: int) -> datetime.timedelta:
    """Time from one attempt to the next, after so many attempts."""
    return min(FIRST_PAUSE * 2 ** min(attempts - 1, 16), LONGEST_PAUSE)


def next_mark(before: Mark | None, now: datetime.datetime) -> Mark | None:
    """The mark of an attempt now; None if no attempt is due."""
    if before is None:
        return Mark(attempts=1, since=now, next=now + pause(1))
    if before.state != "trying" or now < before.next:
        return None
    if now - before.since >= GIVEN_UP_AFTER:
        return before.model_copy(update={"state": "given_up"})
    attempts = before.attempts + 1
    return before.model_copy(update={"attempts": attempts, "next": now + pause(attempts)})


def failed_mark(mark: Mark, error: LlmopsError, now: datetime.datetime) -> Mark:
    """The mark after a failed attempt; the next attempt respects the target's Retry-After."""
    retry_after = error.retry_after if isinstance(error, Unavailable) else None
    earliest = now + datetime.timedelta(seconds=min(retry_after or 0, GIVEN_UP_AFTER.total_seconds()))
    return mark.model_copy(update={"next": max(mark.next, earliest), "error": error.message})


def due(waiting: Sequence[Waiting], target: AlertTarget, now: datetime.datetime) -> list[Alert]:
    """Alerts that are due to the target now, oldest first."""
    return [
        item.alert
        for item in waiting
        if unsettled(item, (target,)) and next_mark(item.marks.get(target.name), now) is not None
    ]


def deliver(outbox: Outbox, settings: Settings, *, seconds: float = SEND_SECONDS) -> Delivered:
    """Send due alerts, settle alerts that all targets have, and prune old ones.

    Args:
        outbox: The outbox.
        settings: The targets, and the base URLs of links.
        seconds: Start attempts for so long. Attempts under way after that may end within their own limits.

    Raises:
        Unavailable: The cluster does not answer.
    """
    waiting = outbox.pending()
    _tidy(outbox, [item.alert for item in waiting if not unsettled(item, settings.alerts)])
    now = datetime.datetime.now(datetime.UTC)
    rounds = [(target, alerts) for target in settings.alerts if (alerts := due(waiting, target, now))]
    result = Delivered()
    if not rounds:
        return result
    stop = time.monotonic() + seconds
    # No `with`: its end would wait for a hanging thread beyond the limit.
    pool = ThreadPoolExecutor(len(rounds), thread_name_prefix="alerts")
    threads = {pool.submit(_send_all, outbox, settings, target, alerts, stop): target for target, alerts in rounds}
    wait(threads, timeout=seconds + LONGEST_SECONDS)
    pool.shutdown(wait=False, cancel_futures=True)
    for thread, target in threads.items():
        _gather(result, thread, target)
    return result


def _tidy(outbox: Outbox, settled: Iterable[Alert]) -> None:
    """Put away what is done with. If that fails, log it: the other alerts are still to be sent."""
    try:
        for alert in settled:
            outbox.settle(alert)
        outbox.prune()
    except LlmopsError as error:
        _log.warning("The outbox of alerts is not tidied up: %s", error)


def _gather(result: Delivered, thread: Future[Delivered], target: AlertTarget) -> None:
    if not thread.done():
        line = f"{target.name}: the attempt is still under way; the next ticks try its alerts again"
        result.failures.append(Failure(target.name, "StillSending", line))
        return
    delivered = thread.result()
    result.sent += delivered.sent
    result.failures += delivered.failures


def _send_all(
    outbox: Outbox, settings: Settings, target: AlertTarget, alerts: Sequence[Alert], stop: float
) -> Delivered:
    """Send alerts to one target until one fails or time is up."""
    result = Delivered()
    for alert in alerts:
        if time.monotonic() >= stop:
            break
        try:
            sent, failure = _attempt(outbox, settings, target, alert)
        except LlmopsError as error:
            # The cluster does not answer. The marks keep the time of the next attempt.
            result.failures.append(Failure(target.name, error.code, f"{target.name}: {error}"))
            break
        result.sent += sent
        if failure:
            result.failures.append(failure)
            break
    return result


def _attempt(outbox: Outbox, settings: Settings, target: AlertTarget, alert: Alert) -> tuple[int, Failure | None]:
    """Number of alerts sent, and why none was."""
    now = datetime.datetime.now(datetime.UTC)
    mark = outbox.claim(alert, target.name, lambda before: next_mark(before, now))
    if mark is None:
        return 0, None
    if mark.state == "given_up":
        return 0, _give_up(outbox, target, alert, mark)
    try:
        send(alert, target, outbox.cluster, settings)
    except LlmopsError as error:
        after = failed_mark(mark, error, datetime.datetime.now(datetime.UTC))
        outbox.mark(alert, target.name, after)
        line = f"{target.name}: {error} (attempt {mark.attempts}; next at {after.next:%H:%M:%S} UTC)"
        return 0, Failure(target.name, error.code, line)
    outbox.delivered(alert, target.name)
    return 1, None


def _give_up(outbox: Outbox, target: AlertTarget, alert: Alert, mark: Mark) -> Failure:
    line = f"{target.name} did not take alert {alert.id} in {mark.attempts} attempts; llmops gives it up: {mark.error}"
    outbox.note(alert, "AlertGivenUp", line)
    return Failure(target.name, "GivenUp", f"{line}. The alert: {alert.line}")
