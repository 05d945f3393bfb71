"""From the outbox to the targets: who gets what when, and what becomes of what cannot be sent.

Each target is seen to by a thread of its own, so that one that is away or slow holds back no other. A target that
fails is left alone until the next tick; an alert that fails is tried again after pauses that grow.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from llmops.alerts.outbox import Alert, Mark, Outbox, Waiting, unsettled
from llmops.alerts.posting import LONGEST_SECONDS
from llmops.alerts.sending import send
from llmops.config.alerting import AlertTarget
from llmops.config.settings import Settings
from llmops.errors import LlmopsError, Unavailable

FIRST_PAUSE = datetime.timedelta(seconds=30)
"""Longer than an attempt can take: until it is over, nobody else tries."""
LONGEST_PAUSE = datetime.timedelta(minutes=15)
GIVEN_UP_AFTER = datetime.timedelta(days=1)
SEND_SECONDS = 15.0
"""Of a tick, in which attempts are begun."""


@dataclass
class Delivered:
    """What a tick did.

    Attributes:
        sent: How many were sent.
        lines: What went wrong, for the log.
    """

    sent: int = 0
    lines: list[str] = field(default_factory=list[str])


def pause(attempts: int) -> datetime.timedelta:
    """How long to wait after so many attempts."""
    return min(FIRST_PAUSE * 2 ** min(attempts - 1, 16), LONGEST_PAUSE)


def next_mark(before: Mark | None, now: datetime.datetime) -> Mark | None:
    """The mark of the attempt to make now; None if there is none to make now."""
    if before is None:
        return Mark(attempts=1, since=now, next=now + pause(1))
    if before.state != "trying" or now < before.next:
        return None
    if now - before.since >= GIVEN_UP_AFTER:
        return before.model_copy(update={"state": "given_up"})
    attempts = before.attempts + 1
    return before.model_copy(update={"attempts": attempts, "next": now + pause(attempts)})


def failed_mark(mark: Mark, error: LlmopsError, now: datetime.datetime) -> Mark:
    """The mark of an attempt that failed: no sooner again than the target asked for."""
    asked = error.retry_after if isinstance(error, Unavailable) else None
    wanted = now + datetime.timedelta(seconds=min(asked or 0, GIVEN_UP_AFTER.total_seconds()))
    return mark.model_copy(update={"next": max(mark.next, wanted), "error": error.message})


def due(waiting: Sequence[Waiting], target: AlertTarget, now: datetime.datetime) -> list[Alert]:
    """What the target is to get now, oldest first."""
    return [
        item.alert
        for item in waiting
        if unsettled(item, (target,)) and next_mark(item.marks.get(target.name), now) is not None
    ]


def deliver(outbox: Outbox, settings: Settings, *, seconds: float = SEND_SECONDS) -> Delivered:
    """Send what is due to each target, settle what everybody has, and forget what is old.

    Args:
        outbox: Where alerts wait.
        settings: The targets, and where links lead to.
        seconds: In which attempts are begun; what is under way then is waited for, within its own limits.

    Raises:
        Unavailable: The cluster does not answer.
    """
    waiting = outbox.pending()
    for item in waiting:
        if not unsettled(item, settings.alerts):
            outbox.settle(item.alert)
    outbox.prune()
    now = datetime.datetime.now(datetime.UTC)
    rounds = [(target, alerts) for target in settings.alerts if (alerts := due(waiting, target, now))]
    result = Delivered()
    if not rounds:
        return result
    stop = time.monotonic() + seconds
    # Not as a context: leaving that would wait for a thread that hangs, whatever the limit.
    pool = ThreadPoolExecutor(len(rounds), thread_name_prefix="alerts")
    threads = {pool.submit(_see_to, outbox, settings, target, alerts, stop): target for target, alerts in rounds}
    wait(threads, timeout=seconds + LONGEST_SECONDS)
    pool.shutdown(wait=False, cancel_futures=True)
    for thread, target in threads.items():
        _gather(result, thread, target)
    return result


def _gather(result: Delivered, thread: Future[Delivered], target: AlertTarget) -> None:
    if not thread.done():
        result.lines.append(f"{target.name}: does not come to an end; its alerts are tried again")
        return
    one = thread.result()
    result.sent += one.sent
    result.lines += one.lines


def _see_to(outbox: Outbox, settings: Settings, target: AlertTarget, alerts: Sequence[Alert], stop: float) -> Delivered:
    """Send alerts to one target until one fails or time is up."""
    result = Delivered()
    for alert in alerts:
        if time.monotonic() >= stop:
            break
        try:
            sent, line = _attempt(outbox, settings, target, alert)
        except LlmopsError as error:
            # The cluster does not answer: the marks stay as they are, and say when to try again.
            result.lines.append(f"{target.name}: {error}")
            break
        result.sent += sent
        if line:
            result.lines.append(line)
            break
    return result


def _attempt(outbox: Outbox, settings: Settings, target: AlertTarget, alert: Alert) -> tuple[int, str]:
    """How many were sent, and what went wrong."""
    now = datetime.datetime.now(datetime.UTC)
    mark = outbox.claim(alert, target.name, lambda before: next_mark(before, now))
    if mark is None:
        return 0, ""
    if mark.state == "given_up":
        return 0, _give_up(outbox, target, alert, mark)
    try:
        send(alert, target, outbox.cluster, settings)
    except LlmopsError as error:
        after = failed_mark(mark, error, datetime.datetime.now(datetime.UTC))
        outbox.mark(alert, target.name, after)
        return 0, f"{target.name}: {error} (attempt {mark.attempts}; next at {after.next:%H:%M:%S} UTC)"
    outbox.delivered(alert, target.name)
    return 1, ""


def _give_up(outbox: Outbox, target: AlertTarget, alert: Alert, mark: Mark) -> str:
    line = f"{target.name} did not get alert {alert.id} in {mark.attempts} attempts and is given up: {mark.error}"
    outbox.note(alert, "AlertGivenUp", line)
    return f"{line}. It was: {alert.line}"
