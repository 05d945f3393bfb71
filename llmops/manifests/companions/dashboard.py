"""The Grafana dashboard of all models, as code.

It shows the figures that the models' rules record, so it is the same for every version of vLLM. llmops does not use
Grafana's SDK for Python: its newest version by number is the one for the oldest Grafana.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from llmops.manifests.pods import Manifest

UID = "llmops-models"
TITLE = "llmops: models"
SIDECAR_LABEL = {"grafana_dashboard": "1"}
"""The label by which the Grafana sidecar of kube-prometheus-stack selects ConfigMaps."""
SCHEMA_VERSION = 39
WIDTH, HEIGHT, STAT_HEIGHT = 8, 8, 4
COLUMNS = 24
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
CHOSEN = 'namespace=~"$namespace",model=~"$model",track=~"$track"'
WHO = "{{model}} {{track}} {{release}}"


@dataclass(frozen=True)
class Query:
    """An expression, and the legend of its series."""

    expr: str
    legend: str = WHO


@dataclass(frozen=True)
class Panel:
    """One panel.

    Args:
        title: Its title.
        about: Its description: what it shows, and when to worry.
        unit: Grafana's name of the unit.
        queries: The series to draw.
        stat: Show only the latest number of each series.
        maximum: Top of the scale.
    """

    title: str
    about: str
    unit: str
    queries: tuple[Query, ...]
    stat: bool = False
    maximum: float | None = None


def _figure(name: str) -> str:
    return f"{name}{{{CHOSEN}}}"


def _quantiles(what: str) -> tuple[Query, ...]:
    return tuple(Query(_figure(f"llmops:{what}_seconds:{label}"), f"{label} {WHO}") for label in ("p50", "p95", "p99"))


PANELS: Sequence[Panel] = (
    Panel(
        "Engines up",
        "Engines that Prometheus reaches.",
        "short",
        (Query(_figure("llmops:engines_up:count")),),
        stat=True,
    ),
    Panel(
        "Requests", "Requests for the API.", "reqps", (Query(_figure("llmops:requests_per_second:sum")),), stat=True
    ),
    Panel(
        "Alerts",
        "Alerts that fire.",
        "short",
        (
            Query('count by (alertname, model) (ALERTS{alertname=~"Llm.+",alertstate="firing"})',
                  "{{alertname}} {{model}}"),
        ),
        stat=True,
    ),
    Panel(
        "Whole answers",
        "Time of a request from its arrival to its last token. p95 is the service level.",
        "s",
        _quantiles("e2e"),
    ),
    Panel("First tokens", "Time to the first token: what users of a stream wait for.", "s", _quantiles("ttft")),
    Panel("Between tokens", "Time between two tokens of a stream.", "s", _quantiles("inter_token")),
    Panel(
        "Tokens",
        "Tokens that all engines write, and read, per second.",
        "short",
        (
            Query(_figure("llmops:generation_tokens_per_second:sum"), f"written {WHO}"),
            Query(_figure("llmops:prompt_tokens_per_second:sum"), f"read {WHO}"),
        ),
    ),
    Panel(
        "Queue",
        "Requests that run and that wait. Waiting that stays means too few replicas.",
        "short",
        (
            Query(_figure("llmops:requests_running:sum"), f"running {WHO}"),
            Query(_figure("llmops:requests_waiting:sum"), f"waiting {WHO}"),
        ),
    ),
    Panel(
        "KV cache",
        "Use by the fullest engine. At 100 % with preemptions, more is asked than it holds.",
        "percentunit",
        (Query(_figure("llmops:kv_cache_usage:max")),),
        maximum=1,
    ),
    Panel(
        "Preemptions",
        "Requests that lose their place in the KV cache, per second: they are computed again.",
        "short",
        (Query(_figure("llmops:preemptions_per_second:sum")),),
    ),
    Panel(
        "Prefix cache",
        "Prompt tokens that were found in the cache.",
        "percentunit",
        (Query(_figure("llmops:prefix_cache_hits:ratio")),),
        maximum=1,
    ),
    Panel(
        "GPU utilization",
        "By DCGM's exporter, on average over the model's GPUs. A busy GPU alone is no trouble.",
        "percent",
        (Query(_figure("llmops:gpu_utilization_percent:avg")),),
        maximum=100,
    ),
    Panel(
        "Errors",
        "Share of requests that fail through the engine's fault.",
        "percentunit",
        (Query(_figure("llmops:errors:ratio")),),
    ),
    Panel(
        "Restarts",
        "Restarts of engines since their pods were made.",
        "short",
        (
            Query('max by (pod) (kube_pod_container_status_restarts_total{namespace=~"$namespace",container="engine"})',
                  "{{pod}}"),
        ),
    ),
    Panel(
        "Volume",
        "Use of the volumes with weights.",
        "percentunit",
        (
            Query(
                'max by (persistentvolumeclaim) (kubelet_volume_stats_used_bytes{namespace=~"$namespace"} / '
                'kubelet_volume_stats_capacity_bytes{namespace=~"$namespace"})',
                "{{persistentvolumeclaim}}",
            ),
        ),
        maximum=1,
    ),
)  # fmt: skip

PROMOTIONS = (
    'llmops:engines_up:count{namespace=~"$namespace",model=~"$model",track="stable"} unless '
    'llmops:engines_up:count{namespace=~"$namespace",model=~"$model",track="stable"} offset 1m'
)
"""Series of releases that serve now and did not a minute ago."""


def dashboard() -> Manifest:
    """The dashboard in Grafana's JSON model."""
    return {
        "uid": UID,
        "title": TITLE,
        "description": "Models that llmops serves: stable and canary, by release.",
        "tags": ["llmops", "vllm"],
        "schemaVersion": SCHEMA_VERSION,
        "editable": False,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {"list": _variables()},
        "annotations": {"list": [_annotation()]},
        "panels": _panels(),
    }


def config_map(namespace: str) -> Manifest:
    """The ConfigMap from which Grafana's sidecar takes the dashboard."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": "llmops-dashboard",
            "namespace": namespace,
            "labels": {**SIDECAR_LABEL, "app.kubernetes.io/part-of": "llmops"},
        },
        "data": {"llmops.json": json.dumps(dashboard(), indent=2)},
    }


def _panels() -> list[Manifest]:
    """The panels in rows of three: numbers in the first row, then graphs."""
    panels: list[Manifest] = []
    x = y = 0
    for number, panel in enumerate(PANELS, 1):
        height = STAT_HEIGHT if panel.stat else HEIGHT
        panels.append(_panel(number, panel) | {"gridPos": {"x": x, "y": y, "w": WIDTH, "h": height}})
        x += WIDTH
        if x == COLUMNS:
            x, y = 0, y + height
    return panels


def _panel(number: int, panel: Panel) -> Manifest:
    field: Manifest = {"unit": panel.unit, "min": 0}
    if panel.maximum is not None:
        field["max"] = panel.maximum
    return {
        "id": number,
        "type": "stat" if panel.stat else "timeseries",
        "title": panel.title,
        "description": panel.about,
        "datasource": DATASOURCE,
        "fieldConfig": {"defaults": field, "overrides": []},
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": DATASOURCE,
                "expr": query.expr,
                "legendFormat": query.legend,
                "range": not panel.stat,
                "instant": panel.stat,
            }
            for index, query in enumerate(panel.queries)
        ],
    }


def _variables() -> list[Manifest]:
    def of_series(name: str, label: str, chosen: str = "") -> Manifest:
        query = f"label_values(llmops:engines_up:count{chosen}, {label})"
        return {
            "name": name,
            "type": "query",
            "datasource": DATASOURCE,
            "query": {"query": query, "refId": name},
            "definition": query,
            "refresh": 2,
            "includeAll": True,
            "allValue": ".*",
            "multi": True,
            "sort": 1,
            "current": {"text": "All", "value": "$__all"},
        }

    return [
        {"name": "datasource", "type": "datasource", "query": "prometheus", "current": {}},
        of_series("namespace", "namespace"),
        of_series("model", "model", '{namespace=~"$namespace"}'),
        of_series("track", "track", '{namespace=~"$namespace",model=~"$model"}'),
    ]


def _annotation() -> Manifest:
    return {
        "name": "Promotions",
        "enable": True,
        "iconColor": "blue",
        "datasource": DATASOURCE,
        "expr": PROMOTIONS,
        "step": "60s",
        "titleFormat": "{{model}} promoted",
        "textFormat": "{{release}}",
    }
