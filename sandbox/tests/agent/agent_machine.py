"""The machine and cluster for tests of the agent, and containers to run there."""

from __future__ import annotations

import json
import ssl
import sys
import textwrap
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from llmops_sandbox.cluster.binaries import find_or_build
from llmops_sandbox.cluster.controlplane import ControlPlane
from llmops_sandbox.processes import Daemon
from llmops_sandbox.standins.images import ImageStore

Object = dict[str, Any]
T = TypeVar("T")

NODES = """
back_off_seconds: 0.4
back_off_limit_seconds: 2
nodes:
  - name: cpu
    capacity: {cpu: "64", memory: 256Gi, ephemeral-storage: 1Ti, pods: "200"}
  - name: gpu-a
    capacity: {cpu: "64", memory: 256Gi, ephemeral-storage: 1Ti, pods: "200", nvidia.com/gpu: "1"}
    labels: {nvidia.com/gpu.product: NVIDIA-L40S}
    taints: [{key: nvidia.com/gpu, value: present, effect: NoSchedule}]
  - name: gpu-b
    capacity: {cpu: "64", memory: 256Gi, ephemeral-storage: 1Ti, pods: "200", nvidia.com/gpu: "1"}
    labels: {nvidia.com/gpu.product: NVIDIA-L40S}
    taints: [{key: nvidia.com/gpu, value: present, effect: NoSchedule}]
  - name: spare
    capacity: {cpu: "4", memory: 8Gi, ephemeral-storage: 1Ti, pods: "20"}
    taints: [{key: spare, effect: NoSchedule}]
"""


class Refused(Exception):
    """The API server refused."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code


def eventually(action: Callable[[], T | None], seconds: float = 15.0) -> T:
    """Repeat `action()` until its value is true, and return the value."""
    deadline = time.monotonic() + seconds
    while not (result := action()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s; last: {result!r}")
        time.sleep(0.04)
    return result


class Machine:
    """The sandbox's folder, its control plane and its agent."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.plane = ControlPlane(folder, find_or_build())
        self.images = ImageStore(folder / "images.json")
        self.agent = Daemon("agent", folder / "run")

    def start_agent(self) -> None:
        (self.folder / "agent.json").unlink(missing_ok=True)
        self.agent.start([sys.executable, "-m", "llmops_sandbox.agent", "--dir", self.folder])

        def serving() -> bool:
            self.agent.check()
            return (self.folder / "agent.json").exists()

        eventually(serving)

    def context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.folder / "pki" / "ca.crt"))
        context.load_cert_chain(self.folder / "pki" / "admin.crt", self.folder / "pki" / "admin.key")
        return context


class Cluster:
    """A namespace, as a user of the API sees it."""

    def __init__(self, machine: Machine, namespace: str) -> None:
        self.machine = machine
        self.namespace = namespace
        self._server = f"https://127.0.0.1:{machine.plane.network().ports['apiserver']}"
        self._context = machine.context()

    def request(self, method: str, path: str, content: Object | None = None, kind: str = "application/json") -> bytes:
        request = urllib.request.Request(
            self._server + path,
            method=method,
            data=None if content is None else json.dumps(content).encode(),
            headers={"Content-Type": kind},
        )
        try:
            with urllib.request.urlopen(request, context=self._context, timeout=30) as answer:
                return answer.read()
        except urllib.error.HTTPError as error:
            raise Refused(error.code, error.read().decode()) from error

    def path(self, kind: str, name: str = "") -> str:
        groups = {
            "deployments": "/apis/apps/v1",
            "jobs": "/apis/batch/v1",
            "nodes": "/api/v1",
            "persistentvolumes": "/api/v1",
            "leases": "/apis/coordination.k8s.io/v1",
        }
        spaced = "" if kind in ("nodes", "persistentvolumes") else f"/namespaces/{self.namespace}"
        return f"{groups.get(kind, '/api/v1')}{spaced}/{kind}" + (f"/{name}" if name else "")

    def create(self, kind: str, name: str, **content: Any) -> Object:
        metadata = {"name": name, **content.pop("metadata", {})}
        return json.loads(self.request("POST", self.path(kind), {"metadata": metadata, **content}))

    def patch(self, kind: str, name: str, content: Object) -> Object:
        patched = self.request("PATCH", self.path(kind, name), content, "application/merge-patch+json")
        return json.loads(patched)

    def get(self, kind: str, name: str) -> Object:
        return json.loads(self.request("GET", self.path(kind, name)))

    def list(self, kind: str, selector: str = "") -> list[Object]:
        query = f"?labelSelector={selector}" if selector else ""
        return json.loads(self.request("GET", self.path(kind) + query))["items"]

    def exists(self, kind: str, name: str) -> bool:
        try:
            self.get(kind, name)
        except Refused as error:
            if error.code == 404:
                return False
            raise
        return True

    def delete(self, kind: str, name: str, grace: int | None = None) -> None:
        """Request a deletion; the object may be gone."""
        options: Object = {"propagationPolicy": "Background"}
        try:
            self.request(
                "DELETE",
                self.path(kind, name),
                options | ({} if grace is None else {"gracePeriodSeconds": grace}),
            )
        except Refused as error:
            if error.code != 404:
                raise

    def pod(self, name: str, *containers: Object, labels: dict[str, str] | None = None, **spec: Any) -> Object:
        content = {"terminationGracePeriodSeconds": 2, "automountServiceAccountToken": False, **spec}
        return self.create(
            "pods", name, metadata={"labels": labels or {}}, spec={"containers": [*containers], **content}
        )

    def state(self, pod: str, container: int = 0, kind: str = "containerStatuses") -> Object:
        """The status of a container; empty while it has none."""
        statuses = self.get("pods", pod).get("status", {}).get(kind) or []
        return statuses[container] if statuses else {}

    def wait_phase(self, pod: str, phase: str, seconds: float = 15) -> Object:
        def reached() -> Object | None:
            content = self.get("pods", pod)
            return content if content["status"]["phase"] == phase else None

        return eventually(reached, seconds)

    def wait_state(self, pod: str, accept: Callable[[Object], Any], seconds: float = 15) -> Object:
        """The first container's status, once `accept` is true for it."""

        def reached() -> Object | None:
            current = self.state(pod)
            return current if current and accept(current) else None

        return eventually(reached, seconds)

    def wait_ready(self, pod: str, seconds: float = 15) -> Object:
        def ready() -> Object | None:
            content = self.get("pods", pod)
            return content if condition(content, "Ready") == "True" else None

        return eventually(ready, seconds)

    def log(self, pod: str, query: str = "") -> str:
        return self.request("GET", f"{self.path('pods', pod)}/log?{query}").decode()

    def events(self, pod: str) -> list[tuple[str, str]]:
        """Reason and message of a pod's events."""
        return [
            (event["reason"], event["message"])
            for event in self.list("events")
            if event["involvedObject"]["name"] == pod
        ]


def condition(pod: Object, kind: str) -> str | None:
    """Status of a pod's condition."""
    conditions = pod.get("status", {}).get("conditions") or []
    return next((entry["status"] for entry in conditions if entry["type"] == kind), None)


def python(name: str, script: str, **spec: Any) -> Object:
    """A container that runs a script."""
    return {"name": name, "image": "python:3", "args": ["-u", "-c", textwrap.dedent(script)], **spec}


def shell(name: str, script: str, **spec: Any) -> Object:
    """A container that runs a shell script."""
    return {"name": name, "image": "python:3", "command": ["sh", "-c", script], **spec}


CLAIM: Object = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
# For pods of `web`: the volume of its flags, and its folder.
FLAGS: Object = {"volumes": [{"name": "flags", "emptyDir": {}}]}
MOUNT: Object = {"volumeMounts": [{"name": "flags", "mountPath": "/flags"}]}

# Answers every path with its name; the file `bad` makes /health fail. It prints a line at its start and at its end.
WEB = """
import http.server, os, signal, sys, threading, time
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        if self.path == "/slow":
            self.send_response(200); self.send_header("Transfer-Encoding", "chunked"); self.end_headers()
            for number in range(20):
                self.wfile.write(b"2\\r\\n%02d\\r\\n" % number); self.wfile.flush(); time.sleep(0.1)
            self.wfile.write(b"0\\r\\n\\r\\n"); return
        bad = self.path == "/health" and os.path.exists(os.environ["FLAGS"] + "/bad")
        body = os.environ["HOSTNAME"].encode()
        self.send_response(503 if bad else 200); self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close"); self.end_headers(); self.wfile.write(body)
    def log_message(self, *args): pass
server = http.server.ThreadingHTTPServer((os.environ["BIND"], 8000), Handler)
server.daemon_threads = False
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
print("serving", flush=True)
server.serve_forever(0.05); server.server_close(); print("stopped")
"""


def web(name: str = "web", **spec: Any) -> Object:
    """A container that serves on port 8000; `/health` fails while the file /flags/bad exists."""
    return {
        "name": name,
        "image": "python:3",
        "args": ["-u", "-c", WEB],
        "env": [{"name": "BIND", "value": "0.0.0.0"}, {"name": "FLAGS", "value": "/flags"}],
        "ports": [{"name": "http", "containerPort": 8000}],
        "readinessProbe": {
            "httpGet": {"path": "/health", "port": "http"},
            "periodSeconds": 1,
            "failureThreshold": 1,
            "timeoutSeconds": 9,
        },
        **spec,
    }
