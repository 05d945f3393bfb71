"""The cluster in the node's namespaces: control plane, containerd, kubelet, kube-proxy, names, hub and registry."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from llmops.clients.kubernetes.client import Cluster
from llmops.config.settings import load_settings
from llmops.errors import ClusterCannot, LlmopsError
from llmops_sandbox.cluster import controlplane
from llmops_sandbox.cluster.binaries import cache_folder, find_or_build
from llmops_sandbox.cluster.controlplane import ControlPlane, Network, Setup
from llmops_sandbox.cluster.pki import Identity
from llmops_sandbox.containers import configs, images, packages, programs
from llmops_sandbox.containers.address import (
    ADDRESS,
    CLUSTER_DOMAIN,
    GPU_LABELS,
    GPUS,
    HUB_PORT,
    KUBERNETES,
    NAMESPACE,
    NODE,
    PODS,
    REGISTRY,
    SERVICES,
)
from llmops_sandbox.processes import Daemon
from llmops_sandbox.sandbox import EVALUATION_IMAGE, WORKER_IMAGE, Sandbox

RUN = Path("/run/llmops")
# Programs keep state in these folders, whatever they are told; here they are empty, and end with the node.
PRIVATE = ("/run", "/var/log", "/var/lib/cni")


def setup() -> Setup:
    """The control plane of a node with a network of its own: endpoints and admission are Kubernetes' own."""
    names = ("kubernetes.default", f"kubernetes.default.svc.{CLUSTER_DOMAIN}")
    identities = {identity.name: identity for identity in controlplane.IDENTITIES}
    server = identities["apiserver"]
    identities |= {
        "apiserver": Identity(server.name, server.user, hosts=(*server.hosts, ADDRESS, KUBERNETES, *names)),
        "kubelet": Identity("kubelet", f"system:node:{NODE}", group="system:nodes", hosts=("127.0.0.1", ADDRESS, NODE)),
        "proxy": Identity("proxy", "system:kube-proxy"),
    }
    ports = {name: controlplane.FIRST_PORT + number for number, name in enumerate(controlplane.PORTS)}
    return Setup(
        identities=tuple(identities.values()),
        kubeconfigs={**controlplane.KUBECONFIGS, "kubelet.kubeconfig": "kubelet", "proxy.kubeconfig": "proxy"},
        controllers=("*",),
        network=Network(pods=PODS, services=SERVICES, ports=ports),
        apiserver=(
            "--bind-address=0.0.0.0", f"--advertise-address={ADDRESS}", "--enable-admission-plugins=NodeRestriction",
        ),
    )  # fmt: skip


class Node:
    """A node and its cluster, in the namespaces of this process, which end with it.

    Args:
        folder: Keeps the cluster's state, logs and volumes; new.
        project: The checkout.
    """

    def __init__(self, folder: Path, project: Path) -> None:
        self.folder = folder
        self.project = project
        # For its files, and for what the seeding of a hub needs.
        self.sandbox = Sandbox(folder, project=project)
        self.plane = ControlPlane(folder, find_or_build(), setup())
        self._logs = folder / "run"
        (self.containerd, self.kubelet, self.proxy, self.names, self.hub, self.registry) = (
            Daemon(name, self._logs) for name in ("containerd", "kubelet", "kube-proxy", "names", "hub", "registry")
        )

    def up(self, tell: Callable[[str], None] = lambda line: None) -> None:
        """Start everything, and wait until the node is ready.

        Raises:
            ClusterCannot: ProcessEnded, ProgramFailed or NotReady.
        """
        _private_folders()
        packages.lay_over()
        _own_network()
        os.environ["PATH"] = ":".join([*map(str, programs.build()), os.environ["PATH"], "/usr/sbin", "/sbin"])
        self._write_configs()
        self.registry.start(["docker-registry", "serve", self.folder / "registry.yaml"])
        self.hub.start([
            sys.executable, "-m", "llmops_sandbox.standins.hub", "--root", self.sandbox.hub_store.root,
            "--host", ADDRESS, "--port", str(HUB_PORT), "--ready-file", self._logs / "hub.json",
        ])  # fmt: skip
        self.containerd.start(["containerd", "--config", self.folder / "containerd.toml"])
        self.plane.up(timeout=240)
        tell(f"control plane ready after {time.monotonic() - _STARTED:.0f} s")
        self.names.start([
            sys.executable, "-m", "llmops_sandbox.containers.names",
            "--url", f"https://127.0.0.1:{self.plane.network().ports['apiserver']}", "--pki", self.folder / "pki",
        ])  # fmt: skip
        self._await(self.containerd, (RUN / "containerd.sock").exists)
        self._start_kubelet()
        self._write_settings()
        cluster = Cluster.connect(load_settings(self.sandbox.settings_file))
        cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        for made in configs.storage(self.folder / "volumes"):
            cluster.apply(made)
        self._await(self.kubelet, lambda: _ready(cluster))
        cluster.patch("Node", NODE, {"status": {"capacity": {"nvidia.com/gpu": str(GPUS)}}}, subresource="status")
        self._await(self.hub, (self._logs / "hub.json").exists)
        tell(f"node ready after {time.monotonic() - _STARTED:.0f} s")

    def environment(self) -> dict[str, str]:
        """The variables that a process needs to work on the cluster."""
        return {**self.sandbox.environment(), "LLMOPS_CONTAINERS": str(self.folder)}

    def _write_configs(self) -> None:
        folder = self.folder
        for name in (
            *(f"volumes/{name}" for name in (configs.STORAGE_CLASS, configs.PLAIN_STORAGE_CLASS)),
            "cni",
            "run",
        ):
            (folder / name).mkdir(parents=True, exist_ok=True)
        files = {
            "containerd.toml": configs.containerd(cache_folder() / "containers" / "containerd", folder, RUN),
            "kubelet.yaml": configs.kubelet(folder, folder / "pki", RUN),
            "registry.yaml": configs.registry(images.content(), REGISTRY),
            "resolv.conf": f"nameserver {ADDRESS}\n",
            "cni/10-pods.conflist": configs.network(RUN),
            **{f"hosts/{host}/hosts.toml": content for host, content in configs.registry_hosts().items()},
        }
        files["dagster/dagster.yaml"] = "telemetry: {enabled: false}\nnux: {enabled: false}\n"
        for name, content in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)

    def _start_kubelet(self) -> None:
        labels = ",".join(f"{key}={value}" for key, value in GPU_LABELS.items())
        self.kubelet.start([
            "kubelet", f"--config={self.folder / 'kubelet.yaml'}", f"--kubeconfig={self.folder / 'kubelet.kubeconfig'}",
            f"--root-dir={self.folder / 'kubelet'}", f"--cert-dir={self.folder / 'kubelet' / 'pki'}",
            f"--hostname-override={NODE}", f"--node-ip={ADDRESS}", f"--node-labels={labels}",
        ])  # fmt: skip
        self.proxy.start([
            "kube-proxy", f"--kubeconfig={self.folder / 'proxy.kubeconfig'}", "--proxy-mode=iptables",
            f"--hostname-override={NODE}", f"--cluster-cidr={PODS}", "--conntrack-max-per-core=0",
            f"--bind-address={ADDRESS}", "--healthz-bind-address=127.0.0.1", "--metrics-bind-address=127.0.0.1",
            "--nodeport-addresses=primary",
        ])  # fmt: skip

    def _write_settings(self) -> None:
        url = f"http://{REGISTRY}"
        content = {
            "kubeconfig": str(self.sandbox.kubeconfig),
            "namespace": NAMESPACE,
            "storage_class": configs.STORAGE_CLASS,
            "storage": "10Gi",
            "worker_image": WORKER_IMAGE,
            "evaluation_image": EVALUATION_IMAGE,
            "hub_endpoint": f"http://{ADDRESS}:{HUB_PORT}",
            "registry_mirrors": {"docker.io": url, "ghcr.io": url},
            "models_dir": str(self.project / "models"),
            "evals_dir": str(self.project / "evals"),
        }
        self.sandbox.settings_file.write_text(json.dumps(content, indent=2) + "\n")

    def _await(self, daemon: Daemon, done: Callable[[], bool], seconds: float = 180) -> None:
        deadline = time.monotonic() + seconds
        while not done():
            daemon.check()
            if time.monotonic() > deadline:
                raise ClusterCannot(
                    f"{daemon.name} was not ready within {seconds:.0f} s; {daemon.log} ends:\n{daemon.tail()}",
                    code="NotReady",
                    about=daemon.name,
                )
            time.sleep(0.2)


_STARTED = time.monotonic()


def _ready(cluster: Cluster) -> bool:
    try:
        node = cluster.get("Node", NODE)
    except LlmopsError:
        return False
    conditions = ((node or {}).get("status") or {}).get("conditions") or []
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)


def _private_folders() -> None:
    _run("mount", "--make-rshared", "/")
    for folder in PRIVATE:
        Path(folder).mkdir(parents=True, exist_ok=True)
        _run("mount", "-t", "tmpfs", "private", folder)
    RUN.mkdir()


def _own_network() -> None:
    """The node's address on an interface that leads nowhere, so that the address is there and routes can be chosen."""
    socket.sethostname(NODE)
    for arguments in (
        "link set lo up",
        "link add node0 type veth peer name node1",
        f"address add {ADDRESS}/24 dev node0",
        "link set node0 up",
        "link set node1 up",
        "route add default dev node0",
    ):
        _run("ip", *arguments.split())
    for name in ("net.ipv4.ip_forward", "net.ipv4.conf.all.route_localnet"):
        _run("sysctl", "-qw", f"{name}=1")


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ClusterCannot(
            f"`{' '.join(command)}` failed: {done.stderr.strip()}", code="ProgramFailed", about=command[0]
        )
