"""The sandbox's Prometheus: it discovers and scrapes a cluster's pods, and follows its configuration."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from llmops_sandbox.monitoring import install_prometheus
from llmops_sandbox.programs import prometheus
from llmops_sandbox.sandbox import Sandbox

from llmops.clients.kubernetes.client import Cluster
from llmops.clients.prometheus import Prometheus, Sample
from llmops.config import names
from llmops.config.settings import load_settings
from llmops.errors import BadInput

POD: dict[str, Any] = {
    "metadata": {
        "namespace": "llm-serving",
        "name": "llama-0",
        "uid": "u",
        "labels": {"llmops.dev/model": "llama"},
        "annotations": {"prometheus.io/scrape": "true"},
        "ownerReferences": [{"kind": "ReplicaSet", "name": "llama-abc", "controller": True}],
    },
    "spec": {
        "nodeName": "gpu-0",
        "containers": [
            {"name": "engine", "image": "vllm", "ports": [{"name": "http", "containerPort": 8000}]},
            {"name": "other", "image": "none"},
        ],
    },
    "status": {
        "podIP": "127.1.2.3",
        "hostIP": "127.0.0.1",
        "phase": "Running",
        "conditions": [{"type": "Ready", "status": "True"}],
    },
}


def test_a_target_is_found_for_each_port_with_the_labels_of_its_pod() -> None:
    pending = {**POD, "status": {"phase": "Pending"}}
    engine, other = prometheus.targets([POD, pending])
    assert (engine["targets"], other["targets"]) == (["127.1.2.3:8000"], ["127.1.2.3"])
    pod = "__meta_kubernetes_pod_"
    assert engine["labels"].items() >= {
        "__meta_kubernetes_namespace": "llm-serving",
        f"{pod}name": "llama-0",
        f"{pod}label_llmops_dev_model": "llama",
        f"{pod}labelpresent_llmops_dev_model": "true",
        f"{pod}annotation_prometheus_io_scrape": "true",
        f"{pod}container_port_name": "http",
        f"{pod}container_port_number": "8000",
        f"{pod}controller_kind": "ReplicaSet",
        f"{pod}phase": "Running",
        f"{pod}ready": "true",
    }.items()  # fmt: skip


def test_discovery_by_pods_is_carried_out_here_and_any_other_is_refused(tmp_path: Path) -> None:
    job: dict[str, Any] = {"job_name": "a", "kubernetes_sd_configs": [{"role": "pod"}]}
    config = {"rule_files": ["r.yml"], "scrape_configs": [job]}
    (changed,) = (translated := prometheus.translate(config, tmp_path, Path("/found.json")))["scrape_configs"]
    assert changed["file_sd_configs"] == [{"files": ["/found.json"], "refresh_interval": "1s"}]
    assert "kubernetes_sd_configs" not in changed
    assert translated["rule_files"] == [str(tmp_path / "r.yml")]
    job["kubernetes_sd_configs"] = [{"role": "service"}]
    with pytest.raises(BadInput) as raised:
        prometheus.translate(config, tmp_path, Path("/found.json"))
    assert (raised.value.code, raised.value.about) == ("DiscoveryNotSupported", "scrape job a")


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    folder = tmp_path_factory.mktemp("sandbox")
    sandbox = Sandbox(folder / "state", project=folder)
    sandbox.up()
    try:
        yield sandbox
    finally:
        sandbox.down(erase=True)


def until(ask: Callable[[], list[Sample]], seconds: float = 20) -> list[Sample]:
    deadline = time.monotonic() + seconds
    while not (answer := ask()):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    return answer


def test_pods_are_scraped_and_a_changed_configuration_is_followed(sandbox: Sandbox) -> None:
    """Starts a whole cluster and scrapes a few times: 20 s."""
    cluster = Cluster.connect(load_settings(sandbox.settings_file))
    sandbox.images.add("metrics.example/page", "1", ("{python}", "-m", "http.server", "--bind", "{pod_ip}"))
    cluster.apply(engine_like(cluster, 'vllm:num_requests_waiting{model_name="llama"} 7\n'))
    url = install_prometheus(sandbox, cluster)
    with Prometheus(url) as client:
        (sample,) = until(lambda: client.query("vllm:num_requests_waiting"))
        assert sample.value == 7
        assert sample.labels.items() >= {
            "namespace": cluster.namespace,
            "pod": "llama-0",
            "model": "llama",
            "track": "canary",
            "release": "0123456789ab",
            "model_name": "llama",
        }.items()  # fmt: skip
        assert not client.query("twice")
        rule = {"record": "twice", "expr": "2 * vllm:num_requests_waiting"}
        assert install_prometheus(sandbox, cluster, rules={"ours": {"groups": [{"name": "g", "rules": [rule]}]}}) == url
        (sample,) = until(lambda: client.query("twice"))
        assert sample.value == 14


def engine_like(cluster: Cluster, page: str) -> dict[str, Any]:
    """A pod with an engine's labels and a constant page of metrics."""
    cluster.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "page"}, "data": {"metrics": page}})
    labels = names.labels("llama", "0123456789ab", "engine") | {names.TRACK_LABEL: "canary"}
    container = {
        "name": "engine",
        "image": "metrics.example/page:1",
        "args": ["--directory=/page", "8000"],
        "ports": [{"name": "http", "containerPort": 8000}],
        "volumeMounts": [{"name": "page", "mountPath": "/page"}],
    }
    spec = {"containers": [container], "volumes": [{"name": "page", "configMap": {"name": "page"}}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "llama-0", "labels": labels}, "spec": spec}


def test_promtool_is_there_too(tmp_path: Path) -> None:
    rules = tmp_path / "rules.yml"
    rules.write_text(json.dumps({"groups": [{"name": "g", "rules": [{"record": "a:b", "expr": "sum("}]}]}))
    command = [prometheus.find_or_unpack() / "promtool", "check", "rules", rules]
    assert subprocess.run(command, capture_output=True, check=False).returncode != 0
