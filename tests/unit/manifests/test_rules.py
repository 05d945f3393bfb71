"""promtool checks the rules, and evaluates each alert with its cause and without."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from llmops_sandbox.engine.metrics import CAPTURE, parse_exposition
from llmops_sandbox.programs import prometheus

from llmops.config.catalog.objectives import Objectives
from llmops.config.catalog.spec import Gpu
from llmops.config.settings import Settings
from llmops.manifests import engine_metrics
from llmops.manifests.companions import rules
from llmops.releases.release import Release

STEP = 15
HERE = 'namespace="serving",model="tiny",track="stable",release="abc"'
POD = f'{HERE},pod="tiny-5d4f9-x2x4z"'
CANARY = 'namespace="serving",model="tiny",track="canary",release="abc",pod="tiny-canary-5d4f9-x2x4z"'
# Longer than any alert waits.
LONG = 960


def steady(value: float, seconds: int = 2 * LONG) -> str:
    return f"{value:g}x{seconds // STEP}"


def growing(per_second: float, seconds: int = 2 * LONG) -> str:
    return f"0+{per_second * STEP:g}x{seconds // STEP}"


def histogram(metric: str, labels: str, seconds: float) -> dict[str, str]:
    """Series of a histogram of one request a second, each in a bucket that ends at `seconds`."""
    bounds = sorted({1.0, 5.0, 10.0, 30.0, seconds})
    buckets = {f'{metric}_bucket{{{labels},le="{b:g}"}}': growing(float(seconds <= b)) for b in bounds}
    return buckets | {f'{metric}_bucket{{{labels},le="+Inf"}}': growing(1)}


def requests(labels: str, failing: float) -> dict[str, str]:
    """Series of one request a second, of which a share fails in midstream."""
    return {
        f'http_requests_total{{{labels},handler="/v1/chat/completions",method="POST",status="2xx"}}': growing(1),
        f'vllm:request_success_total{{{labels},finished_reason="error"}}': growing(failing),
    }


UP = {f"up{{{POD}}}": steady(1, 7200)}
DCGM = 'DCGM_FI_DEV_GPU_UTIL{gpu="0",UUID="GPU-1",container="engine",'
MOVED = 'namespace="gpu-operator",pod="dcgm-x",exported_namespace="serving",exported_pod="tiny-5d4f9-x2x4z"}'
RESTARTS = 'kube_pod_container_status_restarts_total{namespace="serving",pod="tiny-5d4f9-x2x4z",container="engine"}'
VOLUME = 'namespace="serving",persistentvolumeclaim="llmops-weights"}'
DEPLOYMENT = '{namespace="serving",deployment="tiny"}'


@dataclass(frozen=True)
class Case:
    """Series, and whether an alert fires at a time, in seconds."""

    alert: str
    what: str
    at: int
    fires: bool
    series: Mapping[str, str] = field(default_factory=dict[str, str])

    def __str__(self) -> str:
        return f"{self.alert}-{self.what}".replace(" ", "-")


def replicas(ready: int, wanted: int) -> dict[str, str]:
    return {
        f"kube_deployment_status_replicas_ready{DEPLOYMENT}": steady(ready),
        f"kube_deployment_spec_replicas{DEPLOYMENT}": steady(wanted),
    }


def volume(used: float) -> dict[str, str]:
    return {
        f"kubelet_volume_stats_used_bytes{{{VOLUME}": steady(used),
        f"kubelet_volume_stats_capacity_bytes{{{VOLUME}": steady(100),
    }


E2E, TTFT, WAITING, KV = (
    engine_metrics.E2E,
    engine_metrics.TTFT,
    f"{engine_metrics.WAITING}{{{POD}}}",
    f"{engine_metrics.KV_CACHE}{{{POD}}}",
)
PREEMPTIONS = f"{engine_metrics.PREEMPTIONS}{{{POD}}}"
CASES = [
    Case("LlmLatencyHigh", "above the objective for five minutes", 360, True, histogram(E2E, POD, 40)),
    Case("LlmLatencyHigh", "not yet for five minutes", 285, False, histogram(E2E, POD, 40)),
    Case("LlmLatencyHigh", "just below", LONG, False, histogram(E2E, POD, 29)),
    Case("LlmLatencyHigh", "of the canary", LONG, False, histogram(E2E, CANARY, 40)),
    Case("LlmLatencyHigh", "without requests", LONG, False, {f'{E2E}_bucket{{{POD},le="+Inf"}}': steady(5)}),
    Case("LlmLatencyHigh", "without data", LONG, False),
    Case("LlmFirstTokenLate", "above the objective", 360, True, histogram(TTFT, POD, 10)),
    Case("LlmFirstTokenLate", "just below", LONG, False, histogram(TTFT, POD, 4.9)),
    Case("LlmQueueLong", "above 20 for three minutes", 195, True, {WAITING: steady(21)}),
    Case("LlmQueueLong", "not yet for three minutes", 165, False, {WAITING: steady(21)}),
    Case("LlmQueueLong", "20 for ever", LONG, False, {WAITING: steady(20)}),
    Case("LlmQueueLong", "two queues of 15", LONG, False,
         {WAITING: steady(15), WAITING.replace("x2x4z", "y"): steady(15)}),
    Case("LlmQueueLong", "without data", LONG, False),
    Case("LlmGpuHot", "sustained", 930, True, UP | {f"{DCGM}{MOVED}": steady(97)}),
    Case("LlmGpuHot", "not yet", 885, False, UP | {f"{DCGM}{MOVED}": steady(97)}),
    Case("LlmGpuHot", "honoured labels", 930, True,
         UP | {DCGM + 'namespace="serving",pod="tiny-5d4f9-x2x4z"}': steady(97)}),
    Case("LlmGpuHot", "95 is not above 95", LONG, False, UP | {f"{DCGM}{MOVED}": steady(95)}),
    Case("LlmGpuHot", "of another pod", LONG, False, UP | {f"{DCGM}{MOVED.replace('x2x4z', 'other')}": steady(99)}),
    Case("LlmGpuHot", "an idle GPU beside it", LONG, False,
         UP | {f"{DCGM}{MOVED}": steady(97), f"{DCGM}{MOVED}".replace('gpu="0"', 'gpu="1"'): steady(10)}),
    Case("LlmPodRestarts", "two within an hour", 1200, True, UP | {RESTARTS: "0x20 1x20 2x400"}),
    # The hour begins and ends between two scrapes: `increase` would make it more than one.
    Case("LlmPodRestarts", "one within an hour", 3700, False, UP | {RESTARTS: "_x8 0x112 1x123 _x50"}),
    Case("LlmPodRestarts", "two, not within an hour", 4800, False, UP | {RESTARTS: "0x20 1x280 2x400"}),
    Case("LlmPodRestarts", "of the canary", LONG, False,
         {f"up{{{CANARY}}}": steady(1), RESTARTS.replace("tiny-5", "tiny-canary-5"): "0x20 5x400"}),
    Case("LlmPodRestarts", "without data", LONG, False, UP),
    Case("LlmVolumeNearlyFull", "above for ten minutes", 630, True, volume(86)),
    Case("LlmVolumeNearlyFull", "not yet", 585, False, volume(86)),
    Case("LlmVolumeNearlyFull", "85 is not above 85", LONG, False, volume(85)),
    Case("LlmVolumeNearlyFull", "without data", LONG, False),
    Case("LlmNoReplicaReady", "none of two", 135, True, replicas(0, 2)),
    Case("LlmNoReplicaReady", "not yet", 105, False, replicas(0, 2)),
    Case("LlmNoReplicaReady", "one of two", LONG, False, replicas(1, 2)),
    Case("LlmNoReplicaReady", "scaled to zero", LONG, False, replicas(0, 0)),
    Case("LlmNoReplicaReady", "without data", LONG, False),
    Case("LlmErrors", "more than one in a hundred", 360, True, requests(POD, 0.02)),
    Case("LlmErrors", "not yet", 285, False, requests(POD, 0.02)),
    Case("LlmErrors", "just below", LONG, False, requests(POD, 0.009)),
    Case("LlmErrors", "refused with 5xx", 360, True,
         requests(POD, 0) | {f'http_requests_total{{{POD},handler="/v1/completions",status="5xx"}}': growing(1)}),
    Case("LlmErrors", "refused with 4xx", LONG, False,
         requests(POD, 0) | {f'http_requests_total{{{POD},handler="/v1/completions",status="4xx"}}': growing(1)}),
    Case("LlmErrors", "without requests", LONG, False),
    Case("LlmKvCacheFull", "full with preemptions", 360, True, {KV: steady(0.97), PREEMPTIONS: growing(1)}),
    Case("LlmKvCacheFull", "full without", LONG, False, {KV: steady(0.97), PREEMPTIONS: steady(3)}),
    Case("LlmKvCacheFull", "preemptions with room", LONG, False, {KV: steady(0.9), PREEMPTIONS: growing(1)}),
    Case("LlmMetricsAbsent", "nothing at all", 330, True),
    Case("LlmMetricsAbsent", "no answer", 330, True, {f"up{{{POD}}}": steady(0)}),
    Case("LlmMetricsAbsent", "not yet", 285, False),
    Case("LlmMetricsAbsent", "one engine of two", LONG, False, UP | {f"up{{{POD.replace('x2x4z', 'y')}}}": steady(0)}),
    Case("LlmMetricsAbsent", "scaled to zero", LONG, False, replicas(0, 0)),
    Case("LlmMetricsAbsent", "none where two are wanted", LONG, True, replicas(0, 2)),
]  # fmt: skip


def promtool(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    program = prometheus.find_or_unpack() / "promtool"
    return subprocess.run([program, *command], cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture
def groups(release: Release, settings: Settings) -> list[dict[str, Any]]:
    return rules.groups(release, settings, Objectives())


def test_promtool_accepts_the_rules(groups: list[dict[str, Any]], tmp_path: Path) -> None:
    (tmp_path / "rules.yml").write_text(json.dumps({"groups": groups}))
    done = promtool(tmp_path, "check", "rules", "--lint=all", "--lint-fatal", "rules.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{sum(len(group['rules']) for group in groups)} rules found" in done.stdout


def test_each_alert_fires_when_its_cause_has_lasted_and_not_before(
    groups: list[dict[str, Any]], tmp_path: Path
) -> None:
    """promtool evaluates every rule each 15 s of some hours in all: 8 s."""
    (tmp_path / "rules.yml").write_text(json.dumps({"groups": groups}))
    tests = [
        {
            "name": str(case),
            "interval": f"{STEP}s",
            "input_series": [{"series": name, "values": values} for name, values in case.series.items()],
            "promql_expr_test": [
                {
                    "expr": f'count(ALERTS{{alertname="{case.alert}",alertstate="firing"}}) or vector(0)',
                    "eval_time": f"{case.at}s",
                    "exp_samples": [{"labels": "{}", "value": int(case.fires)}],
                }
            ],
        }
        for case in CASES
    ]
    (tmp_path / "tests.yml").write_text(
        json.dumps({"rule_files": ["rules.yml"], "evaluation_interval": f"{STEP}s", "tests": tests})
    )
    done = promtool(tmp_path, "test", "rules", "tests.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not(groups: list[dict[str, Any]]) -> None:
    alerts = {rule["alert"] for group in groups for rule in group["rules"] if "alert" in rule}
    for fires in (True, False):
        assert {case.alert for case in CASES if case.fires == fires} == alerts


def test_an_alert_has_its_object_severity_and_action(release: Release, settings: Settings) -> None:
    linked = settings.model_copy(update={"service_url": "https://llmops/", "dagster_url": "https://dagster"})
    for group in rules.groups(release, linked, Objectives()):
        for rule in group["rules"]:
            if "record" in rule:
                continue
            assert rule["labels"]["severity"] in ("critical", "warning")
            assert rule["annotations"].keys() >= {"summary", "action"}
            if rule["alert"] == "LlmVolumeNearlyFull":
                # The rules of every model have this alert: it fires once if all are equal.
                assert "tiny" not in json.dumps(rule)
                continue
            assert rule["labels"]["model"] == "tiny"
            assert rule["annotations"]["report_url"] == f"https://llmops/reports/tiny/{release.id}"
            assert rule["annotations"]["runs_url"] == "https://dagster/assets/promotion?partition=tiny"


def test_thresholds_are_the_objectives(release: Release, settings: Settings) -> None:
    levels = Objectives(p95_e2e_seconds=7, slow_for_seconds=8, waiting_requests=3, waiting_for_seconds=4)
    alerts = {rule.get("alert"): rule for group in rules.groups(release, settings, levels) for rule in group["rules"]}
    assert (alerts["LlmLatencyHigh"]["for"], alerts["LlmQueueLong"]["for"]) == ("8s", "4s")
    assert alerts["LlmLatencyHigh"]["expr"].endswith("> 7")
    assert alerts["LlmQueueLong"]["expr"].endswith("> 3")


def test_a_model_on_cpu_has_no_rule_of_gpus(release: Release, settings: Settings) -> None:
    on_cpu = release.model_copy(update={"gpu": Gpu(count=0)})
    assert "DCGM" in json.dumps(rules.groups(release, settings, Objectives()))
    assert "DCGM" not in json.dumps(rules.groups(on_cpu, settings, Objectives()))
    assert "LlmGpuHot" not in json.dumps(rules.groups(on_cpu, settings, Objectives()))


def test_vllm_0_32_has_every_metric_of_the_engine(groups: list[dict[str, Any]]) -> None:
    captured = files("llmops_sandbox.engine").joinpath(CAPTURE).read_text()
    given = set[str]()
    for name, family in parse_exposition(captured).items():
        given |= {name, f"{name}_bucket"} if family.type == "histogram" else {name}
    asked = set(re.findall(r"\b(?:vllm:\w+|http_requests_total)", json.dumps(groups)))
    assert len(asked) > 8
    assert asked <= given


@pytest.mark.parametrize(
    ("tag", "cache", "between_tokens"),
    [
        ("v0.32.0", "vllm:kv_cache_usage_perc", "vllm:inter_token_latency_seconds"),
        ("v0.10.1.1", "vllm:kv_cache_usage_perc", "vllm:time_per_output_token_seconds"),
        ("v0.9.1", "vllm:gpu_cache_usage_perc", "vllm:time_per_output_token_seconds"),
        ("nightly", "vllm:kv_cache_usage_perc", "vllm:inter_token_latency_seconds"),
    ],
)
def test_metrics_have_the_names_of_the_releases_version(
    release: Release, settings: Settings, tag: str, cache: str, between_tokens: str
) -> None:
    of_version = release.model_copy(update={"engine": release.engine.model_copy(update={"tag": tag})})
    text = json.dumps(rules.groups(of_version, settings, Objectives()))
    assert [name for name in ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc") if name in text] == [cache]
    both = ("vllm:inter_token_latency_seconds", "vllm:time_per_output_token_seconds")
    assert [name for name in both if name in text] == [between_tokens]
