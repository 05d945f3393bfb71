"""A real Prometheus scrapes engines and fires alerts, by the monitor and the rules that a promotion applied.

Each alert of a model fires when the test makes its cause. The test shortens the time for which a cause has to last;
`promtool` checks the real times in tests/unit/manifests/test_rules.py.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llmops_sandbox.cluster.crds import install_crds
from llmops_sandbox.monitoring import install_exporters, install_prometheus
from llmops_sandbox.panels import chosen, draw, expressions
from llmops_sandbox.sandbox import Sandbox
from llmops_sandbox.users import users

from llmops.cli.exits import Exit
from llmops.clients.prometheus import Prometheus, Sample
from llmops.config import names
from llmops.evaluation.endpoint import Endpoint
from llmops.manifests.companions.dashboard import dashboard
from tests.support.world import Model

OBJECTIVES = {
    "p95_e2e_seconds": 0.5,
    "p95_ttft_seconds": 0.5,
    "slow_for_seconds": 3,
    "waiting_for_seconds": 3,
    "gpu_for_seconds": 3,
    "unready_for_seconds": 1,
}
PICTURE = Path(__file__).parents[3] / "build" / "dashboard.png"


def until(ask: Callable[[], list[Sample]], what: str, seconds: float = 60) -> list[Sample]:
    deadline = time.monotonic() + seconds
    while not (samples := ask()):
        assert time.monotonic() < deadline, what
        time.sleep(0.5)
    return samples


def firing(prometheus: Prometheus) -> dict[str, dict[str, str]]:
    alerts = prometheus.query('ALERTS{alertstate="firing"}')
    return {sample.labels["alertname"]: dict(sample.labels) for sample in alerts}


def engine_pid(model: Model) -> int:
    """The process that the node agent runs for the engine of stable."""
    (pod,) = model.cluster.list("Pod", labels=names.engine_selector(model.name, "stable"))
    mine = f"--host {pod['status']['podIP']} "
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if "llmops_sandbox.engine" in command and mine in command:
                return int(entry.name)
    raise AssertionError(f"no process of {pod['metadata']['name']}")


def serve_monitored(model: Model, *, at_once: int) -> None:
    """Roll out a model that takes this many requests at once, with the Operator's objects."""
    install_crds(model.cluster)
    settings: dict[str, Any] = json.loads(model.settings_file.read_text())
    settings["monitoring"] = {"monitor": "pod-monitor", "interval_seconds": 1, "volume_for_seconds": 2}
    model.settings_file.write_text(json.dumps(settings))
    model.declare(
        engine={"options": {"max_num_seqs": at_once}},
        objectives=OBJECTIVES,
        evaluation={"suites": ["sums"], "gates": [{"metric": "sums/score", "min": 0.5}]},
    )
    model.commit(tokens_per_second=100)
    ended = model.rollout()
    assert ended.code == Exit.DONE, ended.line


def install(sandbox: Sandbox, model: Model) -> str:
    """Install exporters, and Prometheus with the objects that the promotion applied; returns its URL."""
    cluster = model.cluster
    (monitor,) = (entry for entry in cluster.list("PodMonitor") if entry["metadata"]["name"] == model.name)
    (rules,) = (entry for entry in cluster.list("PrometheusRule") if entry["metadata"]["name"] == model.name)
    scrapes = install_exporters(sandbox, cluster)
    return install_prometheus(sandbox, cluster, monitors=[monitor], rules={model.name: rules["spec"]}, scrapes=scrapes)


def test_a_rollout_is_seen_on_both_tracks_by_release_and_marked(sandbox: Sandbox, model: Model) -> None:
    """Slow: two rollouts, one of them under load."""
    serve_monitored(model, at_once=6)
    first = model.serving()
    endpoint = Endpoint(model.cluster.endpoint(model.name, names.ENGINE_PORT), model.name)
    with Prometheus(install(sandbox, model)) as prometheus:
        until(lambda: prometheus.query(f'llmops:engines_up:count{{model="{model.name}"}} > 0'), "a scrape")
        began = time.time()
        with users(endpoint, count=8, tokens=40, pause=0.1) as counted:
            time.sleep(10)
            model.commit(tokens_per_second=140, ttft_ms=80)
            ended = model.rollout()
            assert ended.code == Exit.DONE, ended.line
            time.sleep(10)
        assert counted.failed == 0, counted.troubles
        second, until_now = model.serving(), time.time()
        assert first != second
        tracks = {
            (series.labels["track"], series.labels["release"])
            for series in prometheus.query_range(
                f'llmops:engines_up:count{{model="{model.name}"}} > 0', began, until_now, 1
            )
        }
        assert tracks == {("stable", first), ("canary", second), ("stable", second)}
        # The canary has requests for a second or two. On a busy machine that is too short for a rate.
        request_rates = prometheus.query_range("llmops:requests_per_second:sum > 0", began, until_now, 1)
        assert {series.labels["release"] for series in request_rates} == {first, second}
        (marks,) = dashboard()["annotations"]["list"]
        marked = prometheus.query_range(chosen(marks["expr"]), began, until_now, 1)
        assert {series.labels["release"] for series in marked} == {first, second}
        draw(dashboard(), prometheus, began, until_now, PICTURE)
    assert PICTURE.stat().st_size > 50_000


def test_each_alert_fires_when_its_cause_is_made_and_every_panel_has_data(sandbox: Sandbox, model: Model) -> None:
    """Slow: a rollout, half a minute of load and two crashes."""
    serve_monitored(model, at_once=2)
    cluster, url = model.cluster, install(sandbox, model)
    began = time.time()
    with Prometheus(url) as prometheus:
        (up,) = until(lambda: prometheus.query(f'llmops:engines_up:count{{model="{model.name}"}}'), "a scrape")
        assert up.labels.items() >= {
            "namespace": cluster.namespace,
            "track": "stable",
            "release": model.serving(),
        }.items()  # fmt: skip
        until(lambda: prometheus.query("kubelet_volume_stats_used_bytes"), "the exporters")
        # Long enough for an alert without a cause to fire.
        time.sleep(8)
        assert firing(prometheus) == {}

        endpoint = Endpoint(cluster.endpoint(model.name, names.ENGINE_PORT), model.name)
        with users(endpoint, count=30, tokens=60) as counted:
            for alert in ("LlmLatencyHigh", "LlmQueueLong", "LlmGpuHot", "LlmFirstTokenLate"):
                labels = until(
                    lambda alert=alert: prometheus.query(f'ALERTS{{alertname="{alert}",alertstate="firing"}}'), alert
                )[0].labels
                assert (labels["model"], labels["track"]) == (model.name, "stable")
        assert counted.failed == 0, counted.troubles

        padding = model.volume / "padding"
        with padding.open("wb") as file:
            file.truncate(90 << 30)
        try:
            (full,) = until(lambda: prometheus.query('ALERTS{alertname="LlmVolumeNearlyFull",alertstate="firing"}'), "")
            assert full.labels["persistentvolumeclaim"] == "llmops-weights"
        finally:
            padding.unlink()

        for restarts in (1, 2):
            os.kill(engine_pid(model), signal.SIGKILL)
            query = (
                f'kube_pod_container_status_restarts_total{{pod=~"{model.name}-.*",container="engine"}} == {restarts}'
            )
            until(lambda query=query: prometheus.query(query), "a restart")
            if restarts == 1:
                time.sleep(3)
                assert "LlmPodRestarts" not in firing(prometheus)
        (restarted,) = until(lambda: prometheus.query('ALERTS{alertname="LlmPodRestarts",alertstate="firing"}'), "")
        assert restarted.labels["pod"].startswith(f"{model.name}-")

        nowhere = {
            "strategy": {"rollingUpdate": None, "type": "Recreate"},
            "template": {"spec": {"nodeSelector": {"no": "node"}}},
        }
        cluster.patch("Deployment", model.name, {"spec": nowhere})
        until(lambda: prometheus.query('ALERTS{alertname="LlmNoReplicaReady",alertstate="firing"}'), "no replica")

        ended = time.time()
        for panel in dashboard()["panels"]:
            for expression in expressions(panel):
                assert prometheus.query_range(expression, began, ended, 1), (panel["title"], expression)
