"""Objects for the Prometheus Operator: both tracks are scraped once, and series have the labels of their pods."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from llmops.config import names
from llmops.config.catalog.spec import ModelSpec
from llmops.config.settings import Settings
from llmops.manifests import engine
from llmops.manifests.companions import monitoring
from llmops.manifests.pods import Manifest
from llmops.releases.release import Release
from tests.support.schemas import check_schema

SPEC = ModelSpec.model_validate({"name": "tiny", "weights": {"repo": "acme/tiny"}, "engine": {"version": ">=0.1"}})
ENDPOINTS = {"ServiceMonitor": "endpoints", "PodMonitor": "podMetricsEndpoints"}


def objects(release: Release, settings: Settings, **monitored: Any) -> list[Manifest]:
    changed = settings.model_copy(update={"monitoring": settings.monitoring.model_copy(update=monitored)})
    return monitoring.objects(SPEC, release, changed)


def test_with_scrape_annotations_no_monitor_is_rendered(release: Release, settings: Settings) -> None:
    assert objects(release, settings) == []


@pytest.mark.parametrize(("choice", "kind"), [("service-monitor", "ServiceMonitor"), ("pod-monitor", "PodMonitor")])
def test_only_both_tracks_are_scraped_through_one_port(
    release: Release, settings: Settings, choice: str, kind: str
) -> None:
    monitor, rule = objects(release, settings, monitor=choice, labels={"release": "stack"}, interval_seconds=30)
    assert (monitor["kind"], rule["kind"]) == (kind, "PrometheusRule")
    check_schema(monitor)
    check_schema(rule)
    assert all(manifest["metadata"]["labels"]["release"] == "stack" for manifest in (monitor, rule))
    (endpoint,) = monitor["spec"][ENDPOINTS[kind]]
    assert endpoint["interval"] == "30s"
    selector = monitor["spec"]["selector"]
    for track in ("stable", "canary"):
        service = engine.service(release, settings, track)
        pod = engine.deployment(release, settings, track, 1, surge=True)["spec"]["template"]
        chosen = service if kind == "ServiceMonitor" else pod
        assert selector["matchLabels"].items() <= chosen["metadata"]["labels"].items()
        assert names.TRACK_LABEL in chosen["metadata"]["labels"]
        assert endpoint["port"] in [port["name"] for port in service["spec"]["ports"]]
        assert endpoint["port"] in [port["name"] for port in pod["spec"]["containers"][0]["ports"]]


def test_series_have_the_labels_of_the_pods(release: Release, settings: Settings) -> None:
    (endpoint,) = objects(release, settings, monitor="pod-monitor")[0]["spec"]["podMetricsEndpoints"]
    assert {relabeling["targetLabel"]: relabeling["sourceLabels"] for relabeling in endpoint["relabelings"]} == {
        "model": ["__meta_kubernetes_pod_label_llmops_dev_model"],
        "track": ["__meta_kubernetes_pod_label_llmops_dev_track"],
        "release": ["__meta_kubernetes_pod_label_llmops_dev_release"],
    }


def test_the_monitor_of_llmops_selects_its_pods() -> None:
    folder = Path(__file__).parents[3] / "k8s"
    monitor = yaml.safe_load((folder / "monitoring" / "service.yaml").read_text())
    check_schema(monitor)
    served = [*yaml.safe_load_all((folder / "base" / "service.yaml").read_text())]
    (deployment,) = (manifest for manifest in served if manifest["kind"] == "Deployment")
    pod = deployment["spec"]["template"]
    assert monitor["metadata"]["namespace"] == deployment["metadata"]["namespace"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert endpoint["port"] in [port["name"] for port in pod["spec"]["containers"][0]["ports"]]
