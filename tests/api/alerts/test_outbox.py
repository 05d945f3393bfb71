"""The outbox keeps each alert once in a real cluster, until it is settled."""

from __future__ import annotations

import datetime
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from llmops.alerts.delivery import next_mark
from llmops.alerts.outbox import LINE_LENGTH, Alert, Mark, Outbox, Waiting, alert_id, unsettled
from llmops.clients.kubernetes.client import Cluster
from llmops.config import names
from llmops.config.alerting import AlertTarget
from tests.api.alerts.conftest import make_alert

NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)


def target(name: str = "team", **changes: Any) -> AlertTarget:
    return AlertTarget.model_validate({"name": name, "kind": "slack", "url": {"name": "s", "key": "k"}} | changes)


def test_an_alert_comes_back_as_it_was_put(outbox: Outbox) -> None:
    alert = make_alert()
    assert outbox.put(alert)
    (waiting,) = outbox.pending()
    assert waiting == Waiting(alert, {})
    assert outbox.known(alert.id)
    assert not outbox.known(alert_id("rejected", "another"))


def test_the_same_happening_is_one_alert_and_its_first_telling_stays(outbox: Outbox) -> None:
    first = make_alert()
    assert outbox.put(first)
    assert not outbox.put(first.model_copy(update={"line": "told otherwise"}))
    assert [waiting.alert for waiting in outbox.pending()] == [first]


def test_many_who_put_the_same_at_once_put_one(outbox: Outbox) -> None:
    alerts = [make_alert("run", str(n % 5), at=NOW + datetime.timedelta(seconds=n % 5)) for n in range(40)]
    with ThreadPoolExecutor(8) as pool:
        new = list(pool.map(outbox.put, alerts))
    assert sum(new) == 5
    assert [waiting.alert.id for waiting in outbox.pending()] == [alert.id for alert in alerts[:5]]


def test_an_attempt_is_claimed_by_one_of_many(outbox: Outbox) -> None:
    alert = make_alert()
    outbox.put(alert)
    with ThreadPoolExecutor(8) as pool:
        tries = [pool.submit(outbox.claim, alert, "team", lambda mark: next_mark(mark, NOW)) for _ in range(16)]
    claims = [claim for attempt in tries if (claim := attempt.result()) is not None]
    assert [claim.attempts for claim in claims] == [1]


def test_marks_of_many_targets_do_not_disturb_one_another(outbox: Outbox) -> None:
    alert = make_alert()
    outbox.put(alert)
    with ThreadPoolExecutor(8) as pool:
        done = [pool.submit(outbox.delivered, alert, f"team-{n}") for n in range(16)]
    assert all(attempt.exception() is None for attempt in done)
    (waiting,) = outbox.pending()
    assert {name: mark.state for name, mark in waiting.marks.items()} == {f"team-{n}": "delivered" for n in range(16)}


def test_the_alerts_of_a_run_are_found(outbox: Outbox) -> None:
    one, other = make_alert("a", run="run-a"), make_alert("b", run="run-b")
    outbox.put(one)
    outbox.put(other)
    outbox.settle(one)
    assert outbox.alerts(run="run-a") == [one]
    assert {alert.id for alert in outbox.alerts()} == {one.id, other.id}


def test_settled_alerts_are_remembered_for_a_time_and_pending_ones_for_ever(outbox: Outbox) -> None:
    old, new, waiting = (make_alert(name, at=NOW - DAY * age) for name, age in (("old", 3), ("new", 1), ("waits", 5)))
    for alert in (old, new, waiting):
        outbox.put(alert)
    for alert in (old, new):
        outbox.settle(alert)
    assert outbox.prune(kept=DAY * 2) == [old.id]
    assert {alert.id for alert in outbox.alerts()} == {new.id, waiting.id}


def test_no_more_than_a_limit_of_settled_alerts_is_remembered(outbox: Outbox) -> None:
    alerts = [make_alert(str(n), at=NOW - datetime.timedelta(minutes=n)) for n in range(5)]
    for alert in alerts:
        outbox.put(alert)
        outbox.settle(alert)
    assert outbox.prune(limit=2) == [alert.id for alert in alerts[2:]]


def test_what_is_too_old_to_be_remembered_is_not_told_again(outbox: Outbox) -> None:
    assert not outbox.put(make_alert(at=NOW - DAY * 8))
    assert outbox.pending() == []


def test_it_is_in_the_records_of_its_model(outbox: Outbox, cluster: Cluster) -> None:
    alert = make_alert()
    outbox.put(alert)
    stored = cluster.get("ConfigMap", names.alert_name(alert.id))
    assert stored is not None
    assert stored["metadata"]["labels"][names.MODEL_LABEL] == "chat"
    assert stored["metadata"]["labels"][names.RUN_LABEL] == "run-1"


def test_an_alert_about_no_model_is_kept_as_well(outbox: Outbox) -> None:
    assert outbox.put(make_alert(kind="sensor_failing", model="", release="", run=""))


@given(st.text())
def test_a_line_is_one_line(text: str) -> None:
    if not text.split():
        with pytest.raises(ValidationError):
            make_alert(line=text)
        return
    line = make_alert(line=text).line
    assert len(line.splitlines()) == 1
    assert 0 < len(line) <= LINE_LENGTH


@given(st.lists(st.text(), max_size=3), st.lists(st.text(), max_size=3))
def test_different_happenings_have_different_ids(one: list[str], other: list[str]) -> None:
    assert (alert_id("rejected", *one) == alert_id("rejected", *other)) == (one == other)
    assert alert_id("rejected", *one) != alert_id("run_failed", *one)


def test_who_gets_an_alert() -> None:
    mark = Mark(since=NOW, next=NOW)
    alert = make_alert(severity="warning")

    def open_for(alert: Alert, *targets: AlertTarget, **marks: Mark) -> list[str]:
        return [target.name for target in unsettled(Waiting(alert, marks), targets)]

    assert open_for(alert, target()) == ["team"]
    assert open_for(alert, target(min_severity="error")) == []
    assert open_for(alert, target(kinds=["run_stuck"])) == []
    assert open_for(make_alert(kind="promoted", severity="info"), target()) == []
    assert open_for(make_alert(kind="promoted", severity="info"), target(kinds=["promoted"])) == ["team"]
    assert open_for(alert, target(), team=mark) == ["team"]
    assert open_for(alert, target(), team=mark.model_copy(update={"state": "delivered"})) == []
    assert open_for(alert, target(), team=mark.model_copy(update={"state": "given_up"})) == []


def test_a_webhook_needs_a_key_and_others_take_none() -> None:
    with pytest.raises(ValidationError, match="signing_key"):
        target(kind="webhook")
    with pytest.raises(ValidationError, match="signing_key"):
        target(signing_key={"name": "s", "key": "k"})
