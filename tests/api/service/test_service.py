"""The service in its own process, over HTTP, with a real API server behind it."""

from __future__ import annotations

import datetime
import json
import os
import signal
import subprocess
import sys
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
from llmops_sandbox.cluster.controlplane import ControlPlane
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from llmops.alerts.outbox import Outbox
from llmops.clients.kubernetes.client import Cluster
from llmops.clients.kubernetes.lease import RolloutLease
from llmops.config import names
from llmops.config.settings import SETTINGS_VARIABLE, Settings
from llmops.manifests.records import pins_config_map
from llmops.releases.counters import Counters
from llmops.releases.records import Records
from llmops.releases.release import Release
from llmops.releases.validations import CheckResult, Finding, Validation, Validations
from llmops.service.figures import Cache, Figures, Serving, look
from tests.api.alerts.conftest import add_target, make_alert
from tests.api.cluster.conftest import Kubelet, api_server_away, eventually, pod_template
from tests.api.service.test_counters import NOW, make_canary, make_record

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]
SECRET = "T0KEN-OF-THIS-HOOK"


@contextmanager
def running(settings: Settings, folder: Path) -> Generator[str]:
    """`llmops serve` on a free port; its URL."""
    path = folder / "settings.yaml"
    path.write_text(json.dumps(settings.model_dump(mode="json")))
    process = subprocess.Popen(
        [sys.executable, "-m", "llmops.cli", "serve", "--port", "0"],
        env=os.environ | {SETTINGS_VARIABLE: str(path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("listening on "), line
        yield line.split()[-1]
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0
    finally:
        process.kill()
        process.wait(timeout=10)


def samples(text: str) -> Samples:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(scraped: Samples, name: str, **labels: str) -> float | None:
    return scraped.get((name, tuple(sorted(labels.items()))))


def serve_a_model(cluster: Cluster, model: str, release: str) -> None:
    """A Deployment of the release, not yet available."""
    labels = names.labels(model, release, "engine") | {names.TRACK_LABEL: "stable"}
    engine = {"name": names.ENGINE_CONTAINER, "image": "example.com/vllm@sha256:1"}
    template = pod_template(labels, containers=[engine])
    spec = {"replicas": 1, "selector": {"matchLabels": {names.MODEL_LABEL: model}}, "template": template}
    meta = {"name": model, "labels": labels}
    cluster.apply({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": spec})


def test_everything_is_told_in_both_formats(cluster: Cluster, settings: Settings, tmp_path: Path) -> None:
    records, counters = Records(cluster), Counters(cluster)
    target = add_target(cluster, "team", f"http://127.0.0.1/{SECRET}")
    settings = settings.model_copy(update={"alerts": (target,)})
    records.update_state("chat", stable="0123456789ab")
    records.update_state("fresh", candidate="0123456789ab")
    counters.count_rollout(make_record())
    counters.count_canary("chat", make_canary())
    Outbox(cluster).put(make_alert())
    weights = CheckResult(
        check="weights",
        value="Failed",
        line="1 file rotted",
        findings=(Finding(subject="a", severity="error", message="b", remedy="c"),),
    )
    Validations(cluster).save(
        Validation(
            model="chat",
            release="0123456789ab",
            run="r",
            requested_by="schedule",
            started=NOW,
            finished=NOW,
            checks=(weights,),
        )
    )
    lease = RolloutLease(cluster, "chat", "run-9")
    lease.acquire()
    try:
        with running(settings, tmp_path) as url:
            plain = httpx2.get(f"{url}/metrics", timeout=20)
            accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
            modern = httpx2.get(f"{url}/metrics", headers=accept, timeout=20)
            assert httpx2.get(f"{url}/healthz", timeout=20).text == "ok\n"
    finally:
        lease.stop(give_up=True)
    assert plain.headers["content-type"].startswith("text/plain; version=")
    scraped = samples(plain.text)
    assert value(scraped, "llmops_rollouts_total", model="chat", verdict="Failed") == 1
    assert value(scraped, "llmops_rollouts_total", model="chat", verdict="Passed") == 0
    assert value(scraped, "llmops_rollouts_total", model="fresh", verdict="Passed") == 0
    assert value(scraped, "llmops_stage_duration_seconds_sum", model="chat", stage="canary") == 20
    assert value(scraped, "llmops_stage_duration_seconds_count", model="chat", stage="canary") == 1
    assert value(scraped, "llmops_stage_last_duration_seconds", model="chat", stage="canary") == 20
    gpu = value(scraped, "llmops_canary_gpu_seconds_total", model="chat")
    assert gpu == pytest.approx(1200, abs=20)
    assert value(scraped, "llmops_last_validation_timestamp_seconds", model="chat") == NOW.timestamp()
    assert value(scraped, "llmops_validation_findings", model="chat") == 1
    assert value(scraped, "llmops_rollout_in_progress", model="chat") == 1
    assert value(scraped, "llmops_rollout_in_progress", model="fresh") == 0
    assert value(scraped, "llmops_alerts_pending", target="team") == 1
    assert SECRET not in plain.text
    names_found = {sample.name for family in parse_openmetrics(modern.text) for sample in family.samples}
    assert {name for name, _ in scraped} <= names_found


def test_what_serves_is_told_when_it_is_available(cluster: Cluster, settings: Settings) -> None:
    serve_a_model(cluster, "chat", "0123456789ab")
    kubelet = Kubelet(cluster)
    (pod,) = kubelet.pods({names.MODEL_LABEL: "chat"})
    assert look(cluster, settings).serving == {}
    running = {"running": {"startedAt": "2026-11-25T00:00:00Z"}}
    kubelet.say(pod, "Running", ready=True, name=names.ENGINE_CONTAINER, state=running)
    serving = eventually(lambda: look(cluster, settings).serving or None)
    assert serving == {"chat": Serving("0123456789ab", "example.com/vllm@sha256:1")}


def test_names_follow_the_rules_and_each_metric_says_what_it_is(
    cluster: Cluster, settings: Settings, tmp_path: Path
) -> None:
    Records(cluster).update_state("chat", stable="0123456789ab")
    with running(settings, tmp_path) as url:
        text = httpx2.get(f"{url}/metrics", timeout=20).text
    families = list(text_string_to_metric_families(text))
    assert len(families) == len({family.name for family in families}) >= 8
    for family in families:
        assert family.documentation
        assert family.name.startswith("llmops_")
        if family.type == "counter":
            assert not family.name.endswith("_total"), "the parser takes the suffix off the family"
            assert all(sample.name.endswith("_total") for sample in family.samples)
        else:
            assert not family.name.endswith(("_total", "_count", "_sum"))


def test_a_page_that_is_not_there_is_told_kindly(cluster: Cluster, settings: Settings, tmp_path: Path) -> None:
    with running(settings, tmp_path) as url:
        for path in ("/reports/chat/0123456789ab", "/reports/chat/..%2f..%2fetc", "/reports/CHAT/0123456789ab", "/x"):
            assert httpx2.get(f"{url}{path}", timeout=30).status_code == 404
        assert "there is no release" in httpx2.get(f"{url}/reports/chat/0123456789ab", timeout=30).text
        assert httpx2.post(f"{url}/metrics", timeout=20).status_code == 405


def test_a_report_is_a_page_that_may_load_and_run_nothing(cluster: Cluster, settings: Settings, tmp_path: Path) -> None:
    release = Release.model_validate(
        {
            "model": "chat",
            "weights": {
                "repo": "acme/chat",
                "commit": "0" * 40,
                "files": [{"path": "m.safetensors", "size": 1, "sha256": "1" * 64}],
            },
            "engine": {"image": "a/b", "tag": "v0.32.0", "digest": f"sha256:{'2' * 64}"},
            **{part: {} for part in ("gpu", "resources", "evaluation", "rollout", "access")},
            "suites": [],
        }
    )
    records = Records(cluster)
    records.save_release(pins_config_map(release))
    records.save_record(make_record(release=release.id, reason="sums/score is <b>0.41</b>"))
    with running(settings, tmp_path) as url:
        answer = httpx2.get(f"{url}/reports/chat/{release.id}", timeout=60)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert release.id in answer.text
    assert "sums/score is &lt;b&gt;0.41" in answer.text


def test_while_the_api_server_is_away_a_scrape_fails_and_the_process_stays(
    plane: ControlPlane, cluster: Cluster, settings: Settings, tmp_path: Path
) -> None:
    """Stops the API server and starts it again."""
    Records(cluster).update_state("chat", stable="0123456789ab")
    with running(settings, tmp_path) as url:
        with api_server_away(plane):
            answer = httpx2.get(f"{url}/metrics", timeout=30)
            assert answer.status_code == 503
            assert httpx2.get(f"{url}/healthz", timeout=20).status_code == 200
        assert httpx2.get(f"{url}/metrics", timeout=30).status_code == 200


def test_many_scrapers_cost_one_look(cluster: Cluster, settings: Settings) -> None:
    looks: list[datetime.datetime] = []

    def read() -> Figures:
        looks.append(datetime.datetime.now(datetime.UTC))
        return look(cluster, settings)

    cache = Cache(read, seconds=30)
    with ThreadPoolExecutor(8) as pool:
        done = [pool.submit(cache.figures) for _ in range(16)]
    assert len({id(thread.result()) for thread in done}) == 1
    assert len(looks) == 1
    short = Cache(read, seconds=0)
    short.figures()
    short.figures()
    assert len(looks) == 3
