"""A hand-driven kubelet, and a node that really runs pods."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
from llmops_sandbox.cluster.binaries import find_or_build_kubectl
from llmops_sandbox.cluster.controlplane import ControlPlane
from llmops_sandbox.processes import Daemon
from llmops_sandbox.standins.images import ImageStore

from llmops.clients.kubernetes.client import Cluster
from llmops.clients.kubernetes.watch import Object
from tests.support.fixtures import settings_for

T = TypeVar("T")

NODE = "played-by-hand"


@pytest.fixture(scope="module")
def agent(plane: ControlPlane) -> Iterator[None]:
    """A node that really runs pods, as processes: image `example.com/python:1` runs its first argument as a program."""
    nodes = {"back_off_seconds": 1, "back_off_limit_seconds": 1}
    capacity = {"cpu": "64", "memory": "64Gi", "pods": "200"}
    (plane.folder / "nodes.yaml").write_text(json.dumps({**nodes, "nodes": [{"name": "real", "capacity": capacity}]}))
    ImageStore(plane.folder / "images.json").add("example.com/python", "1", ("{python}", "-u", "-c"))
    daemon = Daemon("agent", plane.folder / "run")
    administrator = Cluster.connect(settings_for(plane.kubeconfig))
    daemon.start([sys.executable, "-m", "llmops_sandbox.agent", "--dir", plane.folder])
    try:
        eventually(lambda: True if _is_ready(administrator.get("Node", "real")) else None, seconds=60)
        yield
    finally:
        daemon.stop(grace=30)
        administrator.delete("Node", "real")


@pytest.fixture
def cluster(cluster: Cluster) -> Cluster:
    """The test's namespace, with the service account that pods need."""
    eventually(lambda: cluster.get("ServiceAccount", "default"), seconds=60)
    return cluster


@pytest.fixture
def kubelet(cluster: Cluster) -> Kubelet:
    return Kubelet(cluster)


class Kubelet:
    """Writes the status of pods as a kubelet does; templates that name `NODE` need no scheduler."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    def pods(self, labels: dict[str, str], count: int = 1) -> list[Object]:
        """Wait for this number of pods."""

        def enough() -> list[Object] | None:
            pods = self.cluster.list("Pod", labels=labels)
            return pods if len(pods) >= count else None

        return eventually(enough)

    def say(self, pod: Object, phase: str = "Pending", **container: Any) -> None:
        """Set the status of a pod with one container, `engine`: `state`, `lastState`, `restartCount`, `ready`."""
        ready = bool(container.get("ready"))
        container = {"name": "engine", "image": "x", "imageID": "", "restartCount": 0, "ready": False, **container}
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        condition = {"type": "Ready", "status": str(ready), "lastTransitionTime": now}
        status = {"phase": phase, "startTime": now, "conditions": [condition], "containerStatuses": [container]}
        self.cluster.patch("Pod", pod["metadata"]["name"], {"status": status}, subresource="status")

    def ready(self, pod: Object) -> None:
        """Set the container to running and ready."""
        self.say(pod, "Running", ready=True, state={"running": {"startedAt": "2026-11-25T00:00:00Z"}})

    def ended(self, pod: Object, code: int, message: str = "", reason: str = "") -> None:
        """Set the container and its pod to ended."""
        end = {"exitCode": code, "reason": reason or ("Error" if code else "Completed"), "message": message,
               "startedAt": "2026-11-25T00:00:00Z", "finishedAt": "2026-11-25T00:00:01Z"}  # fmt: skip
        self.say(pod, "Failed" if code else "Succeeded", state={"terminated": end})

    def remove(self, pod: Object) -> None:
        """Remove a terminating pod."""
        kubectl(self.cluster, "delete", "pod", pod["metadata"]["name"], "--grace-period=0", "--force")

    def event(self, pod: Object, reason: str, message: str) -> None:
        """Create a warning about a pod."""
        self.cluster.event(pod, reason, message, type="Warning")


def _is_ready(node: Object | None) -> bool:
    if node is None or node["spec"].get("taints"):
        return False
    return any(
        item["type"] == "Ready" and item["status"] == "True"
        for item in (node.get("status") or {}).get("conditions") or ()
    )


def pod_template(labels: dict[str, str], **spec: Any) -> Object:
    """A pod template for the hand-driven kubelet."""
    return {
        "metadata": {"labels": labels},
        "spec": {
            "nodeName": NODE,
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "engine", "image": "example.com/x:1"}],
            **spec,
        },
    }


def eventually(look: Callable[[], T | None], seconds: float = 20) -> T:
    """Call `look` until it returns a value, and return the value."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if (value := look()) is not None:
            return value
        time.sleep(0.05)
    raise AssertionError("it did not happen in time")


@contextmanager
def api_server_away(plane: ControlPlane) -> Generator[None]:
    """Kill the API server on entry, and start it again on exit.

    Restart the controllers too: otherwise they reconnect only after a back-off, which grows with each test.
    """
    pid = plane.apiserver.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    try:
        yield
    finally:
        for daemon in (plane.apiserver, plane.controller_manager, plane.scheduler):
            daemon.stop()
        plane.up()


def config_map(name: str, **data: str) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def kubectl(cluster: Cluster, *arguments: str, given: str | None = None) -> str:
    """Run kubectl, a client with another field manager; `given` is its standard input."""
    program = find_or_build_kubectl()
    settings = cluster.settings
    command = [program, f"--kubeconfig={settings.kubeconfig}", f"--namespace={cluster.namespace}", *arguments]
    return subprocess.run(command, input=given, check=True, capture_output=True, text=True, timeout=60).stdout


def write_kubeconfig(folder: Path, plane: ControlPlane, user: Object, *, authority: Path | None = None) -> Path:
    """A kubeconfig for the same control plane with other credentials."""
    content = json.loads(plane.kubeconfig.read_text())
    content["users"][0]["user"] = user
    if authority is not None:
        content["clusters"][0]["cluster"]["certificate-authority"] = str(authority)
    path = folder / "other.kubeconfig"
    path.write_text(json.dumps(content))
    return path
