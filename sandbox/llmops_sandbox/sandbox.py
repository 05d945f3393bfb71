"""A cluster on one machine: control plane, node agent, stand-in hub and registry, started and stopped together.

llmops gets a settings file for it, and runs the same code as against any other cluster.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from llmops import __version__
from llmops.config.settings import SETTINGS_VARIABLE
from llmops.errors import ClusterCannot
from llmops_sandbox.cluster.binaries import Progress, find_or_build
from llmops_sandbox.cluster.controlplane import ControlPlane
from llmops_sandbox.processes import Daemon
from llmops_sandbox.standins.hub import HubStore
from llmops_sandbox.standins.images import ImageStore

NAMESPACE = "llm-serving"
STORAGE_CLASS = "sandbox"
WORKER_IMAGE = f"ghcr.io/llmops-dev/worker:{__version__}"
ENGINE_PROGRAM = ("{python}", "-m", "llmops_sandbox.engine", "--host", "{pod_ip}")
WORKER_PROGRAM = ("{python}", "-m", "llmops.worker")
EVALUATION_IMAGE = f"ghcr.io/llmops-dev/evaluation:{__version__}"
EVALUATION_PROGRAM = ("{python}", "-m", "llmops.evaluation.remote")


def default_folder(name: str = "sandbox") -> Path:
    """The folder of this user's sandbox of this name (XDG_STATE_HOME)."""
    home = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    return home / "llmops" / name


@dataclass(frozen=True)
class Part:
    """A part of the sandbox, for `status`."""

    name: str
    running: bool
    detail: str


class Sandbox:
    """A sandbox with its state in one folder.

    Args:
        folder: Keeps all files of the sandbox.
        project: Folder with models/ and evals/.
        nodes: Declaration of the nodes; None takes the packaged one.
    """

    def __init__(self, folder: Path, *, project: Path | None = None, nodes: Path | None = None) -> None:
        self.folder = folder.resolve()
        self.project = (project or Path.cwd()).resolve()
        self.nodes = nodes
        run = self.folder / "run"
        self.agent = Daemon("agent", run)
        self.hub = Daemon("hub", run)
        self.registry = Daemon("registry", run)
        self.images = ImageStore(self.folder / "images.json")
        self.hub_store = HubStore(self.folder / "hub")

    @property
    def settings_file(self) -> Path:
        """The settings of llmops for this sandbox: the value of LLMOPS_SETTINGS."""
        return self.folder / "settings.yaml"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.folder / "kubeconfig"

    def up(self, progress: Progress = lambda done, total, what: None) -> ControlPlane:
        """Start the parts that do not run, and wait until the nodes are ready.

        Args:
            progress: Called while Kubernetes is built.

        Raises:
            ClusterCannot: ProcessEnded or NotReady.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        plane = ControlPlane(self.folder, find_or_build(progress))
        ports = plane.network().ports
        self._start_stand_in(
            self.hub, ports["hub"], ["llmops_sandbox.standins.hub", "--root", str(self.hub_store.root)]
        )
        self._start_stand_in(
            self.registry, ports["registry"], ["llmops_sandbox.standins.registry", "--images", str(self.images.path)]
        )
        plane.up()
        if self.nodes is not None:
            shutil.copyfile(self.nodes, self.folder / "nodes.yaml")
        serves = self.folder / "agent.json"
        if self.agent.pid is None:
            serves.unlink(missing_ok=True)
        self.agent.start([sys.executable, "-m", "llmops_sandbox.agent", "--dir", self.folder])
        self.images.add(WORKER_IMAGE.rsplit(":", 1)[0], __version__, WORKER_PROGRAM)
        self.images.add(EVALUATION_IMAGE.rsplit(":", 1)[0], __version__, EVALUATION_PROGRAM)
        self._write_settings()
        self._write_dagster_home()
        # A node's Ready may be left from an earlier agent; `agent.json` is of this one.
        _wait(serves.exists, self.agent, 30)
        self._wait_for_nodes()
        return plane

    def pod_settings(self) -> dict[str, object]:
        """The settings of llmops in the sandbox's pods, which use their own accounts."""
        content: dict[str, object] = json.loads(self.settings_file.read_text())
        return {key: value for key, value in content.items() if key != "kubeconfig"}

    def down(self, *, erase: bool = False) -> None:
        """Stop all processes, pods' processes among them.

        Args:
            erase: Remove the folder, with cluster, volumes, hub and registry.
        """
        self.agent.stop(grace=30)
        for daemon in (self.registry, self.hub, *self._plane_daemons()):
            daemon.stop()
        if erase:
            shutil.rmtree(self.folder, ignore_errors=True)

    def status(self) -> list[Part]:
        """The parts, with pid and log of each."""
        parts = [self.agent, self.hub, self.registry, *self._plane_daemons()]
        return [Part(daemon.name, daemon.pid is not None, f"pid {daemon.pid}, log {daemon.log}") for daemon in parts]

    def environment(self) -> dict[str, str]:
        """The variables that a process needs to work on this sandbox."""
        return {
            SETTINGS_VARIABLE: str(self.settings_file),
            "KUBECONFIG": str(self.kubeconfig),
            "DAGSTER_HOME": str(self.folder / "dagster"),
        }

    def _plane_daemons(self) -> Sequence[Daemon]:
        run = self.folder / "run"
        return [Daemon(name, run) for name in ("kube-scheduler", "kube-controller-manager", "kube-apiserver", "etcd")]

    def url(self, name: str) -> str:
        """Base URL of the stand-in `hub` or `registry`."""
        return json.loads((self.folder / "run" / f"{name}.json").read_text())["url"]

    def _start_stand_in(self, daemon: Daemon, port: int, module: list[str]) -> None:
        if daemon.pid is not None:
            return
        ready = self.folder / "run" / f"{daemon.name}.json"
        ready.unlink(missing_ok=True)
        daemon.start([sys.executable, "-m", *module, "--port", str(port), "--ready-file", str(ready)])
        _wait(ready.exists, daemon, 20)

    def _write_settings(self) -> None:
        content = {
            "kubeconfig": str(self.kubeconfig),
            "namespace": NAMESPACE,
            "storage_class": STORAGE_CLASS,
            "storage": "100Gi",
            "worker_image": WORKER_IMAGE,
            "evaluation_image": EVALUATION_IMAGE,
            "hub_endpoint": self.url("hub"),
            "registry_mirrors": {"docker.io": self.url("registry"), "ghcr.io": self.url("registry")},
            "models_dir": str(self.project / "models"),
            "evals_dir": str(self.project / "evals"),
        }
        self.settings_file.write_text(json.dumps(content, indent=2) + "\n")

    def _write_dagster_home(self) -> None:
        home = self.folder / "dagster"
        home.mkdir(exist_ok=True)
        (home / "dagster.yaml").write_text("telemetry: {enabled: false}\nnux: {enabled: false}\n")

    def _wait_for_nodes(self) -> None:
        from llmops.clients.kubernetes.client import Cluster
        from llmops.config.settings import load_settings

        cluster = Cluster.connect(load_settings(self.settings_file))
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
        cluster.apply(namespace)

        def ready() -> bool:
            nodes = cluster.list("Node")
            return bool(nodes) and all(_is_ready(node) for node in nodes)

        _wait(ready, self.agent, 30)


def _is_ready(node: dict[str, object]) -> bool:
    status: dict[str, list[dict[str, str]]] = node.get("status") or {}  # type: ignore[assignment]
    return any(
        condition["type"] == "Ready" and condition["status"] == "True" for condition in status.get("conditions", [])
    )


def _wait(done: Callable[[], bool], daemon: Daemon, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        daemon.check()
        if time.monotonic() > deadline:
            raise ClusterCannot(
                f"{daemon.name} of the sandbox was not ready within {seconds:.0f} s; its log ends:\n{daemon.tail()}",
                code="NotReady",
                about=daemon.name,
            )
        time.sleep(0.05)
