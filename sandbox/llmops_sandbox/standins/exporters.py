"""A stand-in for exporters: kube-state-metrics, the kubelets' volume metrics and NVIDIA's DCGM.

It has the published names and labels that rules of llmops read. States and volumes are those of the sandbox. There are
no GPUs: a GPU counts as busy while its engine works on a request, which DCGM's figure measures, too.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import stat
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from llmops.clients.kubernetes.client import Cluster
from llmops.clients.kubernetes.quantity import quantity
from llmops.config.names import ENGINE_CONTAINER, ENGINE_PORT
from llmops.config.settings import Settings
from llmops.errors import LlmopsError
from llmops.manifests.engine import GPU_PRODUCT_LABEL, GPU_RESOURCE
from llmops.manifests.engine_metrics import RUNNING

PROGRAM = ("{python}", "-m", "llmops_sandbox.standins.exporters", "--host", "{pod_ip}")
PORT = 9400
ENGINE_SECONDS = 1.0

Object = Mapping[str, Any]


def states(cluster: Cluster) -> Iterator[Metric]:
    """Metrics of kube-state-metrics: restarts of containers, and replicas of Deployments."""
    restarts = CounterMetricFamily(
        "kube_pod_container_status_restarts",
        "The number of container restarts per container.",
        labels=("namespace", "pod", "uid", "container"),
    )
    for pod in cluster.list("Pod", namespace=""):
        metadata = pod["metadata"]
        for status in pod.get("status", {}).get("containerStatuses", []):
            names = (metadata["namespace"], metadata["name"], metadata["uid"], status["name"])
            restarts.add_metric(names, status["restartCount"])
    labels = ("namespace", "deployment")
    wanted = GaugeMetricFamily("kube_deployment_spec_replicas", "Number of desired pods.", labels=labels)
    ready = GaugeMetricFamily("kube_deployment_status_replicas_ready", "Number of ready replicas.", labels=labels)
    for deployment in cluster.list("Deployment", namespace=""):
        who = (deployment["metadata"]["namespace"], deployment["metadata"]["name"])
        wanted.add_metric(who, deployment["spec"]["replicas"])
        ready.add_metric(who, deployment.get("status", {}).get("readyReplicas", 0))
    yield from (restarts, wanted, ready)


def volumes(cluster: Cluster) -> Iterator[Metric]:
    """Metrics of kubelets: capacity and use of the volumes of claims. A file counts by its length."""
    labels = ("namespace", "persistentvolumeclaim")
    capacity = GaugeMetricFamily(
        "kubelet_volume_stats_capacity_bytes", "Capacity in bytes of the volume", labels=labels
    )
    used = GaugeMetricFamily("kubelet_volume_stats_used_bytes", "Number of used bytes in the volume", labels=labels)
    for volume in cluster.list("PersistentVolume"):
        claim, place = volume["spec"].get("claimRef"), volume["spec"].get("hostPath")
        if claim and place:
            who = (claim["namespace"], claim["name"])
            capacity.add_metric(who, float(quantity(volume["spec"]["capacity"]["storage"])))
            used.add_metric(who, _size(Path(place["path"])))
    yield from (capacity, used)


def gpus(cluster: Cluster) -> Iterator[Metric]:
    """Metrics of DCGM's exporter: the utilization of each GPU that an engine holds."""
    utilization = GaugeMetricFamily(
        "DCGM_FI_DEV_GPU_UTIL",
        "GPU utilization (in %).",
        labels=("gpu", "UUID", "device", "modelName", "Hostname", "namespace", "pod", "container"),
    )
    products = {
        node["metadata"]["name"]: node["metadata"]["labels"].get(GPU_PRODUCT_LABEL, "") for node in cluster.list("Node")
    }
    for pod in cluster.list("Pod", namespace=""):
        metadata, node = pod["metadata"], pod["spec"].get("nodeName", "")
        for container in pod["spec"]["containers"]:
            count = int(container.get("resources", {}).get("limits", {}).get(GPU_RESOURCE, 0))
            if container["name"] != ENGINE_CONTAINER or not count or not (address := pod["status"].get("podIP")):
                continue
            busy = 100.0 if _running(address) else 0.0
            for index in range(count):
                who = (str(index), f"GPU-{metadata['uid']}-{index}", f"nvidia{index}", products.get(node, ""), node)
                utilization.add_metric((*who, metadata["namespace"], metadata["name"], container["name"]), busy)
    yield utilization


PATHS: Mapping[str, Callable[[Cluster], Iterator[Metric]]] = {
    "/kube-state-metrics": states,
    "/kubelet": volumes,
    "/dcgm": gpus,
}


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        # Files may vanish while this walks the folder.
        with contextlib.suppress(OSError):
            status = path.lstat()
            total += status.st_size if stat.S_ISREG(status.st_mode) else 0
    return total


def _running(address: str) -> bool:
    """Whether an engine works on a request; False if it does not answer."""
    url = f"http://{address}:{ENGINE_PORT}/metrics"
    try:
        with urllib.request.urlopen(url, timeout=ENGINE_SECONDS) as answer:
            text = answer.read().decode()
    except (OSError, urllib.error.URLError):
        return False
    return any(
        sample.value > 0
        for family in text_string_to_metric_families(text)
        if family.name == RUNNING
        for sample in family.samples
    )


class _Collected(Collector):
    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        yield from self._metrics


def _handler(cluster: Cluster) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            source = PATHS.get(self.path)
            if source is None:
                self.send_error(404)
                return
            registry = CollectorRegistry()
            try:
                registry.register(_Collected([*source(cluster)]))
            except LlmopsError as error:
                self.send_error(503, error.message)
                return
            content = generate_latest(registry)
            self.send_response(200)
            self.send_header("Content-Type", CONTENT_TYPE_LATEST)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
            return

    return Handler


def main() -> None:
    """Serve until SIGTERM."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--host", required=True)
    cluster = Cluster.connect(Settings.model_validate({"kubeconfig": os.environ["KUBECONFIG"]}))
    server = ThreadingHTTPServer((arguments.parse_args().host, PORT), _handler(cluster))
    signal.signal(signal.SIGTERM, lambda number, frame: threading.Thread(target=server.shutdown).start())
    server.serve_forever()
    sys.exit(0)


if __name__ == "__main__":
    main()
