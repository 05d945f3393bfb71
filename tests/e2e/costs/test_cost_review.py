"""The weekly review against a real API server and a real Prometheus that holds a week of two engines."""

from __future__ import annotations

import datetime
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pytest
from llmops_sandbox.cluster.controlplane import ControlPlane
from llmops_sandbox.programs.prometheus import find_or_unpack

from llmops.alerts.outbox import Outbox
from llmops.clients.kubernetes.client import Cluster
from llmops.clients.prometheus import Prometheus
from llmops.config.catalog.load import load_catalog
from llmops.config.catalog.spec import Access, Evaluation, Gpu, Resources, Rollout
from llmops.config.names import costs_name
from llmops.config.settings import Settings, load_settings
from llmops.config.settings.monitoring import MonitoringSettings
from llmops.costs.history import KEPT, KEY, CostHistory
from llmops.costs.usage import usage
from llmops.defs.costs.assets import CHECK, cost_assets, costs_key
from llmops.defs.costs.jobs import JOB
from llmops.defs.costs.schedules import NAME, cost_schedule
from llmops.errors import Unavailable
from llmops.manifests.records import pins_config_map
from llmops.manifests.volume import namespace
from llmops.releases.records import Record, Records
from llmops.releases.release import EnginePin, FilePin, Release, WeightsPin
from llmops.rollout.platform import Platform

HOUR = 3600
WEEK = 7 * 24 * HOUR
SCRAPE = 100
PROMPT, GENERATED = 30.0, 10.0
"""Tokens per second of an engine."""
GAP = (24 * HOUR, 36 * HOUR)
RESTART = 72 * HOUR
SECOND_FROM = 84 * HOUR
ENTRY = """\
name: {name}
replicas: 2
weights: {{repo: acme/tiny}}
engine: {{version: 0.32.0}}
gpu: {{product: NVIDIA-L40S}}
"""


@dataclass
class World:
    """An installation with two serving models; Prometheus has figures of one."""

    folder: Path
    cluster: Cluster
    settings: Settings
    end: datetime.datetime

    @property
    def platform(self) -> Platform:
        return Platform(settings_file=str(self.folder / "settings.yaml"))

    def review(self, *models: str) -> dg.ExecuteInProcessResult:
        assets = cost_assets(load_catalog(self.settings.models_dir))
        return dg.materialize(
            [assets],
            resources={"platform": self.platform},
            selection=[costs_key(name) for name in models],
            raise_on_error=False,
        )


def samples(end: float) -> str:
    """A week as OpenMetrics text: a pod that restarts, a pod that starts later, and a gap in the scrapes."""
    families = {
        "vllm:prompt_tokens": ("counter", PROMPT),
        "vllm:generation_tokens": ("counter", GENERATED),
        "vllm:num_requests_running": ("gauge", None),
    }
    lines: list[str] = []
    for family, (kind, rate) in families.items():
        lines.append(f"# TYPE {family} {kind}")
        for pod, since in (("tiny-a", 0), ("tiny-b", SECOND_FROM)):
            labels = f'{{namespace="serving",model="tiny",pod="{pod}",track="stable"}}'
            name = f"{family}_total" if rate else family
            for at in range(since, WEEK + 1, SCRAPE):
                if GAP[0] <= at < GAP[1]:
                    continue
                began = RESTART if pod == "tiny-a" and at >= RESTART else since
                value = rate * (at - began) if rate else 1
                lines.append(f"{name}{labels} {value} {end - WEEK + at:.0f}")
    return "\n".join([*lines, "# EOF\n"])


@pytest.fixture(scope="module")
def world(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("costs")
    end = datetime.datetime.now(datetime.UTC).replace(minute=0, second=0, microsecond=0)
    programs = find_or_unpack()
    (folder / "week.om").write_text(samples(end.timestamp()))
    subprocess.run(
        [programs / "promtool", "tsdb", "create-blocks-from", "openmetrics", folder / "week.om", folder / "data"],
        check=True,
        capture_output=True,
    )
    (folder / "prometheus.yml").write_text("global: {scrape_interval: 1m}\n")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    with (folder / "prometheus.log").open("wb") as log:
        server = subprocess.Popen(
            [
                programs / "prometheus",
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=log,
        )
    try:
        (folder / "models").mkdir()
        for name in ("tiny", "unseen"):
            (folder / "models" / f"{name}.yaml").write_text(ENTRY.format(name=name))
        given = {
            "kubeconfig": str(plane.kubeconfig),
            "namespace": "serving",
            "models_dir": str(folder / "models"),
            "storage": "200G",
            "monitoring": {"prometheus_url": f"http://127.0.0.1:{port}"},
        }
        (folder / "settings.yaml").write_text(json.dumps(given))
        settings = load_settings(folder / "settings.yaml")
        cluster = Cluster.connect(settings)
        cluster.apply(namespace(settings))
        records = Records(cluster)
        for name in ("tiny", "unseen"):
            stable = release(name)
            records.save_release(pins_config_map(stable))
            records.update_state(name, stable=stable.id)
        records.save_record(
            Record(
                model="tiny",
                release=release("tiny").id,
                verdict="Passed",
                reason="-",
                stage="promotion",
                image="-",
                commit="-",
                figures={"chat/total_token_throughput": 400.0},
                finished=end,
            )
        )
        wait_until_ready(port)
        yield World(folder, cluster, settings, end)
    finally:
        server.terminate()
        server.wait(20)


def wait_until_ready(port: int) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            with Prometheus(f"http://127.0.0.1:{port}") as prometheus:
                prometheus.query("1")
            return
        except Unavailable:
            assert time.monotonic() < deadline


def release(model: str) -> Release:
    return Release(
        model=model,
        weights=WeightsPin(
            repo="acme/tiny", commit="0" * 40, files=(FilePin(path="m.safetensors", size=1000, sha256="8" * 64),)
        ),
        engine=EnginePin(image="vllm/vllm-openai", tag="v0.32.0", digest="sha256:" + "7" * 64, args=(), env=()),
        gpu=Gpu(product="NVIDIA-L40S", count=1),
        resources=Resources(),
        evaluation=Evaluation(),
        suites=(),
        rollout=Rollout(),
        access=Access(),
    )


def test_tokens_and_hours_are_those_of_the_counters_through_a_restart_and_a_gap(world: World) -> None:
    end = world.end.timestamp()
    url = world.settings.monitoring.prometheus_url
    assert url is not None
    with Prometheus(url) as prometheus:
        used = usage(prometheus, "serving", "tiny", end - WEEK, end)
        assert usage(prometheus, "serving", "unseen", end - WEEK, end) is None
        assert usage(prometheus, "elsewhere", "tiny", end - WEEK, end) is None
    assert used is not None
    assert used.covered == pytest.approx(156 / 168, abs=0.002)
    assert used.replica_seconds == pytest.approx((156 + 84) * HOUR, rel=0.005)
    # Neither the gap nor the restart changes the rate of one engine.
    assert used.input_tokens / used.replica_seconds == pytest.approx(PROMPT, rel=0.005)
    assert used.output_tokens / used.replica_seconds == pytest.approx(GENERATED, rel=0.005)


def test_a_review_keeps_plots_and_warns_and_doing_it_again_changes_nothing(world: World) -> None:
    world.review("tiny")
    result = world.review("tiny")
    assert result.success
    (made,) = result.asset_materializations_for_node("costs_of_models")
    (checked,) = result.get_asset_check_evaluations()
    metadata = {name: entry.value for name, entry in made.metadata.items()}
    replicas = 240 / 156
    # Two models share the fixed costs: control plane 0 to 75, storage 20 to 40, load balancer 20 to 30.
    assert metadata["usd_per_month_low"] == pytest.approx(700 * replicas + 20, rel=0.005)
    assert metadata["usd_per_month_high"] == pytest.approx(900 * replicas + 72.5, rel=0.005)
    assert metadata["gpu_hours"] == pytest.approx(240, rel=0.005)
    tokens = 40 * replicas * 730 * HOUR / 1e6
    assert metadata["api_usd_per_month_low"] == pytest.approx(tokens * 0.95, rel=0.005)
    assert metadata["utilization_low"] == pytest.approx(0.1, rel=0.01)
    assert str(metadata["trend"]).startswith("![](data:image/png;base64,")
    assert (checked.check_name, checked.passed, checked.severity) == (CHECK, False, dg.AssetCheckSeverity.WARN)
    assert checked.description is not None
    assert "The API is cheaper (utilization 10%" in checked.description
    assert "data of 93% of the time" in checked.description
    history = CostHistory(world.cluster).read("tiny")
    assert [week.end for week in history] == [world.end]
    alerts = [alert for alert in Outbox(world.cluster).alerts() if alert.kind == "costs"]
    assert [(alert.model, alert.severity, alert.serving) for alert in alerts] == [
        ("tiny", "warning", release("tiny").id)
    ]


def test_no_data_is_said_and_costs_nothing_of_the_others(world: World) -> None:
    result = world.review("tiny", "unseen")
    assert result.success
    checks = {check.asset_key.path[-1]: check for check in result.get_asset_check_evaluations()}
    assert not checks["unseen"].passed
    assert str(checks["unseen"].description).startswith("unseen: Prometheus has no data")
    made = [event.asset_key for event in result.asset_materializations_for_node("costs_of_models")]
    assert made == [costs_key("tiny")]
    assert CostHistory(world.cluster).read("unseen") == ()


def test_a_missing_price_fails_one_model_with_its_remedy(world: World) -> None:
    text = (world.folder / "settings.yaml").read_text()
    prices = (Path(__file__).parents[3] / "llmops" / "costs" / "prices.yaml").read_text()
    (world.folder / "prices.yaml").write_text(prices.replace("NVIDIA-L40S", "NVIDIA-H100"))
    (world.folder / "settings.yaml").write_text(
        json.dumps({**json.loads(text), "prices": str(world.folder / "prices.yaml")})
    )
    try:
        result = world.review("tiny", "unseen")
    finally:
        (world.folder / "settings.yaml").write_text(text)
    assert not result.success
    (failed,) = [event for event in result.all_events if event.is_step_failure]
    assert "NoPrice" in str(failed.step_failure_data.user_failure_data)
    checked = {check.asset_key.path[-1] for check in result.get_asset_check_evaluations()}
    assert checked == {"unseen"}


def test_history_is_capped_and_the_newest_stay(world: World) -> None:
    kept = CostHistory(world.cluster)
    world.review("tiny")
    one = kept.read("tiny")[-1]
    kept.add("other", one)
    weeks = [one.model_copy(update={"end": one.end + week * datetime.timedelta(days=7)}) for week in range(KEPT + 1)]
    full = json.dumps([week.model_dump(mode="json") for week in weeks[:KEPT]])
    world.cluster.patch("ConfigMap", costs_name("other"), {"data": {KEY: full}})
    assert kept.add("other", weeks[-1]) == tuple(weeks[1:])
    assert kept.read("other") == tuple(weeks[1:])


def test_the_command_line_shows_the_same(world: World) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "llmops.cli",
            "--settings",
            world.folder / "settings.yaml",
            "costs",
            "--json",
            "--days",
            "6",
            "tiny",
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    report = json.loads(done.stdout)["tiny"]
    assert report["against"][0]["cheaper"] == "api"


def test_the_schedule_asks_for_those_that_serve(world: World) -> None:
    catalog = load_catalog(world.settings.models_dir)
    schedule = cost_schedule(catalog, job_name=JOB)
    assert (schedule.cron_schedule, schedule.default_status) == ("0 6 * * 1", dg.DefaultScheduleStatus.RUNNING)
    with dg.build_schedule_context(
        scheduled_execution_time=world.end, resources={"platform": world.platform}
    ) as context:
        data = schedule.evaluate_tick(context)
    assert data.run_requests is not None
    (request,) = data.run_requests
    assert request.asset_selection == [costs_key("tiny"), costs_key("unseen")]
    assert request.tags["llmops.dev/requested-by"] == f"schedule {NAME}"
    blind = world.settings.model_copy(update={"monitoring": MonitoringSettings()})
    (world.folder / "blind.yaml").write_text(blind.model_dump_json(exclude_defaults=True))
    platform = Platform(settings_file=str(world.folder / "blind.yaml"))
    with dg.build_schedule_context(scheduled_execution_time=world.end, resources={"platform": platform}) as context:
        skipped = schedule.evaluate_tick(context)
    assert "prometheus_url is not set" in str(skipped.skip_message)
