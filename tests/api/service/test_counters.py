"""Counters in a real cluster only go up, count each event once, and survive a pruned history."""

from __future__ import annotations

import datetime
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.clients.kubernetes.client import Cluster
from llmops.releases.counters import KEPT_KEYS, Counted, Counters, gpu_seconds, with_rollout
from llmops.releases.records import Record, Records
from llmops.releases.stages import STAGES

NOW = datetime.datetime(2026, 11, 25, 12, tzinfo=datetime.UTC)


def make_record(run: str = "run-1", **changes: Any) -> Record:
    base: dict[str, Any] = {
        "model": "chat",
        "release": "abcdef012345",
        "verdict": "Failed",
        "reason": "because",
        "stage": "evaluation",
        "image": "vllm/vllm-openai:v0.32.0",
        "commit": "0" * 40,
        "stages": {"release": 1.5, "weights": 0, "canary": 20, "evaluation": 40, "promotion": 99},
        "run": run,
        "finished": NOW,
    }
    return Record.model_validate(base | changes)


def make_canary(uid: str = "uid-1", *, gpus: int = 2, replicas: int = 1, minutes: float = 10) -> dict[str, Any]:
    limits = {"cpu": "4"} | ({"nvidia.com/gpu": str(gpus)} if gpus else {})
    made = datetime.datetime.now(datetime.UTC) - datetime.timedelta(minutes=minutes)
    return {
        "metadata": {"uid": uid, "creationTimestamp": made.strftime("%Y-%m-%dT%H:%M:%SZ")},
        "spec": {
            "replicas": replicas,
            "template": {"spec": {"containers": [{"name": "engine", "resources": {"limits": limits}}]}},
        },
    }


@pytest.fixture
def counters(cluster: Cluster) -> Counters:
    return Counters(cluster)


def test_a_verdict_counts_once_for_each_run(counters: Counters) -> None:
    for _ in range(3):
        counters.count_rollout(make_record())
    counters.count_rollout(make_record("run-2", verdict="Passed", stage="promotion"))
    counted = counters.all()["chat"]
    assert counted.rollouts == {"Failed": 1, "Passed": 1}
    assert {stage: took.count for stage, took in counted.stages.items()} == {
        "release": 2,
        "canary": 2,
        "evaluation": 2,
        "promotion": 1,
    }
    assert counted.stages["canary"].seconds == 40
    assert counted.stages["promotion"].last == 99


def test_many_who_count_at_once_lose_nothing(counters: Counters) -> None:
    with ThreadPoolExecutor(8) as pool:
        done = [pool.submit(counters.count_rollout, make_record(f"run-{n % 12}")) for n in range(24)]
    assert all(thread.exception() is None for thread in done)
    assert counters.all()["chat"].rollouts == {"Failed": 12}


def test_counters_outlive_the_history(counters: Counters, cluster: Cluster) -> None:
    records = Records(cluster)
    for n in range(4):
        record = make_record(f"run-{n}", release=f"{n:012x}", finished=NOW + datetime.timedelta(minutes=n))
        records.save_record(record)
        counters.count_rollout(record)
    records.update_state("chat", candidate=None)
    records.prune("chat", 2)
    assert len(records.history("chat")) == 2
    assert counters.all()["chat"].rollouts == {"Failed": 4}


def test_the_gpu_time_of_a_canary_counts_once_for_each_deployment(counters: Counters) -> None:
    for _ in range(2):
        counters.count_canary("chat", make_canary("one"))
    assert counters.all()["chat"].canary_gpu_seconds == pytest.approx(1200, abs=10)
    counters.count_canary("chat", make_canary("other", gpus=1))
    assert counters.all()["chat"].canary_gpu_seconds == pytest.approx(1800, abs=20)


@pytest.mark.parametrize(("gpus", "replicas", "seconds"), [(2, 1, 1200), (1, 3, 1800), (0, 1, 0), (4, 0, 0)])
def test_gpu_time_is_gpus_times_replicas_times_time(gpus: int, replicas: int, seconds: float) -> None:
    canary = make_canary(gpus=gpus, replicas=replicas)
    assert gpu_seconds(canary, datetime.datetime.now(datetime.UTC)) == pytest.approx(seconds, abs=10)


def test_a_clock_that_is_behind_counts_nothing_off() -> None:
    assert gpu_seconds(make_canary(minutes=-10), datetime.datetime.now(datetime.UTC)) == 0


@given(st.lists(st.tuples(st.sampled_from(STAGES), st.sampled_from(["Passed", "Failed", "Inconclusive"]))))
def test_counters_only_go_up(trials: list[tuple[str, str]]) -> None:
    counted = Counted()
    for n, (stage, verdict) in enumerate(trials):
        after = with_rollout(counted, make_record(stage=stage, verdict=verdict)).with_key(str(n))
        assert sum(after.rollouts.values()) == sum(counted.rollouts.values()) + 1
        assert all(after.rollouts[name] >= count for name, count in counted.rollouts.items())
        assert all(after.stages[name].seconds >= took.seconds for name, took in counted.stages.items())
        assert set(after.stages) - set(counted.stages) <= set(STAGES[: STAGES.index(stage) + 1])
        assert len(after.keys) <= KEPT_KEYS
        counted = after
