"""Alerts reach real receivers that fail, hang, redirect and come back. No receiver delays another."""

from __future__ import annotations

import asyncio
import base64
import datetime
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from llmops.alerts.delivery import (
    FIRST_PAUSE,
    GIVEN_UP_AFTER,
    LONGEST_PAUSE,
    Delivered,
    deliver,
    due,
    failed_mark,
    next_mark,
    pause,
)
from llmops.alerts.outbox import Mark, Outbox, Waiting
from llmops.alerts.posting import LONGEST_SECONDS
from llmops.alerts.signing import parse_key, signed_headers
from llmops.clients.kubernetes.client import Cluster
from llmops.config.settings import Settings
from llmops.errors import BadInput, Unavailable
from tests.api.alerts.conftest import HERE, KEY, Receiver, add_target, make_alert, with_targets
from tests.api.cluster.conftest import eventually

NOW = datetime.datetime(2026, 11, 25, 12, tzinfo=datetime.UTC)
SECOND = datetime.timedelta(seconds=1)
SECRET = "T0KEN-OF-THIS-HOOK"


def codes(done: Delivered) -> dict[str, str]:
    """Code of the failure by target."""
    return {failure.target: failure.code for failure in done.failures}


def states(outbox: Outbox) -> dict[str, str]:
    """State by target, of the one alert that is pending."""
    (waiting,) = outbox.pending()
    return {name: mark.state for name, mark in waiting.marks.items()}


def test_a_slack_message_says_what_happened_why_what_serves_and_where_to_look(
    outbox: Outbox, cluster: Cluster, settings: Settings, receiver: Receiver
) -> None:
    settings = with_targets(settings, add_target(cluster, "team", receiver.url))
    alert = make_alert(line="chat rejected: p95 < 200 & rising")
    outbox.put(alert)
    assert deliver(outbox, settings).sent == 1
    text = json.loads(receiver.received[0].body)["text"]
    assert "chat rejected: p95 &lt; 200 &amp; rising (0123456789ab serves now)" in text
    assert "<https://dagster.example/runs/run-1|run>" in text
    assert "<https://llmops.example/reports/chat/abcdef012345|report>" in text
    assert states(outbox) == {"team": "delivered"}


def test_it_is_sent_once_however_often_delivery_runs(
    outbox: Outbox, cluster: Cluster, settings: Settings, receiver: Receiver
) -> None:
    settings = with_targets(settings, add_target(cluster, "team", receiver.url))
    alert = make_alert()
    outbox.put(alert)
    assert [deliver(outbox, settings).sent for _ in range(3)] == [1, 0, 0]
    outbox.put(alert)
    assert deliver(outbox, settings).sent == 0
    assert receiver.ids() == [alert.id]
    assert outbox.pending() == []


def test_a_webhook_is_signed_as_the_specification_says(
    outbox: Outbox, cluster: Cluster, settings: Settings, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    settings = with_targets(settings, add_target(cluster, "ops", receiver.url, "webhook"))
    alert = make_alert()
    outbox.put(alert)
    with caplog.at_level(logging.DEBUG):
        deliver(outbox, settings)
    assert SECRET not in caplog.text
    (request,) = receiver.received
    content = Webhook(KEY).verify(request.body, request.headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(KEY).verify(request.body.replace(b"rejected", b"promoted"), request.headers)
    with pytest.raises(WebhookVerificationError):
        Webhook("whsec_" + base64.b64encode(bytes(32)).decode()).verify(request.body, request.headers)
    assert content["type"] == "llmops.rejected"
    assert datetime.datetime.fromisoformat(content["timestamp"]) == alert.at
    assert content["data"] == {
        "id": alert.id,
        "kind": "rejected",
        "severity": "warning",
        "model": "chat",
        "release": "abcdef012345",
        "line": alert.line,
        "text": f"{alert.line} (0123456789ab serves now)",
        "serving": "0123456789ab",
        "now": "",
        "run": "run-1",
        "run_url": "https://dagster.example/runs/run-1",
        "report_url": "https://llmops.example/reports/chat/abcdef012345",
    }
    assert request.headers["webhook-id"] == content["data"]["id"]


@given(st.binary(max_size=200), st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1))
def test_any_body_is_signed_as_the_specifications_own_library_signs_it(body: bytes, message: str) -> None:
    text = body.hex()
    headers = signed_headers(parse_key(KEY), message, int(time.time()), text.encode())
    Webhook(KEY).verify(text, headers, json_parse=False)


@pytest.mark.parametrize("key", ["whsec_!!!", "whsec_c2hvcnQ=", "", "whsec_" + base64.b64encode(bytes(65)).decode()])
def test_a_bad_key_is_refused_and_not_shown(key: str) -> None:
    with pytest.raises(BadInput) as raised:
        parse_key(key)
    assert raised.value.code == "InvalidSigningKey"
    assert not key or key.removeprefix("whsec_") not in str(raised.value)


def test_apprise_sends_to_what_it_knows(
    outbox: Outbox, cluster: Cluster, settings: Settings, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    url = receiver.url.replace("http://", "json://")
    settings = with_targets(settings, add_target(cluster, "pager", url, "apprise"))
    outbox.put(make_alert())
    receiver.answers = [500]
    with caplog.at_level(logging.DEBUG):
        failed = deliver(outbox, settings)
    assert failed.sent == 0
    assert codes(failed) == {"pager": "TargetFailed"}
    assert SECRET not in caplog.text + str(failed)
    outbox.put(make_alert("another", severity="error"))
    with caplog.at_level(logging.DEBUG):
        assert deliver(outbox, settings).sent == 1
    assert SECRET not in caplog.text
    content = json.loads(receiver.received[-1].body)
    assert content["type"] == "failure"
    assert content["title"] == "llmops: rejected"
    assert content["message"].splitlines()[-1] == "https://dagster.example/runs/run-1"


async def hangs(request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(3600)
    return web.Response()


async def dribbles(request: web.Request) -> web.StreamResponse:
    """An answer whose headers never end, byte after byte."""
    assert request.transport is not None
    request.transport.write(b"HTTP/1.1 200 OK\r\nx: ")
    for _ in range(36_000):
        await asyncio.sleep(0.1)
        request.transport.write(b"a")
    return web.Response()


async def hangs_up(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


@pytest.mark.parametrize("behaviour", [hangs, dribbles])
def test_who_hangs_is_left_alone_in_time_and_holds_back_nobody(
    behaviour: Any,
    outbox: Outbox,
    cluster: Cluster,
    settings: Settings,
    receivers: Callable[[], Receiver],
) -> None:
    """Waits for the time limit of one request."""
    slow, good = receivers(), receivers()
    slow.answers = [behaviour] * 5
    settings = with_targets(
        settings, add_target(cluster, "slow", slow.url), add_target(cluster, "good", good.url, "webhook")
    )
    for name in ("one", "other"):
        outbox.put(make_alert(name))
    done = deliver(outbox, settings)
    assert done.sent == 2
    assert len(good.received) == 2
    assert len(slow.received) == 1, "one request a tick to a target that does not answer"
    assert codes(done) == {"slow": "TargetTimedOut"}


@pytest.mark.parametrize("first", [503, hangs_up])
def test_a_blink_is_bridged_within_one_attempt(
    first: Any, outbox: Outbox, cluster: Cluster, settings: Settings, receiver: Receiver
) -> None:
    receiver.answers = [first]
    settings = with_targets(settings, add_target(cluster, "ops", receiver.url, "webhook"))
    outbox.put(make_alert())
    assert deliver(outbox, settings).sent == 1
    assert len(set(receiver.ids())) == 1
    assert len(receiver.received) == 2


def test_who_redirects_gets_nothing_sent_elsewhere(
    outbox: Outbox, cluster: Cluster, settings: Settings, receivers: Callable[[], Receiver]
) -> None:
    first, elsewhere = receivers(), receivers()
    first.answers, first.headers = [307], {"Location": elsewhere.url}
    settings = with_targets(settings, add_target(cluster, "ops", first.url, "webhook"))
    outbox.put(make_alert())
    done = deliver(outbox, settings)
    assert done.sent == 0
    assert codes(done) == {"ops": "TargetRedirects"}
    assert elsewhere.received == []


def test_who_asks_to_come_back_later_is_left_alone_until_then(
    outbox: Outbox, cluster: Cluster, settings: Settings, receiver: Receiver
) -> None:
    receiver.answers, receiver.headers = [429], {"Retry-After": "300"}
    settings = with_targets(settings, add_target(cluster, "ops", receiver.url, "webhook"))
    outbox.put(make_alert())
    assert deliver(outbox, settings).sent == 0
    (waiting,) = outbox.pending()
    mark = waiting.marks["ops"]
    assert 290 < (mark.next - datetime.datetime.now(datetime.UTC)).total_seconds() <= 300
    assert mark.error == "127.0.0.1 answered 429"
    assert deliver(outbox, settings).sent == 0
    assert len(receiver.received) == 1


def test_what_cannot_be_sent_shows_no_secret(
    outbox: Outbox, cluster: Cluster, settings: Settings, dead_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    targets = [
        add_target(cluster, "dead", dead_url, "webhook"),
        add_target(cluster, "nonsense", f"http://[{SECRET}", "webhook"),
        add_target(cluster, "scheme", f"ftp://127.0.0.1/{SECRET}"),
        add_target(cluster, "unknown", f"nothing://{SECRET}", "apprise"),
        add_target(cluster, "absent", " "),
    ]
    outbox.put(make_alert())
    with caplog.at_level(logging.DEBUG):
        done = deliver(outbox, with_targets(settings, *targets))
    assert done.sent == 0
    assert codes(done) == {
        "dead": "TargetUnreachable",
        "nonsense": "InvalidUrl",
        "scheme": "InvalidUrl",
        "unknown": "UnknownService",
        "absent": "SecretMissing",
    }
    (waiting,) = outbox.pending()
    everything = caplog.text + str(done.failures) + str(waiting.marks)
    assert SECRET.lower() not in everything.lower()


def test_a_target_that_was_down_gets_all_when_it_is_back(
    outbox: Outbox, cluster: Cluster, settings: Settings, receiver: Receiver
) -> None:
    receiver.answers = [500, 500]
    settings = with_targets(settings, add_target(cluster, "ops", receiver.url, "webhook"))
    alerts = [make_alert(str(n), at=datetime.datetime.now(datetime.UTC) - SECOND * (9 - n)) for n in range(4)]
    for alert in alerts:
        outbox.put(alert)
    assert deliver(outbox, settings).sent == 0
    assert deliver(outbox, settings).sent == 3
    (waits,) = [item.alert for item in outbox.pending() if item.marks["ops"].state == "trying"]
    assert waits == alerts[0]


def test_what_could_not_be_sent_for_a_day_is_given_up_and_told(
    outbox: Outbox, cluster: Cluster, settings: Settings, receiver: Receiver
) -> None:
    settings = with_targets(settings, add_target(cluster, "ops", receiver.url, "webhook"))
    alert = make_alert()
    outbox.put(alert)
    long_ago = datetime.datetime.now(datetime.UTC) - GIVEN_UP_AFTER
    outbox.mark(alert, "ops", Mark(since=long_ago, next=long_ago, error="127.0.0.1 answered 500"))
    done = deliver(outbox, settings)
    (failure,) = done.failures
    assert (failure.target, failure.code) == ("ops", "GivenUp")
    assert "127.0.0.1 answered 500" in failure.line
    assert alert.line in failure.line
    assert receiver.received == []
    events = cluster.list("Event", fields={"reason": "AlertGivenUp"})
    assert len(events) == 1
    deliver(outbox, settings)
    assert outbox.pending() == []


def test_with_nobody_to_tell_nothing_waits(outbox: Outbox, settings: Settings) -> None:
    outbox.put(make_alert())
    assert deliver(outbox, settings).sent == 0
    assert outbox.pending() == []


def test_one_that_was_killed_between_sending_and_marking_is_succeeded_with_the_same_id(
    outbox: Outbox, cluster: Cluster, settings: Settings, receiver: Receiver
) -> None:
    """The one case in which an alert is sent twice; the receiver can tell by the id."""
    receiver.answers = [hangs, 200]
    settings = with_targets(settings, add_target(cluster, "ops", receiver.url, "webhook"))
    alert = make_alert()
    outbox.put(alert)
    child = subprocess.Popen(
        [sys.executable, HERE / "delivering.py"],
        stdin=subprocess.PIPE,
        text=True,
    )
    assert child.stdin is not None
    child.stdin.write(settings.model_dump_json())
    child.stdin.close()
    try:
        # The receiver has the alert, and the sender has no answer yet.
        eventually(lambda: receiver.received or None, seconds=60)
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.wait(timeout=10)
    assert states(outbox) == {"ops": "trying"}
    assert deliver(outbox, settings).sent == 0, "the dead one's attempt may still be under way"
    (waiting,) = outbox.pending()
    mark = waiting.marks["ops"]
    outbox.mark(alert, "ops", mark.model_copy(update={"next": datetime.datetime.now(datetime.UTC)}))
    assert deliver(outbox, settings).sent == 1
    assert receiver.ids() == [alert.id, alert.id]


def test_two_deliverers_at_once_send_each_alert_once(
    outbox: Outbox, cluster: Cluster, settings: Settings, receiver: Receiver
) -> None:
    settings = with_targets(settings, add_target(cluster, "ops", receiver.url, "webhook"))
    for n in range(10):
        outbox.put(make_alert(str(n)))
    with ThreadPoolExecutor(3) as pool:
        done = [one.result() for one in [pool.submit(deliver, outbox, settings) for _ in range(3)]]
    assert sum(one.sent for one in done) == 10
    assert len(set(receiver.ids())) == len(receiver.received) == 10


def test_pauses_grow_to_a_limit_and_the_first_outlasts_an_attempt() -> None:
    pauses = [pause(attempts) for attempts in range(1, 100)]
    assert pauses == sorted(pauses)
    assert pauses[0] == FIRST_PAUSE
    assert pauses[-1] == LONGEST_PAUSE
    assert FIRST_PAUSE.total_seconds() > LONGEST_SECONDS


def test_tries_end_after_a_day() -> None:
    mark, now, attempts = next_mark(None, NOW), NOW, 0
    while mark is not None and mark.state == "trying":
        attempts += 1
        now = mark.next
        mark = next_mark(mark, now)
    assert mark is not None
    assert mark.state == "given_up"
    assert GIVEN_UP_AFTER <= now - NOW <= GIVEN_UP_AFTER + LONGEST_PAUSE
    assert 90 < attempts < 110
    assert next_mark(mark, now) is None


def test_an_attempt_is_made_when_its_time_has_come() -> None:
    mark = Mark(since=NOW, next=NOW + SECOND)
    assert next_mark(mark, NOW) is None
    assert next_mark(mark, NOW + SECOND) is not None
    assert next_mark(mark.model_copy(update={"state": "delivered"}), NOW + SECOND) is None


@given(st.floats(min_value=0, max_value=1e12))
def test_a_target_is_never_asked_sooner_than_it_said_nor_put_off_for_ever(retry_after: float) -> None:
    mark = Mark(since=NOW, next=NOW + FIRST_PAUSE)
    after = failed_mark(mark, Unavailable("no", retry_after=retry_after), NOW).next
    assert after >= NOW + min(datetime.timedelta(seconds=min(retry_after, 1e6)), GIVEN_UP_AFTER)
    assert mark.next <= after <= NOW + GIVEN_UP_AFTER


def test_what_is_due_is_what_the_target_wants_and_has_not(cluster: Cluster) -> None:
    target = add_target(cluster, "team", "http://x", kinds=["rejected"])
    rejected, stuck = make_alert(), make_alert(kind="run_stuck")
    late = Mark(since=NOW, next=NOW + SECOND)
    assert due([Waiting(rejected, {}), Waiting(stuck, {})], target, NOW) == [rejected]
    assert due([Waiting(rejected, {"team": late})], target, NOW) == []
    assert due([Waiting(rejected, {"other": late})], target, NOW) == [rejected]
