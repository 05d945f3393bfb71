"""Records keep their names, labels and keys, are recovered after a loss, and end a write that cannot succeed."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable

import pytest

from llmops.alerts.outbox import Alert, Outbox, alert_id
from llmops.clients.kubernetes.client import Cluster
from llmops.clients.kubernetes.problems import NotFound
from llmops.costs.comparison import Report, Volume
from llmops.costs.history import CostHistory, Measured
from llmops.costs.prices import Range
from llmops.costs.stack import Bill
from llmops.releases.counters import Counters
from llmops.releases.records import OpenTrial, Record, Records, VerifiedWeights
from llmops.releases.store import Store
from llmops.releases.validations import CheckResult, Validation, Validations
from tests.api.releases.conftest import Attempts

NOW = datetime.datetime.now(datetime.UTC)
RECORD = Record(
    model="chat",
    release="r1",
    verdict="Passed",
    reason="-",
    stage="promotion",
    image="-",
    commit="-",
    run="run-1",
    finished=NOW,
)
VALIDATION = Validation(
    model="chat",
    release="r1",
    run="run-1",
    requested_by="-",
    started=NOW,
    finished=NOW,
    checks=(CheckResult(check="weights", value="Passed", line="-"),),
)
ALERT = Alert(
    id=alert_id("promoted", "chat"),
    kind="promoted",
    severity="info",
    model="chat",
    release="r1",
    line="-",
    run="run-1",
    at=NOW,
)
NOTHING = Range(low=0, high=0)
MEASURED = Measured(
    start=NOW - datetime.timedelta(days=7),
    end=NOW,
    covered=1,
    gpu_hours=1,
    report=Report(
        bill=Bill(items=(), total=NOTHING),
        volume=Volume(input=0, output=0),
        capacity=None,
        utilization=None,
        usd_per_million=None,
        operations=NOTHING,
        against=(),
    ),
)
WEIGHTS = VerifiedWeights(path="weights/chat/k1", files=1, bytes=1, verified=NOW)
WRITERS: dict[str, Callable[[Cluster], object]] = {
    "state": lambda cluster: Records(cluster).update_state("chat", stable="r1"),
    "trial": lambda cluster: Records(cluster).save_seconds("chat", "r1", "canary", 1),
    "weights": lambda cluster: Records(cluster).save_verified_weights("chat", "k1", WEIGHTS),
    "counters": lambda cluster: Counters(cluster).count_rollout(RECORD),
    "validation": lambda cluster: Validations(cluster).save(VALIDATION),
    "costs": lambda cluster: CostHistory(cluster).add("chat", MEASURED),
    "alert": lambda cluster: Outbox(cluster).put(ALERT),
}
# Other versions of llmops find records by these names, labels and keys.
NAMES = {
    "state": ("chat.state", "", "stable"),
    "trial": ("chat.record.r1", "r1", "canary.seconds"),
    "weights": ("chat.weights.k1", "", "verified.json"),
    "counters": ("chat.counters", "", "counters.json"),
    "validation": ("chat.validation", "r1", "last.json"),
    "costs": ("chat.costs", "", "history.json"),
    "alert": (f"llmops.alert.{ALERT.id}", "r1", "alert.json"),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_names_labels_and_keys_stay_what_they_are(cluster: Cluster, kind: str) -> None:
    for _ in range(2):
        WRITERS[kind](cluster)
        (stored,) = Store(cluster).list({"llmops.dev/record": kind})
        name, release, key = NAMES[kind]
        expected = {
            "app.kubernetes.io/name": "chat",
            "app.kubernetes.io/component": "alert" if kind == "alert" else "record",
            "app.kubernetes.io/part-of": "llmops",
            "app.kubernetes.io/managed-by": "llmops",
            "llmops.dev/model": "chat",
            "llmops.dev/release": release,
            "llmops.dev/record": kind,
        }
        if kind == "alert":
            expected |= {"llmops.dev/run": "run-1", "llmops.dev/alert": "pending"}
        assert (stored.name, stored.labels, set(stored.data)) == (name, expected, {key})


@pytest.mark.parametrize("kind", WRITERS)
def test_a_namespace_that_is_gone_ends_the_write_of_a_record(cluster: Cluster, kind: str) -> None:
    gone = f"{cluster.namespace}-gone"
    attempts = Attempts(Cluster.connect(cluster.settings.model_copy(update={"namespace": gone})))
    with pytest.raises(NotFound) as raised:
        WRITERS[kind](attempts.cluster)
    assert f"{NAMES[kind][0]} in namespace {gone}" in raised.value.message
    assert gone in raised.value.remedy
    assert attempts.made <= 2


def test_a_pruned_alert_is_not_written_again(cluster: Cluster) -> None:
    outbox = Outbox(cluster)
    outbox.put(ALERT)
    outbox.settle(ALERT)
    assert outbox.prune(limit=0) == [ALERT.id]
    outbox.delivered(ALERT, "team")
    outbox.settle(ALERT)
    assert not outbox.known(ALERT.id)


def test_a_kept_validation_has_the_labels_of_its_release(cluster: Cluster) -> None:
    validations = Validations(cluster)
    validations.save(VALIDATION)
    unfinished = CheckResult(check="figures", value="Inconclusive", line="-")
    kept = validations.save(VALIDATION.model_copy(update={"release": "r2", "checks": (unfinished,)}))
    assert kept.completed == NOW
    assert validations.last("chat") == kept
    (stored,) = Store(cluster).list({"llmops.dev/release": "r2"})
    assert json.loads(stored.data["last.json"])["release"] == "r2"


def test_a_state_that_was_deleted_is_recovered_and_written_again(cluster: Cluster) -> None:
    records = Records(cluster)
    records.save_record(RECORD)
    records.update_state("chat", stable="r1", candidate="r2", canary_percent="5")
    records.open_trial("chat", "r2", OpenTrial(run="run-2", requested_by="-", stage="canary", since=NOW, served="r1"))
    before = Store(cluster).get("chat.state")
    assert before is not None
    cluster.delete("ConfigMap", "chat.state")
    recovered = records.recover_state("chat")
    assert (recovered.recovered, recovered.stable, recovered.candidate) == (True, "r1", "r2")
    after = Store(cluster).get("chat.state")
    assert after is not None
    assert (after.labels, after.data) == (before.labels, {"stable": "r1", "candidate": "r2"})
    assert not records.state("chat").recovered
