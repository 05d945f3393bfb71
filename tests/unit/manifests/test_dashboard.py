"""The dashboard has no gaps, and its queries are valid PromQL on series that the rules record."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from llmops_sandbox.programs import prometheus

from llmops.cli.app import main
from llmops.config.catalog.objectives import Objectives
from llmops.config.settings import Settings
from llmops.manifests.companions import rules
from llmops.manifests.companions.dashboard import COLUMNS, config_map, dashboard
from llmops.releases.release import Release

PANELS: list[dict[str, Any]] = dashboard()["panels"]
VARIABLE = re.compile(r"\$\w+")
# Metrics of kube-state-metrics, of kubelets, and of Prometheus.
OTHERS = {
    "ALERTS",
    "kube_pod_container_status_restarts_total",
    "kubelet_volume_stats_used_bytes",
    "kubelet_volume_stats_capacity_bytes",
}


def expressions() -> list[str]:
    asked = [target["expr"] for panel in PANELS for target in panel["targets"]]
    return [*asked, *(annotation["expr"] for annotation in dashboard()["annotations"]["list"])]


def test_every_expression_is_promql(tmp_path: Path) -> None:
    records = [
        {"record": f"panel:{index}", "expr": VARIABLE.sub(".*", expr)} for index, expr in enumerate(expressions())
    ]
    rules_file = tmp_path / "rules.yml"
    rules_file.write_text(json.dumps({"groups": [{"name": "panels", "rules": records}]}))
    command = [prometheus.find_or_unpack() / "promtool", "check", "rules", rules_file]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_rules_record_every_figure(release: Release, settings: Settings) -> None:
    groups = rules.groups(release, settings, Objectives())
    recorded = {rule["record"] for group in groups for rule in group["rules"] if "record" in rule}
    asked = {name for expr in expressions() for name in re.findall(r"([a-zA-Z_][\w:]*)\{", expr)}
    assert asked <= recorded | OTHERS
    # Panels show every recorded series except those for alerts alone.
    assert recorded - asked == {"llmops:requests_waiting:max"}


@pytest.mark.parametrize(
    "figure",
    ["e2e_seconds:p95", "e2e_seconds:p99", "ttft_seconds", "generation_tokens_per_second", "requests_running",
     "requests_waiting", "kv_cache_usage", "gpu_utilization_percent"],
)  # fmt: skip
def test_each_key_figure_of_vllm_has_a_panel(figure: str) -> None:
    assert any(f"llmops:{figure}" in expr for expr in expressions())


def test_every_variable_is_declared() -> None:
    declared = {f"${variable['name']}" for variable in dashboard()["templating"]["list"]}
    assert {name for expr in expressions() for name in VARIABLE.findall(expr)} <= declared


def test_panels_neither_overlap_nor_leave_gaps() -> None:
    rows: dict[int, list[dict[str, int]]] = {}
    for panel in PANELS:
        rows.setdefault(panel["gridPos"]["y"], []).append(panel["gridPos"])
    expected = 0
    for y, places in sorted(rows.items()):
        assert y == expected
        assert [place["x"] for place in places] == [sum(p["w"] for p in places[:n]) for n in range(len(places))]
        assert sum(place["w"] for place in places) == COLUMNS
        assert len({place["h"] for place in places}) == 1
        expected = y + places[0]["h"]
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)


def test_the_command_prints_the_dashboard_and_its_config_map(capsys: pytest.CaptureFixture[str]) -> None:
    def output(*arguments: str) -> str:
        with pytest.raises(SystemExit):
            main([*arguments])
        return capsys.readouterr().out

    assert json.loads(output("dashboard")) == dashboard()
    printed = json.loads(output("dashboard", "--config-map", "monitoring"))
    assert printed == config_map("monitoring")
    assert printed["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(printed["data"]["llmops.json"]) == dashboard()
